"""The partially invertible VAE: equation (6) on one screen."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae import arguments
from tf_pivae.bijectors import preprocessing as preprocessing_lib
from tf_pivae.configurable import Index, NonNegative, configurable
from tf_pivae.layers.weight_norm import data_dependent_initialization
from tf_pivae.models.dequantization import UniformDequantization, uniform
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.image_methods import ImageMethods
from tf_pivae.models.latents import HierarchicalVAE, LatentSample
from tf_pivae.models.refinement import MovedNoise, refined_means
from tf_pivae.noise import Noise, NoiseStreams, NormalNoise, RowNoise
from tf_pivae.system.layer_types import float32_layers
from tf_pivae.values import Within

tfb = tfp.bijectors

_ROWS_SIDE_BY_SIDE = 64  # Larger batches are no cheaper for each image.


class Bound(NamedTuple):
    """A one-sample lower bound on log P(x) and its terms, all in nats."""

    log_prob: tf.Tensor  # [B], the sum of the terms below, the KLs subtracted
    reconstruction: tf.Tensor  # [B], log p(y|z)
    kl: list  # of [B, C_group], log q(z|y) - log p(z), the top of the hierarchy first
    flow_log_det: tf.Tensor  # [B], log|det df/dt|
    preprocessing_log_det: tf.Tensor  # [B], log|det dt/dv|
    discretisation: tf.Tensor  # [B], -log q(v|x); -D log(num_bins) where q is uniform


class HeadOutput(NamedTuple):
    """Images in the space of the VAE, and the terms of the bound computed on the way there, in nats."""

    y: tf.Tensor  # [B, H, W, C]
    flow_log_det: tf.Tensor  # [B], log|det df/dt|
    preprocessing_log_det: tf.Tensor  # [B], see `Dequantized`
    discretisation: tf.Tensor  # [B], see `Dequantized`


@configurable
class PiVAE(ImageMethods, keras.Model):
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

    @float32_layers()
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
        self._compile_rows()

    # The bound.

    def bound(self, images: tf.Tensor, noise: Noise, training: bool = False, labels: tf.Tensor | None = None) -> Bound:
        """The bound of equation (6) for the discrete images, one sample of (u, z), by its terms.

        Args:
          images: integers [B, H, W, C] in [0, num_bins), any numeric dtype.
          noise: a `Noise` of B rows.
          training: bool; batch statistics in the flow.
          labels: int [B] for a class-conditional model.
        """
        return self.bound_of_features(self.features(images, noise, training), noise, labels)

    def features(self, images: tf.Tensor, noise: Noise, training: bool = False) -> HeadOutput:
        """The first half of `bound`. With batch statistics, each row depends on all images."""
        t, preprocessing_log_det, discretisation = self.dequantization(images, noise=noise)
        y, flow_log_det = self._flow_forward(t, training)
        return HeadOutput(y, flow_log_det, preprocessing_log_det, discretisation)

    def bound_of_features(self, features: HeadOutput, noise: Noise, labels: tf.Tensor | None = None) -> Bound:
        """The second half of `bound`: for each image, a function of that image's features alone."""
        y, flow_log_det, preprocessing_log_det, discretisation = features
        vae = self.vae.bound(y, noise, labels)
        kl = tf.add_n([tf.reduce_sum(group, -1) for group in vae.kl])
        log_density = vae.reconstruction - kl + flow_log_det + preprocessing_log_det  # log p(v)
        log_prob = log_density + discretisation  # log p(v) - log q(v|x)
        return Bound(log_prob, vae.reconstruction, vae.kl, flow_log_det, preprocessing_log_det, discretisation)

    def refined_means(
        self, images: tf.Tensor, num_steps: int | tf.Tensor, labels: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Where `refinement` moves the noise of each image's q(v|x) to: float32 [B, H, W, C]."""
        shape = [tf.shape(images)[0], *self.image_shape]
        return refined_means(lambda noise: self._moved_bound(images, noise, labels).log_prob, shape, num_steps)

    def refined_bound(
        self, images: tf.Tensor, noise: Noise, means: tf.Tensor | None, labels: tf.Tensor | None = None
    ) -> Bound:
        """`bound` with a q(v|x) that was refined.

        Args:
          images, noise, labels: as for `bound`.
          means: float32 [B, H, W, C], such as `refined_means` returns: any is a bound. None is `bound` itself.
        """
        if means is None:
            return self.bound(images, noise, labels=labels)
        return self._moved_bound(images, MovedNoise(noise, means), labels)

    def _moved_bound(self, images, noise, labels):
        features = self.features(images, noise)
        discretisation = features.discretisation - noise.log_density_ratio()
        return self.bound_of_features(features._replace(discretisation=discretisation), noise, labels)

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
        means: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """log 1/K sum_k w_k over K samples of (u, z), float32 [B], nats: at least as tight as one sample's bound.

        Sample k draws from a stream of its own, `noise.fold_in(k)`, so that the first K samples are the same for every
        larger K. Samples of small batches are computed side by side.

        Args:
          images, labels: as for `bound`.
          noise: a `NoiseStreams` of B rows.
          num_importance_samples: K, an int or a scalar tensor.
          means: as for `refined_bound`.
        """
        count = tf.convert_to_tensor(num_importance_samples)
        rows = tf.shape(images)[0]
        num_blocks = -(-count // tf.clip_by_value(_ROWS_SIDE_BY_SIDE // rows, 1, count))
        side_by_side = -(-count // num_blocks)  # Samples of a block; the last block may be left with fewer than that.

        def add(block, total):
            samples = block * side_by_side + tf.range(side_by_side)
            tiled = tf.tile(images, [side_by_side, 1, 1, 1])
            tiled_labels = None if labels is None else tf.tile(labels, [side_by_side])
            tiled_means = None if means is None else tf.tile(means, [side_by_side, 1, 1, 1])
            bound = self.refined_bound(tiled, noise.samples(samples), tiled_means, tiled_labels)
            weights = tf.reshape(bound.log_prob, [side_by_side, rows])
            weights = tf.where(samples[:, None] < count, weights, -math.inf)
            return block + 1, tf.reduce_logsumexp(tf.concat([weights, total[None]], 0), 0)

        # A running sum, not a list of terms: not every runtime of an exported model has TensorFlow's lists.
        _, total = tf.while_loop(lambda block, _: block < num_blocks, add, (0, tf.fill([rows], -math.inf)))
        return total - tf.math.log(tf.cast(count, tf.float32))

    def infer(
        self, images: tf.Tensor, noise: Noise, labels: tf.Tensor | None = None
    ) -> tuple[list[LatentSample], tf.Tensor]:
        """Posterior samples of the latent groups and the mean of p(y|z) decoded from them.

        Args:
          images: integers [B, H, W, C] in [0, num_bins), any numeric dtype.
          noise: a `Noise` of B rows, for the dequantisation and the posterior.
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
          noise: a `NormalNoise` of B rows.
          temperature: float, scales the standard deviations of the priors.
          sample_noise: float, scales the noise of p(y|z); 0 gives its mean.
          labels: int [B] for a class-conditional model.
        """
        return self.observe(self.vae.sample_mean(noise, temperature, labels), noise, sample_noise)

    def observe(
        self, mean: tf.Tensor, noise: NormalNoise, sample_noise: float | tf.Tensor = 1.0, training: bool = False
    ) -> tf.Tensor:
        """v of y ~ N(mean, sigma^2), float32 [B, H, W, C] each.

        Args:
          mean: that of p(y|z).
          noise: as for `sample_continuous`.
          sample_noise: scales sigma.
          training: as for `to_image_space`.
        """
        sigma = self.observation_noise * sample_noise * tf.exp(self.vae.log_sigma)
        return self.to_image_space(mean + sigma * noise.normal("observation", self.image_shape), training)

    def to_image_space(self, y: tf.Tensor, training: bool = False) -> tf.Tensor:
        """v = preprocessing^-1(f^-1(y)), float32 [B, H, W, C]; `training`: f^-1 as in a step, of mixed precision."""
        t = y if self.flow is None else self.flow.bijector(training=training).inverse(y)
        return self.preprocessing().inverse(t)

    def to_uint8(self, v: tf.Tensor) -> tf.Tensor:
        """The discrete image of v: clip(floor(num_bins v)), uint8."""
        return tf.cast(tf.clip_by_value(tf.floor(v * self.num_bins), 0.0, self.num_bins - 1.0), tf.uint8)

    def to_images(self, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`to_uint8`, and bool [B]: whether v has NaN, which becomes black."""
        return self.to_uint8(v), tf.reduce_any(tf.math.is_nan(v), [1, 2, 3])

    # Variables.

    def _create_variables(self):
        """Runs the bound once, so that every layer has built its variables: samples need some of these layers alone."""
        labels = tf.zeros([1], tf.int64) if self.num_classes else None
        self.bound(tf.zeros([1, *self.image_shape]), RowNoise(0, 1), labels=labels)
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

        Raises:
          ValueError: images or labels that `log_prob` refuses, no images, or a seed that is no integer of 64 bits.
        """
        images, labels = self._checked(images, labels)
        arguments.seeds(seed)
        if not len(images):
            raise ValueError("`images` holds no images: weights are initialised from some.")
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
    def posterior_variables(self) -> list[keras.Variable]:
        """The variables of q(v|x) and q(z|y) alone, which samples do not depend on: tails, encoder, q's flows."""
        return [*self.dequantization.trainable_variables, *self.vae.posterior_variables]

    @property
    def inference_variables(self) -> list[keras.Variable]:
        """The variables of q(v|x), q(z|y) and sigma, which the generator's mean does not depend on (section 5.1)."""
        return [*self.dequantization.trainable_variables, self.vae.log_sigma, *self.vae.posterior_variables]
