"""What an evaluation came to: rows of a table, as text and as JSON."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tf_pivae.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    metric: str
    value: float
    spread: float | None  # standard error or standard deviation, as `protocol` says
    protocol: str
    approximate: bool = False  # shown in [square brackets]: the bound of an inference network trained around a GAN

    @property
    def number(self) -> str:
        """The value as the table shows it."""
        text = f"{self.value:.4f}" if abs(self.value) < 100 else f"{self.value:.2f}"
        return f"[{text}]" if self.approximate else text


class Evaluation(NamedTuple):
    """The results of an evaluation."""

    step: int
    weights: str | None  # `runs.weights.digest` of the model
    rows: list[Row]
    refused: list[str]  # why a metric that was asked for is missing
    dimensions: int = 1  # of an image: H W C
    states: Sequence[Path] = ()  # files of its finished passes: once the rows are written, nobody needs them


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    width = max((len(row.metric) for row in rows), default=0)
    lines = []
    for row in rows:
        spread = "" if row.spread is None else f"+- {row.spread:.4f}"
        lines.append(f"{row.metric:<{width}}  {row.number:>12}  {spread:<11}  {row.protocol}")
    return "\n".join(lines)


def with_earlier(evaluation: Evaluation, earlier: dict | None) -> Evaluation:
    """An evaluation, and those rows of an earlier one of the same weights that are of other metrics.

    Args:
      earlier: what RUN/evaluation.json says, or None.
    """
    if earlier is None or (earlier["step"], earlier.get("weights") or evaluation.weights) != evaluation[:2]:
        return evaluation
    fresh = {_family(row.metric) for row in evaluation.rows}
    rows = [Row(**{field.name: row[field.name] for field in dataclasses.fields(Row)}) for row in earlier["rows"]]
    rows = [row for row in rows if _family(row.metric) not in fresh]
    weights = earlier.get("weights") if rows else evaluation.weights  # A file of before does not know them.
    return evaluation._replace(weights=weights, rows=rows + evaluation.rows)


def _family(metric: str) -> str:
    """The rows of bits/dim, with those of its terms, classes and mass, are one metric; every other one is its own."""
    return "bits/dim" if metric.startswith(("bits/dim", " ", "mass: ")) else metric


def as_json(evaluation: Evaluation, **more: object) -> str:
    """An `Evaluation`, and what else is to be told, as one JSON object.

    Raises:
      UserError: a number is NaN or infinite.
    """
    for row in evaluation.rows:
        if not all(math.isfinite(number) for number in (row.value, row.spread) if number is not None):
            raise UserError(
                f"{row.metric.strip()} is {row.number} at step {evaluation.step}: the model has diverged. Evaluate an "
                "earlier checkpoint by --step, or train again with a smaller learning rate."
            )
    rows = [dataclasses.asdict(row) for row in evaluation.rows]
    facts = {"step": evaluation.step, "weights": evaluation.weights, "rows": rows, "refused": evaluation.refused}
    return json.dumps({**facts, **more}, allow_nan=False)
