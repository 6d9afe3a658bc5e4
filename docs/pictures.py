"""Draws the pictures of the README with the models that come with the package: python docs/pictures.py"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_pivae import cli, figures

if TYPE_CHECKING:
    from PIL import Image

    from tf_pivae.models.pivae import PiVAE

FOLDER = Path(__file__).resolve().parent / "pictures"
_ROWS = 6
_STEPS = 6
_CELL = 64
_COLUMNS = 18


def overview(model: PiVAE, images: np.ndarray) -> Image.Image:
    """Reconstructions, samples and interpolations side by side.

    Args:
      model: `PiVAE`.
      images: held-out images, uint8 [at least 18, H, W, C].

    Returns:
      `PIL.Image`, RGB.
    """
    originals = images[: 3 * _ROWS]
    walks = model.interpolate(images[0 : 2 * _ROWS : 2], images[1 : 2 * _ROWS : 2], _STEPS)
    pairs = np.stack([originals, model.reconstruct(originals)], 1).reshape(-1, *images.shape[1:])
    panels = {
        "held-out image | its reconstruction": pairs,
        "samples": model.sample(_ROWS * _STEPS, seed=0),
        "from one held-out image to another": walks.reshape(-1, *images.shape[1:]),
    }
    return figures.labelled(
        [(caption, figures.image_grid(tiles, 6, _CELL, num_bins=model.num_bins)) for caption, tiles in panels.items()]
    )


def people(model: PiVAE) -> Image.Image:
    """Samples of the model in colour, as many as fit beside `overview`."""
    return figures.image_grid(model.sample(4 * _COLUMNS, seed=0), _COLUMNS, _CELL, num_bins=model.num_bins)


def main() -> int:
    cli.import_tensorflow_quietly()
    import tf_pivae
    from tf_pivae.data import bundled

    model = tf_pivae.load("fashion_mnist")
    FOLDER.mkdir(exist_ok=True)
    drawn = {
        "overview": overview(model, bundled(model.image_shape[0]).test.images),
        "people": people(tf_pivae.load("people")),
    }
    for name, picture in drawn.items():
        figures.save_png(picture, FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
