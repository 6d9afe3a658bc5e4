"""The Real-NVP head: where it starts, what training mode does to it, what it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.layers.moments import RunningMoments
from tf_pivae.layers.weight_norm import data_dependent_initialization


def _images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(0.7, 1.9, shape), tf.float32)


def _flow(shape, **options):
    flow = RealNVP(shape, **{"num_blocks": 1, "width": 4, **options})
    flow.bijector().forward(tf.zeros([1, *shape]))
    return flow


@pytest.mark.parametrize("norm", ["act", "none"])
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_starts_as_the_identity(norm, num_scales):
    x = _images([2, 4, 4, 3])
    bijector = _flow((4, 4, 3), norm=norm, num_scales=num_scales).bijector()
    np.testing.assert_array_equal(bijector.forward(x), x)
    np.testing.assert_array_equal(bijector.forward_log_det_jacobian(x, event_ndims=3), 0.0)


def test_starts_as_the_identity_up_to_normalisation():
    x = _images([2, 4, 4, 2])
    bijector = _flow((4, 4, 2), num_couplings=3).bijector()
    shrink = 1.0001**-0.5  # Two normalisations with mean 0 and variance 1, epsilon 1e-4.
    np.testing.assert_allclose(bijector.forward(x), x * shrink**2, rtol=1e-6)
    log_det = bijector.forward_log_det_jacobian(x, event_ndims=3)
    np.testing.assert_allclose(log_det, 2 * 32 * np.log(shrink), rtol=1e-3)


def test_training_normalises_the_batch_and_counts_it_in_the_log_det():
    x = _images([16, 4, 4, 2])
    flow = _flow((4, 4, 2), num_couplings=2)  # One normalisation.
    bijector = flow.bijector(training=True)
    y = bijector.forward(x).numpy()
    variance = x.numpy().var((0, 1, 2)) + 1e-4
    np.testing.assert_allclose(y, (x - x.numpy().mean((0, 1, 2))) / np.sqrt(variance), atol=1e-5)
    log_det = bijector.forward_log_det_jacobian(x, event_ndims=3)
    np.testing.assert_allclose(log_det, -16 * np.sum(np.log(variance)) / 2, rtol=1e-5)


def test_each_resolution_may_have_a_width_of_its_own():
    scales = _flow((8, 8, 1), num_scales=3, num_couplings=1, width=[3, 4, 5]).scales
    widths = [[stage.conditioners[0].input_conv.filters for stage in stages] for stages in scales]
    assert widths == [[3, 4], [4, 5], [5]]
    with pytest.raises(ValueError, match=r"`width` has 2 numbers for 3 scales: give one, or one for each\."):
        RealNVP((8, 8, 1), num_scales=3, width=(3, 4))


def test_squeezed_checkerboards_transform_every_second_pixel_given_the_others(randomize, jacobians):
    flow = randomize(_flow((4, 6, 2), norm="none", num_couplings=1, squeezed_checkerboards=True))
    x = _images([1, 4, 6, 2])
    jacobian = np.reshape(jacobians(flow.bijector().forward, x), [48, 48])
    rows, columns = np.divmod(np.arange(48) // 2, 6)
    passes = (rows + columns) % 2 == 0
    np.testing.assert_array_equal(jacobian[passes], np.eye(48)[passes])
    changed = jacobian[~passes]
    np.testing.assert_array_equal(changed[:, ~passes], np.diag(np.diag(changed[:, ~passes])))
    assert (np.abs(changed[:, passes]).max(1) > 1e-4).all()


def test_squeezed_checkerboards_are_networks_at_half_the_resolution():
    flow = _flow((12, 12, 1), num_scales=3, num_couplings=1, squeezed_checkerboards=True)
    inputs = [[stage.conditioners[0].input_conv.v.shape[2] for stage in stages] for stages in flow.scales]
    assert inputs == [[9, 9], [17, 17], [9]]  # [x, -x, mask]; the last, 3x3 with 4 channels, has odd sides.


@pytest.mark.parametrize("num_scales", [1, 2, 3, 4])
def test_the_vae_gets_a_tensor_of_the_images_own_shape(num_scales, randomize):
    """Appendix A.4; whatever is factored out comes back to its place: each feature is nearest to its own pixel."""
    shape = (16, 16, 3)
    flow = randomize(_flow(shape, norm="act", num_scales=num_scales, num_couplings=1), scale=0.02)
    x = _images([2, *shape])
    y = flow.bijector().forward(x)
    assert y.shape == x.shape
    assert flow.bijector().forward_event_shape(shape) == shape
    np.testing.assert_allclose(y, x, atol=1.0)
    assert np.abs(y - x).max() > 1e-3
    np.testing.assert_allclose(flow.bijector().inverse(y), x, atol=1e-4)


@pytest.mark.parametrize(("shape", "num_scales"), [((4, 6, 1), 2), ((3, 5, 2), 1), ((8, 4, 1), 3)])
def test_rectangles(shape, num_scales, randomize, jacobians):
    """The log-determinant is that of the Jacobian, and the inverse takes every pixel back."""
    bijector = randomize(_flow(shape, norm="act", num_scales=num_scales, num_couplings=2), scale=0.1).bijector()
    x = _images([2, *shape])
    sign, log_det = np.linalg.slogdet(jacobians(bijector.forward, x))
    assert (sign == 1).all()
    assert np.abs(log_det).min() > 0.1
    np.testing.assert_allclose(bijector.forward_log_det_jacobian(x, event_ndims=3), log_det, atol=1e-4)
    np.testing.assert_allclose(bijector.inverse(bijector.forward(x)), x, atol=1e-5)


def test_sides_that_cannot_be_halved():
    with pytest.raises(ValueError, match=r"^images of 12x18 cannot be halved 2 times: 4 must .* pad_to = \(12, 20\)"):
        RealNVP((12, 18, 1), num_scales=3)


@pytest.mark.parametrize("num_scales", [1, 2])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function])
def test_running_moments_move_once_a_step(monkeypatch, num_scales, wrap):
    flow = _flow((4, 4, 1), num_scales=num_scales, num_couplings=2, num_blocks=0)
    updated = []
    call = RunningMoments.call

    def counted(self, x, training=False):
        if training:
            updated.append(id(self))
        return call(self, x, training=training)

    monkeypatch.setattr(RunningMoments, "call", counted)
    x = _images([8, 4, 4, 1])
    first = flow.scales[0][0].norms[0]

    @wrap
    def step(x):
        bijector = flow.bijector(training=True)
        return bijector.forward(x), bijector.forward_log_det_jacobian(x, event_ndims=3)

    step(x)
    np.testing.assert_allclose(first.mean, 0.1 * x.numpy().mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(first.variance, 0.9 + 0.1 * x.numpy().var((0, 1, 2)), rtol=1e-5)
    assert len(updated) == len(set(updated))
    assert set(updated) >= {id(norm) for scale in flow.scales for stage in scale for norm in stage.norms}


@pytest.mark.parametrize("num_scales", [1, 2])
def test_inverse_needs_and_moves_no_batch_statistics(num_scales, randomize):
    flow = randomize(_flow((4, 4, 1), num_scales=num_scales), scale=0.1)
    before = [v.numpy() for v in flow.variables]
    y = _images([6, 4, 4, 1])
    whole = flow.bijector(training=False).inverse(y)
    np.testing.assert_allclose(whole[2:3], flow.bijector(training=False).inverse(y[2:3]), rtol=1e-5, atol=1e-5)
    for old, variable in zip(before, flow.variables, strict=True):
        np.testing.assert_array_equal(variable, old)


@pytest.mark.parametrize("num_scales", [1, 2])
def test_actnorm_initialisation_normalises_the_first_batch(num_scales):
    flow = _flow((4, 4, 2), norm="act", num_couplings=2, num_scales=num_scales)
    x = _images([32, 4, 4, 2])
    with data_dependent_initialization():
        flow.bijector(training=True).forward(x)
    actnorm = flow.scales[0][0].norms[0]
    y = (x.numpy() + actnorm.shift.numpy()) * np.exp(actnorm.log_scale.numpy())
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1.0, atol=1e-4)
    np.testing.assert_allclose(flow.bijector().inverse(flow.bijector().forward(x) + 0.0), x, atol=1e-5)


def test_every_pixel_depends_on_others_and_is_moved(randomize, jacobians):
    flow = randomize(_flow((4, 4, 1), norm="none"))
    jacobian = jacobians(flow.bijector().forward, _images([1, 4, 4, 1]))[0]
    off_diagonal = jacobian - np.diag(np.diag(jacobian))
    assert np.all(np.abs(off_diagonal).max(1) > 1e-4)
    assert np.all(np.abs(np.diag(jacobian) - 1.0) > 1e-5)


def test_gradient_reaches_every_variable(randomize):
    flow = randomize(_flow((4, 4, 1), num_scales=2), scale=0.1)
    with tf.GradientTape() as tape:
        bijector = flow.bijector(training=False)
        x = _images([4, 4, 4, 1])
        loss = tf.reduce_sum(tf.square(bijector.forward(x))) - tf.reduce_sum(
            bijector.forward_log_det_jacobian(x, event_ndims=3)
        )
    gradients = tape.gradient(loss, flow.trainable_variables)
    missing = [v.path for v, g in zip(flow.trainable_variables, gradients, strict=True) if g is None]
    assert not missing


def test_rejects_what_it_cannot_do():
    with pytest.raises(ValueError, match="'layer'"):
        RealNVP((4, 4, 1), norm="layer")
    with pytest.raises(ValueError, match="6x6"):
        RealNVP((6, 6, 1), num_scales=3)
    with pytest.raises(ValueError, match="num_scales = 0"):
        RealNVP((4, 4, 1), num_scales=0)
