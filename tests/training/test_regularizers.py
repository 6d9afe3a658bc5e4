"""The critic's regularizers beside critics whose gradient is known."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.noise import RowNoise
from tf_pivae.training.regularizers import R1, GradientPenalty

RNG = np.random.default_rng(0)


def _noise():
    return RowNoise(3, 5)


def _images(count=5):
    return tf.constant(RNG.normal(size=[count, 3, 3, 2]), tf.float32)


def _linear(slope):
    """D(v) = slope * w . v with ||w|| = 1: its gradient has the norm `slope` everywhere."""
    weight = tf.fill([3, 3, 2], 18.0**-0.5)
    return lambda v: slope * tf.reduce_sum(v * weight, [1, 2, 3]) + 7.0


def _quadratic(v):
    """D(v) = ||v - 0.3||^2 / 2 has the gradient v - 0.3: the place where it is taken shows."""
    return 0.5 * tf.reduce_sum(tf.square(v - 0.3), [1, 2, 3])


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_linear_critic(norm, weight):
    penalty = GradientPenalty(weight)(_linear(norm), _images(), _images(), _noise())
    np.testing.assert_allclose(penalty, weight * (norm - 1.0) ** 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        R1(weight)(_linear(norm), _images(), _images(), _noise()), weight / 2.0 * norm**2, rtol=1e-5
    )


def test_gradient_penalty_is_taken_between_real_and_fake():
    real = _images()
    fake = _images()
    penalty = GradientPenalty(1.0)(_quadratic, real, fake, _noise())
    mix = _noise().uniform("gradient_penalty", []).numpy().reshape(5, 1, 1, 1)
    assert len(set(mix.ravel())) == 5
    places = mix * real.numpy() + (1.0 - mix) * fake.numpy()
    norms = np.linalg.norm((places - 0.3).reshape(5, -1), axis=1)
    np.testing.assert_allclose(penalty, np.mean((norms - 1.0) ** 2), rtol=1e-5)


def test_r1_is_taken_at_real_images_alone():
    real = _images()
    penalty = R1(10.0)(_quadratic, real, _images() * np.nan, _noise())
    squared_norms = np.sum((real.numpy() - 0.3).astype(np.float64).reshape(5, -1) ** 2, axis=1)
    np.testing.assert_allclose(penalty, 5.0 * np.mean(squared_norms), rtol=1e-5)


@pytest.mark.parametrize(
    ("regularizer", "slope", "derivative"), [(GradientPenalty, 3.0, 2.0 * 2.0), (R1, 3.0, 3.0), (R1, -0.5, -0.5)]
)
def test_derivative_by_the_slope(regularizer, slope, derivative):
    """(s - 1)^2 wants slope 1, s^2 / 2 wants slope 0."""
    slope = tf.Variable(slope)
    with tf.GradientTape() as tape:
        penalty = regularizer(1.0)(_linear(slope), _images(), _images(), _noise())
    np.testing.assert_allclose(tape.gradient(penalty, slope), derivative, rtol=1e-5)


def test_gradient_penalty_at_zero_gradient_is_finite():
    slope = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        penalty = GradientPenalty(1.0)(_linear(slope), _images(), _images(), _noise())
    np.testing.assert_allclose(penalty, 1.0, rtol=1e-5)
    assert np.isfinite(tape.gradient(penalty, slope))
