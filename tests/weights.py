"""Weights for tests."""

import keras
import numpy as np


def randomize(layer: keras.layers.Layer, seed: int = 0, scale: float = 0.3) -> keras.layers.Layer:
    """Moves every variable of a layer away from its initial value, and returns it; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        if variable.name == "variance":
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif np.issubdtype(variable.dtype, np.floating):
            variable.assign_add(scale * rng.normal(size=variable.shape))
    return layer
