"""The client against a server that does as it is told: retries, deadlines, message sizes."""

import concurrent.futures
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tf_pivae.export.client import GrpcClient, ServingError

SIDE = 1024  # Two colour images of this size are more than gRPC's own limit of 4 MiB.


class FakeServer:
    """Answers `sample` with black images, after the failures it was given."""

    def __init__(self):
        self.failures = []
        self.calls = 0
        methods = {"Predict": self._predict, "GetModelMetadata": self._metadata}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=options)
        handler = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)
        self._server.add_generic_rpc_handlers([handler])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self):
        self._server.stop(None).wait()

    def _metadata(self, body, context):
        del body, context
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for name in ("sample", "reconstruct"):
            definition = definitions.signature_def[name]
            image = definition.outputs["images"]
            if name == "sample":
                definition.inputs["seeds"].dtype = tf.int64.as_datatype_enum
                definition.inputs["seeds"].tensor_shape.dim.add(size=-1)
            else:
                self._describe(definition.inputs["images"])
            self._describe(image)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(definitions)
        return response.SerializeToString()

    def _describe(self, info):
        info.dtype = tf.uint8.as_datatype_enum
        for size in (-1, SIDE, SIDE, 3):
            info.tensor_shape.dim.add(size=size)

    def _predict(self, body, context):
        self.calls += 1
        if self.failures:
            failure = self.failures.pop(0)
            if failure == "slow":
                time.sleep(1.0)
            else:
                context.abort(grpc.StatusCode[failure], "as told")
        request = predict_pb2.PredictRequest.FromString(body)
        rows = next(iter(request.inputs.values())).tensor_shape.dim[0].size
        response = predict_pb2.PredictResponse()
        response.outputs["images"].CopyFrom(tf.make_tensor_proto(np.zeros([rows, SIDE, SIDE, 3], np.uint8)))
        return response.SerializeToString()


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    server.stop()


def test_messages_may_be_as_large_as_the_models_shape_asks_for(server):
    with GrpcClient(server.address, batch_size=4) as client:
        assert client.sample(range(7)).shape == (7, SIDE, SIDE, 3)
        assert server.calls == 2
        images = np.ones([4, SIDE, SIDE, 3], np.uint8)  # 12 MiB there as well.
        assert client.reconstruct(images).shape == images.shape


def test_unavailable_is_tried_again(server):
    with GrpcClient(server.address) as client:
        server.failures = ["UNAVAILABLE"] * 3
        start = time.monotonic()
        assert len(client.sample([1])) == 1
        assert server.calls == 4
        assert time.monotonic() - start > 0.5 * (0.05 + 0.1 + 0.2)  # Half of each pause at least.


def test_attempts_come_to_an_end(server):
    with GrpcClient(server.address, max_attempts=3) as client:
        server.failures = ["UNAVAILABLE"] * 10
        with pytest.raises(ServingError, match="is the server running"):
            client.sample([1])
        assert server.calls == 3


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_nothing_else_is_tried_again(server, code):
    with GrpcClient(server.address) as client:
        server.failures = [code]
        with pytest.raises(ServingError, match=f"{code}: as told") as error:
            client.sample([1])
        assert error.value.code == code
        assert server.calls == 1


def test_the_timeout_covers_all_attempts(server):
    with GrpcClient(server.address, timeout=0.6, max_attempts=50) as client:
        server.failures = ["UNAVAILABLE"] * 3 + ["slow"]
        start = time.monotonic()
        with pytest.raises(ServingError, match="longer `timeout`") as error:
            client.sample([1])
        assert error.value.code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 0.9
