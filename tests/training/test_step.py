"""One step of Algorithm 1: who receives which gradient."""

import numpy as np
import pytest
import tensorflow as tf
from small_trainer import (
    BATCH,
    assert_same,
    gradients_of,
    moments_of,
    outside_the_head,
    small_images,
    small_trainer,
    take_step,
    values_of,
)

from tf_pivae.noise import RowNoise
from tf_pivae.training import losses


def test_adversary_leaves_the_head_alone(randomize):
    """Two runs that differ in the adversary's weight alone: the head gets the same gradient, the decoder does not."""
    weak = small_trainer(randomize, adversarial_weight=0.0)
    strong = small_trainer(randomize, adversarial_weight=1000.0)
    for trainer in (weak, strong):
        take_step(trainer, small_images())
    heads = [t.pivae.flow_variables for t in (weak, strong)]
    scale = max(np.abs(m).max() for m in moments_of(weak.generator_optimizer, heads[0]))
    assert scale > 0.01
    assert_same(*(values_of(head) for head in heads), atol=1e-6)
    moments = [moments_of(t.generator_optimizer, head) for t, head in zip((weak, strong), heads, strict=True)]
    assert_same(*moments, atol=1e-5 * scale)
    moments = [moments_of(t.generator_optimizer, outside_the_head(t.pivae)) for t in (weak, strong)]
    assert max(np.abs(a - b).max() for a, b in zip(*moments, strict=True)) > scale


def test_what_tensorflow_makes_of_the_graph_is_the_same_step(randomize, request):
    """Other tests do without its optimiser of graphs, which commands of users have."""

    def step():
        trainer = small_trainer(randomize, adversarial_weight=10.0)
        compiled = tf.function(trainer.train_step, autograph=False)
        metrics = {name: float(value) for name, value in compiled(tf.constant(small_images())).items()}
        return metrics, moments_of(trainer.generator_optimizer, trainer.pivae.trainable_variables)

    metrics, moments = step()
    request.getfixturevalue("graph_optimizer")
    optimized_metrics, optimized_moments = step()
    assert optimized_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    assert_same(moments, optimized_moments, atol=1e-4 * max(np.abs(m).max() for m in moments))


def test_without_likelihood_the_head_does_not_move_at_all(randomize):
    trainer = small_trainer(randomize, likelihood_weight=0.0)
    head = values_of(trainer.pivae.flow.variables)
    decoder = values_of(outside_the_head(trainer.pivae))
    for seed in range(2):
        metrics = take_step(trainer, small_images(seed=seed))
    assert metrics["skipped_generator"] == 0.0
    assert_same(head, values_of(trainer.pivae.flow.variables))
    moved = [np.any(a != b) for a, b in zip(decoder, values_of(outside_the_head(trainer.pivae)), strict=True)]
    assert any(moved)


def test_adversary_reaches_the_decoder_through_the_inverse(randomize):
    """The decoder's gradient against finite differences of L_Q, through f^-1, with sigma's and the prior's noise."""
    weight = 10.0
    trainer = small_trainer(randomize, likelihood_weight=0.0, adversarial_weight=weight, seed=1)
    before = values_of(trainer.pivae.trainable_variables)
    quality_metric = take_step(trainer, small_images())["quality_loss"]
    gradients = [
        np.array(m) / (1.0 - 0.9) for m in moments_of(trainer.generator_optimizer, trainer.pivae.trainable_variables)
    ][: len(before)]
    noise = RowNoise(1, BATCH).fold_in("adversary/0")

    @tf.function(autograph=False)
    def quality_of_the_model():
        return losses.quality_loss(trainer.critic(2.0 * trainer.pivae.sample_continuous(noise) - 1.0))

    def quality(displacements):
        for variable, old, displacement in zip(trainer.pivae.trainable_variables, before, displacements, strict=True):
            variable.assign(old + displacement)
        return float(quality_of_the_model())

    zero = [0.0] * len(before)
    np.testing.assert_allclose(quality(zero), quality_metric, rtol=1e-5)

    norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients))
    assert norm > 1e-3
    h = 2e-3
    slope = quality([h * g / norm for g in gradients]) - quality([-h * g / norm for g in gradients])
    np.testing.assert_allclose(weight * slope / (2.0 * h), norm, rtol=5e-3)

    names = [v.path for v in trainer.pivae.trainable_variables]
    for end in ("output/b", "log_sigma"):  # One weight of the decoder, and sigma, alone.
        i = next(i for i, name in enumerate(names) if name.endswith(end))
        steps = [[h * (j == i) * sign for j in range(len(before))] for sign in (1.0, -1.0)]
        slope = (quality(steps[0]) - quality(steps[1])) / (2.0 * h)
        np.testing.assert_allclose(weight * slope, gradients[i].sum(), rtol=2e-2, atol=1e-3 * norm)

    # The head would have had a gradient: it was not for want of one.
    quality(zero)
    with tf.GradientTape() as tape:
        loss = losses.quality_loss(trainer.critic(2.0 * trainer.pivae.sample_continuous(noise) - 1.0))
    assert any(g is not None and np.abs(g).max() > 1e-4 for g in tape.gradient(loss, trainer.pivae.flow_variables))
    assert_same(
        [
            g
            for v, g in zip(trainer.pivae.trainable_variables, gradients, strict=True)
            if any(v is w for w in trainer.pivae.flow_variables)
        ],
        [np.zeros(v.shape) for v in trainer.pivae.flow_variables],
    )


@pytest.mark.parametrize(
    ("final", "warmup", "step", "weights"),
    [
        (1.0, 0, 0, [1.0] * 3),
        (1.0, 4, 2, [0.75] * 3),
        (1.0, 4, 9, [1.0] * 3),
        (0.8, 0, 0, [0.8] * 3),
        (0.8, 4, 2, [0.6] * 3),
        (0.8, 4, 9, [0.8] * 3),
        ([0.8, 0.4, 1.0], 0, 0, [0.8, 0.4, 1.0]),
        ([0.8, 0.4, 1.0], 4, 2, [0.6, 0.3, 0.75]),
    ],
)
def test_likelihood_gradient_is_that_of_the_bound(randomize, final, warmup, step, weights):
    """With the KL's weight of that step; reported numbers count it in full."""
    trainer = small_trainer(randomize, critic=None, norm="act", kl_weight=final, kl_warmup_steps=warmup)
    trainer.step.assign(step)
    noise = RowNoise(0, BATCH, step * BATCH).fold_in("likelihood")
    variables = trainer.pivae.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        bound = trainer.pivae.bound(small_images(), noise, training=True)
        kl = [tf.reduce_mean(tf.reduce_sum(group, 1)) for group in bound.kl]
        rest = -tf.reduce_mean(bound.log_prob) - sum(kl)
    parts = [gradients_of(tape, part, variables) for part in (rest, *kl)]
    weighted = [[weight * g for g in part] for weight, part in zip([1.0, *weights], parts, strict=True)]
    expected = [sum(gradients) for gradients in zip(*weighted, strict=True)]
    metrics = take_step(trainer, small_images())
    moments = moments_of(trainer.generator_optimizer, variables)[: len(variables)]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected))
    assert_same(moments, [0.1 * g for g in expected], atol=1e-6 * norm)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["bits_per_dim"], (rest + sum(kl)) / (16.0 * np.log(2.0)), rtol=1e-5)
    for part in parts[1:]:
        assert np.sqrt(sum(np.sum(np.square(g)) for g in part)) > 1e-3 * norm  # Another weight would have shown.


def test_weights_of_the_kl_are_one_for_each_group(randomize):
    with pytest.raises(ValueError, match=r"`kl_weight` has 2 numbers for 3 latent groups \(top, top_down_0, top_d"):
        small_trainer(randomize, critic=None, kl_weight=[1.0, 0.9])
