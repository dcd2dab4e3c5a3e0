"""``train``, ``test``, ``methods``, ``compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsfd.terminal import say
from lsfd.verbs.arguments import Verbs, add_options_arguments, add_result_arguments, show_benchmark


def add_train(verbs: Verbs) -> None:
    """Add ``lsfd train``."""
    verb = verbs.add_parser("train", help="train a student (or a teacher) from an option file")
    add_options_arguments(verb)
    verb.add_argument("--auto_resume", action="store_true", help="go on from the newest checkpoint")
    verb.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    verb.add_argument(
        "--debug", action="store_true", help="log every step; validate and save every 8"
    )
    verb.add_argument("--end_with_input", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    verb.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    if arguments.end_with_input:
        from lsfd.data.workers import end_with_input

        end_with_input()
    from lsfd.training.run import train

    return train(
        arguments.opt,
        arguments.overrides,
        auto_resume=arguments.auto_resume,
        launcher=arguments.launcher,
        debug=arguments.debug,
    )


def add_test(verbs: Verbs) -> None:
    """Add ``lsfd test``."""
    verb = verbs.add_parser(
        "test", help="score a run's student on the validation sets of its option file"
    )
    add_options_arguments(verb)
    verb.add_argument("--weights", type=Path, help="default: the run's finished student")
    add_result_arguments(verb)
    verb.add_argument("--launcher", choices=("none",), default="none", help=argparse.SUPPRESS)
    verb.set_defaults(run=_test)


def _test(arguments: argparse.Namespace) -> int:
    from lsfd.training.test import test

    report = test(
        arguments.opt, arguments.overrides, weights=arguments.weights, pictures=arguments.pictures
    )
    return show_benchmark(report, arguments)


def add_methods(verbs: Verbs) -> None:
    """Add ``lsfd methods``."""
    verb = verbs.add_parser("methods", help="list the distillation methods")
    verb.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> int:
    from lsfd.training.methods import methods_table

    say(methods_table(), end="")
    return 0


def add_compare(verbs: Verbs) -> None:
    """Add ``lsfd compare``."""
    verb = verbs.add_parser(
        "compare",
        help="train several methods with several seeds and compare them",
        description="Train methods x seeds at equal budget from one option file, then write a "
        "table and a picture. The same command goes on where it was stopped. On a cluster each "
        "process of a job array trains a --shard, and --merge makes the table in the end; "
        "scripts/slurm_compare.sbatch is an example.",
    )
    add_options_arguments(verb)
    verb.add_argument(
        "--methods", nargs="+", metavar="NAME", help="default: those of the option file"
    )
    verb.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="default: those of the option file"
    )
    verb.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: beside the runs")
    verb.add_argument("--jobs", type=int, default=1, metavar="N", help="runs that train at once")
    verb.add_argument(
        "--no_teacher_cache", action="store_true",
        help="run the teachers in every run, instead of keeping what they gave on disk",
    )  # fmt: skip
    part = verb.add_mutually_exclusive_group()
    part.add_argument(
        "--shard", metavar="I/N",
        help="train only the I-th of N shares of the runs, and make no table",
    )  # fmt: skip
    part.add_argument(
        "--merge", action="store_true",
        help="train nothing; make the table of runs that are all finished",
    )  # fmt: skip
    verb.add_argument(
        "--from", type=Path, nargs="+", default=[], metavar="DIR", dest="others",
        help="with --merge: copy missing runs from there, the folders of runs of other hosts",
    )  # fmt: skip
    verb.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from lsfd.errors import LsfdError
    from lsfd.shard import Shard
    from lsfd.training.compare import Comparison, compare
    from lsfd.training.shares import merge, train_share

    comparison = Comparison(
        arguments.opt,
        arguments.overrides,
        arguments.methods,
        arguments.seeds,
        arguments.output,
        keep_teacher_results=not arguments.no_teacher_cache,
    )
    if arguments.others and not arguments.merge:
        raise LsfdError("--from: goes with --merge only")
    if arguments.merge:
        merge(comparison, arguments.others)
        return 0
    if arguments.shard is not None:
        return train_share(comparison, Shard.parse(arguments.shard), arguments.jobs)
    return compare(comparison, arguments.jobs)
