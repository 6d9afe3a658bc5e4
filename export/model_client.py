"""What the gRPC and the REST client have in common: the model's methods, cut into requests."""

import abc
from typing import NamedTuple

import numpy as np


class LogProb(NamedTuple):
    """The bound on each image's log-probability."""

    log_prob: np.ndarray  # float32 [N], nats
    bits_per_dim: np.ndarray  # float32 [N]


class ModelClient(abc.ABC):
    """The methods of a served model, for as many rows as one likes. A context manager.

    A class-conditional model's want `labels`, integers [N]. All of them raise `ServingError` where the server refuses
    or does not answer, and ValueError for input that cannot be meant.

    Args:
      batch_size: rows of one request; the server must take as many.
    """

    def __init__(self, batch_size):
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1; got {batch_size}.")
        self.batch_size = batch_size
        self.signatures = self._fetch_signatures()

    def log_prob(self, images, labels=None):
        """Images uint8 [N, H, W, C] -> `LogProb`."""
        return LogProb(**self._call("log_prob", images=images, labels=labels))

    def log_prob_of_files(self, files, labels=None):
        """PNG or JPEG files, bytes, as a list -> `LogProb`."""
        return LogProb(**self._call("image_bytes", image_bytes=files, labels=labels))

    def sample(self, seeds, labels=None):
        """Images drawn from the model, one a seed: integers [N] -> uint8 [N, H, W, C]."""
        return self._call("sample", seeds=seeds, labels=labels)["images"]

    def reconstruct(self, images, labels=None):
        """Encodes and decodes: uint8 [N, H, W, C] -> uint8 [N, H, W, C]."""
        return self._call("reconstruct", images=images, labels=labels)["images"]

    def encode(self, images, labels=None):
        """Images uint8 [N, H, W, C] -> the latent groups, a dict of float32 arrays."""
        return self._call("encode", images=images, labels=labels)

    def decode(self, latents, labels=None):
        """The latent groups -> images, uint8 [N, H, W, C]."""
        return self._call("decode", **latents, labels=labels)["images"]

    @abc.abstractmethod
    def predict(self, signature, inputs):
        """One request: dict of arrays -> dict of arrays.

        Args:
          signature: its name.
          inputs: dict of name -> array.

        Raises:
          ServingError: the server refuses, or does not answer in time.
        """

    @abc.abstractmethod
    def close(self):
        """Lets go of the connection."""

    @abc.abstractmethod
    def _fetch_signatures(self):
        """Dict of name -> `Signature`, asked of the server."""

    def _call(self, name, **inputs):
        if name not in self.signatures:
            raise ValueError(f"this model has no signature {name!r}; it has {', '.join(sorted(self.signatures))}.")
        specs = self.signatures[name].inputs
        inputs = {key: value for key, value in inputs.items() if value is not None}
        if set(inputs) != set(specs):
            raise ValueError(f"signature {name!r} wants {', '.join(sorted(specs))}; got {', '.join(sorted(inputs))}.")
        arrays = {key: as_array(key, value, specs[key]) for key, value in inputs.items()}
        rows = {len(array) for array in arrays.values()}
        if len(rows) != 1 or 0 in rows:
            raise ValueError(f"all inputs must have the same number of rows, at least one; got {sorted(rows)}.")
        parts = [
            self.predict(name, {key: array[start : start + self.batch_size] for key, array in arrays.items()})
            for start in range(0, rows.pop(), self.batch_size)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def as_array(name, value, spec):
    """`value` in the type of its `TensorSpec`, where that changes no number.

    Raises:
      ValueError: other values, or another shape.
    """
    if spec.dtype == "string":
        array = np.empty(len(value), object)
        array[:] = list(value)
        if not all(isinstance(element, bytes) for element in array):
            raise ValueError(f"`{name}` must be a list of bytes.")
        return array
    array = np.asarray(value)
    converted = array.astype(spec.dtype)
    exact = spec.dtype.startswith("float") or (array.dtype.kind in "iu" and np.array_equal(converted, array))
    if not exact or array.shape[1:] != spec.shape or not array.ndim:
        raise ValueError(f"`{name}` must be {spec}; got {array.dtype} {list(array.shape)}, or values beyond that type.")
    return converted
