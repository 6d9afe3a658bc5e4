"""Affine coupling (Dinh et al. 2017, section 3.2; our section 4.1)."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_pivae.bijectors.base import ImageBijector, event_sum


def checkerboard_mask(height: int, width: int, channels: int, parity: int) -> np.ndarray:
    """float32 [height, width, channels] of 0/1: 1 where (row + column + parity) is even."""
    rows, columns = np.indices([height, width])
    return np.repeat(((rows + columns + parity) % 2 == 0)[..., None], channels, -1).astype(np.float32)


def channel_mask(height: int, width: int, channels: int, parity: int) -> np.ndarray:
    """float32 [height, width, channels] of 0/1: 1 on the first half of the channels (`parity` 0) or the second (1)."""
    first = np.arange(channels) < channels // 2
    return np.broadcast_to(first if parity == 0 else ~first, [height, width, channels]).astype(np.float32)


def squeezed_checkerboard_mask(height: int, width: int, channels: int, parity: int) -> np.ndarray:
    """float32 [height, width, channels] of 0/1: `Squeeze` of the checkerboard with `parity` and twice the sides."""
    corner = np.arange(channels) * 4 // channels  # Which pixel of a 2x2 square, 2 di + dj.
    even = np.isin(corner, (0, 3))
    return np.broadcast_to(even if parity == 0 else ~even, [height, width, channels]).astype(np.float32)


class AffineCoupling(ImageBijector):
    """Transforms the pixels outside the mask, given those inside it.

    With m the mask and s, t = conditioner(m x), both zero inside the mask:

        forward    y = exp(s) x + t             log-det    sum s
        inverse    x = exp(-s) (y - t)          log-det  - sum s

    Args:
      conditioner: a function of m x, float32 [B, H, W, C], that returns log_scale (bounded) and shift of that shape.
      mask: float32 [H, W, C] of 0/1, 1 where x passes unchanged.
      inverse_conditioner: the one that `inverse` uses, if it differs; `inverse` is exact only if both agree.

    Examples:
      >>> mask = checkerboard_mask(2, 2, 1, parity=0)
      >>> coupling = AffineCoupling(lambda x: (tf.ones_like(x) * 0.5, 3.0 + 0.0 * x), mask)
      >>> x = tf.ones([1, 2, 2, 1])
      >>> [f"{y:.3f}" for y in coupling.forward(x)[0, 0, :, 0]]  # e^0.5 + 3 outside the mask.
      ['1.000', '4.649']
      >>> float(coupling.forward_log_det_jacobian(x, event_ndims=3)[0])
      1.0
    """

    def __init__(
        self,
        conditioner: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        mask: np.ndarray,
        inverse_conditioner: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
        name: str = "affine_coupling",
    ) -> None:
        mask = np.asarray(mask)
        if mask.dtype != np.float32 or not np.isin(mask, (0.0, 1.0)).all():
            raise ValueError(f"`mask` must hold float32 zeros and ones; got {mask.dtype} {np.unique(mask)[:4]}.")
        inverse_conditioner = inverse_conditioner or conditioner
        parameters = dict(conditioner=conditioner, mask=mask, inverse_conditioner=inverse_conditioner, name=name)
        super().__init__(name=name, parameters=parameters)
        self._conditioner = conditioner
        self._inverse_conditioner = inverse_conditioner
        self._mask = mask

    def _log_scale_and_shift(self, conditioner, x):
        log_scale, shift = conditioner(x * self._mask)
        return log_scale * (1.0 - self._mask), shift * (1.0 - self._mask)

    def _forward_pair(self, x):
        log_scale, shift = self._log_scale_and_shift(self._conditioner, x)
        return x * tf.exp(log_scale) + shift, event_sum(log_scale)

    def _inverse_pair(self, y):
        log_scale, shift = self._log_scale_and_shift(self._inverse_conditioner, y)  # Inside the mask y is x.
        return (y - shift) * tf.exp(-log_scale), -event_sum(log_scale)
