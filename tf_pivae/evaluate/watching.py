"""The evaluation of a run in its folder: once, or of every checkpoint of a running training."""

import dataclasses
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
    path = Path(run_dir) / "evaluation.json"
    whole = results.with_earlier(result, earlier)
    if result.rows or not path.exists():  # Where nothing was computed, earlier numbers stay.
        write_atomically(path, results.as_json(whole) + "\n")
    _print(run_dir, result)  # Nobody may read it any more.
    if result.refused:
        raise UserError(" ".join(result.refused))


def watch(run_dir: str, settings: Settings, poll_seconds: float) -> None:
    """Evaluates every checkpoint that appears, until that of the last step: RUN/evaluations.jsonl and TensorBoard.

    A metric that a checkpoint was evaluated by before is not computed again.

    Args:
      run_dir: the run's folder, which need not be there yet.
      poll_seconds: how often a new checkpoint is looked for.

    Raises:
      UserError: why a metric that was asked for is missing.
    """
    log = Path(run_dir) / "evaluations.jsonl"
    wanted = set(settings.metrics)
    done: dict[int, set[str]] = {}  # Metrics by step.
    for record in read_records(log):
        done.setdefault(record["step"], set()).update(_computed(record, wanted))
    if not (Path(run_dir) / "config.gin").exists():
        print(f"waiting for a training to begin in {run_dir}", flush=True)  # Or for ever: the name may be misspelt.
    while not (Path(run_dir) / "config.gin").exists():
        time.sleep(poll_seconds)
    writer = tf.summary.create_file_writer(str(Path(run_dir) / "tensorboard" / "evaluation"))
    last = loading.recipe_of(run_dir).num_steps
    while not wanted <= done.get(last, set()):
        steps = Checkpoints(Path(run_dir) / "checkpoints").steps()
        waiting = [step for step in steps if not wanted <= done.get(step, set())]
        if not (Path(run_dir) / "config.gin").exists():
            raise UserError(f"{run_dir} was removed while it was watched.")
        if not waiting:
            time.sleep(poll_seconds)
            continue
        try:
            missing = [name for name in settings.metrics if name not in done.get(waiting[0], set())]
            asked = dataclasses.replace(settings, metrics=tuple(missing))
            result = measuring.evaluate_run(run_dir, asked, waiting[0])
        except UserError:
            if waiting[0] in Checkpoints(Path(run_dir) / "checkpoints").steps():
                raise
            continue  # The training has dropped this checkpoint meanwhile.
        refused = {name for reason in result.refused for name in reason.partition(":")[0].split(", ")}
        computed = [name for name in missing if name not in refused]
        with open(log, "a") as file:
            file.write(results.as_json(result, metrics=computed) + "\n")
        with writer.as_default(step=result.step):
            for row in result.rows:
                tf.summary.scalar(f"evaluation/{row.metric.strip()}", row.value)
        writer.flush()
        done.setdefault(result.step, set()).update(computed)
        _print(run_dir, result)
        if result.refused:
            raise UserError(" ".join(result.refused))
    print(f"{run_dir} is evaluated up to its last step, {last}: {log}", flush=True)


def _computed(record: dict, wanted: set[str]) -> set[str]:
    """Those of the wanted metrics that a line of the log has; one of before, which does not say, has all of them."""
    names = record.get("metrics")
    return {name for name in wanted if name in names} if isinstance(names, list) else wanted


def _print(run_dir: str, result: results.Evaluation) -> None:
    if not result.rows:
        return
    print(f"{run_dir} at step {result.step}\n{results.table(result.rows)}", flush=True)
    dimensions = math.prod(load_facts(run_dir)["image_shape"])
    bits = {row.metric.strip().removeprefix("kl/"): row.value for row in result.rows if row.metric.startswith("  kl/")}
    if bits:
        print(describe_groups({name: value * dimensions for name, value in bits.items()}), flush=True)
