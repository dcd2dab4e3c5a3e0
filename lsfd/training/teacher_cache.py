"""Results of frozen teachers on the training samples, kept on disk for other runs.

Runs that compare methods give the same samples to the same teacher. The first run keeps what the
teacher makes of them, the others read it::

    ROOT/EDSR-1f0c.../meta.json         all that decides the results; the folder is named after it
    ROOT/EDSR-1f0c.../output.bin        the teacher's outputs (output.slow_tail.bin where a tap
                                        lies in the tail, which rounds otherwise then)
    ROOT/EDSR-1f0c.../tap.body.4.bin    its features at one tap; runs with other taps add files

A record of such a file is a tensor's memory as it was computed, so that training goes on bit for
bit as with a teacher that runs. Behind it stands a seal, the SHA-256 of the teacher's input, the
tensor's layout and its memory, and nothing is believed without it: a record that a killed process
or a power cut left half written, that was damaged, or that belongs to another input is computed
again. So processes may share a cache, too; they write the same.

Records are numbered by the samples that they belong to, not by the iteration: whether one process
or several, at once or accumulated, batches of one size are the same ones in the same order.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import torch
from torch import Tensor, nn

from lsfd.atomic import write_text
from lsfd.config.options import Options
from lsfd.errors import LsfdError
from lsfd.networks.quick import lie_in_tail
from lsfd.networks.trial import evaluating, trial_input
from lsfd.provenance import processor
from lsfd.training.assembly import Parts

Result: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""A teacher's output and its features by tap name."""

VERSION = 3
"""To be raised when records or taps change their meaning."""
PURPOSE = (
    "Results of a frozen teacher on training samples, kept by lsfd (path.teacher_cache) so that "
    "other runs need not compute them again. May be deleted whenever no run uses it."
)
HEADER_BYTES = 4096
SEAL_BYTES = 32
SPARE_BYTES = 2**30
"""Disk space that a cache leaves to checkpoints and the like."""


def teacher_caches(
    options: Options,
    parts: Parts,
    device: torch.device,
    dtype: torch.dtype | None,
    world_size: int,
) -> list[TeacherCache]:
    """Return a cache for each teacher below ``path.teacher_cache``; none without that option.

    Args:
        options: of the run.
        parts: what the run trains and learns from, still on the CPU.
        device: where the teachers are going to run.
        dtype: their autocast type; None: plain float32.
        world_size: number of processes that train together.
    """
    if options.path.teacher_cache is None:
        return []
    root = Path(options.path.teacher_cache)
    common = {
        "version": VERSION,
        "samples": describe_samples(options),
        "arithmetic": describe_arithmetic(options, device, dtype),
    }
    count = options.train.total_iter * options.train.accumulate * world_size
    return [
        TeacherCache(root, {"teacher": describe_teacher(teacher), **common}, taps, count)
        for teacher, taps in zip(parts.teachers, parts.teacher_taps, strict=True)
    ]


def describe_teacher(teacher: nn.Module) -> dict[str, str]:
    """Return what tells a teacher's results from those of all others.

    Its output for a trial image stands for all that is in no weight, such as the scale of residual
    branches, or the code of somebody's own network.
    """
    with evaluating(teacher):
        output = teacher(trial_input(teacher))
    return {
        "network": type(teacher).__name__,
        "weights": weights_digest(teacher),
        "trial": _seal(_memory(output)).hex(),
    }


def weights_digest(network: nn.Module) -> str:
    """Return a digest of all weights and buffers of a network, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(_seal(name, Layout.of(value).to_json(), _memory(value)))
    return digest.hexdigest()


def describe_samples(options: Options) -> dict[str, Any]:
    """Return what decides which samples a run draws, and how many at once."""
    train = options.datasets.train
    chosen = {"gt_size", "use_hflip", "use_rot", "skip_small", "batch_size_per_gpu", "degradation"}
    return {
        "seed": options.manual_seed,
        "scale": options.scale,
        "gt": [str(Path(root).resolve()) for root in train.dataroot_gt],
        "lq": [str(Path(root).resolve()) for root in train.dataroot_lq],
        **train.model_dump(include=chosen, exclude_none=True),
    }


def describe_arithmetic(
    options: Options, device: torch.device, dtype: torch.dtype | None
) -> dict[str, Any]:
    """Return what decides the last bits of a network's results."""
    on_gpu = device.type == "cuda"
    return {
        "precision": str(dtype or torch.float32).removeprefix("torch."),
        "channels_last": options.train.channels_last,
        "compile": options.train.compile,
        "torch": torch.__version__,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "threads": None if on_gpu else torch.get_num_threads(),
    }


class TeacherCache:
    """One teacher's results on the batches of one series of samples."""

    def __init__(
        self, root: Path, description: Mapping[str, Any], taps: Sequence[str], count: int
    ) -> None:
        """Choose the folder; nothing is written before there is a result to keep.

        Args:
            root: where the caches of all teachers and samples lie.
            description: plain data, all that decides the results.
            taps: names of the features that the teacher gives.
            count: how many batches the run takes.
        """
        key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        self.folder = root / f"{description['teacher']['network']}-{key[:32]}"
        self._description = description
        self._taps = taps
        self._count = count
        # A module may have any name, and that of an input tap has a colon in it.
        output = "output.slow_tail" if lie_in_tail(taps) else "output"
        names = [output, *(f"tap.{quote(tap, safe='')}" for tap in taps)]
        self._files = [Records(self.folder / f"{name}.bin") for name in names]
        self._is_prepared = False

    def __call__(self, lq: Tensor, number: int, teacher: Callable[[Tensor], Result]) -> Result:
        """Return the result on a batch: the one kept, or what the teacher gives, which is kept.

        Args:
            lq: the teacher's input, B x 3 x h x w.
            number: of this batch in the series of samples, from 0.
            teacher: runs where the result, or a part of it, is not there.

        Raises:
            LsfdError: the disk is full, or the folder cannot be used.
        """
        with self._naming_errors():
            lq_digest = _seal(Layout.of(lq).to_json(), _memory(lq))
            found = [file.read(number, lq_digest, lq.device) for file in self._files]
        kept = [tensor for tensor in found if tensor is not None]
        if len(kept) == len(found):
            return kept[0], dict(zip(self._taps, kept[1:], strict=True))
        output, features = teacher(lq)
        tensors = [output, *(features[tap] for tap in self._taps)]
        with self._naming_errors():
            self._prepare(tensors)
            for file, old, tensor in zip(self._files, found, tensors, strict=True):
                if old is None:
                    file.write(number, lq_digest, tensor)
        return output, features

    def _prepare(self, tensors: Sequence[Tensor]) -> None:
        """Make the folder before the first write, unless its disk is too small."""
        if self._is_prepared:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_room(tensors)
        meta = {"purpose": PURPOSE, **self._description}
        write_text(self.folder / "meta.json", json.dumps(meta, indent=1) + "\n")
        self._is_prepared = True

    def _check_room(self, tensors: Sequence[Tensor]) -> None:
        """Refuse what would fill the disk in the middle of the run."""
        sizes = zip(self._files, tensors, strict=True)
        needed = sum(file.growth(self._count, tensor) for file, tensor in sizes)
        free = shutil.disk_usage(self.folder).free
        if needed and free < needed + SPARE_BYTES:
            raise LsfdError(
                f"path.teacher_cache: {self.folder} will take {needed / 2**30:.1f} GiB and leave "
                f"{SPARE_BYTES / 2**30:.0f} GiB free, but its disk has {free / 2**30:.1f} GiB; "
                "free space, choose another folder, or give null to do without"
            )

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LsfdError(
                f"path.teacher_cache: {self.folder} cannot be used: {error.strerror or error}; "
                "mend that, choose another folder, or give null to do without, and go on with "
                "--auto_resume"
            ) from error


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory.

    Attributes:
        shape: its size in each dimension.
        stride: elements of memory from one index to the next in each dimension.
        dtype: torch's name of its number format.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """Return a tensor's layout."""
        return cls(tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch."))

    @classmethod
    def from_json(cls, text: str | bytes) -> Layout:
        """Return the layout that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        values = json.loads(text)
        layout = cls(tuple(values["shape"]), tuple(values["stride"]), values["dtype"])
        numbers = (*layout.shape, *layout.stride)
        if len(layout.shape) != len(layout.stride) or not all(
            type(number) is int and number >= 0 for number in numbers
        ):
            raise ValueError("no layout of a tensor")
        if not isinstance(getattr(torch, layout.dtype, None), torch.dtype):
            raise ValueError(f"there is no number format {layout.dtype}")
        return layout

    def to_json(self) -> str:
        """Return the layout as a text."""
        return json.dumps(asdict(self))

    @property
    def span(self) -> int:
        """Elements of memory from the first to the last, those between rows included."""
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory from the first element to the last."""
        return self.span * self._type.itemsize

    def tensor(self, memory: Tensor) -> Tensor:
        """Return bytes, a uint8 tensor, as a tensor of this layout."""
        return memory.view(self._type).as_strided(self.shape, self.stride)

    @property
    def _type(self) -> torch.dtype:
        return getattr(torch, self.dtype)


class Records:
    """A file of tensors of one layout, found by their number.

    The layout stands in the file's header, under a seal as every record. The file is never mapped
    into memory: on a full or damaged disk that would end the process instead of raising an error.
    """

    def __init__(self, path: Path) -> None:
        """Name a file, which need not be there."""
        self._path = path

    def read(self, number: int, lq_digest: bytes, device: torch.device) -> Tensor | None:
        """Return a tensor on ``device``, strides and all; None if it is not there for certain.

        Args:
            number: of the record.
            lq_digest: of the teacher's input.
            device: where the tensor is wanted.
        """
        if not self._path.exists():
            return None
        with self._path.open("rb", buffering=0) as file:
            layout = _read_layout(file)
            if layout is None:
                return None
            place, size = _place(layout, number), layout.num_bytes + SEAL_BYTES
            if place + size > self._path.stat().st_size:  # Before memory is taken for it.
                return None
            record = torch.empty(size, dtype=torch.uint8)
            file.seek(place)
            if file.readinto(record.numpy().data) != len(record):
                return None
        memory, seal = record[: layout.num_bytes], record[layout.num_bytes :]
        if seal.numpy().tobytes() != _seal(lq_digest, layout.to_json(), memory.numpy().data):
            return None
        return layout.tensor(memory.to(device))

    def write(self, number: int, lq_digest: bytes, tensor: Tensor) -> None:
        """Write a record, its seal last; one of the same number is written over."""
        layout, memory = Layout.of(tensor), _memory(tensor)
        self._path.touch()
        with self._path.open("r+b", buffering=0) as file:
            if layout != _read_layout(file):
                text = layout.to_json().ljust(HEADER_BYTES - SEAL_BYTES).encode()
                file.seek(0)
                _write_all(file, text + _seal(text))
            file.seek(_place(layout, number))
            _write_all(file, memory)
            _write_all(file, _seal(lq_digest, layout.to_json(), memory))

    def growth(self, count: int, tensor: Tensor) -> int:
        """Return by how many bytes the file grows until it has ``count`` tensors like this one."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return max(0, _place(Layout.of(tensor), count) - size)


def _place(layout: Layout, number: int) -> int:
    """Return where a record begins."""
    return HEADER_BYTES + number * (layout.num_bytes + SEAL_BYTES)


def _read_layout(file: FileIO) -> Layout | None:
    """Return what the header says; None where there is none, or it is damaged."""
    header = file.read(HEADER_BYTES)
    text, seal = header[:-SEAL_BYTES], header[-SEAL_BYTES:]
    if seal != _seal(text):
        return None
    try:
        return Layout.from_json(text)
    except (KeyError, RecursionError, TypeError, ValueError):
        return None


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:  # An unbuffered file may take less than it is given.
        left = left[file.write(left) :]


def _seal(*parts: str | bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.digest()


def _memory(tensor: Tensor) -> memoryview:
    """Return the bytes of memory that a tensor spans; on the CPU nothing is copied."""
    flat = tensor.detach().as_strided((Layout.of(tensor).span,), (1,))
    return flat.cpu().view(torch.uint8).numpy().data
