"""Damages files of every kind that a user can hand in, and looks at what becomes of them.

Usage: python scripts/soak/fuzz.py [--variants 2000] [--seed 0] [--kinds NAME ...]

A good file of each kind is made, and damaged again and again: cut off, bits flipped, bytes put in,
zeroed, emptied, parts swapped, replaced by a file of another kind, values of fields replaced by
absurd ones. Each variant is read as the commands read it, in a process of its own that is killed
after some seconds and may take only so much memory. What may happen:

- refused: one sentence, an LsfdError; for checkpoints of a run, the one before is taken instead
- same: it is read, and the result is that of the good file
- changed: it is read, and the result differs. For kinds whose content is checked (``checked``) that
  is a silently wrong result; for the others, which have no checksum (a JPEG, an option file, a
  pickle from before torch 1.6), it is counted and no more can be said.

Everything else is a fault: another exception, a sentence of several lines, a hang, a crash of the
interpreter, more memory than allowed. Faults end in exit status 1; ``results/trust/fuzz.jsonl``
keeps the counts. Linux only.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import evidence
import fuzz_kinds
import numpy as np
from fuzz_kinds import KINDS, Kind
from numpy.random import Generator

from lsfd.errors import LONGEST, LsfdError

VARIANTS = 2000
PATIENCE_S = 20.0
"""After which a variant hangs; one takes milliseconds."""
ROOM = 6 << 30
"""Bytes of address space that the process may take beside what it has with all libraries loaded."""
GROWTH = 512 << 20
"""Bytes by which one variant may raise the most memory that was ever held."""

GOOD = ("refused", "same", "changed")

OTHER = "a file of kind"
"""Begins the damage of a file that was replaced by a good one of another kind."""


@dataclass(frozen=True)
class Outcome:
    """What became of one variant.

    Attributes:
        word: one of GOOD, "silent", "hang", "crash", "memory", or "error".
        damage: what was done to the file.
        detail: the sentence, or the traceback's last lines.
    """

    word: str
    damage: str
    detail: str = ""


# Damages: bytes to bytes.


def cut_off(data: bytes, random: Generator) -> bytes:
    """Keep only the beginning."""
    return data[: random.integers(len(data))]


def flip(data: bytes, random: Generator) -> bytes:
    """Flip one bit."""
    return _changed(data, [int(random.integers(len(data)))], random)


def flip_some(data: bytes, random: Generator) -> bytes:
    """Flip a bit in each of some bytes."""
    return _changed(data, random.integers(len(data), size=random.integers(2, 40)).tolist(), random)


def flip_early(data: bytes, random: Generator) -> bytes:
    """Flip a bit where headers stand."""
    return _changed(data, [int(random.integers(min(len(data), 200)))], random)


def put_in(data: bytes, random: Generator) -> bytes:
    """Put some bytes in."""
    place = int(random.integers(len(data) + 1))
    return data[:place] + random.bytes(int(random.integers(1, 9))) + data[place:]


def take_out(data: bytes, random: Generator) -> bytes:
    """Take some bytes out."""
    place = int(random.integers(len(data)))
    return data[:place] + data[place + int(random.integers(1, 65)) :]


def zero(data: bytes, random: Generator) -> bytes:
    """Fill a block with zeros, as a disk does that lost it."""
    size = min(len(data), int(random.choice([1, 16, 512, 4096])))
    place = int(random.integers(len(data) - size + 1))
    return data[:place] + bytes(size) + data[place + size :]


def swap(data: bytes, random: Generator) -> bytes:
    """Exchange two blocks."""
    size = max(1, len(data) // 8)
    first = int(random.integers(max(1, len(data) - 2 * size)))
    second = int(random.integers(first + size, max(first + size + 1, len(data) - size + 1)))
    one, other = data[first : first + size], data[second : second + size]
    return data[:first] + other + data[first + size : second] + one + data[second + size :]


def empty(data: bytes, random: Generator) -> bytes:
    """Leave nothing."""
    return b""


def large_number(data: bytes, random: Generator) -> bytes:
    """Write an absurd number over four or eight bytes, as a size or an offset may be."""
    number = random.choice([0xFF, 0x7F, 0x00, 0x80])
    size = min(len(data), int(random.choice([4, 8])))
    place = int(random.integers(len(data) - size + 1))
    return data[:place] + bytes([number]) * size + data[place + size :]


DAMAGES: Sequence[Callable[[bytes, Generator], bytes]] = (
    flip, flip, flip, flip_early, flip_some, cut_off, put_in, take_out, zero, swap, large_number,
    empty,
)  # fmt: skip


def _changed(data: bytes, places: Sequence[int], random: Generator) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


# Trying a variant.


class Fuzzer:
    """Good files of some kinds, and what is read from them."""

    def __init__(self, folder: Path, kinds: Sequence[Kind], seed: int) -> None:
        """Make the good files.

        Args:
            folder: an empty one, for all files.
            kinds: of files.
            seed: of the damages.
        """
        self.kinds = kinds
        self._seed = seed
        self._places = {kind.name: folder / kind.name for kind in kinds}
        self._files: dict[str, Path] = {}
        self._good: dict[str, dict[Path, bytes]] = {}
        self._truth: dict[str, Any] = {}
        for kind in kinds:
            place = self._places[kind.name]
            place.mkdir(parents=True, exist_ok=True)
            self._files[kind.name] = file = kind.make(place)
            self._good[kind.name] = {
                path: path.read_bytes() for path in place.rglob("*") if path.is_file()
            }
            self._truth[kind.name] = kind.use(file)

    def attempt(self, number: int) -> Outcome:
        """Damage a file and read it; the number decides the kind and the damage."""
        kind = self.kinds[number % len(self.kinds)]
        random = np.random.default_rng([self._seed, number])
        file = self._files[kind.name]
        self._restore(kind)
        damage, data = self._damaged(kind, random)
        file.write_bytes(data)
        try:
            result = kind.use(file)
        except LsfdError as error:
            sentence = str(error)
            if "\n" in sentence or len(sentence) > LONGEST + 10 or not sentence:
                return Outcome("error", damage, f"no sentence: {sentence!r}")
            return Outcome("refused", damage, sentence)
        except Exception:
            return Outcome("error", damage, traceback.format_exc()[-1500:])
        if result == self._truth[kind.name]:
            return Outcome("same", damage)
        word = "silent" if kind.checked and not damage.startswith(OTHER) else "changed"
        return Outcome(word, damage, f"{result}"[:300])

    def _restore(self, kind: Kind) -> None:
        """Put everything back that belongs to a kind."""
        shutil.rmtree(self._places[kind.name])
        for path, data in self._good[kind.name].items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _damaged(self, kind: Kind, random: Generator) -> tuple[str, bytes]:
        good = self._good[kind.name][self._files[kind.name]]
        choice = random.random()
        if kind.absurd is not None and choice < 0.35:
            return "absurd values", kind.absurd(good, random)
        if choice > 0.97:
            other = str(random.choice(sorted(self._good)))
            return f"{OTHER} {other}", self._good[other][self._files[other]]
        damage = DAMAGES[int(random.integers(len(DAMAGES)))]
        return damage.__name__, damage(good, random)


# The process in which variants are tried.


def _serve(connection: Connection, folder: Path, names: Sequence[str], seed: int) -> None:
    """Try the variants whose numbers come in; send what became of each."""
    fuzzer = Fuzzer(folder, [kind for kind in KINDS if kind.name in names], seed)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    held = fuzz_kinds.peak_memory()
    connection.send("ready")
    while True:
        outcome = fuzzer.attempt(connection.recv())
        peak = fuzz_kinds.peak_memory()
        if peak > held + GROWTH:
            outcome = Outcome("memory", outcome.damage, f"{(peak - held) >> 20} MB more")
        held = max(held, peak)
        connection.send(outcome)


class Worker:
    """A process that tries variants, and is replaced when it hangs or dies."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names, self._seed = names, seed
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def attempt(self, number: int) -> Outcome:
        """Return what became of a variant."""
        self._connection.send(number)
        try:
            if self._connection.poll(PATIENCE_S):
                outcome: Outcome = self._connection.recv()
                return outcome
            word, detail = "hang", f"killed after {PATIENCE_S:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            word, detail = "crash", f"exit status {self._process.exitcode}"
        self.stop()
        self._start()
        return Outcome(word, f"variant {number}", detail)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lsfd-fuzz-")
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, Path(self._folder.name), self._names, self._seed)
        )
        self._process.start()
        theirs.close()
        self._connection.recv()  # "ready"


def main() -> int:
    """Try the variants and keep the counts; return the exit status."""
    parser = evidence.parser(__doc__)
    parser.add_argument("--variants", type=int, default=VARIANTS, help="in all, over all kinds")
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS])
    parser.add_argument("--only", type=int, help="try this one variant, here, and show it")
    arguments = parser.parse_args()
    names = arguments.kinds or [kind.name for kind in KINDS]
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            kinds = [kind for kind in KINDS if kind.name in names]
            print(Fuzzer(Path(folder), kinds, arguments.seed).attempt(arguments.only))
        return 0
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    faults: list[dict[str, Any]] = []
    worker = Worker(names, arguments.seed)
    for number in range(arguments.variants):
        name = names[number % len(names)]
        outcome = worker.attempt(number)
        counts[name][outcome.word] += 1
        if outcome.word not in GOOD:
            faults.append({"kind": name, "variant": number, **vars(outcome)})
            print(json.dumps(faults[-1]), flush=True)
    worker.stop()
    total = sum(counts.values(), Counter())
    words = (*GOOD, "silent", "hang", "crash", "memory", "error")
    figures = {
        "variants": arguments.variants,
        **{word: total[word] for word in words},
        "kinds": {name: {"variants": each.total(), **each} for name, each in counts.items()},
        "checked_kinds": [kind.name for kind in KINDS if kind.checked and kind.name in names],
        "faults": faults,
    }
    evidence.keep("fuzz", arguments.seed, figures, arguments.output)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
