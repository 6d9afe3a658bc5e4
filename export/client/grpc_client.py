"""The gRPC client."""

import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from tf_pivae.export.client.metadata import signatures_of
from tf_pivae.export.client.model_client import ModelClient, bearer, checked_attempts, checked_timeout
from tf_pivae.export.client.retries import ServingError, with_retries
from tf_pivae.export.requests import DEFAULT_MODEL, Signature, TensorSpec

_ROUND_ROBIN = ("grpc.lb_policy_name", "round_robin")  # Over all servers that the name stands for.
_SLACK = 1 << 16  # bytes for names and shapes
_LARGEST = 2**31 - 1  # bytes of a message, by protocol buffers


class GrpcClient(ModelClient):
    """A served model over gRPC. Safe to share between threads.

    Messages may be as large as `batch_size` rows of this model need: gRPC's own limit is 4 MiB.

    Args:
      address: HOST:PORT; with dns:/// in front, all addresses of the name take turns.
      model_name: the name it is served under.
      timeout: seconds for one request with its repetitions.
      batch_size: rows of one request.
      max_attempts: how often a server is asked that cannot be reached; one that is busy is asked until `timeout`.
      credentials: `grpc.ChannelCredentials`, or None for a connection without encryption.
      token: what a gateway knows this client by; wants `credentials`.

    Raises:
      ServingError: no server, or not this model.
      ValueError: a token without encryption, or one that a header cannot hold.
    """

    def __init__(
        self,
        address: str = "localhost:8500",
        model_name: str = DEFAULT_MODEL,
        timeout: float = 30.0,
        batch_size: int = 64,
        max_attempts: int = 5,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        self.address = address
        self.model_name = model_name
        self.timeout = checked_timeout(timeout)
        self.max_attempts = checked_attempts(max_attempts)
        if token is not None:
            if credentials is None:
                raise ValueError("a `token` must not be sent unencrypted: give `credentials`.")
            call_credentials = grpc.access_token_call_credentials(bearer(token))
            credentials = grpc.composite_channel_credentials(credentials, call_credentials)
        self._credentials = credentials
        self._open()
        super().__init__(batch_size)
        limit = min(batch_size * _row_bytes(self.signatures) + _SLACK, _LARGEST)
        self.close()
        self._open(("grpc.max_send_message_length", limit), ("grpc.max_receive_message_length", limit))

    def _open(self, *limits: tuple[str, int]) -> None:
        options = [_ROUND_ROBIN, *limits]
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self.address, options)
        else:
            self._channel = grpc.secure_channel(self.address, self._credentials, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _send(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._call_stub(self._stub.Predict, request)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def _fetch_signatures(self) -> dict[str, Signature]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self.model_name
        response = self._call_stub(self._stub.GetModelMetadata, request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(definitions)
        return signatures_of(definitions)

    def _call_stub(self, method: Callable[..., Any], request: Any) -> Any:
        def attempt(seconds: float) -> Any:
            try:
                return method(request, timeout=seconds)
            except grpc.RpcError as error:
                raise ServingError(error.code().name, self.address, error.details() or "") from error

        return with_retries(attempt, self.timeout, self.max_attempts, self.address)


def _row_bytes(signatures: dict[str, Signature]) -> int:
    """Bytes of one row of the largest request or response; a file may take twice what the largest tensor does."""
    sides = [list(side.values()) for signature in signatures.values() for side in signature]
    largest = max(sum(map(_tensor_bytes, side)) for side in sides)
    has_files = any(spec.dtype == "string" for side in sides for spec in side)
    return 2 * largest + _SLACK if has_files else largest


def _tensor_bytes(spec: TensorSpec) -> int:
    return 0 if spec.dtype == "string" else _number_bytes(np.dtype(spec.dtype)) * math.prod(spec.shape)


def _number_bytes(dtype: np.dtype) -> int:
    """Of one number at most: TensorFlow Serving writes whole ones with 7 bits to a byte, negative ones as 64 bits."""
    if dtype.kind == "i":
        return 10
    return -(-8 * dtype.itemsize // 7) if dtype.kind == "u" else dtype.itemsize
