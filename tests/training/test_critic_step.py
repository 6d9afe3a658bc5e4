"""The critic's step and the generator's answer, with every loss, regularizer, augmentation and normalisation."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from small_trainer import (
    BATCH,
    assert_same,
    gradients_of,
    moments_of,
    small_critic,
    small_images,
    small_trainer,
    take_step,
    values_of,
)

from tf_pivae.layers.spectral_norm import SpectralNorm, SpectralNormConv2D, SpectralNormDense
from tf_pivae.noise import RowNoise
from tf_pivae.training import augmentation, losses
from tf_pivae.training.regularizers import R1, GradientPenalty

NORMALIZED = functools.partial(small_critic, conv=SpectralNormConv2D, dense=SpectralNormDense)


def _halved(images, noise):
    return 0.5 * images + 0.2


def _squared_slopes(critic, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = critic(images)
    return tf.reduce_sum(tf.square(tape.gradient(logits, images)), [1, 2, 3])


def _logistic(real, fake):
    return -tf.reduce_mean(tf.math.log(tf.sigmoid(real))) - tf.reduce_mean(tf.math.log(1.0 - tf.sigmoid(fake)))


def _hinge(real, fake):
    return tf.reduce_mean(tf.maximum(0.0, 1.0 - real)) + tf.reduce_mean(tf.maximum(0.0, 1.0 + fake))


def _penalty(critic, real, fake, noise):
    mix = tf.reshape(noise.uniform("gradient_penalty", []), [-1, 1, 1, 1])
    slopes = tf.sqrt(_squared_slopes(critic, fake + mix * (real - fake)))
    return 7.0 * tf.reduce_mean(tf.square(slopes - 1.0))


CASES = {
    "the_paper": (
        dict(regularizer=functools.partial(GradientPenalty, 7.0)),
        _logistic,
        _penalty,
        None,
    ),
    "hinge_r1": (
        dict(critic_loss=losses.hinge_loss, regularizer=functools.partial(R1, 3.0)),
        _hinge,
        lambda critic, real, fake, noise: 1.5 * tf.reduce_mean(_squared_slopes(critic, real)),
        None,
    ),
    "hinge_spectral_normalization": (
        dict(critic=NORMALIZED, critic_loss=losses.hinge_loss, regularizer=None),
        _hinge,
        lambda *_: 0.0,
        None,
    ),
    "augmentation_r1": (
        dict(augment=lambda: _halved, regularizer=R1),
        _logistic,
        lambda critic, real, fake, noise: 5.0 * tf.reduce_mean(_squared_slopes(critic, real)),
        _halved,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_gradients_of_critic_and_generator(randomize, case):
    options, loss, regularizer, augment = CASES[case]
    trainer = small_trainer(randomize, likelihood_weight=0.0, adversarial_weight=10.0, **options)
    pivae = trainer.pivae
    critic = trainer.critic
    noise = RowNoise(0, BATCH)
    critic_view = augment or (lambda images, noise: images)
    decoder = values_of(pivae.trainable_variables)

    def fakes():
        return critic_view(2.0 * pivae.sample_continuous(noise.fold_in("adversary/0")) - 1.0, None)

    real = critic_view(2.0 * pivae.dequantize(small_images(), noise.fold_in("critic")) - 1.0, None)
    with tf.GradientTape() as tape:
        fake = fakes()
        total = loss(critic(real), critic(fake)) + regularizer(critic, real, fake, noise.fold_in("adversary/0"))
    expected = gradients_of(tape, total, critic.trainable_variables)
    metrics = take_step(trainer, small_images())
    moments = moments_of(trainer.critic_optimizer, critic.trainable_variables)[: len(expected)]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected))
    assert_same(moments, [0.1 * g for g in expected], atol=1e-5 * norm)
    np.testing.assert_allclose(metrics["critic_loss"] + metrics["critic_regularization"], total, rtol=1e-5)

    # The generator answers the critic as that step has left it.
    after = moments_of(trainer.generator_optimizer, pivae.trainable_variables)[: len(decoder)]
    for variable, value in zip(pivae.trainable_variables, decoder, strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        quality = -10.0 * tf.reduce_mean(critic(fakes()))
    expected = gradients_of(tape, quality, pivae.trainable_variables)
    head = {id(v) for v in pivae.flow_variables}
    expected = [0.0 * g if id(v) in head else g for v, g in zip(pivae.trainable_variables, expected, strict=True)]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected))
    assert norm > 1e-3
    assert_same(after, [0.1 * g for g in expected], atol=1e-5 * norm)


def test_augmentation_meets_every_image_with_noise_of_its_own(randomize):
    """Real and fake images in the critic's step, and fake ones in the generator's: three draws, none of them shared."""
    calls = []

    def spy(images, noise):
        calls.append((images.numpy(), noise.uniform("tag", [3]).numpy()))
        return images

    trainer = small_trainer(randomize, augment=lambda: spy)
    take_step(trainer, small_images())
    (real, *_), (fake, *_), (answered, *_) = calls
    assert len(calls) == 3
    np.testing.assert_array_equal(fake, answered)
    assert real.min() >= -1.0
    assert np.abs(real - fake).max() > 0.1
    assert len({row.tobytes() for _, draws in calls for row in draws}) == 3 * BATCH
    take_step(trainer, small_images())
    assert len({row.tobytes() for _, draws in calls for row in draws}) == 6 * BATCH  # Another step, other noise.


def test_the_critic_cannot_tell_what_augmentation_takes_away(randomize):
    """Behind an augmentation that erases everything, neither the critic's trunk nor the decoder has a gradient."""
    trainer = small_trainer(
        randomize, likelihood_weight=0.0, regularizer=None, augment=lambda: lambda images, noise: 0.0 * images
    )
    metrics = take_step(trainer, small_images())
    assert metrics["real_logit"] == metrics["fake_logit"]
    assert metrics["gradient_norm"] == 0.0


def _normalized_layers(critic):
    return [
        layer for layer in critic._flatten_layers(include_self=False) if isinstance(layer, SpectralNorm) and layer.built
    ]


def test_spectral_normalisation_follows_the_weights(randomize):
    trainer = small_trainer(randomize, critic=NORMALIZED, regularizer=None, critic_steps=2)
    layers = _normalized_layers(trainer.critic)
    assert len(layers) == 7  # stem, 2 + 3 of the blocks, head: every layer with a kernel.
    assert len(layers) == sum(v.name == "kernel" for v in trainer.critic.trainable_variables)
    kernels = [layer.kernel.numpy() for layer in layers]
    step = tf.function(trainer.train_step, autograph=False)
    for seed in range(20):
        step(tf.constant(small_images(seed=seed)))
    for layer, kernel in zip(layers, kernels, strict=True):
        assert np.abs(layer.kernel - kernel).max() > 0.01
        matrix = np.asarray(layer.normalized_kernel(), np.float64).reshape(-1, kernel.shape[-1])
        assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, abs=1e-2)
    names = [v.path for v in trainer.state["critic"]]
    assert sum(name.endswith("/u") for name in names) == len(layers)  # They are in the checkpoints.


def test_spectral_normalisation_moves_once_for_each_critic_update(randomize):
    trainer = small_trainer(randomize, critic=NORMALIZED, regularizer=None)
    layer = trainer.critic.head
    before = layer.u.numpy().astype(np.float64)
    block = trainer.critic.trunk.blocks[0].conv_0
    start = block.u.numpy().astype(np.float64)
    take_step(trainer, small_images())
    matrix = np.asarray(block.kernel, np.float64).reshape(-1, block.filters)
    expected = np.linalg.matrix_power(matrix.T @ matrix, 3) @ start
    np.testing.assert_allclose(block.u, expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(np.abs(layer.u), np.abs(before), atol=1e-6)  # One output: nothing to turn.


def test_class_embedding_is_normalised_too():
    critic = small_critic(conv=SpectralNormConv2D, dense=SpectralNormDense, num_classes=3)
    critic.build([4, 4, 1])
    assert critic.class_embedding in _normalized_layers(critic)


def test_differentiable_augmentation_trains(randomize):
    trainer = small_trainer(randomize, augment=augmentation.DifferentiableAugmentation, critic_loss=losses.hinge_loss)
    for seed in range(3):
        metrics = take_step(trainer, small_images(seed=seed))
        assert all(np.isfinite(value) for value in metrics.values())
        assert metrics["skipped_generator"] == metrics["skipped_critic"] == 0.0
