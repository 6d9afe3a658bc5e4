"""Adamax, and steps whose numbers are none."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import (
    assert_same,
    moments_of,
    small_images,
    small_trainer,
    take_step,
    values_of,
)

from tf_pivae.training.optimizer import Adamax


def _numpy_adamax(weight, gradients, learning_rate=0.002, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma & Ba 2015, algorithm 2, in float64."""
    m = np.zeros_like(weight)
    u = np.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1.0 - beta_1) * g
        u = np.maximum(beta_2 * u, np.abs(g))
        weight = weight - learning_rate / (1.0 - beta_1**t) * m / (u + epsilon)
    return weight


def test_adamax_against_numpy_and_keras():
    rng = np.random.default_rng(0)
    start = rng.normal(size=[5, 3])
    gradients = rng.normal(size=[20, 5, 3]) * np.geomspace(1e-4, 1e2, 3)
    expected = _numpy_adamax(start, gradients)
    for optimizer in (Adamax(0.002), keras.optimizers.Adamax(0.002)):
        weight = keras.Variable(start.astype(np.float32))
        optimizer.build([weight])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient, tf.float32)], [weight])
        np.testing.assert_allclose(weight, expected, atol=2e-6)
        assert int(optimizer.iterations) == 20


def test_a_skipped_step_is_no_step():
    """The bias correction goes by the updates, not by the calls: the same weights as without the bad gradients."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=[5, 3])
    gradients = rng.normal(size=[4, 5, 3])
    weight = keras.Variable(start.astype(np.float32))
    optimizer = Adamax(0.1)
    optimizer.build([weight])
    bad = np.full([5, 3], np.nan)
    for gradient in (bad, gradients[0], bad, bad, gradients[1], gradients[2], bad, gradients[3]):
        optimizer.apply([tf.constant(gradient, tf.float32)], [weight])
    assert (int(optimizer.steps), int(optimizer.iterations)) == (8, 4)
    np.testing.assert_allclose(weight, _numpy_adamax(start, gradients, learning_rate=0.1), atol=2e-6)
    # It matters: counted by calls, the first step would have been half as long.
    counted = _numpy_adamax(start, np.concatenate([np.zeros([1, 5, 3]), gradients]), learning_rate=0.1)
    assert np.abs(counted - np.array(weight)).max() > 1e-2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_adamax_skips_a_step_without_a_finite_norm(bad):
    """Neither weights nor moments change, nor what the next step does: only the steps taken count."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=[4])
    gradients = rng.normal(size=[6, 4])
    weights = [keras.Variable(start[:1].astype(np.float32)), keras.Variable(start[1:].astype(np.float32))]
    optimizer = Adamax(0.1)
    optimizer.build(weights)
    for i, gradient in enumerate(gradients):
        before = values_of([*weights, *optimizer._m, *optimizer._u])
        broken = np.array([gradient[0], gradient[1], bad, gradient[3]], np.float32)
        assert not np.isfinite(optimizer.apply([tf.constant(broken[:1]), tf.constant(broken[1:])], weights))
        assert_same(before, values_of([*weights, *optimizer._m, *optimizer._u]))
        parts = [tf.constant(gradient[:1], tf.float32), tf.constant(gradient[1:], tf.float32)]
        norm = optimizer.apply(parts, weights)
        np.testing.assert_allclose(norm, np.linalg.norm(gradient), rtol=1e-6)
        expected = _numpy_adamax(start, gradients[: i + 1], learning_rate=0.1)
        np.testing.assert_allclose(np.concatenate(values_of(weights)), expected, atol=2e-6)
    assert (int(optimizer.steps), int(optimizer.iterations)) == (12, 6)


def test_step_with_a_broken_critic_changes_no_weight(randomize, monkeypatch):
    trainer = small_trainer(randomize, moving_average=True)
    take_step(trainer, small_images())
    variables = [*trainer.pivae.trainable_variables, *trainer.critic.trainable_variables]
    variables += trainer.moving_average.variables
    optimizers = [
        (trainer.generator_optimizer, trainer.pivae.trainable_variables),
        (trainer.critic_optimizer, trainer.critic.trainable_variables),
    ]
    before = values_of(variables)
    moments = [moments_of(*pair) for pair in optimizers]
    call = type(trainer.critic).call
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.critic), "call", lambda self, v, labels=None: float("nan") * call(self, v, labels))
        metrics = take_step(trainer, small_images(seed=1))
    assert metrics["skipped_generator"] == 1.0
    assert metrics["skipped_critic"] == 1.0
    assert_same(before, values_of(variables))
    for old, pair in zip(moments, optimizers, strict=True):
        assert_same(old, moments_of(*pair))
    metrics = take_step(trainer, small_images(seed=2))
    assert metrics["skipped_generator"] == metrics["skipped_critic"] == 0.0
    assert any(np.any(a != b) for a, b in zip(before, values_of(variables), strict=True))


def test_step_with_a_broken_likelihood_changes_no_weight_of_the_generator(randomize):
    trainer = small_trainer(randomize, critic=None)
    trainer.pivae.vae.log_sigma.assign(float("nan"))
    before = values_of(trainer.pivae.trainable_variables)
    metrics = take_step(trainer, small_images())
    assert metrics["skipped_generator"] == 1.0
    assert_same(before, values_of(trainer.pivae.trainable_variables))
    assert all(np.all(np.isfinite(v)) for v in trainer.pivae.non_trainable_variables)
