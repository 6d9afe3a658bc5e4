"""What a request must look like, for gRPC and REST alike: the checks that come before any tensor is made."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Canonical names of gRPC's status codes, which TensorFlow's errors share, and their HTTP status.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 413,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
}
DEFAULT_MODEL = "pivae"  # The name that a model is served under where no other is given.
DEFAULT_SIGNATURE = "serving_default"  # The name that a client gets which asks for none; TensorFlow's.


class RequestError(Exception):
    """A request that gets no answer: a canonical status code and one line that says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # Both: pickle makes it again from these arguments.
        self.code = code

    def __str__(self) -> str:
        return self.args[1]


def invalid(message: str) -> RequestError:
    """`RequestError` of a request that can never succeed."""
    return RequestError("INVALID_ARGUMENT", message)


class TensorSpec(NamedTuple):
    """An input of a signature: one row of it."""

    dtype: str  # TensorFlow's name, such as "uint8" or "string"
    shape: tuple[int, ...]  # without the batch

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(['N', *map(str, self.shape)])}]"


EMPTY_BATCH = "the batch is empty; send at least one row."

Inputs = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


class Signature(NamedTuple):
    """Names and types of what goes in and comes out."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def check_shape(name: str, shape: Sequence[int], spec: TensorSpec, max_rows: int) -> None:
    """Refuses a shape that is not [N, *spec.shape] with 1 <= N <= max_rows; `name` is that of the input.

    Raises:
      RequestError: INVALID_ARGUMENT.
    """
    shape = list(shape)
    if len(shape) != 1 + len(spec.shape) or shape[1:] != list(spec.shape):
        raise invalid(f"input {name!r} must be {spec}, N the number of rows; got the shape {str(shape)[:80]}.")
    check_num_rows(name, shape[0], max_rows)


def check_num_rows(name: str, count: int, max_rows: int) -> None:
    """Refuses no rows, and more than `max_rows`; `name` is that of the input.

    Raises:
      RequestError: INVALID_ARGUMENT.
    """
    if count < 1:
        raise invalid(f"input {name!r}: {EMPTY_BATCH}")
    if count > max_rows:
        raise invalid(f"input {name!r} has {count} rows, this server takes {max_rows}: send smaller batches.")


def check_names(names: Collection[str], specs: Mapping[str, TensorSpec], signature: str) -> None:
    """Refuses missing and unknown inputs.

    Raises:
      RequestError: INVALID_ARGUMENT.
    """
    missing = sorted(set(specs) - set(names))
    unknown = sorted(set(names) - set(specs))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has no input {unknown[0][:80]!r}"
        raise invalid(f"signature {signature!r} takes {', '.join(sorted(specs))}; the request {problem}.")


def check_rows(inputs: Inputs) -> int:
    """The number of rows that all inputs share.

    Raises:
      RequestError: INVALID_ARGUMENT; they differ.
    """
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) != 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
        raise invalid(f"all inputs must have the same number of rows; got {counts}.")
    return next(iter(rows.values()))


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuses NaN and infinity.

    Raises:
      RequestError: INVALID_ARGUMENT.
    """
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise invalid(f"input {name!r} must be finite; got NaN or infinity.")
