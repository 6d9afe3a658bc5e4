"""Initial values of weights that follow from a run's seed, whatever else the process does.

Keras' initialisers take their seeds from Python's global generator, which every thread can use: a logger in the
background that calls `random` would change the weights that a training starts with.
"""

import contextlib
import contextvars
import random
from collections.abc import Iterator

import keras

_seeds: contextvars.ContextVar[random.Random | None] = contextvars.ContextVar("seeds", default=None)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context `initializer` takes its seeds from a generator of its own.

    They are those that Keras' initialisers would take after `keras.utils.set_random_seed(seed)`.
    """
    token = _seeds.set(random.Random(seed))
    try:
        yield
    finally:
        _seeds.reset(token)


def initializer(name: str) -> keras.initializers.Initializer:
    """Keras' initialiser of this name; a random one has the next seed of `seeded`, outside of it one of Keras' own."""
    generator = _seeds.get()
    default = keras.initializers.get(name)
    if generator is None or not hasattr(default, "seed"):
        return default
    return type(default)(seed=generator.randint(1, 10**9))


class Dense(keras.layers.Dense):
    """`keras.layers.Dense` whose initial kernel follows from `seeded`."""

    def __init__(self, units: int, use_bias: bool = True, name: str | None = None) -> None:
        super().__init__(units, use_bias=use_bias, kernel_initializer=initializer("glorot_uniform"), name=name)
