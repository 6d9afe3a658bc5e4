"""The model that comes with the package: what its files say of it, and held-out images for it."""

import json

import numpy as np

from tf_pivae.data import bundled
from tf_pivae.runs.pretrained import FOLDER

RUN = "fashion_mnist"
HEIGHT, WIDTH, CHANNELS = json.loads((FOLDER / RUN / "data.json").read_text())["image_shape"]
DIMENSIONS = HEIGHT * WIDTH * CHANNELS
STEP = json.loads((FOLDER / RUN / "evaluation.json").read_text())["step"]


def held_out() -> np.ndarray:
    """The bundled test images as the model takes them: uint8 [2500, HEIGHT, WIDTH, CHANNELS]."""
    return np.asarray(bundled(HEIGHT).test.images)
