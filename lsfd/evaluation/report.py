"""The result of a benchmark as JSON values, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lsfd import provenance
from lsfd.evaluation.cost import Cost
from lsfd.evaluation.scores import SetScores
from lsfd.reporting.latex import latex_table
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.terminal import visible

_SCORES = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips")
_COSTS = ("parameters", "multiply_adds", "seconds", "bytes")


@dataclass(frozen=True)
class BenchmarkRow:
    """One model: its name, its cost, and its scores on each set."""

    name: str
    cost: Cost
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

        ``{"scale": ..., "models": {name: {"parameters": ..., "multiply_adds": ..., "seconds": ...,
        "bytes": ..., "sets": {...}}}, "sets": {...}, "versions": ..., "commit": ..., "hardware":
        ...}``, where the outer ``sets`` are those of the last model, a set is as in
        :meth:`lsfd.evaluation.scores.SetScores.entry` and costs are as in
        :class:`lsfd.evaluation.cost.Cost`.
        """
        models = {row.name: {**row.cost.to_json(), "sets": row.sets()} for row in self.rows}
        return {
            "scale": self.scale,
            "models": models,
            "sets": self.rows[-1].sets(),
            **provenance.stamp(),
        }

    def to_markdown(self) -> str:
        """Return a table of the luma scores, as in papers, and one of the RGB scores."""
        luma = self._table("Y", lambda scores: (scores.psnr_y, scores.ssim_y))
        rgb = self._table("RGB", lambda scores: (scores.psnr_rgb, scores.ssim_rgb))
        return f"{luma}\n{rgb}{self._footnotes()}"

    def to_latex(self) -> str:
        """Return the luma scores as a LaTeX table (package booktabs), the best of each in bold."""
        columns = self._costs()
        for number, scores in enumerate(self.rows[0].scores):
            each = [row.scores[number] for row in self.rows]
            columns[f"{scores.name} PSNR"] = [one.psnr_y for one in each]
            columns[f"{scores.name} SSIM"] = [one.ssim_y for one in each]
            if scores.lpips is not None:
                columns[f"{scores.name} LPIPS"] = [one.lpips for one in each]
        digits = {name: 4 for name in columns if name.endswith(("SSIM", "LPIPS"))}
        best: dict[str, Literal["max", "min"]] = {
            name: "min" if name.endswith("LPIPS") else "max"
            for name in columns
            if name.endswith(("PSNR", "SSIM", "LPIPS"))
        }
        names = [row.name for row in self.rows]
        return latex_table(f"x{self.scale}", names, columns, {**digits, "G multiply-adds": 1}, best)

    def to_csv(self) -> str:
        """Return one line for each model and set, with all scores and costs in plain units."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", "scale", "set", *_SCORES, *_COSTS])
        for row in self.rows:
            costs = [getattr(row.cost, name) for name in _COSTS]
            for scores in row.scores:
                values = [getattr(scores, name) for name in _SCORES]
                names = [_no_formula(row.name), self.scale, _no_formula(scores.name)]
                writer.writerow([*names, *values, *costs])
        return text.getvalue()

    def _table(self, channel: str, pick: Callable[[SetScores], tuple[float, float]]) -> str:
        """Return one table: PSNR in dB and SSIM by model and set, and costs."""
        columns = self._costs()
        for number, scores in enumerate(self.rows[0].scores):
            perceptual = " / LPIPS" if scores.lpips is not None else ""
            head = f"{scores.name} PSNR / SSIM ({channel}){perceptual}"
            columns[head] = [_scores_cell(row.scores[number], pick) for row in self.rows]
        rows = zip((row.name for row in self.rows), *columns.values(), strict=True)
        header = [f"x{self.scale}", *columns]
        digits = {header.index(name): 1 for name in ("G multiply-adds",) if name in header}
        return markdown_table(header, list(rows), digits=digits)

    def _costs(self) -> dict[str, list[Cell]]:
        """Return the columns of costs; those that were not measured are left out."""
        costs = [row.cost for row in self.rows]
        columns: dict[str, list[Cell]] = {
            "parameters": [cost.parameters or None for cost in costs],
            "G multiply-adds": [(cost.multiply_adds or 0) / 1e9 or None for cost in costs],
        }
        measured: dict[str, list[Cell]] = {
            "s/megapixel": [cost.seconds for cost in costs],
            "MB/megapixel": [
                None if cost.bytes is None else round(cost.bytes / 1e6) for cost in costs
            ],
        }
        return columns | {name: each for name, each in measured.items() if any(each)}

    def _footnotes(self) -> str:
        """Return a line for each mean that leaves out identical images."""
        return "".join(
            f"\n\\* {row.name} on {scores.name}: {scores.identical_note()}\n"
            for row in self.rows
            for scores in row.scores
            if scores.identical
        )


def _no_formula(name: str) -> str:
    """Return a name that no spreadsheet computes: names of files may begin with an equals sign."""
    text = visible(name)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def _scores_cell(scores: SetScores, pick: Callable[[SetScores], tuple[float, float]]) -> str:
    values = "{:.2f} / {:.4f}".format(*pick(scores))
    perceptual = "" if scores.lpips is None else f" / {scores.lpips:.4f}"
    return f"{values}{perceptual}{' *' if scores.identical else ''}"
