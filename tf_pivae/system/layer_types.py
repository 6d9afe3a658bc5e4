"""The type that Keras' layers compute in."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def float32_layers() -> Iterator[None]:
    """Within this context new layers are float32, whatever `keras.config.set_dtype_policy` has made the default."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
