"""What the gRPC and the REST client have in common: the model's methods, checked and cut into requests."""

import abc
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tf_pivae.arguments import whole_numbers
from tf_pivae.export.requests import Signature, TensorSpec

_LONGEST_TIMEOUT = 1_000_000


class LogProb(NamedTuple):
    """The bound on each image's log-probability."""

    log_prob: np.ndarray  # float32 [N], nats
    bits_per_dim: np.ndarray  # float32 [N]


class ModelClient(abc.ABC):
    """The methods of a served model, for as many rows as one likes. A context manager.

    A class-conditional model's want `labels`, integers [N]. All of them raise `ServingError` where the server refuses
    or does not answer, and ValueError, before anything is sent, for input that makes no sense: names, shapes, no rows,
    numbers that the type cannot hold, NaN and infinity. TensorFlow Serving would take the pixel 300 for 44, and never
    answer an empty batch.

    Args:
      batch_size: rows of one request; the server must take as many.
    """

    def __init__(self, batch_size: int) -> None:
        whole_numbers(1, batch_size=batch_size)
        self.batch_size = batch_size
        self.signatures = self._fetch_signatures()

    def log_prob(self, images: ArrayLike, labels: ArrayLike | None = None) -> LogProb:
        """Images uint8 [N, H, W, C] -> `LogProb`."""
        return LogProb(**self.predict("log_prob", _present(images=images, labels=labels)))

    def log_prob_of_files(self, files: Sequence[bytes], labels: ArrayLike | None = None) -> LogProb:
        """PNG or JPEG files, bytes, as a list -> `LogProb`."""
        return LogProb(**self.predict("image_bytes", _present(image_bytes=files, labels=labels)))

    def sample(self, seeds: ArrayLike, labels: ArrayLike | None = None) -> np.ndarray:
        """Images drawn from the model, one per seed: integers [N] -> uint8 [N, H, W, C]."""
        return self.predict("sample", _present(seeds=seeds, labels=labels))["images"]

    def reconstruct(self, images: ArrayLike, labels: ArrayLike | None = None) -> np.ndarray:
        """Encodes and decodes: uint8 [N, H, W, C] -> uint8 [N, H, W, C]."""
        return self.predict("reconstruct", _present(images=images, labels=labels))["images"]

    def encode(self, images: ArrayLike, labels: ArrayLike | None = None) -> dict[str, np.ndarray]:
        """Images uint8 [N, H, W, C] -> the latent groups, a dict of float32 arrays."""
        return self.predict("encode", _present(images=images, labels=labels))

    def decode(self, latents: Mapping[str, ArrayLike], labels: ArrayLike | None = None) -> np.ndarray:
        """The latent groups -> images, uint8 [N, H, W, C]."""
        return self.predict("decode", {**latents, **_present(labels=labels)})["images"]

    def predict(self, signature: str, inputs: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        """Any signature by its name: arrays by name -> arrays by name, all of N rows.

        Raises:
          ValueError: no such signature, or input that makes no sense.
          ServingError: the server refuses, or does not answer in time.
        """
        if signature not in self.signatures:
            raise ValueError(f"this model has no signature {signature!r}; it has {', '.join(sorted(self.signatures))}.")
        specs = self.signatures[signature].inputs
        if set(inputs) != set(specs):
            expected = ", ".join(sorted(specs))
            names = ", ".join(sorted(inputs))
            raise ValueError(f"signature {signature!r} wants {expected}; got {names}.")
        arrays = {name: as_array(name, value, specs[name]) for name, value in inputs.items()}
        rows = {len(array) for array in arrays.values()}
        if len(rows) != 1:
            raise ValueError(f"all inputs must have the same number of rows; got {sorted(rows)}.")
        parts = [
            self._send(signature, {name: array[start : start + self.batch_size] for name, array in arrays.items()})
            for start in range(0, rows.pop(), self.batch_size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    @abc.abstractmethod
    def _send(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One request, of arrays that fit the signature."""

    @abc.abstractmethod
    def _fetch_signatures(self) -> dict[str, Signature]:
        """Signatures by name, asked of the server."""

    def __enter__(self) -> "ModelClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _present(**inputs: ArrayLike | None) -> dict[str, ArrayLike]:
    return {name: value for name, value in inputs.items() if value is not None}


def as_array(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    """`value` in the type of its `TensorSpec`, where that changes no number but by float rounding.

    Raises:
      ValueError: no rows, another shape, or numbers that the type cannot hold.
    """
    if spec.dtype == "string":
        try:
            value = list(value)  # Perhaps of a generator.
        except TypeError:
            raise ValueError(f"`{name}` must be {_described(spec)}; got {type(value).__name__}.") from None
        array = np.empty(len(value), np.object_)
        array[:] = value
        right = all(isinstance(element, bytes) for element in array)
    else:
        try:
            array = np.asarray(value)
        except ValueError:  # NumPy's words are about its own arrays.
            raise ValueError(f"`{name}` must be {_described(spec)}; got rows of different shapes.") from None
        right = array.ndim > 0 and array.shape[1:] == spec.shape
    if array.ndim and not len(array):
        raise ValueError(f"`{name}` has no rows: give at least one.")
    if not right:
        raise ValueError(f"`{name}` must be {_described(spec)}; got {array.dtype} {list(array.shape)}.")
    return array if spec.dtype == "string" else _converted(name, array, spec)


def _converted(name: str, array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    whole = dtype.kind in "iu"
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        raise ValueError(f"`{name}` must be {_described(spec)}; got {array.dtype} {list(array.shape)}.")
    with np.errstate(over="ignore"):  # Values beyond float32 become infinite.
        converted = array.astype(dtype)
    if not (np.array_equal(converted, array) if whole else np.isfinite(converted).all()):
        raise ValueError(f"`{name}` must be {_described(spec)}; got numbers beyond {spec.dtype}, NaN or infinity.")
    return converted


def _described(spec: TensorSpec) -> str:
    return "a list of bytes" if spec.dtype == "string" else str(spec)


def checked_timeout(seconds: object) -> float:
    """`seconds` itself. Raises ValueError unless it is a number above 0 that sockets take."""
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not 0 < float(seconds) <= _LONGEST_TIMEOUT:
        raise ValueError(f"`timeout` must be a number of seconds above 0, at most {_LONGEST_TIMEOUT}; got {seconds!r}.")
    return float(seconds)


def checked_attempts(count: int) -> int:
    """`count` itself. Raises ValueError unless it is a whole number from 1 on."""
    whole_numbers(1, max_attempts=count)
    return count


def bearer(token: str) -> str:
    """`token` itself. Raises ValueError unless a header can hold it; the message does not repeat it."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(
            "`token` must be visible ASCII characters alone: leave out spaces and the end of the line it was read from."
        )
    return token
