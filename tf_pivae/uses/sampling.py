"""Samples of a trained model as a picture, as a folder of PNGs, or as an array."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_pivae import arguments, figures
from tf_pivae.errors import UserError, nan_is_an_error
from tf_pivae.system.progress import progress_bar
from tf_pivae.uses import image_outputs

_BATCH = 64  # Images at a time.


def sample(
    run_dir: str | Path,
    output: str | Path = "samples.png",
    num_samples: int = 64,
    seed: int = 0,
    step: int | str | None = None,
    temperature: float = 1.0,
    sample_noise: float = 1.0,
    columns: int | None = None,
    labels: Sequence[int] = (),
) -> int:
    """Draws samples and writes them; what was cut off is continued by the same call.

    Args:
      run_dir: folder of the run, or a pretrained model's name.
      output: "NAME.png", a grid of them all, one class per row; "FOLDER/", one PNG per sample (000000.png, 000001.png,
        ...; 000000_class3.png of a class-conditional model), which a later call with more samples adds to; "NAME.npz",
        the arrays `images`, uint8 [num_samples, H, W, C], and, of a class-conditional model, `labels`, int64
        [num_samples].
      num_samples: how many.
      seed: sample i is a function of (seed, i), and in a class-conditional model of its class.
      step: the checkpoint to draw from, "best" that of `train.validation`; None is the newest.
      temperature: scales the priors' standard deviations.
      sample_noise: scales the noise of p(y|z): 1 is the model, 0 its mean.
      columns: of the grid; None is about square, or has a row for each class.
      labels: classes of a class-conditional model, none for all: a row each in the grid, in turn elsewhere.

    Returns:
      The step of the checkpoint.

    Raises:
      UserError: no such run, step or class; a place that cannot be written, or that was started with other settings;
        more samples than a grid holds; samples that are NaN.
      ValueError: a number out of range.
    """
    from tf_pivae.loading import load_with_step
    from tf_pivae.runs.pretrained import resolve
    from tf_pivae.uses.claims import identity

    image_outputs.check(output)
    arguments.whole_numbers(1, num_samples=num_samples, **({} if columns is None else {"columns": columns}))
    arguments.seeds(seed)
    arguments.scales(temperature=temperature, sample_noise=sample_noise)
    image_outputs.check_count(output, num_samples)
    model, loaded = load_with_step(run_dir, step)
    classes = _classes(labels, model.num_classes)
    settings = {
        "step": loaded,
        "model": identity(resolve(run_dir), step, loaded),
        "seed": seed,
        "temperature": temperature,
        "sample_noise": sample_noise,
        "classes": classes,
    }
    drawn_labels = None
    if classes and not image_outputs.is_grid(output):
        drawn_labels = np.resize(np.asarray(classes, np.int64), num_samples)  # In turn: the same whatever the number.
    elif classes:
        rows, columns = figures.class_rows(num_samples, len(classes), columns)
        drawn_labels = np.asarray(classes)[rows]
    with (
        image_outputs.open_sink(
            output, settings, num_samples, model.image_shape, model.num_bins, columns, drawn_labels
        ) as sink,
        progress_bar(total=num_samples, desc="samples", unit="img", leave=False) as bar,
    ):
        for first in range(0, num_samples, _BATCH):
            size = min(_BATCH, num_samples - first)
            part = None if drawn_labels is None else drawn_labels[first : first + size]
            about = [""] * size if part is None else [f"class{label}" for label in part]
            names = [image_outputs.file_name(first + i, text) for i, text in enumerate(about)]
            if not sink.has(first, names):
                scales = temperature, sample_noise
                with nan_is_an_error():
                    images = model.sample(size, seed, *scales, part, batch_size=_BATCH, first_row=first)
                sink.add(first, names, images)
            bar.update(size)
    return loaded


def _classes(requested: Sequence[int], num_classes: int) -> list[int]:
    """The classes to draw: those wanted, or all."""
    requested = [] if requested is None else list(map(int, requested))
    if not requested:
        return list(range(num_classes))
    if not num_classes:
        raise UserError("--labels: this model is not class-conditional.")
    if not all(0 <= label < num_classes for label in requested):
        raise UserError(f"--labels={','.join(map(str, requested))}: expected numbers from 0 to {num_classes - 1}.")
    return requested
