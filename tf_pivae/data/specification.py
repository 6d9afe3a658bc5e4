"""Shape, classes and size of a data set before anything of it is downloaded or prepared."""

from collections.abc import Callable
from typing import NamedTuple

from tf_pivae.data import cache
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.errors import UserError, first_line, missing_setting, sentence


class Specification(NamedTuple):
    """What a model has to know of its data, and how many images there are."""

    name: str
    image_shape: tuple[int, int, int]  # (H, W, C)
    num_classes: int  # 0 without labels
    num_train: int | None  # At most, where they are not prepared yet; None where only a download tells.
    num_test: int | None


def specification(source: Callable[[], ImageDataset]) -> Specification:
    """The `Specification` of a source of images, such as `tfds_images`, as gin configures it.

    Needs no network and prepares nothing: it uses what the configuration states (`idx_images.raw_shape` and
    `class_names`, `image_folder.channels`), opens what is prepared already or small, and else reads TFDS' own
    description of the data set, or the headers (and the labels) of local files.

    Args:
      source: a configurable of `tf_pivae.data`, the value of `train.dataset`.

    Raises:
      UserError: a missing file, feature or argument, or something that is not a source of images.
    """
    with cache.reading_only(declarations=True):
        try:
            data = source()
        except cache.NotPrepared as wanted:
            opened = wanted.open_source()
            counts = cache.expected(opened, wanted.limits)
            num_classes = opened.num_classes if opened.num_classes is not None else len(opened.class_names)
            return Specification(wanted.name, opened.image_shape, num_classes, *counts)
        except TypeError as error:
            raise UserError(
                missing_setting(error) or f"{source!r} is not a source of images: {sentence(first_line(error))}"
            ) from error
    if not isinstance(data, ImageDataset):
        raise UserError(f"{source!r} is not a source of images: it returns {type(data).__name__}, not an ImageDataset.")
    return Specification(data.name, data.image_shape, data.num_classes, len(data.train), len(data.test))
