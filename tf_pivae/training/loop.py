"""The training loop: data and step in, checkpoints, metrics and pictures out."""

import contextlib
import dataclasses
import logging
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.data.arrays import ImageDataset
from tf_pivae.data.batches import batch_indices, train_batches
from tf_pivae.errors import UserError
from tf_pivae.models.pivae import PiVAE
from tf_pivae.runs.finite import describe_non_finite
from tf_pivae.runs.weights import restore_critic, restore_model
from tf_pivae.training.building import check_batch, explained
from tf_pivae.training.recipe import Recipe
from tf_pivae.training.recorder import NoRecorder, Recorder
from tf_pivae.training.stopping import Stopping
from tf_pivae.training.trainer import Trainer
from tf_pivae.training.validation import Validation
from tf_pivae.training.workers import Workers, default_strategy

_log = logging.getLogger(__name__)
_DRAIN_EVERY = 20  # Steps between looks at the metrics: each look waits for the device.


class Outcome(NamedTuple):
    """The result of a training."""

    step: int  # the last step taken
    signal: int | None  # the signal that stopped it before the end, or None
    bits_per_dim: float | None  # on held-out images; None for a model trained without likelihood, or unfinished
    standard_error: float | None


def train(
    recipe: Recipe,
    run_dir: str | Path,
    strategy: tf.distribute.Strategy | None = None,
    recorder: Callable[..., Recorder | NoRecorder] = Recorder,
) -> Outcome:
    """Trains a model in a run directory, or continues it from its last checkpoint.

    `RUN/config.gin` is what gin supplied: what Python passes to a `Recipe` is trained, but not recorded, and whatever
    reads the run builds it without.

    Args:
      recipe: what the run consists of.
      run_dir: folder of the run.
      strategy: `tf.distribute.Strategy`; None is `workers.default_strategy()`: all GPUs of this machine, or the workers
        of TF_CONFIG, each of which runs the same command. Only the chief needs `run_dir`.
      recorder: a function of `run_dir`, `keep_checkpoints` and `loggers` that returns what writes the run down:
        `Recorder`, or `tf_pivae.train.dry_run.Rehearsal`, which writes nothing and ends before the first step.

    Raises:
      UserError: data, configuration, disk, or `recipe.max_consecutive_skips`.
    """
    strategy = strategy or default_strategy()
    jit_compile = _jit_compile(strategy, recipe.jit_compile)
    with Workers(strategy) as workers:
        record = recorder(run_dir, recipe.keep_checkpoints, recipe.loggers) if workers.is_chief else NoRecorder()
        with contextlib.closing(record):
            return _train(recipe, strategy, workers, record, jit_compile)


def _train(
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    workers: Workers,
    record: Recorder | NoRecorder,
    jit_compile: bool,
) -> Outcome:
    """See `train`; the arguments are what it has made of its own."""
    with explained("the data set cannot be opened"):
        data = recipe.dataset()
    check_batch(recipe.batch_size, data.image_shape)
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise UserError(f"batch_size = {recipe.batch_size} does not divide by {replicas} replicas: choose a multiple.")
    with workers.watched(), strategy.scope():
        trainer = recipe.build(data, replicas)
        trainer.jit_compile = jit_compile
    _check_levels(data, trainer.pivae)
    with explained("train.validation"):
        likelihood = trainer.likelihood_weight > 0.0
        make = recipe.validation
        validation = None if make is None else make(test=data.test, likelihood=likelihood)
    record.claim(
        {
            "name": data.name,
            "image_shape": list(data.image_shape),
            "num_classes": trainer.pivae.num_classes,
            "class_names": list(data.class_names) if trainer.pivae.num_classes else [],
            "num_bins": trainer.pivae.num_bins,
            "moving_average": recipe.moving_average,
            "likelihood": likelihood,
            "inference_only": trainer.inference_only,
        }
    )
    if record.restore(trainer.state) is None and workers.is_chief:
        _initialize(recipe, trainer, data, strategy)
    workers.share([variable for group in trainer.state.values() for variable in group])
    start_step = int(keras.ops.convert_to_numpy(trainer.step))
    if not record.start(start_step, recipe.num_steps, recipe.batch_size):
        return Outcome(start_step, None, None, None)
    if validation is not None:
        record.expect_validation()
    with Stopping() as stopping:
        with _graphs_as_traced(strategy):
            step = _Loop(recipe, strategy, workers, trainer, data, record, stopping, validation).run(start_step)
        if step < recipe.num_steps:
            # The signal may have reached another worker.
            return Outcome(step, stopping.signal or signal.SIGTERM, None, None)
        with stopping.at_once():
            stopping.check()
            model = trainer.moving_average or trainer.pivae
            estimate = (None, None)
            if recipe.eval_examples and trainer.likelihood_weight:
                test = data.test.take(recipe.eval_examples)
                estimate = record.evaluate(step, model, test, recipe.eval_importance_samples)
            record.draw_final_pictures(model, data.test, recipe.shown_temperature)
            if estimate[0] is not None and not np.isfinite(estimate[0]):
                raise UserError(
                    f"the held-out bits/dim are {estimate[0]}: the model has diverged. Train again with a smaller "
                    "learning rate; the run keeps its last checkpoint."
                )
            return Outcome(step, None, *estimate)
    name = signal.Signals(stopping.signal).name
    record.say(f"stopped by {name} after the last step: the same command again evaluates it and draws pictures.")
    return Outcome(step, stopping.signal, None, None)


def _initialize(recipe: Recipe, trainer: Trainer, data: ImageDataset, strategy: tf.distribute.Strategy) -> None:
    """The data-dependent start of a new run, from the first batch."""
    first = np.asarray(batch_indices(0, recipe.batch_size, len(data.train), recipe.seed))
    labels = data.train.labels[first] if trainer.pivae.num_classes else None
    with strategy.scope():
        if recipe.initial_run is not None:
            step = restore_model(recipe.initial_run, trainer.pivae)
            difference = None if trainer.critic is None else restore_critic(recipe.initial_run, trainer.critic, step)
            if difference is not None:
                _log.warning(
                    "starting with a new critic, since that of %s cannot be used: %s", recipe.initial_run, difference
                )
        trainer.initialize(data.train.images[first], labels, weights=recipe.initial_run is None)


def _jit_compile(strategy: tf.distribute.Strategy, setting: bool | None) -> bool:
    """Whether XLA compiles the step: as the recipe says, or, where it says None, as suits the devices."""
    replicas = strategy.num_replicas_in_sync
    if setting and replicas > 1:
        raise UserError(f"jit_compile = True works with one replica only, but there are {replicas}: leave it unset.")
    if setting is not None:
        return setting
    return replicas == 1 and "GPU" in strategy.extended.worker_devices[0]


@contextlib.contextmanager
def _graphs_as_traced(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """On processors, a context without TensorFlow's optimiser of graphs.

    It took a third of the time to the first step, and the steps are no faster with it: docs/performance.md, Start. On
    GPUs it is needed, as it chooses the layout of convolutions.
    """
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    on_processors = "GPU" not in strategy.extended.worker_devices[0]
    tf.config.optimizer.set_experimental_options({name: before or on_processors})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


def _check_levels(data: ImageDataset, pivae: PiVAE) -> None:
    if data.num_bins != pivae.num_bins:
        raise UserError(
            f"{data.name} has images of {data.num_bins} levels, but the model is one of {pivae.num_bins}: set "
            f"PiVAE.num_bins={data.num_bins}, or reduce the images as options/five_bit.gin does."
        )


@dataclasses.dataclass
class _Loop:
    """The steps of one process between start and end."""

    recipe: Recipe
    strategy: tf.distribute.Strategy
    workers: Workers
    trainer: Trainer
    data: ImageDataset
    recorder: Recorder | NoRecorder
    stopping: Stopping
    validation: Validation | None
    consecutive_skips: int = 0

    def run(self, start_step: int) -> int:
        """Trains up to `num_steps`, or until SIGTERM, SIGINT or SIGHUP; returns the last step."""
        recipe = self.recipe
        batches = self._batches(start_step)
        train_step = tf.function(  # Traced once for each stage.
            lambda batch, stage: self.strategy.run(self.trainer.train_step, args=(batch, stage)),
            autograph=False,
            jit_compile=self.trainer.jit_compile,
        )
        pending = []
        step = start_step
        saved_step = None
        previous = None
        while step < recipe.num_steps and not self.workers.stop_requested(step, self.stopping.signal is not None):
            stage = self.trainer.stage(step)
            with self.workers.watched():
                if stage != previous:
                    self.trainer.begin(stage)
                pending.append(train_step(next(batches), stage))
            previous = stage
            step += 1
            self.recorder.advance()
            logs = step % recipe.log_every == 0 or step == recipe.num_steps
            saves = step % recipe.checkpoint_every == 0
            if logs or saves or len(pending) >= _DRAIN_EVERY:
                self._drain(pending, step, logs)
            if recipe.sample_every and step % recipe.sample_every == 0:
                self.recorder.draw_samples(step, self._averaged)
            if self.validation is not None and (step % self.validation.every == 0 or step == recipe.num_steps):
                self.recorder.validate(step, self.trainer.state, self._averaged, self.validation)
            if saves:  # Last: what comes before it is done again after a kill.
                self.recorder.save(step, self.trainer.state)
                saved_step = step
        self._drain(pending, step, logs=False)
        if step != saved_step and (step > start_step or step == 0):
            self.recorder.save(step, self.trainer.state)
        if step < recipe.num_steps:
            name = signal.Signals(self.stopping.signal or signal.SIGTERM).name
            self.recorder.say(f"stopped by {name} and saved at step {step}: run the same command again to go on.")
        return step

    @property
    def _averaged(self) -> PiVAE:
        """The model that is evaluated and loaded."""
        return self.trainer.moving_average or self.trainer.pivae

    def _batches(self, start_step: int) -> Iterator:
        def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = context.num_replicas_in_sync // context.num_input_pipelines
            return train_batches(
                self.data.train,
                self.recipe.batch_size,
                self.recipe.seed,
                start_step,
                num_replicas=context.num_replicas_in_sync,
                first_replica=context.input_pipeline_id * local,
                num_local_replicas=local,
                flip=self.recipe.flip,
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
        if logs and self.recorder.report(step, values):
            self.stopping.request()

    def _judge(self, step: int, values: dict[str, float]) -> None:
        """Counts skipped steps; ends the run when too many come in a row, or when no later one can be better."""
        if not any(values.get(name) for name in ("skipped_generator", "skipped_critic")):
            self.consecutive_skips = 0
            return
        self.consecutive_skips += 1
        terms = [name for name, value in values.items() if not math.isfinite(value)]
        term = terms[0] if terms else "gradient_norm"
        self.recorder.say(f"step {step} skipped: {term} is not finite.")
        bad = describe_non_finite(self.trainer.state)
        if bad is not None:
            raise UserError(
                f"step {step} was skipped because {bad}; it was not saved. The same command goes on from the last "
                "checkpoint; lower Trainer.learning_rate or Trainer.adversarial_weight if it happens again."
            )
        if self.consecutive_skips >= self.recipe.max_consecutive_skips:
            raise UserError(
                f"{self.consecutive_skips} steps in a row were not finite, the last at step {step} in {term}; none "
                "of them was saved. Lower Trainer.learning_rate or Trainer.adversarial_weight, or look at the data."
            )
