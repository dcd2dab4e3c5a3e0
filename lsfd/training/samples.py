"""The training samples of a run: the packed store and the loader of its patches."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from lsfd.config.datasets import TrainSet, ValidationSet
from lsfd.config.load import LoadedOptions
from lsfd.data.pack import ensure_store
from lsfd.data.patches import PatchDataset, StepSampler, batch_of
from lsfd.data.store import Store, open_store
from lsfd.data.workers import end_with_parent
from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation
from lsfd.training.distributed import Processes
from lsfd.training.signals import ignore_signals

LONGEST_TEMPORARY = 70
"""Characters. A socket's name has room for 107, some 35 of them behind the folder; with a longer
one the loader's processes would fall silent."""


def training_store(loaded: LoadedOptions, processes: Processes) -> Store:
    """Open the packed store of ``datasets.train``; the first process packs it where needed.

    The other processes need no images, only the folder of the store, which they only read.

    Raises:
        LsfdError: in every process; the images are missing, damaged, or do not fit together, or a
            host does not see the store that the first process sees.
    """
    section = loaded.options.datasets.train
    if len(section.dataroot_lq) > 1:
        raise loaded.error(
            "datasets.train.dataroot_lq", "give one folder that holds all low-resolution images"
        )

    def ensure() -> Store:
        return ensure_store(
            Path(section.cache_dir),
            [Path(root) for root in section.dataroot_gt],
            Path(section.dataroot_lq[0]) if section.dataroot_lq else None,
            loaded.options.scale,
            section.gt_size if section.skip_small else 0,
            degradation_of(section),
        )

    if not processes.distributed:
        return ensure()
    folder, fingerprint = processes.from_first(lambda: _identity(ensure()))
    return processes.together(lambda: _shared_store(folder, fingerprint))


def _identity(store: Store) -> tuple[Path, str]:
    return store.folder, store.fingerprint


def _shared_store(folder: Path, fingerprint: str) -> Store:
    """Open the store that the first process found, on whatever host this is."""
    advice = "all hosts must share one folder datasets.train.cache_dir; start the run again"
    try:
        store = open_store(folder)
    except LsfdError as error:
        raise LsfdError(
            f"the first process's image store is not here: {error}; {advice}"
        ) from error
    if store.fingerprint != fingerprint:
        raise LsfdError(
            f"{folder} holds other images (fingerprint {store.fingerprint[:16]}) than the first "
            f"process sees there ({fingerprint[:16]}); {advice}"
        )
    return store


def degradation_of(section: TrainSet | ValidationSet) -> Degradation | None:
    """Return what happens to a set's LR images beside the bicubic; None: nothing."""
    options = section.degradation
    return None if options is None else Degradation(**options.model_dump())


def check_workers(loaded: LoadedOptions) -> None:
    """Raise an :class:`LsfdError` if the loader's processes could not talk to this one."""
    temporary = tempfile.gettempdir()
    if loaded.options.datasets.train.num_worker_per_gpu and len(temporary) > LONGEST_TEMPORARY:
        raise loaded.error(
            "datasets.train.num_worker_per_gpu",
            f"the name of the folder for temporary files, {temporary}, is too long for the sockets "
            f"of the loader's processes; set TMPDIR to one of at most {LONGEST_TEMPORARY} "
            "characters, or give 0",
        )


def training_loader(
    loaded: LoadedOptions, dataset: PatchDataset, processes: Processes, done: int
) -> DataLoader[dict[str, torch.Tensor]]:
    """Return the batches of this process from iteration ``done`` + 1 to the last."""
    section, train = loaded.options.datasets.train, loaded.options.train
    sampler = StepSampler(
        section.batch_size_per_gpu * train.accumulate,
        done,
        train.total_iter,
        processes.rank,
        processes.world_size,
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=batch_of,
        num_workers=section.num_worker_per_gpu,
        pin_memory=loaded.options.num_gpu != 0 and torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        # Its own generator: starting the loader must not draw from the one that a resume has just
        # put back.
        generator=torch.Generator(),
    )


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Context around all of a training in which the death of a loader's process gets a sentence.

    A process that reads a mapped file whose disk has gone, for one, is killed by the system.
    """
    # Windows has no such signal.
    number = getattr(signal, "SIGCHLD", None)
    before = None if number is None else signal.getsignal(number)
    try:
        yield
    except (RuntimeError, LsfdError, ConnectionError, EOFError) as error:
        # A broken connection, or what torch raises wherever the main process is when it hears of
        # the death, perhaps while that error passes, or where it is given other words.
        broken = isinstance(error, (ConnectionError, EOFError))
        if not broken and "DataLoader worker (pid" not in str(error):
            raise
        if number is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, before or signal.SIG_DFL)  # It has been heard of.
        how = "a bus error" if "Bus error" in str(error) else "a signal"
        raise LsfdError(
            f"a process that loads training samples was ended by {how}: see that the disk of "
            "datasets.train.cache_dir is there and that memory suffices for "
            "datasets.train.num_worker_per_gpu processes, then go on with --auto_resume"
        ) from error


def _begin_worker(_number: int) -> None:
    ignore_signals()
    end_with_parent()
