"""Images in NumPy's `.npz` files. Pickled objects are never loaded."""

import dataclasses
import os
import pathlib
import zipfile
import zlib

import gin
import numpy as np

from tf_pivae.data import arrays, cache, image_ops, sources
from tf_pivae.errors import UserError

IN_MEMORY_BYTES = 1 << 30  # larger data sets are unpacked once into the cache and memory-mapped
_ROWS = 1024


@gin.configurable
def npz_images(
    path,
    test_fraction=0.1,
    crop=None,
    pad_to=None,
    image_size=None,
    channels=None,
    num_examples=None,
    seed=0,
    cache_dir=None,
    name=None,
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
      cache_dir: where a data set of more than 1 GiB is unpacked; default as in `cache.prepare`.
      name: the data set's name; default the file's name.

    Returns:
      An `ImageDataset`.

    Raises:
      UserError: if the file is missing, damaged, lacks a key or holds something else.
    """
    path = pathlib.Path(os.path.expanduser(path)).absolute()
    name = name or path.stem
    preprocess = image_ops.Preprocess(crop, pad_to, image_size, channels)
    file = _NpzFile(path)
    keys = [key for key in ("train_images", "test_images") if key in file]
    if len(keys) != 2 and "images" not in file:
        raise UserError(
            f"{path} has the arrays {', '.join(file.keys) or 'none'}; it needs train_images and test_images, or images"
        )
    names = tuple(str(n) for n in file.read("class_names")) if "class_names" in file else ()
    if len(keys) == 2:
        splits = [_split(file, f"{s}_images", f"{s}_labels", preprocess, None) for s in ("train", "test")]
    else:
        held_out = _held_out(file.header("images")[0][0], test_fraction, seed)
        splits = [_split(file, "images", "labels", preprocess, keep) for keep in (~held_out, held_out)]
    shape, _ = file.header(keys[0] if len(keys) == 2 else "images")
    source = sources.ImageSource(preprocess.output_shape(*_as_rank_4(shape)[1:]), *splits, class_names=names)
    total = sum(split.num_images for split in splits) * int(np.prod(source.image_shape))
    if total <= IN_MEMORY_BYTES:
        return _with_levels(file, sources.collect(name, source, num_examples))
    status = path.stat()
    specification = {
        "source": "npz",
        "path": str(path),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "preprocess": repr(preprocess),
        "test_fraction": test_fraction,
        "seed": seed,
    }
    return _with_levels(file, cache.prepare(name, specification, lambda: source, num_examples, cache_dir))


def save_npz(path, dataset):
    """Writes an `ImageDataset` as a compressed `.npz` file that `npz_images` reads back, atomically.

    Args:
      path: the file to write; an existing one is replaced.
      dataset: the `ImageDataset`.
    """
    members = {"train_images": dataset.train.images, "test_images": dataset.test.images}
    if dataset.num_bins != 256:
        members["num_bins"] = np.array(dataset.num_bins)
    for key, labels in (("train_labels", dataset.train.labels), ("test_labels", dataset.test.labels)):
        if labels is not None:
            members[key] = labels
    if dataset.class_names:
        members["class_names"] = np.array(dataset.class_names)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **members)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def _with_levels(file, dataset):
    num_bins = int(file.read("num_bins")) if "num_bins" in file else 256
    if num_bins != 256 and max(split.images.max() for split in (dataset.train, dataset.test)) >= num_bins:
        raise UserError(f"{file.path} says num_bins = {num_bins}, but its pixels go beyond {num_bins - 1}")
    return dataclasses.replace(dataset, num_bins=num_bins)


def _split(file, images_key, labels_key, preprocess, keep):
    """The `SplitSource` of the rows that the mask `keep` (None: all) selects."""
    shape = file.header(images_key)[0]
    labels = None
    if labels_key in file:
        labels = file.read(labels_key)
        if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
            raise UserError(
                f"{labels_key} of {file.path} is {labels.dtype} {list(labels.shape)}; it must be integers [{shape[0]}]"
            )
        labels = labels.astype(np.int64)

    def read(start):
        row = 0
        for slab in file.slabs(images_key):
            rows = slice(row, row + len(slab))
            row += len(slab)
            if row <= start:
                continue
            chosen = slice(None) if keep is None else keep[rows]
            slab = slab[chosen]
            images = preprocess(slab) if len(slab) else np.zeros((0, *source_shape), np.uint8)
            yield sources.Chunk(rows.stop - rows.start, images, None if labels is None else labels[rows][chosen])

    source_shape = preprocess.output_shape(*_as_rank_4(shape)[1:])
    return sources.SplitSource(read, shape[0], shape[0] if keep is None else int(keep.sum()))


def _held_out(count, fraction, seed):
    """A mask of a random `fraction` of the rows, at least one and never all."""
    if not 0 < fraction < 1:
        raise UserError(f"test_fraction must lie between 0 and 1, got {fraction}")
    if count < 2:
        raise UserError(f"images holds {count} images: at least two are needed, one of them for the test split")
    mask = np.zeros(count, bool)
    mask[np.random.default_rng(seed).permutation(count)[: min(count - 1, max(1, round(count * fraction)))]] = True
    return mask


def _as_rank_4(shape):
    return (*shape, 1) if len(shape) == 3 else shape


class _NpzFile:
    """Reads headers, small arrays and slabs of large ones out of an `.npz` file, refusing pickled objects."""

    def __init__(self, path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.keys = sorted(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot read {path} as an .npz file: {error}") from error

    def __contains__(self, key):
        return key in self.keys

    def header(self, key):
        """Shape and dtype of images in the array `key`; raises UserError unless they are images."""
        with self._open(key) as (_, shape, fortran_order, dtype):
            if len(shape) not in (3, 4) or dtype not in (np.uint8, np.uint16) or fortran_order:
                raise UserError(
                    f"{key} of {self.path} is {dtype} {list(shape)}{' in Fortran order' * fortran_order}; it "
                    "must be uint8 [N, H, W, C]"
                )
            return shape, dtype

    def read(self, key):
        """The whole array `key`."""
        with self._open(key) as (stream, shape, fortran_order, dtype):
            data = np.frombuffer(_exactly(stream, int(np.prod(shape)) * dtype.itemsize), dtype)
            return data.reshape(shape, order="F" if fortran_order else "C")

    def slabs(self, key):
        """Yields the array `key`, `[k, H, W, C]` at a time."""
        with self._open(key) as (stream, shape, _, dtype):
            row_shape = _as_rank_4(shape)[1:]
            row_bytes = int(np.prod(row_shape)) * dtype.itemsize
            for start in range(0, shape[0], _ROWS):
                rows = min(_ROWS, shape[0] - start)
                yield np.frombuffer(_exactly(stream, rows * row_bytes), dtype).reshape(rows, *row_shape)

    def _open(self, key):
        return _Member(self.path, key)


class _Member:
    """Context manager: an open array of the archive as `(stream behind the header, shape, fortran_order, dtype)`."""

    def __init__(self, path, key):
        self._path, self._key = path, key

    def __enter__(self):
        try:
            self._archive = zipfile.ZipFile(self._path)
            self._stream = self._archive.open(f"{self._key}.npy")
            version = np.lib.format.read_magic(self._stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(self._stream)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"cannot read {self._key} of {self._path}: {error}") from error
        if dtype.hasobject:
            raise UserError(
                f"{self._key} of {self._path} holds pickled Python objects, which are not loaded: save uint8 arrays"
            )
        return self._stream, shape, fortran_order, dtype

    def __exit__(self, kind, error, traceback):
        self._stream.close()
        self._archive.close()
        if isinstance(error, (EOFError, OSError, zipfile.BadZipFile, zlib.error, MemoryError)):
            raise UserError(f"{self._key} of {self._path} is damaged: {error}") from error


def _exactly(stream, count):
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"it ends {count - len(data)} bytes early")
    return data
