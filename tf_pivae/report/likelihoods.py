"""Bits per dimension: what they are made of, and how those of other images compare."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_pivae.data.arrays import ImageDataset
from tf_pivae.data.bundled import bundled
from tf_pivae.data.image_ops import Preprocess, preprocess_array
from tf_pivae.figures import full_scale
from tf_pivae.metrics.bits_per_dim import estimate
from tf_pivae.models.pivae import PiVAE

OTHER_DATA = ", another data set"  # The ending of the name of a set of other data.
_BATCH = 50  # Images at a time.


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """A model's one-sample bound for sets of images, bits per dimension."""

    terms: dict[str, np.ndarray]  # name -> float64 [N], of the held-out images; they add up to their bits per dimension
    sets: dict[str, np.ndarray]  # name -> float64 [N], "held-out images" first
    approximate: bool  # the bound of an inference network trained around a frozen generator


def gather(model: PiVAE, data: ImageDataset, facts: dict[str, Any], count: int, seed: int = 0,
           other: ImageDataset | None = None) -> Likelihoods:  # fmt: skip
    """Measures `count` images of every set, at K = 1.

    Args:
      model: a `PiVAE`.
      data: the `ImageDataset` it was trained on.
      facts: `RUN/data.json`.
      count: images of each set; fewer where a split has fewer.
      seed: int, of all noise, and of the images that are made up.
      other: `ImageDataset`, another one; None is Fashion-MNIST, for other data than that.
    """
    sets: dict[str, np.ndarray] = {}
    terms: dict[str, np.ndarray] = {}
    for name, images, labels in image_sets(data, count, seed, other):
        measured = _terms(model, images, labels if model.num_classes else None, seed)
        terms = terms or measured
        sets[name] = np.sum(list(measured.values()), axis=0)
    return Likelihoods(terms, sets, facts["inference_only"])


def image_sets(data: ImageDataset, count: int, seed: int,
               other: ImageDataset | None = None) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:  # fmt: skip
    """The images whose likelihoods are compared: (name, uint8 [N, H, W, C], int64 [N] or None).

    Images that are not the data set's own get the labels of held-out ones.
    """
    rng = np.random.default_rng(seed)
    test = data.test.take(count)
    train = data.train.take(count)
    held_out = np.asarray(test.images)
    yield "held-out images", held_out, test.labels
    yield "training images", np.asarray(train.images), train.labels
    pixels = held_out.reshape(len(held_out), -1, held_out.shape[-1])
    shuffled = np.stack([rng.permutation(image) for image in pixels]).reshape(held_out.shape)
    yield "held-out images, pixels shuffled", shuffled, test.labels
    if other is None and "fashion_mnist" not in data.name:
        side = data.image_shape[0]
        other = dataclasses.replace(bundled(side if side in (16, 28, 32) else 32), name="Fashion-MNIST")
    if other is not None:
        others = _in_shape_of(data, other, len(held_out))
        name = f"{other.name}{OTHER_DATA}"
        yield name, others, None if test.labels is None else test.labels[: len(others)]
    yield "uniform noise", rng.integers(0, data.num_bins, held_out.shape, np.uint8), test.labels


def _in_shape_of(data: ImageDataset, other: ImageDataset, count: int) -> np.ndarray:
    """The first held-out images of another data set in the shape and the levels of `data`: uint8 [count, H, W, C]."""
    images = full_scale(np.asarray(other.test.take(count).images), other.num_bins)
    height, width, channels = data.image_shape
    images = preprocess_array(Preprocess(image_size=(height, width), channels=channels), images)
    return (images.astype(np.int64) * data.num_bins // 256).astype(np.uint8)


def _terms(model: PiVAE, images: np.ndarray, labels: np.ndarray | None, seed: int) -> dict[str, np.ndarray]:
    """`model.bound_terms` in bits per dimension, batch by batch."""
    scale = -1.0 / (model.dimensions * math.log(2.0))
    parts = []
    for start in range(0, len(images), _BATCH):
        stop = start + _BATCH
        part_labels = None if labels is None else labels[start:stop]
        parts.append(model.bound_terms(images[start:stop], seed, part_labels, first_row=start))
    return {name: scale * np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}


def summary(values: np.ndarray) -> str:
    """Text: mean and standard error over the images that have a finite number, and how many have none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "never finite"
    mean, error = estimate(finite)
    text = f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
    return text if len(finite) == len(values) else f"{text} ({len(values) - len(finite)} images are not finite)"
