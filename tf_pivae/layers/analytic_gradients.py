"""Whether layers compute gradients by formulas of their own: in training steps they do."""

import contextlib
import threading
from collections.abc import Iterator
from typing import NamedTuple


class AnalyticGradients(NamedTuple):
    """Which gradients are computed by formulas of ours, in place of those that TensorFlow derives."""

    norms: bool = False  # of weight normalisation (`weight_norm.normalized`)
    products: bool = False  # of large kernels, as matrix products (`convolution_ops.kernel_gradient`)


_state = threading.local()


@contextlib.contextmanager
def analytic_gradients(products: bool) -> Iterator[None]:
    """Within this context weight normalisation has its own gradient; with `products`, large kernels have, too.

    TensorFlow keeps every graph with a gradient of ours for the life of the process, so it is for training steps alone.
    On processors oneDNN's own gradient of a kernel spends most of its time on putting the weights back in TensorFlow's
    order, the more so the fewer pixels and the more channels there are; what the products gain is in
    docs/performance.md.
    """
    before = wanted()
    _state.wanted = AnalyticGradients(norms=True, products=products)
    try:
        yield
    finally:
        _state.wanted = before


def wanted() -> AnalyticGradients:
    """What this context wants; nothing outside of `analytic_gradients`."""
    return getattr(_state, "wanted", AnalyticGradients())
