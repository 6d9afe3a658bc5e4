"""What the race asks of a model in PyTorch: a step of training, samples, bounds on log P(x)."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.race import clock
from benchmarks.race.measuring import Bits, Bound, Settings
from tf_pivae.system.processor import has_bfloat16

SIDE = 28


class TorchContestant(nn.Module):
    """A model, its optimisers and its averages, all of which one checkpoint holds."""

    title: str
    tuned: str  # Optimiser and what else was chosen, for the table.
    batch_size = 64
    optimizers: list[torch.optim.Optimizer]
    averaged: AveragedModel

    def train_step(self, images: Tensor, fraction: float) -> Tensor:
        """One step on uint8 [B, 1, 28, 28] after a fraction of the time; returns the loss that is reported."""
        raise NotImplementedError  # Each contestant: its losses.

    def draw(self, count: int) -> Tensor:
        """uint8 [count, 1, 28, 28]."""
        raise NotImplementedError  # Each contestant: its samples.

    def bounds(self) -> list[Bound]:
        """The bounds that the model has; [] for one without a likelihood."""
        return []

    def rate(self, fraction: float) -> float:
        """What the learning rates are multiplied by after a fraction of the time: a cosine that ends at 0."""
        return min(1.0, fraction / 0.01) * 0.5 * (1.0 + math.cos(math.pi * fraction))

    def fit(self, images: np.ndarray, folder: Path, settings: Settings) -> dict:
        """Trains on uint8 [N, 28, 28, 1] for the settings' time; what `clock.train` returns."""
        return clock.train(self, images, folder, 60.0 * settings.minutes)

    def restore(self, folder: Path) -> None:
        """Takes the state of the folder's checkpoint."""
        self.load_state(torch.load(folder / clock.CHECKPOINT, weights_only=True)["contestant"])

    def weights(self) -> int:
        """Those of the average."""
        return sum(parameter.numel() for parameter in self.averaged.parameters())

    @torch.no_grad()
    def sample(self, count: int, seed: int) -> np.ndarray:
        """uint8 [count, 28, 28, 1]."""
        self.eval()
        torch.manual_seed(seed)
        return self.draw(count).permute(0, 2, 3, 1).numpy()

    def bits(self, nats: Callable[..., Tensor], **options: Any) -> Bits:
        """From a function that bounds -log P(x), nats [B], of uint8 [B, 1, 28, 28]; `options` are handed to it."""

        def bits(images: np.ndarray, seed: int) -> np.ndarray:
            self.eval()
            torch.manual_seed(seed)
            with torch.no_grad():
                values = nats(torch.from_numpy(images).permute(0, 3, 1, 2), **options)
            return values.double().numpy() / (images[0].size * math.log(2.0))

        return bits

    def descend(self, loss: Tensor, net: nn.Module, clip: float) -> Tensor:
        """A step of the one optimiser and of the average; the gradient's norm is at most `clip`. Returns the loss."""
        self.optimizers[0].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), clip)
        self.optimizers[0].step()
        self.averaged.update_parameters(net)
        return loss.detach()

    def load_state(self, state: dict) -> None:
        """Takes over what `state` has returned."""
        self.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def state(self) -> dict:
        """All that training goes on from."""
        return {"model": self.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}


def average(net: nn.Module, decay: float = 0.999) -> AveragedModel:
    """A moving average of the weights, batch statistics included, over fewer steps at first."""

    def mix(averaged: Tensor, value: Tensor, count: Tensor) -> Tensor:
        return averaged + (value - averaged) * max(1.0 - decay, 9.0 / (10.0 + float(count)))

    return AveragedModel(net, avg_fn=mix, use_buffers=True)


def mixed_precision() -> torch.autocast:
    """bfloat16 for convolutions and products of matrices, where the processor has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())


def to_unit(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], the levels 2 / 255 apart."""
    return (images.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def to_levels(x: Tensor) -> Tensor:
    """float in [-1, 1] -> the nearest uint8."""
    return ((x.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
