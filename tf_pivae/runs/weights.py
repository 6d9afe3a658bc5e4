"""The weights of a run, read into a model that was built for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_pivae import arguments
from tf_pivae.errors import UserError
from tf_pivae.runs.checkpoints import BEST, of_run
from tf_pivae.runs.pretrained import resolve
from tf_pivae.runs.records import load_facts

if TYPE_CHECKING:
    from tf_pivae.models.critic import Critic
    from tf_pivae.models.pivae import PiVAE


def restore_model(run_dir: str | Path, model: PiVAE, step: int | str | None = None, moving_average: bool = True) -> int:
    """Reads a run's weights.

    Args:
      run_dir, step, moving_average: as for `load`.
      model: `PiVAE` of the same architecture, which gets them.

    Returns:
      int, the checkpoint's step.

    Raises:
      UserError: no whole checkpoint, or one of another architecture.
      ValueError: a step that is no whole number.
    """
    facts = load_facts(run_dir)
    for name, theirs, ours in (
        ("images", "x".join(map(str, facts["image_shape"])), "x".join(map(str, model.image_shape))),
        ("classes", facts["num_classes"], model.num_classes),
        ("levels", facts["num_bins"], model.num_bins),
    ):
        if theirs != ours:
            raise UserError(
                f"{run_dir} is a model of {theirs} {name}, this is one of {ours}: prepare your data like those of that "
                f"run, and put --gin_file={resolve(run_dir) / 'config.gin'} first, so that its settings hold."
            )
    if isinstance(step, str) and step != BEST:
        raise UserError(f"no checkpoint {step!r}: give a step, or {BEST!r}.")
    if step is not None and step != BEST:
        arguments.whole_numbers(0, step=step)
        step = int(step)
    checkpoints = of_run(resolve(run_dir), step)
    group = "moving_average" if moving_average and facts["moving_average"] else "pivae"
    restored = checkpoints.restore({group: model.variables}, step if isinstance(step, int) else None)
    if restored is None and step == BEST:
        raise UserError(f"no best checkpoint in {checkpoints.directory}: train with options/validation.gin.")
    if restored is None:
        raise UserError(f"no checkpoint in {checkpoints.directory} yet: wait for the first, or train on.")
    return restored


def digest(model: PiVAE) -> str:
    """What tells a model's weights from any others, wherever they lie: the beginning of their SHA-256, hexadecimal."""
    total = hashlib.sha256()
    for variable in model.variables:
        total.update(np.ascontiguousarray(variable.numpy()))
    return total.hexdigest()[:16]


def restore_critic(run_dir: str | Path, critic: Critic, step: int) -> str | None:
    """Reads the weights of a run's critic, where it has one of this architecture.

    Args:
      run_dir: as for `load`.
      critic: `Critic` with its variables, which gets them, or stays as it is.
      step: one of the run's checkpoints, as `restore_model` returns it.

    Returns:
      None; or why it stays as it is: a sentence that names the first variable that differs.

    Raises:
      UserError: no whole checkpoint of this step.
    """
    checkpoints = of_run(resolve(run_dir), step)
    groups = {"critic": critic.variables}
    difference = checkpoints.difference(groups, step)
    if difference is None:
        checkpoints.restore(groups, step)
    return difference
