"""How a file's pixels become an image of a model: as its run's configuration has it done with the training images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tf_pivae.configuration import Snapshot
from tf_pivae.data.bundled import PREPROCESS
from tf_pivae.data.image_files import UnusableImage
from tf_pivae.data.image_ops import Preprocess, sides, to_channels, to_uint8
from tf_pivae.errors import UserError

_WITH_PREPROCESS = ("idx_images", "npz_images", "tfds_images")  # Their settings are those of a `Preprocess`.


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Makes images of one shape and number of levels.

    An image that has the model's height and width already is taken as it is, such as a sample of the model.

    Attributes:
      image_shape: (H, W, C) of the model.
      num_bins: of the model.
      preprocess: what is done with an image of another size; None: it is refused.
      smallest: (H, W): an image with a shorter side is refused.
    """

    image_shape: tuple[int, ...]
    num_bins: int
    preprocess: Preprocess | None = None
    smallest: tuple[int, int] = (1, 1)

    def __call__(self, pixels: np.ndarray, num_bins: int = 256) -> np.ndarray:
        """Makes an image.

        Args:
          pixels: uint8 or uint16 [H', W', 1 to 4].
          num_bins: levels of the pixels: 256, or already the model's.

        Returns:
          uint8 [H, W, C], levels 0 ... num_bins - 1 of the model.

        Raises:
          UnusableImage: it cannot be made one; says why.
        """
        height, width = pixels.shape[:2]
        size = "x".join(map(str, self.image_shape[:2]))
        if (height, width) != self.image_shape[:2]:
            if self.preprocess is None:
                raise UnusableImage(f"{height}x{width}, where the model takes {size}")
            if height < self.smallest[0] or width < self.smallest[1]:
                raise UnusableImage(f"{height}x{width} is smaller than {size}")
        if num_bins not in (256, self.num_bins):
            raise UnusableImage(f"{num_bins} levels, where the model takes {self.num_bins}")
        try:
            resized = pixels if (height, width) == self.image_shape[:2] else self.preprocess(pixels)
            image = to_channels(to_uint8(resized), self.image_shape[2])
        except UserError as error:
            raise UnusableImage(str(error).rstrip(".")) from error
        if image.shape != self.image_shape:
            raise UnusableImage(f"{height}x{width} becomes {image.shape[0]}x{image.shape[1]}, not {size}")
        if num_bins == 256 and self.num_bins < 256:
            return (image.astype(np.int64) * self.num_bins // 256).astype(np.uint8)
        if image.max() >= self.num_bins:
            raise UnusableImage(f"pixels beyond {self.num_bins - 1}")
        return image


def preparation(image_shape: tuple[int, ...], num_bins: int, configuration: Snapshot) -> Preparation:
    """That of a run's configuration; for data of another kind than the program's own, images of the model's size alone.

    Args:
      image_shape, num_bins: of the model.
      configuration: the run's.
    """
    preprocess, smallest = _of_dataset(configuration, "train.dataset")
    return Preparation(tuple(image_shape), num_bins, preprocess, smallest)


def _of_dataset(configuration: Snapshot, binding: str) -> tuple[Preprocess | None, tuple[int, int]]:
    name = configuration.function_name(binding)

    def setting(key: str) -> Any:
        return configuration.value(f"{name}.{key}")

    if name in _WITH_PREPROCESS:
        return Preprocess(*(setting(field.name) for field in dataclasses.fields(Preprocess))), (1, 1)
    if name == "bundled":
        return PREPROCESS[setting("image_size")], (1, 1)
    if name == "reduced_levels":
        return _of_dataset(configuration, "reduced_levels.dataset")
    if name == "image_folder":
        crop = setting("crop")
        size = setting("image_size")
        if crop == "central":
            return Preprocess(crop=crop, image_size=size), sides(size)
        if crop in (None, "none"):
            return Preprocess(pad_to=setting("pad_to"), image_size=size), (1, 1)
    return None, (1, 1)


def source_of(path: str | Path) -> str:
    """ "folder" or "npz": what a path of images is.

    Raises:
      UserError: there is none.
    """
    if Path(path).is_dir():
        return "folder"
    if Path(path).suffix.lower() == ".npz":
        return "npz"
    raise UserError(f"{path} is neither a folder of images nor an .npz file.")
