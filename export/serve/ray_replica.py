"""A replica of an exported model on a Ray cluster; `tf_pivae.export.ray_serve` starts them."""

import asyncio
import concurrent.futures
import functools

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tf_pivae.export.client.model_client import as_array
from tf_pivae.export.requests import (
    DEFAULT_SIGNATURE,
    HTTP_STATUS,
    Inputs,
    Outputs,
    RequestError,
    TensorSpec,
    check_names,
    check_rows,
    check_shape,
    invalid,
)
from tf_pivae.export.runtimes.opening import newest, open_runtime
from tf_pivae.export.serve.batching import Batcher
from tf_pivae.export.serve.json_tensors import arrays_from_json, json_from_arrays, parse_body, too_large, unpack
from tf_pivae.export.serve.limits import MAX_BYTES, MAX_ROWS, limits_of


@serve.deployment(max_ongoing_requests=256)
class ServedModel:
    """A replica.

    Args:
      export_dir: a version's folder, or a folder of versions, of which the newest is taken.
      runtime, precision: see `tf_pivae.export.load`.
      max_batch_size: rows of a request, and of requests that are joined.
    """

    def __init__(
        self, export_dir: str, runtime: str = "tensorflow", precision: str = "f32", max_batch_size: int = MAX_ROWS
    ) -> None:
        model = open_runtime(newest(export_dir), runtime, precision)
        self._signatures = model.signatures
        self._limits = limits_of(model.signatures, max_batch_size, MAX_BYTES)
        queue = concurrent.futures.ThreadPoolExecutor(1), asyncio.Semaphore(1), lambda rows: None
        self._batchers = {
            name: Batcher(functools.partial(model.run, name), *queue, max_batch_size) for name in model.signatures
        }

    async def predict(self, signature: str, inputs: Inputs) -> Outputs:
        """Runs a signature on NumPy arrays.

        Raises:
          RequestError: INVALID_ARGUMENT, UNIMPLEMENTED, UNAVAILABLE or INTERNAL.
        """
        specs = self._specs(signature)
        check_names(inputs, specs, signature)
        try:  # Another type would change that of the whole batch.
            arrays = {name: as_array(name, inputs[name], spec) for name, spec in specs.items()}
        except (ValueError, TypeError) as error:
            raise invalid(str(error)) from error
        for name, spec in specs.items():
            check_shape(name, arrays[name].shape, spec, self._limits.rows)
        return await self._batchers[signature].submit(arrays, check_rows(arrays))

    def _specs(self, signature: str) -> dict[str, TensorSpec]:
        if signature not in self._signatures:
            raise invalid(f"no signature {signature[:80]!r}; there are {', '.join(sorted(self._signatures))}.")
        return self._signatures[signature].inputs

    async def __call__(self, request: Request) -> Response:
        """A request over HTTP."""
        try:
            encoding = request.headers.get("content-encoding", "")
            body = await _body(request, self._limits.json_bytes)
            name, inputs, by_rows = await asyncio.to_thread(self._parse, body, encoding)
            text = await asyncio.to_thread(json_from_arrays, await self.predict(name, inputs), by_rows)
            return Response(text, media_type="application/json")
        except RequestError as error:
            return Response(f"{error}\n", HTTP_STATUS[error.code], media_type="text/plain")

    def _parse(self, body: bytes, encoding: str) -> tuple[str, Outputs, bool]:
        message = parse_body(unpack(body, encoding, self._limits.json_bytes), self._limits.json_values)
        name = str(message.get("signature_name") or DEFAULT_SIGNATURE)
        return name, *arrays_from_json(message, self._specs(name), name, self._limits)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body as it was sent; no more of it is kept than may be.

    Raises:
      RequestError: RESOURCE_EXHAUSTED.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)
    return bytes(body)
