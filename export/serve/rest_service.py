"""TensorFlow Serving's REST interface.

GET  /v1/models/NAME[/versions/V]            status
GET  /v1/models/NAME[/versions/V]/metadata   signatures
POST /v1/models/NAME[/versions/V]:predict    {"signature_name": ..., "instances": [...]} or {..., "inputs": {...}}
GET  /monitoring/prometheus/metrics
"""

import asyncio
import json
import re

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message

from tf_pivae.export.requests import DEFAULT_SIGNATURE, HTTP_STATUS, Outputs, RequestError, check_rows, invalid
from tf_pivae.export.serve.grpc_service import model_status, signature_def_map
from tf_pivae.export.serve.http_server import read_body
from tf_pivae.export.serve.json_tensors import arrays_from_json, json_from_arrays, parse_body, unpack
from tf_pivae.export.serve.limits import Limits
from tf_pivae.export.serve.manager import ModelManager, Version
from tf_pivae.export.serve.server_metrics import CONTENT_TYPE, RequestOutcome, ServerMetrics

_METRICS = "/monitoring/prometheus/metrics"
_MODEL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,19}))?(|/metadata|:predict)")


class RestService:
    """Answers requests.

    Args:
      manager: which version answers.
      model_name: the one model.
      limits: of a request.
      patience: seconds that a body may take.
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

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The response to a request; errors are responses too."""
        with self._metrics.request("rest") as outcome:
            try:
                response = await self._route(request, outcome)
                outcome.code = "OK"
                return response
            except RequestError as error:
                outcome.code = error.code
                message = str(error)
            except Exception as error:  # The server keeps running.
                outcome.code = "INTERNAL"
                message = f"{type(error).__name__}: {error}"
        return _json({"error": message}, HTTP_STATUS[outcome.code])

    async def _route(self, request: web.BaseRequest, outcome: RequestOutcome) -> web.Response:
        if (request.method, request.path) == ("GET", _METRICS):
            body = self._metrics.exposition(self._manager.version().number)
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
        match = _MODEL.fullmatch(request.path)
        if match is None or request.method != ("POST" if match[3] == ":predict" else "GET"):
            paths = "GET /v1/models/NAME, GET /v1/models/NAME/metadata and POST /v1/models/NAME:predict"
            raise RequestError("NOT_FOUND", f"there are {paths}.")
        if match[1] != self._model_name:
            raise RequestError("NOT_FOUND", f"no model {match[1][:80]!r}; this server has {self._model_name!r}.")
        version = None if match[2] is None else int(match[2])
        if match[3] == "":
            return _json(_as_dict(model_status(self._manager, version), with_zeros=True))
        active = self._manager.version(version)
        if match[3] == "/metadata":
            spec = {"name": self._model_name, "signature_name": "", "version": str(active.number)}
            signatures = _as_dict(signature_def_map(active.servable))
            return _json({"model_spec": spec, "metadata": {"signature_def": signatures}})
        return await self._predict(request, active, outcome)

    async def _predict(self, request: web.BaseRequest, active: Version, outcome: RequestOutcome) -> web.Response:
        body = await read_body(request, self._limits.json_bytes, self._patience)
        encoding = request.headers.get("Content-Encoding", "")
        # In a thread, whatever the size: a body of some KB may be gzip.
        name, inputs, by_rows = await asyncio.to_thread(self._parse, active, body, encoding, outcome)
        outputs = await active.run(name, inputs, check_rows(inputs))
        text = await asyncio.to_thread(json_from_arrays, outputs, by_rows)
        return web.Response(text=text, content_type="application/json")

    def _parse(self, active: Version, body: bytes, encoding: str, outcome: RequestOutcome) -> tuple[str, Outputs, bool]:
        body = unpack(body, encoding, self._limits.json_bytes)
        request = parse_body(body, self._limits.json_values)
        name = request.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(name, str):
            raise invalid('"signature_name" must be a string.')
        name = name or DEFAULT_SIGNATURE
        specs = active.servable.signature(name).inputs
        outcome.signature = name
        return name, *arrays_from_json(request, specs, name, self._limits)


def _as_dict(message: Message, with_zeros: bool = False) -> dict:
    options = dict(preserving_proto_field_name=True, always_print_fields_with_no_presence=with_zeros)
    return json_format.MessageToDict(message, **options)


def _json(value: dict, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(value), status=status, content_type="application/json")
