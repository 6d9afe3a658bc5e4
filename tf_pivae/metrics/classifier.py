"""The small residual network (He et al. 2016, section 4.2) that GAN-train and GAN-test train."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tf_pivae.errors import UserError
from tf_pivae.system.layer_types import float32_layers

STAGE_FILTERS = (16, 32, 64)  # He et al. 2016, table of section 4.2
BATCH_NORM_MOMENTUM = 0.9
POOL_LAYER = "pool"  # the features, for use as a feature network


@float32_layers()
def residual_network(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int,
    pixel_mean: np.ndarray,
    pixel_variance: np.ndarray,
    seed: int,
) -> keras.Model:
    """A ResNet of depth 6n + 2 for small images, with parameter-free shortcuts (option A).

    Args:
      image_shape: (H, W, C).
      pixel_mean, pixel_variance: [C], in pixels; the first layer normalises with them.
      seed: of the initial weights (He et al. 2015).

    Returns:
      A model from float32 [B, H, W, C] in 0..255 to logits [B, num_classes]; its layer 'pool' is [B, 64].

    Raises:
      UserError: a depth that is not 6n + 2 with n >= 1, or fewer than 2 classes.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"a residual network's depth is 6n + 2 (8, 14, 20, 32, ...); got {depth}.")
    if num_classes < 2:
        raise UserError(f"a classifier needs at least 2 classes; got {num_classes}.")
    seeds = np.random.default_rng(seed)

    def convolution(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
        initializer = keras.initializers.HeNormal(seed=int(seeds.integers(2**31)))
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False, kernel_initializer=initializer)(x)
        return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)

    inputs = keras.Input(image_shape)
    x = layers.Normalization(mean=pixel_mean, variance=pixel_variance)(inputs)
    x = layers.ReLU()(convolution(x, STAGE_FILTERS[0]))
    for stage, filters in enumerate(STAGE_FILTERS):
        for block in range((depth - 2) // 6):
            strides = 2 if stage and not block else 1
            shortcut = x
            if strides == 2:  # every other pixel, and zeros for the new channels
                shortcut = shortcut[:, ::2, ::2, :]
                shortcut = keras.ops.pad(shortcut, [[0, 0], [0, 0], [0, 0], [0, filters - shortcut.shape[-1]]])
            y = layers.ReLU()(convolution(x, filters, strides))
            x = layers.ReLU()(layers.Add()([convolution(y, filters), shortcut]))
    x = layers.GlobalAveragePooling2D(name=POOL_LAYER)(x)
    initializer = keras.initializers.HeNormal(seed=int(seeds.integers(2**31)))
    outputs = layers.Dense(num_classes, kernel_initializer=initializer, name="logits")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def augmented(images: np.ndarray, crop_padding: int, flip: bool, random: np.random.Generator) -> np.ndarray:
    """Random crops of images padded with `crop_padding` zeros on each side, and (with `flip`) random left-right flips.

    uint8 [B, H, W, C] -> the same shape, drawn from `random`.
    """
    batch, height, width, _ = images.shape
    if crop_padding:
        pad = [(0, 0), (crop_padding, crop_padding), (crop_padding, crop_padding), (0, 0)]
        offsets = random.integers(0, 2 * crop_padding + 1, size=(2, batch))
        rows = (offsets[0][:, None] + np.arange(height))[:, :, None]
        columns = (offsets[1][:, None] + np.arange(width))[:, None, :]
        images = np.pad(images, pad)[np.arange(batch)[:, None, None], rows, columns]
    if flip:
        flipped = random.random(batch) < 0.5
        images = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    return images
