"""One group of latents: Gaussian prior, Gaussian or IAF posterior (appendices A.1 and A.2)."""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_pivae.bijectors.inverse_autoregressive import InverseAutoregressiveFlow
from tf_pivae.configurable import Depth, Index, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.masked import AutoregressiveNetwork

LOG_SCALE_BOUND = 7.0  # exp(-7) ... exp(7): a soft clamp no trained posterior was seen to reach.


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean and log-scale, float32 tensors of one shape."""

    mean: tf.Tensor
    log_scale: tf.Tensor

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """log N(x; mean, exp(log_scale)^2) of each element, nats."""
        standardized = (x - self.mean) * tf.exp(-self.log_scale)
        return -0.5 * tf.square(standardized) - self.log_scale - 0.5 * math.log(2.0 * math.pi)

    def sample(self, epsilon: tf.Tensor) -> tf.Tensor:
        """The reparametrised sample of standard noise `epsilon`."""
        return self.mean + tf.exp(self.log_scale) * epsilon


def gaussian(mean: tf.Tensor, raw_log_scale: tf.Tensor) -> Gaussian:
    """A `Gaussian` whose log-scale is softly clamped to +-LOG_SCALE_BOUND."""
    return Gaussian(mean, LOG_SCALE_BOUND * tf.tanh(raw_log_scale / LOG_SCALE_BOUND))


def standard_gaussian(like: tf.Tensor) -> Gaussian:
    """N(0, I) in the shape of the tensor `like`."""
    return Gaussian(tf.zeros_like(like), tf.zeros_like(like))


class Posterior(NamedTuple):
    """A sample of the posterior."""

    z: tf.Tensor  # [B, H, W, C] (or [B, C])
    log_prob: tf.Tensor  # log q(z|y) of each element, nats, in the shape of z


@configurable
class GaussianPosterior(Composite):
    """q(z|y) = N(z; mean, exp(log_scale)^2), the statistics summed from a top-down and a bottom-up part."""

    context_channels = 0

    def __init__(self, channels: int, width: int, num_classes: Index = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        del channels, width, num_classes  # The signature that all posteriors share.

    def call(self, base: Gaussian, context: None, epsilon: tf.Tensor, labels: tf.Tensor | None = None) -> Posterior:
        """base: `Gaussian`; context: None; epsilon: standard noise in the shape of z; labels: unused -> `Posterior`."""
        z = base.sample(epsilon)
        return Posterior(z, base.log_prob(z))


@configurable
class IAFPosterior(Composite):
    """One inverse autoregressive step on top of the Gaussian: z0 ~ N(mean, scale^2), z = mu_1(z0) + sigma_1(z0) z0.

    log q(z|y) = log N(z0; mean, scale^2) - log|dz/dz0|, kept by element (the Jacobian is triangular).

    Args:
      channels: latent channels.
      width: channels of the block's features: of the context, and of the hidden layers.
      num_layers: hidden masked convolutions; 2 in the reference implementation.
    """

    def __init__(
        self, channels: int, width: int, num_layers: Depth = 2, num_classes: Index = 0, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.context_channels = width
        self.network = AutoregressiveNetwork(channels, width, num_layers, num_classes=num_classes, name="network")

    def call(
        self, base: Gaussian, context: tf.Tensor, epsilon: tf.Tensor, labels: tf.Tensor | None = None
    ) -> Posterior:
        """One step.

        Args:
          base: `Gaussian` of z0.
          context: float32 [B, H, W, width].
          epsilon: standard normal noise in the shape of z.
          labels: int [B] for a class-conditional model.

        Returns:
          `Posterior`, log q(z|y) by element, nats.
        """
        z0 = base.sample(epsilon)
        flow = InverseAutoregressiveFlow(lambda z: self.network(z, context=context, labels=labels))
        z = flow.forward(z0)
        return Posterior(z, base.log_prob(z0) - flow.elementwise_log_det(z0))
