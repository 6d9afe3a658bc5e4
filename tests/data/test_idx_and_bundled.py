"""IDX files against an independent parse, and the bundled subset against the files it comes from."""

import gzip
import hashlib
import pathlib
import struct
import time

import numpy as np
import pytest
from isolation import FASHION_MNIST

from tf_pivae.data import bundled, idx_images, npz_images
from tf_pivae.data import bundled as bundled_function
from tf_pivae.data.bundled import CLASS_NAMES, make_fashion_mnist
from tf_pivae.errors import UserError

NPZ = pathlib.Path(make_fashion_mnist.__file__).with_name("fashion_mnist.npz")
SHA256 = "5788997e4500d29498301d09480df75fdfbf25d5795bc6bc7a73ab3de5d329a2"


@pytest.fixture
def complete():
    """Folder of the complete Fashion-MNIST, which is read where somebody asks for it."""
    if not FASHION_MNIST:
        pytest.skip("FASHION_MNIST does not name the folder of the complete data set (see CONTRIBUTING.md)")
    return pathlib.Path(FASHION_MNIST)


def write_idx(path, array, code=8):
    data = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "wb") as file:
        file.write(data)
    return path


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"train": rng.integers(0, 256, (6, 28, 28), np.uint8), "test": rng.integers(0, 256, (3, 28, 28), np.uint8)}
    paths = {}
    for name, images in arrays.items():
        paths[f"{name}_images"] = write_idx(tmp_path / f"{name}.gz", images)
        paths[f"{name}_labels"] = write_idx(tmp_path / f"{name}-labels", np.arange(len(images), dtype=np.uint8))
    return arrays, paths


def test_idx_plain_and_gzipped(files):
    arrays, paths = files
    dataset = idx_images(**paths, pad_to=32)
    assert dataset.image_shape == (32, 32, 1)
    assert dataset.num_classes == 6
    np.testing.assert_array_equal(dataset.train.images[:, 2:30, 2:30, 0], arrays["train"])
    np.testing.assert_array_equal(dataset.test.labels, [0, 1, 2])
    few = idx_images(**paths, pad_to=32, image_size=16, num_examples=(2, 1))
    assert few.train.images.shape == (2, 16, 16, 1)
    assert idx_images(paths["train_images"], paths["test_images"]).num_classes == 0


def test_damaged_idx_files(files, tmp_path):
    _, paths = files
    good = gzip.decompress(pathlib.Path(paths["train_images"]).read_bytes())
    cases = {
        "empty": (b"", "not an IDX file"),
        "text": (b"hello world", "not an IDX file"),
        "header": (good[:9], "ends within its header"),
        "short": (good[:-1], r"should hold 4,704 bytes of data but has 4,703"),
        "long": (good + b"x", r"should hold 4,704 bytes of data but has 4,705"),
        "short.gz": (gzip.compress(good[:-1], mtime=0), "ends within row 5 of 6"),
        "long.gz": (gzip.compress(good + b"x", mtime=0), "has more data than its shape"),
        "floats": (bytes([0, 0, 0x0D, 3]) + good[4:], "type 0x0d"),
        "huge": (bytes([0, 0, 8, 3]) + b"\xff" * 12 + good[16:], "should hold"),
        "cut.gz": (gzip.compress(good, mtime=0)[:-20], "cannot read"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            idx_images(tmp_path / name, paths["test_images"])
    with pytest.raises(UserError, match="cannot read"):
        idx_images(tmp_path / "missing", paths["test_images"])
    with pytest.raises(UserError, match="label file"):
        idx_images(paths["train_labels"], paths["test_images"])
    with pytest.raises(UserError, match=r"uint8 \[3\]; it must be integers \[6\]"):
        idx_images(paths["train_images"], paths["test_images"], paths["test_labels"])


@pytest.mark.parametrize("size", [16, 28, 32])
def test_bundled_sizes(size):
    start = time.perf_counter()
    dataset = bundled(size)
    assert time.perf_counter() - start < 2  # 0.2 s on a quiet machine
    raw = bundled(28)
    assert dataset.train.images.shape == (8000, size, size, 1)
    assert dataset.test.images.shape == (2000, size, size, 1)
    assert dataset.class_names == CLASS_NAMES
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [800] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [200] * 10)
    if size == 16:
        padded = np.zeros((2000, 32, 32))
        padded[:, 2:30, 2:30] = raw.test.images[..., 0]
        means = (padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]) / 4
        np.testing.assert_array_equal(dataset.test.images[..., 0], np.floor(means + 0.5))
    if size == 32:
        np.testing.assert_array_equal(dataset.test.images[:, 2:30, 2:30], raw.test.images)
        assert dataset.test.images.sum(dtype=np.int64) == raw.test.images.sum(dtype=np.int64)


def test_bundled_errors_and_limits():
    with pytest.raises(UserError, match="16, 28 or 32, got 24"):
        bundled_function(24)
    few = bundled(16, num_examples=(100, 50))
    assert (len(few.train), len(few.test)) == (100, 50)
    assert len(set(few.train.labels.tolist())) == 10


def test_bundled_file_is_the_committed_one_and_a_plain_npz():
    assert hashlib.sha256(NPZ.read_bytes()).hexdigest() == SHA256
    assert NPZ.stat().st_size < 5_000_000
    by_npz = npz_images(NPZ, pad_to=32)
    np.testing.assert_array_equal(by_npz.test.images, bundled().test.images)
    np.testing.assert_array_equal(by_npz.train.labels, bundled().train.labels)


def test_bundled_images_are_debian_s_in_their_own_split(complete):
    for prefix, split in (("train", bundled(28).train), ("t10k", bundled(28).test)):
        raw = gzip.decompress((complete / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((complete / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
        labels_of = {}
        for i, label in enumerate(labels):
            labels_of.setdefault(raw[16 + 784 * i : 16 + 784 * (i + 1)], set()).add(label)
        assert all(label in labels_of[image.tobytes()] for image, label in zip(split.images, split.labels, strict=True))
        assert len({image.tobytes() for image in split.images}) >= 0.999 * len(split)


def test_the_maker_reproduces_the_arrays(complete, tmp_path):
    make_fashion_mnist.make(complete, tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz", allow_pickle=False) as made, np.load(NPZ, allow_pickle=False) as shipped:
        assert made.files == shipped.files
        for key in shipped.files:
            np.testing.assert_array_equal(made[key], shipped[key])


def test_the_maker_takes_as_many_of_each_class_at_random(tmp_path, monkeypatch):
    monkeypatch.setattr(make_fashion_mnist, "PER_CLASS", {"train": 3, "t10k": 1})
    originals = {}
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
        originals[prefix] = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    for name in ("made.npz", "again.npz"):
        make_fashion_mnist.make(tmp_path, tmp_path / name)
    assert (tmp_path / "made.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with np.load(tmp_path / "made.npz", allow_pickle=False) as made:
        for key, prefix, per_class in (("train", "train", 3), ("test", "t10k", 1)):
            images = made[f"{key}_images"]
            labels = made[f"{key}_labels"]
            chosen = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
            assert chosen <= originals[prefix]
            assert len(chosen) == len(images) == 10 * per_class
            np.testing.assert_array_equal(np.bincount(labels), [per_class] * 10)
            assert np.any(np.diff(labels.astype(int)) < 0), "in random order"
