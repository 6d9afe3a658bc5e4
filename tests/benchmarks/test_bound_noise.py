"""The variance of the bound, by what is drawn again."""

import types

import numpy as np
import pytest
import tensorflow as tf

import tf_pivae
from benchmarks.bound_noise import linear_variance, variances
from tf_pivae.noise import RowNoise


def test_each_part_moves_what_it_belongs_to():
    """Images without an edge pixel do not notice the edges' noise, nor black ones that of the others."""
    model = tf_pivae.load("fashion_mnist")
    grey, black = (np.full([2, 28, 28, 1], level, np.uint8) for level in (128, 0))
    inner, edge = (variances(model, images, 3) for images in (grey, black))
    assert inner["edge pixels"] == edge["other pixels"] == 0.0
    assert min(inner["other pixels"], edge["edge pixels"], inner["z"], edge["z"]) > 1e-3


def test_variances_are_those_of_the_bound_itself():
    """Images that are all edge, or have none: then a part of the noise is a `RowNoise`, and draw k has the seed k."""
    model = tf_pivae.load("fashion_mnist")
    for level, pixels in ((128, "other pixels"), (0, "edge pixels")):
        images = np.full([2, 28, 28, 1], level, np.uint8)

        def log_weight(pixels, z, images=images):
            return model.bound_of_features(model.features(images, RowNoise(pixels, 2)), RowNoise(z, 2)).log_prob

        actual = variances(model, images, 3)
        for part, seeds in ((pixels, [(1, 0), (2, 0), (3, 0)]), ("z", [(0, 1), (0, 2), (0, 3)])):
            expected = np.stack([log_weight(*pair) for pair in seeds]).var(0, ddof=1, dtype=np.float64).mean()
            assert actual[part] == pytest.approx(expected, rel=1e-3)


class _Polynomial:
    """Has log w = a . e + b e_0 e_1 + c e_2^2, where u = Phi(e)."""

    num_bins = 256
    a = np.array([1.0, 2.0, 3.0, 4.0], np.float32)

    def features(self, images, noise):
        return tf.math.ndtri(noise.uniform("dequantisation", images.shape[1:]))[:, :, 0, 0]

    def bound_of_features(self, e, noise):
        log_prob = tf.linalg.matvec(e, self.a) + 5.0 * e[:, 0] * e[:, 1] + 2.0 * e[:, 2] ** 2
        return types.SimpleNamespace(log_prob=log_prob)


def test_the_linear_part_of_a_polynomial():
    """Products of two pixels' noise and squares do not count, nor does the pixel that is no edge."""
    images = np.tile(np.array([0, 255, 0, 128], np.uint8).reshape(1, 4, 1, 1), [64, 1, 1, 1])
    # The slopes' means m are 1, 2, 3, their deviations s 5, 5, 4: an error of 2 m s / sqrt(6400) each, 0.41 together.
    assert linear_variance(_Polynomial(), images, 100) == pytest.approx(1.0 + 4.0 + 9.0, abs=3 * 0.41)


def test_grey_images_have_no_linear_part():
    grey = np.full([1, 28, 28, 1], 128, np.uint8)
    assert linear_variance(tf_pivae.load("fashion_mnist"), grey, 2) == 0.0
