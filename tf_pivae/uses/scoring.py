"""Scores of the user's own images: how probable a model finds each, and how unusual that is."""

import array
import csv
import functools
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tf_pivae import arguments, figures
from tf_pivae.errors import UserError, check_output
from tf_pivae.files import csv_cell, place_file, replacing, write_atomically
from tf_pivae.system.progress import progress_bar
from tf_pivae.uses import own_images
from tf_pivae.uses.claims import unfinished
from tf_pivae.uses.columns import UNUSUAL, Reference, bits_per_dim, columns, reference
from tf_pivae.uses.detection import Separation, separation
from tf_pivae.uses.opening import Density, density

_HEADER = ["set", "file", *UNUSUAL, "problem"]
_SETS = "images", "against"
_BINS = 40


class Scores(NamedTuple):
    """What was scored."""

    scored: int  # images
    skipped: int  # files that are not images, or could not be used; the table says why
    separations: dict[str, Separation]  # by column; empty without other images


def score(
    run_dir: str | Path,
    images: str | Path,
    output: str | Path = "scores.csv",
    against: str | Path | None = None,
    held_out: str | Path | None = None,
    num_held_out: int = 1000,
    importance_samples: int | None = None,
    seed: int = 0,
    step: int | str | None = None,
    label: int | None = None,
    batch_size: int = 64,
) -> Scores:
    """Writes one row per file; what was cut off is continued by the same call. Its columns are `columns.columns`.

    Files go through the cropping and resizing of the run's configuration; one that is damaged, or of a size that this
    makes no image of, has a row that says so in the column `problem`.

    Args:
      run_dir: folder of the run, a pretrained model's name, or an export's folder.
      images: a folder, read recursively, or an `.npz` file with `images` and, of a class-conditional model, `labels`.
      output: the CSV to write.
      against: other images, which ought to be unusual. They get rows, too (the column `set` says which), and beside the
        output come NAME.auroc.csv, the areas under the curves of each column, and NAME.histograms.png, those of both.
      held_out: images that the model was not trained on, for the percentile and the p-value; None is the run's test
        split.
      num_held_out: at most so many of them.
      importance_samples: K of `log_prob`; None is 16, or what an export has.
      seed: of the noise.
      step: the checkpoint, "best" that of `train.validation`; None is the newest.
      label: the class of images without one, for a class-conditional model.
      batch_size: images computed at a time.

    Raises:
      UserError: no such model, no such images, no held-out ones, a place that cannot be written, or that is
        among the images.
      ValueError: a number out of range.
    """
    check_output(output)
    if Path(output).suffix.lower() != ".csv":
        raise UserError(f"--output={output}: scores are written as a table; call it {Path(output).stem}.csv.")
    arguments.whole_numbers(1, num_held_out=num_held_out, batch_size=batch_size)
    arguments.seeds(seed)
    if importance_samples is not None:
        arguments.whole_numbers(1, importance_samples=importance_samples)
    paths = [str(path) for path in (images, against) if path is not None]
    own_images.check_apart(output, *paths, *([] if held_out is None else [held_out]))
    for path in _beside(Path(output)) if against is not None else ():
        check_output(path)
    counts = [own_images.count(path) for path in paths]
    model = density(run_dir, importance_samples, seed, step, batch_size)
    for path in paths if held_out is None else [*paths, held_out]:
        own_images.check_classes(path, model.facts["num_classes"], label)
    settings = {
        **model.identity,
        "images": paths,
        "contents of the images": [own_images.digest(path) for path in paths],
        "held_out": str(held_out),
        "contents of the held-out images": held_out and own_images.digest(held_out),
        "num_held_out": num_held_out,
        "label": label,
    }
    with unfinished(output, settings) as folder:
        usual = _reference(folder / "held_out.npy", model, held_out, num_held_out, label, batch_size)
        rows = folder / "rows.csv"
        _write_rows(rows, model, usual, paths, sum(counts), label, batch_size)
        table, skipped = _read_rows(rows)
        separations = _separate(Path(output), table) if against is not None else {}
        place_file(rows, output)
    if against is not None and not separations:
        raise UserError(f"one of the two sets has no usable image: see the reasons in {output}.")
    return Scores(len(table["set"]), skipped, separations)


def _reference(
    path: Path, model: Density, held_out: str | Path | None, count: int, label: int | None, batch_size: int
) -> Reference:
    """The held-out images' bits per dimension, kept for a continuation."""
    if path.exists():
        return reference(np.load(path, allow_pickle=False))
    entries = _held_out_entries(model, count) if held_out is None else own_images.entries(held_out, model.prepare)
    bits = [np.zeros(0)]
    with progress_bar(total=count, desc="held-out images", unit="img", leave=False) as bar:
        for batch in _batches(model, itertools.islice(entries, count), label, batch_size):
            if len(batch.images):
                bits.append(bits_per_dim(model.measure(batch.images, batch.labels)[0], batch.images))
            bar.update(len(batch.names))
    values = np.concatenate(bits)
    values = values[np.isfinite(values)]
    if not len(values):
        source = "the run's test split" if held_out is None else held_out
        raise UserError(f"{source} has no image of finite log_prob to compare with: give others as --held_out.")
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, values)
    return reference(values)


def _held_out_entries(model: Density, count: int) -> Iterator[own_images.OwnImage]:
    """The first images of the test split that the model was trained beside."""
    from tf_pivae.uses.held_out import training_dataset

    try:
        split = training_dataset(model.run_dir, model.facts).test.take(count)
    except UserError as error:
        raise UserError(f"no held-out images to compare with: {str(error).rstrip('.')}; give --held_out.") from error
    for i in range(len(split)):
        label = None if split.labels is None else int(split.labels[i])
        yield own_images.OwnImage("held out", functools.partial(np.asarray, split.images[i]), label)


def _batches(
    model: Density, entries: Iterator[own_images.OwnImage], label: int | None, size: int
) -> Iterator[own_images.Batch]:
    return own_images.batches(entries, size, model.prepare.image_shape, model.facts["num_classes"], label)


def _write_rows(
    path: Path, model: Density, held_out: Reference, paths: list[str], total: int, label: int | None, batch_size: int
) -> None:
    """Appends the rows that are not there yet."""
    num_lines = _whole_lines(path)
    with (
        open(path, "a", encoding="utf-8", newline="") as file,
        progress_bar(total=total, initial=max(0, num_lines - 1), desc="scores", unit="img", leave=False) as bar,
    ):
        if not num_lines:
            file.write(_lines([_HEADER]))
        skip = max(0, num_lines - 1)
        for name, source in zip(_SETS, paths, strict=False):
            entries = own_images.entries(source, model.prepare)
            skip -= sum(1 for _ in itertools.islice(entries, skip))
            for batch in _batches(model, entries, label, batch_size):
                file.write(_lines(_rows(name, batch, model, held_out)))
                file.flush()
                bar.update(len(batch.names))


def _rows(name: str, batch: own_images.Batch, model: Density, held_out: Reference) -> Iterator[list[object]]:
    """Cells, row by row."""
    values = {column: np.zeros(0) for column in UNUSUAL}
    if len(batch.images):
        values = columns(*model.measure(batch.images, batch.labels), batch.images, held_out)
    scored = zip(*values.values(), strict=True)
    for file, problem in zip(batch.names, batch.problems, strict=True):
        cells = [""] * len(UNUSUAL)
        if not problem:
            numbers = next(scored)
            cells = ["" if np.isnan(number) else f"{number:.9g}" for number in numbers]
            if not np.isfinite(numbers[0]):
                cells = [""] * len(UNUSUAL)
                problem = "no finite log_prob"
        yield [name, csv_cell(file), *cells, csv_cell(problem)]


def _lines(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _whole_lines(path: Path) -> int:
    """How many whole lines a file has; what follows the last one is cut off."""
    if not path.exists():
        return 0
    number = 0
    end = 0
    with open(path, "r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                number += 1
                end += len(line)
        file.truncate(end)
    return number


def _read_rows(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """The numbers of the table: a float64 [N] for each column, "set" a bool [N] (against); and the rows without any."""
    skipped = 0
    values = {name: array.array("d") for name in ("set", *UNUSUAL)}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["problem"]:
                skipped += 1
                continue
            values["set"].append(row["set"] == _SETS[1])
            for name in UNUSUAL:
                values[name].append(float(row[name] or "nan"))
    return {name: np.asarray(column, bool if name == "set" else np.float64) for name, column in values.items()}, skipped


def _separate(output: Path, table: dict[str, np.ndarray]) -> dict[str, Separation]:
    """The areas under the curves and the histograms, beside the output; none where a set has no image."""
    other = table["set"]
    if other.all() or not other.any():
        return {}
    names = [name for name in UNUSUAL if np.isfinite(table[name]).all()]
    separations = {}
    for name in progress_bar(names, desc="areas under the curves", leave=False):
        values = UNUSUAL[name] * table[name]
        separations[name] = separation(values[~other], values[other])
    header = ["column", *(f"{area}{end}" for area in ("auroc", "aupr") for end in ("", "_low", "_high"))]
    cells = [[name, *(f"{value:.4f}" for area in areas for value in area)] for name, areas in separations.items()]
    charts = [_histograms(name, table[name][~other], table[name][other]) for name in names]
    picture, areas_table = _beside(output)
    figures.save_png(figures.stacked(charts), picture)
    write_atomically(areas_table, _lines([header, *cells]))
    return separations


def _beside(output: Path) -> tuple[Path, Path]:
    """Where the histograms and the areas go."""
    return output.with_suffix(".histograms.png"), output.with_suffix(".auroc.csv")


def _histograms(name: str, usual: np.ndarray, unusual: np.ndarray) -> Image.Image:
    """Both sets' shares of images in bins of a column; the outermost hundredths lie in the outermost bins."""
    low, high = np.percentile(np.concatenate([usual, unusual]), (0.5, 99.5))
    edges = np.linspace(low, max(high, low + 1e-9), _BINS + 1)
    series = {}
    for label, values in zip(_SETS, (usual, unusual), strict=True):
        shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        series[label] = (np.repeat(edges, 2).tolist(), [0.0, *np.repeat(shares, 2).tolist(), 0.0])
    return figures.line_chart(series, name, "share of the images", name)
