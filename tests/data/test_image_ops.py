"""Exact image arithmetic against TensorFlow's area resize, Python's fractions and PIL."""

import fractions

import numpy as np
import pytest
from PIL import Image

from tf_pivae.data import image_ops
from tf_pivae.errors import UserError


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def exact_area_pixel(image, size, row, column):
    """One output pixel by summing overlaps in rational arithmetic, channel 0."""
    height, width = image.shape[:2]
    total = fractions.Fraction(0)
    area = fractions.Fraction(0)
    top = fractions.Fraction(row * height, size)
    bottom = fractions.Fraction((row + 1) * height, size)
    left = fractions.Fraction(column * width, size)
    right = fractions.Fraction((column + 1) * width, size)
    for y in range(height):
        for x in range(width):
            part = max(0, min(bottom, y + 1) - max(top, y)) * max(0, min(right, x + 1) - max(left, x))
            total = total + part * int(image[y, x, 0])
            area = area + part
    return int(total / area + fractions.Fraction(1, 2))


@pytest.mark.parametrize(("height", "width", "size"), [(7, 7, 3), (10, 6, 4), (5, 5, 8), (9, 9, 9), (1, 1, 4)])
def test_area_resize_is_the_exact_mean(height, width, size):
    image = random_images(height, width, 1)
    resized = image_ops.area_resize(image, size)
    expected = [[exact_area_pixel(image, size, r, c) for c in range(size)] for r in range(size)]
    np.testing.assert_array_equal(resized[..., 0], expected)


@pytest.mark.parametrize(("height", "size"), [(178, 96), (96, 48), (300, 64)])
def test_area_resize_agrees_with_tensorflow(height, size):
    import tensorflow as tf

    images = random_images(2, height, height, 3)
    theirs = tf.image.resize(images, (size, size), method="area").numpy()
    assert np.abs(image_ops.area_resize(images, size) - theirs).max() < 0.501


def test_halving_equals_both_box_downscale_and_means():
    images = random_images(5, 32, 32, 1)
    means = images.reshape(5, 16, 2, 16, 2, 1).astype(np.float64).mean(axis=(2, 4))
    np.testing.assert_array_equal(image_ops.area_resize(images, 16), np.floor(means + 0.5))
    np.testing.assert_array_equal(image_ops.box_downscale(images, 2), np.floor(means + 0.5))
    assert image_ops.box_downscale(random_images(11, 7, 3), 4).shape == (2, 1, 3)


def test_crop_and_pad_are_central():
    image = random_images(9, 6, 3)
    np.testing.assert_array_equal(image_ops.Preprocess(crop="central")(image), image[1:7])
    np.testing.assert_array_equal(image_ops.central_crop(image, 4), image[2:6, 1:5])
    np.testing.assert_array_equal(image_ops.central_crop(image, (3, 6)), image[3:6])
    np.testing.assert_array_equal(image_ops.pad(image, (9, 10)), np.pad(image, ((0, 0), (2, 2), (0, 0))))
    padded = image_ops.pad(random_images(2, 28, 28, 1), 32)
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], random_images(2, 28, 28, 1))
    assert padded.sum() == random_images(2, 28, 28, 1).sum()
    with pytest.raises(UserError, match="cannot crop 7x7 from a 9x6"):
        image_ops.central_crop(image, 7)
    with pytest.raises(UserError, match=r"cannot crop 4x8 from a 9x6 image: use a crop of at most \(4, 6\)"):
        image_ops.central_crop(image, (4, 8))
    with pytest.raises(UserError, match="cannot pad a 9x6 image to 8x8: use pad_to of at least 9"):
        image_ops.pad(image, 8)
    with pytest.raises(UserError, match=r"use pad_to of at least \(9, 8\)"):
        image_ops.pad(image, (8, 8))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (33, 57), (12, 20)])
def test_the_largest_part_of_given_proportions(height, width):
    import tensorflow as tf

    rows, columns = image_ops.largest_part(height, width, (12, 20))
    assert rows <= height
    assert columns <= width
    assert rows == height or columns == width
    assert abs(rows / columns - 12 / 20) < 1 / min(rows, columns)  # to the pixel
    image = random_images(height, width, 3)
    made = image_ops.Preprocess(crop="central", image_size=(12, 20))(image)
    top = (height - rows) // 2
    left = (width - columns) // 2
    part = image[None, top : top + rows, left : left + columns]
    assert np.abs(made - tf.image.resize(part, (12, 20), method="area").numpy()).max() < 0.501


def test_16_bits_become_8():
    np.testing.assert_array_equal(image_ops.to_uint8(np.arange(256, dtype=np.uint16) * 257), np.arange(256))
    np.testing.assert_array_equal(image_ops.to_uint8(np.array([0, 128, 129, 65535], np.uint16)), [0, 0, 1, 255])
    with pytest.raises(UserError, match="float32"):
        image_ops.to_uint8(np.zeros((2, 2, 1), np.float32))


def test_channels_agree_with_pil():
    rgba = random_images(20, 20, 4)
    rgb = rgba[..., :3]
    grey = rgba[..., :1]
    luma = np.asarray(Image.fromarray(rgb).convert("L")).astype(int)
    assert np.abs(image_ops.to_channels(rgb, 1)[..., 0] - luma).max() <= 1
    np.testing.assert_array_equal(image_ops.to_channels(grey, 3), np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(image_ops.to_channels(rgb, 4)[..., 3], 255)
    white = Image.new("RGBA", (20, 20), "white")
    blended = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)))[..., :3].astype(int)
    assert np.abs(image_ops.to_channels(rgba, 3) - blended).max() <= 1


def test_preprocess_order_shape_and_errors():
    preprocess = image_ops.Preprocess(crop=5, pad_to=8, image_size=4, channels=3)
    image = random_images(7, 9, 1)
    by_hand = image_ops.area_resize(np.pad(image[1:6, 2:7], ((1, 2), (1, 2), (0, 0))), 4).repeat(3, -1)
    np.testing.assert_array_equal(preprocess(image), by_hand)
    assert preprocess.output_shape(7, 9, 1) == (4, 4, 3)
    assert image_ops.Preprocess(crop="central").output_shape(7, 9, 1) == (7, 7, 1)
    assert image_ops.Preprocess(crop="central").output_shape(None, None, 3) == (None, None, 3)
    rectangle = image_ops.Preprocess(crop=[4, 6], pad_to=(4, 8))
    assert rectangle.crop == (4, 6)  # A list of gin's and a tuple name one cached data set.
    assert rectangle.output_shape(7, 9, 1) == rectangle(image).shape == (4, 8, 1)
    assert image_ops.Preprocess(crop=(4, 6)).output_shape(None, None, 3) == (4, 6, 3)
    assert image_ops.Preprocess(image_size=(3, 5)).output_shape(7, 9, 1) == (3, 5, 1)
    for wrong in ({"crop": (3, 0)}, {"pad_to": "central"}, {"image_size": (1, 2, 3)}, {"image_size": (True, 2)}):
        with pytest.raises(UserError, match=r"number of pixels from 1 to 8000, or a pair \(H, W\)"):
            image_ops.Preprocess(**wrong)
    for wrong in ({"crop": "left"}, {"crop": 0}, {"pad_to": -1}, {"image_size": 3.5}, {"channels": 5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            image_ops.Preprocess(**wrong)
