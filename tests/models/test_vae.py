"""The hierarchical VAE and its parts, beside TFP's distributions and autodiff Jacobians."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.layers.weight_norm import NearestConv2D
from tf_pivae.models.blocks import Evidence
from tf_pivae.models.hierarchical_vae import EluInput, RawInput, ResidualInput, plain_vae, residual_vae
from tf_pivae.models.latents import Gaussian, GaussianPosterior, IAFPosterior, TopDownBlock, gaussian
from tf_pivae.noise import RowNoise

tfd = tfp.distributions

MAKERS = {
    "residual_iaf": lambda shape: residual_vae(
        shape, stem_width=4, widths=(8, 8), top_channels=2, latent_channels=2, posterior=IAFPosterior
    ),
    "residual": lambda shape: residual_vae(shape, stem_width=4, widths=(4, 6, 8), top_channels=3, latent_channels=2),
    "plain": lambda shape: plain_vae(shape, widths=(6, 8), top_channels=3, latent_channels=2),
    "plain_iaf": lambda shape: plain_vae(
        shape, widths=(6, 8), top_channels=3, latent_channels=3, posterior=IAFPosterior
    ),
    "residual_deep": lambda shape: residual_vae(
        shape,
        stem_width=4,
        widths=(4, 6),
        top_channels=3,
        latent_channels=2,
        posterior=IAFPosterior,
        blocks_per_width=2,
        upsampling=NearestConv2D,
    ),
    "plain_nearest": lambda shape: plain_vae(
        shape, widths=(6, 8, 8), top_channels=3, latent_channels=2, upsampling=NearestConv2D
    ),
    "plain_residual_input": lambda shape: plain_vae(
        shape,
        widths=(6, 8),
        top_channels=3,
        latent_channels=2,
        stem=functools.partial(ResidualInput, width=5, num_blocks=1),
    ),
    "plain_gan": lambda shape: plain_vae(shape, widths=(6, 8), top_channels=3, latent_channels=0),
    "residual_gan": lambda shape: residual_vae(shape, stem_width=4, widths=(6, 8), top_channels=3, latent_channels=0),
}
SHAPE = (4, 4, 2)


@pytest.fixture(scope="module", params=list(MAKERS))
def vae(request, randomize):
    vae = MAKERS[request.param](SHAPE)
    vae.infer(tf.zeros([1, *SHAPE]), RowNoise(0, 1))
    vae.sample_mean(RowNoise(0, 1))
    return randomize(vae, scale=0.1)


def _normal(shape, seed=0, scale=1.0):
    return tf.constant(np.random.default_rng(seed).normal(0.0, scale, shape), tf.float32)


def test_likelihood_against_tfp(vae):
    y = _normal([5, *SHAPE])
    mean = _normal([5, *SHAPE], 1)
    for log_sigma in (-2.0, 0.0, 1.0):
        vae.log_sigma.assign(log_sigma)
        expected = tfd.MultivariateNormalDiag(tf.reshape(mean, [5, -1]), tf.fill([32], tf.exp(log_sigma)))
        np.testing.assert_allclose(
            vae.log_likelihood(y, mean), expected.log_prob(tf.reshape(y, [5, -1])), rtol=2e-6, atol=1e-4
        )


def test_sigma_starts_at_the_residual_and_maximises_the_likelihood(vae):
    y = _normal([5, *SHAPE])
    mean = _normal([5, *SHAPE], 1, scale=0.5)
    vae.initialize_sigma(y, mean)
    np.testing.assert_allclose(tf.exp(vae.log_sigma), np.sqrt(np.mean(np.square(y - mean))), rtol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(vae.log_likelihood(y, mean))
    np.testing.assert_allclose(tape.gradient(loss, vae.log_sigma.value), 0.0, atol=1e-4)


def test_groups(vae, request):
    bound = vae.bound(_normal([3, *SHAPE]), RowNoise(0, 3))
    assert len(bound.kl) == len(vae.group_names) == len(set(vae.group_names))
    assert vae.group_names[0] == "top"
    if "gan" in request.node.callspec.params["vae"]:
        assert vae.group_names == ["top"]
    else:
        assert len(vae.group_names) == 1 + len(vae.top_down)
    assert bound.mean.shape == [3, *SHAPE]
    assert all(group.shape[0] == 3 and len(group.shape) == 2 for group in bound.kl)


def test_posterior_latents_decode_to_their_mean(vae):
    """The top-down pass is shared: decoding the posterior's latents gives the mean that `infer` gave."""
    groups, mean = vae.infer(_normal([3, *SHAPE]), RowNoise(0, 3))
    np.testing.assert_allclose(vae.decode([group.z for group in groups]), mean, rtol=1e-5, atol=1e-5)


def test_evidence_reaches_every_group(vae):
    """The posterior of each group depends on every image."""
    noise = RowNoise(0, 2)
    for i in range(len(vae.group_names)):
        y = _normal([2, *SHAPE])
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_sum(vae.infer(y, noise)[0][i].z)
        assert np.all(np.abs(tape.gradient(loss, y)).sum((1, 2, 3)) > 1e-5)


def test_sampling_noise_reaches_every_group(vae):
    mean = vae.sample_mean(RowNoise(0, 4)).numpy()
    assert np.abs(vae.sample_mean(RowNoise(1, 4)) - mean).max() > 1e-5
    cold = vae.sample_mean(RowNoise(0, 4), temperature=0.0).numpy()
    np.testing.assert_allclose(cold, np.broadcast_to(cold[:1], cold.shape), rtol=1e-5, atol=1e-6)


def test_inference_variables_do_not_move_the_sampler(vae):
    before = vae.sample_mean(RowNoise(0, 3)).numpy()
    saved = [v.numpy() for v in [vae.log_sigma, *vae.posterior_variables]]
    y = _normal([3, *SHAPE])
    posterior = vae.infer(y, RowNoise(0, 3))[0][0].z.numpy()
    for variable in [vae.log_sigma, *vae.posterior_variables]:
        variable.assign_add(0.5 * tf.random.stateless_normal(variable.shape, [0, 1]))
    np.testing.assert_array_equal(vae.sample_mean(RowNoise(0, 3)), before)
    assert np.abs(vae.infer(y, RowNoise(0, 3))[0][0].z - posterior).max() > 1e-3
    for variable, value in zip([vae.log_sigma, *vae.posterior_variables], saved, strict=True):
        variable.assign(value)


def test_gradient_of_the_bound_reaches_every_variable(vae):
    with tf.GradientTape() as tape:
        bound = vae.bound(_normal([3, *SHAPE]), RowNoise(0, 3))
        loss = tf.reduce_sum(bound.reconstruction) - tf.add_n([tf.reduce_sum(group) for group in bound.kl])
    gradients = tape.gradient(loss, vae.trainable_variables)
    missing = [v.path for v, g in zip(vae.trainable_variables, gradients, strict=True) if g is None]
    assert not missing


def test_kl_of_the_top_against_the_closed_form(vae):
    """The single-sample estimate, averaged over many samples, is the analytic KL to N(0, I)."""
    count = 20000
    y = _normal([1, *SHAPE])
    posterior = gaussian(*vae.top.statistics(vae.encode(y)[0]))
    analytic = tfd.kl_divergence(tfd.Normal(posterior.mean, tf.exp(posterior.log_scale)), tfd.Normal(0.0, 1.0))
    features = vae.encode(y)[0]
    many = gaussian(*vae.top.statistics(tf.repeat(features, count, 0)))
    h = many.sample(RowNoise(3, count).normal("h", vae.top.latent_shape))
    estimate = (many.log_prob(h) + 0.5 * tf.square(h) + 0.5 * np.log(2.0 * np.pi)).numpy()
    error = estimate.std(0) / np.sqrt(count)
    assert np.all(np.abs(estimate.mean(0) - analytic[0]) < 5.0 * error + 1e-6)


def test_kl_of_infer_is_log_q_minus_log_p_of_the_top(vae):
    y = _normal([4, *SHAPE])
    top = vae.infer(y, RowNoise(0, 4))[0][0]
    posterior = gaussian(*vae.top.statistics(vae.encode(y)[0]))
    expected = tfd.Normal(posterior.mean, tf.exp(posterior.log_scale)).log_prob(top.z) - tfd.Normal(0.0, 1.0).log_prob(
        top.z
    )
    np.testing.assert_allclose(top.kl, expected, rtol=1e-4, atol=1e-5)


def test_with_elu_input_the_first_block_sees_elu_of_y(randomize):
    vae = plain_vae(SHAPE, widths=(6, 8), top_channels=3, latent_channels=2, stem=EluInput)
    raw = plain_vae(SHAPE, widths=(6, 8), top_channels=3, latent_channels=2)
    y = _normal([3, *SHAPE])
    vae.encode(y)
    raw.encode(y)
    randomize(vae, scale=0.1)
    for block, original in zip(raw.bottom_up, vae.bottom_up, strict=True):
        block.set_weights(original.get_weights())
    features = vae.encode(y)[0].numpy()
    np.testing.assert_allclose(features, raw.encode(np.where(y > 0.0, y, np.expm1(y)))[0], rtol=1e-4, atol=1e-5)
    assert np.abs(features - raw.encode(y)[0]).max() > 1e-2


@pytest.mark.parametrize("num_blocks", [0, 1, 2])
def test_a_residual_input_is_y_and_features_of_the_pixels_around(num_blocks, randomize):
    stem = ResidualInput(width=6, num_blocks=num_blocks)
    y = _normal([1, 13, 13, 2])
    stem(y)
    randomize(stem, scale=0.3)
    moved = y.numpy()
    moved[0, 6, 6, 1] += 1.0
    before, after = (stem(tf.constant(image)).numpy()[0] for image in (y, moved))
    assert before.shape == (13, 13, 2 + 6)
    np.testing.assert_array_equal(after[..., :2], moved[0])
    rows, columns = np.nonzero((before != after)[..., 2:].any(-1))
    reach = 1 + 2 * num_blocks
    assert {rows.min(), columns.min()} == {6 - reach}
    assert {rows.max(), columns.max()} == {6 + reach}


def test_statistics_at_the_images_resolution_are_linear_without_a_residual_input(randomize):
    ends = [_normal([1, *SHAPE], seed) for seed in range(2)]

    def bend(stem):
        """How far the finest group's mean of an average of two y is from the average of the means."""
        vae = plain_vae(SHAPE, widths=(6, 8), top_channels=3, latent_channels=2, stem=stem)
        vae.encode(ends[0])
        randomize(vae, scale=0.3)
        of_ends, middle = ([vae.encode(y)[1][0].mean for y in ys] for ys in (ends, [(ends[0] + ends[1]) / 2]))
        return np.abs(middle[0] - (of_ends[0] + of_ends[1]) / 2).max()

    assert bend(RawInput) < 1e-5
    assert bend(functools.partial(ResidualInput, width=5, num_blocks=1)) > 1e-2


@pytest.mark.parametrize("residual", [True, False])
def test_kl_of_a_block_against_the_closed_form(residual, randomize):
    count = 20000
    channels = 3
    posterior = GaussianPosterior(channels, 8)
    block = TopDownBlock(8, upsample=None, latent_channels=channels, posterior=posterior, residual=residual)
    x = _normal([1, 2, 2, 5])
    block(x, noise=RowNoise(0, 1))
    randomize(block, scale=0.3)
    parts = block.splitter(block.conv(tf.nn.elu(x)))
    evidence = Evidence(_normal([1, 2, 2, channels], 1), _normal([1, 2, 2, channels], 2, 0.5), None)
    x = tf.repeat(x, count, 0)
    noise = RowNoise(0, count)
    sample = block(x, Evidence(*(tf.repeat(part, count, 0) for part in evidence[:2]), None), noise=noise)[1]

    def normal(mean, raw_log_scale):
        return tfd.Normal(mean, np.exp(7.0 * np.tanh(raw_log_scale / 7.0)))

    q = normal(parts["posterior_mean"] + evidence.mean, parts["posterior_log_scale"] + evidence.log_scale)
    p = normal(parts["prior_mean"], parts["prior_log_scale"])
    analytic = tfd.kl_divergence(q, p).numpy()
    np.testing.assert_allclose(sample.kl[:5], (q.log_prob(sample.z) - p.log_prob(sample.z))[:5], rtol=1e-4, atol=2e-4)
    kl = sample.kl.numpy().astype(np.float64)
    assert np.all(np.abs(kl.mean(0) - analytic[0]) < 5.0 * kl.std(0) / np.sqrt(count))
    assert analytic.max() > 0.05
    epsilon = noise.normal(f"latents/{block.name}", [2, 2, channels])
    prior = block(x, noise=noise, temperature=0.5)[1]
    np.testing.assert_allclose(prior.z, p.mean() + 0.5 * p.stddev() * epsilon, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(prior.kl, 0.0)


@pytest.mark.parametrize(("channels", "width"), [(2, 4), (3, 2)])
def test_log_q_of_the_iaf_by_change_of_variables(channels, width, randomize, jacobians):
    """log q(z) = log N(epsilon; 0, I) - log|det dz/depsilon|, the Jacobian from epsilon to z by autodiff."""
    posterior = IAFPosterior(channels, width)
    shape = [2, 3, channels]
    base = gaussian(_normal([1, *shape]), _normal([1, *shape], 1, 0.7))
    context = _normal([1, 2, 3, width], 2)
    posterior(base, context=context, epsilon=tf.zeros([1, *shape]))
    randomize(posterior, scale=1.0)
    epsilon = _normal([4, *shape], 3)

    def z(epsilon):
        return posterior(base, context=context, epsilon=epsilon).z

    log_det = np.linalg.slogdet(jacobians(z, epsilon))[1]
    expected = tf.reduce_sum(tfd.Normal(0.0, 1.0).log_prob(epsilon), [1, 2, 3]) - log_det
    log_prob = posterior(base, context=context, epsilon=epsilon).log_prob
    assert log_prob.shape == epsilon.shape
    np.testing.assert_allclose(tf.reduce_sum(log_prob, [1, 2, 3]), expected, rtol=1e-5, atol=5e-5)
    spread = np.abs(log_det - np.sum(base.log_scale))
    assert spread.max() > 0.05  # The step does something.


def test_gaussian_against_tfp():
    mean = _normal([50])
    log_scale = _normal([50], 1)
    x = _normal([50], 2)
    expected = tfd.Normal(mean, tf.exp(log_scale)).log_prob(x)
    np.testing.assert_allclose(Gaussian(mean, log_scale).log_prob(x), expected, rtol=1e-5, atol=1e-5)
    clamped = gaussian(mean, tf.constant([-1e3, 0.01, 1e3]))
    np.testing.assert_allclose(clamped.log_scale, [-7.0, 0.01, 7.0], rtol=1e-5)


@pytest.mark.parametrize("factory", [plain_vae, residual_vae])
def test_rejects_sides_that_cannot_be_halved(factory):
    with pytest.raises(ValueError, match=r"6x6.*2 times.*4 divides"):
        factory((6, 6, 1), widths=(8, 8, 8), latent_channels=2)


def test_rejects_a_plain_block_full_of_latents():
    with pytest.raises(ValueError, match=r"8 maps.*8"):
        plain_vae((4, 4, 1), widths=(8, 8), latent_channels=8)
