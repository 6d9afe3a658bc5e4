"""Rematerialisation: activations computed again for the gradient instead of being kept (Chen et al. 2016).

A network calls its blocks by a function (layer, *inputs, **others) -> outputs, which gin chooses: `keep` or
`rematerialized`.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_pivae.configurable import configurable
from tf_pivae.layers.weight_norm import initializing


def keep(layer: keras.layers.Layer, *inputs: Any, **others: Any) -> Any:
    """layer(*inputs, **others), its activations kept for the gradient."""
    return layer(*inputs, **others)


@configurable
def rematerialized(layer: keras.layers.Layer, *inputs: Any, **others: Any) -> Any:
    """layer(*inputs, **others) of which only the inputs are kept; the gradient runs the layer once more.

    Values and gradients are those of `keep`, at the price of about one more forward pass. What the layer assigns to its
    variables (running averages) is assigned once. Differentiable as often as the layer is; but a second derivative
    keeps the activations of the second run, so that it saves nothing for a gradient penalty.

    Args:
      layer: a Keras layer that draws no random numbers but from its arguments.
      inputs: nests of float32 tensors, and None; gradients reach them.
      others: what gradients do not reach: integers, flags, functions.

    Returns:
      What the layer returns: a nest of float32 tensors and None.
    """
    if initializing() or not layer.built:
        return layer(*inputs, **others)
    variables = layer.variables
    input_tensors, pack_inputs = _tensors(inputs)
    packing: list[Callable[[list], Any]] = []
    updated: list[keras.Variable] = []

    def run(tensors, values):
        """The output tensors, then the new values of the variables that the layer changes."""
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            outputs, pack = _tensors(layer(*pack_inputs(tensors), **others))
            new = [(v, scope.get_current_value(v)) for v in variables]
        changed = [(v, x) for (v, x), value in zip(new, values, strict=True) if x is not value]
        packing[:] = [pack]
        updated[:] = [v for v, _ in changed]
        return outputs, [x for _, x in changed]

    @tf.custom_gradient
    def function(*arguments):
        tensors = arguments[: len(input_tensors)]
        values = arguments[len(input_tensors) :]
        outputs, news = run(tensors, values)

        def gradient(*upstream):
            upstream = upstream[: len(outputs)]
            late = _after(upstream, tensors)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([*late, *values])
                recomputed, _ = run(late, values)
            pulled = tape.gradient(
                recomputed, [*late, *values], upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return [tf.convert_to_tensor(x) for x in pulled]  # Rows gathered by label come as `IndexedSlices`.

        return [*outputs, *news], gradient

    results = function(*input_tensors, *(tf.convert_to_tensor(v) for v in variables))
    for variable, value in zip(updated, results[len(results) - len(updated) :], strict=True):
        variable.assign(value)
    return packing[0](results[: len(results) - len(updated)])


def _tensors(nest):
    """The tensors of a nest whose other leaves are None, and a function that puts tensors in their place."""
    leaves = tf.nest.flatten(nest)
    tensors = [leaf for leaf in leaves if leaf is not None]

    def pack(tensors):
        remaining = iter(tensors)
        return tf.nest.pack_sequence_as(nest, [None if leaf is None else next(remaining) for leaf in leaves])

    return tensors, pack


def _after(upstream, tensors):
    """The same tensors, but not known before the gradients `upstream` are.

    Otherwise TensorFlow could run the second pass at once, or merge it with the first. A control dependency is not
    enough: XLA looks only at data.
    """
    zero = tf.zeros([])
    for gradient in upstream:
        element = tf.cast(tf.reshape(gradient, [-1])[:1], tf.bool)
        zero += tf.reduce_sum(tf.where(element == element, 0.0, float("nan")))
    return [x + zero for x in tensors]
