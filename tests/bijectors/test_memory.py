"""Nothing of a bijector outlives it: TFP's cache and ours must not keep each other alive."""

import gc
import weakref

import pytest
import tensorflow as tf

from tf_pivae.bijectors.inverse_autoregressive import InverseAutoregressiveFlow
from tf_pivae.bijectors.real_nvp import RealNVP


class Network:
    """A shift and a scale for the IAF; autoregression plays no part here."""

    def __call__(self, z0):
        return 0.1 * z0, 0.2 * z0


def _head():
    return RealNVP((4, 4, 1), num_scales=2, num_couplings=2, num_blocks=0, width=4)


@pytest.mark.parametrize(
    ("make", "bijector"), [(_head, RealNVP.bijector), (Network, InverseAutoregressiveFlow)], ids=["head", "iaf"]
)
@pytest.mark.parametrize("compiled", [True, False])
def test_networks_go_with_their_last_user(make, bijector, compiled):
    def use():
        network = make()

        def both(x):
            used = bijector(network)
            return used.forward(x), used.forward_log_det_jacobian(x, event_ndims=3)

        (tf.function(both, autograph=False) if compiled else both)(tf.zeros([1, 4, 4, 1]))
        return weakref.ref(network)

    alive = use()
    gc.collect()
    assert alive() is None
