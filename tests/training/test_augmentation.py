"""Differentiable augmentation beside NumPy, and its derivative."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.noise import RowNoise
from tf_pivae.training import augmentation
from tf_pivae.training.augmentation import DifferentiableAugmentation

SIDE = 16
COUNT = 200
REACH = 2  # An eighth of the side.


def _images(channels=3, count=COUNT):
    images = np.random.default_rng(0).uniform(0.1, 1.0, [count, SIDE, SIDE, channels])  # Never 0, which comes in.
    return tf.constant(images, tf.float32)


def _noise(count=COUNT, first_row=0):
    return RowNoise(5, count, first_row)


def test_brightness_adds_one_number():
    change = (augmentation.brightness(_images(), _noise()) - _images()).numpy().reshape(COUNT, -1)
    assert np.ptp(change, axis=1).max() < 1e-6
    assert -0.5 <= change.min() < -0.45
    assert 0.45 < change.max() < 0.5


def test_saturation_scales_the_distance_to_grey():
    images = _images().numpy()
    result = augmentation.saturation(_images(), _noise()).numpy()
    np.testing.assert_allclose(result.mean(-1), images.mean(-1), atol=1e-5)
    colour, before = (x - x.mean(-1, keepdims=True) for x in (result, images))
    factors = (colour * before).sum((1, 2, 3)) / (before**2).sum((1, 2, 3))
    np.testing.assert_allclose(colour, factors[:, None, None, None] * before, atol=1e-5)
    assert 0.0 <= factors.min() < 0.1
    assert 1.9 < factors.max() < 2.0


def test_contrast_scales_the_distance_to_the_mean():
    images = _images().numpy()
    result = augmentation.contrast(_images(), _noise()).numpy()
    np.testing.assert_allclose(result.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5)
    factors = result.std((1, 2, 3)) / images.std((1, 2, 3))
    mean = images.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(result - mean, factors[:, None, None, None] * (images - mean), atol=1e-5)
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() < 1.5


def test_translation_shifts_each_image_as_a_whole():
    images = _images().numpy()
    result = augmentation.translation(_images(), _noise()).numpy()
    padded = np.pad(images, [[0, 0], [REACH, REACH], [REACH, REACH], [0, 0]])
    shifts = range(2 * REACH + 1)
    results = []
    for before, after in zip(padded, result, strict=True):
        results += [(r, c) for r in shifts for c in shifts if np.array_equal(before[r : r + SIDE, c : c + SIDE], after)]
    assert len(results) == COUNT  # Exactly one shift explains each image ...
    assert len(set(results)) == len(shifts) ** 2  # ... and all of them occur.


def test_cutout_clears_one_square():
    images = _images().numpy()
    result = augmentation.cutout(_images(), _noise()).numpy()
    cleared = (result == 0.0).all(-1)
    np.testing.assert_array_equal(result, np.where(cleared[..., None], 0.0, images))
    sides = []
    for hole in cleared:
        rows = np.flatnonzero(hole.any(1))
        columns = np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns) > 0
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert columns[-1] - columns[0] + 1 == len(columns)
        sides += [len(rows), len(columns)]
    assert max(sides) == SIDE // 2
    assert min(sides) >= SIDE // 4  # The centre stays inside.
    assert cleared.mean(0).min() > 0.05  # It comes everywhere.


@pytest.mark.parametrize(("side", "places"), [(8, 9), (6, 6)])
def test_cutout_hits_opposite_edges_alike(side, places):
    """A hole of 4 pixels has 9 places on 8, one of 3 has 6 on 6: each as likely, whatever is outside cut off."""
    count = 4000
    hole = side // 2
    images = tf.ones([count, side, side, 1])
    cleared = augmentation.cutout(images, RowNoise(3, count)).numpy()[..., 0] == 0.0
    first = np.arange(places)[:, None] - hole // 2
    expected = ((np.arange(side) >= first) & (np.arange(side) < first + hole)).mean(0)
    np.testing.assert_array_equal(expected, expected[::-1])
    for axis in (1, 2):
        actual = cleared.any(axis).mean(0)
        np.testing.assert_allclose(actual, expected, atol=4 * np.sqrt(0.25 / count))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels):
    result = DifferentiableAugmentation()(_images(channels), _noise())
    assert result.shape == [COUNT, SIDE, SIDE, channels]
    assert np.all(np.isfinite(result))
    grey = augmentation.saturation(_images(1), _noise())
    np.testing.assert_allclose(grey, _images(1), atol=1e-6)


def test_noise_belongs_to_the_row():
    """Two halves of a batch, as two replicas have them, get what the whole batch gets; rows differ."""
    images = tf.repeat(_images(count=1), 8, 0)
    whole = DifferentiableAugmentation()(images, _noise(8))
    halves = [DifferentiableAugmentation()(images[:4], _noise(4, first)) for first in (0, 4)]
    np.testing.assert_allclose(whole, tf.concat(halves, 0), rtol=1e-6, atol=1e-6)
    assert len({row.tobytes() for row in whole.numpy()}) == 8


@pytest.mark.parametrize("transformation", augmentation.TRANSFORMATIONS)
def test_derivative(transformation):
    """Each transformation is affine in the image: its increments are its derivative, exactly."""
    x = _images(count=12)
    noise = _noise(12)
    rng = np.random.default_rng(1)
    step, weights = (tf.constant(rng.normal(size=x.shape), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = transformation(x, noise)
    gradient = tape.gradient(y, x, output_gradients=weights)
    increments = transformation(x + step, noise) - y
    by_image = [tf.reduce_sum(a * b, [1, 2, 3]) for a, b in ((gradient, step), (weights, increments))]
    np.testing.assert_allclose(*by_image, rtol=1e-3, atol=1e-3)
    assert np.abs(by_image[0]).min() > 0.01
