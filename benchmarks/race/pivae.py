"""Ours, by its own commands: `tf_pivae.train`, with the steps that fit into the time."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.race.measuring import Bits, Bound, Settings
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, read_records, write_atomically
from tf_pivae.system import children

_PACE_STEPS = 48  # in which the rate is measured
_PACE_REPORT = 8  # Steps. The first report's seconds have the tracing in them.
_CHECKPOINT_SECONDS = 180.0
_WARM_UP = 2500 / 9000  # The share that it had in the run of 9,000 steps of docs/fashion_mnist_before.md.


class PiVAE:
    """gin/fashion_mnist_hour.gin, its schedules made to fit."""

    title = "PiVAE (ours)"
    tuned = (
        "gin/fashion_mnist_hour.gin: Adamax, 2e-3, the rate falls from half of the steps on, the KL's weight rises in "
        "28 %"
    )

    def fit(self, images: np.ndarray, folder: Path, settings: Settings) -> dict:
        """Trains for about the settings' time, or goes on.

        How many steps fit is measured twice: by a short run, which places the schedules, and by the first half, after
        which the steps of the second are chosen, in which the rate falls.
        """
        run = folder / "run"
        seconds = 60.0 * settings.minutes
        pace = _once(folder / "pace.json", lambda: _pace(folder / "pace", settings, seconds))
        count = pace["num_steps"]
        every = max(1, count // 100)
        half = every * max(1, count // (2 * every))
        checkpoint_every = max(1, round(_CHECKPOINT_SECONDS / pace["step_seconds"]))
        reports = [f"train.log_every={every}", f"train.checkpoint_every={checkpoint_every}"]

        def halfway() -> dict:
            _train(run, settings, [*reports, *_schedule(count, half, half)])
            durations = _durations(run)
            left = seconds - sum(duration for _, duration in durations) - pace["tracing_seconds"]
            return {"num_steps": half + every * max(1, round(left / (every * _seconds_of_a_step(durations))))}

        total = _once(folder / "halfway.json", halfway)["num_steps"]
        _train(run, settings, [*reports, *_schedule(count, half, total)], ["--from_here"])
        spent = sum(duration for _, duration in _durations(run))
        return {"steps": total, "seconds": spent, "images_per_second": total * _batch_size(run) / spent}

    def restore(self, folder: Path) -> None:
        """Loads the run's newest checkpoint."""
        import tf_pivae

        self.model = tf_pivae.load(folder / "run")

    def weights(self) -> int:
        """Head, encoder, decoder and prior."""
        return sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """uint8 [count, 28, 28, 1], at temperature 1, the noise of p(y|z) included."""
        return self.model.sample(count, seed=seed)

    def bounds(self) -> list[Bound]:
        """By importance sampling, and the bound that training maximises."""

        def bits(samples: int) -> Bits:
            return lambda images, seed: self.model.bits_per_dim(images, samples, seed=seed).astype(np.float64)

        return [Bound(f"K = {k}", bits(k), bits(k)) for k in (16, 1)]


def _once(path: Path, measure: Callable[[], dict]) -> dict:
    """What `measure` returned when the file was written; it is written now if it is not there."""
    if not path.exists():
        write_atomically(path, json.dumps(measure()) + "\n")
    return read_json(path)


def _pace(run_dir: Path, settings: Settings, seconds: float) -> dict:
    """Measured by a short run: seconds of a step and of the tracing, and the steps that fit into `seconds`."""
    half = _PACE_STEPS // 2
    _train(run_dir, settings, [f"train.log_every={_PACE_REPORT}", *_schedule(_PACE_STEPS, half, _PACE_STEPS)])
    (steps, duration), *later = _durations(run_dir)
    a_step = _seconds_of_a_step(later)
    tracing = max(0.0, duration - steps * a_step)
    count = max(2, round((seconds - tracing) / a_step))
    return {"step_seconds": a_step, "tracing_seconds": tracing, "num_steps": count}


def _schedule(count: int, decay_start: int, num_steps: int) -> list[str]:
    """Of a training of about `count` steps, whose rate falls from `decay_start` on, which ends at `num_steps`."""
    return [
        f"num_steps={num_steps}",
        f"Trainer.kl_warmup_steps={round(_WARM_UP * count)}",
        f"LinearSchedule.decay_start={decay_start}",
        f"LinearSchedule.warmup_steps={min(50, count // 10)}",
    ]


def _train(run_dir: Path, settings: Settings, parameters: list[str], flags: Sequence[str] = ()) -> None:
    parameters = ["train.sample_every=0", "train.eval_examples=0", *parameters]
    if settings.images == "bundled":
        parameters += ["train.dataset=@bundled", "bundled.image_size=28", "bundled.num_examples=None"]
    command = [sys.executable, "-m", "tf_pivae.train", f"--run_dir={run_dir}", *flags]
    command += [f"--gin_file={name}" for name in ["options/automatic_precision.gin", *settings.gin_files]]
    command += [f"--gin_param={parameter}" for parameter in parameters]
    ended = subprocess.run(command, stdout=sys.stderr, env=children.environment(), check=False)
    if ended.returncode:
        raise UserError(f"the training in {run_dir} ended with exit status {ended.returncode}.")


def _seconds_of_a_step(durations: list[tuple[int, float]]) -> float:
    """Their median: one report or two have a tracing in them."""
    return statistics.median(duration / steps for steps, duration in durations)


def _batch_size(run_dir: Path) -> int:
    from tf_pivae import loading

    return loading.recipe_of(run_dir).batch_size


def _durations(run_dir: Path) -> list[tuple[int, float]]:
    """Pairs of a number of steps and the seconds that they took, one after the other."""
    size = _batch_size(run_dir)
    pairs = []
    before = 0
    for line in read_records(run_dir / "metrics.jsonl"):
        if "images_per_second" in line:
            steps = line["step"] - before
            pairs.append((steps, steps * size / line["images_per_second"]))
            before = line["step"]
    return pairs
