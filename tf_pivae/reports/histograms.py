"""The sections on likelihoods: a table with bars, and histograms drawn as SVG."""

import itertools
import math

import numpy as np

from tf_pivae.reports.likelihoods import OTHER_DATA, summary
from tf_pivae.reports.markup import note, side_by_side, table, tag

_BINS = 80
_FAR_APART = 4.0  # Ratio of the ends from which on the scale is logarithmic.
_WIDTH, _HEIGHT = 480.0, 48.0  # Units of a histogram's drawing, which the page stretches.


def _number(value):
    return f"{value:.6g}"


def render_terms(runs, found):
    """Terms of the bound, a row each, a column a run.

    Args:
      runs: list of `Run`.
      found: list of `Likelihoods`, or str: why there are none.
    """
    measured = [(run, parts) for run, parts in zip(runs, found, strict=True) if not isinstance(parts, str)]
    parts = [note(f"{run.name}: {reason}") for run, reason in zip(runs, found, strict=True) if isinstance(reason, str)]
    if not measured:
        return parts
    names = list(dict.fromkeys(name for _, likelihoods in measured for name in likelihoods.terms))
    largest = max(abs(_mean(values)) for _, likelihoods in measured for values in likelihoods.terms.values()) or 1.0
    rows = [[name, *(_term(likelihoods.terms.get(name), largest) for _, likelihoods in measured)] for name in names]
    rows.append([tag("strong", "bits per dimension, K = 1"), *(_total(likelihoods) for _, likelihoods in measured)])
    counts = sorted({len(values) for _, likelihoods in measured for values in likelihoods.terms.values()})
    caption = (
        f"Mean and standard error over {' or '.join(map(str, counts))} held-out images, bits per dimension; terms "
        "below zero (bars to the left) make images more probable"
    )
    parts.append(table(caption, ["Term", *(run.name for run, _ in measured)], rows, class_="terms"))
    if any(likelihoods.approximate for _, likelihoods in measured):
        parts.append(note("[In brackets]: the bound of an inference network trained around a frozen generator."))
    return parts


def _total(likelihoods):
    text = summary(sum(likelihoods.terms.values()))
    return tag("strong", f"[{text}]" if likelihoods.approximate else text)


def _mean(values):
    finite = values[np.isfinite(values)]
    return finite.mean() if len(finite) else 0.0


def _term(values, largest):
    if values is None:
        return tag("span", "–", class_="missing")
    mean = _mean(values)
    share = 50.0 * abs(mean) / largest
    left = 50.0 - share if mean < 0 else 50.0
    bar = tag("span", style=f"left:{left:.2f}%;width:{share:.2f}%", class_="below" if mean < 0 else "above")
    return [tag("span", summary(values), class_="number"), tag("span", bar, class_="bar", aria_hidden="true")]


def render_sets(runs, found):
    """Histograms of the bits per dimension of several sets of images, one below the other on one scale for all runs."""
    measured = [likelihoods for likelihoods in found if not isinstance(likelihoods, str)]
    if not measured:
        return [note(f"{run.name}: {reason}") for run, reason in zip(runs, found, strict=True)]
    edges = common_edges(list(itertools.chain(*(likelihoods.sets.values() for likelihoods in measured))))
    columns = [
        note(f"{run.name}: {likelihoods}") if isinstance(likelihoods, str) else _ridges(i, run, likelihoods, edges)
        for i, (run, likelihoods) in enumerate(zip(runs, found, strict=True))
    ]
    explained = (
        "Bits per dimension of each image, K = 1; a density that has learnt the data gives its own images fewer bits "
        "than others. Tails of less than one image in two hundred may lie beyond the scale"
        + (", which is logarithmic." if is_logarithmic(edges) else ".")
    )
    if not any(name.endswith(OTHER_DATA) for likelihoods in measured for name in likelihoods.sets):
        explained += " Another data set is shown with --other_data=datasets/NAME.gin."
    return [tag("p", explained, class_="hint"), side_by_side(runs, columns)]


def common_edges(sets):
    """Edges of bins that cover nearly all of every set: float64 [_BINS + 1].

    The outermost half per cent of a set does not stretch the scale for the others. The bins are equal, or equal on a
    logarithmic scale where the sets lie so far apart that each would fill but a few of them.
    """
    finite = [values[np.isfinite(values)] for values in sets]
    spans = [np.quantile(values, [0.005, 0.995]) for values in finite if len(values)] or [np.array([0.0, 1.0])]
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    if low > 0 and high > _FAR_APART * low:
        return np.geomspace(low / 1.05, high * 1.05, _BINS + 1)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, _BINS + 1)


def is_logarithmic(edges):
    """Whether the bins grow."""
    return edges[-1] - edges[-2] > 1.001 * (edges[1] - edges[0])


def _ridges(index, run, likelihoods, edges):
    rows = []
    for name, values in likelihoods.sets.items():
        counts, _ = np.histogram(values[np.isfinite(values)], edges)
        text = f"{name}: {summary(values)}"
        described = f"Histogram of {run.name}'s bits per dimension for {len(values)} {name}: mean {summary(values)}."
        rows.append(tag("div", tag("p", text), _histogram(counts, described, index), class_="ridge"))
    ticks = [tag("span", f"{value:.4g}", style=f"left:{100 * at:.2f}%") for value, at in _ticks(edges)]
    return [rows, tag("div", ticks, class_="axis", aria_hidden="true"), tag("p", "bits per dimension", class_="unit")]


def _histogram(counts, described, index):
    top = max(counts.max(), 1)
    points = [f"M0,{_HEIGHT:g}"]
    for i, count in enumerate(counts):
        height = _HEIGHT * (1 - count / top)
        points.append(f"V{_number(height)}H{_number((i + 1) * _WIDTH / len(counts))}")
    path = tag("path", d="".join(points) + f"V{_HEIGHT:g}Z", vector_effect="non-scaling-stroke")
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return tag("svg", path, viewBox=box, preserveAspectRatio="none", role="img", aria_label=described,
               class_=f"histogram run{index % 6}")  # fmt: skip


def _ticks(edges):
    """Round numbers on the scale: (value, its place from 0 to 1)."""
    low, high = edges[0], edges[-1]
    if is_logarithmic(edges):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        span = math.log(high / low)
        return [(value, math.log(value / low) / span) for value in values if low <= value <= high]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step)
    return [(i * step, (i * step - low) / (high - low)) for i in range(first, math.floor(high / step) + 1)]
