"""Tensors of REST requests, in the row format ("instances") and the column format ("inputs") of TensorFlow Serving."""

import base64
import binascii
import json

import numpy as np

from tf_pivae.export.requests import check_finite, check_names, check_shape, invalid


def parse_body(body):
    """The JSON object in a request's body.

    Raises:
      RequestError: INVALID_ARGUMENT; not JSON, no object, or with NaN or Infinity, which JSON does not have.
    """

    def refuse(constant):
        raise invalid(f"{constant} is no JSON number: all values must be finite.")

    try:
        request = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is not JSON ({error}).") from error
    if not isinstance(request, dict):
        raise invalid('the body must be a JSON object, such as {"instances": [...]}.')
    return request


def arrays_from_json(request, specs, signature, max_rows):
    """The inputs of a request as NumPy arrays, and whether it has the row format.

    Args:
      request: dict, what `parse_body` returned.
      specs: dict of name -> `TensorSpec`.
      signature: its name, for messages.
      max_rows: int.

    Raises:
      RequestError: INVALID_ARGUMENT, with the reason.
    """
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        raise invalid('the body must have either "instances" (a list of rows) or "inputs" (an object of columns).')
    unknown = sorted(set(request) - {"instances", "inputs", "signature_name"})
    if unknown:
        raise invalid(f"the body has an unknown key {unknown[0][:80]!r}.")
    columns = _columns_of_rows(request["instances"], specs, max_rows) if by_rows else request["inputs"]
    if len(specs) == 1 and (not isinstance(columns, dict) or set(columns) == {"b64"}):
        columns = {next(iter(specs)): columns}
    if not isinstance(columns, dict):
        raise invalid(f"signature {signature!r} has several inputs: name them, as in {{{_example(specs)}}}.")
    check_names(columns, specs, signature)
    return {name: _array(name, columns[name], spec, max_rows) for name, spec in specs.items()}, by_rows


def json_from_arrays(outputs, by_rows):
    """The body of a response: {"predictions": [...]} in the row format, {"outputs": ...} else.

    A signature with one output gives its values alone; with several, an object a row, or one of columns.
    """
    columns = {name: array.tolist() for name, array in outputs.items()}
    if len(columns) == 1:
        return {"predictions" if by_rows else "outputs": next(iter(columns.values()))}
    if not by_rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _columns_of_rows(rows, specs, max_rows):
    if not isinstance(rows, list):
        raise invalid('"instances" must be a list, one element a row.')
    if not rows:
        raise invalid('"instances" has no rows: the batch is empty; send at least one row.')
    if len(rows) > max_rows:
        raise invalid(f'"instances" has {len(rows)} rows, this server takes {max_rows}: send smaller batches.')
    named = [isinstance(row, dict) and set(row) != {"b64"} for row in rows]
    if not any(named):
        return rows if len(specs) == 1 else None
    if not all(named) or any(set(row) != set(rows[0]) for row in rows):
        raise invalid('all elements of "instances" must have the same keys.')
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name, value, spec, max_rows):
    array = _strings(name, value) if spec.dtype == "string" else _numbers(name, value, spec)
    check_shape(name, array.shape, spec, max_rows)
    check_finite(name, array)
    return array


def _strings(name, value):
    if not isinstance(value, list):
        raise invalid(f"input {name!r} must be a list of strings.")
    return np.array([_string(name, element) for element in value], object)


def _string(name, element):
    if isinstance(element, str):
        return element.encode("utf-8", "surrogatepass")
    if isinstance(element, dict) and set(element) == {"b64"} and isinstance(element["b64"], str):
        try:
            return base64.b64decode(element["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"input {name!r}: not base64 ({error}).") from error
    raise invalid(f'input {name!r}: every element must be a string or {{"b64": "..."}}.')


def _numbers(name, value, spec):
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid(f"input {name!r} must be {spec}, lists of equal lengths ({error}).") from error
    if array.size == 0:
        return np.zeros(array.shape, spec.dtype)
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind not in ("iu" if wanted.kind in "iu" else "iuf"):
        raise invalid(f"input {name!r} must be {spec}; got values of another type.")
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise invalid(f"input {name!r} must lie in [{limits.min}, {limits.max}].")
    with np.errstate(over="ignore"):  # Numbers beyond float32 become infinite, which the caller refuses.
        return array.astype(wanted)


def _example(specs):
    return ", ".join(f'"{name}": [...]' for name in specs)
