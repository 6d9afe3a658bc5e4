"""Batch moments over all replicas, and their running averages."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tf_pivae.layers.channels import channel_sums, of_each_pixel
from tf_pivae.layers.weight_norm import initializing


def num_replicas() -> int:
    """How many replicas compute what is computed now; 1 outside of any."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_mean(x: tf.Tensor) -> tf.Tensor:
    """The mean over replicas of a tensor that each replica holds; differentiable, and `x` itself on one replica."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x) / num_replicas()


def _replica_means(*values):
    """`replica_mean` of tensors of one shape, in one exchange; as they are on one replica."""
    return values if num_replicas() == 1 else tf.unstack(replica_mean(tf.stack(values)))


def _of_all_replicas(x):
    """The tensors of all replicas, stacked [replicas, ...], in one exchange."""
    context = tf.distribute.get_replica_context()
    place = tf.one_hot(context.replica_id_in_sync_group, num_replicas(), dtype=x.dtype)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.tensordot(place, x, 0))


def _global_moments(own_mean, own_variance):
    """Mean and variance over all replicas, from those of this replica; all replicas have equally many rows."""
    if num_replicas() == 1:
        return own_mean, own_variance
    means, variances = tf.unstack(_of_all_replicas(tf.stack([own_mean, own_variance])), axis=1)
    mean = tf.reduce_mean(means, 0)
    return mean, tf.reduce_mean(variances + tf.math.squared_difference(means, mean), 0)


def _values_of_a_channel(x):
    """How many values a channel has: a number where the graph knows the batch's size, otherwise a tensor."""
    size = x.shape.num_elements()
    return tf.cast(tf.size(x) // x.shape[-1], x.dtype) if size is None else float(size // x.shape[-1])


@tf.custom_gradient
def moments(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
    """Mean and variance of each channel over the global batch of all replicas, [C] each, of x float32 [B, ..., C].

    With n the size of the global batch times that of the image, d mean / d x = 1 / n and
    d variance / d x = 2 (x - mean) / n: the gradient is one affine map of x, where automatic differentiation takes
    seven passes over the tensor. It has no derivative of its own: no loss here differentiates a batch's moments twice.
    """
    count = _values_of_a_channel(x)
    own_mean = channel_sums(x) / count
    squares = tf.math.squared_difference(x, of_each_pixel(own_mean, x))
    mean, variance = _global_moments(own_mean, channel_sums(squares) / count)

    def gradient(of_mean, of_variance):
        of_mean, of_variance = _replica_means(of_mean, of_variance)
        slope = 2.0 * of_variance / count
        of_x = x * of_each_pixel(slope, x) + of_each_pixel(of_mean / count - mean * slope, x)
        return tf.raw_ops.PreventGradient(input=of_x, message="`moments` can be differentiated once.")

    return (mean, variance), gradient


class RunningMoments(keras.layers.Layer):
    """Mean and variance of each channel: of the batch in training, running averages otherwise.

    x float32 [B, H, W, C] -> mean [C], variance [C]. In training the moments are those of the global batch over all
    replicas, gradients pass through them, and the running averages move by `update_rate` towards them (0.1, the
    reference implementation of Real-NVP); moments that are not finite leave the averages alone. During the
    data-dependent initialisation the averages are set to the batch's moments.
    """

    def __init__(self, update_rate: float = 0.1, name: str | None = None) -> None:
        super().__init__(name=name)
        self.update_rate = update_rate

    def build(self, input_shape: Sequence[int | None]) -> None:
        # No aggregation: the moments are those of all replicas, and each replica updates its own copy.
        shape = [input_shape[-1]]
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.variance = self.add_weight(shape=shape, initializer="ones", trainable=False, name="variance")

    def call(self, x: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        if not training:
            return self.averages()
        mean, variance = moments(x)
        self.update(mean, variance)
        return mean, variance

    def averages(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The running averages of mean and variance, [C] each."""
        return tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)

    def update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the running averages towards the moments of a global batch, [C] each."""
        rate = 1.0 if initializing() else self.update_rate
        finite = tf.reduce_all(tf.math.is_finite(mean + variance))
        for average, value in ((self.mean, mean), (self.variance, variance)):
            old = tf.convert_to_tensor(average)
            average.assign(tf.where(finite, old + rate * (value - old), old))


class BatchNorm(keras.layers.Layer):
    """Batch normalisation with synchronised moments; a trainable scale (from 1) and offset (from 0).

    On one replica, TensorFlow's fused operation needs one pass over the tensor instead of several, forwards and
    backwards, and less than half of the time. oneDNN has it for multiples of 8 channels; other numbers would go to
    TensorFlow's reference code, which is slower than the several passes here (35 channels: more than twice as slow).
    """

    def __init__(self, epsilon: float = 1e-4, name: str | None = None) -> None:
        super().__init__(name=name, autocast=False)
        self.epsilon = epsilon
        self.moments = RunningMoments(name="moments")

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.gamma = self.add_weight(shape=[input_shape[-1]], initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=[input_shape[-1]], initializer="zeros", name="beta")
        self._fusible = input_shape[-1] % 8 == 0

    def call(
        self, x: tf.Tensor, training: bool = False, activation: Callable[[tf.Tensor], tf.Tensor] | None = None
    ) -> tf.Tensor:
        """float32 or bfloat16 [B, H, W, C] -> the same; scale, offset and moments are float32 for either.

        Args:
          x: the images' features.
          training: bool; whether the moments are those of the batch.
          activation: None, or a function that is applied to the result; where that is float32, before it is rounded,
            since TensorFlow's activations in bfloat16 take twice as long. A rectifier gives the same either way.
        """
        if self._fusible and (not training or num_replicas() == 1):
            y = self._fused(x, training)
            return y if activation is None else activation(y)
        exact = tf.cast(x, tf.float32)
        scale, offset = self._affine(*self.moments(exact, training=training))
        y = exact * of_each_pixel(scale, x) + of_each_pixel(offset, x)
        return tf.cast(y if activation is None else activation(y), x.dtype)

    def affine(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(scale, offset), float32 [C] each: what this layer is outside training."""
        return self._affine(*self.moments.averages())

    def _affine(self, mean, variance):
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return scale, self.beta - mean * scale

    def _fused(self, x, training):
        if not self.moments.built:
            self.moments.build(x.shape)
        moments = ([], []) if training else self.moments.averages()
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=moments[0],
            variance=moments[1],
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = _values_of_a_channel(x)
            self.moments.update(mean, variance * (count - 1.0) / count)  # The operation's is the unbiased one.
        return y
