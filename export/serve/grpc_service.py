"""TensorFlow Serving's gRPC services: PredictionService (Predict, GetModelMetadata) and ModelService (GetModelStatus).

Messages are parsed here and not by gRPC, which would answer a garbled one with INTERNAL, and awaited here: gRPC would
wait for ever for one that does not come.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from tf_pivae.export.requests import DEFAULT_SIGNATURE, Outputs, RequestError, check_rows, invalid
from tf_pivae.export.serve.limits import Limits
from tf_pivae.export.serve.manager import ModelManager
from tf_pivae.export.serve.proto_tensors import arrays_from_protos, check_size
from tf_pivae.export.serve.servable import Servable
from tf_pivae.export.serve.server_metrics import RequestOutcome, ServerMetrics

_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
_MODEL_SERVICE = "tensorflow.serving.ModelService"
_SMALL = 4096  # bytes; a thread parses what is larger, and a question without tensors never is.
_Kind = TypeVar("_Kind", bound=Message)
_Result = TypeVar("_Result")


class GrpcService:
    """The methods; each takes the bytes of a request and gives a message.

    Args:
      manager: which version answers.
      model_name: the one name that requests may ask for.
      limits: of a request.
      patience: seconds that a message may take.
      metrics: where requests are counted.
    """

    def __init__(
        self, manager: ModelManager, model_name: str, limits: Limits, patience: float, metrics: ServerMetrics
    ) -> None:
        self._manager = manager
        self._model_name = model_name
        self._limits = limits
        self._metrics = metrics
        self._patience = patience

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the services."""
        services = {
            _PREDICTION_SERVICE: {"Predict": self.predict, "GetModelMetadata": self.get_model_metadata},
            _MODEL_SERVICE: {"GetModelStatus": self.get_model_status},
        }
        for service, methods in services.items():
            handlers = {name: self._handler(method) for name, method in methods.items()}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    def _handler(self, method: Callable[[bytes, RequestOutcome], Awaitable[Message]]) -> grpc.RpcMethodHandler:
        async def handle(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
            with self._metrics.request("grpc") as outcome:
                try:
                    response = await method(await self._message(messages), outcome)
                    outcome.code = "OK"
                    return response.SerializeToString()
                except RequestError as error:
                    outcome.code = error.code
                    message = str(error)
                except Exception as error:  # The server keeps running.
                    outcome.code = "INTERNAL"
                    message = f"{type(error).__name__}: {error}"
            return await context.abort(grpc.StatusCode[outcome.code], message)

        return grpc.stream_unary_rpc_method_handler(handle)  # One message is a stream of one.

    async def _message(self, messages: AsyncIterator[bytes]) -> bytes:
        try:
            return await asyncio.wait_for(anext(messages, b""), self._patience)
        except (asyncio.TimeoutError, TimeoutError):
            reason = f"the message did not arrive within {self._patience:g} s."
            raise RequestError("DEADLINE_EXCEEDED", reason) from None

    async def predict(self, body: bytes, outcome: RequestOutcome) -> predict_pb2.PredictResponse:
        """`PredictRequest` -> `PredictResponse`."""
        check_size(body, self._limits.rows)
        request = await _off_loop(len(body), _parse, predict_pb2.PredictRequest, body)
        active = self._manager.version(self._version(request.model_spec))
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = active.servable.signature(name)
        outcome.signature = name
        unknown = [output for output in request.output_filter if output not in signature.outputs]
        if unknown:
            raise invalid(f"no output {unknown[0][:80]!r}; {name!r} has {', '.join(sorted(signature.outputs))}.")
        arguments = request.inputs, signature.inputs, name, self._limits.rows
        inputs = await _off_loop(len(body), arrays_from_protos, *arguments)
        outputs = await active.run(name, inputs, check_rows(inputs))
        outputs = {key: outputs[key] for key in request.output_filter or outputs}
        return await _off_loop(
            sum(array.nbytes for array in outputs.values()), self._response, active.number, name, outputs
        )

    def _response(self, version: int, signature: str, outputs: Outputs) -> predict_pb2.PredictResponse:
        response = predict_pb2.PredictResponse()
        self._describe(response.model_spec, version, signature)
        for key, array in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(array))
        return response

    async def get_model_metadata(
        self, body: bytes, outcome: RequestOutcome
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """`GetModelMetadataRequest` -> `GetModelMetadataResponse`, the signatures."""
        del outcome
        request = _parse_small(get_model_metadata_pb2.GetModelMetadataRequest, body)
        if list(request.metadata_field) != ["signature_def"]:
            raise invalid('metadata_field must be ["signature_def"].')
        active = self._manager.version(self._version(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._describe(response.model_spec, active.number, "")
        response.metadata["signature_def"].Pack(signature_def_map(active.servable))
        return response

    async def get_model_status(
        self, body: bytes, outcome: RequestOutcome
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """`GetModelStatusRequest` -> `GetModelStatusResponse`."""
        del outcome
        request = _parse_small(get_model_status_pb2.GetModelStatusRequest, body)
        return model_status(self._manager, self._version(request.model_spec))

    def _version(self, spec: model_pb2.ModelSpec) -> int | None:
        """The version that a request insists on, or None."""
        if spec.name != self._model_name:
            raise RequestError("NOT_FOUND", f"no model {spec.name[:80]!r}; this server has {self._model_name!r}.")
        if spec.WhichOneof("version_choice") == "version_label":
            raise invalid("version labels are not configured: give a version number, or none for the newest.")
        return spec.version.value if spec.HasField("version") else None

    def _describe(self, spec: model_pb2.ModelSpec, version: int, signature: str) -> None:
        spec.name = self._model_name
        spec.version.value = version
        spec.signature_name = signature


def signature_def_map(servable: Servable) -> get_model_metadata_pb2.SignatureDefMap:
    """A servable's signatures as the message that describes them."""
    message = get_model_metadata_pb2.SignatureDefMap()
    # TensorFlow adds one to every SavedModel, which TensorFlow Serving describes like the rest: its output has no type.
    init_op = message.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"]
    init_op.name = "NoOp"
    init_op.tensor_shape.unknown_rank = True
    for name, definition in servable.signature_defs.items():
        message.signature_def[name].CopyFrom(definition)
    return message


def model_status(manager: ModelManager, version: int | None = None) -> get_model_status_pb2.GetModelStatusResponse:
    """`GetModelStatusResponse` of all versions, or of one.

    Raises:
      RequestError: NOT_FOUND; this version is not known.
    """
    states = manager.states()
    if version is not None and version not in states:
        raise RequestError("NOT_FOUND", f"there is no version {version}; version {manager.version().number} is served.")
    response = get_model_status_pb2.GetModelStatusResponse()
    for number in sorted(states, reverse=True) if version is None else [version]:
        state, reason = states[number]
        status = response.model_version_status.add(version=number, state=state)
        status.status.error_code = 13 if reason else 0  # google.rpc.Code: INTERNAL, OK.
        status.status.error_message = reason
    return response


def _parse(kind: type[_Kind], body: bytes) -> _Kind:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise invalid(f"the message is not a {kind.DESCRIPTOR.name} ({error}).") from error


def _parse_small(kind: type[_Kind], body: bytes) -> _Kind:
    if len(body) > _SMALL:
        raise invalid(f"the message is not a {kind.DESCRIPTOR.name}: it has more than {_SMALL} bytes.")
    return _parse(kind, body)


async def _off_loop(size: int, function: Callable[..., _Result], *arguments: Any) -> _Result:
    return await asyncio.to_thread(function, *arguments) if size > _SMALL else function(*arguments)
