"""The training loop: data and step in, checkpoints, metrics and pictures out."""

import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from tf_pivae.configurable import Batch, Count, Index, NonNegative, configurable
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.data.batches import batch_indices, train_batches
from tf_pivae.errors import UserError
from tf_pivae.models.critic import Critic
from tf_pivae.models.pivae import PiVAE
from tf_pivae.runs.finite import describe_non_finite
from tf_pivae.runs.weights import restore_model
from tf_pivae.training.building import bounded_variables, check_batch, explained
from tf_pivae.training.loggers import JsonlLogger, Logger, TensorBoardLogger
from tf_pivae.training.recorder import NoRecorder, Recorder
from tf_pivae.training.stopping import Stopping
from tf_pivae.training.trainer import Trainer
from tf_pivae.training.validation import Validation
from tf_pivae.training.workers import Workers, default_strategy
from tf_pivae.values import Within

_DRAIN_EVERY = 20  # Steps between looks at the metrics: each look waits for the device.


class Outcome(NamedTuple):
    """What a training came to."""

    step: int  # the last step taken
    signal: int | None  # the signal that stopped it before the end, or None
    bits_per_dim: float | None  # on held-out images; None for a model trained without likelihood, or unfinished
    standard_error: float | None


@configurable(denylist=["run_dir", "strategy", "recorder"])
def train(
    run_dir: str | Path,
    strategy: tf.distribute.Strategy | None = None,
    recorder: Callable[..., Recorder | NoRecorder] = Recorder,
    dataset: Callable[..., ImageDataset] = gin.REQUIRED,
    model: Callable[..., PiVAE] = PiVAE,
    critic: Callable[..., Critic] | None = None,
    trainer: Callable[..., Trainer] = Trainer,
    num_steps: Count = gin.REQUIRED,
    batch_size: Batch = 64,
    seed: Index = 0,
    class_conditional: bool = False,
    flip: bool = False,
    moving_average: bool = False,
    log_every: Count = 50,
    sample_every: Index = 1000,
    checkpoint_every: Count = 1000,
    keep_checkpoints: Count = 3,
    initial_run: str | None = None,
    max_consecutive_skips: Count = 20,
    eval_examples: Index = 1000,
    eval_importance_samples: Annotated[int, Within(1, 10**6)] = 16,
    shown_temperature: NonNegative = 0.8,
    jit_compile: bool | None = None,
    validation: Callable[..., Validation] | None = None,
    loggers: tuple[Callable[..., Logger], ...] = (JsonlLogger, TensorBoardLogger),
) -> Outcome:
    """Trains a model in a run directory, or continues it from its last checkpoint.

    Args:
      run_dir: folder of the run.
      strategy: `tf.distribute.Strategy`; None is `workers.default_strategy()`: all GPUs of this machine, or the workers
        of TF_CONFIG, each of which runs the same command. Only the chief needs `run_dir`.
      recorder: a function of `run_dir`, `keep_checkpoints` and `loggers` that returns what writes the run down:
        `Recorder`, or `tf_pivae.train.dry_run.Rehearsal`, which writes nothing and ends before the first step.
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
      jit_compile: whether XLA compiles the step; None: where one GPU takes it. It pays there, not on processors, and
        replicas cannot exchange anything within a step that XLA compiles.
      validation: None, or a function of `test` and `likelihood` that returns a `Validation`: scores on the way, and the
        best checkpoint by one of them, which `load` knows as step "best".
      loggers: functions of `run_dir` and `start_step` that return the `Logger`s which get numbers and pictures.

    Returns:
      `Outcome`.

    Raises:
      UserError: data, configuration, disk, or `max_consecutive_skips`.
    """
    strategy = strategy or default_strategy()
    jit_compile = _jit_compile(strategy, jit_compile)
    workers = Workers(strategy)
    recorder = recorder(run_dir, keep_checkpoints, loggers) if workers.is_chief else NoRecorder()
    try:
        with explained("the data set cannot be opened"):
            data = dataset()
        check_batch(batch_size, data.image_shape)
        replicas = strategy.num_replicas_in_sync
        if batch_size % replicas:
            raise UserError(f"batch_size = {batch_size} does not divide by {replicas} replicas: choose a multiple.")
        num_classes = _num_classes(data, class_conditional)
        with workers.watched(), strategy.scope():
            session = _build(model, critic, trainer, data, num_classes, moving_average, seed)
            session.jit_compile = jit_compile
        with explained(f"batch_size = {batch_size}"):
            session.check_batch(batch_size // replicas)
        _check_levels(data, session.pivae)
        with explained("train.validation"):
            likelihood = session.likelihood_weight > 0.0
            scores = None if validation is None else validation(test=data.test, likelihood=likelihood)
        recorder.claim(
            {
                "name": data.name,
                "image_shape": list(data.image_shape),
                "num_classes": num_classes,
                "num_bins": session.pivae.num_bins,
                "moving_average": moving_average,
                "likelihood": likelihood,
                "inference_only": session.inference_only,
            }
        )
        if recorder.restore(session.state) is None and workers.is_chief:
            first = np.asarray(batch_indices(0, batch_size, len(data.train), seed))
            labels = data.train.labels[first] if num_classes else None
            with strategy.scope():
                if initial_run is not None:
                    restore_model(initial_run, session.pivae)
                session.initialize(data.train.images[first], labels, weights=initial_run is None)
        workers.share([variable for group in session.state.values() for variable in group])
        start_step = int(keras.ops.convert_to_numpy(session.step))
        if not recorder.start(start_step, num_steps, batch_size):
            return Outcome(start_step, None, None, None)
        with Stopping() as stopping:
            loop = _Loop(strategy, workers, session, data, recorder, max_consecutive_skips, stopping, scores)
            step = loop.run(start_step, num_steps, batch_size, seed, flip, log_every, sample_every, checkpoint_every)
            if step < num_steps:
                return Outcome(step, stopping.signal or signal.SIGTERM, None, None)  # Another worker's, if not ours.
            with stopping.at_once():
                stopping.check()
                shown, estimate = session.moving_average or session.pivae, (None, None)
                if eval_examples and session.likelihood_weight:
                    estimate = recorder.evaluate(step, shown, data.test.take(eval_examples), eval_importance_samples)
                recorder.draw_final_pictures(shown, data.test, shown_temperature)
                workers.wait()  # A worker that leaves early would take the others down.
                return Outcome(step, None, *estimate)
        name = signal.Signals(stopping.signal).name
        recorder.say(f"stopped by {name} after the last step: the same command again evaluates it and draws pictures.")
        return Outcome(step, stopping.signal, None, None)
    finally:
        recorder.close()


def _jit_compile(strategy: tf.distribute.Strategy, wanted: bool | None) -> bool:
    """Whether XLA compiles the step: what is wanted, or where that is None what is right for the devices."""
    replicas = strategy.num_replicas_in_sync
    if wanted and replicas > 1:
        raise UserError(f"jit_compile = True is for one replica, here are {replicas}: leave it unset.")
    if wanted is not None:
        return wanted
    return replicas == 1 and "GPU" in strategy.extended.worker_devices[0]


def _check_levels(data: ImageDataset, pivae: PiVAE) -> None:
    if data.num_bins != pivae.num_bins:
        raise UserError(
            f"{data.name} has images of {data.num_bins} levels, but the model is one of {pivae.num_bins}: set "
            f"PiVAE.num_bins={data.num_bins}, or reduce the images as options/five_bit.gin does."
        )


def _num_classes(data: ImageDataset, class_conditional: bool) -> int:
    if not class_conditional:
        return 0
    if not data.num_classes:
        raise UserError(f"{data.name} has no labels: set class_conditional = False, or choose labelled data.")
    return data.num_classes


def _build(
    model: Callable[..., PiVAE],
    critic: Callable[..., Critic] | None,
    trainer: Callable[..., Trainer],
    data: ImageDataset,
    num_classes: int,
    moving_average: bool,
    seed: int,
) -> Trainer:
    keras.utils.set_random_seed(seed)
    with explained(f"the model cannot be built for images of {list(data.image_shape)}"), bounded_variables():
        pivae = model(image_shape=data.image_shape, num_classes=num_classes)
        return trainer(
            pivae=pivae,
            critic=None if critic is None else critic(num_classes=num_classes),
            moving_average=model(image_shape=data.image_shape, num_classes=num_classes) if moving_average else None,
            seed=seed,
        )


class _Loop:
    """The steps of one process between start and end."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        workers: Workers,
        trainer: Trainer,
        data: ImageDataset,
        recorder: Recorder | NoRecorder,
        max_consecutive_skips: int,
        stopping: Stopping,
        validation: Validation | None = None,
    ) -> None:
        self.strategy, self.workers, self.trainer = strategy, workers, trainer
        self.data, self.recorder = data, recorder
        self.max_consecutive_skips = max_consecutive_skips
        self.stopping, self.validation = stopping, validation
        self._consecutive_skips = 0

    def run(
        self,
        start_step: int,
        num_steps: int,
        batch_size: int,
        seed: int,
        flip: bool,
        log_every: int,
        sample_every: int,
        checkpoint_every: int,
    ) -> int:
        """Trains up to `num_steps`, or until SIGTERM or SIGINT; returns the last step."""
        batches = self._batches(batch_size, seed, flip, start_step)
        train_step = tf.function(  # Traced once for each stage.
            lambda batch, adversary: self.strategy.run(self.trainer.train_step, args=(batch, adversary)),
            autograph=False,
            jit_compile=self.trainer.jit_compile,
        )
        pending, step, saved_step = [], start_step, None
        while step < num_steps and not self.workers.stop_requested(step, self.stopping.signal is not None):
            with self.workers.watched():
                pending.append(train_step(next(batches), self.trainer.has_adversary(step)))
            step += 1
            self.recorder.advance()
            logs = step % log_every == 0 or step == num_steps
            saves = step % checkpoint_every == 0
            if logs or saves or len(pending) >= _DRAIN_EVERY:
                self._drain(pending, step, logs)
            if sample_every and step % sample_every == 0:
                self.recorder.draw_samples(step, self._shown)
            if self.validation is not None and (step % self.validation.every == 0 or step == num_steps):
                self.recorder.validate(step, self.trainer.state, self._shown, self.validation)
            if saves:  # After all else of this step: what is not saved is done again.
                self.recorder.save(step, self.trainer.state)
                saved_step = step
        self._drain(pending, step, logs=False)
        if step != saved_step and (step > start_step or step == 0):
            self.recorder.save(step, self.trainer.state)
        if step < num_steps:
            name = signal.Signals(self.stopping.signal or signal.SIGTERM).name
            self.recorder.say(f"stopped by {name} and saved at step {step}: run the same command again to go on.")
        return step

    @property
    def _shown(self) -> PiVAE:
        """The model that is evaluated and loaded."""
        return self.trainer.moving_average or self.trainer.pivae

    def _batches(self, batch_size: int, seed: int, flip: bool, start_step: int) -> Iterator:
        def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = context.num_replicas_in_sync // context.num_input_pipelines
            return train_batches(
                self.data.train,
                batch_size,
                seed,
                start_step,
                num_replicas=context.num_replicas_in_sync,
                first_replica=context.input_pipeline_id * local,
                num_local_replicas=local,
                flip=flip,
                with_labels=bool(self.trainer.pivae.num_classes),
            )

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def _drain(self, pending: list[dict], step: int, logs: bool) -> None:
        """Looks at the metrics of the steps since the last look; reports the last ones if `logs`."""
        first_step = step - len(pending) + 1
        values = {}
        with self.workers.watched():
            for i, metrics in enumerate(pending):
                values = {k: float(self.strategy.experimental_local_results(v)[0]) for k, v in metrics.items()}
                self._judge(first_step + i, values)
        pending.clear()
        if logs:
            self.recorder.report(step, values)

    def _judge(self, step: int, values: dict[str, float]) -> None:
        """Counts skipped steps; ends the run when too many come in a row, or when no later one can be better."""
        if not any(values.get(name) for name in ("skipped_generator", "skipped_critic")):
            self._consecutive_skips = 0
            return
        self._consecutive_skips += 1
        terms = [name for name, value in values.items() if not math.isfinite(value)]
        term = terms[0] if terms else "gradient_norm"
        self.recorder.say(f"step {step} skipped: {term} is not finite.")
        bad = describe_non_finite(self.trainer.state)
        if bad is not None:
            raise UserError(
                f"step {step} was skipped because {bad}; it was not saved. The same command goes on from the last "
                "checkpoint; lower Trainer.learning_rate or Trainer.adversarial_weight if it comes to this again."
            )
        if self._consecutive_skips >= self.max_consecutive_skips:
            raise UserError(
                f"{self._consecutive_skips} steps in a row were not finite, the last at step {step} in {term}; nothing "
                "of them was saved. Lower Trainer.learning_rate or Trainer.adversarial_weight, or look at the data."
            )
