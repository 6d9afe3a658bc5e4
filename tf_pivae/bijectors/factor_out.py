"""Leaving half of the channels behind (Dinh et al. 2017, section 3.6)."""

import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.bijectors.base import ImageBijector

tfb = tfp.bijectors


class FactorOut(ImageBijector):
    """Applies a bijector to the first half of the channels; the second half stays as it is.

        forward    y = [g(x_1), x_2]             log-det    log|det dg/dx_1|
        inverse    x = [g^-1(y_1), y_2]          log-det    log|det dg^-1/dy_1|

    Args:
      inner: a `tfb.Bijector` on [H, W, C / 2].

    Examples:
      >>> x = tf.ones([1, 1, 1, 4])
      >>> half = FactorOut(tfb.Scale(tf.constant(2.0)))
      >>> half.forward(x).numpy().tolist()
      [[[[2.0, 2.0, 1.0, 1.0]]]]
      >>> round(float(half.forward_log_det_jacobian(x, event_ndims=3)), 4)  # 2 log 2
      1.3863
    """

    def __init__(self, inner: tfb.Bijector, name: str = "factor_out") -> None:
        super().__init__(name=name, parameters=dict(inner=inner, name=name))
        self._inner = inner

    def _forward_pair(self, x):
        first, left = tf.split(x, 2, axis=-1)
        log_det = self._inner.forward_log_det_jacobian(first, event_ndims=3)
        return tf.concat([self._inner.forward(first), left], -1), log_det

    def _inverse_pair(self, y):
        first, left = tf.split(y, 2, axis=-1)
        log_det = self._inner.inverse_log_det_jacobian(first, event_ndims=3)
        return tf.concat([self._inner.inverse(first), left], -1), log_det
