"""Pictures in the page: PNGs as data URIs, each with its alternative text."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tf_pivae import figures
from tf_pivae.report.markup import Html, note, side_by_side, tag
from tf_pivae.report.run import Run

MAX_FRAMES = 24  # Sample pictures of a run that are embedded: about a megabyte.
_MAX_BYTES = 8 << 20  # of a picture's file; larger ones are not this program's
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG, and what there is to see in it."""

    png: bytes
    alt: str
    caption: str

    def render(self) -> Html:
        """A figure."""
        return tag("figure", _image(self.png, self.alt), tag("figcaption", self.caption), class_="picture")


PicturesOrReason = Sequence[Picture | str] | str  # Pictures; a str in place of one, or of all, says why it is missing.


def encoded(picture: Image.Image) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def grid(images: np.ndarray, columns: int, alt: str, caption: str, num_bins: int = 256) -> Picture:
    """Images [N, H, W, C] in rows."""
    return Picture(encoded(figures.image_grid(np.asarray(images), columns, num_bins=num_bins)), alt, caption)


def from_file(path: Path, alt: str, caption: str) -> list[Picture]:
    """A picture that a training left behind, in a list that is empty where there is none."""
    png = _read(path)
    return [] if png is None else [Picture(png, alt, caption)]


def _read(path: Path) -> bytes | None:
    """The bytes of a PNG; None where the file is something else."""
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    try:
        png = path.read_bytes()
    except OSError:
        return None
    return png if png.startswith(_PNG) else None


def _image(png: bytes, alt: str, **attributes: object) -> Html:
    """The size of the PNG is given, so that the page does not jump while it loads."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return tag("img", src=source, alt=alt, width=width, height=height, **attributes)


def columns_of(runs: Sequence[Run], pictures: Sequence[PicturesOrReason]) -> Html:
    """Pictures side by side, or why there are none; each reason once."""
    names = [run.name for run in runs]
    return side_by_side(names, [_pieces(run, run_pictures) for run, run_pictures in zip(runs, pictures, strict=True)])


def _pieces(run: Run, picture: PicturesOrReason) -> list[Html]:
    pieces = dict.fromkeys([picture] if isinstance(picture, str) else picture)
    return [note(f"{run.name}: {piece}") if isinstance(piece, str) else piece.render() for piece in pieces]


def sample_frames(
    run: Run, newest: tuple[int, bytes] | None = None, max_frames: int = MAX_FRAMES
) -> tuple[list[tuple[int, bytes]], int]:
    """The sample pictures of a run, evenly thinned out to at most `max_frames`, the first and the last among them.

    Args:
      newest: step and PNG of what the model draws, for where the run has no file of this step.
      max_frames: at least 2.

    Returns:
      list of (step, PNG), steps ascending; and the number of pictures that there are.
    """
    by_step: dict[int, Path | bytes] = {} if newest is None else dict([newest])
    by_step |= {
        int(path.stem): path for path in (run.path / "samples").glob("*.png") if re.fullmatch(r"\d{1,9}", path.stem)
    }
    steps = sorted(by_step)
    indices = np.unique(np.linspace(0, len(steps) - 1, min(max_frames, len(steps))).round().astype(int))
    frames = [(steps[i], _read(path) if isinstance(path := by_step[steps[i]], Path) else path) for i in indices]
    return [(step, png) for step, png in frames if png is not None], len(steps)


def render_samples(
    runs: Sequence[Run], newest: Sequence[tuple[int, bytes] | None], neighbours: Sequence[PicturesOrReason]
) -> list[Html]:
    """The section "samples": one slider for all runs; each shows its newest picture up to the step.

    Args:
      runs: list of `Run`.
      newest: for each, step and PNG of what its model draws, or None where there is no model.
      neighbours: for each, what stands beside the samples, or why it does not.
    """
    frames, counts = zip(*map(sample_frames, runs, newest), strict=True)
    steps = sorted({step for pictures in frames for step, _ in pictures})
    parts = []
    if len(steps) > 1:
        slider = tag("input", type="range", id="samples-step", min=0, max=len(steps) - 1, value=len(steps) - 1,
                     data_steps=" ".join(map(str, steps)), aria_valuetext=f"step {steps[-1]}")  # fmt: skip
        output = tag("output", f"step {steps[-1]}", for_="samples-step", id="samples-shown")
        parts.append(tag("div", tag("label", "Step", for_="samples-step"), slider, output, class_="slider"))
    columns = []
    for run, pictures, count, nearest in zip(runs, frames, counts, neighbours, strict=True):
        caption = "Samples that the training left at its end."
        files = [] if pictures else from_file(run.path / "samples.png", f"Samples of {run.name}.", caption)
        columns.append([_frames(run, pictures, count) if pictures else _pieces(run, files), _pieces(run, nearest)])
    return [*parts, side_by_side([run.name for run in runs], columns)]


def _frames(run: Run, pictures: list[tuple[int, bytes]], count: int) -> Html:
    classes = run.facts["num_classes"]
    arranged = f", each row of one of the {classes} classes" if classes else ""
    images = [
        _image(png, f"A grid of samples that {run.name} drew at step {step}{arranged}.", data_step=step,
               hidden=step != pictures[-1][0])
        for step, png in pictures
    ]  # fmt: skip
    thinned = f" {len(pictures)} of {count} pictures, evenly spread over the training." if count > len(pictures) else ""
    at = tag("span", f"step {pictures[-1][0]}", class_="at")
    caption = tag("figcaption", "Samples at ", at, f"{arranged}.{thinned}")
    return tag("figure", tag("div", images, class_="frames"), caption, class_="picture")
