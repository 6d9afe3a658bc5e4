"""Images in IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

import contextlib
import functools
import gzip
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import gin
import numpy as np

from tf_pivae.data import array_file, arrays, cache, image_ops
from tf_pivae.data.array_file import ArrayFile
from tf_pivae.errors import UserError, printable

_UNSIGNED_BYTE = 0x08  # the format's code for this element type; labels and images of both collections use it
_GZIP_MAGIC = b"\x1f\x8b"


@gin.configurable
def idx_images(
    train_images: str | os.PathLike[str],
    test_images: str | os.PathLike[str],
    train_labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    crop: image_ops.Size | str | None = None,
    pad_to: image_ops.Size | None = None,
    image_size: image_ops.Size | None = None,
    channels: int | None = None,
    raw_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] = (),
    num_examples: arrays.Limits | None = None,
    name: str = "idx",
    cache_dir: str | os.PathLike[str] | None = None,
) -> arrays.ImageDataset:
    """A data set of IDX files, read in slabs: they may be larger than memory.

    Fashion-MNIST at 32x32 is `pad_to = 32`; at 16x16, `pad_to = 32` and `image_size = 16`.

    Args:
      train_images, test_images: files of unsigned bytes `[N, H, W]` or `[N, H, W, C]`, plain or gzipped.
      train_labels, test_labels: files of unsigned bytes `[N]`, or None.
      crop, pad_to, image_size, channels: see `image_ops.Preprocess`.
      raw_shape: `(H, W, C)` of the images in the files, optional. With it, and with class names where there are labels,
        a model can be built and described without the files; files that hold another are refused.
      class_names: names of the classes, optional.
      num_examples: as in `ImageDataset.take`.
      name: the data set's name.
      cache_dir: where a data set of more than 256 MiB is unpacked; default as in `cache.prepare`.

    Raises:
      UserError: if a file is missing, damaged, claims more than it holds, or is of another kind.
    """
    preprocess = image_ops.Preprocess(crop, pad_to, image_size, channels)
    if raw_shape is not None and (class_names or train_labels is None):
        shape = preprocess.output_shape(*raw_shape)
        cache.declared(name, shape, class_names, arrays.check_num_examples(num_examples))
    train = _part(train_images, train_labels)
    test = _part(test_images, test_labels)
    image_shape = train.images.image_shape
    if raw_shape is not None and image_shape != tuple(raw_shape):
        raise UserError(
            f"{train.images.name} holds images of {list(image_shape)}: set idx_images.raw_shape = {image_shape}."
        )
    source = array_file.image_source(train, test, preprocess, class_names)
    files = [path for path in (train_images, test_images, train_labels, test_labels) if path is not None]
    facts = [cache.file_facts(array_file.absolute(path)) for path in files]
    specification = {"source": "idx", "files": facts, "preprocess": repr(preprocess)}
    return cache.load(name, specification, source, num_examples, cache_dir)


def _part(images_path: str | os.PathLike[str], labels_path: str | os.PathLike[str] | None) -> array_file.Part:
    images = idx_file(images_path)
    if len(images.shape) == 1:
        raise UserError(f"{images.name} has the shape {list(images.shape)}, images [N, H, W]: is it a label file?")
    return array_file.part(images, None if labels_path is None else idx_file(labels_path))


def idx_file(path: str | os.PathLike[str]) -> ArrayFile:
    """Reads the header of one IDX file of unsigned bytes.

    Args:
      path: the file, plain or gzipped (recognised by its first bytes).

    Returns:
      A uint8 `ArrayFile`.

    Raises:
      UserError: if the file cannot be read, is not an IDX file, or has too few or too many bytes.
    """
    path = array_file.absolute(path)
    name = printable(path)
    with array_file.reading(name), _stream(path) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
            raise UserError(f"{name} is not an IDX file: it begins with {magic!r}.")
        if magic[2] != _UNSIGNED_BYTE:
            raise UserError(f"{name} holds elements of IDX type 0x{magic[2]:02x}; only unsigned bytes (0x08) are.")
        sizes = stream.read(4 * magic[3])
        if len(sizes) != 4 * magic[3]:
            raise UserError(f"{name} ends within its header: download it again.")
        shape = struct.unpack(f">{magic[3]}I", sizes)
        stored = path.stat().st_size
        start = 4 + len(sizes)
        if not isinstance(stream, gzip.GzipFile) and stored != start + math.prod(shape):
            raise UserError(f"{name} should hold {math.prod(shape):,} bytes of data but has {stored - start:,}.")
    return ArrayFile(name, shape, np.dtype(np.uint8), stored, functools.partial(_stream, path, start))


@contextlib.contextmanager
def _stream(path: Path, start: int = 0) -> Iterator[array_file.Stream]:
    """The unpacked file, behind its first `start` bytes."""
    with array_file.open_regular(path) as file:
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if zipped else file as stream:
            stream.seek(start)
            yield stream
