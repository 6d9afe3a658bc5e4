"""The numbers of metrics.jsonl over the steps; the page's script draws them, so that a reader can zoom."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tf_pivae.report.evaluations import rows_of
from tf_pivae.report.histograms import signed
from tf_pivae.report.markup import Html, breakable, data_script, folded, join, note, run_class, table, tag
from tf_pivae.report.run import Run

# What a reader looks at first: metric, title with its unit. The others stand below, under their own names.
_FIRST = {
    "bits_per_dim": "Bits per dimension, training batch",
    "held_out_bits_per_dim/K=1": "Bits per dimension, held out, K = 1",
    "reconstruction": "Reconstruction log p(y|z), nats",
    "kl": "KL of all latents, nats",
    "flow_log_det_per_dim": "Flow log-determinant, nats per dimension",
    "log_sigma": "log σ of p(y|z)",
    "critic_loss": "Critic's loss",
    "quality_loss": "Generator's adversarial loss",
    "real_logit": "Critic's logit, real images",
    "fake_logit": "Critic's logit, samples",
    "gradient_norm": "Gradient norm, generator",
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of one run."""

    run: int  # index among the runs
    steps: list[int]  # ascending
    values: list[float | None]  # None where the value was not finite


@dataclasses.dataclass(frozen=True)
class Chart:
    """One metric of all runs that have it."""

    metric: str
    title: str
    curves: list[Curve]


def gather(runs: Sequence[Run]) -> list[Chart]:
    """The charts of all metrics that the runs recorded, the most telling first."""
    curves: dict[str, list[Curve]] = {}
    for index, run in enumerate(runs):
        for metric, points in _series(run).items():
            steps = sorted(points)
            curves.setdefault(metric, []).append(Curve(index, steps, [points[step] for step in steps]))
    order = [*(metric for metric in _FIRST if metric in curves), *sorted(curves.keys() - _FIRST.keys())]
    return [Chart(metric, _FIRST.get(metric, metric), curves[metric]) for metric in order]


def _series(run: Run) -> dict[str, dict[int, float | None]]:
    """Metric -> step -> value, those of the evaluations during the training included."""
    series: dict[str, dict[int, float | None]] = {}
    for line in run.metrics:
        groups = [value for name, value in line.items() if name.startswith("kl/")]
        derived = {"kl": sum(groups)} if groups and None not in groups else {}
        for metric, value in {**line, **derived}.items():
            if metric != "step":
                series.setdefault(metric, {})[line["step"]] = value
    for evaluation in run.evaluations:
        for metric, row in rows_of(evaluation).items():
            series.setdefault(f"evaluation: {metric.strip()}", {})[evaluation["step"]] = row.value
    return series


def render(runs: Sequence[Run], steps: Sequence[int | None]) -> Sequence[Html | None]:
    """The section: a tool bar, the charts, and the numbers as a table.

    Args:
      runs: list of `Run`.
      steps: of their checkpoints, None without one.
    """
    charts = gather(runs)
    silent = [note(_silence(run, step)) for run, step in zip(runs, steps, strict=True) if not run.metrics]
    if not charts:
        return silent
    lone = {chart.metric for chart in charts if all(len(curve.steps) == 1 for curve in chart.curves)}
    multiples = [chart for chart in charts if chart.metric not in lone]
    first = [chart for chart in multiples if chart.metric in _FIRST]
    others = [chart for chart in multiples if chart.metric not in _FIRST]
    data = {"runs": [run.name for run in runs], "charts": [dataclasses.asdict(chart) for chart in multiples]}
    parts: list[Html | None] = [*silent, _toolbar(), _legend(runs), _charts(first)]
    if others:
        parts.append(folded(f"{len(others)} more curves", _charts(others)))
    parts.append(folded("The curves as numbers", _numbers(runs, charts)))
    parts.append(tag("noscript", note("The curves need JavaScript; their numbers are in the table.")))
    parts.append(data_script("curves-data", data))
    return parts


def _silence(run: Run, step: int | None) -> str:
    if step is None:
        return f"{run.name} has no metrics yet."
    return f"{run.name} came without the curves of its training: there is no metrics.jsonl beside its checkpoint."


def _toolbar() -> Html:
    actions = {"in": "Zoom in", "out": "Zoom out", "left": "Earlier", "right": "Later", "reset": "All steps"}
    buttons = [tag("button", label, type="button", data_zoom=action) for action, label in actions.items()]
    output = tag("output", id="curves-range", aria_live="polite")
    hint = (
        "All curves share their steps. Drag over a chart to zoom in, double-click for all steps; with the keyboard: "
        "+, −, ←, → and 0 on a chart."
    )
    bar = tag("div", buttons, output, class_="toolbar", role="group", aria_label="Zoom of all curves")
    return join([tag("p", hint, class_="hint"), bar])


def _legend(runs: Sequence[Run]) -> Html | None:
    """Each run's line, dashes and all: colour alone tells nothing to some."""
    entries = []
    for i, run in ((i, run) for i, run in enumerate(runs) if run.metrics or run.evaluations):
        line = tag("path", d="M0,4H36", class_=f"curve {run_class(i)}")
        entries.append(
            tag(
                "li",
                tag("svg", line, width=36, height=8, aria_hidden="true"),
                tag("span", breakable(run.name, everywhere=True)),
            )
        )
    return tag("ul", entries, class_="legend") if len(runs) > 1 else None


def _charts(charts: Sequence[Chart]) -> Html:
    figures: list[Any] = []
    for chart in charts:
        caption = tag("figcaption", breakable(chart.title), tag("output", class_="readout"))
        attributes = dict(role="group", aria_label=_described(chart), data_metric=chart.metric)
        figures.append(tag("figure", caption, tag("div", class_="chart", tabindex="0", **attributes)))
    return tag("div", figures, class_="charts")


def _described(chart: Chart) -> str:
    """What a curve looks like, in words."""
    texts = []
    for curve in chart.curves:
        points = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if value is not None]
        if points:
            first, start = points[0]
            last, end = points[-1]
            texts.append(f"from {number(start)} at step {first} to {number(end)} at step {last}")
    return f"{chart.title}: {'; '.join(texts) or 'never finite'}."


def _numbers(runs: Sequence[Run], charts: Sequence[Chart]) -> Html:
    rows = []
    for chart in charts:
        for curve in chart.curves:
            finite = [value for value in curve.values if value is not None]
            summary: list[float | None] = [finite[0], finite[-1], min(finite), max(finite)] if finite else [None] * 4
            rows.append([chart.title, runs[curve.run].name, curve.steps[-1], *map(number, summary)])
    return table("Every curve's first, last, smallest and largest value",
                 ["Metric", "Run", "Last step", "First", "Last", "Smallest", "Largest"], rows)  # fmt: skip


def number(value: float | None) -> str:
    """Four significant digits, as short as they can be."""
    if value is None or not math.isfinite(value):
        return "–"
    return signed(f"{value:.4g}" if abs(value) < 1e4 else f"{value:.3g}")
