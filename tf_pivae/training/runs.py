"""A run directory: its configuration, its lock, and the model in it.

RUN/config.gin          the operative configuration: what was built, from which values
RUN/data.json           the shape and the classes of the images
RUN/environment.json    a list of the machines it was trained on, each with the step it went on from
RUN/checkpoints/        see `checkpoints`
RUN/metrics.jsonl       one line every `log_every` steps;  RUN/tensorboard/  the same
RUN/samples/NNNNNN.png  samples over time
"""

import contextlib
import difflib
import fcntl
import json
import os
from pathlib import Path

import gin

from tf_pivae import cli
from tf_pivae.errors import UserError, cannot_write
from tf_pivae.training.checkpoints import Checkpoints
from tf_pivae.training.pretrained import pretrained, resolve


def write_atomically(path, text):
    """Writes a text file that is either the old one or the new one, whatever happens; UserError if it cannot."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(cannot_write(path, error)) from error


def in_use(path):
    """The `UserError` for a run directory whose lock another process holds."""
    return UserError(f"another process is training in {path}: wait for it, or choose another --run_dir.")


class RunDirectory:
    """A run's folder, held by one process at a time.

    Raises:
      UserError: the folder cannot be written, or another process holds it.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "w")  # noqa: SIM115  held until the process ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(self.path) from None
        except OSError as error:
            raise UserError(
                f"cannot use {self.path} as a run directory: {error.strerror}; choose another --run_dir."
            ) from error

    def close(self):
        """Lets go of the lock."""
        self._lock.close()

    def claim(self, config, data):
        """Writes configuration and data facts, unless the run that is being continued has them."""
        path = self.path / "config.gin"
        if not path.exists():
            write_atomically(self.path / "data.json", json.dumps(data))
            write_atomically(path, config)


def check_same(run_dir, config):
    """Compares a configuration with that of the run that it would continue, where there is one.

    Raises:
      UserError: they differ; the difference is printed first.
    """
    path = Path(run_dir) / "config.gin"
    before = path.read_text() if path.exists() else config
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
            f"{run_dir} belongs to another configuration (the difference is above): choose another --run_dir, or give "
            "the configuration it was started with."
        )


def load(run_dir, step=None, moving_average=True):
    """Loads a trained model.

    Args:
      run_dir: folder that `tf_pivae.train` wrote, or the name of a model that comes with the package, one of
        `tf_pivae.pretrained()`.
      step: int, one of its checkpoints; None is the newest.
      moving_average: take the moving-average weights where they were kept.

    Returns:
      `PiVAE`, with the methods `log_prob`, `bits_per_dim`, `sample`, `reconstruct`.

    Raises:
      UserError: no run, or no whole checkpoint there.
    """
    return load_with_step(run_dir, step, moving_average)[0]


def load_with_step(run_dir, step=None, moving_average=True):
    """`load`, and the step of the checkpoint it took."""
    facts = load_facts(run_dir)
    model = _configured(run_dir, "model")(image_shape=facts["image_shape"], num_classes=facts["num_classes"])
    return model, restore_model(run_dir, model, step, moving_average)


def restore_model(run_dir, model, step=None, moving_average=True):
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


def load_facts(run_dir):
    """What `RUN/data.json` says: image shape, classes, what was trained.

    Raises:
      UserError: there is no run, or the file is damaged.
    """
    path = resolve(run_dir) / "data.json"
    if not path.is_file() or not path.with_name("config.gin").is_file():
        raise UserError(
            f"no run in {run_dir}: it should hold the config.gin that tf_pivae.train writes. The models that come with "
            f"the package: {', '.join(pretrained()) or 'none'}."
        )
    try:
        facts = json.loads(path.read_text())
        return {**facts, "image_shape": list(facts["image_shape"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: copy it from a run on the same images.") from error


def load_environments(run_dir):
    """What `RUN/environment.json` says: a list of dicts of strings, and "from_step"; empty where there is none."""
    path = resolve(run_dir) / "environment.json"
    try:
        return json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        return []  # Written by another program: a run is not refused for it.


def load_evaluation(run_dir, step=None):
    """What `RUN/evaluation.json` says, a dict; None where it is missing, or speaks of another checkpoint than `step`.

    Raises:
      UserError: the file is damaged.
    """
    path = resolve(run_dir) / "evaluation.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        of_step, _ = found["step"], found["rows"]
        return found if step in (None, of_step) else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: remove it, then evaluate again.") from error


def load_dataset(run_dir):
    """The `ImageDataset` that a run was trained on."""
    return _configured(run_dir, "dataset")()


def load_num_steps(run_dir):
    """Number of steps of the finished run."""
    return _configured(run_dir, "num_steps")


def load_batch_size(run_dir):
    """Number of images in a step's batch, over all replicas."""
    return _configured(run_dir, "batch_size")


def has_critic(run_dir):
    """Whether a run is trained by an adversary."""
    return _configured(run_dir, "critic") is not None


def _configured(run_dir, parameter):
    """A parameter of `train` in the run's configuration, its own parameters bound already."""
    with preserved_gin():
        cli.parse_gin([str(resolve(run_dir) / "config.gin")])
        value = gin.get_bindings("train")[parameter]
        if not callable(value):
            return value
        bindings = gin.config_str()

    def build(*arguments, **keywords):
        with preserved_gin():
            gin.parse_config(bindings)
            return value(*arguments, **keywords)

    return build


class preserved_gin:
    """Restores gin's configuration on leaving, so that a library call does not disturb the caller's."""

    def __enter__(self):
        self._config = gin.config_str()

    def __exit__(self, *_):
        gin.clear_config()
        gin.parse_config(self._config)
