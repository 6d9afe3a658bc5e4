"""What a run directory holds, read once."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_pivae import loading
from tf_pivae.files import read_records, read_text
from tf_pivae.runs import changes, records
from tf_pivae.runs.pretrained import resolve

_LARGEST_STEP = 2**53  # The page's scripts count in float64.


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's records; the model and the data are loaded by `views`."""

    name: str  # the shortest that tells it from the others
    path: Path
    facts: dict[str, Any]  # RUN/data.json
    config: str  # RUN/config.gin
    num_steps: int  # of the finished run
    batch_size: int
    adversary: bool  # `loading.has_adversary`
    metrics: list[dict[str, Any]]  # the lines of RUN/metrics.jsonl: numbers, and None where one was not finite
    evaluation: dict[str, Any] | None  # RUN/evaluation.json
    evaluations: list[dict[str, Any]]  # the lines of RUN/evaluations.jsonl
    environments: list[dict[str, Any]]  # RUN/environment.json
    changes: Sequence[dict[str, Any]] = ()  # RUN/changes.json

    @property
    def step(self) -> int:
        """The last step with metrics; 0 before the first, and where the folder came without its metrics."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def dimensions(self) -> int:
        """D, the numbers of an image."""
        return math.prod(self.facts["image_shape"])

    def state(self, checkpoint_step: int | None) -> str:
        """How far the training got, in words.

        Args:
          checkpoint_step: of the newest checkpoint, which a published model has without any metrics; None without one.
        """
        reached = max(self.step, checkpoint_step or 0)
        if reached < self.num_steps:
            return f"{reached:,} of {self.num_steps:,} steps, unfinished"
        return f"finished, {reached:,} steps"


def read_runs(run_dirs: Sequence[str | Path]) -> list[Run]:
    """Reads run directories.

    Raises:
      UserError: no run in one of them, or a configuration that cannot be read.
    """
    paths = [resolve(run_dir) for run_dir in run_dirs]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _read(path: Path, name: str) -> Run:
    facts = records.load_facts(path)
    recipe = loading.recipe_of(path)
    return Run(
        name=name,
        path=path,
        facts=facts,
        config=read_text(path / "config.gin"),
        num_steps=recipe.num_steps,
        batch_size=recipe.batch_size,
        adversary=loading.has_adversary(path),
        metrics=[_numbers(line) for line in _lines(path / "metrics.jsonl")],
        evaluation=records.load_evaluation(path),
        evaluations=_lines(path / "evaluations.jsonl"),
        environments=records.load_environments(path),
        changes=changes.history(path),
    )


def as_list(value: Any) -> list[Any]:
    """The value if it is a list, and an empty one if not."""
    return value if isinstance(value, list) else []


def is_number(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and abs(value) < sys.float_info.max


def _numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value if is_number(value) else None for key, value in line.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file, but those of steps that cannot be drawn."""
    return [record for record in read_records(path) if 0 <= record["step"] < _LARGEST_STEP]


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; the whole paths where two are the same, numbered where those are the same too."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{i + 1}: {name}" for i, name in enumerate(names)]
    return names
