"""gin and Keras layers together."""

import inspect

import gin


def configurable_layer(cls):
    """`gin.configurable` for a Keras layer class.

    Keras reads the argument names of `__init__` without looking through gin's wrapper; the wrapper therefore gets the
    signature of what it wraps.
    """
    cls = gin.configurable(cls)
    cls.__init__.__signature__ = inspect.signature(cls.__init__)
    return cls
