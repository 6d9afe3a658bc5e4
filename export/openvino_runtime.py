"""OpenVINO as what runs an exported model. Nothing here imports TensorFlow, which is most of the time of a start.

OpenVINO reads a SavedModel's `serving_default` alone, with nothing in its interface to name another: each signature is
read from a copy of `saved_model.pb` in which it goes by that name.
"""

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from tf_pivae.export.requests import Inputs, Outputs, RequestError, Signature, TensorSpec

_DEFAULT = "serving_default"
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
    """See `runtimes.Runtime`. A signature is compiled when it is first run.

    Args:
      folder: a version's.
      precision: "f32" or "bf16", the `INFERENCE_PRECISION_HINT`.

    Raises:
      ValueError: the folder's `saved_model.pb` is none.
    """

    def __init__(self, folder: Path, precision: str = "f32"):
        self._folder = folder
        self._precision = precision
        self._saved = _read(folder)
        entries = self._saved.graphs[0].signatures
        self.signatures = {e.name: _signature(e.value) for e in entries if not e.name.startswith("__")}
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._compiled: dict[str, openvino.CompiledModel | RequestError] = {}
        self._requests = threading.local()  # OpenVINO's, one for each thread and signature

    def run(self, name: str, inputs: Inputs) -> Outputs:
        """Runs a signature.

        Raises:
          RequestError: UNIMPLEMENTED, OpenVINO cannot run it; INTERNAL, it failed.
        """
        requests = self._requests.__dict__
        if name not in requests:
            requests[name] = self._compile(name).create_infer_request()
        try:
            results = requests[name].infer({key: np.ascontiguousarray(value) for key, value in inputs.items()})
        except RuntimeError as error:
            raise RequestError("INTERNAL", f"OpenVINO: {str(error).strip().splitlines()[-1][:300]}") from error
        outputs = {port_name: value for port, value in results.items() for port_name in port.get_names()}
        # An output with the name of an input gets a number.
        return {key: np.array(outputs.get(key, outputs.get(f"{key}_1"))) for key in self.signatures[name].outputs}

    def _compile(self, name: str) -> openvino.CompiledModel:
        with self._lock:
            if name not in self._compiled:
                try:
                    model = self._read_model(name)
                    options = {"INFERENCE_PRECISION_HINT": self._precision}
                    self._compiled[name] = self._core.compile_model(model, "CPU", options)
                except RuntimeError as error:
                    lines = [line for line in str(error).splitlines() if "operations:" in line]
                    reason = lines[0].split("operations:")[1].strip() if lines else str(error).strip().splitlines()[-1]
                    self._compiled[name] = RequestError(
                        "UNIMPLEMENTED", f"OpenVINO cannot run signature {name!r}, TensorFlow can ({reason[:200]})."
                    )
        compiled = self._compiled[name]
        if isinstance(compiled, RequestError):
            raise compiled
        return compiled

    def _read_model(self, name: str) -> openvino.Model:
        if name == _DEFAULT:
            return self._core.read_model(str(self._folder))
        changed = type(self._saved)()
        changed.CopyFrom(self._saved)
        values = {entry.name: entry for entry in changed.graphs[0].signatures}
        values[_DEFAULT].value.CopyFrom(values[name].value)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "saved_model.pb").write_bytes(changed.SerializeToString())
            (Path(folder) / "variables").symlink_to((self._folder / "variables").absolute())
            return self._core.read_model(folder)


def _read(folder: Path) -> Any:
    """The `SavedModel` message of `_FILE`.

    Raises:
      ValueError: it is none.
    """
    file = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(_FILE, file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("tf_pivae.SavedModel"))
    try:
        saved = kind.FromString((folder / "saved_model.pb").read_bytes())
    except message.DecodeError as error:
        raise ValueError("saved_model.pb is no SavedModel") from error
    if not saved.graphs:
        raise ValueError("saved_model.pb holds no graph")
    return saved


def _signature(value: Any) -> Signature:
    return Signature(*({t.name: _spec(t.info) for t in side} for side in (value.inputs, value.outputs)))


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(_DTYPES.get(info.dtype, str(info.dtype)), tuple(dim.size for dim in info.shape.dim[1:]))
