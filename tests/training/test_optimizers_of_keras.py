"""Keras' optimisers as whole steps, and schedules of their rates: beside Keras' own, on one replica and on two."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import assert_same, small_images, small_trainer, take_step, values_of

from tf_pivae.training.optimizer import OPTIMIZERS, Adamax
from tf_pivae.training.schedules import LinearSchedule

RNG = np.random.default_rng(0)
START = RNG.normal(size=[5, 3]).astype(np.float32)
GRADIENTS = RNG.normal(size=[4, 5, 3]).astype(np.float32)


def _after(optimizer, gradients, replicas=None):
    """The weights and the optimiser's variables after so many gradients, each the same on all replicas."""
    weight = keras.Variable(START)
    optimizer.build([weight])
    strategy = replicas or tf.distribute.get_strategy()
    step = tf.function(lambda g: strategy.run(lambda g: optimizer.apply([g], [weight]), args=(g,)), autograph=False)
    for gradient in gradients:
        step(tf.constant(gradient))
    counts = [keras.ops.convert_to_numpy(v) for v in (optimizer.iterations, getattr(optimizer, "steps", 0))]
    return keras.ops.convert_to_numpy(weight), counts


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_step_is_keras_own_and_a_bad_one_is_none(name, replicas):
    expected, _ = _after(getattr(keras.optimizers, name)(learning_rate=0.1), GRADIENTS)
    bad = np.full([5, 3], np.nan, np.float32)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    with strategy.scope():
        actual, counts = _after(
            OPTIMIZERS[name](learning_rate=0.1), [bad, *GRADIENTS[:2], bad, bad, *GRADIENTS[2:]], strategy
        )
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert counts == [4, 7]
    assert np.abs(actual - START).max() > 1e-4


@pytest.mark.parametrize("kind", [Adamax, OPTIMIZERS["SGD"]])
def test_gradients_are_clipped_by_the_norm_of_all(kind):
    first = keras.Variable(START[:2])
    second = keras.Variable(START[2:])
    optimizer = kind(0.5, global_clipnorm=1.0)
    optimizer.build([first, second])
    norm = optimizer.apply([tf.constant(3.0 * GRADIENTS[0, :2]), tf.constant(3.0 * GRADIENTS[0, 2:])], [first, second])
    gradient = 3.0 * GRADIENTS[0].astype(np.float64)
    np.testing.assert_allclose(norm, np.linalg.norm(gradient), rtol=1e-6)  # Before they are clipped.
    clipped = gradient / np.linalg.norm(gradient)
    if kind is Adamax:
        np.testing.assert_allclose(optimizer._u[0], np.abs(clipped[:2]), rtol=1e-5)
    else:
        np.testing.assert_allclose(np.concatenate([first, second]), START - 0.5 * clipped, rtol=1e-5, atol=1e-6)


def test_linear_schedule():
    schedule = LinearSchedule(num_steps=100, rate=0.4, warmup_steps=4, decay_start=60, end=0.1)
    steps = [0, 1, 3, 30, 60, 80, 100, 1000]
    np.testing.assert_allclose(
        [float(schedule(s)) for s in steps], [0.1, 0.2, 0.4, 0.4, 0.4, 0.25, 0.1, 0.1], rtol=1e-6
    )
    with pytest.raises(ValueError, match="`decay_start` = 5"):
        LinearSchedule(num_steps=4, decay_start=5)


def test_a_schedule_goes_by_the_steps_skipped_ones_too():
    """Plain gradient descent adds up the rates of the steps that it takes: 1, -, 3, 4 of 10 hundredths."""
    weight = keras.Variable(0.0)
    optimizer = OPTIMIZERS["SGD"](LinearSchedule(num_steps=10**9, rate=0.1, warmup_steps=10))
    optimizer.build([weight])
    for gradient in (1.0, np.nan, 1.0, 1.0):
        optimizer.apply([tf.constant(gradient)], [weight])
    np.testing.assert_allclose(weight, -(0.01 + 0.03 + 0.04), rtol=1e-5)


def test_generator_and_critic_each_have_their_own(randomize):
    def optimizers():
        return dict(
            generator_optimizer=lambda name: OPTIMIZERS["SGD"](0.0, name=name),
            critic_optimizer=lambda name: OPTIMIZERS["Adam"](0.01, beta_1=0.0, beta_2=0.9, name=name),
        )

    trainer = small_trainer(randomize, **optimizers())
    generator = values_of(trainer.pivae.trainable_variables)
    critic = values_of(trainer.critic.trainable_variables)
    take_step(trainer, small_images())
    assert_same(generator, values_of(trainer.pivae.trainable_variables))
    moved = [np.abs(a - b) for a, b in zip(critic, values_of(trainer.critic.trainable_variables), strict=True)]
    assert max(change.max() for change in moved) == pytest.approx(0.01, rel=1e-2)  # Adam's first step: the rate itself.
    assert [v.path for v in trainer.state["critic_optimizer"]][-1] == "critic_optimizer/updates"
