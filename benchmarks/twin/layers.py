"""Convolutions with the padding of TensorFlow and the weight normalisation of Salimans & Kingma (2016)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def conv_same(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Convolution whose output has ceil(side / stride) pixels a side; an odd pixel of padding goes right and below.

    Args:
      x: [B, I, H, W].
      weight: [O, I, k, k].
      bias: [O].
    """
    kernel = weight.shape[-1]
    padding = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding += [total // 2, total - total // 2]
    if len(set(padding)) == 1:
        return F.conv2d(x, weight, bias, stride, padding[0])
    return F.conv2d(F.pad(x, padding), weight, bias, stride)


class WeightNorm(nn.Module):
    """w = g v / ||v||, one norm and one gain an output channel."""

    output_axis = 0  # Of `v`.

    def __init__(self, filters: int, *direction_shape: int) -> None:
        super().__init__()
        self.v = nn.Parameter(0.05 * torch.randn(direction_shape))
        self.g = nn.Parameter(torch.ones(filters))
        self.b = nn.Parameter(torch.zeros(filters))

    def weight(self) -> torch.Tensor:
        """The weight, in the shape of `v`."""
        v = self.direction()
        axes = [axis for axis in range(v.dim()) if axis != self.output_axis]
        gain = self.g * torch.rsqrt(v.square().sum(axes) + 1e-12)
        return v * gain.reshape([-1 if axis == self.output_axis else 1 for axis in range(v.dim())])

    def direction(self) -> torch.Tensor:
        return self.v


class Dense(WeightNorm):
    """[B, I] -> [B, filters]."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__(filters, filters, inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight(), self.b)


class Conv(WeightNorm):
    """[B, I, H, W] -> [B, filters, H / stride, W / stride]."""

    def __init__(self, inputs: int, filters: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(filters, filters, inputs, kernel, kernel)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return conv_same(x, self.weight(), self.b, self.stride)


class Deconv(WeightNorm):
    """A 4x4 deconvolution with stride 2: [B, I, H, W] -> [B, filters, 2 H, 2 W]."""

    output_axis = 1

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__(filters, inputs, filters, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self.weight(), self.b, stride=2, padding=1)


class Nearest(WeightNorm):
    """Every pixel twice along each side, then a 3x3 convolution; its kernel lies as a deconvolution's does."""

    output_axis = 1

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__(filters, inputs, filters, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight().transpose(0, 1).flip(2, 3)
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, self.b, padding=1)


class MaskedConv(Conv):
    """A 3x3 convolution over what comes before in raster order, then in the order of the latent channels.

    Args:
      degrees_in, degrees_out: the latent channel that each channel belongs to, int tensors [I] and [O].
      strict: whether a pixel's own channel is hidden too.
    """

    def __init__(self, degrees_in: np.ndarray, degrees_out: np.ndarray, strict: bool) -> None:
        super().__init__(len(degrees_in), len(degrees_out))
        before = torch.zeros(3, 3)
        before.view(-1)[:4] = 1.0
        mask = before.repeat(len(degrees_out), len(degrees_in), 1, 1)
        difference = degrees_out[:, None] - degrees_in[None, :]
        mask[:, :, 1, 1] = (difference > 0 if strict else difference >= 0).float()
        self.register_buffer("mask", mask)

    def direction(self) -> torch.Tensor:
        return self.v * self.mask


class BatchNorm(nn.Module):
    """Moments of the batch in training, and running averages (with the biased variance) that follow them by a tenth.

    Args:
      affine: whether a trainable scale and offset follow.
    """

    epsilon = 1e-4

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.gamma = nn.Parameter(torch.ones(channels)) if affine else None
        self.beta = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.batch_norm(x, self.mean, self.variance, self.gamma, self.beta, eps=self.epsilon)
        mean = torch.zeros_like(self.mean)
        variance = torch.zeros_like(self.variance)
        out = F.batch_norm(x, mean, variance, self.gamma, self.beta, training=True, momentum=1.0, eps=self.epsilon)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            self.mean.lerp_(mean, 0.1)
            self.variance.lerp_(variance * ((count - 1) / count), 0.1)  # PyTorch's is the unbiased one.
        return out
