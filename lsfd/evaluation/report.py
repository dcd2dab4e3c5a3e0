"""The result of a benchmark as JSON values and as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsfd import provenance
from lsfd.evaluation.scores import SetScores
from lsfd.reporting.tables import markdown_table


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
        {...}}}, "sets": {...}, "versions": ..., "commit": ..., "hardware": ...}``, where the outer
        ``sets`` are those of the last model and a set is as in
        :meth:`lsfd.evaluation.scores.SetScores.entry`.
        """
        models = {
            row.name: {
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
                "sets": row.sets(),
            }
            for row in self.rows
        }
        return {
            "scale": self.scale,
            "models": models,
            "sets": self.rows[-1].sets(),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "hardware": provenance.hardware(),
        }

    def to_markdown(self) -> str:
        """Return a table of the luma scores, as in papers, and one of the RGB scores."""
        luma = self._table("Y", lambda scores: (scores.psnr_y, scores.ssim_y))
        rgb = self._table("RGB", lambda scores: (scores.psnr_rgb, scores.ssim_rgb))
        return f"{luma}\n{rgb}{self._footnotes()}"

    def _table(self, channel: str, pick: Callable[[SetScores], tuple[float, float]]) -> str:
        """Return one table: PSNR in dB and SSIM by model and set."""
        sets = [f"{scores.name} PSNR / SSIM ({channel})" for scores in self.rows[0].scores]
        rows: list[list[str | float | None]] = []
        for row in self.rows:
            cells = []
            for scores in row.scores:
                psnr, ssim = pick(scores)
                cells.append(f"{psnr:.2f} / {ssim:.4f}{' *' if scores.identical else ''}")
            rows.append([row.name, row.parameters or None, row.multiply_adds / 1e9 or None, *cells])
        header = [f"x{self.scale}", "parameters", "G multiply-adds", *sets]
        return markdown_table(header, rows, digits={2: 1})

    def _footnotes(self) -> str:
        """Return a line for each mean that leaves out identical images."""
        return "".join(
            f"\n\\* {row.name} on {scores.name}: {scores.identical_note()}\n"
            for row in self.rows
            for scores in row.scores
            if scores.identical
        )
