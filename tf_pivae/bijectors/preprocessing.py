"""From dequantised images to the real line and back (method, section 1.2)."""

import gin
import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors


@gin.configurable
def logit(a=0.05):
    """The logit preprocessing that goes with a flow (Dinh et al. 2017, section 4.1).

        forward    t = logit(a + (1 - 2a) v)                          v in [0, 1]
        log-det    sum log(1 - 2a) - log s - log(1 - s)               s = a + (1 - 2a) v
        inverse    v = (sigmoid(t) - a) / (1 - 2a)

    Args:
      a: float in (0, 0.5); keeps the logit finite at black and white.

    Returns:
      A `tfb.Bijector`.

    Raises:
      ValueError: another `a`.
    """
    if not 0.0 < a < 0.5:
        raise ValueError(f"`a` must lie in (0, 0.5); got {a}.")
    squash = tfb.Chain([tfb.Shift(tf.constant(a, tf.float32)), tfb.Scale(tf.constant(1.0 - 2.0 * a, tf.float32))])
    return tfb.Chain([tfb.Invert(tfb.Sigmoid()), squash], name="logit")


@gin.configurable
def affine():
    """The preprocessing of the variants without a flow.

    forward    t = 2v - 1                  log-det    D log 2
    inverse    v = (t + 1) / 2             log-det  - D log 2
    """
    return tfb.Chain([tfb.Shift(tf.constant(-1.0)), tfb.Scale(tf.constant(2.0))], name="affine")
