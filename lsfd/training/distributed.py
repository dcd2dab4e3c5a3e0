"""Starting and stopping distributed training: torchrun, Slurm, or one process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import distributed

from lsfd.errors import LsfdError

Launcher = Literal["none", "pytorch", "slurm"]


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether a process group exists."""
        return distributed.is_initialized()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.distributed:
            distributed.barrier()


def start(launcher: Launcher, use_cuda: bool, backend: str, port: int) -> Processes:
    """Join the process group that the launcher describes in the environment.

    Args:
        launcher: ``pytorch`` (torchrun), ``slurm`` (srun), or ``none``.
        use_cuda: whether each process has a GPU.
        backend: ``nccl`` or ``gloo``; NCCL needs GPUs, without them it is gloo in either case.
        port: where the processes meet, unless the launcher set MASTER_PORT.

    Raises:
        LsfdError: the launcher's environment variables are missing, there are fewer GPUs than
            processes, or the processes do not find each other.
    """
    if launcher == "none":
        return Processes()
    if launcher == "slurm":
        _translate_slurm()
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:
        how = "torchrun --nproc_per_node=2 lsfd/train.py -opt ... --launcher pytorch"
        raise LsfdError(
            f"--launcher {launcher}: {', '.join(missing)} is not in the environment; start with "
            f"{how if launcher == 'pytorch' else 'srun'}"
        )
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda:
        _take_gpu(local_rank)
    os.environ.setdefault("MASTER_PORT", str(port))
    try:
        distributed.init_process_group(
            backend if use_cuda else "gloo", rank=rank, world_size=world_size
        )
    except RuntimeError as error:
        raise LsfdError(
            f"--launcher {launcher}: process {rank} of {world_size} does not reach the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Processes(rank, world_size, local_rank)


def _take_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise LsfdError(
            f"process {local_rank + 1} of this machine has no GPU, PyTorch sees {count}; start as "
            "many processes as there are GPUs, or set num_gpu: 0 to train on the CPU"
        )
    torch.cuda.set_device(local_rank)


def _translate_slurm() -> None:
    """Set torch's variables from Slurm's; the first node's name is the master address."""
    try:
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
        os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
        os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
        nodes = os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise LsfdError(f"--launcher slurm: {error.args[0]} is not set; start with srun") from None
    os.environ.setdefault("MASTER_ADDR", _first_node(nodes))


def _first_node(nodes: str) -> str:
    """Return the first host of Slurm's list: ``a[03-05,9],b1`` gives ``a03``."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.split(",")[0]
    return head + rest.split("]")[0].split(",")[0].split("-")[0]


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
