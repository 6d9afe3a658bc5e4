"""Batch moments, their running averages, and batch normalisation."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.layers.moments import BatchNorm, RunningMoments, moments
from tf_pivae.layers.weight_norm import data_dependent_initialization


def _batch(seed, shape=(16, 3, 3, 2)):
    return np.random.default_rng(seed).normal([1.0, -2.0], [0.5, 3.0], shape).astype(np.float32)


def test_running_averages():
    layer = RunningMoments(update_rate=0.25)
    mean = np.zeros(2)
    variance = np.ones(2)
    for seed in range(5):
        x = _batch(seed)
        of_batch = layer(x, training=True)
        np.testing.assert_allclose(of_batch[0], x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(of_batch[1], x.var((0, 1, 2)), rtol=1e-5)
        mean, variance = (
            0.75 * old + 0.25 * new for old, new in ((mean, x.mean((0, 1, 2))), (variance, x.var((0, 1, 2))))
        )
    averages = layer(_batch(99), training=False)
    np.testing.assert_allclose(averages[0], mean, rtol=1e-5)
    np.testing.assert_allclose(averages[1], variance, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_moments_that_are_not_finite_leave_the_averages_alone(bad):
    layer = RunningMoments()
    layer(_batch(0), training=True)
    before = [v.numpy() for v in layer.variables]
    x = _batch(1)
    x[0, 0, 0, 0] = bad  # 1e30 has a finite mean, and a variance beyond float32.
    layer(x, training=True)
    np.testing.assert_array_equal(layer.variance, before[1])
    assert np.all(np.isfinite(layer.mean))
    if not np.isfinite(bad):
        np.testing.assert_array_equal(layer.mean, before[0])


def test_initialisation_sets_the_averages():
    layer = RunningMoments()
    x = _batch(3)
    with data_dependent_initialization():
        layer(x, training=True)
    np.testing.assert_allclose(layer.mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.variance, x.var((0, 1, 2)), rtol=1e-5)


CHANNELS = pytest.mark.parametrize("copies", [1, 4], ids=["2_channels", "8_channels_fused"])


def _wide_batch(seed, copies):
    """Of 2 * copies channels, no two alike."""
    return np.concatenate([_batch(seed + 100 * i) * (1.0 + 0.1 * i) for i in range(copies)], -1)


@CHANNELS
def test_batch_norm_against_numpy(copies, randomize):
    layer = BatchNorm(epsilon=0.01)
    layer(_wide_batch(0, copies))
    randomize(layer)
    gamma = layer.gamma.numpy()
    beta = layer.beta.numpy()
    x = _wide_batch(1, copies)
    mean = layer.moments.mean.numpy()
    variance = layer.moments.variance.numpy()
    expected = gamma * (x - mean) / np.sqrt(variance + 0.01) + beta
    np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-5, atol=1e-5)
    expected = gamma * (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 0.01) + beta
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5, atol=2e-5)


@CHANNELS
def test_batch_norm_moves_its_averages(copies):
    layer = BatchNorm()
    x = _wide_batch(0, copies)
    with data_dependent_initialization():
        layer(x, training=True)
    mean = x.mean((0, 1, 2))
    variance = x.var((0, 1, 2))
    np.testing.assert_allclose(layer.moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moments.variance, variance, rtol=1e-5)
    x = _wide_batch(1, copies)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moments.mean, 0.9 * mean + 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moments.variance, 0.9 * variance + 0.1 * x.var((0, 1, 2)), rtol=1e-5)


@CHANNELS
def test_affine_is_the_layer_outside_training(copies, randomize):
    layer = BatchNorm()
    x = _wide_batch(0, copies)
    layer(x)
    randomize(layer)
    scale, offset = layer.affine()
    np.testing.assert_allclose(x * scale + offset, layer(x), rtol=1e-5, atol=1e-5)


def test_fused_gradients_are_those_of_the_moments(randomize):
    """Also for gamma and beta, and of an output whose gradient differs from element to element."""
    layer = BatchNorm()
    x = tf.constant(_wide_batch(0, 4))
    layer(x)
    randomize(layer)
    weights = tf.constant(_wide_batch(1, 4))
    gradients = []
    for fusible in (True, False):
        layer._fusible = fusible
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * tf.sin(layer(x, training=True)))
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for fused, separate in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, separate, rtol=1e-4, atol=1e-5 * np.abs(separate).max())


@CHANNELS
def test_gradients_pass_through_the_moments_in_training_alone(copies):
    """The output's batch sum is constant in training: its gradient vanishes only if the moments are differentiated."""
    layer = BatchNorm()
    x = tf.constant(_wide_batch(0, copies))
    weights = tf.range(1.0, 2.0 * copies + 1.0)
    gradients = {}
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x, training=training) * weights)
        gradients[training] = tape.gradient(total, x).numpy()
    np.testing.assert_allclose(gradients[True], 0.0, atol=2e-5 * copies)
    assert np.all(gradients[False] > 0.2)


def test_gradient_of_the_moments_against_automatic_and_numerical_differentiation():
    """In float64, of a function of both moments and of x itself, three channels whose means are far from 0."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal([3.0, -2.0, 0.1], [0.5, 3.0, 1.0], [4, 3, 2, 3]))
    weights = tf.constant(rng.normal(size=[4, 3, 2, 3]))

    def loss(x, of_batch):
        mean, variance = of_batch(x)
        normalized = (x - mean) * tf.math.rsqrt(variance + 0.01)
        return tf.reduce_sum(weights * tf.sin(normalized)) - tf.reduce_sum(tf.math.log(variance) + 0.3 * mean)

    def gradient(of_batch):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x, of_batch)
        return tape.gradient(value, x).numpy()

    ours = gradient(moments)
    np.testing.assert_allclose(ours, gradient(lambda x: tf.nn.moments(x, [0, 1, 2])), rtol=1e-11, atol=1e-11)
    numerical = np.zeros_like(ours)
    for place in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-5
        numerical[place] = (loss(x + step, moments) - loss(x - step, moments)) / 2e-5
    np.testing.assert_allclose(ours, numerical, rtol=1e-7, atol=1e-7)


def test_a_second_derivative_of_the_moments_is_refused():
    """It would be silently wrong."""
    x = tf.constant(_batch(0))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = tf.reduce_sum(tf.square(moments(x)[1]))
        gradient = inner.gradient(variance, x)
    with pytest.raises(LookupError, match="differentiated once"):
        outer.gradient(gradient, x)
