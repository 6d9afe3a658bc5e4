"""What is built from a configuration: that of gin files, or that of a run.

TensorFlow is imported by what needs it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from tf_pivae import configuration
from tf_pivae.configuration import early, parsing
from tf_pivae.errors import UserError, first_line, printable
from tf_pivae.runs.changes import PLACES, is_place
from tf_pivae.runs.pretrained import resolve
from tf_pivae.runs.records import load_facts
from tf_pivae.system.memory import physical_memory
from tf_pivae.system.startup import import_tensorflow_quietly

if TYPE_CHECKING:
    from tf_pivae.data import ImageDataset
    from tf_pivae.models.pivae import PiVAE
    from tf_pivae.training.recipe import Recipe

_IN_FLOAT32 = ("ConvolutionPrecision.dtype = 'float32'",)  # bfloat16 is for training steps: docs/precision.md.
_SLACK = 1 << 26  # Bytes, so that a model which is a little too large fails with its layer's name.
# What registers itself with gin, so that a configuration may name it.
_REGISTERED = (
    "bijectors.preprocessing",
    "bijectors.real_nvp",
    "data",
    "layers.convolution",
    "layers.rematerialization",
    "layers.spectral_norm",
    "layers.weight_norm",
    "metrics.gan_classification",
    "models.critic",
    "models.dequantization",
    "models.hierarchical_vae",
    "models.latents",
    "models.pivae",
    "training.accumulation",
    "training.augmentation",
    "training.balance",
    "training.losses",
    "training.optimizer",
    "training.recipe",
    "training.regularizers",
    "training.schedules",
    "training.trainer",
    "training.validation",
)


@functools.cache
def register() -> None:
    """Imports everything that a configuration may name."""
    import_tensorflow_quietly()
    for name in _REGISTERED:
        importlib.import_module(f"tf_pivae.{name}")


def parse_gin(files: Sequence[str], parameters: Sequence[str] = (), required: bool = True) -> None:
    """Reads gin files and bindings into gin's configuration, with nothing unknown passing unnoticed.

    Args:
      files: names of gin files.
      parameters: bindings such as "num_steps=1000".
      required: whether at least one file must be given.

    Raises:
      UserError: see `tf_pivae.configuration.parse`.
    """
    if required and not files:
        names = ", ".join(parsing.shipped_files()[:6])
        raise UserError(f"give a configuration: --gin_file=NAME, one of {names}, ...")
    if "tensorflow" not in sys.modules:  # A mistake need not wait for its import.
        early.refuse_wrong_names(files, parameters)
    register()
    parsing.parse(files, parameters)


def configured_dataset(gin_files: Sequence[str], gin_params: Sequence[str]) -> ImageDataset:
    """The data set that a configuration names, which need not say more; UserError where it names none."""
    parse_gin(gin_files, gin_params)
    try:
        source = configuration.Snapshot().value("train.dataset")
    except KeyError:
        raise UserError(
            "the configuration names no data set: add --gin_param=train.dataset=@bundled, for example."
        ) from None
    return source()


def load(run_dir: str | Path, step: int | str | None = None, moving_average: bool = True) -> PiVAE:
    """Loads a trained model. It computes in float32, whatever its training steps did.

    A run is read as data, whoever made it: its configuration binds values to names that are registered already.
    Extensions of your own are registered by importing their module first.

    Args:
      run_dir: folder that `tf_pivae.train` wrote, the name of a model that comes with the package, one of
        `tf_pivae.pretrained()`, or hf://OWNER/NAME, a model that `publish` put on the Hugging Face hub.
      step: int, one of its checkpoints; None is the newest, "best" the one that its `train.validation` chose.
      moving_average: take the moving-average weights where they were kept.

    Returns:
      `PiVAE`, with the methods `log_prob`, `bits_per_dim`, `sample`, `reconstruct`.

    Raises:
      UserError: no run, or no whole checkpoint there; names the file that is wrong.
      ValueError: a step that is no whole number, or negative.
    """
    return load_with_step(run_dir, step, moving_average)[0]


def load_with_step(
    run_dir: str | Path, step: int | str | None = None, moving_average: bool = True
) -> tuple[PiVAE, int]:
    """`load`, and the step of the checkpoint it took."""
    from tf_pivae.runs.checkpoints import of_run
    from tf_pivae.runs.weights import restore_model
    from tf_pivae.training.building import bounded_variables, explained

    register()
    facts = load_facts(run_dir)
    path = resolve(run_dir) / "config.gin"
    with _naming(path):
        settings = configuration.of_run(path).bound(_IN_FLOAT32)
    recipe = _recipe(settings, path)
    problem = f"{path} describes no model for images of {facts['image_shape']}"
    limit = min(physical_memory(), _SLACK + 2 * of_run(path.parent, step).most_bytes())
    with _naming(path), explained(problem), bounded_variables(limit, "twice what its checkpoints hold"):
        model = recipe.build_model(facts["image_shape"], facts["num_classes"])
    return model, restore_model(run_dir, model, step, moving_average)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has a `UserError` from within name the file."""
    try:
        yield
    except UserError as error:
        problem, advice, _ = str(error).partition(": add --gin_param=")  # For a training, not for a run's own file.
        if advice:
            raise UserError(f"{path}: {problem}: restore the file from a copy of the run.") from error
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error


_places: ContextVar[Sequence[str]] = ContextVar("places", default=())


@contextlib.contextmanager
def data_at(*bindings: str) -> Iterator[None]:
    """Within it, the data of runs lie where these bindings say, such as "image_folder.path=FOLDER": of copied runs.

    Raises:
      UserError: a binding that says something else.
    """
    for binding in bindings:
        if not is_place(binding.partition("=")[0].strip()):
            places = ", ".join(f"{source}.{place}" for source, names in PLACES.items() for place in names[:1])
            raise UserError(f"--gin_param={binding}: with --run_dir, it may only say where the data lie: {places}, ...")
    token = _places.set(bindings)
    try:
        yield
    finally:
        _places.reset(token)


def load_dataset(run_dir: str | Path) -> ImageDataset:
    """The `ImageDataset` that a run was trained on, where its configuration or `data_at` says that it lies.

    Nothing is downloaded, prepared or written: only the user says where data lie, not a run of unknown origin.

    Raises:
      UserError: it is not on this machine, not prepared, or has another shape or other classes than the run.
    """
    from tf_pivae.data import cache

    register()
    path = resolve(run_dir) / "config.gin"
    settings = configuration.of_run(path).bound(_places.get())
    recipe = _recipe(settings, path)
    try:
        with cache.reading_only():
            data = recipe.dataset()
    except cache.NotPrepared as error:
        raise UserError(f"{first_line(error)} --gin_file={path} is its configuration.") from error
    except UserError as error:
        source = (settings.function_name("train.dataset") or "").rpartition(".")[2]
        if source not in PLACES:
            raise
        line = first_line(error)
        place = next((name for name in PLACES[source] if f"{source}.{name}" in line), PLACES[source][0])
        raise UserError(
            f"{line} If it lies elsewhere on this machine, say where: --gin_param={source}.{place}=PLACE."
        ) from error
    facts = load_facts(run_dir)
    for name, theirs, ours in (
        ("shape", facts["image_shape"], list(data.image_shape)),
        ("number of classes", facts["num_classes"], data.num_classes if facts["num_classes"] else 0),
    ):
        if theirs != ours:
            raise UserError(f"{data.name} has images of the {name} {ours}, but {run_dir} was trained on {theirs}.")
    trained = facts["class_names"]
    classes = list(data.class_names)
    if trained and classes and trained != classes:
        theirs, ours = (printable(", ".join(sorted(set(names)))) for names in (trained, classes))
        same = theirs == ours
        raise UserError(
            f"{data.name} has the classes {ours}, but {run_dir} was trained on {theirs}{' in another order' * same}."
        )
    return data


def recipe_of(run_dir: str | Path) -> Recipe:
    """What a run consists of; its functions work with the run's configuration, whenever they are called.

    Raises:
      UserError: no configuration there, or one of no run; names the file.
    """
    register()
    path = resolve(run_dir) / "config.gin"
    with _naming(path):
        settings = configuration.of_run(path)
    return _recipe(settings, path)


def has_adversary(run_dir: str | Path) -> bool:
    """Whether an adversary had a weight in the training of a run; UserError as for `recipe_of`."""
    if recipe_of(run_dir).critic is None:
        return False
    return configuration.of_run(resolve(run_dir) / "config.gin").value("Trainer.adversarial_weight") > 0


def _recipe(settings: configuration.Snapshot, path: Path) -> Recipe:
    from tf_pivae.training.building import explained
    from tf_pivae.training.recipe import Recipe

    with _naming(path), explained("it describes no run"):
        return settings.build(Recipe)
