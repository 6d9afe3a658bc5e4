"""The Real-NVP head f (section 4.1, appendices A.4 and C; Dinh et al. 2017)."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pivae.arguments import divisible_sides
from tf_pivae.bijectors.base import with_own_cache
from tf_pivae.bijectors.coupling import AffineCoupling, channel_mask, checkerboard_mask, squeezed_checkerboard_mask
from tf_pivae.bijectors.factor_out import FactorOut
from tf_pivae.bijectors.normalization import ChannelAffine, ChannelNormalization
from tf_pivae.bijectors.squeeze import Squeeze
from tf_pivae.configurable import Depth, Width, Widths, configurable
from tf_pivae.layers.composite import Composite
from tf_pivae.layers.convolution import ConvolutionPrecision
from tf_pivae.layers.moments import BatchNorm, RunningMoments
from tf_pivae.layers.rematerialization import keep
from tf_pivae.layers.weight_norm import WeightNormConv2D, initializing
from tf_pivae.values import Within

tfb = tfp.bijectors

_MAX_COUPLINGS = 64  # In a row; the paper's longest has 8 blocks and couplings.


class Conditioner(keras.layers.Layer):
    """The network that gives a coupling's log-scale and shift: residual convolutions of the masked image.

    x float32 [B, H, W, C] -> log_scale, shift [B, H, W, C] each. A trainable vector bounds the log-scale:
    log_scale = bound * tanh(.). All convolutions are weight-normalised; with `norm` "batch" there is batch
    normalisation too (appendix A.4). The last layer starts at zero, so that the coupling starts as the identity. The
    input is [x, -x, mask], where the mask tells masked pixels from zeros.

    In mixed precision all activations between input and output are bfloat16; with `exact`, all are float32. The inverse
    computes a conditioner's input again, with float32's rounding errors. Rounded to bfloat16, some values would then go
    up that went down before, and the inverse would be off by bfloat16's error. A training step never inverts what it
    has computed, so it need not be exact.
    """

    def __init__(self, mask: np.ndarray, width: int, num_blocks: int, norm: str, name: str | None = None) -> None:
        super().__init__(name=name)
        self._mask = mask
        self._channels = mask.shape[-1]
        self.precision = ConvolutionPrecision()

        def normalization(name):
            return BatchNorm(name=name) if norm == "batch" else None

        self.input_norm = normalization("input_norm")
        self.input_conv = WeightNormConv2D(width, name="input_conv")
        self.blocks = [
            (
                normalization(f"block_{i}_norm_0"),
                WeightNormConv2D(width, name=f"block_{i}_conv_0"),
                normalization(f"block_{i}_norm_1"),
                WeightNormConv2D(width, name=f"block_{i}_conv_1", init_scale=0.1),
            )
            for i in range(num_blocks)
        ]
        self.output_norm = normalization("output_norm")
        self.output_conv = WeightNormConv2D(2 * self._channels, kernel_size=1, init_scale=0.0, name="output_conv")

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.log_scale_bound = self.add_weight(shape=[self._channels], initializer="ones", name="log_scale_bound")

    def call(self, x: tf.Tensor, training: bool = False, exact: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
        def rectified(norm, h):
            return tf.nn.relu(h) if norm is None else norm(h, training=training, activation=tf.nn.relu)

        def rectified_conv(conv, norm, h):
            # With running averages, the normalisation becomes a part of the convolution before it.
            folds = norm is not None and not training and norm.built
            if folds:
                return tf.nn.relu(conv(h, affine=norm.affine, exact=exact))
            return rectified(norm, conv(h, exact=exact))

        if self.input_norm is not None:
            x = self.input_norm(x, training=training)
        x *= self._mask  # Masked pixels stay 0; only `mask` tells that they are masked.
        mask = tf.broadcast_to(self._mask[..., :1], [*tf.unstack(tf.shape(x))[:3], 1])
        h = self.input_conv(self.precision.rounded(tf.concat([x, -x, mask], -1), exact), exact=exact)
        for norm_0, conv_0, norm_1, conv_1 in self.blocks:
            r = rectified_conv(conv_0, norm_1, rectified(norm_0, h))
            h += conv_1(r, exact=exact)
        h = self.output_conv(rectified(self.output_norm, h), exact=exact)
        log_scale, shift = tf.split(tf.cast(h, tf.float32), 2, axis=-1)
        return self.log_scale_bound * tf.tanh(log_scale), shift


class _Couplings(Composite):
    """`num_couplings` couplings whose masks alternate, with invertible normalisation between them."""

    def __init__(
        self,
        make_mask: Callable[..., np.ndarray],
        shape: tuple[int, int, int],
        num_couplings: int,
        num_blocks: int,
        width: int,
        norm: str,
        call_block: Callable,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._call_block = call_block
        self._masks = [make_mask(*shape, parity=i % 2) for i in range(num_couplings)]
        self._norm = norm
        self._shape = shape
        self.conditioners = [
            Conditioner(mask, width, num_blocks, norm, name=f"coupling_{i}") for i, mask in enumerate(self._masks)
        ]
        self.norms = [
            RunningMoments(name=f"norm_{i}") if norm == "batch" else ActNorm(shape[-1], name=f"norm_{i}")
            for i in range(num_couplings - 1 if norm != "none" else 0)
        ]
        for layer in self.norms:
            layer.build([None, *shape])

    def bijectors(self, training):
        """The bijectors in the order in which they are applied to an image."""
        steps = []
        for i, (conditioner, mask) in enumerate(zip(self.conditioners, self._masks, strict=True)):
            network = functools.partial(self._call_block, conditioner, exact=not training)
            steps.append(AffineCoupling(functools.partial(network, training=training), mask, network))
            if i < len(self.norms):
                steps.append(self._normalization(self.norms[i], training))
        return steps

    def _normalization(self, layer, training):
        if self._norm == "act":
            return layer.bijector()
        return ChannelNormalization(
            forward_moments=lambda x: layer(x, training=training),
            inverse_moments=lambda: (tf.convert_to_tensor(layer.mean), tf.convert_to_tensor(layer.variance)),
        )


class ActNorm(keras.layers.Layer):
    """The variables of actnorm; its data-dependent initialisation normalises the first batch."""

    def __init__(self, channels: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self._channels = channels

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.shift = self.add_weight(shape=[self._channels], initializer="zeros", name="shift")
        self.log_scale = self.add_weight(shape=[self._channels], initializer="zeros", name="log_scale")

    def bijector(self) -> tfb.Bijector:
        return _InitializedChannelAffine(self)


class _InitializedChannelAffine(ChannelAffine):
    """`ChannelAffine` that sets its variables from the batch during the data-dependent initialisation."""

    def __init__(self, layer: ActNorm) -> None:
        super().__init__(tf.convert_to_tensor(layer.shift), tf.convert_to_tensor(layer.log_scale))
        self._layer = layer

    def _forward_pair(self, x):
        if initializing():
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            self._layer.shift.assign(-mean)
            self._layer.log_scale.assign(-0.5 * tf.math.log(variance + 1e-4))
            self._shift = tf.convert_to_tensor(self._layer.shift)
            self._log_scale = tf.convert_to_tensor(self._layer.log_scale)
        return super()._forward_pair(x)


@configurable
class RealNVP(Composite):
    """Holds the networks of the head; `bijector` builds the bijector around them.

    One scale: `num_couplings` checkerboard couplings. Every further scale is reached by a squeeze, `num_couplings`
    channel-wise couplings, and factoring out half of the channels; the parts are put back in their places, so that
    the result has the image's own shape whatever the number of scales (appendix A.4).

    Args:
      image_shape: (H, W, C); H and W divisible by 2^(num_scales - 1).
      num_scales: 1 in the paper unless stated otherwise.
      num_couplings: couplings in a row, 3 in the paper.
      num_blocks: residual blocks of each conditioner, 2 in the paper.
      width: channels of the conditioners; or a list with as many numbers as scales, one for each resolution, from the
        image's own down. Real-NVP's multi-scale architecture doubles them at every squeeze.
      norm: "batch", "act" or "none": the invertible normalisation between couplings; "batch" also puts batch
        normalisation inside the conditioners, as the reference implementation of Real-NVP does.
      call_block: `keep`, or `rematerialized`, which trades time for memory: how a conditioner is called.
      squeezed_checkerboards: checkerboard couplings work on squeezed images, where their masks are channels, wherever
        the sides are even: the same pixels are transformed given the same pixels, by a network at half the resolution.

    Examples:
      >>> head = RealNVP((4, 4, 1), num_scales=2, num_couplings=2, num_blocks=0, width=4, norm="none")
      >>> t = tf.random.stateless_normal([2, 4, 4, 1], [0, 0])
      >>> bool(tf.reduce_all(head.bijector().forward(t) == t))  # A new head is the identity.
      True
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_scales: Depth = 1,
        num_couplings: Annotated[int, Within(1, _MAX_COUPLINGS)] = 3,
        num_blocks: Annotated[int, Within(0, _MAX_COUPLINGS)] = 2,
        width: Width | Widths = 32,
        norm: Literal["batch", "act", "none"] = "batch",
        call_block: Callable = keep,
        squeezed_checkerboards: bool = False,
        name: str = "real_nvp",
    ) -> None:
        super().__init__(name=name)
        self.couples_images = norm == "batch"  # In training, when the moments are those of a batch.
        height, image_width, channels = image_shape
        divisible_sides(image_shape, num_scales - 1, "a smaller `num_scales`")
        options: dict[str, Any] = dict(num_couplings=num_couplings, num_blocks=num_blocks, norm=norm)
        options.update(call_block=call_block)
        widths = [width] * num_scales if isinstance(width, int) else width
        if len(widths) != num_scales:
            raise ValueError(f"`width` has {len(widths)} numbers for {num_scales} scales: give one, or one for each.")
        self.scales = []
        self._squeezed = []  # Of each scale, whether its checkerboards are.
        shape = (height, image_width, channels)
        for i in range(num_scales):
            even = not (shape[0] % 2 or shape[1] % 2)
            squeezed = (shape[0] // 2, shape[1] // 2, shape[2] * 4)
            self._squeezed.append(squeezed_checkerboards and even)
            checkerboards = (squeezed_checkerboard_mask, squeezed) if self._squeezed[i] else (checkerboard_mask, shape)
            stages = [_Couplings(*checkerboards, width=widths[i], **options, name=f"scale_{i}_checkerboard")]
            if i < num_scales - 1:
                stages.append(
                    _Couplings(channel_mask, squeezed, width=widths[i + 1], **options, name=f"scale_{i}_channels")
                )
                shape = (*squeezed[:2], squeezed[2] // 2)
            self.scales.append(stages)

    def bijector(self, training: bool = False) -> tfb.Bijector:
        """The head as a `tfb.Bijector`, forward = from the image's side t to the VAE's side y.

        Args:
          training: bool; batch moments in `forward` and updates of the running averages. `inverse` always uses the
            running averages. Without it `inverse` is the exact inverse of `forward`, and all of it float32.
        """
        return self._from_scale(0, training)

    def _from_scale(self, i, training):
        checkerboards, *channels = [stage.bijectors(training) for stage in self.scales[i]]
        inner = [*channels[0], FactorOut(self._from_scale(i + 1, training))] if channels else []
        if self._squeezed[i]:
            steps = _between_squeezes([*checkerboards, *inner])
        else:
            steps = [*checkerboards, *(_between_squeezes(inner) if inner else [])]
        return with_own_cache(tfb.Chain(steps[::-1], name=f"real_nvp_scale_{i}"))


def _between_squeezes(steps):
    return [Squeeze(), *steps, with_own_cache(tfb.Invert(Squeeze()))]
