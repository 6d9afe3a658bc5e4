"""A multiscale Glow (Kingma and Dhariwal 2018) of `normflows`, built as its own example is."""

import math

import normflows
import torch
from torch import Tensor

from benchmarks.race.contestant import SIDE, TorchContestant, average
from benchmarks.race.measuring import Bound

_DRAWS = 100  # times as many samples as are wanted, at most


def glow(side: int, depth: int, width: int, levels: int = 2) -> normflows.MultiscaleFlow:
    """A density of images [B, 1, side, side] in [0, 1].

    Args:
      depth: blocks of each of the levels.
      width: channels within a coupling's network.
    """
    bases = []
    flows = []
    merges = []
    for i in range(levels):  # From the smallest images upwards.
        channels = 2 ** (levels + 1 - i)
        size = side // 2 ** (levels - i)
        blocks = [normflows.flows.GlowBlock(channels, width, split_mode="channel", scale=True) for _ in range(depth)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        if i > 0:
            merges.append(normflows.flows.Merge())
        bases.append(normflows.distributions.DiagGaussian((channels // (2 if i > 0 else 1), size, size)))
    logit = normflows.transforms.Logit(alpha=0.05)
    return normflows.MultiscaleFlow(bases, flows, merges, logit, class_cond=False)


class Glow(TorchContestant):
    """Uniformly dequantised: E log p((x + u) / 256) - D log 256 bounds log P(x)."""

    title = "Glow of `normflows`"
    tuned = "Adamax, 2e-3, average 0.999; logit with alpha 0.05; float32; samples that are not finite are drawn again"

    def __init__(self, depth: int = 12, width: int = 96) -> None:
        super().__init__()
        self.net = glow(SIDE, depth, width)
        self.averaged = average(self.net)
        self.optimizers = [torch.optim.Adamax(self.net.parameters(), 2e-3)]

    def train_step(self, images: Tensor, fraction: float) -> Tensor:
        return self.descend(self.nats(images, self.net).mean(), self.net, clip=0.2)

    def nats(self, images: Tensor, net: normflows.MultiscaleFlow | None = None) -> Tensor:
        """[B], of one u each."""
        x = (images.float() + torch.rand(images.shape)) / 256.0
        dimensions = images[0].numel()
        return dimensions * math.log(256.0) - (net or self.averaged.module).log_prob(x, None)

    def draw(self, count: int) -> Tensor:
        images = torch.zeros(0, 1, SIDE, SIDE)
        for _ in range(_DRAWS):
            x, _ = self.averaged.module.sample(count)
            images = torch.cat([images, x[x.isfinite().flatten(1).all(1)]])[:count]
            if len(images) == count:
                return (256.0 * images).floor().clamp(0, 255).to(torch.uint8)
        raise FloatingPointError(f"of {_DRAWS * count} samples {len(images)} are finite")

    def bounds(self) -> list[Bound]:
        bits = self.bits(self.nats)
        return [Bound("exact density, uniform dequantisation", bits, bits)]
