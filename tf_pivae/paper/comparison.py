"""A table of the paper with ours beside the published numbers: mean and standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tf_pivae.paper.numbers import BEYOND, METRICS, REAL_SUBSETS

if TYPE_CHECKING:
    from tf_pivae.paper.numbers import System


class Cell(NamedTuple):
    """One number of ours."""

    published: float | None
    values: list  # one for each seed that has one
    protocols: list  # what each value was computed from, each once
    reasons: list  # why values are missing, each once
    spreads: list  # of each value, where its protocol has one: a standard error over images, say
    approximate: bool = False  # shown in [square brackets], as the paper does
    always_shown: bool = False  # whether or not the paper has a number

    @property
    def text(self) -> str:
        """Mean +- standard deviation, "-" where the paper has no number, "none" where we have none."""
        if self.published is None and not self.always_shown:
            return "-"
        if not self.values:
            return "none"
        text = f"{statistics.mean(self.values):.2f}"
        if len(self.values) > 1:
            text += f" ± {statistics.stdev(self.values):.2f}"
        return f"[{text}]" if self.approximate else text

    @property
    def published_text(self) -> str:
        """The paper's number."""
        text = "-" if self.published is None else str(self.published)
        return f"[{text}]" if self.approximate and self.published is not None else text

    def as_dict(self) -> dict:
        """Plain types, for JSON."""
        mean = statistics.mean(self.values) if self.values else None
        sd = statistics.stdev(self.values) if len(self.values) > 1 else None
        return {**self._asdict(), "mean": mean, "sd": sd}


def cell(published: float | None, results: Sequence[dict], approximate: bool = False) -> Cell:
    """The `Cell` of one metric from every seed's result, a dict with "value" and "protocol", or with "reason"."""
    measured = [result for result in results if "value" in result]
    return Cell(
        published,
        [result["value"] for result in measured],
        list(dict.fromkeys(result["protocol"] for result in measured)),
        list(dict.fromkeys(result["reason"] for result in results if "reason" in result)),
        [result["spread"] for result in measured if result.get("spread") is not None],
        approximate,
    )


def row_cells(row: System, results: Sequence[dict[str, dict]]) -> dict[str, Cell]:
    """dict of a metric's name -> `Cell` from the results of every seed (what `RowRun.run` returns)."""
    cells = {
        metric: cell(value, [r[metric] for r in results if metric in r], row.approximate and metric == "bits_per_dim")
        for metric, value in row.numbers.items()
    }
    for metric in row.also:
        cells[metric] = cell(None, [result[metric] for result in results])._replace(always_shown=True)
    return cells


def markdown(
    title: str, metrics: Sequence[str], rows: Sequence[tuple[str, dict[str, Cell]]], notes: Sequence[str]
) -> str:
    """The table as Markdown.

    Args:
      title: the paper's caption in short.
      metrics: keys of `METRICS` or their names, and of `BEYOND`, which have no published numbers beside them.
      rows: pairs (label, dict of a metric -> `Cell`).
      notes: lines above the table.
    """
    columns = [part for metric in metrics for part in (METRICS.get(metric, metric), "published")[: _width(metric)]]
    lines = [f"# {title}", "", *notes, "", f"| | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for label, cells in rows:
        numbers = [
            part for metric in metrics for part in (cells[metric].text, cells[metric].published_text)[: _width(metric)]
        ]
        lines.append(f"| {label} | {' | '.join(numbers)} |")
    protocols = {}
    reasons = {}
    spreads = {}
    for label, cells in rows:
        for metric in metrics:
            name = METRICS.get(metric, metric)
            for text in cells[metric].protocols:
                protocols.setdefault(f"{name}: {text}", None)
            spreads.setdefault(name, []).extend(cells[metric].spreads)
            for text in cells[metric].reasons:
                reasons.setdefault(f"{name}: {text}", []).append(label)
    lines += ["", *(f"- {text}" for text in protocols)]
    lines += [f"- {name}: each single number ± {_span(spread)}" for name, spread in spreads.items() if spread]
    lines += [f"- none, {text} ({', '.join(labels)})" for text, labels in reasons.items()]
    return "\n".join(lines).rstrip() + "\n"


def _width(metric):
    return 1 if metric in BEYOND else 2


def _span(values):
    low = f"{min(values):.3f}"
    high = f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def real_subset_rows(scores: dict[int, list[dict[str, dict]]]) -> list[tuple[str, dict[str, Cell]]]:
    """Table 7's rows from dict of a size -> every seed's results, dicts as for `row_cells`."""
    rows = []
    for size, results in scores.items():
        published = dict(zip(("inception_score", "fid"), REAL_SUBSETS.get(size, (None, None)), strict=True))
        cells = {
            metric: cell(value, [r[metric] for r in results])._replace(always_shown=True)
            for metric, value in published.items()
        }
        rows.append((f"{size:,} images", cells))
    return rows
