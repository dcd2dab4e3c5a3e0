"""Processes that train together: how they start, what they tell each other, when they start again.

torchrun starts them, or Slurm; one alone needs neither.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from lsfd.data.workers import end_with_launcher
from lsfd.errors import LsfdError

Launcher = Literal["none", "pytorch", "slurm"]
Result = TypeVar("Result")

MEETING = timedelta(minutes=5)
"""How long processes wait for each other at the start."""

PATIENCE = timedelta(days=1)
"""How long they wait while others pack images, validate or save.

Longer than any of it takes: a process that ends closes its connections, which ends the waiting at
once. For gradients torch's own, shorter limits hold: there nobody has a reason to be late.
"""

_Outcome: TypeAlias = tuple[Any, str]
"""What some work gave, and what is to be said if it failed."""


@dataclass(frozen=True)
class Processes:
    """This process among all that train together.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number among those of its host.
        talk: the process group for all but gradients: through the CPU, and with PATIENCE.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    talk: Any = field(default=None, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether a process group exists."""
        return distributed.is_initialized()

    def gather(self, work: Callable[[], Result]) -> list[Result]:
        """Do the same work in every process; return what each one got, in the order of ranks.

        Raises:
            LsfdError: in every process, if the work failed in one of them: none is left waiting.
        """
        if not self.distributed:
            return [work()]
        outcome, error = self._try(work)
        outcomes: list[Any] = [None] * self.world_size
        distributed.all_gather_object(outcomes, outcome, group=self.talk)
        return _results(outcomes, error)

    def together(self, work: Callable[[], Result]) -> Result:
        """Do the same work in every process; return what this one got.

        Raises:
            LsfdError: in every process, if the work failed in one of them.
        """
        kept: list[Result] = []
        self.gather(lambda: kept.append(work()))
        return kept[0]

    def from_first(self, work: Callable[[], Result]) -> Result:
        """Do some work in the first process; return in every process what it got.

        Raises:
            LsfdError: in every process, if the work failed.
        """
        if not self.distributed:
            return work()
        outcome, error = self._try(work) if self.is_first else (None, None)
        sent: list[Any] = [outcome]
        distributed.broadcast_object_list(sent, src=0, group=self.talk)
        return _results(sent, error)[0]

    def _try(self, work: Callable[[], Result]) -> tuple[_Outcome, Exception | None]:
        """Return what some work gives, or the sentence about its failure, and the failure."""
        try:
            return (work(), ""), None
        except Exception as error:
            kind = "" if isinstance(error, LsfdError) else f"{type(error).__name__}: "
            place = f"process {self.rank} on {socket.gethostname()}"
            return (None, f"{place}: {kind}{error}"), error


def _results(outcomes: list[_Outcome], error: Exception | None) -> list[Any]:
    """Return what all got, or raise the first failure; a mistake of ours keeps its traceback."""
    if error is not None and not isinstance(error, LsfdError):
        raise error
    for _, sentence in outcomes:
        if sentence:
            raise LsfdError(sentence) from error
    return [value for value, _ in outcomes]


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
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    try:
        distributed.init_process_group(
            backend if use_cuda else "gloo",
            store=_store_of_this_attempt(rank),
            rank=rank,
            world_size=world_size,
        )
        talk = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except RuntimeError as error:
        raise LsfdError(
            f"--launcher {launcher}: process {rank} of {world_size} does not reach the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Processes(rank, world_size, local_rank, talk)


def _store_of_this_attempt(rank: int) -> TCPStore | None:
    """Return the store by which the processes find each other; None: torch's own way.

    torchrun has one store for all its attempts, in which processes that were started again find
    what dead ones wrote, and try to reach those (pytorch issue 135712). So the first process opens
    a new one, and torchrun's only tells where. If that, too, is still a dead one's address, nobody
    answers there.

    Raises:
        RuntimeError: nobody answers for MEETING.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, key = os.environ["MASTER_ADDR"], "lsfd/port"
    board = TCPStore(host, int(os.environ["MASTER_PORT"]), timeout=MEETING)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        board.set(key, str(store.port))
        return store
    end = time.monotonic() + MEETING.total_seconds()
    while True:
        try:
            store = TCPStore(host, int(board.get(key)), timeout=timedelta(seconds=2))
        except RuntimeError:
            if time.monotonic() > end:
                raise
        else:
            store.set_timeout(MEETING)
            return store


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


def job() -> str | None:
    """Return the job that this process belongs to, the same one after a restart; None: to none."""
    if "SLURM_JOB_ID" in os.environ:
        return f"slurm {os.environ['SLURM_JOB_ID']}"
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None:
        return None
    # "none" is what torchrun calls every job that was given no name; its process tells them apart.
    return f"torchrun {f'process {os.getppid()}' if name == 'none' else name}"


def is_restart() -> bool:
    """Return whether torchrun, after a process had died, or Slurm started the same job again."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(name, "0") != "0" for name in counts)


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
