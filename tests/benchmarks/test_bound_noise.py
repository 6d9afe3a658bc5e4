"""The variance of the bound, by what is drawn again."""

import numpy as np
import pytest

import tf_pivae
from benchmarks.bound_noise import variances
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
