"""The joint model: equation (6), and its sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from benchmarks.twin.dequantization import Uniform
from benchmarks.twin.flow import inverse_logit

if TYPE_CHECKING:
    from benchmarks.twin.flow import RealNVP
    from benchmarks.twin.noise import Noise
    from benchmarks.twin.vae import VAE


class Bound(NamedTuple):
    """The bound on log P(x) and its terms, nats."""

    log_prob: torch.Tensor  # [B]
    reconstruction: torch.Tensor  # [B], log p(y|z)
    kl: list  # of [B], the top first
    flow_log_det: torch.Tensor  # [B]
    preprocessing_log_det: torch.Tensor  # [B]
    discretisation: torch.Tensor  # [B], -log q(v|x)


class PiVAE(nn.Module):
    """Dequantisation with the logit, Real-NVP, VAE; images uint8 [B, 3, H, W].

    `noise` gives a batch's random numbers: `normal(tag, shape)`, `uniform(tag, shape)` -> [B, *shape], and `fold_in(k)`
    gives another, independent batch of them.
    """

    def __init__(self, flow: RealNVP | None, vae: VAE, dequantization: nn.Module | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.vae = vae
        self.dequantization = dequantization or Uniform()

    def bound(self, images: torch.Tensor, noise: Noise) -> Bound:
        """One-sample `Bound`; batch statistics in training mode."""
        t, preprocessing_log_det, discretisation = self.dequantization(images, noise)
        y, flow_log_det = self.flow(t)
        mean, kl = self.vae.infer(y, noise)
        reconstruction = self.vae.log_likelihood(y, mean)
        log_prob = reconstruction - sum(kl) + flow_log_det + preprocessing_log_det + discretisation
        return Bound(log_prob, reconstruction, kl, flow_log_det, preprocessing_log_det, discretisation)

    def forward(self, images: torch.Tensor, noise: Noise) -> torch.Tensor:
        """The bound [B] alone."""
        return self.bound(images, noise).log_prob

    def sample_continuous(
        self, images_shape: tuple[int, int, int], noise: Noise, temperature: float = 1.0, sample_noise: float = 1.0
    ) -> torch.Tensor:
        """Samples v [B, C, H, W], images on [0, 1]; differentiable. `images_shape` is (C, H, W)."""
        mean = self.vae.sample_mean(noise, temperature)
        sigma = sample_noise * self.vae.log_sigma.exp()
        return self.to_images(mean + sigma * noise.normal("observation", images_shape))

    def to_images(self, y: torch.Tensor) -> torch.Tensor:
        """y -> v, with running averages whatever the mode."""
        training = self.flow.training
        self.flow.eval()
        v = inverse_logit(self.flow.inverse(y))
        self.flow.train(training)
        return v

    def log_prob(
        self, images: torch.Tensor, num_importance_samples: int, noise: Noise, bound: Callable | None = None
    ) -> torch.Tensor:
        """log 1/K sum_k w_k, [B], in evaluation mode. `bound`: a compiled `forward`, if any."""
        bound = bound or self
        weights = [bound(images, noise.fold_in(k)) for k in range(num_importance_samples)]
        return torch.logsumexp(torch.stack(weights), 0) - math.log(num_importance_samples)

    def reconstruct(self, images: torch.Tensor, noise: Noise) -> torch.Tensor:
        """The mean decoded from a posterior sample, as continuous images; in evaluation mode."""
        y, _ = self.flow(self.dequantization(images, noise)[0])
        return self.to_images(self.vae.infer(y, noise)[0])


def to_uint8(v: torch.Tensor) -> torch.Tensor:
    """clip(floor(256 v)), uint8."""
    return torch.floor(256.0 * v).clamp(0.0, 255.0).to(torch.uint8)
