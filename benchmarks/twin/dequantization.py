"""From levels to the preprocessing's output t: the paper's uniform dequantisation, and bins that cover all of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.twin.flow import logit
from benchmarks.twin.layers import Conv

if TYPE_CHECKING:
    from benchmarks.twin.noise import Noise

TAG = "dequantisation"


class Uniform(nn.Module):
    """v = (x + u) / 256; gives t, log|det dt/dv| and -log q(v|x), each [B]."""

    def forward(self, images: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        t, log_det = logit(dequantize(images, noise))
        return t, log_det, torch.full_like(log_det, -images[0].numel() * math.log(256.0))

    def critic_view(self, v: torch.Tensor) -> torch.Tensor:
        """The critic sees samples as they are."""
        return v


class TailNetwork(nn.Module):
    """What is added to m and log s of every pixel: convolutions of the image and of where it is black, and white."""

    def __init__(self, channels: int, width: int, num_layers: int = 3) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Conv(width if i else 3 * channels, width) for i in range(num_layers)])
        self.output_conv = Conv(width, 2 * channels, kernel=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.cat([images / 255.0, (images == 0.0).float(), (images == 255.0).float()], 1)
        for conv in self.convs:
            h = F.elu(conv(h))
        shift, log_factor = self.output_conv(h).chunk(2, 1)
        return shift, 3.0 * torch.tanh(log_factor / 3.0)


class EdgeBins(nn.Module):
    """Level 0 owns all below 1/256, level 255 all from 255/256 on: t = edge -+ c softplus(m + s e), e logistic."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.ones(2))
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, images: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        u = noise.uniform(TAG, tuple(images.shape[1:])) + 2.0**-24
        levels = images.float()
        t, elementwise = logit((levels + u) / 256.0, summed=False)
        edges, _ = logit(torch.tensor([0.0, 1.0 / 256.0, 255.0 / 256.0, 1.0]), summed=False)
        unit = (edges[3] - edges[0]) / 6.0
        log_q = torch.full_like(t, math.log(256.0))
        inner = torch.ones_like(t)
        shift, log_factor = self.network(levels)
        for i, (level, edge, sign) in enumerate([(0.0, edges[1], -1.0), (255.0, edges[2], 1.0)]):
            is_level = levels == level
            distance, log_tail = self.tail(u, self.location[i] + shift, self.log_scale[i] + log_factor)
            t = torch.where(is_level, edge + sign * unit * distance, t)
            log_q = torch.where(is_level, log_tail - unit.log(), log_q)
            inner = torch.where(is_level, 0.0, inner)
        return t, (inner * elementwise).sum([1, 2, 3]), -log_q.sum([1, 2, 3])

    def network(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to m and log s."""
        return levels.new_zeros(()), levels.new_zeros(())

    def tail(self, u: torch.Tensor, m: torch.Tensor, log_s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The distance from the edge and its log-density, by the change of variables from the logistic e."""
        density = torch.distributions.TransformedDistribution(
            torch.distributions.Uniform(0.0, 1.0), [torch.distributions.SigmoidTransform().inv]
        )
        logistic = torch.logit(u)
        raw = m + log_s.exp() * logistic
        return F.softplus(raw), density.log_prob(logistic) - log_s - F.logsigmoid(raw)

    def critic_view(self, v: torch.Tensor) -> torch.Tensor:
        """The critic sees samples as images are shown."""
        return v.clamp(0.0, 1.0)


class NormalEdgeBins(EdgeBins):
    """Its tails are truncated normals, nearly, whose places a network knows: the derivative of the draw by autograd."""

    def __init__(self, tails: TailNetwork) -> None:
        super().__init__()
        self.tails = tails

    def network(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tails(levels)

    def tail(self, u: torch.Tensor, m: torch.Tensor, log_s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        m = m.clamp(-20.0, 20.0)
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            distance = log_s.exp() * (self.quantile(m) - self.quantile(torch.logit(u * torch.sigmoid(m))))
            (slope,) = torch.autograd.grad(distance.sum(), u, create_graph=True)
        return distance.clamp(min=1e-6), -slope.abs().log()

    def quantile(self, logit: torch.Tensor) -> torch.Tensor:
        """The normal distribution's, of the probability sigmoid(logit)."""
        return math.sqrt(2.0 * math.pi) / 4.0 * logit / (1.0 + 0.0805 * logit**2) ** 0.2144


def dequantize(images: torch.Tensor, noise: Noise) -> torch.Tensor:
    """(x + u) / 256: what the critic sees of images."""
    return (images + noise.uniform(TAG, tuple(images.shape[1:]))) / 256.0
