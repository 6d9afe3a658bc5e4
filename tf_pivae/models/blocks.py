"""The layers of the hierarchy (appendix A.1): bottom-up blocks, the top, and those around the latents of `latents`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.layers.composite import Composite
from tf_pivae.layers.weight_norm import WeightNormalized, WeightNormConv2D, WeightNormDense

STATISTICS_INIT_SCALE = 0.1  # Prior and posterior start close to N(0, I) and to each other (IAF's reference value).
RESIDUAL_SCALE = 0.1  # Factor on a residual branch (IAF's reference value).


def _every_pixel_twice(x):
    """[B, H, W, C] -> [B, 2 H, 2 W, C], in fewer operations than `tf.repeat`."""
    height, width, channels = x.shape[1:]
    x = tf.reshape(tf.tile(tf.expand_dims(x, 2), [1, 1, 2, 1, 1]), [-1, 2 * height, width, channels])
    return tf.reshape(tf.tile(tf.expand_dims(x, 3), [1, 1, 1, 2, 1]), [-1, 2 * height, 2 * width, channels])


class Evidence(NamedTuple):
    """The bottom-up part of a block's posterior."""

    mean: tf.Tensor  # [B, H, W, latent_channels]
    log_scale: tf.Tensor  # [B, H, W, latent_channels], before the clamp
    context: tf.Tensor | None  # [B, H, W, context_channels], for the IAF


class Splitter:
    """One convolution that feeds several parts: their channels, their initial scales, and the split.

    Args:
      parts: dict name -> (channels, init_scale); parts of no channels come out as None.
    """

    def __init__(self, **parts: tuple[int, float]) -> None:
        self.names = list(parts)
        self.channels = [channels for channels, _ in parts.values()]
        self.filters = sum(self.channels)
        self.init_scale = np.concatenate([np.full(channels, scale, np.float32) for channels, scale in parts.values()])

    def ranges(self, names: Sequence[str]) -> list[tuple[int, int]] | None:
        """Channel ranges (start, stop) of the named parts, adjacent ones joined; None where they are all channels."""
        stops = np.cumsum(self.channels)
        ranges = []
        for name, channels, stop in zip(self.names, self.channels, stops, strict=True):
            if name not in names or not channels:
                continue
            if ranges and ranges[-1][1] == stop - channels:
                ranges[-1] = (ranges[-1][0], int(stop))
            else:
                ranges.append((int(stop) - channels, int(stop)))
        return None if ranges == [(0, self.filters)] else ranges

    def __call__(self, x: tf.Tensor, names: Sequence[str] | None = None) -> dict[str, tf.Tensor | None]:
        """Parts by name; x has the channels of all parts, or only of those in `names`: the others are then None."""
        sizes = [c if names is None or n in names else 0 for n, c in zip(self.names, self.channels, strict=True)]
        pieces = tf.split(x, sizes, axis=-1)
        return {n: p if c else None for n, c, p in zip(self.names, sizes, pieces, strict=True)}


class BottomUpBlock(Composite):
    """x [B, H, W, I] -> features [B, H / stride, W / stride, filters] and `Evidence` there (None without latents).

    Plain (`residual` False): one convolution, 3x3, or 4x4 with stride 2. Residual: two 3x3 convolutions beside a
    shortcut. An ELU comes before each; but a plain block that does not downsample is the first of the net, and takes
    the stem's output without one.

    Args:
      downsample: bool, halves the resolution.
      latent_channels: 0 for a block whose resolution carries no latents.
      context_channels: how much context the block gives, as the posterior wants it.
    """

    def __init__(
        self,
        filters: int,
        *,
        downsample: bool,
        latent_channels: int,
        context_channels: int,
        residual: bool,
        num_classes: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.residual = residual
        self.downsample = downsample
        self.has_latents = latent_channels > 0
        latents = latent_channels, STATISTICS_INIT_SCALE
        self.splitter = Splitter(
            mean=latents,
            log_scale=latents,
            context=(context_channels if self.has_latents else 0, STATISTICS_INIT_SCALE),
            features=(filters, 1.0),
        )
        strided: dict[str, Any] = dict(strides=2 if downsample else 1, num_classes=num_classes)
        self.conv = WeightNormConv2D(
            self.splitter.filters,
            kernel_size=4 if downsample and not residual else 3,
            init_scale=self.splitter.init_scale,
            name="conv",
            **strided,
        )
        if residual:
            self.residual_conv = WeightNormConv2D(filters, num_classes=num_classes, name="residual_conv")
            self.shortcut = WeightNormConv2D(filters, kernel_size=1, num_classes=num_classes, name="shortcut")

    def call(self, x: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, Evidence | None]:
        first = not (self.residual or self.downsample)
        parts = self.splitter(self.conv(x if first else tf.nn.elu(x), labels=labels))
        features = parts["features"]
        if self.residual:
            branch = self.residual_conv(tf.nn.elu(features), labels=labels)
            shortcut = tf.nn.avg_pool2d(x, 2, 2, "SAME") if self.downsample else x
            if self.downsample or x.shape[-1] != branch.shape[-1]:
                shortcut = self.shortcut(shortcut, labels=labels)
            features = shortcut + RESIDUAL_SCALE * branch
        evidence = Evidence(parts["mean"], parts["log_scale"], parts["context"]) if self.has_latents else None
        return features, evidence


# The parts of a top-down block that sampling needs; the others serve the posterior.
GENERATIVE_PARTS = ("prior_mean", "prior_log_scale", "features")


class TopDownLayers(Composite):
    """The layers between the features from above and those below, with room for the latents of this block.

    Plain (`residual` False; Table 1): the layer that doubles the resolution; some of its feature maps are the latents.
    Residual (Table 6): a 3x3 convolution at the incoming resolution, latents there, then a 3x3 convolution or the layer
    that doubles the resolution beside a shortcut.

    Args:
      filters: int.
      upsample: None, or a function that makes the layer which doubles the resolution, `WeightNormConv2DTranspose` (a
        4x4 deconvolution) or `NearestConv2D`.
      latent_channels: number of latent feature maps (32 in the paper), 0 for none.
      posterior: a layer from `tf_pivae.models.latents`, None without latents.
    """

    def __init__(
        self,
        filters: int,
        *,
        upsample: Callable[..., WeightNormalized] | None,
        latent_channels: int,
        posterior: keras.layers.Layer | None,
        residual: bool,
        num_classes: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.residual = residual
        self.upsample = upsample is not None
        self.latent_channels = latent_channels
        self.posterior = posterior
        latents = latent_channels, STATISTICS_INIT_SCALE
        # A plain block's latents take the place of feature maps; a residual block's stand beside them.
        deterministic = filters if residual else filters - latent_channels
        if deterministic <= 0:
            raise ValueError(f"a plain block of {filters} maps cannot use {latent_channels} of them for latents.")
        self.splitter = Splitter(
            prior_mean=latents,
            prior_log_scale=latents,
            posterior_mean=latents,
            posterior_log_scale=latents,
            context=(posterior.context_channels if latent_channels else 0, STATISTICS_INIT_SCALE),
            features=(deterministic, 1.0),
        )
        options: dict[str, Any] = dict(num_classes=num_classes)
        widen = upsample or WeightNormConv2D
        first = WeightNormConv2D if residual else widen
        self.conv = first(self.splitter.filters, init_scale=self.splitter.init_scale, name="conv", **options)
        if residual:
            self.residual_conv = widen(filters, name="residual_conv", **options)
            self.shortcut = WeightNormConv2D(filters, kernel_size=1, name="shortcut", **options)

    def parts(
        self, x: tf.Tensor, labels: tf.Tensor | None, *, latents_given: bool, with_posterior: bool
    ) -> dict[str, tf.Tensor | None]:
        """The top-down features by name; only those that are needed are computed, the others are None.

        Args:
          x: float32 [B, H, W, I].
          labels: int [B] for a class-conditional model.
          latents_given: z is given, so that neither prior nor posterior is needed.
          with_posterior: z is drawn from the posterior, so that all are needed.
        """
        names = None if with_posterior else ("features",) if latents_given else GENERATIVE_PARTS
        channels = None if names is None else self.splitter.ranges(names)
        return self.splitter(self.conv(tf.nn.elu(x), labels=labels, channels=channels), names)

    def next_features(self, x: tf.Tensor, features: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """What the next block sees, from this one's input and its features with the latents beside them."""
        if not self.residual:
            return features
        branch = self.residual_conv(tf.nn.elu(features), labels=labels)
        shortcut = self.shortcut(x, labels=labels) if x.shape[-1] != branch.shape[-1] else x
        if self.upsample:
            shortcut = _every_pixel_twice(shortcut)
        return shortcut + RESIDUAL_SCALE * branch


class VectorTop(Composite):
    """The top of Table 1's nets: h ~ N(0, I) in R^d, dense to a [H, W, filters] map."""

    def __init__(
        self,
        resolution: tuple[int, int],
        latent_channels: int,
        filters: int,
        num_classes: int = 0,
        name: str = "top",
    ) -> None:
        super().__init__(name=name)
        self.latent_shape = (latent_channels,)
        self._map_shape = (resolution[0], resolution[1], filters)
        self.posterior_layer = WeightNormDense(
            2 * latent_channels, init_scale=STATISTICS_INIT_SCALE, num_classes=num_classes, name="posterior"
        )
        self.decoder_layer = WeightNormDense(int(np.prod(self._map_shape)), num_classes=num_classes, name="decoder")

    def statistics(self, features: tf.Tensor, labels: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Mean and log-scale (before the clamp) of q(h|y), [B, d], from [B, H, W, I] of the bottom-up pass."""
        flat = tf.reshape(tf.nn.elu(features), [-1, int(np.prod(features.shape[1:]))])
        return tf.split(self.posterior_layer(flat, labels=labels), 2, axis=-1)

    def decode(self, h: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """h [B, d] -> features [B, H, W, filters]."""
        return tf.reshape(self.decoder_layer(h, labels=labels), [-1, *self._map_shape])


class MapTop(Composite):
    """The top of Table 6's nets: h ~ N(0, I) on a map [H, W, latent_channels], a 3x3 convolution to the features."""

    def __init__(
        self,
        resolution: tuple[int, int],
        latent_channels: int,
        filters: int,
        num_classes: int = 0,
        name: str = "top",
    ) -> None:
        super().__init__(name=name)
        self.latent_shape = (*resolution, latent_channels)
        self.posterior_layer = WeightNormConv2D(
            2 * latent_channels, init_scale=STATISTICS_INIT_SCALE, num_classes=num_classes, name="posterior"
        )
        self.decoder_layer = WeightNormConv2D(filters, num_classes=num_classes, name="decoder")

    def statistics(self, features: tf.Tensor, labels: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Mean and log-scale (before the clamp) of q(h|y), [B, H, W, latent_channels], of the bottom-up features."""
        return tf.split(self.posterior_layer(tf.nn.elu(features), labels=labels), 2, axis=-1)

    def decode(self, h: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """h [B, H, W, latent_channels] -> features [B, H, W, filters]."""
        return self.decoder_layer(h, labels=labels)
