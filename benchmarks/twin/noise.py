"""Where the twin's random numbers come from: its own generator, or arrays that somebody else drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


class Noise:
    """Numbers of PyTorch's generator for a batch of B rows, drawn on a device."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows = rows
        self.device = device

    def fold_in(self, tag: int | str) -> Noise:
        return self

    def normal(self, tag: str, shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(self.rows, *shape, device=self.device)

    def uniform(self, tag: str, shape: Sequence[int]) -> torch.Tensor:
        return torch.rand(self.rows, *shape, device=self.device)


class GivenNoise:
    """The numbers of a `tf_pivae.noise.RowNoise`, images' axes moved into PyTorch's order."""

    def __init__(self, row_noise: Any) -> None:
        self._row_noise = row_noise

    def fold_in(self, tag: int | str) -> GivenNoise:
        return GivenNoise(self._row_noise.fold_in(tag))

    def normal(self, tag: str, shape: Sequence[int]) -> torch.Tensor:
        return self._converted(self._row_noise.normal, tag, shape)

    def uniform(self, tag: str, shape: Sequence[int]) -> torch.Tensor:
        return self._converted(self._row_noise.uniform, tag, shape)

    @staticmethod
    def _converted(draw: Callable, tag: str, shape: Sequence[int]) -> torch.Tensor:
        values = np.asarray(draw(tag, [*shape[1:], shape[0]] if len(shape) == 3 else list(shape)))
        return torch.from_numpy(np.moveaxis(values, -1, 1).copy() if len(shape) == 3 else values.copy())
