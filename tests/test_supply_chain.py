"""What the reproducible set-up installs: pinned, by hash, within what setup.cfg asks for."""

from __future__ import annotations

import configparser
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
TORCH_CPU = "requirements-torch-cpu.txt"
FILES = ("requirements.txt", "requirements-torch.txt", TORCH_CPU, "requirements-basicsr.txt")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The scripts that make the files: of the versions, and of the licences."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return import_module("lock"), import_module("licences")


def packages(name: str) -> list[str]:
    """Return the packages of a requirements file, each with its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins() -> dict[str, list[Requirement]]:
    """Return what is pinned by package: one version for each sort of platform."""
    result: dict[str, list[Requirement]] = {}
    for name in FILES:
        for line in packages(name):
            requirement = Requirement(line.split("--hash")[0])
            result.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return result


@pytest.mark.parametrize("name", FILES)
def test_every_package_is_pinned_by_version_and_hash(
    name: str, scripts: tuple[ModuleType, ModuleType]
) -> None:
    found = packages(name)
    assert found
    for line in found:
        assert re.match(r"[\w.-]+==[\w.+]+ ", line), line
        hashes = re.findall(r"--hash=(\S+)", line)
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), line
    if name != TORCH_CPU:
        assert all(scripts[0].place_of(line) == ROOT / name for line in found)


def test_what_setup_cfg_asks_for_is_pinned_within_its_ranges() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = parser["options.extras_require"]
    asked = [parser["options"]["install_requires"], extras["dev"], extras["fast"]]
    pinned = pins()
    for requirement in map(Requirement, filter(None, "\n".join(asked).splitlines())):
        found = pinned[canonicalize_name(requirement.name)]
        versions = [next(iter(each.specifier)).version for each in found]
        assert all(requirement.specifier.contains(each) for each in versions), requirement


def test_both_builds_of_torch_are_of_one_version() -> None:
    """CPU_BUILD in scripts/lock.py has to follow an upgrade by hand."""
    versions = {next(iter(each.specifier)).version for each in pins()["torch"]}
    assert len({version.partition("+")[0] for version in versions}) == 1, versions


def test_the_licence_of_every_package_is_listed(scripts: tuple[ModuleType, ModuleType]) -> None:
    licences = scripts[1]
    listed = re.findall(
        r"^\| (\w[\w.-]+)", licences.OUTPUT.read_text(encoding="utf-8"), re.MULTILINE
    )
    remedy = "run scripts/licences.py"
    assert listed[1:] == licences.pinned(), remedy  # The first is the heading.
    assert {canonicalize_name(name) for name in listed[1:]} == set(pins())


def test_no_index_is_preferred() -> None:
    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^--(extra-)?(index|find)", text, re.MULTILINE)
