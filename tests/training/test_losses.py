"""The losses beside NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.models.pivae import Bound
from tf_pivae.training import losses

RNG = np.random.default_rng(0)


def test_logistic_and_quality_loss_against_numpy():
    real = RNG.normal(0.0, 5.0, 64)
    fake = RNG.normal(0.0, 5.0, 64)
    d_real = 1.0 / (1.0 + np.exp(-real))
    d_fake = 1.0 / (1.0 + np.exp(-fake))
    loss = losses.logistic_loss(tf.constant(real, tf.float32), tf.constant(fake, tf.float32))
    np.testing.assert_allclose(loss, -np.mean(np.log(d_real)) - np.mean(np.log1p(-d_fake)), rtol=1e-5)
    quality = losses.quality_loss(tf.constant(fake, tf.float32))
    np.testing.assert_allclose(quality, -np.mean(np.log(d_fake / (1.0 - d_fake))), rtol=1e-5, atol=1e-5)


def test_logistic_loss_of_extreme_logits_is_finite():
    logits = tf.constant([1e4, -1e4])
    np.testing.assert_allclose(losses.logistic_loss(logits, logits), 1e4, rtol=1e-6)


def test_hinge_loss_by_cases():
    """Nothing beyond the margins (real above 1, fake below -1), the distance to them on the other side."""
    real = tf.constant([3.0, 1.0, 0.5, -2.0])
    fake = tf.constant([-3.0, -1.0, 0.25, 4.0])
    with tf.GradientTape() as tape:
        tape.watch([real, fake])
        loss = losses.hinge_loss(real, fake)
    np.testing.assert_allclose(loss, (0.0 + 0.0 + 0.5 + 3.0) / 4 + (0.0 + 0.0 + 1.25 + 5.0) / 4)
    gradients = tape.gradient(loss, [real, fake])
    np.testing.assert_allclose(gradients, [[0.0, 0.0, -0.25, -0.25], [0.0, 0.0, 0.25, 0.25]])


def _bound():
    reconstruction = RNG.normal(-20.0, 3.0, 6)
    log_dets = RNG.normal(size=[2, 6])
    kl = [np.abs(RNG.normal(size=[6, channels])) * np.linspace(0.01, 2.0, channels) for channels in (3, 5)]
    discretisation = np.full(6, -4.0 * np.log(256.0))
    log_prob = reconstruction + log_dets.sum(0) - sum(group.sum(1) for group in kl) + discretisation
    values = (log_prob, reconstruction, kl, *log_dets, discretisation)
    return Bound(*tf.nest.map_structure(lambda x: tf.constant(x, tf.float32), values)), log_prob, np.concatenate(kl, 1)


@pytest.mark.parametrize("free_nats", [0.0, 0.2, 0.8, 100.0])
@pytest.mark.parametrize("kl_weights", [None, (1.0, 1.0), (0.25, 0.25), (0.0, 0.0), (0.25, 0.75)])
def test_coverage_loss_against_numpy(free_nats, kl_weights):
    bound, log_prob, kl = _bound()
    without_kl = -np.mean(log_prob + kl.sum(1))
    channels = kl.mean(0)
    weights = np.repeat(kl_weights or (1.0, 1.0), [group.shape[1] for group in bound.kl])
    expected = without_kl + np.sum(weights * np.where(channels > free_nats, channels, free_nats))
    loss = losses.coverage_loss(bound, free_nats, kl_weights)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    if free_nats == 0.0 and np.all(weights == 1.0):
        np.testing.assert_allclose(loss, -np.mean(log_prob), rtol=1e-6)


def test_free_nats_stop_the_gradient_of_cheap_channels():
    bound, _, kl = _bound()
    with tf.GradientTape() as tape:
        tape.watch(bound.kl)
        log_prob = bound.log_prob - tf.add_n([tf.reduce_sum(g - tf.stop_gradient(g), 1) for g in bound.kl])
        loss = losses.coverage_loss(bound._replace(log_prob=log_prob), free_nats=0.5)
    gradient = np.concatenate(tape.gradient(loss, bound.kl), 1)
    np.testing.assert_allclose(gradient, np.broadcast_to((kl.mean(0) > 0.5) / 6.0, gradient.shape), atol=1e-7)
