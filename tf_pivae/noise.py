"""Noise that belongs to a row, not to a batch.

Every random number of the model is a pure function of (seed, row, tag): which row of the endless stream of images it
serves, and what for ("dequantisation", "latents/2", ...). How the rows are cut into batches or spread over replicas
then changes nothing: two replicas draw different noise, and together exactly the noise that one would.

The order of the data and the mirroring of its images are drawn of the same rows.

The generator is Philox, 64 bits of key and 128 of counter. Tags make the key; the seed is the upper half of the counter
and the place in the stream the lower one, so no two of the 2^64 seeds share a number of one tag.

Models ask for a protocol:

NormalNoise   latents are drawn with it: `GivenNoise` and `RecordedNoise` (`report/latent_walks.py`), and every `Noise`
Noise         bounds and samples: `NoiseOfSamples` and `SeededRowNoise` here, and every `NoiseStreams`
NoiseStreams  several samples of the same rows: `RowNoise` here, `FixedNoise` (`export/write/fixed_noise.py`)

Training and data ask for `RowNoise` itself. Its `part`, `bits` and `draw` are in no protocol: accumulation alone cuts
a batch into parts, data alone draw bits, and `draw` is what the two classes of rows here share.

`keras.random.SeedGenerator` gives every replica of a `MirroredStrategy` the same numbers, hence this module.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tf_pivae import arguments

_PHILOX = 1  # tf.random.Algorithm.PHILOX: the counter-based generator that CPU, GPU and XLA share.
_PER_COUNTER = 4  # One Philox counter yields four float32 numbers, uniform or normal.
_ROOT_KEY = 0x02461E293EC8F720  # Of the streams before any tag; any constant serves.
_MANTISSA = 0x007FFFFF  # the bits of a float32's fraction
_ONE = 0x3F800000  # 1.0 as a float32
_SMALLEST_UNIFORM = 1e-7  # TensorFlow takes the logarithm of at least this.


def seed_tensor(seed: int) -> tf.Tensor:
    """A seed as an int64 scalar, so that another seed does not trace another graph.

    Raises:
      ValueError: not a whole number, or one of more than 64 bits.
    """
    arguments.seeds(seed=seed)
    return tf.constant(seed, tf.int64)


def fold_in(key: tf.Tensor, tag: str | int | tf.Tensor) -> tf.Tensor:
    """The key of an independent stream, uint64 [], from a key and a tag: a string, or a number below 2^63.

    A string's tag has the uppermost bit set, a number's has not: no string is taken for a number.
    """
    if isinstance(tag, str):
        digest = int.from_bytes(hashlib.blake2b(tag.encode(), digest_size=8).digest(), "little")
        tag = tf.constant(digest | 1 << 63, tf.uint64)
    counter = tf.stack([tf.cast(tag, tf.uint64), tf.constant(0, tf.uint64)])
    return _bits([], key[None], counter, tf.uint64)


def _root_key():
    return tf.constant(_ROOT_KEY, tf.uint64)


def _counter_word(seed):
    """The upper half of the counter, uint64, of seeds, ints or integer tensors of any shape."""
    if not tf.is_tensor(seed):
        seed = np.asarray(seed, np.int64)
    return tf.bitcast(tf.cast(seed, tf.int64), tf.uint64)


def _bits(shape, key, counter, dtype):
    """Random integers of all values."""
    return tf.raw_ops.StatelessRandomUniformFullIntV2(shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=dtype)


def _uniform_of_bits(bits):
    """float32 in [0, 1) of uint32, as TensorFlow's kernels."""
    return tf.bitcast((bits & tf.constant(_MANTISSA, tf.uint32)) | tf.constant(_ONE, tf.uint32), tf.float32) - 1.0


def _normal_of_bits(bits):
    """Standard normal float32 [N, even] of uint32, as TensorFlow's kernels: Box and Muller (1958), pair by pair."""
    u = tf.reshape(_uniform_of_bits(bits), [tf.shape(bits)[0], bits.shape[1] // 2, 2])
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(u[..., 0], _SMALLEST_UNIFORM)))
    angle = 2.0 * math.pi * u[..., 1]
    return tf.reshape(tf.stack([tf.sin(angle) * radius, tf.cos(angle) * radius], -1), tf.shape(bits))


# TensorFlow's operation, and the same of random bits.
NORMAL = tf.raw_ops.StatelessRandomNormalV2, _normal_of_bits
UNIFORM = tf.raw_ops.StatelessRandomUniformV2, _uniform_of_bits
_BITS = functools.partial(tf.raw_ops.StatelessRandomUniformFullIntV2, dtype=tf.uint32), tf.identity


class NormalNoise(Protocol):
    """Noise that latents are drawn with."""

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [B, *shape]."""


class Noise(NormalNoise, Protocol):
    """What a model's bound and samples are drawn with, such as `RowNoise`."""

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32 [B, *shape]."""


class NoiseStreams(Noise, Protocol):
    """Noise that several samples of the same rows can be drawn with."""

    @property
    def num_rows(self) -> int | tf.Tensor:
        """B."""

    def fold_in(self, tag: str | int | tf.Tensor) -> "NoiseStreams":
        """The same rows of another, independent stream."""

    def samples(self, samples: tf.Tensor) -> Noise:
        """Several samples, int32 [K], of the same rows, one sample's rows behind the other's."""


class RowNoise:
    """Noise for the contiguous rows `first_row ... first_row + num_rows - 1` of an endless stream.

    Row r of the stream for a tag is made of the Philox counters [r * n, (r + 1) * n), n = ceil(size of a row / 4):
    one bulk call serves the whole batch, and the same row gives the same numbers in whatever batch it comes.

    Args:
      seed: int of 64 bits, or an integer scalar tensor.
      num_rows: B, int or scalar integer tensor.
      first_row: scalar int or int64 tensor.
      key: uint64 [], of the stream; None is that before any `fold_in`.
      for_xla: whether XLA compiles the graph. It makes other numbers of the generator's bits than TensorFlow does, and
        normal ones that depend on the size of the batch. Drawn by elementary operations, they are TensorFlow's: uniform
        numbers exactly, normal ones up to rounding.
    """

    def __init__(
        self,
        seed: int | tf.Tensor,
        num_rows: int | tf.Tensor,
        first_row: int | tf.Tensor = 0,
        key: tf.Tensor | None = None,
        for_xla: bool = False,
    ) -> None:
        self._seed = _counter_word(seed)
        self._num_rows = num_rows
        self._first_row = tf.cast(first_row, tf.uint64)
        self._key = _root_key() if key is None else key
        self._for_xla = for_xla

    @property
    def num_rows(self) -> int | tf.Tensor:
        return self._num_rows

    def fold_in(self, tag: str | int | tf.Tensor) -> "RowNoise":
        """The same rows of another, independent stream."""
        return self._like(self._first_row, self._num_rows, fold_in(self._key, tag))

    def samples(self, samples: tf.Tensor) -> "NoiseOfSamples":
        """Several samples of the same rows, one sample's rows behind the other's: `NoiseOfSamples`, int32 [K]."""
        return NoiseOfSamples(self, samples)

    def part(self, start: int | tf.Tensor, num_rows: int | tf.Tensor) -> "RowNoise":
        """The noise of `num_rows` of these rows from row `start` on, a scalar integer tensor."""
        return self._like(self._first_row + tf.cast(start, tf.uint64), num_rows, self._key)

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [B, *shape]."""
        return self.draw(NORMAL, fold_in(self._key, tag), shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32 [B, *shape]."""
        return self.draw(UNIFORM, fold_in(self._key, tag), shape)

    def bits(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Random bits, uint32 [B, *shape]."""
        return self.draw(_BITS, fold_in(self._key, tag), shape)

    def _like(self, first_row, num_rows, key):
        return RowNoise(tf.bitcast(self._seed, tf.int64), num_rows, first_row, key, self._for_xla)

    def draw(self, distribution: tuple[Callable, Callable], key: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
        """Numbers of the stream of a key, [B, *shape]: float32 by `NORMAL` or `UNIFORM`, uint32 by `_BITS`."""
        op, of_bits = distribution
        size = int(np.prod(shape, dtype=np.int64))
        counters = -(-size // _PER_COUNTER)
        counter = tf.stack([self._first_row * tf.constant(counters, tf.uint64), self._seed])
        padded = [self._num_rows, counters * _PER_COUNTER]
        if self._for_xla:
            flat = of_bits(_bits(padded, key[None], counter, tf.uint32))
        else:
            flat = op(shape=padded, key=key[None], counter=counter, alg=_PHILOX)
        return tf.reshape(flat[:, :size], [self._num_rows, *shape])


class NoiseOfSamples:
    """Noise for several samples of the same rows, one sample's rows behind the other's.

    Args:
      noise: the rows' noise, such as `RowNoise`.
      samples: int32 [K]; sample k gets the numbers of `noise.fold_in(k)`.
    """

    def __init__(self, noise: RowNoise, samples: tf.Tensor) -> None:
        self._noise = noise
        self._samples = samples

    @property
    def num_rows(self) -> tf.Tensor:
        return self._noise.num_rows * tf.size(self._samples)

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [K B, *shape]."""
        return self._draw("normal", tag, shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32 [K B, *shape]."""
        return self._draw("uniform", tag, shape)

    def _draw(self, kind, tag, shape):
        values = tf.map_fn(
            lambda k: getattr(self._noise.fold_in(k), kind)(tag, shape),
            self._samples,
            fn_output_signature=tf.TensorSpec([None, *shape], tf.float32),
        )
        return tf.reshape(values, [-1, *shape])


class SeededRowNoise:
    """Noise for rows that carry a seed each, so that a row's numbers depend on its own seed alone.

    A row of seed s gets what row 0 of `RowNoise(s, 1)` gets.

    Args:
      seeds: int64 [B].
      key: uint64 [], of the stream; None is that before any `fold_in`.
    """

    def __init__(self, seeds: Sequence[int] | tf.Tensor, key: tf.Tensor | None = None) -> None:
        self._seeds = tf.cast(seeds, tf.int64)
        self._key = _root_key() if key is None else key

    @property
    def num_rows(self) -> tf.Tensor:
        return tf.shape(self._seeds)[0]

    def fold_in(self, tag: str | int | tf.Tensor) -> "SeededRowNoise":
        """The same rows of another, independent stream."""
        return SeededRowNoise(self._seeds, fold_in(self._key, tag))

    def normal(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32 [B, *shape]."""
        return self._draw(NORMAL, tag, shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32 [B, *shape]."""
        return self._draw(UNIFORM, tag, shape)

    def _draw(self, distribution, tag, shape):
        key = fold_in(self._key, tag)
        return tf.map_fn(
            lambda seed: RowNoise(seed, 1).draw(distribution, key, shape)[0],
            self._seeds,
            fn_output_signature=tf.TensorSpec(shape, tf.float32),
        )
