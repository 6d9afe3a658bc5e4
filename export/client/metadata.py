"""What a server says of its model over gRPC: SignatureDefs, as the clients see them."""

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from tf_pivae.export.requests import Signature, TensorSpec


def signatures_of(definitions: get_model_metadata_pb2.SignatureDefMap) -> dict[str, Signature]:
    """The signatures of a server's metadata by name.

    TensorFlow's own, whose names begin with two underscores, are left out: the outputs of `__saved_model_init_op` have
    no type.
    """
    signatures = definitions.signature_def.items()
    return {name: signature_of(definition) for name, definition in signatures if not name.startswith("__")}


def signature_of(definition: meta_graph_pb2.SignatureDef) -> Signature:
    """The `Signature` that a `SignatureDef` describes."""
    sides = definition.inputs, definition.outputs
    return Signature(*({name: _spec(info) for name, info in side.items()} for side in sides))


def _spec(info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    return TensorSpec(tf.as_dtype(info.dtype).name, tuple(dim.size for dim in info.tensor_shape.dim[1:]))
