"""Masked convolutions: the autoregressive network of the inverse autoregressive flow (appendix A.2)."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_pivae.layers.composite import Composite
from tf_pivae.layers.weight_norm import WeightNormConv2D


def autoregressive_mask(kernel_size: int, groups_in: np.ndarray, groups_out: np.ndarray, strict: bool) -> np.ndarray:
    """The 0/1 mask of a convolution that is autoregressive in raster order, then in the order of channel groups.

    Output group j at a pixel sees: every channel of the pixels before it in raster order, and at the pixel itself the
    input groups i <= j (`strict`: i < j).

    Args:
      kernel_size: odd int.
      groups_in, groups_out: int arrays [I] and [O], the latent channel that each channel stands for.

    Returns:
      float32 [kernel_size, kernel_size, I, O].
    """
    groups_in = np.asarray(groups_in)
    groups_out = np.asarray(groups_out)
    centre = kernel_size // 2
    mask = np.zeros([kernel_size, kernel_size, len(groups_in), len(groups_out)], np.float32)
    mask[:centre] = 1.0
    mask[centre, :centre] = 1.0
    compare = np.less if strict else np.less_equal
    mask[centre, centre] = compare(groups_in[:, None], groups_out[None, :])
    return mask


class MaskedConv2D(WeightNormConv2D):
    """A weight-normalised convolution whose direction is masked; the norm is over what the mask leaves."""

    def __init__(self, filters: int, mask: np.ndarray, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size=mask.shape[0], **kwargs)
        self._mask = mask

    def _unnormalized(self):
        return tf.convert_to_tensor(self.v) * self._mask


class AutoregressiveNetwork(Composite):
    """Shift and log-scale of every latent from the latents before it and from a context (Kingma et al. 2016).

    z float32 [B, H, W, C], context float32 [B, H, W, width] -> shift, log_scale, float32 [B, H, W, C] each, where
    element c of pixel p depends on the pixels before p in raster order and on channels < c of p.

    Args:
      channels: C.
      width: number of hidden channels.
      num_layers: number of hidden masked convolutions.
      output_scale: factor on the outputs; 0.1 in the reference implementation of IAF.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        num_layers: int = 2,
        kernel_size: int = 3,
        output_scale: float = 0.1,
        num_classes: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        inputs = np.arange(channels)
        hidden = np.arange(width) * channels // width  # In order, so that group j of the hidden channels ends at j.
        self.hidden_layers = []
        groups = inputs
        for i in range(num_layers):
            mask = autoregressive_mask(kernel_size, groups, hidden, strict=False)
            self.hidden_layers.append(MaskedConv2D(width, mask, num_classes=num_classes, name=f"hidden_{i}"))
            groups = hidden
        mask = autoregressive_mask(kernel_size, groups, np.tile(inputs, 2), strict=True)
        self.output_layer = MaskedConv2D(2 * channels, mask, num_classes=num_classes, name="output")
        self.output_scale = output_scale

    def call(self, z: tf.Tensor, context: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        h = z
        for i, layer in enumerate(self.hidden_layers):
            h = layer(h, labels=labels)
            if i == 0:
                h += context
            h = tf.nn.elu(h)
        shift, log_scale = tf.split(self.output_scale * self.output_layer(h, labels=labels), 2, axis=-1)
        return shift, log_scale
