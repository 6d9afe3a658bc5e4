"""Fewer levels: exact, lazy, and carried along."""

import numpy as np
import pytest

from tf_pivae.data import ImageDataset, ImageSplit, bundled, cache, npz_images, save_npz, train_batches
from tf_pivae.data.levels import LookedUpImages, reduced_levels
from tf_pivae.errors import UserError


def _data(images=None):
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, [40, 8, 8, 3], np.uint8)
    labels = np.arange(len(images)) % 3
    return ImageDataset("random", ImageSplit(images, labels), ImageSplit(images[:7], labels[:7]), 3)


@pytest.mark.parametrize(("num_bins", "shift"), [(32, 3), (2, 7), (128, 1)])
def test_powers_of_two_keep_the_upper_bits(num_bins, shift):
    data = _data()
    reduced = reduced_levels(_data, num_bins)
    np.testing.assert_array_equal(np.asarray(reduced.train.images), data.train.images >> shift)
    np.testing.assert_array_equal(np.asarray(reduced.test.images), data.test.images >> shift)
    assert reduced.num_bins == num_bins
    assert reduced.num_classes == 3
    np.testing.assert_array_equal(reduced.train.labels, data.train.labels)


def test_any_number_of_levels_has_bins_of_almost_equal_width():
    every_level = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for num_bins in (3, 10, 100, 255):
        reduced = np.asarray(reduced_levels(lambda: _data(every_level), num_bins).train.images).ravel()
        assert (np.diff(reduced.astype(int)) >= 0).all()
        widths = np.bincount(reduced)
        assert len(widths) == num_bins
        assert widths.max() - widths.min() <= 1


def test_batches_of_every_kind_are_reduced():
    data = _data()
    reduced = reduced_levels(_data)
    for flip in (False, True):
        streams = [
            train_batches(split, 8, seed=3, flip=flip, with_labels=True).take(3).as_numpy_iterator()
            for split in (data.train, reduced.train)
        ]
        for (images, labels), (fewer, same_labels) in zip(*streams, strict=True):
            np.testing.assert_array_equal(fewer, images >> 3)
            np.testing.assert_array_equal(same_labels, labels)
    np.testing.assert_array_equal(np.asarray(reduced.test.images), data.test.images >> 3)
    cut = reduced.take((5, 2))
    assert cut.num_bins == 32
    np.testing.assert_array_equal(np.asarray(cut.train.images), data.train.images[:5] >> 3)


def test_a_memory_map_is_read_only_where_it_is_wanted(tmp_path):
    images = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (1000, 4, 4, 1))
    images[:] = 255
    touched = []

    class Watched:
        shape = images.shape
        nbytes = images.nbytes

        def __getitem__(self, index):
            touched.append(index)
            return images[index]

    lazy = LookedUpImages(Watched(), (np.arange(256) // 8).astype(np.uint8))
    assert lazy[10:20].shape == (10, 4, 4, 1)
    assert (np.asarray(lazy[10:20]) == 31).all()
    assert (lazy[np.array([1, 999])] == 31).all()
    assert lazy[3].shape == (4, 4, 1)
    assert len(touched) == 4
    assert all(index == slice(10, 20) for index in touched[:2])


def test_a_prepared_data_set_stays_where_it_is(tmp_path):
    save_npz(tmp_path / "x.npz", _data())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_pivae.data.cache.IN_MEMORY_BYTES", 100)
        data = npz_images(tmp_path / "x.npz", cache_dir=tmp_path)
    reduced = reduced_levels(lambda: data)
    assert cache.location(reduced) == cache.location(data) is not None
    assert "32 levels" in cache.describe(reduced)


def test_levels_survive_a_file(tmp_path):
    reduced = reduced_levels(_data)
    save_npz(tmp_path / "x.npz", reduced)
    loaded = npz_images(tmp_path / "x.npz")
    assert loaded.num_bins == 32
    np.testing.assert_array_equal(loaded.train.images, np.asarray(reduced.train.images))
    np.savez(tmp_path / "y.npz", images=_data().train.images, num_bins=32)
    with pytest.raises(UserError, match="beyond 31"):
        npz_images(tmp_path / "y.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs a data set"),
        ((bundled, 256), "2 to 255"),
        ((bundled, 1), "2 to 255"),
        ((bundled, 32.0), "2 to 255"),
        ((lambda: reduced_levels(bundled), 16), "has 32 levels already"),
    ],
)
def test_refusals_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        reduced_levels(*arguments)
