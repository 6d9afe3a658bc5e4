"""Images in IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

import contextlib
import gzip
import os
import struct
import zlib

import gin
import numpy as np

from tf_pivae.data import arrays, image_ops
from tf_pivae.errors import UserError

_UNSIGNED_BYTE = 0x08  # the format's code for this element type; labels and images of both collections use it
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 24


@gin.configurable
def idx_images(
    train_images,
    test_images,
    train_labels=None,
    test_labels=None,
    crop=None,
    pad_to=None,
    image_size=None,
    channels=None,
    raw_shape=None,
    class_names=(),
    num_examples=None,
    name="idx",
) -> arrays.ImageDataset:
    """A data set of IDX files, held in memory.

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

    Returns:
      An `ImageDataset`.

    Raises:
      UserError: if a file is missing, damaged or of another kind.
    """
    preprocess = image_ops.Preprocess(crop, pad_to, image_size, channels)
    limits = arrays.check_num_examples(num_examples)
    files = ((train_images, train_labels), (test_images, test_labels))
    splits = [_split(*pair, preprocess, raw_shape, limit) for pair, limit in zip(files, limits, strict=True)]
    return arrays.labelled(name, *splits, class_names=class_names)


def _split(images_path, labels_path, preprocess, raw_shape, limit):
    images = read_idx(images_path)
    images = images.reshape(len(images), *_image_shape(images_path, images.shape))
    if raw_shape is not None and images.shape[1:] != tuple(raw_shape):
        raise UserError(
            f"{images_path} holds images of {list(images.shape[1:])}: set idx_images.raw_shape = {images.shape[1:]}"
        )
    labels = None
    if labels_path is not None:
        labels = read_idx(labels_path)
        if labels.shape != images.shape[:1]:
            raise UserError(
                f"{labels_path} holds {list(labels.shape)} labels for the {len(images)} images of {images_path}"
            )
        labels = labels[:limit].astype(np.int64)
    return arrays.ImageSplit(image_ops.preprocess_array(preprocess, images[:limit]), labels)


def _image_shape(path, shape):
    if len(shape) not in (3, 4):
        raise UserError(f"{path} holds an array of shape {list(shape)}, images need [N, H, W]: is it a label file?")
    return *shape[1:], *(1,)[: 4 - len(shape)]


def read_image_shape(path: str) -> tuple[int, ...]:
    """`(H, W, C)` of the images in an IDX file, from its header alone; raises UserError as `read_idx` does."""
    with _opened(path) as (_, shape):
        return _image_shape(path, shape)


def read_idx(path):
    """Reads one IDX file of unsigned bytes.

    Args:
      path: the file, plain or gzipped (recognised by its first bytes).

    Returns:
      A read-only uint8 array of the shape that the file states.

    Raises:
      UserError: if the file cannot be read, is no IDX file, or has too few or too many bytes.
    """
    with _opened(path) as (stream, shape):
        # One byte more than promised, to see whether the file ends where it should.
        data = _read_up_to(stream, int(np.prod(shape, dtype=object)) + 1)
    array = np.frombuffer(data, np.uint8)
    size = int(np.prod(shape, dtype=object))
    if len(array) != size:
        problem = "more" if len(array) > size else f"only {len(array)}"
        raise UserError(f"{path} should hold {size} bytes of data but has {problem}: download it again")
    return array.reshape(shape)


@contextlib.contextmanager
def _opened(path):
    """An IDX file as (stream behind its header, shape); a mistake met while reading it becomes a UserError."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            with gzip.open(file) if zipped else file as stream:
                yield stream, _read_header(path, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read the IDX file {path}: {error}") from error


def _read_up_to(stream, count):
    """At most `count` bytes, in pieces: a header that claims terabytes costs no memory."""
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(_PIECE_BYTES, count - len(data)))):
        data += piece
    return bytes(data)


def _read_header(path, stream):
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        raise UserError(f"{path} is not an IDX file: it begins with {magic!r}")
    if magic[2] != _UNSIGNED_BYTE:
        raise UserError(f"{path} holds elements of IDX type 0x{magic[2]:02x}; only unsigned bytes (0x08) are supported")
    sizes = stream.read(4 * magic[3])
    if len(sizes) != 4 * magic[3]:
        raise UserError(f"{path} ends within its header: download it again")
    return struct.unpack(f">{magic[3]}I", sizes)
