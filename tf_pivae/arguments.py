"""What people pass to the methods of a model: a wrong value is named, with what it should be."""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

SEEDS = -(1 << 63), (1 << 63) - 1  # Integers of 64 bits.
ROWS = 0, (1 << 40) - 1  # Of a stream of noise, whose counters would come round again for large images.
MOST_SAMPLES = 2**31 - 1  # Importance samples are counted in 32 bits.
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # float32's; what is larger becomes infinity.


def whole_numbers(low: int, high: int | None = None, **values: object) -> None:
    """Raises ValueError unless each of `values` is an integer, Python's or NumPy's, from `low` to `high`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"`{name}` must be a whole number; got {value!r}.")
        if int(value) < low:
            raise ValueError(f"`{name}` must be at least {low}; got {value}.")
        if high is not None and int(value) > high:
            raise ValueError(f"`{name}` must be at most {high}; got {value}.")


def unmasked(**values: object) -> None:
    """Raises ValueError where one of `values` is a NumPy array with masked elements: computing unmasks them."""
    for name, value in values.items():
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise ValueError(f"`{name}` has masked values: fill them, `{name}.filled(...)`, or leave those rows out.")


def divisible_sides(image_shape: Sequence[int], halvings: int, remedy: str) -> tuple[int, int]:
    """(H, W) after so many halvings of images of `image_shape`, (H, W, ...).

    Args:
      image_shape: of the images.
      halvings: how often both sides are halved.
      remedy: the settings that say how often, for the message.

    Raises:
      ValueError: a side is odd before it is halved; says what size would do.
    """
    height, width = image_shape[:2]
    stride = 2**halvings
    if height % stride or width % stride:
        size = tuple(-(-side // stride) * stride for side in (height, width))
        raise ValueError(
            f"images of {height}x{width} cannot be halved {halvings} times: {stride} must divide both sides. Set "
            f"pad_to = {size} of the data set, or a crop or image_size that {stride} divides, or {remedy}."
        )
    return height // stride, width // stride


def seeds(seed: object) -> None:
    """Raises ValueError unless `seed` is an integer of 64 bits."""
    whole_numbers(*SEEDS, seed=seed)


def rows(first_row: object, batch_size: object) -> None:
    """Raises ValueError unless rows can be counted from `first_row`, `batch_size` at a time."""
    whole_numbers(*ROWS, first_row=first_row)
    whole_numbers(1, batch_size=batch_size)


def scales(**values: object) -> None:
    """Raises ValueError unless each of `values` is a number from 0 that is finite in float32."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= _as_float(value) <= LARGEST_FLOAT:
            raise ValueError(f"`{name}` must be finite and at least 0; got {value!r}.")


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # Of a whole number.
        return math.inf


def paths(**values: object) -> None:
    """Raises ValueError unless each of `values` is the path of a file or folder."""
    for name, value in values.items():
        if not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"`{name}` must be a path or a name; got {value!r}.")
