"""Images for PyTorch."""

import numpy as np
import torch

LEVELS = torch.arange(256, dtype=torch.uint8)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] -> [B, C, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
