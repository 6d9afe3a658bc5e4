"""Images of fewer than 256 levels, such as the 5-bit images of Glow (Kingma & Dhariwal 2018)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import gin
import numpy as np

from tf_pivae.data import arrays
from tf_pivae.errors import UserError


@gin.configurable
def reduced_levels(dataset: Callable[[], arrays.ImageDataset] | None = None, num_bins: int = 32) -> arrays.ImageDataset:
    """Another data set with its 256 levels rounded down to `num_bins`: x -> floor(x num_bins / 256).

    Args:
      dataset: a function that returns the `ImageDataset`, such as `@bundled` or `@tfds_images` in gin.
      num_bins: 2 to 255; 32 keeps the upper five bits. The model's `PiVAE.num_bins` must be the same.

    Returns:
      An `ImageDataset` whose images are computed as they are read: a memory map stays on the disk as it is.

    Raises:
      UserError: no data set, one of fewer levels than 256 already, or another number of levels.
    """
    if not callable(dataset):
        raise UserError("reduced_levels needs a data set: add --gin_param=reduced_levels.dataset=@bundled, or another.")
    if not isinstance(num_bins, int) or not 2 <= num_bins < 256:
        raise UserError(f"reduced_levels.num_bins must be 2 to 255, got {num_bins!r}.")
    data = dataset()
    if data.num_bins != 256:
        raise UserError(f"{data.name} has {data.num_bins} levels already: leave out reduced_levels.")
    table = (np.arange(256) * num_bins // 256).astype(np.uint8)
    train, test = (
        dataclasses.replace(split, images=LookedUpImages(split.images, table)) for split in (data.train, data.test)
    )
    return arrays.ImageDataset(
        f"{data.name}-{num_bins}-levels", train, test, data.num_classes, data.class_names, num_bins=num_bins
    )


class LookedUpImages:
    """`table[images]`, computed only for the images that are read.

    Slices of images give another of these; anything else, and NumPy, get an array.

    Args:
      images: uint8 [N, H, W, C], an array or a memory map.
      table: uint8 [256].
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, images: np.ndarray, table: np.ndarray) -> None:
        self._images = images
        self._table = table
        self.base = images  # As NumPy calls what an array is a view of.
        self.shape = images.shape
        self.nbytes = images.nbytes
        self.filename = getattr(images, "filename", None)  # Where the images themselves lie, or None.

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        part = self._images[index]
        return LookedUpImages(part, self._table) if isinstance(index, slice) else self._table[part]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the images are computed when they are looked up: there is no array to share.")
        return self._table[np.asarray(self._images)].astype(dtype or self.dtype, copy=False)
