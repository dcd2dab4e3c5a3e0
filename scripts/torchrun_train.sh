#!/bin/bash
# One training on several hosts without a scheduler, a process for each GPU. On every host the same:
#
#   HOSTS=2 FIRST=host1 scripts/torchrun_train.sh options/edsr_x4_lsfd.yml
#   HOSTS=1 PROCESSES=2 scripts/torchrun_train.sh options/edsr_x4_lsfd.yml --set num_gpu=0
#
# FIRST is the host, one of them, where all meet, at PORT. What follows the option file goes to
# `lsfd train`. Hosts share folders as scripts/slurm_train.sbatch says.
#
# When a process dies, all are started again, RESTARTS times, and go on from the last checkpoint. A
# host that was lost may come back with the same command.

set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: HOSTS=N FIRST=HOST $0 OPTIONS.yml [further arguments of lsfd train]" >&2
    exit 2
fi
exec torchrun \
    --nnodes="${HOSTS:-1}" \
    --nproc_per_node="${PROCESSES:-gpu}" \
    --max_restarts="${RESTARTS:-3}" \
    --rdzv_backend=c10d \
    --rdzv_endpoint="${FIRST:-localhost}:${PORT:-29400}" \
    --rdzv_id="$(basename "$1" .yml)" \
    -m lsfd train --launcher pytorch --auto_resume -opt "$@"
