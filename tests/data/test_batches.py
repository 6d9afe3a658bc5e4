"""Batches: permutations, any step at once, replicas and workers, flips, speed."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tf_pivae.data import ImageSplit, batch_indices, batches, levels, train_batches
from tf_pivae.errors import UserError


def numbered(count, size=4, labels=True):
    """A split whose images tell their own index: pixel (0, 0) holds it modulo 251, and so does the label in full."""
    images = np.zeros((count, size, size, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 251
    return ImageSplit(images, np.arange(count) if labels else None)


def take(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 5), (1000, 96)])
def test_every_epoch_is_a_permutation(count, batch_size):
    steps = -(-4 * count // batch_size)
    stream = np.concatenate([batch_indices(step, batch_size, count, seed=5).numpy() for step in range(steps)])
    epochs = stream[: 4 * count].reshape(4, count)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(count), (4, 1)))
    if count >= 1000:
        assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_order_depends_on_the_seed_and_is_spread_out():
    orders = [batch_indices(0, 5000, 5000, seed).numpy() for seed in (0, 1, 2**32, 2**40 + 1)]
    assert len({order.tobytes() for order in orders}) == 4
    for order in orders:
        # Neighbours of a random permutation are N/3 apart on average; it does not correlate with the identity.
        assert abs(np.abs(np.diff(order)).mean() / 5000 - 1 / 3) < 0.02
        assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.05


def test_small_shuffles_reach_every_order_about_equally_often():
    orders = np.stack([batch_indices(epoch, 3, 3, seed=9).numpy() for epoch in range(600)])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 50  # 100 expected, standard deviation 9


@pytest.mark.parametrize("flip", [False, True])
def test_a_stream_started_late_is_the_tail_of_one_started_early(flip):
    split = numbered(50)
    early = take(train_batches(split, 16, seed=3, flip=flip, with_labels=True), 12)
    late = take(train_batches(split, 16, seed=3, start_step=7, flip=flip, with_labels=True), 5)
    for (images, labels), (late_images, late_labels) in zip(early[7:], late, strict=True):
        np.testing.assert_array_equal(images, late_images)
        np.testing.assert_array_equal(labels, late_labels)


@pytest.mark.parametrize(("replicas", "workers"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("flip", [False, True])
def test_replicas_and_workers_share_the_global_batch(replicas, workers, flip):
    images = np.random.default_rng(0).integers(0, 256, (37, 4, 4, 3), np.uint8)
    split = ImageSplit(images, np.arange(37))
    local = replicas // workers
    whole = take(train_batches(split, 16, seed=1, start_step=2, flip=flip, with_labels=True), 3)
    streams = [
        take(train_batches(split, 16, 1, 2, replicas, worker * local, local, flip, True), 3 * local)
        for worker in range(workers)
    ]
    for step, (images, labels) in enumerate(whole):
        parts = [part for stream in streams for part in stream[step * local : (step + 1) * local]]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


def test_batches_hold_the_images_that_the_indices_name():
    split = numbered(40)
    for step, images in enumerate(take(train_batches(split, 8, seed=11), 10)):
        np.testing.assert_array_equal(images, split.images[batch_indices(step, 8, 40, 11).numpy()])


def test_flips_are_fair_horizontal_and_leave_the_data_alone():
    images = np.zeros((64, 2, 2, 1), np.uint8)
    images[:, :, 0] = 1  # left differs from right
    images[:, 0, :] = 2  # top from bottom
    split = ImageSplit(images.copy())
    images_read = np.concatenate(take(train_batches(split, 64, seed=0, flip=True), 40))
    mirrored = (images_read == images[0][:, ::-1]).all(axis=(1, 2, 3))
    unchanged = (images_read == images[0]).all(axis=(1, 2, 3))
    assert (mirrored ^ unchanged).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(images_read))
    np.testing.assert_array_equal(split.images, images)


def test_shapes_are_static():
    image_spec, label_spec = train_batches(numbered(9), 6, 0, num_replicas=2, with_labels=True).element_spec
    assert image_spec.shape.as_list() == [3, 4, 4, 1]
    assert label_spec.shape.as_list() == [3]


def test_a_stream_that_is_given_up_waits_for_no_tuner():
    """As a training is that a signal stops. TensorFlow's tuner sleeps up to a minute, and not every time wakes up."""
    split = ImageSplit(np.zeros([16, 4, 4, 1], np.uint8))
    assert train_batches(split, 8, 0, 0).options().autotune.enabled is False


def test_errors():
    with pytest.raises(UserError, match="does not divide by 3 replicas"):
        train_batches(numbered(9), 8, 0, num_replicas=3)
    with pytest.raises(UserError, match="no labels"):
        train_batches(numbered(9, labels=False), 8, 0, with_labels=True)


def test_a_memory_map_feeds_20000_images_a_second(tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (20000, 32, 32, 3), np.uint8))
    split = ImageSplit(np.load(tmp_path / "images.npy", mmap_mode="r"))
    batches = train_batches(split, 100, seed=0, flip=True).as_numpy_iterator()
    next(batches)
    start = time.perf_counter()
    for _ in range(400):
        next(batches)
    rate = 400 * 100 / (time.perf_counter() - start)
    print(f"{rate:.0f} images/s")
    assert rate > 20000


def _reads_ahead(path):
    """Whether the system would, in the memory map of a file: Linux flags those in which it would not."""
    (mapping,) = re.findall(rf"{path}\n((?:\w+:.*\n)+)", Path("/proc/self/smaps").read_text())
    return " rr" not in re.search(r"VmFlags:(.*)", mapping)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of memory maps")
@pytest.mark.parametrize("view", ["whole", "first ones", "looked up"])
def test_a_map_larger_than_memory_is_not_read_ahead(tmp_path, monkeypatch, view):
    """Images are taken in no order: a training read 280 times what it used."""
    np.save(tmp_path / "images.npy", numbered(10).images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    table = np.arange(256, dtype=np.uint8)
    views = {"whole": images, "first ones": images[:9], "looked up": levels.LookedUpImages(images, table)}
    seen = views[view]
    expected = take(train_batches(ImageSplit(seen), 4, seed=0), 3)
    assert _reads_ahead(images.filename)
    monkeypatch.setattr(batches, "_SHARE_OF_MEMORY", 0.0)
    batches_again = take(train_batches(ImageSplit(seen), 4, seed=0), 3)
    assert not _reads_ahead(images.filename)
    np.testing.assert_array_equal(batches_again, expected)
