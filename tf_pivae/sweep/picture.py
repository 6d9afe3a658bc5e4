"""Parallel coordinates: an axis for each setting and metric, a line for each trial."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from tf_pivae.figures import BACKGROUND, INK, SCALE, reduced

_AXIS = (150, 150, 150)
# Distinguishable with red-green blindness.
_BEST = (24, 105, 200)
_WORST = (225, 130, 50)
_HEIGHT = 420
_TOP = 96
_BOTTOM = 40
_SIDE = 90
_SPACING = 190
_MAX_TICKS = 8
_LOGARITHMIC_SPAN = 30.0  # largest / smallest from which an axis is logarithmic


class DrawnAxis(NamedTuple):
    """Where values lie on an axis.

    Attributes:
      title: its name.
      positions: of each trial, 0 (bottom) to 1 (top).
      ticks: pairs (position, label).
    """

    title: str
    positions: list[float]
    ticks: list[tuple[float, str]]


def axis(title: str, values: Sequence) -> DrawnAxis:
    """Lays out one axis.

    Numbers lie in proportion, or on a logarithmic scale where they are positive and span a factor of 30; anything else
    (strings, tuples, mixtures) at equal distances. Few different values are all labelled, many by round fractions of
    the axis.

    Args:
      values: list of numbers or str, not empty.
    """
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numeric:
        values = [str(value) for value in values]
    distinct = sorted(set(values))
    if not numeric:
        places = {value: (i + 0.5) / len(distinct) for i, value in enumerate(distinct)}
        return DrawnAxis(title, [places[value] for value in values], [(places[value], value) for value in distinct])
    low = distinct[0]
    high = distinct[-1]
    logarithmic = low > 0 and high >= _LOGARITHMIC_SPAN * low

    def place(value):
        if low == high:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    if len(distinct) <= _MAX_TICKS:
        marked = distinct
    elif logarithmic:
        marked = [low * (high / low) ** (i / 4) for i in range(5)]
    else:
        marked = [low + (high - low) * i / 4 for i in range(5)]
    return DrawnAxis(
        title, [place(value) for value in values], list(zip(map(place, marked), _labels(marked), strict=True))
    )


def _labels(numbers):
    """The numbers with as few digits as tell them apart."""
    if all(isinstance(number, int) for number in numbers):
        return [str(number) for number in numbers]
    for digits in range(3, 17):
        labels = [f"{number:.{digits}g}" for number in numbers]
        if len(set(labels)) == len(labels):
            break
    return labels


def parallel_coordinates(axes: Sequence[DrawnAxis], shades: Sequence[float], title: str, note: str = "") -> Image.Image:
    """Draws the picture.

    Args:
      axes: list of `DrawnAxis`, from left to right.
      shades: of each trial, 0 (best) to 1 (worst): its line's colour; the best lie on top.
      title, note: lines of text above.

    Returns:
      `PIL.Image`, RGB.
    """
    font, large = (ImageFont.load_default(size=size * SCALE) for size in (13, 18))
    width = 2 * _SIDE + _SPACING * max(1, len(axes) - 1)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(width, math.ceil(max(measure.textlength(title, large), measure.textlength(note, font)) / SCALE) + 40)
    canvas = Image.new("RGB", (width * SCALE, _HEIGHT * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((16 * SCALE, 8 * SCALE), title, INK, large)
    draw.text((16 * SCALE, 36 * SCALE), note, INK, font)
    columns = [(_SIDE + _SPACING * i) * SCALE for i in range(len(axes))]

    def height(position):
        return (_HEIGHT - _BOTTOM - position * (_HEIGHT - _BOTTOM - _TOP)) * SCALE

    for x in columns:
        draw.line([(x, height(0.0)), (x, height(1.0))], _AXIS, SCALE)
    for trial in sorted(range(len(shades)), key=lambda i: -shades[i]):
        points = [(x, height(column.positions[trial])) for x, column in zip(columns, axes, strict=True)]
        color = tuple(round(b + (w - b) * shades[trial]) for b, w in zip(_BEST, _WORST, strict=True))
        draw.line(points, color, 2 * SCALE, joint="curve")
    for x, column in zip(columns, axes, strict=True):
        draw.text((x, height(1.0) - 14 * SCALE), _fit(column.title, font), INK, font, anchor="ms")
        for position, label in _spread(column.ticks):
            y = height(position)
            text = _fit(label, font)
            box = draw.textbbox((x + 6 * SCALE, y), text, font, anchor="lm")
            draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), BACKGROUND)  # Legible over lines.
            draw.line([(x - 4 * SCALE, y), (x + 4 * SCALE, y)], INK, SCALE)
            draw.text((x + 6 * SCALE, y), text, INK, font, anchor="lm")
    return reduced(canvas)


def _fit(text, font):
    """Shortens a text to the distance between two axes, keeping its end: the part after the dot tells most."""
    limit = (_SPACING - 20) * SCALE
    fitted = text
    while font.getlength(fitted) > limit:
        text = text[1:]
        fitted = "..." + text
    return fitted


def _spread(ticks):
    """Leaves out ticks whose labels would lie on one another; the ends stay."""
    closest = 16 / (_HEIGHT - _BOTTOM - _TOP)
    ticks = sorted(ticks)
    spaced = ticks[:1]
    for tick in ticks[1:-1]:
        if tick[0] - spaced[-1][0] >= closest and ticks[-1][0] - tick[0] >= closest:
            spaced.append(tick)
    return spaced + ticks[1:][-1:]
