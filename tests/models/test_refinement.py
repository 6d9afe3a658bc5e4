"""A q(v|x) that is refined image by image: the weights' correction, the steps, and what they bring."""

import functools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tf_pivae
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.data import bundled
from tf_pivae.models.dequantization import TAG
from tf_pivae.models.hierarchical_vae import plain_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.models.refinement import MovedNoise, refined_means
from tf_pivae.noise import RowNoise

SHAPE = (2, 3, 1)


@pytest.fixture(scope="module")
def packaged():
    return tf_pivae.load("fashion_mnist")


@pytest.fixture(scope="module")
def images():
    """Uint8 [12, 28, 28, 1]."""
    return np.asarray(bundled(28).test.images[:12])


def _scores(noise):
    """The normal numbers that a noise's uniform ones stand for."""
    return tf.math.ndtri(noise.uniform(TAG, SHAPE))


def test_moved_noise_is_normal_around_its_mean_and_says_its_density():
    means = tf.constant(np.random.default_rng(0).normal(size=(50, *SHAPE)).astype(np.float32))
    noise = MovedNoise(RowNoise(3, 50), means)
    scores = means + RowNoise(3, 50).normal(TAG, SHAPE)
    np.testing.assert_allclose(noise.uniform(TAG, SHAPE), scipy.stats.norm.cdf(scores), atol=2e-7)
    np.testing.assert_array_equal(noise.normal("latents/top", SHAPE), RowNoise(3, 50).normal("latents/top", SHAPE))
    ratio = scipy.stats.norm.logpdf(scores, loc=means) - scipy.stats.norm.logpdf(scores)
    np.testing.assert_allclose(noise.log_density_ratio(), ratio.sum((1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_moved_noise_stays_a_uniform_number():
    far = MovedNoise(RowNoise(0, 2), tf.constant([9.0, -9.0])[:, None, None, None] * tf.ones([2, *SHAPE]))
    u = far.uniform(TAG, SHAPE).numpy()
    assert u.min() >= 0.0
    assert u.max() < 1.0


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_steps_towards_the_best_mean_of_a_linear_weight(num_steps):
    """log w = a . e is best sampled around a. Steps of 1/2, 1/3, ... leave 1/2, 1/3, ... of the way to it."""
    a = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)

    def log_weight(noise):
        return tf.reduce_sum(a * _scores(noise), [1, 2, 3]) - noise.log_density_ratio()

    means = refined_means(log_weight, [4, *SHAPE], num_steps)
    np.testing.assert_allclose(means, a * num_steps / (num_steps + 1), rtol=1e-3, atol=1e-4)


def test_an_image_whose_weight_would_fall_stays():
    """Of two images the second one's log w falls steeply beside where its gradient points to."""
    bend = tf.constant([0.0, 100.0])

    def log_weight(noise):
        e = _scores(noise)
        return tf.reduce_sum(e, [1, 2, 3]) - bend * tf.reduce_sum(e**4, [1, 2, 3]) - noise.log_density_ratio()

    means = refined_means(log_weight, [2, *SHAPE], 2).numpy()
    np.testing.assert_allclose(means[0], 2 / 3, rtol=1e-3)
    np.testing.assert_array_equal(means[1], 0.0)


def _log_weights(model, images, refinement, count):
    """Float64 [count, B], of the first importance samples."""
    terms = [model.bound_terms(images, sample=k, refinement=refinement) for k in range(count)]
    return np.sum([list(of_sample.values()) for of_sample in terms], axis=1, dtype=np.float64)


@pytest.mark.slow
def test_the_bound_is_tighter(packaged, images):
    """With one sample and with eight, and the weights vary less."""
    refinement = packaged.refine(images)
    assert refinement.dtype == np.float32
    assert refinement.shape == images.shape
    plain, refined = (_log_weights(packaged, images, r, 8) for r in (None, refinement))
    assert np.mean(refined - plain) > 5.0
    assert np.mean(np.logaddexp.reduce(refined) - np.logaddexp.reduce(plain)) > 3.0
    assert np.var(refined, axis=0, ddof=1).mean() < 0.8 * np.var(plain, axis=0, ddof=1).mean()


def test_log_prob_averages_the_weights_of_the_refined_q(randomize):
    vae = functools.partial(plain_vae, widths=(6, 8), top_channels=3, latent_channels=2)
    flow = functools.partial(RealNVP, num_couplings=2, num_blocks=1, width=4)
    model = randomize(PiVAE((4, 4, 1), vae, flow), scale=0.1)
    images = np.random.default_rng(0).integers(0, 256, [5, 4, 4, 1]).astype(np.uint8)
    refinement = model.refine(images)
    weights = _log_weights(model, images, refinement, 3)
    np.testing.assert_allclose(model.log_prob(images, refinement=refinement), weights[0], rtol=1e-5)
    expected = np.logaddexp.reduce(weights) - math.log(3)
    np.testing.assert_allclose(model.log_prob(images, 3, refinement=refinement), expected, rtol=1e-5)


def test_an_image_is_refined_by_itself(packaged, images):
    """But for rounding, which turns a unit of the head's networks on or off now and then."""
    together = packaged.refine(images)
    alone = np.concatenate([packaged.refine(image[None]) for image in images])
    assert np.median(np.abs(together - alone)) < 1e-4 < np.abs(together).max()
    np.testing.assert_allclose(together, alone, atol=0.05)


def test_what_no_training_image_is_like_is_left_alone(packaged):
    """White images: a step along the gradient would cost more than 30,000 nats."""
    white = np.full([2, 28, 28, 1], 255, np.uint8)
    np.testing.assert_array_equal(packaged.refine(white), 0.0)


def test_refusals(packaged, images):
    with pytest.raises(ValueError, match="`refinement` must be what `refine` returns of the same images"):
        packaged.log_prob(images, refinement=np.zeros([5, 28, 28, 1]))
    with pytest.raises(ValueError, match="finite"):
        packaged.bound_terms(images, refinement=np.full(images.shape, np.nan))
    with pytest.raises(ValueError, match="num_steps"):
        packaged.refine(images, 0)
    assert packaged.refine(images[:0]).shape == (0, 28, 28, 1)
