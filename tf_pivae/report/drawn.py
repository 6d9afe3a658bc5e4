"""What a model draws for the page: samples, reconstructions, walks through its latents."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tf_pivae import figures
from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.metrics import nearest_images
from tf_pivae.models.pivae import PiVAE
from tf_pivae.report import latent_walks
from tf_pivae.report.pictures import Picture, encoded, grid

NUM_SAMPLES = 36  # About as many; whole rows where each is of a class.
_RECONSTRUCTIONS = 24
_WALKS = 6
_STEPS = 8
# Samples with their neighbours, and how many each has.
_ROWS = 6
_NEIGHBOURS = 6
_MAX_COMPARED = 100_000  # Training images among which neighbours are looked for.


def samples(model: PiVAE) -> np.ndarray:
    """Those of a training's pictures `RUN/samples/STEP.png`, seed 0: uint8 [N, H, W, C]."""
    count, labels, _ = figures.sample_layout(NUM_SAMPLES, model.num_classes)
    return model.sample(count, labels=labels)


def sample_picture(model: PiVAE, samples: np.ndarray) -> bytes:
    """What `samples` gives as a PNG."""
    _, _, columns = figures.sample_layout(NUM_SAMPLES, model.num_classes)
    return encoded(figures.image_grid(samples, columns, num_bins=model.num_bins))


def neighbours(data: ImageDataset, samples: np.ndarray) -> Picture:
    """The training images nearest to the first samples; how far all are, beside held-out images, in the caption.

    Args:
      data: what the model was trained on.
      samples: its samples, uint8 [N, H, W, C].
    """
    train = data.train.take(_MAX_COMPARED).images
    held_out = np.asarray(data.test.take(len(samples)).images)
    nearest = nearest_images(np.concatenate([samples, held_out]), train, min(_NEIGHBOURS, len(train)))
    spread = np.linspace(0, len(samples) - 1, min(_ROWS, len(samples))).astype(
        int
    )  # Of many classes where there are some.
    near = figures.images_at(train, nearest[spread])
    closest = figures.images_at(train, nearest[:, 0])
    ours, real = (
        _distance(images, closest[part], data.num_bins)
        for images, part in ((samples, slice(len(samples))), (held_out, slice(len(samples), None)))
    )
    searched = f"{len(train):,} training images" if len(train) == len(data.train) else f"the first {len(train):,}"
    return Picture(
        encoded(figures.neighbour_grid(samples[spread], near, data.num_bins)),
        f"{len(spread)} samples, each with the {near.shape[1]} training images at its right that are nearest to it.",
        f"Samples, each with its nearest among {searched} in pixels. The nearest of all lies {ours:.1%} of the scale "
        f"away (root mean square, median over {len(samples)} samples); from held-out images it is {real:.1%}. "
        "Samples copied from training images would be much closer.",
    )


def _distance(images: np.ndarray, others: np.ndarray, num_bins: int) -> float:
    """The median over pairs of their root mean square difference, as a part of the scale."""
    squares = (images.astype(np.float64) - others) ** 2
    return float(np.median(np.sqrt(squares.mean(axis=(1, 2, 3)))) / (num_bins - 1))


def reconstructions(model: PiVAE, test: ImageSplit, seed: int) -> Picture:
    """Held-out images beside what the model makes of them."""
    test = test.take(_RECONSTRUCTIONS)
    real = np.asarray(test.images)
    decoded = model.reconstruct(real, seed, labels=test.labels if model.num_classes else None)
    pairs = np.stack([real, decoded], 1).reshape(-1, *real.shape[1:])
    alt = f"{len(real)} held-out images, each with its reconstruction at its right."
    return grid(pairs, 8, alt, "Held-out image | its reconstruction, four pairs per row.", model.num_bins)


def through_groups(model: PiVAE, seed: int, unused: Collection[str]) -> tuple[Picture, Picture | None]:
    """One latent group per row: those that the model uses, and the `unused` ones apart (None where there are none)."""
    label = 0 if model.num_classes else None
    names, walk = latent_walks.through_groups(model, _STEPS, seed, label)
    rows = walk.reshape(len(names), _STEPS, *walk.shape[1:])
    if len(unused) == len(names):
        unused = ()

    def picture(groups: list[int]) -> Picture:
        listed = ", ".join(names[i] for i in groups)
        alt = f"{len(groups)} rows of samples. In each, one latent group changes from left to right: {listed}."
        caption = (
            f"One latent group per row, the top of the hierarchy first ({listed}): it alone goes along a great circle "
            f"from one draw of its prior to another; the noise of the others stays.{_of_class(label)}"
        )
        return grid(np.concatenate(rows[groups]), _STEPS, alt, caption, model.num_bins)

    used = [i for i, name in enumerate(names) if name not in unused]
    others = [i for i, name in enumerate(names) if name in unused]
    return picture(used), picture(others) if others else None


def through_channels(model: PiVAE, seed: int) -> Picture:
    """The channels of the top latents that change a sample most."""
    label = 0 if model.num_classes else None
    channels, walk = latent_walks.through_top_channels(model, _WALKS, _STEPS, seed, label)
    alt = f"{len(channels)} rows of samples. In each, one channel of the top latents grows from left to right."
    caption = (
        f"One channel of the top latents per row, from −{latent_walks.TOP_RANGE:g} to {latent_walks.TOP_RANGE:g} "
        "standard deviations: those that change this sample most, "
        f"channels {', '.join(map(str, channels))}.{_of_class(label)}"
    )
    return grid(walk, _STEPS, alt, caption, model.num_bins)


def _of_class(label: int | None) -> str:
    return "" if label is None else f" Class {label}."


def between_samples(model: PiVAE, seed: int) -> Picture:
    """Samples that turn into others."""
    labels = np.arange(_WALKS) % model.num_classes if model.num_classes else None
    walk = latent_walks.between_samples(model, _WALKS, _STEPS, seed, labels)
    of_class = "" if labels is None else f" Classes {', '.join(map(str, labels))}."
    alt = f"{_WALKS} rows. In each, one sample turns into another from left to right."
    caption = f"Between two samples: all latents along great circles between two draws of the prior.{of_class}"
    return grid(walk, _STEPS, alt, caption, model.num_bins)


def between_images(model: PiVAE, test: ImageSplit, seed: int) -> Picture:
    """Held-out images that turn into others."""
    indices = pairs(test.labels if model.num_classes else None, len(test), _WALKS)
    images = np.asarray(test.images)[indices]
    labels = test.labels[indices[0::2]] if model.num_classes and test.labels is not None else None
    walk = model.interpolate(images[0::2], images[1::2], _STEPS, seed, labels).reshape(-1, *model.image_shape)
    of_class = "" if labels is None else " Both of one class."
    alt = f"{len(indices) // 2} rows. In each, one held-out image turns into another from left to right."
    caption = (
        "Between two held-out images: straight lines between their posteriors' samples; the ends are their "
        f"reconstructions.{of_class}"
    )
    return grid(walk, _STEPS, alt, caption, model.num_bins)


def pairs(labels: np.ndarray | None, count: int, num_pairs: int) -> np.ndarray:
    """Indices of the first pairs of images, both of one class where labels are given: int [2 * at most `num_pairs`].

    Where no class has two images, an image is paired with itself.
    """
    if labels is None:
        return np.arange(2 * min(num_pairs, max(count // 2, 1))) % count
    couples = [np.flatnonzero(labels == label)[:2] for label in np.unique(labels)]
    couples = [pair for pair in couples if len(pair) == 2][:num_pairs] or [np.zeros(2, np.int64)]
    return np.concatenate(couples)
