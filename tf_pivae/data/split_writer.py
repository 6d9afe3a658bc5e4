"""Writes the `.npy` files of one split chunk by chunk, with checkpoints that a killed preparation continues from."""

import contextlib
import logging
import os
import pathlib
import time
from collections.abc import Iterator
from typing import IO, Annotated, Any

import numpy as np

from tf_pivae.data.sources import ImageSource
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, write_json
from tf_pivae.system.progress import progress_bar
from tf_pivae.values import Within, is_record

CHECKPOINT_SECONDS = 5.0
_HEADER_BYTES = 128
_NAMED_SKIPS = 10
_Number = Annotated[int, Within(0)]
_STATE = {"records": _Number, "images": _Number, "skipped": _Number, "labels": bool, "names": list}
_log = logging.getLogger(__name__)


def write_split(
    name: str, partial: pathlib.Path, source: ImageSource, split: str, limit: int | None, progress: dict[str, Any]
) -> None:
    """Appends the chunks of one split to its files, from the last checkpoint on.

    Args:
      name: the data set's name, for messages.
      partial: the folder (a `pathlib.Path`) that is being filled.
      source: an `ImageSource`.
      split: "train" or "test".
      limit: stop at this many images, or None.
      progress: what `read_progress` returned; brought up to date.

    Raises:
      UserError: if the images are of several shapes, or there are none.
    """
    shape = source.image_shape
    part = getattr(source, split)
    state = progress.setdefault(split, {"records": 0, "images": 0, "labels": False, "skipped": 0, "names": []})
    if state.get("done"):
        return
    if state["records"]:
        _log.info("%s: continuing the %s split at record %d.", name, split, state["records"])
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_open_at(partial / f"{split}_images.npy", state["images"] * int(np.prod(shape)))),
            stack.enter_context(_open_at(partial / f"{split}_labels.npy", state["labels"] * state["images"] * 8)),
        ]
        bar = stack.enter_context(
            progress_bar(total=part.num_records, initial=state["records"], desc=f"{name} {split}")
        )
        last = time.monotonic()
        for chunk in part.read(state["records"]):
            images = chunk.images if limit is None else chunk.images[: limit - state["images"]]
            if images.dtype != np.uint8 or images.shape[1:] != tuple(shape):
                raise UserError(
                    f"{name}: images of {images.dtype} {list(images.shape[1:])} in a data set of uint8 "
                    f"{list(shape)}: choose a crop, image_size or channels that makes them alike."
                )
            files[0].write(np.ascontiguousarray(images).data)
            if chunk.labels is not None and len(images):
                state["labels"] = True
                files[1].write(np.asarray(chunk.labels[: len(images)], "<i8").tobytes())
            state["records"] += chunk.records
            state["images"] += len(images)
            state["skipped"] += len(chunk.skipped)
            state["names"] = (state["names"] + list(chunk.skipped))[:_NAMED_SKIPS]
            bar.update(chunk.records)
            if limit is not None and state["images"] >= limit:
                break
            if time.monotonic() - last > CHECKPOINT_SECONDS:
                _checkpoint(partial, files, progress)
                last = time.monotonic()
        for file, descr, full_shape in zip(files, ("|u1", "<i8"), (shape, ()), strict=True):
            file.seek(0)
            file.write(_npy_header(descr, (state["images"], *full_shape)))
        state["done"] = True
        _checkpoint(partial, files, progress)
    if not state["labels"]:
        (partial / f"{split}_labels.npy").unlink()
    if state["skipped"]:
        _log.warning(
            "%s: skipped %d of %d records of the %s split: %s%s",
            name,
            state["skipped"],
            state["records"],
            split,
            ", ".join(state["names"]),
            ", ..." if state["skipped"] > _NAMED_SKIPS else "",
        )
    if not state["images"]:
        reasons = f"; skipped {state['skipped']}: {', '.join(state['names'])}" if state["skipped"] else ""
        raise UserError(f"{name}: no usable image in the {split} split{reasons}.")


def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """A version 1.0 `.npy` header padded to a fixed length, so that it can be rewritten when the count is known."""
    text = str({"descr": descr, "fortran_order": False, "shape": tuple(int(n) for n in shape)})
    prefix = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


@contextlib.contextmanager
def _open_at(path: pathlib.Path, num_bytes: int) -> Iterator[IO[bytes]]:
    """Opens a file for appending behind its header and the first `num_bytes` of data, dropping what follows."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        if num_bytes and os.fstat(file.fileno()).st_size < _HEADER_BYTES + num_bytes:  # It would end in black images.
            raise UserError(f"{path} is damaged: run the same command again, which prepares the data anew.")
        file.truncate(_HEADER_BYTES + num_bytes)
        file.seek(_HEADER_BYTES + num_bytes)
        yield file


def _checkpoint(partial: pathlib.Path, files: list[IO[bytes]], progress: dict[str, Any]) -> None:
    """Data first, then the note that it is there: the note never promises more than the disk holds."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    write_json(partial / "progress.json", progress)


def read_progress(partial: pathlib.Path) -> dict[str, Any]:
    """The last checkpoint's note, empty where there is none, or a damaged one."""
    try:
        progress = read_json(partial / "progress.json")
    except (UserError, ValueError):
        return {}
    whole = isinstance(progress, dict) and all(is_record(state, _STATE) for state in progress.values())
    return progress if whole else {}
