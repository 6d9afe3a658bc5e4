"""The training loop: data and step in, checkpoints, metrics and pictures out."""

import math
import signal
import time
from typing import NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from tf_pivae import figures
from tf_pivae.data.batches import batch_indices, train_batches
from tf_pivae.errors import UserError
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.checkpoints import Checkpoints
from tf_pivae.training.monitor import Monitor
from tf_pivae.training.runs import RunDirectory, restore_model
from tf_pivae.training.trainer import Trainer

_DRAIN_EVERY = 20  # Steps between looks at the metrics: each look waits for the device.


class Outcome(NamedTuple):
    """What a training came to."""

    step: int  # the last step taken
    signal: int | None  # the signal that stopped it before the end, or None
    bits_per_dim: float | None  # on held-out images; None for a model trained without likelihood, or unfinished
    standard_error: float | None


def default_strategy():
    """`MirroredStrategy` over all visible GPUs, or one replica on the CPU."""
    return tf.distribute.MirroredStrategy([gpu.name.removeprefix("/physical_device:") for gpu in _gpus()] or ["/cpu:0"])


def _gpus():
    return tf.config.list_physical_devices("GPU")


@gin.configurable(denylist=["run_dir", "strategy"])
def train(
    run_dir,
    strategy=None,
    dataset=gin.REQUIRED,
    model=PiVAE,
    critic=None,
    trainer=Trainer,
    num_steps=gin.REQUIRED,
    batch_size=64,
    seed=0,
    class_conditional=False,
    flip=False,
    moving_average=False,
    log_every=50,
    sample_every=1000,
    checkpoint_every=1000,
    keep_checkpoints=3,
    initial_run=None,
    max_consecutive_skips=20,
    eval_examples=1000,
    eval_importance_samples=16,
    shown_temperature=0.8,
):
    """Trains a model in a run directory, or continues it from its last checkpoint.

    Args:
      run_dir: folder of the run.
      strategy: `tf.distribute.Strategy`; None is `default_strategy()`.
      dataset: a function that returns an `ImageDataset`.
      model: a function of `image_shape` and `num_classes` that returns a `PiVAE`.
      critic: None, or a function of `num_classes` that returns a `Critic`.
      trainer: a function of `pivae`, `critic`, `moving_average` and `seed` that returns a `Trainer`.
      num_steps: int, train steps in all.
      batch_size: int, the global batch.
      seed: int, of the initial weights, the order of the data, and all noise.
      class_conditional: condition the model on the data set's labels.
      flip: mirror training images at random.
      moving_average: keep a moving average of the generator, which then is the model that is evaluated and loaded.
      log_every, sample_every, checkpoint_every: in steps; a `sample_every` of 0 draws none.
      keep_checkpoints: number of newest checkpoints to keep.
      initial_run: folder of a run whose model (the moving average where it was kept) is where this one starts.
      max_consecutive_skips: steps in a row with a loss or gradient that is not finite that end the run.
      eval_examples: held-out images for the bits per dimension at the end; 0 evaluates none.
      eval_importance_samples: K of the tighter bound reported beside K = 1.
      shown_temperature: of the second grid in `RUN/samples.png`, which also has half of the noise of p(y|z); the first
        grid is the model itself.

    Returns:
      `Outcome`.

    Raises:
      UserError: data, configuration, disk, or `max_consecutive_skips`.
    """
    positive = dict(num_steps=num_steps, batch_size=batch_size, log_every=log_every, checkpoint_every=checkpoint_every)
    positive |= dict(keep_checkpoints=keep_checkpoints, eval_importance_samples=eval_importance_samples)
    for name, value in positive.items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a positive whole number; got {value!r}.")
    strategy = strategy or default_strategy()
    directory = RunDirectory(run_dir)
    try:
        data = _opened(dataset)
        replicas = strategy.num_replicas_in_sync
        if batch_size % replicas:
            raise UserError(f"batch_size = {batch_size} does not divide by {replicas} replicas: choose a multiple.")
        num_classes = _num_classes(data, class_conditional)
        with strategy.scope():
            session = _build(model, critic, trainer, data, num_classes, moving_average, seed)
        _check_levels(data, session.pivae)
        directory.claim(
            gin.operative_config_str(max_line_length=110),
            {
                "name": data.name,
                "image_shape": list(data.image_shape),
                "num_classes": num_classes,
                "num_bins": session.pivae.num_bins,
                "moving_average": moving_average,
                "likelihood": session.likelihood_weight > 0.0,
                "inference_only": session.inference_only,
            },
        )
        checkpoints = Checkpoints(directory.path / "checkpoints", keep_checkpoints)
        start_step = checkpoints.restore(session.state)
        if start_step is None:
            start_step = 0
            first = np.asarray(batch_indices(0, batch_size, len(data.train), seed))
            labels = data.train.labels[first] if num_classes else None
            with strategy.scope():
                if initial_run is not None:
                    restore_model(initial_run, session.pivae)
                session.initialize(data.train.images[first], labels, weights=initial_run is None)
        monitor = Monitor(directory.path, start_step, num_steps, batch_size)
        try:
            loop = _Loop(strategy, session, data, directory.path, checkpoints, monitor, max_consecutive_skips)
            step = loop.run(start_step, num_steps, batch_size, seed, flip, log_every, sample_every, checkpoint_every)
            if loop.signal is not None:
                return Outcome(step, loop.signal, None, None)
            outcome = loop.evaluate(step, eval_examples, eval_importance_samples)
            loop.draw_final_pictures(shown_temperature)
            return outcome
        finally:
            monitor.close()
    finally:
        directory.close()


def _opened(dataset):
    if not callable(dataset):
        raise UserError("train.dataset must be a function: write @bundled (say), without parentheses.")
    return dataset()


def _check_levels(data, pivae):
    if data.num_bins != pivae.num_bins:
        raise UserError(
            f"{data.name} has images of {data.num_bins} levels, but the model is one of {pivae.num_bins}: set "
            f"PiVAE.num_bins={data.num_bins}, or reduce the images as options/five_bit.gin does."
        )


def _num_classes(data, class_conditional):
    if not class_conditional:
        return 0
    if not data.num_classes:
        raise UserError(f"{data.name} has no labels: set class_conditional = False, or choose labelled data.")
    return data.num_classes


def _build(model, critic, trainer, data, num_classes, moving_average, seed):
    keras.utils.set_random_seed(seed)
    try:
        pivae = model(image_shape=data.image_shape, num_classes=num_classes)
        return trainer(
            pivae=pivae,
            critic=None if critic is None else critic(num_classes=num_classes),
            moving_average=model(image_shape=data.image_shape, num_classes=num_classes) if moving_average else None,
            seed=seed,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"the model cannot be built for images of {list(data.image_shape)}: {error}") from error


class _Loop:
    """The steps of one process between start and end."""

    def __init__(self, strategy, trainer, data, run_dir, checkpoints, monitor, max_consecutive_skips):
        self.strategy, self.trainer, self.data = strategy, trainer, data
        self.run_dir, self.checkpoints, self.monitor = run_dir, checkpoints, monitor
        self.max_consecutive_skips = max_consecutive_skips
        self.signal = None
        self._consecutive_skips = 0

    @property
    def model(self):
        """The model that is shown and evaluated."""
        return self.trainer.moving_average or self.trainer.pivae

    def run(self, start_step, num_steps, batch_size, seed, flip, log_every, sample_every, checkpoint_every):
        """Trains up to `num_steps`, or until SIGTERM or SIGINT; returns the last step."""
        batches = self._batches(batch_size, seed, flip, start_step)
        train_step = tf.function(
            lambda batch: self.strategy.run(self.trainer.train_step, args=(batch,)), autograph=False
        )
        pending, step, saved_step = [], start_step, start_step
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while step < num_steps and self.signal is None:
                pending.append(train_step(next(batches)))
                step += 1
                self.monitor.advance()
                logs = step % log_every == 0 or step == num_steps
                saves = step % checkpoint_every == 0
                if logs or saves or len(pending) >= _DRAIN_EVERY:
                    self._drain(pending, step, logs)
                if sample_every and step % sample_every == 0:
                    self._draw_samples(step)
                if saves:
                    self._save(step)
                    saved_step = step
            self._drain(pending, step, logs=False)
            if step > saved_step or not self.checkpoints.steps():
                self._save(step)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            self.monitor.say(f"stopped by {name} and saved at step {step}: run the same command again to go on.")
        return step

    def _on_signal(self, number, frame):
        self.signal = number

    def _batches(self, batch_size, seed, flip, start_step):
        def dataset(context):
            return train_batches(
                self.data.train,
                batch_size,
                seed,
                start_step,
                num_replicas=context.num_replicas_in_sync,
                flip=flip,
                with_labels=bool(self.trainer.pivae.num_classes),
            )

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def _drain(self, pending, step, logs):
        """Looks at the metrics of the steps since the last look; reports the last ones if `logs`."""
        first_step = step - len(pending) + 1
        values = {}
        for i, metrics in enumerate(pending):
            values = {k: float(self.strategy.experimental_local_results(v)[0]) for k, v in metrics.items()}
            self._judge(first_step + i, values)
        pending.clear()
        if logs:
            self.monitor.report(step, values)

    def _judge(self, step, values):
        """Counts skipped steps; ends the run when too many come in a row."""
        if not any(values.get(name) for name in ("skipped_generator", "skipped_critic")):
            self._consecutive_skips = 0
            return
        self._consecutive_skips += 1
        terms = [name for name, value in values.items() if not math.isfinite(value)]
        term = terms[0] if terms else "gradient_norm"
        self.monitor.say(f"step {step} skipped: {term} is not finite.")
        if self._consecutive_skips >= self.max_consecutive_skips:
            raise UserError(
                f"{self._consecutive_skips} steps in a row were not finite, the last at step {step} in {term}; nothing "
                "of them was saved. Lower Trainer.learning_rate or Trainer.adversarial_weight, or look at the data."
            )

    def _save(self, step):
        self.checkpoints.save(step, self.trainer.state)

    def _draw_samples(self, step):
        count, labels, columns = self._grid(36)
        picture = figures.image_grid(self.model.sample(count, labels=labels), columns, num_bins=self.model.num_bins)
        figures.save_png(picture, self.run_dir / "samples" / f"{step:06d}.png")
        self.monitor.image(step, "samples", np.asarray(picture))

    def _grid(self, about):
        """Number, labels and columns of a picture of about so many samples: whole rows, one class each."""
        num_classes = self.model.num_classes
        if not num_classes:
            return about, None, None
        count = about // num_classes * num_classes if num_classes <= about else about
        return count, *figures.class_rows(count, num_classes)

    def evaluate(self, step, examples, importance_samples):
        """Held-out bits per dimension, with its standard error over images."""
        if not examples or not self.trainer.likelihood_weight:
            return Outcome(step, None, None, None)
        test = self.data.test.take(examples)
        labels = test.labels if self.model.num_classes else None
        results = {}
        started = time.monotonic()
        for k in sorted({1, importance_samples}):
            bits = self.model.bits_per_dim(np.asarray(test.images), k, labels=labels).astype(np.float64)
            results[k] = float(bits.mean()), float(bits.std(ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else 0.0
            self.monitor.say(
                f"held-out bits/dim on {len(bits)} images, K = {k}: {results[k][0]:.4f} +- {results[k][1]:.4f} "
                "(standard error over images)"
            )
        self.monitor.write(
            step,
            {f"held_out_bits_per_dim/K={k}": value for k, (value, _) in results.items()}
            | {"evaluation_seconds": time.monotonic() - started},
        )
        return Outcome(step, None, *results[1])

    def draw_final_pictures(self, temperature):
        """Writes `RUN/samples.png` and `RUN/reconstructions.png`, and says where everything is."""
        model = self.model
        count, labels, columns = self._grid(64)
        panels = [
            (f"temperature {t:g}, {name}", figures.image_grid(images, columns, num_bins=model.num_bins))
            for t, noise, name in ((1.0, 1.0, "the model itself"), (temperature, 0.5, "half of the noise of p(y|z)"))
            for images in [model.sample(count, temperature=t, sample_noise=noise, labels=labels)]
        ]
        figures.save_png(figures.labelled(panels, "Samples"), self.run_dir / "samples.png")
        test = self.data.test.take(32)
        real = np.asarray(test.images)
        reconstructions = model.reconstruct(real, labels=test.labels if model.num_classes else None)
        picture = figures.reconstruction_grid(real, reconstructions, num_bins=model.num_bins)
        figures.save_png(
            figures.labelled([("held-out image | its reconstruction", picture)], "Reconstructions"),
            self.run_dir / "reconstructions.png",
        )
        self.monitor.say(
            f"samples:         {self.run_dir / 'samples.png'}\n"
            f"reconstructions: {self.run_dir / 'reconstructions.png'}\n"
            f"metrics:         {self.run_dir / 'metrics.jsonl'} (and tensorboard --logdir {self.run_dir})\n"
            f"model:           tf_pivae.load({str(self.run_dir)!r})"
        )
