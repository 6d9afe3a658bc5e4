"""`.npz` files: round trip, single arrays, large ones, and files that must be refused."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tf_pivae.data import ImageDataset, ImageSplit, cache, npz_images, save_npz
from tf_pivae.errors import UserError


def one_line(error):
    """gin adds a line of its own to errors raised within a configurable; commands print the first."""
    return "\n" not in str(error.value).partition("\n  In call to configurable")[0]


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2500, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 4, 2500)
    names = ("a", "b", "c", "d")
    return ImageDataset(
        "x", ImageSplit(images[:2100], labels[:2100]), ImageSplit(images[2100:], labels[2100:]), 4, names
    )


def assert_same(one, two):
    for a, b in ((one.train, two.train), (one.test, two.test)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert (one.num_classes, one.class_names) == (two.num_classes, two.class_names)


def test_round_trip_in_memory_and_through_the_cache(dataset, tmp_path, monkeypatch):
    save_npz(tmp_path / "x.npz", dataset)
    assert os.listdir(tmp_path) == ["x.npz"]
    loaded = npz_images(tmp_path / "x.npz")
    assert_same(loaded, dataset)
    assert cache.location(loaded) is None
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    mapped = npz_images(tmp_path / "x.npz", cache_dir=tmp_path / "cache")
    assert_same(mapped, dataset)
    assert cache.location(mapped) is not None
    few = npz_images(tmp_path / "x.npz", num_examples=(1500, 10), cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(few.train.images, dataset.train.images[:1500])
    assert len(few.test) == 10


def test_a_single_array_is_split(dataset, tmp_path):
    images = np.concatenate([dataset.train.images, dataset.test.images])
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(2500, dtype=np.int32))
    split = npz_images(tmp_path / "x.npz", test_fraction=0.2)
    assert (len(split.train), len(split.test)) == (2000, 500)
    both = np.concatenate([split.train.labels, split.test.labels])
    np.testing.assert_array_equal(np.sort(both), np.arange(2500))
    np.testing.assert_array_equal(split.test.images, images[split.test.labels])
    assert abs(split.test.labels.mean() - 1250) < 150
    other = npz_images(tmp_path / "x.npz", test_fraction=0.2, seed=1)
    assert not np.array_equal(split.test.labels, other.test.labels)


def test_grey_16_bit_and_preprocessing(tmp_path):
    images = np.arange(6 * 28 * 28, dtype=np.uint16).reshape(6, 28, 28)
    np.savez(tmp_path / "x.npz", train_images=images, test_images=images[:2])
    loaded = npz_images(tmp_path / "x.npz", pad_to=32, channels=3)
    assert loaded.image_shape == (32, 32, 3)
    np.testing.assert_array_equal(loaded.train.images[:, 2:30, 2:30, 1], np.floor(images / 257 + 0.5))


def test_8_bit_pixels_in_16_bits_do_not_become_black(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [6, 8, 8, 1], np.uint16)
    np.savez(tmp_path / "x.npz", images=images)
    with pytest.raises(UserError, match=r"images of .*x\.npz is uint16, .* first 6 images have no pixel above 255"):
        npz_images(tmp_path / "x.npz")
    images[5, 0, 0] = 256  # Dark, but of 16 bits.
    np.savez(tmp_path / "x.npz", images=images)
    assert npz_images(tmp_path / "x.npz").train.images.max() <= 1
    np.savez(tmp_path / "x.npz", images=0 * images)
    assert npz_images(tmp_path / "x.npz").train.images.max() == 0


def test_channels_that_come_first_are_told_where_they_belong(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros([64, 3, 16, 16], np.uint8))
    with pytest.raises(UserError, match=r"\[64, 3, 16, 16\]: channels come last, \[N, H, W, C\]; transpose it"):
        npz_images(tmp_path / "x.npz")


def test_labels_that_begin_at_1_are_warned_of(tmp_path, caplog):
    np.savez(tmp_path / "x.npz", images=np.zeros([64, 8, 8], np.uint8), labels=np.arange(64) % 3 + 1)
    assert npz_images(tmp_path / "x.npz").num_classes == 4
    assert "no image has the label 0, of 4 classes: labels count from 0." in caplog.text


def test_another_file_is_told_what_writes_npz(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros([4, 8, 8], np.uint8))
    with pytest.raises(UserError, match=r"cannot read .*d\.npy: File is not a zip file; NumPy's np\.savez writes"):
        npz_images(tmp_path / "d.npy")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_pickles_are_refused_unexecuted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.zeros((3, 4, 4, 1), np.uint8)
    bomb = np.array([Bomb()] * 3, dtype=object)
    for members in ({"images": bomb}, {"images": images, "labels": bomb}, {"images": images, "class_names": bomb}):
        np.savez("bomb.npz", **members)
        with pytest.raises(UserError, match="pickled Python objects"):
            npz_images("bomb.npz")
    assert os.listdir(tmp_path) == ["bomb.npz"]


def test_bad_files(tmp_path):
    def refused(message, **members):
        np.savez(tmp_path / "x.npz", **members)
        with pytest.raises(UserError, match=message) as error:
            npz_images(tmp_path / "x.npz")
        assert one_line(error)

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    refused("needs train_images and test_images", pictures=images)
    refused("must be uint8", images=images.astype(np.float32))
    refused("must be uint8", images=images[0, 0])
    refused(r"must be integers \[40\]", images=images, labels=np.zeros(3, np.int64))
    refused("at least two", images=images[:1])
    refused("one shape", train_images=images, test_images=images[:, :4, :4])
    with pytest.raises(UserError, match="cannot read"):
        npz_images(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="cannot read"):
        npz_images(tmp_path / "text.npz")
    # One byte of the images flipped: the archive's checksum tells.
    np.savez(tmp_path / "x.npz", images=images)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[4000] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"Bad CRC.*; it is damaged: copy or save it again"):
        npz_images(tmp_path / "x.npz")
    # A member that claims more than it holds.
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive, archive.open("images.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 8, 8, 3)}
        )
        member.write(images.tobytes())
    with pytest.raises(UserError, match="192 MB, in 7,808 bytes"):
        npz_images(tmp_path / "y.npz")


def test_labels_types_and_byte_orders(tmp_path):
    images = np.random.default_rng(0).integers(0, 65536, (40, 8, 8, 3), np.uint16)
    labels = np.arange(40) % 3
    np.savez(tmp_path / "native.npz", images=images, labels=labels)
    np.savez(tmp_path / "other.npz", images=images.astype(">u2"), labels=labels.astype(">i2"))
    assert_same(npz_images(tmp_path / "native.npz"), npz_images(tmp_path / "other.npz"))
    np.savez(tmp_path / "none.npz", images=images, labels=np.full(40, -1))
    assert npz_images(tmp_path / "none.npz").train.labels is None


def test_names_that_steer_a_terminal_are_shown_escaped(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(4), class_names=["a\n", "\x1b[2J", "c", "\u202e"])
    dataset = npz_images(tmp_path / "x.npz")
    assert dataset.class_names[1] == "\x1b[2J"
    assert r"(a\n, \x1b[2J, c, \u202e)" in cache.describe(dataset)


_IN_LITTLE_MEMORY = """
import json, resource, sys
from tf_pivae.data import cache, npz_images
cache.IN_MEMORY_BYTES = 0
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
data = npz_images(sys.argv[1], cache_dir=sys.argv[2])
print(json.dumps([data.train.images.shape, int(data.train.labels.sum()), str(cache.location(data))]))
"""


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_larger_than_memory(save, tmp_path):
    """100 MB, stored or packed, within 64 MB."""
    images = np.broadcast_to((np.arange(10000) % 251).astype(np.uint8)[:, None, None], (10000, 100, 100))
    save(tmp_path / "x.npz", train_images=images, test_images=images[:9], train_labels=np.arange(10000) % 5)
    command = [sys.executable, "-c", _IN_LITTLE_MEMORY, str(tmp_path / "x.npz"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    shape, labels, folder = json.loads(result.stdout)
    assert shape == [10000, 100, 100, 1]
    assert labels == 2 * len(images)
    prepared = np.load(Path(folder) / "train_images.npy", mmap_mode="r", allow_pickle=False)
    assert (prepared[:, 0, 0, 0] == images[:, 0, 0]).all()
    assert (prepared.reshape(-1)[10**6 :: 9973] == images.reshape(-1)[10**6 :: 9973]).all()
    for path in (tmp_path / "x.npz", Path(folder) / "train_images.npy"):  # pytest keeps a test's folder for a while.
        path.unlink()
