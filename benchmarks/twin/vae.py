"""The hierarchical VAEs of Table 1 and of Table 6 (appendix A; Kingma et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.twin.latents import IAF, clamped, draw_posterior, log_normal
from benchmarks.twin.layers import Conv, Deconv, Dense

if TYPE_CHECKING:
    from benchmarks.twin.noise import Noise


class BottomUp(nn.Module):
    """Features, and this resolution's part of the posterior: mean, log-scale and context of the IAF."""

    def __init__(self, inputs: int, filters: int, down: bool, latents: int, context: int, residual: bool) -> None:
        super().__init__()
        self.sizes = [latents, latents, context, filters]
        self.down = down
        self.conv = Conv(inputs, sum(self.sizes), 4 if down and not residual else 3, 2 if down else 1)
        self.residual_conv = Conv(filters, filters) if residual else None
        self.shortcut = Conv(inputs, filters, 1) if residual and (down or inputs != filters) else None

    def forward(self, x: torch.Tensor) -> tuple:
        first = self.residual_conv is None and not self.down  # A plain net's first block sees y itself.
        *evidence, features = self.conv(x if first else F.elu(x)).split(self.sizes, 1)
        if self.residual_conv is None:
            return features, evidence
        skip = F.avg_pool2d(x, 2) if self.down else x
        skip = skip if self.shortcut is None else self.shortcut(skip)
        return skip + 0.1 * self.residual_conv(F.elu(features)), evidence


class TopDown(nn.Module):
    """Features from above, the latents of this resolution, features for below."""

    def __init__(
        self, inputs: int, filters: int, up: type[nn.Module] | None, latents: int, iaf: bool, residual: bool
    ) -> None:
        super().__init__()
        self.latents = latents
        self.up = up is not None
        features = filters if residual else filters - latents  # A plain block's latents are some of its maps.
        self.sizes = [latents] * 4 + [filters if iaf else 0, features]
        widen = up or Conv
        self.conv = (Conv if residual else widen)(inputs, sum(self.sizes))
        self.iaf = IAF(latents, filters) if iaf else None
        self.residual_conv = widen(filters + latents, filters) if residual else None
        self.shortcut = Conv(inputs, filters, 1) if residual and inputs != filters else None

    def forward(
        self, x: torch.Tensor, normal: Callable, evidence: tuple | None = None, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws from the posterior if there is `evidence`, otherwise from the prior.

        Args:
          x: [B, I, H, W].
          normal: a function of a shape (C, H, W) that gives standard normal noise [B, C, H, W].

        Returns:
          features, and log q - log p of each latent (None from the prior).
        """
        *parts, context, features = self.conv(F.elu(x)).split(self.sizes, 1)
        prior_mean, prior_log_scale, mean, log_scale = parts
        prior_log_scale = clamped(prior_log_scale)
        epsilon = normal((self.latents, *features.shape[2:]))
        if evidence is None:
            z = prior_mean + temperature * prior_log_scale.exp() * epsilon
            kl = None
        else:
            z, log_q = draw_posterior(
                mean + evidence[0], log_scale + evidence[1], epsilon, self.iaf, context + evidence[2]
            )
            kl = log_q - log_normal(z, prior_mean, prior_log_scale)
        features = torch.cat([features, z], 1)
        if self.residual_conv is None:
            return features, kl
        skip = x if self.shortcut is None else self.shortcut(x)
        skip = F.interpolate(skip, scale_factor=2, mode="nearest") if self.up else skip
        return skip + 0.1 * self.residual_conv(F.elu(features)), kl


class VAE(nn.Module):
    """p(y|z) = N(mu(z), sigma^2), latents drawn from the top downwards; colour images.

    Args:
      height, width: of the images.
      widths: feature maps from the images' resolution up to the top.
      stem: feature maps of the first convolution; residual blocks have one, plain ones (None) do not.
      top: latents at the top, a vector (plain) or feature maps (residual).
      latents: latent feature maps of every top-down block.
      iaf: whether posteriors have an inverse autoregressive step.
      blocks: residual blocks at each resolution.
      up: what doubles the resolution.
    """

    def __init__(
        self,
        height: int,
        width: int,
        widths: Sequence[int],
        stem: int,
        top: int,
        latents: int,
        iaf: bool,
        blocks: int = 1,
        up: type[nn.Module] = Deconv,
    ) -> None:
        super().__init__()
        residual = stem is not None
        count = len(widths)
        lowest = (height >> count - 1, width >> count - 1)
        self.stem = Conv(3, stem, 3) if residual else nn.Identity()
        self.bottom_up = nn.ModuleList()
        self.top_down = nn.ModuleList()
        inputs = stem if residual else 3
        places = [(i, j) for i in range(count) for j in range(blocks)]
        for i, j in places:
            filters = widths[i]
            has_latents = residual or i < count - 1  # Plain: the smallest map has the vector at the top alone.
            # The context is as wide as the top-down block's features that it meets.
            sizes = (latents, filters if iaf else 0) if has_latents else (0, 0)
            self.bottom_up.append(BottomUp(inputs, filters, i > 0 and j == 0, *sizes, residual))
            inputs = filters
        above = widths[-1]
        for i, j in reversed(places if residual else places[:-1]):
            doubles = not residual or (i > 0 and j == 0)
            self.top_down.append(TopDown(above, widths[i], up if doubles else None, latents, iaf, residual))
            above = widths[i]
        self.residual = residual
        self.top_shape: tuple[int, ...]
        if residual:
            self.top_shape = (top, *lowest)
            self.map_shape = None
            self.posterior = Conv(widths[-1], 2 * top)
            self.decoder = Conv(top, widths[-1])
        else:
            self.top_shape = (top,)
            self.map_shape = (widths[-1], *lowest)
            flat = widths[-1] * lowest[0] * lowest[1]
            self.posterior = Dense(flat, 2 * top)
            self.decoder = Dense(top, flat)
        self.output = Conv(widths[0], 3)
        self.log_sigma = nn.Parameter(torch.zeros([]))

    def infer(self, y: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """mu(z) of a sample z of q(z|y), and the groups' log q - log p, [B] each, the top first."""
        features = self.stem(y)
        evidence = []
        for block in self.bottom_up:
            features, part = block(features)
            if part[0].shape[1]:
                evidence.append(part)
        features = F.elu(features)
        statistics = self.posterior(features if self.residual else features.flatten(1))
        h, log_q = draw_posterior(*statistics.chunk(2, 1), noise.normal("latents/top", self.top_shape))  # type: ignore
        kls = [(log_q - log_normal(h, torch.zeros_like(h), torch.zeros_like(h))).flatten(1).sum(1)]
        mean = self._descend(h, noise, kls, evidence[::-1])
        return mean, kls

    def sample_mean(self, noise: Noise, temperature: float = 1.0) -> torch.Tensor:
        """mu(z) of z ~ p(z)."""
        return self._descend(temperature * noise.normal("latents/top", self.top_shape), noise, None, None, temperature)

    def _descend(self, h, noise, kls, evidence, temperature=1.0):
        features = self.decoder(h)
        if not self.residual:
            features = features.unflatten(1, self.map_shape)
        for i, block in enumerate(self.top_down):
            features, kl = block(
                features,
                lambda shape, i=i: noise.normal(f"latents/top_down_{i}", shape),
                None if evidence is None else evidence[i],
                temperature,
            )
            if kl is not None:
                kls.append(kl.sum([1, 2, 3]))
        return self.output(F.elu(features))

    def log_likelihood(self, y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """log N(y; mean, sigma^2), [B], nats."""
        return log_normal(y, mean, self.log_sigma).sum([1, 2, 3])
