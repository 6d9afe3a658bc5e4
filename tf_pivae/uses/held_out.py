"""Images that a model was not trained on, for others to be compared with."""

import dataclasses
from pathlib import Path
from typing import Any

from tf_pivae.data import ImageDataset, bundled
from tf_pivae.errors import UserError


def training_dataset(run_dir: str | Path | None, facts: dict[str, Any]) -> ImageDataset:
    """What a model was trained on.

    A model of Fashion-MNIST gets the part of it that comes with the package where the whole is not at hand.

    Args:
      run_dir: folder of the run; None for a model without one.
      facts: `RUN/data.json`.

    Raises:
      UserError: it is not on this machine, or not prepared.
    """
    from tf_pivae.loading import load_dataset

    try:
        if run_dir is None:
            raise UserError("an export holds no held-out images.")
        return load_dataset(run_dir)
    except UserError:
        name, shape, levels = (facts[key] for key in ("name", "image_shape", "num_bins"))
        if "fashion_mnist" in str(name) and list(shape) in ([28, 28, 1], [32, 32, 1]) and levels == 256:
            return dataclasses.replace(bundled(shape[0]), name=str(name))
        raise
