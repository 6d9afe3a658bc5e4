"""What a sweep found: one row per trial, as `results.csv`, as a picture, and for TensorBoard's HParams page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from tf_pivae.errors import UserError
from tf_pivae.files import csv_cell, plain, read_records, write_atomically
from tf_pivae.runs.records import load_evaluation
from tf_pivae.sweep.trials import FINISHED, RUNNING, STOPPED, Trial

RESULTS = "results.csv"
_HELD_OUT = "held_out_bits_per_dim/K=1"
# Of the last report of the training: losses on training batches, in the units of `metrics.jsonl`.
LOSSES = ("bits_per_dim", "critic_loss", "quality_loss", "critic_regularization", "log_sigma")


def row(trial: Trial) -> dict:
    """What is known of a trial: a dict of a column's name -> str, number or None.

    "bits_per_dim" is the held-out one (K = 1, nats / (D log 2)) with its standard error over images; "train/..." are
    the last losses; "evaluation/..." the rows of `tf_pivae.evaluate`, with their spread.
    """
    record = trial.read()
    try:
        lines = read_records(trial.directory / "metrics.jsonl")
    except UserError:  # Damaged: the trial has its row all the same.
        lines = []
    reports = [line for line in lines if "images_per_second" in line]
    held_out = next((line for line in reversed(lines) if _HELD_OUT in line), {})
    values = {
        "trial": trial.name,
        **dict(trial.settings),
        "status": STOPPED if record.status == RUNNING else record.status,  # By SIGKILL: nothing runs any more.
        "step": lines[-1]["step"] if lines else 0,
        "bits_per_dim": held_out.get(_HELD_OUT),
        "bits_per_dim_standard_error": held_out.get("held_out_standard_error/K=1"),
    }
    for evaluated in _evaluation(trial):
        name = f"evaluation/{evaluated['metric']}"
        values |= {name: evaluated["value"], f"{name} +-": evaluated["spread"]}
    values |= {f"train/{name}": reports[-1][name] for name in LOSSES if reports and name in reports[-1]}
    return values | {
        "seconds": record.seconds,
        "exit_status": record.exit_status,
        "error": record.error,
        "run_dir": str(trial.directory),
    }


def _evaluation(trial):
    """Rows of the trial's `evaluation.json` that are metrics, not parts of one."""
    try:
        rows = (load_evaluation(trial.directory) or {}).get("rows", [])
    except UserError:  # Damaged.
        return []
    return [evaluated for evaluated in rows if not evaluated["metric"].startswith(" ")]


def write_csv(path: str | Path, rows: list[dict]) -> None:
    """Writes rows (of `row`) with every column that one of them has, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    columns = list(dict.fromkeys(name for values in rows for name in values))
    last = list(rows[0])[-4:]  # A metric that only later rows have comes before the bookkeeping.
    columns = [name for name in columns if name not in last] + last
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writerow({name: csv_cell(name) for name in columns})
    writer.writerows({name: csv_cell(value) for name, value in values.items()} for values in rows)
    write_atomically(path, text.getvalue())


def check_axes(sweep_dir: str | Path, names: Iterable[str]) -> None:
    """Raises UserError where the folder's `results.csv` is of a sweep over other settings: it would be written over."""
    try:
        with open(Path(sweep_dir) / RESULTS, newline="") as file:
            columns = next(csv.reader(file))
        swept = columns[columns.index("trial") + 1 : columns.index("status")]
    except (OSError, ValueError, StopIteration):
        return  # No file yet, or not one of this program's.
    if sorted(swept) != sorted(names):
        raise UserError(f"{sweep_dir} holds a sweep over {', '.join(swept)}: choose another --sweep_dir for this one.")


def earlier_trials(sweep_dir: str | Path, names: Iterable[str]) -> list[Trial]:
    """The trials in the folder's `results.csv`, of sweeps over the same settings, without those whose folder is gone.

    Args:
      sweep_dir: the sweep's folder.
      names: of the settings.
    """
    try:
        with open(Path(sweep_dir) / RESULTS, newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    names = sorted(names)
    settings = [tuple((name, _gin_text(line.get(name) or "")) for name in names) for line in lines]
    trials = [Trial(values, str(Path(sweep_dir).absolute())) for values in settings]
    return [trial for trial in trials if trial.claimed]


def _gin_text(cell):
    """The gin text that `csv_cell` made a cell of: a reference got a quote before it, a string has one at both ends."""
    return cell[1:] if cell.startswith("'@") and not cell.endswith("'") else cell


def metric_columns(rows: list[dict]) -> list[str]:
    """The columns that judge a trial, the first of them first: those that a finished trial has a number for."""
    finished = [values for values in rows if values["status"] == FINISHED]
    numbers = dict.fromkeys(
        name for values in finished for name, value in values.items() if isinstance(value, (int, float))
    )
    judging = [name for name in numbers if name == "bits_per_dim" or name.startswith("evaluation/")]
    return [name for name in judging if not name.endswith(" +-")] or [
        name for name in numbers if name.startswith("train/")
    ]


def write_hparams(sweep_dir: str | Path, trials: list[Trial], rows: list[dict]) -> None:
    """Writes what TensorBoard's HParams page shows of the sweep: `tensorboard --logdir SWEEP`.

    The trials' own curves are found where training put them, in the folder `tensorboard` of each.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    for folder in [Path(sweep_dir), *(trial.directory for trial in trials)]:
        for old in folder.glob("events.out.tfevents.*.hparams"):
            old.unlink()
    settings = {name: _alike([plain(dict(trial.settings)[name]) for trial in trials]) for name, _ in trials[0].settings}
    parameters = [hp.HParam(name, hp.Discrete(sorted(set(values)))) for name, values in settings.items()]
    metrics = [
        *(hp.Metric(f"sweep/{name}", display_name=name) for name in metric_columns(rows)),
        *(hp.Metric(name, group="tensorboard", display_name=f"{name} (training)") for name in LOSSES),
    ]
    with _writer(sweep_dir).as_default():
        hp.hparams_config(hparams=parameters, metrics=metrics)
    for i, (trial, values) in enumerate(zip(trials, rows, strict=True)):
        with _writer(trial.directory).as_default():
            hp.hparams({name: column[i] for name, column in settings.items()}, trial_id=trial.name)
            for name in metric_columns([values]):
                tf.summary.scalar(f"sweep/{name}", values[name], step=values["step"])


def _writer(folder):
    import tensorflow as tf

    return tf.summary.create_file_writer(str(folder), filename_suffix=".hparams")


def _alike(values):
    """Values of one type, which is what TensorBoard takes for one setting."""
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        return [float(value) for value in values]
    return values if len(kinds) == 1 else [str(value) for value in values]
