"""What the evaluate command found."""

from tf_pivae.evaluation import Row
from tf_pivae.reports.markup import note, table, tag

_BOUND = "bits/dim, "  # What the names of the bounds begin with, in front of K.


def _rows(evaluation):
    return {row["metric"]: Row(**row) for row in evaluation["rows"]}


def render(runs):
    """The section: the newest evaluations side by side, then those that followed the training."""
    parts = []
    with_table = [run for run in runs if run.evaluation is not None]
    if with_table:
        found = [_rows(run.evaluation) for run in with_table]
        metrics = list(dict.fromkeys(metric for rows in found for metric in rows))
        cells = [[_heading(metric), *(_cell(rows.get(metric)) for rows in found)] for metric in metrics]
        header = ["Metric", *(f"{run.name}, step {run.evaluation['step']}" for run in with_table)]
        approximate = any(row.approximate for rows in found for row in rows.values())
        brackets = "; [in brackets]: the bound of an inference network trained around a GAN" if approximate else ""
        parts.append(table(f"The newest evaluations{brackets}", header, cells))
    for run in runs:
        if run.evaluation is None and not run.evaluations:
            parts.append(note(f"{run.name} has not been evaluated: python -m tf_pivae.evaluate --run_dir={run.path}"))
        for reason in (run.evaluation or {}).get("refused", []):
            parts.append(note(f"{run.name} lacks {reason}"))
        if run.evaluations:
            parts.append(_over_time(run))
    return parts


def held_out_bits_per_dim(run):
    """{"K=1": bits per dimension, ...} of the newest evaluation; empty if it has none of the test images."""
    rows = {} if run.evaluation is None else _rows(run.evaluation)
    return {
        metric.removeprefix(_BOUND): row.value
        for metric, row in rows.items()
        if metric.startswith(_BOUND) and "class" not in metric and "test images" in row.protocol
    }


def _is_part(metric):
    """Whether a row is a part of the one above it, which the evaluation's table shows indented."""
    return metric.startswith(" ")


def _heading(metric):
    return tag("span", metric.strip(), class_="part") if _is_part(metric) else metric


def _cell(row):
    if row is None:
        return tag("span", "–", class_="missing")
    spread = "" if row.spread is None else f" ± {row.spread:.4f}"
    protocol = None if _is_part(row.metric) else tag("small", row.protocol)
    return [tag("span", row.number + spread, class_="number"), protocol]


def _over_time(run):
    """One line for each checkpoint that `evaluate --watch` saw."""
    found = [(evaluation["step"], _rows(evaluation)) for evaluation in run.evaluations]
    metrics = list(dict.fromkeys(metric for _, rows in found for metric in rows if not _is_part(metric)))
    cells = [[step, *(rows[m].number if m in rows else "–" for m in metrics)] for step, rows in found]
    return table(f"{run.name} while it was trained", ["Step", *metrics], cells)
