"""One version of a SavedModel, ready to answer: its signatures as they describe themselves, and a way to run them.

Nothing here knows what kind of model it is.
"""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tf_pivae.export.requests import RequestError, TensorSpec, invalid

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
DEFAULT_SIGNATURE = "serving_default"


class Signature(NamedTuple):
    """Names and types of what goes in and comes out."""

    inputs: dict  # of name -> `TensorSpec`
    outputs: dict


class Servable:
    """Loads a version and answers its own warm-up requests, so that the first client does not wait.

    Args:
      folder: the version's folder.
      version: int.
    """

    def __init__(self, folder, version):
        self.version = version
        self.signature_defs = _signature_defs(Path(folder))
        self.signatures = {name: signature_of(definition) for name, definition in self.signature_defs.items()}
        self._model = tf.saved_model.load(str(folder))
        self._warm_up(Path(folder) / WARMUP_FILE)

    def signature(self, name):
        """The `Signature` of this name, the default for "".

        Raises:
          RequestError: INVALID_ARGUMENT; there is none.
        """
        try:
            return self.signatures[name or DEFAULT_SIGNATURE]
        except KeyError:
            known = ", ".join(sorted(self.signatures))
            raise invalid(f"no signature {name[:80]!r} in version {self.version}; there are {known}.") from None

    def run(self, name, inputs):
        """Runs a signature: dict of NumPy arrays -> dict of NumPy arrays.

        Raises:
          RequestError: INVALID_ARGUMENT, what the graph found wrong; INTERNAL, anything else.
        """
        try:
            outputs = self._model.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
            return {key: value.numpy() for key, value in outputs.items()}
        except tf.errors.InvalidArgumentError as error:
            raise invalid(_reason(error)) from error
        except tf.errors.OpError as error:
            raise RequestError("INTERNAL", _reason(error)) from error

    def _warm_up(self, path):
        if not path.is_file():
            return
        for record in tf.data.TFRecordDataset(str(path)):
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            self.run(request.model_spec.signature_name, inputs)


def _signature_defs(folder):
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((folder / "saved_model.pb").read_bytes())
    (graph,) = [graph for graph in message.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {name: definition for name, definition in graph.signature_def.items() if not name.startswith("__")}


def signature_of(definition):
    """The `Signature` that a `SignatureDef` describes."""
    sides = definition.inputs, definition.outputs
    return Signature(*({name: _spec(info) for name, info in side.items()} for side in sides))


def _spec(info):
    shape = tuple(dim.size for dim in info.tensor_shape.dim[1:])
    return TensorSpec(tf.as_dtype(info.dtype).name, shape)


def _reason(error):
    """TensorFlow's message without the names of the nodes and the Python that built them."""
    text = str(error.message).split("[[")[0].split("\n\t [")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Detected at node", "File ", "Node:"))]
    return " ".join(lines)[:500]
