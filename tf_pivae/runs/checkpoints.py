"""Checkpoints that are whole or not there at all.

`RUN/checkpoints/00001000/` holds TensorFlow's own checkpoint files and a manifest with their sizes and SHA-256 sums. It
is written under another name, flushed to the disk, and renamed: a run killed at any moment leaves no half checkpoint
under a final name. A checkpoint whose files no longer match the manifest is skipped with a warning, and so is one with
a NaN or an infinity, which is never written. A manifest can only name files of its own folder.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from tf_pivae.errors import UserError, disk_message, first_line, sentence
from tf_pivae.files import file_sha256, files_below, place_folder, read_json
from tf_pivae.runs.finite import describe_non_finite

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_PART_BYTES = 1 << 28  # TensorFlow holds a second copy of what it reads at a time.
BEST = "best"  # The folder beside `checkpoints` with the one that a `Validation` chose, and its name for `--step`.


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: `RUN/checkpoints`.
      keep: number of newest checkpoints to keep.
    """

    def __init__(self, directory: str | Path, keep: int = 3) -> None:
        self.directory = Path(directory)
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if re.fullmatch(r"\d{8,}", path.name))

    def manifest(self, step: int) -> bytes:
        """What the checkpoint of a step consists of: names, sizes and sums of its files, as JSON.

        Raises:
          UserError: it cannot be read, such as where a training has removed it meanwhile.
        """
        path = self._path(step) / _MANIFEST
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; run the same command again.") from error

    def sums(self) -> dict[int, str]:
        """Step -> what tells its checkpoint from another one of the same step, hexadecimal, ascending."""
        sums = {}
        for step in self.steps():
            with contextlib.suppress(UserError):  # A training has removed it meanwhile.
                sums[step] = hashlib.sha256(self.manifest(step)).hexdigest()[:16]
        return sums

    def most_bytes(self) -> int:
        """Size of the largest file of any checkpoint, 0 without one: no saved model is larger."""
        return max((about.st_size for step in self.steps() for about in files_below(self._path(step))), default=0)

    def save(self, step: int, groups: dict[str, list[keras.Variable]]) -> None:
        """Saves variables under `step`.

        Args:
          groups: dict of a name ("pivae", "critic_optimizer", ...) -> list of Keras variables, in a fixed order.

        Raises:
          UserError: a value is not finite, the disk is full, or the folder cannot be written; earlier checkpoints are
            intact.
        """
        bad = describe_non_finite(groups)
        if bad is not None:
            raise UserError(
                f"step {step} is not saved: {bad}. The same command goes on from the last checkpoint; lower "
                "Trainer.learning_rate if it happens again."
            )
        final = self._path(step)
        partial = final.with_name(f".{final.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with _plain_path(partial) as plain:
                tf.train.Checkpoint(**_named(groups)).write(str(plain / "checkpoint"))
            files = {path.name: _facts(path) for path in sorted(partial.iterdir())}
            manifest = partial / _MANIFEST
            manifest.write_text(json.dumps({"step": int(step), "files": files}, indent=2))
            if final.exists():
                self._remove(final)
            place_folder(partial, final)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = disk_message(error) or sentence(first_line(error))
            raise UserError(
                f"cannot write the checkpoint of step {step}: {reason} Earlier checkpoints are intact."
            ) from error
        steps = self.steps()
        # Later ones were passed over when this training was restored: left there, they would count among the newest.
        newer = [other for other in steps if other > step]
        for other in [*newer, *steps[: len(steps) - len(newer)][: -self.keep]]:
            self._remove(self._path(other))

    def restore(self, groups: dict[str, list[keras.Variable]], step: int | None = None) -> int | None:
        """Restores variables from the newest checkpoint that is whole and finite, or from the one at `step`.

        Args:
          groups: as for `save`; a checkpoint may hold others as well.

        Returns:
          Its step, or None if there is none.

        Raises:
          UserError: there are checkpoints, but none (or not the one asked for) is whole and finite; or none of `step`.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                available = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
                raise UserError(f"no checkpoint of step {step} in {self.directory}: {available}.")
            steps = [step]
        for candidate in reversed(steps):
            damage = self._damage(candidate) or self._read(candidate, groups) or describe_non_finite(groups)
            if damage is None:
                return candidate
            if step is None:
                _log.warning("checkpoint %s is damaged (%s): falling back to the one before it.", candidate, damage)
        if step is None and set(self.steps()) - set(steps):  # A training has saved another and removed these.
            return self.restore(groups)
        if step is not None:
            raise UserError(f"no whole checkpoint of step {step} in {self.directory} ({damage}): choose another step.")
        if steps:
            raise UserError(
                f"no whole checkpoint in {self.directory} ({damage}): train again in a fresh run directory."
            )
        return None

    def difference(self, groups: dict[str, list[keras.Variable]], step: int) -> str | None:
        """How the checkpoint of a step differs from variables, a sentence; None where it holds them all.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return _difference(self._path(step), groups)
        except (OSError, ValueError, tf.errors.OpError) as error:
            path = self._path(step)
            problem = "is damaged" if path.exists() else "was removed while it was read"
            raise UserError(f"{path} {problem}: run the same command again, or choose another step.") from error

    def _path(self, step: int) -> Path:
        return self.directory / f"{int(step):08d}"

    def _remove(self, path: Path) -> None:
        """Removes a checkpoint: another process that reads it finds all of it or nothing under its name."""
        removed = path.with_name(".removed")
        shutil.rmtree(removed, ignore_errors=True)  # Left by a run that was killed.
        with contextlib.suppress(OSError):
            os.replace(path, removed)
        shutil.rmtree(removed, ignore_errors=True)

    def _read(self, step: int, groups: dict[str, list[keras.Variable]]) -> str | None:
        """Reads a checkpoint into variables; why it could not be read where it is gone, else None."""
        path = self._path(step)
        try:
            with _plain_path(path) as plain:
                for part in _parts(_named(groups)):
                    status = tf.train.Checkpoint(**part).read(str(plain / "checkpoint"))
                    status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            if not path.exists():
                return "removed while it was read"
            if "generator_optimizer" in groups and not _has_group(path, "generator_optimizer"):
                run_dir = self.directory.parent
                raise UserError(
                    f"{path} is of a published model, which training cannot go on from: begin with its weights by "
                    f"--gin_param=\"train.initial_run='{run_dir}'\" in another --run_dir."
                ) from error
            reason = _difference(path, groups) or first_line(error)
            raise UserError(f"{path} holds a model of another architecture: {sentence(reason)}") from error
        return None

    def _damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint, or None."""
        path = self._path(step)
        try:
            files = read_json(path / _MANIFEST)["files"]
            if not files or set(files) != {entry.name for entry in path.glob("checkpoint*")}:
                return f"{_MANIFEST} does not list the files beside it"
            for name, facts in files.items():
                if not _is_file_of(path / name, facts["bytes"]) or _facts(path / name) != facts:
                    return f"{name} has changed since it was written"
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{path / _MANIFEST} is damaged: {first_line(error)}"
        return None


def of_run(run_dir: Path, step: int | str | None) -> Checkpoints:
    """The checkpoints of a run among which the one of `step` lies: its newest, or for `BEST` that one alone."""
    return Checkpoints(run_dir / (BEST if step == BEST else "checkpoints"))


@contextlib.contextmanager
def _plain_path(path: Path) -> Iterator[Path]:
    """The folder under a path that TensorFlow can read: it takes "[1]" and "*" in a checkpoint's path for patterns."""
    if not re.search(r"[][*?\\]", str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "checkpoint"
        link.symlink_to(path.absolute())
        yield link


def _is_file_of(path: Path, size: int) -> bool:
    about = path.stat()
    return stat.S_ISREG(about.st_mode) and about.st_size == size


def _named(groups: dict[str, list[keras.Variable]]) -> dict[str, dict[str, tf.Variable]]:
    """Every variable under its group, number and path, for TensorFlow's checkpoint.

    TensorFlow's own walk through Keras 3 objects leaves out layers that are kept in lists, hence the explicit names.
    """
    return {
        group: {f"{i:04d} {variable.path}": variable.value for i, variable in enumerate(variables)}
        for group, variables in groups.items()
    }


def _parts(named: dict[str, dict[str, tf.Variable]]) -> Iterator[dict[str, dict[str, tf.Variable]]]:
    """The same variables, about `_PART_BYTES` of them at a time; one that is larger comes alone."""
    part: dict[str, dict[str, tf.Variable]] = {}
    num_bytes = 0
    for group, variables in named.items():
        for name, variable in variables.items():
            size = math.prod(variable.shape) * variable.dtype.size
            if part and num_bytes + size > _PART_BYTES:
                yield part
                part = {}
                num_bytes = 0
            part.setdefault(group, {})[name] = variable
            num_bytes += size
    yield part


def _has_group(path: Path, group: str) -> bool:
    """Whether a checkpoint holds any variable of a group."""
    with _plain_path(path) as plain:
        names = tf.train.load_checkpoint(str(plain / "checkpoint")).get_variable_to_shape_map()
    return any(name.startswith(f"{group}/") for name in names)


def _difference(path: Path, groups: dict[str, list[keras.Variable]]) -> str | None:
    """The first variable that a checkpoint has not, or has in another shape, and how many there are; None if none."""
    with _plain_path(path) as plain:
        shapes = tf.train.load_checkpoint(str(plain / "checkpoint")).get_variable_to_shape_map()
    differences = []
    for group, variables in groups.items():
        for i, variable in enumerate(variables):
            name = f"{i:04d} {variable.path}".replace(".", "..").replace("/", ".S")  # As TensorFlow writes it.
            shape = shapes.get(f"{group}/{name}/.ATTRIBUTES/VARIABLE_VALUE")
            if shape is None:
                differences.append(f"it has no {variable.path}")
            elif shape != list(variable.shape):
                differences.append(f"{variable.path} is {shape} there and {list(variable.shape)} here")
    others = f", and {len(differences) - 1} more differ" if len(differences) > 1 else ""
    return f"{differences[0]}{others}." if differences else None


def _facts(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
