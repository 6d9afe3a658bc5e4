"""The variance of the bound, by what is drawn again."""

import numpy as np
import pytest

import tf_pivae
from benchmarks.bound_noise import variances
from tf_pivae.data import bundled


def test_each_part_moves_what_it_belongs_to():
    """Images without an edge pixel do not notice the edges' noise, nor black ones that of the others."""
    model = tf_pivae.load("fashion_mnist")
    grey, black = (np.full([2, 28, 28, 1], level, np.uint8) for level in (128, 0))
    inner, edge = (variances(model, images, 3) for images in (grey, black))
    assert inner["edge pixels"] == edge["other pixels"] == 0.0
    assert min(inner["other pixels"], edge["edge pixels"], inner["z"], edge["z"]) > 1e-3


def test_all_noise_together_is_that_of_the_bound():
    """The parts are most of the variance of `log_weights`, whose every draw is new; what is left are interactions."""
    model = tf_pivae.load("fashion_mnist")
    images = np.pad(bundled(16, num_examples=(1, 8)).test.images, ((0, 0), (6, 6), (6, 6), (0, 0)))
    total = model.log_weights(images, 64).var(1, ddof=1).mean()
    assert sum(variances(model, images, 64).values()) == pytest.approx(total, rel=0.6)
