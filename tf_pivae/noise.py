"""Noise that belongs to a row, not to a batch.

Every random number of the model is a pure function of (seed, row, tag): which row of the endless stream of images it
serves, and what for ("dequantisation", "latents/2", ...). How the rows are cut into batches or spread over replicas
then changes nothing: two replicas draw different noise, and together exactly the noise that one would.

`keras.random.SeedGenerator` gives every replica of a `MirroredStrategy` the same numbers, hence this module.
"""

import contextlib
import math
import threading
import zlib

import numpy as np
import tensorflow as tf

_PHILOX = 1  # tf.random.Algorithm.PHILOX: the counter-based generator that CPU, GPU and XLA share.
_PER_COUNTER = 4  # One Philox counter yields four float32 numbers, uniform or normal.
_SCRAMBLING_KEY = 0x02461E293EC8F720  # Under which TensorFlow draws a generator's key and counter from a seed.
_MANTISSA, _ONE = 0x007FFFFF, 0x3F800000  # float32: the bits of the fraction, and those of 1.0.
_SMALLEST_UNIFORM = 1e-7  # Whose logarithm TensorFlow takes in place of that of smaller ones.
_state = threading.local()


@contextlib.contextmanager
def for_xla():
    """Within this context `RowNoise` is drawn by elementary operations: for graphs that XLA compiles.

    XLA makes other numbers of the generator's bits than TensorFlow does, and normal ones that depend on the size of the
    batch. This way they are TensorFlow's: uniform numbers exactly, normal ones up to rounding.
    """
    _state.for_xla = True
    try:
        yield
    finally:
        _state.for_xla = False


def fold_in(seed, tag):
    """Derives an independent seed, int32 [2], from `seed` (int or int [2]) and `tag` (str, int or integer tensor).

    The numbers of `tf.random.experimental.stateless_fold_in`.
    """
    if isinstance(tag, str):
        tag = zlib.crc32(tag.encode()) & 0x7FFFFFFF
    tag = tf.convert_to_tensor(tag)
    return tf.stack([_bits([], *_key_and_counter(_as_seed(seed)), tag.dtype), tag])


def _as_seed(seed):
    if isinstance(seed, int | np.integer):
        return tf.constant([seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF], tf.int32)
    return tf.cast(seed, tf.int32)


def _key_and_counter(seed):
    """Key, uint64 [1], and counter, uint64 [2], of the generator for an int32 [2] seed.

    Those of `StatelessRandomGetKeyCounter`, of which XLA's version loses the sign of the seed.
    """
    scrambled = tf.bitcast(tf.cast(seed, tf.int64), tf.uint64)
    mixed = _bits([2], tf.constant([_SCRAMBLING_KEY], tf.uint64), scrambled, tf.uint64)
    return mixed[:1], tf.stack([tf.constant(0, tf.uint64), mixed[1]])


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


class RowNoise:
    """Noise for the contiguous rows `first_row ... first_row + num_rows - 1` of an endless stream.

    Row r of the stream for a tag is made of the Philox counters [r * n, (r + 1) * n), n = ceil(size of a row / 4):
    one bulk call serves the whole batch, and the same row gives the same numbers in whatever batch it comes.

    Args:
      seed: int, or int [2].
      num_rows: B, int or scalar integer tensor.
      first_row: scalar int or int64 tensor.
    """

    def __init__(self, seed, num_rows, first_row=0):
        self._seed = _as_seed(seed)
        self._num_rows = num_rows
        self._first_row = tf.cast(first_row, tf.uint64)

    @property
    def num_rows(self):
        return self._num_rows

    def fold_in(self, tag):
        """The same rows of another, independent stream."""
        return RowNoise(fold_in(self._seed, tag), self._num_rows, self._first_row)

    def samples(self, samples):
        """Several samples of the same rows, one sample's rows behind the other's: `NoiseOfSamples`, int32 [K]."""
        return NoiseOfSamples(self, samples)

    def part(self, start, num_rows):
        """The noise of `num_rows` of these rows from row `start` on, a scalar integer tensor."""
        return RowNoise(self._seed, num_rows, self._first_row + tf.cast(start, tf.uint64))

    def normal(self, tag, shape):
        """Standard normal noise, float32 [B, *shape]."""
        return self._draw(tf.raw_ops.StatelessRandomNormalV2, _normal_of_bits, tag, shape)

    def uniform(self, tag, shape):
        """Uniform noise in [0, 1), float32 [B, *shape]."""
        return self._draw(tf.raw_ops.StatelessRandomUniformV2, _uniform_of_bits, tag, shape)

    def _draw(self, op, of_bits, tag, shape):
        size = int(np.prod(shape, dtype=np.int64))
        counters = -(-size // _PER_COUNTER)
        key, start = _key_and_counter(fold_in(self._seed, tag))
        counter = tf.stack([self._first_row * tf.constant(counters, tf.uint64), start[1]])
        padded = [self._num_rows, counters * _PER_COUNTER]
        if getattr(_state, "for_xla", False):
            flat = of_bits(_bits(padded, key, counter, tf.uint32))
        else:
            flat = op(shape=padded, key=key, counter=counter, alg=_PHILOX)
        return tf.reshape(flat[:, :size], [self._num_rows, *shape])


class NoiseOfSamples:
    """Noise for several samples of the same rows, one sample's rows behind the other's.

    Args:
      noise: the rows' noise, such as `RowNoise`.
      samples: int32 [K]; sample k gets the numbers of `noise.fold_in(k)`.
    """

    def __init__(self, noise, samples):
        self._noise, self._samples = noise, samples

    @property
    def num_rows(self):
        return self._noise.num_rows * tf.size(self._samples)

    def normal(self, tag, shape):
        """Standard normal noise, float32 [K B, *shape]."""
        return self._draw("normal", tag, shape)

    def uniform(self, tag, shape):
        """Uniform noise in [0, 1), float32 [K B, *shape]."""
        return self._draw("uniform", tag, shape)

    def _draw(self, kind, tag, shape):
        drawn = tf.map_fn(
            lambda k: getattr(self._noise.fold_in(k), kind)(tag, shape),
            self._samples,
            fn_output_signature=tf.TensorSpec([None, *shape], tf.float32),
        )
        return tf.reshape(drawn, [-1, *shape])


class SeededRowNoise:
    """Noise for rows that carry a seed each, so that a row's numbers depend on its own seed alone.

    Args:
      seeds: int64 [B].
    """

    def __init__(self, seeds, stream=0):
        self._seeds = tf.cast(seeds, tf.int64)
        self._stream = stream

    @property
    def num_rows(self):
        return tf.shape(self._seeds)[0]

    def fold_in(self, tag):
        """The same rows of another, independent stream."""
        if isinstance(tag, str):
            tag = zlib.crc32(tag.encode()) & 0x7FFFFFFF
        return SeededRowNoise(self._seeds, fold_in(self._stream, tag))

    def normal(self, tag, shape):
        """Standard normal noise, float32 [B, *shape]."""
        return self._draw(tf.random.stateless_normal, tag, shape)

    def uniform(self, tag, shape):
        """Uniform noise in [0, 1), float32 [B, *shape]."""
        return self._draw(tf.random.stateless_uniform, tag, shape)

    def _draw(self, op, tag, shape):
        stream = fold_in(self._stream, tag)
        low = tf.cast(self._seeds & 0x7FFFFFFF, tf.int32)
        high = tf.cast(tf.bitwise.right_shift(self._seeds, 31) & 0x7FFFFFFF, tf.int32)
        top = tf.cast(tf.bitwise.right_shift(self._seeds, 62) & 3, tf.int32)

        def row(parts):
            seed = stream
            for part in parts:
                seed = fold_in(seed, part)
            return op(shape, seed=seed)

        return tf.map_fn(row, (low, high, top), fn_output_signature=tf.TensorSpec(shape, tf.float32))
