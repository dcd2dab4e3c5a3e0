"""From an option file, or BasicSR's dict, to :data:`LoadedOptions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import ValidationError

from lsfd.config.consistency import Problem, problems, test_problems
from lsfd.config.environment import expand
from lsfd.config.inheritance import read_options
from lsfd.config.options import Options
from lsfd.config.overrides import apply_override
from lsfd.config.reader import KeyPath, dump
from lsfd.config.sentences import explain, real_path
from lsfd.config.testing import TestOptions, is_test_file
from lsfd.errors import LsfdError

# What BasicSR's parse_options adds to the dict that it read from the option file.
_ADDED_AT_TOP = ("dist", "rank", "world_size", "auto_resume", "is_train")
_ADDED_TO_PATH = ("models", "training_states", "log", "visualization", "results_root")
_ADDED_TO_DATASET = ("phase", "scale")


@dataclass(frozen=True)
class _Origin:
    """Where values come from: places in files, overrides from the command line."""

    source: str
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def error(self, path: KeyPath, message: str) -> LsfdError:
        """Return the error about the value at ``path``."""
        name = f", {'.'.join(path)}" if path else ""
        prefixes = [path[:end] for end in range(len(path), 0, -1)]
        for prefix in prefixes:
            if prefix in self.overrides:
                name = name if path != prefix else ""
                return LsfdError(f"override {self.overrides[prefix]}{name}: {message}")
        for prefix in prefixes:
            if prefix in self.places:
                return LsfdError(f"{self.places[prefix]}{name}: {message}")
        return LsfdError(f"{self.source}{name}: {message}")


AnyOptions = TypeVar("AnyOptions", Options, TestOptions)


@dataclass(frozen=True)
class Loaded(Generic[AnyOptions]):
    """A valid option file.

    Attributes:
        options: the typed options, defaults filled in.
        raw: the same in BasicSR's shape, as written: plain data after overrides and environment
            variables, without defaults.
    """

    options: AnyOptions
    raw: dict[str, Any]
    _origin: _Origin

    @property
    def source(self) -> str:
        """The option file's path, or what stands for it."""
        return self._origin.source

    def error(self, key_path: str, message: str) -> LsfdError:
        """Return the error about one option, with file, line and key path.

        Args:
            key_path: such as ``network_g.num_feat`` or ``distillers.0.weights.output``; the key
                may be one that is missing.
            message: what is wrong with it and what to do.
        """
        steps = [
            int(step) if step.isascii() and step.isdigit() else step for step in key_path.split(".")
        ]
        return self._origin.error(real_path(self.raw, steps, absent=True), message)

    def to_yaml(self) -> str:
        """Return ``raw`` as an option file that loads to the same options."""
        return dump(self.raw)


LoadedOptions: TypeAlias = Loaded[Options]
LoadedTestOptions: TypeAlias = Loaded[TestOptions]


def load_options(path: str | Path, overrides: Sequence[str] = ()) -> LoadedOptions:
    """Read and check an option file.

    Args:
        path: the YAML file; its key ``extends`` may name another one that it builds on.
        overrides: changes such as ``train.total_iter=2000``; later ones win.

    Raises:
        LsfdError: anything is wrong with the file, an override, or a value; the message names
            file, line and key path.
    """
    data, origin = _read(path, overrides)
    if is_test_file(data):
        raise LsfdError(
            f"{path}: has neither train nor datasets.train, so it is for lsfd test only; "
            "options/edsr_x4_lsfd.yml shows what a training needs"
        )
    return _checked(data, origin, Options, problems)


def load_options_to_test(
    path: str | Path, overrides: Sequence[str] = ()
) -> LoadedOptions | LoadedTestOptions:
    """Read and check an option file whose network is to be scored: of a training, or of a test.

    Raises:
        LsfdError: as :func:`load_options`.
    """
    data, origin = _read(path, overrides)
    if is_test_file(data):
        return _checked(data, origin, TestOptions, test_problems)
    return _checked(data, origin, Options, problems)


def _read(path: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], _Origin]:
    """Return what a file says after the overrides, and where each value comes from."""
    data, places = read_options(path)
    origins: dict[KeyPath, str] = {}
    for override in overrides:
        changed = apply_override(data, override)
        # What the override put in the file's place, and the sections that it made on the way.
        made = [changed[:end] for end in range(1, len(changed)) if changed[:end] not in places]
        origins |= dict.fromkeys([*made, changed], override)
    return data, _Origin(str(path), places, origins)


def options_from_dict(data: Mapping[str, Any], source: str = "<dict>") -> LoadedOptions:
    """Check options that a program holds in BasicSR's shape; ``data`` is left as it is.

    What BasicSR's ``parse_options`` adds to an option file (``rank``, ``phase`` ...) is left out.

    Raises:
        LsfdError: anything is wrong; the message names ``source`` and key path.
    """
    origin = _Origin(source)
    plain = _plain(data, (), origin)
    _drop_added(plain)
    return _checked(plain, origin, Options, problems)


def _checked(
    data: dict[str, Any],
    origin: _Origin,
    kind: type[AnyOptions],
    rules: Callable[[AnyOptions], Iterable[Problem]],
) -> Loaded[AnyOptions]:
    raw = _expanded(data, (), origin)
    try:
        options = kind.model_validate(raw)
    except ValidationError as error:
        raise origin.error(*explain(error, raw)) from None
    loaded = Loaded(options, raw, origin)
    for key_path, message in rules(options):
        raise loaded.error(key_path, message)
    return loaded


def _plain(value: Any, path: KeyPath, origin: _Origin) -> Any:
    """Copy nested mappings and sequences as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*path, str(key)), origin) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, str(i)), origin) for i, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise origin.error(path, f"{type(value).__name__} is no type that an option file can hold")


def _drop_added(data: dict[str, Any]) -> None:
    """Take out what BasicSR's ``parse_options`` added, in place."""
    paths, datasets = data.get("path"), data.get("datasets")
    if isinstance(paths, dict) and {"models", "experiments_root"} <= set(paths):
        # There BasicSR points at the run's own folder.
        paths["experiments_root"] = str(Path(str(paths["experiments_root"])).parent)
    sections: list[tuple[Any, tuple[str, ...]]] = [(data, _ADDED_AT_TOP), (paths, _ADDED_TO_PATH)]
    if isinstance(datasets, dict):
        sections += [(dataset, _ADDED_TO_DATASET) for dataset in datasets.values()]
    for section, added in sections:
        for key in added if isinstance(section, dict) else ():
            section.pop(key, None)


def _expanded(value: Any, path: KeyPath, origin: _Origin) -> Any:
    """Copy plain data with environment variables expanded."""
    if isinstance(value, dict):
        return {key: _expanded(item, (*path, key), origin) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, (*path, str(i)), origin) for i, item in enumerate(value)]
    if isinstance(value, str):
        try:
            return expand(value)
        except LsfdError as error:
            raise origin.error(path, str(error)) from None
    return value
