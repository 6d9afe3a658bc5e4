"""Spectral normalisation beside NumPy's singular values."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense

LAYERS = {
    "conv": (lambda: SpectralNormConv2D(5, 3), [2, 6, 6, 4]),
    "strided conv": (lambda: SpectralNormConv2D(7, 4, strides=2, padding="same"), [2, 6, 6, 2]),
    "dense": (lambda: SpectralNormDense(6), [2, 9]),
    "one output": (lambda: SpectralNormDense(1, use_bias=False), [2, 9]),
}


@pytest.fixture(params=list(LAYERS))
def layer(request):
    make, shape = LAYERS[request.param]
    layer = make()
    layer.x = tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    layer(layer.x)
    return layer


def _matrix(kernel):
    kernel = np.asarray(kernel, np.float64)
    return kernel.reshape(-1, kernel.shape[-1])


def _largest(kernel):
    return np.linalg.svd(_matrix(kernel), compute_uv=False)[0]


def test_largest_singular_value_is_one(layer):
    assert _largest(layer.normalized_kernel()) == pytest.approx(1.0, abs=1e-4)
    layer.kernel.assign(10.0 * layer.kernel + 0.5)  # Other weights: the estimate follows them.
    for _ in range(50):  # Until the power method has converged to float32's rounding.
        layer.update_normalization()
    assert _largest(layer.normalized_kernel()) == pytest.approx(1.0, abs=1e-6)


def test_output_is_that_of_the_normalised_kernel(layer):
    layer.kernel.assign(3.0 * layer.kernel)
    if layer.use_bias:
        layer.bias.assign(np.arange(layer.bias.shape[0]))
    kernel = layer.normalized_kernel()
    dense = len(kernel.shape) == 2
    expected = layer.x @ kernel if dense else tf.nn.conv2d(layer.x, kernel, layer.strides, "SAME")
    np.testing.assert_allclose(layer(layer.x), expected + (layer.bias if layer.use_bias else 0.0), atol=1e-5)


def test_calls_do_not_move_the_estimate_and_an_update_is_three_power_iterations(layer):
    layer.kernel.assign(layer.kernel + 0.3)
    before = layer.u.numpy()
    layer(layer.x)
    np.testing.assert_array_equal(layer.u, before)
    layer.update_normalization()
    matrix = _matrix(layer.kernel)
    expected = np.linalg.matrix_power(matrix.T @ matrix, 3) @ before
    np.testing.assert_allclose(layer.u, expected / np.linalg.norm(expected), atol=1e-5)
    assert not layer.u.trainable


def test_gradient_is_that_of_the_quotient(layer):
    """Of <G, W / s(W)> by W, beside finite differences with NumPy's singular value."""
    for _ in range(100):
        layer.update_normalization()
    weights = np.random.default_rng(1).normal(size=layer.kernel.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.normalized_kernel() * tf.constant(weights, tf.float32))
    gradient = np.asarray(tape.gradient(loss, layer.kernel.value), np.float64)
    kernel = np.asarray(layer.kernel, np.float64)
    direction = np.random.default_rng(2).normal(size=weights.shape)

    def value(h):
        moved = kernel + h * direction
        return np.sum(weights * moved) / _largest(moved)

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3, abs=1e-3 * np.linalg.norm(gradient))
