"""Pad, crop, resize and channel conversion of uint8 images: exact integer arithmetic, no library's rounding in between.

Every function takes `[..., H, W, C]` and works on one image or a batch alike.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tf_pivae.data.arrays import is_count
from tf_pivae.errors import UserError

# ITU-R BT.601 luma in thousandths, the same weights PIL's convert("L") uses.
_LUMA_WEIGHTS = np.array([299, 587, 114], np.int64)
# Sums of products stay exact in a float of this many mantissa bits.
_FLOAT32_EXACT = 2**24
# Wider types hold this many values at a time, which bounds the memory that a large photograph takes.
_STRIP_VALUES = 2**22
_MAX_SIZE = 8000  # Pixels; squared, the 64 megapixels that a file may have.

Size: TypeAlias = int | tuple[int, int]  # The side of a square, or (H, W), in pixels.


def sides(size: Size) -> tuple[int, int]:
    """(H, W) of a `Size`."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def check_size(name: str, value: object) -> Size:
    """Returns a `Size`, a list of two as a tuple; raises UserError for anything else.

    Args:
      name: of the setting, for the message.
      value: what was given for it.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_side, value)):
        return value[0], value[1]
    if isinstance(value, int) and _is_side(value):
        return value
    raise UserError(f"{name} must be a number of pixels from 1 to {_MAX_SIZE}, or a pair (H, W), got {value!r}.")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and is_count(value) and value <= _MAX_SIZE


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Converts images of 1 (bool), 8 or 16 bits to uint8; 16 bits are divided by 257 and rounded, so 65535 becomes 255.

    Raises:
      UserError: for any other dtype, whose range cannot be known.
    """
    if images.dtype == np.uint8:
        return images
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype == np.uint16:
        return _in_strips(images, lambda strip: ((strip.astype(np.uint32) + 128) // 257).astype(np.uint8))
    raise UserError(f"images must be uint8 or uint16, got {images.dtype}: save them as uint8 (0 to 255) first.")


def central_crop(images: np.ndarray, size: Size) -> np.ndarray:
    """Cuts the central pixels.

    Raises:
      UserError: if the image is smaller than `size`.
    """
    height, width = images.shape[-3:-1]
    rows, columns = sides(size)
    if rows > height or columns > width:
        most = (min(rows, height), min(columns, width)) if isinstance(size, tuple) else min(height, width)
        raise UserError(f"cannot crop {rows}x{columns} from a {height}x{width} image: use a crop of at most {most}.")
    top = (height - rows) // 2
    left = (width - columns) // 2
    return images[..., top : top + rows, left : left + columns, :]


def largest_part(height: int, width: int, proportions: Size) -> tuple[int, int]:
    """(H, W) of the largest part of an image that has these proportions, rounded down; a number means a square."""
    rows, columns = sides(proportions)
    if height * columns > width * rows:
        return max(1, width * rows // columns), width
    return height, max(1, height * columns // rows)


def pad(images: np.ndarray, size: Size) -> np.ndarray:
    """Pads with zeros on all sides to `size`; an odd pixel goes to the bottom and the right.

    Raises:
      UserError: if the image is larger than `size`.
    """
    height, width = images.shape[-3:-1]
    rows, columns = sides(size)
    if height > rows or width > columns:
        least = (max(rows, height), max(columns, width)) if isinstance(size, tuple) else max(height, width)
        raise UserError(f"cannot pad a {height}x{width} image to {rows}x{columns}: use pad_to of at least {least}.")
    top = (rows - height) // 2
    left = (columns - width) // 2
    pads = [(0, 0)] * (images.ndim - 3) + [(top, rows - height - top), (left, columns - width - left), (0, 0)]
    return np.pad(images, pads)


def _area_weights(size_in: int, size_out: int) -> np.ndarray:
    """Overlaps `[size_out, size_in]` of the output pixels with the input pixels, in units of 1/size_out input pixel."""
    edges_in = np.arange(size_in + 1) * size_out
    edges_out = np.arange(size_out + 1) * size_in
    upper = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    lower = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return np.maximum(upper - lower, 0)


def area_resize(images: np.ndarray, size: Size) -> np.ndarray:
    """Resizes to `size`, each output pixel the mean of the area it covers, halves rounded up.

    The overlaps are whole numbers in units of 1/size of a pixel, so the sums are exact and the result is the same on
    every machine; between whole multiples it is the exact fractional mean, unlike PIL's BOX filter.

    Args:
      images: uint8 `[..., H, W, C]`.
      size: the side of the result, or its height and width.

    Returns:
      uint8 `[..., H', W', C]`.
    """
    height, width = images.shape[-3:-1]
    rows_out, columns_out = sides(size)
    if (height, width) == (rows_out, columns_out):
        return images
    area = height * width
    dtype = np.float32 if 255 * area < _FLOAT32_EXACT else np.float64
    rows = _area_weights(height, rows_out).astype(dtype)
    columns = _area_weights(width, columns_out).astype(dtype)
    lead = images.shape[:-3]
    channels = images.shape[-1]
    images = images.reshape(*lead, height, width * channels)
    sums = np.zeros((*lead, rows_out, width * channels), dtype)
    strip = max(1, _STRIP_VALUES * height // images.size)
    for top in range(0, height, strip):  # a photograph as floats would take eight times its memory
        sums += rows[:, top : top + strip] @ images[..., top : top + strip, :].astype(dtype)
    sums = columns @ sums.reshape(*lead, rows_out, width, channels)
    return ((sums.astype(np.int64) + area // 2) // area).astype(np.uint8)


def box_downscale(images: np.ndarray, factor: int) -> np.ndarray:
    """Averages `factor` x `factor` boxes, halves rounded up; rows and columns left over at the far edges are dropped.

    Returns:
      uint8 `[..., H // factor, W // factor, C]`.
    """
    if factor == 1:
        return images
    *lead, height, width, channels = images.shape
    height = height // factor
    width = width // factor
    images = images[..., : height * factor, : width * factor, :]
    # One strided addition per pixel of a box: never more than one 32-bit copy of the small image.
    sums = np.zeros((*lead, height, width, channels), np.uint32)
    for row in range(factor):
        for column in range(factor):
            sums += images[..., row::factor, column::factor, :]
    return ((sums + factor**2 // 2) // factor**2).astype(np.uint8)


def to_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Converts between 1 (grey), 2 (grey and alpha), 3 (RGB) and 4 (RGBA) channels; None keeps them.

    Transparency is blended over white where the result has none; it starts opaque where the source has none.
    """
    if channels is None or channels == images.shape[-1]:
        return images
    return _in_strips(images, lambda strip: _convert(strip, channels))


def _in_strips(images: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`convert(images)`, a function of each pixel alone, along the first axis: that of images, or of rows."""
    step = max(1, _STRIP_VALUES * len(images) // max(1, images.size))
    return np.concatenate([convert(images[i : i + step]) for i in range(0, max(1, len(images)), step)])


def _convert(images: np.ndarray, channels: int) -> np.ndarray:
    have = images.shape[-1]
    colours = images[..., :-1] if have in (2, 4) else images
    alpha = images[..., -1:] if have in (2, 4) else None
    if alpha is not None and channels in (1, 3):
        weight = alpha.astype(np.uint32)
        colours = ((colours * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
    if channels in (3, 4) and colours.shape[-1] == 1:
        colours = np.repeat(colours, 3, axis=-1)
    elif channels in (1, 2) and colours.shape[-1] == 3:
        colours = ((colours @ _LUMA_WEIGHTS + 500) // 1000).astype(np.uint8)[..., None]
    if channels in (2, 4):
        alpha = np.full((*colours.shape[:-1], 1), 255, np.uint8) if alpha is None else alpha
        return np.concatenate([colours, alpha], axis=-1)
    return colours


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """The one path from a source's image to the model's: crop, then pad, then area resize, then channels.

    Attributes:
      crop: None (or "none"), the size of the central part to cut out, or "central" for the largest one that has the
        proportions of `image_size`, a square where that is None or a number.
      pad_to: size to pad to with zeros, or None.
      image_size: size to area-resize to, or None.
      channels: 1, 2, 3, 4, or None to keep the source's.
    """

    crop: Size | str | None = None
    pad_to: Size | None = None
    image_size: Size | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.crop, str) and self.crop not in ("none", "central"):
            raise UserError(f"crop must be 'none', 'central', a number of pixels or a pair (H, W), got {self.crop!r}.")
        for name in ("crop", "pad_to", "image_size"):
            value = getattr(self, name)
            if value is not None and not (name == "crop" and isinstance(value, str)):
                object.__setattr__(self, name, check_size(name, value))
        if self.channels not in (None, 1, 2, 3, 4):
            raise UserError(f"channels must be 1, 2, 3 or 4, got {self.channels!r}.")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 or uint16 `[..., H, W, C]` to uint8 `[..., H', W', C']`; raises UserError where it cannot."""
        if self.crop == "central":
            height, width = images.shape[-3:-1]
            images = central_crop(images, largest_part(height, width, self.image_size or 1))
        elif self.crop is not None and not isinstance(self.crop, str):
            images = central_crop(images, self.crop)
        if self.pad_to is not None:
            images = pad(images, self.pad_to)
        images = to_uint8(images)
        if self.image_size is not None:
            images = area_resize(images, self.image_size)
        return to_channels(images, self.channels)

    def output_shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The `(H, W, C)` that `__call__` gives for an input of this shape; None where it depends on the image."""
        size = self.image_size or self.pad_to
        if size is None and self.crop == "central":
            size = min(height, width) if height and width else None
        elif size is None and not isinstance(self.crop, str):
            size = self.crop
        return (*((height, width) if size is None else sides(size)), self.channels or channels)


def preprocess_array(preprocess: Preprocess, images: np.ndarray, rows: int = 1024) -> np.ndarray:
    """Applies a `Preprocess` to `[N, H, W, C]` a slab of rows at a time, which bounds the memory its sums take.

    Raises:
      UserError: no images.
    """
    if not len(images):
        raise UserError("there are no images: the array or file is empty.")
    return np.concatenate([preprocess(images[i : i + rows]) for i in range(0, len(images), rows)])
