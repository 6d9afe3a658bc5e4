"""Arrays in files of unknown origin: what a header claims is checked first; data are read in slabs."""

import contextlib
import dataclasses
import gzip
import io
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np

from tf_pivae.data import arrays, image_files, sources
from tf_pivae.data.image_ops import Preprocess
from tf_pivae.errors import UserError, first_line, printable

SLAB_BYTES = 1 << 24  # Read at a time, or one image where that is larger.
# Deflate packs at most 1032:1, and reaches that only for one repeated value, which no large set of images is.
_MAX_RATIO = 1032
_MAX_LARGE_RATIO = 500
_LARGE_BYTES = 1 << 30


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a file for reading; raises UserError for a pipe or a device, whose reader may wait for ever."""
    with reading(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{printable(path)} is not a regular file: a folder, pipe or device holds no array.")
        return open(path, "rb")


@contextlib.contextmanager
def reading(subject: object) -> Iterator[None]:
    """Turns whatever a damaged file makes a library raise within into a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, gzip and NumPy raise about ten kinds of exceptions.
        ends = "it ends early" if isinstance(error, EOFError) and not str(error) else None
        reason = ends or getattr(error, "strerror", None) or first_line(error)
        damaged = str(error).startswith("Bad CRC")
        advice = "; it is damaged: copy or save it again" if damaged else "; NumPy's np.savez writes .npz files"
        advice = advice if isinstance(error, zipfile.BadZipFile) else ""
        raise UserError(f"cannot read {printable(subject)}: {printable(reason)}{advice}.") from error


Stream: TypeAlias = IO[bytes] | io.BufferedReader | gzip.GzipFile


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """An array in a file, of which only the header was read.

    Attributes:
      name: for messages, "images of x.npz".
      shape, dtype: as the header says, in C order.
      stored: bytes in the file that hold the data, packed or not.
      open_data: opens a stream that stands at the first byte of the data.

    Raises:
      UserError: the header claims more than so many bytes can hold.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stored: int
    open_data: Callable[[], AbstractContextManager[Stream]]

    def __post_init__(self) -> None:
        if len(self.shape) > 4 or not all(0 <= size < 1 << 63 for size in self.shape):
            raise UserError(f"{self.name} claims a shape that no images have: it is damaged.")
        ratio = _MAX_LARGE_RATIO if self.nbytes > _LARGE_BYTES else _MAX_RATIO
        if self.nbytes > ratio * self.stored:
            raise UserError(
                f"{self.name} claims {self.dtype} {list(self.shape)}, {self.nbytes / 1e6:,.0f} MB, in {self.stored:,} "
                "bytes of file: it is damaged, or meant to fill the memory."
            )

    @property
    def nbytes(self) -> int:
        """Size of the data, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    def slabs(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yields the rows from `start` on, `[k, ...]` in the machine's byte order, about `SLAB_BYTES` at a time.

        Raises:
          UserError: the file ends before its last row.
        """
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, SLAB_BYTES // max(1, row_bytes))
        with reading(self.name), self.open_data() as stream:
            if start:
                stream.seek(start * row_bytes, os.SEEK_CUR)
            for first in range(start, self.shape[0], step):
                rows = min(step, self.shape[0] - first)
                data = stream.read(rows * row_bytes)
                if len(data) < rows * row_bytes:
                    raise UserError(f"{self.name} ends within row {first + len(data) // row_bytes} of {self.shape[0]}.")
                slab = np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
                yield slab.astype(self.dtype.newbyteorder("="), copy=False)
            if stream.read(1):  # Read in any case: packed files have their checksum looked at behind the last byte.
                raise UserError(f"{self.name} has more data than its shape {list(self.shape)} needs: it is damaged.")

    def read(self) -> np.ndarray:
        """The whole array."""
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype.newbyteorder("=")), *self.slabs()])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of the images that the array holds; raises UserError unless it holds images."""
        if len(self.shape) not in (3, 4) or self.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            raise UserError(f"{self.name} is {self.dtype} {list(self.shape)}; it must be uint8 [N, H, W, C].")
        count, height, width, channels = (*self.shape, 1)[:4]
        if count < 1:
            raise UserError(f"{self.name} holds no images.")
        if channels > 4 and len(self.shape) == 4 and 1 <= height <= 4:
            raise UserError(
                f"{self.name} is {list(self.shape)}: channels come last, [N, H, W, C]; transpose it by (0, 2, 3, 1)."
            )
        if not (count <= arrays.MAX_IMAGES and 1 <= height * width <= image_files.MAX_PIXELS and 1 <= channels <= 4):
            raise UserError(
                f"{self.name} claims {count} images of {height}x{width}x{channels}: at most {arrays.MAX_IMAGES:,} "
                f"images, each of at most {image_files.MAX_PIXELS // 10**6} megapixels and 1 to 4 channels, are read."
            )
        return height, width, channels

    def labels(self, images: "ArrayFile") -> np.ndarray | None:
        """The array as labels int64 `[N]` of images; None where all are -1, "unlabelled".

        Raises:
          UserError: another shape, dtype or range.
        """
        if self.shape != images.shape[:1] or self.dtype.kind not in "iu":
            raise UserError(
                f"{self.name} is {self.dtype} {list(self.shape)}; it must be integers [{images.shape[0]}], one for "
                f"each of {images.name}."
            )
        labels = self.read()
        low = labels.min()
        high = labels.max()
        if low == high == -1:
            return None
        if not 0 <= low <= high < arrays.MAX_CLASSES:
            raise UserError(
                f"{self.name} runs from {low} to {high}: labels are 0 to the number of classes less one, at most "
                f"{arrays.MAX_CLASSES - 1}."
            )
        return labels.astype(np.int64)


class Part(NamedTuple):
    """What a split is made of."""

    images: ArrayFile
    labels: np.ndarray | None  # int64 [N]
    keep: np.ndarray | None = None  # bool [N], the rows that belong to the split; None is all of them

    def slabs(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yields the images from row `start` on, uint8 or uint16 `[k, H, W, C]`, as `ArrayFile.slabs` does.

        Raises:
          UserError: as there, or the first of them are 8-bit pixels kept in 16 bits, whose 255 would become 1.
        """
        for slab in self.images.slabs(start):
            if start == 0 and slab.dtype == np.uint16 and len(slab) > 1 and 0 < slab.max() < 256:
                raise UserError(
                    f"{self.images.name} is uint16, but its first {len(slab):,} images have no pixel above "
                    f"{slab.max()}: as 16-bit images (0 to 65535) they are black. Save pixels of 0 to 255 as uint8."
                )
            start += len(slab)
            yield slab.reshape(len(slab), *self.images.image_shape)


def part(images: ArrayFile, labels: ArrayFile | None) -> Part:
    """Checks what two headers say and reads the labels."""
    _ = images.image_shape  # Raises for an array that holds no images, or more than `MAX_IMAGES`.
    return Part(images, None if labels is None else labels.labels(images))


def image_source(
    train: Part, test: Part, preprocess: Preprocess, class_names: Sequence[str] = (), num_bins: int = 256
) -> sources.ImageSource:
    """The `ImageSource` of two arrays, a record of which is a row.

    Args:
      train, test: what the splits are made of.
      preprocess: what is done with every image.
      class_names: names of the classes, or none.
      num_bins: images with pixels beyond it are refused when they are read.

    Raises:
      UserError: the arrays hold no images, or images of two shapes.
    """
    shape, tested = (preprocess.output_shape(*side.images.image_shape) for side in (train, test))
    if shape != tested:
        raise UserError(
            f"{train.images.name} gives images of {list(shape)} but {test.images.name} of {list(tested)}: they must "
            "have one shape."
        )
    num_classes = arrays.count_classes((train.labels, test.labels), class_names)
    first, second = (_split(side, preprocess, shape, num_bins) for side in (train, test))
    return sources.ImageSource(shape, first, second, num_classes, tuple(class_names))


def _split(part: Part, preprocess: Preprocess, shape: tuple[int, int, int], num_bins: int) -> sources.SplitSource:
    images, labels, keep = part

    def read(start: int) -> Iterator[sources.Chunk]:
        row = start
        for slab in part.slabs(start):
            rows = slice(row, row + len(slab))
            row += len(slab)
            usable = slice(None) if keep is None else keep[rows]
            slab = slab[usable]
            finished = preprocess(slab) if len(slab) else np.zeros((0, *shape), np.uint8)
            if num_bins < 256 and finished.max(initial=0) >= num_bins:
                raise UserError(f"{images.name} has num_bins = {num_bins}, but its pixels go beyond {num_bins - 1}.")
            yield sources.Chunk(rows.stop - rows.start, finished, None if labels is None else labels[rows][usable])

    return sources.SplitSource(read, images.shape[0], images.shape[0] if keep is None else int(keep.sum()))


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path of a file with `~` resolved."""
    return Path(os.path.expanduser(path)).absolute()
