"""Histograms, drawn as SVG: the likelihoods of several sets of images, and those that an evaluation wrote down."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pivae.figures import round_values
from tf_pivae.report.likelihoods import OTHER_DATA, Likelihoods, summary
from tf_pivae.report.markup import Html, note, run_class, side_by_side, tag
from tf_pivae.report.run import Run

_BINS = 80
_FAR_APART = 4.0  # Ratio of the ends from which on the scale is logarithmic.
# Units of a histogram's drawing, which the page stretches.
_WIDTH = 480.0
_HEIGHT = 48.0
_MOST_BINS = 10_000  # of a histogram that an evaluation wrote down


def signed(text: str) -> str:
    """A number's text with a minus in place of the hyphen."""
    return text.replace("-", "−")


def render_sets(runs: Sequence[Run], densities: Sequence[Likelihoods | str]) -> list[Html]:
    """Histograms of the bits per dimension of several sets of images, one below the other on one scale for all runs."""
    measured = [likelihoods for likelihoods in densities if not isinstance(likelihoods, str)]
    if not measured:
        return [note(f"{run.name}: {reason}") for run, reason in zip(runs, densities, strict=True)]
    edges = common_edges(list(itertools.chain(*(likelihoods.sets.values() for likelihoods in measured))))
    columns: list[Any] = [
        note(f"{run.name}: {likelihoods}") if isinstance(likelihoods, str) else _ridges(i, run, likelihoods, edges)
        for i, (run, likelihoods) in enumerate(zip(runs, densities, strict=True))
    ]
    explained: list[Any] = [
        "Bits per dimension of each image, K = 1; a density that has learnt the data gives its own images fewer bits "
        "than others. Tails of less than one image in two hundred may lie beyond the scale",
        ", which is logarithmic." if is_logarithmic(edges) else ".",
    ]
    if not any(name.endswith(OTHER_DATA) for likelihoods in measured for name in likelihoods.sets):
        explained += [" Another data set is shown with ", tag("code", "--other_data=datasets/NAME.gin"), "."]
    return [tag("p", explained, class_="hint"), side_by_side([run.name for run in runs], columns)]


def common_edges(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of bins that cover nearly all of every set: float64 [_BINS + 1].

    The outermost half per cent of a set does not stretch the scale for the others. The bins are equal, or equal on a
    logarithmic scale where the sets lie so far apart that each would fill but a few of them.
    """
    finite = [values[np.isfinite(values)] for values in sets]
    spans = [np.quantile(values, [0.005, 0.995]) for values in finite if len(values)] or [np.array([0.0, 1.0])]
    low = min(span[0] for span in spans)
    high = max(span[1] for span in spans)
    if low > 0 and high > _FAR_APART * low:
        return np.geomspace(low / 1.05, high * 1.05, _BINS + 1)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, _BINS + 1)


def is_logarithmic(edges: np.ndarray) -> bool:
    """Whether the bins grow."""
    return bool(edges[-1] - edges[-2] > 1.001 * (edges[1] - edges[0]))


def _ridges(index: int, run: Run, likelihoods: Likelihoods, edges: np.ndarray) -> Html:
    rows = []
    for name, values in likelihoods.sets.items():
        counts, _ = np.histogram(values[np.isfinite(values)], edges)
        places = np.linspace(0.0, 1.0, len(edges))  # Equal on the scale, which may be logarithmic.
        described = f"Histogram of {run.name}'s bits per dimension for {len(values)} {name}: mean {summary(values)}."
        text = [tag("span", name), tag("span", signed(summary(values)), class_="number")]
        rows.append(tag("div", tag("p", text), _histogram(counts, places, described, index), class_="ridge"))
    return tag("div", rows, _axis(edges[0], edges[-1], is_logarithmic(edges)),
               tag("p", "bits per dimension", class_="unit"), class_="ridges")  # fmt: skip


def from_counts(histogram: Any, title: str, run_name: str, index: int) -> Html | None:
    """A histogram that comes as {"edges": [N + 1 ascending numbers], "counts": [N numbers]}; None for anything else."""
    try:
        edges, counts = (np.asarray(histogram[key], np.float64) for key in ("edges", "counts"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if edges.ndim != 1 or counts.shape != (len(edges) - 1,) or not 1 <= len(counts) <= _MOST_BINS:
        return None
    span = edges[-1] - edges[0]
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (np.diff(edges) > 0).all() and 0 < span < math.inf):
        return None
    described = f"Histogram of {title} of {run_name}: {len(counts)} bins from {edges[0]:.4g} to {edges[-1]:.4g}."
    drawing = _histogram(counts, (edges - edges[0]) / span, described, index)
    return tag("div", tag("p", f"{title.strip()}, {run_name}"), drawing, _axis(edges[0], edges[-1]), class_="ridge")


def _histogram(counts: np.ndarray, places: np.ndarray, described: str, index: int) -> Html:
    """`places` are the edges of the bins, from 0 to 1."""
    top = counts.max() or 1.0
    points = [f"M0,{_HEIGHT:g}"]
    for count, right in zip(counts, places[1:], strict=True):
        points.append(f"V{_HEIGHT * (1 - count / top):.6g}H{_WIDTH * right:.6g}")
    path = tag("path", d="".join(points) + f"V{_HEIGHT:g}Z", vector_effect="non-scaling-stroke")
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return tag("svg", path, viewBox=box, preserveAspectRatio="none", role="img", aria_label=described,
               class_=f"histogram {run_class(index)}")  # fmt: skip


def _axis(low: float, high: float, logarithmic: bool = False) -> Html:
    ticks = [
        tag("span", signed(f"{value:.4g}"), style=f"left:{100 * at:.2f}%")
        for value, at in _ticks(low, high, logarithmic)
    ]
    return tag("div", ticks, class_="axis", aria_hidden="true")


def _ticks(low: float, high: float, logarithmic: bool) -> list[tuple[float, float]]:
    """Round numbers on the scale: (value, its place from 0 to 1)."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        span = math.log(high / low)
        return [(value, math.log(value / low) / span) for value in values if low <= value <= high]
    return [(value, (value - low) / (high - low)) for value in round_values(low, high, within=True)]
