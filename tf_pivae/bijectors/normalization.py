"""Invertible normalisation of the channels (Dinh et al. 2017, section 3.7; actnorm: Kingma & Dhariwal 2018)."""

from collections.abc import Callable

import tensorflow as tf

from tf_pivae.bijectors.base import ImageBijector
from tf_pivae.layers.channels import of_each_pixel


class ChannelNormalization(ImageBijector):
    """Brings each channel to mean 0 and standard deviation 1.

        forward    y = (x - m) / sqrt(v + epsilon)          log-det  - H W sum_c log(v_c + epsilon) / 2
        inverse    x = m + y sqrt(v + epsilon)              log-det    H W sum_c log(v_c + epsilon) / 2

    Args:
      forward_moments: a function of x, float32 [B, H, W, C], that returns m and v, [C] each. Batch normalisation gives
        the moments of the batch in training, and gradients pass through them.
      inverse_moments: a function without arguments that returns m and v: the running averages, as samples should not
        depend on the other samples of their batch.
      epsilon: float, added to the variance.

    Examples:
      >>> moments = tf.constant([1.0]), tf.constant([4.0])
      >>> norm = ChannelNormalization(lambda x: moments, lambda: moments, epsilon=0.0)
      >>> x = tf.constant([[[[1.0], [5.0]]]])
      >>> norm.forward(x).numpy().tolist()
      [[[[0.0], [2.0]]]]
      >>> round(float(norm.forward_log_det_jacobian(x, event_ndims=3)[0]), 4)  # - 2 log 2
      -1.3863
    """

    def __init__(
        self,
        forward_moments: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        inverse_moments: Callable[[], tuple[tf.Tensor, tf.Tensor]],
        epsilon: float = 1e-4,
        name: str = "channel_normalization",
    ) -> None:
        parameters = dict(forward_moments=forward_moments, inverse_moments=inverse_moments, epsilon=epsilon, name=name)
        super().__init__(name=name, parameters=parameters)
        self._forward_moments = forward_moments
        self._inverse_moments = inverse_moments
        self._epsilon = epsilon

    def _log_det(self, x, variance):
        log_det = 0.5 * tf.reduce_sum(tf.math.log(variance + self._epsilon)) * (x.shape[1] * x.shape[2])
        return tf.fill([tf.shape(x)[0]], log_det)

    def _forward_pair(self, x):
        mean, variance = self._forward_moments(x)
        scale = tf.math.rsqrt(variance + self._epsilon)
        return (x - of_each_pixel(mean, x)) * of_each_pixel(scale, x), -self._log_det(x, variance)

    def _inverse_pair(self, y):
        mean, variance = self._inverse_moments()
        scale = tf.sqrt(variance + self._epsilon)
        return of_each_pixel(mean, y) + y * of_each_pixel(scale, y), self._log_det(y, variance)


class ChannelAffine(ImageBijector):
    """Actnorm: a trainable shift and log-scale for each channel.

        forward    y = exp(s) (x + b)             log-det    H W sum_c s_c
        inverse    x = exp(-s) y - b              log-det  - H W sum_c s_c

    Args:
      shift, log_scale: float32 [C].

    Examples:
      >>> x = tf.zeros([1, 2, 3, 1])
      >>> norm = ChannelAffine(shift=tf.constant([1.0]), log_scale=tf.constant([0.5]))
      >>> [f"{y:.3f}" for y in norm.forward(x)[0, 0, :, 0]]
      ['1.649', '1.649', '1.649']
      >>> float(norm.forward_log_det_jacobian(x, event_ndims=3)[0])
      3.0
    """

    def __init__(self, shift: tf.Tensor, log_scale: tf.Tensor, name: str = "channel_affine") -> None:
        super().__init__(name=name, parameters=dict(shift=shift, log_scale=log_scale, name=name))
        self._shift = shift
        self._log_scale = log_scale

    def _log_det(self, x):
        return tf.fill([tf.shape(x)[0]], tf.reduce_sum(self._log_scale) * (x.shape[1] * x.shape[2]))

    def _forward_pair(self, x):
        return (x + of_each_pixel(self._shift, x)) * of_each_pixel(tf.exp(self._log_scale), x), self._log_det(x)

    def _inverse_pair(self, y):
        return y * of_each_pixel(tf.exp(-self._log_scale), y) - of_each_pixel(self._shift, y), -self._log_det(y)
