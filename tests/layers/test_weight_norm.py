"""Weight normalisation: the norm of the kernel that acts, the first batch, and the classes."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.layers.analytic_gradients import analytic_gradients
from tf_pivae.layers.weight_norm import (
    NearestConv2D,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
    data_dependent_initialization,
    fixed_kernels,
    normalized,
    with_analytic_gradient,
)

FILTERS = 4


def _layers(**options):
    return {
        "dense": (WeightNormDense(FILTERS, **options), [7]),
        "conv": (WeightNormConv2D(FILTERS, **options), [6, 6, 3]),
        "conv_1x1": (WeightNormConv2D(FILTERS, kernel_size=1, **options), [6, 6, 3]),
        "conv_strided": (WeightNormConv2D(FILTERS, kernel_size=4, strides=2, **options), [8, 8, 3]),
        "transposed": (WeightNormConv2DTranspose(FILTERS, **options), [5, 5, 3]),
    }


NAMES = list(_layers())


def _built(name, **options):
    layer, shape = _layers(**options)[name]
    layer(tf.zeros([1, *shape]), **({"labels": tf.zeros([1], tf.int64)} if options.get("num_classes") else {}))
    return layer, shape


def _randomized(name, num_classes, randomize):
    """A layer away from its initial weights, two rows of input, and their labels as a keyword if it wants them."""
    layer, shape = _built(name, num_classes=num_classes)
    return randomize(layer), _noise([2, *shape]), dict(labels=tf.constant([2, 0])) if num_classes else {}


def _noise(shape, seed=0, scale=1.0, mean=0.0):
    return tf.constant(np.random.default_rng(seed).normal(mean, scale, shape), tf.float32)


def _impulses(shape, strides):
    """One impulse an input channel at the centre, at every phase of the stride: together they see each weight once."""
    if len(shape) == 1:
        return np.eye(shape[0], dtype=np.float32)
    images = [np.zeros(shape, np.float32) for _ in range(shape[-1] * strides**2)]
    for image, (di, dj, c) in zip(images, np.ndindex(strides, strides, shape[-1]), strict=True):
        image[shape[0] // 2 + di, shape[1] // 2 + dj, c] = 1.0
    return np.stack(images)


@pytest.mark.parametrize("name", NAMES)
def test_kernel_that_acts_has_the_gains_norm(name, randomize):
    layer, shape = _built(name)
    randomize(layer, scale=0.7)
    strides = layer.strides if name == "conv_strided" else 1
    x = _impulses(shape, strides)
    response = (layer(x) - layer(tf.zeros_like(x))).numpy().reshape(-1, FILTERS)
    np.testing.assert_allclose(np.sqrt(np.square(response).sum(0)), np.abs(layer.g), rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_first_batch_comes_out_standardised(name, num_classes):
    init_scale = np.array([1.0, 0.1, 2.0, 0.0], np.float32)
    layer, shape = _built(name, init_scale=init_scale, num_classes=num_classes)
    x = _noise([64, *shape], scale=3.0, mean=1.5)
    labels = {"labels": tf.range(64) % 3} if num_classes else {}
    with data_dependent_initialization():
        first = layer(x, **labels).numpy().reshape(-1, FILTERS)
    again = layer(x, **labels).numpy().reshape(-1, FILTERS)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.mean(0), 0.0, atol=5e-6)
    np.testing.assert_allclose(first.std(0), init_scale, rtol=1e-5)
    np.testing.assert_array_equal(first[:, 3], 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_scale_zero_starts_at_zero_and_can_leave_it(name):
    layer, shape = _built(name, init_scale=0.0)
    x = _noise([8, *shape])
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(y * _noise(y.shape, 1))
    gradient_v, gradient_g = tape.gradient(loss, [layer.v.value, layer.g.value])
    np.testing.assert_array_equal(y, 0.0)
    np.testing.assert_array_equal(gradient_v, 0.0)
    assert np.all(np.abs(gradient_g) > 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_channel_that_does_not_vary_gets_a_bounded_gain(name):
    layer, shape = _built(name)
    with data_dependent_initialization():
        layer(tf.zeros([4, *shape]))
    np.testing.assert_allclose(layer.g, 100.0, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_layers_of_their_own(name, randomize):
    conditional, shape = _built(name, num_classes=3)
    randomize(conditional)
    x = _noise([6, *shape])
    labels = np.array([2, 0, 1, 1, 2, 0])
    together = conditional(x, labels=labels).numpy()
    for label in range(3):
        layer, _ = _built(name)
        layer.v.assign(conditional.v)
        layer.g.assign(conditional.g[label])
        layer.b.assign(conditional.b[label])
        of_label = labels == label
        np.testing.assert_allclose(together[of_label], layer(x[of_label]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_classes_need_labels(name):
    layer, shape = _built(name, num_classes=3)
    with pytest.raises(ValueError, match=layer.name):
        layer(tf.zeros([1, *shape]))


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_transposed_convolution_has_no_checkerboard(kernel_size):
    layer = WeightNormConv2DTranspose(1, kernel_size=kernel_size)
    layer(tf.zeros([1, 5, 5, 1]))
    layer.v.assign(tf.ones_like(layer.v))
    y = layer(tf.ones([1, 5, 5, 1])).numpy()[0, 2:-2, 2:-2, 0]
    assert y.shape == (6, 6)
    np.testing.assert_allclose(y, y[0, 0], rtol=1e-6)


def test_initialisation_ends_with_its_context():
    layer, shape = _built("conv")
    with pytest.raises(RuntimeError), data_dependent_initialization():
        raise RuntimeError
    before = layer.g.numpy()
    layer(_noise([4, *shape]))
    np.testing.assert_array_equal(layer.g, before)


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_chosen_channels_are_those_of_the_whole(name, num_classes, randomize):
    layer, x, labels = _randomized(name, num_classes, randomize)
    whole = layer(x, **labels).numpy()
    for ranges in ([(0, 1)], [(1, 4)], [(0, 1), (2, 4)]):
        expected = np.concatenate([whole[..., start:stop] for start, stop in ranges], -1)
        chosen = layer(x, channels=ranges, **labels)
        assert chosen.shape[-1] == expected.shape[-1]
        np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_affine_map_becomes_part_of_the_kernel(name, randomize):
    layer, shape = _built(name)
    randomize(layer)
    x = _noise([2, *shape])
    scale = tf.constant([0.5, -2.0, 1.0, 3.0])
    offset = tf.constant([1.0, 0.0, -0.3, 2.0])
    np.testing.assert_allclose(
        layer(x, affine=lambda: (scale, offset)), layer(x) * scale + offset, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_kept_kernels_give_the_same_and_leave_no_norm_in_the_graph(name, num_classes, randomize):
    layer, x, labels = _randomized(name, num_classes, randomize)

    def affine():
        return tf.constant([0.5, -2.0, 1.0, 3.0]), tf.constant([1.0, 0.0, -0.3, 2.0])

    uses = [{}, {"channels": [(0, 1), (2, 4)]}, *([] if num_classes else [{"affine": affine}])]
    expected = [layer(x, **labels, **use) for use in uses]
    with fixed_kernels() as kernels:
        functions = [tf.function(lambda x, use=use: layer(x, **labels, **use)).get_concrete_function(x) for use in uses]
    assert len(kernels) == (1 if num_classes else 2)  # The chosen channels are taken from the whole.
    for function, value in zip(functions, expected, strict=True):
        np.testing.assert_allclose(function(x), value, rtol=1e-6, atol=1e-6)
        assert not {"Square", "Sqrt"} & {op.type for op in function.graph.get_operations()}
    layer.v.assign_add(_noise(layer.v.shape))
    assert np.abs(layer(x, **labels) - expected[0]).max() > 0.1
    np.testing.assert_allclose(functions[0](x), expected[0], rtol=1e-6, atol=1e-6)


SHAPES = [((7, 4), 1), ((3, 3, 5, 4), 3), ((4, 4, 4, 5), 2), ((3, 3, 128, 128), 3), ((4, 4, 96, 96), 2)]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_the_analytic_gradient_is_the_derived_one(shape, axis, graph):
    """So is its derivative, in double precision."""
    v, upstream, other = (tf.random.stateless_normal(shape, [i, 0], dtype=tf.float64) for i in range(3))
    gain = tf.random.stateless_normal([shape[axis]], [3, 0], dtype=tf.float64)

    def to_second_order(compute):
        with tf.GradientTape() as outer:
            outer.watch([v, gain])
            with tf.GradientTape() as tape:
                tape.watch([v, gain])
                kernel = compute(v, gain, axis)
            first = tape.gradient(kernel, [v, gain], output_gradients=upstream)
            slope = tf.reduce_sum(first[0] * other) + tf.reduce_sum(tf.square(first[1]))
        return [kernel, *first, *outer.gradient(slope, [v, gain])]

    def both():
        return to_second_order(with_analytic_gradient), to_second_order(normalized)

    for own, derived in zip(*(tf.function(both, autograph=False) if graph else both)(), strict=True):
        np.testing.assert_allclose(own, derived, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_layers_have_it_in_training_steps(name, num_classes, randomize):
    layer, x, labels = _randomized(name, num_classes, randomize)
    spec = tf.TensorSpec(x.shape)

    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(layer(x, **labels, channels=[(0, 1), (2, 4)])))
        return tape.gradient(loss, layer.trainable_variables)

    def in_a_training_step(x):
        with analytic_gradients(products=False):
            return gradients(x)

    results = []
    for function, derived in ((in_a_training_step, False), (gradients, True)):
        traced = tf.function(function, autograph=False).get_concrete_function(spec)
        assert ("RsqrtGrad" in {op.type for op in traced.graph.get_operations()}) == derived
        results.append([tf.convert_to_tensor(gradient) for gradient in traced(x)])
    for own, derived in zip(*results, strict=True):
        np.testing.assert_allclose(own, derived, rtol=2e-5, atol=2e-6)


def test_nearest_neighbours_and_a_convolution_step_by_step(randomize):
    """The one deconvolution against what it stands for: pixels repeated, then a convolution by the 3x3 kernel."""
    layer = NearestConv2D(FILTERS)
    x = _noise([2, 5, 4, 3])
    layer(x)
    randomize(layer, scale=0.7)
    v = np.asarray(layer.v, np.float64)
    kernel = v / np.sqrt(np.square(v).sum((0, 1, 3), keepdims=True)) * np.asarray(layer.g)[:, None]
    kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)  # A deconvolution's kernel is turned round: [k, k, I, O].
    repeated = np.pad(np.repeat(np.repeat(x, 2, 1), 2, 2), [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(repeated, (3, 3), (1, 2))  # [B, 2 H, 2 W, I, 3, 3]
    expected = np.einsum("bhwikl,klio->bhwo", windows, kernel) + np.asarray(layer.b)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert layer(x).shape == [2, 10, 8, FILTERS]
