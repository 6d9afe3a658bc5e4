"""What a training leaves behind: checkpoints, numbers and pictures in its run directory."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin
import numpy as np

from tf_pivae import figures
from tf_pivae.data.arrays import ImageSplit
from tf_pivae.errors import UserError
from tf_pivae.files import read_records, write_atomically
from tf_pivae.metrics.bits_per_dim import Estimate, bits_per_dim
from tf_pivae.models.pivae import PiVAE
from tf_pivae.runs.changes import Changes, history, lines
from tf_pivae.runs.checkpoints import BEST, Checkpoints
from tf_pivae.runs.directory import RunDirectory, check_same
from tf_pivae.runs.records import load_environments
from tf_pivae.system.environment import describe_environment
from tf_pivae.training.building import explained
from tf_pivae.training.loggers import EVALUATION, JsonlLogger, Logger
from tf_pivae.training.monitor import Monitor
from tf_pivae.training.recipe import FREE_SETTINGS
from tf_pivae.training.validation import PREFIX, Validation


def compared(run_dir: str | Path, from_here: bool) -> tuple[str, Changes]:
    """gin's operative configuration, and how it differs from that of the run to be continued: see `check_same`."""
    config = gin.operative_config_str(max_line_length=110)
    return config, check_same(run_dir, config, FREE_SETTINGS, from_here)


class Recorder:
    """Writes a run down, on the chief alone: holds the run directory's lock from here to `close`.

    Args:
      run_dir: folder of the run.
      keep_checkpoints: number of newest checkpoints to keep.
      loggers: functions of `run_dir` and `start_step`, each of which returns a `Logger`.
      from_here: a run that goes on takes other settings, whatever they are, from its last checkpoint on.
      callback: None, or a function of (step, metrics), called with what is reported every `log_every` steps; where it
        returns True, the run stops as it does for SIGTERM: saved, to be continued.

    Raises:
      UserError: the folder cannot be written, or another process holds it.
    """

    def __init__(
        self,
        run_dir: str | Path,
        keep_checkpoints: int,
        loggers: Sequence[Callable[..., Logger]],
        from_here: bool = False,
        callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    ) -> None:
        self._make_loggers = loggers
        self._from_here = from_here
        self._callback = callback
        self._directory = RunDirectory(run_dir)
        self._path = self._directory.path
        self._checkpoints = Checkpoints(self._path / "checkpoints", keep_checkpoints)
        self._best = Checkpoints(self._path / BEST, keep=1)
        self._monitor: Monitor = None
        self._claim: tuple[str, dict] = None
        self._changes = Changes({}, {})
        self._measured_from = 0

    def claim(self, facts: dict) -> None:
        """Compares gin's operative configuration with that of the run that is being continued, where there is one.

        `start` writes it: if a mistake turns up before that, the corrected configuration is not a different one.
        """
        config, self._changes = compared(self._path, self._from_here)
        self._claim = config, facts

    def restore(self, state: dict[str, list]) -> int | None:
        """See `Checkpoints.restore`; a learning rate is what the configuration says now."""
        optimizers = [group for name, group in state.items() if name.endswith("_optimizer")]
        rates = [(v, v.numpy()) for group in optimizers for v in group if v.name == "learning_rate"]
        step = self._checkpoints.restore(state)
        for variable, rate in rates:
            variable.assign(rate)
        return step

    def start(self, start_step: int, num_steps: int, batch_size: int) -> bool:
        """Writes what was claimed, opens the metrics' files and the progress bar, notes the machine; returns True."""
        self._directory.claim(*self._claim, start_step, self._changes)
        starts = [start for start in load_environments(self._path) if start["from_step"] < start_step]
        now = time.strftime("%Y-%m-%d %H:%M %Z")
        starts.append({"from_step": start_step, "started": now, **describe_environment()})
        write_atomically(self._path / "environment.json", json.dumps(starts, indent=1) + "\n")
        loggers = []
        for make in self._make_loggers:
            with explained(f"train.loggers: {getattr(make, '__name__', make)}"):
                loggers.append(make(run_dir=self._path, start_step=start_step))
        self._keeps_records = any(isinstance(logger, JsonlLogger) for logger in loggers)
        self._monitor = Monitor(loggers, start_step, num_steps, batch_size)
        self.advance = self._monitor.advance
        self.say = self._monitor.say
        if changed := lines(self._changes):
            self.say("\n".join([f"goes on from step {start_step} with other settings (RUN/changes.json):", *changed]))
        return True

    def expect_validation(self) -> None:
        """Before the first step: raises UserError where no `JsonlLogger` keeps the scores of `validate`."""
        if not self._keeps_records:
            raise UserError("train.validation reads RUN/metrics.jsonl: add @JsonlLogger to train.loggers.")
        self._measured_from = max(
            (entry["from_step"] for entry in history(self._path) if any(map(_changes_scores, entry["settings"]))),
            default=0,
        )
        if self._measured_from and self._best.steps():
            self.say(
                f"the best checkpoint is now sought among the steps after {self._measured_from}: scores of before were "
                "taken by other settings of Validation."
            )

    def report(self, step: int, metrics: dict[str, float]) -> bool:
        """Writes the metrics of a step down, and shows them to the callback; returns whether that one wants to stop."""
        self._monitor.report(step, metrics)
        return self._callback is not None and bool(self._callback(step, metrics))

    def save(self, step: int, state: dict[str, list]) -> None:
        """Writes a checkpoint."""
        self._checkpoints.save(step, state)

    def validate(self, step: int, state: dict[str, list], model: PiVAE, validation: Validation) -> None:
        """Takes and writes the scores of a step, and keeps the model where it is the best so far.

        The best score so far is read from the metrics, from which a resumed run has dropped the steps it will repeat;
        it is that of the steps since the settings of the validation last changed: other scores are not comparable.

        Args:
          step: int, that of the weights.
          state: name of a group -> list of variables, for the checkpoint.
          model: `PiVAE`, the one that is scored.
          validation: what scores it.
        """
        key = PREFIX + validation.best
        records = read_records(self._path / "metrics.jsonl")
        earlier = [r[key] for r in records if r.get(key) is not None and r["step"] > self._measured_from]
        started = time.monotonic()
        scores = validation(model)
        best = not self._best.steps() or scores[validation.best] < min(earlier, default=math.inf)
        values = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.say(f"step {step}  validation: {values}{', the best so far' if best else ''}")
        if best:
            self._best.save(step, {name: state[name] for name in ("pivae", "moving_average") if name in state})
        seconds = {f"{PREFIX}seconds": time.monotonic() - started}
        self._monitor.write(step, {PREFIX + name: value for name, value in scores.items()} | seconds)

    def close(self) -> None:
        """Closes the loggers, and releases the run directory."""
        if self._monitor is not None:
            self._monitor.close()
        self._directory.close()

    def draw_samples(self, step: int, model: PiVAE) -> None:
        """Writes `RUN/samples/STEP.png`; a class-conditional model's rows are its classes."""
        count, labels, columns = figures.sample_layout(36, model.num_classes)
        picture = figures.image_grid(model.sample(count, labels=labels), columns, num_bins=model.num_bins)
        figures.save_png(picture, self._path / "samples" / f"{step:06d}.png")
        self._monitor.image(step, "samples", np.asarray(picture))

    def evaluate(self, step: int, model: PiVAE, test: ImageSplit, importance_samples: int) -> Estimate:
        """Bits per dimension of a split at K = 1, and K = `importance_samples` beside it, said and written.

        Args:
          step: int, that of the weights.
          model: `PiVAE`.
          test: `ImageSplit`.

        Returns:
          Mean and standard error over images at K = 1.
        """
        labels = test.labels if model.num_classes else None

        def terms(images, k, row):
            return model.bound_terms(images, 0, None if labels is None else labels[row : row + len(images)], row, k)

        started = time.monotonic()
        result = bits_per_dim(test.images, terms, importance_samples)
        estimates = {1: result.one_sample, importance_samples: result.importance_weighted}
        values = {EVALUATION: time.monotonic() - started}
        for k, (mean, error) in estimates.items():
            values[f"held_out_bits_per_dim/K={k}"] = mean
            values[f"held_out_standard_error/K={k}"] = error or 0.0
            self.say(
                f"held-out bits/dim on {result.count} images, K = {k}: {mean:.4f} +- {error or 0.0:.4f} "
                "(standard error over images)"
            )
        self._monitor.write(step, values)
        return result.one_sample

    def draw_final_pictures(self, model: PiVAE, test: ImageSplit, temperature: float) -> None:
        """Writes `RUN/samples.png` and `RUN/reconstructions.png`, and says where everything is."""
        count, labels, columns = figures.sample_layout(64, model.num_classes)
        panels = [
            (f"temperature {t:g}, {name}", figures.image_grid(images, columns, num_bins=model.num_bins))
            for t, noise, name in ((1.0, 1.0, "the model itself"), (temperature, 0.5, "half of the noise of p(y|z)"))
            for images in [model.sample(count, temperature=t, sample_noise=noise, labels=labels)]
        ]
        figures.save_png(figures.labelled(panels, "Samples"), self._path / "samples.png")
        test = test.take(32)
        real = np.asarray(test.images)
        reconstructions = model.reconstruct(real, labels=test.labels if model.num_classes else None)
        picture = figures.reconstruction_grid(real, reconstructions, num_bins=model.num_bins)
        figures.save_png(
            figures.labelled([("held-out image | its reconstruction", picture)], "Reconstructions"),
            self._path / "reconstructions.png",
        )
        self.say(
            f"samples:         {self._path / 'samples.png'}\n"
            f"reconstructions: {self._path / 'reconstructions.png'}\n"
            f"metrics:         {self._path / 'metrics.jsonl'} (and tensorboard --logdir {self._path})\n"
            f"model:           tf_pivae.load({str(self._path)!r})"
        )


def _changes_scores(name: str) -> bool:
    """Whether another value of a setting gives other scores of the same weights."""
    return name.startswith("Validation.") and name != "Validation.every"


class NoRecorder:
    """The recorder of a worker that is not the chief: it writes nothing."""

    def _nothing(self, *_: Any, **__: Any) -> Any:
        return None

    claim = _nothing
    restore = _nothing
    advance = _nothing
    report = _nothing
    say = _nothing
    save = _nothing
    close = _nothing
    draw_samples = _nothing
    draw_final_pictures = _nothing
    expect_validation = _nothing
    validate = _nothing

    def start(self, *_: Any, **__: Any) -> bool:
        """True: every worker takes the steps."""
        return True

    def evaluate(self, *_: object) -> tuple[None, None]:
        """(None, None): only the chief evaluates."""
        return None, None
