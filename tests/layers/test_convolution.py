"""Mixed precision: what is rounded, what is not, and that it belongs to a layer."""

import gin
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import correlate

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.layers.convolution import Conv2D, ConvolutionPrecision
from tf_pivae.layers.convolution_ops import add_bias
from tf_pivae.layers.masked import AutoregressiveNetwork, MaskedConv2D, autoregressive_mask
from tf_pivae.layers.moments import BatchNorm
from tf_pivae.layers.spectral_norm import SpectralNormConv2D
from tf_pivae.layers.weight_norm import WeightNormConv2D, WeightNormConv2DTranspose
from tf_pivae.models.critic import plain_critic, residual_critic
from tf_pivae.noise import RowNoise
from tf_pivae.training.regularizers import GradientPenalty

MASK = autoregressive_mask(3, np.arange(3), np.arange(4), strict=False)
LAYERS = {
    "weight norm": lambda: WeightNormConv2D(4),
    "weight norm, by class": lambda: WeightNormConv2D(4, num_classes=2),
    "transposed": lambda: WeightNormConv2DTranspose(4),
    "masked": lambda: MaskedConv2D(4, MASK),
    "critic": lambda: Conv2D(4, 3),
    "critic, spectral norm": lambda: SpectralNormConv2D(4, 3),
}


@pytest.fixture
def bfloat16():
    with gin.unlock_config():
        gin.bind_parameter("ConvolutionPrecision.dtype", "bfloat16")
    yield
    gin.clear_config()


def _rounded(x):
    return tf.cast(tf.cast(x, tf.bfloat16), tf.float32).numpy().astype(np.float64)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_rounds_its_convolution_and_nothing_else(bfloat16, make, randomize):
    layer = make()
    x = tf.random.stateless_normal([2, 6, 6, 3], [1, 2])
    extra = {"labels": tf.constant([0, 1])} if getattr(layer, "num_classes", 0) else {}
    layer(x, **extra)
    randomize(layer)
    y = layer(x, **extra)
    assert y.dtype == tf.float32
    assert all(v.dtype == "float32" for v in layer.variables)
    layer.precision = ConvolutionPrecision("float32")
    exact = layer(x, **extra)
    error = np.sqrt(np.mean(np.square(y - exact)) / np.mean(np.square(exact)))
    assert 1e-4 < error < 1e-2  # Two factors and a sum, 2^-9 each at most.


def test_the_arguments_are_rounded_and_the_sum_is_once(bfloat16):
    """Against SciPy's correlation of the rounded arguments, in double precision."""
    layer = Conv2D(1, 3)
    x = tf.random.stateless_normal([1, 8, 8, 1], [1, 2])
    y = layer(x)[0, :, :, 0]
    sums = correlate(_rounded(x)[0, :, :, 0], _rounded(layer.kernel)[:, :, 0, 0], mode="same")
    np.testing.assert_allclose(y, sums, rtol=2.0**-8, atol=1e-6)
    assert np.mean(_rounded(sums.astype(np.float32)) == y) > 0.9  # float32's sum may fall on the other side of a step.


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_rounded_input_is_answered_in_its_own_type(bfloat16, make, randomize):
    """By a convolution of the same rounding; gains, biases and sums are rounded, too, 2^-9 of |y| + |b| each."""
    layer = make()
    x = tf.cast(tf.random.stateless_normal([2, 6, 6, 3], [1, 2]), tf.bfloat16)
    extra = {"labels": tf.constant([0, 1])} if getattr(layer, "num_classes", 0) else {}
    layer(x, **extra)
    randomize(layer)
    of_float32 = layer(tf.cast(x, tf.float32), **extra)
    y = layer(x, **extra)
    assert y.dtype == tf.bfloat16
    bias = np.max(np.abs(layer.bias if isinstance(layer, Conv2D) else layer.b))
    np.testing.assert_allclose(tf.cast(y, tf.float32), of_float32, rtol=2.0**-7, atol=2.0**-7 * bias)


def _types(function, shape, *kinds):
    """The types in which a graph computes operations of these kinds."""
    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
    return {op.outputs[0].dtype for op in graph.get_operations() if op.type in kinds}


@pytest.mark.parametrize(
    "make", [lambda: plain_critic(widths=(4, 8)), lambda: residual_critic(stem_width=4, widths=(4, 8))]
)
def test_a_critic_stays_rounded_up_to_its_features(bfloat16, make):
    critic = make()
    critic.build((8, 8, 3))
    assert _types(critic, [2, 8, 8, 3], "Conv2D", "Relu", "LeakyRelu", "BiasAdd", "AvgPool") == {tf.bfloat16}
    assert _types(critic, [2, 8, 8, 3], "MatMul") == {tf.float32}


@pytest.mark.parametrize(("training", "expected"), [(True, tf.bfloat16), (False, tf.float32)])
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_a_conditioner_stays_rounded_in_a_training_step_alone(bfloat16, way, training, expected):
    head = RealNVP((8, 8, 2), num_blocks=1, width=8)
    head.bijector().forward(tf.zeros([1, 8, 8, 2]))
    function = getattr(head.bijector(training=training), way)
    assert _types(function, [2, 8, 8, 2], "Conv2D", "Relu", "BiasAdd") == {expected}
    assert _types(function, [2, 8, 8, 2], "Tanh", "Exp") == {tf.float32}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("channels", [5, 8])
def test_batch_normalisation_of_rounded_activations(channels, training):
    """With float32's moments, by either way of computing it."""
    x = tf.cast(tf.random.stateless_normal([4, 6, 6, channels], [1, 2]) + 3.0, tf.bfloat16)
    norms = [BatchNorm() for _ in range(2)]
    rounded = norms[0](x, training=training)
    exact = norms[1](tf.cast(x, tf.float32), training=training)
    assert rounded.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(rounded, tf.float32), exact, rtol=2.0**-8, atol=1e-5)
    for a, b in zip(norms[0].variables, norms[1].variables, strict=True):
        assert a.dtype == "float32"
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_bias_has_the_gradient_of_float32():
    """TensorFlow's own gradient of a bias in bfloat16 stops growing: the sum of many rows is a power of two."""
    x = tf.zeros([64, 28, 28, 16], tf.bfloat16)
    upstream = tf.cast(tf.random.stateless_normal(x.shape, [1, 2]) + 0.1, tf.bfloat16)
    bias = tf.zeros([16])
    with tf.GradientTape() as tape:
        tape.watch(bias)
        y = add_bias(x, bias)
    gradient = tape.gradient(y, bias, output_gradients=upstream)
    assert (y.dtype, gradient.dtype) == (tf.bfloat16, tf.float32)
    np.testing.assert_allclose(gradient, tf.reduce_sum(tf.cast(upstream, tf.float64), [0, 1, 2]), rtol=1e-5)


def test_layers_of_different_precision_live_side_by_side(bfloat16):
    rounded = WeightNormConv2D(2)
    gin.clear_config()
    exact = WeightNormConv2D(2)
    assert (rounded.precision.dtype, exact.precision.dtype) == ("bfloat16", "float32")
    x = tf.random.stateless_normal([1, 4, 4, 2], [1, 2])
    for layer in (rounded, exact):
        layer(x)
        layer.v.assign(tf.ones_like(layer.v))
    assert np.any(rounded(x) != exact(x))


def test_other_types_are_refused():
    with pytest.raises(
        ValueError, match=r"dtype = 'float16' is not possible: it takes 'float32' or 'bfloat16' or 'auto'"
    ):
        ConvolutionPrecision("float16")


def _rounding_and_exact_head(x, randomize):
    """Two heads of one function, the first of mixed precision."""
    heads = [RealNVP(x.shape[1:], num_blocks=1, width=8)]
    gin.clear_config()
    heads.append(RealNVP(x.shape[1:], num_blocks=1, width=8))
    for head in heads:
        head.bijector().forward(x)
    randomize(heads[0])
    for a, b in zip(heads[0].variables, heads[1].variables, strict=True):
        b.assign(a)
    return heads


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_in_a_training_step_the_head_rounds(bfloat16, randomize, way):
    """Both ways, by bfloat16's error; the inverse is by the running averages, as outside of training steps."""
    x = tf.random.stateless_normal([4, 8, 8, 2], [1, 2])
    heads = _rounding_and_exact_head(x, randomize)
    rounded, exact = (getattr(head.bijector(training=True), way)(x) for head in heads)
    error = np.sqrt(np.mean(np.square(rounded - exact)) / np.mean(np.square(exact)))
    assert 1e-5 < error < 1e-2
    if way == "inverse":
        np.testing.assert_array_equal(exact, heads[0].bijector().inverse(x))


def test_the_head_is_float32(bfloat16, randomize):
    """Its log-dets and its inverse are bitwise those of a float32 model."""
    x = tf.random.stateless_normal([4, 8, 8, 2], [1, 2])
    heads = _rounding_and_exact_head(x, randomize)
    y = heads[0].bijector().forward(x)
    log_det = heads[0].bijector().forward_log_det_jacobian(x, event_ndims=3)
    np.testing.assert_array_equal(heads[0].bijector().inverse(y), heads[1].bijector().inverse(y))
    np.testing.assert_array_equal(log_det, heads[1].bijector().forward_log_det_jacobian(x, event_ndims=3))


def test_the_autoregressive_network_stays_autoregressive(bfloat16, randomize):
    """Bitwise: what an element does not depend on in float32 it does not in bfloat16, so the IAF's log-det is exact."""
    network = AutoregressiveNetwork(2, 6)
    z, context = (tf.random.stateless_normal([1, 3, 3, c], [1, c]) for c in (2, 6))
    network(z, context)
    randomize(network)
    assert network.output_layer.precision.dtype == "bfloat16"
    before = [np.reshape(x, -1) for x in network(z, context)]
    for i in range(18):
        moved = tf.reshape(tf.tensor_scatter_nd_add(tf.reshape(z, [-1]), [[i]], [1.0]), z.shape)
        for old, new in zip(before, network(moved, context), strict=True):
            np.testing.assert_array_equal(old[: i + 1], np.reshape(new, -1)[: i + 1])
    assert np.any(before[0] != np.reshape(network(moved * 2.0, context)[0], -1))


def test_gradient_penalty_differentiates_twice(bfloat16):
    """The penalty's gradient is that of float32 up to bfloat16's error; norm, logits and gradients are float32."""
    critics = [residual_critic(stem_width=4, widths=(4, 8))]
    gin.clear_config()
    critics.append(residual_critic(stem_width=4, widths=(4, 8)))
    for critic in critics:
        critic.build((8, 8, 3))
    for a, b in zip(critics[0].variables, critics[1].variables, strict=True):
        b.assign(a)
    real, fake = (tf.random.stateless_normal([4, 8, 8, 3], [i, 2]) for i in range(2))
    results = []
    for critic in critics:
        with tf.GradientTape() as tape:
            penalty = GradientPenalty(1.0)(critic, real, fake, RowNoise(0, 4))
        gradients = tape.gradient(penalty, [v for v in critic.trainable_variables if v.path.endswith("kernel")])
        assert {x.dtype for x in (penalty, critic(real), *gradients)} == {tf.float32}
        results.append(np.concatenate([np.reshape(g, -1) for g in gradients]))
    rounded, exact = results
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 5e-2
