"""Any folder of images: central squares, or tiles of large photographs; training and test are split by file."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence

import gin
import numpy as np

from tf_pivae.data import arrays, cache, image_files, image_ops, sources
from tf_pivae.data.image_files import Header, ImageFile
from tf_pivae.errors import UserError, printable
from tf_pivae.system.progress import progress_bar

_log = logging.getLogger(__name__)
_NAMED = 20
_MAX_TILE_PIXELS = 1 << 28  # Of all tiles of one file, which are made at once.


@gin.configurable
def image_folder(
    path: str | os.PathLike[str],
    image_size: int,
    crop: str = "central",
    test_fraction: float = 0.1,
    test_path: str | os.PathLike[str] | None = None,
    downscale: int | Sequence[int] = 1,
    max_tiles_per_image: int | None = None,
    channels: int | None = None,
    class_folders: bool = False,
    seed: int = 0,
    num_examples: arrays.Limits | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> arrays.ImageDataset:
    """A data set made of the image files below a folder, prepared once in the cache.

    Files that cannot be used (damaged, empty, too small, larger than 64 megapixels, links, no images) are skipped and
    named in a warning. Everything is recognised by content, not by suffix; an animation counts as its first frame.

    Args:
      path: the folder, read recursively.
      image_size: side of the images made.
      crop: "central": the central square of each file, area-resized. "tiles": the centred grid of `image_size` squares
        of each file. "random_tiles": `max_tiles_per_image` squares at random places of each file.
      test_fraction: share of the FILES held out (tiles of one photograph resemble each other); chosen by the hash of
        the name.
      test_path: a folder of test images; `test_fraction` is then not used.
      downscale: for tiles: average boxes of this many pixels first; several factors, as (2, 4, 8), give tiles of each.
      max_tiles_per_image: for tiles: at most this many of one file, chosen at random.
      channels: 1, 2 (grey and alpha), 3 or 4; None: 1 if all files are grey, else 3.
      class_folders: the first folder below `path` is the label.
      seed: chooses the held-out files and the random tiles.
      num_examples: as in `ImageDataset.take`; the order is that of the hashes.
      cache_dir: see `cache.prepare`.
      name: the data set's name; default the folder's.

    Returns:
      An `ImageDataset` of memory maps.

    Raises:
      UserError: if there is no such folder, or no usable image in a split.
    """
    image_ops.Preprocess(image_size=image_size, channels=channels)  # checks both
    factors = tuple(downscale) if isinstance(downscale, (tuple, list)) else (downscale,)
    if crop not in ("central", "tiles", "random_tiles"):
        raise UserError(f"image_folder.crop must be 'central', 'tiles' or 'random_tiles', got {crop!r}")
    if not factors or not all(map(arrays.is_count, factors)):
        raise UserError(f"image_folder.downscale must be a whole number or several, such as (2, 4), got {downscale!r}")
    if max_tiles_per_image is None and crop == "random_tiles":
        raise UserError("image_folder.crop = 'random_tiles' needs image_folder.max_tiles_per_image")
    most = max(1, _MAX_TILE_PIXELS // image_size**2)
    if max_tiles_per_image is not None and not (arrays.is_count(max_tiles_per_image) and max_tiles_per_image <= most):
        raise UserError(
            f"image_folder.max_tiles_per_image must be a whole number from 1 to {most:,}, got {max_tiles_per_image!r}"
        )
    if test_path is None and not 0 < test_fraction < 1:
        raise UserError(f"image_folder.test_fraction must lie between 0 and 1, got {test_fraction!r}")
    folders = [os.path.abspath(os.path.expanduser(p)) for p in (path, test_path) if p is not None]
    name = name or printable(os.path.basename(folders[0])) or "images"
    if channels is not None and not class_folders:
        cache.declared(name, (image_size, image_size, channels), (), arrays.check_num_examples(num_examples))
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"there is no folder {printable(folder)}: set image_folder.path to a folder of images")
    listings = [image_files.find_files(folder) for folder in folders]
    cutter = _Cutter(image_size, crop, factors, max_tiles_per_image, seed)
    specification = {
        "source": "folder",
        "listing": [_fingerprint(files) for files, _ in listings],
        "cutter": repr(cutter),
        "test_fraction": None if test_path else test_fraction,
        "channels": channels,
        "class_folders": class_folders,
    }

    def open_source() -> sources.ImageSource:
        usable = [_usable(name, folder, *listing) for folder, listing in zip(folders, listings, strict=True)]
        if len(usable) == 1:
            usable = _hold_out(name, usable[0], test_fraction, seed)
        else:
            usable = [sorted(files, key=lambda pair: _hash(seed, pair[0].relative)) for files in usable]
        headers = [header for files in usable for _, header in files]
        have = channels or (1 if all(header.grey for header in headers) else 3)
        if class_folders and any("/" not in file.relative for files in usable for file, _ in files):
            raise UserError(f"{name}: class_folders is set, but some images lie outside the class folders: move them")
        classes = sorted({f.relative.split("/")[0] for files in usable for f, _ in files}) if class_folders else []
        if len(classes) > arrays.MAX_CLASSES:
            raise UserError(f"{name} has {len(classes):,} class folders: there are at most {arrays.MAX_CLASSES:,}")
        train, test = (_split(files, cutter, have, classes) for files in usable)
        return sources.ImageSource((image_size, image_size, have), train, test, class_names=tuple(classes))

    return cache.prepare(name, specification, open_source, num_examples, cache_dir)


def _fingerprint(files: list[ImageFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        line = f"{file.relative}\0{file.num_bytes}\0{file.mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hash(seed: int, relative: str) -> bytes:
    return hashlib.sha256(f"{seed}/{relative}".encode("utf-8", "surrogateescape")).digest()


def _usable(name: str, folder: str, files: list[ImageFile], skipped: list[str]) -> list[tuple[ImageFile, Header]]:
    """Pairs `(file, header)` of the files whose header promises an image; the others are named."""
    usable, skipped = [], list(skipped)
    for file in progress_bar(files, desc=f"{name} headers"):
        try:
            usable.append((file, image_files.read_header(file.path)))
        except image_files.UnusableImage as error:
            skipped.append(image_files.named(file.relative, error))
    shown = ", ".join(skipped[:_NAMED]) + (", ..." if len(skipped) > _NAMED else "")
    if not usable:
        raise UserError(f"no image in {printable(folder)}" + (f"; skipped {len(skipped)}: {shown}" if skipped else ""))
    if skipped:
        _log.warning("%s: skipped %d of %d files: %s", name, len(skipped), len(usable) + len(skipped), shown)
    return usable


def _hold_out(
    name: str, usable: list[tuple[ImageFile, Header]], fraction: float, seed: int
) -> tuple[list[tuple[ImageFile, Header]], list[tuple[ImageFile, Header]]]:
    """Splits by the hash of the file's name: the same files whatever order the disk lists them in."""
    if len(usable) < 2:
        raise UserError(f"{name} has one usable image file: at least two are needed, one of them for the test split")
    order = sorted(usable, key=lambda pair: _hash(seed, pair[0].relative))
    count = min(len(order) - 1, max(1, round(len(order) * fraction)))
    return order[count:], order[:count]


def _split(
    usable: list[tuple[ImageFile, Header]], cutter: "_Cutter", channels: int, classes: list[str]
) -> sources.SplitSource:
    def read(start: int) -> Iterator[sources.Chunk]:
        for file, _ in usable[start:]:
            try:
                images = cutter.cut(image_files.decode(file.path, channels), file.relative)
            except image_files.UnusableImage as error:
                empty = np.zeros((0, cutter.size, cutter.size, channels), np.uint8)
                labels = np.zeros(0, np.int64) if classes else None
                yield sources.Chunk(1, empty, labels, (image_files.named(file.relative, error),))
                continue
            labels = None
            if classes:
                labels = np.full(len(images), classes.index(file.relative.split("/")[0]), np.int64)
            yield sources.Chunk(1, images, labels)

    num_images = sum(cutter.count(header.height, header.width) for _, header in usable)
    return sources.SplitSource(read, len(usable), num_images)


class _Cutter:
    """Makes the images of one file; `repr` states everything that decides them."""

    def __init__(self, size: int, crop: str, factors: tuple[int, ...], limit: int | None, seed: int) -> None:
        self.size, self.crop, self.factors, self.limit, self.seed = size, crop, factors, limit, seed

    def __repr__(self) -> str:
        return f"{self.crop} {self.size} {self.factors} {self.limit} {self.seed}"

    def _grid(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Top left corners `(factor, row, column)` of the centred grid, in the pixels of each downscaled image."""
        corners = []
        for factor in self.factors:
            rows, columns = height // factor // self.size, width // factor // self.size
            top = (height // factor - rows * self.size) // 2
            left = (width // factor - columns * self.size) // 2
            corners += [
                (factor, top + r * self.size, left + c * self.size) for r in range(rows) for c in range(columns)
            ]
        return corners

    def count(self, height: int, width: int) -> int:
        """At most how many images a file of this size gives."""
        if self.crop == "central":
            return 1
        if self.crop == "random_tiles":
            return self.limit
        tiles = sum((height // f // self.size) * (width // f // self.size) for f in self.factors)
        return tiles if self.limit is None else min(tiles, self.limit)

    def cut(self, image: np.ndarray, relative: str) -> np.ndarray:
        """Maps uint8 `[H, W, C]` to uint8 `[k, size, size, C]`; raises UnusableImage if nothing fits."""
        height, width = image.shape[:2]
        usable_factors = [f for f in self.factors if min(height, width) // f >= self.size]
        if self.crop == "central":
            usable_factors = [1] if min(height, width) >= self.size else []
        if not usable_factors:
            raise image_files.UnusableImage(f"{width}x{height} is smaller than {self.size}x{self.size}")
        if self.crop == "central":
            return image_ops.area_resize(image_ops.central_crop(image), self.size)[None]
        rng = np.random.default_rng(np.frombuffer(_hash(self.seed, relative), np.uint32))
        if self.crop == "tiles":
            corners = self._grid(height, width)
            if self.limit is not None and self.limit < len(corners):
                corners = [corners[i] for i in np.sort(rng.choice(len(corners), self.limit, replace=False))]
        else:
            factors = [usable_factors[i] for i in rng.integers(len(usable_factors), size=self.limit)]
            corners = [
                (f, int(rng.integers(height // f - self.size + 1)), int(rng.integers(width // f - self.size + 1)))
                for f in factors
            ]
        scaled = {f: image_ops.box_downscale(image, f) for f in sorted({corner[0] for corner in corners})}
        return np.stack([scaled[f][r : r + self.size, c : c + self.size] for f, r, c in corners])
