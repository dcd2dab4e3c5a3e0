"""What a training step costs: time and memory, measured alone and with teachers that run.

``python -m lsfd.training.timing FILE.yml`` prints the cost of the file's steps as JSON. Runs of a
comparison share processor and teacher results, so that their own clocks say little.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from lsfd.atomic import scratch_folder
from lsfd.config.load import load_options
from lsfd.data.workers import end_with_input
from lsfd.errors import LsfdError
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.run import seed_everything

WARM_UP = 3
STEPS = 15


@dataclass(frozen=True)
class StepCost:
    """The cost of a run's last step, after all stages.

    Attributes:
        seconds: median over a few steps.
        memory: most bytes that the process held, libraries included; on a GPU those of its memory.
    """

    seconds: float
    memory: int


def step_cost(option_file: Path) -> StepCost:
    """Return what :func:`measure` finds in a process of its own.

    Raises:
        LsfdError: the option file's run cannot be built.
    """
    command = [sys.executable, "-m", "lsfd.training.timing", str(option_file)]
    with scratch_folder() as folder, (folder / "errors").open("w+b") as errors:
        # It ends with its input, which stays open for as long as this process lives.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            assert process.stdout is not None
            output = process.stdout.read()
        if process.returncode:
            errors.seek(0)
            words = errors.read().decode(errors="replace")
            raise LsfdError(f"{option_file}: a step cannot be timed: {words.strip()[-300:]}")
    return StepCost(**json.loads(output.splitlines()[-1]))


def measure(option_file: Path) -> StepCost:
    """Take some steps on random images in this process and return their cost."""
    loaded = load_options(option_file, ["path.teacher_cache=null"])
    seed_everything(loaded.options.manual_seed)
    model = LSFDModel(loaded, Processes())
    train = loaded.options.datasets.train
    size = train.gt_size // loaded.options.scale
    batch = train.batch_size_per_gpu * loaded.options.train.accumulate
    shapes = {"lq": (batch, 3, size, size), "gt": (batch, 3, train.gt_size, train.gt_size)}
    images = {
        name: torch.randint(0, 256, shape, dtype=torch.uint8) for name, shape in shapes.items()
    }
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        model.feed_data(images)
        model.optimize_parameters(loaded.options.train.total_iter)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    return StepCost(median(seconds[WARM_UP:]), _peak_memory(model.device))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB.


if __name__ == "__main__":
    end_with_input()
    print(json.dumps(asdict(measure(Path(sys.argv[1])))))
