"""Where and how long the runs were trained."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pivae.report.markup import Html, folded, note, table, tag
from tf_pivae.report.run import Run


def training_seconds(run: Run) -> float | None:
    """Seconds between the first step and the last, from the speed that each line of metrics.jsonl records.

    Returns:
      float, with the pauses for checkpoints and pictures but not the time to build the model; None without metrics.
    """
    seconds = 0.0
    previous = 0
    speeds = [(line["step"], line["images_per_second"]) for line in run.metrics if line.get("images_per_second")]
    for step, images_per_second in speeds:
        seconds += (step - previous) * run.batch_size / images_per_second
        previous = step
    return seconds if speeds else None


def render(runs: Sequence[Run], environment: Mapping[str, str]) -> list[Html]:
    """The section.

    Args:
      runs: list of `Run`.
      environment: the machine that draws the report.
    """
    timed = [run for run in runs if training_seconds(run) is not None]
    parts = []
    if timed:
        times = [["Training time", *(_duration(training_seconds(run)) for run in timed)]]
        times.append(["Images per second, median", *map(_speed, timed)])
        times.append(["Held-out bits per dimension at the end took", *map(_evaluation_time, timed)])
        parts.append(table("Time", ["", *(run.name for run in timed)], times))
    parts += [note(f"{run.name}: its training time is not known.") for run in runs if run not in timed]
    parts += [note(f"{run.name} did not record the machine it was trained on.") for run in runs if not run.environments]
    starts = [(run.name, start) for run in runs for start in run.environments]
    columns: list[tuple[str, Mapping[str, Any]]] = [
        (f"{name}, from step {start.get('from_step', '–')}", start) for name, start in starts
    ]
    columns.append(("this report", environment))
    names = list(dict.fromkeys(name for _, facts in columns for name in facts if name != "from_step"))
    rows = [[name, *(facts.get(name, "–") for _, facts in columns)] for name in names]
    parts.append(folded("Machines and versions", table("Machines", ["", *(name for name, _ in columns)], rows)))
    return parts


def _duration(seconds: float | None) -> Html | str:
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    return tag("span", text, class_="number")


def _speed(run: Run) -> str:
    speeds = [line["images_per_second"] for line in run.metrics if line.get("images_per_second")]
    return f"{statistics.median(speeds):.1f}" if speeds else "–"


def _evaluation_time(run: Run) -> str:
    seconds = [line["evaluation_seconds"] for line in run.metrics if line.get("evaluation_seconds")]
    return _duration(seconds[-1]) if seconds else "–"
