"""The precision of convolutions: float32, or bfloat16 for their two arguments (mixed precision)."""

from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from tf_pivae.configurable import Depth, Initializer, configurable
from tf_pivae.layers.initialization import initializer
from tf_pivae.system.processor import has_bfloat16

_DTYPES = ("float32", "bfloat16", "auto")  # float16's range would need the losses to be scaled.


def automatic_dtype() -> str:
    """ "bfloat16" on processors that have it, if there is no GPU; else "float32"."""
    return "bfloat16" if has_bfloat16() and not tf.config.list_physical_devices("GPU") else "float32"


@configurable
class ConvolutionPrecision:
    """Rounds the arguments of a convolution to `dtype`, and returns its result in float32.

    Only this class decides on precision. Every convolutional layer constructs its own instance by the gin configuration
    of that moment, and keeps it. So models of different precision can share a process, such as one in training and a
    loaded one, which is float32 whatever its `config.gin` says. Weights, gains, biases and all other operations stay
    float32. A convolution's gradients are computed by convolutions of `dtype`, and are float32 again. Outside of
    training steps the head's convolutions are float32 whatever gin says, see `bijectors.real_nvp.Conditioner`.

    Args:
      dtype: "float32" or "bfloat16". bfloat16 has float32's range and 8 bits of precision; products are summed up in
        float32 inside the convolution, and the sum is rounded once more. "auto" is `automatic_dtype`; a training
        settles it before it begins, see `tf_pivae.training.precision`.
    """

    def __init__(self, dtype: Literal["float32", "bfloat16", "auto"] = "float32") -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"`dtype` of convolutions must be one of {_DTYPES}; got {dtype!r}.")
        self.dtype = automatic_dtype() if dtype == "auto" else dtype

    def __call__(
        self, convolve: Callable[..., tf.Tensor], x: tf.Tensor, kernel: tf.Tensor, exact: bool = False
    ) -> tf.Tensor:
        """convolve(x, kernel) for float32 tensors -> float32; where it must be `exact`, without rounding."""
        if exact or self.dtype == "float32":
            return convolve(x, kernel)
        return tf.cast(convolve(tf.cast(x, self.dtype), tf.cast(kernel, self.dtype)), tf.float32)


@configurable
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` in the precision that the configuration asks for."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: Depth = 1,
        padding: Literal["same", "valid"] = "same",
        kernel_initializer: Initializer = "he_normal",
        name: str | None = None,
    ) -> None:
        kernel = initializer(kernel_initializer)
        super().__init__(filters, kernel_size, strides, padding=padding, kernel_initializer=kernel, name=name)
        self.precision = ConvolutionPrecision()

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Called by Keras: the convolution, in the configured precision."""
        return self.precision(super().convolution_op, inputs, tf.convert_to_tensor(kernel))
