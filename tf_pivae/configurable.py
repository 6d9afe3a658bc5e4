"""gin and Keras layers together; what a network's sizes may be."""

import inspect
import math
from numbers import Real

import gin


def configurable_layer(cls):
    """`gin.configurable` for a Keras layer class.

    Keras reads the argument names of `__init__` without looking through gin's wrapper; the wrapper therefore gets the
    signature of what it wraps.
    """
    cls = gin.configurable(cls)
    cls.__init__.__signature__ = inspect.signature(cls.__init__)
    return cls


MAX_WIDTH = 1 << 12  # Channels of a layer: eight times the widest of the paper.
MAX_DEPTH = 1 << 10  # Layers, blocks, scales in a row.


def check_sizes(limit, **sizes):
    """Checks numbers that decide how much is built, before anything is.

    Args:
      limit: `MAX_WIDTH` or `MAX_DEPTH`.
      sizes: name -> a whole number, or a tuple or list of them; each from 1 to `limit`.

    Raises:
      ValueError: names the first that is none.
    """
    for name, value in sizes.items():
        numbers = value if isinstance(value, (tuple, list)) else [value]
        if not numbers or len(numbers) > MAX_DEPTH:
            raise ValueError(f"`{name}` takes 1 to {MAX_DEPTH} numbers; got {len(numbers)}.")
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= limit:
                raise ValueError(f"`{name}` = {number!r} is not possible: it takes whole numbers from 1 to {limit}.")


def check_numbers(**numbers):
    """Raises ValueError unless each of `numbers` is a finite number from 0."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= value < math.inf:
            raise ValueError(f"`{name}` = {value!r} is not possible: it takes a number from 0.")
