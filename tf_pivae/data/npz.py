"""Images in NumPy's `.npz` files. Pickled objects are never loaded."""

import contextlib
import dataclasses
import functools
import io
import numbers
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gin
import numpy as np

from tf_pivae.data import array_file, arrays, cache, image_ops
from tf_pivae.data.array_file import ArrayFile
from tf_pivae.errors import UserError, printable
from tf_pivae.files import replacing

_MAX_DIRECTORY_BYTES = 1 << 20  # Of a zip archive: some ten thousand members, for each of which zipfile builds objects.
_MAX_HEADER_BYTES = 1 << 14  # NumPy takes 10,000 characters.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Those of np.savez; zipfile unpacks others without a limit.
_ENCRYPTED = 0x1  # A bit of a member's flags.


@gin.configurable
def npz_images(
    path: str | os.PathLike[str],
    test_fraction: float = 0.1,
    crop: image_ops.Size | str | None = None,
    pad_to: image_ops.Size | None = None,
    image_size: image_ops.Size | None = None,
    channels: int | None = None,
    num_examples: arrays.Limits | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> arrays.ImageDataset:
    """A data set of one `.npz` file; `save_npz` writes such files.

    The file holds `train_images` and `test_images` (uint8 or uint16, `[N, H, W, C]` or `[N, H, W]`), optionally
    `train_labels`, `test_labels` (integers `[N]`), `class_names` (strings) and `num_bins` (an integer, where the pixels
    have fewer than 256 levels); or `images` and `labels` alone, of which
    a random `test_fraction` is held out. The file is read in slabs: it may be larger than memory.

    Args:
      path: the file.
      test_fraction: share of a single `images` array that is held out.
      crop, pad_to, image_size, channels: see `image_ops.Preprocess`.
      num_examples: as in `ImageDataset.take`.
      seed: chooses the held-out images of a single `images` array.
      cache_dir: where a data set of more than 256 MiB is unpacked; default as in `cache.prepare`.
      name: the data set's name; default the file's name.

    Raises:
      UserError: if the file is missing, damaged, claims more than it holds, lacks a key or holds something else.
    """
    path = array_file.absolute(path)
    preprocess = image_ops.Preprocess(crop, pad_to, image_size, channels)
    file = _NpzFile(path)
    if {"train_images", "test_images"} <= set(file.keys):
        parts = [file.part(f"{split}_images", f"{split}_labels") for split in ("train", "test")]
    elif "images" in file.keys:
        both = file.part("images", "labels")
        held_out = _held_out(both.images.shape[0], test_fraction, seed)
        parts = [both._replace(keep=keep) for keep in (~held_out, held_out)]
    else:
        has = printable(", ".join(file.keys[:20])) or "none"
        raise UserError(f"{file.name} has the arrays {has}; it needs train_images and test_images, or images.")
    num_bins = file.num_bins()
    train, test = parts
    source = array_file.image_source(train, test, preprocess, file.class_names(), num_bins)
    specification = {
        "source": "npz",
        **cache.file_facts(path),
        "preprocess": repr(preprocess),
        "test_fraction": test_fraction,
        "seed": seed,
    }
    dataset = cache.load(name or printable(path.stem), specification, source, num_examples, cache_dir)
    return dataclasses.replace(dataset, num_bins=num_bins)


def stored_images(path: str | os.PathLike[str]) -> tuple[array_file.Part, int]:
    """The images of an `.npz` file, yet unread, with their labels, and their number of levels.

    They are its `images` (and `labels`), or else its `test_images`, or the arrays that `np.savez` saved
    without names (`arr_0`, `arr_1`).

    Raises:
      UserError: as `npz_images`.
    """
    file = _NpzFile(array_file.absolute(path))
    for images, labels in (("images", "labels"), ("test_images", "test_labels"), ("arr_0", "arr_1")):
        if images in file.keys:
            return file.part(images, labels), file.num_bins()
    raise UserError(f"{file.name} has the arrays {printable(', '.join(file.keys[:20])) or 'none'}; it needs images.")


def save_npz(path: str | os.PathLike[str], dataset: arrays.ImageDataset) -> None:
    """Writes an `ImageDataset` as a compressed `.npz` file that `npz_images` reads back, atomically.

    Args:
      path: the file to write; an existing one is replaced.

    Raises:
      UserError: it cannot be written.
    """
    members = {"train_images": dataset.train.images, "test_images": dataset.test.images}
    if dataset.num_bins != 256:
        members["num_bins"] = np.array(dataset.num_bins)
    for key, labels in (("train_labels", dataset.train.labels), ("test_labels", dataset.test.labels)):
        if labels is not None:
            members[key] = labels
    if dataset.class_names:
        members["class_names"] = np.array(dataset.class_names)
    with replacing(path, shared=True) as partial, open(partial, "xb") as file:
        np.savez_compressed(file, allow_pickle=False, **members)


def _held_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """A mask of a random `fraction` of the rows, at least one and never all."""
    if not 0 < fraction < 1:
        raise UserError(f"test_fraction must lie between 0 and 1, got {fraction}.")
    if count < 2:
        raise UserError(f"images holds {count} images: at least two are needed, one of them for the test split.")
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise UserError(f"npz_images.seed must be a whole number from 0, got {seed!r}.")
    mask = np.zeros(count, bool)
    mask[np.random.default_rng(seed).permutation(count)[: min(count - 1, max(1, round(count * fraction)))]] = True
    return mask


class _NpzFile:
    """The arrays of an `.npz` file, by name; pickled objects are refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = printable(path)
        with array_file.reading(self.name), _archive(path) as archive:
            self._bytes = path.stat().st_size
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        self._members = {member.filename.removesuffix(".npy"): member for member in members}
        self.keys = sorted(self._members)
        if len(members) > len(self.keys):
            ((twice, _),) = Counter(member.filename for member in members).most_common(1)
            raise UserError(f"{self.name} has {printable(twice)} more than once: save the file again.")

    def part(self, images_key: str, labels_key: str) -> array_file.Part:
        """Images, and their labels where there are any."""
        images = self._array(images_key)
        return array_file.part(images, self._array(labels_key) if labels_key in self.keys else None)

    def num_bins(self) -> int:
        """Number of levels of a pixel, 2 to 256."""
        if "num_bins" not in self.keys:
            return 256
        array = self._array("num_bins")
        num_bins = int(array.read()[0]) if array.shape == (1,) and array.dtype.kind in "iu" else 0
        if not 2 <= num_bins <= 256:
            raise UserError(f"{array.name} must be an integer from 2 to 256.")
        return num_bins

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or none."""
        if "class_names" not in self.keys:
            return ()
        array = self._array("class_names")
        if len(array.shape) != 1 or array.dtype.kind not in "US":
            raise UserError(f"{array.name} is {array.dtype} {list(array.shape)}; it must be strings [classes].")
        if array.shape[0] > arrays.MAX_CLASSES or array.nbytes > array_file.SLAB_BYTES:
            raise UserError(f"{array.name} holds {array.shape[0]:,} names: at most {arrays.MAX_CLASSES:,} are allowed.")
        with array_file.reading(array.name):
            return tuple(array.read().astype(str).tolist())

    def _array(self, key: str) -> ArrayFile:
        name = f"{printable(key)} of {self.name}"
        member = self._members[key]
        if member.compress_type not in _PACKINGS or member.flag_bits & _ENCRYPTED:
            raise UserError(f"{name} is encrypted, or not compressed by np.savez_compressed: save the file again.")
        with array_file.reading(name), _member(self._path, member.filename, 0) as stream:
            header = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
            version = np.lib.format.read_magic(header)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read_header(header)
        if dtype.hasobject:
            raise UserError(f"{name} holds pickled Python objects, which are not loaded: save uint8 arrays.")
        if fortran_order and len(shape) > 1:
            raise UserError(f"{name} is in Fortran order: save np.ascontiguousarray of it.")
        stored = min(member.compress_size, self._bytes)
        open_data = functools.partial(_member, self._path, member.filename, header.tell())
        array = ArrayFile(name, shape or (1,), dtype, stored, open_data)
        if member.file_size != header.tell() + array.nbytes:
            raise UserError(
                f"{name} claims {dtype} {list(shape)}, {array.nbytes:,} bytes, but has "
                f"{member.file_size - header.tell():,}: it is damaged."
            )
        return array


class _File(io.BufferedReader):
    """A file that refuses to read a table of contents beyond a limit."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening and size is not None and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("it has too many members")
        return super().read(size)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with _File(array_file.open_regular(path).detach()) as file, zipfile.ZipFile(file) as archive:
        file.opening = False
        yield archive


@contextlib.contextmanager
def _member(path: Path, filename: str, start: int) -> Iterator[array_file.Stream]:
    """A stream of a member, which stands behind its first `start` bytes."""
    with _archive(path) as archive, archive.open(filename) as stream:
        stream.read(start)  # After `seek`, zipfile would not look at the checksum of a member that is not packed.
        yield stream
