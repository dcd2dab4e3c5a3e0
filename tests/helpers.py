"""What several tests share: comparing checkpoints, training in processes of their own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from torch import Tensor

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.cli import main
from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.training import distributed, reporter
from lsfd.training.distributed import Processes
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records
from lsfd.training.run import Run

TRAIN = Path(__file__).parent.parent / "lsfd" / "train.py"

# Each process of a test is forked from one that has imported everything but has no threads.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["lsfd.cli", "lsfd.training.run"])

LONGEST = 300.0
"""Seconds after which a process of a test hangs; one takes a few on an idle machine."""

FOLDER_CHANGES = {"os.mkdir", "os.remove", "os.rename"}
"""Python's audit events of what makes a file appear under its name, or go."""


def assert_same(first: Any, second: Any) -> None:
    """Compare two checkpoints value by value, tensors bit for bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    else:
        assert first == second


def write_options(path: Path, options: Mapping[str, Any]) -> Path:
    """Write an option file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(options_from_dict(options).to_yaml())
    return path


def write_run(folder: Path, options: dict[str, Any]) -> Path:
    """Write the option file of a run that stays in this folder, and return its path."""
    options["path"]["experiments_root"] = str(folder / "experiments")
    return write_options(folder / "options.yml", options)


def run_folder(option_file: Path) -> RunFolder:
    """Return where the run of such an option file is."""
    return RunFolder(option_file.parent / "experiments" / "tiny")


def output_of(option_file: Path) -> Path:
    """Return the file that holds what the trainings of an option file print."""
    return option_file.with_suffix(".log")


def start_training(
    option_file: Path,
    *,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = ("--auto_resume",),
    kill_at: int = 0,
) -> ForkServerProcess:
    """Start ``lsfd train`` in a process, and a process group, of its own.

    Args:
        option_file: what to train.
        environment: variables to set.
        arguments: further arguments of ``lsfd train``.
        kill_at: n > 0: the process kills itself before the n-th change of the folder of
            experiments.
    """
    process = SERVER.Process(
        target=_train,
        args=(option_file, dict(environment or {}), arguments, kill_at),
    )
    process.start()
    return process


def start_pair(
    option_file: Path,
    *,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = ("--auto_resume", "--launcher", "pytorch"),
) -> list[ForkServerProcess]:
    """Start, or go on with, a training of two processes, started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    given = {"WORLD_SIZE": "2", **address, **(environment or {})}
    return [
        start_training(
            option_file,
            environment={name: value.format(rank=rank) for name, value in given.items()}
            | {"RANK": str(rank)},
            arguments=arguments,
            kill_at=rank,  # The second one must leave the run's folder alone.
        )
        for rank in range(2)
    ]


def finish_pair(option_file: Path, **how: Any) -> None:
    """Run, or go on with, a training of two processes to its end; see :func:`start_pair`."""
    statuses = [exit_status(process) for process in start_pair(option_file, **how)]
    assert statuses == [0, 0], output_of(option_file).read_text()


@contextmanager
def torchrun(
    option_file: Path, launcher: tuple[str, ...] = (), arguments: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Context in which torchrun trains in two processes.

    Args:
        option_file: what to train.
        launcher: further arguments of torchrun.
        arguments: further arguments of ``lsfd/train.py``.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    training = [str(TRAIN), "-opt", str(option_file), "--launcher", "pytorch"]
    with (
        output_of(option_file).open("ab") as output,
        subprocess.Popen(
            [*command, *launcher, *training, *arguments],
            cwd=option_file.parent,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()  # if the test failed before its end


def in_group(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Do some work in several processes that form a group; return what each one got.

    Args:
        count: how many.
        work: a function of a module, called with its ``Processes`` and the arguments; instead of a
            result, the text of an ``LsfdError`` comes back.
        arguments: for ``work``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = SERVER.SimpleQueue()
    group = [
        SERVER.Process(target=_in_group, args=(answers, rank, count, port, work, arguments))
        for rank in range(count)
    ]
    for process in group:
        process.start()
    assert [exit_status(process) for process in group] == [0] * count
    return [answer for _, answer in sorted((answers.get() for _ in group), key=lambda x: x[0])]


def _in_group(
    answers: Any, rank: int, count: int, port: int, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    processes = distributed.start("pytorch", use_cuda=False, backend="gloo", port=port)
    try:
        answers.put((rank, work(processes, *arguments)))
    except LsfdError as error:
        answers.put((rank, str(error)))
    distributed.stop()


def exit_status(process: ForkServerProcess) -> int | None:
    """Return the exit status of a process at its end; one that hangs is killed."""
    process.join(LONGEST)
    process.kill()
    process.join()
    return process.exitcode


def finish(option_file: Path) -> None:
    """Run ``lsfd train``, or the rest of it, undisturbed."""
    status = exit_status(start_training(option_file))
    assert status == 0, output_of(option_file).read_text()


def wait_for(option_file: Path, text: str) -> None:
    """Wait until a training has printed ``text``."""
    end = time.monotonic() + LONGEST
    while not output_of(option_file).exists() or text not in output_of(option_file).read_text():
        assert time.monotonic() < end, f"'{text}' did not come"
        time.sleep(0.002)


def wait_for_end_of(groups: Collection[int], longest: float = LONGEST) -> None:
    """Wait, not longer than some seconds, until no process of these process groups is alive."""
    end = time.monotonic() + longest
    while left := [number for number, group in _living_processes() if group in groups]:
        assert time.monotonic() < end, f"the processes {left} outlive the one that started them"
        time.sleep(0.05)


def _living_processes() -> Iterator[tuple[int, int]]:
    """Yield number and group of all processes."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            # Behind the name, which may hold anything: state, parent, group ...
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                yield int(path.parent.name), int(group)


def lasting_records(folder: RunFolder) -> list[dict[str, Any]]:
    """Return what was measured, without times and without the record of each start."""
    return [
        {key: value for key, value in record.items() if key != "seconds_per_iteration"}
        for record in read_records(folder.records)
        if record["kind"] != "run"
    ]


def train_here(options: Mapping[str, Any], *, auto_resume: bool = False) -> Run:
    """Train in this process and return the finished run."""
    run = Run(options_from_dict(options), Processes())
    assert run.go(auto_resume=auto_resume) == 0
    return run


def _train(
    option_file: Path,
    environment: dict[str, str],
    arguments: tuple[str, ...],
    kill_at: int,
) -> None:
    os.setsid()
    descriptor = os.open(output_of(option_file), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    # A forked process inherits "forkserver" for the loader's processes; a shell's child has "fork".
    multiprocessing.set_start_method("fork", force=True)
    # Work on the checkout while the tests run must not show in the students' cards.
    provenance.commit = lambda: None  # type: ignore[assignment]
    # Drawing takes longer than all else in a small run.
    reporter.save_run_curves = lambda records, path, title: write_text(path, title)
    if kill_at:
        _kill_before_change(option_file.parent / "experiments", kill_at)
    sys.exit(main(["train", "-opt", str(option_file), *arguments]))


def _kill_before_change(folder: Path, number: int) -> None:
    left = number

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        if event in FOLDER_CHANGES and str(details[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


INVENTED = {  # method: distillers, gain, steps
    "Plain": ([{"type": "Plain"}], 0.0, 200),
    "Long": (None, 0.1, 400),
    "LSFD": ([{"type": "LSFD"}], 0.2, 200),
}


def keep_invented_comparison(
    folder: Path, methods: Mapping[str, tuple[Any, float, int]] = INVENTED
) -> Path:
    """Write the folder of a comparison that never ran: two seeds, two sets of two images."""
    about = {
        name: {
            "steps": steps,
            "seconds_per_step": 0.3,
            "peak_memory_bytes": 2**30,
            "distillers": distillers,
        }
        for name, (distillers, _, steps) in methods.items()
    }
    summary = {"scale": 4, "total_iter": 200, "seeds": [0, 1], "methods": about}
    write_text(folder / "compare.json", json.dumps(summary))
    for name, (_, gain, steps) in methods.items():
        for seed in (0, 1):
            records = [
                {
                    "kind": "train",
                    "iteration": i,
                    "losses": {"l_pix": 0.1 * (1 + seed) * (1 - gain)},
                }
                for i in range(100, steps + 1, 100)
            ]
            scores = {"psnr": 30 + seed + gain, "ssim": 0.85}
            images = {image: {"psnr": scores["psnr"] + place} for place, image in enumerate("ab")}
            last = {"kind": "val", "iteration": steps, "scores": scores, "images": images}
            records += [{**last, "set": name_of_set} for name_of_set in ("Set5", "Set14")]
            text = "".join(json.dumps(record) + "\n" for record in records)
            write_text(folder / "records" / f"{name}_seed{seed}.jsonl", text)
    return folder
