"""One version of a SavedModel, ready to answer: its signatures as they describe themselves, and a way to run them.

Nothing here knows what kind of model it is.
"""

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tf_pivae.export.requests import DEFAULT_SIGNATURE, Inputs, Outputs, RequestError, Signature, invalid
from tf_pivae.export.runtimes.opening import open_runtime
from tf_pivae.export.versions import SAVED_MODEL, WARMUP_REQUESTS


class Servable:
    """Loads a version and answers its own warm-up requests, so that the first client does not wait.

    Args:
      folder: the version's folder.
      version: its number.
      runtime: what runs it, one of `opening.RUNTIMES`.
      precision: see `tf_pivae.export.load`.
    """

    def __init__(self, folder: str | Path, version: int, runtime: str = "tensorflow", precision: str = "f32") -> None:
        self.version = version
        self.signature_defs = _signature_defs(Path(folder))
        self._runtime = open_runtime(folder, runtime, precision)
        self.signatures = self._runtime.signatures
        self._warm_up(Path(folder) / WARMUP_REQUESTS)

    def signature(self, name: str) -> Signature:
        """The signature of this name, the default for "".

        Raises:
          RequestError: INVALID_ARGUMENT; there is none.
        """
        try:
            return self.signatures[name or DEFAULT_SIGNATURE]
        except KeyError:
            names = ", ".join(sorted(self.signatures))
            raise invalid(f"no signature {name[:80]!r} in version {self.version}; there are {names}.") from None

    def run(self, name: str, inputs: Inputs) -> Outputs:
        """Runs a signature.

        Raises:
          RequestError: INVALID_ARGUMENT, what the graph found wrong; UNIMPLEMENTED, the runtime cannot run it;
            INTERNAL, anything else.
        """
        return self._runtime.run(name, inputs)

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        for record in tf.data.TFRecordDataset(str(path)):
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            try:
                self.run(request.model_spec.signature_name, inputs)
            except RequestError as error:
                if error.code != "UNIMPLEMENTED":
                    raise


def _signature_defs(folder: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((folder / SAVED_MODEL).read_bytes())
    (graph,) = [graph for graph in message.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {name: definition for name, definition in graph.signature_def.items() if not name.startswith("__")}
