"""Checkpoints that are whole or not there at all.

`RUN/checkpoints/00001000/` holds TensorFlow's own checkpoint files and a manifest with their sizes and SHA-256 sums. It
is written under another name, flushed to the disk, and renamed: a run killed at any moment leaves no half checkpoint
under a final name. A checkpoint whose files no longer match the manifest is passed over, aloud, and so is one with a
value that is not finite; none such is written.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path

import tensorflow as tf

from tf_pivae.errors import UserError, disk_message
from tf_pivae.training.finite import describe_non_finite

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: `RUN/checkpoints`.
      keep: number of newest checkpoints to keep.
    """

    def __init__(self, directory, keep=3):
        self.directory = Path(directory)
        self.keep = keep

    def steps(self):
        """Steps with a checkpoint, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if re.fullmatch(r"\d{8,}", path.name))

    def save(self, step, groups):
        """Saves variables under `step`.

        Args:
          step: int.
          groups: dict of a name ("pivae", "critic_optimizer", ...) -> list of Keras variables, in a fixed order.

        Raises:
          UserError: a value is not finite, the disk is full, or the folder cannot be written; earlier checkpoints are
            intact.
        """
        bad = describe_non_finite(groups)
        if bad is not None:
            raise UserError(
                f"step {step} is not saved: {bad}. The same command goes on from the last checkpoint; lower "
                "Trainer.learning_rate if it comes to this again."
            )
        final = self._path(step)
        partial = final.with_name(f".{final.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _checkpoint(groups).write(str(partial / "checkpoint"))
            files = {path.name: _facts(path) for path in sorted(partial.iterdir())}
            manifest = partial / _MANIFEST
            manifest.write_text(json.dumps({"step": int(step), "files": files}, indent=2))
            for path in [*partial.iterdir(), partial]:
                _flush(path)
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
            _flush(self.directory)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = disk_message(error) or f"{str(error).splitlines()[0]}."
            raise UserError(
                f"cannot write the checkpoint of step {step}: {reason} Earlier checkpoints are intact."
            ) from error
        steps = self.steps()
        # Later ones were passed over when this training was restored: left there, they would count among the newest.
        newer = [other for other in steps if other > step]
        for other in [*newer, *steps[: len(steps) - len(newer)][: -self.keep]]:
            shutil.rmtree(self._path(other), ignore_errors=True)

    def restore(self, groups, step=None):
        """Restores variables from the newest checkpoint that is whole and finite, or from the one at `step`.

        Args:
          groups: as for `save`; a checkpoint may hold others as well.
          step: int, or None.

        Returns:
          Its step, or None if there is none.

        Raises:
          UserError: there are checkpoints, but none (or not the one asked for) is whole and finite; or none of `step`.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                there = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
                raise UserError(f"no checkpoint of step {step} in {self.directory}: {there}.")
            steps = [step]
        for candidate in reversed(steps):
            damage = self._damage(candidate)
            if damage is None:
                try:
                    status = _checkpoint(groups).read(str(self._path(candidate) / "checkpoint"))
                    status.assert_existing_objects_matched().expect_partial()
                except (AssertionError, ValueError) as error:
                    raise UserError(
                        f"{self._path(candidate)} holds a model of another architecture: {str(error).splitlines()[0]}"
                    ) from error
                damage = describe_non_finite(groups)
                if damage is None:
                    return candidate
            _log.warning("checkpoint %s is damaged (%s): falling back to the one before it.", candidate, damage)
        if steps:
            raise UserError(f"no whole checkpoint in {self.directory}: train again in a fresh run directory.")
        return None

    def _path(self, step):
        return self.directory / f"{int(step):08d}"

    def _damage(self, step):
        """What is wrong with a checkpoint, or None."""
        path = self._path(step)
        try:
            files = json.loads((path / _MANIFEST).read_text())["files"]
            for name, facts in files.items():
                if _facts(path / name) != facts:
                    return f"{name} has changed since it was written"
        except (OSError, ValueError, KeyError) as error:
            return str(error)
        return None


def _checkpoint(groups):
    """TensorFlow's checkpoint of every variable under its group, number and path.

    TensorFlow's own walk through Keras 3 objects leaves out layers that are kept in lists, hence the explicit names.
    """
    named = {
        group: {f"{i:04d} {variable.path}": variable.value for i, variable in enumerate(variables)}
        for group, variables in groups.items()
    }
    return tf.train.Checkpoint(**named)


def _facts(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
