"""The sweep command behind its flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_pivae import figures
from tf_pivae.errors import UserError, sentence
from tf_pivae.sweep import launch, picture, results, runner, space
from tf_pivae.sweep.plan import plan, stages
from tf_pivae.sweep.trials import FAILED, FINISHED
from tf_pivae.sweep.view import summary, view
from tf_pivae.system.startup import require_extra

if TYPE_CHECKING:
    from PIL import Image

    from tf_pivae.sweep.trials import Record, Trial
SOME_FAILED = 3  # The command's exit status.


def sweep(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    axes: Sequence[str],
    *,
    sweep_dir: str | None,
    mode: str,
    num_trials: int | None,
    sweep_seed: int,
    max_parallel: int,
    metrics: Sequence[str],
    launcher: str,
    cpus_per_trial: int | None,
    gpus_per_trial: int,
    ray_address: str | None,
    flags: Sequence[str],
) -> int:
    """Runs a sweep, or what is left of it; the arguments are the command's flags.

    Args:
      flags: further ones, for the commands of every trial.

    Returns:
      The exit status: 0, `SOME_FAILED`, or 128 and the number of the signal that stopped it.

    Raises:
      UserError: a mistake found before the first trial starts, or no trial finished.
    """
    if not sweep_dir:
        raise UserError("give --sweep_dir=DIR, the folder of the sweep.")
    if metrics:
        from tf_pivae.evaluate import image_metrics

        image_metrics.Settings(metrics=tuple(metrics))  # checks the names
    axes = [space.parse_axis(text) for text in axes]
    if launcher == "ray":
        require_extra("ray", "ray")
    with runner.hold(sweep_dir):
        planned = plan(gin_files, gin_params, axes, mode, num_trials, sweep_seed, sweep_dir)
        trials = {trial: num_steps for trial, (_, num_steps) in planned.items()}
        commands = stages(metrics, flags)
        waiting = runner.pending(trials, commands)
        stopped_by = None
        if waiting:
            parallel = min(max_parallel, len(waiting))
            start = _local if launcher == "local" else _ray
            launched = start(parallel, cpus_per_trial, gpus_per_trial, ray_address)
        try:
            for trial, (config, _) in planned.items():
                trial.claim(config)
            if waiting:
                with view(trials) as display:
                    stopped_by = runner.run_all(trials, waiting, commands, launched, display)
        finally:
            if waiting:
                launched.close()
        rows = write_results(sweep_dir, list(trials))
        report(sweep_dir, rows, {trial: trial.read() for trial in trials})
    if stopped_by is not None:
        return 128 + stopped_by
    failed = [values for values in rows if values["status"] == FAILED]
    if len(failed) == len(rows):
        raise UserError(sentence(f"no trial finished; the first failed with: {rows[0]['error']}"))
    return SOME_FAILED if failed else 0


def _local(parallel, threads, gpus, address):
    import tensorflow as tf

    num_gpus = len(tf.config.list_physical_devices("GPU"))
    environments = launch.local_environments(parallel, num_gpus, threads)
    each = environments[0]["OMP_NUM_THREADS"]
    print(f"{parallel} at a time, {each} threads each" + f", {num_gpus} GPUs shared" * bool(num_gpus), flush=True)
    return launch.LocalLauncher(environments)


def _ray(parallel, threads, gpus, address):
    print(f"{parallel} at a time on Ray, {threads or 1} CPUs and {gpus} GPUs each", flush=True)
    return launch.RayLauncher(parallel, threads or 1, gpus, address)


def write_results(sweep_dir: str | Path, trials: list[Trial]) -> list[dict]:
    """Writes `results.csv`, `sweep.png` and the HParams, of earlier trials too; returns the rows of these trials."""
    earlier = results.earlier_trials(sweep_dir, [name for name, _ in trials[0].settings])
    here = len(trials)
    trials = list(dict.fromkeys([*trials, *earlier]))
    rows = [results.row(trial) for trial in trials]
    results.write_csv(Path(sweep_dir) / results.RESULTS, rows)
    results.write_hparams(sweep_dir, trials, rows)
    image = draw(rows, [name for name, _ in trials[0].settings])
    if image is None:
        (Path(sweep_dir) / "sweep.png").unlink(missing_ok=True)
    else:
        figures.save_png(image, Path(sweep_dir) / "sweep.png")
    return rows[:here]


def draw(rows: list[dict], settings: Sequence[str]) -> Image.Image | None:
    """The parallel coordinates of the finished trials, or None where no trial has a number to show.

    Args:
      rows: list of `results.row`.
      settings: names of the swept settings.
    """
    metrics = results.metric_columns(rows)
    finished = [values for values in rows if values["status"] == FINISHED]
    whole = [values for values in finished if all(values.get(name) is not None for name in metrics)]
    if not metrics or not whole:
        return None
    axes = [picture.axis(name, [results.plain(values[name]) for values in whole]) for name in settings]
    axes += [picture.axis(name.removeprefix("evaluation/"), [values[name] for values in whole]) for name in metrics]
    judge = axes[len(settings)].positions
    larger_is_better = any(word in metrics[0] for word in ("Inception Score", "GAN-"))
    shades = [1.0 - place if larger_is_better else place for place in judge]
    if len(set(shades)) == 1:
        shades = [0.0] * len(shades)
    note = f"from the best {axes[len(settings)].title} in blue to the worst in orange"
    if len(whole) < len(rows):
        note += f"; {len(rows) - len(whole)} not finished or without numbers, left out"
    title = f"{len(whole)} of {len(rows)} trials"
    return picture.parallel_coordinates(axes, shades, title, note)


def report(sweep_dir: str | Path, rows: list[dict], records: dict[Trial, Record]) -> None:
    """Prints where the results are and what went wrong."""
    for values in rows:
        if values["status"] == FAILED:
            print(f"failed: {values['trial']} (exit status {values['exit_status']}): {values['error']}")
    print(f"{summary(records)}\nresults: {Path(sweep_dir) / 'results.csv'}")
    if (Path(sweep_dir) / "sweep.png").exists():
        print(f"picture: {Path(sweep_dir) / 'sweep.png'}")
    print(f"HParams: tensorboard --logdir {sweep_dir}")
