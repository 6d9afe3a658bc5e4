"""From dequantised images to the real line and back."""

import math
from typing import Annotated

import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.bijectors.base import with_own_cache
from tf_pivae.configurable import configurable
from tf_pivae.values import Within

tfb = tfp.bijectors


class Logit(tfb.Bijector):
    """The logit preprocessing that goes with a flow (Dinh et al. 2017, section 4.1), element by element.

        forward    t = logit(s),  s = a + (1 - 2a) v                   v in [0, 1]
        log-det    log(1 - 2a) - log s - log(1 - s)
        inverse    v = (sigmoid(t) - a) / (1 - 2a)
        log-det    log sigmoid(t) + log sigmoid(-t) - log(1 - 2a)

    s stays away from 0 and 1, so that log s and log(1 - s) are accurate; in a graph, value and log-det share them.

    Args:
      a: float in (0, 0.5); keeps the logit finite at black and white.

    Raises:
      ValueError: another `a`.

    Examples:
      >>> t = Logit(a=0.05).forward(tf.constant([0.0, 0.5, 1.0]))
      >>> [f"{x:.3f}" for x in t]
      ['-2.944', '0.000', '2.944']
      >>> [f"{x:.3f}" for x in Logit(a=0.05).inverse(t)]
      ['0.000', '0.500', '1.000']
    """

    def __init__(self, a: float, name: str = "logit") -> None:
        if not 0.0 < a < 0.5:
            raise ValueError(f"`a` must lie in (0, 0.5); got {a}.")
        super().__init__(forward_min_event_ndims=0, parameters=dict(a=a, name=name), name=name)
        self._a = a
        self._width = 1.0 - 2.0 * a
        with_own_cache(self)

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType | None) -> dict:
        return {}

    def _logarithms(self, v):
        s = self._a + self._width * v
        return tf.math.log(s), tf.math.log(1.0 - s)

    def _forward(self, v):
        log_s, log_rest = self._logarithms(v)
        return log_s - log_rest

    def _forward_log_det_jacobian(self, v):
        log_s, log_rest = self._logarithms(v)
        return math.log(self._width) - (log_s + log_rest)

    def _inverse(self, t):
        return (tf.sigmoid(t) - self._a) / self._width

    def _inverse_log_det_jacobian(self, t):
        return tf.math.log_sigmoid(t) + tf.math.log_sigmoid(-t) - math.log(self._width)


@configurable
def logit(a: Annotated[float, Within(0, 0.5, above=True, below=True)] = 0.05) -> tfb.Bijector:
    """A `Logit` of the margin `a`.

    Examples:
      >>> t = logit(a=0.25).forward(tf.constant([0.0, 0.5, 1.0]))
      >>> [f"{x:.3f}" for x in t]
      ['-1.099', '0.000', '1.099']
    """
    return Logit(a)


@configurable
def affine() -> tfb.Bijector:
    """From [0, 1] to [-1, 1]: the preprocessing of the variants without a flow, and the scale of a critic's images.

    forward    t = 2v - 1                  log-det    D log 2
    inverse    v = (t + 1) / 2             log-det  - D log 2

    Examples:
      >>> affine().forward(tf.constant([0.0, 0.5, 1.0])).numpy().tolist()
      [-1.0, 0.0, 1.0]
    """
    return with_own_cache(tfb.Chain([tfb.Shift(tf.constant(-1.0)), tfb.Scale(tf.constant(2.0))], name="affine"))
