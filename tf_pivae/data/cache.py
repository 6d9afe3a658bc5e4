"""The one on-disk form: `<cache_dir>/<name>-<hash of the specification>/` with plain `.npy` files and `meta.json`.

A data set is written to `<...>.partial` beside its final place and renamed when it is whole and on the disk, so a
folder that bears the final name is complete. A killed preparation is continued from its last checkpoint, and gives the
same bytes as an uninterrupted one. A lock file keeps two processes from preparing the same thing at once.
"""

import contextlib
import contextvars
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np

from tf_pivae.data import arrays, sources, split_writer
from tf_pivae.errors import UserError, printable
from tf_pivae.files import default_cache_dir, place_folder, read_json, write_json
from tf_pivae.values import Within, is_record

FORMAT_VERSION = 1  # part of every hash: raise it when the form on disk or the arithmetic of a source changes
_SPLITS = ("train", "test")
_META = {"num_classes": Annotated[int, Within(0)] | None, "class_names": list, "train": dict, "test": dict}
_META_OF_SPLIT = {"shape": list, "labels": bool}
_NAMED_CLASSES = 10
_NAME_LENGTH = 50  # Characters of up to four bytes, in names of at most 255.
IN_MEMORY_BYTES = 1 << 28  # Larger files of arrays are unpacked once and memory-mapped.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError)  # What reading damaged files raises.
_log = logging.getLogger(__name__)
_reading_only = contextvars.ContextVar("reading_only", default=False)
_declarations_only = contextvars.ContextVar("declarations_only", default=False)


class NotPrepared(UserError):
    """Within `reading_only`: the data set would first have to be prepared.

    Attributes:
      name: the data set's.
      open_source: returns the `ImageSource` that would be read.
      limits: as `ImageDataset.take` takes them.
    """

    def __init__(self, name: str, open_source: Callable[[], sources.ImageSource], limits: arrays.Limits) -> None:
        super().__init__(f"{name} is not prepared yet: python -m tf_pivae.prepare does it, as training would.")
        self.name = name
        self.open_source = open_source
        self.limits = limits


@contextlib.contextmanager
def reading_only(declarations: bool = False) -> Iterator[None]:
    """A context in which a data set that is not prepared yet is `NotPrepared`, and nothing is downloaded or written.

    Args:
      declarations: take what a configuration declares of its images for them, and look at no files: see `declared`.
    """
    tokens = _reading_only.set(True), _declarations_only.set(declarations)
    try:
        yield
    finally:
        _reading_only.reset(tokens[0])
        _declarations_only.reset(tokens[1])


def declared(name: str, image_shape: tuple[int, int, int], class_names: Sequence[str], limits: arrays.Limits) -> None:
    """For a source whose configuration says what its images are; nothing outside of `reading_only(declarations=True)`.

    Args:
      name: the data set's.
      image_shape: (H, W, C) of its images.
      class_names: of its classes, or none.
      limits: as `ImageDataset.take` takes them.

    Raises:
      NotPrepared: within that context, with what is declared; the numbers of images are None.
    """
    if _declarations_only.get():
        unread = sources.SplitSource(lambda start: iter(()))
        facts = sources.ImageSource(image_shape, unread, unread, len(class_names), tuple(class_names))
        raise NotPrepared(name, lambda: facts, limits)


def is_reading_only() -> bool:
    """Whether this is within `reading_only`."""
    return _reading_only.get()


def load(
    name: str,
    specification: dict[str, Any],
    source: sources.ImageSource,
    num_examples: arrays.Limits | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> arrays.ImageDataset:
    """Reads a source into memory where it is small, and prepares it otherwise; as `prepare`.

    Args:
      source: an `ImageSource` that knows its number of images.
      name, specification, num_examples, cache_dir: as for `prepare`.
    """
    count = sum(n or 0 for n in expected(source, arrays.check_num_examples(num_examples)))
    if count * math.prod(source.image_shape) <= IN_MEMORY_BYTES:
        return sources.collect(name, source, num_examples)
    return prepare(name, specification, lambda: source, num_examples, cache_dir)


def expected(source: sources.ImageSource, limits: arrays.Limits) -> tuple[int | None, int | None]:
    """At most how many training and test images a source gives within limits; None where that is unknown."""
    counts = zip((source.train.num_images, source.test.num_images), limits, strict=True)
    train, test = (min((n for n in count if n is not None), default=None) for count in counts)
    return train, test


def file_facts(path: pathlib.Path) -> dict[str, Any]:
    """What tells a file from another one of its name: part of a specification."""
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def prepare(
    name: str,
    specification: dict[str, Any],
    open_source: Callable[[], sources.ImageSource],
    num_examples: arrays.Limits | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> arrays.ImageDataset:
    """Opens the prepared data set, preparing it first where that has not been done.

    Args:
      name: short name, becomes part of the folder's name.
      specification: everything that decides the contents, as plain JSON values.
      open_source: called without arguments, only when there is something to prepare; returns an `ImageSource`.
      num_examples: as in `ImageDataset.take`; the rest is not even prepared.
      cache_dir: default `files.default_cache_dir()`.

    Returns:
      An `ImageDataset` of read-only memory maps.

    Raises:
      UserError: if the cache folder cannot be written, or the disk is or would be full.
      NotPrepared: within `reading_only`.
    """
    limits = arrays.check_num_examples(num_examples)
    folder = _folder(name, {**specification, "num_examples": limits}, cache_dir)
    with _disk_errors(folder.parent):
        if (dataset := _open(name, folder)) is not None:
            return dataset
        if _reading_only.get():
            raise NotPrepared(name, open_source, limits)
        _make(folder.parent)
        with _lock(folder):
            # Another process may have finished it while this one waited for the lock.
            if (dataset := _open(name, folder)) is not None:
                return dataset
            if folder.exists():
                _log.warning("%s is damaged and will be prepared again.", folder)
                shutil.rmtree(folder)
            _write(name, folder, open_source(), limits)
        try:
            return _read(name, folder)
        except _DAMAGE as error:
            raise UserError(f"{folder} was damaged while it was written: run the same command again.") from error


def location(dataset: arrays.ImageDataset) -> pathlib.Path | None:
    """The folder of a prepared data set, or None where it lives in memory."""
    filename = getattr(dataset.train.images, "filename", None)
    return None if filename is None else pathlib.Path(filename).parent


def describe(dataset: arrays.ImageDataset) -> str:
    """A few lines for people: what the data set is, how large, and where.

    Returns:
      A string of four lines.
    """
    height, width, channels = dataset.image_shape
    first_names = dataset.class_names[:_NAMED_CLASSES]
    names = printable(", ".join(first_names)) + ", ..." * (len(first_names) < len(dataset.class_names))
    classes = f"{dataset.num_classes} classes" if dataset.num_classes else "no labels"
    depth = f"{channels} channel{'s' * (channels > 1)}"
    if dataset.num_bins != 256:
        depth += f", {dataset.num_bins} levels"
    num_bytes = dataset.train.images.nbytes + dataset.test.images.nbytes
    return "\n".join(
        [
            f"{dataset.name}: {height}x{width}, {depth}, {num_bytes / 1e6:.1f} MB",
            f"  images:  {len(dataset.train)} training, {len(dataset.test)} test",
            f"  labels:  {classes}{f' ({names})' if dataset.class_names else ''}",
            f"  where:   {location(dataset) or 'in memory, nothing to prepare'}",
        ]
    )


def _folder(name: str, specification: dict[str, Any], cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    text = json.dumps({**specification, "format_version": FORMAT_VERSION}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    safe_name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")[:_NAME_LENGTH]
    return pathlib.Path(cache_dir or default_cache_dir()).expanduser().absolute() / f"{safe_name}-{digest}"


def _open(name: str, folder: pathlib.Path) -> arrays.ImageDataset | None:
    """The `ImageDataset` in `folder`, or None where there is none or its files are not what `meta.json` says."""
    try:
        return _read(name, folder)
    except (UserError, *_DAMAGE):
        return None


def _read(name: str, folder: pathlib.Path) -> arrays.ImageDataset:
    meta = read_json(folder / "meta.json")
    names_fit = is_record(meta, _META) and all(isinstance(name, str) for name in meta["class_names"])
    if not names_fit or not all(is_record(meta[split], _META_OF_SPLIT) for split in _SPLITS):
        raise ValueError(f"{folder / 'meta.json'} describes no data set.")
    splits = []
    for split in _SPLITS:
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
        if list(images.shape) != meta[split]["shape"]:
            raise ValueError(f"{split}_images.npy has the shape {images.shape}.")
        labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False) if meta[split]["labels"] else None
        splits.append(arrays.ImageSplit(images, sources.drop_unlabelled(labels)))
    train, test = splits
    return arrays.labelled(name, train, test, meta["num_classes"], meta["class_names"])


def _write(name: str, folder: pathlib.Path, source: sources.ImageSource, limits: arrays.Limits) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(exist_ok=True)
    progress = split_writer.read_progress(partial)
    _check_disk(name, partial.parent, source, limits, progress)
    try:
        for split, limit in zip(_SPLITS, limits, strict=True):
            split_writer.write_split(name, partial, source, split, limit, progress)
    except UserError:  # A second try would end in the same way: leave nothing that it would continue from.
        shutil.rmtree(partial)
        raise
    meta = {"name": name, "num_classes": source.num_classes, "class_names": list(source.class_names)}
    for split in _SPLITS:
        state = progress[split]
        shape = [state["images"], *source.image_shape]
        meta[split] = {"shape": shape, "labels": state["labels"], "skipped": state["skipped"]}
    write_json(partial / "meta.json", meta)
    (partial / "progress.json").unlink()
    place_folder(partial, folder)


def _check_disk(
    name: str, cache_dir: pathlib.Path, source: sources.ImageSource, limits: arrays.Limits, progress: dict[str, Any]
) -> None:
    """Says how much space the data set takes; raises UserError where the disk has less."""
    prepared = (progress.get(split, {}).get("images", 0) for split in _SPLITS)
    images = sum(max(0, (count or 0) - n) for count, n in zip(expected(source, limits), prepared, strict=True))
    needed = images * (math.prod(source.image_shape) + 8)
    free = shutil.disk_usage(cache_dir).free
    _log.info("%s: preparing %.1f MB in %s (%.1f MB free).", name, needed / 1e6, cache_dir, free / 1e6)
    if needed > free:
        raise UserError(
            f"preparing {name} needs {needed / 1e9:.2f} GB in {cache_dir} but {free / 1e9:.2f} GB are free: "
            "make room, or set TF_PIVAE_CACHE to a folder on a larger disk."
        )


def _make(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_cannot_write(folder, error)) from error


def _cannot_write(path: object, error: OSError) -> str:
    return (
        f"cannot write to {printable(path)} ({error.strerror}): set TF_PIVAE_CACHE or cache_dir to a folder that can "
        "be written."
    )


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    """Holds the folder's lock file; the system drops the lock of a killed process by itself."""
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process that is preparing %s.", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk_errors(cache_dir: pathlib.Path) -> Iterator[None]:
    """Turns a full or unwritable disk into one line; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {cache_dir} is full: make room and start again (it will continue), or set "
                "TF_PIVAE_CACHE to a folder on a larger disk."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise UserError(_cannot_write(error.filename or cache_dir, error)) from error
        raise
