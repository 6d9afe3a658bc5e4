"""One step of Algorithm 1: who receives which gradient, the optimiser, bad numbers, and replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.critic import residual_critic
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise
from tf_pivae.training import losses
from tf_pivae.training.optimizer import Adamax
from tf_pivae.training.trainer import Trainer

SHAPE = (4, 4, 1)
BATCH = 8


def _model(norm="batch", flow=True):
    def vae(image_shape, num_classes):
        return residual_vae(
            image_shape, stem_width=4, widths=(4, 6), top_channels=2, latent_channels=2, posterior=IAFPosterior
        )

    def head(image_shape):
        return RealNVP(image_shape, num_couplings=2, num_blocks=0, width=4, norm=norm)

    return PiVAE(SHAPE, num_bins=4, vae=vae, flow=head if flow else None)


def _critic():
    return residual_critic(stem_width=4, widths=(4, 6))


def _images(count=BATCH, seed=0):
    return np.random.default_rng(seed).integers(0, 4, [count, *SHAPE]).astype(np.uint8)


def _trainer(randomize, critic=True, moving_average=False, norm="batch", **options):
    """A trainer whose weights are the same in every call, away from their initial values."""
    trainer = Trainer(
        randomize(_model(norm), scale=0.05),
        critic=_critic() if critic else None,
        moving_average=_model(norm) if moving_average else None,
        **options,
    )
    for part, seed in ((trainer.pivae, 1), (trainer.critic, 2)):
        rng = np.random.default_rng(seed)
        for variable in part.trainable_variables if part else []:
            variable.assign(variable * 0.0 + rng.normal(0.0, 0.3, variable.shape))
    trainer.pivae.vae.log_sigma.assign(-0.5)
    trainer.synchronize_moving_average()
    return trainer


def _step(trainer, images):
    return {name: float(value) for name, value in trainer.train_step(tf.constant(images)).items()}


def _values(variables):
    return [np.array(v) for v in variables]


def _moments(optimizer, variables):
    indices = [optimizer._get_variable_index(v) for v in variables]
    return [np.array(slots[i]) for slots in (optimizer._m, optimizer._u) for i in indices]


def _assert_same(left, right, **tolerance):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0.0, "atol": 0.0, **tolerance})


def _rest(pivae):
    head = {id(v) for v in pivae.flow_variables}
    return [v for v in pivae.trainable_variables if id(v) not in head]


# The head and the adversary.


def test_adversary_leaves_the_head_alone(randomize):
    """Two runs that differ in the adversary's weight alone: the head gets the same gradient, the decoder does not."""
    weak, strong = _trainer(randomize, adversarial_weight=0.0), _trainer(randomize, adversarial_weight=1000.0)
    for trainer in (weak, strong):
        _step(trainer, _images())
    heads = [t.pivae.flow_variables for t in (weak, strong)]
    scale = max(np.abs(m).max() for m in _moments(weak.generator_optimizer, heads[0]))
    assert scale > 0.01
    _assert_same(*(_values(head) for head in heads), atol=1e-6)
    moments = [_moments(t.generator_optimizer, head) for t, head in zip((weak, strong), heads, strict=True)]
    _assert_same(*moments, atol=1e-5 * scale)
    moments = [_moments(t.generator_optimizer, _rest(t.pivae)) for t in (weak, strong)]
    assert max(np.abs(a - b).max() for a, b in zip(*moments, strict=True)) > scale


def test_without_likelihood_the_head_does_not_move_at_all(randomize):
    trainer = _trainer(randomize, likelihood_weight=0.0)
    head, decoder = _values(trainer.pivae.flow.variables), _values(_rest(trainer.pivae))
    for seed in range(2):
        metrics = _step(trainer, _images(seed=seed))
    assert metrics["skipped_generator"] == 0.0
    _assert_same(head, _values(trainer.pivae.flow.variables))
    moved = [np.any(a != b) for a, b in zip(decoder, _values(_rest(trainer.pivae)), strict=True)]
    assert any(moved)


def test_adversary_reaches_the_decoder_through_the_inverse(randomize):
    """The decoder's gradient against finite differences of L_Q, through f^-1, with sigma's and the prior's noise."""
    weight = 10.0
    trainer = _trainer(randomize, likelihood_weight=0.0, adversarial_weight=weight)
    before = _values(trainer.pivae.trainable_variables)
    quality_metric = _step(trainer, _images())["quality_loss"]
    gradients = [
        np.array(m) / (1.0 - 0.9) for m in _moments(trainer.generator_optimizer, trainer.pivae.trainable_variables)
    ][: len(before)]
    noise = RowNoise(0, BATCH).fold_in("adversary/0")

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
    _assert_same(
        [
            g
            for v, g in zip(trainer.pivae.trainable_variables, gradients, strict=True)
            if any(v is w for w in trainer.pivae.flow_variables)
        ],
        [np.zeros(v.shape) for v in trainer.pivae.flow_variables],
    )


def test_likelihood_gradient_is_that_of_the_bound(randomize):
    trainer = _trainer(randomize, critic=False, norm="act")
    with tf.GradientTape() as tape:
        bound = trainer.pivae.bound(_images(), RowNoise(0, BATCH).fold_in("likelihood"), training=True)
        loss = -tf.reduce_mean(bound.log_prob)
    expected = tape.gradient(loss, trainer.pivae.trainable_variables)
    metrics = _step(trainer, _images())
    variables = trainer.pivae.trainable_variables
    moments = _moments(trainer.generator_optimizer, variables)[: len(variables)]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected))
    _assert_same(moments, [0.1 * g for g in expected], atol=1e-6 * norm)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["bits_per_dim"], loss / (16.0 * np.log(2.0)), rtol=1e-5)


def test_kl_warmup_scales_the_kl(randomize):
    trainer = _trainer(randomize, critic=False, norm="none", kl_warmup_steps=4)
    for step in range(6):
        trainer.step.assign(step)
        np.testing.assert_allclose(trainer._kl_weight(), min(1.0, (step + 1) / 4))


# Modes.


@pytest.mark.parametrize(
    ("critic", "options", "terms"),
    [
        (True, {"likelihood_weight": 0.0}, {"quality_loss", "critic_loss", "gradient_penalty"}),
        (False, {}, {"bits_per_dim", "kl/top", "kl/top_down_0"}),
        (True, {}, {"quality_loss", "critic_loss", "bits_per_dim", "kl/top"}),
        (True, {"critic_steps": 2}, {"quality_loss", "critic_loss", "bits_per_dim", "kl/top"}),
    ],
)
def test_modes(randomize, critic, options, terms):
    trainer = _trainer(randomize, critic=critic, **options)
    before = _values(trainer.pivae.trainable_variables)
    metrics = _step(trainer, _images())
    assert terms <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("bits_per_dim" in metrics) == (options.get("likelihood_weight") != 0.0)
    assert any(np.any(a != b) for a, b in zip(before, _values(trainer.pivae.trainable_variables), strict=True))
    assert int(trainer.step) == 1
    if critic:
        assert int(trainer.critic_optimizer.iterations) == options.get("critic_steps", 1)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="critic"):
        Trainer(_model(), likelihood_weight=0.0)


def test_steps_draw_new_noise(randomize):
    trainer = _trainer(randomize, critic=False, learning_rate=0.0)
    first, second = (_step(trainer, _images())["reconstruction"] for _ in range(2))
    assert first != second


def test_class_conditional_step_moves_the_classes_it_saw():
    def vae(image_shape, num_classes):
        return plain_vae(image_shape, widths=(5, 6), top_channels=2, latent_channels=2, num_classes=num_classes)

    pivae = PiVAE(SHAPE, num_bins=4, vae=vae, num_classes=3)
    critic = residual_critic(stem_width=4, widths=(4, 6), num_classes=3)
    trainer = Trainer(pivae, critic=critic)
    gains = [v for v in pivae.trainable_variables if v.name in ("g", "b")]
    before, embedding = _values(gains), np.array(critic.class_embedding)
    labels = tf.constant([0, 2] * (BATCH // 2), tf.int64)
    metrics = trainer.train_step((tf.constant(_images()), labels))
    assert all(np.isfinite(value) for value in metrics.values())
    moved = [np.any(old != np.array(new), axis=-1) for old, new in zip(before, gains, strict=True)]
    assert not any(rows[1] for rows in moved)
    assert np.any(moved, axis=0)[[0, 2]].all()
    np.testing.assert_array_equal(np.any(embedding != critic.class_embedding, axis=-1), [True, False, True])


# The optimiser.


def _numpy_adamax(weight, gradients, learning_rate=0.002, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma & Ba 2015, algorithm 2, in float64."""
    m, u = np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1.0 - beta_1) * g
        u = np.maximum(beta_2 * u, np.abs(g))
        weight = weight - learning_rate / (1.0 - beta_1**t) * m / (u + epsilon)
    return weight


def test_adamax_against_numpy_and_keras():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=[5, 3]), rng.normal(size=[20, 5, 3]) * np.geomspace(1e-4, 1e2, 3)
    expected = _numpy_adamax(start, gradients)
    for optimizer in (Adamax(0.002), keras.optimizers.Adamax(0.002)):
        weight = keras.Variable(start.astype(np.float32))
        optimizer.build([weight])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient, tf.float32)], [weight])
        np.testing.assert_allclose(weight, expected, atol=2e-6)
        assert int(optimizer.iterations) == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_adamax_skips_what_is_not_finite(bad):
    weight = keras.Variable(np.ones(4, np.float32))
    optimizer = Adamax(0.1)
    optimizer.build([weight])
    gradient = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
    optimizer.apply([tf.constant(gradient)], [weight])
    before, moments = np.array(weight), _moments(optimizer, [weight])
    gradient[1] = bad
    optimizer.apply([tf.constant(gradient)], [weight])
    changed = np.array(weight) != before
    np.testing.assert_array_equal(changed, [True, False, True, True])
    for old, new in zip(moments, _moments(optimizer, [weight]), strict=True):
        assert new[1] == old[1]
        assert np.all(np.isfinite(new))


# Numbers that are none.


def test_step_with_a_broken_critic_changes_no_weight(randomize, monkeypatch):
    trainer = _trainer(randomize)
    _step(trainer, _images())
    variables = [*trainer.pivae.trainable_variables, *trainer.critic.trainable_variables]
    optimizers = [
        (trainer.generator_optimizer, trainer.pivae.trainable_variables),
        (trainer.critic_optimizer, trainer.critic.trainable_variables),
    ]
    before, moments = _values(variables), [_moments(*pair) for pair in optimizers]
    call = type(trainer.critic).call
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.critic), "call", lambda self, v, labels=None: float("nan") * call(self, v, labels))
        metrics = _step(trainer, _images(seed=1))
    assert metrics["skipped_generator"] == 1.0
    assert metrics["skipped_critic"] == 1.0
    _assert_same(before, _values(variables))
    for old, pair in zip(moments, optimizers, strict=True):
        _assert_same(old, _moments(*pair))
    metrics = _step(trainer, _images(seed=2))
    assert metrics["skipped_generator"] == metrics["skipped_critic"] == 0.0
    assert any(np.any(a != b) for a, b in zip(before, _values(variables), strict=True))


def test_step_with_a_broken_likelihood_changes_no_weight_of_the_generator(randomize):
    trainer = _trainer(randomize, critic=False)
    trainer.pivae.vae.log_sigma.assign(float("nan"))
    before = _values(trainer.pivae.trainable_variables)
    metrics = _step(trainer, _images())
    assert metrics["skipped_generator"] == 1.0
    _assert_same(before, _values(trainer.pivae.trainable_variables))
    assert all(np.all(np.isfinite(v)) for v in trainer.pivae.non_trainable_variables)


# The moving average.


def test_moving_average(randomize):
    trainer = _trainer(randomize, critic=False, moving_average=True, norm="act", moving_average_decay=0.3)
    expected = [v.astype(np.float64) for v in _values(trainer.pivae.variables)]
    for step in range(1, 5):
        _step(trainer, _images(seed=step))
        decay = min(0.3, (1 + step) / (10 + step))
        expected = [
            decay * a + (1 - decay) * w for a, w in zip(expected, _values(trainer.pivae.variables), strict=True)
        ]
    _assert_same(_values(trainer.moving_average.variables), expected, rtol=1e-5, atol=1e-6)
    assert min(0.3, 5 / 14) == 0.3  # Both branches were taken: 2/11 at the first step.


# Replicas.


def _run_replicas(randomize, replicas, steps, **options):
    """Runs the same global batches on so many replicas; returns the trainer, the strategy and every step's metrics."""
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    with strategy.scope():
        trainer = _trainer(randomize, moving_average=True, **options)
    rows = BATCH // replicas

    @tf.function(autograph=False)
    def step(images):
        return strategy.run(trainer.train_step, args=(images,))

    history = []
    for i in range(steps):
        images = _images(seed=i)
        batch = strategy.experimental_distribute_values_from_function(
            lambda context, images=images: tf.constant(
                images[context.replica_id_in_sync_group * rows : (context.replica_id_in_sync_group + 1) * rows]
            )
        )
        metrics = step(batch)
        history.append({k: [float(x) for x in strategy.experimental_local_results(v)] for k, v in metrics.items()})
    return trainer, strategy, history


@pytest.fixture(scope="module")
def replicas(randomize):
    options = dict(steps=3, free_nats=0.3, adversarial_weight=3.0, learning_rate=1e-3)
    return [_run_replicas(randomize, count, **options) for count in (1, 2)]


def test_two_replicas_have_the_losses_of_one(replicas):
    (_, _, one), (_, _, two) = replicas
    for single, pair in zip(one, two, strict=True):
        assert single.keys() == pair.keys()
        for name, values in pair.items():
            assert values[0] == values[1], name
            np.testing.assert_allclose(values[0], single[name][0], rtol=2e-4, atol=2e-4, err_msg=name)


def test_two_replicas_have_the_weights_of_one(replicas):
    """Up to the biases in front of a batch normalisation: their gradient is zero but for rounding, which Adamax, whose
    step has no scale, makes into steps; the means behind them follow."""
    (one, _, _), (two, _, _) = replicas
    for part in ("pivae", "critic", "moving_average"):
        for a, b in zip(getattr(one, part).variables, getattr(two, part).variables, strict=True):
            free = "coupling" in a.path and a.path.endswith(("input_conv/b", "conv_0/b", "conv_1/b", "/mean"))
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2.0 * 3 * 1e-3 if free else 1e-4, err_msg=a.path)
    for optimizer, part in (("generator_optimizer", "pivae"), ("critic_optimizer", "critic")):
        moments = [_moments(getattr(t, optimizer), getattr(t, part).trainable_variables) for t in (one, two)]
        scale = max(np.abs(m).max() for m in moments[0])
        _assert_same(*moments, rtol=1e-3, atol=1e-5 * scale)


def test_replicas_hold_equal_weights(replicas):
    trainer, strategy, _ = replicas[1]
    assert strategy.num_replicas_in_sync == 2
    for variable in [*trainer.pivae.variables, *trainer.critic.variables, *trainer.moving_average.variables]:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)


def test_replicas_draw_different_noise_and_together_that_of_one(replicas):
    def draw(trainer, strategy):
        rows = BATCH // strategy.num_replicas_in_sync
        results = strategy.run(lambda: trainer._step_noise(rows).normal("tag", [5]))
        return np.concatenate([np.array(r) for r in strategy.experimental_local_results(results)])

    one, two = (draw(trainer, strategy) for trainer, strategy, _ in replicas)
    np.testing.assert_array_equal(one, two)
    assert len({tuple(row) for row in two}) == BATCH
