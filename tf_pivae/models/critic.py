"""The critics: image -> logit D (sections 4.2 and 5.2, Table 6).

No batch normalisation: it would break the per-sample meaning of the gradient penalty.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tf_pivae.configurable import Depth, Index, Width, Widths, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.convolution import Conv2D, ConvolutionPrecision
from tf_pivae.layers.initialization import Dense
from tf_pivae.layers.spectral_norm import SpectralNorm


class Critic(keras.Model):
    """A trunk, and a linear head with projection conditioning for labels (Miyato & Koyama 2018).

    logit = w . h(v) + b (+ e(label) . h(v) for a class-conditional model).

    Args:
      trunk: a layer, images float32 [B, H, W, C] on [-1, 1] -> features float32 [B, F].
      num_classes: 0, or the number of classes.
      dense: a function that makes a dense layer, `Dense` or one with normalised weights.
    """

    def __init__(
        self,
        trunk: keras.layers.Layer,
        num_classes: int = 0,
        dense: Callable[..., keras.layers.Layer] = Dense,
        name: str = "critic",
    ) -> None:
        super().__init__(name=name)
        self.trunk = trunk
        self.num_classes = num_classes
        self.head = dense(1, name="head")
        self.class_embedding = dense(num_classes, use_bias=False, name="class_embedding") if num_classes else None

    def build(self, image_shape: Sequence[int | None]) -> None:
        """Creates the variables for images of shape (H, W, C)."""
        features = self.trunk(tf.zeros([1, *image_shape[-3:]]))
        self.head(features)
        self.trunk.built = True
        if self.num_classes:
            self.class_embedding(features)
        self.built = True

    def call(self, v: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """v float32 [B, H, W, C] on the [-1, 1] scale, labels int [B] -> logits float32 [B]."""
        features = self.trunk(v)
        logits = self.head(features)[:, 0]
        if self.num_classes:
            logits += tf.gather(self.class_embedding(features), labels, batch_dims=1)
        return logits

    def update_normalization(self) -> None:
        """Updates the running estimates by which layers normalise their weights, where there are such layers."""
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, SpectralNorm) and layer.built:  # A shortcut between equal widths is never built.
                layer.update_normalization()


class _PlainTrunk(Composite):
    """Table 1: pairs of a 3x3 convolution and a 4x4 one with stride 2, leaky ReLU 0.2, flattened."""

    def __init__(self, widths: Sequence[int], conv: Callable[..., keras.layers.Layer], name: str = "trunk") -> None:
        super().__init__(name=name)
        self.precision = ConvolutionPrecision()
        self.convs = []
        for i, width in enumerate(widths):
            self.convs.append(_conv(conv, width, 3, name=f"conv_{i}"))
            if i < len(widths) - 1:
                self.convs.append(_conv(conv, width, 4, strides=2, name=f"down_{i}"))

    def call(self, v: tf.Tensor) -> tf.Tensor:
        h = self.precision.rounded(v)
        for conv in self.convs:
            h = tf.nn.leaky_relu(conv(h), 0.2)
        return tf.reshape(tf.cast(h, tf.float32), [tf.shape(h)[0], h.shape[1] * h.shape[2] * h.shape[3]])


class _ResidualTrunk(Composite):
    """Table 6: conv 3x3, residual blocks, ReLU, average pooling over the map."""

    def __init__(
        self,
        stem_width: int,
        widths: Sequence[int],
        blocks_per_width: int,
        conv: Callable[..., keras.layers.Layer],
        name: str = "trunk",
    ) -> None:
        super().__init__(name=name)
        self.precision = ConvolutionPrecision()
        self.stem = _conv(conv, stem_width, 3, name="stem")
        self.blocks = [
            _ResidualBlock(width, downsample=i > 0 and j == 0, conv=conv, name=f"block_{i}_{j}")
            for i, width in enumerate(widths)
            for j in range(blocks_per_width)
        ]

    def call(self, v: tf.Tensor) -> tf.Tensor:
        h = self.stem(self.precision.rounded(v))
        for block in self.blocks:
            h = block(h)
        return tf.reduce_mean(tf.cast(tf.nn.relu(h), tf.float32), [1, 2])


class _ResidualBlock(Composite):
    def __init__(self, width: int, downsample: bool, conv: Callable[..., keras.layers.Layer], name: str) -> None:
        super().__init__(name=name)
        self.downsample = downsample
        self.width = width
        self.conv_0 = _conv(conv, width, 3, name="conv_0")
        self.conv_1 = _conv(conv, width, 3, name="conv_1")
        self.shortcut = _conv(conv, width, 1, name="shortcut")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        h = self.conv_1(tf.nn.relu(self.conv_0(tf.nn.relu(x))))
        if x.shape[-1] != self.width or self.downsample:
            x = self.shortcut(x)
        if self.downsample:
            h, x = (tf.nn.avg_pool2d(t, 2, 2, "SAME") for t in (h, x))
        return h + x


def _conv(conv, filters, kernel_size, strides=1, name=None):
    return conv(filters, kernel_size, strides, padding="same", kernel_initializer="he_normal", name=name)


@configurable
def plain_critic(
    widths: Widths = (64, 128, 256, 512),
    num_classes: Index = 0,
    conv: Callable[..., keras.layers.Layer] = Conv2D,
    dense: Callable[..., keras.layers.Layer] = Dense,
) -> Critic:
    """Table 1's critic (SNGAN's CIFAR net without spectral normalisation).

    Args:
      widths: feature maps at each resolution, from the image's down to the last.
      num_classes: 0, or the number of classes of a class-conditional model.
      conv, dense: functions that make the layers, such as `SpectralNormConv2D` and `SpectralNormDense`.
    """
    return Critic(_PlainTrunk(widths, conv), num_classes, dense)


@configurable
def residual_critic(
    stem_width: Width = 16,
    widths: Widths = (32, 64, 128, 256),
    blocks_per_width: Depth = 1,
    num_classes: Index = 0,
    conv: Callable[..., keras.layers.Layer] = Conv2D,
    dense: Callable[..., keras.layers.Layer] = Dense,
) -> Critic:
    """Table 6's critic; wider and deeper for `large-D`.

    Args:
      stem_width: channels of the first convolution.
      widths: channels of the residual blocks; all but the first halve the resolution.
      blocks_per_width: residual blocks at each resolution.
      num_classes: 0, or the number of classes of a class-conditional model.
      conv, dense: functions that make the layers, such as `SpectralNormConv2D` and `SpectralNormDense`.
    """
    return Critic(_ResidualTrunk(stem_width, widths, blocks_per_width, conv), num_classes, dense)
