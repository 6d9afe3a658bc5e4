"""The REST client: JSON over HTTP, for where gRPC does not get through. Some ten times the bytes of gRPC."""

import base64
import contextlib
import http.client
import json
import ssl
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_pivae.errors import printable
from tf_pivae.export.client.http_requests import opener
from tf_pivae.export.client.model_client import ModelClient, bearer, checked_attempts, checked_timeout
from tf_pivae.export.client.retries import ServingError, with_retries
from tf_pivae.export.requests import DEFAULT_MODEL, Signature, TensorSpec

# Several codes have the status 400 or 500; some statuses come from the development server or a gateway alone.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# TensorFlow's names of types that are not the enumeration's in small letters.
_FLOATS = {"DT_HALF": "float16", "DT_FLOAT": "float32", "DT_DOUBLE": "float64"}


class RestClient(ModelClient):
    """A served model over REST. Safe to share between threads.

    Args:
      url: such as "http://localhost:8501".
      model_name: the name it is served under.
      timeout: seconds for one request with its repetitions.
      batch_size: rows of one request.
      max_attempts: how often a server is asked that cannot be reached; one that is busy is asked until `timeout`.
      context: `ssl.SSLContext` for https, or None for the system's certificates.
      token: what a gateway knows this client by; wants https.

    Raises:
      ServingError: no server, or not this model.
      ValueError: an address of another kind or that is none, a token without encryption, or one that a header cannot
        hold.
    """

    def __init__(
        self,
        url: str = "http://localhost:8501",
        model_name: str = DEFAULT_MODEL,
        timeout: float = 30.0,
        batch_size: int = 64,
        max_attempts: int = 5,
        context: ssl.SSLContext | None = None,
        token: str | None = None,
    ) -> None:
        if not _is_address(url):
            raise ValueError(f"`url` must be like http://HOST:PORT or https://HOST:PORT; got {url!r}.")
        if token is not None and not url.startswith("https://"):
            raise ValueError("a `token` must not be sent unencrypted: give an https:// address.")
        self.url = url.rstrip("/")
        self.timeout = checked_timeout(timeout)
        self.max_attempts = checked_attempts(max_attempts)
        self._model_url = f"{self.url}/v1/models/{urllib.parse.quote(model_name, safe='')}"
        self._opener = opener(context)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {bearer(token)}"
        super().__init__(batch_size)

    def close(self) -> None:
        """Every request has a connection of its own: nothing to do."""

    def _send(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = {
            name: [{"b64": base64.b64encode(value).decode()} for value in array]
            if array.dtype == object
            else array.tolist()
            for name, array in inputs.items()
        }
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        answer = self._request(f"{self._model_url}:predict", body)
        specs = self.signatures[signature].outputs
        with self._understood():
            outputs = {next(iter(specs)): answer["outputs"]} if len(specs) == 1 else answer["outputs"]
            return {name: np.array(outputs[name], spec.dtype) for name, spec in specs.items()}

    def _fetch_signatures(self) -> dict[str, Signature]:
        answer = self._request(f"{self._model_url}/metadata")
        with self._understood():
            return signatures_in(answer["metadata"]["signature_def"])

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Within it, an answer of another form than a model server's is a `ServingError`."""
        try:
            yield
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ServingError(
                "INTERNAL", self.url, "the answer is not that of a model server; is the address right?"
            ) from error

    def _request(self, url: str, body: bytes | None = None) -> Any:
        def attempt(seconds: float) -> Any:
            request = urllib.request.Request(url, body, self._headers)
            try:
                with self._opener.open(request, timeout=seconds) as response:
                    answer = response.read()
            except (OSError, http.client.HTTPException) as error:  # No connection, or it broke in the middle.
                reason = getattr(error, "reason", error)
                code = "DEADLINE_EXCEEDED" if isinstance(reason, TimeoutError) else "UNAVAILABLE"
                raise ServingError(code, self.url, printable(reason)) from error
            if response.status != http.HTTPStatus.OK:
                code = _CODES.get(response.status, f"HTTP {response.status}")
                raise ServingError(code, self.url, _reason(response, answer))
            try:
                return json.loads(answer)
            except ValueError as error:
                raise ServingError("INTERNAL", self.url, f"the answer is not JSON ({error}).") from error

        return with_retries(attempt, self.timeout, self.max_attempts, self.url)


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # Raises for one that is no number, or too large.
    except ValueError:
        return False
    readable = url.isprintable() and " " not in url
    return parts.scheme in ("http", "https") and bool(parts.hostname) and readable


def signatures_in(answer: dict[str, Any]) -> dict[str, Signature]:
    """The signatures in a server's metadata, by name; TensorFlow's own are left out, as by `metadata.signatures_of`.

    Args:
      answer: a `SignatureDefMap` as JSON, which leaves out what is empty.
    """
    definitions = answer["signature_def"].items()
    return {name: _signature(definition) for name, definition in definitions if not name.startswith("__")}


def _signature(definition: dict[str, Any]) -> Signature:
    sides = definition.get("inputs", {}), definition.get("outputs", {})
    return Signature(*({name: _spec(info) for name, info in side.items()} for side in sides))


def _spec(info: dict[str, Any]) -> TensorSpec:
    kind = info["dtype"]
    sizes = [int(dim.get("size", 0)) for dim in info.get("tensor_shape", {}).get("dim", [])]
    return TensorSpec(_FLOATS.get(kind, kind.removeprefix("DT_").lower()), tuple(sizes[1:]))


def _reason(response: http.client.HTTPResponse, answer: bytes) -> str:
    if 300 <= response.status < 400:
        return f"it points to {response.headers.get('Location')!r}, and nothing is sent there: give the address itself."
    text = answer.decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return printable(text[:200] or response.reason)
