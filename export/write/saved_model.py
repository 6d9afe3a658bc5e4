"""Writes a trained model as a SavedModel version: DIR/<version>/, which needs none of this project's code."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.errors import UserError, first_line, nan_is_an_error, sentence
from tf_pivae.export.requests import DEFAULT_MODEL
from tf_pivae.export.versions import new_version
from tf_pivae.export.write.model_card import model_card, write_model_card
from tf_pivae.export.write.signatures import Options, signatures
from tf_pivae.export.write.warmup import write_warmup_requests
from tf_pivae.layers.weight_norm import fixed_kernels
from tf_pivae.models.pivae import PiVAE
from tf_pivae.runs.pretrained import resolve
from tf_pivae.runs.weights import digest

_TOLERANCE = 1e-5  # relative, of log_prob: float32 rounding in another order.
_NUM_CHECKED = 8
PARTS = 4  # What `export_run` announces.


def write_saved_model(
    model: PiVAE,
    folder: str | Path,
    options: Options = Options(),  # noqa: B008  a NamedTuple never changes
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Writes `saved_model.pb` and `variables/` of a `PiVAE` into `folder`.

    The weights are stored once, for all signatures. They are the final kernels: weight normalisation is already
    applied, and so is batch normalisation where a convolution can absorb it. The file has no parts of Keras.

    Returns:
      dict of name -> concrete function: the signatures.
    """
    with fixed_kernels() as kernels:
        functions = signatures(model, options)
    variables = itertools.chain((variable.value for variable in model.variables), *kernels.values())
    used = {id(tensor) for function in functions.values() for tensor in function.captured_inputs}
    module = tf.Module()
    module.model_variables = [variable for variable in variables if id(variable.handle) in used]
    tf.saved_model.save(module, str(folder), signatures=functions)
    return functions


def export_run(
    run_dir: str | Path,
    export_dir: str | Path,
    options: Options = Options(),  # noqa: B008
    step: int | str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[int, int]:
    """Exports a run's moving-average weights under the next version number.

    Before it is published, the written model is read back and compared with the original on held-out images.

    Args:
      run_dir: folder of the run, or the name of a pretrained model.
      export_dir: the folder that a server watches.
      options: `Options`.
      step: int, a checkpoint; None is the newest.
      progress: a function that is told, in a word or two, which of the `PARTS` comes next.

    Returns:
      (version, step): two ints.

    Raises:
      UserError: no run, no checkpoint, `export_dir` not writable, or the written model gives other numbers, or NaN.
    """
    run_dir = resolve(run_dir)
    progress("loading the model")
    model, step = loading.load_with_step(run_dir, step)
    images, labels = _held_out(run_dir, model)
    with new_version(export_dir) as publication:
        progress("writing it")
        try:
            functions = write_saved_model(model, publication.folder, options)
        except ValueError as error:
            raise UserError(f"the model cannot be exported: {sentence(first_line(error))}") from error
        progress("warm-up requests")
        write_warmup_requests(publication.folder, DEFAULT_MODEL, functions, images, labels)
        progress("comparing")
        check = _compare(model, publication.folder, options, images, labels)
        write_model_card(publication.folder, model_card(run_dir, (step, digest(model)), options, functions, check))
    return publication.version, step


def _held_out(run_dir, model):
    """A few images of the test split, and their labels for a class-conditional model.

    Where the data are not at hand, as for a model that was handed on, the model's own samples serve as well.
    """
    try:
        data = loading.load_dataset(run_dir)
    except UserError:
        labels = np.arange(_NUM_CHECKED) % model.num_classes if model.num_classes else None
        return model.sample(_NUM_CHECKED, labels=labels), labels
    split = data.test.take(_NUM_CHECKED)
    if not model.num_classes:
        return np.asarray(split.images), None
    # Where only the training images have labels, any class serves.
    labels = np.arange(len(split)) % model.num_classes if split.labels is None else split.labels
    return np.asarray(split.images), np.asarray(labels, np.int64)


def _compare(model, folder, options, images, labels):
    """Relative difference between the model's log_prob of single images and the written model's of a batch."""
    function = tf.saved_model.load(str(folder)).signatures["log_prob"]
    extra = {} if labels is None else {"labels": tf.constant(labels)}
    outputs = function(images=tf.constant(images), **extra)
    rows = [(images[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(len(images))]
    single = [model.log_prob(image, options.importance_samples, labels=label) for image, label in rows]
    with nan_is_an_error():  # The written model's are black.
        model.sample(len(images), labels=labels, temperature=options.temperature, sample_noise=options.sample_noise)
    difference = np.abs(outputs["log_prob"].numpy() / np.concatenate(single) - 1.0).max()
    if not difference < _TOLERANCE:
        raise UserError(f"the written model's log_prob differs by {difference:.1e} relative: not published.")
    return {
        "images": len(images),
        "bits_per_dim": float(np.mean(outputs["bits_per_dim"])),
        "largest_relative_difference": float(difference),
    }
