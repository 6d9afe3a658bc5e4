"""Pictures in the page: PNGs as data URIs, each with its alternative text."""

import base64
import dataclasses
import io
import re

import numpy as np

from tf_pivae import figures
from tf_pivae.reports.markup import note, run_heading, tag

MAX_FRAMES = 24  # Sample pictures of a run that are embedded: about a megabyte.


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG, and what there is to see in it."""

    png: bytes
    alt: str
    caption: str

    def render(self):
        """A figure."""
        return tag("figure", _image(self.png, self.alt), tag("figcaption", self.caption), class_="picture")


def grid(images, columns, alt, caption, num_bins=256):
    """Images [N, H, W, C] in rows, as a `Picture`."""
    encoded = io.BytesIO()
    figures.image_grid(np.asarray(images), columns, num_bins=num_bins).save(encoded, format="PNG")
    return Picture(encoded.getvalue(), alt, caption)


def _image(png, alt, **attributes):
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return tag("img", src=source, alt=alt, **attributes)


def sample_frames(run, max_frames=MAX_FRAMES):
    """The sample pictures of a run, evenly thinned out to at most `max_frames`, the first and the last among them.

    Returns:
      list of (step, bytes of the PNG), steps ascending; and the number of pictures that there are.
    """
    paths = {int(path.stem): path for path in (run.path / "samples").glob("*.png") if re.fullmatch(r"\d+", path.stem)}
    steps = sorted(paths)
    if len(steps) > max_frames:
        kept = np.round(np.linspace(0, len(steps) - 1, max_frames)).astype(int)
        return [(steps[i], paths[steps[i]].read_bytes()) for i in kept], len(steps)
    return [(step, paths[step].read_bytes()) for step in steps], len(steps)


def render_samples(runs):
    """The section "samples over time": one slider for all runs; each shows its newest picture up to the step."""
    frames, counts = zip(*map(sample_frames, runs), strict=True)
    steps = sorted({step for pictures in frames for step, _ in pictures})
    parts = []
    if len(steps) > 1:
        slider = tag("input", type="range", id="samples-step", min=0, max=len(steps) - 1, value=len(steps) - 1,
                     data_steps=" ".join(map(str, steps)), aria_valuetext=f"step {steps[-1]}")  # fmt: skip
        shown = tag("output", f"step {steps[-1]}", for_="samples-step", id="samples-shown")
        parts.append(tag("div", tag("label", "Step", for_="samples-step"), slider, shown, class_="slider"))
    columns = []
    for i, (run, pictures) in enumerate(zip(runs, frames, strict=True)):
        shown = [
            _image(png, _describe_samples(run, step), data_step=step, hidden=step != pictures[-1][0])
            for step, png in pictures
        ] or note(f"{run.name} has drawn no samples yet.")
        heading = run_heading(i, run.name) if len(runs) > 1 else None
        columns.append(tag("div", heading, tag("div", shown, class_="frames"), class_="column"))
    parts.append(tag("div", columns, class_="columns"))
    for run, pictures, count in zip(runs, frames, counts, strict=True):
        if count > len(pictures):
            parts.append(note(f"{run.name}: {len(pictures)} of {count} pictures, evenly spread over the training."))
    return parts


def _describe_samples(run, step):
    classes = run.facts["num_classes"]
    arranged = f", one of the {classes} classes a row" if classes else ""
    return f"A grid of samples that {run.name} drew at step {step}{arranged}."
