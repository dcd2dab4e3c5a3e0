"""Kill commands at random moments, give them again until they finish, and compare with undisturbed.

    python scripts/soak/kills.py [--kills 200] [--seed 0] [--verbs train upscale ...]

Half of the kills come at a random time, half at, or up to a millisecond after, a random change of
the command's folder: a file opened, renamed, removed, brought to the disk. Often the command is
killed again while it goes on. A kill hits the command, one of a comparison's runs, or all its
processes at once, save the one by which Python frees semaphores: nobody could do that for it. After
each kill

* every file under a final name is whole;
* no process that the killed one had started lives on after a few seconds;
* nothing of it stays in shared memory;

and when the command, given again and again, has finished,

* its results are the undisturbed ones, bit for bit;
* no unfinished file is left, neither beside the results nor among the temporary ones.

Curves and the comparison's picture are replaced by texts, and the measured cost of a step by a
constant. Linux only.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import evidence
import scenes
import warm
from scenes import Materials, Result, Scene
from warm import KILLED, Disturbance

NAME = "kills"
KILLS_IN_A_LIFE = 6
"""So often one command is killed at most before it may finish."""

MOST_DELAY = 1e-3
"""Seconds after the beginning of a change."""


@dataclass
class Outcome:
    """What was tried, and what came of it.

    Attributes:
        kills: that landed, by verb and point.
        lives: commands that were killed, and finished in the end.
        finished: attempts that were over before their kill came.
        longest: seconds that started processes outlived a killed one.
        failures: what was not as it should be.
    """

    kills: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    finished: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def landed(self) -> int:
        """How many kills landed."""
        return sum(self.kills.values())

    def figures(self) -> dict[str, Any]:
        """Return what is recorded."""
        return {
            "kills": self.landed,
            "survived": self.landed - len(self.failures),
            "commands": self.lives,
            "finished before the kill": self.finished,
            "longest outliving, s": round(self.longest, 2),
            "kills by verb and point": dict(sorted(self.kills.items())),
            "failures": self.failures,
        }


@dataclass(frozen=True)
class Undisturbed:
    """What a command gives that nobody kills.

    Attributes:
        result: of it.
        seconds: that it takes.
        changes: of its folder.
    """

    result: Result
    seconds: float
    changes: int

    @classmethod
    def of(cls, scene: Scene, root: Path, desk: Path | None = None) -> Undisturbed:
        """Run it twice, as the first time takes longer.

        Args:
            scene: the command.
            root: for its folders.
            desk: where it works, if not in its folder, so that temporary files do not count.
        """
        for _ in range(2):
            folder = Path(tempfile.mkdtemp(prefix="undisturbed-", dir=root))
            place = desk or folder
            arguments = scene.prepare(folder)
            notes = root / "changes"
            counting = Disturbance(folder, 0, notes)
            began = time.monotonic()
            status = warm.status_of(warm.start(arguments, place, counting))
            seconds = time.monotonic() - began
            if status:
                raise SystemExit(f"{scene.name}: {(place / 'log.txt').read_text()[-2000:]}")
        return cls(scene.result(folder), seconds, int(notes.read_text()))


def main() -> None:
    """Kill, and record."""
    arguments = evidence.parser(__doc__)
    arguments.add_argument("--kills", type=int, default=200, help="that are to land")
    scenes.add_verbs(arguments)
    evidence.soak(NAME, arguments.parse_args(), lambda root, given: kill_all(
        root, given.kills, given.seed, given.verbs
    ))  # fmt: skip


def kill_all(root: Path, kills: int, seed: int, verbs: Sequence[str] = ()) -> Outcome:
    """Share some kills out over the commands.

    Args:
        root: an empty folder.
        kills: how many land at least.
        seed: of the moments.
        verbs: which; none: all.
    """
    chosen = scenes.by_name(Materials(root / "materials").scenes(), verbs)
    outcome = Outcome()
    known: dict[str, Undisturbed] = {}
    number = 0
    by_verb = {name: [s for s in chosen if s.verb == name] for name in {s.verb: 0 for s in chosen}}
    while outcome.landed < kills:
        # The verbs in turn, and of each its kinds in turn.
        group = list(by_verb.values())[number % len(by_verb)]
        scene = group[number // len(by_verb) % len(group)]
        if scene.name not in known:
            known[scene.name] = Undisturbed.of(scene, root)
        chance = random.Random(f"{seed} {number} {scene.name}")
        most = min(KILLS_IN_A_LIFE, kills - outcome.landed)
        one_life(scene, known[scene.name], root / f"life{number}", chance, most, outcome)
        number += 1
    return outcome


def one_life(
    scene: Scene, undisturbed: Undisturbed, folder: Path, chance: random.Random, most: int,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Kill one command up to ``most`` times, let it finish, and look."""
    folder.mkdir()
    arguments = scene.prepare(folder)
    before = warm.shared_memory()
    outcome.lives += 1
    tale: list[str] = []
    problems: list[str] = []
    for _ in range(most):
        point, landed, wrong = _attempt(scene, arguments, undisturbed, folder, chance)
        tale.append(point)
        problems += wrong
        if not landed:
            outcome.finished += 1
            break
        outcome.kills[f"{scene.verb}, {point}"] += 1
        problems += _after_kill(scene, undisturbed, folder, outcome)
    problems += _finish(scene, arguments, undisturbed, folder)
    problems += [f"/dev/shm/{name} stays" for name in warm.shared_memory() - before]
    print(f"{folder.name}: {scene.name}: {', '.join(tale)}", *problems, sep="\n  ", flush=True)
    if problems:
        outcome.failures.append(f"{folder.name}, {scene.name}, {tale}: {'; '.join(problems)}")


def _attempt(
    scene: Scene, arguments: list[str], undisturbed: Undisturbed, folder: Path,
    chance: random.Random,
) -> tuple[str, bool, list[str]]:  # fmt: skip
    """Give the command and kill it.

    Returns:
        At what point, whether that came before its end, and what was wrong with its end.
    """
    if chance.random() < 0.5:
        delay = chance.uniform(0, undisturbed.seconds)
        process = warm.start(arguments, folder)
        process.join(delay)
        landed = process.exitcode is None
        victim = _kill(process.pid, folder, chance) if landed else "nobody"
        status = warm.status_of(process)
        # A comparison, one of whose runs was killed, says so.
        problems = _unexpected(status, folder, may_fail=victim == "a run")
        where = f"at a time{f', {victim}' if scene.verb == 'compare' else ''}"
        return where, bool(status), problems
    number = chance.randint(1, undisturbed.changes)
    notes = folder / "tmp" / "point"
    delay = chance.choice((0.0, chance.uniform(1e-6, MOST_DELAY)))
    kill = Disturbance(folder, number, notes, delay=delay)
    status = warm.status_of(warm.start(arguments, folder, kill))
    # The change may have been one of a comparison's runs: then that was killed.
    problems = _unexpected(status, folder, may_fail=scene.verb == "compare")
    if not notes.exists():
        return "at no change", bool(status), problems
    change = notes.read_text().split()[0]
    notes.unlink()
    return f"{'after' if delay else 'at'} {change}", bool(status), problems


def _unexpected(status: int | None, folder: Path, *, may_fail: bool) -> list[str]:
    """Return what is wrong with the end of a command that was to be killed."""
    if status in (0, *KILLED) or (may_fail and status == 2):
        return []
    text = (folder / "log.txt").read_text(errors="replace")
    return [f"exit status {status}: ...{text[-1500:]}"]


def _kill(number: int | None, folder: Path, chance: random.Random) -> str:
    """Kill a process, one of those that it has started, or all; return which."""
    assert number is not None
    others = [
        other for other in warm.processes_in(folder)
        if other != number and not warm.is_tracker(other)
    ]  # fmt: skip
    runs = [other for other in others if _leads(other)]
    which = chance.choices(("it", "a run", "all"), (5, 2, 2))[0]
    if which == "a run" and runs:
        os.kill(chance.choice(runs), signal.SIGKILL)
        return which
    for victim in [number, *(others if which == "all" else [])]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return "all" if which == "all" else "it"


def _leads(number: int) -> bool:
    """Return whether a process leads a session, as each run of a comparison does."""
    try:
        return os.getsid(number) == number
    except ProcessLookupError:
        return False


def _after_kill(
    scene: Scene, undisturbed: Undisturbed, folder: Path, outcome: Outcome
) -> Iterator[str]:
    """Yield what is wrong right after a kill."""
    try:
        outcome.longest = max(outcome.longest, warm.wait_for_end(folder))
    except TimeoutError as error:
        yield str(error)
    yield from scenes.damaged(folder, undisturbed.result if scene.exact else None)


def _finish(
    scene: Scene, arguments: list[str], undisturbed: Undisturbed, folder: Path
) -> Iterator[str]:
    """Give the command a last time, and yield what is wrong with what it leaves."""
    status = warm.status_of(warm.start(arguments, folder))
    if status:
        yield f"exit status {status}: {(folder / 'log.txt').read_text(errors='replace')[-1500:]}"
        return
    yield from differences(scene, undisturbed, folder)


def differences(scene: Scene, undisturbed: Undisturbed, folder: Path) -> Iterator[str]:
    """Yield what a command that has finished left otherwise than the undisturbed one."""
    result = scene.result(folder)
    for name in sorted(result.keys() | undisturbed.result.keys()):
        if result.get(name) != undisturbed.result.get(name):
            yield f"{name} differs"
    for name in scenes.leftovers(folder):
        yield f"{name} is left"


if __name__ == "__main__":
    main()
