"""The HTML report: what is in the file, and what it does in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from PIL import Image

from lsfd.errors import LsfdError
from lsfd.reporting.embedded_images import coloured, data_address
from lsfd.reporting.html_report import render, write_report
from lsfd.reporting.report_charts import loss_panels, score_panels
from lsfd.reporting.report_contents import Curves, Model, Picture, Report, View
from lsfd.reporting.report_table import columns, headline

RED, BLUE, GREEN = (230, 20, 20), (20, 20, 230), (20, 200, 20)
TRUTH = "|mine \N{MINUS SIGN} truth|"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>{{ 7 * 7 }}'


def plain(colour: tuple[int, int, int], height: int = 64, width: int = 96) -> Any:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def checkered() -> Any:
    """Single pixels of black and white."""
    grid = np.indices((64, 96)).sum(axis=0) % 2
    return np.repeat((255 * grid).astype(np.uint8)[:, :, None], 3, axis=2)


def curves(name: str, *losses: str, count: int = 60, offset: float = 0.0) -> Curves:
    iterations = [100 * (i + 1) for i in range(count)]
    return Curves(
        name,
        {loss: {i: 10 / i + 0.01 + offset for i in iterations} for loss in losses},
        {"Set5": {i: 30 - 100 / i + offset for i in iterations[9::10]}},
        [("method", "LSFD"), ("seed", "0")],
        "name: run\nscale: 4\n",
    )


def views(first: Any, *, maps: bool = True) -> list[View]:
    shown = [
        View("low resolution", "Images", plain(GREEN, 16, 24)),
        View("bicubic", "Images", first, "28.00 dB"),
        View("mine", "Images", plain(BLUE), "29.50 dB"),
        View("checkered", "Images", checkered()),
        View("ground truth", "Images", plain(GREEN)),
    ]
    if maps:
        values = np.linspace(0, 40, 64 * 96).reshape(64, 96)
        shown.append(View(TRUTH, "Differences", values, top=40, unit="grey levels"))
    return shown


def contents(**changes: Any) -> Report:
    report = Report(
        title="mine and other",
        scale=4,
        runs=[curves("mine", "l_pix", "l_lsfd_feature"), curves("other", "l_pix", offset=0.002)],
        models=[
            Model("bicubic", "baseline", {"Set5": (28.42, 0.81)}, latency=0.05),
            Model("mine", "student", {"Set5": (29.95, 0.8488)}, 232_963, 20_500_000_000, 0.5, "t"),
            Model("other", "student", {"Set5": (29.7, 0.8414)}, 232_963, 20_500_000_000, 0.52, "t"),
            Model("t", "teacher", {"Set5": (31.7, 0.8893)}, 1_517_571, 114_200_000_000, 2.5),
        ],
        sets=["Set5"],
        pictures=[
            Picture("flat", "Set5, 96 × 64 pixels", views(plain(RED)), "bicubic", "mine"),  # noqa: RUF001
            Picture("tall", "Set5", views(plain(RED, 128, 96)), "bicubic", "mine"),
        ],
        notes=["Measured on a machine."],
    )
    return replace(report, **changes)


class Parsed(HTMLParser):
    """Tags with their attributes, and the texts of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "body": []}
        self.open = "body"
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.open = "body"

    def handle_data(self, text: str) -> None:
        self.texts[self.open].append(text)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(page: str) -> Any:
    return json.loads(Parsed(page).texts["script"][0])


# The file


def test_everything_is_inside() -> None:
    page = render(contents())
    parsed = Parsed(page)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "data", "poster", "action", "background"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, name, address)
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
    assert "://" not in page
    assert not re.search(r"url\(|@import|@font-face", "".join(parsed.texts["style"]))
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}


def test_the_policy_allows_the_own_style_and_scripts_and_nothing_else() -> None:
    parsed = Parsed(render(contents()))
    (policy,) = [m["content"] for m in parsed.named("meta") if m.get("http-equiv")]
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'" and rules.pop("img-src") == "data:"
    assert "unsafe" not in policy and "*" not in policy

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    (style,), (_, *scripts) = parsed.texts["style"], parsed.texts["script"]
    assert rules["style-src"] == hashed(style)
    assert rules["script-src"].split() == [hashed(script) for script in scripts]


def hostile() -> Report:
    run = replace(
        curves(HOSTILE, HOSTILE), facts=[(HOSTILE, HOSTILE)], options=f"name: {HOSTILE}</pre>"
    )
    run = replace(run, scores={HOSTILE: {1: 30.0}})
    model = Model(HOSTILE, "student", {HOSTILE: (30.0, 0.9)}, latency=1.0)
    shown = View(HOSTILE, "Images", plain(RED), HOSTILE)
    other = View("</script><!--", "Images", plain(BLUE))
    return Report(
        HOSTILE,
        4,
        [run],
        [model],
        [HOSTILE],
        [Picture(HOSTILE, HOSTILE, [shown, other], HOSTILE, "</script><!--")],
        [HOSTILE],
    )


def test_names_cannot_become_markup() -> None:
    page = render(hostile())
    parsed = Parsed(page)
    assert len(parsed.named("script")) == len(Parsed(render(contents())).named("script"))
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    assert HOSTILE in "".join(parsed.texts["body"])  # As it is: as text, its braces not computed.
    assert data_of(page)["runs"] == [HOSTILE]


def test_all_named_losses_and_sets_are_there() -> None:
    text = "".join(Parsed(render(contents())).texts["body"])
    for name in ("l_pix", "l_lsfd_feature", "Set5", "mine", "other", "bicubic"):
        assert name in text
    panels = data_of(render(contents()))["panels"]
    assert [panel["title"] for panel in panels] == ["l_pix", "l_lsfd_feature", "Set5"]
    assert [line["run"] for line in panels[0]["lines"]] == [0, 1]


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    sizes = [write_report(tmp_path / name, contents()) for name in ("a.html", "b.html")]
    first, second = ((tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second and sizes == [len(first)] * 2


def test_images_lose_nothing(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    picture = Picture(
        "noise", "", [View("a", "Images", image), View("b", "Images", image)], "a", "b"
    )
    source = data_of(render(contents(pictures=[picture])))["pictures"][0]["views"][0]["src"]
    kind, data = source.split(",")
    assert kind == "data:image/webp;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == image).all()


def test_colours_rise_in_brightness_and_damage_is_dark() -> None:
    shown = coloured(np.array([[0.0, 1.0, 2.0, 4.0, 9.0, np.nan, np.inf]]), top=4.0)[0].sum(axis=1)
    assert list(np.sort(shown[:4])) == list(shown[:4]) and len(set(shown[:4])) == 4
    assert shown[4] == shown[3] and shown[5] == shown[6] == shown[0]


def test_a_report_may_hold_curves_alone() -> None:
    page = render(Report("run", 4, [curves("run", "l_pix")], notes=["No sets."]))
    identifiers = {a.get("id") for _, a in Parsed(page).tags}
    assert not {"viewer", "scores", "scatter"} & identifiers
    assert "No sets." in page and "l_pix" in page


def test_what_is_no_page_or_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"report\.pdf: give it a name that ends in \.html"):
        write_report(tmp_path / "report.pdf", contents())
    wrong = View("floats", "Images", np.zeros((4, 4, 3)))
    with pytest.raises(LsfdError, match="image 'floats' is float64"):
        render(contents(pictures=[Picture("p", "", [wrong, wrong], "floats", "floats")]))
    assert not list(tmp_path.iterdir())


# The numbers


def test_scores_near_each_other_are_not_squeezed_by_bicubic() -> None:
    (panel,) = score_panels(contents())
    low, high = panel["range"]
    assert high - low < 1
    assert {line["name"]: line["side"] for line in panel["references"]} == {
        "bicubic": "below",
        "t": "above",
    }


def test_losses_are_logarithmic_where_they_fall_far() -> None:
    falling = Curves("run", {"far": {1: 1.0, 2: 0.0, 3: 0.001}, "near": {1: 2.0, 2: 1.0}}, {})
    far, near = loss_panels(contents(runs=[falling]))
    assert (far["log"], far["range"]) == (True, [0.001, 1.0])
    assert (near["log"], near["range"]) == (False, [1.0, 2.0])


def test_long_curves_are_thinned_and_end_where_they_end() -> None:
    run = curves("run", "l_pix", count=12_345)
    (line,) = loss_panels(contents(runs=[run]))[0]["lines"]
    assert len(line["x"]) == len(line["y"]) == len(line["smooth"]) <= 1000
    assert line["x"][-1] == 1_234_500 and line["y"][0] == run.losses["l_pix"][line["x"][0]]


def test_the_table_marks_the_best_student_and_its_distance_to_the_teacher() -> None:
    found = {(column.group, column.name): column.cells for column in columns(contents())}
    psnr = found["Set5", "PSNR-Y (dB)"]
    assert [cell.text for cell in psnr] == ["28.42", "29.95", "29.70", "31.70"]
    assert [cell.best for cell in psnr] == [False, True, False, False]
    gaps = found["Set5", "to teacher (dB)"]
    assert [cell.text for cell in gaps] == ["–", "−1.75", "−2.00", "–"]  # noqa: RUF001
    assert gaps[1].value == pytest.approx(-1.75)
    assert found["", "parameters"][0].value is None


def test_the_headline_says_who_is_best_and_at_what_cost() -> None:
    assert headline(contents()) == (
        "mine, the best of 2 students here, reaches 29.95 dB on Set5, 1.53 dB above bicubic and "
        "1.75 dB below its teacher, with 15% of the teacher's parameters and 20% of its time."
    )
    assert headline(contents(models=[], sets=[])) == ""


def test_infinite_scores_are_shown_and_sorted() -> None:
    perfect = Model("perfect", "student", {"Set5": (float("inf"), 1.0)}, latency=1.0)
    report = contents(models=[*contents().models, perfect])
    assert columns(report)[0].cells[-1].text == "∞"
    assert "∞ dB on Set5" in headline(report)
    assert data_of(render(report))["latency"][-1]["psnr"] == {}


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Opened:
    """A page of the report and what went wrong in it."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        context = {"viewport": {"width": 1200, "height": 900}, **context}
        self.context = browser.new_context(offline=True, **context)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", self._note)
        self.page.goto(path.as_uri())
        if self.page.locator(".plot").count():
            self.page.locator(".plot svg *").first.wait_for(state="attached")

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.problems.append(request.url)

    def colours(self) -> list[tuple[int, ...]]:
        """Return the colours of the stage at 25 and 75 % of its width, below the middle."""
        shot = Image.open(io.BytesIO(self.page.locator("#stage").screenshot())).convert("RGB")
        return [shot.getpixel((int(x * shot.width), int(0.8 * shot.height))) for x in (0.25, 0.75)]

    def transform(self) -> list[float]:
        """Return translation and scale of the left picture: x, y, factor."""
        text = self.page.locator('[data-side="left"] img').evaluate("i => i.style.transform")
        return [float(number) for number in re.findall(r"-?[\d.e-]+(?=px|\))", text)]


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """A function that opens a report; in the end nothing may have gone wrong in it."""
    pages: list[Opened] = []

    def open_report(report: Report | None = None, **context: Any) -> Opened:
        write_report(tmp_path / "report.html", report or contents())
        pages.append(Opened(browser, tmp_path / "report.html", **context))
        return pages[-1]

    yield open_report
    for page in pages:
        assert page.problems == []
        page.context.close()


def is_off(page: Any, button: str) -> bool:
    return page.locator(f"#{button}").get_attribute("aria-disabled") == "true"


def assert_near(colour: tuple[int, ...], wanted: tuple[int, int, int]) -> None:
    assert np.abs(np.subtract(colour, wanted)).max() <= 3, (colour, wanted)


def test_the_line_wipes_by_key_and_by_pointer(opened: Open) -> None:
    shown = opened()
    page, wipe = shown.page, shown.page.locator("#wipe")
    for colour, wanted in zip(shown.colours(), (RED, BLUE), strict=True):
        assert_near(colour, wanted)
    wipe.focus()
    page.keyboard.press("Home")
    assert_near(shown.colours()[0], BLUE)
    page.keyboard.press("End")
    assert_near(shown.colours()[1], RED)
    page.keyboard.press("ArrowLeft")
    assert wipe.input_value() == "99"
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.99 * box["width"], box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 120, steps=4)
    page.mouse.up()
    assert_near(shown.colours()[0], BLUE)
    assert wipe.input_value() == "10"
    page.locator("#stage").press("ArrowRight")
    assert wipe.input_value() == "12"


def test_zoom_by_button_key_wheel_and_double_click(opened: Open) -> None:
    shown = opened()
    page, stage = shown.page, shown.page.locator("#stage")
    assert shown.transform() == [0, 0, 1]
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 200)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    assert shown.transform()[2] == 1  # The page scrolls: nobody has selected the picture.
    page.locator("#zoom-in").click()
    page.locator("#zoom-in").click()
    assert (
        shown.transform()[2] == pytest.approx(2)
        and page.locator("#zoom").inner_text() == "2\N{MULTIPLICATION SIGN}"
    )
    for _ in range(6):
        page.keyboard.press("+")
    assert shown.transform()[2] == 8 and is_off(page, "zoom-in")
    page.keyboard.press("0")
    assert shown.transform() == [0, 0, 1] and is_off(page, "zoom-out")
    stage.focus()
    stage.hover(position={"x": box["width"] - 2, "y": 200})
    page.mouse.wheel(0, -300)
    page.locator("#stage.zoomed").wait_for()
    x, _, factor = shown.transform()
    assert factor > 1 and x == pytest.approx((box["width"] - 2) * (1 - factor), abs=1)
    page.keyboard.press("0")
    stage.dblclick(position={"x": 0.9 * box["width"], "y": 0.5 * box["height"]})
    assert shown.transform()[2] == pytest.approx(3)


def test_zoomed_pixels_stay_squares_and_move_together(opened: Open) -> None:
    shown = opened()
    page, stage = shown.page, shown.page.locator("#stage")
    page.select_option("#left", label="checkered")
    page.select_option("#right", label="checkered")
    page.locator("#stage").focus()
    for _ in range(7):
        page.keyboard.press("+")  # The last one is one too many, and does nothing.
    page.wait_for_timeout(300)
    page.locator("#wipe").focus()
    page.keyboard.press("End")
    shot = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("L"))
    middle = shot[shot.shape[0] // 3 : 2 * shot.shape[0] // 3, : shot.shape[1] // 2]
    assert ((middle < 10) | (middle > 245)).mean() > 0.97  # Nothing grey between the squares.
    before = shown.transform()
    stage.press("ArrowRight")
    assert shown.transform()[0] < before[0]
    images = page.locator(".pane img")
    assert len({images.nth(i).evaluate("i => i.style.transform") for i in range(2)}) == 1
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 310, steps=3)
    page.mouse.up()
    assert shown.transform()[0] == pytest.approx(before[0] - box["width"] / 10 + 40, abs=1)


def test_pictures_and_views_are_chosen(opened: Open) -> None:
    shown = opened()
    page = shown.page
    page.locator('input[name="picture"]').first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".source:visible").inner_text() == "tall, Set5"
    box = page.locator("#stage").bounding_box()
    assert box["height"] / box["width"] == pytest.approx(128 / 96, abs=0.01)
    page.select_option("#left", label=TRUTH)
    assert "40 grey levels" in page.locator('.scale[data-side="left"]').inner_text()
    assert TRUTH in page.locator('[data-side="left"] .tag').inner_text()
    page.locator("#swap").click()
    assert page.locator("#right option:checked").inner_text() == TRUTH
    assert page.locator('.scale[data-side="left"]').is_hidden()
    groups = page.locator("#left optgroup").evaluate_all("all => all.map((each) => each.label)")
    assert groups == ["Images", "Differences"]
    page.locator('input[name="picture"]').first.check(force=True)
    assert page.locator("#left option:checked").inner_text() == "mine"  # Views are kept.


def test_charts_tell_their_values_by_key_and_by_pointer(opened: Open) -> None:
    shown = opened()
    page, panel = shown.page, shown.page.locator('[data-panel="0"]')
    last = panel.locator("b").all_inner_texts()
    cursor = panel.locator(".cursor")
    cursor.focus()
    page.keyboard.press("Home")
    assert panel.locator(".at").inner_text() == "iteration 100"
    first = panel.locator("b").all_inner_texts()
    assert float(first[0]) > float(last[0])
    spoken = cursor.get_attribute("aria-valuetext")
    assert spoken == f"iteration 100: mine {first[0]}, other {first[1]}"
    page.keyboard.press("Tab")
    assert panel.locator("b").all_inner_texts() == last
    plot = panel.locator(".plot")
    plot.hover(position={"x": 150, "y": 60})
    assert re.fullmatch(r"iteration [\d,]+", panel.locator(".at").inner_text())
    scatter = page.locator("#scatter")
    scatter.locator(".cursor").focus()
    page.keyboard.press("End")
    assert scatter.locator(".at").inner_text() == "t: 31.70 dB, 2,500 ms"
    assert set(scatter.locator(".label").all_text_contents()) == {"bicubic", "mine", "other", "t"}


def test_the_steep_start_stays_in_its_chart(opened: Open) -> None:
    page = opened().page
    inner = page.locator('[data-panel="2"] .plot svg svg')
    assert inner.evaluate("each => getComputedStyle(each).overflow") == "hidden"
    assert inner.evaluate("each => each.getBBox().y + each.height.baseVal.value") < 190


def test_the_table_is_sorted(opened: Open) -> None:
    shown = opened()
    names = shown.page.locator("#scores tbody th")
    heading = shown.page.locator("#scores thead button", has_text="PSNR-Y")
    heading.click()
    assert [n.strip() for n in names.all_inner_texts()] == ["t", "mine", "other", "bicubic"]
    heading.press("Enter")
    assert [n.strip() for n in names.all_inner_texts()] == ["bicubic", "other", "mine", "t"]
    sorted_by = shown.page.locator("[aria-sort]")
    assert sorted_by.count() == 1 and sorted_by.get_attribute("aria-sort") == "ascending"
    shown.page.locator("#scores thead button", has_text="parameters").click()
    assert names.last.inner_text().strip() == "bicubic"  # It has none.


def test_the_keyboard_reaches_everything_in_order(opened: Open) -> None:
    page = opened().page
    reached = []
    for _ in range(26):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(({id, name, className, tagName, hash}) => hash || id || name || className || "
                "tagName)(document.activeElement)"
            )
        )
    links, viewer = ["#pictures", "#numbers", "#training", "#runs"], ["picture", "left", "swap"]
    tools = ["right", "stage", "wipe", "zoom-out", "zoom-in", "zoom-fit"]
    assert reached[:13] == [*links, *viewer, *tools]
    assert reached[13:20] == ["scroll", *["BUTTON"] * 6]
    assert reached[20:24] == ["cursor"] * 4  # The scatter plot, Set5, two losses.
    assert reached[24:26] == ["SUMMARY"] * 2


@pytest.mark.parametrize("width", [320, 360])
def test_narrow_screens_need_no_sideways_scrolling(opened: Open, width: int) -> None:
    long = "a_run_with_a_very_long_name_of_many_parts_and_no_space_at_all_0123456789"
    pictures = [replace(contents().pictures[0], name=f"{i}_{long}") for i in range(9)]
    run = curves(long, "l_" + long)
    report = contents(runs=[run], title=long, notes=[long], pictures=pictures)
    shown = opened(report, viewport={"width": width, "height": 720}, has_touch=True)
    page = shown.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#stage").bounding_box()["width"] > 0.85 * width
    page.locator("#zoom-in").tap()
    assert shown.transform()[2] > 1
    for button in page.locator("#viewer button:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 24


def test_dark_and_light_have_enough_contrast(opened: Open) -> None:
    papers = []
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme).page
        colours = page.evaluate(
            """() => ["--paper", "--ink", "--muted", "--accent"].map((name) =>
                getComputedStyle(document.documentElement).getPropertyValue(name).trim())"""
        )
        paper, ink, muted, accent = map(luminance, colours)
        papers.append(paper)
        assert contrast(paper, ink) > 10
        assert contrast(paper, muted) > 4.5 and contrast(paper, accent) > 4.5
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)"
        )
    assert papers[0] > 0.8 and papers[1] < 0.05


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` as WCAG has it."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_nothing_moves_for_those_who_asked_for_that(opened: Open) -> None:
    page = opened(reduced_motion="reduce").page
    page.locator("#zoom-in").click()
    image = page.locator(".pane img").first
    assert image.evaluate("i => getComputedStyle(i).transitionDuration") == "0s"
    moving = opened().page
    moving.locator("#zoom-in").click()
    assert moving.locator(".pane img").first.evaluate(
        "i => getComputedStyle(i).transitionDuration"
    ) == "0.14s"  # fmt: skip


def test_hostile_names_are_text_in_the_browser_too(opened: Open) -> None:
    page = opened(hostile()).page
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator('[data-side="left"] .tag b').inner_text() == HOSTILE


def test_curves_alone_work(opened: Open) -> None:
    page = opened(Report("run", 4, [curves("run", "l_pix", count=1)])).page
    assert page.locator("#training svg circle").count() >= 1


def test_an_address_is_short() -> None:
    noise_free = np.zeros((100, 100, 3), np.uint8)
    assert len(data_address(noise_free)) < 200
