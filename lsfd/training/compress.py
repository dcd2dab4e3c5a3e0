"""``lsfd compress``: candidates, choice, assembly, and the ordinary training as fine-tuning."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsfd import provenance
from lsfd.allocation import keep_freed_memory
from lsfd.atomic import write_text
from lsfd.compression.budget import Budget, parse_budget
from lsfd.compression.candidates import (
    CandidateFolder,
    Recipe,
    Shapes,
    image_error,
    missing,
    train_missing,
)
from lsfd.compression.choice import Choice, check_reach, choose_within
from lsfd.compression.costs import network_cost
from lsfd.compression.parts import Part, Shape, Split, Tail
from lsfd.config.compression import Compress
from lsfd.config.load import LoadedOptions, load_options, options_from_dict
from lsfd.data.patches import PatchDataset
from lsfd.data.store import Store
from lsfd.errors import LsfdError
from lsfd.inference.device import autocast_dtype
from lsfd.networks.slim_edsr import SlimEDSR
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.terminal import say
from lsfd.training.assembly import build_teachers
from lsfd.training.bar import Bar
from lsfd.training.distributed import Processes
from lsfd.training.folder import RunFolder
from lsfd.training.lock import held
from lsfd.training.model import training_device
from lsfd.training.planned import PlannedRun
from lsfd.training.run import train
from lsfd.training.samples import training_store
from lsfd.training.teacher_cache import describe_teacher

METHOD = "BlockWise"
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def compress(
    option_file: Path, overrides: Sequence[str], budget_text: str, *, finetune: bool = True
) -> int:
    """Compress the teacher of an option file to a budget; say what was chosen.

    The same command goes on where it was stopped; another budget takes the same candidates.

    Args:
        option_file: with a section ``compress``; its ``network_g`` plays no part.
        overrides: changes such as ``compress.iterations=500``.
        budget_text: such as ``params=300k``, see :func:`lsfd.compression.budget.parse_budget`.
        finetune: whether the assembled network is trained as the file's other sections say.

    Returns:
        Exit status: 0, or 128 + the signal that stopped the training.

    Raises:
        LsfdError: a mistake in options or budget, a budget that cannot be kept, or another process
            compresses to this one.
    """
    budget = parse_budget(budget_text)
    keep_freed_memory()
    work = Compression.of(load_options(option_file, overrides))
    with held(work.folder(budget)):
        work.train_candidates(budget)
        run, choice = work.plan(budget)
    say(choice.to_markdown())
    if not finetune:
        say(f"assembled: {work.assembled(budget)}")
        say(f"train it with: lsfd train -opt {run.option_file}")
        return 0
    if not run.is_finished():
        status = train(run.option_file, auto_resume=True)
        if status:
            return status
    cost = check_student(run.folder.student, choice)
    say(f"{run.folder.student}: {budget.describe(cost)}, within {budget}")
    return 0


def check_student(path: Path, choice: Choice) -> float:
    """Return what a fine-tuned network costs; a latency is the one measured for its choice.

    Raises:
        LsfdError: it is another network, or costs more than its budget.
    """
    network, card = read_student(path)
    if card.architecture != choice.options:
        raise LsfdError(f"{path}: is not the network that was chosen; remove it and train again")
    cost = choice.cost
    if choice.budget.kind != "latency_ms":  # Weights do not change a network's speed.
        cost = network_cost(network, card.scale, choice.budget, torch.device("cpu"))
    if cost > choice.budget.limit:
        raise LsfdError(f"{path}: {choice.budget.describe(cost)} exceed --budget {choice.budget}")
    return cost


@dataclass(frozen=True)
class Compression:
    """The compression of one teacher, for any number of budgets.

    Attributes:
        loaded: the option file.
        section: its section ``compress``.
        device: where to compute.
        split: the teacher in parts.
        store: the training images.
        shapes: the candidates of each part.
        recipe: how they are trained.
        description: all that decides how a candidate comes out.
    """

    loaded: LoadedOptions
    section: Compress
    device: torch.device
    split: Split
    store: Store
    shapes: Shapes
    recipe: Recipe
    description: Mapping[str, Any]

    @classmethod
    def of(cls, loaded: LoadedOptions) -> Compression:
        """Load the teacher and open the images.

        Raises:
            LsfdError: there is no section ``compress``, not one teacher, or no EDSR.
        """
        options, section = loaded.options, loaded.options.compress
        if section is None:
            raise LsfdError(
                f"{loaded.source}: has no section 'compress'; see options/compress_x4.yml for an "
                "example"
            )
        if len(options.network_t) != 1:
            raise loaded.error("network_t", "compression needs one teacher, no more and no less")
        (teacher,) = build_teachers(loaded)
        try:
            split = Split(teacher, section.group_size)
        except LsfdError as error:
            raise loaded.error("network_t.0", str(error)) from error
        device = training_device(options, Processes())
        split.network.to(device)
        recipe = Recipe(
            section.iterations,
            section.batch_size,
            section.lr,
            options.manual_seed,
            autocast_dtype(options.train.precision, device),
            options.train.channels_last,
        )
        store = training_store(loaded, Processes())
        data = options.datasets.train
        description = {
            "teacher": describe_teacher(teacher),
            "data": store.fingerprint,
            "patches": [section.patches, section.held_out, data.gt_size],
            "flips": [data.use_hflip, data.use_rot],
            "recipe": {**asdict(recipe), "dtype": str(recipe.dtype)},
        }
        shapes = {part.name: _shapes(part, section) for part in split.parts}
        return cls(loaded, section, device, split, store, shapes, recipe, description)

    @property
    def root(self) -> Path:
        """The folder of all budgets."""
        return Path(self.loaded.options.path.experiments_root) / self.loaded.options.name

    @property
    def candidates(self) -> CandidateFolder:
        """Where the candidates are kept."""
        return CandidateFolder(self.root / "candidates" / _digest(self.description)[:32])

    def assembled(self, budget: Budget) -> Path:
        """Return the file of the network before fine-tuning.

        Its name tells other candidates' networks apart: no training goes on from one with another.
        """
        name = f"{self._run_name(budget)}_assembled_{self._key(budget)[:8]}"
        return self.root / f"{name}.safetensors"

    def folder(self, budget: Budget) -> RunFolder:
        """Return the folder of the fine-tuning."""
        return RunFolder(self.root / self._run_name(budget))

    def train_candidates(self, budget: Budget) -> None:
        """Train what is not on disk yet; a terminal shows how long it still takes.

        Raises:
            LsfdError: it would be in vain, for the budget cannot be kept.
        """
        left = missing(self.split, self.shapes, self.candidates)
        if not left:
            return
        check_reach(self.split, self.shapes, budget, self.device)
        about = json.dumps(self.description, indent=1)
        write_text(self.candidates.root / "about.json", about + "\n")
        patches, held_out = self._patches()
        parts = self.split.parts
        # Steps of large candidates take longer: the bar counts multiply-adds.
        step = sum(parts[index].multiply_adds(shape) for index, shape in left)
        total = self.recipe.iterations * step
        with Bar(total=total, desc="candidates", bar_format=_BAR, disable=None) as bar:
            trained = train_missing(
                self.split, self.shapes, self.candidates, patches, held_out, self.recipe,
                lambda part, shape: bar.update(part.multiply_adds(shape)),
            )  # fmt: skip
            for number, (part, candidate) in enumerate(trained, 1):
                bar.write(
                    f"{part.name}: depth {candidate.shape.depth}, width {candidate.shape.width}: "
                    f"error {255 * candidate.error:.3f} of 255 ({number} of {len(left)})"
                )

    def plan(self, budget: Budget) -> tuple[PlannedRun, Choice]:
        """Choose a network within a budget and write it, its choice and its training's options.

        What was chosen before for these candidates stays: latencies measured again might differ.

        Raises:
            LsfdError: the budget cannot be kept, or a training was begun there with other options.
        """
        record_file = self.root / f"{self._run_name(budget)}.json"
        choice = self._chosen(record_file, budget)
        if choice is None:
            choice = self._choose(budget)
            save_student(self.assembled(budget), choice.network, self._card(choice))
            about = {"key": self._key(budget), **choice.to_json(), **self._errors(choice)}
            write_text(record_file, json.dumps(about, indent=1) + "\n")
        run = PlannedRun(METHOD, self.loaded.options.manual_seed, self._run_options(choice))
        run.write_options()
        return run, choice

    def _key(self, budget: Budget) -> str:
        """Return a digest of all that decides a choice."""
        shapes = {name: [asdict(shape) for shape in group] for name, group in self.shapes.items()}
        return _digest([self.description, shapes, str(budget)])

    def _chosen(self, file: Path, budget: Budget) -> Choice | None:
        """Return the choice of an earlier call."""
        if not file.exists() or not self.assembled(budget).exists():
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("key") != self._key(budget):
            return None
        network, _ = read_student(self.assembled(budget))
        assert isinstance(network, SlimEDSR)
        return Choice.from_json(record, budget, network)

    def _choose(self, budget: Budget) -> Choice:
        candidates = [
            [self.candidates.read(part, shape) for shape in self.shapes[part.name]]
            for part in self.split.parts
        ]
        return choose_within(self.split, candidates, budget, self.device)

    def _errors(self, choice: Choice) -> dict[str, float]:
        """Return the error of the assembled network, beside the sum of its parts' errors."""
        _, held_out = self._patches()
        network = choice.network.to(self.device)
        return {"assembled_error": image_error(self.split, network, held_out, self.recipe)}

    def _patches(self) -> tuple[Tensor, Tensor]:
        """Return the patches to train on and those to measure on: P x 3 x h x w, in 0..1."""
        data = self.loaded.options.datasets.train
        seed = self.loaded.options.manual_seed
        dataset = PatchDataset(self.store, data.gt_size, data.use_hflip, data.use_rot, seed)
        count = self.section.patches
        lq = torch.stack([dataset[number]["lq"] for number in range(count + self.section.held_out)])
        images = lq.to(self.device).float() / 255
        return images[:count], images[count:]

    def _run_name(self, budget: Budget) -> str:
        return f"{self.loaded.options.name}_{budget.file_name}"

    def _run_options(self, choice: Choice) -> LoadedOptions:
        """Return the options of the fine-tuning."""
        data = copy.deepcopy(self.loaded.raw)
        del data["compress"]
        data |= {"name": self._run_name(choice.budget), "network_g": choice.options}
        data["path"] = {
            **data["path"],
            "experiments_root": str(self.root),
            "pretrain_network_g": str(self.assembled(choice.budget)),
        }
        return options_from_dict(data, f"{self.loaded.source}, compressed")

    def _card(self, choice: Choice) -> StudentCard:
        options = self.loaded.options
        return StudentCard(
            architecture=choice.options,
            scale=options.scale,
            method=METHOD,
            teacher=Path(options.path.pretrain_network_t[0]).name,
            iterations=0,
            data=f"{options.datasets.train.name}: {len(self.store)} images, "
            f"fingerprint {self.store.fingerprint[:16]}",
            seed=options.manual_seed,
            **provenance.stamp(),
            note=f"assembled for {choice.budget}, not fine-tuned",
        )


def _shapes(part: Part, section: Compress) -> list[Shape]:
    widths = section.tail_widths if isinstance(part, Tail) else section.widths
    return part.shapes(section.depths, widths)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
