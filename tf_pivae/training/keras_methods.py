"""What Keras' own methods do with a `Trainer`: `fit`, `evaluate` and `predict`, in memory, without a run directory."""

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.errors import UserError
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise


def images_and_labels(data: Any) -> tuple[Any, Any]:
    """The two parts of a batch: images, (images,) or (images, labels); labels that are missing are None.

    Raises:
      ValueError: images of floats, or a third part.
    """
    images, *labels = data if isinstance(data, tuple) else [data]
    if any(part is not None for part in labels[1:]):
        raise ValueError("images have no weights here: give (images,) or (images, labels).")
    dtype = tf.as_dtype(images.dtype)
    if dtype.is_floating:
        raise ValueError(f"images must be integers, such as uint8, from 0 to the levels less one; got {dtype.name}.")
    return images, labels[0] if labels else None


class KerasMethods(keras.Model):
    """`trainer.fit(images, epochs=..., callbacks=[...])` takes the loop's steps, and knows Keras' callbacks.

    Images are uint8 [N, H, W, C]; labels are `y`. What `fit` reports are the metrics of an epoch's last step; with
    `validation_data` also `val_bits_per_dim`, that of all these images at K = 1. `trainer.optimizer` is the
    generator's, for callbacks that set a learning rate. Keras draws the order of the images, so that `fit` cannot be
    resumed exactly, and it trains all parts in every step: `tf_pivae.train` is for runs to be resumed, and for stages.
    """

    pivae: PiVAE
    moving_average: PiVAE | None
    seed: int

    def compile(
        self, jit_compile: bool = False, run_eagerly: bool = False, steps_per_execution: int | str = 1, **options: Any
    ) -> None:
        """`keras.Model.compile` with those of its arguments that have a meaning here; `fit` does without it.

        Args:
          jit_compile: whether XLA compiles the step.
          run_eagerly: without a graph, to look into a step.
          steps_per_execution: as Keras'.
          options: none of the others.

        Raises:
          ValueError: a loss, metrics or an optimiser: a trainer has its own.
        """
        if options:
            raise ValueError(
                f"`{next(iter(options))}` has no meaning here: losses and optimisers are arguments of the Trainer, and "
                "its metrics are given; leave it out."
            )
        super().compile(
            optimizer=self.generator_optimizer,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )

    def fit(self, x: Any = None, y: Any = None, **options: Any) -> keras.callbacks.History:
        """`keras.Model.fit`, without a `compile` before it; ValueError as of `PiVAE.log_prob` for arrays."""
        self._check(x, y, options)
        if isinstance(options.get("validation_data"), tuple):
            self._check(*options["validation_data"][:2])
        self._compile_once()
        return super().fit(x, y, **options)

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """`keras.Model.evaluate`: `bits_per_dim` of images at K = 1, a mean over all of them."""
        self._check(x, y, options)
        self._compile_once()
        self._begin_rows()
        return super().evaluate(x, y, **options)

    def predict(self, x: Any, **options: Any) -> Any:
        """`keras.Model.predict`: log P of each image, nats, at K = 1, as `PiVAE.log_prob` with the trainer's seed."""
        self._check(x)
        self._begin_rows()
        return super().predict(x, **options)

    def train_on_batch(self, x: Any, y: Any = None, **options: Any) -> Any:
        """`keras.Model.train_on_batch`: one step of `fit`."""
        self._check(x, y, options)
        self._compile_once()
        return super().train_on_batch(x, y, **options)

    def test_on_batch(self, x: Any, y: Any = None, **options: Any) -> Any:
        """`keras.Model.test_on_batch`: `evaluate` of one batch."""
        self._check(x, y, options)
        self._compile_once()
        self._begin_rows()
        return super().test_on_batch(x, y, **options)

    def predict_on_batch(self, x: Any) -> Any:
        """`keras.Model.predict_on_batch`: `predict` of one batch."""
        self._check(x)
        self._begin_rows()
        return super().predict_on_batch(x)

    def _check(self, x: Any, y: Any = None, options: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        """Raises ValueError for arrays that are no images of the model, labels that are not its classes, or weights."""
        for name in ("sample_weight", "class_weight"):
            if options.get(name) is not None:
                raise ValueError(f"`{name}` has no meaning here, where every image counts the same: leave it out.")
        if x is None or isinstance(x, (tuple, list, dict)):
            raise ValueError("give images: uint8 [N, H, W, C], or a data set of batches of them.")
        if isinstance(x, (np.ndarray, tf.Tensor)):
            self.pivae.check_images(x, y)
            if not len(x):
                raise ValueError("give at least one image.")

    def _begin_rows(self) -> None:
        """The next image to be scored is row 0."""
        if not hasattr(self, "_row"):
            with self.distribute_strategy.scope():
                first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                self._row = tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=first)
        self._row.assign(0)

    def save(self, *_: Any, **__: Any) -> None:
        """Not supported: a Keras file cannot hold what a configuration builds.

        Raises:
          UserError: always; says what to do.
        """
        raise UserError(
            "a Trainer cannot be saved as a Keras file: train in a run directory (tf_pivae.train), which "
            "tf_pivae.load takes, or keep the weights, trainer.save_weights('NAME.weights.h5')."
        )

    def test_step(self, data: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """`evaluate`'s step."""
        log_prob = self.predict_step(data)
        bits = log_prob / (-math.log(2.0) * self.pivae.dimensions)
        self._bits.update_state(bits)
        return {"bits_per_dim": self._bits.result()}

    def predict_step(self, data: Sequence[tf.Tensor]) -> tf.Tensor:
        """`predict`'s step: log P of the images, float32 [b], nats, at K = 1, by the model that a run would show."""
        images, labels = images_and_labels(data)
        model = self.moving_average or self.pivae
        count = tf.shape(images, tf.int64)[:1]
        context = tf.distribute.get_replica_context()
        counts = count if context.num_replicas_in_sync == 1 else context.all_gather(count, 0)
        first_row = self._row + tf.cumsum(counts, exclusive=True)[context.replica_id_in_sync_group]
        noise = RowNoise(self.seed, count[0], first_row).fold_in(0)
        log_prob = model.bound(images, noise, labels=labels if model.num_classes else None).log_prob
        with tf.control_dependencies([first_row]):
            self._row.assign_add(tf.reduce_sum(counts))
        return log_prob

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What Keras sets to zero before each evaluation."""
        return [self._bits] if hasattr(self, "_bits") else []

    def _compile_once(self) -> None:
        if not hasattr(self, "_bits"):
            self._bits = keras.metrics.Mean(name="bits_per_dim")
        if not self.compiled:
            self.compile()
