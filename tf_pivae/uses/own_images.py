"""Images of the user's own, one at a time: the files below a folder, or the rows of an `.npz` file."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tf_pivae.data import image_files, npz
from tf_pivae.data.array_file import absolute
from tf_pivae.data.image_files import UnusableImage
from tf_pivae.errors import UserError, printable
from tf_pivae.uses.preparation import Preparation, source_of

_NO_CLASSES = "this model is not class-conditional"


@dataclasses.dataclass(frozen=True)
class OwnImage:
    """What may become an image.

    Attributes:
      name: of the file, from the folder on, or "FILE.npz[12]"; printable.
      load: reads and prepares it: uint8 [H, W, C]; raises UnusableImage.
      label: its class, where the source says one.
    """

    name: str
    load: Callable[[], np.ndarray]
    label: int | None = None


def entries(path: str | Path, preparation: Preparation) -> Iterator[OwnImage]:
    """All of a source's, in a fixed order; memory holds one of them, or a slab of rows.

    Args:
      path: a folder, read recursively, or an `.npz` file with `images` (and `labels`), as `sample` writes it.
      preparation: of the model.

    Raises:
      UserError: no such source, or a file that is damaged or holds no images.
    """
    return _rows(absolute(path), preparation) if source_of(path) == "npz" else _files(path, preparation)


def count(path: str | Path) -> int:
    """How many entries a source has.

    Raises:
      UserError: none, or no such source.
    """
    if source_of(path) == "npz":
        return npz.stored_images(path)[0].images.shape[0]
    number = sum(1 for _ in image_files.walk(path))
    if not number:
        raise UserError(f"{path} holds no files.")
    return number


def digest(path: str | Path) -> str:
    """Of a source's names, sizes and times, hexadecimal: what is made of its images goes on with these."""
    whole = hashlib.sha256()
    if source_of(path) == "npz":
        about = os.stat(path)
        whole.update(f"{os.path.abspath(path)!r} {about.st_size} {about.st_mtime_ns}".encode())
    else:
        for entry in image_files.walk(path):
            whole.update(repr(entry).encode())
    return whole.hexdigest()[:16]


def check_apart(output: str | Path, *sources: str | Path) -> None:
    """Raises UserError where an output would lie in a folder of images: the same command would take it for one."""
    for source in sources:
        if Path(output).resolve().is_relative_to(Path(source).resolve()):
            raise UserError(f"{output} would lie among the images of {source}: choose another folder for the output.")


def check_classes(path: str | Path, num_classes: int, label: int | None) -> None:
    """Raises UserError where a class-conditional model would be given images without a class, or another one a class.

    Args:
      path: of a source.
      num_classes: of a class-conditional model, or 0.
      label: the class of the images that have none of their own.
    """
    if label is not None and not 0 <= label < num_classes:
        raise UserError(f"--label={label}: {f'classes are 0 to {num_classes - 1}' if num_classes else _NO_CLASSES}.")
    labels = npz.stored_images(path)[0].labels if num_classes and source_of(path) == "npz" else None
    if labels is not None and len(labels) and labels.max() >= num_classes:
        row = int(np.argmax(labels >= num_classes))
        name = f"{printable(Path(path).name)}[{row}]"
        raise UserError(f"{name} has the class {labels[row]}: the model's are 0 to {num_classes - 1}.")
    if num_classes and label is None and labels is None:
        raise UserError(f"{path} has no labels, but this model needs them: give --label, or an .npz file with labels.")


def _files(root, preparation):
    channels = preparation.image_shape[2]
    for entry in image_files.walk(root):
        if isinstance(entry, image_files.ImageFile):
            yield OwnImage(
                printable(entry.relative), lambda path=entry.path: preparation(image_files.decode(path, channels))
            )
        else:
            yield OwnImage(printable(entry.relative), _refusal(entry.reason))


def _refusal(reason):
    def load() -> np.ndarray:
        raise UnusableImage(reason)

    return load


def _rows(path, preparation):
    part, num_bins = npz.stored_images(path)
    row = itertools.count()
    for slab in part.slabs():
        for pixels in slab:
            i = next(row)
            label = None if part.labels is None else int(part.labels[i])
            yield OwnImage(f"{printable(path.name)}[{i}]", lambda row=pixels: preparation(row, num_bins), label)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Entries, and those of them that are images.

    Attributes:
      names: of all.
      problems: for each file, why it is not an image, or "".
      images: uint8 [K, H, W, C] of those that are.
      labels: int64 [K], or None for a model without classes.
    """

    names: list[str]
    problems: list[str]
    images: np.ndarray
    labels: np.ndarray | None


def batches(
    files: Iterator[OwnImage], size: int, image_shape: Sequence[int], num_classes: int = 0, label: int | None = None
) -> Iterator[Batch]:
    """Reads entries, so many at a time.

    Args:
      files: the entries.
      size: of a batch.
      image_shape: (H, W, C).
      num_classes: of a class-conditional model, or 0.
      label: the class of the images that have none of their own.

    Raises:
      UserError: a class-conditional model, and a class that it does not know.
    """
    while some := list(itertools.islice(files, size)):
        images = [np.zeros((0, *image_shape), np.uint8)]
        labels = []
        problems = []
        for entry in some:
            try:
                images.append(entry.load()[None])
                problems.append("")
            except UnusableImage as error:
                problems.append(printable(error))
                continue
            labels.append(label if entry.label is None else entry.label)
            if num_classes and not 0 <= labels[-1] < num_classes:
                raise UserError(f"{entry.name} has the class {labels[-1]}: the model's are 0 to {num_classes - 1}.")
        batch_labels = np.asarray(labels, np.int64) if num_classes else None
        yield Batch([entry.name for entry in some], problems, np.concatenate(images), batch_labels)
