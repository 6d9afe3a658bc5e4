"""The head of the page: each run in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_pivae.report import evaluations
from tf_pivae.report.markup import Html, breakable, run_class, tag
from tf_pivae.report.run import Run
from tf_pivae.report.views import Views

_HELD_OUT = "held_out_bits_per_dim/"


def render(runs: Sequence[Run], views: Sequence[Views]) -> Html:
    """A card for each run: its name, how far it got, and what there is to know first."""
    cards = []
    for i, (run, view) in enumerate(zip(runs, views, strict=True)):
        facts = {
            "Bits/dim, held out": _bits_per_dim(run),
            **evaluations.scores(run),
            "Data": _data(run.facts),
            "Trained by": _training(run),
            "Weights": "–" if view.num_weights is None else f"{view.num_weights:,}",
        }
        state = run.state(view.step)
        if view.step is None:
            state += "; no checkpoint to show"
        elif view.step < run.step:
            state += f"; shown as of its checkpoint of step {view.step:,}"
        swatch = tag("span", class_=f"swatch {run_class(i)}", aria_hidden="true") if len(runs) > 1 else None
        listed = [
            tag("div", tag("dt", breakable(name)), tag("dd", breakable(value)))
            for name, value in facts.items()
            if value
        ]
        heading = tag("h3", swatch, breakable(run.name, everywhere=True))
        cards.append(tag("div", heading, tag("p", state, class_="state"), tag("dl", listed), class_="card"))
    if len(runs) == 1:
        return tag("div", cards, class_="cards")
    return tag("div", cards, class_="cards scroll", tabindex="0", role="region", aria_label="The runs")


def _data(facts: dict[str, Any]) -> str:
    height, width, channels = facts["image_shape"]
    classes = f", {facts['num_classes']} classes" if facts["num_classes"] else ""
    levels = f", {facts['num_bins']} levels" if facts["num_bins"] != 256 else ""
    return f"{facts['name']}, {height}×{width}×{channels}{levels}{classes}"


def _training(run: Run) -> str:
    if run.facts["inference_only"]:
        return "likelihood, around a frozen generator"
    losses = ["likelihood"] * bool(run.facts["likelihood"])
    losses += ["adversary"] * run.adversary
    average = "; moving average of the weights" if run.facts["moving_average"] else ""
    return (" and ".join(losses) or "–") + average


def _bits_per_dim(run: Run) -> str:
    """What followed the training, or else what the evaluate command found; empty where neither did."""
    recorded = [_held_out(line) for line in run.metrics]
    values = next(filter(None, reversed(recorded)), evaluations.held_out_bits_per_dim(run))
    text = ", ".join(f"{value:.3f} ({k})" for k, value in values.items() if value is not None)
    return f"[{text}]" if text and run.facts["inference_only"] else text


def _held_out(line: dict[str, Any]) -> dict[str, float | None]:
    """{"K=1": bits per dimension, ...} of a line of metrics; empty but for that of an evaluation."""
    return {name.removeprefix(_HELD_OUT): value for name, value in line.items() if name.startswith(_HELD_OUT)}
