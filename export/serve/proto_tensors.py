"""Tensors of gRPC messages: parts are counted, type and shape known to be right, before anything is allocated."""

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tf_pivae.export.requests import Outputs, TensorSpec, check_finite, check_names, check_shape, invalid

# Field numbers of PredictRequest, of an entry of its `inputs`, and of TensorProto.
_MODEL_SPEC = 1
_INPUTS = 2
_VALUE = 2
_SHAPE = 2
_MESSAGES = {14, 15}
_SMALL = 4096  # bytes of what holds no tensor
_PARTS = 1024  # Fields of a message, its inputs and their tensors altogether, beside a field for each row


def check_size(body: bytes, max_rows: int) -> None:
    """Refuses a `PredictRequest` whose message would be much larger than its bytes: a field may take one or two.

    Args:
      body: the message's bytes.
      max_rows: of a request; a tensor has a field for each file.

    Raises:
      RequestError: INVALID_ARGUMENT.
    """
    budget = iter(range(_PARTS + max_rows))
    for number, value in _fields(memoryview(body), budget):
        if number == _MODEL_SPEC and len(value) > _SMALL:
            raise invalid("the model's specification is too long.")
        for part, tensor in _fields(value, budget) if number == _INPUTS else ():
            for field, content in _fields(tensor, budget) if part == _VALUE else ():
                if field in _MESSAGES or (field == _SHAPE and len(content) > _SMALL):
                    raise invalid("a tensor must have a shape of a few dimensions, and numbers or strings.")


def _fields(message: memoryview, budget: Iterator[int]) -> Iterator[tuple[int, memoryview]]:
    """The number and content of a message's fields, as the wire format has them; empty for a number's content.

    Each takes an element of `budget`.
    """
    position = 0
    while position < len(message):
        if next(budget, None) is None:
            raise invalid("the message is not a PredictRequest: it has too many fields.")
        key, position = _varint(message, position)
        if key & 7 == 2:
            size, position = _varint(message, position)
        else:
            size = {0: 0, 1: 8, 5: 4}.get(key & 7, -1)
            if key & 7 == 0:
                _, position = _varint(message, position)
        if size < 0 or position + size > len(message):
            raise invalid("the message is not a PredictRequest (its wire format is wrong).")
        yield key >> 3, message[position : position + size] if key & 7 == 2 else message[:0]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, position + i + 1
    raise invalid("the message is not a PredictRequest (its wire format is wrong).")


def arrays_from_protos(
    protos: Mapping[str, TensorProto], specs: Mapping[str, TensorSpec], signature: str, max_rows: int
) -> Outputs:
    """The inputs of a `PredictRequest` as NumPy arrays.

    Args:
      protos: by name.
      specs: the signature's inputs.
      signature: its name, for messages.
      max_rows: of the request.

    Raises:
      RequestError: INVALID_ARGUMENT, with the reason.
    """
    check_names(protos, specs, signature)
    return {name: _array(name, protos[name], spec, max_rows) for name, spec in specs.items()}


def _array(name: str, proto: TensorProto, spec: TensorSpec, max_rows: int) -> np.ndarray:
    if proto.dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
        values = types_pb2.DataType.values()
        kind = types_pb2.DataType.Name(proto.dtype) if proto.dtype in values else str(proto.dtype)
        raise invalid(f"input {name!r} must be {spec}; got the type {kind}.")
    if proto.tensor_shape.unknown_rank:
        raise invalid(f"input {name!r} must be {spec}; got no shape.")
    check_shape(name, [dim.size for dim in proto.tensor_shape.dim], spec, max_rows)
    try:
        array = tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"input {name!r}: its values are not as many as the shape it claims ({error}).") from error
    check_finite(name, array)
    return array
