"""One number a channel: sums over everything else, and the other way round."""

import math

import tensorflow as tf

_LARGE = 2**17  # Numbers. Fewer are summed as fast in one step.


def channel_sums(x: tf.Tensor) -> tf.Tensor:
    """The sum of each channel, [C], of x [B, ..., C], in the type of x.

    Each column of pixels first, as a sum of rows of memory, then the columns: TensorFlow's sum over all axes but the
    last takes longer, and adds so many numbers to one that float32 loses digits (tests/layers/test_channels.py).
    """
    columns = x.shape[-2] if len(x.shape) > 2 else 1
    sums = tf.raw_ops.BiasAddGrad(out_backprop=tf.reshape(x, [-1, columns * x.shape[-1]]))
    return tf.reduce_sum(tf.reshape(sums, [columns, x.shape[-1]]), 0)


def kernel_sums(x: tf.Tensor, axis: int) -> tf.Tensor:
    """The sum of each channel, [C], over all axes of a kernel but the channels' (by its number).

    Of large kernels in two steps, which take TensorFlow less time than one. For a kernel the gradient of a sum counts,
    too, and that of `channel_sums` takes more operations.
    """
    channels = x.shape[axis]
    count = x.shape.num_elements()
    last = len(x.shape) - 1
    others = [i for i in range(last + 1) if i != axis]
    if count < _LARGE:
        return tf.reduce_sum(x, others)
    if axis != last:
        return tf.reduce_sum(tf.reduce_sum(x, last), others[:-1])
    parts = math.gcd(count // channels, 32)
    partial = tf.reduce_sum(tf.reshape(x, [parts, count // parts]), 0)
    return tf.reduce_sum(tf.reshape(partial, [-1, channels]), 0)


def of_each_pixel(channels: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """A number a channel, [C], as a row of pixels [W, C] that combines with x [B, H, W, C] like [C].

    TensorFlow takes a tensor of few channels faster with a row of pixels than with [C], whose few numbers it goes
    through once for every pixel.
    """
    return tf.broadcast_to(channels, x.shape[-2:])
