"""What a run says while it trains: a progress bar or lines on the terminal, and everything to its loggers."""

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import tqdm

from tf_pivae.errors import UserError, disk_message, first_line, has_no_reader, printable, sentence
from tf_pivae.training.loggers import Logger

# What fits beside the bar, in the order of importance: metric, its short name.
_ON_THE_BAR = (
    ("bits_per_dim", "bits/dim"),
    ("critic_loss", "critic"),
    ("quality_loss", "L_Q"),
    ("log_sigma", "log sigma"),
)


class Monitor:
    """Reports a run's metrics.

    Args:
      loggers: what they go to beside the terminal.
      start_step, num_steps: ints; the first step still to do, and the last.
      images_per_step: global batch size.
    """

    def __init__(self, loggers: Sequence[Logger], start_step: int, num_steps: int, images_per_step: int) -> None:
        self._loggers = list(loggers)
        self._images_per_step = images_per_step
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
        self._clock = time.monotonic()
        self._clock_step = start_step
        self._first = (time.monotonic(), start_step)

    def advance(self) -> None:
        """Moves the progress bar by a step."""
        self._bar.update()

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the metrics (dict of floats) of a step to the terminal and the loggers."""
        now = time.monotonic()
        seconds = max(now - self._clock, 1e-9)
        metrics = {**metrics, "images_per_second": (step - self._clock_step) * self._images_per_step / seconds}
        self._clock = now
        self._clock_step = step
        self.write(step, metrics)
        values = [f"{short} {metrics[name]:.3f}" for name, short in _ON_THE_BAR if name in metrics]
        if self._terminal:
            self._bar.set_postfix_str(", ".join(values))
        else:
            num_steps = step - self._first[1]
            seconds_left = (now - self._first[0]) / max(num_steps, 1) * (self._num_steps - step)
            self.say(
                f"step {step}/{self._num_steps}  {'  '.join(values)}  {metrics['images_per_second']:.0f} images/s  "
                f"{seconds_left / 60:.1f} min left"
            )

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes numbers to the loggers alone."""
        self._each(step, lambda logger: logger.scalars(step, metrics))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a uint8 [H, W, 3] picture to the loggers."""
        self._each(step, lambda logger: logger.image(step, name, picture))

    def _each(self, step: int, call: Callable[[Logger], None]) -> None:
        """Calls every logger. One that fails, such as a tracker whose server is gone, is dropped, and the training goes
        on; but errors of the run's own files end it."""
        for logger in list(self._loggers):
            try:
                call(logger)
            except Exception as error:
                if isinstance(error, UserError) or disk_message(error):
                    raise
                self._loggers.remove(logger)
                self.say(
                    f"{type(logger).__name__} gets nothing from step {step} on until the run is started again: "
                    f"{sentence(printable(first_line(error)))}"
                )

    def say(self, text: str) -> None:
        """Prints a line above the progress bar; a closed output, as after `| head`, does not end the training."""
        try:
            tqdm.tqdm.write(text)
            sys.stdout.flush()
        except OSError as error:
            if not has_no_reader(error):
                raise

    def close(self) -> None:
        self._bar.close()
        for logger in self._loggers:
            logger.close()
