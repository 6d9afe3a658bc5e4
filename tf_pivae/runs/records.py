"""What the small files of a run say: its facts, its machines, its evaluation."""

from pathlib import Path
from typing import Annotated

from tf_pivae.errors import UserError
from tf_pivae.files import read_json
from tf_pivae.runs.pretrained import pretrained, resolve
from tf_pivae.values import Within, is_record

_Side = Annotated[int, Within(1, 1 << 14)]
_FACTS = {
    "name": str,
    "image_shape": tuple[_Side, _Side, Annotated[int, Within(1, 1 << 10)]],
    "num_classes": Annotated[int, Within(0, 1 << 20)],
    "num_bins": Annotated[int, Within(2, 256)],
    "moving_average": bool,
    "likelihood": bool,
    "inference_only": bool,
}
_ROW = {
    "metric": str,
    "value": float,
    "spread": float | None,
    "protocol": str,
    "approximate": bool,
}


def load_facts(run_dir: str | Path) -> dict:
    """What `RUN/data.json` says: image shape, classes, what was trained.

    Raises:
      UserError: there is no run, or the file is damaged.
    """
    path = resolve(run_dir) / "data.json"
    if not path.with_name("config.gin").exists():
        raise UserError(
            f"no run in {run_dir}: it has no config.gin, which tf_pivae.train writes. The models that come with "
            f"the package: {', '.join(pretrained()) or 'none'}."
        )
    if not path.exists():
        raise UserError(f"{path} is missing: the command that trained this run writes it again.")
    try:
        facts = read_json(path)
    except ValueError:
        facts = None
    names = facts.setdefault("class_names", []) if isinstance(facts, dict) else None  # Not in runs of before.
    if not is_record(facts, _FACTS) or not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{path} is damaged: remove it, then the command that trained this run writes it again.")
    return facts


def load_environments(run_dir: str | Path) -> list[dict]:
    """What `RUN/environment.json` says: a list of dicts of strings, and "from_step"; empty where there is none."""
    try:
        environments = read_json(resolve(run_dir) / "environment.json")
    except (UserError, ValueError):
        return []  # A run is not refused for a file that is missing or another program's.
    if not isinstance(environments, list) or not all(is_record(start, {"from_step": int}) for start in environments):
        return []
    return [{k: v for k, v in start.items() if k == "from_step" or isinstance(v, str)} for start in environments]


def load_evaluation(run_dir: str | Path, step: int | None = None, weights: str | None = None) -> dict | None:
    """What `RUN/evaluation.json` says, a dict; None where it is missing, or speaks of other weights.

    Args:
      run_dir: folder of the run.
      step: a checkpoint's; None is any.
      weights: its `runs.weights.digest`, which files of before do not have; None is any.

    Raises:
      UserError: the file is damaged.
    """
    path = resolve(run_dir) / "evaluation.json"
    if not path.exists():
        return None
    try:
        evaluation = read_json(path)
    except ValueError:
        evaluation = None
    if not is_record(evaluation, {"step": int, "rows": list}) or not all(
        is_record(row, _ROW) for row in evaluation["rows"]
    ):
        raise UserError(f"{path} is damaged: remove it, then evaluate again.")
    same = step in (None, evaluation["step"]) and weights in (None, evaluation.get("weights") or weights)
    return evaluation if same else None
