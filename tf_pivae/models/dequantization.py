"""From discrete images to densities: which continuous values belong to an image, and how they are drawn.

An image x of `num_bins` levels n owns a box B(x) of the continuous space, and

    log P(x) = log of the integral of p(v) over B(x)  >=  E_q(v|x) [ log p(v) - log q(v|x) ]

for any density q on B(x). A dequantisation is the choice of the boxes and of q.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.configurable import Depth, Width, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.weight_norm import WeightNormConv2D
from tf_pivae.noise import Noise

TAG = "dequantisation"  # Of the noise.
_LOG_SCALE_BOUND = 3.0  # Of what a `TailNetwork` adds to the logarithm of a tail's scale.
_LOGIT_BOUND = 20.0  # Of the mass beyond an edge: below 1 and above 0 in float32.
_LEAST_DISTANCE = 1e-6  # Rounding would otherwise let a draw cross its edge.
_HALF_STEP = 2.0**-24  # Moves uniform numbers, multiples of 2^-23 in [0, 1), to the middle of their steps: into (0, 1).


class Dequantized(NamedTuple):
    """A sample of q, on the scale of the preprocessing's output t, and its terms of the bound, in nats."""

    t: tf.Tensor  # [B, H, W, C]
    preprocessing_log_det: tf.Tensor  # [B], log|det dt/dv|, of the pixels whose q is a density of v
    discretisation: tf.Tensor  # [B], -log q: of v, or of t where the preprocessing's derivative cancels


@configurable
class UniformDequantization(Composite):
    """The paper's: v = (x + u) / n, u ~ U[0, 1), B(x) a cube of volume n^-D.

    The cubes cover [0, 1)^D. The model's mass outside of it belongs to no image, so that the probabilities sum to less
    than 1; and as samples from there are clipped to the nearest level, samples do not follow these probabilities.
    `PiVAE.mass_outside` estimates that mass.
    """

    partition = False  # Whether the boxes cover all that the density covers.

    def __init__(
        self, num_bins: int, preprocessing: Callable[[], tfp.bijectors.Bijector], name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self._num_bins = num_bins
        self._preprocessing = preprocessing

    def call(self, images: tf.Tensor, noise: Noise) -> Dequantized:
        """Integers [B, H, W, C] -> `Dequantized`."""
        v = uniform(images, noise, self._num_bins)
        preprocessing = self._preprocessing()
        log_det = preprocessing.forward_log_det_jacobian(v, event_ndims=3)
        count = tf.shape(v)[0]
        dimensions = math.prod(v.shape[1:])
        return Dequantized(
            preprocessing.forward(v),
            tf.broadcast_to(log_det, [count]),  # `affine`'s is one constant.
            tf.fill([count], -dimensions * math.log(self._num_bins)),
        )

    def critic_view(self, v: tf.Tensor) -> tf.Tensor:
        """What the critic sees of samples v: all of them."""
        return v


@configurable
class TailNetwork(Composite):
    """Predicts the tail of an edge pixel from its surroundings: what is added to m and to log s.

    images float32 [B, H, W, C] in [0, 1] -> shift, log_factor [B, H, W, C] each; 3x3 convolutions of the image and of
    its masks of either edge, weight-normalised, and a linear layer that starts at zero. log_factor lies in (-3, 3).

    Args:
      width: channels of the convolutions.
      num_layers: convolutions; the output at a pixel depends on pixels at most this many rows and columns away.
    """

    def __init__(self, width: Width = 32, num_layers: Depth = 3, name: str | None = None) -> None:
        super().__init__(name=name)
        self.convs = [WeightNormConv2D(width, name=f"conv_{i}") for i in range(num_layers)]

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.output_conv = WeightNormConv2D(2 * input_shape[-1], kernel_size=1, init_scale=0.0, name="output_conv")
        super().build(input_shape)

    def call(self, images: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h = tf.concat([images, tf.cast(low, tf.float32), tf.cast(high, tf.float32)], -1)
        for conv in self.convs:
            h = tf.nn.elu(conv(h))
        shift, log_factor = tf.split(self.output_conv(h), 2, axis=-1)
        return shift, _LOG_SCALE_BOUND * tf.tanh(log_factor / _LOG_SCALE_BOUND)


@configurable
class EdgeBins(Composite):
    """Boxes that together cover the whole support of the density: the probabilities of all images sum to exactly 1.

        level k     [k/n, (k+1)/n)     v = (x + u) / n                                q(v|x) = n
        level 0     below 1/n          t = t(1/n) - c softplus(m_0 + s_0 e)           e = log u - log(1 - u)
        level n-1   from (n-1)/n on    t = t((n-1)/n) + c softplus(m_1 + s_1 e)       q(t|x) = u (1 - u) / |dt/de|

    u ~ U(0, 1). A tail's location m and scale s are learnt by the bound. They belong to q, not to the model's density,
    and change only how tight the bound is. The logistic e makes q's tails heavier than a Gaussian's, which bounds
    importance weights. t(v) is the preprocessing, c a sixth of t(1) - t(0).
    A sample of the model, clipped to a level, is a draw from these probabilities.

    Args:
      num_bins: n.
      preprocessing: a function that returns an increasing, elementwise `tfb.Bijector` onto the real line.
      tails: None, or a function that returns a layer such as `TailNetwork`, which adds to each pixel's m and log s.
    """

    partition = True

    def __init__(
        self,
        num_bins: int,
        preprocessing: Callable[[], tfp.bijectors.Bijector],
        tails: Callable[..., keras.layers.Layer] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._num_bins = num_bins
        self._preprocessing = preprocessing
        self.tails = None if tails is None else tails(name="tails")
        self.location = self.add_weight(shape=[2], initializer="ones", name="tail_location")
        self.log_scale = self.add_weight(shape=[2], initializer="zeros", name="tail_log_scale")

    def call(self, images: tf.Tensor, noise: Noise) -> Dequantized:
        """Integers [B, H, W, C] -> `Dequantized`."""
        x = tf.cast(images, tf.float32)
        u = noise.uniform(TAG, x.shape[1:]) + _HALF_STEP
        v = (x + u) / self._num_bins
        preprocessing = self._preprocessing()
        low = x == 0.0
        high = x == self._num_bins - 1.0
        edge = low | high
        black, lower, upper, white = self._landmarks(preprocessing)
        location, log_scale = self._places(x, low, high)
        distance, log_tail_density = self._tail(u, location, log_scale, (white - black) / 6.0)
        # Each element by itself: a sum over an added axis of size 1, as some runtimes cannot sum over no axes.
        log_det = preprocessing.forward_log_det_jacobian(v[..., None], event_ndims=1)
        return Dequantized(
            tf.where(edge, tf.where(low, lower - distance, upper + distance), preprocessing.forward(v)),
            _sum(tf.where(edge, 0.0, log_det)),
            _sum(tf.where(edge, -log_tail_density, -math.log(self._num_bins))),
        )

    def _places(self, x, low, high):
        """m and log s of every pixel."""
        location, log_scale = (
            tf.where(low, w[0], w[1]) for w in map(tf.convert_to_tensor, (self.location, self.log_scale))
        )
        if self.tails is None:
            return location, log_scale
        shift, log_factor = self.tails(x / (self._num_bins - 1.0), low, high)
        return location + shift, log_scale + log_factor

    def _tail(self, u, location, log_scale, unit):
        """How far beyond the inner edge of its bin t lies, and log q(t)."""
        log_u = tf.math.log(u)
        log_rest = tf.math.log1p(-u)
        raw = location + tf.exp(log_scale) * (log_u - log_rest)
        log_derivative = tf.math.log(unit) + log_scale + tf.math.log_sigmoid(raw)
        return unit * tf.nn.softplus(raw), log_u + log_rest - log_derivative

    def _landmarks(self, preprocessing):
        """t of black, of the inner edges of the lowest and of the highest level, and of white."""
        n = self._num_bins
        return tf.unstack(preprocessing.forward(tf.constant([0.0, 1.0 / n, (n - 1.0) / n, 1.0])))

    def critic_view(self, v: tf.Tensor) -> tf.Tensor:
        """What the critic sees of samples v: clipped, like the images people get. Clipped pixels get no gradient."""
        return tf.clip_by_value(v, 0.0, 1.0)


@configurable
class NormalEdgeBins(EdgeBins):
    """`EdgeBins` whose tail is, for each pixel, the part of a normal density beyond the edge.

    A coupling is affine in t: given the other pixels, the model's t is normal. The best q for a black pixel is then
    that normal, cut off at the edge. Nearly all of it lies beyond the edge for black background, and little for a black
    pixel beside a shoe. With G the normal distribution's quantile as a function of the logit,

        G(l) = a l / (1 + b l^2)^r,    a = sqrt(2 pi) / 4, b = 0.0805, r = 0.2144: within 0.2 % up to 5 deviations

        distance from the edge = c s (G(m) - G(logit(u sigmoid(m)))),    sigmoid(m): how much of the normal lies beyond

    u ~ U(0, 1). q is the density of exactly this draw, so that the bound holds although G is an approximation. m and
    log s are learnt, and a network of the image adds to them.

    Args:
      num_bins, preprocessing: as for `EdgeBins`.
      tails: a function that returns a layer such as `TailNetwork`.
    """

    def __init__(
        self,
        num_bins: int,
        preprocessing: Callable[[], tfp.bijectors.Bijector],
        tails: Callable[..., keras.layers.Layer] = TailNetwork,
        name: str | None = None,
    ) -> None:
        super().__init__(num_bins, preprocessing, tails, name)

    def _tail(self, u, location, log_scale, unit):
        location = tf.clip_by_value(location, -_LOGIT_BOUND, _LOGIT_BOUND)
        p = u * tf.sigmoid(location)
        log_rest = tf.math.log1p(-p)
        logit = tf.math.log(p) - log_rest
        distance = unit * tf.exp(log_scale) * (_normal_quantile(location) - _normal_quantile(logit))
        log_derivative = tf.math.log(unit) + log_scale + _log_slope(logit) - tf.math.log(u) - log_rest
        return tf.maximum(distance, _LEAST_DISTANCE), -log_derivative


# Of G above, by elementary operations: not every runtime of an exported model has the quantile function.
_SLOPE = math.sqrt(2.0 * math.pi) / 4.0
_BEND = 0.0805
_POWER = 0.2144


def _normal_quantile(logit):
    return _SLOPE * logit * tf.exp(-_POWER * tf.math.log1p(_BEND * tf.square(logit)))


def _log_slope(logit):
    """The logarithm of the quantile's derivative."""
    square = _BEND * tf.square(logit)
    bends = tf.math.log1p((1.0 - 2.0 * _POWER) * square) - (1.0 + _POWER) * tf.math.log1p(square)
    return math.log(_SLOPE) + bends


def uniform(images: tf.Tensor, noise: Noise, num_bins: int) -> tf.Tensor:
    """v = (x + u) / num_bins, u ~ U[0, 1): float32 [B, H, W, C] in [0, 1] (rounding may reach 1)."""
    x = tf.cast(images, tf.float32)
    return (x + noise.uniform(TAG, x.shape[1:])) / num_bins


def _sum(x):
    return tf.reduce_sum(x, [1, 2, 3])
