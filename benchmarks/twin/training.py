"""Algorithm 1 (appendix E): a step of the critic and of the generator on one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

from benchmarks.twin.dequantization import dequantize

if TYPE_CHECKING:
    from benchmarks.twin.model import PiVAE
    from benchmarks.twin.noise import Noise


class Losses(NamedTuple):
    """Scalars of one step."""

    coverage: torch.Tensor  # L_C, nats per image
    quality: torch.Tensor  # L_Q
    critic: torch.Tensor  # the cross-entropy
    penalty: torch.Tensor  # the gradient penalty with its weight


def gradient_penalty(
    critic: Callable, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor, weight: float = 100.0
) -> torch.Tensor:
    """weight E (||grad D(v^)|| - 1)^2 between real and fake images; `mix` is e, [B]."""
    mix = mix[:, None, None, None]
    between = (mix * real + (1.0 - mix) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (gradient.square().sum([1, 2, 3]) + 1e-12).sqrt()
    return weight * (norm - 1.0).square().mean()


class Trainer:
    """Two optimisers and their step.

    Args:
      model: `PiVAE`.
      critic: a module, images on [-1, 1] -> logits [B].
      adversarial_weight: lambda_adv.
      learning_rate: of both optimisers.
      bound, sample, judge: what stands for the model's `forward`, `sample_continuous` and the critic where no second
        derivative is needed: compiled versions of them.
    """

    def __init__(
        self,
        model: PiVAE,
        critic: torch.nn.Module,
        adversarial_weight: float = 100.0,
        learning_rate: float = 0.002,
        bound: Callable | None = None,
        sample: Callable | None = None,
        judge: Callable | None = None,
    ) -> None:
        self.model = model
        self.critic = critic
        self.adversarial_weight = adversarial_weight
        self.bound = bound or model
        self.judge = judge or critic
        self.sample = sample or model.sample_continuous
        options = dict(lr=learning_rate, betas=(0.9, 0.999), eps=1e-7)
        self.generator_optimizer = torch.optim.Adamax(model.parameters(), **options)
        self.critic_optimizer = torch.optim.Adamax(critic.parameters(), **options)

    def step(
        self, images: torch.Tensor, likelihood_noise: Noise, critic_noise: Noise, adversary_noise: Noise
    ) -> Losses:
        """Takes one step on uint8 images [B, 3, H, W]; the arguments after them are three batches of noise."""
        self.model.train()
        self.generator_optimizer.zero_grad(set_to_none=True)
        coverage = -self.bound(images, likelihood_noise).mean()
        coverage.backward()

        # The head passes the adversary's gradient on to the decoder and receives none itself.
        self.model.flow.requires_grad_(False)
        fake = 2.0 * self.model.dequantization.critic_view(self.sample(tuple(images.shape[1:]), adversary_noise)) - 1.0
        real = 2.0 * dequantize(images, critic_noise) - 1.0
        cross_entropy, penalty = self._critic_step(real, fake.detach(), adversary_noise)

        self.critic.requires_grad_(False)
        quality = -self.judge(fake).mean()
        (self.adversarial_weight * quality).backward()
        self.critic.requires_grad_(True)
        self.model.flow.requires_grad_(True)
        _update(self.generator_optimizer, self.model)
        return Losses(coverage.detach(), quality.detach(), cross_entropy, penalty)

    def _critic_step(self, real, fake, noise):
        self.critic_optimizer.zero_grad(set_to_none=True)
        real_logits, fake_logits = self.judge(torch.cat([real, fake])).chunk(2)
        cross_entropy = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        penalty = gradient_penalty(self.critic, real, fake, noise.uniform("gradient_penalty", ()))
        (cross_entropy + penalty).backward()
        _update(self.critic_optimizer, self.critic)
        return cross_entropy.detach(), penalty.detach()


def _update(optimizer, module):
    """A step, unless the gradient is not finite."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    if torch.isfinite(norm):
        optimizer.step()
