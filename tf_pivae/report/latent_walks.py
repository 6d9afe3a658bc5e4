"""Walks through the latent space: from one sample to another, one group or one channel at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import NormalNoise, RowNoise

NoiseByTag = dict[str, tf.Tensor]  # tag ("latents/GROUP") -> float32 [B, *shape]

TOP_RANGE = 2.0  # Standard deviations of the prior to either side.


class GivenNoise:
    """Noise that is given rather than drawn, a `NormalNoise`.

    Args:
      values: dict of tag -> float32 [B, *shape].
    """

    def __init__(self, values: Mapping[str, tf.Tensor]) -> None:
        self.values = values

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """The given noise [B, *shape]."""
        return tf.ensure_shape(self.values[tag], [None, *shape])


class RecordedNoise:
    """A `NormalNoise` that keeps what it draws, so that no one else needs to know tags and shapes."""

    def __init__(self, noise: NormalNoise) -> None:
        self._noise = noise
        self.values: NoiseByTag = {}

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        self.values[tag] = self._noise.normal(tag, shape)
        return self.values[tag]


def prior_noise(model: PiVAE, count: int, seed: int, labels: np.ndarray | None = None) -> NoiseByTag:
    """The noise of the samples 0 ... count - 1 of `model.sample`: dict of tag ("latents/GROUP") -> float32 [B, ...]."""
    recorded = RecordedNoise(RowNoise(seed, count))
    model.vae.sample_mean(recorded, labels=labels)
    return recorded.values


def decode_noise(model: PiVAE, values: Mapping[str, tf.Tensor], labels: np.ndarray | None = None) -> np.ndarray:
    """Images of given prior noise, without the noise of p(y|z): uint8 [B, H, W, C]."""
    mean = model.vae.sample_mean(GivenNoise(values), labels=labels)
    return model.to_uint8(model.to_image_space(mean)).numpy()


def great_circle(a: tf.Tensor, b: tf.Tensor, steps: int) -> tf.Tensor:
    """cos(t) a + sin(t) b, t = 0 ... pi/2: between independent standard normals every point is one again.

    Args:
      a, b: float32 [R, ...].
      steps: int, S.

    Returns:
      float32 [R S, ...], row by row.
    """
    angles = tf.reshape(tf.linspace(0.0, math.pi / 2, steps), [1, steps, *[1] * (len(a.shape) - 1)])
    points = tf.cos(angles) * a[:, None] + tf.sin(angles) * b[:, None]
    return tf.reshape(points, [-1, *a.shape[1:]])


def between_samples(model: PiVAE, rows: int, steps: int, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
    """From sample 2r to sample 2r + 1, all latents along great circles: uint8 [rows steps, H, W, C].

    `labels`, int [rows], are those of the rows.
    """
    noise = prior_noise(model, 2 * rows, seed, None if labels is None else np.repeat(labels, 2))
    walk = {tag: great_circle(value[0::2], value[1::2], steps) for tag, value in noise.items()}
    return decode_noise(model, walk, None if labels is None else np.repeat(labels, steps))


def through_groups(model: PiVAE, steps: int, seed: int = 0, label: int | None = None) -> tuple[list[str], np.ndarray]:
    """One row for each latent group: it alone goes from one noise to another; the others' noise stays as it is.

    Returns:
      the groups' names, and uint8 [G steps, H, W, C]. Each row starts at the same image.
    """
    labels = None if label is None else np.full(2, label)
    noise = prior_noise(model, 2, seed, labels)
    rows = []
    for group in noise:
        rows.append(
            {
                tag: great_circle(value[:1], value[1:], steps) if tag == group else tf.repeat(value[:1], steps, 0)
                for tag, value in noise.items()
            }
        )
    walk = {tag: tf.concat([row[tag] for row in rows], 0) for tag in noise}
    names = [tag.removeprefix("latents/") for tag in noise]
    return names, decode_noise(model, walk, None if label is None else np.full(len(names) * steps, label))


def through_top_channels(
    model: PiVAE, rows: int, steps: int, seed: int = 0, label: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The channels of the top latents that change a sample most, each from -TOP_RANGE to TOP_RANGE on its whole map.

    Returns:
      the channels' numbers, int [at most `rows`], and uint8 [R steps, H, W, C]; all other noise stays as it is.
    """
    noise = prior_noise(model, 1, seed, None if label is None else np.full(1, label))
    channels = noise["latents/top"].shape[-1]

    def images(indices: np.ndarray, values: Any) -> np.ndarray:
        """[len(indices), len(values), H, W, C]"""
        at = tf.one_hot(np.repeat(indices, len(values)), channels)
        at = tf.reshape(at, [len(at), *[1] * (len(noise["latents/top"].shape) - 2), channels])
        value = tf.reshape(tf.tile(tf.cast(values, tf.float32), [len(indices)]), [-1, *[1] * (len(at.shape) - 1)])
        walk = {tag: tf.repeat(fixed, len(at), 0) for tag, fixed in noise.items()}
        walk["latents/top"] = walk["latents/top"] * (1 - at) + value * at
        decoded = decode_noise(model, walk, None if label is None else np.full(len(at), label))
        return decoded.reshape(len(indices), len(values), *decoded.shape[1:])

    ends = images(np.arange(channels), [-TOP_RANGE, TOP_RANGE]).astype(np.float64)
    changes = np.abs(ends[:, 1] - ends[:, 0]).mean(axis=(1, 2, 3))
    strongest = np.argsort(-changes, kind="stable")[:rows]
    walked = images(strongest, np.linspace(-TOP_RANGE, TOP_RANGE, steps))
    return strongest, walked.reshape(-1, *walked.shape[2:])
