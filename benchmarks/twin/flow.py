"""Logit preprocessing and the Real-NVP head (section 4.1; Dinh et al. 2017)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.twin.layers import BatchNorm, Conv

LOGIT_MARGIN = 0.05


def logit(v: torch.Tensor, summed: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """t = logit(a + (1 - 2a) v) and log|det dt/dv| [B] (or of each element), for v [B, C, H, W] in [0, 1]."""
    t = torch.logit(LOGIT_MARGIN + (1.0 - 2.0 * LOGIT_MARGIN) * v)
    # d logit(s) / ds = 1 / (s (1 - s)), and ln s = -softplus(-t), ln(1 - s) = -softplus(t).
    elementwise = F.softplus(-t) + F.softplus(t) + math.log(1.0 - 2.0 * LOGIT_MARGIN)
    return t, elementwise.sum([1, 2, 3]) if summed else elementwise


def inverse_logit(t: torch.Tensor) -> torch.Tensor:
    """v = (sigmoid(t) - a) / (1 - 2a)."""
    return (torch.sigmoid(t) - LOGIT_MARGIN) / (1.0 - 2.0 * LOGIT_MARGIN)


class ResidualBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_0 = BatchNorm(width)
        self.conv_0 = Conv(width, width)
        self.norm_1 = BatchNorm(width)
        self.conv_1 = Conv(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_1(F.relu(self.norm_1(self.conv_0(F.relu(self.norm_0(x))))))


class Coupling(nn.Module):
    """An affine coupling: what the mask shows passes, the rest is scaled and shifted by a network of what passes."""

    def __init__(self, mask: torch.Tensor, width: int, num_blocks: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)  # [1, 1, H, W]
        channels = 3
        self.input_norm = BatchNorm(channels)
        self.input_conv = Conv(2 * channels + 1, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(num_blocks))
        self.output_norm = BatchNorm(width)
        self.output_conv = Conv(width, 2 * channels, kernel=1)
        self.log_scale_bound = nn.Parameter(torch.ones(channels))

    def _log_scale_and_shift(self, x):
        conditions = self.input_norm(x * self.mask) * self.mask
        h = self.input_conv(torch.cat([conditions, -conditions, self.mask.expand(len(x), -1, -1, -1)], 1))
        for block in self.blocks:
            h = block(h)
        log_scale, shift = self.output_conv(F.relu(self.output_norm(h))).chunk(2, 1)
        log_scale = self.log_scale_bound[:, None, None] * torch.tanh(log_scale)
        return log_scale * (1.0 - self.mask), shift * (1.0 - self.mask)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_scale, shift = self._log_scale_and_shift(x)
        return x * log_scale.exp() + shift, log_scale.sum([1, 2, 3])

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        log_scale, shift = self._log_scale_and_shift(y)
        return (y - shift) * (-log_scale).exp()


class InvertibleBatchNorm(BatchNorm):
    """Batch normalisation as a bijector: its log-det is that of the channels' scales."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        variance = x.var([0, 2, 3], correction=0) if self.training else self.variance
        log_det = -0.5 * (variance + self.epsilon).log().sum() * (x.shape[2] * x.shape[3])
        return super().forward(x), log_det

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        scale = (self.variance + self.epsilon).sqrt()
        return y * scale[:, None, None] + self.mean[:, None, None]


class RealNVP(nn.Module):
    """Couplings on alternating checkerboards with batch normalisation between them, colour images, one scale."""

    def __init__(
        self, height: int, width_of_images: int, width: int = 30, num_couplings: int = 3, num_blocks: int = 2
    ) -> None:
        super().__init__()
        board = (torch.arange(height)[:, None] + torch.arange(width_of_images)[None]) % 2
        masks = [(board == i % 2).float()[None, None] for i in range(num_couplings)]
        self.couplings = nn.ModuleList(Coupling(mask, width, num_blocks) for mask in masks)
        self.norms = nn.ModuleList(InvertibleBatchNorm(3) for _ in range(num_couplings - 1))

    def _steps(self):
        for i, coupling in enumerate(self.couplings):
            yield coupling
            if i < len(self.norms):
                yield self.norms[i]

    def forward(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """t [B, C, H, W] -> y and log|det dy/dt| [B]."""
        log_det = 0.0
        for step in self._steps():
            t, term = step(t)
            log_det = log_det + term
        return t, log_det

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """y -> t; the caller puts the module into evaluation mode: running averages, not the batch's."""
        for step in reversed(list(self._steps())):
            y = step.inverse(y)
        return y
