"""Trains and evaluates whatever a table of the paper shows, and writes it: its rows, or Table 7's real images."""

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.evaluate import image_metrics
from tf_pivae.files import read_json, write_atomically
from tf_pivae.paper import comparison, pictures
from tf_pivae.paper.numbers import Table
from tf_pivae.paper.row_runs import PRESETS, Parts, RowRun, gin_files


class TableOptions(NamedTuple):
    """How a table is made."""

    table: str  # its number
    preset: str  # name of a `Preset`
    seeds: Sequence[int]
    output_dir: str
    rows: Sequence[str] = ()  # names of the rows wanted; all of them where there are none
    also: Sequence[str] = ()  # metrics of `numbers.BEYOND`
    gin_files: Sequence[str] = ()  # of all trainings, after the preset's
    gin_params: Sequence[str] = ()  # of all trainings
    inception_weights: str | None = None
    pictures: bool = False  # drawn of the first seed's runs, too
    retry: bool = False  # evaluates again what was refused
    import_flags: Sequence[str] = ()  # the --import flags of each part


def systems(options: TableOptions, table: Table, metrics: Sequence[str], notes: list[str]) -> list[tuple[str, dict]]:
    """Trains and evaluates the rows of a table.

    Args:
      options, table: how the table is made, and which.
      metrics: those of the table's that are wanted.
      notes: lines below the table, which are added to.

    Returns:
      (label, `comparison.row_cells`) of each row.

    Raises:
      UserError: no such row, a wrong configuration, or a folder that cannot be made.
    """
    names = [row.name for row in table.rows]
    unknown = [name for name in options.rows if name not in names]
    if unknown:
        raise UserError(f"table {options.table} has no row {unknown[0]!r}; it has {', '.join(names)}.")
    requested = [row for row in table.rows if not options.rows or row.name in options.rows]
    for row in requested:  # Before anything is trained.
        loading.parse_gin([*gin_files(row.name, options.preset), *options.gin_files], options.gin_params)
    _open_folder(options)
    if PRESETS[options.preset].own_data and any(row.elsewhere for row in requested):
        notes.append("The preset uses one data set in place of all; rows that differ only in their data share one run.")
    inception = [f"--inception_weights={options.inception_weights}"] if options.inception_weights else []
    rows = []
    models = {}
    minutes = []
    for i, row in enumerate(requested, 1):
        row = row._replace(numbers={metric: row.numbers[metric] for metric in metrics}, also=tuple(options.also))
        say = functools.partial(print, f"[{i}/{len(requested)}]", flush=True)
        runs = [
            RowRun(
                row,
                options.preset,
                seed,
                options.output_dir,
                extra_files=options.gin_files,
                gin_params=options.gin_params,
                evaluation=inception,
                retry=options.retry,
                import_flags=options.import_flags,
                say=say,
            )
            for seed in options.seeds
        ]
        rows.append((row.label, comparison.row_cells(row, [run.run() for run in runs])))
        run_minutes = [run.minutes() for run in runs]
        if None not in run_minutes:
            minutes.append(f"{row.label} {sum(run_minutes) / len(run_minutes):.1f}")
        model = runs[0].directory / "model"
        if (model / "config.gin").is_file():
            models[row.label] = model
    if minutes:
        notes.append(f"Training took, minutes a seed with all its stages: {', '.join(minutes)}.")
    if options.pictures and models:
        stem = Path(options.output_dir) / f"table_{options.table}"
        pictures.draw(table.title.split(":")[0], list(models.items()), stem)
    return rows


def real_subsets(options: TableOptions) -> dict[int, list[dict]]:
    """Table 7: the size of a subset -> every seed's dict of a metric -> result.

    Raises:
      UserError: a wrong configuration, or a folder that cannot be made.
    """
    files = [*gin_files("cqfg", options.preset), *options.gin_files]
    sizes = PRESETS[options.preset].real_subsets
    command = [*files, *options.gin_params, f"inception_weights={options.inception_weights}"]
    loading.parse_gin(files, options.gin_params)
    _open_folder(options)
    scores: dict[int, list[dict]] = {size: [] for size in sizes}
    for seed in options.seeds:
        parts = Parts(Path(options.output_dir) / "runs" / "real_subsets" / f"seed_{seed}", options.gin_files)
        results = parts.finished("real_subsets", command)
        if results is None or (options.retry and "reason" in str(results)):
            print(f"seed {seed}: scores of real images", flush=True)
            results = _real_subset_scores(options, files, sizes, seed)
            parts.finish("real_subsets", command, results)
        for size in sizes:
            scores[size].append(results[str(size)])
    return scores


def _real_subset_scores(options, files, sizes, seed):
    """dict of a size, as text, -> dict of a metric -> result, for one seed."""
    tiny = options.preset == "tiny"
    settings = image_metrics.Settings(
        (), seed=seed, inception_weights=options.inception_weights, allow_rank_deficient=tiny
    )
    data = loading.configured_dataset(files, options.gin_params)
    try:
        scores = {row.metric: row for row in image_metrics.real_subset_rows(data, sizes, settings)}
    except UserError as error:
        reason = {"reason": str(error)}
        return {str(size): {"inception_score": reason, "fid": reason} for size in sizes}

    def result(name):
        if name not in scores:
            return {"reason": "these weights give no logits"}
        return {"value": scores[name].value, "protocol": scores[name].protocol}

    names = {"inception_score": "Inception Score", "fid": "FID"}
    return {str(size): {metric: result(f"{size} real: {name}") for metric, name in names.items()} for size in sizes}


def write(options: TableOptions, text: str, title: str, rows: Sequence[tuple[str, dict]]) -> None:
    """Writes DIR/table_N.md and DIR/table_N.json.

    Args:
      options: how the table was made.
      text, title: the table as Markdown, and its title.
      rows: of `systems`.
    """
    content = {
        "title": title,
        "preset": options.preset,
        "seeds": options.seeds,
        "gin_file": options.gin_files,
        "gin_param": options.gin_params,
        "rows": [{"label": label, **{m: c.as_dict() for m, c in cells.items()}} for label, cells in rows],
    }
    stem = Path(options.output_dir) / f"table_{options.table}"
    write_atomically(stem.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    write_atomically(stem.with_suffix(".md"), text)


def _open_folder(options):
    """Makes the folder; refuses one with tables of another preset, whose runs have the same names."""
    folder = Path(options.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use {folder}: {error.strerror}; choose another --output_dir.") from error
    for path in sorted(folder.glob("table_*.json")):
        with contextlib.suppress(UserError, ValueError, AttributeError):  # Damaged: it is written again.
            preset = read_json(path).get("preset", options.preset)
            if preset != options.preset:
                break
    else:
        return
    raise UserError(f"{path} is of --preset={preset}: choose another --output_dir for --preset={options.preset}.")
