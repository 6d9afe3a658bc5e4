"""Grids of images and charts, and what all pictures have in common: colours, smooth lines, how they are written."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tf_pivae.files import replacing

BACKGROUND = (250, 250, 250)
INK = (40, 40, 40)
SCALE = 2  # Charts are drawn this many times as large, then `reduced`: smooth lines.
_GRID = (222, 222, 222)
_NEIGHBOUR_GAP = 10  # Pixels; those between the tiles of a grid are 2.
# Distinguishable with colour blindness (Okabe & Ito).
_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def to_display(images: np.ndarray, num_bins: int = 256) -> np.ndarray:
    """Levels 0 ... num_bins - 1, uint8 [N, H, W, C] with 1 to 4 channels -> uint8 [N, H, W, 3]."""
    images = full_scale(np.asarray(images), num_bins)
    channels = images.shape[-1]
    if channels < 3:
        return np.repeat(images[..., :1], 3, axis=-1)
    return images[..., :3]


def full_scale(images: np.ndarray, num_bins: int) -> np.ndarray:
    """Levels 0 ... num_bins - 1, an integer array -> uint8 of the same shape, black at 0 and white at 255."""
    if num_bins == 256:
        return images
    return np.round(images * (255.0 / (num_bins - 1))).astype(np.uint8)


def image_grid(
    images: np.ndarray, columns: int | None = None, cell: int | None = None, gap: int = 2, num_bins: int = 256
) -> Image.Image:
    """Tiles images, row by row.

    Args:
      images: uint8 [N, H, W, C].
      columns: int; None makes the grid about square. There are at most as many as images.
      cell: int, side of a tile in pixels, up to which images are enlarged by whole factors; None is 64.
      gap: int, pixels between tiles.
      num_bins: number of levels.

    Returns:
      `PIL.Image`, RGB.
    """
    pixels = to_display(images, num_bins)
    count, height, width, _ = pixels.shape
    columns = min(columns or math.ceil(math.sqrt(count)), max(1, count))
    rows = -(-count // columns)
    factor = max(1, (cell or 64) // max(height, width))
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    height = height * factor
    width = width * factor
    canvas = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), BACKGROUND)
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        canvas.paste(Image.fromarray(image), (column * (width + gap), row * (height + gap)))
    return canvas


def class_rows(count: int, num_classes: int, columns: int | None = None) -> tuple[np.ndarray, int]:
    """The labels of a grid with one class per row.

    Args:
      count: int, number of images.
      columns: int; None gives every class a row if `count` suffices, and else makes the grid about square.

    Returns:
      int64 [count], the label of each image, row by row, and the number of columns for `image_grid`.
    """
    if columns is None:
        columns = -(-count // num_classes) if num_classes <= count else max(1, math.ceil(math.sqrt(count)))
    return np.arange(count) // columns % num_classes, columns


def sample_layout(about: int, num_classes: int) -> tuple[int, np.ndarray | None, int | None]:
    """Number, labels and columns of a picture of about so many samples: whole rows, one class each.

    Args:
      about: how many.
      num_classes: 0 for a model without classes, which gets neither labels nor columns.
    """
    if not num_classes:
        return about, None, None
    count = about // num_classes * num_classes if num_classes <= about else about
    return count, *class_rows(count, num_classes)


def reconstruction_grid(
    images: np.ndarray, reconstructions: np.ndarray, pairs_in_row: int = 4, num_bins: int = 256
) -> Image.Image:
    """Real images beside their reconstructions: real, reconstruction, real, reconstruction, ...

    Args:
      images, reconstructions: uint8 [N, H, W, C].
      pairs_in_row: int.
      num_bins: number of levels.

    Returns:
      `PIL.Image`, RGB.
    """
    pairs = np.stack([images, reconstructions], 1).reshape(-1, *images.shape[1:])
    return image_grid(pairs, columns=2 * pairs_in_row, num_bins=num_bins)


def images_at(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Those of [N, H, W, C] at indices [...]: [..., H, W, C]. A memory map, or `LookedUpImages`, gives them alone."""
    images = np.stack([np.asarray(images[i]) for i in indices.flat])
    return images.reshape(*indices.shape, *images.shape[1:])


def neighbour_grid(images: np.ndarray, neighbours: np.ndarray, num_bins: int = 256) -> Image.Image:
    """Images below each other, and in the row of each, behind a gap, those that resemble it.

    Args:
      images: uint8 [N, H, W, C].
      neighbours: uint8 [N, K, H, W, C].
      num_bins: number of levels.

    Returns:
      `PIL.Image`, RGB.
    """
    left = image_grid(images, 1, num_bins=num_bins)
    right = image_grid(neighbours.reshape(-1, *images.shape[1:]), neighbours.shape[1], num_bins=num_bins)
    canvas = Image.new("RGB", (left.width + _NEIGHBOUR_GAP + right.width, left.height), BACKGROUND)
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + _NEIGHBOUR_GAP, 0))
    return canvas


def labelled(panels: Sequence[tuple[str, Image.Image]], title: str | None = None) -> Image.Image:
    """Puts pictures side by side, each under its caption.

    Args:
      panels: list of (caption, `PIL.Image`).
      title: str above them all, or None.

    Returns:
      `PIL.Image`, RGB.
    """
    font = ImageFont.load_default(size=16)
    margin = 16
    line = 26
    top = margin + (line if title else 0)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [max(picture.width, math.ceil(measure.textlength(caption, font))) for caption, picture in panels]
    width = max(sum(widths) + margin * (len(panels) + 1), math.ceil(measure.textlength(title or "", font)) + 2 * margin)
    height = top + line + max(picture.height for _, picture in panels) + margin
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, margin - 4), title, INK, font)
    x = margin
    for (caption, picture), panel_width in zip(panels, widths, strict=True):
        draw.text((x, top), caption, INK, font)
        canvas.paste(picture, (x, top + line))
        x += panel_width + margin
    return canvas


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Puts pictures below each other, left-aligned; returns `PIL.Image`, RGB."""
    canvas = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), BACKGROUND)
    y = 0
    for picture in pictures:
        canvas.paste(picture, (0, y))
        y += picture.height
    return canvas


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, title: str
) -> Image.Image:
    """Draws curves in one chart, with round numbers on both axes.

    Args:
      series: dict of a name -> (x, y), two lists of numbers, at least one of them not empty.
      x_label, y_label, title: str.

    Returns:
      `PIL.Image`, RGB.
    """
    width, height, left, right, top, bottom = (SCALE * value for value in (900, 500, 70, 150, 70, 50))
    font = ImageFont.load_default(size=13 * SCALE)
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    points = [[value for curve in series.values() for value in curve[i]] for i in (0, 1)]
    x_ticks, y_ticks = (round_values(min(values), max(values)) for values in points)

    def place(x, y):
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (width - left - right), height - bottom - up * (height - bottom - top)

    for x in x_ticks:
        draw.line([place(x, y_ticks[0]), place(x, y_ticks[-1])], _GRID, SCALE)
        draw.text(place(x, y_ticks[0]), f"\n{x:g}", INK, font, anchor="ma")
    for y in y_ticks:
        draw.line([place(x_ticks[0], y), place(x_ticks[-1], y)], _GRID, SCALE)
        draw.text((left - 8 * SCALE, place(x_ticks[0], y)[1]), f"{y:g}", INK, font, anchor="rm")
    draw.text((left, 14 * SCALE), title, INK, ImageFont.load_default(size=18 * SCALE))
    draw.text((left, 44 * SCALE), y_label, INK, font)
    draw.text((width - right + 12 * SCALE, height - bottom), x_label, INK, font, anchor="lm")
    ends = []
    for i, (name, (x, y)) in enumerate(series.items()):
        color = _CURVES[i % len(_CURVES)]
        draw.line([place(*point) for point in zip(x, y, strict=True)], color, 3 * SCALE, joint="curve")
        ends.append((place(x[-1], y[-1])[1], name, color))
    lowest = 0.0
    for end, name, color in sorted(ends):  # Each name beside the end of its curve, and none over another.
        lowest = max(end, lowest + 17 * SCALE)
        draw.text((width - right + 12 * SCALE, lowest), name, color, font, anchor="lm")
    return reduced(canvas)


def reduced(canvas: Image.Image) -> Image.Image:
    """A chart that was drawn `SCALE` times as large."""
    return canvas.resize((canvas.width // SCALE, canvas.height // SCALE), Image.Resampling.LANCZOS)


def round_values(low: float, high: float, intervals: int = 5, within: bool = False) -> list[float]:
    """Round numbers at equal distances.

    Args:
      low, high: what they go from and to.
      intervals: that many at most between `low` and `high`.
      within: none lies outside; else the first lies at or below `low`, the last at or above `high`.
    """
    step = _round_step((high - low) / intervals or 1.0)
    if within:
        return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _round_step(raw):
    """The smallest of 1, 2, 5, 10, 20, ... (and 0.1, 0.2, 0.5, ...) that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Writes a PNG that is either whole or not there.

    Raises:
      UserError: the file cannot be written.
    """
    with replacing(path) as partial:
        picture.save(partial, format="PNG")
