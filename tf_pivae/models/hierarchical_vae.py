"""The nets of Table 1 and of Table 6 as hierarchies of latents (section 5.2, appendices A.1 and A.4)."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_pivae.arguments import divisible_sides
from tf_pivae.configurable import MAX_WIDTH, Depth, Index, Width, Widths, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.rematerialization import keep
from tf_pivae.layers.weight_norm import WeightNormConv2D, WeightNormConv2DTranspose
from tf_pivae.models.blocks import RESIDUAL_SCALE, BottomUpBlock, MapTop, VectorTop
from tf_pivae.models.latents import GaussianPosterior, HierarchicalVAE, TopDownBlock
from tf_pivae.values import Within


@configurable
class RawInput(Composite):
    """The first block sees y as it is."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)

    def call(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        return y


@configurable
class EluInput(Composite):
    """The first block sees elu(y), where dark pixels hardly differ.

    docs/results.md says which results were trained so.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)

    def call(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        return tf.nn.elu(y)


@configurable
class ResidualInput(Composite):
    """The first block sees y beside features of it: a 3x3 convolution, then residual blocks of two.

    By itself the first block of the plain encoder is one convolution, so that what it adds to q's statistics at the
    image's resolution is linear in the nine pixels of y around a latent. The features are q's alone: no sample depends
    on them.

    Args:
      width: channels of the features.
      num_blocks: residual blocks; the features at a pixel depend on pixels at most 1 + 2 num_blocks rows away.
    """

    def __init__(self, width: Width = 32, num_blocks: Index = 2, name: str | None = None) -> None:
        super().__init__(name=name)
        self.input_conv = WeightNormConv2D(width, name="input_conv")
        self.blocks = [
            [WeightNormConv2D(width, name=f"block_{i}_conv_{j}") for j in range(2)] for i in range(num_blocks)
        ]

    def call(self, y: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """y float32 [B, H, W, C] -> [B, H, W, C + width]; `labels` are not used."""
        y = tf.identity(y)  # One use of y for two here: TensorFlow adds up three gradients in no fixed order.
        h = self.input_conv(y)
        for conv_0, conv_1 in self.blocks:
            h += RESIDUAL_SCALE * conv_1(tf.nn.elu(conv_0(tf.nn.elu(h))))
        return tf.concat([y, tf.nn.elu(h)], -1)


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
    """Table 1's net: dense, stride-2 deconvolutions, conv 3x3; the encoder mirrors it (section 5.2).

    Args:
      image_shape: (H, W, C), sides divisible by 2^(len(widths) - 1).
      widths: feature maps from the image's resolution up to the top.
      top_channels: dimension of the top noise vector.
      latent_channels: latent feature maps in every decoder block; 0 for the GAN, which reads only the top noise.
      posterior: `GaussianPosterior` or `IAFPosterior`.
      stem: what the first block sees: `RawInput`, `EluInput` or `ResidualInput`.
      upsampling: what doubles the resolution: `WeightNormConv2DTranspose`, the paper's, or `NearestConv2D`.
      num_classes: 0, or the number of classes of a class-conditional model.
      call_block: `keep`, or `rematerialized`, which trades time for memory.
    """
    up = [(width, i > 0) for i, width in enumerate(widths)]
    down = [(width, True) for width in widths[:-1]]
    top = functools.partial(
        VectorTop,
        divisible_sides(image_shape, len(widths) - 1, "fewer `widths`"),
        top_channels,
        widths[-1],
        num_classes,
    )
    return _hierarchy(
        image_shape,
        up=up,
        down=down,
        stem=stem,
        top=top,
        residual=False,
        latent_channels=latent_channels,
        posterior=posterior,
        upsampling=upsampling,
        num_classes=num_classes,
        call_block=call_block,
    )


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
    blocks = [(width, i > 0 and not j) for i, width in enumerate(widths) for j in range(blocks_per_width)]
    stem = functools.partial(WeightNormConv2D, stem_width, num_classes=num_classes)
    top = functools.partial(
        MapTop, divisible_sides(image_shape, len(widths) - 1, "fewer `widths`"), top_channels, widths[-1], num_classes
    )
    return _hierarchy(
        image_shape,
        up=blocks,
        down=blocks,
        stem=stem,
        top=top,
        residual=True,
        latent_channels=latent_channels,
        posterior=posterior,
        upsampling=upsampling,
        num_classes=num_classes,
        call_block=call_block,
    )


def _hierarchy(
    image_shape: Sequence[int],
    *,
    up: Sequence[tuple[int, bool]],
    down: Sequence[tuple[int, bool]],
    stem: Callable[..., keras.layers.Layer],
    top: Callable[[], VectorTop | MapTop],
    residual: bool,
    latent_channels: int,
    posterior: Callable[..., keras.layers.Layer],
    upsampling: Callable[..., keras.layers.Layer],
    num_classes: int,
    call_block: Callable,
) -> HierarchicalVAE:
    """Puts the hierarchy together.

    Args:
      up, down: of each bottom-up and top-down block, its width and whether it changes the resolution; both lists
        start at the image. Blocks at the same place share a group of latents.
      stem, top, residual: the kind of net.
    """
    shared: dict[str, Any] = dict(latent_channels=latent_channels, residual=residual, num_classes=num_classes)
    top_down = [
        TopDownBlock(
            width,
            upsample=upsampling if doubles else None,
            posterior=posterior(latent_channels, width, num_classes=num_classes, name="posterior")
            if latent_channels
            else None,
            name=f"top_down_{i}",
            **shared,
        )
        for i, (width, doubles) in enumerate(reversed(down))
    ]
    contexts = [block.posterior.context_channels if latent_channels else 0 for block in reversed(top_down)]
    bottom_up = [
        BottomUpBlock(
            width,
            downsample=halves,
            context_channels=contexts[i] if i < len(contexts) else 0,
            name=f"bottom_up_{i}",
            **(shared if i < len(contexts) else shared | {"latent_channels": 0}),
        )
        for i, (width, halves) in enumerate(up)
    ]
    stem_layer = stem(name="stem")
    top_layer = top()
    output = WeightNormConv2D(image_shape[-1], init_scale=0.1, num_classes=num_classes, name="output")
    return HierarchicalVAE(image_shape, stem_layer, bottom_up, top_layer, top_down, output, call_block)
