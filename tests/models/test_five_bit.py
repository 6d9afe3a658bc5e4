"""Images of 32 levels: the constants of their probabilities, all of them counted, and samples in range."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_pivae import figures
from tf_pivae.bijectors.preprocessing import affine
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.data import bundled, reduced_levels
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.pivae import PiVAE

LEVELS = 32
DIMENSIONS = 16 * 16


def _vae(image_shape, num_classes):
    return residual_vae(image_shape, stem_width=4, widths=(6,), top_channels=2, latent_channels=2)


def _flow(image_shape):
    return RealNVP(image_shape, num_blocks=1, width=4)


@pytest.fixture(scope="module")
def data():
    return reduced_levels(lambda: bundled(image_size=16, num_examples=(64, 32)), LEVELS)


def _without_latents(image_shape, mean, sigma):
    """y ~ N(mean, sigma^2) whatever z, posteriors equal to the priors."""
    model = PiVAE(image_shape, num_bins=LEVELS, vae=_vae, flow=None, preprocessing=affine)
    for variable in model.vae.variables:
        if variable.name == "g":
            variable.assign(tf.zeros_like(variable))
    model.vae.output_conv.b.assign([mean])
    model.vae.log_sigma.assign(math.log(sigma))
    return model


def test_constants_of_a_flat_density(data):
    """With sigma = 10^4 the density of t is flat over the images: D (log 2 - log sigma - log sqrt(2 pi) - log 32)."""
    model = _without_latents(data.image_shape, 0.0, 1e4)
    expected = DIMENSIONS * (math.log(2.0) - math.log(1e4) - 0.5 * math.log(2.0 * math.pi) - math.log(32.0))
    np.testing.assert_allclose(model.log_prob(data.test.images), expected, rtol=1e-6)
    terms = model.bound_terms(data.test.images)
    np.testing.assert_allclose(terms["discretisation"], -DIMENSIONS * math.log(32.0), rtol=1e-6)
    np.testing.assert_allclose(sum(terms.values()), expected, rtol=1e-6)


def test_all_images_of_one_pixel_counted():
    """P(x) against the normal integral over each of the 32 bins, and their sum against that over all of them."""
    model = _without_latents((1, 1, 1), 0.2, 0.3)
    images = np.arange(LEVELS, dtype=np.uint8).reshape(LEVELS, 1, 1, 1)
    bounds = model.log_prob(np.tile(images, (64, 1, 1, 1)), 64, batch_size=LEVELS * 64)
    probabilities = np.exp(bounds.astype(np.float64)).reshape(64, LEVELS).mean(0)
    edges = scipy.stats.norm.cdf((np.linspace(-1.0, 1.0, LEVELS + 1) - 0.2) / 0.3)
    # Means of the density over 4,096 places in each bin. It varies most over the outermost, four standard deviations
    # out: a relative standard error of 0.00364. Five of them.
    np.testing.assert_allclose(probabilities, np.diff(edges), rtol=5 * 0.00364)
    np.testing.assert_allclose(probabilities.sum(), edges[-1] - edges[0], rtol=2e-3)


def test_samples_and_reconstructions_are_levels(data):
    model = PiVAE(data.image_shape, num_bins=LEVELS, vae=_vae, flow=_flow)
    model.initialize(np.asarray(data.train.images))
    samples = model.sample(32)
    assert samples.max() == LEVELS - 1
    assert len(np.unique(samples)) > 16
    assert model.reconstruct(data.test.images).max() < LEVELS
    # The picture spans black to white.
    grid = np.asarray(figures.image_grid(samples, num_bins=LEVELS, gap=0))
    assert (grid.min(), grid.max()) == (0, 255)


def test_a_constant_image_reconstructs_to_its_level():
    """Through dequantisation, preprocessing and back: the sampler of a sure model gives the level it is sure of."""
    for level in (0, 13, LEVELS - 1):
        model = _without_latents((2, 2, 1), 2.0 * (level + 0.5) / LEVELS - 1.0, 1e-3)
        assert (model.sample(8) == level).all()


def test_eight_bit_images_are_refused():
    model = PiVAE((16, 16, 1), num_bins=LEVELS, vae=_vae, flow=_flow)
    with pytest.raises(ValueError, match=r"must lie in \[0, 32\); got 0 to \d+"):
        model.log_prob(bundled(image_size=16, num_examples=(8, 8)).test.images)
