"""A q(v|x) that is refined for each image by steps along the gradient of the bound.

The uniform numbers u that v is made of stand for normal ones, u = Phi(e). What q's networks do not know about an image
moves the normal ones: e ~ N(m, I) for N(0, I), with an m of each image's own. With w the importance weight at N(0, I),

    log w' = log w(e) + log N(e; 0, I) - log N(e; m, I)

is that at N(m, I), and as true a bound on log P(x) for any m. Before the samples are drawn, m is computed in a few
steps from 0 up the gradient of log w' at the median of all noise: semi-amortised inference (Kim et al. 2018).
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_pivae.models.dequantization import TAG
from tf_pivae.noise import Noise

_LARGEST_UNIFORM = 1.0 - 2.0**-23  # Of those that a generator draws.


class MovedNoise:
    """Noise whose uniform numbers are Phi(e), e ~ N(m, I): a `Noise`.

    Args:
      noise: what normal numbers are drawn with.
      means: m, float32 [B, H, W, C].
    """

    def __init__(self, noise: Noise, means: tf.Tensor) -> None:
        self._noise = noise
        self._means = means

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [B, *shape]."""
        return self._noise.normal(tag, shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Phi(e) in [0, 1), float32 [B, H, W, C]."""
        scores = self._means + self._noise.normal(tag, shape)
        return tf.minimum(0.5 + 0.5 * tf.math.erf(scores / 2.0**0.5), _LARGEST_UNIFORM)

    def log_density_ratio(self) -> tf.Tensor:
        """log N(e; m, I) - log N(e; 0, I) of the dequantisation's numbers, [B], nats: what log w' has less."""
        drawn = self._noise.normal(TAG, self._means.shape[1:])  # e - m.
        return tf.reduce_sum(self._means * (drawn + 0.5 * self._means), [1, 2, 3])


class _MedianNoise:
    """Half for every uniform number, zero for every normal one."""

    def __init__(self, num_rows: int | tf.Tensor) -> None:
        self._num_rows = num_rows

    def normal(self, tag, shape):
        return tf.zeros([self._num_rows, *shape])

    def uniform(self, tag, shape):
        return tf.fill([self._num_rows, *shape], 0.5)


def refined_means(
    log_weight: Callable[[MovedNoise], tf.Tensor], shape: Sequence[int | tf.Tensor], num_steps: int | tf.Tensor
) -> tf.Tensor:
    """m after some steps, float32 [B, H, W, C].

    Step k = 0, 1, ... is 1 / (k + 2) of the gradient of log w' with respect to m: a whole one would lead to the best m
    where log w is linear in e, and too far where it is not. An image whose log w' is not larger after a step stays
    where it was.

    Args:
      log_weight: a function of noise that returns log w' [B], each image's of its own noise alone.
      shape: [B, H, W, C].
      num_steps: of the same for all images, an int or a scalar tensor.
    """
    noise = _MedianNoise(shape[0])

    def step(k, means):
        with tf.GradientTape() as tape:
            tape.watch(means)
            value = log_weight(MovedNoise(noise, means))
        moved = means + tape.gradient(value, means) / (tf.cast(k, tf.float32) + 2.0)
        is_better = log_weight(MovedNoise(noise, moved)) > value
        return k + 1, tf.where(is_better[:, None, None, None], moved, means)

    return tf.while_loop(lambda k, _: k < num_steps, step, (tf.constant(0), tf.zeros(shape)))[1]
