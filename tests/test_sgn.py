"""Properties of SGN: a student that learns all mixtures of several losses, and its use."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import Case, build, case, edsr, sections_of, terms_of
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from lsfd.cli import main
from lsfd.config.load import options_from_dict
from lsfd.distillers import DISTILLERS, DistillationBatch
from lsfd.distillers.sgn import covariance, ratio
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.inference.mixture import parse_mixture
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.build import build_network
from lsfd.networks.gated_edsr import GatedEDSR
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.training.distributed import Processes
from lsfd.training.run import Run

OBJECTIVES = ("fidelity", "perceptual", "teacher")
GATED = {"type": "GatedEDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3}
ARCHITECTURE = {**GATED, "upscale": 2}
SCRIPT = Path(__file__).parent.parent / "scripts" / "mixture.py"


def gated_case() -> Case:
    return case(edsr(kind="GatedEDSR"))


def sgn(given: Case, **options: Any) -> Any:
    return build(DISTILLERS["SGN"], given, **{"network": "teacher", **options})


def with_mixture(batch: DistillationBatch, *rows: list[float]) -> DistillationBatch:
    return replace(batch, inputs={"mixture": torch.tensor(rows)})


def losses(batch: DistillationBatch) -> dict[str, Tensor]:
    """The losses that need no feature network, for each image."""
    return {
        "fidelity": (batch.student - batch.gt).abs().mean((1, 2, 3)),
        "teacher": (batch.student - batch.teachers[0]).abs().mean((1, 2, 3)),
    }


def test_mixtures_are_drawn_for_each_image_and_sum_to_1() -> None:
    distiller = sgn(gated_case())
    mixture = distiller.inputs(torch.zeros(5, 3, 4, 4))["mixture"]
    assert mixture.shape == (5, 3) and mixture.dtype == torch.float32
    assert (mixture >= 0).all()
    torch.testing.assert_close(mixture.sum(1), torch.ones(5))
    assert len({tuple(row) for row in mixture.tolist()}) == 5


@pytest.mark.parametrize("concentration", [0.5, 4.0])
def test_shares_have_the_mean_and_the_variance_of_the_distribution(concentration: float) -> None:
    distiller = sgn(gated_case(), concentration=concentration)
    torch.manual_seed(0)
    shares = distiller.inputs(torch.zeros(20_000, 3, 1, 1))["mixture"]
    torch.testing.assert_close(shares.mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.01)
    variance = 2 / 9 / (3 * concentration + 1)
    torch.testing.assert_close(shares.var(0), torch.full((3,), variance), rtol=0.05, atol=0)


def test_mixtures_come_from_the_global_generator() -> None:
    distiller, lq = sgn(gated_case()), torch.zeros(2, 3, 4, 4)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(distiller.inputs(lq)["mixture"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_losses_are_those_of_each_image_times_its_share() -> None:
    given = gated_case()
    distiller, batch = sgn(given), given.batch(size=2)
    rows = [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    terms = terms_of(distiller, with_mixture(batch, *rows))
    shares = torch.tensor(rows)
    for name, each in losses(batch).items():
        expected = (shares[:, OBJECTIVES.index(name)] * each).mean()
        torch.testing.assert_close(terms[name], expected)
    torch.manual_seed(0)
    each = distiller.perception(batch)
    assert each.shape == (2,)
    torch.testing.assert_close(terms["perceptual"], (shares[:, 1] * each).mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_objective_alone_is_exactly_its_loss(name: str) -> None:
    given = gated_case()
    distiller, batch = sgn(given), given.batch()
    row = [float(name == other) for other in OBJECTIVES]
    terms = terms_of(distiller, with_mixture(batch, row, row, row))
    assert [other for other, value in terms.items() if value != 0] == [name]
    if name == "perceptual":
        torch.manual_seed(0)
        assert torch.equal(terms[name], distiller.perception(batch).mean())
    else:
        wanted = batch.gt if name == "fidelity" else batch.teachers[0]
        torch.testing.assert_close(terms[name], functional.l1_loss(batch.student, wanted))


def test_the_perceptual_distance_is_0_for_the_images_that_are_right() -> None:
    given = gated_case()
    distiller, batch = sgn(given), given.batch()
    student = torch.cat([batch.gt[:1], batch.student[1:]])
    values = distiller.perception(replace(batch, student=student))
    assert values[0] == 0 and (values[1:] > 0).all()


def test_ratios_do_not_depend_on_the_unit() -> None:
    first, second = torch.rand(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ratio(255 * first, 255 * second), ratio(first, second))
    zeros = torch.zeros(2, 4, 5, 5, requires_grad=True)
    loss = (ratio(zeros, zeros) + ratio(covariance(zeros), covariance(zeros))).sum()
    loss.backward()
    assert loss == 0 and zeros.grad is not None and torch.isfinite(zeros.grad).all()


def test_covariances_know_texture_but_neither_place_nor_mean() -> None:
    features = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = covariance(features)
    assert expected.shape == (2, 4, 4)
    torch.testing.assert_close(expected[0], torch.cov(features[0].flatten(1), correction=0))
    torch.testing.assert_close(covariance(features.roll((1, 2), (2, 3)) + 5), expected)
    torch.testing.assert_close(covariance(2 * features), 4 * expected)


def test_covariances_are_float32_under_autocast() -> None:
    features = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(covariance(features), covariance(features).float())
        inside = covariance(features)
    assert torch.equal(inside, covariance(features))


def test_texture_asks_for_the_detail_that_features_alone_would_blur_away() -> None:
    """Of a texture in the wrong place and flat grey, L1 prefers grey; covariances do not."""
    given = gated_case()
    batch = given.batch()
    texture = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(texture, 0.5)
    other = texture.flip(3)

    def value(image: Tensor, weight: float) -> float:
        distiller = sgn(given, texture=weight)
        torch.manual_seed(0)
        return float(distiller.perception(replace(batch, student=image, gt=texture)).mean())

    assert (texture - flat).abs().mean() < (texture - other).abs().mean()
    assert value(flat, 0.0) < value(other, 0.0)
    assert value(other, 3.0) < value(flat, 3.0)


def test_vgg_takes_the_place_of_the_teacher(vgg_file: str) -> None:
    given = gated_case()
    distiller = sgn(given, network="auto", vgg_weights=vgg_file)
    batch = given.batch()
    assert distiller.network == "vgg" and not list(distiller.parameters())
    values = distiller.perception(replace(batch, student=torch.cat([batch.gt[:1], batch.gt[:2]])))
    assert values[0] == 0 and torch.isfinite(values).all() and values[1] > 0


def test_different_mixtures_make_different_images_after_some_training() -> None:
    given = gated_case()
    distiller, batch = sgn(given, weights={"perceptual": 0.0}), given.batch()
    wanted = replace(batch, gt=batch.gt * 0.2, teachers=[0.8 + 0.2 * batch.gt])
    optimizer = torch.optim.Adam(given.student.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        inputs = distiller.inputs(batch.lq)
        output, _ = given.student(batch.lq, inputs=inputs)
        loss = sum(distiller(replace(wanted, student=output, inputs=inputs)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        dark, bright = (
            given.student(batch.lq, inputs={"mixture": torch.eye(3)[index].expand(3, 3)})[0]
            for index in (0, 2)
        )
    for output, near, far in ((dark, wanted.gt, wanted.teachers[0]),
                              (bright, wanted.teachers[0], wanted.gt)):  # fmt: skip
        assert functional.l1_loss(output, near) < functional.l1_loss(output, far) / 2


def test_terms_are_those_of_the_students_objectives() -> None:
    torch.manual_seed(0)
    given = case(build_network({**ARCHITECTURE, "objectives": ["teacher", "fidelity"]}))
    distiller, batch = sgn(given), given.batch(size=2)
    assert distiller.inputs(batch.lq)["mixture"].shape == (2, 2)
    terms = terms_of(distiller, with_mixture(batch, [1.0, 0.0], [1.0, 0.0]))
    assert terms.keys() == {"teacher", "fidelity"}
    assert terms["fidelity"] == 0 < terms["teacher"]


def test_what_has_no_weight_is_not_computed() -> None:
    given = gated_case()
    distiller = sgn(given, weights={"perceptual": 0.0})
    assert terms_of(distiller, given.batch()).keys() == {"fidelity", "teacher"}


def test_mistakes_are_named() -> None:
    with pytest.raises(LsfdError, match=r"^network_g\.type: .*EDSR takes none; use GatedEDSR"):
        sgn(case())
    other = case(build_network({**ARCHITECTURE, "objectives": ["fidelity", "perception"]}))
    message = r"^network_g\.objectives: .*'perception'; did you mean 'perceptual'\?"
    with pytest.raises(LsfdError, match=message):
        sgn(other)
    with pytest.raises(LsfdError, match=r"^concentration: must be above 0, not 0\.0"):
        sgn(gated_case(), concentration=0.0)
    with pytest.raises(LsfdError, match=r"^texture: must be at least 0, not -1\.0"):
        sgn(gated_case(), texture=-1.0)


def test_the_exported_student_is_the_network_alone(
    run_options: Callable[..., dict[str, Any]],
) -> None:
    options = run_options(**sections_of("SGN", 0))
    options["train"]["pixel_opt"] = None
    run = Run(options_from_dict(options), Processes())
    assert run.go(auto_resume=False) == 0
    assert load_file(run.folder.student).keys() == build_network(ARCHITECTURE).state_dict().keys()
    student, card = read_student(run.folder.student)
    assert isinstance(student, GatedEDSR) and card.method == "SGN"
    assert student.mixture.tolist() == [1, 0, 0]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a student whose gates move much with the mixture."""
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE)
    for name, parameter in network.named_parameters():
        if "condition" in name or "squeeze" in name or "excite.0.weight" in name:
            parameter.data.mul_(4)
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_student(path, network, StudentCard(architecture=ARCHITECTURE, scale=2))
    return path


def upscale(student: Path, source: Path, out: Path, *more: str) -> int:
    exact = ["--device", "cpu", "--precision", "fp32"]
    return main(["upscale", "-i", str(source), "-o", str(out), "-w", str(student), *exact, *more])


def test_a_folder_is_upscaled_with_the_mixture_that_is_asked_for(
    student: Path, photographs: Path, tmp_path: Path
) -> None:
    asked = {
        "default": [],
        "fidelity": ["--mix", "fidelity=2"],
        "mixed": ["--mix", "fidelity=0.7, perceptual=0.3"],
    }
    for name, more in asked.items():
        assert upscale(student, photographs, tmp_path / name, *more) == 0
    images = {
        name: [read_image(path) for path in sorted((tmp_path / name).iterdir())] for name in asked
    }
    assert len(images["mixed"]) == 2
    network, _ = read_student(student)
    assert isinstance(network, GatedEDSR)
    network.set_mixture({"fidelity": 0.7, "perceptual": 0.3})
    upscaler = Upscaler(network, 2, "cpu")
    for index, path in enumerate(sorted(photographs.iterdir())):
        assert (images["fidelity"][index] == images["default"][index]).all()
        assert (images["mixed"][index] != images["default"][index]).mean() > 0.1
        assert (images["mixed"][index] == upscaler(read_image(path))).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fidelity", "mix: 'fidelity' is no NAME=NUMBER; write fidelity=0.7,perceptual=0.3"),
        ("fidelity=much", "mix: 'fidelity=much' is no NAME=NUMBER"),
        ("", "mix: '' is no NAME=NUMBER"),
        ("fidelity=1,fidelity=2", "mix: 'fidelity' comes twice"),
        ("fidelty=1", "mixture.fidelty: the network has no such objective; did you mean"),
    ],
)
def test_mistakes_in_a_mixture_end_in_one_sentence(
    student: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    sentence: str,
) -> None:
    assert upscale(student, photographs, tmp_path / "out", "--mix", text) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lsfd: {sentence}") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_network_without_objectives_is_refused(
    photographs: Path, teacher_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upscale(teacher_file, photographs, tmp_path / "out", "--mix", "fidelity=1") == 2
    assert "mix: this network, EDSR, was trained for one purpose" in capsys.readouterr().err


def test_a_mixture_is_read_in_any_order() -> None:
    assert parse_mixture(" teacher = 1e-1,fidelity=2") == {"teacher": 0.1, "fidelity": 2.0}


def test_the_script_measures_and_draws_along_the_mixture(
    student: Path, photographs: Path, teacher_file: Path, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("mixture", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["mixture"] = script  # Where dataclasses look their module up.
    spec.loader.exec_module(script)
    arguments = ["--sets", str(photographs), "--teacher", str(teacher_file), "--steps", "2"]
    script.main([str(student), *arguments, "--strip", "2", "-o", str(tmp_path)])
    record = json.loads((tmp_path / "mixture.json").read_text())
    labels = ["0.00 perceptual", "1.00 perceptual", "bicubic", "1.00 teacher", "teacher network"]
    assert [row["label"] for row in record["rows"]] == labels
    assert record["rows"][1]["shares"] == {"fidelity": 0.0, "perceptual": 1.0}
    first, second = (row["sets"][photographs.name] for row in record["rows"][:2])
    assert first.keys() == {"psnr_y", "perceptual", "sharpness"} and first != second
    assert record["perceptual"] in (tmp_path / "README.md").read_text()
    for name in ("strip.png", "curve.png"):
        assert min(read_image(tmp_path / name).shape[:2]) > 100
