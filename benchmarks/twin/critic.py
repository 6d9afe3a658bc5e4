"""The critics of Table 1 and of Table 6: images on [-1, 1] -> logits [B]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from benchmarks.twin.layers import conv_same

if TYPE_CHECKING:
    import torch


class SameConv(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return conv_same(x, self.weight, self.bias, self.stride[0])


class PlainCritic(nn.Module):
    """A 3x3 convolution at each width, a 4x4 one with stride 2 between widths; leaky ReLU 0.2; flattened."""

    def __init__(self, height: int, width: int, widths: Sequence[int]) -> None:
        super().__init__()
        convs = []
        inputs = 3
        for i, filters in enumerate(widths):
            convs.append(SameConv(inputs, filters, 3))
            if i < len(widths) - 1:
                convs.append(SameConv(filters, filters, 4, stride=2))
            inputs = filters
        self.convs = nn.ModuleList(convs)
        self.map_shape = (inputs, height >> len(widths) - 1, width >> len(widths) - 1)
        self.head = nn.Linear(self.map_shape[0] * self.map_shape[1] * self.map_shape[2], 1)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            v = F.leaky_relu(conv(v), 0.2)
        return self.head(v.flatten(1))[:, 0]


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, filters: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv_0 = SameConv(inputs, filters, 3)
        self.conv_1 = SameConv(filters, filters, 3)
        self.shortcut = SameConv(inputs, filters, 1) if down or inputs != filters else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv_1(F.relu(self.conv_0(F.relu(x)))) + self.shortcut(x)
        return F.avg_pool2d(out, 2) if self.down else out


class ResidualCritic(nn.Module):
    """A convolution, one residual block a width, all but the first downwards; ReLU and the average over the map."""

    def __init__(self, stem: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = SameConv(3, stem, 3)
        inputs = (stem, *widths)
        self.blocks = nn.ModuleList(ResidualBlock(inputs[i], filters, i > 0) for i, filters in enumerate(widths))
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        h = self.stem(v)
        for block in self.blocks:
            h = block(h)
        return self.head(F.relu(h).mean([2, 3]))[:, 0]
