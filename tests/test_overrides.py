"""Changes from the command line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lsfd.config import load_options
from lsfd.config.overrides import apply_override
from lsfd.errors import LsfdError

TEXT = """\
name: run
scale: 4
datasets: {train: {dataroot_gt: hr}}
network_g: {type: EDSR}
network_t: {type: auto}
distillers:
  - type: LSFD
    weights: {output: 1}
  - type: Output
path: {pretrain_network_t: t.pth}
train:
  total_iter: 10
  optim_g: {type: Adam, lr: 1e-4}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yml"
    path.write_text(TEXT)
    return path


DATA: dict[str, Any] = {"a": {"b": 1, "n": None}, "l": [{"x": 1}, 2], "t": "text"}


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("a.b=2", ("a", "b"), 2),
        ("a:b=2", ("a", "b"), 2),
        (" a.b = 1e-4 ", ("a", "b"), 1e-4),
        ("a.b=", ("a", "b"), None),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("a.b=a:b/c.d", ("a", "b"), "a:b/c.d"),
        ("a.b=[1, {c: true}]", ("a", "b"), [1, {"c": True}]),
        ("a.b='2'", ("a", "b"), "2"),
        ("a.new=1", ("a", "new"), 1),
        ("a.n.c=1", ("a", "n", "c"), 1),
        ("new.c.d=1", ("new", "c", "d"), 1),
        ("l.0.x=2", ("l", "0", "x"), 2),
        ("l.1=3", ("l", "1"), 3),
    ],
)
def test_one_value_changes(override: str, path: tuple[str, ...], value: Any) -> None:
    data = copy.deepcopy(DATA)
    assert apply_override(data, override) == path
    node: Any = data
    for key in path:
        node = node[int(key) if isinstance(node, list) else key]
    assert node == value
    assert type(node) is type(value)
    untouched = {key for key in DATA if key != path[0]}
    assert all(data[key] == DATA[key] for key in untouched)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b", "override a.b: write it as section.key=value"),
        ("=1", "override =1: write it as section.key=value"),
        ("a..b=1", "override a..b=1: write it as section.key=value"),
        ("l.2=1", "override l.2=1: l.2 does not exist; valid: 0, 1"),
        ("l.-1=1", "override l.-1=1: l.-1 does not exist"),
        ("l.0=", None),
        ("t.x=1", "override t.x=1: t is no mapping, so it has no 'x'"),
        ("a.b.c=1", "override a.b.c=1: a.b is no mapping, so it has no 'c'"),
        ("a.b=[", "override a.b=[, line 1: not valid YAML"),
        ("a.b=!!python/object/apply:os.getcwd []", "override a.b=!!python"),
    ],
)
def test_override_that_cannot_be_applied(override: str, expected: str | None) -> None:
    data = copy.deepcopy(DATA)
    if expected is None:
        apply_override(data, override)
        return
    with pytest.raises(LsfdError) as error:
        apply_override(data, override)
    assert str(error.value).startswith(expected)


def test_value_is_never_evaluated(file: Path) -> None:
    code = "__import__('os').getcwd()"
    loaded = load_options(file, [f"path.pretrain_network_g={code}"])
    assert loaded.options.path.pretrain_network_g == code


def test_later_override_wins(file: Path) -> None:
    loaded = load_options(file, ["train.total_iter=20", "train:total_iter=3e1"])
    assert loaded.options.train.total_iter == 30


def test_sections_that_the_file_lacks_and_free_mappings(file: Path) -> None:
    overrides = ["val.val_freq=7", "network_g.num_feat=8", "distillers.0.weights.feature=0"]
    loaded = load_options(file, overrides)
    assert loaded.options.val.val_freq == 7
    assert loaded.options.network_g.arguments == {"num_feat": 8}
    assert loaded.options.distillers[0].arguments["weights"] == {"output": 1, "feature": 0}
    assert loaded.raw["network_g"] == {"type": "EDSR", "num_feat": 8}


def test_teacher_and_distillers_can_be_taken_away(file: Path) -> None:
    overrides = ["network_t=null", "distillers=null", "path.pretrain_network_t=null"]
    options = load_options(file, overrides).options
    assert options.network_t == []
    assert options.distillers == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.totl_iter=3", "override train.totl_iter=3: unknown option; did you mean"),
        ("tran.total_iter=3", "override tran.total_iter=3: unknown option; did you mean 'train'?"),
        ("train.optim_g={lr: 1}", "override train.optim_g={lr: 1}, train.optim_g.type: is missing"),
        ("train.total_iter=many", "override train.total_iter=many: should be a whole number, got"),
        ("scale=3", "override datasets.train.gt_size=200: 200 is not a multiple of scale 3"),
    ],
)
def test_mistake_names_the_override_not_a_line(file: Path, override: str, expected: str) -> None:
    with pytest.raises(LsfdError) as error:
        load_options(file, ["datasets.train.gt_size=200", override])
    assert str(error.value).startswith(expected)


def test_errors_of_untouched_keys_keep_their_line(file: Path) -> None:
    loaded = load_options(file, ["distillers.0.weights.output=2"])
    said = str(loaded.error("distillers.0.type", "unknown"))
    assert said.endswith("run.yml, line 7, distillers.0.type: unknown")
    said = str(loaded.error("distillers.0.weights.output", "too large"))
    assert said == "override distillers.0.weights.output=2: too large"
