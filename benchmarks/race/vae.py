"""A hierarchical VAE: latents from 7x7 to 28x28, a posterior that shares the way down with the prior.

After the ladder VAE (Sønderby et al. 2016) and its deep successor (Child 2021): residual blocks without normalisation,
and a mixture of discretised logistics for a pixel (Salimans et al. 2017).
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from benchmarks.race.contestant import SIDE, TorchContestant, average, mixed_precision, to_levels, to_unit
from benchmarks.race.measuring import Bound

_MIXTURE = 5
_HALF_BIN = 1.0 / 255.0


def mixture_log_prob(parameters: Tensor, x: Tensor) -> Tensor:
    """log P of levels under mixtures of discretised logistics.

    Args:
      parameters: float [B, 3 K, H, W]: of each of K logistics its logit, its mean and the log of its scale.
      x: float [B, 1, H, W], levels as `to_unit` gives them; the bin of 0 begins at minus infinity, that of 255 ends at
        infinity.

    Returns:
      float32 [B, H, W], nats.
    """
    logits, means, log_scales = parameters.float().chunk(3, 1)
    inverse = torch.exp(-log_scales.clamp(min=-7.0))
    # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), of which the bins at the ends have one factor each.
    upper = F.logsigmoid((x - means + _HALF_BIN) * inverse)
    lower = F.logsigmoid((means - x + _HALF_BIN) * inverse)
    width = torch.log(-torch.expm1(-2.0 * _HALF_BIN * inverse))
    log_probs = torch.where(x < -0.999, upper, torch.where(x > 0.999, lower, upper + lower + width))
    return (F.log_softmax(logits, 1) + log_probs).logsumexp(1)


def mixture_sample(parameters: Tensor) -> Tensor:
    """Draws from `mixture_log_prob`'s distribution: uint8 [B, 1, H, W]."""
    logits, means, log_scales = parameters.float().chunk(3, 1)
    gumbel = -torch.log(-torch.log(torch.rand_like(logits)))
    chosen = (logits + gumbel).argmax(1, keepdim=True)
    u = torch.rand_like(means[:, :1]).clamp(1e-6, 1.0 - 1e-6)
    scale = log_scales.clamp(min=-7.0).gather(1, chosen).exp()
    return to_levels(means.gather(1, chosen) + scale * torch.logit(u))


class Residual(nn.Module):
    """x + convolutions(x), which are 0 at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Group(nn.Module):
    """Latents of one size: their prior given those above, their posterior given the image too."""

    def __init__(self, width: int, latents: int) -> None:
        super().__init__()

        def gaussian(inputs: int) -> nn.Sequential:
            first = nn.Conv2d(inputs, width, 3, padding=1)
            return nn.Sequential(nn.SiLU(), first, nn.SiLU(), nn.Conv2d(width, 2 * latents, 1))

        self.prior = gaussian(width)
        self.posterior = gaussian(2 * width)
        self.decode = nn.Conv2d(latents, width, 1)
        self.residual = Residual(width)

    def forward(self, h: Tensor, features: Tensor | None) -> tuple[Tensor, Normal, Normal, Tensor]:
        """The way on from h, prior, posterior (the prior again without features of an image), and z."""
        prior = _normal(self.prior(h))
        posterior = prior if features is None else _normal(self.posterior(torch.cat([h, features], 1)))
        z = posterior.rsample()
        return self.residual(h + self.decode(z)), prior, posterior, z


def _normal(parameters: Tensor) -> Normal:
    mean, raw = parameters.float().chunk(2, 1)
    return Normal(mean, F.softplus(raw) + 1e-3, validate_args=False)


class Ladder(nn.Module):
    """The networks. Sizes from the image downwards; groups from the top, the smallest size, downwards again."""

    def __init__(self, widths: tuple, groups: tuple, latents: tuple) -> None:
        super().__init__()
        inputs = 1
        self.up = nn.ModuleList()
        for width in widths:
            enter = nn.Conv2d(inputs, width, 3, 1 if inputs == 1 else 2, 1)
            self.up.append(nn.Sequential(enter, Residual(width), Residual(width)))
            inputs = width
        self.down = nn.ModuleList(
            nn.ModuleList(Group(width, z) for _ in range(count))
            for width, count, z in zip(widths, groups, latents, strict=True)
        )
        self.grow = nn.ModuleList(nn.Conv2d(small, large, 1) for large, small in itertools.pairwise(widths))
        top = SIDE // 2 ** (len(widths) - 1)
        self.start = nn.Parameter(torch.zeros(1, widths[-1], top, top))
        self.out = nn.Sequential(nn.SiLU(), nn.Conv2d(widths[0], 3 * _MIXTURE, 1))
        with torch.no_grad():  # Means from black to white, scales of a quarter of that.
            self.out[-1].bias[_MIXTURE : 2 * _MIXTURE] = torch.linspace(-1.0, 1.0, _MIXTURE)
            self.out[-1].bias[2 * _MIXTURE :] = math.log(0.25)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features of images at every size."""
        features = []
        for blocks in self.up:
            x = blocks(x)
            features.append(x)
        return features

    def forward(self, features: list[Tensor] | None, count: int) -> tuple[Tensor, list]:
        """The mixtures' parameters, and (prior, posterior, z) of each group; samples of the prior without features."""
        h = self.start.expand(count, -1, -1, -1)
        triples = []
        for i in reversed(range(len(self.down))):
            if i < len(self.grow):
                h = F.interpolate(self.grow[i](h), scale_factor=2.0, mode="nearest")
            for group in self.down[i]:
                h, *triple = group(h, None if features is None else features[i])
                triples.append(triple)
        with torch.autocast("cpu", enabled=False):  # bfloat16's numbers near 1 are half a level apart.
            return self.out(h.float()), triples


class VAE(TorchContestant):
    """Bounds by its ELBO, and by importance sampling (Burda et al. 2016)."""

    title = "Hierarchical VAE"
    tuned = "Adam, 1e-3, betas 0.9 and 0.99; the KL's weight up to 1 in a tenth of the time; average 0.999; bfloat16"

    def __init__(self, widths: tuple = (32, 64, 96), groups: tuple = (2, 4, 4), latents: tuple = (2, 4, 8)) -> None:
        super().__init__()
        self.net = Ladder(widths, groups, latents).to(memory_format=torch.channels_last)
        self.averaged = average(self.net)
        self.optimizers = [torch.optim.Adam(self.net.parameters(), 1e-3, (0.9, 0.99))]

    def train_step(self, images: Tensor, fraction: float) -> Tensor:
        log_likelihood, kl = self.elbo(images, self.net)
        return self.descend((min(1.0, fraction / 0.1) * kl - log_likelihood).mean(), self.net, clip=0.5)

    def elbo(self, images: Tensor, net: Ladder) -> tuple[Tensor, Tensor]:
        """log p(x|z) and the KL of all groups, nats [B] each."""
        x = to_unit(images)
        with mixed_precision():
            parameters, triples = net(net.encode(x), len(x))
        kl = sum(kl_divergence(posterior, prior).flatten(1).sum(1) for prior, posterior, _ in triples)
        return _likelihood(parameters, x), kl

    def nats(self, images: Tensor, samples: int) -> Tensor:
        """-log of the mean of `samples` importance weights, [B]."""
        x = to_unit(images)
        net = self.averaged.module
        weights = []
        with mixed_precision():
            features = net.encode(x)
            for _ in range(samples):
                parameters, triples = net(features, len(x))
                ratios = (prior.log_prob(z) - posterior.log_prob(z) for prior, posterior, z in triples)
                weights.append(sum((ratio.flatten(1).sum(1) for ratio in ratios), _likelihood(parameters, x)))
        return math.log(samples) - torch.logsumexp(torch.stack(weights), 0)

    def draw(self, count: int) -> Tensor:
        with mixed_precision():
            parameters, _ = self.averaged.module(None, count)
        return mixture_sample(parameters)

    def bounds(self) -> list[Bound]:
        return [Bound(f"K = {k}", bits, bits) for k in (16, 1) for bits in [self.bits(self.nats, samples=k)]]


def _likelihood(parameters: Tensor, x: Tensor) -> Tensor:
    return mixture_log_prob(parameters, x).flatten(1).sum(1)
