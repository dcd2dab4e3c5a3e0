"""The result of a benchmark as JSON values and as Markdown."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsfd import __version__
from lsfd.evaluation.scores import SetScores

_MEASURED_WITH = ("torch", "numpy", "opencv-python")


@dataclass(frozen=True)
class BenchmarkRow:
    """One model: its name, its cost, and its scores on each set.

    ``multiply_adds`` are those for an output of 1280 x 720 pixels.
    """

    name: str
    parameters: int
    multiply_adds: int
    scores: tuple[SetScores, ...]

    def sets(self) -> dict[str, Any]:
        """Return the scores by set as JSON values."""
        return {scores.name: scores.entry() for scores in self.scores}


@dataclass(frozen=True)
class BenchmarkReport:
    """All rows of a benchmark at one scale; bicubic comes first."""

    scale: int
    rows: tuple[BenchmarkRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values.

        ``{"scale": ..., "models": {name: {"parameters": ..., "multiply_adds": ..., "sets":
        {...}}}, "sets": {...}, "versions": {...}}``, where the outer ``sets`` are those of the
        last model and a set is as in :meth:`lsfd.evaluation.scores.SetScores.entry`.
        """
        models = {
            row.name: {
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
                "sets": row.sets(),
            }
            for row in self.rows
        }
        versions = {name: importlib.metadata.version(name) for name in _MEASURED_WITH}
        return {
            "scale": self.scale,
            "models": models,
            "sets": self.rows[-1].sets(),
            "versions": {"lsfd": __version__, **versions},
        }

    def to_markdown(self) -> str:
        """Return a table of the luma scores, as in papers, and one of the RGB scores."""
        luma = self._table("Y", lambda scores: (scores.psnr_y, scores.ssim_y))
        rgb = self._table("RGB", lambda scores: (scores.psnr_rgb, scores.ssim_rgb))
        return "\n".join([*luma, "", *rgb, *self._footnotes()]) + "\n"

    def _table(self, channel: str, pick: Callable[[SetScores], tuple[float, float]]) -> list[str]:
        """Return the lines of one table: PSNR in dB and SSIM by model and set."""
        sets = [f"{scores.name} PSNR / SSIM ({channel})" for scores in self.rows[0].scores]
        head = [f"x{self.scale}", "parameters", "multiply-adds", *sets]
        lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        for row in self.rows:
            cost = [f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.1f} G"]
            cells = []
            for scores in row.scores:
                psnr, ssim = pick(scores)
                mark = " *" if scores.identical else ""
                cells.append(f"{psnr:.2f} / {ssim:.4f}{mark}")
            lines.append(_line([row.name, *cost, *cells]))
        return lines

    def _footnotes(self) -> list[str]:
        """Return a line for each mean that leaves out identical images."""
        notes = [
            f"\\* {row.name} on {scores.name}: {scores.identical_note()}"
            for row in self.rows
            for scores in row.scores
            if scores.identical
        ]
        return ["", *notes] if notes else []


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
