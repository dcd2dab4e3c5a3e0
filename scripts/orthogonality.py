"""Regenerate results/orthogonality: does distillation add to pruning, quantisation, cheap layers?

    LSFD_DATA=... OMP_NUM_THREADS=1 python scripts/orthogonality.py [--jobs 1] [--iterations N]

For each technique X a 2 x 2 design, {base, X} x {without, with distillation}, at x4:

* start: for each seed the student of options/edsr_x4_lsfd.yml (EDSR 32x8) is trained without a
  teacher. A network with cheap convolutions cannot begin with its weights, and has such a start of
  its own. Starts have other seeds than what follows, so that no patch order is seen twice.
* cells: eight networks for each seed, all with that seed and therefore the same patches in the same
  order, the same number of steps, schedule and losses:
  - base: the start, as it is;
  - pruned: what is left of it without half of the channels inside blocks and upsampler;
  - quantised: the start with fake quantisation to 8 bits, ranges found on training images;
  - cheap: the cheap start;
  each trained on without a teacher, and with one (LSFD and its defaults, or --method).

All run in the ordinary trainer. The quantised students are also exported to ONNX with 8-bit integer
kernels, scored and timed there beside the others; that part is left out without the extra
``export``. How gains and their ratio are computed: lsfd/reporting/orthogonality.py. Finished runs
are not run again; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from inspect import signature
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lsfd import provenance
from lsfd.atomic import write_bytes, write_text
from lsfd.cli import exit_status
from lsfd.config.inheritance import merged
from lsfd.config.load import load_options, options_from_dict
from lsfd.distillers import DISTILLERS
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.cost import PAPER_OUTPUT
from lsfd.inference.export import export
from lsfd.inference.networks import open_network
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.cost import count_parameters, multiply_adds, take_turns
from lsfd.networks.post_training import quantize_file
from lsfd.networks.pruning import prune_file
from lsfd.networks.student_file import read_student
from lsfd.reporting.orthogonality import (
    BASE,
    KD,
    orthogonality,
    orthogonality_table,
    save_orthogonality,
)
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.training.compared import check_scores, final_scores
from lsfd.training.jobs import train_all
from lsfd.training.planned import PlannedRun
from lsfd.training.records import read_records
from lsfd.training.run import INTERRUPTED
from lsfd.training.validation import validation_sets

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "orthogonality"
OPTIONS = "options/orthogonality_x4.yml"
PRUNED, QUANTISED, CHEAP = "pruned", "quantised", "cheap"
TECHNIQUES = (PRUNED, QUANTISED, CHEAP)
START_SEED = 1000
"""Added to a cell's seed to get its start's."""
AMOUNT = 0.5
BITS = 8
ROUNDS = 5


def main() -> None:
    """Train what is missing, seed by seed, then measure and write."""
    arguments = parser().parse_args()
    os.chdir(ROOT)  # Paths in option files count from the checkout's root.
    study = Study(arguments)
    for seed in arguments.seeds:
        status = study.train(seed, arguments.jobs)
        if status:
            sys.exit(status)
    write_results(study, arguments.output)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", "--opt", type=Path, default=Path(OPTIONS))
    parser.add_argument("--set", nargs="+", action="extend", default=[], dest="overrides")
    parser.add_argument("--iterations", type=int, help="of start and cell, each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", default="LSFD", help="a distillation method with its defaults")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--experiments", type=Path, default=Path("experiments/orthogonality"))
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    return parser


class Study:
    """The runs of all designs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Read the options that all runs share."""
        self.seeds: list[int] = arguments.seeds
        self.method: str = arguments.method
        self.root: Path = arguments.experiments
        count = arguments.iterations
        given = [f"train.total_iter={count}", f"val.val_freq={count}"] if count else []
        self.shared = load_options(arguments.opt, [*given, *arguments.overrides])

    def train(self, seed: int, jobs: int) -> int:
        """Train a seed's starts, compress them, train the cells; return the exit status."""
        received = train_all(self.starts(seed), jobs)
        if not received:
            self.compress(seed)
            received = train_all(self.cells(seed), jobs)
        if received:
            print("stopped; all runs are saved: give the same command to go on")
            return INTERRUPTED + received
        shutil.rmtree(self.cache(seed), ignore_errors=True)  # Large, and not needed again.
        return 0

    def starts(self, seed: int) -> list[PlannedRun]:
        """Return the runs that cells begin with: EDSR's, and the one with cheap convolutions."""
        cheap = {"network_g": {"type": "CheapEDSR"}}
        return [
            self._run(f"start_{name}", START_SEED + seed, change)
            for name, change in ((BASE, {}), (CHEAP, cheap))
        ]

    def cells(self, seed: int) -> list[PlannedRun]:
        """Return the eight cells, those without distillation first."""
        return [
            self._cell(name, seed, distils) for distils in (False, True) for name in self.networks
        ]

    @property
    def networks(self) -> tuple[str, ...]:
        """What is trained without and with distillation."""
        return (BASE, *TECHNIQUES)

    def compress(self, seed: int) -> None:
        """Prune and quantise a seed's start, unless that is done."""
        start = self.begin(BASE, seed)
        if not self.begin(PRUNED, seed).exists():
            print(prune_file(start, AMOUNT, self.begin(PRUNED, seed)))
        if not self.begin(QUANTISED, seed).exists():
            folder = self.shared.options.datasets.train.dataroot_gt[0]
            print(quantize_file(start, Path(folder), BITS, self.begin(QUANTISED, seed)))

    def begin(self, network: str, seed: int) -> Path:
        """Return the file of what a cell begins with.

        What is made of a start lies in its run's folder: who removes that to train it anew must not
        keep what was made of the old one.
        """
        start = self.starts(seed)[network == CHEAP].folder
        if network in (BASE, CHEAP):
            return start.student
        return start.root / f"start_{network}_seed{seed}.safetensors"

    def cache(self, seed: int) -> Path:
        """Return the folder where the cells of a seed share what the teacher gave."""
        return self.root / "teacher_cache" / f"seed{seed}"

    def scores(self) -> dict[str, dict[str, dict[int, float]]]:
        """Return every cell's PSNR by set and seed.

        Raises:
            LsfdError: a cell has none on a set.
        """
        found: dict[str, dict[str, dict[int, float]]] = {}
        sets = [section.name for section in self.shared.options.datasets.validation.values()]
        for seed in self.seeds:
            for run in self.cells(seed):
                scores = final_scores(read_records(run.folder.records))
                check_scores(scores, sets, f"{run.method}, seed {seed} ({run.folder.root})")
                for name, value in scores.items():
                    found.setdefault(run.method, {}).setdefault(name, {})[seed] = value
        return found

    def _cell(self, network: str, seed: int, distils: bool) -> PlannedRun:
        file = self.begin(network, seed)
        _, card = read_student(file)
        change = {
            "distillers": [{"type": self.method if distils else "Plain"}],
            "path": {"pretrain_network_g": str(file), "teacher_cache": str(self.cache(seed))},
        }
        return self._run(network + KD * distils, seed, change, card.architecture)

    def _run(
        self,
        name: str,
        seed: int,
        change: Mapping[str, Any],
        network: Mapping[str, Any] | None = None,
    ) -> PlannedRun:
        """Return a run without a teacher, but for what is changed."""
        own = {
            "name": f"{name}_seed{seed}".replace("+", "_"),
            "manual_seed": seed,
            "distillers": [{"type": "Plain"}],
            "path": {"experiments_root": str(self.root)},
        }
        data = merged(merged(self.shared.raw, own), change)
        if network is not None:  # In the place of the other: they have other arguments.
            data["network_g"] = dict(network)
        return PlannedRun(name, seed, options_from_dict(data, f"{self.shared.source}, {name}"))


# Measuring


def write_results(study: Study, output: Path) -> None:
    """Write table, numbers, picture and records."""
    scores = study.scores()
    keep_records(study, output / "records")
    runs = {run.method: run for run in study.cells(study.seeds[0])}
    costs = measure_costs(study, runs)
    exported = score_exported(study)
    designs = {
        name: {x: asdict(orthogonality(scores, x, name)) for x in TECHNIQUES}
        for name in scores[BASE]
    }
    about = {
        "scale": study.shared.options.scale,
        "iterations": study.shared.options.train.total_iter,
        "seeds": study.seeds,
        "method": study.method,
        "distiller": distiller_options(study.method),
        "amount": AMOUNT,
        "bits": BITS,
        **provenance.stamp(),
        "date": date.today().isoformat(),
    }
    results = {"psnr_y": scores, "orthogonality": designs, "costs": costs, "exported": exported}
    write_text(output / "results.json", json.dumps({**about, **results}, indent=1) + "\n")
    text = "\n".join(
        [
            cells_table(scores),
            orthogonality_table(scores, TECHNIQUES),
            costs_table(costs),
            exported_table(exported),
        ]
    )
    write_text(output / "table.md", text)
    title = f"Does {study.method} add to other techniques? x4, {len(study.seeds)} seeds"
    save_orthogonality(scores, TECHNIQUES, output / "orthogonality.png", title)
    print(text)
    print(f"written to {output}")


def keep_records(study: Study, folder: Path) -> None:
    """Copy the records of all runs; what is there of other runs goes."""
    runs = [run for seed in study.seeds for run in (*study.starts(seed), *study.cells(seed))]
    kept = {folder / f"{run.folder.root.name}.jsonl": run.folder.records for run in runs}
    for target, records in kept.items():
        write_bytes(target, records.read_bytes())
    for other in set(folder.glob("*.jsonl")) - set(kept):
        other.unlink()


def distiller_options(method: str) -> dict[str, Any]:
    """Return a method's weights and options, which are its defaults."""
    distiller = DISTILLERS[method]
    defaults = {name: each.default for name, each in signature(distiller).parameters.items()}
    del defaults["setting"]
    return {**defaults, "weights": dict(distiller.default_weights)}


def measure_costs(study: Study, runs: Mapping[str, PlannedRun]) -> dict[str, dict[str, float]]:
    """Return size and time of each network, without distillation; the first seed's.

    Times are processor time of one thread for an image as large as papers state costs for; the
    networks take turns, so that a disturbance meets all of them.
    """
    scale = study.shared.options.scale
    height, width = (side // scale for side in PAPER_OUTPUT)
    lq = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    costs: dict[str, dict[str, float]] = {}
    ways: dict[tuple[str, str], Callable[[], object]] = {}
    torch.set_num_threads(1)
    for name in study.networks:
        network, _ = read_student(runs[name].folder.student)
        costs[name] = {
            "parameters": count_parameters(network),
            "multiply_adds": multiply_adds(network, height, width),
        }
        if name != QUANTISED:  # In torch, quantisation is only simulated.
            ways[name, "torch"] = without_gradient(network, lq)
        file = onnx_file(runs[name])
        if file is not None:
            costs[name]["onnx_bytes"] = file.stat().st_size
            ways[name, "onnxruntime"] = without_gradient(open_network(file)[0], lq)
    for (name, runtime), seconds in take_turns(ways, ROUNDS, clock=time.process_time).items():
        costs[name][f"seconds_{runtime}"] = median(seconds)
    return costs


def without_gradient(network: torch.nn.Module, lq: torch.Tensor) -> Callable[[], object]:
    """Return what runs a network on an image."""

    def run() -> object:
        with torch.no_grad():
            return network(lq)

    return run


def onnx_file(run: PlannedRun) -> Path | None:
    """Return a run's student as ONNX, written beside it once; None without the extra."""
    path = run.folder.student.with_suffix(".onnx")
    if path.exists():
        return path
    try:
        export(run.folder.student, path)
    except LsfdError as error:
        print(f"not exported: {error}")
        return None
    return path


def score_exported(study: Study) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Return, of quantised students by cell, set and seed, the PSNR as trained and in integers."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    trained = study.scores()
    for seed in study.seeds:
        for run in study.cells(seed):
            if not run.method.startswith(QUANTISED):
                continue
            file = onnx_file(run)
            if file is None:
                return {}
            for each in validation_sets(run.loaded):
                upscaler = Upscaler(open_network(file)[0], each.scale, "cpu")
                scores = evaluate(upscaler, each, each.scale)
                pair = [trained[run.method][each.name][seed], scores.psnr_y]
                found.setdefault(run.method, {}).setdefault(each.name, {})[seed] = pair
    return found


# Writing


def cells_table(scores: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    """Return every cell's mean PSNR, with the standard deviation over seeds."""
    sets = list(scores[BASE])
    rows = []
    for cell in (name + kd for name in (BASE, *TECHNIQUES) for kd in ("", KD)):
        values = [list(scores[cell][name].values()) for name in sets]
        rows.append([cell, *(spread(v) for v in values)])
    return markdown_table(["cell", *(f"{name} PSNR-Y" for name in sets)], rows)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def costs_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Return size and time, as ratios to the base's where they are times."""
    header = ["network", "parameters", "multiply-adds (G)", "ONNX file (KiB)", "torch (s)",
              "ONNX Runtime (s)", "faster than base in ONNX Runtime"]  # fmt: skip
    reference = costs[BASE].get("seconds_onnxruntime")
    rows: list[list[Cell]] = []
    for name, cost in costs.items():
        size, seconds = cost.get("onnx_bytes"), cost.get("seconds_onnxruntime")
        rows.append(
            [
                name,
                int(cost["parameters"]),
                cost["multiply_adds"] / 1e9,
                None if size is None else size / 1024,
                cost.get("seconds_torch"),
                seconds,
                None if seconds is None or reference is None else f"{reference / seconds:.2f}x",
            ]
        )
    return markdown_table(header, rows, digits={2: 2, 3: 0, 4: 3, 5: 3})


def exported_table(exported: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]) -> str:
    """Return what the exported integers reach beside what was trained, means over seeds."""
    if not exported:
        return "The quantised students were not exported: the extra `export` is not installed.\n"
    rows = []
    for cell, by_set in exported.items():
        for name, by_seed in by_set.items():
            pairs = np.array(list(by_seed.values()))
            rows.append([cell, name, *pairs.mean(axis=0), np.abs(pairs[:, 1] - pairs[:, 0]).max()])
    header = ["cell", "set", "as trained (dB)", "in integers (dB)", "largest difference"]
    return markdown_table(header, rows, digits={2: 3, 3: 3, 4: 4})


if __name__ == "__main__":
    sys.exit(exit_status("orthogonality", main))
