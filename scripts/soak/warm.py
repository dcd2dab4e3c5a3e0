"""Commands in processes that have imported everything already, and what befalls them.

A server that has imported the package, but has no threads, forks a process for each command, so
that starting one costs milliseconds instead of seconds. The runs of a comparison are forked, too,
from the process that compares.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

import lsfd.compat  # noqa: F401

import torch
from tqdm import tqdm

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.cli import main
from lsfd.training import compared, jobs, reporter, teacher_cache
from lsfd.training.timing import StepCost

SERVER = multiprocessing.get_context("forkserver")
_NEEDED = [
    "lsfd.training.compress", "lsfd.inference.engines", "lsfd.inference.export",
    "lsfd.inference.folder", "lsfd.data.prepare", "warm",
]  # fmt: skip
SERVER.set_forkserver_preload(
    [*_NEEDED, *(name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name))]
)

LONGEST = 300.0
"""Seconds after which a command hangs; one takes a few on an idle machine."""

LINGERING = 30.0
"""Seconds in which the processes that a killed one started have to end."""

PREFIX = "/lsfd-soak"
"""How the names of semaphores begin."""

KILLED = {-signal.SIGKILL, -signal.SIGALRM}

CHANGES = {
    "os.mkdir": "mkdir", "os.remove": "unlink", "os.rename": "rename", "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}  # fmt: skip
"""Python's audit events of what makes a file appear under its name, or go."""


@dataclass(frozen=True)
class Disturbance:
    """What befalls a command at its n-th change of a folder.

    A change is what makes a file, or a part of one, appear or go: a file opened for writing, a
    folder made, a file or folder renamed or removed, a file brought to the disk.

    Attributes:
        folder: whose changes count.
        number: of the change, from 1; 0: nothing, the changes are counted.
        notes: a file that gets the change's name, or their number.
        action: ``kill``; ``fill`` the disk, to be given with ``disk``; make it ``read-only``;
            let it ``vanish``.
        delay: of a kill, in seconds after the change has begun: it comes in the middle.
        disk: where the disk is mounted.
    """

    folder: Path
    number: int
    notes: Path
    action: Literal["kill", "fill", "read-only", "vanish"] = "kill"
    delay: float = 0.0
    disk: Path | None = None


def start(
    arguments: Sequence[str],
    folder: Path,
    disturbance: Disturbance | None = None,
    largest_file: int | None = None,
) -> ForkServerProcess:
    """Start ``lsfd`` with some arguments.

    Args:
        arguments: behind ``lsfd``.
        folder: its working folder, by which its processes are known; what it prints goes to
            ``log.txt`` there, and temporary files to ``tmp``.
        disturbance: what befalls it.
        largest_file: bytes that a file it writes may have; None: any number.
    """
    given = (list(arguments), folder, _temporary(folder), disturbance, largest_file)
    process = SERVER.Process(target=_work, args=given)
    process.start()
    return process


def _temporary(folder: Path) -> Path:
    """Return a short name for ``tmp`` in a folder: those of sockets have at most 107 characters."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    if not _links:
        _links[Path()] = Path(tempfile.mkdtemp(prefix="lsfd", dir="/tmp"))
        atexit.register(shutil.rmtree, _links[Path()], ignore_errors=True)
    if folder not in _links:
        _links[folder] = _links[Path()] / str(len(_links))
        _links[folder].symlink_to(folder / "tmp")
    return _links[folder]


_links: dict[Path, Path] = {}
"""Short names by folder; at first that of the folder in which they are."""


def status_of(process: ForkServerProcess) -> int | None:
    """Return the exit status of a process at its end; one that hangs is killed."""
    process.join(LONGEST)
    process.kill()
    process.join()
    return process.exitcode


def processes_in(folder: Path) -> list[int]:
    """Return the processes that live and work in a folder or below."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            # A dead one that nobody has asked for its status has no working folder.
            if Path(os.readlink(path / "cwd")).is_relative_to(folder):
                found.append(int(path.name))
    return found


def is_tracker(number: int) -> bool:
    """Return whether a process is the one by which Python frees what killed ones have shared."""
    try:
        return b"resource_tracker" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:  # It ended meanwhile.
        return False


def wait_for_end(folder: Path) -> float:
    """Wait until no process works in a folder; return the seconds that it took.

    Raises:
        TimeoutError: they live on.
    """
    began = time.monotonic()
    while left := processes_in(folder):
        if time.monotonic() - began > LINGERING:
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            raise TimeoutError(f"{len(left)} processes live on")
        time.sleep(0.02)
    return time.monotonic() - began


def shared_memory() -> set[str]:
    """Return the names of tensors and of our semaphores that no living process uses."""
    ours = (f"sem.{PREFIX.removeprefix('/')}", "torch_")
    names = {name for name in os.listdir("/dev/shm") if name.startswith(ours)}
    if names:
        for path in Path("/proc").glob("[0-9]*/maps"):
            with contextlib.suppress(OSError):
                text = path.read_text()
                names = {name for name in names if f"/dev/shm/{name}\n" not in text}
    return names


def _work(
    arguments: list[str], folder: Path, temporary: Path, disturbance: Disturbance | None,
    largest_file: int | None,
) -> None:  # fmt: skip
    os.setsid()
    os.chdir(folder)
    _print_to(folder / "log.txt")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    _alone()
    torch.set_num_threads(1)
    # A forked process inherits "forkserver" for the loader's processes; a shell's child has "fork".
    multiprocessing.set_start_method("fork", force=True)
    # Work on the checkout meanwhile must not show in the students' cards.
    provenance.commit = lambda: None  # type: ignore[assignment]
    # Drawing takes longer than all else in a small run, and times differ.
    reporter.save_run_curves = _write_title  # type: ignore[attr-defined, assignment]
    for drawing in ("save_gains", "save_times", "save_progress"):
        setattr(compared, drawing, _draw_nothing)
    compared.step_cost = _no_cost  # type: ignore[attr-defined]
    jobs.POLL_SECONDS = 0.02
    teacher_cache.SPARE_BYTES = 0  # The disks here are small.
    jobs.subprocess = _Forking  # type: ignore[assignment, attr-defined]
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if disturbance is not None:
        _watches.append(_Watch(disturbance))
    sys.exit(main(arguments))


def _write_title(records: object, path: Path, title: str) -> None:
    write_text(path, title)


def _no_cost(option_file: Path) -> StepCost:
    return StepCost(0.5, 2**20)


def _draw_nothing(*arguments: object) -> None:
    path = next(argument for argument in arguments if isinstance(argument, Path))
    write_text(path, "")


def _alone() -> None:
    """Forget what a process has of the one that started it, and one from a shell has not."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    config.pop("tempdir", None)
    config["semprefix"] = PREFIX
    resource_tracker._resource_tracker = tracker = resource_tracker.ResourceTracker()
    resource_tracker.register, resource_tracker.unregister = tracker.register, tracker.unregister
    resource_tracker.ensure_running, resource_tracker.getfd = tracker.ensure_running, tracker.getfd


def _print_to(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class _Forked:
    """A run of a comparison, in the place of a ``subprocess.Popen``."""

    def __init__(self, command: list[str], *, stdout: Any, env: Mapping[str, str], **_: Any):
        self.returncode: int | None = None
        sys.stdout.flush()
        ours, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                for number, descriptor in enumerate((ours, stdout.fileno(), stdout.fileno())):
                    os.dup2(descriptor, number)
                os.closerange(3, 1024)  # Among them the locks of the one that forked.
                os.environ.update(env)
                tqdm.set_lock(threading.RLock())  # Not the one that both processes would share.
                for watch in _watches:
                    watch.begin()
                status = main(command[command.index("train") :])
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(ours)

    def poll(self) -> int | None:
        if self.returncode is None:
            number, status = os.waitpid(self.pid, os.WNOHANG)
            if number:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class _Forking:
    """Of the module ``subprocess`` what a comparison uses."""

    Popen = _Forked
    PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL


class _Watch:
    """Counts the changes that a process makes, and acts at the one that is asked for.

    A forked process counts anew; one of the loader, or of the pairs, not at all.
    """

    def __init__(self, disturbance: Disturbance) -> None:
        self._disturbance = disturbance
        self._root = str(disturbance.folder)
        self._fsync = os.fsync
        self.begin()
        os.register_at_fork(after_in_child=self._end)
        os.fsync = self._synced  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def begin(self) -> None:
        """Count from here."""
        self._counted, self._counts = 0, True
        self._lock = threading.RLock()

    def _end(self) -> None:
        self._counts = False

    def _hook(self, event: str, details: tuple[Any, ...]) -> None:
        if event in CHANGES:
            self._count(CHANGES[event], details[0])
        elif event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR):
            self._count("open", details[0])

    def _synced(self, descriptor: int) -> None:
        self._count("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        self._fsync(descriptor)

    def _count(self, change: str, path: object) -> None:
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        wanted, notes = self._disturbance.number, self._disturbance.notes
        if not self._counts or name == str(notes):
            return
        if not os.path.abspath(name).startswith(self._root):
            return
        with self._lock:
            self._counted += 1
            if self._counted == wanted:
                _note(notes, f"{change} {Path(name).name}")
                _act(self._disturbance)
            elif not wanted:
                _note(notes, str(self._counted))


_watches: list[_Watch] = []
"""The one of this process, if there is one."""


def _note(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _act(disturbance: Disturbance) -> None:
    if disturbance.action == "kill":
        if disturbance.delay:
            # The signal of a timer ends a process that does not expect it like SIGKILL.
            signal.setitimer(signal.ITIMER_REAL, disturbance.delay)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        return
    assert disturbance.disk is not None
    if disturbance.action == "fill":
        fill(disturbance.disk)
    elif disturbance.action == "read-only":
        # A mount of its own over the folder: the disk itself cannot change while files are open.
        own = str(disturbance.folder)
        subprocess.run(["mount", "--bind", own, own], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", own], check=True)
    else:
        # Another run of a comparison may have done so.
        subprocess.run(["umount", "--lazy", str(disturbance.disk)], capture_output=True)


def fill(disk: Path) -> None:
    """Leave no byte free on a disk, by a file ``ballast``."""
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize
    descriptor = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        os.posix_fallocate(descriptor, 0, max(1, size))
    os.close(descriptor)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Context in which a folder is a file system of its own, in memory.

    Args:
        folder: is made.
        size: bytes that it holds.

    Raises:
        PermissionError: this user may not mount.
    """
    for each in (folder, _device(folder)):
        each.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "soak", str(_device(folder))]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PermissionError("no file system can be mounted here: there is no mount") from error
    if done.returncode:
        raise PermissionError(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        bring_back(folder)
        yield folder
    finally:
        for each in (folder / "work", folder, _device(folder)):
            subprocess.run(["umount", "--lazy", str(each)], capture_output=True)


def bring_back(folder: Path) -> None:
    """Show a disk in its folder, at first or after it has vanished."""
    if not os.path.ismount(folder):
        subprocess.run(["mount", "--bind", str(_device(folder)), str(folder)], check=True)


def _device(folder: Path) -> Path:
    """Return where a disk is when its folder does not show it."""
    return folder.with_name(f"{folder.name}-device")
