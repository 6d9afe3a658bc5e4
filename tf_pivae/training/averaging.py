"""The moving average of a model's variables."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def move(
    averages: Sequence[keras.Variable],
    variables: Sequence[keras.Variable],
    decay: float,
    updates: tf.Tensor,
    skipped: tf.Tensor,
) -> None:
    """Moves averages towards variables, in the replica context: a := a + (1 - decay) (v - a).

    The average forgets the first, untrained weights: its memory grows with the run, min(decay, (1 + n) / (10 + n)).

    Args:
      averages, variables: in one order.
      updates: n, scalar, how often the variables were updated.
      skipped: scalar; above 0, nothing moves.
    """
    updates = tf.cast(updates, tf.float32)
    rate = 1.0 - tf.minimum(decay, (1.0 + updates) / (10.0 + updates))
    rate = tf.where(skipped > 0.0, 0.0, rate)  # By 0, nothing moves, not even towards NaN.
    for average, variable in zip(averages, variables, strict=True):
        change = tf.math.multiply_no_nan(variable.value - average.value, rate)
        tf.raw_ops.AssignAddVariableOp(resource=average.value.handle, value=change)  # Of this replica's copy.
