"""Pictures of the methods' attention, saved at validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from distillation import agreeing_case, build, case
from helpers import assert_same, lasting_records
from torch import Tensor

from lsfd.config.load import options_from_dict
from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller
from lsfd.distillers.base import Stage
from lsfd.distillers.lsfd import LSFD
from lsfd.imaging.files import read_image
from lsfd.training.distributed import Processes
from lsfd.training.run import Run

Options = Callable[..., dict[str, Any]]
MAPS = {"val_freq": 6, "save_maps": True}


def run(options: dict[str, Any]) -> Run:
    finished = Run(options_from_dict(options), Processes())
    assert finished.go(auto_resume=False) == 0
    return finished


def pictures(finished: Run) -> list[str]:
    folder = finished.folder.visualization
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_attention_of_the_first_image_is_saved(run_options: Options) -> None:
    finished = run(run_options(val=MAPS))
    names = ("body.0_body.1", "body.1_body.3", "conv_after_body")
    assert pictures(finished) == [
        f"{iteration}/photographs/astronaut_lsfd_{name}.png"
        for iteration in (12, 6)
        for name in names
    ]
    first = finished.folder.visualization / "6" / "photographs" / "astronaut_lsfd_body.0_body.1.png"
    assert read_image(first).shape[1] == 1800


def test_saving_maps_changes_nothing_else(run_options: Options) -> None:
    with_maps, without = (
        run(run_options(name=name, val={"save_maps": name == "maps"})) for name in ("maps", "none")
    )
    assert not pictures(without)
    assert_same(with_maps.model.state_dict(), without.model.state_dict())
    assert lasting_records(with_maps.folder) == lasting_records(without.folder)


class Staged(Distiller):
    """Learns something without the student for six iterations."""

    default_weights: ClassVar = {"mean": 1.0}
    uses_features = False
    seen: ClassVar[list[tuple[int, tuple[int, ...]]]] = []

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def stages(self) -> list[Stage]:
        return [Stage("warm", 6, runs_student=False)]

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        return {"warm": self.weight.square().sum()}

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        return {"mean": batch.student.mean()}

    def maps(self, batch: DistillationBatch) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled() and not self.training
        self.seen.append((batch.step, tuple(batch.student.shape)))
        return {"tap:input": batch.student.mean(1, keepdim=True)}


def test_methods_without_a_say_show_nothing(
    run_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DISTILLERS, "Staged", Staged)
    distillers = [{"type": "Staged"}, {"type": "LSFD", "start": 12, "weights": {"feature": 0.0}}]
    finished = run(run_options(val={**MAPS, "val_freq": 3}, distillers=distillers))
    shown = {name.removesuffix(".png") for name in pictures(finished)}
    # A colon in a name would be no file's name on some systems.
    assert {name for name in shown if "staged" in name} == {
        f"{iteration}/photographs/astronaut_staged_tap-input" for iteration in (9, 12)
    }
    assert {name.split("/")[0] for name in shown if "lsfd" in name} == {"12"}
    # The middle of the image, 80 x 64 pixels at low resolution, is all of it.
    assert Staged.seen == [(9, (1, 3, 128, 160)), (12, (1, 3, 128, 160))]
    Staged.seen.clear()


def test_large_images_are_cut(
    run_options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(DISTILLERS, "Staged", Staged)
    monkeypatch.setattr("lsfd.training.maps.LARGEST", 70)
    run(run_options(val=MAPS, distillers=[{"type": "Staged"}]))
    assert Staged.seen == [(12, (1, 3, 128, 140))]
    Staged.seen.clear()


def test_lsfd_shows_the_attention_of_its_loss() -> None:
    given = case()
    method = build(LSFD, given)
    batch = given.batch(size=1)
    maps = method.maps(batch)
    assert list(maps) == ["body.0_body.1", "body.1_body.3", "conv_after_body"]
    for attention in maps.values():
        assert attention.shape == (1, 1, 8, 10)
        assert attention.mean().item() == pytest.approx(1, rel=1e-4)
    losses = [
        (maps[name] * d).mean() for name, d in zip(maps, method.distances(batch), strict=True)
    ]
    assert torch.stack(losses).sum().item() == pytest.approx(method(batch)["feature"].item())


def test_several_teachers_are_numbered() -> None:
    given = agreeing_case(teachers=2)
    names = list(build(LSFD, given).maps(given.batch(size=1)))
    assert names == [
        "body.0", "body.1", "conv_after_body", "body.0_2", "body.1_2", "conv_after_body_2",
    ]  # fmt: skip
