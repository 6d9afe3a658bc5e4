"""Bits per dimension by term: from what an image costs without a model down to what it costs with this one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from tf_pivae.figures import round_values
from tf_pivae.metrics import describe_groups, groups_in_use
from tf_pivae.metrics.bits_per_dim import Estimate, estimate
from tf_pivae.report.evaluations import bound_terms
from tf_pivae.report.histograms import signed
from tf_pivae.report.likelihoods import Likelihoods
from tf_pivae.report.markup import Html, folded, headings, join, note, table, tag
from tf_pivae.report.run import Run

_GROUP = "kl/"  # What the names of the terms of latent groups begin with.
_NEGLIGIBLE = 5e-4  # bits per dimension, less than three digits can show


@dataclasses.dataclass(frozen=True)
class Terms:
    """The terms of the one-sample bound, means over images in bits per dimension; they add up to `total`."""

    values: dict[str, Estimate]
    total: Estimate
    images: str  # which they were measured on
    approximate: bool  # the bound of an inference network trained around a frozen generator

    def kl_bits(self, dimensions: int) -> dict[str, float]:
        """The KL of each latent group, bits per image."""
        groups = {name: value for name, value in self.values.items() if name.startswith(_GROUP)}
        return {name.removeprefix(_GROUP): value.mean * dimensions for name, value in groups.items()}

    def changes(self, uniform: float) -> dict[str, Estimate]:
        """What each term adds to `uniform`, the bits of a pixel where all images are alike.

        The term nearest to `uniform`, such as the constant of uniform dequantisation, already accounts for it. It adds
        only the difference, and is left out where there is none.
        """
        base = min(self.values, key=lambda name: abs(self.values[name].mean - uniform))
        mean, error = self.values[base]
        changes = {**self.values, base: Estimate(mean - uniform, error)}
        if max(abs(mean - uniform), error or 0.0) < _NEGLIGIBLE:
            del changes[base]
        return changes


@dataclasses.dataclass(frozen=True)
class Step:
    """One bar of the waterfall: a term takes the bits per dimension from `start` to `end`."""

    start: float
    end: float
    change: Estimate | None  # None where a run has no such term: its bits stay as they are


def measured_terms(run: Run, likelihoods: Likelihoods | str) -> Terms | str:
    """The terms that were measured, or else those of the evaluate command; a str says why there are none."""
    if isinstance(likelihoods, str):
        return _evaluated_terms(run) or likelihoods
    names = list(likelihoods.terms)
    values = np.stack(list(likelihoods.terms.values()))
    finite = values[:, np.isfinite(values).all(axis=0)]  # The same images for each term: so the means add up.
    count = finite.shape[1]
    num_infinite = values.shape[1] - finite.shape[1]
    if not count:
        return f"its bound is not finite for any of {num_infinite} held-out images."
    images = f"{count} held-out images" + (
        f" ({num_infinite} more have a term that is not finite)" if num_infinite else ""
    )
    estimates = dict(zip(names, map(estimate, finite), strict=True))
    return Terms(estimates, estimate(finite.sum(axis=0)), images, likelihoods.approximate)


def _evaluated_terms(run: Run) -> Terms | None:
    reported = bound_terms(run)
    if reported is None:
        return None
    total, terms = reported
    values = {name: Estimate(row.value, row.spread) for name, row in terms.items()}
    return Terms(values, Estimate(total.value, total.spread), total.protocol.split(",")[0], total.approximate)


def order_of(changes: Sequence[dict[str, Estimate]]) -> list[str]:
    """The names of all runs' terms: those that save bits, the most first; then those that cost some, as they came."""
    collected: dict[str, list[float]] = {}
    for name, value in itertools.chain(*(terms.items() for terms in changes)):
        collected.setdefault(name, []).append(value.mean)
    return sorted(collected, key=lambda name: min(sum(collected[name]) / len(collected[name]), 0.0))


def steps_of(changes: dict[str, Estimate], uniform: float, order: Sequence[str]) -> dict[str, Step]:
    """The bars from `uniform` to the total: name -> `Step`, in this order."""
    steps = {}
    at = uniform
    for name in order:
        change = changes.get(name)
        steps[name] = Step(at, at + (change.mean if change else 0.0), change)
        at = steps[name].end
    return steps


def fold_groups(changes: Sequence[dict[str, Estimate]], unused: Sequence[str]) -> list[dict[str, Estimate]]:
    """The terms with those named in `unused` put together as one, without a standard error."""
    name = f"{len(unused)} latent group{'s' if len(unused) > 1 else ''} not in use"
    merged = []
    for terms in changes:
        used = {key: value for key, value in terms.items() if key not in unused}
        means = [value.mean for key, value in terms.items() if key in unused]
        merged.append({**used, name: Estimate(sum(means), None)} if means else used)
    return merged


def unused_groups(runs: Sequence[Run], all_terms: Sequence[Terms]) -> list[str]:
    """The terms of latent groups that none of the runs uses."""
    names = dict.fromkeys(name for terms in all_terms for name in terms.values if name.startswith(_GROUP))
    used = [groups_in_use(terms.kl_bits(run.dimensions)) for run, terms in zip(runs, all_terms, strict=True)]
    return [name for name in names if name.removeprefix(_GROUP) not in itertools.chain(*used)]


def render(runs: Sequence[Run], all_terms: Sequence[Terms | str]) -> list[Html]:
    """The section: one row per term, two columns per run (the number and its bar); then the latent groups.

    Args:
      runs: list of `Run`.
      all_terms: what `measured_terms` gives for each.
    """
    parts = [note(f"{run.name}: {text}") for run, text in zip(runs, all_terms, strict=True) if isinstance(text, str)]
    measured = [(run, terms) for run, terms in zip(runs, all_terms, strict=True) if not isinstance(terms, str)]
    if not measured:
        return parts
    parts.append(_chart(*map(list, zip(*measured, strict=True))))
    if any(terms.approximate for _, terms in measured):
        parts.append(note("[In brackets]: the bound of an inference network trained around a frozen generator."))
    return parts + [_groups(run, terms) for run, terms in measured if terms.kl_bits(1)]


def _chart(runs: list[Run], all_terms: list[Terms]) -> Html:
    levels = [run.facts["num_bins"] for run in runs]
    uniform = [math.log2(count) for count in levels]
    changes = [terms.changes(bits) for terms, bits in zip(all_terms, uniform, strict=True)]
    changes = fold_groups(changes, unused_groups(runs, all_terms))
    order = order_of(changes)
    charts = [steps_of(terms, bits, order) for terms, bits in zip(changes, uniform, strict=True)]
    ends = [step.end for steps in charts for step in steps.values()]
    scale = _Scale.over([0.0, *uniform, *ends], len(runs))

    levels_text = f"log₂ {levels[0]}" if len(set(levels)) == 1 else "log₂ of the levels"
    without = [(f"{bits:.3f}", scale.bar("whole", 0.0, bits, None, bits)) for bits in uniform]
    rows: list[list[Html | str]] = [[f"without a model, {levels_text}", *_pairs(without)]]
    rows += [[_label(name), *_pairs(_cells(steps[name], scale) for steps in charts)] for name in order]
    texts = [f"[{number(terms.total)}]" if terms.approximate else number(terms.total) for terms in all_terms]
    totals = [scale.bar("whole", 0.0, terms.total.mean, terms.total.mean, None) for terms in all_terms]
    rows.append(["with the model, K = 1", *_pairs(zip(texts, totals, strict=True))])

    names = headings(["", *(run.name for run in runs)], 2) if len(runs) > 1 else None
    header = join([names, headings(["", *_pairs(("", scale.axis()) for _ in runs)])])
    images = " and ".join(dict.fromkeys(terms.images for terms in all_terms))
    keys = [
        tag("span", tag("span", class_=f"key {kind}"), f"{kind} bits", class_="entry") for kind in ("saves", "costs")
    ]
    caption = f"Bits per dimension, mean ± standard error over {images}. Each bar begins where the one above it ends."
    return table(join([caption, " ", keys]), header, rows, class_="waterfall several" if len(runs) > 1 else "waterfall")


@dataclasses.dataclass(frozen=True)
class _Scale:
    """The bits per dimension across a bar's cell, between two round numbers."""

    low: float
    high: float
    intervals: int
    runs: int  # which share the width

    @classmethod
    def over(cls, places: Sequence[float], runs: int) -> _Scale:
        ticks = round_values(min(places), max(places), 4)
        return cls(ticks[0], ticks[-1], len(ticks) - 1, runs)

    def at(self, bits: float) -> float:
        """The place, per cent."""
        return 100.0 * (bits - self.low) / (self.high - self.low)

    def bar(self, kind: str, start: float, end: float, from_above: float | None, to_below: float | None) -> Html:
        """The cell of a bar, with the places where thin lines come from the bar above and lead to the one below.

        A bar of the kind "none" is a piece of such a line.
        """
        left, right = sorted((self.at(start), self.at(end)))
        bar = tag("span", class_=f"bar {kind}", style=f"left:{left:.2f}%;width:{right - left:.2f}%")
        lines = [
            tag("span", class_=name, style=f"left:{self.at(place):.2f}%")
            for name, place in (("from", from_above), ("to", to_below))
            if place is not None
        ]
        inside = tag("div", bar, lines, style=f"--intervals:{self.intervals}")
        return tag("td", inside, class_="bars", style=f"width:{100 / self.runs:.4g}%", aria_hidden="true")

    def axis(self) -> Html:
        """The numbers above the bars."""
        values = [self.low + (self.high - self.low) * i / self.intervals for i in range(self.intervals + 1)]
        ticks = [tag("span", signed(f"{value:g}"), style=f"left:{self.at(value):.2f}%") for value in values]
        return tag("div", ticks, class_="axis", aria_hidden="true")


def _cells(step: Step, scale: _Scale) -> tuple[Html | str, Html]:
    kind = "none" if step.change is None else "saves" if step.change.mean < 0 else "costs"
    bar = scale.bar(kind, step.start, step.end, step.start, step.end)
    return tag("span", "–", class_="missing") if step.change is None else number(step.change, "+"), bar


def _pairs(cells: Iterable[tuple[Html | str, Html]]) -> list[Html | str]:
    return [cell for pair in cells for cell in pair]


def number(value: Estimate, sign: str = "") -> str:
    """Three digits, with the standard error where there is one."""
    error = "" if value.standard_error is None else f" ± {value.standard_error:.3f}"
    return signed(f"{value.mean:{sign}.3f}{error}")


def _label(name: str) -> str:
    return f"KL of {name.removeprefix(_GROUP)}" if name.startswith(_GROUP) else name


def _groups(run: Run, terms: Terms) -> Html:
    """The sentence on the latent groups, and what each carries."""
    bits = terms.kl_bits(run.dimensions)
    used = groups_in_use(bits)
    rows = [[name, f"{value:.4g}", "in use" if name in used else "not in use"] for name, value in bits.items()]
    caption = f"KL of {run.name}'s latent groups, the top of the hierarchy first"
    return folded(f"{run.name}: {describe_groups(bits)}", table(caption, ["Group", "Bits per image", ""], rows))
