"""A run directory: its configuration, its lock, and the model in it.

RUN/config.gin          the operative configuration: what was built, from which values
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
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tf_pivae import configuration, values
from tf_pivae.data import ImageDataset, cache
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, read_text, write_atomically
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.building import bounded_variables, explained
from tf_pivae.training.checkpoints import BEST, Checkpoints
from tf_pivae.training.pretrained import pretrained, resolve
from tf_pivae.values import Within

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


def _is_record(record: Any, kinds: dict) -> bool:
    """Whether a dict has values of these kinds under these names."""
    return isinstance(record, dict) and all(k in record and values.fits(kind, record[k]) for k, kind in kinds.items())


def in_use(path: Path) -> UserError:
    """The `UserError` for a run directory whose lock another process holds."""
    return UserError(f"another process is training in {path}: wait for it, or choose another --run_dir.")


class RunDirectory:
    """A run's folder, held by one process at a time.

    Raises:
      UserError: the folder cannot be written, or another process holds it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            # A link in its place is not followed: what it leads to would be emptied.
            self._lock = os.open(self.path / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Held until the process ends.
        except BlockingIOError:
            os.close(self._lock)
            raise in_use(self.path) from None
        except OSError as error:
            where = error.filename or self.path
            raise UserError(
                f"cannot use {self.path} as a run directory: {where}: {error.strerror}; choose another --run_dir."
            ) from error

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._lock)

    def claim(self, config: str, facts: dict) -> None:
        """Writes configuration and facts, where the run that is being continued has not the same."""
        try:
            known = read_json(self.path / "data.json")
        except (UserError, ValueError):  # None yet, or a damaged one.
            known = None
        if known != facts:
            write_atomically(self.path / "data.json", json.dumps(facts))
        if not (self.path / "config.gin").exists():
            write_atomically(self.path / "config.gin", config)


def check_same(run_dir: str | Path, config: str) -> None:
    """Compares a configuration with that of the run that it would continue, where there is one.

    Raises:
      UserError: they differ; the difference is printed first.
    """
    path = Path(run_dir) / "config.gin"
    before = read_text(path) if path.exists() else config
    if before != config:
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
            "--run_dir, or give the configuration it was started with."
        )


def load(run_dir: str | Path, step: int | str | None = None, moving_average: bool = True) -> PiVAE:
    """Loads a trained model.

    A run is read as data, whoever made it: its configuration binds values to names that are registered already.
    Extensions of your own are registered by importing their module first.

    Args:
      run_dir: folder that `tf_pivae.train` wrote, or the name of a model that comes with the package, one of
        `tf_pivae.pretrained()`.
      step: int, one of its checkpoints; None is the newest, "best" the one that its `train.validation` chose.
      moving_average: take the moving-average weights where they were kept.

    Returns:
      `PiVAE`, with the methods `log_prob`, `bits_per_dim`, `sample`, `reconstruct`.

    Raises:
      UserError: no run, or no whole checkpoint there; names the file that is wrong.
    """
    return load_with_step(run_dir, step, moving_average)[0]


def load_with_step(
    run_dir: str | Path, step: int | str | None = None, moving_average: bool = True
) -> tuple[PiVAE, int]:
    """`load`, and the step of the checkpoint it took."""
    facts = load_facts(run_dir)
    path = resolve(run_dir) / "config.gin"
    build = _configured(run_dir, "model")
    what = f"{path} describes no model for images of {facts['image_shape']}"
    with _named(path), explained(what), bounded_variables():
        model = build(image_shape=facts["image_shape"], num_classes=facts["num_classes"])
    return model, restore_model(run_dir, model, step, moving_average)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Has a `UserError` from within name the file."""
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error


def restore_model(run_dir: str | Path, model: PiVAE, step: int | str | None = None, moving_average: bool = True) -> int:
    """Reads a run's weights.

    Args:
      run_dir, step, moving_average: as for `load`.
      model: `PiVAE` of the same architecture, which gets them.

    Returns:
      int, the checkpoint's step.

    Raises:
      UserError: no whole checkpoint, or one of another architecture.
    """
    best = isinstance(step, str)
    if best and step != BEST:
        raise UserError(f"no checkpoint {step!r}: give a step, or {BEST!r}.")
    checkpoints = Checkpoints(resolve(run_dir) / (BEST if best else "checkpoints"))
    averaged = moving_average and load_facts(run_dir)["moving_average"]
    group = "moving_average" if averaged else "pivae"
    step = checkpoints.restore({group: model.variables}, None if isinstance(step, str) else step)
    if step is None and best:
        raise UserError(f"no best checkpoint in {checkpoints.directory}: train with options/validation.gin.")
    if step is None:
        raise UserError(f"no checkpoint in {checkpoints.directory} yet: wait for the first, or train on.")
    return step


def load_facts(run_dir: str | Path) -> dict:
    """What `RUN/data.json` says: image shape, classes, what was trained.

    Raises:
      UserError: there is no run, or the file is damaged.
    """
    path = resolve(run_dir) / "data.json"
    if not path.with_name("config.gin").exists():
        raise UserError(
            f"no run in {run_dir}: it should hold the config.gin that tf_pivae.train writes. The models that come with "
            f"the package: {', '.join(pretrained()) or 'none'}."
        )
    if not path.exists():
        raise UserError(f"{path} is missing: the command that trained this run writes it again.")
    try:
        facts = read_json(path)
    except ValueError:
        facts = None
    if not _is_record(facts, _FACTS):
        raise UserError(f"{path} is damaged: remove it, then the command that trained this run writes it again.")
    return facts


def load_environments(run_dir: str | Path) -> list[dict]:
    """What `RUN/environment.json` says: a list of dicts of strings, and "from_step"; empty where there is none."""
    try:
        found = read_json(resolve(run_dir) / "environment.json")
    except (UserError, ValueError):
        return []  # Written by another program, or not at all: a run is not refused for it.
    if not isinstance(found, list) or not all(_is_record(start, {"from_step": int}) for start in found):
        return []
    return [{k: v for k, v in start.items() if k == "from_step" or isinstance(v, str)} for start in found]


def load_evaluation(run_dir: str | Path, step: int | None = None) -> dict | None:
    """What `RUN/evaluation.json` says, a dict; None where it is missing, or speaks of another checkpoint than `step`.

    Raises:
      UserError: the file is damaged.
    """
    path = resolve(run_dir) / "evaluation.json"
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except ValueError:
        found = None
    if not _is_record(found, {"step": int, "rows": list}) or not all(_is_record(row, _ROW) for row in found["rows"]):
        raise UserError(f"{path} is damaged: remove it, then evaluate again.")
    return found if step in (None, found["step"]) else None


def load_dataset(run_dir: str | Path) -> ImageDataset:
    """The `ImageDataset` that a run was trained on.

    Nothing is downloaded, prepared or written for it: where the files of a configuration lie is for whoever trains to
    say, not for a run of somebody else's.

    Raises:
      UserError: it is not on this machine, or not prepared.
    """
    path = resolve(run_dir) / "config.gin"
    build = _configured(run_dir, "dataset")
    try:
        with cache.reading_only():
            return build()
    except cache.NotPrepared as error:
        raise UserError(f"{str(error).splitlines()[0]} Its configuration: --gin_file={path}") from error


def load_num_steps(run_dir: str | Path) -> int:
    """Number of steps of the finished run."""
    return _configured(run_dir, "num_steps")


def load_batch_size(run_dir: str | Path) -> int:
    """Number of images in a step's batch, over all replicas."""
    return _configured(run_dir, "batch_size")


def has_critic(run_dir: str | Path) -> bool:
    """Whether a run is trained by an adversary."""
    return _configured(run_dir, "critic") is not None


def _configured(run_dir: str | Path, parameter: str) -> Any:
    """A parameter of `train` in the run's configuration, its own parameters bound already."""
    import tf_pivae.configurables  # noqa: F401  registers everything that a configuration may name

    path = resolve(run_dir) / "config.gin"
    try:
        return configuration.of_run(path).value(f"train.{parameter}")
    except KeyError:
        raise UserError(f"{path} has no train.{parameter}: copy it from a run of the same model.") from None
