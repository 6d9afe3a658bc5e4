"""The gRPC client."""

import math

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from tf_pivae.export.model_client import ModelClient
from tf_pivae.export.retries import ServingError, with_retries
from tf_pivae.export.servable import signature_of

_ROUND_ROBIN = ("grpc.lb_policy_name", "round_robin")  # Over all servers that the name stands for.
_SLACK = 1 << 16  # bytes for names and shapes


class GrpcClient(ModelClient):
    """A served model over gRPC. Safe to share between threads.

    Messages may be as large as `batch_size` rows of this model need: gRPC's own limit is 4 MiB.

    Args:
      address: HOST:PORT; with dns:/// in front, all addresses of the name take turns.
      model_name: the name it is served under.
      timeout: seconds for one request with its repetitions.
      batch_size: rows of one request.
      max_attempts: how often an unavailable server is asked.
      credentials: `grpc.ChannelCredentials`, or None for a connection without encryption.

    Raises:
      ServingError: no server, or not this model.
    """

    def __init__(
        self,
        address="localhost:8500",
        model_name="pivae",
        timeout=30.0,
        batch_size=64,
        max_attempts=5,
        credentials=None,
    ):
        self.address, self.model_name, self.timeout, self.max_attempts = address, model_name, timeout, max_attempts
        self._credentials = credentials
        self._open()
        super().__init__(batch_size)
        limit = batch_size * _row_bytes(self.signatures) + _SLACK
        self.close()
        self._open(("grpc.max_send_message_length", limit), ("grpc.max_receive_message_length", limit))

    def _open(self, *limits):
        options = [_ROUND_ROBIN, *limits]
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self.address, options)
        else:
            self._channel = grpc.secure_channel(self.address, self._credentials, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self):
        """Closes the channel."""
        self._channel.close()

    def predict(self, signature, inputs):
        """See `ModelClient.predict`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._call_stub(self._stub.Predict, request)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def _fetch_signatures(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self.model_name
        response = self._call_stub(self._stub.GetModelMetadata, request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(definitions)
        return {name: signature_of(definition) for name, definition in definitions.signature_def.items()}

    def _call_stub(self, method, request):
        def attempt(seconds):
            try:
                return method(request, timeout=seconds)
            except grpc.RpcError as error:
                raise ServingError(error.code().name, self.address, error.details()) from error

        return with_retries(attempt, self.timeout, self.max_attempts, self.address)


def _row_bytes(signatures):
    """Bytes of one row of the largest request or response; a file may take twice what the largest tensor does."""
    sides = [list(side.values()) for signature in signatures.values() for side in signature]
    largest = max(sum(map(_tensor_bytes, side)) for side in sides)
    has_files = any(spec.dtype == "string" for side in sides for spec in side)
    return 2 * largest + _SLACK if has_files else largest


def _tensor_bytes(spec):
    return 0 if spec.dtype == "string" else np.dtype(spec.dtype).itemsize * math.prod(spec.shape)
