"""Space to depth (Dinh et al. 2017, section 3.6)."""

import tensorflow as tf

from tf_pivae.bijectors.base import ImageBijector


class Squeeze(ImageBijector):
    """Trades each 2x2 square of pixels for four times the channels.

    forward    y[i, j, (2 di + dj) C + c] = x[2i + di, 2j + dj, c]      [H, W, C] -> [H/2, W/2, 4C]
    log-det    0: a permutation
    inverse    depth to space

    Examples:
      >>> x = tf.reshape(tf.range(4.0), [1, 2, 2, 1])
      >>> Squeeze().forward(x).numpy().tolist()
      [[[[0.0, 1.0, 2.0, 3.0]]]]
    """

    def __init__(self, name: str = "squeeze") -> None:
        super().__init__(name=name, parameters=dict(name=name))

    def _forward_pair(self, x):
        if x.shape[1] % 2 or x.shape[2] % 2:
            raise ValueError(f"`Squeeze` needs even sides; got images of {x.shape[1]}x{x.shape[2]}.")
        return tf.nn.space_to_depth(x, 2), tf.zeros([tf.shape(x)[0]])

    def _inverse_pair(self, y):
        return tf.nn.depth_to_space(y, 2), tf.zeros([tf.shape(y)[0]])

    def _forward_event_shape_tensor(self, shape):
        return shape // [2, 2, 1] * [1, 1, 4]

    def _inverse_event_shape_tensor(self, shape):
        return shape * [2, 2, 1] // [1, 1, 4]

    def _forward_event_shape(self, shape):
        return tf.TensorShape([shape[0] // 2, shape[1] // 2, shape[2] * 4]) if shape.rank == 3 else shape

    def _inverse_event_shape(self, shape):
        return tf.TensorShape([shape[0] * 2, shape[1] * 2, shape[2] // 4]) if shape.rank == 3 else shape
