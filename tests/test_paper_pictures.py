"""Samples beside the training images that are nearest to them."""

import numpy as np
import pytest

from tf_pivae import figures
from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.paper import pictures

_TILE = 64
_ROW = 66


class _Parrot:
    """Stands in for a class-conditional model that has learnt some training images by heart."""

    num_classes = 3

    def __init__(self, images):
        self.images = images
        self.labels = None

    def sample(self, count, labels):
        self.labels = labels.tolist()
        return self.images[:count]


@pytest.mark.parametrize("num_images", [20, 3])
def test_what_was_learnt_by_heart_stands_beside_its_original(num_images):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 32, [count, 8, 8, 1], np.uint8) for count in (num_images, 9))
    parrot = _Parrot(train[np.arange(8) % num_images])
    data = ImageDataset("made up", ImageSplit(train), ImageSplit(test), num_bins=32)
    picture = pictures.neighbours("T", [("A", parrot)], data)
    assert parrot.labels == [0, 1, 2, 0, 1, 2, 0, 1]
    neighbours = min(4, num_images)  # As many as fit, or as there are.
    left = picture.width - 16 - neighbours * _ROW + 2
    column = np.asarray(picture)[picture.height - 16 - 8 * _ROW + 2 : picture.height - 16]
    samples = column[:, left - figures._NEIGHBOUR_GAP - _TILE : left - figures._NEIGHBOUR_GAP]
    np.testing.assert_array_equal(samples, column[:, left : left + _TILE])
    assert samples[:_TILE, :, 0].max() == 255, "levels are not spread from black to white"
