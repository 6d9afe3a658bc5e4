"""Layers made of layers."""

from typing import Any

import keras


class Composite(keras.layers.Layer):
    """A layer without weights of its own: its parts build themselves when they are first called."""

    def build(self, *input_shapes: Any) -> None:
        self.built = True
