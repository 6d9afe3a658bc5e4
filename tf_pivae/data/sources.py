"""What a source of images promises to whoever stores it: chunks of finished images, readable from any record on."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tf_pivae.data import arrays


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Finished images made of the next `records` records of a source (files, examples, rows).

    Attributes:
      records: how many records were read to make it; a record may give no image (skipped), one, or many (tiles).
      images: uint8 `[k, H, W, C]`, k may be 0.
      labels: int64 `[k]`, or None.
      skipped: one "name (reason)" for each record that could not be used.
    """

    records: int
    images: np.ndarray  # uint8 [k, H, W, C]
    labels: np.ndarray | None = None  # int64 [k]
    skipped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitSource:
    """One split of a source.

    Attributes:
      read: `read(start)` yields the `Chunk`s from record number `start` on, the same ones every time it is called.
      num_records: how many records there are, or None where that is unknown.
      num_images: at most how many images they give, or None where that is unknown.
    """

    read: Callable[[int], Iterator[Chunk]]
    num_records: int | None = None
    num_images: int | None = None


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Both splits of a source, opened but not yet read.

    Attributes:
      image_shape: `(H, W, C)` of every image that will come.
      train, test: `SplitSource`s.
      num_classes: None to count them in the labels.
      class_names: `num_classes` names, or empty.
    """

    image_shape: tuple[int, int, int]
    train: SplitSource
    test: SplitSource
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()


def collect(name: str, source: ImageSource, num_examples: arrays.Limits | None = None) -> arrays.ImageDataset:
    """Reads a whole (small) source into memory.

    Args:
      name: the data set's name.
      num_examples: as in `ImageDataset.take`.
    """
    splits: list[arrays.ImageSplit] = []
    for split, limit in zip((source.train, source.test), arrays.check_num_examples(num_examples), strict=True):
        images = [np.zeros((0, *source.image_shape), np.uint8)]
        labels = []
        count = 0
        for chunk in split.read(0):
            images.append(chunk.images)
            labels += [] if chunk.labels is None else [chunk.labels]
            count += len(chunk.images)
            if limit is not None and count >= limit:
                break
        all_labels = drop_unlabelled(np.concatenate(labels)) if labels else None
        splits.append(arrays.ImageSplit(np.concatenate(images), all_labels).take(limit))
    train, test = splits
    return arrays.labelled(name, train, test, source.num_classes, source.class_names)


def drop_unlabelled(labels: np.ndarray | None) -> np.ndarray | None:
    """None instead of labels that are all -1, which is how some collections mark images without a label."""
    return None if labels is None or (labels == -1).all() else labels
