"""The clients against servers that do as they are told: retries, advice, deadlines, message sizes."""

import concurrent.futures
import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import ClassVar

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from talking import as_numbers
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tf_pivae.export.client import GrpcClient, RestClient, ServingError
from tf_pivae.export.client.metadata import signatures_of
from tf_pivae.export.client.model_client import as_array
from tf_pivae.export.client.rest_client import signatures_in
from tf_pivae.export.requests import TensorSpec

SIDE = 512  # Six colour images of this size are more than gRPC's own limit of 4 MiB, and twice that as numbers.


class FakeServer:
    """Answers `sample` with white images, after the failures it was given: codes, with a message or without."""

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
                code, _, message = failure.partition(": ")
                context.abort(grpc.StatusCode[code], message or "as told")
        request = predict_pb2.PredictRequest.FromString(body)
        rows = next(iter(request.inputs.values())).tensor_shape.dim[0].size
        response = predict_pb2.PredictResponse()
        response.outputs["images"].CopyFrom(as_numbers(np.full([rows, SIDE, SIDE, 3], 255, np.uint8)))
        return response.SerializeToString()


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    server.stop()


def test_messages_may_be_as_large_as_the_models_shape_asks_for(server):
    with GrpcClient(server.address, batch_size=6) as client:
        assert client.sample(range(7)).shape == (7, SIDE, SIDE, 3)
        assert server.calls == 2
        images = np.ones([6, SIDE, SIDE, 3], np.uint8)
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


EXHAUSTED = "RESOURCE_EXHAUSTED: Server Threadpool Exhausted"
FULL = "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full"
FULL_HERE = "UNAVAILABLE: 4096 rows are waiting already: try again later."  # What the development server says.
LIMITED = "RESOURCE_EXHAUSTED: too many requests at once"  # What the gateway says.
LIMITED_HERE = "RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!"  # What gRPC says in the development server.


@pytest.mark.parametrize("failure", [EXHAUSTED, FULL, FULL_HERE, LIMITED, LIMITED_HERE])
def test_a_busy_server_is_asked_until_the_timeout(server, failure):
    with GrpcClient(server.address, max_attempts=2) as client:
        server.failures = [failure] * 4
        assert len(client.sample([1])) == 1
        assert server.calls == 5
        server.failures = [failure] * 100
        client.timeout = 1.0
        with pytest.raises(ServingError, match=r"fewer requests at once|no answer within") as error:
            client.sample([1])
        assert error.value.busy or error.value.code == "DEADLINE_EXCEEDED"  # The latter where the machine is busy too.
        client.timeout = 30.0
        client.max_attempts = 1
        before = server.calls
        with pytest.raises(ServingError, match="send fewer requests at once"):
            client.sample([1])
        assert server.calls == before + 1


ADVICE = {
    EXHAUSTED: "grpc_max_threads",
    FULL: "the server is full",
    FULL_HERE: "the server is full",
    LIMITED: "fewer requests at once",
    "RESOURCE_EXHAUSTED: Received message larger than max (9 vs. 8)": "(give a smaller `batch_size`",
    "UNAVAILABLE: failed to connect to all addresses": "is the server running",
    "DEADLINE_EXCEEDED: Deadline Exceeded": "longer `timeout`",
    "NOT_FOUND: Servable not found for request: Latest(other)": "is `model_name` right",
    "UNAUTHENTICATED: no or an unknown token": "is `token` right",
}


def test_advice_is_that_of_the_cause():
    for failure, advice in ADVICE.items():
        message = str(ServingError(failure.split(": ")[0], "here:1", failure.split(": ", 1)[1]))
        assert message.startswith(f"here:1: {failure} (")
        assert advice in message
        others = {other for other in ADVICE.values() if other not in (advice, "fewer requests at once")}
        assert not any(other in message for other in others)
    assert str(ServingError("INTERNAL", "here:1", "broken")) == "here:1: INTERNAL: broken"


def test_a_token_does_not_travel_in_the_clear():
    for client, address in ((GrpcClient, "127.0.0.1:9"), (RestClient, "http://127.0.0.1:9")):
        with pytest.raises(ValueError, match="unencrypted"):
            client(address, token="secret")


@pytest.mark.parametrize("token", ["secret\n", "a secret", "secr\u00e9t", "secret\u2013"])
def test_a_token_that_no_header_holds_is_not_repeated(token):
    clients = (
        lambda: GrpcClient("127.0.0.1:9", credentials=grpc.ssl_channel_credentials(), token=token),
        lambda: RestClient("https://127.0.0.1:9", token=token),
    )
    for client in clients:
        with pytest.raises(ValueError, match="visible ASCII") as error:
            client()
        assert "secr" not in str(error.value)


# REST.


class Statuses(http.server.BaseHTTPRequestHandler):
    """Answers with the status and the text that its server was given."""

    headers_sent: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        status, text = self.server.answer
        self.server.path = self.path
        self.send_response(status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def statuses():
    with http.server.HTTPServer(("127.0.0.1", 0), Statuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    418: "HTTP 418",
}


@pytest.mark.parametrize("status", CODES)
def test_statuses_of_rest_are_codes_of_grpc(statuses, status):
    url = f"http://127.0.0.1:{statuses.server_port}"
    for text, reason in ((json.dumps({"error": "as told"}), "as told"), ("<html>", "<html>")):
        statuses.answer = status, text
        with pytest.raises(ServingError, match=reason) as error:
            RestClient(url, max_attempts=1)
        assert error.value.code == CODES[status]


def test_an_answer_that_is_no_json(statuses):
    statuses.answer = 200, "<html>"
    with pytest.raises(ServingError, match="not JSON"):
        RestClient(f"http://127.0.0.1:{statuses.server_port}")


@pytest.mark.parametrize("answer", ["[]", '{"ok": 1}', '{"metadata": {"signature_def": {"signature_def": []}}}'])
def test_an_answer_of_another_program(statuses, answer):
    statuses.answer = 200, answer
    with pytest.raises(ServingError, match="the answer is not that of a model server; is the address right"):
        RestClient(f"http://127.0.0.1:{statuses.server_port}")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "3", True, 1e9])
def test_a_timeout_that_cannot_be(timeout):
    for client in (RestClient, GrpcClient):
        with pytest.raises(ValueError, match="`timeout` must be a number of seconds above 0"):
            client(timeout=timeout)


@pytest.mark.parametrize("name", ["mod\u00e8le", "a b", "a/b", "a\nb"])
def test_any_name_of_a_model_reaches_the_server(statuses, name):
    statuses.answer = 404, '{"error": "as told"}'
    with pytest.raises(ServingError, match=r"NOT_FOUND: as told .*is `model_name` right"):
        RestClient(f"http://127.0.0.1:{statuses.server_port}", name)
    assert urllib.parse.unquote(statuses.path) == f"/v1/models/{name}/metadata"


ADDRESSES = ["localhost:8501", "", "ftp://localhost:8501", "http://", "http://localhost:abc", "http://a b:8501"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_what_is_no_address(url):
    with pytest.raises(ValueError, match=f"`url` must be like http://HOST:PORT or https://HOST:PORT; got '{url}'"):
        RestClient(url)


@pytest.mark.parametrize("count", [0, -1, "x", None, 1.5, True])
def test_attempts_are_a_whole_number(count):
    for client in (RestClient, GrpcClient):
        with pytest.raises(ValueError, match="`max_attempts` must be"):
            client(max_attempts=count)


def test_any_number_of_rows_fits_a_message(server):
    with GrpcClient(server.address, batch_size=10**7) as client:
        assert client.sample([1, 2]).shape == (2, SIDE, SIDE, 3)


def test_a_redirection_is_not_followed(statuses, monkeypatch):
    """What it leads to would get the token."""
    url = f"http://127.0.0.1:{statuses.server_port}"
    monkeypatch.setattr(Statuses, "headers_sent", {"Location": f"{url}/elsewhere"})
    for status in (301, 302, 303, 307, 308):
        statuses.answer = status, ""
        message = f"it points to '{url}/elsewhere', and nothing is sent there: give the address itself"
        with pytest.raises(ServingError, match=message):
            RestClient(url)
        assert statuses.path == "/v1/models/pivae/metadata"


HEADS = {"headers": b"", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"}
HEADS["error"] = HEADS["body"].replace(b"200 OK", b"500 Internal Server Error")


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_an_answer_that_trickles_has_the_timeout_altogether(head):
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:

        def trickle():
            connection = stack.enter_context(listening.accept()[0])
            connection.sendall(head)
            with contextlib.suppress(OSError):  # The client hangs up.
                for byte in b"HTTP/1.1 " + 60 * b" ":
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED: timed out"):
            RestClient(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.5, max_attempts=1)
        assert time.monotonic() - begun < 3.0
        thread.join()


def test_what_a_server_of_another_protocol_says_is_shown_escaped(server):
    with pytest.raises(ServingError, match="UNAVAILABLE") as error:
        RestClient(f"http://{server.address}", max_attempts=1)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.decode({"z": [1], "labels": [1]}, labels=[1]), "this model has no signature 'decode'"),
        (lambda client: client.sample([[1], [2, 3]]), "`seeds` must be .*; got rows of different shapes"),
    ],
)
def test_input_that_makes_no_sense(server, call, message):
    with GrpcClient(server.address) as client, pytest.raises(ValueError, match=message):
        call(client)


def test_files_are_a_list():
    with pytest.raises(ValueError, match="`image_bytes` must be a list of bytes; got int"):
        as_array("image_bytes", 5, TensorSpec("string", ()))


def test_rest_needs_neither_tensorflow_nor_the_extra():
    script = (
        "import sys\n"
        "from tf_pivae.export.client import RestClient, ServingError\n"
        "try: RestClient('http://127.0.0.1:1', max_attempts=1)\n"
        "except ServingError as error: print(error.code)\n"
        "names = {'tensorflow', 'tensorflow_serving', 'google.protobuf', 'grpc', 'keras'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["UNAVAILABLE", "[]"]


@pytest.mark.parametrize("with_zeros", [False, True])
def test_metadata_in_json_and_in_messages_say_the_same(with_zeros):
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for dtype in ("half", "float32", "float64", "int32", "int64", "uint8", "string", "bool", "bfloat16"):
        info = definitions.signature_def["signature"].inputs[dtype]
        info.dtype = tf.as_dtype(dtype).as_datatype_enum
        for size in (-1, 0, 3):
            info.tensor_shape.dim.add(size=size)
    definitions.signature_def["without_inputs"].outputs["y"].CopyFrom(info)
    definitions.signature_def["__saved_model_init_op"].outputs["no_type"].name = "init"
    options = dict(preserving_proto_field_name=True, always_print_fields_with_no_presence=with_zeros)
    answer = json.loads(json.dumps(json_format.MessageToDict(definitions, **options)))
    assert signatures_in(answer) == signatures_of(definitions)
    assert set(signatures_in(answer)) == {"signature", "without_inputs"}
