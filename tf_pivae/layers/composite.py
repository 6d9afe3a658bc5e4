"""Layers made of layers."""

from typing import Any

import keras


class Composite(keras.layers.Layer):
    """A layer without weights of its own: its parts build themselves when they are first called.

    Its inputs have the type that they are given in: Keras would make them float32.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name, autocast=False)

    def build(self, *input_shapes: Any) -> None:
        self.built = True
