"""Probabilities add up: all 256 images of 2x2x1 pixels with 4 levels, counted.

The model's density of v also covers a margin around the unit cube (the logit's a, or all of R^D for `affine`), which no
image has. So the sum over all images of P(x) and the mass of the margin, by sampling, are 1 together.
"""

import itertools
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import affine, logit
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import GaussianPosterior, IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise
from tf_pivae.training.trainer import Trainer

SHAPE, LEVELS = (2, 2, 1), 4
ALL_IMAGES = np.array(list(itertools.product(range(LEVELS), repeat=4)), np.uint8).reshape(256, *SHAPE)


def _residual(posterior):
    return lambda image_shape, num_classes: residual_vae(
        image_shape, stem_width=6, widths=(8, 8), top_channels=2, latent_channels=2, posterior=posterior
    )


def _plain(posterior):
    return lambda image_shape, num_classes: plain_vae(
        image_shape, widths=(8, 8), top_channels=2, latent_channels=2, posterior=posterior
    )


def _flow(**options):
    return lambda image_shape: RealNVP(image_shape, num_blocks=1, width=6, **options)


MODELS = {
    # A margin of 1e-4 holds next to nothing: the probabilities of the images alone add up to 1.
    "flow_iaf": dict(vae=_residual(IAFPosterior), flow=_flow(), preprocessing=lambda: logit(1e-4)),
    "plain_two_scales": dict(vae=_plain(IAFPosterior), flow=_flow(num_scales=2, norm="act"), preprocessing=logit),
}


def _toy_probabilities():
    """A distribution with structure: the left column equals the right most of the time, dark more often than bright."""
    pixels = ALL_IMAGES.reshape(256, 4).astype(np.float64)
    weights = np.exp(-0.8 * pixels.sum(1) / 2.0) * np.where(pixels[:, 0] == pixels[:, 1], 4.0, 0.5)
    return weights / weights.sum()


def _train(model, steps=150, batch_size=128):
    trainer = Trainer(model, learning_rate=0.01)
    rng = np.random.default_rng(0)
    rows = rng.choice(256, [steps, batch_size], p=_toy_probabilities())
    trainer.initialize(ALL_IMAGES[rows[0]])
    step = tf.function(trainer.train_step, autograph=False)
    for batch in rows:
        step(tf.constant(ALL_IMAGES[batch]))


CASES = [("flow_iaf", "untrained"), ("flow_iaf", "trained"), ("plain_two_scales", "trained")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def model(request, randomize):
    name, trained = request.param
    keras.utils.set_random_seed(1)
    model = PiVAE(SHAPE, num_bins=LEVELS, **MODELS[name])
    if trained == "trained":
        _train(model)
    else:
        randomize(model, scale=0.05)
    model.is_trained = trained == "trained"
    return model


@pytest.fixture(scope="module")
def probabilities(model):
    return _probabilities(model)


@pytest.fixture(scope="module")
def samples(model):
    """v of samples, [N, 4]."""
    return tf.function(model.sample_continuous, autograph=False)(RowNoise(5, 40000)).numpy().reshape(-1, 4)


def _probabilities(model, repeats=32, samples=16, seed=0):
    """Independent importance-weighted estimates of P(x), float64 [repeats, 256]."""
    images = np.tile(ALL_IMAGES, (repeats, 1, 1, 1))
    log_prob = model.log_prob(images, samples, seed=seed, batch_size=len(images))
    return np.exp(log_prob.astype(np.float64)).reshape(repeats, 256)


def _mean_and_error(x):
    return x.mean(0), x.std(0, ddof=1) / math.sqrt(len(x))


def test_probabilities_add_up(probabilities, samples, request):
    total, error = _mean_and_error(probabilities.sum(1))
    outside = np.any((samples < 0.0) | (samples >= 1.0), axis=1)
    outside, outside_error = _mean_and_error(outside.astype(np.float64))
    error = math.hypot(error, outside_error)
    assert error < 0.005, "too few samples for a sharp test"
    assert abs(total + outside - 1.0) < 4.0 * error
    if "flow_iaf" in request.node.callspec.id:
        assert outside < 0.005
        assert abs(total - 1.0) < 4.0 * error + 0.005


def test_samples_have_the_probabilities(probabilities, samples):
    """Image by image, the sampler agrees with the density: a chi-squared test."""
    probabilities, error = _mean_and_error(probabilities)
    inside = samples[np.all((samples >= 0.0) & (samples < 1.0), axis=1)]
    counts = np.bincount(np.floor(inside * LEVELS).astype(int) @ [64, 16, 4, 1], minlength=256)
    expected = len(samples) * probabilities
    z = (counts - expected) / np.sqrt(expected + np.square(len(samples) * error))
    z = z[expected > 10.0]
    assert len(z) > 20
    assert scipy.stats.chi2.sf(np.sum(z**2), len(z)) > 1e-4


def test_more_importance_samples_never_loosen_the_bound(model, probabilities):
    """On average over images, paired: the first K samples are the same for every larger K."""
    images = np.tile(ALL_IMAGES, (8, 1, 1, 1))
    bounds = [model.log_prob(images, k, batch_size=len(images)).astype(np.float64) for k in (1, 4, 16, 64)]
    for fewer, more in itertools.pairwise(bounds):
        gain, error = _mean_and_error(more - fewer)
        assert gain > -2.0 * error
    gain, error = _mean_and_error(bounds[-1] - bounds[0])
    assert gain > 4.0 * error
    assert np.mean(bounds[-1]) < np.mean(np.log(probabilities.mean(0))) + 3.0 * error


def test_cross_entropy_is_above_the_entropy(model, probabilities):
    """No code is shorter than the entropy; a trained flow comes much closer to it than the uniform code is."""
    truth = _toy_probabilities()
    entropy = -np.sum(truth * np.log(truth))
    probabilities, error = _mean_and_error(probabilities)
    cross_entropy = -np.sum(truth * np.log(probabilities))
    tolerance = 4.0 * np.sqrt(np.sum(np.square(truth * error / probabilities)))
    assert cross_entropy > entropy - tolerance
    if model.is_trained:
        assert cross_entropy < entropy + 0.5 * (math.log(256.0) - entropy)


# Closed forms: a decoder that does not depend on z.


@pytest.fixture(scope="module")
def constant_model():
    """y ~ N(m, sigma^2) whatever z, posteriors equal to the priors: P(x) is a product of normal integrals."""
    model = PiVAE(SHAPE, num_bins=LEVELS, vae=_residual(GaussianPosterior), flow=None, preprocessing=affine)
    for variable in model.vae.variables:
        if variable.name == "g":
            variable.assign(tf.zeros_like(variable))
    model.vae.output_conv.b.assign([0.1])
    model.vae.log_sigma.assign(math.log(0.6))
    return model


def _bin_edges():
    return 2.0 * np.arange(LEVELS + 1) / LEVELS - 1.0


def test_expected_bound_in_closed_form(constant_model):
    """E_u log N(t; m, sigma^2) + log 2 - log 4 for each level, the second moment of a uniform bin being exact."""
    low = _bin_edges()[:-1]
    centre, width = low + 0.25, 0.5
    second = np.square(centre - 0.1) + width**2 / 12.0
    per_level = -0.5 * second / 0.36 - math.log(0.6) - 0.5 * math.log(2.0 * math.pi) + math.log(2.0 / LEVELS)
    expected = per_level[ALL_IMAGES.reshape(256, 4)].sum(1)
    images = np.tile(ALL_IMAGES, (512, 1, 1, 1))
    bounds = constant_model.log_prob(images, batch_size=len(images) // 8).reshape(512, 256).astype(np.float64)
    mean, error = _mean_and_error(bounds)
    assert np.all(np.abs(mean - expected) < 5.0 * error)
    np.testing.assert_allclose(mean.mean(), expected.mean(), rtol=5e-4)
    z = (mean.mean() - expected.mean()) / math.sqrt(np.mean(np.square(error)) / 256)
    assert abs(z) < 4.0


def test_importance_weighted_bound_goes_to_the_exact_probability(constant_model):
    cdf = scipy.stats.norm.cdf((_bin_edges() - 0.1) / 0.6)
    exact = np.log(np.diff(cdf))[ALL_IMAGES.reshape(256, 4)].sum(1)
    images = np.tile(ALL_IMAGES, (32, 1, 1, 1))  # 32 times 128 samples of each image.
    bounds = constant_model.log_prob(images, 128, batch_size=len(images)).reshape(32, 256).astype(np.float64)
    bounds = np.log(np.mean(np.exp(bounds), 0))
    np.testing.assert_allclose(bounds, exact, atol=0.08)  # Five standard errors of log 1/K sum w at K = 4096.
    np.testing.assert_allclose(np.mean(bounds), np.mean(exact), atol=0.004)  # Of 256: less than a sixteenth of that.
    np.testing.assert_allclose(np.exp(bounds).sum(), np.prod(cdf[-1] - cdf[0]) ** 4, rtol=5e-3)


def test_sampler_of_the_closed_form(constant_model):
    """What lies outside of the unit cube is clipped to the nearest level."""
    levels = constant_model.sample(20000, batch_size=20000).ravel()
    edges = _bin_edges().copy()
    edges[[0, -1]] = -np.inf, np.inf
    expected = np.diff(scipy.stats.norm.cdf((edges - 0.1) / 0.6))
    counts = np.bincount(levels, minlength=LEVELS)
    assert scipy.stats.chisquare(counts, 80000 * expected).pvalue > 1e-4
