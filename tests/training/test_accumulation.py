"""A step in parts is the step in one piece: gradients, losses, weights, on one replica and on two; and its memory."""

import functools
import math

import gin
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import (
    BATCH,
    SHAPE,
    assert_same,
    moments_of,
    small_critic,
    small_images,
    small_trainer,
    take_step,
)

from tf_pivae.describe.graph_cost import executed, flops, peak_bytes
from tf_pivae.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense
from tf_pivae.models.dequantization import EdgeBins
from tf_pivae.noise import RowNoise
from tf_pivae.training import losses
from tf_pivae.training.accumulation import AccumulatingTrainer, over_parts
from tf_pivae.training.augmentation import DifferentiableAugmentation
from tf_pivae.training.regularizers import R1
from tf_pivae.training.trainer import Trainer

OPTIONS = {
    "batch_normalisation": dict(norm="batch"),
    "free_bits_and_critic_steps": dict(norm="act", free_nats=0.3, kl_warmup_steps=10, critic_steps=2),
    "beyond_the_paper": dict(
        norm="batch",
        free_nats=0.3,
        critic=functools.partial(small_critic, conv=SpectralNormConv2D, dense=SpectralNormDense),
        critic_loss=losses.hinge_loss,
        regularizer=functools.partial(R1, 1.0),
        augment=DifferentiableAugmentation,
        dequantization=EdgeBins,
    ),
    "likelihood_alone": dict(norm="none", critic=None, likelihood_weight=2.0),
    "inference_alone": dict(norm="batch", critic=None, inference_only=True, dequantization=EdgeBins),
}


def _gradients(trainer):
    """What the optimisers' first update has received, from their first moments."""
    parts = [(trainer.generator_optimizer, trainer.generator_variables)]
    if trainer.critic is not None:
        parts.append((trainer.critic_optimizer, trainer.critic.trainable_variables))
    return [[m / 0.1 for m in moments_of(o, variables)[: len(variables)]] for o, variables in parts]


@pytest.mark.parametrize("trainer", [Trainer, functools.partial(AccumulatingTrainer, num_parts=2)])
def test_one_skipped_critic_step_of_two_is_said(randomize, trainer):
    calls = []

    def first_fails(real, fake):
        calls.append(math.nan if not calls else 1.0)
        return calls[-1] * losses.logistic_loss(real, fake)

    trainer = small_trainer(randomize, trainer=trainer, critic_loss=first_fails, critic_steps=2)
    metrics = take_step(trainer, small_images())
    assert int(trainer.critic_optimizer.updates) == 1
    assert metrics["skipped_critic"] == 1.0
    assert take_step(trainer, small_images())["skipped_critic"] == 0.0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_step_is_the_same(randomize, options):
    num_parts = 8 if options.get("inference_only") else 2
    options = dict(adversarial_weight=3.0, **options)
    whole = small_trainer(randomize, **options)
    parts = small_trainer(randomize, trainer=functools.partial(AccumulatingTrainer, num_parts=num_parts), **options)
    for step in range(2):
        expected, actual = (take_step(trainer, small_images(seed=step)) for trainer in (whole, parts))
        assert list(actual) == list(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
        if step == 0:
            for a, b in zip(_gradients(whole), _gradients(parts), strict=True):
                scale = max(np.abs(x).max() for x in a)
                assert scale > 0.01
                assert_same(b, a, rtol=1e-4, atol=2e-6 * scale)
            for a, b in zip(whole.pivae.non_trainable_variables, parts.pivae.non_trainable_variables, strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)  # Moved once, by the moments of all images.


def test_moments_of_each_part_would_be_another_gradient(randomize):
    """The comparison above can tell: with the head computed in parts, too, its gradient is another one."""
    whole = small_trainer(randomize, critic=None)
    parts = small_trainer(randomize, critic=None, trainer=functools.partial(AccumulatingTrainer, num_parts=2))
    parts.pivae.flow.couples_images = False
    for trainer in (whole, parts):
        take_step(trainer, small_images())
    (a,) = _gradients(whole)
    (b,) = _gradients(parts)
    assert max(np.abs(x - y).max() for x, y in zip(a, b, strict=True)) > 1e-3 * max(np.abs(x).max() for x in a)


def test_parts_have_the_rows_of_their_places():
    noise = RowNoise(3, 6, 10)
    rows = tf.reshape(tf.range(12.0), [6, 2])

    def function(noise, rows, nothing):
        assert nothing is None
        drawn = noise.fold_in("a").normal("b", [4])
        return tf.reduce_mean(rows), (drawn, rows[:, 0])

    mean, (drawn, first) = over_parts(function, 3, noise, (rows, None))
    np.testing.assert_array_equal(drawn, noise.fold_in("a").normal("b", [4]))
    np.testing.assert_array_equal(first, rows[:, 0])
    np.testing.assert_allclose(mean, 5.5)


def test_a_batch_that_does_not_divide_is_refused(randomize):
    trainer = small_trainer(randomize, critic=None, trainer=functools.partial(AccumulatingTrainer, num_parts=3))
    with pytest.raises(ValueError, match="8 images on a replica cannot be computed in 3 equal parts"):
        take_step(trainer, small_images())
    with pytest.raises(ValueError, match="num_parts"):
        AccumulatingTrainer(trainer.pivae, num_parts=0)


def test_what_is_configured_for_the_trainer_is_for_this_one_too(randomize):
    pivae = small_trainer(randomize, critic=None).pivae
    try:
        with gin.unlock_config():
            gin.bind_parameter("Trainer.free_nats", 0.7)
            gin.bind_parameter("AccumulatingTrainer.num_parts", 4)
        trainer = AccumulatingTrainer(pivae, seed=5)
    finally:
        gin.clear_config()
    assert (trainer.free_nats, trainer.num_parts, trainer.seed) == (0.7, 4, 5)


def test_two_replicas_in_parts_are_one_in_one_piece(randomize, two_replicas):
    """Their first step's gradients; the moments, and the mean KL under free bits, are those of both."""
    options = dict(free_nats=0.3, adversarial_weight=3.0)
    whole = small_trainer(randomize, **options)
    expected = take_step(whole, small_images())
    strategy = two_replicas
    with strategy.scope():
        trainer = small_trainer(randomize, trainer=functools.partial(AccumulatingTrainer, num_parts=2), **options)
    halves = np.split(small_images(), 2)
    batch = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(halves[context.replica_id_in_sync_group])
    )
    metrics = tf.function(lambda x: strategy.run(trainer.train_step, args=(x,)), autograph=False)(batch)
    for name, value in expected.items():
        actual = [float(x) for x in strategy.experimental_local_results(metrics[name])]
        np.testing.assert_allclose(actual, [value] * 2, rtol=2e-4, atol=2e-5, err_msg=name)
    for a, b in zip(_gradients(whole), _gradients(trainer), strict=True):
        scale = max(np.abs(x).max() for x in a)
        assert_same(b, a, rtol=1e-4, atol=5e-6 * scale)


def test_memory_falls_and_arithmetic_does_not(randomize):
    """As counted on the graphs of a step without batch normalisation: all that grows with the batch is a part's."""

    def graph(batch, trainer):
        trainer = small_trainer(randomize, norm="act", trainer=trainer)
        step = tf.function(trainer.train_step, autograph=False)
        return step.get_concrete_function(tf.TensorSpec([batch, *SHAPE], tf.uint8)).graph

    batch = 64 * BATCH  # Beside which the weights are small.
    whole = graph(batch, Trainer)
    parts = graph(batch, functools.partial(AccumulatingTrainer, num_parts=8))
    assert peak_bytes(parts) < 0.2 * peak_bytes(whole)
    assert flops(executed(whole)) < flops(executed(parts)) < 1.3 * flops(executed(whole))  # Samples are drawn again.
