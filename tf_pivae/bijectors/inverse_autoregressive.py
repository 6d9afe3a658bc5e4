"""Inverse autoregressive flow (Kingma et al. 2016; appendix A.2)."""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.bijectors.base import with_own_cache

tfb = tfp.bijectors


class InverseAutoregressiveFlow(tfb.Invert):
    """One step z0 -> z1, parallel in this direction, by TFP's `MaskedAutoregressiveFlow` turned around.

    With shift, log_scale = network(z0), strictly autoregressive in raster order, then channel:

        forward    z1 = (z0 - shift) exp(-log_scale)            the paper's mu_1 + sigma_1 z0
        log-det    - sum log_scale                              triangular Jacobian
        inverse    sequential, one pass of the network per latent

    Args:
      network: a function of z0, float32 [B, H, W, C], that returns (shift, log_scale) of that shape.

    Examples:
      >>> def network(z):  # Each latent sees the sum of those before it in its row.
      ...     return tf.cumsum(z, axis=2, exclusive=True), tf.zeros_like(z)
      >>> flow = InverseAutoregressiveFlow(network)
      >>> z0 = tf.constant([[[[1.0], [5.0], [9.0]]]])
      >>> flow.forward(z0)[0, 0, :, 0].numpy().tolist()
      [1.0, 4.0, 3.0]
      >>> flow.inverse(flow.forward(z0))[0, 0, :, 0].numpy().tolist()
      [1.0, 5.0, 9.0]
    """

    def __init__(
        self, network: Callable[..., tuple[tf.Tensor, tf.Tensor]], name: str = "inverse_autoregressive_flow"
    ) -> None:
        self._last = (None, None)

        def shift_and_log_scale(z0, **condition):
            if self._last[0] is not z0:
                outputs = network(tf.reshape(z0, tf.concat([[-1], z0.shape[-3:]], 0)), **condition)
                self._last = (z0, [tf.reshape(output, tf.shape(z0)) for output in outputs])
            return self._last[1]

        def affine(z0, **condition):
            shift, log_scale = shift_and_log_scale(z0, **condition)
            return with_own_cache(tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=log_scale)]))

        flow = tfb.MaskedAutoregressiveFlow(bijector_fn=affine, event_ndims=3)
        super().__init__(with_own_cache(flow), name=name)
        with_own_cache(self)
        self._shift_and_log_scale = shift_and_log_scale

    def elementwise_log_det(self, z0: tf.Tensor) -> tf.Tensor:
        """The diagonal of log|dz1/dz0|, float32 like `z0`: its sum over an image is `forward_log_det_jacobian(z0)`."""
        return -self._shift_and_log_scale(tf.convert_to_tensor(z0))[1]
