"""The training images nearest to an image: they show whether a model copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tf_pivae import arguments

_BLOCK_ELEMENTS = 1 << 24  # of the images that are compared with at a time: 128 MiB in float64


def nearest_images(
    images: np.ndarray, others: np.ndarray, count: int = 1, progress: Callable[[int], object] = lambda compared: None
) -> np.ndarray:
    """Finds, for each image, the others at the smallest Euclidean distance in pixels.

    |a - b|^2 = |a|^2 - 2 a.b + |b|^2, exact in float64: whole numbers below 2^53.

    Args:
      images: uint8 [N, H, W, C].
      others: uint8 [M, H, W, C], an array, a memory map or `LookedUpImages`; read block by block.
      count: how many for each; at most M.
      progress: a function that is told after each block how many of the others were compared.

    Returns:
      int64 [N, count], indices into `others`, the nearest first; of two that are equally near, the first.

    Raises:
      ValueError: `count` below 1.
    """
    arguments.whole_numbers(1, count=count)
    queries = np.asarray(images, np.float64).reshape(len(images), -1)
    block = max(1, _BLOCK_ELEMENTS // queries.shape[1])
    indices = np.empty([len(queries), 0], np.int64)
    distances = np.empty([len(queries), 0])
    for start in range(0, len(others), block):
        part = np.asarray(others[start : start + block]).reshape(-1, queries.shape[1]).astype(np.float64)
        # Without |a|^2, which is the same for all of them.
        squared = np.sum(part * part, 1) - 2.0 * queries @ part.T
        part_indices = np.broadcast_to(np.arange(start, start + len(part)), squared.shape)
        distances = np.concatenate([distances, squared], 1)
        indices = np.concatenate([indices, part_indices], 1)
        order = np.argsort(distances, 1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, order, 1)
        indices = np.take_along_axis(indices, order, 1)
        progress(len(part))
    return indices
