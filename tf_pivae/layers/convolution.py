"""The precision of convolutions: float32, or bfloat16 for their two arguments (mixed precision)."""

from typing import Any, Literal

import keras
import tensorflow as tf

from tf_pivae.configurable import Depth, Initializer, configurable
from tf_pivae.layers.convolution_ops import Convolution, add_bias
from tf_pivae.layers.initialization import initializer
from tf_pivae.system.processor import has_bfloat16

_DTYPES = ("float32", "bfloat16", "auto")  # float16's range would need the losses to be scaled.


def automatic_dtype() -> str:
    """ "bfloat16" on processors that have it, if there is no GPU; else "float32"."""
    return "bfloat16" if has_bfloat16() and not tf.config.list_physical_devices("GPU") else "float32"


@configurable
class ConvolutionPrecision:
    """Rounds the arguments of a convolution to `dtype`, and returns its result in the type of its input.

    Only this class decides on precision. Every convolutional layer constructs its own instance by the gin configuration
    of that moment, and keeps it. So models of different precision can share a process, such as one in training and a
    loaded one, which is float32 whatever its `config.gin` says. Weights, and their gradients, are float32. A network
    of convolutions and rectifiers alone, a critic or in training steps a conditioner of the head, rounds its input once
    and computes in `dtype` up to its output; elsewhere all but the convolutions stays float32. Outside of training
    steps the head is float32 whatever gin says, see `bijectors.real_nvp.Conditioner`.

    Args:
      dtype: "float32" or "bfloat16". bfloat16 has float32's range and 8 bits of precision; products are summed up in
        float32 inside the convolution, and the sum is rounded once more. "auto" is `automatic_dtype`; a training
        settles it before it begins, see `tf_pivae.training.precision`.
    """

    def __init__(self, dtype: Literal["float32", "bfloat16", "auto"] = "float32") -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"`dtype` of convolutions must be one of {_DTYPES}; got {dtype!r}.")
        self.dtype = automatic_dtype() if dtype == "auto" else dtype

    def rounded(self, x: tf.Tensor, exact: bool = False) -> tf.Tensor:
        """float32 x as a convolution takes it: in `dtype`, or as it is where that must be `exact`.

        Convolutions that follow one another need not go back to float32 in between: a network that rounds its input
        computes all of its activations in `dtype`.
        """
        return x if exact else tf.cast(x, self.dtype)

    def __call__(
        self,
        convolution: Convolution,
        x: tf.Tensor,
        kernel: tf.Tensor,
        bias: tf.Tensor | None = None,
        exact: bool = False,
    ) -> tf.Tensor:
        """convolution(x, kernel, bias) in the type of x.

        Args:
          convolution: whose arguments are rounded.
          x: [B, H, W, channels], float32 or `dtype`.
          kernel: float32 [k, k, I, O].
          bias: None, or float32 [channels of the output], which is added in the type of x.
          exact: a float32 x is not rounded.
        """
        rounded = self.rounded(x, exact)
        kernel = tf.cast(kernel, rounded.dtype)
        if bias is None or rounded.dtype == x.dtype:
            return tf.cast(convolution(rounded, kernel, bias), x.dtype)
        return add_bias(tf.cast(convolution(rounded, kernel), x.dtype), bias)


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
        options: dict[str, Any] = dict(padding=padding, kernel_initializer=kernel, name=name, autocast=False)
        super().__init__(filters, kernel_size, strides, **options)
        self.precision = ConvolutionPrecision()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, I] -> [B, H / strides, W / strides, filters], both float32 or both in the layer's precision."""
        convolution = Convolution(self.strides[0], tuple(inputs.shape[1:3]), padding=self.padding.upper())
        return self.precision(convolution, inputs, self.effective_kernel(), tf.convert_to_tensor(self.bias))

    def effective_kernel(self) -> tf.Tensor:
        """The kernel of the convolution, [k, k, I, filters]: the variable itself."""
        return tf.convert_to_tensor(self.kernel)
