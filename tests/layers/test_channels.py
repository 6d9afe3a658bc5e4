"""Sums of channels beside NumPy's in double precision."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.layers.channels import channel_sums, kernel_sums, of_each_pixel


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 3), (4, 6, 5, 3), (1, 1, 1, 1), (7, 1, 8, 16)])
def test_sums(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    sums = channel_sums(tf.constant(x))
    assert sums.dtype == dtype
    expected = np.sum(x.astype(np.float64), axis=tuple(range(len(shape) - 1)))
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)


def test_any_number_of_rows():
    function = tf.function(channel_sums, input_signature=[tf.TensorSpec([None, 4, 3])])
    np.testing.assert_array_equal(function(tf.ones([5, 4, 3])), [20.0, 20.0, 20.0])


def test_digits_of_many_numbers():
    """TensorFlow's own sum of these is off by 4e-5."""
    x = np.random.default_rng(0).gamma(1.0, size=[256, 32, 32, 4]).astype(np.float32)
    np.testing.assert_allclose(channel_sums(tf.constant(x)), np.sum(x, axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)


KERNELS = [((7, 5), 1), ((8192, 17), 1), ((3, 3, 4, 5), 3), ((4, 4, 96, 96), 3), ((3, 3, 127, 129), 3)]
TRANSPOSED = [((4, 4, 5, 6), 2), ((4, 4, 96, 96), 2), ((3, 3, 129, 127), 2)]


@pytest.mark.parametrize(("shape", "axis"), [*KERNELS, *TRANSPOSED])
def test_sums_of_kernels(shape, axis):
    kernel = np.random.default_rng(0).uniform(0.5, 1.5, size=shape).astype(np.float32)
    others = tuple(i for i in range(len(shape)) if i != axis)
    weights = tf.range(1.0, shape[axis] + 1.0)
    with tf.GradientTape() as tape:
        variable = tf.constant(kernel)
        tape.watch(variable)
        sums = kernel_sums(variable, axis)
        weighted = tf.reduce_sum(weights * sums)
    np.testing.assert_allclose(sums, np.sum(kernel, dtype=np.float64, axis=others), rtol=1e-6)
    expected = np.broadcast_to(np.expand_dims(weights, others), shape)
    np.testing.assert_allclose(tape.gradient(weighted, variable), expected, rtol=1e-6)


def test_a_number_of_a_channel_meets_each_pixel():
    x = tf.random.stateless_normal([2, 3, 4, 5], [0, 1])
    channels = tf.range(5.0)
    np.testing.assert_array_equal(x * of_each_pixel(channels, x), x * channels)
