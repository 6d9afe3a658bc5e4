"""A model's public methods: NumPy arrays in and out, checked, in batches, over replicas or threads."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_pivae import arguments
from tf_pivae.models.latent_methods import LatentMethods, without_nan
from tf_pivae.noise import RowNoise, SeededRowNoise, seed_tensor
from tf_pivae.system.rows import RowFunction, check_eager


class MassOutside(NamedTuple):
    """Where samples of the continuous v lie, relative to the unit cube."""

    samples_inside: float  # share of samples wholly inside [0, 1)^D
    pixels_below: float  # share of pixels below 0
    pixels_above: float  # share of pixels at or above 1


class ImageMethods(LatentMethods):
    """The methods of a `PiVAE` that take and return NumPy arrays; those that use its latents are `LatentMethods`.

    Attributes:
      image_shape: (H, W, C).
      num_bins: number of levels of a pixel.
      num_classes: of a class-conditional model, whose methods want `labels`; 0 for any other.
      dimensions: H W C.
    """

    num_bins: int
    dimensions: int

    if TYPE_CHECKING:  # What `PiVAE` brings.
        bound: Any
        importance_weighted_bound: Any
        refined_bound: Any
        refined_means: Any
        sample_continuous: Any

    def _compile_rows(self) -> None:
        super()._compile_rows()
        self._bound_rows = RowFunction(self._bound_batch)
        self._log_prob_rows = RowFunction(self._log_prob_batch)
        self._weight_rows = RowFunction(self._weight_batch)
        self._terms_rows = RowFunction(self._terms_batch)
        self._means_rows = RowFunction(self._means_batch)
        self._sample_rows = RowFunction(self._sample_batch)
        self._outside_rows = RowFunction(self._outside_batch)

    def log_prob(
        self,
        images: np.ndarray,
        num_importance_samples: int = 1,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
        refinement: np.ndarray | None = None,
    ) -> np.ndarray:
        """A lower bound on log P(x) of discrete images; tighter for more importance samples.

        Args:
          images: uint8 (or any integers in [0, num_bins)) [B, H, W, C].
          num_importance_samples: K >= 1, samples of (u, z) for each image.
          seed: int. Image i's noise is a function of (seed, first_row + i), whatever the batch and the replica.
          labels: int [B] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.
          first_row: int below 2^40, the place of the first image in a larger set.
          refinement: what `refine` returns of these images, for a tighter bound; or None.

        Returns:
          NumPy float32 [B], nats.

        Raises:
          ValueError: images of another shape, dtype or range; labels missing or out of range; a number out of range.
        """
        images, labels = self._checked(images, labels)
        arguments.whole_numbers(1, arguments.MOST_SAMPLES, num_importance_samples=num_importance_samples)
        arguments.rows(first_row, batch_size)
        rows = len(images), first_row, batch_size, (images, labels, self._checked_refinement(refinement, images))
        if num_importance_samples == 1:
            return self._bound_rows(*rows, (seed_tensor(seed),))
        return self._log_prob_rows(*rows, (tf.constant(int(num_importance_samples)), seed_tensor(seed)))

    def refine(
        self, images: np.ndarray, num_steps: int = 2, labels: np.ndarray | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """A q(v|x) for each of these images, found by steps along the gradient of its bound (`models.refinement`).

        `model.log_prob(images, K, refinement=model.refine(images))` is tighter than without, in the mean, for any K. A
        step is a gradient and two bounds: some samples' worth of time.

        Args:
          images, labels, batch_size: as for `log_prob`.
          num_steps: at least 1.

        Returns:
          NumPy float32 [B, H, W, C]: how far the normal scores of the dequantisation's noise are moved.

        Raises:
          ValueError: as `log_prob`.
        """
        images, labels = self._checked(images, labels)
        arguments.whole_numbers(1, arguments.MOST_SAMPLES, num_steps=num_steps)
        arguments.rows(0, batch_size)
        return self._means_rows(len(images), 0, batch_size, (images, labels), (tf.constant(int(num_steps)),))

    def log_weights(
        self,
        images: np.ndarray,
        num_importance_samples: int,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
    ) -> np.ndarray:
        """The logarithms of the importance weights that `log_prob` averages.

        Every image gets the noise of `seed` that it would get alone, so that its weights do not depend on its place:
        they are those of `log_prob` of this one image.

        Args:
          images, num_importance_samples, labels, batch_size: as for `log_prob`.

        Returns:
          NumPy float32 [B, num_importance_samples], nats.

        Raises:
          ValueError: as `log_prob`.
        """
        images, labels = self._checked(images, labels)
        arguments.whole_numbers(1, arguments.MOST_SAMPLES, num_importance_samples=num_importance_samples)
        arguments.rows(0, batch_size)
        rows = len(images), 0, batch_size, (images, labels)
        streams = (tf.constant(k, tf.int64) for k in range(num_importance_samples))
        return np.stack([self._weight_rows(*rows, (k, seed_tensor(seed))) for k in streams], 1)

    def bits_per_dim(
        self,
        images: np.ndarray,
        num_importance_samples: int = 1,
        seed: int = 0,
        labels: np.ndarray | None = None,
        **options: Any,
    ) -> np.ndarray:
        """-log_prob / (D log 2), NumPy float32 [B].

        Args:
          images, num_importance_samples, seed, labels, options: as for `log_prob`, its keywords among them.
        """
        log_prob = self.log_prob(images, num_importance_samples, seed, labels, **options)
        return -log_prob / np.float32(self.dimensions * math.log(2.0))

    def bound_terms(
        self,
        images: np.ndarray,
        seed: int = 0,
        labels: np.ndarray | None = None,
        first_row: int = 0,
        sample: int = 0,
        refinement: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """The terms whose sum is `log_prob` with one importance sample, for one batch.

        Args:
          images, seed, labels, first_row, refinement: as for `log_prob`.
          sample: which of the importance samples that `log_prob` averages; the first K are the same for every K, and
            the terms of sample k add up to the logarithm of its weight.

        Returns:
          dict of NumPy float32 [B], nats: "reconstruction", "kl/GROUP" (negative KLs, so that all terms add up),
          "flow log-det", "preprocessing log-det", "discretisation" (-log q(v|x); -D log num_bins where q is uniform).
        """
        images, labels = self._checked(images, labels)
        arguments.rows(first_row, 1)
        arguments.whole_numbers(0, arguments.MOST_SAMPLES - 1, sample=sample)
        shared = tf.constant(int(sample)), seed_tensor(seed)
        per_row = images, labels, self._checked_refinement(refinement, images)
        return self._terms_rows(len(images), first_row, max(1, len(images)), per_row, shared)

    def sample(
        self,
        num_samples: int,
        seed: int = 0,
        temperature: float = 1.0,
        sample_noise: float = 1.0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> np.ndarray:
        """Images from the model; image i is a function of (seed, first_row + i).

        Args:
          temperature: float, scales the priors' standard deviations; 1 is the model.
          sample_noise: float, scales the noise of p(y|z); 1 is the model, 0 its mean.
          labels: int [num_samples] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.
          first_row: int below 2^40, the place of the first sample in the stream of this seed.

        Returns:
          NumPy uint8 [num_samples, H, W, C].

        Raises:
          ValueError: a number out of range; labels missing or out of range.
        """
        arguments.whole_numbers(0, num_samples=num_samples)
        arguments.scales(temperature=temperature, sample_noise=sample_noise)
        arguments.rows(first_row, batch_size)
        labels = self._checked_labels(labels, num_samples)
        shared = seed_tensor(seed), tf.constant(temperature, tf.float32), tf.constant(sample_noise, tf.float32)
        return without_nan(*self._sample_rows(num_samples, first_row, batch_size, (labels,), shared))

    def mass_outside(
        self, num_samples: int = 2000, seed: int = 0, labels: np.ndarray | None = None, batch_size: int = 64
    ) -> MassOutside:
        """How much of the model's density lies outside of [0, 1)^D, estimated from samples.

        With `UniformDequantization` it belongs to no image; with `EdgeBins` to images with black or white pixels.

        Args:
          num_samples, seed, labels, batch_size: as for `sample`.
        """
        arguments.whole_numbers(1, num_samples=num_samples)
        arguments.rows(0, batch_size)
        labels = self._checked_labels(labels, num_samples)
        counts = self._outside_rows(num_samples, 0, batch_size, (labels,), (seed_tensor(seed),))
        below, above = counts.T / self.dimensions
        inside = np.mean((below == 0.0) & (above == 0.0))
        return MassOutside(float(inside), float(np.mean(below)), float(np.mean(above)))

    # What is computed at a time; see `RowFunction`.

    def _bound_batch(self, first_row, count, images, labels, means, seed):
        return self.refined_bound(images, RowNoise(seed, count, first_row).fold_in(0), means, labels).log_prob

    def _means_batch(self, first_row, count, images, labels, num_steps):
        return self.refined_means(images, num_steps, labels)

    def _weight_batch(self, first_row, count, images, labels, sample, seed):
        noise = SeededRowNoise(tf.fill([count], seed)).fold_in(sample)
        return self.bound(images, noise, labels=labels).log_prob

    def _log_prob_batch(self, first_row, count, images, labels, means, num_importance_samples, seed):
        noise = RowNoise(seed, count, first_row)
        return self.importance_weighted_bound(images, num_importance_samples, noise, labels, means)

    def _terms_batch(self, first_row, count, images, labels, means, sample, seed):
        bound = self.refined_bound(images, RowNoise(seed, count, first_row).fold_in(sample), means, labels)
        kl = zip(self.vae.group_names, bound.kl, strict=True)
        return {
            "reconstruction": bound.reconstruction,
            **{f"kl/{name}": -tf.reduce_sum(group, -1) for name, group in kl},
            "flow log-det": bound.flow_log_det,
            "preprocessing log-det": bound.preprocessing_log_det,
            "discretisation": bound.discretisation,
        }

    def _sample_batch(self, first_row, count, labels, seed, temperature, sample_noise):
        noise = RowNoise(seed, count, first_row)
        return self.to_images(self.sample_continuous(noise, temperature, sample_noise, labels))

    def _outside_batch(self, first_row, count, labels, seed):
        v = self.sample_continuous(RowNoise(seed, count, first_row), labels=labels)
        return tf.stack([tf.math.count_nonzero(outside, [1, 2, 3]) for outside in (v < 0.0, v >= 1.0)], 1)

    # Checks.

    def check_images(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Raises ValueError for images or labels that `log_prob` refuses; without classes, none are looked at."""
        self._checked(images, labels if self.num_classes else None)

    def _checked(self, images, labels):
        check_eager()
        arguments.unmasked(images=images)
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"`images` must be [B, {', '.join(map(str, self.image_shape))}]; got {list(images.shape)}."
            )
        if images.dtype.kind not in "iu":
            raise ValueError(f"`images` must be integers in [0, {self.num_bins}), such as uint8; got {images.dtype}.")
        if images.size and (images.min() < 0 or images.max() >= self.num_bins):
            raise ValueError(f"`images` must lie in [0, {self.num_bins}); got {images.min()} to {images.max()}.")
        return images.astype(np.uint8), self._checked_labels(labels, len(images))

    def _checked_refinement(self, refinement, images):
        if refinement is None:
            return None
        refinement = np.asarray(refinement, np.float32)
        if refinement.shape != images.shape or not np.all(np.isfinite(refinement)):
            raise ValueError(
                "`refinement` must be what `refine` returns of the same images: finite numbers in their shape."
            )
        return refinement

    def _checked_labels(self, labels, count):
        if not self.num_classes:
            if labels is not None:
                raise ValueError("this model is not class-conditional: call it without `labels`.")
            return None
        arguments.unmasked(labels=labels)
        labels = None if labels is None else np.asarray(labels)
        if labels is None or labels.shape != (count,) or not (labels.dtype.kind in "iu" or count == 0):
            raise ValueError(f"a class-conditional model needs `labels`, integers [{count}].")
        if labels.size and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise ValueError(f"`labels` must lie in [0, {self.num_classes}); got {labels.min()} to {labels.max()}.")
        return labels.astype(np.int64)
