"""Convolutions as functions of input, kernel and bias, and how the gradient of a kernel is computed."""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_pivae.layers.analytic_gradients import wanted
from tf_pivae.layers.channels import channel_sums

_LARGE = 2**17  # Weights. Smaller kernels gain nothing,
_A_PIXEL = 32  # nor do those of fewer weights for each pixel that they meet.


class Convolution(NamedTuple):
    """A convolution, [B, H, W, I] -> [B, h, w, O], by a kernel [k, k, I, O]; or its transpose, the other way round."""

    strides: int
    sides: tuple[int, int]  # H and W
    transposed: bool = False
    padding: str = "SAME"  # h = H / strides, rounded up; or "VALID".

    def __call__(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
        """The map of x by a kernel of its type, and a bias, float32 [O] (transposed: [I]), added in that type."""
        if wanted().products and self._gains_by_products(x, kernel):
            return self._with_products(x, kernel, bias)
        y = self._linear(x, kernel)
        return y if bias is None else add_bias(y, bias)

    def _gains_by_products(self, x, kernel):
        pixels = (x.shape[0] or 1) * math.prod(-(-side // self.strides) for side in self.sides)
        return self.padding == "SAME" and kernel.shape.num_elements() >= max(_LARGE, _A_PIXEL * pixels)

    def _linear(self, x, kernel):
        if not self.transposed:
            return tf.nn.conv2d(x, kernel, self.strides, self.padding)
        shape = [tf.shape(x)[0], *self.sides, kernel.shape[2]]
        return tf.nn.conv2d_transpose(x, kernel, shape, self.strides, self.padding)

    def _with_products(self, x, kernel, bias):
        """The same, differentiable as often: the gradient of its input is the transpose, written in the same way."""
        transpose = self._replace(transposed=not self.transposed)

        @tf.custom_gradient
        def convolve(x, kernel, *bias):
            def gradient(upstream):
                maps = (upstream, x) if self.transposed else (x, upstream)
                of_kernel = kernel_gradient(*maps, kernel.shape[0], self.strides)
                return transpose(upstream, kernel), of_kernel, *(_of_bias(upstream) for _ in bias)

            y = self._linear(x, kernel)
            # In one function: oneDNN makes the bias a part of a convolution right before it.
            return tf.nn.bias_add(y, tf.cast(bias[0], y.dtype)) if bias else y, gradient

        return convolve(x, kernel) if bias is None else convolve(x, kernel, bias)


def kernel_gradient(large: tf.Tensor, small: tf.Tensor, size: int, strides: int) -> tf.Tensor:
    """Gradient of a convolution's kernel, [size, size, I, O], as matrix products over all images and pixels.

    Weight (i, j) meets, at pixel (y, x) of the small map, pixel (i + strides * y, j + strides * x) of the padded large
    one. For `strides` values of j these lie side by side in memory, and so are columns of one product.

    Args:
      large: [B, H, W, I], the convolution's input.
      small: [B, H / strides, W / strides, O], the gradient of its output, in the same type.
      size: of the kernel's sides.
      strides: of the convolution, whose padding is 'SAME'.
    """
    height, width, channels = small.shape[1:]
    above_and_below = _padding(large.shape[1], height, size, strides)
    left_and_right = _padding(large.shape[2], width, size, strides)
    padded = tf.pad(large, [[0, 0], above_and_below, left_and_right, [0, 0]])
    rows, columns, inputs = padded.shape[1:]
    blocks = tf.reshape(padded, [-1, rows // strides, strides, columns // strides, strides * inputs])
    small = tf.reshape(small, [-1, channels])
    products = []
    for i in range(size):
        for j in range(0, size, strides):
            together = min(strides, size - j) * inputs
            begin = [0, i // strides, i % strides, j // strides, 0]
            window = tf.slice(blocks, begin, [-1, height, 1, width, together])
            products.append(tf.matmul(tf.reshape(window, [-1, together]), small, transpose_a=True))
    return tf.reshape(tf.concat(products, 0), [size, size, inputs, channels])


def _padding(side, pixels, size, strides):
    """Zeros before and after a side: those of 'SAME', and behind them what a multiple of the strides lacks."""
    total = max((pixels - 1) * strides + size - side, 0)
    before = total // 2
    return [before, total - before + -(side + total) % strides]


def add_bias(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x + bias in the type of x, for x [B, ..., C] and bias float32 [C].

    oneDNN makes TensorFlow's operation of that name a part of the convolution right before it. The operation's gradient
    to a bias in bfloat16, where it does not become part of a convolution's, sums in bfloat16: of many rows it stops
    growing. Here the sum is float32's.
    """
    if x.dtype == tf.float32:
        return tf.nn.bias_add(x, bias)
    return _with_gradient_to_bias(tf.nn.bias_add(x, tf.cast(tf.stop_gradient(bias), x.dtype)), bias)


@tf.custom_gradient
def _with_gradient_to_bias(biased, bias):
    """`biased`, to which `bias` was added."""
    del bias
    return tf.identity(biased), lambda upstream: (upstream, _of_bias(upstream))


def _of_bias(upstream):
    """The gradient of a bias, float32 [C]."""
    return channel_sums(tf.cast(upstream, tf.float32))
