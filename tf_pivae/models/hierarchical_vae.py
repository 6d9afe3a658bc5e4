"""The hierarchical VAE on the feature space y (method, section 2; appendix A.1; Kingma et al. 2016)."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import keras
import tensorflow as tf

from tf_pivae.arguments import divisible_sides
from tf_pivae.configurable import MAX_WIDTH, Depth, Index, Width, Widths, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.rematerialization import keep
from tf_pivae.layers.weight_norm import WeightNormConv2D, WeightNormConv2DTranspose
from tf_pivae.models.blocks import BottomUpBlock, Evidence, LatentSample, MapTop, TopDownBlock, VectorTop
from tf_pivae.models.latents import GaussianPosterior, standard_gaussian
from tf_pivae.noise import NormalNoise
from tf_pivae.values import Within


class VAEBound(NamedTuple):
    """The terms of log p(y|z) + log p(z) - log q(z|y) at one sample z of the posterior."""

    reconstruction: tf.Tensor  # [B], log p(y|z), nats
    kl: list  # of [B, C_group], log q - log p summed over space, nats; the top of the hierarchy first
    mean: tf.Tensor  # [B, H, W, C], mu(z)


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
        top_down: list[TopDownBlock],
        output: keras.layers.Layer,
        call_block: Callable = keep,
        name: str = "vae",
    ) -> None:
        super().__init__(name=name)
        self.image_shape = tuple(image_shape)
        self._call_block = call_block
        self.stem, self.bottom_up, self.top, self.top_down, self.output_conv = stem, bottom_up, top, top_down, output
        self.log_sigma = self.add_weight(shape=[], initializer="zeros", name="log_sigma")

    @property
    def group_names(self) -> list[str]:
        """Names of the latent groups, the top first: "top", then the top-down blocks that have latents."""
        return ["top", *(block.name for block in self.top_down if block.latent_channels)]

    @property
    def inference_variables(self) -> list[keras.Variable]:
        """The bottom-up pass, the top's posterior and sigma: trainable without a change of mu(z), z ~ p(z)."""
        layers = [self.stem, *self.bottom_up, self.top.posterior_layer]
        return [self.log_sigma, *(variable for layer in layers for variable in layer.trainable_variables)]

    def encode(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, list[Evidence]]:
        """Bottom-up pass: y [B, H, W, C] -> the last features, and the blocks' `Evidence`, the lowest first."""
        features, evidence = self.stem(y, labels=labels), []
        for block in self.bottom_up:
            features, block_evidence = self._call_block(block, features, labels=labels)
            if block_evidence is not None:
                evidence.append(block_evidence)
        return features, evidence

    def bound(self, y: tf.Tensor, noise: NormalNoise, labels: tf.Tensor | None = None) -> VAEBound:
        """One-sample terms of the evidence lower bound, equation (4).

        Args:
          y: float32 [B, H, W, C].
          noise: `RowNoise` of B rows.
          labels: int [B] for a class-conditional model.

        Returns:
          `VAEBound`.
        """
        groups, mean = self.infer(y, noise, labels)
        return VAEBound(self.log_likelihood(y, mean), [_sum_over_space(group.kl) for group in groups], mean)

    def infer(
        self, y: tf.Tensor, noise: NormalNoise, labels: tf.Tensor | None = None
    ) -> tuple[list[LatentSample], tf.Tensor]:
        """Posterior samples and the mean decoded from them: list of `LatentSample` (the top first), [B, H, W, C]."""
        features, evidence = self.encode(y, labels)
        posterior = self.top.posterior(features, labels)
        h = posterior.sample(noise.normal("latents/top", self.top.latent_shape))
        kl = posterior.log_prob(h) - standard_gaussian(h).log_prob(h)
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
        h, *below = latents
        return self._descend(h, labels, latents=below)[1]

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
        features, groups, evidence, latents = self.top.decode(h, labels), [], iter(evidence), iter(latents)
        for block in self.top_down:
            own, z = (next(evidence, None), next(latents, None)) if block.latent_channels else (None, None)
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
        log_sigma, dimensions = tf.convert_to_tensor(self.log_sigma), math.prod(self.image_shape)
        squares = -2.0 * (
            log_likelihood + dimensions * (log_sigma + 0.5 * math.log(2.0 * math.pi))
        )  # Of (y - mean)/sigma
        return squares * tf.exp(-2.0 * log_sigma)

    def initialize_sigma(self, y: tf.Tensor, mean: tf.Tensor) -> None:
        """Starts sigma at the root mean square of the first batch's residual.

        Started below it, the first gradients of log sigma are enormous, and the optimiser's infinity norm remembers
        them for thousands of steps.
        """
        self.log_sigma.assign(0.5 * tf.math.log(tf.reduce_mean(tf.math.squared_difference(y, mean)) + 1e-8))


def _sum_over_space(x):
    """[B, ..., C] -> [B, C]; a vector is a map of one place. (No sum over no axes: not every runtime knows that.)"""
    return tf.reduce_sum(tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]]), 1)


@configurable
class RawInput(Composite):
    """The first block sees y as it is."""

    def __init__(self, name: str | None = None):
        super().__init__(name=name)

    def call(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        return y


@configurable
class EluInput(Composite):
    """The first block sees elu(y), in which dark pixels hardly differ; models published before 0.2 were trained so."""

    def __init__(self, name: str | None = None):
        super().__init__(name=name)

    def call(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        return tf.nn.elu(y)


@configurable
def plain_vae(
    image_shape: Sequence[int],
    widths: Widths = (64, 128, 256, 512),
    top_channels: Width = 128,
    latent_channels: Annotated[int, Within(0, MAX_WIDTH)] = 32,
    posterior: Callable[..., keras.layers.Layer] = GaussianPosterior,
    stem: Callable[..., keras.layers.Layer] = RawInput,
    upsampling: Callable[..., keras.layers.Layer] = WeightNormConv2DTranspose,
    num_classes: Index = 0,
    call_block: Callable = keep,
) -> HierarchicalVAE:
    """Table 1's net: dense, stride-2 deconvolutions, conv 3x3; the encoder mirrors it (method, section 5).

    Args:
      image_shape: (H, W, C), sides divisible by 2^(len(widths) - 1).
      widths: feature maps from the image's resolution up to the top.
      top_channels: dimension of the top noise vector.
      latent_channels: latent feature maps in every decoder block; 0 for the GAN, which reads only the top noise.
      posterior: `GaussianPosterior` or `IAFPosterior`.
      stem: what the first block sees: `RawInput` or `EluInput`.
      upsampling: what doubles the resolution: `WeightNormConv2DTranspose`, the paper's, or `NearestConv2D`.
      num_classes: 0, or the number of classes of a class-conditional model.
      call_block: `keep`, or `rematerialized`, which trades time for memory.
    """
    resolution = divisible_sides(image_shape, len(widths) - 1, "fewer `widths`")
    top_down = [
        TopDownBlock(
            width,
            upsample=upsampling,
            latent_channels=latent_channels,
            posterior=_posterior(posterior, latent_channels, width, num_classes),
            residual=False,
            num_classes=num_classes,
            name=f"top_down_{i}",
        )
        for i, width in enumerate(reversed(widths[:-1]))
    ]
    contexts = [block.posterior.context_channels if latent_channels else 0 for block in reversed(top_down)]
    bottom_up = [
        BottomUpBlock(
            width,
            downsample=i > 0,
            latent_channels=latent_channels if i < len(widths) - 1 else 0,
            context_channels=contexts[i] if i < len(widths) - 1 else 0,
            residual=False,
            num_classes=num_classes,
            name=f"bottom_up_{i}",
        )
        for i, width in enumerate(widths)
    ]
    top = VectorTop(resolution, top_channels, widths[-1], num_classes)
    output = _output(image_shape, num_classes)
    return HierarchicalVAE(image_shape, stem(name="stem"), bottom_up, top, top_down, output, call_block)


@configurable
def residual_vae(
    image_shape: Sequence[int],
    stem_width: Width = 16,
    widths: Widths = (32, 64, 128, 256),
    top_channels: Width = 32,
    latent_channels: Annotated[int, Within(0, MAX_WIDTH)] = 32,
    posterior: Callable[..., keras.layers.Layer] = GaussianPosterior,
    blocks_per_width: Depth = 1,
    upsampling: Callable[..., keras.layers.Layer] = WeightNormConv2DTranspose,
    num_classes: Index = 0,
    call_block: Callable = keep,
) -> HierarchicalVAE:
    """Table 6's net: residual blocks on both sides, latents at each block's own resolution.

    Args:
      image_shape: (H, W, C), sides divisible by 2^(len(widths) - 1).
      stem_width: channels of the first convolution.
      widths: channels of the blocks from the image's resolution up to the top; all but the first halve it.
      top_channels: latent feature maps of the top h, which lies on the smallest map.
      latent_channels: latent feature maps of every block; 0 for the residual GAN.
      posterior: `GaussianPosterior` or `IAFPosterior`.
      blocks_per_width: blocks at each resolution, each with latents of its own.
      upsampling: what doubles the resolution: `WeightNormConv2DTranspose`, the paper's, or `NearestConv2D`.
      num_classes: 0, or the number of classes of a class-conditional model.
      call_block: `keep`, or `rematerialized`, which trades time for memory.
    """
    resolution = divisible_sides(image_shape, len(widths) - 1, "fewer `widths`")
    places = [(i, j) for i in range(len(widths)) for j in range(blocks_per_width)]  # Bottom-up.
    top_down = [
        TopDownBlock(
            widths[i],
            upsample=upsampling if i and not j else None,
            latent_channels=latent_channels,
            posterior=_posterior(posterior, latent_channels, widths[i], num_classes),
            residual=True,
            num_classes=num_classes,
            name=f"top_down_{place}",
        )
        for place, (i, j) in enumerate(reversed(places))
    ]
    bottom_up = [
        BottomUpBlock(
            widths[i],
            downsample=i > 0 and not j,
            latent_channels=latent_channels,
            context_channels=top_down[-1 - place].posterior.context_channels if latent_channels else 0,
            residual=True,
            num_classes=num_classes,
            name=f"bottom_up_{place}",
        )
        for place, (i, j) in enumerate(places)
    ]
    stem = WeightNormConv2D(stem_width, num_classes=num_classes, name="stem")
    top = MapTop(resolution, top_channels, widths[-1], num_classes)
    output = _output(image_shape, num_classes)
    return HierarchicalVAE(image_shape, stem, bottom_up, top, top_down, output, call_block)


def _posterior(factory, latent_channels, width, num_classes):
    if not latent_channels:
        return None
    return factory(latent_channels, width, num_classes=num_classes, name="posterior")


def _output(image_shape, num_classes):
    return WeightNormConv2D(image_shape[-1], init_scale=0.1, num_classes=num_classes, name="output")
