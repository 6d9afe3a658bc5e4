"""Files become images as those of the run did, or are refused with a reason."""

import numpy as np
import pytest

from tf_pivae import loading
from tf_pivae.configuration import Snapshot
from tf_pivae.data import image_ops
from tf_pivae.data.image_files import UnusableImage
from tf_pivae.uses.preparation import preparation


def prepared(shape, *parameters, num_bins=256):
    """The preparation of a configuration of these bindings."""
    loading.parse_gin(["demo.gin"], parameters)
    return preparation(shape, num_bins, Snapshot())


def pixels(height, width, channels=1):
    return np.random.default_rng(height).integers(0, 256, [height, width, channels], np.uint8)


def test_bundled_images_are_padded_and_halved():
    make = prepared((16, 16, 1), "bundled.image_size=16")
    raw = pixels(28, 28)
    padded = np.pad(raw[..., 0].astype(int), 2)
    means = padded.reshape(16, 2, 16, 2).sum((1, 3))
    np.testing.assert_array_equal(make(raw)[..., 0], (means + 2) // 4)
    with pytest.raises(UnusableImage, match="cannot pad a 40x40 image to 32x32"):
        make(pixels(40, 40))


@pytest.mark.parametrize("source", ["npz_images", "idx_images", "tfds_images"])
def test_settings_of_a_source_are_those_of_its_images(source):
    make = prepared(
        (8, 8, 3), f"train.dataset=@{source}", f"{source}.crop=20", f"{source}.image_size=8", f"{source}.channels=3"
    )
    raw = pixels(30, 24, 3)
    np.testing.assert_array_equal(make(raw), image_ops.area_resize(raw[5:25, 2:22], 8))
    grey = make(pixels(30, 24))
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    with pytest.raises(UnusableImage, match="cannot crop 20x20 from a 12x30"):
        make(pixels(12, 30))


def test_folders_give_their_central_squares():
    make = prepared((8, 8, 1), "train.dataset=@image_folder", "image_folder.image_size=8")
    raw = pixels(24, 16)
    np.testing.assert_array_equal(make(raw), image_ops.area_resize(raw[4:20], 8))
    with pytest.raises(UnusableImage, match="7x20 is smaller than 8x8"):
        make(pixels(7, 20))


def test_images_as_they_are():
    make = prepared((12, 20, 1), "train.dataset=@image_folder", "image_folder.image_size=(12, 20)")
    raw = pixels(40, 50)
    np.testing.assert_array_equal(make(raw), image_ops.area_resize(raw[5:35], (12, 20)))
    with pytest.raises(UnusableImage, match="30x19 is smaller than 12x20"):
        make(pixels(30, 19))
    bindings = "train.dataset=@image_folder", "image_folder.crop=None", "image_folder.pad_to=(12, 20)"
    make = prepared((12, 20, 1), *bindings)
    np.testing.assert_array_equal(make(pixels(10, 17)), np.pad(pixels(10, 17), ((1, 1), (1, 2), (0, 0))))
    with pytest.raises(UnusableImage, match="cannot pad a 13x20 image to 12x20"):
        make(pixels(13, 20))


def test_what_was_cut_into_tiles_takes_tiles_alone():
    make = prepared((8, 8, 1), "train.dataset=@image_folder", "image_folder.image_size=8", "image_folder.crop='tiles'")
    np.testing.assert_array_equal(make(pixels(8, 8)), pixels(8, 8))
    with pytest.raises(UnusableImage, match="16x8, where the model takes 8x8"):
        make(pixels(16, 8))


def test_an_image_of_the_models_size_is_taken_as_it_is():
    """So that a sample of a model that halves its images is scored as the image that it is."""
    make = prepared((16, 16, 1), "bundled.image_size=16")
    np.testing.assert_array_equal(make(pixels(16, 16)), pixels(16, 16))


def test_levels():
    make = prepared((16, 16, 1), "train.dataset=@reduced_levels", "reduced_levels.dataset=@bundled", num_bins=32)
    np.testing.assert_array_equal(make(pixels(16, 16)), pixels(16, 16) >> 3)
    np.testing.assert_array_equal(make(pixels(16, 16) >> 3, 32), pixels(16, 16) >> 3)
    assert make(pixels(28, 28)).max() < 32
    with pytest.raises(UnusableImage, match="pixels beyond 31"):
        make(pixels(16, 16), 32)
    with pytest.raises(UnusableImage, match="64 levels, where the model takes 32"):
        make(pixels(16, 16), 64)
