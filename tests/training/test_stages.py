"""The adversarial loss in the course of a training: its start, its ramp, its balance, its lazy regulariser."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from small_trainer import (
    BATCH,
    assert_same,
    gradients_of,
    moments_of,
    outside_the_head,
    small_critic,
    small_images,
    small_trainer,
    take_step,
    values_of,
)

from tf_pivae.models.dequantization import EdgeBins
from tf_pivae.noise import RowNoise
from tf_pivae.training import losses
from tf_pivae.training.accumulation import AccumulatingTrainer
from tf_pivae.training.balance import GradientBalance
from tf_pivae.training.optimizer import OPTIMIZERS, Adamax
from tf_pivae.training.regularizers import R1
from tf_pivae.training.trainer import Trainer


def _step(trainer, seed=0):
    step = int(trainer.step)
    stage = trainer.stage(step)
    trainer.begin(stage)
    metrics = trainer.train_step(tf.constant(small_images(seed=seed)), stage)
    return {name: float(value) for name, value in metrics.items()}


def _momentum(trainer):
    return moments_of(trainer.generator_optimizer, trainer.pivae.trainable_variables)[
        : len(trainer.pivae.trainable_variables)
    ]


def test_likelihood_first_then_both(randomize):
    """The first stage is that of a training without a critic, which does not move meanwhile."""
    trainer = small_trainer(randomize, adversarial_start=2)
    alone = small_trainer(randomize, critic=None)
    critic = values_of(trainer.critic.variables)
    for seed in range(2):
        metrics = _step(trainer, seed)
        assert metrics.keys() == take_step(alone, small_images(seed=seed)).keys()
    assert_same(values_of(trainer.pivae.variables), values_of(alone.pivae.variables))
    assert_same(critic, values_of(trainer.critic.variables))
    assert int(trainer.critic_optimizer.steps) == 0
    assert "critic_loss" in _step(trainer, 2)
    assert int(trainer.critic_optimizer.steps) == 1
    assert any(np.any(a != b) for a, b in zip(critic, values_of(trainer.critic.variables), strict=True))


def test_the_weight_grows_linearly(randomize):
    """The third of four steps after the start has three quarters of the weight: the gradient is that of 0.75."""
    ramped = small_trainer(randomize, adversarial_weight=8.0, adversarial_start=3, adversarial_ramp_steps=4)
    plain = small_trainer(randomize, adversarial_weight=6.0)
    for trainer in (ramped, plain):
        trainer.generator_optimizer.steps.assign(5)
        _step(trainer)
    assert_same(_momentum(ramped), _momentum(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainer", [Trainer, functools.partial(AccumulatingTrainer, num_parts=2)])
def test_balance_weighs_the_gradients_at_the_decoders_output(randomize, trainer):
    """Both slopes by automatic differentiation, the weight from them, and the gradient with that weight."""
    likelihood = 0.5
    share = 0.25
    options = dict(likelihood_weight=likelihood, adversarial_weight=share, trainer=trainer, regularizer=None)
    balanced = small_trainer(randomize, balance=functools.partial(GradientBalance, high=1e6), norm="act", **options)
    model = balanced.pivae
    critic = balanced.critic
    noise = RowNoise(0, BATCH)
    with tf.GradientTape() as tape:
        features = model.features(small_images(), noise.fold_in("likelihood"), True)
        _, mean = model.vae.infer(features.y, noise.fold_in("likelihood"))
        loss = -likelihood * tf.reduce_mean(model.vae.log_likelihood(features.y, mean))
    of_likelihood = np.linalg.norm(tape.gradient(loss, mean))
    metrics = _step(balanced)  # The critic moves first, then the generator answers it.
    fresh = small_trainer(randomize, norm="act", **options).pivae
    with tf.GradientTape() as tape:
        mean = fresh.vae.sample_mean(noise.fold_in("adversary/0"))
        fake = 2.0 * fresh.observe(mean, noise.fold_in("adversary/0")) - 1.0
        quality = losses.quality_loss(critic(fake))
    of_quality = np.linalg.norm(tape.gradient(quality, mean))
    expected = share * of_likelihood / of_quality
    np.testing.assert_allclose(metrics["adversarial_weight"], expected, rtol=1e-3)
    constant = small_trainer(randomize, norm="act", **{**options, "adversarial_weight": expected})
    _step(constant)
    scale = max(np.abs(m).max() for m in _momentum(constant))
    assert_same(_momentum(balanced), _momentum(constant), rtol=2e-3, atol=1e-4 * scale)


def test_balance_is_clamped_averaged_and_not_moved_by_a_bad_step():
    balance = GradientBalance(low=2.0, high=5.0, decay=0.75)
    ratios = [9.0, 4.0, 25.0, 1.0, 16.0, 1.0]
    logs = []
    for i, ratio in enumerate(ratios):
        log_ratio = balance.log_ratio(tf.constant(ratio**2), tf.constant(1.0))
        bad = balance.log_ratio(tf.constant(np.nan), tf.constant(1.0))
        balance.update(bad, tf.constant(0.0))
        balance.update(tf.constant(123.0), tf.constant(1.0))
        balance.update(log_ratio, tf.constant(0.0))
        rate = max(0.25, 1.0 / (i + 1))  # An even average of the first four.
        logs.append(np.log(ratio) if not logs else (1.0 - rate) * logs[-1] + rate * np.log(ratio))
        np.testing.assert_allclose(log_ratio, logs[-1], rtol=1e-5)
        np.testing.assert_allclose(balance.weight(0.5, log_ratio), np.clip(0.5 * np.exp(logs[-1]), 2.0, 5.0), rtol=1e-5)
    assert np.isfinite(
        balance.weight(1.0, balance.log_ratio(tf.constant(1.0), tf.constant(0.0)))
    )  # A collapsed critic.


@pytest.mark.parametrize("trainer", [Trainer, functools.partial(AccumulatingTrainer, num_parts=2)])
def test_a_lazy_regulariser_is_stronger_and_rarer(randomize, trainer):
    """R1 of weight 2 in every third step, against R1 of weight 6 in it and none in the others."""
    options = dict(likelihood_weight=0.0, trainer=trainer, critic=small_critic)
    lazy = small_trainer(randomize, regularizer=functools.partial(R1, 2.0), regularizer_interval=3, **options)
    for step, weight in enumerate((0.0, 0.0, 6.0, 0.0)):
        eager = small_trainer(randomize, regularizer=functools.partial(R1, weight), **options)
        for name, group in lazy.state.items():
            for variable, value in zip(eager.state[name], group, strict=True):
                variable.assign(value)
        actual = _step(lazy, step)
        expected = _step(eager, step)
        assert (actual["critic_regularization"] > 0.0) == (weight > 0.0)
        np.testing.assert_allclose(actual["critic_regularization"], expected["critic_regularization"], rtol=1e-4)
        assert_same(values_of(lazy.critic.variables), values_of(eager.critic.variables), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("trainer", [Trainer, functools.partial(AccumulatingTrainer, num_parts=2)])
def test_q_alone_follows_the_bound(randomize, trainer):
    """A step of gradient descent, beside the gradient of minus the bound: no floor, no weight, the running moments."""
    rate = 1e-3
    optimizer = functools.partial(OPTIMIZERS["SGD"], learning_rate=rate)
    settings = dict(free_nats=2.0, kl_weight=0.5, dequantization=EdgeBins, generator_optimizer=optimizer)
    trainer = small_trainer(randomize, critic=None, posterior_start=0, trainer=trainer, **settings)
    variables = trainer.pivae.posterior_variables
    with tf.GradientTape() as tape:
        bound = trainer.pivae.bound(small_images(), RowNoise(0, BATCH).fold_in("likelihood"))
        loss = -tf.reduce_mean(bound.log_prob)
    expected = [v - rate * g for v, g in zip(variables, gradients_of(tape, loss, variables), strict=True)]
    _step(trainer)
    assert_same(values_of(variables), expected, rtol=1e-4, atol=1e-5)


def test_q_alone_begins_with_the_model_that_it_is_given(randomize):
    trainer = small_trainer(randomize, critic=None, posterior_start=0, moving_average=True)
    sigma = float(trainer.pivae.vae.log_sigma)
    trainer.initialize(small_images(), weights=False)
    assert [float(model.vae.log_sigma) for model in (trainer.pivae, trainer.moving_average)] == [sigma, sigma]


@pytest.mark.parametrize("optimizer", [Adamax, OPTIMIZERS["Adam"]])
def test_q_alone_leaves_the_model_and_the_critic_as_they_are(randomize, optimizer):
    """Although both optimisers remember the gradients of a step before."""
    trainer = small_trainer(
        randomize, posterior_start=1, dequantization=EdgeBins, generator_optimizer=optimizer, moving_average=True
    )
    model = trainer.moving_average
    assert {"critic_loss", "bits_per_dim"} <= _step(trainer).keys()
    samples = model.sample(3)
    others = _others(model, trainer.critic, trainer.critic_optimizer)
    before = values_of(model.posterior_variables)
    assert "critic_loss" not in _step(trainer, 1)
    assert_same(_others(model, trainer.critic, trainer.critic_optimizer), others)
    assert_same(_others(trainer.pivae), _others(model))
    np.testing.assert_array_equal(model.sample(3), samples)
    assert all(np.any(a != b) for a, b in zip(before, values_of(model.posterior_variables), strict=True))


def _others(model, *parts):
    """The values of a model's variables that q does not consist of, and of all that the other parts have."""
    posterior = {id(variable) for variable in model.posterior_variables}
    variables = [variable for part in (model, *parts) for variable in part.variables]
    return values_of(variable for variable in variables if id(variable) not in posterior)


@pytest.mark.parametrize("options", [dict(adversarial_start=3), dict(posterior_start=3), dict(balance=GradientBalance)])
def test_what_needs_a_likelihood_says_so(randomize, options):
    with pytest.raises(ValueError, match="need a `likelihood_weight` above 0"):
        small_trainer(randomize, likelihood_weight=0.0, **options)


def test_the_adversary_still_leaves_the_head_alone(randomize):
    weak, strong = (
        small_trainer(randomize, adversarial_weight=share, balance=functools.partial(GradientBalance, high=1e6))
        for share in (0.0, 10.0)
    )
    for trainer in (weak, strong):
        _step(trainer)
    assert_same(*(values_of(trainer.pivae.flow_variables) for trainer in (weak, strong)), atol=1e-6)
    decoders = [values_of(outside_the_head(trainer.pivae)) for trainer in (weak, strong)]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*decoders, strict=True))
