"""The script that measures how hard a method's terms pull at the student."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from helpers import write_options
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller

SCRIPT = Path(__file__).parent.parent / "scripts" / "balance.py"
SHORT = ["--iterations", "2", "--stage", "2", "--settle", "2", "--batches", "2"]


@pytest.fixture(scope="module")
def balance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("balance", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["balance"] = module  # Where dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure(
    balance: ModuleType, run_options: Callable[..., dict[str, Any]], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """A function that gives what is measured of a method's terms."""
    options = run_options(train={"total_iter": 5000})
    option_file, record = write_options(tmp_path / "options.yml", options), tmp_path / "record.json"

    def run(method: str, *settings: str) -> dict[str, Any]:
        given = ["--opt", str(option_file), "--methods", method, "--json", str(record), *SHORT]
        balance.main([*given, *(["--set", *settings] if settings else [])])
        terms: dict[str, Any] = json.loads(record.read_text())["methods"].get(method, {})
        return terms

    return run


class Pixels(Distiller):
    """The pixel loss itself, twice, once half as strong."""

    default_weights: ClassVar = {"whole": 0.5, "half": 3.0}
    uses_features = False

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        loss = (batch.student - batch.gt).abs().mean()
        return {"whole": loss, "half": loss / 2}


def test_the_pixel_loss_is_the_measure(
    measure: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(DISTILLERS, "Pixels", Pixels)
    terms = measure("Pixels")
    assert terms["whole"] == pytest.approx({"weight": 0.5, "unweighted": 1, "weighted": 0.5})
    assert terms["half"] == pytest.approx({"weight": 3, "unweighted": 0.5, "weighted": 1.5})
    assert (
        "| Pixels | half  | 3      | 0.5                   | 1.5      |" in capsys.readouterr().out
    )


def test_settings_reach_the_method(measure: Callable[..., dict[str, Any]]) -> None:
    usual = measure("LSFD")["feature"]
    other = measure("LSFD", "distillers.0.distance=l2", "distillers.0.weights={feature: 0.5}")
    assert other["feature"]["weight"] == 0.5
    assert other["feature"]["unweighted"] != usual["unweighted"]


@pytest.mark.parametrize("method", sorted(DISTILLERS))
def test_every_method_is_measured(
    balance: ModuleType, measure: Callable[[str], dict[str, Any]], method: str
) -> None:
    if method in balance.NOT_MEASURED:
        pytest.skip(balance.NOT_MEASURED[method])
    terms = measure(method)
    assert terms.keys() == DISTILLERS[method].default_weights.keys()
    assert all(0 <= term["unweighted"] < float("inf") for term in terms.values())
