"""What a data set is here: two uint8 arrays (or memory maps), their labels, and names for the classes."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tf_pivae.errors import UserError, printable

_log = logging.getLogger(__name__)
_NAMED = 20

# What a file may claim before it is read. The largest split of the paper's has 3 million images, ImageNet's full
# hierarchy 21,841 classes.
MAX_IMAGES = 1 << 25
MAX_CLASSES = 1 << 16
Limits: TypeAlias = tuple[int | None, int | None]  # Numbers of training and test images; None is all of them.


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """The images of one split, in a fixed order.

    Attributes:
      images: uint8 `[N, H, W, C]`, one to four channels; an array, a read-only memory map, or
        `levels.LookedUpImages`.
      labels: int64 `[N]`, or None.
    """

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray | None = None  # int64 [N]

    def __post_init__(self) -> None:
        images = self.images
        labels = self.labels
        if images.dtype != np.uint8:
            raise UserError(f"images must be uint8 (0 to 255), got {images.dtype}: convert them first.")
        if images.ndim != 4:
            raise UserError(f"images must have the shape [N, H, W, C], got {list(images.shape)}.")
        count, height, width, channels = images.shape
        if count == 0:
            raise UserError("a split has no images: both the training and the test split need at least one.")
        if not height * width:
            raise UserError(f"images must have pixels, got {height}x{width}.")
        if not 1 <= channels <= 4:
            raise UserError(f"images must have 1 to 4 channels, got {channels}.")
        if labels is not None and (labels.dtype != np.int64 or labels.shape != (count,)):
            raise UserError(f"labels must be int64 [{count}], got {labels.dtype} {list(labels.shape)}.")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, count: int | None) -> "ImageSplit":
        """The first `count` images (all of them where `count` is None or larger), as a view."""
        if count is None:
            return self
        return ImageSplit(self.images[:count], None if self.labels is None else self.labels[:count])


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A training and a test split of one shape.

    Attributes:
      name: for people and folders.
      train: an `ImageSplit`.
      test: an `ImageSplit`, held out.
      num_classes: labels are `0 .. num_classes - 1`; 0 where the training images have no labels.
      class_names: `num_classes` names, or empty.
      num_bins: pixels are `0 .. num_bins - 1`.
    """

    name: str
    train: ImageSplit
    test: ImageSplit
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    num_bins: int = 256

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise UserError(
                f"{self.name}: training images are {list(self.train.images.shape[1:])} but test images are "
                f"{list(self.test.images.shape[1:])}: they must have one shape."
            )
        if self.num_classes and self.train.labels is None:
            raise UserError(f"{self.name}: num_classes is {self.num_classes} but the training images have no labels.")
        if not 0 <= self.num_classes <= MAX_CLASSES:
            raise UserError(f"{self.name}: labels make {self.num_classes} classes; 0 to {MAX_CLASSES} are allowed.")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise UserError(f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes.")
        for split in (self.train, self.test):
            if self.num_classes and split.labels is not None:
                low = split.labels.min()
                high = split.labels.max()
                if low < 0 or high >= self.num_classes:
                    raise UserError(
                        f"{self.name}: labels run from {low} to {high}, but must lie in 0 to {self.num_classes - 1}."
                    )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return self.train.images.shape[1:]

    def take(self, num_examples: Limits | None) -> "ImageDataset":
        """The data set cut to its first images.

        Args:
          num_examples: None, or a pair `(train, test)`, each a number or None for all.
        """
        train, test = check_num_examples(num_examples)
        if train is None and test is None:
            return self
        return dataclasses.replace(self, train=self.train.take(train), test=self.test.take(test))


def is_count(value: object) -> bool:
    """Whether a value is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_num_examples(num_examples: object) -> Limits:
    """Returns the pair `(train, test)` of limits, each a positive number or None; raises UserError otherwise."""
    pair = (None, None) if num_examples is None else num_examples
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise UserError(f"num_examples must be a pair (train, test), such as (1000, 200), got {num_examples!r}.")
    for limit in pair:
        if limit is not None and not is_count(limit):
            raise UserError(f"num_examples must hold positive numbers or None, got {num_examples!r}.")
    return tuple(pair)


def labelled(
    name: str, train: ImageSplit, test: ImageSplit, num_classes: int | None = None, class_names: Sequence[str] = ()
) -> ImageDataset:
    """Builds an `ImageDataset`, counting the classes in the labels where their number is not given.

    Args:
      name: for people and folders.
      train, test: `ImageSplit`s.
      num_classes: int, or None.
      class_names: their names, or empty.
    """
    if train.labels is None:
        return ImageDataset(name, train, test)
    if num_classes is None:
        num_classes = count_classes((train.labels, test.labels), class_names)
    return ImageDataset(name, train, test, num_classes, tuple(class_names))


def count_classes(labels: Sequence[np.ndarray | None], class_names: Sequence[str] = ()) -> int:
    """The number of classes: that of their names, or one more than the largest label; 0 without training labels.

    Classes of another split that no training image is of are named in a warning: nothing is learnt about them.

    Args:
      labels: int64 `[N]` or None for each split, the training split first.
      class_names: their names, or empty.
    """
    if labels[0] is None:
        return 0
    for part in labels[1:]:
        untrained = [] if part is None else np.setdiff1d(part, labels[0]).tolist()
        if untrained:
            names = [printable(class_names[i]) if i < len(class_names) else str(i) for i in untrained[:_NAMED]]
            more = ", ..." * (len(untrained) > _NAMED)
            _log.warning("test images are of classes that no training image is of: %s%s.", ", ".join(names), more)
    if class_names:
        return len(class_names)
    count = 1 + max(int(part.max()) for part in labels if part is not None)
    unseen = np.setdiff1d(np.arange(min(count, 1 << 20)), np.concatenate([p for p in labels if p is not None]))
    if len(unseen):
        some = ", ".join(map(str, unseen[:_NAMED])) + ", ..." * (len(unseen) > _NAMED)
        _log.warning("no image has the label %s, of %d classes: labels count from 0.", some, count)
    return count
