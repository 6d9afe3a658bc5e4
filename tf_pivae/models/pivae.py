"""The partially invertible VAE: equation (6) on one screen."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae import arguments
from tf_pivae.bijectors import preprocessing as preprocessing_lib
from tf_pivae.configurable import Index, NonNegative, configurable
from tf_pivae.layers.weight_norm import data_dependent_initialization
from tf_pivae.models.blocks import LatentSample
from tf_pivae.models.dequantization import UniformDequantization, uniform
from tf_pivae.models.hierarchical_vae import HierarchicalVAE, residual_vae
from tf_pivae.noise import Noise, NoiseStreams, NormalNoise, RowNoise, seed_tensor
from tf_pivae.system.rows import RowFunction
from tf_pivae.values import Within

tfb = tfp.bijectors

RECONSTRUCTION = "reconstruction"  # The stream of the noise of reconstructions, so that it is not that of samples.
_MOST_SAMPLES = 2**31 - 1  # They are counted in 32 bits.
_ROWS_SIDE_BY_SIDE = 64  # Larger batches cost as much an image.


class Bound(NamedTuple):
    """A one-sample lower bound on log P(x) and its terms, all in nats."""

    log_prob: tf.Tensor  # [B], the sum of the terms below, the KLs subtracted
    reconstruction: tf.Tensor  # [B], log p(y|z)
    kl: list  # of [B, C_group], log q(z|y) - log p(z), the top of the hierarchy first
    flow_log_det: tf.Tensor  # [B], log|det df/dt|
    preprocessing_log_det: tf.Tensor  # [B], log|det dt/dv|
    discretisation: tf.Tensor  # [B], -log q(v|x); -D log(num_bins) where q is uniform


class Features(NamedTuple):
    """Images in the space of the VAE, and the terms of the bound that came about on the way, in nats."""

    y: tf.Tensor  # [B, H, W, C]
    flow_log_det: tf.Tensor  # [B], log|det df/dt|
    preprocessing_log_det: tf.Tensor  # [B], see `Dequantized`
    discretisation: tf.Tensor  # [B], see `Dequantized`


class MassOutside(NamedTuple):
    """Where samples of the continuous v lie, relative to the unit cube."""

    samples_inside: float  # share of samples wholly inside [0, 1)^D
    pixels_below: float  # share of pixels below 0
    pixels_above: float  # share of pixels at or above 1


@configurable
class PiVAE(keras.Model):
    """A density and a sampler for images of `num_bins` levels, x in {0 ... num_bins - 1}^(H x W x C).

        v ~ q(v|x),  t = preprocessing(v),  y = flow(t),  y ~ VAE                       (equations 5 and 6)

    The density of v reaches beyond [0, 1] (logit's `a`; `affine`'s real line). With the paper's uniform dequantisation
    that mass, often most of it, belongs to no image in `log_prob`; with `EdgeBins` the probabilities sum to exactly 1.

    Args:
      image_shape: (H, W, C).
      vae: a function of `image_shape` (and `num_classes`) that returns a `HierarchicalVAE`.
      flow: None, or a function of `image_shape` that returns a `RealNVP`.
      preprocessing: a function that returns a `tfb.Bijector`: `logit` with a flow, `affine` without.
      dequantization: a function of `num_bins` and `preprocessing`: `UniformDequantization` (the paper's) or `EdgeBins`.
      num_bins: number of levels of a pixel, 2 to 256.
      observation_noise: float, how much of p(y|z)'s noise a sample has: 1 in the model of equation (6), 0 for a GAN,
        whose generator is a function of z alone.
      num_classes: 0, or the number of classes of a class-conditional model, whose methods want `labels`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        vae: Callable[..., HierarchicalVAE] = residual_vae,
        flow: Callable[..., keras.layers.Layer] | None = None,
        preprocessing: Callable[[], tfb.Bijector] = preprocessing_lib.logit,
        dequantization: Callable[..., keras.layers.Layer] = UniformDequantization,
        num_bins: Annotated[int, Within(2, 256)] = 256,
        observation_noise: NonNegative = 1.0,
        num_classes: Index = 0,
        name: str = "pivae",
    ) -> None:
        super().__init__(name=name)
        self.image_shape = tuple(int(size) for size in image_shape)
        self.num_bins = num_bins
        self.observation_noise = observation_noise
        self.num_classes = num_classes
        self.dimensions = math.prod(self.image_shape)
        self.preprocessing = preprocessing
        self.dequantization = dequantization(num_bins=num_bins, preprocessing=preprocessing, name="dequantization")
        self.vae = vae(image_shape=self.image_shape, num_classes=num_classes)
        self.flow = None if flow is None else flow(image_shape=self.image_shape)
        self._create_variables()
        self._bound_rows = RowFunction(self._bound_batch)
        self._log_prob_rows = RowFunction(self._log_prob_batch)
        self._terms_rows = RowFunction(self._terms_batch)
        self._sample_rows = RowFunction(self._sample_batch)
        self._reconstruct_rows = RowFunction(self._reconstruct_batch)
        self._outside_rows = RowFunction(self._outside_batch)

    # The bound.

    def bound(self, images: tf.Tensor, noise: Noise, training: bool = False, labels: tf.Tensor | None = None) -> Bound:
        """The bound of equation (6) for the discrete images, one sample of (u, z), by its terms.

        Args:
          images: integers [B, H, W, C] in [0, num_bins), any numeric dtype.
          noise: `RowNoise` of B rows.
          training: bool; batch statistics in the flow.
          labels: int [B] for a class-conditional model.

        Returns:
          `Bound`.
        """
        return self.bound_of_features(self.features(images, noise, training), noise, labels)

    def features(self, images: tf.Tensor, noise: Noise, training: bool = False) -> Features:
        """The first half of `bound`, `Features`: the one that batch statistics may make a function of all images."""
        t, preprocessing_log_det, discretisation = self.dequantization(images, noise=noise)
        y, flow_log_det = self._flow_forward(t, training)
        return Features(y, flow_log_det, preprocessing_log_det, discretisation)

    def bound_of_features(self, features: Features, noise: Noise, labels: tf.Tensor | None = None) -> Bound:
        """The second half of `bound`: for each image, a function of that image's features alone."""
        y, flow_log_det, preprocessing_log_det, discretisation = features
        vae = self.vae.bound(y, noise, labels)
        kl = tf.add_n([tf.reduce_sum(group, -1) for group in vae.kl])
        log_density = vae.reconstruction - kl + flow_log_det + preprocessing_log_det  # log p(v)
        log_prob = log_density + discretisation  # log p(v) - log q(v|x)
        return Bound(log_prob, vae.reconstruction, vae.kl, flow_log_det, preprocessing_log_det, discretisation)

    def dequantize(self, images: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Images as the critic sees them, whatever the dequantisation: (x + u) / num_bins, float32 [B, H, W, C]."""
        return uniform(images, noise, self.num_bins)

    def _flow_forward(self, t, training):
        if self.flow is None:
            return t, tf.zeros([tf.shape(t)[0]])
        flow = self.flow.bijector(training=training)
        return flow.forward(t), flow.forward_log_det_jacobian(t, event_ndims=3)

    def importance_weighted_bound(
        self,
        images: tf.Tensor,
        num_importance_samples: int | tf.Tensor,
        noise: NoiseStreams,
        labels: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """log 1/K sum_k w_k over K samples of (u, z), float32 [B], nats: at least as tight as one sample's bound.

        Sample k draws from a stream of its own, `noise.fold_in(k)`, so that the first K samples are the same for every
        larger K. Samples of small batches are computed side by side.

        Args:
          images, labels: as for `bound`.
          noise: as for `bound`, with a method `samples`.
          num_importance_samples: K, an int or a scalar tensor.
        """
        count, rows = tf.convert_to_tensor(num_importance_samples), tf.shape(images)[0]
        num_blocks = -(-count // tf.clip_by_value(_ROWS_SIDE_BY_SIDE // rows, 1, count))
        side_by_side = -(-count // num_blocks)  # Samples of a block; the last block may be left with fewer than that.

        def add(block, total):
            samples = block * side_by_side + tf.range(side_by_side)
            tiled = tf.tile(images, [side_by_side, 1, 1, 1])
            tiled_labels = None if labels is None else tf.tile(labels, [side_by_side])
            bound = self.bound(tiled, noise.samples(samples), labels=tiled_labels)
            weights = tf.reshape(bound.log_prob, [side_by_side, rows])
            weights = tf.where(samples[:, None] < count, weights, -math.inf)
            return block + 1, tf.reduce_logsumexp(tf.concat([weights, total[None]], 0), 0)

        # A running sum and no list of terms: not every runtime of an exported model knows TensorFlow's lists.
        _, total = tf.while_loop(lambda block, _: block < num_blocks, add, (0, tf.fill([rows], -math.inf)))
        return total - tf.math.log(tf.cast(count, tf.float32))

    def infer(
        self, images: tf.Tensor, noise: Noise, labels: tf.Tensor | None = None
    ) -> tuple[list[LatentSample], tf.Tensor]:
        """Posterior samples of the latent groups and the mean of p(y|z) decoded from them.

        Args:
          images: integers [B, H, W, C] in [0, num_bins), any numeric dtype.
          noise: `RowNoise` of B rows, for the dequantisation and the posterior.
          labels: int [B] for a class-conditional model.

        Returns:
          list of `LatentSample` in the order of `vae.group_names`, and float32 [B, H, W, C].
        """
        return self.vae.infer(self.features(images, noise).y, noise, labels)

    # The sampler.

    def sample_continuous(
        self,
        noise: NormalNoise,
        temperature: float | tf.Tensor = 1.0,
        sample_noise: float | tf.Tensor = 1.0,
        labels: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Samples v, float32 [B, H, W, C] on the scale on which images lie in [0, 1] (not clipped); differentiable.

        z ~ p(z), y ~ N(mu(z), sigma^2), v = preprocessing^-1(f^-1(y)). The flow uses its running averages.

        Args:
          noise: `RowNoise` of B rows.
          temperature: float, scales the standard deviations of the priors.
          sample_noise: float, scales the noise of p(y|z); 0 gives its mean.
          labels: int [B] for a class-conditional model.
        """
        mean = self.vae.sample_mean(noise, temperature, labels)
        sigma = self.observation_noise * sample_noise * tf.exp(self.vae.log_sigma)
        return self.to_image_space(mean + sigma * noise.normal("observation", self.image_shape))

    def to_image_space(self, y: tf.Tensor) -> tf.Tensor:
        """v = preprocessing^-1(f^-1(y)), float32 [B, H, W, C]."""
        t = y if self.flow is None else self.flow.bijector(training=False).inverse(y)
        return self.preprocessing().inverse(t)

    def to_uint8(self, v: tf.Tensor) -> tf.Tensor:
        """The discrete image of v: clip(floor(num_bins v)), uint8."""
        return tf.cast(tf.clip_by_value(tf.floor(v * self.num_bins), 0.0, self.num_bins - 1.0), tf.uint8)

    # What people call.

    def log_prob(
        self,
        images: np.ndarray,
        num_importance_samples: int = 1,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> np.ndarray:
        """A lower bound on log P(x) of discrete images; tighter for more importance samples.

        Args:
          images: uint8 (or any integers in [0, num_bins)) [B, H, W, C].
          num_importance_samples: K >= 1, samples of (u, z) for each image.
          seed: int. Image i's noise is a function of (seed, first_row + i), whatever the batch and the replica.
          labels: int [B] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.
          first_row: int, the place of the first image in a larger set.

        Returns:
          NumPy float32 [B], nats.

        Raises:
          ValueError: images of another shape, dtype or range; labels missing or out of range; a number out of range.
        """
        images, labels = self._checked(images, labels)
        arguments.whole_numbers(1, _MOST_SAMPLES, num_importance_samples=num_importance_samples)
        arguments.rows(first_row, batch_size)
        rows = len(images), first_row, batch_size, (images, labels)
        if num_importance_samples == 1:
            return self._bound_rows(*rows, (seed_tensor(seed),))
        return self._log_prob_rows(*rows, (tf.constant(num_importance_samples), seed_tensor(seed)))

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
        self, images: np.ndarray, seed: int = 0, labels: np.ndarray | None = None, first_row: int = 0
    ) -> dict[str, np.ndarray]:
        """The terms whose sum is `log_prob` with one importance sample, for one batch.

        Args:
          images, seed, labels, first_row: as for `log_prob`.

        Returns:
          dict of NumPy float32 [B], nats: "reconstruction", "kl/GROUP" (negative KLs, so that all terms add up),
          "flow log-det", "preprocessing log-det", "discretisation" (-log q(v|x); -D log num_bins where q is uniform).
        """
        images, labels = self._checked(images, labels)
        arguments.rows(first_row, 1)
        return self._terms_rows(len(images), first_row, max(1, len(images)), (images, labels), (seed_tensor(seed),))

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
          num_samples: int.
          seed: int.
          temperature: float, scales the priors' standard deviations; 1 is the model.
          sample_noise: float, scales the noise of p(y|z); 1 is the model, 0 its mean.
          labels: int [num_samples] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.
          first_row: int, the place of the first sample in the endless stream of this seed.

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
        return self._sample_rows(num_samples, first_row, batch_size, (labels,), shared)

    def reconstruct(
        self, images: np.ndarray, seed: int = 0, labels: np.ndarray | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """Encodes and decodes: the posterior's sample of z, the mean of p(y|z), mapped back to an image.

        Args:
          images: uint8 [B, H, W, C].
          seed: int, of the dequantisation's and the posterior's noise.
          labels: int [B] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.

        Returns:
          NumPy uint8 [B, H, W, C].
        """
        images, labels = self._checked(images, labels)
        arguments.rows(0, batch_size)
        return self._reconstruct_rows(len(images), 0, batch_size, (images, labels), (seed_tensor(seed),))

    def mass_outside(
        self, num_samples: int = 2000, seed: int = 0, labels: np.ndarray | None = None, batch_size: int = 64
    ) -> MassOutside:
        """How much of the model's density lies outside of [0, 1)^D, estimated from samples.

        With `UniformDequantization` it belongs to no image; with `EdgeBins` to the images whose levels are the edges'.

        Args:
          num_samples, seed, labels, batch_size: as for `sample`.

        Returns:
          `MassOutside`.
        """
        arguments.whole_numbers(1, num_samples=num_samples)
        arguments.rows(0, batch_size)
        labels = self._checked_labels(labels, num_samples)
        counts = self._outside_rows(num_samples, 0, batch_size, (labels,), (seed_tensor(seed),))
        below, above = counts.T / self.dimensions
        inside = np.mean((below == 0.0) & (above == 0.0))
        return MassOutside(float(inside), float(np.mean(below)), float(np.mean(above)))

    # What is computed at a time; see `RowFunction`.

    def _bound_batch(self, first_row, count, images, labels, seed):
        return self.bound(images, RowNoise(seed, count, first_row).fold_in(0), labels=labels).log_prob

    def _log_prob_batch(self, first_row, count, images, labels, num_importance_samples, seed):
        return self.importance_weighted_bound(images, num_importance_samples, RowNoise(seed, count, first_row), labels)

    def _terms_batch(self, first_row, count, images, labels, seed):
        bound = self.bound(images, RowNoise(seed, count, first_row).fold_in(0), labels=labels)
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
        return self.to_uint8(self.sample_continuous(noise, temperature, sample_noise, labels))

    def _outside_batch(self, first_row, count, labels, seed):
        v = self.sample_continuous(RowNoise(seed, count, first_row), labels=labels)
        return tf.stack([tf.math.count_nonzero(outside, [1, 2, 3]) for outside in (v < 0.0, v >= 1.0)], 1)

    def _reconstruct_batch(self, first_row, count, images, labels, seed):
        noise = RowNoise(seed, count, first_row).fold_in(RECONSTRUCTION)
        return self.to_uint8(self.to_image_space(self.infer(images, noise, labels)[1]))

    # Variables.

    def _create_variables(self):
        """Runs both directions once, so that every layer has built its variables."""
        labels = tf.zeros([1], tf.int64) if self.num_classes else None
        noise = RowNoise(0, 1)
        self.bound(tf.zeros([1, *self.image_shape]), noise, labels=labels)
        self.sample_continuous(noise, labels=labels)
        for part in (self, self.vae, self.flow):
            if part is not None:
                part.built = True

    def initialize(
        self, images: np.ndarray, seed: int = 0, labels: np.ndarray | None = None, weights: bool = True
    ) -> None:
        """Data-dependent initialisation from the first batch: weight normalisation, running moments, sigma.

        Args:
          images: uint8 [B, H, W, C].
          seed: int.
          labels: int [B] for a class-conditional model.
          weights: False sets sigma alone.
        """
        images, labels = self._checked(images, labels)
        noise = RowNoise(seed, len(images)).fold_in("initialisation")
        with data_dependent_initialization() if weights else contextlib.nullcontext():
            y = self.features(images, noise, training=weights).y
            _, mean = self.vae.infer(y, noise, labels)
        self.vae.initialize_sigma(y, mean)

    @property
    def flow_variables(self) -> list[keras.Variable]:
        """The head's trainable variables, which the adversarial loss never moves (section 4.1, appendix A.4)."""
        return [] if self.flow is None else self.flow.trainable_variables

    @property
    def inference_variables(self) -> list[keras.Variable]:
        """The variables of q(v|x), q(z|y) and sigma, which the generator's mean does not depend on (section 5.1)."""
        return [*self.dequantization.trainable_variables, *self.vae.inference_variables]

    # Checks.

    def _checked(self, images, labels):
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"`images` must be [B, {', '.join(map(str, self.image_shape))}]; got {list(images.shape)}."
            )
        if not np.issubdtype(images.dtype, np.integer):
            raise ValueError(f"`images` must be integers in [0, {self.num_bins}), such as uint8; got {images.dtype}.")
        if images.size and (images.min() < 0 or images.max() >= self.num_bins):
            raise ValueError(f"`images` must lie in [0, {self.num_bins}); got {images.min()} to {images.max()}.")
        return images.astype(np.uint8), self._checked_labels(labels, len(images))

    def _checked_labels(self, labels, count):
        if not self.num_classes:
            if labels is not None:
                raise ValueError("this model is not class-conditional: call it without `labels`.")
            return None
        labels = None if labels is None else np.asarray(labels)
        if labels is None or labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"a class-conditional model wants `labels`, integers [{count}].")
        if labels.size and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise ValueError(f"`labels` must lie in [0, {self.num_classes}); got {labels.min()} to {labels.max()}.")
        return labels.astype(np.int64)
