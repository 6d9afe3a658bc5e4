"""The REST client: JSON over HTTP, for where gRPC does not get through. Some ten times the bytes of gRPC."""

import base64
import json
import urllib.error
import urllib.request

import numpy as np
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from tf_pivae.export.model_client import ModelClient
from tf_pivae.export.retries import ServingError, with_retries
from tf_pivae.export.servable import signature_of

_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


class RestClient(ModelClient):
    """A served model over REST. Safe to share between threads.

    Args:
      url: such as "http://localhost:8501".
      model_name: the name it is served under.
      timeout: seconds for one request with its repetitions.
      batch_size: rows of one request.
      max_attempts: how often an unavailable server is asked.

    Raises:
      ServingError: no server, or not this model.
    """

    def __init__(self, url="http://localhost:8501", model_name="pivae", timeout=30.0, batch_size=64, max_attempts=5):
        self.url, self.timeout, self.max_attempts = url.rstrip("/"), timeout, max_attempts
        self._model_url = f"{self.url}/v1/models/{model_name}"
        super().__init__(batch_size)

    def close(self):
        """Every request has a connection of its own: nothing to do."""

    def predict(self, signature, inputs):
        """See `ModelClient.predict`."""
        columns = {
            name: [_b64(value) for value in array] if array.dtype == object else array.tolist()
            for name, array in inputs.items()
        }
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        outputs = self._request(f"{self._model_url}:predict", body)["outputs"]
        specs = self.signatures[signature].outputs
        if len(specs) == 1:
            outputs = {next(iter(specs)): outputs}
        return {name: np.array(outputs[name], spec.dtype) for name, spec in specs.items()}

    def _fetch_signatures(self):
        answer = self._request(f"{self._model_url}/metadata")["metadata"]["signature_def"]
        definitions = json_format.ParseDict(answer, get_model_metadata_pb2.SignatureDefMap())
        return {name: signature_of(definition) for name, definition in definitions.signature_def.items()}

    def _request(self, url, body=None):
        headers = {"Content-Type": "application/json"}

        def attempt(seconds):
            request = urllib.request.Request(url, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=seconds) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                code = _CODES.get(error.code, f"HTTP {error.code}")
                with error:
                    raise ServingError(code, self.url, _reason(error)) from error
            except OSError as error:  # A URLError with its reason, or the connection broke in the middle.
                reason = getattr(error, "reason", error)
                code = "DEADLINE_EXCEEDED" if isinstance(reason, TimeoutError) else "UNAVAILABLE"
                raise ServingError(code, self.url, str(reason)) from error

        return with_retries(attempt, self.timeout, self.max_attempts, self.url)


def _b64(value):
    return {"b64": base64.b64encode(value).decode()}


def _reason(error):
    text = error.read().decode(errors="replace")
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text[:200] or error.reason
