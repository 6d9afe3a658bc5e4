"""A server that treats clients as a genuine TensorFlow Serving was seen to, where the development server is kinder.

It is known by these: metadata with a signature of no type; RESOURCE_EXHAUSTED where all threads are taken, UNAVAILABLE
where the queue is full; an empty batch that is not answered before another request of its signature comes; pixels as
numbers of variable length; over REST, pixels taken modulo 256. It does not join requests.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import threading

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from servers import Server
from talking import as_numbers
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

_HTTP = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Replica:
    """Serves a SavedModel as version 1 of the model `pivae`.

    Args:
      run: `GraphSession`.
      threads: gRPC requests at once.
      batch_threads: runs at once.
      max_batch_size: rows of a request.
      queue: requests that run or wait for it.

    Attributes:
      gate: an Event; while it is cleared, no run ends.
      calls, refusals: of `predict`, and of those for lack of a thread or of room in the queue.
    """

    def __init__(self, run, threads=8, batch_threads=8, max_batch_size=64, queue=64):
        self._run = run
        self._max_batch_size = max_batch_size
        self._threads = threading.Semaphore(threads)
        self._queue = threading.Semaphore(queue)
        self._batch_threads = threading.Semaphore(batch_threads)
        self._came = {name: threading.Event() for name in run.signatures}
        self.gate = threading.Event()
        self.calls = 0
        self.refusals = 0
        self.gate.set()

    def predict(self, name, signature, inputs):
        """Arrays -> arrays; raises `Refused`."""
        self.calls += 1
        self._find(name)
        if signature not in self._run.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        rows = len(next(iter(inputs.values())))
        if rows > self._max_batch_size:
            message = f"Task size {rows} is larger than maximum input batch size {self._max_batch_size}"
            raise Refused("INVALID_ARGUMENT", message)
        if not rows:
            self._came[signature].clear()
            self._came[signature].wait()
        if not self._queue.acquire(blocking=False):
            self.refusals += 1
            message = "The batch scheduling queue to which this task was submitted is full"
            raise Refused("UNAVAILABLE", message)
        try:
            with self._batch_threads:
                self.gate.wait()
                outputs = self._run(signature, **inputs)
        except tf.errors.InvalidArgumentError as error:
            raise Refused("INVALID_ARGUMENT", error.message) from error
        finally:
            self._queue.release()
        self._came[signature].set()
        return outputs

    def metadata(self, name):
        self._find(name)
        message = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in self._run.signatures.items():
            message.signature_def[key].CopyFrom(definition)
        return message

    def input_types(self, signature):
        inputs = self._run.signatures[signature].inputs if signature in self._run.signatures else {}
        return {name: tf.as_dtype(info.dtype).as_numpy_dtype for name, info in inputs.items()}

    def _find(self, name):
        if name != "pivae":
            raise Refused("NOT_FOUND", f"Servable not found for request: Latest({name})")

    def stop(self):
        """Lets everybody go who waits."""
        for event in (self.gate, *self._came.values()):
            event.set()

    # gRPC.

    def handler(self):
        methods = {"Predict": self._grpc_predict, "GetModelMetadata": self._grpc_metadata}
        handlers = {name: grpc.unary_unary_rpc_method_handler(self._answer(m)) for name, m in methods.items()}
        return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)

    def _answer(self, method):
        def answer(body, context):
            if not self._threads.acquire(blocking=False):
                self.refusals += 1
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            try:
                return method(body).SerializeToString()
            except Refused as error:
                code = grpc.StatusCode[error.code]
                message = str(error)
            finally:
                self._threads.release()
            context.abort(code, message)

        return answer

    def _grpc_predict(self, body):
        request = predict_pb2.PredictRequest.FromString(body)
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for key, array in self.predict(request.model_spec.name, request.model_spec.signature_name, inputs).items():
            response.outputs[key].CopyFrom(as_numbers(array))
        return response

    def _grpc_metadata(self, body):
        request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(body)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(self.metadata(request.model_spec.name))
        return response


class _Rest(http.server.BaseHTTPRequestHandler):
    """REST in front of `self.server.replica`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name, _, what = self.path.removeprefix("/v1/models/").partition("/")
        self._reply(lambda: self._metadata(name) if what == "metadata" else self._status())

    def do_POST(self):
        name = self.path.removeprefix("/v1/models/").removesuffix(":predict")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(lambda: self._predict(name, json.loads(body)))

    def log_message(self, *_):
        pass

    def _reply(self, answer):
        try:
            status = 200
            content = answer()
        except Refused as error:
            status = _HTTP[error.code]
            content = {"error": str(error)}
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _status(self):
        return {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]}

    def _metadata(self, name):
        message = self.server.replica.metadata(name)
        signatures = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return {"model_spec": {"name": name, "version": "1"}, "metadata": {"signature_def": signatures}}

    def _predict(self, name, request):
        types = self.server.replica.input_types(request["signature_name"])
        inputs = {key: _column(value, types[key]) for key, value in request["inputs"].items() if key in types}
        outputs = self.server.replica.predict(name, request["signature_name"], inputs)
        columns = {key: array.tolist() for key, array in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}


def _column(values, kind):
    if kind is object:
        return np.array([base64.b64decode(value["b64"]) for value in values], object)
    return np.array(values).astype(kind)  # 300 becomes 44.


@contextlib.contextmanager
def serving(replica):
    """Runs a `Replica` on free ports: yields its `Server`."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=options)
    server.add_generic_rpc_handlers([replica.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Rest) as rest:
        rest.replica = replica
        rest.daemon_threads = True
        rest.block_on_close = False
        threading.Thread(target=rest.serve_forever, args=[0.05]).start()
        yield Server(None, f"127.0.0.1:{port}", f"http://127.0.0.1:{rest.server_port}")
        replica.stop()
        rest.shutdown()
    server.stop(None).wait()
