"""TensorFlow Serving's REST interface.

GET  /v1/models/NAME[/versions/V]            status
GET  /v1/models/NAME[/versions/V]/metadata   signatures
POST /v1/models/NAME[/versions/V]:predict    {"signature_name": ..., "instances": [...]} or {..., "inputs": {...}}
GET  /monitoring/prometheus/metrics
"""

import asyncio
import json

from aiohttp import web
from google.protobuf import json_format

from tf_pivae.export.grpc_service import model_status, signature_def_map
from tf_pivae.export.json_tensors import arrays_from_json, json_from_arrays, parse_body
from tf_pivae.export.requests import HTTP_STATUS, RequestError, check_rows, invalid
from tf_pivae.export.servable import DEFAULT_SIGNATURE
from tf_pivae.export.server_metrics import CONTENT_TYPE

_LARGE = 1 << 16  # bytes; parsing more than this would hold up the other requests, so a thread does it.


class RestService:
    """The handlers.

    Args:
      manager: `ModelManager`.
      model_name: the one model.
      max_rows: of a request.
      max_bytes: of a request's body.
      metrics: `ServerMetrics`.
    """

    def __init__(self, manager, model_name, max_rows, max_bytes, metrics):
        self._manager, self._model_name, self._max_rows, self._metrics = manager, model_name, max_rows, metrics
        self._max_bytes = max_bytes

    def application(self):
        """An `aiohttp.web.Application`."""
        app = web.Application(client_max_size=self._max_bytes, middlewares=[self._answer_errors])
        for version in ("", r"/versions/{version:\d{1,18}}"):
            app.router.add_get(rf"/v1/models/{{model}}{version}", self._status)
            app.router.add_get(rf"/v1/models/{{model}}{version}/metadata", self._metadata)
            app.router.add_post(rf"/v1/models/{{model:[^/:]+}}{version}:predict", self._predict)
        app.router.add_get("/monitoring/prometheus/metrics", self._prometheus)
        return app

    @web.middleware
    async def _answer_errors(self, request, handler):
        with self._metrics.request("rest") as outcome:
            request["outcome"] = outcome
            try:
                response = await handler(request)
                outcome.code = "OK"
                return response
            except RequestError as error:
                outcome.code = error.code
                return _error(HTTP_STATUS[error.code], str(error))
            except web.HTTPException as error:
                outcome.code = str(error.status)
                return _error(error.status, _explain(error, self._max_bytes))
            except Exception as error:  # The server lives on.
                outcome.code = "INTERNAL"
                return _error(500, f"{type(error).__name__}: {error}")

    async def _predict(self, request):
        version = self._version(request)
        body = await request.read()
        with self._manager.lease(version) as active:
            arguments = active, body, request["outcome"]
            if len(body) > _LARGE:
                name, inputs, by_rows = await asyncio.to_thread(self._parse, *arguments)
            else:
                name, inputs, by_rows = self._parse(*arguments)
            outputs = await active.run(name, inputs, check_rows(inputs))
        return web.json_response(json_from_arrays(outputs, by_rows), dumps=_dumps)

    def _parse(self, active, body, outcome):
        request = parse_body(body)
        name = request.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(name, str):
            raise invalid('"signature_name" must be a string.')
        name = name or DEFAULT_SIGNATURE
        specs = active.servable.signature(name).inputs
        outcome.signature = name
        inputs, by_rows = arrays_from_json(request, specs, name, self._max_rows)
        return name, inputs, by_rows

    async def _status(self, request):
        return _message(model_status(self._manager, self._version(request)))

    async def _metadata(self, request):
        with self._manager.lease(self._version(request)) as active:
            spec = {"name": self._model_name, "signature_name": "", "version": str(active.version)}
            signatures = json_format.MessageToDict(signature_def_map(active.servable), preserving_proto_field_name=True)
        return web.json_response({"model_spec": spec, "metadata": {"signature_def": signatures}})

    async def _prometheus(self, request):
        del request
        body = self._metrics.exposition(self._manager.version)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    def _version(self, request):
        name = request.match_info["model"]
        if name != self._model_name:
            raise RequestError("NOT_FOUND", f"no model {name[:80]!r}; this server has {self._model_name!r}.")
        version = request.match_info.get("version")
        return None if version is None else int(version)


def _dumps(value):
    return json.dumps(value, separators=(",", ":"))


def _message(message):
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return web.Response(text=text, content_type="application/json")


def _error(status, message):
    return web.json_response({"error": message}, status=status)


def _explain(error, max_bytes):
    if error.status == 413:
        return f"the body has more than {max_bytes} bytes: send smaller batches."
    if error.status in (404, 405):
        return f"{error.reason}: there are GET /v1/models/NAME, GET .../metadata and POST /v1/models/NAME:predict."
    return error.reason
