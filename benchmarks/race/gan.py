"""A spectrally normalised GAN (Miyato et al. 2018) of the size of a DCGAN: hinge loss, averaged generator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.race.contestant import TorchContestant, average, mixed_precision, to_levels, to_unit

_NOISE = 128


def generator(width: int) -> nn.Sequential:
    """[B, 128] -> [B, 1, 28, 28] in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(_NOISE, 4 * width * 49, bias=False),
        nn.Unflatten(1, (4 * width, 7, 7)),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 1, 3, padding=1),
        nn.Tanh(),
    )


def critic(width: int) -> nn.Sequential:
    """[B, 1, 28, 28] -> [B, 1]."""
    shapes = [(1, 1), (1, 2), (2, 2), (2, 4), (4, 4)]  # Widths in and out; the wider ones halve the sides.
    layers: list[nn.Module] = []
    for before, after in shapes:
        inputs = 1 if not layers else before * width
        kernel = 4 if after > before else 3
        stride = 2 if after > before else 1
        layers += [spectral_norm(nn.Conv2d(inputs, after * width, kernel, stride, 1)), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), spectral_norm(nn.Linear(4 * width * 49, 1)))


class GAN(TorchContestant):
    """No likelihood."""

    title = "SNGAN"
    tuned = "Adam, 2e-4 and 4e-4 for the critic, betas 0.5 and 0.999; average 0.999; bfloat16"

    def __init__(self, generator_width: int = 64, critic_width: int = 48) -> None:
        super().__init__()
        self.generator = generator(generator_width).to(memory_format=torch.channels_last)
        self.critic = critic(critic_width).to(memory_format=torch.channels_last)
        self.averaged = average(self.generator)
        self.optimizers = [
            torch.optim.Adam(self.generator.parameters(), 2e-4, (0.5, 0.999)),
            torch.optim.Adam(self.critic.parameters(), 4e-4, (0.5, 0.999)),
        ]

    def train_step(self, images: Tensor, fraction: float) -> Tensor:
        generator_optimizer, critic_optimizer = self.optimizers
        real = to_unit(images)
        with mixed_precision():
            fake = self.generator(torch.randn(len(images), _NOISE))
            judged = self.critic(torch.cat([real, fake.detach().float()])).float()
        critic_loss = F.relu(1.0 - judged[: len(real)]).mean() + F.relu(1.0 + judged[len(real) :]).mean()
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        self.critic.requires_grad_(False)
        with mixed_precision():
            generator_loss = -self.critic(fake).float().mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        self.critic.requires_grad_(True)
        self.averaged.update_parameters(self.generator)
        return critic_loss.detach()

    def rate(self, fraction: float) -> float:
        """Constant for half of the time, then linear."""
        return min(1.0, 2.0 * (1.0 - fraction))

    def draw(self, count: int) -> Tensor:
        return to_levels(self.averaged(torch.randn(count, _NOISE)))
