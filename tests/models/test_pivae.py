"""The joint model: the bound as a change of variables, what people call, and what it refuses."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.bijectors.preprocessing import affine
from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.models import pivae
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise

SHAPE = (4, 4, 2)
LEVELS = 16


def _residual(image_shape, num_classes=0):
    return residual_vae(
        image_shape,
        stem_width=4,
        widths=(4, 6),
        top_channels=2,
        latent_channels=2,
        posterior=IAFPosterior,
        num_classes=num_classes,
    )


def _plain(image_shape, num_classes=0, latent_channels=2):
    return plain_vae(
        image_shape, widths=(6, 8), top_channels=3, latent_channels=latent_channels, num_classes=num_classes
    )


def _flow(image_shape):
    return RealNVP(image_shape, num_scales=2, num_couplings=2, num_blocks=1, width=4)


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(PiVAE(SHAPE, vae=_residual, flow=_flow, num_bins=LEVELS), scale=0.1)


@pytest.fixture(scope="module")
def conditional(randomize):
    model = PiVAE(SHAPE, vae=_residual, preprocessing=affine, num_bins=LEVELS, num_classes=3)
    return randomize(model, scale=0.2)


def _images(count, seed=0):
    return np.random.default_rng(seed).integers(0, LEVELS, [count, *SHAPE]).astype(np.uint8)


# The bound.


def test_bound_is_a_change_of_variables(model, jacobians):
    """log p(v|z) = log N(y(v)) + log|det dy/dv|, the Jacobian from v to y by autodiff; a bin has volume 16^-D."""
    images = _images(2)
    noise = RowNoise(3, 2)
    bound = model.bound(images, noise)
    v = model.dequantize(images, noise)
    np.testing.assert_array_equal(tf.floor(v * LEVELS), images)

    def y(v):
        return model.flow.bijector().forward(model.preprocessing().forward(v))

    log_det = np.linalg.slogdet(jacobians(y, v))[1]
    np.testing.assert_allclose(bound.flow_log_det + bound.preprocessing_log_det, log_det, rtol=1e-5, atol=1e-4)
    groups, mean = model.vae.infer(y(v), noise)
    sigma = tf.exp(model.vae.log_sigma)
    likelihood = tfp.distributions.Normal(mean, sigma).log_prob(y(v)).numpy().sum((1, 2, 3))
    np.testing.assert_allclose(bound.reconstruction, likelihood, rtol=1e-4)
    kl = sum(group.kl.numpy().sum((1, 2, 3)) for group in groups)
    expected = likelihood - kl + log_det - 32 * np.log(LEVELS)
    np.testing.assert_allclose(bound.log_prob, expected, rtol=1e-5, atol=1e-3)
    assert len(bound.kl) == len(model.vae.group_names) == 3


def test_number_of_levels_only_changes_the_unit():
    """The same v is an image of 2 levels or of 256: log P differs by the bins' volume alone."""
    coarse = PiVAE(SHAPE, vae=_plain, preprocessing=affine, num_bins=2)
    fine = PiVAE(SHAPE, vae=_plain, preprocessing=affine, num_bins=256)
    for a, b in zip(coarse.variables, fine.variables, strict=True):
        b.assign(a)

    class Noise(RowNoise):
        def uniform(self, tag, shape):
            return tf.fill([2, *shape], self.value)

    images = _images(2) % 2
    coarse_noise = Noise(0, 2)
    fine_noise = Noise(0, 2)
    # (x + 1/4) / 2 = (128 x + 32) / 256
    coarse_noise.value = 0.25
    fine_noise.value = 32.0
    difference = coarse.bound(images, coarse_noise).log_prob - fine.bound(128.0 * images, fine_noise).log_prob
    np.testing.assert_allclose(difference, 32 * math.log(128.0), rtol=1e-5)


def test_importance_weighting_is_the_mean_of_the_weights(model):
    images = _images(3)
    one = [model.bound(images, RowNoise(0, 3).fold_in(k)).log_prob.numpy().astype(np.float64) for k in range(5)]
    assert np.ptp(one, axis=0).min() > 1e-3
    np.testing.assert_allclose(model.log_prob(images, 5), np.log(np.mean(np.exp(one), 0)), rtol=1e-5)
    np.testing.assert_allclose(model.log_prob(images), one[0], rtol=1e-5)


def test_importance_samples_side_by_side_are_those_one_after_the_other(model, monkeypatch):
    """Three images, five samples: alone, in blocks of two (the last one not full), all at once."""
    images = _images(3)
    noise = RowNoise(0, 3)
    bounds = []
    for rows in (1, 8, 64):
        monkeypatch.setattr(pivae, "_ROWS_SIDE_BY_SIDE", rows)
        bounds.append(model.importance_weighted_bound(images, 5, noise).numpy())
    np.testing.assert_allclose(bounds[1:], [bounds[0]] * 2, rtol=1e-5)


def test_sampling_computes_nothing_of_the_posterior(model):
    """The posterior's part of the top-down weights does not lead to a sample."""
    noise = RowNoise(0, 2)
    with tf.GradientTape(persistent=True) as tape:
        sample = tf.reduce_sum(tf.square(model.sample_continuous(noise)))
        bound = tf.reduce_sum(model.bound(_images(2), noise).log_prob)
    for block in model.vae.top_down:
        posterior = np.zeros(block.splitter.filters, bool)
        for start, stop in block.splitter.ranges(("posterior_mean", "posterior_log_scale", "context")):
            posterior[start:stop] = True
        assert posterior.any()
        gain = block.conv.g.value
        np.testing.assert_array_equal(tape.gradient(sample, gain).numpy() == 0.0, posterior)
        assert np.all(tape.gradient(bound, gain) != 0.0)

    sampling = tf.function(lambda: model.vae.sample_mean(noise)).get_concrete_function().graph
    channels = {op.outputs[0].shape[-1] for op in sampling.get_operations() if op.type.startswith("Conv2D")}
    assert not channels & {block.splitter.filters for block in model.vae.top_down}


# What people call.


def test_log_prob_does_not_depend_on_the_batches(model):
    images = _images(7)
    whole = model.log_prob(images, 2, seed=5)
    assert whole.dtype == np.float32
    assert whole.shape == (7,)
    np.testing.assert_allclose(model.log_prob(images, 2, seed=5, batch_size=3), whole, rtol=1e-5)
    np.testing.assert_allclose(model.log_prob(images[4:], 2, seed=5, first_row=4), whole[4:], rtol=1e-5)
    assert np.all(np.abs(model.log_prob(images, 2, seed=6) - whole) > 1e-4)
    assert np.all(np.abs(model.log_prob(images[4:], 2, seed=5) - whole[4:]) > 1e-4)
    assert model.log_prob(images[:0]).shape == (0,)


def test_bits_per_dim(model):
    images = _images(3)
    bits = model.bits_per_dim(images, 2, seed=1)
    np.testing.assert_allclose(bits, -model.log_prob(images, 2, seed=1) / np.log(2.0) / images[0].size, rtol=1e-6)
    assert bits.dtype == np.float32


def test_integers_of_every_type(model):
    images = _images(2)
    for dtype in (np.int32, np.int64, np.uint16):
        np.testing.assert_array_equal(model.log_prob(images.astype(dtype)), model.log_prob(images))


def test_samples_are_a_function_of_seed_and_place(model):
    whole = model.sample(6, seed=2)
    assert whole.dtype == np.uint8
    assert whole.shape == (6, *SHAPE)
    assert whole.max() < LEVELS
    assert len({image.tobytes() for image in whole}) == 6
    np.testing.assert_array_equal(model.sample(6, seed=2), whole)
    np.testing.assert_array_equal(model.sample(4, seed=2, batch_size=3), whole[:4])
    assert np.any(model.sample(6, seed=3) != whole)
    assert np.any(model.sample(6, seed=-1) != model.sample(6, seed=1))
    assert model.sample(0).shape == (0, *SHAPE)


def test_temperature_and_sample_noise(model):
    cold = model.sample(3, temperature=0.0, sample_noise=0.0)
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[:1], cold.shape))
    assert np.any(model.sample(3, temperature=0.0) != cold)


def test_a_gans_samples_are_a_function_of_z_alone():
    model = PiVAE(SHAPE, vae=_plain, preprocessing=affine, num_bins=LEVELS, observation_noise=0.0)
    before = model.sample(3)
    bound = model.log_prob(_images(3))
    np.testing.assert_array_equal(before, model.sample(3, sample_noise=0.0))
    model.vae.log_sigma.assign(model.vae.log_sigma + 1.0)
    np.testing.assert_array_equal(model.sample(3), before)
    assert np.all(model.log_prob(_images(3)) != bound)  # sigma is the bound's all the same


def test_no_trace_for_another_seed_or_batch(model):
    images = _images(4)
    model.log_prob(images, 2, batch_size=2)
    model.sample(4, batch_size=2)
    model.reconstruct(images[:1])
    functions = (model._log_prob_rows, model._sample_rows, model._reconstruct_rows)
    before = [f.num_traces for f in functions]
    model.log_prob(images, 3, seed=9, batch_size=2, first_row=64)
    model.log_prob(images, 2, batch_size=3)
    model.sample(4, seed=9, batch_size=2, temperature=0.5)
    model.reconstruct(images)
    assert [f.num_traces for f in functions] == before


def test_discretisation_inverts_dequantisation(model):
    images = _images(5)
    np.testing.assert_array_equal(model.to_uint8(model.dequantize(images, RowNoise(0, 5))), images)
    np.testing.assert_array_equal(model.to_uint8(tf.constant([-0.2, 0.0, 0.999, 1.0, 7.0])), [0, 0, 15, 15, 15])


def test_image_space_is_the_inverse_of_both_bijectors(model):
    v = model.dequantize(_images(3), RowNoise(0, 3))
    y = model.flow.bijector().forward(model.preprocessing().forward(v)) + 0.0
    np.testing.assert_allclose(model.to_image_space(y), v, atol=2e-5)


def test_reconstruction_of_a_decoder_that_knows_the_image(model):
    reconstruction = model.reconstruct(_images(5), seed=1)
    assert reconstruction.dtype == np.uint8
    np.testing.assert_array_equal(model.reconstruct(_images(5), seed=1, batch_size=2), reconstruction)
    # With the true y as the decoder's mean, the image comes back.
    fresh = PiVAE(SHAPE, vae=_plain, flow=_flow, num_bins=LEVELS)
    fresh.vae.infer = lambda y, noise, labels=None: ([], y)
    np.testing.assert_array_equal(fresh.reconstruct(_images(5), seed=1), _images(5))


def test_reconstructions_have_other_noise_than_samples():
    model = PiVAE(SHAPE, vae=_plain, flow=_flow, num_bins=LEVELS)
    drawn = {}

    def infer(y, noise, labels=None):
        drawn["reconstruct"] = noise.normal("latents/top", [3])
        return [], y

    def sample_mean(noise, temperature=1.0, labels=None):
        drawn["sample"] = noise.normal("latents/top", [3])
        return tf.zeros([5, *SHAPE])

    model.vae.infer = infer
    model.vae.sample_mean = sample_mean
    with tf.init_scope():
        model._reconstruct_batch(0, 5, _images(5), None, 0)
        model._sample_batch(0, 5, None, 0, 1.0, 0.0)
    assert np.abs(drawn["reconstruct"] - drawn["sample"]).min() > 1e-4


def test_initialisation_standardises_the_flow_and_sets_sigma():
    model = PiVAE(SHAPE, vae=_residual, flow=_flow, num_bins=LEVELS)
    images = _images(32)
    before = model.log_prob(images).mean()
    model.initialize(images, seed=4)
    noise = RowNoise(4, 32).fold_in("initialisation")
    t = model.preprocessing().forward(model.dequantize(images, noise)).numpy()
    first = model.flow.scales[0][0].norms[0]
    np.testing.assert_allclose(first.mean, t.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(first.variance, t.var((0, 1, 2)), rtol=1e-5)
    assert model.log_prob(images).mean() > before
    assert all(np.all(np.isfinite(v)) for v in model.variables)


def test_every_variable_that_is_read_is_tracked(model):
    """What the tape saw, beside what Keras lists: an untracked layer would neither train nor be saved."""
    with tf.GradientTape() as tape:
        model.bound(_images(2), RowNoise(0, 2), training=True)
        model.sample_continuous(RowNoise(0, 2))
    watched = {id(v) for v in tape.watched_variables()}
    assert watched == {id(v.value) for v in model.trainable_variables}
    assert {id(v) for v in model.flow_variables} <= {id(v) for v in model.trainable_variables}


# Classes.


def test_labels_change_bound_and_samples(conditional):
    images = _images(6)
    by_label = [conditional.log_prob(images, labels=np.full(6, label)) for label in range(3)]
    assert np.ptp(by_label, axis=0).min() > 1e-2
    mixed = np.array([0, 1, 2, 2, 1, 0])
    np.testing.assert_allclose(
        conditional.log_prob(images, labels=mixed, batch_size=4), np.stack(by_label)[mixed, np.arange(6)], rtol=1e-5
    )
    samples = [conditional.sample(6, labels=np.full(6, label)) for label in range(3)]
    assert np.any(samples[0] != samples[1])
    together = conditional.sample(6, labels=mixed, batch_size=4)
    np.testing.assert_array_equal(together, np.stack(samples)[mixed, np.arange(6)])
    reconstructions = [conditional.reconstruct(images, labels=np.full(6, label)) for label in range(2)]
    assert np.any(reconstructions[0] != reconstructions[1])


def test_label_errors(model, conditional):
    images = _images(2)
    with pytest.raises(ValueError, match=r"integers \[2\]"):
        conditional.log_prob(images)
    with pytest.raises(ValueError, match=r"integers \[2\]"):
        conditional.log_prob(images, labels=np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"integers \[2\]"):
        conditional.sample(2, labels=np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="0 to 3"):
        conditional.log_prob(images, labels=np.array([0, 3]))
    with pytest.raises(ValueError, match="-1 to 0"):
        conditional.sample(2, labels=np.array([0, -1]))
    with pytest.raises(ValueError, match="not class-conditional"):
        model.sample(2, labels=np.array([0, 1]))


# The GAN's generator, and errors.


def test_gan_configuration(randomize):
    model = PiVAE(
        SHAPE,
        vae=lambda image_shape, num_classes: _plain(image_shape, num_classes, latent_channels=0),
        preprocessing=affine,
        num_bins=LEVELS,
    )
    assert model.vae.group_names == ["top"]
    assert model.flow_variables == []
    randomize(model, scale=0.3)
    samples = model.sample(8)
    assert len({image.tobytes() for image in samples}) == 8
    assert np.all(np.isfinite(model.log_prob(_images(2))))


def test_errors_echo_what_is_wrong(model):
    with pytest.raises(ValueError, match=r"\[2, 4, 4, 1\]"):
        model.log_prob(np.zeros([2, 4, 4, 1], np.uint8))
    with pytest.raises(ValueError, match=r"\[4, 4, 2\]"):
        model.log_prob(np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        model.reconstruct(np.zeros([2, *SHAPE], np.float32))
    with pytest.raises(ValueError, match="16 to 16"):
        model.log_prob(np.full([2, *SHAPE], 16, np.uint8))
    with pytest.raises(ValueError, match="-1 to"):
        model.log_prob(_images(2).astype(np.int32) - 1)
    with pytest.raises(ValueError, match="got 0"):
        model.log_prob(_images(2), 0)
    with pytest.raises(ValueError, match="`num_samples` must be at least 0; got -1"):
        model.sample(-1)
    for name, value in (("temperature", -0.5), ("sample_noise", float("nan"))):
        with pytest.raises(ValueError, match=f"`{name}` must be finite and at least 0; got {value}"):
            model.sample(**{"num_samples": 2, name: value})
    for call in (lambda: model.sample(2, batch_size=0), lambda: model.log_prob(_images(2), batch_size=-1)):
        with pytest.raises(ValueError, match="`batch_size` must be at least 1; got"):
            call()
    with pytest.raises(ValueError, match="257"):
        PiVAE(SHAPE, vae=_plain, num_bins=257)
    with pytest.raises(ValueError, match="num_bins = 1 is not possible"):
        PiVAE(SHAPE, vae=_plain, num_bins=1)
    with pytest.raises(ValueError, match="6x5"):
        PiVAE((6, 5, 1), vae=_plain)
    with pytest.raises(ValueError, match="6x6"):
        PiVAE((6, 6, 1), vae=_plain, flow=lambda image_shape: RealNVP(image_shape, num_scales=3))
