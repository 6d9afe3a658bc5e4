"""The weight of the adversarial loss that follows the two losses' gradients at the decoder's output."""

import math

import keras
import tensorflow as tf

from tf_pivae.configurable import Decay, NonNegative, configurable
from tf_pivae.layers.moments import replica_mean


@configurable
class GradientBalance:
    """lambda_adv = clip(share * ||d L_C / d mu|| / ||d L_Q / d mu||), the norms those of the global batch.

    mu is the mean of p(y|z), for L_C that of reconstructions, for L_Q that of samples. The gradients of both losses
    enter the decoder there (as in VQGAN, Esser et al. 2021, which takes the last layer). `share` is
    `Trainer.adversarial_weight`, 1 for gradients of equal norm.

    As sigma falls, L_C's gradient grows, and that of a collapsed critic is almost 0: the weight would grow without
    limit if it had no bounds. The ratio is averaged geometrically, over 1 / (1 - decay) steps.

    Args:
      low, high: floats, the bounds of the weight.
      decay: float, the average's memory; 0 takes each step's own ratio.
    """

    def __init__(self, low: NonNegative = 0.0, high: NonNegative = 1000.0, decay: Decay = 0.99) -> None:
        if low > high:
            raise ValueError(f"`low` = {low} is above `high` = {high}.")
        self.low = low
        self.high = high
        self.decay = decay
        self._log_ratio = _variable("log_ratio", "float32")
        self._count = _variable("count", "int64")

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that a later step depends on."""
        return [self._log_ratio, self._count]

    def log_ratio(self, likelihood_slope: tf.Tensor, quality_slope: tf.Tensor) -> tf.Tensor:
        """The averaged logarithm of the ratio with this step counted; `update` keeps it.

        Args:
          likelihood_slope, quality_slope: scalars, this replica's mean over images of ||d loss / d mu||^2, nats^2.
        """
        squared = replica_mean(tf.stack([likelihood_slope, quality_slope]))
        logs = 0.5 * tf.math.log(squared + 1e-20)
        before = tf.convert_to_tensor(self._log_ratio)
        # The first steps are averaged evenly, so that the initial value has no influence.
        rate = tf.maximum(1.0 - self.decay, 1.0 / tf.cast(self._count + 1, tf.float32))
        return before + rate * (logs[0] - logs[1] - before)

    def weight(self, share: float, log_ratio: tf.Tensor) -> tf.Tensor:
        """lambda_adv, a scalar."""
        return tf.clip_by_value(share * tf.exp(tf.minimum(log_ratio, math.log(1e30))), self.low, self.high)

    def update(self, log_ratio: tf.Tensor, skipped: tf.Tensor) -> None:
        """Keeps the average, unless the step was skipped (1.0) or the ratio is not finite."""
        good = tf.logical_and(skipped == 0.0, tf.math.is_finite(log_ratio))
        self._log_ratio.assign(tf.where(good, log_ratio, self._log_ratio))
        self._count.assign_add(tf.cast(good, tf.int64))


def _variable(name, dtype):
    """A scalar that every replica holds and sets to the same value."""
    return keras.Variable(
        tf.zeros([], dtype), dtype=dtype, trainable=False, aggregation="only_first_replica", name=f"balance_{name}"
    )


def slope_at_mean(gradient: tf.Tensor) -> tf.Tensor:
    """The mean over images of ||d loss_i / d mu_i||^2, a scalar.

    Args:
      gradient: float32 [B, H, W, C], of the mean of the images' losses.
    """
    rows = tf.cast(tf.shape(gradient)[0], tf.float32)
    return rows * tf.reduce_sum(tf.square(gradient))
