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
import os
import pathlib
import shutil

import numpy as np

from tf_pivae.data import arrays, sources, split_writer
from tf_pivae.errors import UserError

FORMAT_VERSION = 1  # part of every hash: raise it when the form on disk or the arithmetic of a source changes
_SPLITS = ("train", "test")
_NAMED_CLASSES = 10
_log = logging.getLogger(__name__)
_reading_only = contextvars.ContextVar("reading_only", default=False)


class NotPrepared(UserError):
    """Within `reading_only`: the data set would first have to be prepared."""


@contextlib.contextmanager
def reading_only():
    """A context in which a data set that is not prepared yet is `NotPrepared`, and nothing is downloaded or written."""
    token = _reading_only.set(True)
    try:
        yield
    finally:
        _reading_only.reset(token)


def default_cache_dir():
    """`$TF_PIVAE_CACHE`, or `~/.cache/tf_pivae`."""
    return os.environ.get("TF_PIVAE_CACHE") or os.path.expanduser("~/.cache/tf_pivae")


def prepare(name, specification, open_source, num_examples=None, cache_dir=None):
    """Opens the prepared data set, preparing it first where that has not been done.

    Args:
      name: short name, becomes part of the folder's name.
      specification: everything that decides the contents, as plain JSON values.
      open_source: called without arguments, only when there is something to prepare; returns an `ImageSource`.
      num_examples: as in `ImageDataset.take`; the rest is not even prepared.
      cache_dir: default `default_cache_dir()`.

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
            raise NotPrepared(f"{name} is not prepared yet: python -m tf_pivae.prepare does it, as training would.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            # Another process may have finished it while this one waited for the lock.
            if (dataset := _open(name, folder)) is not None:
                return dataset
            if folder.exists():
                _log.warning("%s is damaged and will be prepared again", folder)
                shutil.rmtree(folder)
            _write(name, folder, open_source(), limits)
        return _open(name, folder)


def location(dataset):
    """The folder of a prepared data set, or None where it lives in memory."""
    filename = getattr(dataset.train.images, "filename", None)
    return None if filename is None else pathlib.Path(filename).parent


def describe(dataset):
    """A few lines for people: what the data set is, how large, and where.

    Args:
      dataset: an `ImageDataset`.

    Returns:
      A string of four lines.
    """
    height, width, channels = dataset.image_shape
    names = ", ".join(dataset.class_names[:_NAMED_CLASSES]) + (", ..." if dataset.num_classes > _NAMED_CLASSES else "")
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


def _folder(name, specification, cache_dir):
    text = json.dumps({**specification, "format_version": FORMAT_VERSION}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    safe_name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")
    return pathlib.Path(cache_dir or default_cache_dir()).expanduser().absolute() / f"{safe_name}-{digest}"


def _open(name, folder):
    """The `ImageDataset` in `folder`, or None where there is none or its files are not what `meta.json` says."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        splits = []
        for split in _SPLITS:
            images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            if list(images.shape) != meta[split]["shape"]:
                return None
            labels = folder / f"{split}_labels.npy"
            labels = np.load(labels, allow_pickle=False) if meta[split]["labels"] else None
            splits.append(arrays.ImageSplit(images, sources.drop_unlabelled(labels)))
    except (OSError, ValueError, KeyError, EOFError, TypeError):
        return None
    return arrays.labelled(name, *splits, meta["num_classes"], meta["class_names"])


def _write(name, folder, source, limits):
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(exist_ok=True)
    progress = split_writer.read_progress(partial)
    _check_disk(name, partial.parent, source, limits, progress)
    for split, limit in zip(_SPLITS, limits, strict=True):
        split_writer.write_split(name, partial, source, split, limit, progress)
    meta = {"name": name, "num_classes": source.num_classes, "class_names": list(source.class_names)}
    for split in _SPLITS:
        state = progress[split]
        shape = [state["images"], *source.image_shape]
        meta[split] = {"shape": shape, "labels": state["labels"], "skipped": state["skipped"]}
    split_writer.write_json(partial / "meta.json", meta)
    (partial / "progress.json").unlink()
    split_writer.sync_folder(partial)
    os.replace(partial, folder)
    split_writer.sync_folder(folder.parent)


def _check_disk(name, cache_dir, source, limits, progress):
    """Says how much space the data set takes; raises UserError where the disk has less."""
    images = 0
    for split, limit in zip(_SPLITS, limits, strict=True):
        count = getattr(source, split).num_images
        counts = [n for n in (count, limit) if n is not None]
        images += max(0, min(counts, default=0) - progress.get(split, {}).get("images", 0))
    needed = images * (int(np.prod(source.image_shape)) + 8)
    free = shutil.disk_usage(cache_dir).free
    _log.info("%s: preparing %.1f MB in %s (%.1f MB free)", name, needed / 1e6, cache_dir, free / 1e6)
    if needed > free:
        raise UserError(
            f"preparing {name} needs {needed / 1e9:.2f} GB in {cache_dir} but {free / 1e9:.2f} GB are free: "
            "make room, or set TF_PIVAE_CACHE to a folder on a larger disk"
        )


@contextlib.contextmanager
def _lock(folder):
    """Holds the folder's lock file; the system drops the lock of a killed process by itself."""
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process that is preparing %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk_errors(cache_dir):
    """Turns a full or unwritable disk into one line; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {cache_dir} is full: make room and start again (it will continue), or set "
                "TF_PIVAE_CACHE to a folder on a larger disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"cannot write to {error.filename or cache_dir} ({error.strerror}): set TF_PIVAE_CACHE or "
                "cache_dir to a folder that can be written"
            ) from error
        raise
