"""The room ``lsfd/reporting``: tables, curves, comparison pictures, attention maps."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lsfd.errors import LsfdError
from lsfd.reporting.attention import save_attention
from lsfd.reporting.captions import typeset
from lsfd.reporting.curves import save_comparison_curves, save_run_curves
from lsfd.reporting.pictures import Result, save_comparison, telling_box
from lsfd.reporting.style import saved_figure, write_png
from lsfd.reporting.tables import markdown_table

Array = NDArray[Any]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved, so that a test can ask what is drawn in them."""
    saved: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def pixels(path: Path) -> Array:
    return np.asarray(Image.open(path).convert("RGB"))


def train(iteration: int, **losses: float) -> dict[str, Any]:
    return {"kind": "train", "iteration": iteration, "losses": losses, "lr": 1e-4}


def val(iteration: int, psnr: float, name: str = "Set5") -> dict[str, Any]:
    return {"kind": "val", "iteration": iteration, "set": name, "scores": {"psnr": psnr}}


# Tables


def test_table_is_aligned_and_bold_where_it_should_be() -> None:
    table = markdown_table(
        ["Method", "Parameters", "PSNR-Y", "Time (ms)"],
        [
            ["Bicubic", None, 28.421, 1.2],
            ["a|b", 1517571, 31.738, 12.0],
            ["Teacher", 43089923, 31.742, math.nan],
        ],
        bold_best={2: "max", 3: "min"},
        digits={3: 1},
    )
    assert table.splitlines() == [
        "| Method  | Parameters |    PSNR-Y | Time (ms) |",
        "| ------- | ---------: | --------: | --------: |",
        "| Bicubic |          - |   28.42   |   **1.2** |",
        "| a\\|b    |  1,517,571 | **31.74** |    12.0   |",
        "| Teacher | 43,089,923 | **31.74** |     nan   |",
    ]


def test_one_number_alone_is_not_the_best() -> None:
    assert "**" not in markdown_table(["x"], [[1.0], [None]], bold_best={0: "max"})


def test_table_without_rows_is_a_header() -> None:
    assert markdown_table(["ab", "c"], []) == "| ab  | c   |\n| --- | --- |\n"


def test_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells, the header has 2"):
        markdown_table(["a", "b"], [[1, 2], [1]])


_cells = st.one_of(st.none(), st.text(max_size=8), st.floats(-1e6, 1e6), st.integers(-99, 10**9))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(_cells, _cells), max_size=6), st.sampled_from(["max", "min"]))
def test_every_line_of_a_table_is_equally_long(rows: list[Any], best: Any) -> None:
    lines = markdown_table(["first", "second"], rows, bold_best={0: best, 1: best}).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)


# Curves


def test_run_curves_show_losses_scores_and_best(tmp_path: Path, figures: list[Figure]) -> None:
    records = [train(i, l_pix=1 / i, l_kd=2 / i) for i in range(100, 6001, 100)]
    records += [
        val(i, 30 + p, s)
        for s in ("Set5", "Set14")
        for i, p in [(1000, 0.1), (3000, 0.5), (2000, 0.7), (4000, math.nan), (5000, math.inf)]
    ]
    save_run_curves(records, tmp_path / "run.png", "my run")
    assert pixels(tmp_path / "run.png").shape[1] == 1800
    losses, set5, set14, rate = figures[0].axes
    assert figures[0].get_suptitle() == "my run"
    assert losses.get_yscale() == "log"
    assert losses.get_legend_handles_labels()[1] == ["l_pix", "l_kd"]
    assert [a.get_title(loc="left") for a in (set5, set14)] == [
        "Set5 PSNR-Y (dB)",
        "Set14 PSNR-Y (dB)",
    ]
    curve, star = set5.lines
    assert list(curve.get_xdata()) == [1000, 2000, 3000]  # In order, the non-finite left out.
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([2000], [30.7])
    assert star.get_label() == "best 30.70\nat 2,000"
    assert rate.lines[0].get_ydata()[0] == 1e-4


def test_smoothing_keeps_a_constant_and_the_mean(tmp_path: Path, figures: list[Figure]) -> None:
    records = [train(i, flat=0.5, noisy=1.0 + 0.5 * (-1) ** i) for i in range(1, 401)]
    save_run_curves(records, tmp_path / "run.png", "")
    raw_flat, flat, raw_noisy, noisy = figures[0].axes[0].lines
    np.testing.assert_allclose(flat.get_ydata(), 0.5)
    assert np.ptp(raw_noisy.get_ydata()) == 1.0
    np.testing.assert_allclose(noisy.get_ydata()[20:-20], 1.0)
    assert raw_flat.get_color() == flat.get_color() != noisy.get_color()


@pytest.mark.parametrize("high", [1.0, 0.0241, 0.03, 0.05, 0.1, 1.5, 1e3, 1e9])
def test_the_loss_axis_has_a_few_labels_at_any_range(
    tmp_path: Path, figures: list[Figure], high: float
) -> None:
    save_run_curves([train(1, l_pix=0.024), train(2, l_pix=high)], tmp_path / "run.png", "")
    axes = figures[0].axes[0]
    low, top = axes.get_ylim()
    assert 2 <= sum(low <= tick <= top for tick in axes.get_yticks()) <= 13


def test_a_resumed_run_overwrites_what_it_repeats(tmp_path: Path, figures: list[Figure]) -> None:
    records = [val(1000, 30.0), val(2000, 31.0), val(2000, 32.0), val(3000, 31.5)]
    save_run_curves(records, tmp_path / "run.png", "")
    assert list(figures[0].axes[1].lines[0].get_ydata()) == [30.0, 32.0, 31.5]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [train(100, l_pix=0.1)],
        [val(100, 30.0)],
        [train(1, l_pix=math.nan, l_gan=-1.0), {"kind": "other"}],
        [{"kind": "train", "iteration": 1}, {"kind": "val", "iteration": 1, "set": "Set5"}],
    ],
)
@pytest.mark.filterwarnings("error")
def test_short_records_still_make_a_picture(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    save_run_curves(records, tmp_path / "run.png", "short")
    save_comparison_curves({"a": records, "b": []}, tmp_path / "several.png")
    save_comparison_curves({}, tmp_path / "none.png", reference={"Bicubic": {"Set5": 28.4}})
    for name in ("run", "several", "none"):
        assert pixels(tmp_path / f"{name}.png").shape[1] == 1800


def test_pictures_of_a_long_run_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alive: weakref.WeakSet[Figure] = weakref.WeakSet()
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: alive.add(figure))
    gc.disable()  # A training makes so few objects that Python hardly ever collects them all.
    try:
        for _ in range(3):
            save_run_curves([train(1, l_pix=0.5)], tmp_path / "run.png", "")
    finally:
        gc.enable()
    assert len(alive) <= 1


def test_compared_runs_share_a_panel_per_set(tmp_path: Path, figures: list[Figure]) -> None:
    runs = {
        run: [
            val(i, s + gain - 500 / i, n)
            for n, s in [("Set5", 31.0), ("Set14", 28.0)]
            for i in range(500, 10001, 500)
        ]
        for run, gain in [("Plain", 0.0), ("LSFD", 0.1)]
    }
    reference = {"Teacher": {"Set5": 31.3}, "Bicubic": {"Set5": 28.42, "Set14": 26.0}}
    save_comparison_curves(runs, tmp_path / "c.png", reference=reference)
    set5, set14 = figures[0].axes
    assert [line.get_label() for line in set5.lines] == ["Plain", "LSFD", "Teacher"]
    assert [line.get_label() for line in set14.lines] == ["Plain", "LSFD"]
    assert set5.lines[0].get_color() == set14.lines[0].get_color() != set5.lines[1].get_color()
    assert list(set5.lines[2].get_ydata()) == [31.3, 31.3]
    # Bicubic would squeeze the curves: it is noted, and the axis stays with the runs.
    assert "Bicubic 28.42 ↓" in [text.get_text() for text in set5.texts]
    assert 30 < set5.get_ylim()[0] < 31
    assert set5.get_ylim()[1] > 31.3
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert names == ["Plain", "LSFD", "Teacher"]


def test_metric_is_chosen_by_its_key(tmp_path: Path, figures: list[Figure]) -> None:
    scores = {"psnr": 30.0, "ssim": 0.87}
    run = [{"kind": "val", "iteration": i, "set": "Set5", "scores": scores} for i in (1, 2)]
    save_comparison_curves({"a": run}, tmp_path / "c.png", metric="ssim")
    (axes,) = figures[0].axes
    assert axes.get_ylabel() == "SSIM-Y"
    assert list(axes.lines[0].get_ydata()) == [0.87, 0.87]


# Pictures


@pytest.fixture
def hr() -> Array:
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (96, 120, 3), dtype=np.uint8)


def test_telling_box_is_where_the_difference_is(hr: Array) -> None:
    first = hr.copy()
    first[40:60, 72:92] += 50
    assert telling_box(first, hr, 20) == (70, 40, 20, 20)  # On a grid of 5 pixels.
    first[76:, 100:] += 55
    assert telling_box(first, hr, 20) == (100, 76, 20, 20)  # The last square touches the border.
    assert telling_box(hr, hr, 96) == (0, 0, 96, 96)


def codes(image: Array) -> Array:
    """Return one number for each pixel's colour."""
    return image.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def find(picture: Array, crop: Array) -> tuple[int, int, int]:
    """Return (left, top, factor) of the only place where ``crop`` stands enlarged."""
    where, what = codes(picture), codes(crop)
    places = []
    for y, x in np.argwhere(where == what[0, 0]):
        if where[y - 1, x] == what[0, 0] or where[y, x - 1] == what[0, 0]:
            continue  # Not the upper left corner of an enlarged pixel.
        factor = int(np.argmax(where[y, x:] != what[0, 0]))
        enlarged = what.repeat(factor, axis=0).repeat(factor, axis=1)
        found = where[y : y + enlarged.shape[0], x : x + enlarged.shape[1]]
        if np.array_equal(found, enlarged):
            places.append((int(x), int(y), factor))
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("methods", [1, 2, 3, 4, 5, 7])
def test_every_crop_is_in_the_picture_enlarged_by_pixels(
    tmp_path: Path, hr: Array, methods: int
) -> None:
    results = [Result(f"method {i}", hr + np.uint8(i + 1), f"{i} dB") for i in range(methods)]
    save_comparison(tmp_path / "c.png", hr, results, box=(30, 20, 24, 16), title="noise")
    picture = pixels(tmp_path / "c.png")
    assert 1500 < picture.shape[1] < 2200
    images = [*(result.image for result in results), hr]
    places = [find(picture, image[20:36, 30:54]) for image in images]
    assert len({factor for *_, factor in places}) == 1
    assert len(set(places)) == methods + 1
    assert len({top for _, top, _ in places}) == (1 if methods in (1, 2, 4) else 2)


def ink(picture: Array, corner: tuple[int, int], width: int) -> int:
    left, top = corner
    return int((255 - picture[top : top + 78, left : left + width].astype(int)).sum())


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_is_bold(tmp_path: Path, hr: Array, best: int) -> None:
    scores: list[float | None] = [30.0, 30.0, None, math.nan]
    scores[best] = 31.0
    results = [Result("same", hr + np.uint8(i), "words", s) for i, s in enumerate(scores, 1)]
    save_comparison(tmp_path / "c.png", hr, results, box=(0, 0, 32, 32))
    picture = pixels(tmp_path / "c.png")
    inks = []
    for result in results:
        left, top, factor = find(picture, result.image[:32, :32])
        inks.append(ink(picture, (left, top + 32 * factor), 32 * factor))
    assert int(np.argmax(inks)) == best
    assert len(set(inks)) == 2


def test_the_rectangle_surrounds_the_box(tmp_path: Path) -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    save_comparison(tmp_path / "c.png", grey, [Result("a", grey)], box=(20, 40, 40, 30))
    picture = pixels(tmp_path / "c.png")
    ys, xs = np.nonzero((picture == (0xD5, 0x5E, 0x00)).all(axis=2))
    outer = np.nonzero((picture[:, 20] == 128).all(axis=1))[0]
    zoom = (outer[-1] - outer[0] + 1) / 100
    middle = np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2 - 14
    np.testing.assert_allclose(middle, [40 * zoom, 55 * zoom], atol=1.5)
    # The coloured line begins 2 pixels outside the box and is 4 wide.
    np.testing.assert_allclose(np.ptp(xs) - 40 * zoom, 10, atol=1.5)
    np.testing.assert_allclose(np.ptp(ys) - 30 * zoom, 10, atol=1.5)


def test_no_box_means_the_most_telling_one(tmp_path: Path, hr: Array) -> None:
    first = hr.copy()
    first[50:90, 70:110] += 50
    save_comparison(tmp_path / "a.png", hr, [Result("a", first)])
    save_comparison(tmp_path / "b.png", hr, [Result("a", first)], telling_box(first, hr, 40))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    save_comparison(tmp_path / "b.png", hr, [Result("a", first)], (0, 0, 40, 40))
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_a_tiny_image_makes_a_picture(tmp_path: Path) -> None:
    tiny = np.zeros((5, 9, 3), np.uint8)
    save_comparison(tmp_path / "c.png", tiny, [Result("a", tiny)])
    assert pixels(tmp_path / "c.png").shape[1] > 1000


@pytest.mark.parametrize("bold", [False, True])
def test_captions_fit_and_lose_no_word(bold: bool) -> None:
    paragraphs = ["EDSR student, LSFD with attention", "31.74 dB", "", "a_single_very_long_word"]
    caption = typeset(paragraphs, bold, 200)
    assert all(caption.font.getlength(line) <= 200 for line in caption.lines)
    assert " ".join(caption.lines).split() == " ".join(paragraphs).split()
    assert typeset(["two words"], bold, 400).lines == ["two words"]


@pytest.mark.parametrize(
    ("image", "box", "message"),
    [
        (np.zeros((96, 116, 3), np.uint8), None, "'m' is 116 x 96 pixels, the ground truth 120"),
        (np.zeros((96, 120), np.uint8), None, "'m' is uint8 of shape"),
        (np.zeros((96, 120, 3)), None, "'m' is float64"),
        (np.zeros((96, 120, 3), np.uint8), (100, 0, 21, 20), "not inside the image of 120 x 96"),
        (np.zeros((96, 120, 3), np.uint8), (-1, 0, 20, 20), "not inside"),
        (np.zeros((96, 120, 3), np.uint8), (0, 0, 0, 20), "not inside"),
    ],
)
def test_pictures_that_cannot_be_made_say_why(
    tmp_path: Path, hr: Array, image: Array, box: Any, message: str
) -> None:
    with pytest.raises(LsfdError, match=message):
        save_comparison(tmp_path / "c.png", hr, [Result("m", image)], box)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_needs_a_result(tmp_path: Path, hr: Array) -> None:
    with pytest.raises(LsfdError, match="at least one result"):
        save_comparison(tmp_path / "c.png", hr, [])


# Attention


def test_attention_lies_over_the_image(tmp_path: Path, hr: Array, figures: list[Figure]) -> None:
    attention = np.ones((24, 30))
    attention[3, 4] = np.nan
    attention[5, 6] = 100.0
    save_attention(tmp_path / "a.png", attention, hr, "l_lsfd_feature")
    plain, overlaid, bar = figures[0].axes
    coloured = overlaid.images[-1]
    assert tuple(coloured.get_extent()) == tuple(plain.images[0].get_extent())
    assert np.ma.getmaskarray(coloured.get_array()).sum() == 1
    assert coloured.get_clim()[1] < 100
    assert bar.get_ylabel() == "attention"


@pytest.mark.parametrize("attention", [np.full((4, 4), np.nan), np.ones(4), np.ones((0, 4))])
def test_attention_that_cannot_be_drawn_says_why(
    tmp_path: Path, hr: Array, attention: Array
) -> None:
    with pytest.raises(LsfdError, match="attention map of shape"):
        save_attention(tmp_path / "a.png", attention, hr)


# Files


def test_equal_input_gives_equal_bytes(tmp_path: Path, hr: Array) -> None:
    records = [train(i, l_pix=1 / i) for i in range(1, 50)] + [val(10, 30.0), val(20, 31.0)]
    for folder in (tmp_path / "one", tmp_path / "two"):  # Folders are made.
        save_run_curves(records, folder / "run.png", "run")
        save_comparison_curves({"a": records}, folder / "runs.png")
        save_comparison(folder / "pictures.png", hr, [Result("a", hr)])
        save_attention(folder / "attention.png", hr[:, :, 0] / 255, hr)
    files = sorted((tmp_path / "one").iterdir())
    assert [file.name for file in files] == ["attention.png", "pictures.png", "run.png", "runs.png"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_failure_leaves_the_old_picture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    write_png(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LsfdError, match=r"p\.png cannot be written: No space left on device"):
        write_png(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_drawing_that_fails_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), saved_figure(tmp_path / "p.png", 2):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_only_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"ends in \.png"):
        write_png(tmp_path / "p.pdf", b"")


def test_pyplot_is_left_alone() -> None:
    code = (
        "import sys, lsfd.reporting.curves, lsfd.reporting.pictures, lsfd.reporting.attention\n"
        "print([m for m in ('matplotlib.pyplot', 'torch', 'basicsr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
