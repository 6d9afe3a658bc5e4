"""TensorFlow as what runs an exported model."""

import re
from pathlib import Path

import tensorflow as tf

from tf_pivae.errors import first_line, sentence
from tf_pivae.export.requests import Inputs, Outputs, RequestError, Signature, TensorSpec, invalid


class TensorFlowRuntime:
    """See `opening.Runtime`.

    Args:
      folder: a version's.

    Raises:
      ValueError: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._model = tf.saved_model.load(str(folder))
        except (tf.errors.OpError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is damaged: {first_line(error)}") from error
        self.signatures = {name: _signature(function) for name, function in self._model.signatures.items()}

    def run(self, name: str, inputs: Inputs) -> Outputs:
        """Runs a signature.

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


def _signature(function: tf.types.experimental.ConcreteFunction) -> Signature:
    sides = function.structured_input_signature[1], function.structured_outputs
    specs = (
        {name: TensorSpec(spec.dtype.name, tuple(spec.shape[1:])) for name, spec in side.items()} for side in sides
    )
    return Signature(*specs)


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of the nodes and the Python that built them."""
    text = str(error.message).split("[[")[0].split("\n\t [")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = "Detected at node", "File ", "Node:", "<stack traces", "Graph execution error"
    message = " ".join(line for line in lines if not line.startswith(noise))
    # An assertion's text stands in brackets, and its values behind them.
    return sentence(re.sub(r"^assertion failed: \[(.*?)\]( |$)", r"\1\2", message)[:500])
