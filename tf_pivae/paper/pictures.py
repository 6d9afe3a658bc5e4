"""The pictures that go with a table: samples, their nearest training images, reconstructions and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_pivae import figures, loading
from tf_pivae.files import read_records
from tf_pivae.metrics import nearest_images
from tf_pivae.system.progress import progress_bar

if TYPE_CHECKING:
    from PIL import Image

    from tf_pivae.data.arrays import ImageDataset

_COLUMNS = 5
_ROWS = 8


def draw(title: str, labelled_runs: Sequence[tuple[str, Path]], stem: str | Path) -> list[Path]:
    """Writes STEM_samples.png, STEM_neighbours.png, STEM_reconstructions.png and STEM_curves.png.

    Args:
      labelled_runs: list of pairs (row's label, run directory), all of one data set's images.
      stem: path of the pictures without their endings.

    Returns:
      The pictures' paths. Reconstructions and curves are those of the rows that have a likelihood, if there are any.
    """
    data = loading.load_dataset(labelled_runs[0][1])
    test = data.test.take(_COLUMNS * _ROWS)
    real = np.asarray(test.images)
    models = [(label, loading.load(run)) for label, run in labelled_runs]
    bounded = {label for label, run in labelled_runs if loading.load_facts(run)["likelihood"]}
    bins = models[0][1].num_bins

    def panel(label, images, columns=_COLUMNS):
        return label, figures.image_grid(images, columns, num_bins=bins)

    held_out = panel("held-out images", real)
    captions = {1.0: f"{title}. Samples of the model itself", 0.0: "The same, without the noise of p(y|z)"}
    strips = []
    for noise, caption in captions.items():
        panels = [held_out]
        for label, model in models:
            count, labels, columns = _grid(model.num_classes)
            panels.append(panel(label, model.sample(count, labels=labels, sample_noise=noise), columns))
        strips.append(figures.labelled(panels, caption))
    pictures = {"samples": figures.stacked(strips), "neighbours": neighbours(title, models, data)}
    if bounded:
        panels = [held_out]
        for label, model in models:
            if label in bounded:
                labels = test.labels if model.num_classes else None
                panels.append(panel(label, model.reconstruct(real, labels=labels)))
        pictures["reconstructions"] = figures.labelled(panels, f"{title}. Reconstructions")
        curves = {label: _curve(run) for label, run in labelled_runs if label in bounded}
        y_label = "bits/dim of the training batch, K = 1"
        pictures["curves"] = figures.line_chart(curves, "step", y_label, f"{title}. Learning curves")
    paths = [Path(f"{stem}_{kind}.png") for kind in pictures]
    for picture, path in zip(pictures.values(), paths, strict=True):
        figures.save_png(picture, path)
    return paths


def neighbours(title: str, models: Sequence[tuple], data: ImageDataset) -> Image.Image:
    """Samples beside the training images that are nearest to them in pixels, and held-out images as a measure.

    Args:
      models: list of pairs (row's label, `PiVAE`).
      data: the `ImageDataset` that they were trained on.

    Returns:
      `PIL.Image`, RGB.
    """
    series = {"held-out images": np.asarray(data.test.take(_ROWS).images)}
    for label, model in models:
        labels = np.arange(_ROWS) % model.num_classes if model.num_classes else None
        series[label] = model.sample(_ROWS, labels=labels)
    train = data.train.images
    count = min(_COLUMNS - 1, len(data.train))
    with progress_bar(total=len(train), desc="nearest images", unit="img", leave=False) as bar:
        closest = nearest_images(np.concatenate(list(series.values())), train, count, bar.update)
    nearest = figures.images_at(train, closest)
    panels = []
    first = 0
    for label, images in series.items():
        picture = figures.neighbour_grid(images, nearest[first : first + len(images)], data.num_bins)
        panels.append((label, picture))
        first += len(images)
    return figures.labelled(panels, f"{title}. Samples, and beside each the training images nearest to it in pixels")


def _grid(num_classes):
    """Number, labels and columns of a picture of samples; one class per row."""
    if not num_classes:
        return _COLUMNS * _ROWS, None, _COLUMNS
    count = _COLUMNS * num_classes
    return count, *figures.class_rows(count, num_classes)


def _curve(run):
    """Steps and bits/dim of a run's metrics."""
    lines = read_records(Path(run) / "metrics.jsonl")
    points = [(line["step"], line["bits_per_dim"]) for line in lines if line.get("bits_per_dim") is not None]
    return [step for step, _ in points], [bits for _, bits in points]
