"""Trains each run of a JSON file for a few steps; started in two processes by torchrun.

Writes for each run by how much the weights of the two processes differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from lsfd.config.load import options_from_dict
from lsfd.training import distributed
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.run import seed_everything

STEPS = 8


def difference(options: dict[str, Any], processes: Processes) -> float:
    """Train on images of this process's own; return the largest difference of any weight."""
    seed_everything(options["manual_seed"])
    model = LSFDModel(options_from_dict(options), processes)
    seed_everything(options["manual_seed"] + processes.rank)
    for iteration in range(1, STEPS + 1):
        model.feed_data({"lq": torch.rand(2, 3, 12, 12), "gt": torch.rand(2, 3, 24, 24)})
        model.optimize_parameters(iteration)
    trained = [*model.step.parameters(), *model.net_g_ema.parameters()]
    weights = torch.cat([parameter.detach().flatten() for parameter in trained])
    both = [torch.empty_like(weights) for _ in range(processes.world_size)]
    torch.distributed.all_gather(both, weights)
    return float((both[0] - both[1]).abs().max())


def main() -> None:
    """Train all runs; the first process writes the answer."""
    runs = json.loads(Path(sys.argv[1]).read_text())
    processes = distributed.start("pytorch", use_cuda=False, backend="gloo", port=29500)
    answer = {name: difference(options, processes) for name, options in runs.items()}
    if processes.is_first:
        Path(sys.argv[2]).write_text(json.dumps(answer))
    distributed.stop()


if __name__ == "__main__":
    main()
