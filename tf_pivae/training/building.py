"""Putting a configuration's parts together: mistakes become one line, and a model that fits no memory is refused."""

import contextlib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.errors import UserError, first_line, missing_setting, sentence
from tf_pivae.system.memory import physical_memory
from tf_pivae.training.workers import CONNECTION_ERRORS


@contextlib.contextmanager
def explained(problem: str) -> Iterator[None]:
    """Turns whatever is raised within into a `UserError` of one line, "WHAT: REASON".

    For calls whose arguments all come from the configuration. TF_PIVAE_DEBUG=1 lets the exception through.
    """
    try:
        yield
    except (UserError, *CONNECTION_ERRORS):  # `Workers.watched` deals with these.
        raise
    except Exception as error:  # A wrong type may fail anywhere below, in any way.
        if os.environ.get("TF_PIVAE_DEBUG"):
            raise
        missing = missing_setting(error)
        if missing:
            raise UserError(missing) from error
        if isinstance(error, RecursionError):
            raise UserError(f"{problem}: it refers to itself.") from error
        kind = type(error).__name__
        reason = first_line(error)  # Where an error has no text, its kind.
        if not isinstance(error, ValueError) and reason != kind:
            reason = f"{kind}: {reason}"
        raise UserError(f"{problem}: {sentence(reason)}") from error


@contextlib.contextmanager
def bounded_variables(limit: int | None = None, reason: str = "this machine's memory") -> Iterator[None]:
    """Refuses variables beyond a limit before their memory is taken.

    Args:
      limit: bytes that the variables created within may take together; default this machine's memory.
      reason: for the message, what the limit is.

    Raises:
      UserError: within, from the first variable that goes beyond it.
    """
    limit = physical_memory() if limit is None else limit
    refusal = f"the model's variables take more than {limit / 1e9:.3g} GB, {reason}: lower its widths or its depth."
    num_bytes = 0

    def create(next_creator: Callable, **arguments: Any) -> tf.Variable:
        nonlocal num_bytes
        num_bytes += _num_bytes(arguments)
        if num_bytes > limit:
            raise UserError(refusal)
        return next_creator(**arguments)

    try:
        with tf.variable_creator_scope(create):
            yield
    except UserError as error:
        if num_bytes > limit:  # Keras wraps an error within a layer's call in a long message.
            raise UserError(refusal) from error
        raise


def _num_bytes(arguments: dict) -> int:
    """Bytes of the variable that these arguments of its creator make."""
    value = arguments.get("initial_value")
    owner = inspect.getclosurevars(value).nonlocals.get("self") if inspect.isfunction(value) else None
    if isinstance(owner, keras.Variable):  # Keras' own initial value: nothing needs be made to know its shape.
        return tf.as_dtype(owner.dtype).size * math.prod(owner.shape)
    if callable(value):
        with tf.Graph().as_default():  # Shapes alone: nothing is computed.
            value = tf.convert_to_tensor(value())
            return value.dtype.size * (value.shape.num_elements() or 0)
    return np.asarray(value).nbytes


def check_batch(batch_size: int, image_shape: Sequence[int]) -> None:
    """Raises UserError for a batch that does not even fit into memory as the float32 images that it holds."""
    needed = 4 * batch_size * math.prod(image_shape)
    if needed > physical_memory():
        raise UserError(f"batch_size = {batch_size} needs {needed / 1e9:.3g} GB for the images alone: lower it.")


def num_elements(variables: Iterable) -> int:
    """How many numbers a list of variables holds, an int."""
    return sum(math.prod(variable.shape) for variable in variables)
