"""What a data set refuses."""

import numpy as np
import pytest

from tf_pivae.data import ImageDataset, ImageSplit
from tf_pivae.errors import UserError


def split(count=4, size=8, channels=3, labels=None):
    return ImageSplit(np.zeros((count, size, size, channels), np.uint8), labels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "uint8"),
        (np.zeros((2, 8, 8), np.uint8), r"\[N, H, W, C\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no images"),
        (np.zeros((2, 8, 0, 3), np.uint8), "have pixels, got 8x0"),
        (np.zeros((2, 8, 8, 5), np.uint8), "1 to 4 channels, got 5"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(UserError, match=message):
        ImageSplit(images)


def test_bad_labels_and_pairs():
    with pytest.raises(UserError, match=r"labels must be int64 \[4\]"):
        split(labels=np.zeros(3, np.int64))
    with pytest.raises(UserError, match="one shape"):
        ImageDataset("x", split(), split(channels=1))
    with pytest.raises(UserError, match="no labels"):
        ImageDataset("x", split(), split(), num_classes=3)
    with pytest.raises(UserError, match="from 0 to 3"):
        ImageDataset("x", split(labels=np.arange(4)), split(), num_classes=3)
    with pytest.raises(UserError, match="2 class names for 4"):
        ImageDataset("x", split(labels=np.arange(4)), split(), 4, ("a", "b"))


def test_take_is_a_view():
    dataset = ImageDataset("x", split(labels=np.arange(4)), split(3), 4)
    few = dataset.take((2, None))
    assert (len(few.train), len(few.test), few.num_classes) == (2, 3, 4)
    assert np.shares_memory(few.train.images, dataset.train.images)
    assert dataset.image_shape == (8, 8, 3)
    for wrong in (3, (0, 1), (1, 2, 3), (True, None)):
        with pytest.raises(UserError, match="num_examples"):
            dataset.take(wrong)
