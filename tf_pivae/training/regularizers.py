"""Terms that are added to the critic's loss to keep it smooth.

A regularizer is an object that is called with (critic, real, fake, noise) -> scalar, its weight included:

    critic      a function, float32 [B, H, W, C] -> logits [B]
    real, fake  float32 [B, H, W, C] on the [-1, 1] scale, the images that the critic has just judged
    noise       `RowNoise` of B rows
"""

from collections.abc import Callable

import tensorflow as tf

from tf_pivae.configurable import NonNegative, configurable
from tf_pivae.noise import RowNoise


@configurable
class GradientPenalty:
    """weight * E (||grad D(v^)||_2 - 1)^2, v^ = e v + (1 - e) v~, one e ~ U[0, 1] per image (Gulrajani et al. 2017).

    Args:
      weight: lambda_gp, 100 in the paper (appendix A.3, A.4).
    """

    def __init__(self, weight: NonNegative = 100.0) -> None:
        self.weight = weight

    def __call__(
        self, critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor, fake: tf.Tensor, noise: RowNoise
    ) -> tf.Tensor:
        mix = noise.uniform("gradient_penalty", [])[:, None, None, None]
        gradient = _gradient(critic, mix * real + (1.0 - mix) * fake)
        # The epsilon keeps the derivative of the root finite where the gradient vanishes.
        norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), [1, 2, 3]) + 1e-12)
        return self.weight * tf.reduce_mean(tf.square(norm - 1.0))


@configurable
class R1:
    """weight / 2 * E ||grad D(v)||_2^2, on real images alone (Mescheder et al. 2018, equation 9).

    Args:
      weight: gamma, 10 there.
    """

    def __init__(self, weight: NonNegative = 10.0) -> None:
        self.weight = weight

    def __call__(
        self, critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor, fake: tf.Tensor, noise: RowNoise
    ) -> tf.Tensor:
        del fake, noise  # The signature that all regularizers share.
        return 0.5 * self.weight * tf.reduce_mean(tf.reduce_sum(tf.square(_gradient(critic, real)), [1, 2, 3]))


def _gradient(critic, v):
    """d D(v) / d v, float32 [B, H, W, C]; an image's logit depends on that image alone."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(v)
        logits = critic(v)
    return tape.gradient(logits, v)
