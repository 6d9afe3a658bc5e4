"""Gradient accumulation: a batch that is too large for the memory, computed a part at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pivae.configurable import Depth, configurable
from tf_pivae.layers.moments import replica_mean
from tf_pivae.noise import RowNoise
from tf_pivae.training.gradients import Gradients, add, pulled
from tf_pivae.training.trainer import Samples, Stage, Trainer


@configurable
class AccumulatingTrainer(Trainer):
    """A `Trainer` that computes each step in equal parts of the batch, one after the other.

    The step is the same: the same images, noise and samples, the same losses, gradients and updates, up to the rounding
    of a sum in another order. Memory for activations falls to that of one part. That holds because every loss is a mean
    over images, apart from two that couple them:

    - Batch normalisation in the head. The head is therefore computed for the whole batch, with its moments and their
      gradients; only what follows it is computed in parts. So the head's activations take the memory of the whole
      batch. Actnorm (`options/actnorm.gin`) avoids that, and rematerialisation (`options/rematerialization.gin`) keeps
      only one coupling's. (Moments of each part would be another model, those of an earlier step another gradient.)
    - Free bits, a floor under a channel's KL averaged over the batch. A first pass computes the averages.

    A `critic_loss`, `regularizer` or `augment` of your own must be means over images, too. The price: samples are drawn
    once more for the generator's update, and free bits cost another forward pass.

    Args:
      num_parts: into which a replica's share of the batch is divided.
    """

    def __init__(self, *args: Any, num_parts: Depth = 4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_parts = num_parts

    def check_batch(self, rows: int | None) -> None:
        if rows is None:
            raise ValueError(
                "gradients are accumulated over batches of one size: give Keras' `fit` a number of images that "
                "batch_size divides, or a data set of .batch(SIZE, drop_remainder=True)."
            )
        if rows % self.num_parts:
            raise ValueError(
                f"{rows} images on a replica cannot be computed in {self.num_parts} equal parts: choose another "
                "batch_size or AccumulatingTrainer.num_parts."
            )

    def _likelihood_gradients(
        self,
        images: tf.Tensor,
        labels: tf.Tensor | None,
        noise: RowNoise,
        variables: list[keras.Variable],
        stage: Stage,
    ) -> tuple[Gradients, dict[str, tf.Tensor]]:
        noise = noise.fold_in("likelihood")
        training = self._moves_moments(stage)
        coupled = training and self.pivae.flow is not None and self.pivae.flow.couples_images
        with tf.GradientTape() as head_tape:
            rows = self.pivae.features(images, noise, training=True) if coupled else images

        def bound(noise, rows, labels):
            features = rows if coupled else self.pivae.features(rows, noise, training)
            return self.pivae.bound_of_features(features, noise, labels)

        kl = self._mean_kl(bound, noise, rows, labels) if self._free_nats(stage) > 0.0 else None

        def part(noise, rows, labels):
            inputs = list(rows) if coupled else []
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                terms = bound(noise, rows, labels)
                loss = self._coverage_loss(terms, stage, replica_mean if kl is None else _in_place_of_the_mean(kl))
            gradients = pulled(tape, loss, [*variables, *inputs])
            return (gradients[: len(variables)], self._bound_metrics(terms)), gradients[len(variables) :]

        (gradients, metrics), upstream = over_parts(part, self.num_parts, noise, (rows, labels))
        if coupled:
            upstream = [x / self.num_parts for x in upstream]  # Of the mean over parts.
            gradients = add(gradients, pulled(head_tape, list(rows), variables, upstream))
        return gradients, metrics

    def _mean_kl(self, bound, noise, rows, labels):
        """Every channel's KL averaged over the global batch: a list of [C], one for each group."""

        def part(noise, rows, labels):
            return [tf.reduce_mean(group, 0) for group in bound(noise, rows, labels).kl], []

        return [replica_mean(mean) for mean in over_parts(part, self.num_parts, noise, (rows, labels))[0]]

    def _critic_gradients(
        self, images: tf.Tensor, labels: tf.Tensor | None, noise: RowNoise, draw: str
    ) -> tuple[Gradients, dict[str, tf.Tensor], None]:
        def part(noise, images, labels):
            critic_noise = noise.fold_in(draw)
            fake = self._samples(critic_noise, labels).images
            return self._judge(images, fake, labels, noise, critic_noise), []

        return *over_parts(part, self.num_parts, noise, (images, labels))[0], None  # Samples are drawn once more.

    def _quality_gradients(
        self, samples: Samples | None, labels: tf.Tensor | None, noise: RowNoise
    ) -> tuple[Gradients, dict[str, tf.Tensor]]:
        def part(noise, labels):
            return super(AccumulatingTrainer, self)._quality_gradients(self._samples(noise, labels), labels, noise), []

        return over_parts(part, self.num_parts, noise, (labels,))[0]


def over_parts(function: Callable, num_parts: int, noise: RowNoise, per_row: Sequence) -> tuple:
    """Calls a function with one part of the rows after the other, and keeps only what it returns.

    Args:
      function: a function (noise, *per_row) -> (means, rows), nests of float32 tensors: means over the rows of a part,
        of any shape, or None; and [rows of a part, ...].
      num_parts: int.
      noise: `RowNoise` of all rows.
      per_row: tuple of nests of tensors [B, ...], or None.

    Returns:
      The nests of the means over all rows, and of [B, ...].
    """
    count = noise.num_rows // num_parts

    def cut(x):
        return None if x is None else tf.reshape(x, [num_parts, count, *x.shape[1:]])

    per_row = tf.nest.map_structure(cut, per_row)

    def part(i):
        own = tf.nest.map_structure(lambda x: None if x is None else x[i], per_row)
        means, rows = function(noise.part(i * count, count), *own)
        nests[:] = [means]
        return [tf.convert_to_tensor(x) / num_parts for x in tf.nest.flatten(means) if x is not None], rows

    def body(i, total, arrays):
        means, rows = part(i)
        total = [a + b for a, b in zip(total, means, strict=True)]
        return i + 1, total, tf.nest.map_structure(lambda array, x: array.write(i, x), arrays, rows)

    nests: list = []  # The nest that the means are leaves of.
    # The first part on its own says what there is to add up.
    total, rows = part(0)
    arrays = tf.nest.map_structure(
        lambda x: tf.TensorArray(x.dtype, num_parts, element_shape=x.shape).write(0, x), rows
    )
    state = tf.constant(1), total, arrays
    _, total, arrays = tf.while_loop(
        lambda i, *_: i < num_parts, body, state, parallel_iterations=1, maximum_iterations=num_parts - 1
    )
    remaining = iter(total)
    leaves = [None if x is None else next(remaining) for x in tf.nest.flatten(nests[0])]
    return tf.nest.pack_sequence_as(nests[0], leaves), tf.nest.map_structure(lambda array: array.concat(), arrays)


def _in_place_of_the_mean(means):
    """A function of each part's means in turn: it returns the whole batch's value with the part's gradient."""
    remaining = iter(means)

    def replace(x):
        return x + tf.stop_gradient(next(remaining) - x)

    return replace
