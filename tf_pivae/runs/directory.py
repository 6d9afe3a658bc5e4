"""A run directory: its configuration and its lock.

RUN/config.gin          the operative configuration: what was built, from which values
RUN/changes.json        which settings changed, and from which step on, where a run went on with others
RUN/data.json           the shape and the classes of the images
RUN/environment.json    a list of the machines it was trained on, each with the step it went on from
RUN/checkpoints/        see `checkpoints`
RUN/best/               the weights that `train.validation` found to be the best, in the same form
RUN/metrics.jsonl       one line every `log_every` steps;  RUN/tensorboard/  the same
RUN/samples/NNNNNN.png  samples over time
"""

import contextlib
import difflib
import fcntl
import json
import os
from collections.abc import Collection
from pathlib import Path

from tf_pivae.errors import UserError
from tf_pivae.files import read_text, write_atomically
from tf_pivae.runs.changes import Changes, compare, record
from tf_pivae.runs.hub import check_is_folder
from tf_pivae.runs.records import load_facts

_NEVER_CHANGES = "image_shape", "num_classes", "num_bins"


def in_use(path: Path) -> UserError:
    """The `UserError` for a run directory whose lock another process holds."""
    return UserError(f"another process is training in {path}: wait for it, or choose another --run_dir.")


class RunDirectory:
    """A run's folder, held by one process at a time.

    Raises:
      UserError: the folder cannot be written, or another process holds it.
    """

    def __init__(self, path: str | Path) -> None:
        check_is_folder(path)
        self.path = Path(path)
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            # A link in its place is not followed: what it leads to would be emptied.
            self._lock = os.open(self.path / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Held until the process ends.
            if not os.fstat(self._lock).st_nlink:  # A training that was refused has just removed it.
                raise BlockingIOError
        except BlockingIOError:
            os.close(self._lock)
            raise in_use(self.path) from None
        except OSError as error:
            path_text = error.filename or self.path
            raise UserError(
                f"cannot use {self.path} as a run directory: {path_text}: {error.strerror}; choose another --run_dir."
            ) from error

    def close(self) -> None:
        """Releases the lock; of a training that was refused before it wrote anything, no folder is left."""
        with contextlib.suppress(OSError):  # Pictures in `samples`, or something else beside it.
            if set(os.listdir(self.path)) == {"lock", "samples"}:
                (self.path / "samples").rmdir()
                os.unlink(self.path / "lock")
                for folder in self._made:
                    folder.rmdir()
        os.close(self._lock)

    def claim(self, config: str, facts: dict, start_step: int, changes: Changes) -> None:
        """Writes configuration and facts, where the run that is being continued has not the same.

        Args:
          config: the operative configuration.
          facts: for data.json.
          start_step: steps that are done.
          changes: what differs from the configuration that is there.

        Raises:
          UserError: the images are of another shape than before.
        """
        try:
            earlier = load_facts(self.path)
        except UserError:  # None yet, or a damaged one.
            earlier = None
        equal = [earlier.get(name) == facts.get(name) for name in _NEVER_CHANGES] if earlier else []
        if earlier and earlier["class_names"] and facts["class_names"]:
            equal.append(earlier["class_names"] == facts["class_names"])
        if (changes.others or start_step) and not all(equal):
            raise UserError(
                f"{self.path} is a run on images of another shape, or with other classes or levels: choose another "
                "--run_dir (its data.json says so: if that is damaged, remove it)."
            )
        if earlier != facts:
            write_atomically(self.path / "data.json", json.dumps(facts))
        if changes.free or changes.others:
            record(self.path, start_step, changes)
        if changes.free or changes.others or not (self.path / "config.gin").exists():
            write_atomically(self.path / "config.gin", config)


def check_same(run_dir: str | Path, config: str, free: Collection[str], from_here: bool) -> Changes:
    """Compares a configuration with that of the run that it would continue, where there is one.

    Args:
      run_dir: folder of the run.
      config: the operative configuration.
      free: settings that no weight depends on, and which may always change.
      from_here: take other settings from the last checkpoint on, whatever they are.

    Returns:
      What differs.

    Raises:
      UserError: they differ in what may not change; the difference is printed first.
    """
    path = Path(run_dir) / "config.gin"
    before = read_text(path) if path.exists() else config
    changes = compare(before, config, str(path), free) if before != config else Changes({}, {})
    if changes.others and not from_here:
        difference = difflib.unified_diff(
            before.splitlines(),
            config.splitlines(),
            "this run's config.gin",
            "the new configuration",
            lineterm="",
            n=0,
        )
        print("\n".join(difference))
        raise UserError(
            f"{run_dir} belongs to another configuration (the difference to its config.gin is above): choose another "
            "--run_dir, give the configuration it was started with, or add --from_here to go on with the new settings."
        )
    return changes
