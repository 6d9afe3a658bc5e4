"""What the evaluate command found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_pivae.evaluate.results import Row
from tf_pivae.report.histograms import from_counts, signed
from tf_pivae.report.markup import Html, breakable, folded, note, table, tag
from tf_pivae.report.run import Run, as_list, is_number

_BOUND = "bits/dim, "  # What the names of the bounds begin with, in front of K.
_CLASS = ", class "


def rows_of(evaluation: dict[str, Any] | None) -> dict[str, Row]:
    """Metric -> `Row`. Entries that are not rows are left out, and so are fields that `Row` does not have."""
    rows = {}
    for row in as_list((evaluation or {}).get("rows")):
        content = row if isinstance(row, dict) else {}
        metric, value, spread = (content.get(name) for name in ("metric", "value", "spread"))
        if isinstance(metric, str) and is_number(value):
            spread = spread if is_number(spread) else None
            rows[metric] = Row(
                metric, value, spread, str(content.get("protocol", "")), bool(content.get("approximate"))
            )
    return rows


def render(runs: Sequence[Run]) -> list[Html]:
    """The section: the newest evaluations side by side, their histograms, then those that followed the training."""
    parts: list[Html] = []
    with_table = [run for run in runs if run.evaluation is not None]
    if with_table:
        tables = [rows_of(run.evaluation) for run in with_table]
        header = ["Metric", *(f"{run.name}, step {run.evaluation['step']}" for run in with_table if run.evaluation)]
        approximate = any(row.approximate for rows in tables for row in rows.values())
        brackets = "; [in brackets]: the bound of an inference network trained around a GAN" if approximate else ""
        parts.append(table(f"The newest evaluations{brackets}", header, _table_rows(tables, _is_score)))
        for summary, belongs in {
            "Bits per dimension by class": _is_class,
            "Bits per dimension by term, as evaluated": _is_part,
        }.items():
            rows = _table_rows(tables, belongs)
            if rows:
                parts.append(folded(summary, table(summary, header, rows)))
        parts += _histograms(runs)
    for run in runs:
        if run.evaluation is None and not run.evaluations:
            parts.append(note(f"{run.name} has not been evaluated: python -m tf_pivae.evaluate --run_dir={run.path}"))
        for reason in as_list((run.evaluation or {}).get("refused")):
            parts.append(note(f"{run.name} lacks {reason}"))
        if run.evaluations:
            parts.append(_over_time(run))
    return parts


def held_out_bits_per_dim(run: Run) -> dict[str, float]:
    """{"K=1": bits per dimension, ...} of the newest evaluation; empty if it has none of the test images."""
    return {
        metric.removeprefix(_BOUND): row.value
        for metric, row in rows_of(run.evaluation).items()
        if metric.startswith(_BOUND) and not _is_class(metric) and "test images" in row.protocol
    }


def bound_terms(run: Run) -> tuple[Row, dict[str, Row]] | None:
    """The one-sample bound of the test images in the newest evaluation, and its terms; None where it has none."""
    rows = rows_of(run.evaluation)
    total = rows.get(f"{_BOUND}K=1")
    terms = {metric.strip(): row for metric, row in rows.items() if _is_part(metric)}
    return (total, terms) if total is not None and terms and "test images" in total.protocol else None


def scores(run: Run) -> dict[str, str]:
    """What the newest evaluation says beside the bounds, such as FID: metric -> the number as text.

    Where the run was trained on since, it says of which step that is.
    """
    rows = rows_of(run.evaluation)
    step = run.evaluation["step"] if run.evaluation else run.step
    about = f" (step {step:,})" if step < run.step else ""
    return {name: _text(row) + about for name, row in rows.items() if _is_score(name) and not name.startswith(_BOUND)}


def _is_part(metric: str) -> bool:
    """Whether a row is a part of the one above it, which the evaluation's table shows indented."""
    return metric.startswith(" ")


def _is_class(metric: str) -> bool:
    """Whether a row is about the images of one class."""
    return _CLASS in metric


def _is_score(metric: str) -> bool:
    return not _is_part(metric) and not _is_class(metric)


def _table_rows(tables: Sequence[dict[str, Row]], belongs: Any) -> list[list[Any]]:
    metrics = [metric for metric in dict.fromkeys(metric for rows in tables for metric in rows) if belongs(metric)]
    return [[metric.strip(), *(_cell(rows.get(metric)) for rows in tables)] for metric in metrics]


def _text(row: Row) -> str:
    return signed(row.number + ("" if row.spread is None else f" ± {row.spread:.4f}"))


def _cell(row: Row | None) -> Any:
    if row is None:
        return tag("span", "–", class_="missing")
    protocol = None if _is_part(row.metric) else tag("small", breakable(row.protocol))
    return [tag("span", _text(row), class_="number"), protocol]


def _histograms(runs: Sequence[Run]) -> list[Html]:
    """Those of rows that have one beside their number: {"edges": N + 1 ascending numbers, "counts": N numbers}."""
    parts = []
    for index, run in enumerate(runs):
        for row in as_list((run.evaluation or {}).get("rows")):
            if isinstance(row, dict):
                histogram = from_counts(row.get("histogram"), str(row.get("metric")), run.name, index)
                if histogram:
                    parts.append(histogram)
    return [tag("div", parts, class_="histograms")] if parts else []


def _over_time(run: Run) -> Html:
    """One line for each checkpoint that `evaluate --watch` saw."""
    evaluations = [(evaluation["step"], rows_of(evaluation)) for evaluation in run.evaluations]
    metrics = list(dict.fromkeys(metric for _, rows in evaluations for metric in rows if _is_score(metric)))
    cells = [[step, *(signed(rows[m].number) if m in rows else "–" for m in metrics)] for step, rows in evaluations]
    return table(f"{run.name} while it was trained", ["Step", *metrics], cells)
