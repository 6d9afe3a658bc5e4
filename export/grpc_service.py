"""TensorFlow Serving's gRPC services: PredictionService (Predict, GetModelMetadata) and ModelService (GetModelStatus).

Messages are parsed here and not by gRPC, which would answer a garbled one with INTERNAL.
"""

import asyncio

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from tf_pivae.export.proto_tensors import arrays_from_protos
from tf_pivae.export.requests import RequestError, check_rows, invalid
from tf_pivae.export.servable import DEFAULT_SIGNATURE

_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
_MODEL_SERVICE = "tensorflow.serving.ModelService"
_LARGE = 1 << 16  # bytes; parsing more than this would hold up the other requests, so a thread does it.


class GrpcService:
    """The methods; each takes the bytes of a request and gives a message.

    Args:
      manager: `ModelManager`.
      model_name: the one name that requests may ask for.
      max_rows: of a request.
      metrics: `ServerMetrics`.
    """

    def __init__(self, manager, model_name, max_rows, metrics):
        self._manager, self._model_name, self._max_rows, self._metrics = manager, model_name, max_rows, metrics

    def add_to(self, server):
        """Registers the services with a `grpc.aio.Server`."""
        services = {
            _PREDICTION_SERVICE: {"Predict": self.predict, "GetModelMetadata": self.get_model_metadata},
            _MODEL_SERVICE: {"GetModelStatus": self.get_model_status},
        }
        for service, methods in services.items():
            handlers = {name: self._handler(method) for name, method in methods.items()}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    def _handler(self, method):
        async def handle(body, context):
            with self._metrics.request("grpc") as outcome:
                try:
                    response = await method(body, outcome)
                    outcome.code = "OK"
                    return response.SerializeToString()
                except RequestError as error:
                    outcome.code, message = error.code, str(error)
                except Exception as error:  # The server lives on.
                    outcome.code, message = "INTERNAL", f"{type(error).__name__}: {error}"
            await context.abort(grpc.StatusCode[outcome.code], message)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def predict(self, body, outcome):
        """`PredictRequest` -> `PredictResponse`."""
        request = _parse(predict_pb2.PredictRequest, body)
        with self._manager.lease(self._version(request.model_spec)) as active:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = active.servable.signature(name)
            outcome.signature = name
            unknown = [output for output in request.output_filter if output not in signature.outputs]
            if unknown:
                raise invalid(f"no output {unknown[0][:80]!r}; {name!r} has {', '.join(sorted(signature.outputs))}.")
            arguments = request.inputs, signature.inputs, name, self._max_rows
            inputs = await _off_loop(len(body), arrays_from_protos, *arguments)
            outputs = await active.run(name, inputs, check_rows(inputs))
            response = predict_pb2.PredictResponse()
            self._describe(response.model_spec, active.version, name)
            for key in request.output_filter or outputs:
                response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
            return response

    async def get_model_metadata(self, body, outcome):
        """`GetModelMetadataRequest` -> `GetModelMetadataResponse`, the signatures."""
        del outcome
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, body)
        if list(request.metadata_field) != ["signature_def"]:
            raise invalid('metadata_field must be ["signature_def"].')
        with self._manager.lease(self._version(request.model_spec)) as active:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            self._describe(response.model_spec, active.version, "")
            response.metadata["signature_def"].Pack(signature_def_map(active.servable))
            return response

    async def get_model_status(self, body, outcome):
        """`GetModelStatusRequest` -> `GetModelStatusResponse`."""
        del outcome
        request = _parse(get_model_status_pb2.GetModelStatusRequest, body)
        return model_status(self._manager, self._version(request.model_spec))

    def _version(self, spec):
        """The version that a request insists on, or None."""
        if spec.name != self._model_name:
            raise RequestError("NOT_FOUND", f"no model {spec.name[:80]!r}; this server has {self._model_name!r}.")
        if spec.WhichOneof("version_choice") == "version_label":
            raise invalid("version labels are not configured: give a version number, or none for the newest.")
        return spec.version.value if spec.HasField("version") else None

    def _describe(self, spec, version, signature):
        spec.name, spec.version.value, spec.signature_name = self._model_name, version, signature


def signature_def_map(servable):
    """A servable's signatures as the message that describes them."""
    message = get_model_metadata_pb2.SignatureDefMap()
    # TensorFlow adds one to every SavedModel, which TensorFlow Serving describes like the rest: its output has no type.
    init_op = message.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"]
    init_op.name, init_op.tensor_shape.unknown_rank = "NoOp", True
    for name, definition in servable.signature_defs.items():
        message.signature_def[name].CopyFrom(definition)
    return message


def model_status(manager, version=None):
    """`GetModelStatusResponse` of all versions, or of one.

    Raises:
      RequestError: NOT_FOUND; this version is not known.
    """
    states = manager.states()
    if version is not None and version not in states:
        raise RequestError("NOT_FOUND", f"version {version} is not known; version {manager.version} is served.")
    response = get_model_status_pb2.GetModelStatusResponse()
    for number in sorted(states, reverse=True) if version is None else [version]:
        state, reason = states[number]
        status = response.model_version_status.add(version=number, state=state)
        status.status.error_code = 13 if reason else 0  # google.rpc.Code: INTERNAL, OK.
        status.status.error_message = reason
    return response


def _parse(kind, body):
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise invalid(f"the message is no {kind.DESCRIPTOR.name} ({error}).") from error


async def _off_loop(size, function, *arguments):
    return await asyncio.to_thread(function, *arguments) if size > _LARGE else function(*arguments)
