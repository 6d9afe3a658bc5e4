"""Differentiable augmentation of what the critic sees, for small data sets (Zhao et al. 2020).

Real and fake images pass through the same random transformations before the critic, which then cannot learn its few
real images by heart; the generator's gradient flows back through them. A transformation is a function

    (images, noise) -> images     float32 [B, H, W, C] on the [-1, 1] scale, any C; noise a `RowNoise` of B rows

and draws its numbers by image, so that a step does not depend on the number of replicas. Ranges are the paper's.
"""

from collections.abc import Callable

import tensorflow as tf

from tf_pivae.configurable import configurable
from tf_pivae.noise import RowNoise

_SHIFT = 1 / 8  # of an image's side
_HOLE = 1 / 2  # of an image's side


@configurable(module="augmentation")
def brightness(images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
    """Adds one number of U[-1/2, 1/2) to all of an image."""
    return images + (noise.uniform("brightness", [1, 1, 1]) - 0.5)


@configurable(module="augmentation")
def saturation(images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
    """Scales an image's distance to its own grey by U[0, 2); changes nothing in a grey image."""
    grey = tf.reduce_mean(images, -1, keepdims=True)
    return grey + 2.0 * noise.uniform("saturation", [1, 1, 1]) * (images - grey)


@configurable(module="augmentation")
def contrast(images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
    """Scales an image's distance to its mean by U[1/2, 3/2)."""
    mean = tf.reduce_mean(images, [1, 2, 3], keepdims=True)
    return mean + (0.5 + noise.uniform("contrast", [1, 1, 1])) * (images - mean)


@configurable(module="augmentation")
def translation(images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
    """Shifts an image by up to an eighth of its side each way; zeros (mid-grey) come in."""
    _, height, width, _ = images.shape
    for axis, side in ((1, height), (2, width)):
        reach = int(side * _SHIFT + 0.5)
        shift = tf.cast((2 * reach + 1) * noise.uniform(f"translation/{axis}", []), tf.int32)  # 0 ... 2 reach
        padding = [[0, 0]] * axis + [[reach, reach]] + [[0, 0]] * (3 - axis)
        images = tf.gather(tf.pad(images, padding), shift[:, None] + tf.range(side), axis=axis, batch_dims=1)
    return images


@configurable(module="augmentation")
def cutout(images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
    """Sets a square of half the side to zero, its centre anywhere in the image; both edges are as likely."""
    _, height, width, _ = images.shape
    inside = []
    for axis, side in ((1, height), (2, width)):
        hole = int(side * _HOLE + 0.5)
        places = side + 1 - hole % 2  # An even hole's centre is between pixels.
        first = tf.cast(places * noise.uniform(f"cutout/{axis}", []), tf.int32) - hole // 2
        offset = tf.range(side) - first[:, None]
        inside.append((offset >= 0) & (offset < hole))  # [B, side]
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(hole[..., None], 0.0, images)


TRANSFORMATIONS = (brightness, saturation, contrast, translation, cutout)


@configurable
class DifferentiableAugmentation:
    """One transformation after the other.

    Args:
      transformations: functions as described above; by default all of them: colour, translation, cutout.
    """

    def __init__(self, transformations: tuple[Callable[..., tf.Tensor], ...] = TRANSFORMATIONS) -> None:
        self.transformations = transformations

    def __call__(self, images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
        """float32 [B, H, W, C] on the [-1, 1] scale -> the same shape; values may leave [-1, 1]."""
        for transformation in self.transformations:
            images = transformation(images, noise)
        return images
