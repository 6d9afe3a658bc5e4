"""Talks to a served model: TensorFlow Serving, or the development server.

    from tf_pivae.export.client import GrpcClient, RestClient

    with GrpcClient("localhost:8500") as client:      # or RestClient("http://localhost:8501")
        client.log_prob(images).bits_per_dim          # [N] float32
        client.sample(seeds=[1, 2, 3])                # uint8 [3, H, W, C]

A call of any length is cut into requests of `batch_size` rows. A request is repeated, after growing pauses, where the
server has too much to do (until `timeout`) and where it cannot be reached (`max_attempts` times): a request always has
the same answer, so that repeating it does no harm. gRPC's client needs the extra `serving`, and imports TensorFlow for
its messages; REST's does without both.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tf_pivae.export.client.model_client import LogProb
from tf_pivae.export.client.retries import ServingError

if TYPE_CHECKING:
    from tf_pivae.export.client.grpc_client import GrpcClient
    from tf_pivae.export.client.rest_client import RestClient

__all__ = ["GrpcClient", "LogProb", "RestClient", "ServingError"]
_MODULES = {"GrpcClient": "grpc_client", "RestClient": "rest_client"}


def __getattr__(name: str) -> Any:
    """A client is imported when it is asked for: only gRPC's imports TensorFlow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
