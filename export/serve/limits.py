"""How large a request may be: as large as this model can need, and nothing is allocated for one that is larger."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from tf_pivae.errors import UserError
from tf_pivae.export.requests import Signature, TensorSpec

MAX_ROWS = 64  # of a request, where nobody says otherwise
MAX_BYTES = 64 << 20  # of an unpacked request, as well
# Bytes of an element in a message of gRPC (a varint, or four bytes), and in JSON: twice its digits, and a comma.
_PROTO_BYTES = {"uint8": 2, "int64": 10, "float32": 4}
_JSON_BYTES = {"uint8": 16, "int64": 48, "float32": 64}
_FILE_SLACK = 1 << 14  # A file may take twice what its image does, and this for its headers.
_SLACK = 1 << 14  # for names and shapes


class Limits(NamedTuple):
    """Limits that the largest request a model can need stays within."""

    rows: int
    proto_bytes: int  # of a message of gRPC
    json_bytes: int  # of a body of REST, unpacked
    json_values: int  # in it: numbers, strings, lists and objects


class FirstLimits:
    """Those of the first model that a server loads; it keeps to them, so later models may not need more.

    Args:
      rows, max_bytes: as for `limits_of`.
    """

    def __init__(self, rows: int, max_bytes: int) -> None:
        self._bounds = rows, max_bytes
        self.limits: Limits | None = None

    def check(self, signatures: Mapping[str, Signature]) -> None:
        """Sets the limits, or raises UserError where a model with these signatures needs larger ones."""
        limits = limits_of(signatures, *self._bounds)
        if self.limits is None:
            self.limits = limits
        elif any(own > first for own, first in zip(limits, self.limits, strict=True)):
            raise UserError(
                "its requests are larger than those of the model this server began with: restart the server."
            )


def limits_of(signatures: Mapping[str, Signature], rows: int, max_bytes: int) -> Limits:
    """The `Limits` of requests of `rows` rows that follow from the inputs' shapes; no message has over `max_bytes`."""
    specs = [spec for signature in signatures.values() for spec in signature.inputs.values()]
    file_bytes = 2 * max(math.prod(spec.shape) for spec in specs) + _FILE_SLACK

    def proto_bytes(spec: TensorSpec) -> int:
        return file_bytes if spec.dtype == "string" else math.prod(spec.shape) * _PROTO_BYTES[spec.dtype]

    def json_bytes(spec: TensorSpec) -> int:
        return 2 * file_bytes if spec.dtype == "string" else math.prod(spec.shape) * _JSON_BYTES[spec.dtype]

    def json_values(spec: TensorSpec) -> int:  # The lists of every dimension, and an object around each row.
        return 2 + sum(math.prod(spec.shape[:k]) for k in range(len(spec.shape) + 1))

    proto, text, values = (
        rows * max(sum(map(cost, signature.inputs.values())) for signature in signatures.values())
        for cost in (proto_bytes, json_bytes, json_values)
    )
    return Limits(rows, min(proto + _SLACK, max_bytes), min(text + _SLACK, max_bytes), values + 64)
