"""OpenVINO as what runs an exported model. Nothing here imports TensorFlow, which is most of the time of a start.

OpenVINO reads a SavedModel's `serving_default` alone, with nothing in its interface to name another: each signature is
read from a copy of `saved_model.pb` in which it goes by that name.
"""

import collections
import contextlib
import re
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from tf_pivae.errors import last_line, sentence
from tf_pivae.export.requests import (
    DEFAULT_SIGNATURE,
    EMPTY_BATCH,
    Inputs,
    Outputs,
    RequestError,
    Signature,
    TensorSpec,
    check_finite,
    check_rows,
    invalid,
)
from tf_pivae.export.versions import MODEL_CARD, SAVED_MODEL, VARIABLES
from tf_pivae.files import file_sha256, read_json

_ROWS = 8
_DTYPES = {1: "float32", 3: "int32", 4: "uint8", 7: "string", 9: "int64"}  # tensorflow/core/framework/types.proto
# The fields of tensorflow/core/protobuf/{saved_model,meta_graph}.proto that say what signatures there are. Of the rest,
# the graph, protobuf keeps the bytes.
_FILE = """
name: "tf_pivae/signatures.proto" package: "tf_pivae" syntax: "proto3"
message_type { name: "SavedModel" field { name: "graphs" number: 2 label: LABEL_REPEATED type_name: "Graph" } }
message_type { name: "Graph" field { name: "signatures" number: 5 label: LABEL_REPEATED type_name: "Entry" } }
message_type { name: "Entry"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type_name: "Value" label: LABEL_OPTIONAL } }
message_type { name: "Value"
  field { name: "inputs" number: 1 label: LABEL_REPEATED type_name: "Tensor" }
  field { name: "outputs" number: 2 label: LABEL_REPEATED type_name: "Tensor" } }
message_type { name: "Tensor"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "info" number: 2 type_name: "Info" label: LABEL_OPTIONAL } }
message_type { name: "Info"
  field { name: "dtype" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "shape" number: 3 type_name: "Shape" label: LABEL_OPTIONAL } }
message_type { name: "Shape" field { name: "dim" number: 2 label: LABEL_REPEATED type_name: "Dim" } }
message_type { name: "Dim" field { name: "size" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL } }
"""


class OpenVINORuntime:
    """See `opening.Runtime`. A signature is compiled when it is first run.

    It is compiled for 1 row, computed by all threads, and for `_ROWS`, several of these at a time: for a fixed number
    of rows a graph takes half of the time, or less, that it takes for any number. What is sent is cut into such parts.

    Args:
      folder: a version's.
      precision: "f32" or "bf16", the `INFERENCE_PRECISION_HINT`.

    Raises:
      ValueError: the folder's `saved_model.pb` is not a SavedModel, or a file is not the one that was exported.
    """

    def __init__(self, folder: Path, precision: str = "f32") -> None:
        card = _model_card(folder)
        _check_sums(folder, card)
        self._ranges = _ranges(card)
        self._folder = folder.absolute()  # Signatures are read later, perhaps from another current folder.
        self._precision = precision
        self._saved = _read(folder)
        entries = self._saved.graphs[0].signatures
        self.signatures = {e.name: _signature(e.value) for e in entries if not e.name.startswith("__")}
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._compiled: dict[str, dict[int, openvino.CompiledModel] | RequestError] = {}
        self._requests = threading.local()  # OpenVINO's, for each thread, signature and number of rows

    def run(self, name: str, inputs: Inputs) -> Outputs:
        """Runs a signature.

        Raises:
          RequestError: INVALID_ARGUMENT, no rows, or values that the graph would refuse; UNIMPLEMENTED, OpenVINO
            cannot run it; INTERNAL, it failed, or the version was removed before this signature was first run.
        """
        requests = self._requests.__dict__
        if name not in requests:
            requests[name] = {rows: _infer_requests(model) for rows, model in self._compile(name).items()}
        count = check_rows(inputs)
        if count == 0:
            raise invalid(EMPTY_BATCH)
        self._ranges.check(inputs)
        whole = count - count % _ROWS
        parts = [(first, _ROWS) for first in range(0, whole, _ROWS)] + [(first, 1) for first in range(whole, count)]
        results = []
        running: collections.deque[openvino.InferRequest] = collections.deque()  # In the order of their rows.

        def finish():
            request = running.popleft()
            request.wait()
            ports = request.results.items()
            results.append({name: np.array(value) for port, value in ports for name in port.get_names()})

        try:
            for i, (first, rows) in enumerate(parts):
                request = requests[name][rows][i % len(requests[name][rows])]
                while request in running:
                    finish()
                part = {key: np.ascontiguousarray(value[first : first + rows]) for key, value in inputs.items()}
                request.start_async(part)
                running.append(request)
            while running:
                finish()
        except RuntimeError as error:
            for request in running:  # None is at work when the next call comes.
                with contextlib.suppress(RuntimeError):
                    request.wait()
            raise RequestError("INTERNAL", sentence(f"OpenVINO: {last_line(error)[:300]}")) from error
        # An output with the name of an input gets a number.
        names = {key: key if key in results[0] else f"{key}_1" for key in self.signatures[name].outputs}
        return {key: np.concatenate([result[names[key]] for result in results]) for key in names}

    def _compile(self, name: str) -> dict[int, openvino.CompiledModel]:
        """Number of rows -> the signature for so many."""
        with self._lock:
            if name not in self._compiled:
                try:
                    model = self._read_model(name)
                    self._compiled[name] = {rows: self._for_rows(model, rows) for rows in (1, _ROWS)}
                except RuntimeError as error:
                    if not all((self._folder / file).exists() for file in (SAVED_MODEL, VARIABLES)):
                        raise RequestError(
                            "INTERNAL", f"{self._folder} was removed: put it back, or load another version."
                        ) from error
                    operations = re.search("operations:(.*)", str(error))
                    reason = operations[1].strip() if operations else last_line(error)
                    self._compiled[name] = RequestError(
                        "UNIMPLEMENTED", f"OpenVINO cannot run signature {name!r}, but TensorFlow can ({reason[:200]})."
                    )
        compiled = self._compiled[name]
        if isinstance(compiled, RequestError):
            raise compiled
        return compiled

    def _for_rows(self, model: openvino.Model, rows: int) -> openvino.CompiledModel:
        model.reshape({port: [rows, *list(port.partial_shape)[1:]] for port in model.inputs})
        hint = "LATENCY" if rows == 1 else "THROUGHPUT"
        options = {"INFERENCE_PRECISION_HINT": self._precision, "PERFORMANCE_HINT": hint}
        return self._core.compile_model(model, "CPU", options)

    def _read_model(self, name: str) -> openvino.Model:
        if name == DEFAULT_SIGNATURE:
            return self._core.read_model(str(self._folder))
        changed = type(self._saved)()
        changed.CopyFrom(self._saved)
        values = {entry.name: entry for entry in changed.graphs[0].signatures}
        values[DEFAULT_SIGNATURE].value.CopyFrom(values[name].value)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / SAVED_MODEL).write_bytes(changed.SerializeToString())
            (Path(folder) / "variables").symlink_to(self._folder / "variables")
            return self._core.read_model(folder)


def _infer_requests(model: openvino.CompiledModel) -> list[openvino.InferRequest]:
    """As many as the model runs at a time."""
    return [model.create_infer_request() for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]


class _Ranges(NamedTuple):
    """What a SavedModel's graph asserts of its inputs (`write.signatures`): OpenVINO converts no assertion."""

    num_bins: int = 256
    num_classes: int = np.iinfo(np.int64).max

    def check(self, inputs: Inputs) -> None:
        """Raises `RequestError` for pixels beyond the model's levels, labels beyond its classes, NaN and infinity."""
        for name, value in inputs.items():
            check_finite(name, value)
        if "images" in inputs and inputs["images"].max() >= self.num_bins:
            raise invalid(f"images: pixels must lie in [0, {self.num_bins}).")
        if "labels" in inputs and not 0 <= inputs["labels"].min() <= inputs["labels"].max() < self.num_classes:
            raise invalid(f"labels: must lie in [0, {self.num_classes}).")


def _model_card(folder: Path) -> dict[str, Any]:
    """The version's model card; empty where it has none, since something else wrote it.

    Raises:
      ValueError: it is damaged.
    """
    path = folder / MODEL_CARD
    card = read_json(path) if path.exists() else {}
    if not isinstance(card, dict) or not all(isinstance(card.get(part, {}), dict) for part in ("data", "sha256")):
        raise ValueError(f"{MODEL_CARD} is damaged")
    return card


def _ranges(card: dict[str, Any]) -> _Ranges:
    return _Ranges(**{name: int(card["data"][name]) for name in _Ranges._fields if name in card.get("data", {})})


def _check_sums(folder: Path, card: dict[str, Any]) -> None:
    """Raises ValueError where a file is not what the model card says: OpenVINO looks at no checksum of variables."""
    for name, expected in card.get("sha256", {}).items():
        if (name == SAVED_MODEL or name.startswith("variables/")) and file_sha256(folder / name) != expected:
            raise ValueError(f"{name} is damaged")


def _read(folder: Path) -> Any:
    """The `SavedModel` message of `_FILE`.

    Raises:
      ValueError: the file is not one.
    """
    file = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(_FILE, file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("tf_pivae.SavedModel"))
    try:
        saved = kind.FromString((folder / SAVED_MODEL).read_bytes())
    except message.DecodeError as error:
        raise ValueError(f"{SAVED_MODEL} is not a SavedModel") from error
    if not saved.graphs:
        raise ValueError(f"{SAVED_MODEL} holds no graph")
    return saved


def _signature(value: Any) -> Signature:
    return Signature(*({t.name: _spec(t.info) for t in side} for side in (value.inputs, value.outputs)))


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(_DTYPES.get(info.dtype, str(info.dtype)), tuple(dim.size for dim in info.shape.dim[1:]))
