"""The base of this package's bijectors: value and log-det, the two parts of equation (5), in one computation."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors


def with_own_cache(bijector: tfb.Bijector) -> tfb.Bijector:
    """Gives a bijector and the parts of a `tfb.Chain` caches of their own, and returns it.

    TFP's one cache for all bijectors keeps a bijector alive as long as any of its results. A bijector of this package
    also keeps its results, so neither would ever be freed, nor the layers and the graph that they refer to.
    """
    for part in getattr(bijector, "bijectors", ()):
        with_own_cache(part)
    bijector._cache = type(bijector._cache)(bijector=bijector, bijector_class=type(bijector))
    return bijector


class ImageBijector(tfb.Bijector):
    """A bijector on images whose value and log-det are computed together, so that the two cannot drift apart.

    A subclass defines `_forward_pair(x) -> (y, log|det dy/dx|)` and `_inverse_pair(y) -> (x, log|det dx/dy|)` on
    float32 [B, H, W, C], log-dets [B]; the caller may use any batch shape, or none. The last result is kept, so that
    `forward(x)` followed by `forward_log_det_jacobian(x)` runs the network once. Because it keeps tensors, build such
    a bijector where it is used: inside the `tf.function`, in each call.

    Examples:
      >>> class Doubling(ImageBijector):
      ...     def _forward_pair(self, x):
      ...         return 2.0 * x, event_sum(tf.fill(tf.shape(x), tf.math.log(2.0)))
      >>> x = tf.ones([1, 1, 2, 1])
      >>> doubling = Doubling(name="doubling")
      >>> doubling.forward(x).numpy().tolist()
      [[[[2.0], [2.0]]]]
      >>> round(float(doubling.forward_log_det_jacobian(x, event_ndims=3)[0]), 4)
      1.3863
    """

    def __init__(self, name: str, parameters: dict[str, Any] | None = None) -> None:
        super().__init__(forward_min_event_ndims=3, validate_args=False, parameters=parameters, name=name)
        self._memo = {}
        with_own_cache(self)

    # TFP's caches compare bijectors by their contents, nested ones too; this one holds tensors and equals only itself.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType | None) -> dict:
        return {}

    def _forward_pair(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError  # Each subclass: the mathematics.

    def _inverse_pair(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError  # Each subclass: the mathematics.

    def _pair(self, direction, x):
        memo = self._memo.get(direction)
        if memo is None or memo[0] is not x:
            if len(x.shape) == 4:
                y, log_det = direction(x)
            else:
                batch_shape = tf.shape(x)[:-3]
                y, log_det = direction(tf.reshape(x, tf.concat([[-1], x.shape[-3:]], 0)))
                y = tf.reshape(y, tf.concat([batch_shape, y.shape[-3:]], 0))
                y = tf.ensure_shape(y, [*x.shape[:-3], *y.shape[-3:]])
                log_det = tf.ensure_shape(tf.reshape(log_det, batch_shape), x.shape[:-3])
            memo = (x, y, log_det)
            self._memo[direction] = memo
        return memo[1:]

    def _forward(self, x):
        return self._pair(self._forward_pair, x)[0]

    def _inverse(self, y):
        return self._pair(self._inverse_pair, y)[0]

    def _forward_log_det_jacobian(self, x):
        return self._pair(self._forward_pair, x)[1]

    def _inverse_log_det_jacobian(self, y):
        return self._pair(self._inverse_pair, y)[1]


def event_sum(x: tf.Tensor) -> tf.Tensor:
    """Sums float [B, H, W, C] over all but the batch -> [B]."""
    return tf.reduce_sum(x, [1, 2, 3])
