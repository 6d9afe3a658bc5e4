"""Nothing of a bijector outlives it: TFP's cache and ours must not keep each other alive."""

import gc
import weakref

import pytest
import tensorflow as tf

from tf_pivae.bijectors.inverse_autoregressive import InverseAutoregressiveFlow
from tf_pivae.bijectors.preprocessing import affine, logit
from tf_pivae.bijectors.real_nvp import RealNVP


class Network:
    """A shift and a scale for the IAF; autoregression plays no part here."""

    def __call__(self, z0):
        return 0.1 * z0, 0.2 * z0


def _head():
    return RealNVP((4, 4, 1), num_scales=2, num_couplings=2, num_blocks=0, width=4)


@pytest.mark.parametrize(
    ("make", "bijector"),
    [
        (_head, RealNVP.bijector),
        (Network, InverseAutoregressiveFlow),
        (Network, lambda _: logit()),
        (Network, lambda _: affine()),
    ],
    ids=["head", "iaf", "logit", "affine"],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_networks_and_graphs_go_with_their_last_user(make, bijector, compiled):
    def use():
        network = make()
        graphs = []

        def both(x):
            used = bijector(network)
            graphs.append(weakref.ref(getattr(x, "graph", network)))
            return used.forward(x), used.forward_log_det_jacobian(x, event_ndims=3)

        (tf.function(both, autograph=False) if compiled else both)(tf.zeros([1, 4, 4, 1]) + 0.5)
        return weakref.ref(network), *graphs

    alive = use()
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)
