"""A folder of picture files as one uint8 array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_pivae.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def images_from_folder(path: str | os.PathLike) -> np.ndarray:
    """Every picture in a folder, in the order of the names, as uint8 [N, H, W, C]; folders inside are not entered.

    C is 1 if every picture is grey, else 3. An alpha channel is accepted only if it is opaque everywhere.

    Raises:
      UserError: no such folder, no picture in it, an unreadable or transparent or 16-bit picture, or mixed sizes.
    """
    from PIL import Image

    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of images.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}).")
    pictures = []
    for file in files:
        try:
            with Image.open(file) as image:
                pictures.append(_pixels(image, file))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot read the image {file}: {error}.") from error
        if pictures[-1].shape[:2] != pictures[0].shape[:2]:
            height, width = pictures[-1].shape[:2]
            first_height, first_width = pictures[0].shape[:2]
            raise UserError(
                f"images of different sizes in {folder}: {files[0].name} is {first_width}x{first_height}, "
                f"{file.name} is {width}x{height}; make them one size."
            )
    channels = max(picture.shape[-1] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])


def _pixels(image: Image.Image, file: Path) -> np.ndarray:
    """uint8 [H, W, 1 or 3]."""
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{file} is a {image.mode} image: save it with 8 bits per channel.")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise UserError(f"{file} has transparent pixels: put it on a background first.")
    grey = image.mode in ("1", "L", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels
