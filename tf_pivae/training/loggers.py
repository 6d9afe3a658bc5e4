"""Where the numbers and pictures of a run go: `RUN/metrics.jsonl`, TensorBoard, or a tracker of your own.

`train.loggers` is a list of functions of (`run_dir`, `start_step`), each of which returns a `Logger`.
"""

import json
import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_pivae.configurable import configurable
from tf_pivae.errors import UserError, cannot_write
from tf_pivae.files import read_records, write_atomically

EVALUATION = "evaluation_seconds"  # Marks the numbers of the evaluation at the end, which a run that goes on repeats.


class Logger:
    """Receives what a run reports, on the chief alone.

    It is constructed when the steps begin. A run that was cut off repeats the steps after its last checkpoint, on the
    CPU with the same numbers: a logger that stores them should first drop those after `start_step`.

    An error in its construction ends the training before the first step. Later, a `UserError` or a full disk ends it;
    after any other error the run goes on without this logger, and says so.

    Args:
      run_dir: folder of the run.
      start_step: steps that are done.
    """

    def __init__(self, run_dir: Path, start_step: int) -> None:
        pass

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of a step, by name; they may be NaN or infinite."""
        raise NotImplementedError  # Each subclass: where they go.

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Takes a picture of a step, uint8 [H, W, 3]."""

    def close(self) -> None:
        """The run ends, or is interrupted."""


@configurable
class JsonlLogger(Logger):
    """`RUN/metrics.jsonl`, one line per report, read by `report`, `sweep` and `train.validation`; NaN becomes null."""

    def __init__(self, run_dir: Path, start_step: int) -> None:
        self._path = Path(run_dir) / "metrics.jsonl"
        if self._path.exists():
            lines = [line for line in read_records(self._path) if line["step"] <= start_step and EVALUATION not in line]
            write_atomically(self._path, "".join(f"{json.dumps(line)}\n" for line in lines))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends a line; raises UserError if it cannot."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": int(step), **finite}) + "\n")
        except OSError as error:
            raise UserError(cannot_write(self._path, error)) from error


@configurable
class TensorBoardLogger(Logger):
    """`RUN/tensorboard/`, for `tensorboard --logdir RUN`."""

    def __init__(self, run_dir: Path, start_step: int) -> None:
        self._writer = tf.summary.create_file_writer(str(Path(run_dir) / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        with self._writer.as_default(step=step):
            tf.summary.image(name, picture[None])

    def close(self) -> None:
        self._writer.close()
