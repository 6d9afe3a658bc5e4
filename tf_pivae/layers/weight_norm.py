"""Weight normalisation with data-dependent initialisation (Salimans & Kingma 2016), class-conditional on request.

w = g / ||v|| * v        one norm and one gain per output channel; section 5.6, equation (8), makes it g(label)
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.configurable import configurable
from tf_pivae.layers.analytic_gradients import wanted
from tf_pivae.layers.channels import kernel_sums
from tf_pivae.layers.convolution import ConvolutionPrecision
from tf_pivae.layers.convolution_ops import Convolution, add_bias
from tf_pivae.layers.initialization import initializer

_MIN_VARIANCE = 1e-4  # A channel that hardly varies over the first batch must not start with an enormous gain.
_state = threading.local()


@contextlib.contextmanager
def data_dependent_initialization() -> Iterator[None]:
    """Within this context every weight-normalised layer sets its gain and bias from the batch that it sees.

    The layers run in the order of the network, so each is set from inputs that its predecessors already normalised.
    Run the network eagerly in it, once, in the cross-replica context.
    """
    _state.active = True
    try:
        yield
    finally:
        _state.active = False


def initializing() -> bool:
    """True within `data_dependent_initialization`."""
    return getattr(_state, "active", False)


@contextlib.contextmanager
def fixed_kernels() -> Iterator[dict[tuple[int, bool], list[tf.Variable]]]:
    """Within this context, graphs of weight-normalised layers read finished kernels instead of computing norms.

    Each kernel is computed once, now, and kept as a variable that the graph reads. It is for models whose weights do
    not change any more. Yields the dict that holds the variables, by layer and use, lists of `tf.Variable`.
    """
    _state.kernels = {}
    try:
        yield _state.kernels
    finally:
        _state.kernels = None


class WeightNormalized(keras.layers.Layer):
    """What the weight-normalised layers share: direction `v`, gain `g`, bias `b`.

    After the data-dependent initialisation each output channel has mean 0 and standard deviation `init_scale` over the
    first batch; `init_scale = 0` makes the layer start at exactly zero, which still passes gradient to its gain.

    Args:
      filters: number of output channels.
      init_scale: float, or float [filters], one per output channel.
      num_classes: 0, or the number of classes that `g` and `b` are conditioned on.
    """

    _output_axis: int  # Of `v`: the output channel's, over which the norm does not go.

    def __init__(
        self, filters: int, *, init_scale: float | np.ndarray = 1.0, num_classes: int = 0, name: str | None = None
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.filters = filters
        self.init_scale = np.broadcast_to(np.asarray(init_scale, np.float32), [filters]).copy()
        self.num_classes = num_classes

    def _add_weights(self, direction_shape):
        # Keras' normal initialiser has standard deviation 0.05.
        self.v = self.add_weight(shape=direction_shape, initializer=initializer("random_normal"), name="v")
        shape = [self.num_classes, self.filters] if self.num_classes else [self.filters]
        self.g = self.add_weight(
            shape=shape, initializer=lambda shape, dtype: tf.broadcast_to(self.init_scale, shape), name="g"
        )
        self.b = self.add_weight(shape=shape, initializer="zeros", name="b")

    def _kernel(self, gain=1.0, channels=None):
        """`gain / ||v|| * v`, with the norm over the weights of one output channel; `gain` float32 [filters]."""
        v = _select(self._unnormalized(), channels, self._output_axis)
        compute = with_analytic_gradient if wanted().norms else normalized
        return compute(v, gain, self._output_axis)

    def _unnormalized(self):
        """`v`, with a mask applied in subclasses that have one."""
        return tf.convert_to_tensor(self.v)

    def _linear(self, x, kernel, bias=None, exact=False):
        raise NotImplementedError  # Each subclass: the linear map itself, and the bias where there is one.

    def call(
        self,
        x: tf.Tensor,
        labels: tf.Tensor | None = None,
        channels: list[tuple[int, int]] | None = None,
        affine: Callable[[], tuple[tf.Tensor, tf.Tensor]] | None = None,
        exact: bool = False,
    ) -> tf.Tensor:
        """The layer's output, or some of its channels, optionally with an affine map of them.

        Args:
          x: float32 [B, ..., I].
          labels: int [B], for a class-conditional layer.
          channels: None, or the output channels to compute, a list of ranges (start, stop): the others cost nothing.
          affine: None, or a function that returns (scale, offset), float32 [filters] each, an affine map of the output
            channels that is made part of the kernel. Not for a class-conditional layer, nor with `channels`.
          exact: float32, whatever the layer's precision is.

        Returns:
          float32 [B, ..., number of output channels].

        Raises:
          ValueError: a class-conditional layer without labels.
        """
        if initializing():
            self._initialize(self._linear(x, self._kernel(), exact=exact))
        if not self.num_classes:
            kernel, bias = self._weights(channels, affine)
            return self._linear(x, kernel, bias, exact)
        if labels is None:
            raise ValueError(f"layer '{self.name}' is class-conditional: pass `labels`, int [B].")
        (kernel,) = self._weights(channels)
        tables = (_select(tf.convert_to_tensor(variable), channels, -1) for variable in (self.g, self.b))
        broadcast = [-1] + [1] * (len(x.shape) - 2) + [kernel.shape[self._output_axis]]
        gain, bias = (tf.cast(tf.reshape(tf.gather(table, labels), broadcast), x.dtype) for table in tables)
        return self._linear(x, kernel, exact=exact) * gain + bias

    def _weights(self, channels=None, affine=None):
        """`_normalized`, or its fixed variables within `fixed_kernels`."""
        saved = getattr(_state, "kernels", None)
        if saved is None:
            return self._normalized(channels, affine)
        key = id(self), affine is not None
        if key not in saved:
            with tf.init_scope():
                saved[key] = [tf.Variable(weights, trainable=False) for weights in self._normalized(affine=affine)]
        pairs = zip(saved[key], (self._output_axis, -1), strict=False)
        return [_select(tf.convert_to_tensor(variable), channels, axis) for variable, axis in pairs]

    def _normalized(self, channels=None, affine=None):
        """[kernel, bias]; of a class-conditional layer [kernel], which still wants its labels' gains and biases."""
        if self.num_classes:
            return [self._kernel(channels=channels)]
        gain, bias = (_select(tf.convert_to_tensor(variable), channels, -1) for variable in (self.g, self.b))
        if affine is not None:
            scale, offset = affine()
            gain = gain * scale
            bias = bias * scale + offset
        return [self._kernel(gain, channels), bias]

    def _initialize(self, unscaled):
        mean, variance = tf.nn.moments(tf.cast(unscaled, tf.float32), list(range(len(unscaled.shape) - 1)))
        gain = self.init_scale * tf.math.rsqrt(tf.maximum(variance, _MIN_VARIANCE))
        self.g.assign(tf.broadcast_to(gain, self.g.shape))
        self.b.assign(tf.broadcast_to(-mean * gain, self.b.shape))


def normalized(v: tf.Tensor, gain: float | tf.Tensor, axis: int) -> tf.Tensor:
    """`gain / ||v|| * v`, with the norm over all axes of v but one, that of the output channels.

    Args:
      v: float32 [..., C, ...], the direction.
      gain: a number, or float32 [C].
      axis: number of the axis that C is.
    """
    return _scaled(v, gain * _inverse_norm(v, axis), axis)


def with_analytic_gradient(v: tf.Tensor, gain: float | tf.Tensor, axis: int) -> tf.Tensor:
    """`normalized`, with its gradient from a formula: fewer operations, and fewer passes over the weights.

    For an upstream gradient U: dg = <U, v> / ||v||, dv = g / ||v|| (U - v <U, v> / ||v||^2), channel by channel
    (Salimans & Kingma 2016, equation (3)).
    """

    @tf.custom_gradient
    def compute(v, gain):
        inverse_norm = _inverse_norm(v, axis)
        factor = gain * inverse_norm

        def gradient(upstream):
            of_gain = kernel_sums(upstream * v, axis) * inverse_norm
            of_v = _scaled(upstream, factor, axis) - _scaled(v, of_gain * factor * inverse_norm, axis)
            return of_v, of_gain

        return _scaled(v, factor, axis), gradient

    return compute(v, tf.fill([v.shape[axis]], gain) if isinstance(gain, float) else gain)


def _inverse_norm(v, axis):
    return tf.math.rsqrt(kernel_sums(tf.square(v), axis) + 1e-12)


def _scaled(v, factor, axis):
    """v times a factor for each channel, [C]."""
    behind = len(v.shape) - 1 - axis
    return v * (tf.reshape(factor, [-1, *[1] * behind]) if behind else factor)


def _select(tensor, ranges, axis):
    """The ranges (start, stop) of one axis of a tensor, one behind the other; all of it for None."""
    if ranges is None:
        return tensor
    sizes = [size for start, stop in ranges for size in (start, stop)]
    edges = [0, *sizes, tensor.shape[axis]]
    return tf.concat(tf.split(tensor, np.diff(edges), axis)[1::2], axis)


class WeightNormDense(WeightNormalized):
    """`y = x w + b`, x float32 [B, I] -> [B, filters]."""

    _output_axis = 1

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._add_weights([input_shape[-1], self.filters])

    def _linear(self, x, kernel, bias=None, exact=False):
        y = tf.matmul(x, kernel)
        return y if bias is None else add_bias(y, bias)


class WeightNormConv2D(WeightNormalized):
    """Convolution with 'SAME' padding, x float32 [B, H, W, I] -> [B, H / strides, W / strides, filters]."""

    _output_axis = 3

    def __init__(self, filters: int, kernel_size: int = 3, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(filters, **kwargs)
        self.kernel_size = kernel_size
        self.strides = strides
        self.precision = ConvolutionPrecision()

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._add_weights([self.kernel_size, self.kernel_size, input_shape[-1], self.filters])

    def _linear(self, x, kernel, bias=None, exact=False):
        return self.precision(Convolution(self.strides, tuple(x.shape[1:3])), x, kernel, bias, exact)


@configurable
class WeightNormConv2DTranspose(WeightNormalized):
    """Transposed convolution, x float32 [B, H, W, I] -> [B, H * strides, W * strides, filters].

    The kernel's side is a multiple of the stride, so that every output pixel gets the same number of contributions
    (no checkerboard pattern).
    """

    _output_axis = 2

    def __init__(self, filters: int, kernel_size: int = 4, strides: int = 2, **kwargs: Any) -> None:
        super().__init__(filters, **kwargs)
        self.kernel_size = kernel_size
        self.strides = strides
        self.precision = ConvolutionPrecision()

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._add_weights([self.kernel_size, self.kernel_size, self.filters, input_shape[-1]])

    def _linear(self, x, kernel, bias=None, exact=False):
        sides = (x.shape[1] * self.strides, x.shape[2] * self.strides)
        return self.precision(Convolution(self.strides, sides, transposed=True), x, kernel, bias, exact)


@configurable
class NearestConv2D(WeightNormConv2DTranspose):
    """Every pixel twice along each side, then a 3x3 convolution: x float32 [B, H, W, I] -> [B, 2 H, 2 W, filters].

    Computed as the equivalent deconvolution, whose 4x4 kernel holds sums of neighbouring weights: four products for an
    output pixel instead of nine, and no enlarged map.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size=3, strides=2, **kwargs)

    def _linear(self, x, kernel, bias=None, exact=False):
        for axis in (0, 1):
            after, before = ([[0, 0]] * axis + [side] + [[0, 0]] * (3 - axis) for side in ([0, 1], [1, 0]))
            kernel = tf.pad(kernel, after) + tf.pad(kernel, before)
        return super()._linear(x, kernel, bias, exact)
