"""Which continuous values belong to an image, and the density that they are drawn from."""

import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import affine, logit
from tf_pivae.models.dequantization import EdgeBins, NormalEdgeBins, TailNetwork, UniformDequantization
from tf_pivae.noise import RowNoise

LEVELS = 6
IMAGES = np.tile(np.arange(LEVELS, dtype=np.uint8), (40, 1)).reshape(40, LEVELS, 1, 1)
TAILS = [([1.0, 1.0], [0.0, 0.0]), ([-0.5, 2.0], [0.7, -0.4])]  # location, log_scale
NETWORK = functools.partial(TailNetwork, width=4, num_layers=2)
NormalBins = functools.partial(NormalEdgeBins, tails=NETWORK)
KINDS = {"logistic": EdgeBins, "logistic_network": functools.partial(EdgeBins, tails=NETWORK), "normal": NormalBins}


class GivenUniform(RowNoise):
    """Noise whose uniform numbers are given."""

    def __init__(self, u):
        super().__init__(0, len(u))
        self.u = u

    def uniform(self, tag, shape):
        return self.u


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def edge_bins(request, randomize):
    """A function of a preprocessing and tails that returns edge bins; a network has random weights."""

    def build(preprocessing, location, log_scale):
        bins = request.param(LEVELS, preprocessing)
        bins(IMAGES, noise=RowNoise(0, len(IMAGES)))
        randomize(bins, scale=0.3)
        bins.location.assign(location)
        bins.log_scale.assign(log_scale)
        return bins

    return build


@pytest.mark.parametrize("preprocessing", [logit, affine])
@pytest.mark.parametrize("tails", TAILS)
def test_every_draw_belongs_to_its_image(edge_bins, preprocessing, tails):
    bins = edge_bins(preprocessing, *tails)
    t = bins(IMAGES, noise=RowNoise(3, len(IMAGES))).t
    levels = np.floor(preprocessing().inverse(t).numpy() * LEVELS).clip(0, LEVELS - 1)
    np.testing.assert_array_equal(levels, IMAGES)
    for u in (0.0, 1.0 - 2.0**-23):  # The ends of what is drawn.
        assert all(
            np.all(np.isfinite(x)) for x in bins(IMAGES, noise=GivenUniform(np.full(IMAGES.shape, u, np.float32)))
        )


@pytest.mark.parametrize("preprocessing", [logit, affine])
@pytest.mark.parametrize("tails", TAILS)
def test_terms_are_the_derivative_of_the_draw(edge_bins, preprocessing, tails):
    """u is uniform, so -log q(t) = log|dt/du|, by autodiff; the terms are that, whatever they are called."""
    bins = edge_bins(preprocessing, *tails)
    u = tf.constant(np.random.default_rng(0).uniform(0.02, 0.98, IMAGES.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(u)
        actual = bins(IMAGES, noise=GivenUniform(u))
        t = actual.t
    log_derivative = np.log(np.abs(tape.gradient(t, u)))
    actual = bins(IMAGES, noise=GivenUniform(u))
    expected = log_derivative.sum((1, 2, 3))
    np.testing.assert_allclose(actual.preprocessing_log_det + actual.discretisation, expected, rtol=1e-5, atol=1e-4)
    inner = (IMAGES > 0) & (IMAGES < LEVELS - 1)
    of_v = np.where(inner, log_derivative + np.log(LEVELS), 0.0).sum((1, 2, 3))
    np.testing.assert_allclose(actual.preprocessing_log_det, of_v, rtol=1e-5, atol=1e-4)


def test_the_tails_are_learnt_and_the_rest_is_the_papers():
    noise = RowNoise(0, len(IMAGES))
    bins = EdgeBins(LEVELS, logit)
    uniform = UniformDequantization(LEVELS, logit)
    inner = (IMAGES > 0) & (IMAGES < LEVELS - 1)
    with tf.GradientTape() as tape:
        result = bins(IMAGES, noise=noise)
        total = tf.reduce_sum(result.discretisation) + tf.reduce_sum(result.t)
    assert all(np.all(gradient != 0.0) for gradient in tape.gradient(total, bins.trainable_variables))
    plain = uniform(IMAGES, noise=noise)
    np.testing.assert_allclose(result.t.numpy()[inner], plain.t.numpy()[inner], atol=1e-5)
    np.testing.assert_allclose(plain.discretisation, -LEVELS * np.log(LEVELS), rtol=1e-6)
    assert not uniform.variables


def test_a_network_tells_edge_pixels_apart_by_their_surroundings(randomize):
    """The same u in pixels of one level gives tails by what is around them alone; without the network, one tail."""
    images = np.zeros([2, 9, 9, 1], np.uint8)
    images[1, 4, 4] = 3
    noise = GivenUniform(np.full(images.shape, 0.3, np.float32))
    bins = NormalBins(LEVELS, logit)
    t = bins(images, noise=noise).t.numpy()[..., 0]
    assert len(np.unique(t[images[..., 0] == 0])) == 1  # The network starts at zero.
    randomize(bins, scale=0.3)
    t = bins(images, noise=noise).t.numpy()[..., 0]
    rows, columns = np.nonzero(np.abs(t[0] - t[1]) > 1e-4)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 2, 6)  # Two 3x3 convolutions away.
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(term) for term in bins(images, noise=noise)])
    assert all(np.any(gradient) for gradient in tape.gradient(total, bins.trainable_variables)[2:])


@pytest.mark.parametrize(("mass", "scale"), [(0.999, 0.5), (0.5, 1.5), (0.03, 1.0)])
def test_normal_tails_are_truncated_normals(mass, scale):
    """Quantiles of the distance from the inner edge, beside SciPy's; the place is the logit of the mass beyond it."""
    levels = np.zeros([999, 1, 1, 1], np.uint8)
    u = np.linspace(0.001, 0.999, 999, dtype=np.float32)
    bins = NormalBins(LEVELS, logit)
    bins.location.assign([np.log(mass / (1.0 - mass))] * 2)
    bins.log_scale.assign([np.log(scale)] * 2)
    t = bins(levels, noise=GivenUniform(u.reshape(levels.shape))).t.numpy().ravel()
    edge, black, white = (logit().forward(tf.constant(v)).numpy() for v in (1.0 / LEVELS, 0.0, 1.0))
    distance = (edge - t) / ((white - black) / 6.0) / scale
    mean = scipy.stats.norm.ppf(mass)
    expected = scipy.stats.truncnorm.ppf(1.0 - u, a=-mean, b=np.inf, loc=mean)
    # Either quantile is within 0.2 % of the normal's.
    assert np.all(np.abs(distance - expected) <= 0.002 * (abs(mean) + np.abs(mean - expected)) + 1e-5)


def test_the_critic_sees_images_as_people_do():
    v = tf.constant([-0.05, 0.0, 0.4, 1.0, 1.05])
    with tf.GradientTape() as tape:
        tape.watch(v)
        view = EdgeBins(LEVELS, logit).critic_view(v)
        total = tf.reduce_sum(view)
    np.testing.assert_array_equal(view, np.float32([0.0, 0.0, 0.4, 1.0, 1.0]))
    np.testing.assert_array_equal(tape.gradient(total, v).numpy()[[0, 2, 4]], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(UniformDequantization(LEVELS, logit).critic_view(v), v)
