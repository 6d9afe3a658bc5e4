"""The evaluation of a run in its folder: once, or of every checkpoint of a running training."""

import math
import time
from pathlib import Path

import tensorflow as tf

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.evaluate import measuring, results
from tf_pivae.evaluate.image_metrics import Settings
from tf_pivae.files import read_records, write_atomically
from tf_pivae.metrics import describe_groups
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.records import load_evaluation, load_facts


def evaluate(run_dir: str, settings: Settings, step: int | str | None) -> None:
    """Evaluates one checkpoint, prints the table and writes RUN/evaluation.json.

    Args:
      run_dir: the run's folder.
      step: a checkpoint's, "best", or None for the newest.

    Raises:
      UserError: why a metric that was asked for is missing, when the others are written.
    """
    earlier = load_evaluation(run_dir)  # A damaged file is reported before the work begins.
    result = measuring.evaluate_run(run_dir, settings, step)
    _print(run_dir, result)
    path = Path(run_dir) / "evaluation.json"
    whole = results.with_earlier(result, earlier)
    if result.rows or not path.exists():  # Where nothing was computed, earlier numbers stay.
        write_atomically(path, results.as_json(whole) + "\n")
    if result.refused:
        raise UserError(" ".join(result.refused))


def watch(run_dir: str, settings: Settings, poll_seconds: float) -> None:
    """Evaluates every checkpoint that appears, until that of the last step: RUN/evaluations.jsonl and TensorBoard.

    Args:
      run_dir: the run's folder, which need not be there yet.
      poll_seconds: how often a new checkpoint is looked for.

    Raises:
      UserError: why a metric that was asked for is missing.
    """
    log = Path(run_dir) / "evaluations.jsonl"
    evaluated = {record["step"] for record in read_records(log)}
    if not (Path(run_dir) / "config.gin").exists():
        print(f"waiting for a training to begin in {run_dir}", flush=True)  # Or for ever: the name may be misspelt.
    while not (Path(run_dir) / "config.gin").exists():
        time.sleep(poll_seconds)
    writer = tf.summary.create_file_writer(str(Path(run_dir) / "tensorboard" / "evaluation"))
    last = loading.recipe_of(run_dir).num_steps
    while last not in evaluated:
        waiting = [step for step in Checkpoints(Path(run_dir) / "checkpoints").steps() if step not in evaluated]
        if not (Path(run_dir) / "config.gin").exists():
            raise UserError(f"{run_dir} was removed while it was watched.")
        if not waiting:
            time.sleep(poll_seconds)
            continue
        try:
            result = measuring.evaluate_run(run_dir, settings, waiting[0])
        except UserError:
            if waiting[0] in Checkpoints(Path(run_dir) / "checkpoints").steps():
                raise
            continue  # The training has dropped this checkpoint meanwhile.
        _print(run_dir, result)
        with open(log, "a") as file:
            file.write(results.as_json(result) + "\n")
        with writer.as_default(step=result.step):
            for row in result.rows:
                tf.summary.scalar(f"evaluation/{row.metric.strip()}", row.value)
        writer.flush()
        evaluated.add(result.step)
        if result.refused:
            raise UserError(" ".join(result.refused))


def _print(run_dir: str, result: results.Evaluation) -> None:
    if not result.rows:
        return
    print(f"{run_dir} at step {result.step}\n{results.table(result.rows)}", flush=True)
    dimensions = math.prod(load_facts(run_dir)["image_shape"])
    bits = {row.metric.strip().removeprefix("kl/"): row.value for row in result.rows if row.metric.startswith("  kl/")}
    if bits:
        print(describe_groups({name: value * dimensions for name, value in bits.items()}), flush=True)
