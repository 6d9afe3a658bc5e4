"""Nearest images against SciPy's distances."""

import numpy as np
import pytest
from scipy.spatial import distance

from tf_pivae.data.levels import LookedUpImages
from tf_pivae.metrics import nearest, nearest_images


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("count", [1, 4, 50])
def test_agrees_with_scipy_whatever_the_blocks(block, count, monkeypatch):
    rng = np.random.default_rng(0)
    images, others = (rng.integers(0, 256, [n, 4, 4, 3], np.uint8) for n in (5, 50))
    monkeypatch.setattr(nearest, "_BLOCK_ELEMENTS", block * 48)
    compared = []
    result = nearest_images(images, others, count, compared.append)
    assert result.dtype == np.int64
    distances = distance.cdist(*(x.reshape(len(x), -1).astype(float) for x in (images, others)))
    np.testing.assert_array_equal(result, np.argsort(distances, 1)[:, :count])
    assert sum(compared) == 50
    assert max(compared) <= block


def test_a_difference_of_one_level_decides_and_ties_go_to_the_first(monkeypatch):
    """At a size where float32 could not tell them apart."""
    monkeypatch.setattr(nearest, "_BLOCK_ELEMENTS", 2 * 96 * 96 * 3)
    images = np.full([1, 96, 96, 3], 255, np.uint8)
    others = np.zeros([5, 96, 96, 3], np.uint8)
    others[3, 0, 0, 0] = 1
    assert nearest_images(images, others, 5).tolist() == [[3, 0, 1, 2, 4]]


def test_images_that_are_computed_as_they_are_read():
    levels = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    others = LookedUpImages(levels, np.arange(256, dtype=np.uint8)[::-1])
    assert nearest_images(255 - levels, others).ravel().tolist() == list(range(8))
