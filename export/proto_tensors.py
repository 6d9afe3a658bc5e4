"""Tensors of gRPC messages: nothing is allocated before type and shape are known to be right."""

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from tf_pivae.export.requests import check_finite, check_names, check_shape, invalid


def arrays_from_protos(protos, specs, signature, max_rows):
    """The inputs of a `PredictRequest` as NumPy arrays.

    Args:
      protos: mapping of name -> `TensorProto`.
      specs: dict of name -> `TensorSpec`.
      signature: its name, for messages.
      max_rows: int.

    Raises:
      RequestError: INVALID_ARGUMENT, with the reason.
    """
    check_names(protos, specs, signature)
    return {name: _array(name, protos[name], spec, max_rows) for name, spec in specs.items()}


def _array(name, proto, spec, max_rows):
    if proto.dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
        known = types_pb2.DataType.values()
        kind = types_pb2.DataType.Name(proto.dtype) if proto.dtype in known else str(proto.dtype)
        raise invalid(f"input {name!r} must be {spec}; got the type {kind}.")
    if proto.tensor_shape.unknown_rank:
        raise invalid(f"input {name!r} must be {spec}; got no shape.")
    check_shape(name, [dim.size for dim in proto.tensor_shape.dim], spec, max_rows)
    try:
        array = tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"input {name!r}: its values do not fill the shape it claims ({error}).") from error
    check_finite(name, array)
    return array
