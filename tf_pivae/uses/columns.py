"""What a score's columns are: of an image's log-probability, and of how those of held-out images are spread."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

# A column's name -> whether an unusual image has a higher (1) or a lower (-1) value.
UNUSUAL = {
    "log_prob": -1,
    "bits_per_dim": 1,
    "standard_error": 1,
    "percentile": -1,
    "typicality_p": -1,
    "bits_over_png": 1,
}
_PNG_FRAME = 57  # Bytes of a PNG that are not pixels: signature, header, the frames of one data chunk and of the end.


class Reference(NamedTuple):
    """Held-out images' bits per dimension, ready to be compared with."""

    bits: np.ndarray  # float64 [N], ascending
    mean: float
    distances: np.ndarray  # float64 [N], |bits - mean|, ascending


def reference(bits: np.ndarray) -> Reference:
    """The `Reference` of bits per dimension, float [N]."""
    mean = float(np.mean(bits))
    return Reference(np.sort(np.asarray(bits, np.float64)), mean, np.sort(np.abs(bits - mean)))


def columns(log_prob: np.ndarray, error: np.ndarray, images: np.ndarray, held_out: Reference) -> dict[str, np.ndarray]:
    """The columns of some images, float64 [B] each.

    Args:
      log_prob: float64 [B], nats.
      error: float64 [B], its standard error, nats.
      images: uint8 [B, H, W, C].
      held_out: of images that the model was not trained on.

    Returns:
      dict of a name of `UNUSUAL` -> float64 [B]: `log_prob`, nats; `bits_per_dim` and its `standard_error`;
      `percentile`, the held-out images of lower log-probability, in 100 (half of the equal ones); `typicality_p`, the
      share of held-out images at least as far from their mean, to either side (Nalisnick et al. 2019, for single
      images); `bits_over_png`, the bits per dimension beyond those of the PNG (Serrà et al. 2020).
    """
    bits = bits_per_dim(log_prob, images)
    count = len(held_out.bits)
    num_below, up_to = (np.searchsorted(held_out.bits, bits, side) for side in ("left", "right"))
    farther = count - np.searchsorted(held_out.distances, np.abs(bits - held_out.mean), "left")
    return {
        "log_prob": log_prob,
        "bits_per_dim": bits,
        "standard_error": bits_per_dim(-error, images),
        "percentile": 100.0 * (count - (num_below + up_to) / 2) / count,
        "typicality_p": (1 + farther) / (count + 1),
        "bits_over_png": bits - png_bits(images),
    }


def bits_per_dim(log_prob: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Log-probabilities in nats, float64 [B], of images [B, H, W, C], as bits per dimension (sign reversed)."""
    return log_prob / (-math.log(2.0) * math.prod(images.shape[1:]))


def png_bits(images: np.ndarray) -> np.ndarray:
    """Bits per dimension of images as PNGs, without what every PNG has: uint8 [B, H, W, C] -> float64 [B].

    PNG and not WebP, because every Pillow writes it, in grey as well as in colour.
    """
    sizes = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", compress_level=9)
        sizes.append(8.0 * (file.tell() - _PNG_FRAME))
    return np.asarray(sizes, np.float64) / math.prod(images.shape[1:])
