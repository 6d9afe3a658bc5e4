"""Gaussians and the inverse autoregressive flow (appendices A.1 and A.2; Kingma et al. 2016)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.twin.layers import MaskedConv

CLAMP = 7.0


def clamped(log_scale: torch.Tensor) -> torch.Tensor:
    """A log-scale softly clamped to +-7."""
    return CLAMP * torch.tanh(log_scale / CLAMP)


def log_normal(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """log N(x; mean, exp(log_scale)^2) of each element, nats."""
    return -0.5 * ((x - mean) * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2.0 * math.pi)


class IAF(nn.Module):
    """z = (z0 - shift(z0)) exp(-log_scale(z0)): two hidden masked convolutions, the context added after the first.

    Args:
      channels: of the latents.
      width: of the hidden layers and of the context.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        latents = torch.arange(channels)
        hidden = torch.arange(width) * channels // width
        self.hidden_0 = MaskedConv(latents, hidden, strict=False)
        self.hidden_1 = MaskedConv(hidden, hidden, strict=False)
        self.output = MaskedConv(hidden, latents.repeat(2), strict=True)

    def forward(self, z0: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z and the elements of log|dz/dz0|, both in the shape of z0 [B, C, H, W]."""
        h = F.elu(self.hidden_0(z0) + context)
        h = F.elu(self.hidden_1(h))
        shift, log_scale = (0.1 * self.output(h)).chunk(2, 1)
        return (z0 - shift) * torch.exp(-log_scale), -log_scale


def draw_posterior(
    mean: torch.Tensor,
    log_scale: torch.Tensor,
    epsilon: torch.Tensor,
    iaf: IAF | None = None,
    context: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample z of the posterior and log q(z|y) of each element."""
    log_scale = clamped(log_scale)
    z = mean + log_scale.exp() * epsilon
    log_q = log_normal(z, mean, log_scale)
    if iaf is not None:
        z, log_det = iaf(z, context)
        log_q = log_q - log_det
    return z, log_q
