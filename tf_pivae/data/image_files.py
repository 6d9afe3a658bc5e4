"""Finds and decodes image files of unknown origin: what cannot be used is named, and memory is bounded."""

import dataclasses
import os
import stat
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_pivae.data import image_ops
from tf_pivae.errors import first_line, printable

if TYPE_CHECKING:
    from PIL import Image

# Formats by content, whatever the suffix says. Not among them: those that run an interpreter (EPS) or open other
# files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# A decoded photograph of this size takes about 200 MB; a file may claim far more than it holds.
MAX_PIXELS = 64_000_000
_ORIENTATION = 0x0112  # The EXIF tag.
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")


class UnusableImage(Exception):
    """A file that cannot be used; the message is the reason in a few words."""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One regular file below the root of a folder."""

    path: str  # absolute
    relative: str  # to the root, with "/" between its parts
    num_bytes: int
    mtime_ns: int


class NoFile(NamedTuple):
    """Something in a folder that is not an image file."""

    relative: str  # to the root
    reason: str


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image's header says."""

    height: int  # pixels as stored; EXIF may yet turn the image
    width: int
    grey: bool


def find_files(root: str | os.PathLike[str]) -> tuple[list[ImageFile], list[str]]:
    """Lists a folder recursively, as `walk`.

    Args:
      root: the folder.

    Returns:
      A list of `ImageFile`, and a list of "name (reason)" for everything else.
    """
    files = []
    skipped = []
    for entry in walk(root):
        if isinstance(entry, ImageFile):
            files.append(entry)
        else:
            skipped.append(with_reason(*entry))
    return files, skipped


def walk(root: str | os.PathLike[str]) -> Iterator[ImageFile | NoFile]:
    """Goes through a folder recursively, in a fixed order; memory holds the names of one folder at a time.

    Hidden files and folders are skipped silently. Links are never followed, so nothing outside the folder is read and
    no image counts twice. A folder whose path is too long for the system is named as one that cannot be listed.

    Args:
      root: the folder.

    Yields:
      `ImageFile`; or `NoFile` for a link, for anything that is not a file, and for what cannot be read.
    """
    folders = [os.fspath(root)]  # No recursion: a path may have a thousand parts.
    while folders:
        folder = folders.pop()
        subfolders = []
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            yield NoFile(_relative(folder, root), f"cannot be listed: {error.strerror}")
            continue
        for name in names:
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            relative = _relative(path, root)
            try:
                status = os.lstat(path)
            except OSError as error:  # Gone since the folder was listed.
                yield NoFile(relative, str(error.strerror))
                continue
            if stat.S_ISDIR(status.st_mode):
                subfolders.append(path)
            elif stat.S_ISLNK(status.st_mode):
                yield NoFile(relative, "a link")
            elif not stat.S_ISREG(status.st_mode):
                yield NoFile(relative, "not a regular file")
            else:
                yield ImageFile(path, relative, status.st_size, status.st_mtime_ns)
        folders += reversed(subfolders)


def _relative(path: str, root: str | os.PathLike[str]) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def with_reason(relative: str, reason: object) -> str:
    """ "name (reason)", with anything unprintable in the name escaped."""
    return f"{printable(relative)} ({printable(reason)})"


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads only the header.

    Args:
      path: an image file.

    Raises:
      UnusableImage: if the file is empty, no image, or larger than `MAX_PIXELS`.
    """
    with _open(path) as image:
        width, height = reversed(image.size) if _is_turned(image) else image.size
        return Header(height, width, image.mode in _GREY_MODES)


def _is_turned(image: "Image.Image") -> bool:
    """Whether `decode` will exchange height and width; only formats that say so in their header are asked."""
    if image.format not in ("JPEG", "MPO", "TIFF", "WEBP"):
        return False
    try:
        return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # Of damaged EXIF data, anything.
        return False


def decode(path: str | os.PathLike[str], channels: int) -> np.ndarray:
    """Decodes an image file, upright as its EXIF orientation says.

    An animation gives its first frame. 16 bits are scaled to 8; CMYK, palettes and other colour spaces become RGB;
    transparency is kept for 2 and 4 channels and blended over white otherwise.

    Args:
      path: an image file.
      channels: 1, 2, 3 or 4.

    Returns:
      uint8 `[H, W, channels]`.

    Raises:
      UnusableImage: if the file cannot be decoded whole.
    """
    from PIL import ImageOps

    with _open(path) as image:
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _to_array(image)
        except UnusableImage:
            raise
        except Exception as error:  # decoders raise what they like on damaged files: OSError, SyntaxError, ...
            raise UnusableImage(_damage(error)) from error
    return image_ops.to_channels(pixels, channels)


def _open(path: str | os.PathLike[str]) -> "Image.Image":
    from PIL import Image

    try:
        if os.path.getsize(path) == 0:
            raise UnusableImage("empty")
        with warnings.catch_warnings():
            # PIL's own limit on claimed pixels; ours is lower and is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()  # knows every format only after this
            image = Image.open(path, formats=FORMATS)
    except UnusableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnusableImage("not an image") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"claims more than {MAX_PIXELS // 10**6} megapixels") from error
    except Exception as error:
        raise UnusableImage(_damage(error)) from error
    if image.width * image.height > MAX_PIXELS:
        size = f"claims {image.width}x{image.height}, more than {MAX_PIXELS // 10**6} megapixels"
        image.close()
        raise UnusableImage(size)
    return image


def _to_array(image: "Image.Image") -> np.ndarray:
    """A loaded PIL image as uint8 `[H, W, C]` with C from 1 (grey) to 4 (RGBA)."""
    mode = image.mode
    if mode == "F":
        raise UnusableImage("floating-point pixels")
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise UnusableImage("32-bit pixels")
        if 0 < values.max(initial=0) < 256:
            raise UnusableImage("more than 8 bits but no pixel above 255, so it would be black: save it with 8 bits")
        grey = image_ops.to_uint8(values.astype(np.uint16))
        if "transparency" not in image.info:
            return grey[..., None]
        return np.stack([grey, np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)], -1)
    if mode in ("LA", "RGBA", "L", "RGB") and "transparency" not in image.info:
        pass
    elif "transparency" in image.info or mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    else:
        image = image.convert("L" if mode == "1" else "RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _damage(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {first_line(error)[:80]}"
