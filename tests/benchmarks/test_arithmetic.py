"""The arithmetic of a training step and of the flows, counted from our graph and from what PyTorch runs."""

import pytest

from benchmarks import cases, ours

torch = pytest.importorskip("torch", reason="the twin is in PyTorch (the extra `bench`)")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from benchmarks import peer  # noqa: E402


class _Counter(TorchDispatchMode):
    """Adds up the arithmetic of convolutions and matrix products as they run."""

    flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_step_of_ours_takes_as_much_arithmetic_as_the_twin_s(kind):
    case = cases.case("train", kind, factor=0.125, batch=2, side=16)
    step, _ = peer.prepare("eager", case)
    with _Counter() as counter:
        step()
    _, flops = ours.prepare("ours", case)
    assert flops() + _left_out(case) == pytest.approx(counter.flops, rel=0.003)


def test_the_head_takes_as_much_arithmetic_as_the_twin_s():
    case = cases.case("flow_inverse", factor=0.25, batch=2, side=16)
    inverse, _ = peer.prepare("eager", case)
    with _Counter() as counter:
        inverse()
    _, flops = ours.prepare("ours", case)
    assert flops() == counter.flops


@pytest.mark.parametrize("library", ["normflows", "nflows"])
def test_the_libraries_networks_open_with_one_place_of_fewer_channels(library):
    pytest.importorskip(library, reason="it is one of the extra `bench`")
    from benchmarks import libraries

    case = cases.case("flow_inverse", factor=0.25, batch=2, side=16)
    width = cases.head_options(case)["width"]
    ends = [(2, 1), (1, 2), (2, 1)]  # channels of a coupling that its network gets, and that are changed
    multiplications = sum(seen * width + 4 * 9 * width**2 + width * 2 * changed for seen, changed in ends)
    _, flops = libraries.prepare(library, case)
    assert flops() == 2 * 2 * 16**2 * multiplications
    _, ours_flops = ours.prepare("ours", case)
    assert ours_flops() == 2 * 2 * 16**2 * 3 * (9 * 7 * width + 4 * 9 * width**2 + width * 2 * 3)


def _left_out(case):
    """What the twin's samples compute for the posterior, and ours do not: a forward pass and both gradients."""
    vae = ours.model_of(case).vae
    total = 0
    side = case["side"] >> len(vae.bottom_up) - 1
    for block in vae.top_down:
        channels = sum(b - a for a, b in block.splitter.ranges(("posterior_mean", "posterior_log_scale", "context")))
        kernel = block.conv.v.shape  # A deconvolution's has its outputs before its inputs.
        inputs = kernel[0] * kernel[1] * kernel[2] * kernel[3] // block.splitter.filters
        total += 3 * 2 * case["batch"] * side**2 * inputs * channels
        side *= 2 if block.upsample else 1
    return total
