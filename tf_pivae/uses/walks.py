"""Reconstructions of the user's own images, and walks from one of them to the next."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pivae import arguments, configuration
from tf_pivae.errors import UserError, nan_is_an_error
from tf_pivae.system.progress import progress_bar
from tf_pivae.uses import image_outputs, own_images
from tf_pivae.uses.preparation import preparation

if TYPE_CHECKING:
    from tf_pivae.models.pivae import PiVAE

_BATCH = 64  # Images at a time.
# (model, images uint8 [B, H, W, C], labels int64 [B] or None, the first's place) -> uint8 [N, H, W, C]
_Make = Callable[["PiVAE", np.ndarray, np.ndarray | None, int], np.ndarray]


def reconstruct(
    run_dir: str | Path,
    images: str | Path,
    output: str | Path = "reconstructions.png",
    seed: int = 0,
    step: int | str | None = None,
    columns: int | None = None,
    label: int | None = None,
) -> int:
    """Encodes and decodes images of one's own; what was cut off is continued by the same call.

    Args:
      run_dir: folder of the run, or a pretrained model's name.
      images: a folder, read recursively, or an `.npz` file with `images`; they go through the cropping and resizing of
        the run's configuration.
      output: "NAME.png", a grid of images each beside its reconstruction; "FOLDER/", one PNG per reconstruction,
        called 000000_NAME.png, ...; "NAME.npz", the array `images` of the reconstructions.
      seed: reconstruction i is a function of (seed, i) and of its image: as `PiVAE.reconstruct`.
      step: the checkpoint, "best" that of `train.validation`; None is the newest.
      columns: pairs in a row of the grid; None is 4.
      label: the class of images without one, for a class-conditional model.

    Returns:
      The step of the checkpoint.

    Raises:
      UserError: no such run; an image that cannot be used, by name; a place that cannot be written, or that was begun
        with other settings.
    """
    if columns is not None:
        arguments.whole_numbers(1, columns=columns)
    is_grid = image_outputs.is_grid(output)

    def make(model: "PiVAE", batch: np.ndarray, labels: np.ndarray | None, first: int) -> np.ndarray:
        reconstructions = model.reconstruct(batch, seed, labels, first_row=first)
        return np.stack([batch, reconstructions], 1).reshape(-1, *batch.shape[1:]) if is_grid else reconstructions

    settings = {"reconstructions": True, "seed": seed}
    return _write(run_dir, images, output, make, settings, (1, 2 if is_grid else 1), 2 * (columns or 4), step, label)


def interpolate(
    run_dir: str | Path,
    images: str | Path,
    output: str | Path = "walks.png",
    steps: int = 8,
    seed: int = 0,
    step: int | str | None = None,
    label: int | None = None,
) -> int:
    """Walks from each image to the next one: from the first to the second, from the third to the fourth, ...

    Args:
      run_dir, images, seed, step, label: as for `reconstruct`; an even number of images.
      output: "NAME.png", one walk per row; "FOLDER/", one PNG per image, called 000000_walk0.png, ...; "NAME.npz", the
        array `images` of all walks, one behind the other.
      steps: images of a walk, the reconstructions of both ends among them: as `PiVAE.interpolate`.

    Returns:
      The step of the checkpoint.

    Raises:
      UserError: as for `reconstruct`; an odd number of images; a pair of two classes.
    """

    def make(model: "PiVAE", batch: np.ndarray, labels: np.ndarray | None, first: int) -> np.ndarray:
        pair_labels = None if labels is None else labels[0::2]
        if labels is not None and (other := np.flatnonzero(labels[0::2] != labels[1::2])).size:
            i = 2 * int(other[0])
            raise UserError(
                f"images {first + i} and {first + i + 1}, the ends of a walk, are of the classes {labels[i]} and "
                f"{labels[i + 1]}: a walk stays in one; put pairs of one class side by side."
            )
        images = model.interpolate(batch[0::2], batch[1::2], steps, seed, pair_labels, first_row=first // 2)
        return images.reshape(-1, *batch.shape[1:])

    arguments.whole_numbers(1, steps=steps)
    if steps < 2:
        raise UserError(f"--steps={steps} must be at least 2: a walk has a first and a last image.")
    return _write(run_dir, images, output, make, {"steps": steps, "seed": seed}, (2, steps), steps, step, label)


def _write(
    run_dir: str | Path,
    images: str | Path,
    output: str | Path,
    make: _Make,
    settings: dict[str, Any],
    takes: tuple[int, int],
    columns: int,
    step: int | str | None,
    label: int | None,
) -> int:
    """Makes `takes[1]` images of every `takes[0]`, batch by batch, and writes them."""
    from tf_pivae.loading import load_with_step
    from tf_pivae.runs.pretrained import resolve
    from tf_pivae.runs.records import load_facts
    from tf_pivae.uses.claims import identity

    image_outputs.check(output)
    own_images.check_apart(output, images)
    count = own_images.count(images)
    group, per_group = takes
    if count % group:
        raise UserError(f"{images} has {count} images, but pairs are needed: give an even number.")
    total = count // group * per_group
    folder = resolve(run_dir)
    image_outputs.check_count(output, total)
    num_classes = load_facts(run_dir)["num_classes"]
    own_images.check_classes(images, num_classes, label)
    model, loaded = load_with_step(run_dir, step)
    prepare = preparation(model.image_shape, model.num_bins, configuration.of_run(folder / "config.gin"))
    model_is = {"step": loaded, "model": identity(folder, step, loaded)}
    settings = {
        "images": str(images),
        "contents of the images": own_images.digest(images),
        **model_is,
        **settings,
        "label": label,
    }
    entries = own_images.entries(images, prepare)
    bar = progress_bar(total=count, unit="img", leave=False)
    with image_outputs.open_sink(output, settings, total, model.image_shape, model.num_bins, columns) as sink, bar:
        for first in range(0, count, _BATCH):
            some = list(itertools.islice(entries, _BATCH))
            names = _names(some, first, group, per_group)
            if not sink.has(first // group * per_group, names):
                (batch,) = own_images.batches(iter(some), _BATCH, model.image_shape, num_classes, label)
                for name, problem in zip(batch.names, batch.problems, strict=True):
                    if problem:
                        raise UserError(f"{name} cannot be used ({problem}): repair or remove it.")
                with nan_is_an_error():
                    made = make(model, batch.images, batch.labels, first)
                sink.add(first // group * per_group, names, made)
            bar.update(len(some))
    return loaded


def _names(some: list[own_images.OwnImage], first: int, group: int, per_group: int) -> list[str]:
    if group == 1:
        return [image_outputs.file_name(first + i, Path(entry.name).stem) for i, entry in enumerate(some)] * per_group
    indices = range(first // group * per_group, (first + len(some)) // group * per_group)
    return [image_outputs.file_name(i, f"walk{i // per_group}") for i in indices]
