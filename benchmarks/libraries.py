"""The flow libraries' side: couplings and an autoregressive step of the shape of ours, as their users write them.

Neither has couplings on checkerboards with a network on the whole image, so the three colours are split instead; the
images, the number of couplings, and the width, depth and batch normalisation of the networks are those of our head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases
from benchmarks.peer import density_gradient, forget, setup, wait

__all__ = ["forget", "prepare", "setup", "wait"]


def prepare(system: str, case: dict) -> tuple[Callable[[], Any], Callable[[], int]]:
    """Returns a function that runs the case once, and a function that counts its arithmetic."""
    call = _iaf(system, case) if case["task"] == "iaf" else _head(system, case)

    def flops():
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    return call, flops


def _head(system, case):
    transform = (_normflows if system == "normflows" else _nflows)(cases.head_options(case))
    if case["task"] == "flow":
        return density_gradient(transform, case)
    y = torch.randn(case["batch"], 3, case["side"], case["side"])
    transform = transform.eval()
    return torch.no_grad()(lambda: transform.inverse(y)[0].numpy())


class _Couplings(nn.Module):
    """normflows' couplings, one after the other."""

    def __init__(self, couplings: list) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(couplings)

    def forward(self, x):
        total = 0.0
        for coupling in self.couplings:
            x, log_det = coupling(x)
            total = total + log_det
        return x, total

    def inverse(self, y):
        total = 0.0
        for coupling in reversed(self.couplings):
            y, log_det = coupling.inverse(y)
            total = total + log_det
        return y, total


def _normflows(options):
    import normflows

    def coupling(mode):
        num_inputs = 2 if mode == "channel" else 1  # Chunks of three channels: two and one.
        net = normflows.nets.resnet.ConvResidualNet(
            num_inputs, 2 * (3 - num_inputs), options["width"], num_blocks=options["num_blocks"], use_batch_norm=True
        )
        return normflows.flows.AffineCouplingBlock(net, split_mode=mode)

    modes = ["channel", "channel_inv"] * options["num_couplings"]
    return _Couplings([coupling(mode) for mode in modes[: options["num_couplings"]]])


def _nflows(options):
    from nflows import transforms
    from nflows.nn.nets import ConvResidualNet

    def network(inputs, outputs):
        return ConvResidualNet(inputs, outputs, options["width"], num_blocks=options["num_blocks"], use_batch_norm=True)

    masks = [[0, 0, 1], [1, 1, 0]] * options["num_couplings"]
    couplings = [transforms.AffineCouplingTransform(mask, network) for mask in masks[: options["num_couplings"]]]
    return transforms.CompositeTransform(couplings)


def _iaf(system, case):
    """Both have dense networks alone, so the latents are a vector; the hidden layers are as wide as the latents."""
    features = case["latents"] * case["side"] ** 2
    options = dict(features=features, hidden_features=features, num_blocks=2)
    if system == "normflows":
        from normflows.flows import MaskedAffineAutoregressive

        step = MaskedAffineAutoregressive(**options)
    else:
        from nflows.transforms import MaskedAffineAutoregressiveTransform

        step = MaskedAffineAutoregressiveTransform(**options)
    z0 = torch.randn(case["batch"], features)

    def gradient():
        step.zero_grad(set_to_none=True)
        z, log_det = step(z0)
        (-log_det - z.square().sum(1)).mean().backward()

    return gradient
