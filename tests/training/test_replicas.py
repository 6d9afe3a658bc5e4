"""Two replicas are one; the moving average."""

import functools

import devices
import numpy as np
import pytest
from small_trainer import (
    BATCH,
    assert_same,
    assert_same_weights,
    moments_of,
    run_replicas,
    small_critic,
    small_images,
    small_trainer,
    take_step,
    values_of,
)

from tf_pivae.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense
from tf_pivae.training import losses
from tf_pivae.training.augmentation import DifferentiableAugmentation
from tf_pivae.training.regularizers import R1


def test_moving_average(randomize):
    trainer = small_trainer(randomize, critic=None, moving_average=True, norm="act", moving_average_decay=0.3)
    expected = [v.astype(np.float64) for v in values_of(trainer.pivae.variables)]
    for step in range(1, 5):
        take_step(trainer, small_images(seed=step))
        decay = min(0.3, (1 + step) / (10 + step))
        expected = [
            decay * a + (1 - decay) * w for a, w in zip(expected, values_of(trainer.pivae.variables), strict=True)
        ]
    assert_same(values_of(trainer.moving_average.variables), expected, rtol=1e-5, atol=1e-6)
    assert min(0.3, 5 / 14) == 0.3  # Both branches were taken: 2/11 at the first step.


def test_a_skipped_step_leaves_the_moving_average_alone(randomize):
    """Bit for bit; and the average's memory grows with the updates, not with the calls."""
    trainer = small_trainer(randomize, critic=None, moving_average=True, norm="act")
    log_sigma = float(trainer.pivae.vae.log_sigma)
    for _ in range(5):
        trainer.pivae.vae.log_sigma.assign(float("nan"))
        before = [v.tobytes() for v in values_of(trainer.moving_average.variables)]
        assert take_step(trainer, small_images())["skipped_generator"] == 1.0
        assert [v.tobytes() for v in values_of(trainer.moving_average.variables)] == before
    trainer.pivae.vae.log_sigma.assign(log_sigma)
    start = values_of(trainer.moving_average.variables)
    assert take_step(trainer, small_images(seed=1))["skipped_generator"] == 0.0
    # (1 + 1) / (10 + 1): the first update
    weights = values_of(trainer.pivae.variables)
    decay = 2.0 / 11.0
    expected = [decay * a + (1.0 - decay) * w for a, w in zip(start, weights, strict=True)]
    assert_same(values_of(trainer.moving_average.variables), expected, rtol=1e-5, atol=1e-6)


OPTIONS = {
    "the_paper": dict(),
    "beyond_the_paper": dict(
        critic=functools.partial(small_critic, conv=SpectralNormConv2D, dense=SpectralNormDense),
        critic_loss=losses.hinge_loss,
        regularizer=functools.partial(R1, 1.0),
        augment=DifferentiableAugmentation,
        kl_warmup_steps=10,
        seed=1,  # With 0, rounding decides the slope of a rectifier behind the stem, whose gradient jumps.
    ),
}


@pytest.fixture(scope="module", params=list(OPTIONS))
def replicas(randomize, request):
    options = dict(steps=3, free_nats=0.3, adversarial_weight=3.0, learning_rate=1e-3, **OPTIONS[request.param])
    with devices.tensor_float_32(False):
        return [run_replicas(randomize, devices.names()[:count], **options) for count in (1, 2)]


@pytest.mark.device
def test_two_replicas_have_the_losses_of_one(replicas):
    (_, _, one), (_, _, two) = replicas
    for single, pair in zip(one, two, strict=True):
        assert single.keys() == pair.keys()
        for name, values in pair.items():
            assert values[0] == values[1], name
            np.testing.assert_allclose(values[0], single[name][0], rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.device
def test_two_replicas_have_the_weights_of_one(replicas):
    (one, _, _), (two, _, _) = replicas
    assert_same_weights(one, two, steps=3, learning_rate=1e-3)
    for optimizer, part in (("generator_optimizer", "pivae"), ("critic_optimizer", "critic")):
        moments = [moments_of(getattr(t, optimizer), getattr(t, part).trainable_variables) for t in (one, two)]
        scale = max(np.abs(m).max() for m in moments[0])
        assert_same(*moments, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.device
def test_replicas_hold_equal_weights(replicas):
    trainer, strategy, _ = replicas[1]
    assert strategy.num_replicas_in_sync == 2
    for variable in [*trainer.pivae.variables, *trainer.critic.variables, *trainer.moving_average.variables]:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)


@pytest.mark.device
def test_replicas_draw_different_noise_and_together_that_of_one(replicas):
    def draw(trainer, strategy):
        rows = BATCH // strategy.num_replicas_in_sync
        results = strategy.run(lambda: trainer._step_noise(rows).normal("tag", [5]))
        return np.concatenate([np.array(r) for r in strategy.experimental_local_results(results)])

    one, two = (draw(trainer, strategy) for trainer, strategy, _ in replicas)
    np.testing.assert_array_equal(one, two)
    assert len({tuple(row) for row in two}) == BATCH
