"""Environment variables in option files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsfd.config import load_options
from lsfd.config.environment import expand
from lsfd.errors import LsfdError

TEXT = """\
name: run
scale: 4
datasets:
  train:
    dataroot_gt:
      - hr
      - ${LSFD_TEST_SET}/train
network_g: {type: EDSR}
train: {total_iter: 1, optim_g: {type: Adam, lr: 1e-4}}
"""


def test_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSFD_TEST_SET", "/images")
    monkeypatch.setenv("LSFD_TEST_EMPTY", "")
    monkeypatch.delenv("LSFD_TEST_UNSET", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("${LSFD_TEST_SET}/a ${LSFD_TEST_SET}") == "/images/a /images"
    assert expand("${LSFD_TEST_UNSET:-/none}/${LSFD_TEST_EMPTY:-b}") == "/none/b"
    assert expand("${LSFD_TEST_UNSET:-}${LSFD_TEST_EMPTY}") == ""
    assert expand("~/data") == f"{tmp_path}/data"
    assert expand("$HOME a~") == "$HOME a~"
    for malformed in ("${1}", "${}", "${A", "${A-b}", "${A;rm}"):
        with pytest.raises(LsfdError, match="is not a reference"):
            expand(malformed)


def test_environment_values_are_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSFD_TEST_SET", "${LSFD_TEST_SET}")
    assert expand("${LSFD_TEST_SET}") == "${LSFD_TEST_SET}"


def test_unset_variable_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "run.yml"
    file.write_text(TEXT)
    monkeypatch.setenv("LSFD_TEST_SET", "/images")
    loaded = load_options(file)
    assert loaded.options.datasets.train.dataroot_gt == ["hr", "/images/train"]
    assert loaded.raw["datasets"]["train"]["dataroot_gt"] == ["hr", "/images/train"]
    monkeypatch.delenv("LSFD_TEST_SET")
    with pytest.raises(LsfdError) as error:
        load_options(file)
    assert str(error.value).startswith(
        f"{file}, line 7, datasets.train.dataroot_gt.1: "
        "the environment variable LSFD_TEST_SET is not set; set it, or write ${LSFD_TEST_SET:-"
    )
