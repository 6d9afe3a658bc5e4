"""The model against its twin in PyTorch, which was written from the paper: same weights, same noise, same numbers."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.layers.weight_norm import NearestConv2D
from tf_pivae.models.critic import plain_critic, residual_critic
from tf_pivae.models.dequantization import EdgeBins, NormalEdgeBins, TailNetwork, UniformDequantization
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latent_methods import RECONSTRUCTION
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise
from tf_pivae.training.trainer import Trainer

torch = pytest.importorskip("torch", reason="the twin is in PyTorch (the extra `bench`)")

from benchmarks.twin import critic as twin_critic  # noqa: E402
from benchmarks.twin import dequantization as twin_dequantization  # noqa: E402
from benchmarks.twin import flow as twin_flow  # noqa: E402
from benchmarks.twin import load  # noqa: E402
from benchmarks.twin import model as twin_model  # noqa: E402
from benchmarks.twin import training as twin_training  # noqa: E402
from benchmarks.twin import vae as twin_vae  # noqa: E402
from benchmarks.twin.layers import Nearest  # noqa: E402
from benchmarks.twin.noise import GivenNoise  # noqa: E402

SIDE = 8
BATCH = 4
SEED = 3
WEIGHT = 20.0  # Of the adversary.
RATE = 5e-4  # Small: where a gradient vanishes, rounding says whether a weight moves by this much up or down.
HEAD = dict(width=6, num_couplings=3, num_blocks=2)
KINDS = {
    "plain": dict(
        vae=functools.partial(plain_vae, widths=(6, 8, 10), top_channels=5, latent_channels=3),
        dequantization=UniformDequantization,
        critic=functools.partial(plain_critic, widths=(4, 6, 8)),
        twin_dequantization=twin_dequantization.Uniform,
        twin_vae=functools.partial(twin_vae.VAE, widths=(6, 8, 10), stem=None, top=5, latents=3, iaf=False),
        twin_critic=functools.partial(twin_critic.PlainCritic, SIDE, SIDE, widths=(4, 6, 8)),
    ),
    "residual": dict(
        vae=functools.partial(
            residual_vae, stem_width=4, widths=(6, 8, 8), top_channels=3, latent_channels=3, posterior=IAFPosterior
        ),
        dequantization=functools.partial(NormalEdgeBins, tails=functools.partial(TailNetwork, width=4)),
        critic=functools.partial(residual_critic, stem_width=4, widths=(4, 6, 8)),
        twin_dequantization=lambda: twin_dequantization.NormalEdgeBins(twin_dequantization.TailNetwork(3, width=4)),
        twin_vae=functools.partial(twin_vae.VAE, widths=(6, 8, 8), stem=4, top=3, latents=3, iaf=True),
        twin_critic=functools.partial(twin_critic.ResidualCritic, stem=4, widths=(4, 6, 8)),
    ),
}
KINDS["residual_deep"] = KINDS["residual"] | dict(
    dequantization=EdgeBins,
    twin_dequantization=twin_dequantization.EdgeBins,
    vae=functools.partial(KINDS["residual"]["vae"], blocks_per_width=2, upsampling=NearestConv2D),
    twin_vae=functools.partial(KINDS["residual"]["twin_vae"], blocks=2, up=Nearest),
)


class Pair(NamedTuple):
    """Ours and the twin, with the same weights."""

    trainer: Trainer
    twin: twin_training.Trainer
    images: np.ndarray  # uint8 [B, H, W, C]

    @property
    def twin_images(self):
        return torch.from_numpy(self.images.transpose(0, 3, 1, 2).copy())


def _channels_first(array):
    return np.moveaxis(np.asarray(array), -1, 1)


def _assert_close(actual, expected, rtol=1e-4):
    """Relative to the largest element: what is compared is a vector, not its smallest components."""
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def _pair(kind, randomize):
    keras.utils.set_random_seed(0)
    parts = KINDS[kind]
    head = functools.partial(RealNVP, **HEAD)
    pivae = PiVAE((SIDE, SIDE, 3), vae=parts["vae"], flow=head, dequantization=parts["dequantization"])
    trainer = Trainer(randomize(pivae, scale=0.1), parts["critic"](), adversarial_weight=WEIGHT, learning_rate=RATE)
    randomize(trainer.critic, 1, 0.1)
    flow = twin_flow.RealNVP(SIDE, SIDE, **HEAD)
    vae = parts["twin_vae"](SIDE, SIDE)
    model = twin_model.PiVAE(flow, vae, parts["twin_dequantization"]())
    critic = parts["twin_critic"]()
    load.load(load.named_variables(pivae, trainer.critic), model, critic)
    levels = np.random.default_rng(SEED).integers(-60, 316, [BATCH, SIDE, SIDE, 3])
    images = np.clip(levels, 0, 255).astype(np.uint8)  # A sixth of them black, as many white.
    return Pair(trainer, twin_training.Trainer(model, critic, WEIGHT, RATE), images)


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request, randomize):
    """Ours and the twin in evaluation; tests leave the weights alone."""
    pair = _pair(request.param, randomize)
    pair.twin.model.eval()
    return pair


def test_terms_of_the_bound(pair):
    _assert_same_terms(pair, training=False)


@pytest.mark.parametrize("kind", list(KINDS))
def test_terms_of_the_bound_in_training(kind, randomize):
    """With a pair of its own, since running averages move: by as much."""
    pair = _pair(kind, randomize)
    _assert_same_terms(pair, training=True)
    _assert_same_variables(pair)


def _assert_same_terms(pair, training):
    noise = RowNoise(SEED, BATCH)
    model = pair.twin.model.train(training)
    with torch.no_grad():
        theirs = model.bound(pair.twin_images, GivenNoise(noise))
    ours = pair.trainer.pivae.bound(pair.images, noise, training=training)
    for name in ("log_prob", "reconstruction", "flow_log_det", "preprocessing_log_det", "discretisation"):
        _assert_close(getattr(theirs, name), getattr(ours, name))
    assert len(theirs.kl) == len(ours.kl) >= 3
    for group, expected in zip(theirs.kl, ours.kl, strict=True):
        _assert_close(group, tf.reduce_sum(expected, -1))
    model.eval()


def test_log_prob_of_several_importance_samples(pair):
    with torch.no_grad():
        theirs = pair.twin.model.log_prob(pair.twin_images, 3, GivenNoise(RowNoise(SEED, BATCH)))
    _assert_close(theirs, pair.trainer.pivae.log_prob(pair.images, num_importance_samples=3, seed=SEED))


def test_samples(pair):
    noise = RowNoise(SEED, BATCH)
    with torch.no_grad():
        theirs = pair.twin.model.sample_continuous((3, SIDE, SIDE), GivenNoise(noise), 0.8, 0.5)
    _assert_close(theirs, _channels_first(pair.trainer.pivae.sample_continuous(noise, 0.8, 0.5)))
    ours = pair.trainer.pivae.sample(BATCH, seed=SEED, temperature=0.8, sample_noise=0.5)
    _assert_same_images(theirs, ours)


def test_reconstructions(pair):
    with torch.no_grad():
        theirs = pair.twin.model.reconstruct(
            pair.twin_images, GivenNoise(RowNoise(SEED, BATCH).fold_in(RECONSTRUCTION))
        )
    _assert_same_images(theirs, pair.trainer.pivae.reconstruct(pair.images, seed=SEED))


@pytest.mark.parametrize("kind", list(KINDS))
def test_two_training_steps(kind, randomize):
    """Losses and gradients of a step; weights after it; and the losses of the next one, by the new weights."""
    pair = _pair(kind, randomize)
    for step in range(2):
        metrics = pair.trainer.train_step(tf.constant(pair.images))
        noise = RowNoise(pair.trainer.seed, BATCH, step * BATCH)
        noises = [GivenNoise(noise.fold_in(tag)) for tag in ("likelihood", "critic", "adversary/0")]
        losses = pair.twin.step(pair.twin_images, *noises)
        nats = float(metrics["bits_per_dim"]) * pair.images[0].size * np.log(2.0)
        _assert_close(losses.coverage, nats)
        _assert_close(losses.quality, metrics["quality_loss"])
        _assert_close(losses.critic, metrics["critic_loss"])
        _assert_close(losses.penalty, metrics["critic_regularization"])
        if step == 0:
            _assert_same_gradients(pair)
            # Adamax moves a weight by the learning rate whatever its gradient: the sign of a vanishing one is noise.
            _assert_same_variables(pair, clear=1e-3)
            _take_what_is_noise(pair, clear=1e-3)


def _assert_same_gradients(pair):
    ours = _first_moments(pair)
    theirs = _twin_first_moments(pair)
    assert set(ours) == set(theirs)
    layers = _largest_in_layer(ours)
    for name, moment in ours.items():
        # By layer: a bias before a batch normalisation has no gradient but the rounding of its layer's.
        tolerance = 1e-4 * layers[name.rpartition(".")[0]]
        np.testing.assert_allclose(theirs[name], moment, rtol=0.0, atol=tolerance, err_msg=name)
    assert min(layers.values()) > 1e-4 * _rms(ours.values())  # There is something to compare in every layer.


def _take_what_is_noise(pair, clear):
    """Gives the twin our weights where the gradient was not clear; what clear ones moved stays its own."""
    tensors = load.named_tensors(pair.twin.model, pair.twin.critic)
    moments = _first_moments(pair)
    layers = _largest_in_layer(moments)
    variables = load.named_variables(pair.trainer.pivae, pair.trainer.critic)
    for name, moment in moments.items():
        ours = load.converted(name, variables[name], pair.twin.model, pair.twin.critic)
        is_clear = np.abs(moment) > clear * layers[name.rpartition(".")[0]]
        with torch.no_grad():
            tensors[name].copy_(torch.as_tensor(np.where(is_clear, tensors[name].detach(), ours)))


def _assert_same_variables(pair, clear=None):
    tensors = load.named_tensors(pair.twin.model, pair.twin.critic)
    moments = _first_moments(pair) if clear is not None else {}
    layers = _largest_in_layer(moments)
    for name, variable in load.named_variables(pair.trainer.pivae, pair.trainer.critic).items():
        expected = load.converted(name, variable, pair.twin.model, pair.twin.critic)
        actual = tensors[name].detach().numpy()
        if name in moments:
            is_clear = np.abs(moments[name]) > clear * layers[name.rpartition(".")[0]]
            actual = actual[is_clear]
            expected = expected[is_clear]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def _largest_in_layer(moments):
    """The name of a layer -> the largest element of the moments of its weights."""
    layers = {}
    for name, moment in moments.items():
        layer = name.rpartition(".")[0]
        layers[layer] = max(layers.get(layer, 0.0), np.abs(moment).max())
    return layers


def _first_moments(pair):
    """Of our Adamax, by the twin's name and in its layout: a tenth of the gradient after one step."""
    trainer = pair.trainer
    moments = {}
    for name, variable in load.named_variables(trainer.pivae, trainer.critic).items():
        if variable.trainable:
            optimizer = trainer.critic_optimizer if name.startswith("critic.") else trainer.generator_optimizer
            moment = optimizer._m[optimizer._get_variable_index(variable)]
            moments[name] = load.converted(name, moment, pair.twin.model, pair.twin.critic)
    return moments


def _twin_first_moments(pair):
    states = pair.twin.generator_optimizer.state | pair.twin.critic_optimizer.state
    tensors = load.named_tensors(pair.twin.model, pair.twin.critic)
    return {name: states[tensor]["exp_avg"].numpy() for name, tensor in tensors.items() if tensor in states}


def _rms(arrays):
    return np.sqrt(np.mean(np.concatenate([np.ravel(a) for a in arrays]).astype(np.float64) ** 2))


def _assert_same_images(continuous, ours):
    """Rounding may put a value on the other side of a level."""
    theirs = twin_model.to_uint8(continuous).numpy().astype(int)
    difference = np.abs(theirs - _channels_first(ours))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert np.ptp(theirs) >= 50  # What may differ by a level is far from flat.
