"""Tensors of REST requests, in the row format ("instances") and the column format ("inputs") of TensorFlow Serving.

Rows, bytes, values and nesting are counted before anything is made of them.
"""

import base64
import binascii
import itertools
import json
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from tf_pivae.export.requests import (
    EMPTY_BATCH,
    Outputs,
    RequestError,
    TensorSpec,
    check_finite,
    check_names,
    check_num_rows,
    invalid,
)
from tf_pivae.export.serve.limits import Limits


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body as it was before its Content-Encoding, "gzip" or none; no more of it is unpacked than may be.

    Raises:
      RequestError: INVALID_ARGUMENT, not gzip, or another encoding; RESOURCE_EXHAUSTED, over `max_bytes`.
    """
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise invalid(f"Content-Encoding must be gzip or none; got {encoding[:80]!r}.")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise invalid(f"the body is not gzip ({error}).") from error
    if len(unpacked) > max_bytes:
        raise too_large(max_bytes)
    if not stream.eof or stream.unused_data:
        raise invalid("the body is not gzip (it ends in the middle, or is followed by other data).")
    return unpacked


def too_large(max_bytes: int) -> RequestError:
    """The error for a body of more bytes than the model can need."""
    return RequestError("RESOURCE_EXHAUSTED", f"the body has more than {max_bytes} bytes: send smaller batches.")


def parse_body(body: bytes, max_values: int) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
      RequestError: INVALID_ARGUMENT; not JSON, no object, a key that comes twice, more values than the model can need,
        or NaN or Infinity, which JSON does not have.
    """
    # Every value but the first comes after one of these; there may be some in strings, which mean nothing here.
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > max_values:
        raise invalid(f"the body has {values} values or more, this server takes {max_values}: send smaller batches.")

    def refuse(constant: str) -> NoReturn:
        raise invalid(f"{constant} is not a JSON number: all values must be finite.")

    try:
        request = json.loads(body, parse_constant=refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is not JSON ({error}).") from error
    if not isinstance(request, dict):
        raise invalid('the body must be a JSON object, such as {"instances": [...]}.')
    return request


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these members; which of two of one key is meant, JSON leaves open."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise invalid(f"the body has the key {key[:80]!r} twice.")
        members[key] = value
    return members


def arrays_from_json(
    request: dict[str, Any], specs: Mapping[str, TensorSpec], signature: str, limits: Limits
) -> tuple[Outputs, bool]:
    """The inputs of a request as NumPy arrays, and whether it has the row format.

    Args:
      request: what `parse_body` returned.
      specs: the signature's inputs.
      signature: its name, for messages.
      limits: those of the server.

    Raises:
      RequestError: INVALID_ARGUMENT, with the reason.
    """
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        raise invalid('the body must have either "instances" (a list of rows) or "inputs" (an object of columns).')
    unknown = sorted(set(request) - {"instances", "inputs", "signature_name"})
    if unknown:
        raise invalid(f"the body has an unknown key {unknown[0][:80]!r}.")
    columns = _columns_of_rows(request["instances"], specs) if by_rows else request["inputs"]
    if len(specs) == 1 and not isinstance(columns, dict):
        columns = {next(iter(specs)): columns}
    if not isinstance(columns, dict):
        example = ", ".join(f'"{name}": [...]' for name in specs)
        raise invalid(f"signature {signature!r} has several inputs: name them, as in {{{example}}}.")
    check_names(columns, specs, signature)
    return {name: _array(name, columns[name], spec, limits.rows) for name, spec in specs.items()}, by_rows


def json_from_arrays(outputs: Outputs, by_rows: bool) -> str:
    """The body of a response: {"predictions": [...]} in the row format, {"outputs": ...} else.

    A signature with one output gives its values alone; with several, one object per row, or one of columns. Row by
    row, so that other threads have their turns in between.
    """
    columns = {name: [json.dumps(row.tolist(), separators=(",", ":")) for row in out] for name, out in outputs.items()}
    key = "predictions" if by_rows else "outputs"
    if len(columns) == 1:
        return f'{{"{key}":{_list(*columns.values())}}}'
    if not by_rows:
        return f'{{"{key}":{_object(columns, map(_list, columns.values()))}}}'
    return f'{{"{key}":{_list(_object(columns, row) for row in zip(*columns.values(), strict=True))}}}'


def _list(values: Any) -> str:
    return f"[{','.join(values)}]"


def _object(names: Any, values: Any) -> str:
    return f"{{{','.join(f'{json.dumps(name)}:{value}' for name, value in zip(names, values, strict=True))}}}"


def _columns_of_rows(rows: Any, specs: Mapping[str, TensorSpec]) -> Any:
    if not isinstance(rows, list):
        raise invalid('"instances" must be a list, one element per row.')
    if not rows:
        raise invalid(EMPTY_BATCH)
    are_objects = [isinstance(row, dict) and set(row) != {"b64"} for row in rows]
    if not any(are_objects):
        return rows if len(specs) == 1 else None
    if not all(are_objects) or any(set(row) != set(rows[0]) for row in rows):
        raise invalid('all elements of "instances" must have the same keys.')
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name: str, value: Any, spec: TensorSpec, max_rows: int) -> np.ndarray:
    """Dimension by dimension: the lists of one are known to be right before the next one's are looked at."""
    if type(value) is not list:
        raise invalid(f"input {name!r} must be {spec}: a list, one element per row.")
    check_num_rows(name, len(value), max_rows)
    shape = (len(value), *spec.shape)
    elements = value
    for size in spec.shape:
        if any(type(element) is not list or len(element) != size for element in elements):
            raise invalid(f"input {name!r} must be {spec}, lists in lists of this shape, N the number of rows.")
        elements = list(itertools.chain.from_iterable(elements))
    if spec.dtype == "string":
        return np.array([_string(name, element) for element in elements], object)
    array = _numbers(name, elements, spec).reshape(shape)
    check_finite(name, array)
    return array


def _string(name: str, element: Any) -> bytes:
    if isinstance(element, str):
        return element.encode("utf-8", "surrogatepass")
    if isinstance(element, dict) and set(element) == {"b64"} and isinstance(element["b64"], str):
        try:
            return base64.b64decode(element["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"input {name!r}: not base64 ({error}).") from error
    raise invalid(f'input {name!r}: every element must be a string or {{"b64": "..."}}.')


def _numbers(name: str, elements: list, spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if not set(map(type, elements)) <= ({int} if dtype.kind in "iu" else {int, float}):
        raise invalid(f"input {name!r} must be {spec}; got lists or values of another type.")
    if dtype.kind == "f":
        try:
            with np.errstate(over="ignore"):  # Numbers beyond float32 become infinite, which the caller refuses.
                return np.array(elements, np.float64).astype(dtype)
        except OverflowError as error:
            raise invalid(f"input {name!r} must be finite; got a number beyond float64.") from error
    limits = np.iinfo(dtype)
    if min(elements) < limits.min or max(elements) > limits.max:
        raise invalid(f"input {name!r} must be {spec}, in [{limits.min}, {limits.max}].")
    return np.array(elements, dtype)
