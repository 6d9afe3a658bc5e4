"""Ours, by its own commands: `tf_pivae.train`, with the steps that fit into the time."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.race.measuring import Bits, Bound, Settings
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, read_records, write_atomically
from tf_pivae.system import children

_PACE_STEPS = 48  # in which the rate is measured
_PACE_REPORT = 8  # Steps. The first report's seconds have the tracing in them.
_CHECKPOINT_SECONDS = 180.0
# The shares that they had in the run of 9,000 steps of docs/fashion_mnist.md.
_WARM_UP = 2500 / 9000
_DECAY_START = 4500 / 9000


class PiVAE:
    """gin/fashion_mnist.gin, its schedules made to fit."""

    title = "PiVAE (ours)"
    tuned = (
        "gin/fashion_mnist.gin: Adamax, 2e-3, the rate falls from half of the steps on, the KL's weight rises in 28 %"
    )

    def fit(self, images: np.ndarray, folder: Path, settings: Settings) -> dict:
        """Trains for about the settings' time, or goes on; the number of steps is chosen once, by a short run."""
        fixed = ["train.sample_every=0", "train.eval_examples=0"]
        if settings.images == "bundled":
            fixed += ["train.dataset=@bundled", "bundled.image_size=28", "bundled.num_examples=None"]
        chosen = folder / "pace.json"
        if not chosen.exists():
            reports = [f"train.log_every={_PACE_REPORT}"]
            _train(folder / "pace", settings.gin_files, [*fixed, *reports, *_schedule(_PACE_STEPS)])
            (first, tracing), *later = _durations(folder / "pace")
            a_step = statistics.median(duration / steps for steps, duration in later)  # One may have a tracing in it.
            left = 60.0 * settings.minutes - max(0.0, tracing - first * a_step)
            pace = {"step_seconds": a_step, "num_steps": max(2, round(left / a_step))}
            write_atomically(chosen, json.dumps(pace) + "\n")
        pace = read_json(chosen)
        count = pace["num_steps"]
        every = max(1, round(_CHECKPOINT_SECONDS / pace["step_seconds"]))
        reports = [f"train.log_every={max(1, count // 100)}", f"train.checkpoint_every={every}"]
        _train(folder / "run", settings.gin_files, [*fixed, *reports, *_schedule(count)])
        seconds = sum(duration for _, duration in _durations(folder / "run"))
        return {"steps": count, "seconds": seconds, "images_per_second": count * _batch_size(folder / "run") / seconds}

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


def _schedule(count: int) -> list[str]:
    return [
        f"num_steps={count}",
        f"Trainer.kl_warmup_steps={round(_WARM_UP * count)}",
        f"LinearSchedule.decay_start={round(_DECAY_START * count)}",
        f"LinearSchedule.warmup_steps={min(50, count // 10)}",
    ]


def _train(run_dir: Path, gin_files: list[str], parameters: list[str]) -> None:
    command = [sys.executable, "-m", "tf_pivae.train", f"--run_dir={run_dir}"]
    command += [f"--gin_file={name}" for name in ["options/automatic_precision.gin", *gin_files]]
    command += [f"--gin_param={parameter}" for parameter in parameters]
    ended = subprocess.run(command, stdout=sys.stderr, env=children.environment(), check=False)
    if ended.returncode:
        raise UserError(f"the training in {run_dir} ended with exit status {ended.returncode}.")


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
