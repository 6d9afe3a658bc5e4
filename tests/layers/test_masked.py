"""The network of the inverse autoregressive flow is autoregressive, in raster order, then channel."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.layers.masked import AutoregressiveNetwork


def _network(randomize, shape, width, **options):
    network = AutoregressiveNetwork(shape[-1], width, **options)
    context = tf.random.stateless_normal([1, *shape[:2], width], [0, 1])
    network(tf.zeros([1, *shape]), context)
    return randomize(network), context


@pytest.mark.parametrize(
    ("channels", "width", "num_layers"),
    [(1, 4, 2), (2, 2, 1), (3, 5, 2), (3, 8, 3), (4, 2, 2), (5, 3, 1), (4, 6, 2)],
)
def test_jacobian_is_strictly_triangular(channels, width, num_layers, randomize, jacobians):
    shape = (3, 4, channels)
    network, context = _network(randomize, shape, width, num_layers=num_layers)
    z = tf.random.stateless_normal([1, *shape], [1, 2])
    for output in range(2):
        jacobian = jacobians(lambda z, output=output: network(z, context)[output], z)[0]
        np.testing.assert_array_equal(np.triu(jacobian), 0.0)
        # Neither is it empty: every pixel but the first depends on the one before it.
        blocks = np.abs(jacobian).reshape(12, channels, 12, channels).max((1, 3))
        assert np.all(blocks[np.arange(1, 12), np.arange(11)][[i % 4 != 3 for i in range(11)]] > 1e-7)
        if 1 < channels <= width:
            within = jacobian.reshape(12, channels, 12, channels)[np.arange(12), :, np.arange(12), :]
            assert np.all(np.abs(within[:, np.arange(1, channels), np.arange(channels - 1)]) > 1e-7)


def test_every_output_sees_the_context(randomize, jacobians):
    network, context = _network(randomize, (2, 2, 2), 4)
    z = tf.random.stateless_normal([1, 2, 2, 2], [1, 2])

    def outputs(context):
        return tf.concat(network(tf.repeat(z, context.shape[0], 0), context), -1)

    jacobian = np.abs(jacobians(outputs, context, outputs=16)[0]).reshape(4, 2, 2, 16)
    assert np.all(jacobian[1:].max(-1) > 1e-6)
    assert np.all(jacobian[0, :, 1:].max(-1) > 1e-6)


def test_kernel_norm_is_over_what_the_mask_leaves(randomize):
    network, _ = _network(randomize, (3, 3, 3), 6)
    for layer in [*network.hidden_layers, network.output_layer]:
        v = layer.v.numpy()
        impulses = np.zeros([v.shape[2], 5, 5, v.shape[2]], np.float32)
        impulses[np.arange(v.shape[2]), 2, 2, np.arange(v.shape[2])] = 1.0
        response = (layer(impulses) - layer(np.zeros_like(impulses))).numpy()
        norm = np.sqrt(np.square(response).sum((0, 1, 2)))
        np.testing.assert_allclose(norm, np.abs(layer.g), rtol=1e-5)
        # Nothing reaches the pixels before the impulse.
        np.testing.assert_array_equal(response[:, :2], 0.0)
        np.testing.assert_array_equal(response[:, 2, :2], 0.0)
