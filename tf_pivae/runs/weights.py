"""The weights of a run, read into a model that was built for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tf_pivae.errors import UserError
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.pretrained import resolve
from tf_pivae.runs.records import load_facts

if TYPE_CHECKING:
    from tf_pivae.models.pivae import PiVAE


def restore_model(run_dir: str | Path, model: PiVAE, step: int | None = None, moving_average: bool = True) -> int:
    """Reads a run's weights.

    Args:
      run_dir, step, moving_average: as for `load`.
      model: `PiVAE` of the same architecture, which gets them.

    Returns:
      int, the checkpoint's step.

    Raises:
      UserError: no whole checkpoint, or one of another architecture.
    """
    checkpoints = Checkpoints(resolve(run_dir) / "checkpoints")
    averaged = moving_average and load_facts(run_dir)["moving_average"]
    step = checkpoints.restore({"moving_average" if averaged else "pivae": model.variables}, step)
    if step is None:
        raise UserError(f"no checkpoint in {checkpoints.directory} yet: wait for the first, or train on.")
    return step
