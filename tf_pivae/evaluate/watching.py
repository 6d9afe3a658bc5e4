"""The evaluation of a run in its folder: once, or of every checkpoint of a running training."""

import dataclasses
import json
import time
from pathlib import Path

import tensorflow as tf

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.evaluate import measuring, results
from tf_pivae.evaluate.image_metrics import Settings
from tf_pivae.files import alone, append_line, read_records, write_atomically
from tf_pivae.metrics import describe_groups
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.records import load_evaluation


def evaluate(run_dir: str, settings: Settings, step: int | str | None) -> None:
    """Evaluates one checkpoint, prints the table and writes RUN/evaluation.json.

    Args:
      run_dir: the run's folder.
      step: a checkpoint's, "best", or None for the newest.

    Raises:
      UserError: why a metric that was asked for is missing, when the others are written.
    """
    load_evaluation(run_dir)  # A damaged file is reported before the work begins.
    result = measuring.evaluate_run(run_dir, settings, step)
    path = Path(run_dir) / "evaluation.json"
    try:
        with alone(run_dir):  # Another evaluation may have ended meanwhile.
            whole = results.with_earlier(result, load_evaluation(run_dir))
            if result.rows or not path.exists():  # Where nothing was computed, earlier numbers stay.
                write_atomically(path, results.as_json(whole) + "\n")
        _discard(result)
    finally:
        _print(run_dir, result)  # After it is written: nobody may read it any more.
    if result.refused:
        raise UserError(" ".join(result.refused))


def watch(run_dir: str, settings: Settings, poll_seconds: float) -> None:
    """Evaluates every checkpoint that appears, until that of the last step: RUN/evaluations.jsonl and TensorBoard.

    A metric that a checkpoint of the same weights was evaluated by before is not computed again.

    Args:
      run_dir: the run's folder, which need not be there yet.
      poll_seconds: how often a new checkpoint is looked for.

    Raises:
      UserError: why a metric that was asked for is missing.
    """
    log = Path(run_dir) / "evaluations.jsonl"
    checkpoints = Checkpoints(Path(run_dir) / "checkpoints")
    records = read_records(log)
    if not (Path(run_dir) / "config.gin").exists():
        print(f"waiting for a training to begin in {run_dir}", flush=True)  # Or for ever: the name may be misspelt.
    while not (Path(run_dir) / "config.gin").exists():
        time.sleep(poll_seconds)
    writer = tf.summary.create_file_writer(str(Path(run_dir) / "tensorboard" / "evaluation"))
    last = loading.recipe_of(run_dir).num_steps
    while True:
        sums = checkpoints.sums()
        waiting = [step for step in sums if _missing(settings, records, step, sums[step])]
        if not waiting and sums and (max(sums) >= last or not _missing(settings, records, last, sums.get(last))):
            break
        if not (Path(run_dir) / "config.gin").exists():
            raise UserError(f"{run_dir} was removed while it was watched.")
        if not waiting:
            time.sleep(poll_seconds)
            continue
        try:
            missing = _missing(settings, records, waiting[0], sums[waiting[0]])
            asked = dataclasses.replace(settings, metrics=tuple(missing))
            result = measuring.evaluate_run(run_dir, asked, waiting[0])
        except UserError:
            if waiting[0] in checkpoints.steps():
                raise
            continue  # The training has dropped this checkpoint meanwhile.
        refused = {name for reason in result.refused for name in reason.partition(":")[0].split(", ")}
        computed = [name for name in missing if name not in refused]
        line = results.as_json(result, metrics=computed, checkpoint=sums[result.step])
        append_line(log, line)
        records.append(json.loads(line))
        _discard(result)
        with writer.as_default(step=result.step):
            for row in result.rows:
                tf.summary.scalar(f"evaluation/{row.metric.strip()}", row.value)
        writer.flush()
        _print(run_dir, result)
        if result.refused:
            raise UserError(" ".join(result.refused))
    print(f"{run_dir} is evaluated up to its last step, {max(last, *sums)}: {log}", flush=True)


def _missing(settings: Settings, records: list[dict], step: int, checkpoint: str | None) -> list[str]:
    """The wanted metrics that no line of the log has of a checkpoint, of any of its step where there is none any more.

    Lines of before do not say of which checkpoint they are, nor which metrics they have: all of them.
    """
    done: set[str] = set()
    for record in records:
        if record["step"] == step and checkpoint in (None, record.get("checkpoint", checkpoint)):
            names = record.get("metrics")
            done |= {str(name) for name in names} if isinstance(names, list) else {*settings.metrics}
    return [name for name in settings.metrics if name not in done]


def _discard(result: results.Evaluation) -> None:
    for path in result.states:
        path.unlink(missing_ok=True)


def _print(run_dir: str, result: results.Evaluation) -> None:
    if not result.rows:
        return
    print(f"{run_dir} at step {result.step}\n{results.table(result.rows)}", flush=True)
    bits = {row.metric.strip().removeprefix("kl/"): row.value for row in result.rows if row.metric.startswith("  kl/")}
    if bits:
        print(describe_groups({name: value * result.dimensions for name, value in bits.items()}), flush=True)
