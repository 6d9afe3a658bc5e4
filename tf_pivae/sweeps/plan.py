"""Which trials a sweep consists of, and what is run for each."""

import copy
from pathlib import Path

import gin

from tf_pivae import cli
from tf_pivae.errors import UserError
from tf_pivae.sweeps import names, results, space
from tf_pivae.sweeps.trials import Stage, Trial


def plan(gin_files, gin_params, axes, mode, num_trials, sweep_seed, sweep_dir):
    """The trials of a sweep, every configuration parsed, none started.

    Args:
      gin_files, gin_params: the configuration that the trials share.
      axes: list of `space.Axis`.
      mode: "grid" or "random".
      num_trials, sweep_seed: of the random mode.
      sweep_dir: the sweep's folder.

    Returns:
      dict `Trial` -> its number of train steps. The trials' folders hold their configurations.

    Raises:
      UserError: anything wrong with the axes or with the configuration of any trial.
    """
    space.check_axes(axes)
    cli.parse_gin(gin_files, gin_params)
    axes = [axis._replace(name=names.resolve(axis.name)) for axis in axes]
    space.check_axes(axes)
    results.check_axes(sweep_dir, [axis.name for axis in axes])
    if mode == "grid" and num_trials:
        raise UserError("--num_trials belongs to --mode=random; a grid has as many as its product.")
    settings = space.grid(axes) if mode == "grid" else space.random(axes, num_trials, sweep_seed)
    unread = {axis.name for axis in axes}
    configurations = {}
    for chosen in settings:
        trial = Trial(chosen, str(Path(sweep_dir).absolute()))
        try:
            cli.parse_gin(gin_files, [*gin_params, *(f"{name}={value}" for name, value in chosen)])
        except UserError as error:
            raise UserError(f"trial {trial.name}: {error}") from error
        unread = {name for name in unread if not names.in_use(name)}
        configurations[trial] = cli.config_text(), _num_steps()
    if unread:
        raise UserError(f"no trial reads {' or '.join(sorted(unread))}: all values would give the same run.")
    for trial, (configuration, _) in configurations.items():
        trial.claim(configuration)
    return {trial: num_steps for trial, (_, num_steps) in configurations.items()}


def stages(metrics):
    """What is run for every trial: the training, and an evaluation if there are `metrics` (list of str)."""
    training = [Stage("train", "train")]
    if not metrics:
        return training
    listed = ",".join(metrics)
    return [*training, Stage(f"evaluate {listed}", "evaluate", (f"--metrics={listed}",))]


def _num_steps():
    try:
        return copy.deepcopy(gin.query_parameter("train.num_steps"))  # gin gives the value behind a macro to copies.
    except ValueError:
        return None
