"""Names and shapes of the FID Inception network's weights (the graph `inception-2015-12-05`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tf_pivae.errors import UserError

NAME = "inception-2015-12-05"
FAST_NAME = f"{NAME} with bfloat16 convolutions"  # its features are others: a network of its own
FEATURE_DIM = 2048
NUM_LOGITS = 1008  # 1000 ImageNet classes and 8 unused outputs; the Inception Score takes the softmax of all
BATCH_NORM_EPSILON = 1e-3


def _table() -> dict[str, tuple[int, int, int, int]]:
    """Convolution name in the graph -> kernel shape (height, width, input channels, output channels)."""
    shapes = {
        "conv": (3, 3, 3, 32),
        "conv_1": (3, 3, 32, 32),
        "conv_2": (3, 3, 32, 64),
        "conv_3": (1, 1, 64, 80),
        "conv_4": (3, 3, 80, 192),
    }

    def chain(prefix: str, channels: int, *convolutions: tuple[int, int, int]) -> None:
        for index, (height, width, filters) in enumerate(convolutions):
            shapes[f"{prefix}/conv{f'_{index}' if index else ''}"] = (height, width, channels, filters)
            channels = filters

    for block, channels, pooled in (("mixed", 192, 32), ("mixed_1", 256, 64), ("mixed_2", 288, 64)):
        chain(block, channels, (1, 1, 64))
        chain(f"{block}/tower", channels, (1, 1, 48), (5, 5, 64))
        chain(f"{block}/tower_1", channels, (1, 1, 64), (3, 3, 96), (3, 3, 96))
        chain(f"{block}/tower_2", channels, (1, 1, pooled))
    chain("mixed_3", 288, (3, 3, 384))
    chain("mixed_3/tower", 288, (1, 1, 64), (3, 3, 96), (3, 3, 96))
    for block, width in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
        chain(block, 768, (1, 1, 192))
        chain(f"{block}/tower", 768, (1, 1, width), (1, 7, width), (7, 1, 192))
        chain(f"{block}/tower_1", 768, (1, 1, width), (7, 1, width), (1, 7, width), (7, 1, width), (1, 7, 192))
        chain(f"{block}/tower_2", 768, (1, 1, 192))
    chain("mixed_8/tower", 768, (1, 1, 192), (3, 3, 320))
    chain("mixed_8/tower_1", 768, (1, 1, 192), (1, 7, 192), (7, 1, 192), (3, 3, 192))
    for block, channels in (("mixed_9", 1280), ("mixed_10", 2048)):
        chain(block, channels, (1, 1, 320))
        chain(f"{block}/tower", channels, (1, 1, 384))
        chain(f"{block}/tower_1", channels, (1, 1, 448), (3, 3, 384))
        for tower in ("tower", "tower_1"):  # a 1x3 and a 3x1 convolution side by side
            shapes[f"{block}/{tower}/mixed/conv"] = (1, 3, 384, 384)
            shapes[f"{block}/{tower}/mixed/conv_1"] = (3, 1, 384, 384)
        chain(f"{block}/tower_2", channels, (1, 1, 192))
    return shapes


KERNEL_SHAPES = _table()  # 94 convolutions


class ConvolutionWeights(NamedTuple):
    """A convolution and the batch normalisation behind it, float32."""

    kernel: np.ndarray  # [height, width, input channels, output channels]
    gamma: np.ndarray  # [output channels]; ones where the file has none
    beta: np.ndarray  # [output channels]
    mean: np.ndarray  # [output channels]
    variance: np.ndarray  # [output channels]

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 kernel and bias of the one convolution that does both: k s and beta - mean s, s = gamma / std."""
        scale = self.gamma.astype(np.float64) / np.sqrt(self.variance.astype(np.float64) + BATCH_NORM_EPSILON)
        bias = self.beta.astype(np.float64) - self.mean * scale
        return (self.kernel * scale).astype(np.float32), bias.astype(np.float32)


class InceptionWeights(NamedTuple):
    """All weights of the network, and the file they came from."""

    convolutions: dict[str, ConvolutionWeights]  # the keys of KERNEL_SHAPES
    softmax: tuple[np.ndarray, np.ndarray] | None  # ([2048, 1008], [1008]) float32, or None: no logits in the file
    checksum: str  # SHA-256 of the file, hexadecimal
    source: str  # the file's path


def verified(weights: InceptionWeights) -> InceptionWeights:
    """`weights` themselves. Raises UserError unless every array is there, finite and of the graph's shape."""
    for name, shape in KERNEL_SHAPES.items():
        if name not in weights.convolutions:
            raise UserError(f"{weights.source} has no convolution '{name}': it is not the {NAME} network.")
        convolution = weights.convolutions[name]
        for field, array in zip(convolution._fields, convolution, strict=True):
            _verify(array, shape if field == "kernel" else shape[-1:], f"{name}/{field}", weights.source)
        if (convolution.variance < 0).any():
            raise UserError(f"{weights.source}: the variances of '{name}' are negative: the file is damaged.")
    if weights.softmax is not None:
        _verify(weights.softmax[0], (FEATURE_DIM, NUM_LOGITS), "softmax/weights", weights.source)
        _verify(weights.softmax[1], (NUM_LOGITS,), "softmax/biases", weights.source)
    return weights


def _verify(array: np.ndarray, shape: tuple[int, ...], name: str, source: str) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise UserError(f"{source}: '{name}' is {array.dtype} {array.shape}, where {NAME} has float32 {shape}.")
    if not np.isfinite(array).all():
        raise UserError(f"{source}: '{name}' holds NaN or infinity: the file is damaged.")
