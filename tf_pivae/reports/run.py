"""What a run directory holds, read once."""

import dataclasses
from pathlib import Path

from tf_pivae.files import read_records, read_text
from tf_pivae.training import runs
from tf_pivae.training.pretrained import resolve


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's records; the model and the data are loaded by `views`."""

    name: str  # the shortest that tells it from the others
    path: Path
    facts: dict  # RUN/data.json
    config: str  # RUN/config.gin
    num_steps: int  # of the finished run
    batch_size: int
    metrics: list  # of dicts, the lines of RUN/metrics.jsonl
    evaluation: dict | None  # RUN/evaluation.json
    evaluations: list  # of dicts, the lines of RUN/evaluations.jsonl
    environments: list  # of dicts, RUN/environment.json

    @property
    def step(self):
        """The last step with metrics; 0 before the first."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def finished(self):
        return self.step >= self.num_steps


def read_runs(run_dirs):
    """Reads run directories.

    Returns:
      list of `Run`.

    Raises:
      UserError: no run in one of them, or a configuration that cannot be read.
    """
    paths = [resolve(run_dir) for run_dir in run_dirs]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _read(path, name):
    facts = runs.load_facts(path)
    return Run(
        name=name,
        path=path,
        facts=facts,
        config=read_text(path / "config.gin"),
        num_steps=runs.load_num_steps(path),
        batch_size=runs.load_batch_size(path),
        metrics=read_records(path / "metrics.jsonl"),
        evaluation=runs.load_evaluation(path),
        evaluations=read_records(path / "evaluations.jsonl"),
        environments=runs.load_environments(path),
    )


def _names(paths):
    """The folders' names; the whole paths where two are the same, numbered where those are the same too."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{i + 1}: {name}" for i, name in enumerate(names)]
    return names
