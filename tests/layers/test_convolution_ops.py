"""Gradients of kernels as matrix products, beside TensorFlow's own."""

import gin
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from tf_pivae.layers import convolution_ops
from tf_pivae.layers.analytic_gradients import analytic_gradients
from tf_pivae.layers.convolution_ops import Convolution, kernel_gradient
from tf_pivae.layers.spectral_norm import SpectralNormConv2D
from tf_pivae.layers.weight_norm import NearestConv2D, WeightNormConv2D, WeightNormConv2DTranspose
from tf_pivae.models.critic import residual_critic
from tf_pivae.training.trainer import Trainer


@pytest.fixture
def every_kernel_is_large(monkeypatch):
    monkeypatch.setattr(convolution_ops, "_LARGE", 1)
    monkeypatch.setattr(convolution_ops, "_A_PIXEL", 0)


def _normal(shape, seed, dtype=tf.float32):
    return tf.random.stateless_normal(shape, [seed, 0], dtype=dtype)


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (4, 9), (1, 2)])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_products_are_the_gradient_of_the_kernel(sides, strides, size):
    x = _normal([3, *sides, 2], 1, tf.float64)
    upstream = _normal([3, *(-(-side // strides) for side in sides), 5], 2, tf.float64)
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[size, size, 2, 5],
        out_backprop=upstream,
        strides=[1, strides, strides, 1],
        padding="SAME",
    )
    np.testing.assert_allclose(kernel_gradient(x, upstream, size, strides), expected, rtol=1e-12, atol=1e-12)


def _to_second_order(map_of_x, x, variables, wanted):
    """The map, its gradients, and those of the squared gradient of its input, as the critic's penalty takes them."""
    with analytic_gradients(products=wanted), tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = map_of_x(x)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        slope = tape.gradient(loss, x)
        penalty = tf.reduce_sum(tf.square(slope))
    of_penalty = outer.gradient(penalty, [x, *variables], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [y, slope, *outer.gradient(loss, variables), *of_penalty]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
def test_first_and_second_derivatives(every_kernel_is_large, transposed, strides, with_bias, graph):
    convolution = Convolution(strides, (6, 4), transposed)
    x = _normal([2, 6 // strides, 4 // strides, 5] if transposed else [2, 6, 4, 3], 1)
    kernel = tf.Variable(_normal([4, 4, 3, 5], 2))
    bias = [tf.Variable(_normal([3 if transposed else 5], 3))] if with_bias else []

    def map_of_x(x):
        return convolution(x, tf.convert_to_tensor(kernel), *(tf.convert_to_tensor(b) for b in bias))

    def both():
        return [_to_second_order(map_of_x, x, [kernel, *bias], wanted) for wanted in (True, False)]

    by_products, plain = (tf.function(both, autograph=False) if graph else both)()
    np.testing.assert_array_equal(by_products[0], plain[0])
    for a, b in zip(by_products, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(tf.reduce_max(tf.abs(b))))


@pytest.mark.parametrize("make", [WeightNormConv2D, WeightNormConv2DTranspose, NearestConv2D, SpectralNormConv2D])
def test_layers(every_kernel_is_large, make, randomize):
    layer = make(4) if make in (WeightNormConv2DTranspose, NearestConv2D) else make(4, 3)
    x = _normal([2, 6, 6, 3], 1)
    layer(x)
    randomize(layer)
    by_products, plain = (_to_second_order(layer, x, layer.trainable_variables, wanted) for wanted in (True, False))
    for a, b in zip(by_products, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(tf.reduce_max(tf.abs(b))))


def test_bfloat16_is_as_exact_as_tensorflows(every_kernel_is_large):
    x, upstream = (tf.cast(_normal([8, 6, 6, c], c), tf.bfloat16) for c in (16, 24))
    exact = kernel_gradient(*(tf.cast(t, tf.float64) for t in (x, upstream)), 3, 1)
    own = kernel_gradient(x, upstream, 3, 1)
    assert own.dtype == tf.bfloat16
    largest = float(tf.reduce_max(tf.abs(exact)))
    np.testing.assert_allclose(tf.cast(own, tf.float64), exact, rtol=2.0**-8, atol=1e-6 * largest)  # One rounding.


def _operations(function, *specs):
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    return graph.get_operations()


def test_the_bias_stays_right_behind_the_convolution(every_kernel_is_large):
    """Where oneDNN makes it a part of the convolution."""

    def function(x):
        with analytic_gradients(products=True):
            return Convolution(1, (6, 6))(x, tf.ones([3, 3, 3, 4]), tf.ones([4]))

    (biased,) = (op for op in _operations(function, tf.TensorSpec([2, 6, 6, 3])) if op.type == "BiasAdd")
    assert biased.inputs[0].op.type == "Conv2D"


@pytest.mark.parametrize(
    ("rows", "filters", "wanted", "products"),
    [(2, 512, True, True), (2, 512, False, False), (2, 256, True, False), (1024, 512, True, False)],
    ids=["large", "not in a training step", "small", "many pixels"],
)
def test_products_where_they_gain(rows, filters, wanted, products):
    def gradient(x, kernel):
        with analytic_gradients(products=wanted), tf.GradientTape() as tape:
            tape.watch(kernel)
            y = Convolution(1, (4, 4))(x, kernel)
        return tape.gradient(y, kernel)

    specs = [tf.TensorSpec([rows, 4, 4, 32]), tf.TensorSpec([3, 3, 32, filters])]
    types = {op.type for op in _operations(gradient, *specs)}
    assert ("MatMul" in types, "Conv2DBackpropFilter" in types) == (products, not products)


def _trainer(images):
    keras.utils.set_random_seed(0)
    trainer = Trainer(small_models.model(), residual_critic(stem_width=4, widths=(4, 8)), adversarial_weight=3.0)
    trainer.initialize(images)
    return trainer


IMAGES = np.random.default_rng(0).integers(0, 256, [4, *small_models.SHAPE]).astype(np.uint8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_a_training_step_takes_them(every_kernel_is_large, dtype, tolerance, monkeypatch):
    """Its losses are those of TensorFlow's gradients, and so are the next step's, after the weights have moved.

    To rounding, by way of Adamax, whose first update is the gradient over its own magnitude.
    """
    losses = []
    for large in (1, 2**60):
        monkeypatch.setattr(convolution_ops, "_LARGE", large)
        with gin.unlock_config():
            gin.bind_parameter("ConvolutionPrecision.dtype", dtype)
        trainer = _trainer(IMAGES)
        gin.clear_config()
        step = tf.function(trainer.train_step, autograph=False)
        types = {op.type for op in step.get_concrete_function(tf.constant(IMAGES)).graph.get_operations()}
        assert ("Conv2DBackpropFilter" in types) == (large > 1)
        losses.append([float(value) for _ in range(2) for value in step(tf.constant(IMAGES)).values()])
    np.testing.assert_allclose(*losses, rtol=tolerance, atol=tolerance)


def test_xla_keeps_its_own(every_kernel_is_large):
    trainer = _trainer(IMAGES)
    trainer.jit_compile = True
    graph = tf.function(trainer.train_step, autograph=False).get_concrete_function(tf.constant(IMAGES)).graph
    assert "Conv2DBackpropFilter" in {op.type for op in graph.get_operations()}
