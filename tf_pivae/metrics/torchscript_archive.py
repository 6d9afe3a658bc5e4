"""Reads the tensors of a TorchScript archive as data, without torch and without running its pickle.

The archive is a zip: `data.pkl` describes a tree of modules, `data/<key>` holds each storage as raw little-endian
numbers. A pickle is a program; this reader lets it call nothing but the few inert builders below, which describe
tensors and hold attributes, and refuses a file that asks for anything else.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_pivae.errors import UserError

STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
MAX_BYTES = 1 << 30  # the FID network is 87 MB


class _Tensor(NamedTuple):
    """A tensor's description; its numbers are read only after the pickle has been parsed."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Stands for any `__torch__` class: holds the attributes that the pickle gives it, and has no behaviour."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module's state is not a dictionary")
        self.attributes = state


class _TensorBuilder:
    """Stands for torch's `_rebuild_tensor_v2`. No slots, so that a pickle cannot set anything on it either."""

    __slots__ = ()

    def __call__(
        self, storage: tuple, offset: int, shape: Sequence[int], stride: Sequence[int], *_unused: object
    ) -> _Tensor:
        key, dtype = storage
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise pickle.UnpicklingError(f"a tensor has shape {shape} and stride {stride}")
        return _Tensor(key, dtype, offset, tuple(shape), tuple(stride))


class _DataUnpickler(pickle.Unpickler):
    """Knows tensors, containers and inert modules; every other global is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _TensorBuilder()
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if module == "torch" and name in STORAGE_DTYPES:
            # A string, not a class: the pickle can name it in a storage but cannot call it.
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, identifier):
        if not (
            isinstance(identifier, tuple)
            and len(identifier) == 5
            and identifier[0] == "storage"
            and identifier[1] in STORAGE_DTYPES.values()
            and isinstance(identifier[2], str)
        ):
            raise pickle.UnpicklingError(f"unknown storage {identifier!r:.80}")
        return identifier[2], identifier[1]


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every tensor of the archive, by its dotted attribute path ('net.layers.conv.weight').

    Nothing in the file is executed. Raises UserError for a file that is not a TorchScript archive, is damaged, or whose
    pickle asks for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise UserError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB: not a feature network's archive.")
            records = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(records) != 1:
                raise UserError(f"{path} holds no data.pkl: it is not a TorchScript archive.")
            root = records[0].removesuffix("data.pkl")
            with archive.open(records[0]) as record:
                tree = _DataUnpickler(record).load()
            return {name: _numbers(archive, f"{root}data/{tensor.key}", tensor) for name, tensor in _tensors(tree, "")}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: {error}.") from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle or zip can fail in many ways, none of them ours
        raise UserError(f"{path} is not a readable TorchScript archive ({type(error).__name__}: {error}).") from error


def _tensors(node: object, prefix: str, depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    if depth > 32:
        raise pickle.UnpicklingError("its modules are nested too deeply")
    if isinstance(node, _Tensor):
        yield prefix, node
    elif isinstance(node, _Module):
        for name, child in node.attributes.items():
            yield from _tensors(child, f"{prefix}.{name}" if prefix else str(name), depth + 1)


def _numbers(archive: zipfile.ZipFile, member: str, tensor: _Tensor) -> np.ndarray:
    storage = np.frombuffer(archive.read(member), tensor.dtype)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    if 0 in tensor.shape or last >= len(storage):
        raise pickle.UnpicklingError(f"{member} has {len(storage)} numbers, too few for shape {tensor.shape}")
    strides = tuple(step * storage.itemsize for step in tensor.stride)
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, dtype=storage.dtype.newbyteorder("="))
