"""Let disks fail under commands, mend them, give the commands again, and compare with undisturbed.

    python scripts/soak/disks.py [--failures 100] [--seed 0] [--verbs train upscale ...]

Each command works on a small file system of its own, in memory, which at a random change of its
files

    fill       has no byte left,
    inodes     has no room for another file (from the beginning, for fewer than are made),
    read-only  becomes read-only,
    vanish     is not there any more, as a network share that broke off;

or no file may become larger than some bytes (``limit``). Then

* the command ends with status 2 and one sentence;
* every file under a final name is whole, the newest checkpoint above all;

and when the disk has space, can be written, is there again, the same command finishes with the
undisturbed results, bit for bit, and leaves nothing unfinished. A command that has no more to write
when its disk fails may finish.

A file that is open when its disk becomes read-only, or vanishes, can still be written. The user
must be allowed to mount. Linux only.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import evidence
import scenes
import warm
from kills import Undisturbed, differences
from scenes import Materials, Scene
from warm import Disturbance

NAME = "disks"
SIZE = 64 << 20
"""Bytes of each disk, many times what a command needs."""

LIMITS = (13, 18)
"""Powers of two, bytes, between which files are limited; what a command prints is less."""

FAILURES = ("fill", "inodes", "read-only", "vanish", "limit")


@dataclass
class Outcome:
    """What was tried, and what came of it.

    Attributes:
        stopped: commands that ended with status 2, by verb and failure.
        finished: commands to which the failure came too late, or did nothing, likewise.
        sentences: an example of each.
        failures: what was not as it should be.
    """

    stopped: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return what is recorded."""
        return {
            "failing disks": sum(self.stopped.values()) + sum(self.finished.values()),
            "stopped with one sentence": sum(self.stopped.values()),
            "finished all the same": sum(self.finished.values()),
            "wrong": len(self.failures),
            "stopped by verb and failure": dict(sorted(self.stopped.items())),
            "finished by verb and failure": dict(sorted(self.finished.items())),
            "sentences": self.sentences,
            "failures": self.failures,
        }


def main() -> None:
    """Let disks fail, and record."""
    arguments = evidence.parser(__doc__)
    arguments.add_argument("--failures", type=int, default=100, help="how many disks fail")
    scenes.add_verbs(arguments)
    evidence.soak(NAME, arguments.parse_args(), lambda root, given: fail_all(
        root, given.failures, given.seed, given.verbs
    ))  # fmt: skip


def fail_all(
    root: Path, count: int, seed: int, verbs: Sequence[str] = (),
    failures: Sequence[str] = FAILURES, kinds: int | None = None,
) -> Outcome:  # fmt: skip
    """Let so many disks fail, commands and failures in turn.

    Args:
        root: an empty folder.
        count: of the disks.
        seed: of the moments.
        verbs: which; none: all.
        failures: which.
        kinds: how many of these commands, from the first; None: all.

    Raises:
        PermissionError: nothing may be mounted.
    """
    chosen = scenes.by_name(Materials(root / "materials").scenes(), verbs)
    # What workers change is not seen here.
    chosen = [scene for scene in chosen if "workers" not in scene.name][:kinds]
    outcome = Outcome()
    known: dict[str, Undisturbed] = {}
    for number in range(count):
        scene = chosen[number % len(chosen)]
        failure = failures[number // len(chosen) % len(failures)]
        if scene.name not in known:
            known[scene.name] = Undisturbed.of(scene, root, root / "desk")
        chance = random.Random(f"{seed} {number} {scene.name}")
        with warm.small_disk(root / f"disk{number}", SIZE) as disk:
            one_disk(scene, failure, known[scene.name], disk, chance, outcome)
    return outcome


def one_disk(
    scene: Scene, failure: str, undisturbed: Undisturbed, disk: Path, chance: random.Random,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Let a disk fail under a command, mend it, and look."""
    desk = disk.with_name(f"{disk.name}-desk")  # What it prints must not be lost, too.
    (desk / "tmp").mkdir(parents=True)
    folder = disk / "work"
    folder.mkdir()
    arguments = scene.prepare(folder)
    notes = desk / "point"
    disturbance, limit = None, None
    if failure == "limit":
        limit = int(2 ** chance.uniform(*LIMITS))
    elif failure == "inodes":
        used = os.statvfs(disk)
        spare = chance.randrange(len(undisturbed.result))
        _limit_files(disk, used.f_files - used.f_ffree + spare)
    else:
        number = chance.randint(1, undisturbed.changes)
        disturbance = Disturbance(folder, number, notes, failure, disk=disk)  # type: ignore[arg-type]
    status = warm.status_of(warm.start(arguments, desk, disturbance, limit))
    problems = _ending(f"{scene.verb}, {failure}", status, desk, outcome)
    point = notes.read_text() if notes.exists() else f"{limit or ''}"
    # Who makes a folder for the first time cannot know that its disk was there just now.
    if failure == "vanish" and not point.startswith("mkdir") and list(disk.iterdir()):
        problems.append(f"{list(disk.rglob('*'))[:5]} made where the disk had been")
    _mend(disk, failure)
    problems += scenes.damaged(folder, undisturbed.result if scene.exact else None)
    again = warm.status_of(warm.start(arguments, desk))
    if again:
        problems.append(f"given again: exit status {again}: ...{_printed(desk)[-1500:]}")
    else:
        problems += differences(scene, undisturbed, folder)
    print(
        f"{disk.name}: {scene.name}: {failure}, {point}, {status}",
        *problems, sep="\n  ", flush=True,
    )  # fmt: skip
    if problems:
        outcome.failures.append(f"{disk.name}, {scene.name}, {failure}, {point}: {problems}")


def _ending(name: str, status: int | None, desk: Path, outcome: Outcome) -> list[str]:
    """Note how a command ended, and return what is wrong with that."""
    if status == 0:
        outcome.finished[name] += 1
        return []
    if status != 2:
        return [f"exit status {status}: ...{_printed(desk)[-1500:]}"]
    outcome.stopped[name] += 1
    try:
        outcome.sentences.setdefault(name, scenes.sentence_of(_printed(desk)))
    except ValueError as error:
        return [str(error)]
    return []


def _printed(desk: Path) -> str:
    return (desk / "log.txt").read_text(errors="replace")


def _limit_files(disk: Path, files: int) -> None:
    subprocess.run(["mount", "-o", f"remount,nr_inodes={files}", str(disk)], check=True)


def _mend(disk: Path, failure: str) -> None:
    """Give a disk what it lacks."""
    if failure == "fill":
        (disk / "ballast").unlink(missing_ok=True)
    elif failure == "inodes":
        _limit_files(disk, 100_000)
    elif failure == "read-only":
        for _ in range(3):  # A comparison and its two runs may each have met it.
            subprocess.run(["umount", "--lazy", str(disk / "work")], capture_output=True)
    elif failure == "vanish":
        warm.bring_back(disk)


if __name__ == "__main__":
    main()
