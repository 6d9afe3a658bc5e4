"""Where and how long the runs were trained."""

import statistics

from tf_pivae.reports.markup import note, table


def training_seconds(run):
    """Seconds between the first step and the last, from the speed that each line of metrics.jsonl records.

    Returns:
      float, with the pauses for checkpoints and pictures but not the time to build the model; None without metrics.
    """
    seconds, previous = 0.0, 0
    speeds = [(line["step"], line["images_per_second"]) for line in run.metrics if line.get("images_per_second")]
    for step, images_per_second in speeds:
        seconds += (step - previous) * run.batch_size / images_per_second
        previous = step
    return seconds if speeds else None


def render(runs, here):
    """The section.

    Args:
      runs: list of `Run`.
      here: dict of str -> str, the machine that draws the report.
    """
    header = ["", *(run.name for run in runs)]
    times = [["Steps", *(f"{run.step} of {run.num_steps}" for run in runs)]]
    times.append(["Training time", *(_duration(training_seconds(run)) for run in runs)])
    times.append(["Images per second, median", *map(_speed, runs)])
    times.append(["Held-out bits per dimension at the end took", *map(_evaluation_time, runs)])
    parts = [table("Time", header, times)]
    starts = [(run.name, start) for run in runs for start in run.environments]
    columns = [(f"{name}, from step {start['from_step']}", start) for name, start in starts]
    columns.append(("this report", here))
    names = list(dict.fromkeys(name for _, facts in columns for name in facts if name != "from_step"))
    rows = [[name, *(facts.get(name, "–") for _, facts in columns)] for name in names]
    parts.append(table("Machines", ["", *(name for name, _ in columns)], rows))
    for run in runs:
        if not run.environments:
            parts.append(note(f"{run.name} did not record the machine it was trained on."))
    return parts


def _duration(seconds):
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _speed(run):
    speeds = [line["images_per_second"] for line in run.metrics if line.get("images_per_second")]
    return f"{statistics.median(speeds):.1f}" if speeds else "–"


def _evaluation_time(run):
    taken = [line["evaluation_seconds"] for line in run.metrics if "evaluation_seconds" in line]
    return _duration(taken[-1]) if taken else "–"
