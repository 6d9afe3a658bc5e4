"""The numbers of metrics.jsonl over the steps; the page's script draws them, so that a reader can zoom."""

import dataclasses
import math

from tf_pivae.reports.markup import data_script, join, note, table, tag

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
    steps: list  # ascending ints
    values: list  # floats, None where the value was not finite


@dataclasses.dataclass(frozen=True)
class Chart:
    """One metric of all runs that have it."""

    metric: str
    title: str
    curves: list  # of `Curve`


def gather(runs):
    """The charts of all metrics that the runs recorded, the most telling first: list of `Chart`."""
    found = {}
    for index, run in enumerate(runs):
        for metric, points in _series(run).items():
            steps = sorted(points)
            found.setdefault(metric, []).append(Curve(index, steps, [points[step] for step in steps]))
    order = [*(metric for metric in _FIRST if metric in found), *sorted(found.keys() - _FIRST.keys())]
    return [Chart(metric, _FIRST.get(metric, metric), found[metric]) for metric in order]


def _series(run):
    """dict of metric -> dict of step -> value, those of the evaluations during the training included."""
    series = {}
    for line in run.metrics:
        groups = [value for name, value in line.items() if name.startswith("kl/")]
        derived = {"kl": sum(groups)} if groups and None not in groups else {}
        for metric, value in {**line, **derived}.items():
            if metric != "step":
                series.setdefault(metric, {})[line["step"]] = value
    for evaluation in run.evaluations:
        for row in evaluation["rows"]:
            series.setdefault(f"evaluation: {row['metric'].strip()}", {})[evaluation["step"]] = row["value"]
    return series


def render(runs):
    """The section: a tool bar, the charts, and the numbers as a table."""
    charts = gather(runs)
    silent = [note(f"{run.name} has no metrics yet.") for run in runs if not run.metrics]
    if not charts:
        return silent
    lone = {chart.metric for chart in charts if all(len(curve.steps) == 1 for curve in chart.curves)}
    drawn = [chart for chart in charts if chart.metric not in lone]
    first = [chart for chart in drawn if chart.metric in _FIRST]
    others = [chart for chart in drawn if chart.metric not in _FIRST]
    data = {"runs": [run.name for run in runs], "charts": [dataclasses.asdict(chart) for chart in drawn]}
    parts = [*silent, _toolbar(), _legend(runs), _charts(first)]
    if others:
        parts.append(tag("details", tag("summary", f"{len(others)} more curves"), _charts(others)))
    parts.append(tag("details", tag("summary", "The curves as numbers"), _numbers(runs, charts)))
    parts.append(tag("noscript", note("The curves need JavaScript; their numbers are in the table.")))
    parts.append(data_script("curves-data", data))
    return parts


def _toolbar():
    actions = {"in": "Zoom in", "out": "Zoom out", "left": "Earlier", "right": "Later", "reset": "All steps"}
    buttons = [tag("button", label, type="button", data_zoom=action) for action, label in actions.items()]
    shown = tag("output", id="curves-range", aria_live="polite")
    hint = (
        "All curves share their steps. Drag over a chart to zoom in, double-click for all steps; with the keyboard: "
        "+, −, ←, → and 0 on a chart."
    )
    bar = tag("div", buttons, shown, class_="toolbar", role="group", aria_label="Zoom of all curves")
    return join([tag("p", hint, class_="hint"), bar])


def _legend(runs):
    """Each run's line, dashes and all: colour alone tells nothing to some."""
    entries = []
    for i, run in enumerate(runs):
        line = tag("path", d="M0,4H36", class_=f"curve run{i % 6}")
        entries.append(tag("li", tag("svg", line, width=36, height=8, aria_hidden="true"), run.name))
    return tag("ul", entries, class_="legend") if len(runs) > 1 else None


def _charts(charts):
    figures = []
    for chart in charts:
        caption = tag("figcaption", chart.title, tag("output", class_="readout"))
        named = dict(role="group", aria_label=_described(chart), data_metric=chart.metric)
        figures.append(tag("figure", caption, tag("div", class_="chart", tabindex="0", **named)))
    return tag("div", figures, class_="charts")


def _described(chart):
    """What a curve looks like, in words."""
    texts = []
    for curve in chart.curves:
        known = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if value is not None]
        if known:
            (first, start), (last, end) = known[0], known[-1]
            texts.append(f"from {number(start)} at step {first} to {number(end)} at step {last}")
    return f"{chart.title}: {'; '.join(texts) or 'never finite'}."


def _numbers(runs, charts):
    rows = []
    for chart in charts:
        for curve in chart.curves:
            finite = [value for value in curve.values if value is not None]
            told = [finite[0], finite[-1], min(finite), max(finite)] if finite else [None] * 4
            rows.append([chart.title, runs[curve.run].name, curve.steps[-1], *map(number, told)])
    return table("Every curve's first, last, smallest and largest value",
                 ["Metric", "Run", "Last step", "First", "Last", "Smallest", "Largest"], rows)  # fmt: skip


def number(value):
    """Four significant digits, as short as they can be."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.3g}"
