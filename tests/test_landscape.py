"""The script that draws our students beside published networks."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from skimage import data

from lsfd import provenance
from lsfd.errors import LsfdError
from lsfd.evaluation.cost import paper_input
from lsfd.imaging.files import write_image
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from published_networks import HERE, build_published, upsampler

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "landscape.py"
PUBLISHED = ROOT / "results" / "landscape" / "published.json"
NETWORKS = json.loads(PUBLISHED.read_text())["networks"]
NAMES = {"FSRCNN", "CARN-M", "IMDN", "RFDN", "EDSR-baseline", "RCAN"}
TINY = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}


@pytest.fixture(scope="module")
def landscape() -> ModuleType:
    spec = importlib.util.spec_from_file_location("landscape", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["landscape"] = module  # Where dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(
    landscape: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Run the script with a tiny student of x2, tiny sets and tiny published networks."""
    for name in landscape.SETS:
        write_image(tmp_path / "data" / name / "HR" / "cat.png", data.chelsea()[60:124, 100:180])
    monkeypatch.setenv("LSFD_DATA", str(tmp_path / "data"))
    student = tmp_path / "mine-x2.safetensors"
    options = {**TINY, "upscale": 2}
    torch.manual_seed(0)
    save_student(student, build_network(options), StudentCard(architecture=options, scale=2))
    monkeypatch.setattr(landscape, "ready_students", lambda: {student.stem: student})
    small = [{**each, "architecture": each["architecture"] and TINY} for each in NETWORKS]
    published = tmp_path / "published.json"
    published.write_text(json.dumps({"networks": small}))
    monkeypatch.setattr(landscape, "PUBLISHED", published)

    def run(*arguments: str) -> Path:
        out = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["landscape.py", "-o", str(out), *arguments])
        landscape.main()
        return out

    return run


# Published figures


def test_every_network_of_the_comparison_is_there() -> None:
    assert {network["name"] for network in NETWORKS} == NAMES


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
def test_published_figures_are_complete_and_sourced(
    landscape: ModuleType, network: dict[str, Any]
) -> None:
    for key in ("training_data", "source"):
        assert network[key]
    assert str(network["year"]) in network["source"]
    assert any("scores" in what for what in network["confirmed"])
    assert all(network["confirmed"].values())
    assert network["scales"].keys() == {"2", "3", "4"}
    for figures in network["scales"].values():
        assert figures["scores"].keys() == set(landscape.SETS)
        pixels_in = figures["multiply_adds"] / figures["parameters"]
        assert 50_000 < pixels_in < 600_000  # Between an input for x4 and FSRCNN's last layer.
        for scores in figures["scores"].values():
            assert 24 < scores["psnr_y"] < 39 and 0.7 < scores["ssim_y"] < 0.97
    for name in landscape.SETS:  # The larger the factor, the worse.
        for score in ("psnr_y", "ssim_y"):
            by_scale = [network["scales"][scale]["scores"][name][score] for scale in "234"]
            assert by_scale == sorted(by_scale, reverse=True)


@pytest.mark.parametrize(
    "network",
    [each for each in NETWORKS if each["architecture"]],
    ids=lambda network: network["name"],
)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_what_is_timed_is_the_published_network(network: dict[str, Any], scale: int) -> None:
    figures = network["scales"][str(scale)]
    with torch.device("meta"):
        built = build_published(network["architecture"], scale)
    parameters, pixels = count_parameters(built), paper_input(scale)
    if network["name"] == "CARN-M":  # Its count has the upsamplers of all scales, and no biases.
        with torch.device("meta"):
            others = [upsampler(64, each, groups=4) for each in (2, 3, 4) if each != scale]
        values = [each for part in (built, *others) for each in part.parameters()]
        parameters = sum(each.numel() for each in values if each.dim() > 1)
    counted = 0 if network["name"] == "RCAN" else multiply_adds(built, *pixels)  # It takes seconds.
    if network["name"] == "FSRCNN":  # Its last layer is counted for pixels of the output.
        counted += 56 * 81 * (scale**2 - 1) * math.prod(pixels)
    exact = {"IMDN": {2: 694_404, 3: 703_059, 4: 715_176}}.get(network["name"], {})
    assert parameters == exact.get(scale, parameters)
    # Published are thousands, but for what we counted ourselves.
    unit = 1000 if figures["parameters"] % 1000 == 0 else 1
    assert parameters == pytest.approx(figures["parameters"], abs=unit - 1)
    if counted:
        assert counted == pytest.approx(figures["multiply_adds"], rel=0.01)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", HERE)
def test_what_is_timed_enlarges_colours(name: str, scale: int) -> None:
    network = build_published({"type": name}, scale)
    with torch.inference_mode():
        larger = network(torch.rand(1, 3, 20, 24))
    assert larger.shape == (1, 3, 20 * scale, 24 * scale)
    assert not torch.allclose(larger[:, 0], larger[:, 1], atol=1e-3)


def test_a_missing_set_of_the_published_is_named(
    landscape: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = json.loads(PUBLISHED.read_text())
    del lacking["networks"][0]["scales"]["3"]["scores"]["Set14"]
    monkeypatch.setattr(landscape, "PUBLISHED", tmp_path / "published.json")
    landscape.PUBLISHED.write_text(json.dumps(lacking))
    with pytest.raises(LsfdError, match="FSRCNN at x3 lacks Set14"):
        landscape.published(3)
    assert landscape.published(4)


# Measuring


def test_measured_and_cited_stand_side_by_side(
    landscape: ModuleType, run: Callable[..., Path]
) -> None:
    out = run("--runs", "1", "--device", "cpu")
    record = json.loads((out / "landscape.json").read_text())
    assert record.keys() == {"x2"}
    assert record["x2"].keys() >= {"commit", "versions", "hardware", "date", "rows"}
    rows = {row["name"]: row for row in record["x2"]["rows"]}
    assert rows.keys() == {"bicubic", "mine-x2", *NAMES}
    for name in ("bicubic", "mine-x2"):
        assert rows[name]["source"] == "" and rows[name]["seconds"] > 0
        assert rows[name]["scores"].keys() == set(landscape.SETS)
    for network in NETWORKS:
        row = rows[network["name"]]
        assert row["source"] == network["source"]
        assert row["training_data"] == network["training_data"]
        assert row["scores"] == network["scales"]["2"]["scores"]
        timed = row["seconds"] is not None
        assert timed == (network["architecture"] is not None)  # Never invented.

    assert (out / "landscape_x2.png").exists() and (out / "table_x2.md").exists()

    scored = record["x2"]["scored"]
    for row in rows.values():
        row["seconds"] = row["seconds"] and 99.0
    (out / "landscape.json").write_text(json.dumps(record))
    (out.parent / "data").rename(out.parent / "elsewhere")  # Times need no images.
    run("--runs", "1", "--device", "cpu", "--time")
    record = json.loads((out / "landscape.json").read_text())
    again = {row["name"]: row for row in record["x2"]["rows"]}
    assert again.keys() == rows.keys()
    for name, row in again.items():
        assert row["scores"] == rows[name]["scores"]
        assert (row["seconds"] is None) == (rows[name]["seconds"] is None)
        assert row["seconds"] is None or row["seconds"] < 99
    assert record["x2"]["scored"] == scored


def test_pictures_and_tables_are_made_of_the_record_alone(
    landscape: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {name: {"psnr_y": 31.0, "ssim_y": 0.9} for name in landscape.SETS}
    rows = [landscape.Row("bicubic", "", 0, 0, scores, seconds=0.1)]
    rows += [landscape.Row("mine-x4", landscape.OURS, 9_000, 10**9, scores, seconds=1.0)]
    cited = landscape.cited_rows(landscape.published(4), 4)
    rows += [replace(row, seconds=90.0 if row.name == "RCAN" else None) for row in cited]
    entry = {"runs": 1, "precision": "fp32", "date": "today", **provenance.stamp()}
    record = {"x4": {**entry, "rows": [asdict(row) for row in rows]}}
    (tmp_path / "landscape.json").write_text(json.dumps(record))
    monkeypatch.delenv("LSFD_DATA", raising=False)
    monkeypatch.setattr(landscape, "PUBLISHED", Path("nowhere"))
    monkeypatch.setattr(landscape, "ready_students", None)
    monkeypatch.setattr(sys, "argv", ["landscape.py", "--draw", "-o", str(tmp_path)])
    landscape.main()
    assert (tmp_path / "landscape_x4.png").stat().st_size > 10_000
    text = (tmp_path / "table_x4.md").read_text()
    assert "cited, not reproduced" in text and "of the published ones RCAN:" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    assert "| 30.71 / 0.8657 " in lines["FSRCNN"] and "191 images" in lines["FSRCNN"]
    assert "DIV2K" in lines["RCAN"] and " 90.00 " in lines["RCAN"]
    assert "BSDS399" in lines["mine-x4"] and "bicubic" in lines
    assert all(f"* {name}: " in text for name in NAMES)


def test_scores_of_an_earlier_student_are_not_kept(landscape: ModuleType, tmp_path: Path) -> None:
    scores = {name: {"psnr_y": 31.0, "ssim_y": 0.9} for name in landscape.SETS}
    rows = [landscape.Row(name, "", 0, 0, scores) for name in ("bicubic", "mine-x4", "gone-x4")]
    options = {**TINY, "upscale": 4}
    student = tmp_path / "mine-x4.safetensors"
    for psnr in (31.0, 31.2):
        card = StudentCard(architecture=options, scale=4, scores={"Set5": {"psnr_y": psnr}})
        save_student(student, build_network(options), card)
        if psnr == 31.0:
            assert landscape.kept_rows(rows, [student]) == rows[:2]
    with pytest.raises(LsfdError, match="mine-x4 as it is now has not been scored"):
        landscape.kept_rows(rows, [student])


@pytest.mark.parametrize("damage", ["half", "older", "untimed", "rowless", "list"])
def test_a_damaged_record_is_named(
    landscape: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    scores = {name: {"psnr_y": 31.0, "ssim_y": 0.9} for name in landscape.SETS}
    row = asdict(landscape.Row("bicubic", "", 0, 0, scores, seconds=0.1))
    entry = {"runs": 1, "precision": "fp32", "date": "today", **provenance.stamp(), "rows": [row]}
    if damage == "older":
        row["megapixels"] = row.pop("seconds")
    elif damage == "untimed":
        row["seconds"] = None
    elif damage == "rowless":
        entry["rows"] = []
    text = json.dumps([entry] if damage == "list" else {"x4": entry})
    file = tmp_path / "landscape.json"
    file.write_text(text[: len(text) // 2] if damage == "half" else text)
    monkeypatch.setattr(sys, "argv", ["landscape.py", "--draw", "-o", str(tmp_path)])
    with pytest.raises(LsfdError, match=r"landscape\.json is damaged, or of an older"):
        landscape.main()
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_missing_is_named(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"there is no .*landscape\.json; leave out --draw"):
        run("--draw")
    with pytest.raises(
        LsfdError, match="mine-x2 as it is now has not been scored; leave out --time"
    ):
        run("--time")
    with pytest.raises(LsfdError, match="no student of x3 comes with lsfd; there are: x2"):
        run("--scales", "3")
    (tmp_path / "data" / "Urban100").rename(tmp_path / "data" / "Manga109")
    with pytest.raises(LsfdError, match="Urban100"):
        run()
    assert not (tmp_path / "out").exists()


def test_names_do_not_overlap(landscape: ModuleType, tmp_path: Path) -> None:
    """Close points: their names are told apart."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=landscape.DPI)
    axes = figure.subplots()
    axes.set_xscale("log")
    rows = [
        landscape.Row(f"network-{i}", "", 1, 1, {"Set5": {"psnr_y": 32 + i / 50, "ssim_y": 0.9}})
        for i in range(6)
    ]
    points = [(row, 1e5 * 1.1**i) for i, row in enumerate(rows)]
    axes.plot([x for _, x in points], [row.psnr for row in rows], "o")
    axes.set(xlim=(1e4, 1e6), ylim=(31, 33))
    landscape.label_points(axes, points, [], "")
    names = {text.get_text(): text.get_window_extent() for text in axes.texts}
    names.pop("", None)  # Lines.
    assert list(names) == [row.name for row in rows]
    boxes = list(names.values())
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
