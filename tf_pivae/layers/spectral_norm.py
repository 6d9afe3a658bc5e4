"""Spectrally normalised layers for the critic (Miyato et al. 2018)."""

from collections.abc import Callable, Sequence
from typing import Literal

import keras
import tensorflow as tf

from tf_pivae.configurable import Depth, Initializer, configurable
from tf_pivae.layers.convolution import Conv2D
from tf_pivae.layers.initialization import Dense, initializer

_INITIAL_UPDATES = 10
# The paper takes one, with a tenth of our learning rate. Here one lags when two singular values cross.
_ITERATIONS = 3


class SpectralNorm:
    """A mixin for Keras layers with a kernel: W / s(W) in place of W, with s its largest singular value as a matrix.

    The matrix is [inputs, outputs], for a convolution [height * width * inputs, outputs].

    s = a^T W u, with u the estimate of the right singular vector and a = W u / ||W u||. As in the paper, the gradient
    takes a and u for constants. u is a variable that only `update_normalization` moves, by a few iterations of the
    power method; all passes between two updates see the same u, and it lies in checkpoints like any weight.
    """

    kernel: keras.Variable
    built: bool
    add_weight: Callable[..., keras.Variable]

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)  # type: ignore[misc]
        self.u = self.add_weight(
            shape=[self.kernel.shape[-1]],
            initializer=initializer("random_normal"),
            trainable=False,
            # All replicas compute the same from the same weights.
            aggregation="only_first_replica",
            name="u",
        )
        for _ in range(_INITIAL_UPDATES):
            self.update_normalization()

    def update_normalization(self) -> None:
        """Some iterations of the power method, u <- W^T W u / ||W^T W u||."""
        matrix, u = self._matrix_and_u()
        for _ in range(_ITERATIONS):
            u = _unit(tf.linalg.matvec(matrix, _unit(tf.linalg.matvec(matrix, u)), transpose_a=True))
        self.u.assign(u)

    def normalized_kernel(self) -> tf.Tensor:
        """W / s(W), a tensor in the shape of the kernel."""
        matrix, u = self._matrix_and_u()
        image = tf.linalg.matvec(matrix, u)
        scale = tf.reduce_sum(tf.stop_gradient(_unit(image)) * image)
        return tf.convert_to_tensor(self.kernel) / scale

    def _matrix_and_u(self):
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.reshape(kernel, [-1, kernel.shape[-1]]), tf.convert_to_tensor(self.u)


@configurable
class SpectralNormConv2D(SpectralNorm, Conv2D):
    """`Conv2D` with a spectrally normalised kernel; its bias is as it is."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: Depth = 1,
        padding: Literal["same", "valid"] = "same",
        kernel_initializer: Initializer = "he_normal",
        name: str | None = None,
    ) -> None:
        super().__init__(
            filters, kernel_size, strides, padding=padding, kernel_initializer=kernel_initializer, name=name
        )

    def effective_kernel(self) -> tf.Tensor:
        """The normalised kernel."""
        return self.normalized_kernel()


@configurable
class SpectralNormDense(SpectralNorm, Dense):
    """`Dense` with a spectrally normalised kernel; its bias is as it is."""

    def __init__(self, units: int, use_bias: bool = True, name: str | None = None) -> None:
        super().__init__(units, use_bias=use_bias, name=name)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.matmul(inputs, self.normalized_kernel())
        return outputs + self.bias if self.use_bias else outputs


def _unit(vector):
    return vector * tf.math.rsqrt(tf.reduce_sum(tf.square(vector)) + 1e-12)
