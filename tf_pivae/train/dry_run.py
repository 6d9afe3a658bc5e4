"""A training up to its first step, which says what it would do and writes nothing."""

import os
import shutil
from pathlib import Path
from typing import Any

from tf_pivae.data import cache
from tf_pivae.data.specification import Specification, specification
from tf_pivae.errors import UserError
from tf_pivae.files import existing
from tf_pivae.runs.changes import Changes, lines
from tf_pivae.runs.checkpoints import Checkpoints
from tf_pivae.runs.directory import in_use
from tf_pivae.runs.listing import is_locked
from tf_pivae.training.building import num_elements
from tf_pivae.training.loop import train
from tf_pivae.training.recipe import Recipe
from tf_pivae.training.recorder import NoRecorder, compared
from tf_pivae.training.workers import local_strategy


class Rehearsal(NoRecorder):
    """Makes the checks of a `Recorder`, for `train`, and leaves nothing behind.

    Args:
      run_dir: folder of the run, which need not exist.
      keep_checkpoints: number of newest checkpoints to keep.
      loggers: are not made.
      from_here: as for a `Recorder`.

    Raises:
      UserError: the folder could not be written, or another process holds it.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], keep_checkpoints: int, loggers: object, from_here: bool
    ) -> None:
        self.path = Path(run_dir)
        self.keep_checkpoints = keep_checkpoints
        self.changes = Changes({}, {})
        self._from_here = from_here
        self.facts: dict[str, Any] = {}
        self.weights: dict[str, int] = {}
        self.checkpoint_bytes = 0
        self.restored: int | None = None
        self.plan: tuple[int, int, int] | None = None
        _check_folder(self.path)

    def claim(self, facts: dict[str, Any]) -> None:
        """Compares the configuration with that of the run that would be continued."""
        self.changes = compared(self.path, self._from_here)[1]
        self.facts = facts

    def restore(self, state: dict[str, Any]) -> int | None:
        """Reads the checkpoint from which the run would go on, and checks that the disk has room for the next ones."""
        self.weights, self.checkpoint_bytes = _sizes(state)
        _check_disk(self.path, self.checkpoint_bytes * (self.keep_checkpoints + 1))
        self.restored = Checkpoints(self.path / "checkpoints").restore(state)
        return self.restored

    def start(self, start_step: int, num_steps: int, batch_size: int) -> bool:
        """Notes what would be done; False: the training ends here."""
        self.plan = start_step, num_steps, batch_size
        return False


def rehearse(recipe: Recipe, run_dir: str | os.PathLike[str], from_here: bool = False) -> str:
    """Does what `train` does up to the first step, on one machine.

    Where the data set would have to be downloaded or prepared first, the model is built for what is known of it.

    Args:
      recipe: what the run consists of.
      run_dir: folder of the run, which need not exist.
      from_here: a run that goes on takes other settings.

    Returns:
      str, what would be done, some lines.

    Raises:
      UserError: whatever `train` would refuse before its first step, and a disk without room for its checkpoints.
    """
    rehearsals: list[Rehearsal] = []

    def recorder(run_dir: str | os.PathLike[str], keep_checkpoints: int, loggers: object) -> Rehearsal:
        rehearsals.append(Rehearsal(run_dir, keep_checkpoints, loggers, from_here))
        return rehearsals[0]

    strategy = local_strategy()
    try:
        with cache.reading_only():
            train(recipe, Path(run_dir), strategy, recorder)
            data = recipe.dataset()
    except cache.NotPrepared:
        return _unprepared(recipe, run_dir)
    rehearsal = rehearsals[0]
    replicas = strategy.num_replicas_in_sync
    assert rehearsal.plan is not None
    start, last, batch = rehearsal.plan
    passes = (last - start) * batch / len(data.train)
    todo = f"{last - start} steps, {start} to {last}, of {batch} images on {replicas} replica{'s' * (replicas > 1)}"
    if start >= last:
        todo = f"none, step {start} of {last} is reached: the evaluation and the pictures alone"
    return "\n".join(
        [
            f"would train in {run_dir}",
            f"  data:         {data.name}, {'x'.join(map(str, data.image_shape))}, {len(data.train):,} training and "
            f"{len(data.test):,} test images",
            f"  variables:    {', '.join(f'{name} {count:,}' for name, count in rehearsal.weights.items())}",
            f"  to do:        {todo}" + f" ({passes:.1f} passes over the training images)" * (start < last),
            f"  run:          {'new' if rehearsal.restored is None else f'goes on from step {rehearsal.restored}'}",
            *(["  other settings than before:"] if rehearsal.changes.free or rehearsal.changes.others else []),
            *lines(rehearsal.changes),
            _disk_line(rehearsal.path, rehearsal.checkpoint_bytes, rehearsal.keep_checkpoints),
            "nothing was written",
        ]
    )


def _unprepared(recipe: Recipe, run_dir: str | os.PathLike[str]) -> str:
    """The plan where the images are not there yet."""
    data = specification(recipe.dataset)
    weights, num_bytes = _sizes(recipe.build(data).state)
    _check_disk(Path(run_dir), num_bytes * (recipe.keep_checkpoints + 1))
    return "\n".join(
        [
            f"would prepare {data.name} first (python -m tf_pivae.prepare does that alone), then train in {run_dir}",
            f"  data:         {data.name}, {'x'.join(map(str, data.image_shape))}, {_counts(data)}",
            f"  variables:    {', '.join(f'{name} {count:,}' for name, count in weights.items())}",
            f"  to do:        steps up to {recipe.num_steps} of {recipe.batch_size} images",
            _disk_line(Path(run_dir), num_bytes, recipe.keep_checkpoints),
            "nothing was downloaded or written",
        ]
    )


def _counts(data: Specification) -> str:
    if data.num_train is None or data.num_test is None:
        return "as many images as the download turns out to have"
    return f"up to {data.num_train:,} training and {data.num_test:,} test images"


def _sizes(state: dict[str, Any]) -> tuple[dict[str, int], int]:
    """How many numbers model and critic have, a dict, and the bytes of a checkpoint of a `Trainer`'s state."""
    weights: dict[str, int] = {name: num_elements(state[name]) for name in ("pivae", "critic") if name in state}
    return weights, sum(v.value.dtype.size * num_elements([v]) for group in state.values() for v in group)


def _disk_line(path: Path, num_bytes: int, keep: int) -> str:
    free = shutil.disk_usage(existing(path)).free
    return f"  checkpoints:  {num_bytes / 1e6:.1f} MB each, {keep} kept; {free / 1e9:.1f} GB free"


def _check_folder(path: Path) -> None:
    folder = existing(path)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot use {path} as a run directory: {folder} is not a folder that can be written.")
    if is_locked(path):
        raise in_use(path)


def _check_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(existing(path)).free
    if needed > free:
        raise UserError(
            f"the checkpoints need {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free where {path} lies: make "
            "room, or choose another --run_dir."
        )
