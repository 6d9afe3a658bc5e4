"""Probabilities add up, and the sampler draws from them: whole spaces of images, counted.

With `EdgeBins` the probabilities of all images sum to 1, whatever the preprocessing, the head and the posterior. With
the paper's uniform dequantisation they miss what the density has outside of the unit cube, which samples do not.
"""

import functools
import gc
import itertools
import math
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import affine, logit
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models.dequantization import EdgeBins, NormalEdgeBins, TailNetwork, UniformDequantization
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import GaussianPosterior, IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.trainer import Trainer

SHAPE = (2, 2, 1)
LEVELS = 4
SAMPLES = 200_000


def _residual(posterior):
    return lambda image_shape, num_classes: residual_vae(
        image_shape,
        stem_width=6,
        widths=(8, 8) if min(image_shape[:2]) > 1 else (8,),
        top_channels=2,
        latent_channels=2,
        posterior=posterior,
        num_classes=num_classes,
    )


def _plain(posterior):
    return lambda image_shape, num_classes: plain_vae(
        image_shape, widths=(8, 8), top_channels=2, latent_channels=2, posterior=posterior, num_classes=num_classes
    )


def _flow(**options):
    return lambda image_shape: RealNVP(image_shape, num_blocks=1, width=6, **options)


class Space(NamedTuple):
    """All images of a shape and a number of levels, and how a model of them is built."""

    shape: tuple
    levels: int
    parts: dict  # arguments of `PiVAE`

    @property
    def images(self):
        """uint8 [N, H, W, C], the last pixel changing fastest."""
        pixels = math.prod(self.shape)
        return np.array(list(itertools.product(range(self.levels), repeat=pixels)), np.uint8).reshape(-1, *self.shape)

    def index(self, images):
        """The places of images among `images`."""
        pixels = math.prod(self.shape)
        return images.reshape(-1, pixels).astype(int) @ self.levels ** np.arange(pixels)[::-1]


SPACES = {
    "iaf": Space(SHAPE, LEVELS, dict(vae=_residual(IAFPosterior), flow=_flow(), preprocessing=logit)),
    "two_scales": Space(
        SHAPE, LEVELS, dict(vae=_plain(IAFPosterior), flow=_flow(num_scales=2, norm="act"), preprocessing=logit)
    ),
    "affine": Space(SHAPE, LEVELS, dict(vae=_plain(GaussianPosterior), preprocessing=affine)),
    "conditional": Space(
        SHAPE, 3, dict(vae=_plain(GaussianPosterior), flow=_flow(norm="none"), preprocessing=logit, num_classes=2)
    ),
    "five_bit": Space(
        (2, 1, 1), 32, dict(vae=_residual(GaussianPosterior), flow=_flow(), preprocessing=lambda: logit(1e-3))
    ),
    "normal_tails": Space(
        SHAPE,
        3,
        dict(
            vae=_plain(GaussianPosterior),
            flow=_flow(),
            preprocessing=logit,
            dequantization=functools.partial(NormalEdgeBins, tails=functools.partial(TailNetwork, width=4)),
        ),
    ),
    "black_and_white": Space(SHAPE, 2, dict(vae=_plain(IAFPosterior), flow=_flow(num_scales=2), preprocessing=logit)),
}


class Case(NamedTuple):
    """A space, a model with edge bins, and what was computed of it."""

    name: str
    space: Space
    model: PiVAE
    probabilities: np.ndarray  # float64 [repeats, N], independent estimates of P(x)
    counts: np.ndarray  # int [N], of `SAMPLES` samples


@pytest.fixture(scope="module", params=SPACES)
def case(request, randomize):
    gc.collect()  # The graphs of the case before, of which each test leaves some 200 MB.
    keras.utils.set_random_seed(1)
    space = SPACES[request.param]
    model = PiVAE(space.shape, num_bins=space.levels, **{"dequantization": EdgeBins} | space.parts)
    randomize(model, scale=0.05)
    samples = model.sample(SAMPLES, labels=_labels(model, SAMPLES), batch_size=SAMPLES // 4)
    counts = np.bincount(space.index(samples), minlength=len(space.images))
    return Case(request.param, space, model, _probabilities(model, space.images), counts)


def _labels(model, count):
    return np.ones(count, int) if model.num_classes else None


def _log_prob(model, images, samples, seed=0):
    labels = _labels(model, len(images))
    return model.log_prob(images, samples, seed, labels, batch_size=min(len(images), 4096)).astype(np.float64)


def _probabilities(model, images, samples=16):
    """Independent importance-weighted estimates of P(x), float64 [repeats, N]; more of them in smaller spaces."""
    repeats = 16384 // len(images)
    log_prob = _log_prob(model, np.tile(images, (repeats, 1, 1, 1)), samples)
    return np.exp(log_prob).reshape(repeats, len(images))


def _mean_and_error(x):
    return x.mean(0), x.std(0, ddof=1) / math.sqrt(len(x))


def _p_value(counts, probabilities):
    """Of a chi-squared test that the counts are draws from the (estimated) probabilities."""
    probabilities, error = _mean_and_error(probabilities)
    expected = counts.sum() * probabilities
    z = (counts - expected) / np.sqrt(expected + np.square(counts.sum() * error))
    z = z[expected > 10.0]
    assert len(z) > 10
    return scipy.stats.chi2.sf(np.sum(z**2), len(z))


def _same_weights(case):
    """The model of a case with the paper's dequantisation."""
    parts = case.space.parts
    space = case.space
    uniform = PiVAE(space.shape, num_bins=space.levels, **parts | {"dequantization": UniformDequantization})
    own = [v for v in case.model.variables if all(v is not tail for tail in case.model.dequantization.variables)]
    for variable, value in zip(uniform.variables, own, strict=True):
        assert variable.shape == value.shape
        variable.assign(value)
    return uniform


def test_probabilities_sum_to_one(case):
    total, error = _mean_and_error(case.probabilities.sum(1))
    assert error < 0.01, "too few samples for a sharp test"
    assert abs(total - 1.0) < 4.0 * error


def test_a_refined_q_does_not_change_them(case):
    """Wherever q(v|x) is moved to: around where `refine` finds the bound to be higher."""
    images = case.space.images
    repeats = 4096 // len(images)
    refinement = case.model.refine(images, labels=_labels(case.model, len(images)), batch_size=256)
    assert np.abs(refinement).max() > 0.01
    refinement += 0.5 * np.random.default_rng(0).normal(size=images.shape)
    many = [np.tile(x, (repeats, 1, 1, 1)) for x in (images, refinement)]
    labels = _labels(case.model, len(many[0]))
    log_prob = case.model.log_prob(many[0], 8, 0, labels, batch_size=1024, refinement=many[1])
    probabilities = np.exp(log_prob.astype(np.float64)).reshape(repeats, -1)
    total, error = _mean_and_error(probabilities.sum(1))
    assert error < 0.03, "too few samples for a sharp test"
    assert abs(total - 1.0) < 4.0 * error
    some = np.random.default_rng(1).random(len(images)) < 0.5
    (expected, first), (actual, second) = (
        _mean_and_error(p[:, some].sum(1)) for p in (case.probabilities, probabilities)
    )
    assert abs(actual - expected) < 4.0 * math.hypot(first, second)


def test_samples_are_draws_from_the_probabilities(case):
    assert _p_value(case.counts, case.probabilities) > 1e-4


def test_the_bound_tightens_towards_the_probability(case):
    """On average over images, paired: the first K samples are the same for every larger K."""
    images = np.tile(case.space.images, (-(-2048 // len(case.space.images)), 1, 1, 1))
    bounds = [_log_prob(case.model, images, k) for k in (1, 4, 16, 64)]
    for fewer, more in itertools.pairwise(bounds):
        gain, error = _mean_and_error(more - fewer)
        assert gain > -2.0 * error
    gain, error = _mean_and_error(bounds[-1] - bounds[0])
    assert gain > 4.0 * error
    assert np.mean(bounds[-1]) < np.mean(np.log(case.probabilities.mean(0))) + 3.0 * error


def test_uniform_dequantisation_misses_what_lies_outside(case):
    """For the same weights: its probabilities are at most those of edge bins, and miss the mass that is reported."""
    uniform = _same_weights(case)
    probabilities = _probabilities(uniform, case.space.images)
    own, own_error = _mean_and_error(case.probabilities)
    theirs, their_error = _mean_and_error(probabilities)
    assert np.all(theirs < own + 5.0 * np.hypot(own_error, their_error))
    at_an_edge = np.isin(case.space.images, [0, case.space.levels - 1]).any((1, 2, 3))
    inner = theirs[~at_an_edge].sum()
    inner_error = np.linalg.norm(np.hypot(own_error, their_error)[~at_an_edge])
    assert abs(own[~at_an_edge].sum() - inner) <= 5.0 * inner_error
    total, error = _mean_and_error(probabilities.sum(1))
    count = 20_000
    mass = uniform.mass_outside(count, labels=_labels(uniform, count), batch_size=count)
    error = math.hypot(error, math.sqrt(mass.samples_inside * (1.0 - mass.samples_inside) / count))
    assert abs(total - mass.samples_inside) < 4.0 * error
    if mass.samples_inside < 0.95:
        assert _p_value(case.counts, probabilities) < 1e-6


# Trained.


def _toy_probabilities(images):
    """A distribution with structure: the left column equals the right most of the time, dark more often than bright."""
    pixels = images.reshape(len(images), 4).astype(np.float64)
    weights = np.exp(-0.8 * pixels.sum(1) / 2.0) * np.where(pixels[:, 0] == pixels[:, 1], 4.0, 0.5)
    return weights / weights.sum()


def test_training_brings_the_cross_entropy_close_to_the_entropy():
    """No code is shorter than the entropy; a trained model comes much closer to it than the uniform code is.

    And the tails of q, learnt beside it, make the bound tighter.
    """
    keras.utils.set_random_seed(1)
    space = SPACES["two_scales"]
    images = space.images
    model = PiVAE(SHAPE, num_bins=LEVELS, dequantization=EdgeBins, **space.parts)
    truth = _toy_probabilities(images)
    rows = np.random.default_rng(0).choice(256, [150, 128], p=truth)
    trainer = Trainer(model, learning_rate=0.01)
    trainer.initialize(images[rows[0]])
    step = tf.function(trainer.train_step, autograph=False)
    for batch in rows:
        step(tf.constant(images[batch]))
    probabilities, error = _mean_and_error(_probabilities(model, images))
    entropy = -np.sum(truth * np.log(truth))
    cross_entropy = -np.sum(truth * np.log(probabilities))
    tolerance = 4.0 * np.sqrt(np.sum(np.square(truth * error / probabilities)))
    assert entropy - tolerance < cross_entropy < entropy + 0.5 * (math.log(256.0) - entropy)

    def one_sample():
        return np.sum(truth * _log_prob(model, np.tile(images, (16, 1, 1, 1)), 1).reshape(16, 256).mean(0))

    trained = one_sample()
    model.dequantization.location.assign([3.0, 3.0])
    assert one_sample() < trained - 0.05


# Closed forms: a decoder that does not depend on z.


@pytest.fixture(scope="module")
def constant_model():
    """y ~ N(m, sigma^2) whatever z, posteriors equal to the priors: P(x) is a product of normal integrals."""
    return _constant_model(UniformDequantization)


def _constant_model(dequantization):
    parts = dict(vae=_residual(GaussianPosterior), flow=None, preprocessing=affine, dequantization=dequantization)
    model = PiVAE(SHAPE, num_bins=LEVELS, **parts)
    for variable in model.vae.variables:
        if variable.name == "g":
            variable.assign(tf.zeros_like(variable))
    model.vae.output_conv.b.assign([0.1])
    model.vae.log_sigma.assign(math.log(0.6))
    return model


IMAGES = SPACES["affine"].images


def _bin_edges():
    return 2.0 * np.arange(LEVELS + 1) / LEVELS - 1.0


def test_expected_bound_in_closed_form(constant_model):
    """E_u log N(t; m, sigma^2) + log 2 - log 4 for each level, the second moment of a uniform bin being exact."""
    low = _bin_edges()[:-1]
    centre = low + 0.25
    width = 0.5
    second = np.square(centre - 0.1) + width**2 / 12.0
    per_level = -0.5 * second / 0.36 - math.log(0.6) - 0.5 * math.log(2.0 * math.pi) + math.log(2.0 / LEVELS)
    expected = per_level[IMAGES.reshape(256, 4)].sum(1)
    images = np.tile(IMAGES, (512, 1, 1, 1))
    bounds = constant_model.log_prob(images, batch_size=len(images) // 8).reshape(512, 256).astype(np.float64)
    mean, error = _mean_and_error(bounds)
    assert np.all(np.abs(mean - expected) < 5.0 * error)
    np.testing.assert_allclose(mean.mean(), expected.mean(), rtol=5e-4)
    z = (mean.mean() - expected.mean()) / math.sqrt(np.mean(np.square(error)) / 256)
    assert abs(z) < 4.0


def test_importance_weighted_bound_goes_to_the_exact_probability(constant_model):
    cdf = scipy.stats.norm.cdf((_bin_edges() - 0.1) / 0.6)
    exact = np.log(np.diff(cdf))[IMAGES.reshape(256, 4)].sum(1)
    images = np.tile(IMAGES, (32, 1, 1, 1))  # 32 times 128 samples of each image.
    bounds = constant_model.log_prob(images, 128, batch_size=len(images)).reshape(32, 256).astype(np.float64)
    bounds = np.log(np.mean(np.exp(bounds), 0))
    np.testing.assert_allclose(bounds, exact, atol=0.08)  # Five standard errors of log 1/K sum w at K = 4096.
    np.testing.assert_allclose(np.mean(bounds), np.mean(exact), atol=0.004)  # Of 256: less than a sixteenth of that.
    np.testing.assert_allclose(np.exp(bounds).sum(), np.prod(cdf[-1] - cdf[0]) ** 4, rtol=5e-3)


def test_edge_bins_in_closed_form():
    """The lowest and the highest level own the normal distribution's tails, whatever the place and scale of q's."""
    model = _constant_model(EdgeBins)
    edges = _bin_edges().copy()
    edges[[0, -1]] = -np.inf, np.inf
    exact = np.log(np.diff(scipy.stats.norm.cdf((edges - 0.1) / 0.6)))[IMAGES.reshape(256, 4)].sum(1)
    bounds = []
    for location, log_scale in ([1.0, 0.5], [0.2, 0.4]), ([-0.5, 1.5], [0.7, 0.1]):
        model.dequantization.location.assign(location)
        model.dequantization.log_scale.assign(log_scale)
        estimates = np.exp(_log_prob(model, np.tile(IMAGES, (32, 1, 1, 1)), 128).reshape(32, 256))
        mean, error = _mean_and_error(estimates)
        assert np.all(np.abs(mean - np.exp(exact)) < 5.0 * error)
        np.testing.assert_allclose(mean.sum(), 1.0, atol=4.0 * np.linalg.norm(error))
        bounds.append(_log_prob(model, np.tile(IMAGES, (16, 1, 1, 1)), 1).mean())
    assert max(bounds) < exact.mean()
    assert bounds[0] != bounds[1]


def test_sampler_of_the_closed_form(constant_model):
    """What lies outside of the unit cube is clipped to the nearest level."""
    levels = constant_model.sample(20000, batch_size=20000).ravel()
    edges = _bin_edges().copy()
    edges[[0, -1]] = -np.inf, np.inf
    expected = np.diff(scipy.stats.norm.cdf((edges - 0.1) / 0.6))
    counts = np.bincount(levels, minlength=LEVELS)
    assert scipy.stats.chisquare(counts, 80000 * expected).pvalue > 1e-4
