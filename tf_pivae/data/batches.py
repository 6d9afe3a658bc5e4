"""Batches as a pure function of (seed, step): any step of any epoch can be reached at once.

Position p of the endless stream of images is step * batch_size + offset; it lies in epoch p // N, and shows the image
that a stateless permutation of that epoch's own gives p % N. No state is kept, so a resumed run sees the batches
that an uninterrupted one would, and replicas cut a global batch into slices without talking to each other.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from tf_pivae.data.arrays import ImageSplit
from tf_pivae.errors import UserError
from tf_pivae.system.memory import physical_memory

if TYPE_CHECKING:
    import tensorflow as tf

# `index_shuffle` is a Simon cipher of 4 rounds; that few leave short ranges nearly in order, and more cost little.
_SHUFFLE_ROUNDS = 24
_NO_LIMIT = np.iinfo(np.int64).max
_SHARE_OF_MEMORY = 0.25  # A memory map up to this size comes to lie in memory whole, soonest by reading ahead.


def batch_indices(step: int | tf.Tensor, batch_size: int, num_examples: int, seed: int) -> tf.Tensor:
    """Which images make up the global batch of a step.

    Args:
      step: int or int64 scalar tensor, from 0.
      batch_size: global batch size; may exceed `num_examples`.
      num_examples: N, the size of the split.
      seed: int.

    Returns:
      int64 tensor `[batch_size]` of indices below N. Over every epoch, N consecutive positions, each image comes
      once; an epoch may end within a batch.
    """
    import tensorflow as tf

    return _shuffled(tf.cast(step, tf.int64) * batch_size, batch_size, num_examples, seed)


def train_batches(
    split: ImageSplit,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_replicas: int = 1,
    first_replica: int = 0,
    num_local_replicas: int | None = None,
    flip: bool = False,
    with_labels: bool = False,
) -> tf.data.Dataset:
    """An endless stream of one worker's per-replica batches.

    Element e is for step `start_step + e // num_local_replicas` and replica `first_replica + e % num_local_replicas`,
    and is that replica's contiguous slice of the step's global batch: any number of replicas on any number of workers
    see together exactly the batch that one replica would.

    Args:
      split: an `ImageSplit`; its memory map is read as batches need it.
      batch_size: GLOBAL batch size.
      seed: decides the order (and the flips).
      start_step: first step of the stream.
      num_replicas: replicas in all workers together.
      first_replica: number of this worker's first replica.
      num_local_replicas: replicas of this worker; default all.
      flip: mirror every image left to right with probability 1/2, a pure function of (seed, position).
      with_labels: give pairs `(images, labels)`.

    Returns:
      A `tf.data.Dataset` of uint8 `[b, H, W, C]` (and int64 labels `[b]`), b = batch_size // num_replicas: infinite,
      of static shape, prefetched, deterministic.

    Raises:
      UserError: if the batch does not divide by the replicas, or labels are wanted and there are none.
    """
    import tensorflow as tf

    local = num_replicas if num_local_replicas is None else num_local_replicas
    if batch_size < 1 or batch_size % num_replicas:
        raise UserError(f"batch_size {batch_size} does not divide by {num_replicas} replicas: use a multiple of it.")
    if not 0 <= first_replica <= first_replica + local <= num_replicas or local < 1:
        raise ValueError(f"replicas {first_replica} to {first_replica + local - 1} are not among {num_replicas}.")
    if with_labels and split.labels is None:
        raise UserError("this data set has no labels: use one that has, or an unconditional model.")
    per_replica = batch_size // num_replicas
    images = split.images
    _read_in_no_order(images)
    labels = split.labels
    count = len(split)

    def gather(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        batch = images[indices]  # a memory map gives up just these rows
        if flip:
            batch[mirrored] = batch[mirrored, :, ::-1]
        # An ndarray proper: TensorFlow copies a memmap subclass's result anyway, and this one is already in memory.
        return (np.asarray(batch), labels[indices]) if with_labels else np.asarray(batch)

    @tf.autograph.experimental.do_not_convert  # No control flow to convert, which would take a second.
    def load(element: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        step = start_step + element // local
        replica = first_replica + element % local
        position = step * batch_size + replica * per_replica
        indices = _shuffled(position, per_replica, count, seed)
        types = (tf.uint8, tf.int64) if with_labels else tf.uint8
        mirrored = _flips(position, per_replica, seed) if flip else False
        batch = tf.numpy_function(gather, [indices, mirrored], types, stateful=False)
        if with_labels:
            return tf.ensure_shape(batch[0], (per_replica, *images.shape[1:])), tf.ensure_shape(
                batch[1], (per_replica,)
            )
        return tf.ensure_shape(batch, (per_replica, *images.shape[1:]))

    dataset = tf.data.Dataset.range(_NO_LIMIT).map(load, num_parallel_calls=2, deterministic=True)
    # For all purposes endless: several workers then need not ask each other at every step whether all have data left.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY))
    options = tf.data.Options()
    # There are no files to deal out: the slices above are the sharding.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Nothing is left to tune, and an iterator that is given up waits for the tuner, which may sleep for a minute.
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(2 * local)


def _read_in_no_order(images: np.ndarray) -> None:
    """Tells the system not to read ahead in a memory map that is large beside the memory.

    It would read up to megabytes around each image, which are gone from memory before their turn comes.
    """
    if images.nbytes <= _SHARE_OF_MEMORY * physical_memory():
        return
    buffer = images
    while not isinstance(buffer, mmap.mmap) and buffer is not None:
        buffer = getattr(buffer, "base", None)
    if buffer is not None and hasattr(mmap, "MADV_RANDOM"):
        buffer.madvise(mmap.MADV_RANDOM)


def _flips(first: tf.Tensor, count: int, seed: int) -> tf.Tensor:
    """One fair bit, bool `[count]`, for each of the stream's positions `first ... first + count - 1`."""
    from tf_pivae.noise import RowNoise

    return RowNoise(seed, count, first).uniform("data/flip", []) < 0.5


def _shuffled(first: tf.Tensor, count: int, num_examples: int, seed: int) -> tf.Tensor:
    """Image indices int64 `[count]` of positions `first ... first + count - 1`: each epoch has its own permutation."""
    import tensorflow as tf

    from tf_pivae.noise import RowNoise

    positions = first + tf.range(count, dtype=tf.int64)
    epoch = first // num_examples
    epochs = (count - 1) // num_examples + 2  # That many are enough wherever in an epoch the first position lies.
    words = RowNoise(seed, epochs, epoch).bits("data/order", [3])
    # `tf.random.experimental.index_shuffle` pads a matrix of seeds along the wrong axis (TensorFlow 2.21), and its
    # number of rounds is fixed: this calls the operation below it.
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % num_examples,
        seed=tf.gather(words, positions // num_examples - epoch),
        max_index=tf.constant(num_examples - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )
