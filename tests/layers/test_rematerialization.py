"""Rematerialised layers: the same values, gradients and updates; less memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.describe.graph_cost import executed, flops, peak_bytes
from tf_pivae.layers.rematerialization import keep, rematerialized
from tf_pivae.layers.weight_norm import WeightNormDense, data_dependent_initialization
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import IAFPosterior
from tf_pivae.noise import RowNoise

SHAPE = (8, 8, 2)


def _flow(call_block, randomize):
    flow = RealNVP(SHAPE, num_couplings=2, num_blocks=1, width=4, call_block=call_block)
    flow.bijector().forward(tf.zeros([1, *SHAPE]))
    return randomize(flow)


def _through_the_flow(flow, x):
    bijector = flow.bijector(training=True)
    return bijector.forward(x), bijector.forward_log_det_jacobian(x, event_ndims=3)


def _vae(make, call_block, randomize, **options):
    vae = make(SHAPE, widths=(4, 6), top_channels=3, latent_channels=2, call_block=call_block, **options)
    vae.bound(tf.zeros([1, *SHAPE]), RowNoise(0, 1), tf.zeros([1], tf.int64))
    return randomize(vae, scale=0.1)


def _through_the_vae(vae, x, labels):
    bound = vae.bound(x, RowNoise(0, x.shape[0]), labels)
    return bound.reconstruction, *bound.kl, vae.sample_mean(RowNoise(1, x.shape[0]), labels=labels)


CASES = {
    "flow": lambda call, randomize: (layer := _flow(call, randomize), lambda x: _through_the_flow(layer, x)),
    "plain, by class": lambda call, randomize: (
        layer := _vae(plain_vae, call, randomize, num_classes=3),
        lambda x: _through_the_vae(layer, x, tf.constant([2, 0, 2])),
    ),
    "residual, IAF": lambda call, randomize: (
        layer := _vae(residual_vae, call, randomize, posterior=IAFPosterior),
        lambda x: _through_the_vae(layer, x, None),
    ),
}


def _loss(outputs):
    """Weights every output's elements differently."""
    return tf.add_n([tf.reduce_sum(tf.sin(x) * np.cos(np.arange(x.numpy().size)).reshape(x.shape)) for x in outputs])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_gradients_and_updates_are_those_of_keep(randomize, case):
    x = tf.random.stateless_normal([3, *SHAPE], [1, 2])
    results = []
    for call in (keep, rematerialized):
        keras.utils.set_random_seed(0)
        layer, function = case(call, randomize)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
            loss = _loss(outputs)
        gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        assert sum(g is not None for g in gradients) > 0.7 * len(gradients)
        results.append((outputs, [g if g is None else tf.convert_to_tensor(g) for g in gradients], layer))
    (outputs, gradients, layer), (again, same, other) = results
    for a, b in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(a, b)
    scale = max(np.abs(g).max() for g in gradients if g is not None)
    for a, b in zip(gradients, same, strict=True):
        if a is None:  # Rematerialisation does not know what nothing depends on.
            assert b is None or not np.any(b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale)
    for a, b in zip(layer.variables, other.variables, strict=True):  # Running averages moved, and once.
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_running_averages_move(randomize):
    """What the comparison above rests on."""
    flow = _flow(rematerialized, randomize)
    before = [np.array(v) for v in flow.non_trainable_variables]
    _through_the_flow(flow, tf.random.stateless_normal([3, *SHAPE], [1, 2]))
    assert any(np.any(a != b) for a, b in zip(before, flow.non_trainable_variables, strict=True))


def test_two_replicas_have_the_gradient_of_one(randomize, two_replicas):
    """Batch normalisation over both, in the second run as in the first; running averages that move once on each."""
    x = tf.random.stateless_normal([4, *SHAPE], [1, 2])

    def gradient(flow, x):
        with tf.GradientTape() as tape:
            y, log_det = _through_the_flow(flow, x)
            loss = tf.reduce_mean(tf.reduce_sum(tf.sin(y), [1, 2, 3]) - log_det)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, flow.trainable_variables)]

    keras.utils.set_random_seed(0)
    one = _flow(keep, randomize)
    expected = gradient(one, x)
    with two_replicas.scope():
        keras.utils.set_random_seed(0)
        both = _flow(rematerialized, randomize)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: x[2 * context.replica_id_in_sync_group :][:2]
    )
    step = tf.function(lambda x: two_replicas.run(gradient, args=(both, x)), autograph=False)
    actual = [two_replicas.experimental_local_results(g) for g in step(halves)]
    scale = max(np.abs(g).max() for g in expected)
    for g, parts in zip(expected, actual, strict=True):
        np.testing.assert_allclose(np.mean(parts, axis=0), g, rtol=1e-4, atol=1e-5 * scale)
    for a, b in zip(one.non_trainable_variables, both.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_data_dependent_initialization_is_that_of_keep():
    x = tf.random.stateless_normal([64, 5], [1, 2], mean=3.0)
    layers = [WeightNormDense(4, name="a"), WeightNormDense(4, name="b")]
    for layer, call in zip(layers, (keep, rematerialized), strict=True):
        call(layer, x)
        layer.v.assign(tf.random.stateless_normal([5, 4], [3, 4]))
        with data_dependent_initialization():
            call(layer, x)
    y = rematerialized(layers[1], x)
    np.testing.assert_array_equal(keep(layers[0], x), y)
    np.testing.assert_allclose(np.std(y, axis=0), 1.0, rtol=1e-3)


def test_second_derivatives():
    """d/dx (df/dx)^2 against the closed form: f = tanh(w x) has f'' = -2 w^2 f (1 - f^2)."""
    layer = WeightNormDense(1)
    layer(tf.zeros([1, 1]))
    weight = 0.7
    layer.g.assign([weight * np.sign(layer.v.numpy().item())])
    x = tf.constant([[0.3], [-1.2]])

    def run(x):
        return tf.tanh(rematerialized(layer, x))

    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = run(x)
        first = inner.gradient(y, x)
        penalty = tf.reduce_sum(tf.square(first))
    f = np.tanh(weight * x.numpy())
    slope = weight * (1 - f**2)
    curvature = -2 * weight**2 * f * (1 - f**2)
    np.testing.assert_allclose(first, slope, rtol=1e-5)
    np.testing.assert_allclose(outer.gradient(penalty, x), 2 * slope * curvature, rtol=1e-4)
    by_gain = np.sum(2 * slope * (1 - f**2 - 2 * weight * x.numpy() * f * (1 - f**2)))
    np.testing.assert_allclose(outer.gradient(penalty, layer.g), [by_gain * np.sign(layer.v.numpy().item())], rtol=1e-4)


def test_memory_falls_for_one_more_forward_pass(randomize):
    peaks = []
    arithmetic = []
    for call in (keep, rematerialized):
        flow = RealNVP(SHAPE, num_couplings=4, num_blocks=1, width=8, norm="none", call_block=call)
        flow.bijector().forward(tf.zeros([1, *SHAPE]))

        def step(x, flow=flow):
            with tf.GradientTape() as tape:
                loss = tf.add_n([tf.reduce_sum(tf.square(y)) for y in _through_the_flow(flow, x)])
            return tape.gradient(loss, flow.trainable_variables)

        graph = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec([32, *SHAPE])).graph
        peaks.append(peak_bytes(graph))
        arithmetic.append(flops(executed(graph)))
    assert peaks[1] < 0.5 * peaks[0]
    assert arithmetic[0] < arithmetic[1] < 1.5 * arithmetic[0]


def test_tensorflow_computes_again_and_not_from_what_it_has(randomize, graph_optimizer):
    """The graph's optimiser merges equal operations: those of the second run must not be equal to the first's."""
    flow = _flow(rematerialized, randomize)
    x = tf.random.stateless_normal([2, *SHAPE], [1, 2])

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(flow.bijector().forward(x)))
        return tape.gradient(loss, flow.trainable_variables)

    step.get_concrete_function(x)
    context.context().enable_graph_collection()
    try:
        step(x)
        (graphs,) = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    executed_kinds = [node.op for graph in graphs.partition_graphs for node in graph.node]
    forward = [kind for kind in executed_kinds if "Conv2D" in kind and "Backprop" not in kind]
    assert len(forward) == 2 * 2 * 4  # Twice every convolution of two conditioners.
