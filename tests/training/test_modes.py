"""What a trainer trains: the modes, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from small_trainer import BATCH, SHAPE, small_critic, small_images, small_model, small_trainer, take_step, values_of

from tf_pivae.models.critic import residual_critic
from tf_pivae.models.hierarchical_vae import plain_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.trainer import Trainer


@pytest.mark.parametrize(
    ("critic", "options", "terms"),
    [
        (small_critic, {"likelihood_weight": 0.0}, {"quality_loss", "critic_loss", "critic_regularization"}),
        (None, {}, {"bits_per_dim", "kl/top", "kl/top_down_0"}),
        (small_critic, {}, {"quality_loss", "critic_loss", "bits_per_dim", "kl/top"}),
        (small_critic, {"critic_steps": 2}, {"quality_loss", "critic_loss", "bits_per_dim", "kl/top"}),
    ],
)
def test_modes(randomize, critic, options, terms):
    trainer = small_trainer(randomize, critic=critic, **options)
    before = values_of(trainer.pivae.trainable_variables)
    metrics = take_step(trainer, small_images())
    assert terms <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("bits_per_dim" in metrics) == (options.get("likelihood_weight") != 0.0)
    assert any(np.any(a != b) for a, b in zip(before, values_of(trainer.pivae.trainable_variables), strict=True))
    assert int(trainer.step) == 1
    if critic:
        assert int(trainer.critic_optimizer.iterations) == options.get("critic_steps", 1)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="critic"):
        Trainer(small_model(), likelihood_weight=0.0)


def test_steps_draw_new_noise(randomize):
    trainer = small_trainer(randomize, critic=None, learning_rate=0.0)
    first, second = (take_step(trainer, small_images())["reconstruction"] for _ in range(2))
    assert first != second


def test_class_conditional_step_moves_the_classes_it_saw():
    def vae(image_shape, num_classes):
        return plain_vae(image_shape, widths=(5, 6), top_channels=2, latent_channels=2, num_classes=num_classes)

    pivae = PiVAE(SHAPE, num_bins=4, vae=vae, num_classes=3)
    critic = residual_critic(stem_width=4, widths=(4, 6), num_classes=3)
    trainer = Trainer(pivae, critic=critic)
    gains = [v for v in pivae.trainable_variables if v.name in ("g", "b")]
    before = values_of(gains)
    embedding = np.array(critic.class_embedding.kernel)
    labels = tf.constant([0, 2] * (BATCH // 2), tf.int64)
    metrics = trainer.train_step((tf.constant(small_images()), labels))
    assert all(np.isfinite(value) for value in metrics.values())
    moved = [np.any(old != np.array(new), axis=-1) for old, new in zip(before, gains, strict=True)]
    assert not any(rows[1] for rows in moved)
    assert np.any(moved, axis=0)[[0, 2]].all()
    np.testing.assert_array_equal(np.any(embedding != critic.class_embedding.kernel, axis=0), [True, False, True])
