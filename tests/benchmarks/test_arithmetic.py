"""The arithmetic of a training step, counted from our graph and from what PyTorch runs for the twin."""

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
    assert flops() == pytest.approx(counter.flops, rel=0.01)
