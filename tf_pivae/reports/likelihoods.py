"""Bits per dimension: what they are made of, and how those of other images compare."""

import dataclasses
import math

import numpy as np

from tf_pivae.data.bundled import bundled
from tf_pivae.metrics.bits_per_dim import estimate

_BATCH = 50  # Images at a time.


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """A model's one-sample bound for sets of images, bits per dimension."""

    terms: dict  # name -> float64 [N], of the held-out images; they add up to their bits per dimension
    sets: dict  # name -> float64 [N], "held-out images" first
    approximate: bool  # the bound of an inference network trained around a frozen generator


def gather(model, data, facts, count, seed=0):
    """Measures `count` images of every set, at K = 1.

    Args:
      model: a `PiVAE`.
      data: the `ImageDataset` it was trained on.
      facts: `RUN/data.json`.
      count: images of each set; fewer where a split has fewer.
      seed: int, of all noise, and of the images that are made up.

    Returns:
      `Likelihoods`.
    """
    sets, terms = {}, {}
    for name, images, labels in image_sets(data, count, seed):
        measured = _terms(model, images, labels if model.num_classes else None, seed)
        terms = terms or measured
        sets[name] = sum(measured.values())
    return Likelihoods(terms, sets, facts["inference_only"])


def image_sets(data, count, seed):
    """The images whose likelihoods are compared: (name, uint8 [N, H, W, C], int64 [N] or None).

    Images that are not the data set's own get the labels of held-out ones.
    """
    rng = np.random.default_rng(seed)
    test, train = data.test.take(count), data.train.take(count)
    held_out = np.asarray(test.images)
    yield "held-out images", held_out, test.labels
    yield "training images", np.asarray(train.images), train.labels
    pixels = held_out.reshape(len(held_out), -1, held_out.shape[-1])
    shuffled = np.stack([rng.permutation(image) for image in pixels]).reshape(held_out.shape)
    yield "held-out images, pixels shuffled", shuffled, test.labels
    others = _fashion_mnist(data, len(held_out))
    if others is not None:
        yield "Fashion-MNIST, another data set", others, None if test.labels is None else test.labels[: len(others)]
    yield "uniform noise", rng.integers(0, data.num_bins, held_out.shape, np.uint8), test.labels


def _fashion_mnist(data, count):
    """The bundled images in another data set's shape and levels; None for itself, or a size they do not come in."""
    side, _, channels = data.image_shape
    if "fashion_mnist" in data.name or side not in (16, 28, 32):
        return None
    images = np.asarray(bundled(side, (1, count)).test.images).repeat(channels, -1)
    return (images.astype(np.int64) * data.num_bins // 256).astype(np.uint8)


def _terms(model, images, labels, seed):
    """`model.bound_terms` in bits per dimension, batch by batch."""
    scale = -1.0 / (model.dimensions * math.log(2.0))
    parts = []
    for start in range(0, len(images), _BATCH):
        stop = start + _BATCH
        chosen = None if labels is None else labels[start:stop]
        parts.append(model.bound_terms(images[start:stop], seed, chosen, first_row=start))
    return {name: scale * np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}


def summary(values):
    """Text: mean and standard error over the images that have a finite number, and how many have none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "never finite"
    mean, error = estimate(finite)
    text = f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
    return text if len(finite) == len(values) else f"{text} ({len(values) - len(finite)} images are not finite)"
