"""Noise that is part of an exported model: the same for every row, computed once and stored as constants.

Then a row's result depends on that row alone, wherever it stands and whatever stands beside it, and a runtime needs no
random number generator to evaluate the density.
"""

import copy
import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_pivae.noise import RowNoise

MAX_BYTES = 1 << 30  # A SavedModel's graph, which holds the constants, cannot exceed 2 GiB.


class FixedNoise:
    """A `NoiseStreams`: every row gets what row 0 of `RowNoise(seed, ...)` gets.

    Args:
      num_rows: B, scalar integer tensor.
      num_streams: K, the indices that `samples` may be given are 0 ... K - 1.

    Raises:
      ValueError: the constants of one tag take more than `MAX_BYTES`.
    """

    def __init__(self, num_rows: tf.Tensor, num_streams: int = 1, seed: int = 0) -> None:
        self._rows_of_a_sample = num_rows
        self._num_streams = num_streams
        self._seed = seed
        self._tags: tuple[str | int | tf.Tensor, ...] = ()
        self._samples = None

    @property
    def num_rows(self) -> tf.Tensor:
        return self._rows_of_a_sample * (1 if self._samples is None else tf.size(self._samples))

    def samples(self, samples: tf.Tensor) -> "FixedNoise":
        """Several samples of the same rows, as `RowNoise.samples`; int32 [S], which a loop of the graph may compute.

        An index beyond the last gets the last one's numbers.
        """
        noise = copy.copy(self)
        noise._samples = tf.minimum(samples, self._num_streams - 1)
        return noise

    def fold_in(self, tag: str | int | tf.Tensor) -> "FixedNoise":
        """Another stream, as `RowNoise.fold_in`."""
        noise = copy.copy(self)
        noise._tags = (*self._tags, tag)
        return noise

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [B, *shape], all rows alike."""
        return self._rows(lambda noise: noise.normal(tag, shape), shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32 [B, *shape], all rows alike."""
        return self._rows(lambda noise: noise.uniform(tag, shape), shape)

    def _rows(self, draw, shape):
        table = self._table(draw, shape)
        rows = table if self._samples is None else tf.gather(table, self._samples)
        repeated = tf.broadcast_to(rows[:, None], tf.stack([tf.shape(rows)[0], self._rows_of_a_sample, *shape]))
        return tf.reshape(repeated, [-1, *shape])

    def _table(self, draw, shape):
        """Float32 [K, *shape] ([1, *shape] where no sample was chosen), a constant of the graph."""
        count = 1 if self._samples is None else self._num_streams
        size = 4 * count * int(np.prod(shape, dtype=np.int64))
        if size > MAX_BYTES:
            raise ValueError(f"the noise of {count} importance samples takes {size >> 20} MiB: export fewer.")
        with tf.init_scope():  # Here and now, whatever graph is being built.
            first = functools.reduce(RowNoise.fold_in, self._tags, RowNoise(self._seed, 1))
            streams = [first] if self._samples is None else [first.fold_in(k) for k in range(count)]
            table = np.concatenate([draw(stream).numpy() for stream in streams])
        return tf.constant(table)
