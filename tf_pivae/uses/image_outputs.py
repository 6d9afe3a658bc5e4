"""Where images go that a model makes: one picture of all, a folder with a PNG each, or one array in an `.npz` file.

A sink is told of images in their order, a batch at a time, and says beforehand which it has already from an earlier
time. Memory holds one batch, but for the grid, which is one picture.
"""

import contextlib
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tf_pivae import figures
from tf_pivae.data.array_file import SLAB_BYTES
from tf_pivae.errors import UserError, check_output
from tf_pivae.files import place_file
from tf_pivae.uses.claims import SETTINGS, claimed, unfinished

_MOST_IN_GRID = 4096  # Tiles of one picture.
_NAME_LENGTH = 80  # Of what a file's name says of its image.


class Sink(Protocol):
    """Takes images in their order."""

    def has(self, first: int, names: Sequence[str]) -> bool:
        """Whether the images `first`, `first + 1`, ... of these names are there from an earlier time."""

    def add(self, first: int, names: Sequence[str], images: np.ndarray) -> None:
        """Takes uint8 [B, H, W, C], levels 0 ... num_bins - 1."""


def is_folder(output: str | Path) -> bool:
    """Whether a name means a folder: it ends in a slash, or there is one."""
    return str(output).endswith("/") or Path(output).is_dir()


def is_grid(output: str | Path) -> bool:
    """Whether a name means one picture of all images."""
    return not is_folder(output) and Path(output).suffix.lower() != ".npz"


def check(output: str | Path) -> None:
    """Raises UserError where no images could be written at `output`: before the work, not after it."""
    path = Path(output)
    if is_folder(output):
        if path.is_file():
            raise UserError(f"cannot write {str(output)!r}: a file of this name exists; choose another name.")
        if not path.is_dir():
            check_output(path)
        return
    check_output(output)
    if path.suffix.lower() not in (".png", ".npz"):
        raise UserError(
            f"--output={output}: images are written as PNG; call it {path.stem}.png, {path.stem}/ or {path.stem}.npz."
        )


def check_count(output: str | Path, count: int) -> None:
    """Raises UserError where `output` is one picture, and so many images are too many for it."""
    if is_grid(output) and count > _MOST_IN_GRID:
        raise UserError(f"{count:,} images are too many for one picture: give --output=FOLDER/ or --output=NAME.npz.")


def file_name(index: int, about: str = "") -> str:
    """ "000012_dress.png": the place of an image in the whole, and what else there is to say, letters and digits."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in about)[:_NAME_LENGTH]
    return f"{index:06d}_{plain}.png" if plain else f"{index:06d}.png"


@contextlib.contextmanager
def open_sink(
    output: str | Path,
    settings: dict[str, Any],
    count: int,
    image_shape: tuple[int, ...],
    num_bins: int,
    columns: int | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[Sink]:
    """The sink for an output; what it takes is in its place when this is left.

    Args:
      output: "FOLDER/" for one PNG per image, "NAME.npz" for arrays `images` (uint8 [count, H, W, C]) and, with labels,
        `labels`; any other name for one PNG of them all.
      settings: everything that decides the images, as plain JSON values; another output in its place, begun with
        others, is refused. A grid is written anew each time.
      count: of images.
      image_shape: (H, W, C).
      num_bins: of a pixel's levels: a PNG is written on the full scale, an array as it is.
      columns: of the grid; None is about square.
      labels: int64 [count], or None.

    Raises:
      UserError: as for `claims.claimed`; a folder with more images than these.
    """
    if is_folder(output):
        with claimed(Path(output), settings, output) as folder:
            numbers = (re.match(r"(\d{6,})[_.]", name) for name in os.listdir(folder))
            if any(number and int(number[1]) >= count for number in numbers):
                raise UserError(f"{output} holds more than {count:,} images: make as many or more, or another folder.")
            yield _Folder(folder, num_bins)
    elif Path(output).suffix.lower() == ".npz":
        with unfinished(output, {**settings, "count": count}) as folder, _Array(folder, image_shape) as array:
            yield array
            extra = {} if labels is None else {"labels": labels}
            array.pack(Path(output), count, extra if num_bins == 256 else {**extra, "num_bins": np.array(num_bins)})
    else:
        grid = _Grid()
        yield grid
        figures.save_png(figures.image_grid(np.concatenate(grid.parts), columns, num_bins=num_bins), output)


class _Grid:
    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def has(self, first: int, names: Sequence[str]) -> bool:
        return False

    def add(self, first: int, names: Sequence[str], images: np.ndarray) -> None:
        self.parts.append(images)


class _Folder:
    def __init__(self, path: Path, num_bins: int) -> None:
        self._path = path
        self._num_bins = num_bins
        self._files = set(os.listdir(path)) - {SETTINGS}

    def has(self, first: int, names: Sequence[str]) -> bool:
        return self._files.issuperset(names)

    def add(self, first: int, names: Sequence[str], images: np.ndarray) -> None:
        for name, image in zip(names, figures.full_scale(images, self._num_bins), strict=True):
            figures.save_png(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), self._path / name)


class _Array:
    """A file of raw rows that grows, and is packed when it is whole."""

    def __init__(self, folder: Path, image_shape: tuple[int, ...]) -> None:
        self._folder = folder
        self._shape = image_shape
        self._row = math.prod(image_shape)
        self._file = open(folder / "images", "a+b")  # noqa: SIM115  closed by __exit__
        self._count = os.fstat(self._file.fileno()).st_size // self._row
        self._file.truncate(self._count * self._row)

    def __enter__(self) -> "_Array":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def has(self, first: int, names: Sequence[str]) -> bool:
        return first + len(names) <= self._count

    def add(self, first: int, names: Sequence[str], images: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(images[max(0, self._count - first) :]).data)
        self._file.flush()
        self._count = first + len(images)

    def pack(self, output: Path, count: int, extra: dict[str, np.ndarray]) -> None:
        """Writes what `np.savez` would of all rows and the other arrays, a slab at a time."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *self._shape)}
        partial = self._folder / "packed"
        self._file.seek(0)
        with zipfile.ZipFile(partial, "w") as archive:
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                shutil.copyfileobj(self._file, member, SLAB_BYTES)
            for name, array in extra.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        place_file(partial, output)
