"""Where the numbers of a run go: the terminal, `metrics.jsonl`, TensorBoard."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm

from tf_pivae.errors import UserError, cannot_write
from tf_pivae.files import read_records, write_atomically

# What fits beside the bar, in the order of importance: metric, its short name.
_ON_THE_BAR = (
    ("bits_per_dim", "bits/dim"),
    ("critic_loss", "critic"),
    ("quality_loss", "L_Q"),
    ("log_sigma", "log sigma"),
)


class Monitor:
    """Reports a run's metrics; what a run that was cut off wrote of later steps, or of its evaluation, is dropped.

    Args:
      run_dir: folder.
      start_step, num_steps: ints; the first step still to do, and the last.
      images_per_step: global batch size.
    """

    def __init__(self, run_dir: str | Path, start_step: int, num_steps: int, images_per_step: int) -> None:
        self._path = Path(run_dir) / "metrics.jsonl"
        self._images_per_step = images_per_step
        self._drop_lines_after(start_step)
        self._writer = tf.summary.create_file_writer(str(Path(run_dir) / "tensorboard"))
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=num_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            disable=not self._terminal,
            smoothing=0.05,
        )
        self._num_steps = num_steps
        self._clock, self._clock_step, self._first = time.monotonic(), start_step, (time.monotonic(), start_step)

    def _drop_lines_after(self, step):
        if self._path.exists():
            kept = [
                line
                for line in read_records(self._path)
                if line["step"] <= step and "evaluation_seconds" not in line  # It will be evaluated again.
            ]
            write_atomically(self._path, "".join(f"{json.dumps(line)}\n" for line in kept))

    def advance(self, steps: int = 1) -> None:
        """Moves the progress bar."""
        self._bar.update(steps)

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the metrics (dict of floats) of a step everywhere."""
        now = time.monotonic()
        seconds = max(now - self._clock, 1e-9)
        metrics = {**metrics, "images_per_second": (step - self._clock_step) * self._images_per_step / seconds}
        self._clock, self._clock_step = now, step
        self.write(step, metrics)
        shown = [f"{short} {metrics[name]:.3f}" for name, short in _ON_THE_BAR if name in metrics]
        if self._terminal:
            self._bar.set_postfix_str(", ".join(shown))
        else:
            done = step - self._first[1]
            left = (now - self._first[0]) / max(done, 1) * (self._num_steps - step)
            self.say(
                f"step {step}/{self._num_steps}  {'  '.join(shown)}  {metrics['images_per_second']:.0f} images/s  "
                f"{left / 60:.1f} min left"
            )

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes numbers to `metrics.jsonl` and TensorBoard alone; raises UserError if it cannot."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        try:
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": int(step), **finite}) + "\n")
        except OSError as error:
            raise UserError(cannot_write(self._path, error)) from error
        with self._writer.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(name, value)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a uint8 [H, W, 3] picture in TensorBoard."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, picture[None])

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        tqdm.tqdm.write(text)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
        self._writer.close()
