"""Which trials a sweep consists of, and what is run for each."""

from collections.abc import Sequence
from pathlib import Path

from tf_pivae import configuration, loading
from tf_pivae.errors import UserError
from tf_pivae.sweep import names, results, space
from tf_pivae.sweep.trials import Trial, TrialStage


def plan(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    axes: Sequence[space.Axis],
    mode: str,
    num_trials: int | None,
    sweep_seed: int,
    sweep_dir: str,
) -> dict[Trial, tuple[str, int]]:
    """The trials of a sweep, every configuration parsed, none started.

    Args:
      gin_files, gin_params: the configuration that the trials share.
      axes: list of `space.Axis`.
      mode: "grid" or "random".
      num_trials, sweep_seed: of the random mode.
      sweep_dir: the sweep's folder.

    Returns:
      dict `Trial` -> (its configuration, its number of train steps).

    Raises:
      UserError: anything wrong with the axes or with the configuration of any trial.
    """
    from tf_pivae.training.recipe import Recipe

    space.check_axes(axes)
    loading.parse_gin(gin_files, gin_params)
    axes = [axis._replace(name=names.resolve(axis.name)) for axis in axes]
    space.check_axes(axes)
    results.check_axes(sweep_dir, [axis.name for axis in axes])
    if mode == "grid" and num_trials:
        raise UserError("--num_trials belongs to --mode=random; a grid runs every combination.")
    settings = space.grid(axes) if mode == "grid" else space.random(axes, num_trials, sweep_seed)
    unread = {axis.name for axis in axes}
    configurations = {}
    for values in settings:
        trial = Trial(values, str(Path(sweep_dir).absolute()))
        text = _configure(trial, gin_files, gin_params)
        unread = {name for name in unread if not names.in_use(name)}
        configurations[trial] = text, Recipe().num_steps
    if unread:
        raise UserError(f"no trial uses {' or '.join(sorted(unread))}: all values would give the same run.")
    for trial in results.earlier_trials(sweep_dir, [axis.name for axis in axes]):
        trial.claim(_configure(trial, gin_files, gin_params))  # They share a table: they must share a configuration.
    return configurations


def _configure(trial, gin_files, gin_params):
    """Parses the configuration of a trial; returns its text."""
    try:
        loading.parse_gin(gin_files, [*gin_params, *(f"{name}={value}" for name, value in trial.settings)])
    except UserError as error:
        raise UserError(f"trial {trial.name}: {error}") from error
    return configuration.text()


def stages(metrics: Sequence[str], flags: Sequence[str] = ()) -> list[TrialStage]:
    """What is run for every trial: the training, and an evaluation if there are `metrics`; with `flags` both."""
    training = [TrialStage("train", "train", tuple(flags))]
    if not metrics:
        return training
    listed = ",".join(metrics)
    return [*training, TrialStage(f"evaluate {listed}", "evaluate", (f"--metrics={listed}", *flags))]
