"""Any folder of images: central squares, or tiles of large photographs; training and test are split by file."""

import collections
import contextlib
import dataclasses
import hashlib
import logging
import math
import os
from collections.abc import Iterator, Sequence

import gin
import numpy as np

from tf_pivae.data import arrays, cache, image_files, image_ops, sources
from tf_pivae.data.image_files import Header, ImageFile
from tf_pivae.errors import UserError, no_setting, printable, sentence
from tf_pivae.system.progress import progress_bar

_log = logging.getLogger(__name__)
_NAMED = 20
_MAX_TILE_PIXELS = 1 << 28  # Of all tiles of one file, which are made at once.


@gin.configurable
def image_folder(
    path: str | os.PathLike[str],
    image_size: image_ops.Size | None = None,
    crop: str | None = "central",
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
    pad_to: image_ops.Size | None = None,
) -> arrays.ImageDataset:
    """A data set made of the image files below a folder, prepared once in the cache.

    Files that cannot be used (damaged, empty, too small, larger than 64 megapixels, links, no images) are skipped and
    named in a warning. Everything is recognised by content, not by suffix; an animation counts as its first frame.

    Args:
      path: the folder, read recursively.
      image_size: side of the images made, or their (H, W).
      crop: "central": the largest central part of each file that has the proportions of `image_size`, area-resized.
        "tiles": the centred grid of parts of `image_size` of each file. "random_tiles": `max_tiles_per_image` such
        parts at random places of each file. "none" or None: the whole of each file, padded to `pad_to`, area-resized to
        `image_size`; without the two, every file must have the size of the first.
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
      pad_to: for whole files: the side or (H, W) to pad to with zeros.

    Returns:
      An `ImageDataset` of memory maps.

    Raises:
      UserError: if there is no such folder, or no usable image in a split.
    """
    crop = crop or "none"
    image_ops.Preprocess(channels=channels)  # checks it
    preprocess = image_ops.Preprocess(None if crop == "none" else "central", pad_to, image_size)
    factors = tuple(downscale) if isinstance(downscale, (tuple, list)) else (downscale,)
    if crop not in ("central", "tiles", "random_tiles", "none"):
        raise UserError(f"image_folder.crop must be 'central', 'tiles', 'random_tiles' or 'none', got {crop!r}.")
    if crop != "none" and pad_to is not None:
        raise UserError(
            f"image_folder.pad_to is for whole files, and crop is {crop!r}: set image_folder.crop = 'none'."
        )
    if crop != "none" and image_size is None:
        raise UserError(
            f"{no_setting('image_folder.image_size')}, or take whole files as they are, "
            "--gin_param=image_folder.crop=None."
        )
    size = preprocess.image_size or preprocess.pad_to
    shape = None if size is None else image_ops.sides(size)
    if not factors or not all(map(arrays.is_count, factors)):
        raise UserError(f"image_folder.downscale must be a whole number or several, such as (2, 4), got {downscale!r}.")
    if max_tiles_per_image is None and crop == "random_tiles":
        raise UserError("image_folder.crop = 'random_tiles' needs image_folder.max_tiles_per_image.")
    most = max(1, _MAX_TILE_PIXELS // math.prod(shape or (1,)))
    if max_tiles_per_image is not None and not (arrays.is_count(max_tiles_per_image) and max_tiles_per_image <= most):
        raise UserError(
            f"image_folder.max_tiles_per_image must be a whole number from 1 to {most:,}, got {max_tiles_per_image!r}."
        )
    if test_path is None and not 0 < test_fraction < 1:
        raise UserError(f"image_folder.test_fraction must lie between 0 and 1, got {test_fraction!r}.")
    if "" in (path, test_path):
        raise UserError("image_folder.path and test_path must not be empty: give a folder of images.")
    folders = [os.path.abspath(os.path.expanduser(p)) for p in (path, test_path) if p is not None]
    name = name or printable(os.path.basename(folders[0])) or "images"
    if channels is not None and not class_folders and shape is not None:
        cache.declared(name, (*shape, channels), (), arrays.check_num_examples(num_examples))
    for setting, folder in zip(("path", "test_path"), folders, strict=False):
        if not os.path.isdir(folder):
            raise UserError(
                f"there is no folder {printable(folder)}: set image_folder.{setting} to a folder of images."
            )
    listings = [image_files.find_files(folder) for folder in folders]
    specification = {
        "source": "folder",
        "listing": [_fingerprint(files) for files, _ in listings],
        "cutter": repr(preprocess)
        if crop == "none"
        else f"{crop} {preprocess.image_size} {factors} {max_tiles_per_image} {seed}",
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
            raise UserError(f"{name}: class_folders is set, but some images lie outside the class folders: move them.")
        classes = sorted({f.relative.split("/")[0] for files in usable for f, _ in files}) if class_folders else []
        if len(classes) > arrays.MAX_CLASSES:
            raise UserError(f"{name} has {len(classes):,} class folders: at most {arrays.MAX_CLASSES:,} are allowed.")
        cutter = _Cutter(
            shape or _usual_shape(name, usable[0], preprocess), preprocess, crop, factors, max_tiles_per_image, seed
        )
        train, test = (_split(files, cutter, have, classes) for files in usable)
        return sources.ImageSource((*cutter.shape, have), train, test, class_names=tuple(classes))

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
    usable = []
    skipped = list(skipped)
    for file in progress_bar(files, desc=f"{name} headers"):
        try:
            usable.append((file, image_files.read_header(file.path)))
        except image_files.UnusableImage as error:
            skipped.append(image_files.with_reason(file.relative, error))
    reasons = ", ".join(skipped[:_NAMED]) + (", ..." if len(skipped) > _NAMED else "")
    if not usable:
        skips = f"; skipped {len(skipped)}: {reasons}" if skipped else ""
        raise UserError(sentence(f"no image in {printable(folder)}{skips}"))
    if skipped:
        count = len(usable) + len(skipped)
        _log.warning("%s: skipped %d of %d files: %s", name, len(skipped), count, sentence(reasons))
    return usable


def _hold_out(
    name: str, usable: list[tuple[ImageFile, Header]], fraction: float, seed: int
) -> tuple[list[tuple[ImageFile, Header]], list[tuple[ImageFile, Header]]]:
    """Splits by the hash of the file's name: the same files whatever order the disk lists them in."""
    if len(usable) < 2:
        raise UserError(f"{name} has one usable image file: at least two are needed, one of them for the test split.")
    order = sorted(usable, key=lambda pair: _hash(seed, pair[0].relative))
    count = min(len(order) - 1, max(1, round(len(order) * fraction)))
    return order[count:], order[:count]


def _usual_shape(
    name: str, usable: list[tuple[ImageFile, Header]], preprocess: image_ops.Preprocess
) -> tuple[int, int]:
    """(H, W) that most files have: that of the first of them whose pixels are there, as EXIF turns it."""
    sizes = [(header.height, header.width) for _, header in usable]
    most, _ = collections.Counter(sizes).most_common(1)[0]
    for (file, _), size in zip(usable, sizes, strict=True):
        if size == most:
            with contextlib.suppress(image_files.UnusableImage):
                height, width = image_files.decode(file.path, 1).shape[:2]
                return preprocess.output_shape(height, width, 1)[:2]
    raise UserError(
        f"{name}: no file of the usual size, {most[0]}x{most[1]}, can be read: set image_folder.image_size."
    )


def _split(
    usable: list[tuple[ImageFile, Header]], cutter: "_Cutter", channels: int, classes: list[str]
) -> sources.SplitSource:
    def read(start: int) -> Iterator[sources.Chunk]:
        for file, _ in usable[start:]:
            skipped: tuple[str, ...] = ()
            try:
                images = cutter.cut(image_files.decode(file.path, channels), file.relative)
            except image_files.UnusableImage as error:
                images = np.zeros((0, *cutter.shape, channels), np.uint8)
                skipped = (image_files.with_reason(file.relative, error),)
            labels = None
            if classes:
                labels = np.full(len(images), classes.index(file.relative.split("/")[0]), np.int64)
            yield sources.Chunk(1, images, labels, skipped)

    num_images = sum(cutter.count(header.height, header.width) for _, header in usable)
    return sources.SplitSource(read, len(usable), num_images)


@dataclasses.dataclass(frozen=True)
class _Cutter:
    """Makes the images of one file, [k, *shape, C]."""

    shape: tuple[int, int]
    preprocess: image_ops.Preprocess
    crop: str
    factors: tuple[int, ...]
    limit: int | None
    seed: int

    def _grid(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Top left corners `(factor, row, column)` of the centred grid, in the pixels of each downscaled image."""
        corners = []
        high, wide = self.shape
        for factor in self.factors:
            rows = height // factor // high
            columns = width // factor // wide
            top = (height // factor - rows * high) // 2
            left = (width // factor - columns * wide) // 2
            corners += [(factor, top + r * high, left + c * wide) for r in range(rows) for c in range(columns)]
        return corners

    def count(self, height: int, width: int) -> int:
        """At most how many images a file of this size gives."""
        if self.crop in ("central", "none"):
            return 1
        if self.crop == "random_tiles":
            return self.limit
        tiles = sum((height // f // self.shape[0]) * (width // f // self.shape[1]) for f in self.factors)
        return tiles if self.limit is None else min(tiles, self.limit)

    def cut(self, image: np.ndarray, relative: str) -> np.ndarray:
        """Maps uint8 `[H, W, C]` to uint8 `[k, *shape, C]`; raises UnusableImage if nothing fits."""
        height, width = image.shape[:2]
        high, wide = self.shape
        if self.crop == "none":
            return self._whole(image)[None]
        factors = (1,) if self.crop == "central" else self.factors
        usable_factors = [f for f in factors if height // f >= high and width // f >= wide]
        if not usable_factors:
            raise image_files.UnusableImage(f"{height}x{width} is smaller than {high}x{wide}")
        if self.crop == "central":
            return self.preprocess(image)[None]
        rng = np.random.default_rng(np.frombuffer(_hash(self.seed, relative), np.uint32))
        if self.crop == "tiles":
            corners = self._grid(height, width)
            if self.limit is not None and self.limit < len(corners):
                corners = [corners[i] for i in np.sort(rng.choice(len(corners), self.limit, replace=False))]
        else:
            factors = [usable_factors[i] for i in rng.integers(len(usable_factors), size=self.limit)]
            corners = [
                (f, int(rng.integers(height // f - high + 1)), int(rng.integers(width // f - wide + 1)))
                for f in factors
            ]
        scaled = {f: image_ops.box_downscale(image, f) for f in sorted({corner[0] for corner in corners})}
        return np.stack([scaled[f][r : r + high, c : c + wide] for f, r, c in corners])

    def _whole(self, image: np.ndarray) -> np.ndarray:
        try:
            resized = self.preprocess(image)
        except UserError as error:
            raise image_files.UnusableImage(str(error).rstrip(".")) from error
        if resized.shape[:2] != self.shape:
            height, width = resized.shape[:2]
            high, wide = self.shape
            raise image_files.UnusableImage(
                f"{height}x{width}, where most are {high}x{wide}: set image_folder.image_size, or pad_to"
            )
        return resized
