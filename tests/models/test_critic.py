"""The critics: shapes, projection conditioning, and no statistics of a batch."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.models.critic import plain_critic, residual_critic

SHAPE = (8, 8, 3)
MAKERS = {
    "plain": lambda **options: plain_critic(widths=(4, 6, 8), **options),
    "residual": lambda **options: residual_critic(stem_width=4, widths=(4, 6, 8), **options),
    "deep_residual": lambda **options: residual_critic(stem_width=4, widths=(4, 6), blocks_per_width=2, **options),
}


@pytest.fixture(params=list(MAKERS))
def make(request, randomize):
    def make(**options):
        critic = MAKERS[request.param](**options)
        critic.build(SHAPE)
        return randomize(critic, scale=0.1)

    return make


def _images(count, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(-1.0, 1.0, [count, *SHAPE]), tf.float32)


def test_logit_of_an_image_does_not_depend_on_its_batch(make):
    critic = make()
    images = _images(6)
    logits = critic(images)
    assert logits.shape == [6]
    assert np.ptp(logits) > 1e-3
    np.testing.assert_allclose(critic(images[2:3]), logits[2:3], rtol=1e-4)
    others = tf.concat([50.0 * _images(5, 1), images[3:4]], 0)
    np.testing.assert_allclose(critic(others)[5], logits[3], rtol=1e-4, atol=1e-5)


def test_every_pixel_counts(make, jacobians):
    gradient = jacobians(make(), _images(1), outputs=1)
    assert np.mean(np.abs(gradient) > 1e-9) > 0.95


def test_projection_conditioning(make):
    """logit(v, label) - logit(v, other) = (e(label) - e(other)) . h(v): rank and values by solving for h."""
    critic = make(num_classes=5)
    images = _images(4)
    by_label = np.stack([critic(images, labels=tf.fill([4], label)) for label in range(5)])  # [5, 4]
    embedding = critic.class_embedding.kernel.numpy().T.astype(np.float64)
    features = critic.trunk(images).numpy().astype(np.float64)
    unconditional = features @ critic.head.kernel.numpy() + critic.head.bias.numpy()
    np.testing.assert_allclose(by_label, unconditional.T + embedding @ features.T, rtol=1e-4, atol=1e-5)
    assert np.all(np.ptp(by_label, axis=0) > 1e-4)


def test_labels_are_per_image(make):
    critic = make(num_classes=5)
    images = _images(4)
    labels = np.array([3, 0, 4, 3])
    together = critic(images, labels=labels)
    for i, label in enumerate(labels):
        alone = critic(images[i : i + 1], labels=np.array([label]))
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_variable(make):
    critic = make(num_classes=2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(critic(_images(4), labels=np.array([0, 1, 0, 1])))
    gradients = tape.gradient(loss, critic.trainable_variables)
    missing = [v.path for v, g in zip(critic.trainable_variables, gradients, strict=True) if g is None]
    # A residual block of equal widths has a shortcut that it does not need, and so never built.
    assert not missing
    assert len(critic.trainable_variables) == len(critic.variables)
