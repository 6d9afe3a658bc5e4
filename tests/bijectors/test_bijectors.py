"""Every bijector: there and back, and its log-det beside the log-determinant of the autodiff Jacobian."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.bijectors import preprocessing
from tf_pivae.bijectors.coupling import AffineCoupling, channel_mask, checkerboard_mask, squeezed_checkerboard_mask
from tf_pivae.bijectors.factor_out import FactorOut
from tf_pivae.bijectors.inverse_autoregressive import InverseAutoregressiveFlow
from tf_pivae.bijectors.normalization import ChannelAffine, ChannelNormalization
from tf_pivae.bijectors.real_nvp import Conditioner, RealNVP
from tf_pivae.bijectors.squeeze import Squeeze
from tf_pivae.layers.masked import AutoregressiveNetwork

tfb = tfp.bijectors


def _coupling(mask, norm, randomize):
    conditioner = randomize(_built(Conditioner(mask, width=6, num_blocks=1, norm=norm), mask.shape))
    return lambda: AffineCoupling(conditioner, mask)


def _built(layer, shape):
    layer(tf.zeros([1, *shape]))
    return layer


def _affine(channels):
    shift = tf.constant(np.linspace(-1.0, 2.0, channels), tf.float32)
    return ChannelAffine(shift, 0.5 - 0.4 * shift)


def _normalization(channels):
    mean = np.linspace(-2.0, 1.0, channels, dtype=np.float32)
    variance = np.geomspace(0.2, 5.0, channels)
    moments = tf.constant(mean), tf.constant(variance, tf.float32)
    return ChannelNormalization(lambda x: moments, lambda: moments, epsilon=0.05)


def _real_nvp(shape, randomize, **options):
    flow = RealNVP(shape, num_blocks=1, width=4, **options)
    flow.bijector().forward(tf.zeros([1, *shape]))
    randomize(flow, scale=0.2)
    return flow.bijector


def _autoregressive(shape, randomize, width):
    network = AutoregressiveNetwork(shape[-1], width, output_scale=0.5)
    context = 0.3 * tf.random.stateless_normal([1, *shape[:2], width], [3, 4])
    network(tf.zeros([1, *shape]), context)
    randomize(network)
    return lambda: InverseAutoregressiveFlow(lambda z: network(z, context))


CASES = {  # name -> (shape of an image, a function of `randomize` that returns a function that builds the bijector)
    "logit": ([3, 2, 2], lambda _: preprocessing.logit),
    "logit_small_a": ([2, 2, 1], lambda _: lambda: preprocessing.logit(a=1e-3)),
    "affine": ([3, 2, 2], lambda _: preprocessing.affine),
    "squeeze": ([4, 2, 3], lambda _: Squeeze),
    "unsqueeze": ([2, 1, 8], lambda _: lambda: tfb.Invert(Squeeze())),
    "checkerboard_0": ([4, 3, 1], lambda r: _coupling(checkerboard_mask(4, 3, 1, 0), "batch", r)),
    "checkerboard_1": ([3, 4, 2], lambda r: _coupling(checkerboard_mask(3, 4, 2, 1), "none", r)),
    "channel_0": ([2, 3, 4], lambda r: _coupling(channel_mask(2, 3, 4, 0), "batch", r)),
    "channel_1_odd": ([2, 2, 5], lambda r: _coupling(channel_mask(2, 2, 5, 1), "none", r)),
    "channel_normalization": ([3, 2, 4], lambda _: lambda: _normalization(4)),
    "channel_affine": ([3, 2, 4], lambda _: lambda: _affine(4)),
    "factor_out": ([2, 3, 6], lambda _: lambda: FactorOut(_affine(3))),
    "factor_out_chain": ([2, 2, 4], lambda _: lambda: FactorOut(tfb.Chain([_affine(2), _normalization(2)]))),
    "autoregressive": ([2, 3, 3], lambda r: _autoregressive([2, 3, 3], r, 7)),
    "autoregressive_narrow": ([2, 2, 4], lambda r: _autoregressive([2, 2, 4], r, 2)),
}
for norm, scales, channels, side, couplings in [
    ("none", 1, 1, 4, 3),
    ("act", 1, 3, 3, 3),
    ("batch", 1, 2, 4, 3),
    ("batch", 2, 1, 4, 2),
    ("act", 2, 3, 2, 2),
    ("batch", 3, 1, 4, 2),
    ("none", 3, 2, 4, 1),
    ("batch", 4, 1, 8, 1),
]:
    CASES[f"real_nvp_{norm}_{scales}_{channels}"] = (
        [side, side, channels],
        partial(_real_nvp, (side, side, channels), norm=norm, num_scales=scales, num_couplings=couplings),
    )
for name, shape in [("squeezed", (4, 8, 1)), ("squeezed_then_odd", (6, 2, 2))]:  # The latter's second scale is 3x1.
    options = dict(norm="batch", num_scales=2, num_couplings=2, squeezed_checkerboards=True)
    CASES[f"real_nvp_{name}"] = (list(shape), partial(_real_nvp, shape, **options))


@pytest.fixture(scope="module", params=list(CASES))
def case(request, randomize):
    """A function that builds the bijector anew (it keeps tensors), and arguments float32 [3, H, W, C] for it."""
    shape, factory = CASES[request.param]
    uniform = np.random.default_rng(1).uniform(0.02, 0.98, [3, *shape])
    is_logit = request.param.startswith("logit")
    return factory(randomize), tf.constant(uniform if is_logit else 4.0 * uniform - 2.0, tf.float32)


def _log_det(bijector, x):
    log_det = bijector.forward_log_det_jacobian(x, event_ndims=3)
    return np.broadcast_to(log_det, x.shape[:-3])  # A constant Jacobian may come without a batch.


def test_inverse_and_both_log_dets(case):
    make, x = case
    bijector = make()
    y = bijector.forward(x)
    log_det = _log_det(bijector, x)
    # A new tensor: no cache knows it.
    other = make()
    y = y + 0.0
    np.testing.assert_allclose(other.inverse(y), x, atol=2e-5)
    inverse = np.broadcast_to(other.inverse_log_det_jacobian(y, event_ndims=3), [3])
    np.testing.assert_allclose(inverse, -log_det, rtol=2e-6, atol=2e-5)


def test_log_det_is_that_of_the_jacobian(case, jacobians):
    make, x = case
    expected = np.linalg.slogdet(jacobians(make().forward, x))[1]
    np.testing.assert_allclose(_log_det(make(), x), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("batch_shape", [[], [2, 3]])
def test_batch_shapes(case, batch_shape):
    make, x = case
    rows = np.resize(np.arange(3), batch_shape)
    images = tf.gather(x, rows)
    y = make().forward(images)
    assert y.shape[:-3] == batch_shape
    np.testing.assert_allclose(y, tf.gather(make().forward(x), rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_log_det(make(), images), _log_det(make(), x)[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(make().inverse(y + 0.0), images, atol=2e-5)


def test_event_shapes_are_declared(case):
    make, x = case
    y = make().forward(x)
    assert make().forward_event_shape(x.shape[1:]) == y.shape[1:]
    assert make().inverse_event_shape(y.shape[1:]) == x.shape[1:]
    np.testing.assert_array_equal(make().forward_event_shape_tensor(x.shape[1:]), y.shape[1:])


def test_value_and_log_det_share_one_run_of_the_network():
    runs = []

    def conditioner(x):
        runs.append(x)
        return 0.1 * x, x

    x = tf.random.stateless_normal([2, 4, 4, 1], [0, 1])
    bijector = AffineCoupling(conditioner, channel_mask(4, 4, 1, 1))
    bijector.forward(x), bijector.forward_log_det_jacobian(x, event_ndims=3)
    assert len(runs) == 1


def test_squeeze_keeps_neighbours_together():
    x = np.arange(32.0, dtype=np.float32).reshape(1, 4, 4, 2)
    y = Squeeze().forward(x).numpy()
    for i, j, di, dj, c in np.ndindex(2, 2, 2, 2, 2):
        assert y[0, i, j, (2 * di + dj) * 2 + c] == x[0, 2 * i + di, 2 * j + dj, c]


def test_masks():
    even = checkerboard_mask(3, 4, 2, 0)
    odd = checkerboard_mask(3, 4, 2, 1)
    np.testing.assert_array_equal(even + odd, 1.0)
    np.testing.assert_array_equal(even[:, :, 0], [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_array_equal(channel_mask(1, 1, 4, 0)[0, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(channel_mask(1, 1, 4, 1)[0, 0], [0, 0, 1, 1])


@pytest.mark.parametrize("parity", [0, 1])
def test_a_squeezed_checkerboard_has_the_same_pixels(parity):
    mask = checkerboard_mask(6, 4, 3, parity)
    np.testing.assert_array_equal(squeezed_checkerboard_mask(3, 2, 12, parity), Squeeze().forward(mask[None])[0])


@pytest.mark.parametrize("parity", [0, 1])
def test_coupling_passes_the_pixels_of_the_mask(parity, randomize):
    mask = checkerboard_mask(4, 4, 1, parity)
    x = tf.random.stateless_normal([2, 4, 4, 1], [0, 1])
    y = _coupling(mask, "none", randomize)().forward(x)
    np.testing.assert_array_equal(y * mask, x * mask)
    assert np.all(np.abs((y - x).numpy()[:, mask == 0]) > 1e-4)


@pytest.mark.parametrize("bad", [np.ones([2, 2, 1], bool), np.full([2, 2, 1], 0.5, np.float32)])
def test_coupling_rejects_a_mask_that_is_none(bad):
    with pytest.raises(ValueError, match=r"bool|0\.5"):
        AffineCoupling(lambda x: (x, x), bad)


@pytest.mark.parametrize("a", [0.0, 0.5, -0.1])
def test_logit_rejects_a(a):
    with pytest.raises(ValueError, match=str(a)):
        preprocessing.logit(a)


def test_squeeze_rejects_odd_sides():
    with pytest.raises(ValueError, match="3x4"):
        Squeeze().forward(tf.zeros([1, 3, 4, 1]))


def test_logit_against_numpy():
    v = np.random.default_rng(0).uniform(size=[5, 2, 2, 1])
    s = 0.05 + 0.9 * v
    y = preprocessing.logit().forward(tf.constant(v, tf.float32))
    np.testing.assert_allclose(y, np.log(s / (1.0 - s)), atol=2e-6)
    ends = preprocessing.logit().forward(tf.constant([0.0, 1.0]))
    np.testing.assert_allclose(ends, [np.log(0.05 / 0.95), np.log(0.95 / 0.05)], rtol=1e-6)
