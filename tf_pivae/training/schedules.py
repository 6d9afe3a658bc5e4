"""Schedules of a learning rate: Keras' own by their names, and one that is linear in two places.

`Adam.learning_rate = @LinearSchedule()` in a gin file, with the brackets. A schedule goes by the optimiser's steps; the
critic's are its updates, `Trainer.critic_steps` of them in a step from `Trainer.adversarial_start` on.
"""

import gin
import keras
import tensorflow as tf

from tf_pivae.configurable import Count, Index, NonNegative, configurable


@configurable
class LinearSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, a constant rate, linear decay.

    rate * min(1, (step + 1) / warmup_steps) up to `decay_start`, from there to `end` at `num_steps`, then `end`.

    Args:
      num_steps: int, where the decay ends; the run's number of steps, `%num_steps`.
      rate: float, the learning rate between warm-up and decay.
      warmup_steps: int; 0 is off.
      decay_start: int, at most `num_steps`; 0 decays all the way.
    """

    def __init__(
        self,
        num_steps: Count = gin.REQUIRED,
        rate: NonNegative = 0.0002,
        warmup_steps: Index = 0,
        decay_start: Index = 0,
        end: NonNegative = 0.0,
    ) -> None:
        if decay_start > num_steps:
            raise ValueError(f"`decay_start` = {decay_start} is greater than `num_steps` = {num_steps}.")
        self.num_steps = num_steps
        self.rate = rate
        self.end = end
        self.warmup_steps = warmup_steps
        self.decay_start = decay_start

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """step: scalar of an integer type -> scalar float32."""
        step = tf.cast(step, tf.float32)
        warm = tf.minimum(1.0, (step + 1.0) / max(1, self.warmup_steps))
        left = tf.clip_by_value((self.num_steps - step) / max(1, self.num_steps - self.decay_start), 0.0, 1.0)
        return self.rate * warm + (self.end - self.rate) * (1.0 - left)

    def get_config(self) -> dict[str, float]:
        """The arguments, a dict."""
        names = ("num_steps", "rate", "warmup_steps", "decay_start", "end")
        return {name: getattr(self, name) for name in names}


for _name in (
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
):
    gin.external_configurable(getattr(keras.optimizers.schedules, _name), _name)
