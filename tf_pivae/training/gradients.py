"""Gradients as lists beside their variables: None where a loss does not depend on a variable."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

Gradients = list[tf.Tensor | None]


def pulled(
    tape: tf.GradientTape, target: object, variables: Sequence[keras.Variable], upstream: object = None
) -> Gradients:
    """The gradients of what a tape has recorded, as dense tensors: rows gathered by label come as `IndexedSlices`.

    Args:
      tape: which has recorded it.
      target: a tensor, or a list of them.
      variables: Keras variables or tensors.
      upstream: gradients with respect to `target`; None is 1 for a scalar.
    """
    gradients = tape.gradient(target, variables, output_gradients=upstream)
    return [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]


def add(one: Gradients, other: Gradients) -> Gradients:
    """The sum, variable by variable."""
    return [a if b is None else b if a is None else a + b for a, b in zip(one, other, strict=True)]


def scaled(weight: float | tf.Tensor, gradients: Gradients) -> Gradients:
    """`weight` times each."""
    return [None if gradient is None else weight * gradient for gradient in gradients]


def among(variables: Sequence[keras.Variable], members: Sequence[keras.Variable]) -> list[bool]:
    """A mask beside the variables: True for those that are `members`."""
    return [any(variable is member for member in members) for variable in variables]


def spread(gradients: Gradients, mask: Sequence[bool]) -> Gradients:
    """The gradients of the variables where `mask` is True as those of all of them: None for the others."""
    remaining = iter(gradients)
    return [next(remaining) if selected else None for selected in mask]


def averaged(gradients: Gradients, variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """The mean over replicas; zeros for a variable without a gradient."""
    full = [tf.zeros_like(v) if g is None else g for g, v in zip(gradients, variables, strict=True)]
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return full
    return [g / context.num_replicas_in_sync for g in context.all_reduce(tf.distribute.ReduceOp.SUM, full)]


def every(interval: int, step: tf.Tensor, loss: Callable[[], tf.Tensor], variables: Sequence[keras.Variable]) -> tuple:
    """A loss that is computed only in every `interval`-th step, with `interval` times its weight.

    Args:
      interval: in steps.
      step: the number of the step being taken, a scalar integer tensor.
      loss: a function without arguments that returns a scalar.
      variables: whose gradients are taken.

    Returns:
      `interval` times the loss and its gradients in every `interval`-th step, zeros in the others.
    """

    def compute():
        with tf.GradientTape() as tape:
            value = interval * loss()
        pairs = zip(pulled(tape, value, variables), zeros, strict=True)
        return value, [zero if gradient is None else gradient for gradient, zero in pairs]

    def not_due():
        return tf.zeros([]), zeros

    zeros = [tf.zeros(variable.shape) for variable in variables]
    return tf.cond(step % interval == 0, compute, not_due)
