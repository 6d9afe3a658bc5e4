"""A trainer small enough for tests of single steps."""

import numpy as np
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.critic import residual_critic
from tf_pivae.models.dequantization import UniformDequantization
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.trainer import Trainer

SHAPE = (4, 4, 1)
BATCH = 8


def small_model(norm="batch", flow=True, dequantization=UniformDequantization):
    def vae(image_shape, num_classes):
        return residual_vae(
            image_shape, stem_width=4, widths=(4, 6), top_channels=2, latent_channels=2, posterior=IAFPosterior
        )

    def head(image_shape):
        return RealNVP(image_shape, num_couplings=2, num_blocks=0, width=4, norm=norm)

    return PiVAE(SHAPE, num_bins=4, vae=vae, flow=head if flow else None, dequantization=dequantization)


def small_critic(**layers):
    return residual_critic(stem_width=4, widths=(4, 6), **layers)


def small_images(count=BATCH, seed=0):
    return np.random.default_rng(seed).integers(0, 4, [count, *SHAPE]).astype(np.uint8)


def small_trainer(
    randomize,
    critic=small_critic,
    moving_average=False,
    norm="batch",
    dequantization=UniformDequantization,
    trainer=Trainer,
    **options,
):
    """A trainer whose weights are the same in every call, away from their initial values."""
    trainer = trainer(
        randomize(small_model(norm, dequantization=dequantization), scale=0.05),
        critic=None if critic is None else critic(),
        moving_average=small_model(norm, dequantization=dequantization) if moving_average else None,
        **options,
    )
    for part, seed in ((trainer.pivae, 1), (trainer.critic, 2)):
        rng = np.random.default_rng(seed)
        for variable in part.trainable_variables if part else []:
            variable.assign(variable * 0.0 + rng.normal(0.0, 0.3, variable.shape))
    for variable in trainer.critic.non_trainable_variables if trainer.critic else []:
        variable.assign(rng.normal(size=variable.shape))
        trainer.critic.update_normalization()
    trainer.pivae.vae.log_sigma.assign(-0.5)
    trainer.synchronize_moving_average()
    return trainer


def take_step(trainer, images):
    return {name: float(value) for name, value in trainer.train_step(tf.constant(images)).items()}


def values_of(variables):
    return [np.array(v) for v in variables]


def run_replicas(randomize, devices, steps, **options):
    """Trains on the same global batches, split over devices; returns trainer, strategy and every step's metrics."""
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        trainer = small_trainer(randomize, moving_average=True, **options)
    rows = BATCH // len(devices)

    @tf.function(autograph=False)
    def step(images):
        return strategy.run(trainer.train_step, args=(images,))

    history = []
    for i in range(steps):
        images = small_images(seed=i)
        batch = strategy.experimental_distribute_values_from_function(
            lambda context, images=images: tf.constant(
                images[context.replica_id_in_sync_group * rows : (context.replica_id_in_sync_group + 1) * rows]
            )
        )
        metrics = step(batch)
        history.append({k: [float(x) for x in strategy.experimental_local_results(v)] for k, v in metrics.items()})
    return trainer, strategy, history


def moments_of(optimizer, variables):
    indices = [optimizer._get_variable_index(v) for v in variables]
    return [np.array(slots[i]) for slots in (optimizer._m, optimizer._u) for i in indices]


def gradients_of(tape, target, variables):
    """d target / d variables, zeros where there is no path."""
    gradients = tape.gradient(target, variables)
    return [tf.zeros(v.shape) if g is None else g for g, v in zip(gradients, variables, strict=True)]


def assert_same(left, right, **tolerance):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0.0, "atol": 0.0, **tolerance})


def outside_the_head(pivae):
    head = {id(v) for v in pivae.flow_variables}
    return [v for v in pivae.trainable_variables if id(v) not in head]


def assert_same_weights(one, two, steps, learning_rate):
    """Two trainers after the same steps, up to rounding.

    But for the biases in front of a batch normalisation: their gradient is zero but for rounding, which Adamax, whose
    step has no scale, makes into steps; the means behind them follow.
    """
    for part in ("pivae", "critic", "moving_average"):
        if getattr(one, part) is None:
            continue
        for a, b in zip(getattr(one, part).variables, getattr(two, part).variables, strict=True):
            free = "coupling" in a.path and a.path.endswith(("input_conv/b", "conv_0/b", "conv_1/b", "/mean"))
            atol = 2.0 * steps * learning_rate if free else 1e-4
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol, err_msg=a.path)
