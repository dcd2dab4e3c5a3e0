"""A training run from option file to finished student."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import torch
from basicsr.utils.registry import MODEL_REGISTRY

from lsfd.allocation import keep_freed_memory
from lsfd.atomic import write_bytes
from lsfd.config.changes import Change
from lsfd.config.load import LoadedOptions, load_options
from lsfd.data.patches import PatchDataset
from lsfd.evaluation.sets import BenchmarkSet
from lsfd.networks.student_file import save_student
from lsfd.training import distributed
from lsfd.training.checkpoint import (
    SUFFIX,
    checkpoints,
    load_checkpoint,
    newest_readable,
    random_state,
    remove_after,
    remove_old,
    restore_random_state,
    save_checkpoint,
)
from lsfd.training.distributed import Launcher, Processes
from lsfd.training.folder import RunFolder
from lsfd.training.generations import generations
from lsfd.training.lock import held
from lsfd.training.maps import save_maps
from lsfd.training.model import LSFDModel
from lsfd.training.origin import Origin
from lsfd.training.records import append_record, forget_after, read_records
from lsfd.training.reporter import LOGGER, Reporter, log_to
from lsfd.training.resume import check_options, check_origin
from lsfd.training.samples import (
    check_workers,
    naming_dead_workers,
    training_loader,
    training_store,
)
from lsfd.training.signals import StopSignals
from lsfd.training.validation import (
    Best,
    Scores,
    Validation,
    better,
    judge,
    validate,
    validation_sets,
)

DEBUG_OVERRIDES = ("logger.print_freq=1", "logger.save_checkpoint_freq=8", "val.val_freq=8")
INTERRUPTED = 128
"""Exit status of a run that a signal stopped: this plus the signal's number, as shells have it."""


def train(
    option_file: Path,
    overrides: Sequence[str] = (),
    *,
    auto_resume: bool = False,
    launcher: Launcher = "none",
    debug: bool = False,
) -> int:
    """Train a student as an option file says.

    Args:
        option_file: BasicSR-shaped YAML.
        overrides: ``train.total_iter=2000`` and the like.
        auto_resume: go on from the run's newest checkpoint, if it has one. So does, without being
            told, a job that torchrun or Slurm starts again.
        launcher: how the processes of a distributed run were started.
        debug: log every step, validate and save every 8, under the name ``debug_<name>``.

    Returns:
        Exit status: 0, or 128 + the signal that stopped the run.

    Raises:
        LsfdError: what is wrong, where, and what to do.
    """
    keep_freed_memory()
    loaded = load_options(option_file, [*overrides, *(DEBUG_OVERRIDES if debug else ())])
    if debug:
        overrides = [*overrides, *DEBUG_OVERRIDES]
        if not loaded.options.name.startswith("debug"):
            overrides = [*overrides, f"name=debug_{loaded.options.name}"]
    if loaded.options.compare is not None:
        raise loaded.error("compare", "this file is for `lsfd compare`; remove it to train")
    if loaded.options.compress is not None:
        raise loaded.error("compress", "this file is for `lsfd compress`; remove it to train")
    use_cuda = loaded.options.num_gpu != 0 and torch.cuda.is_available()
    section = loaded.options.dist_params
    processes = distributed.start(launcher, use_cuda, section.backend, section.port)
    try:
        return train_generations(option_file, overrides, processes, auto_resume=auto_resume)
    finally:
        distributed.stop()


def train_generations(
    option_file: Path, overrides: Sequence[str], processes: Processes, *, auto_resume: bool
) -> int:
    """Train the student of an option file, or several in a row; return the exit status."""
    row = list(generations(option_file, overrides))
    with ExitStack() as locks:

        def lock() -> None:
            for loaded in row:
                locks.enter_context(held(RunFolder.of(loaded)))

        processes.from_first(lock)
        for number, loaded in enumerate(row, start=1):
            # A later student needs its teacher as it is; the last one is trained, or gone on with.
            if number < len(row) and processes.from_first(partial(_is_done, loaded, auto_resume)):
                continue
            has_workers = loaded.options.datasets.train.num_worker_per_gpu
            with naming_dead_workers() if has_workers else nullcontext():
                status = Run(loaded, processes).go(auto_resume=auto_resume)
            if status:
                return status
    return 0


def is_trained(loaded: LoadedOptions) -> bool:
    """Return whether the run of these options has its student already.

    Raises:
        LsfdError: a run with other options has, under the same name.
    """
    folder = RunFolder.of(loaded)
    if not folder.student.exists():
        return False
    check_options(folder, loaded, is_finished=True)
    return True


def _is_done(loaded: LoadedOptions, auto_resume: bool) -> bool:
    """Return whether the run has its student already, and would be gone on with."""
    return _goes_on(RunFolder.of(loaded), auto_resume) and is_trained(loaded)


def _goes_on(folder: RunFolder, auto_resume: bool) -> bool:
    """Return whether a run is to go on where it is: it was said, or its own job starts again.

    What an older job left under the run's name is no business of a job that starts again.
    """
    if auto_resume or not distributed.is_restart():
        return auto_resume
    begun = [record for record in read_records(folder.records) if record.get("kind") == "run"]
    return bool(begun) and begun[-1].get("job") == distributed.job()


class Run:
    """One run in one process: everything is built, and found fit, before anything is written."""

    def __init__(self, loaded: LoadedOptions, processes: Processes) -> None:
        options = loaded.options
        self.loaded = loaded
        self.options = options
        self.processes = processes
        self.folder = RunFolder.of(loaded)
        check_workers(loaded)
        seed_everything(options.manual_seed)
        self.model: LSFDModel = MODEL_REGISTRY.get(options.model_type)(loaded, processes)
        self.sets: list[BenchmarkSet] = processes.from_first(lambda: validation_sets(loaded))
        store = training_store(loaded, processes)
        self.dataset = PatchDataset(
            store,
            options.datasets.train.gt_size,
            options.datasets.train.use_hflip,
            options.datasets.train.use_rot,
            options.manual_seed,
        )
        precision = str(self.model.dtype or torch.float32).removeprefix("torch.")
        teachers = tuple(self.model.teacher_digests)
        self.origin = Origin(loaded, store, precision, processes.world_size, teachers)
        self.iteration = 0
        self._change: Change | None = None
        self.best: Best | None = None
        self.scores: Scores = {}

    def go(self, *, auto_resume: bool) -> int:
        """Train to the end, or until a signal; return the exit status."""
        state, source = self.processes.from_first(lambda: self._state_to_resume(auto_resume))
        # Each process draws random numbers of its own; the student was made from one seed.
        seed_everything(self.options.manual_seed + self.processes.rank)
        if state is not None and source is not None:
            self._restore(state, source)
        self.processes.from_first(lambda: self._open_folder(source))
        with ExitStack() as stack:
            reporter = stack.enter_context(self._reporter()) if self.processes.is_first else None
            signals = stack.enter_context(StopSignals(self.processes, self.model.device))
            received = self._loop(signals, reporter)
        if received:
            LOGGER.info(
                "stopped at iteration %d of %d; the checkpoint is saved: go on with --auto_resume",
                self.iteration, self.options.train.total_iter,
            )  # fmt: skip
            return INTERRUPTED + received
        self.processes.from_first(self._save_students)
        return 0

    def _loop(self, signals: StopSignals, reporter: Reporter | None) -> int:
        """Step through the batches; return the signal that stopped the loop, or 0."""
        total = self.options.train.total_iter
        logger, val = self.options.logger, self.options.val
        received = 0
        for batch in training_loader(self.loaded, self.dataset, self.processes, self.iteration):
            self.iteration += 1
            self.model.feed_data(batch)
            self.model.optimize_parameters(self.iteration)
            received = signals.received()
            last = self.iteration == total
            if reporter is not None:
                reporter.step()
            if self.iteration % logger.print_freq == 0 or last:
                losses = self.model.get_current_log()
                if reporter is not None:
                    lr = self.model.get_current_learning_rate()[0]
                    reporter.losses(self.iteration, losses, lr, self.model.skipped.total)
            if self.iteration % val.val_freq == 0 or last:
                self._validate(reporter)
            if self.iteration % logger.save_checkpoint_freq == 0 or last or received:
                self._save(reporter)
            if received:
                break
        return received

    def _validate(self, reporter: Reporter | None) -> None:
        """Score the student, each process on its share of the images; the first one tells."""
        if not self.sets:
            return
        self.processes.from_first(self.folder.check)  # Nothing may be written where it was.
        pictures = self._pictures if self.options.val.save_img else None
        found = validate(self.model.net_g_ema, self.sets, self.loaded, pictures, self.processes)
        self.scores = found.scores
        self.processes.from_first(lambda: self._keep_scores(reporter, found))

    @property
    def _pictures(self) -> Path:
        """The folder of this iteration's pictures."""
        return self.folder.visualization / str(self.iteration)

    def _keep_scores(self, reporter: Reporter | None, found: Validation) -> None:
        """Report the scores, with pictures of the methods' maps, and save the best student."""
        assert reporter is not None  # This is the first process.
        self.folder.check()
        if self.options.val.save_maps:
            save_maps(self.model, self.sets, self.iteration, self._pictures)
        new_best = better(self.scores, self.best, self.loaded, self.iteration)
        if new_best is not None:
            self.best = new_best
            path = self.folder.models / "net_g_best.safetensors"
            save_student(path, self.model.net_g_ema, self.origin.card(self.iteration, self.scores))
        for index, (name, scores) in enumerate(self.scores.items()):
            note = f" (best {self.best.value:.4f})" if index == 0 and self.best else ""
            reporter.scores(self.iteration, name, scores, found.images[name], note)
        reporter.restart_clock(self.iteration)

    def _save(self, reporter: Reporter | None) -> None:
        """Save all that a resume needs."""
        own = self.processes.gather(lambda: (random_state(), self.model.loss_means.state()))
        self.processes.from_first(lambda: self._write(own, reporter))

    def _write(
        self, own: list[tuple[dict[str, Any], list[Any]]], reporter: Reporter | None
    ) -> None:
        """Write the student as it is now, the curves, and the checkpoint.

        The checkpoint comes last, so that a resume repeats whatever a kill left undone.

        Args:
            own: what each process has of its own: random state, and losses that are not told yet.
            reporter: of the first process, which this is.
        """
        assert reporter is not None  # This is the first process.
        self.folder.check()
        path = self.folder.models / "net_g_latest.safetensors"
        save_student(path, self.model.net_g_ema, self.origin.card(self.iteration, self.scores))
        reporter.curves()
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "random": [random for random, _ in own],
            "logs": [log for _, log in own],
            "best": None if self.best is None else [self.best.value, self.best.iteration],
            "judge": judge(self.loaded),
            "scores": self.scores,
        }
        save_checkpoint(self.folder.states / f"{self.iteration}{SUFFIX}", state)
        remove_old(self.folder.states, self.options.logger.keep_checkpoints)
        reporter.restart_clock(self.iteration)

    def _save_students(self) -> None:
        """Write the finished student, and its peers."""
        self.folder.check()
        card = self.origin.card(self.iteration, self.scores)
        save_student(self.folder.student, self.model.net_g_ema, card)
        for index, peer in enumerate(self.model.peers_ema):
            card = self.origin.card(self.iteration, {}, peer=index)
            save_student(self.folder.peer(index + 1), peer, card)
        LOGGER.info("the student is in %s", self.folder.student)

    def _state_to_resume(self, auto_resume: bool) -> tuple[dict[str, Any] | None, Path | None]:
        """Return the checkpoint to go on from, and its path: the newest, or the one named."""
        if _goes_on(self.folder, auto_resume) and checkpoints(self.folder.states):
            self._change = check_options(self.folder, self.loaded)
            check_origin(self.folder, self.origin)
            return newest_readable(self.folder.states)
        named = self.options.path.resume_state
        return (load_checkpoint(Path(named)), Path(named)) if named else (None, None)

    def _restore(self, state: dict[str, Any], source: Path) -> None:
        self.model.load_state_dict(state["model"], source)
        self.iteration = state["iteration"]
        if self.iteration > self.options.train.total_iter:
            raise self.loaded.error(
                "train.total_iter",
                f"{source} has {self.iteration} iterations behind it already; raise this, or go on "
                "from an earlier checkpoint with path.resume_state",
            )
        self.scores = state["scores"]
        same = state.get("judge", judge(self.loaded)) == judge(self.loaded)
        self.best = Best(*state["best"]) if state["best"] and same else None
        if len(state["random"]) == self.processes.world_size:
            restore_random_state(state["random"][self.processes.rank])
            if "logs" in state:  # An older version has them in the model's.
                self.model.loss_means.load_state(state["logs"][self.processes.rank])

    def _open_folder(self, source: Path | None) -> None:
        """Make or clean the run's folder; ``source`` is the checkpoint that it goes on from."""
        # A checkpoint of another run begins a new one, whatever has the name so far.
        of_this = source is not None and source.resolve().parent == self.folder.states.resolve()
        moved = self.folder.create(resuming=of_this)
        stamp = time.strftime("%Y%m%d_%H%M%S")
        log_to(self.folder.root / f"train_{self.options.name}_{stamp}.log")
        if moved is not None:
            LOGGER.info("an earlier run of this name is now %s", moved)
        forget_after(self.folder.records, self.iteration)
        remove_after(self.folder.states, self.iteration)
        # A kill may have come between writing the newest checkpoint and deleting the oldest.
        remove_old(self.folder.states, self.options.logger.keep_checkpoints)
        write_bytes(self.folder.options, self.loaded.to_yaml().encode(), make_folder=False)
        append_record(self.folder.records, self.origin.record(resumed=source is not None))
        parameters = sum(p.numel() for p in self.model.net_g.parameters())
        LOGGER.info(
            "%s: student %s with %s parameters, %d training images, %s, %s, batch %s, "
            "learning rate %s",
            self.options.name, self.options.network_g.type, f"{parameters:,}",
            len(self.origin.store), self.model.device, self.origin.precision,
            *self._batch_and_rate(),
        )  # fmt: skip
        if self.model.begun_anew:
            LOGGER.info(
                "path.pretrain_network_g does not fit these weights, which begin anew: %s",
                ", ".join(self.model.begun_anew),
            )
        if source is not None:
            LOGGER.info("going on from iteration %d (%s)", self.iteration, source)
        if self._change is not None:
            LOGGER.info("%s", self._change)

    def _batch_and_rate(self) -> tuple[str, str]:
        """Return the global batch and the learning rate, with what they are made of."""
        train = self.options.train
        batch, rate = str(self.origin.batch), f"{self.origin.learning_rate:.4g}"
        factors = {"processes": self.processes.world_size, "accumulated": train.accumulate}
        larger = [f"{count} {of}" for of, count in factors.items() if count > 1]
        if larger:
            own = f"{self.options.datasets.train.batch_size_per_gpu} a process"
            batch += f" ({' x '.join([own, *larger])})"
            rate += f" ({train.optim_g.lr:.4g}, scaling {train.lr_scaling})"
        return batch, rate

    def _reporter(self) -> Reporter:
        return Reporter(
            self.folder,
            self.options.name,
            self.options.train.total_iter,
            self.iteration,
            self.options.logger.use_tb_logger,
        )


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
