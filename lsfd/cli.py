"""The console command ``lsfd``: parses arguments, calls one function, prints what it returns."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable, Sequence

from lsfd import __version__
from lsfd.disk import remedy_for
from lsfd.errors import LsfdError
from lsfd.terminal import say
from lsfd.verbs import compressing, measuring, preparing, training, using

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parsed = _parser().parse_args(arguments)
    return exit_status("lsfd", lambda: parsed.run(parsed))


def exit_status(name: str, work: Callable[[], int | None]) -> int:
    """Do the work of a command or script; return its exit status.

    A mistake that the user can mend ends in one sentence on standard error and status 2.

    Args:
        name: of the command, in front of the sentence.
        work: returns its own exit status; None is 0.
    """
    try:
        return work() or 0
    except LsfdError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:
        if not _has_lost_its_reader(sys.stdout.fileno()):
            raise
        # Whoever read the output has enough of it, as in "| head": Python may flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # As if SIGPIPE had ended it.
    except OSError as error:
        remedy = remedy_for(error)
        if isinstance(error, FileNotFoundError) or remedy is None:
            raise  # A bug of ours.
        say(f"{name}: {error.filename or 'a file'}: {error.strerror}; {remedy}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _has_lost_its_reader(file: int) -> bool:
    """Whether a file descriptor is a pipe that nobody reads any more; unknown on Windows."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lsfd", description="Distil large super-resolution networks into small fast ones."
    )
    parser.add_argument("--version", action="version", version=f"lsfd {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    preparing.add_prepare(verbs)
    training.add_train(verbs)
    training.add_test(verbs)
    measuring.add_benchmark(verbs)
    measuring.add_score(verbs)
    measuring.add_report(verbs)
    using.add_students(verbs)
    using.add_upscale(verbs)
    using.add_export(verbs)
    using.add_web(verbs)
    training.add_methods(verbs)
    training.add_compare(verbs)
    compressing.add_compress(verbs)
    compressing.add_prune(verbs)
    compressing.add_quantize(verbs)
    return parser
