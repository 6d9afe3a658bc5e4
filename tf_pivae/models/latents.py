"""Equation (4), from top to bottom: log p(y|z) + log p(z) - log q(z|y) (appendix A.1; Kingma et al. 2016).

This file has, in this order: the hierarchy, bottom-up from y and top-down through the groups of latents; one group,
with prior, posterior and KL; the Gaussian posterior and the IAF posterior (appendices A.1 and A.2). The layers are in
`blocks`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_pivae.bijectors.inverse_autoregressive import InverseAutoregressiveFlow
from tf_pivae.configurable import Depth, Index, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.masked import AutoregressiveNetwork
from tf_pivae.layers.rematerialization import keep
from tf_pivae.models.blocks import BottomUpBlock, Evidence, MapTop, TopDownLayers, VectorTop
from tf_pivae.noise import NormalNoise

LOG_SCALE_BOUND = 7.0  # exp(-7) ... exp(7): a soft clamp that no trained posterior was seen to reach.


class VAEBound(NamedTuple):
    """The terms of log p(y|z) + log p(z) - log q(z|y) at one sample z of the posterior.

    `reconstruction` minus the sum of all of `kl` is the bound, equation (4); `PiVAE.bound_of_features` adds the head's.
    """

    reconstruction: tf.Tensor  # [B], log p(y|z), nats
    kl: list  # of [B, C_group], log q - log p summed over space, nats; the top of the hierarchy first
    mean: tf.Tensor  # [B, H, W, C], mu(z)


class LatentSample(NamedTuple):
    """What a group of latents contributes."""

    z: tf.Tensor  # [B, H, W, latent_channels]
    kl: tf.Tensor  # [B, H, W, latent_channels], log q(z|y) - log p(z) of each element, nats


class HierarchicalVAE(keras.Model):
    """p(y) = E_p(z) N(y; mu(z), sigma^2 I), latents drawn top-down, the same pass for prior and posterior.

    Args:
      image_shape: (H, W, C) of y.
      stem: a layer y -> features.
      bottom_up: `BottomUpBlock`s, from y upwards.
      top: `VectorTop` or `MapTop`.
      top_down: `TopDownBlock`s, from the top downwards. Those with latents meet, last to first, the bottom-up blocks
        with latents.
      output: a layer features -> mu(z).
      call_block: a function (block, *inputs, **others) that calls a block: `keep` or `rematerialized`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        stem: keras.layers.Layer,
        bottom_up: list[BottomUpBlock],
        top: VectorTop | MapTop,
        top_down: "list[TopDownBlock]",
        output: keras.layers.Layer,
        call_block: Callable = keep,
        name: str = "vae",
    ) -> None:
        super().__init__(name=name)
        self.image_shape = tuple(image_shape)
        self._call_block = call_block
        self.stem = stem
        self.bottom_up = bottom_up
        self.top = top
        self.top_down = top_down
        self.output_conv = output
        self.log_sigma = self.add_weight(shape=[], initializer="zeros", name="log_sigma")

    @property
    def group_names(self) -> list[str]:
        """Names of the latent groups, the top first: "top", then the top-down blocks that have latents."""
        return ["top", *(block.name for block in self.top_down if block.latent_channels)]

    @property
    def posterior_variables(self) -> list[keras.Variable]:
        """Variables of the bottom-up pass, the top's posterior and q's flows: no sample of the model uses them."""
        flows = [block.posterior for block in self.top_down if block.latent_channels]
        layers = [self.stem, *self.bottom_up, self.top.posterior_layer, *flows]
        return [variable for layer in layers for variable in layer.trainable_variables]

    def encode(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, list[Evidence]]:
        """Bottom-up pass: y [B, H, W, C] -> the last features, and the blocks' `Evidence`, the lowest first."""
        features = self.stem(y, labels=labels)
        evidence = []
        for block in self.bottom_up:
            features, block_evidence = self._call_block(block, features, labels=labels)
            if block_evidence is not None:
                evidence.append(block_evidence)
        return features, evidence

    def bound(self, y: tf.Tensor, noise: NormalNoise, labels: tf.Tensor | None = None) -> VAEBound:
        """One-sample terms of the evidence lower bound, equation (4).

        Args:
          y: float32 [B, H, W, C].
          noise: a `NormalNoise` of B rows.
          labels: int [B] for a class-conditional model.
        """
        groups, mean = self.infer(y, noise, labels)
        return VAEBound(self.log_likelihood(y, mean), [_sum_over_space(group.kl) for group in groups], mean)

    def infer(
        self, y: tf.Tensor, noise: NormalNoise, labels: tf.Tensor | None = None
    ) -> tuple[list[LatentSample], tf.Tensor]:
        """Posterior samples and the mean decoded from them: list of `LatentSample` (the top first), [B, H, W, C]."""
        features, evidence = self.encode(y, labels)
        posterior = gaussian(*self.top.statistics(features, labels))
        h, log_q = posterior.sample_with_log_prob(noise.normal("latents/top", self.top.latent_shape))
        kl = log_q - standard_gaussian(h).log_prob(h)
        groups, mean = self._descend(h, labels, noise, evidence=evidence[::-1])
        return [LatentSample(h, kl), *groups], mean

    def sample_mean(
        self, noise: NormalNoise, temperature: float | tf.Tensor = 1.0, labels: tf.Tensor | None = None
    ) -> tf.Tensor:
        """mu(z) of z ~ p(z), float32 [B, H, W, C]; `temperature` scales every prior's standard deviation."""
        h = temperature * noise.normal("latents/top", self.top.latent_shape)
        return self._descend(h, labels, noise, temperature)[1]

    def decode(self, latents: Sequence[tf.Tensor], labels: tf.Tensor | None = None) -> tf.Tensor:
        """mu(z) of given latents: a list of tensors in the order of `group_names` -> float32 [B, H, W, C]."""
        h, *lower = latents
        return self._descend(h, labels, latents=lower)[1]

    def _descend(
        self,
        h: tf.Tensor,
        labels: tf.Tensor | None,
        noise: NormalNoise | None = None,
        temperature: float | tf.Tensor = 1.0,
        evidence: Sequence[Evidence] = (),
        latents: Sequence[tf.Tensor] = (),
    ) -> tuple[list[LatentSample], tf.Tensor]:
        """The top-down pass from the top's latents h: the groups below it, the highest first, and mu(z).

        Each group's z is drawn from q(z|y) where there is `evidence` of y, is given where there are `latents`, and is
        drawn from p(z) otherwise.
        """
        features = self.top.decode(h, labels)
        groups = []
        evidence = iter(evidence)
        latents = iter(latents)
        for block in self.top_down:
            own = next(evidence, None) if block.latent_channels else None
            z = next(latents, None) if block.latent_channels else None
            features, group = self._call_block(
                block, features, own, z, noise=noise, temperature=temperature, labels=labels
            )
            if group is not None:
                groups.append(group)
        return groups, self.output_conv(tf.nn.elu(features), labels=labels)

    def log_likelihood(self, y: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        """log N(y; mean, sigma^2 I) summed over each image, [B], nats."""
        dimensions = math.prod(self.image_shape)
        squared_error = tf.reduce_sum(tf.math.squared_difference(y, mean), [1, 2, 3])
        log_sigma = tf.convert_to_tensor(self.log_sigma)
        return -0.5 * squared_error * tf.exp(-2.0 * log_sigma) - dimensions * (
            log_sigma + 0.5 * math.log(2.0 * math.pi)
        )

    def squared_slope(self, log_likelihood: tf.Tensor) -> tf.Tensor:
        """||d log N(y; mean, sigma^2 I) / d mean||^2 from the log-likelihood, [B] each, nats^2: that of a Gaussian."""
        log_sigma = tf.convert_to_tensor(self.log_sigma)
        dimensions = math.prod(self.image_shape)
        squares = -2.0 * (
            log_likelihood + dimensions * (log_sigma + 0.5 * math.log(2.0 * math.pi))
        )  # Of (y - mean)/sigma
        return squares * tf.exp(-2.0 * log_sigma)

    def initialize_sigma(self, y: tf.Tensor, mean: tf.Tensor) -> None:
        """Starts sigma at the root mean square of the first batch's residual.

        If sigma starts lower, the first gradients of log sigma are enormous, and Adamax, which keeps the largest
        gradients, takes tiny steps for thousands of steps.
        """
        self.log_sigma.assign(0.5 * tf.math.log(tf.reduce_mean(tf.math.squared_difference(y, mean)) + 1e-8))


def _sum_over_space(x):
    """[B, ..., C] -> [B, C]. The reshape gives vectors an axis to sum: some runtimes cannot sum over no axes."""
    return tf.reduce_sum(tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]]), 1)


class TopDownBlock(TopDownLayers):
    """A group of latents in the top-down pass, which prior and posterior share."""

    def call(
        self,
        x: tf.Tensor,
        evidence: Evidence | None = None,
        z: tf.Tensor | None = None,
        noise: NormalNoise | None = None,
        temperature: float | tf.Tensor = 1.0,
        labels: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, LatentSample | None]:
        """Runs the block, whose z is drawn from q(z|y) where there is `evidence`, and from p(z) where z is not given.

        Args:
          x: float32 [B, H, W, I].
          evidence: the bottom-up part of the posterior, or None.
          z: float32 [B, h, w, latent_channels], the latents themselves, or None.
          noise: a `NormalNoise` of B rows that z is drawn with; None where z is given.
          temperature: of p(z): scales its standard deviation.
          labels: int [B] for a class-conditional model.

        Returns:
          features [B, H', W', filters] and the `LatentSample` (None without latents).
        """
        parts = self.parts(x, labels, latents_given=z is not None, with_posterior=evidence is not None)
        if not self.latent_channels:
            return self.next_features(x, parts["features"], labels), None
        kl = None
        if z is None:  # Drawn here, so that rematerialisation draws it again instead of keeping it.
            epsilon = noise.normal(f"latents/{self.name}", [*parts["features"].shape[1:3], self.latent_channels])
            prior = gaussian(parts["prior_mean"], parts["prior_log_scale"])
            if evidence is None:
                z = prior.sample(temperature * epsilon)
            else:
                base = gaussian(
                    parts["posterior_mean"] + evidence.mean, parts["posterior_log_scale"] + evidence.log_scale
                )
                context = None if parts["context"] is None else parts["context"] + evidence.context
                z, log_q = self.posterior(base, context=context, epsilon=epsilon, labels=labels)
                kl = log_q - prior.log_prob(z)
        features = tf.concat([parts["features"], z], -1)
        return self.next_features(x, features, labels), LatentSample(z, tf.zeros_like(z) if kl is None else kl)


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean and log-scale, float32 tensors of one shape."""

    mean: tf.Tensor
    log_scale: tf.Tensor

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; mean, exp(log_scale)^2) of each element, nats."""
        return self._log_prob((x - self.mean) * tf.exp(-self.log_scale))

    def _log_prob(self, standardized):
        return -0.5 * tf.square(standardized) - self.log_scale - 0.5 * math.log(2.0 * math.pi)

    def sample(self, epsilon: tf.Tensor) -> tf.Tensor:
        """The reparametrised sample of standard noise `epsilon`."""
        return self.mean + tf.exp(self.log_scale) * epsilon

    def sample_with_log_prob(self, epsilon: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`sample` and its log-density by element, nats, computed from `epsilon` and the scale, not from the sample.

        The sample then has two uses fewer. TensorFlow adds up three or more gradients of one tensor in the order in
        which they are ready, and trainings would not be bitwise reproducible.
        """
        return self.sample(epsilon), self._log_prob(epsilon)


def gaussian(mean: tf.Tensor, raw_log_scale: tf.Tensor) -> Gaussian:
    """A `Gaussian` whose log-scale is softly clamped to +-LOG_SCALE_BOUND."""
    return Gaussian(mean, LOG_SCALE_BOUND * tf.tanh(raw_log_scale / LOG_SCALE_BOUND))


def standard_gaussian(like: tf.Tensor) -> Gaussian:
    """N(0, I) in the shape of the tensor `like`."""
    return Gaussian(tf.zeros_like(like), tf.zeros_like(like))


class Posterior(NamedTuple):
    """A sample of the posterior."""

    z: tf.Tensor  # [B, H, W, C] (or [B, C])
    log_prob: tf.Tensor  # log q(z|y) of each element, nats, in the shape of z


@configurable
class GaussianPosterior(Composite):
    """q(z|y) = N(z; mean, exp(log_scale)^2), the statistics summed from a top-down and a bottom-up part."""

    context_channels = 0

    def __init__(self, channels: int, width: int, num_classes: Index = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        del channels, width, num_classes  # The signature that all posteriors share.

    def call(self, base: Gaussian, context: None, epsilon: tf.Tensor, labels: tf.Tensor | None = None) -> Posterior:
        """base: `Gaussian`; context: None; epsilon: standard noise in the shape of z; labels: unused -> `Posterior`."""
        return Posterior(*base.sample_with_log_prob(epsilon))


@configurable
class IAFPosterior(Composite):
    """One inverse autoregressive step on top of the Gaussian: z0 ~ N(mean, scale^2), z = mu_1(z0) + sigma_1(z0) z0.

    log q(z|y) = log N(z0; mean, scale^2) - log|dz/dz0|, kept by element (the Jacobian is triangular).

    Args:
      channels: latent channels.
      width: channels of the block's features: of the context, and of the hidden layers.
      num_layers: hidden masked convolutions; 2 in the reference implementation.
    """

    def __init__(
        self, channels: int, width: int, num_layers: Depth = 2, num_classes: Index = 0, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.context_channels = width
        self.network = AutoregressiveNetwork(channels, width, num_layers, num_classes=num_classes, name="network")

    def call(
        self, base: Gaussian, context: tf.Tensor, epsilon: tf.Tensor, labels: tf.Tensor | None = None
    ) -> Posterior:
        """One step.

        Args:
          base: `Gaussian` of z0.
          context: float32 [B, H, W, width].
          epsilon: standard normal noise in the shape of z.
          labels: int [B] for a class-conditional model.

        Returns:
          `Posterior`, log q(z|y) by element, nats.
        """
        z0, log_q0 = base.sample_with_log_prob(epsilon)
        flow = InverseAutoregressiveFlow(lambda z: self.network(z, context=context, labels=labels))
        z = flow.forward(z0)
        return Posterior(z, log_q0 - flow.elementwise_log_det(z0))
