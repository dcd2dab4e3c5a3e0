"""What a training step costs: time and memory, measured alone and with teachers that run.

``python -m lsfd.training.timing FILE.yml`` prints the cost of the file's steps as JSON. Runs of a
comparison share processor and teacher results, so that their own clocks say little. Where methods
have stages, or take part for a while only, each part of the run is measured, and counts as long as
it lasts; so does each student of ``train.generations``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, starmap
from pathlib import Path
from statistics import fmean, median

import torch

from lsfd.atomic import scratch_folder
from lsfd.config.load import LoadedOptions, load_options, options_from_dict
from lsfd.config.options import Options
from lsfd.data.workers import end_with_input
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.phases import Phase
from lsfd.training.run import seed_everything

WARM_UP = 3
STEPS = 15


@dataclass(frozen=True)
class StepCost:
    """The cost of a run's steps.

    Attributes:
        seconds: of one, the mean over the run's students and parts of the median over a few steps.
        memory: most bytes that the process held, libraries included; on a GPU those of its memory;
            None on Windows.
    """

    seconds: float
    memory: int | None


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
    with scratch_folder() as folder:
        costs = [_measured(each) for each in students_in_row(loaded, folder)]
    return StepCost(fmean(cost.seconds for cost in costs), most_memory(costs))


def students_in_row(loaded: LoadedOptions, folder: Path) -> list[LoadedOptions]:
    """Return the options of each student of a run, for steps of which only the cost matters.

    Args:
        loaded: of the run; without ``train.generations``, which is their number, these alone.
        folder: for a teacher with random weights, in the place of the student before.
    """
    count = loaded.options.train.generations
    if count == 1:
        return [loaded]
    network, file = loaded.raw["network_g"], folder / "student.pth"
    torch.save(build_network(network).state_dict(), file)
    own = {"pretrain_network_t": str(file), "teacher_cache": None}
    paths = {**(loaded.raw.get("path") or {}), **own}
    later = options_from_dict({**loaded.raw, "network_t": network, "path": paths}, loaded.source)
    return [loaded, *[later] * (count - 1)]


def _measured(loaded: LoadedOptions) -> StepCost:
    seed_everything(loaded.options.manual_seed)
    model = LSFDModel(loaded, Processes())
    batch = loaded.options.datasets.train.batch_size_per_gpu * loaded.options.train.accumulate
    images = random_images(loaded.options, batch)
    total = 0.0
    for part in parts(loaded.options, model.phases):
        seconds = []
        for count in range(WARM_UP + STEPS):
            start = time.perf_counter()
            model.feed_data(images)
            model.optimize_parameters(part[min(count, len(part) - 1)])
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - start)
        total += len(part) * median(seconds[WARM_UP:])
    return StepCost(total / loaded.options.train.total_iter, _peak_memory(model.device))


def random_images(options: Options, batch: int) -> dict[str, torch.Tensor]:
    """Return uint8 ``lq`` B x 3 x h x w and ``gt`` B x 3 x sh x sw, as a loader gives them."""
    gt = options.datasets.train.gt_size
    sizes = {"lq": gt // options.scale, "gt": gt}
    return {
        name: torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        for name, size in sizes.items()
    }


def parts(options: Options, phases: Sequence[Phase]) -> list[range]:
    """Divide a run's iterations, counted from 1, where a phase or a method begins or ends."""
    end = options.train.total_iter + 1
    firsts = {phase.first for phase in phases}
    for distiller in options.distillers:
        firsts |= {distiller.start, (distiller.end or end) + 1}
    return list(starmap(range, pairwise(sorted({end, *(each for each in firsts if each < end)}))))


def most_memory(costs: Iterable[StepCost]) -> int | None:
    """Return the largest of some peaks; None if they are unknown."""
    return max((cost.memory for cost in costs if cost.memory is not None), default=None)


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has none.
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB.


if __name__ == "__main__":
    end_with_input()
    print(json.dumps(asdict(measure(Path(sys.argv[1])))))
