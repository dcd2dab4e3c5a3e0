"""A report as one HTML file that needs nothing beside itself: no network, no other file.

Styles, scripts and images are inside; a content security policy lets the page load nothing else
and run only these scripts. Every text that comes from a run is escaped. Equal contents give equal
bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError
from lsfd.reporting import report_table
from lsfd.reporting.embedded_images import colour_bar, coloured, data_address, thumbnail
from lsfd.reporting.report_charts import latency_points, loss_panels, score_panels
from lsfd.reporting.report_contents import Picture, Report, View

SUFFIXES = (".html", ".htm")
SCRIPTS = ("charts.js", "viewer.js", "table.js")
THUMBNAIL = 96
"""Side of a small picture to choose by, in pixels; shown at half of that."""


def write_report(path: Path, report: Report) -> int:
    """Write a report and return its size in bytes.

    Args:
        path: the file; a name ending in ``.html``.
        report: what it holds.

    Raises:
        LsfdError: another ending, or the file cannot be written.
    """
    check_name(path)
    page = render(report).encode()
    write_bytes(path, page)
    return len(page)


def check_name(path: Path) -> None:
    """Refuse a file name that no browser would take for a page.

    Raises:
        LsfdError: it does not end in ``.html``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise LsfdError(f"cannot save a report as {path}: give it a name that ends in .html")


def render(report: Report) -> str:
    """Return a report as the text of its HTML file."""
    style = _part("report.css")
    scripts = [_part(name) for name in SCRIPTS]
    losses, scores = loss_panels(report), score_panels(report)
    points = latency_points(report)
    columns = report_table.columns(report)
    data = {
        "runs": [run.name for run in report.runs],
        "panels": [*losses, *scores],
        "latency": points,
        "pictures": [_picture(picture) for picture in report.pictures],
        "bar": colour_bar() if any(v.is_map for p in report.pictures for v in p.views) else "",
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_part("report.html")).render(
        report=report,
        headline=report_table.headline(report),
        policy=_policy(style, scripts),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=_json(data),
        thumbnails=[thumbnail(_first_image(picture), THUMBNAIL) for picture in report.pictures],
        run_numbers={run.name: number for number, run in enumerate(report.runs)},
        losses=losses,
        scores=scores,
        plotted=[name for name in report.sets if any(name in point["psnr"] for point in points)],
        columns=columns,
        groups=report_table.grouped(columns),
    )


def _part(name: str) -> str:
    """Return the text of a file in the folder ``page``."""
    return (resources.files("lsfd.reporting") / "page" / name).read_text(encoding="utf-8")


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Return what the browser may do with the page: show it and run its own scripts, no more."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(data: Any) -> Markup:
    """Return data as JSON that no HTML parser can take for markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _picture(picture: Picture) -> dict[str, Any]:
    labels = [view.label for view in picture.views]
    height, width = max(view.image.shape[:2] for view in picture.views)
    return {
        "width": width,
        "height": height,
        "views": [_view(view, height) for view in picture.views],
        "left": labels.index(picture.first),
        "right": labels.index(picture.second),
    }


def _view(view: View, height: int) -> dict[str, Any]:
    shown = {
        "label": view.label,
        "group": view.group,
        "note": view.note,
        "coarse": view.image.shape[0] < height,
    }
    if not view.is_map:
        return {**shown, "src": data_address(_rgb(view))}
    return {
        **shown,
        "src": data_address(coloured(view.image, view.top)),
        "scale": {"top": f"{view.top:.3g}", "unit": view.unit},
    }


def _rgb(view: View) -> Any:
    if view.image.dtype != np.uint8 or view.image.ndim != 3 or view.image.shape[2] != 3:
        raise LsfdError(
            f"the image '{view.label}' is {view.image.dtype} of shape {view.image.shape}: "
            "a report takes uint8, H x W x 3, and maps, h x w"
        )
    return view.image


def _first_image(picture: Picture) -> Any:
    """Return what a picture is known by: the last of its images, which is the truth."""
    return next(_rgb(view) for view in reversed(picture.views) if view.group == "Images")
