"""Trains, evaluates and prints a whole table of the paper, ours beside the published numbers:

    python -m tf_pivae.paper --table=1 --preset=small --output_dir=tables --seeds=0,1

Tables 1, 2, 3, 4, 5, 7 and 8. Writes DIR/table_N.md and DIR/table_N.json, and keeps the runs below DIR/runs. Run again
with the same command to go on: finished parts are not redone, and tables share the runs of their common rows.
--pictures also draws samples, the training images nearest to them, reconstructions and learning curves, of the runs
that are there.
--gin_file=FILE changes all rows, for example to train them on other data.
--preset=full is the paper's size, small is for two CPU cores (Fashion-MNIST), tiny is for tests. Exit status 2 if a
number is missing; the table says why.
"""

import functools
import json
from pathlib import Path

from absl import flags

from tf_pivae import cli, loading
from tf_pivae.errors import UserError

cli.define_import_flag()
flags.adopt_module_key_flags(cli)  # shows it in --help
_TABLE = flags.DEFINE_enum("table", None, ["1", "2", "3", "4", "5", "7", "8"], "The table.", required=True)
_PRESET = flags.DEFINE_enum("preset", "small", ["full", "small", "tiny"], "Size of the nets, the data and the runs.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "tables", "Folder of the tables and their runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each gives a training of every row.")
_ROWS = flags.DEFINE_list("rows", [], "Names of rows (files in gin/paper/); all of the table's by default.")
_METRICS = flags.DEFINE_list("only_metrics", [], "Compute only these of the table's metrics.")
_ALSO = flags.DEFINE_list("also", [], "Metrics that the paper lacks: any of precision, recall, density, coverage.")
_FILES = flags.DEFINE_multi_string("gin_file", [], "A gin file for all trainings, after the preset's; repeatable.")
_PARAMS = flags.DEFINE_multi_string("gin_param", [], "A binding for all trainings, such as num_steps=500; repeatable.")
_INCEPTION = flags.DEFINE_string("inception_weights", None, "File with the FID Inception's weights, see evaluate.")
_PICTURES = flags.DEFINE_bool("pictures", False, "Draw DIR/table_N_samples.png and others, of the first seed's runs.")
_RETRY = flags.DEFINE_bool("retry", False, "Evaluate again what an earlier run could not.")


def main() -> None:
    cli.import_tensorflow_quietly()
    from tf_pivae.paper import comparison, numbers

    seeds = [_whole_number(seed) for seed in _SEEDS.value]
    if not seeds:
        raise UserError("--seeds is empty: give seeds, such as --seeds=0.")
    notes = [
        f"Preset {_PRESET.value}; seeds {', '.join(map(str, seeds))}: mean ± standard deviation over seeds."
        if len(seeds) > 1
        else f"Preset {_PRESET.value}; seed {seeds[0]}.",
    ]
    if _PRESET.value != "full":
        notes.append("Other data, smaller nets and fewer steps than the paper's: compare the order, not the values.")
    if _TABLE.value == "7":
        title = "Table 7: random subsets of real images against all of them"
        metrics = ("inception_score", "fid")
        rows = comparison.real_subset_rows(_real_subsets(seeds))
    else:
        table = numbers.TABLES[_TABLE.value]
        title = table.title
        metrics = [m for m in table.metrics if not _METRICS.value or m in _METRICS.value]
        if not set(_METRICS.value) <= set(table.metrics):
            raise UserError(f"--only_metrics: table {_TABLE.value} has {', '.join(table.metrics)}.")
        unknown = set(_ALSO.value) - set(numbers.BEYOND)
        if unknown:
            raise UserError(f"--also: choose from {', '.join(numbers.BEYOND)}.")
        rows = _systems(table, metrics, seeds, notes)
        metrics += _ALSO.value
    text = comparison.markdown(title, metrics, rows, notes)
    _write(text, title, seeds, rows)
    print(text, end="")
    missing = [label for label, cells in rows if any(cells[metric].reasons for metric in metrics)]
    if missing:
        raise UserError(f"numbers are missing for {', '.join(missing)}: the table says why; --retry evaluates again.")


def _whole_number(seed):
    if not seed.isdigit():
        raise UserError(f"--seeds={','.join(_SEEDS.value)}: expected whole numbers.")
    return int(seed)


def _systems(table, metrics, seeds, notes):
    """Trains and evaluates; pairs (label, cells)."""
    from tf_pivae.paper import comparison
    from tf_pivae.paper.row_runs import PRESETS, RowRun, gin_files

    names = [row.name for row in table.rows]
    unknown = [name for name in _ROWS.value if name not in names]
    if unknown:
        raise UserError(f"table {_TABLE.value} has no row {unknown[0]!r}; it has {', '.join(names)}.")
    requested = [row for row in table.rows if not _ROWS.value or row.name in _ROWS.value]
    for row in requested:  # Before anything is trained.
        loading.parse_gin([*gin_files(row.name, _PRESET.value), *_FILES.value], _PARAMS.value)
    _make_folder()
    if PRESETS[_PRESET.value].own_data and any(row.elsewhere for row in requested):
        notes.append("The preset's data stand for every data set: rows that differ in nothing else share their runs.")
    rows = []
    models = {}
    minutes = []
    for i, row in enumerate(requested, 1):
        row = row._replace(numbers={metric: row.numbers[metric] for metric in metrics}, also=tuple(_ALSO.value))
        inception = [f"--inception_weights={_INCEPTION.value}"] if _INCEPTION.value else []
        options = dict(extra_files=_FILES.value, gin_params=_PARAMS.value, evaluation=inception, retry=_RETRY.value)
        options["say"] = functools.partial(print, f"[{i}/{len(requested)}]", flush=True)
        runs = [RowRun(row, _PRESET.value, seed, _OUTPUT_DIR.value, **options) for seed in seeds]
        rows.append((row.label, comparison.row_cells(row, [run.run() for run in runs])))
        run_minutes = [run.minutes() for run in runs]
        if None not in run_minutes:
            minutes.append(f"{row.label} {sum(run_minutes) / len(run_minutes):.1f}")
        model = runs[0].directory / "model"
        if (model / "config.gin").is_file():
            models[row.label] = model
    if minutes:
        notes.append(f"Training took, minutes a seed with all its stages: {', '.join(minutes)}.")
    if _PICTURES.value and models:
        from tf_pivae.paper import pictures

        stem = Path(_OUTPUT_DIR.value) / f"table_{_TABLE.value}"
        pictures.draw(table.title.split(":")[0], list(models.items()), stem)
    return rows


def _make_folder():
    try:
        Path(_OUTPUT_DIR.value).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use {_OUTPUT_DIR.value}: {error.strerror}; choose another --output_dir.") from error


def _real_subsets(seeds):
    """Table 7: dict of a size -> every seed's dict of a metric -> result."""
    from tf_pivae.paper.row_runs import PRESETS, Parts, gin_files

    files = [*gin_files("cqfg", _PRESET.value), *_FILES.value]
    sizes = PRESETS[_PRESET.value].real_subsets
    command = [*files, *_PARAMS.value, f"inception_weights={_INCEPTION.value}"]
    loading.parse_gin(files, _PARAMS.value)
    _make_folder()
    scores = {size: [] for size in sizes}
    for seed in seeds:
        parts = Parts(Path(_OUTPUT_DIR.value) / "runs" / "real_subsets" / f"seed_{seed}")
        results = parts.finished("real_subsets", command)
        if results is None or (_RETRY.value and "reason" in str(results)):
            print(f"seed {seed}: scores of real images", flush=True)
            results = _real_subset_scores(files, sizes, seed)
            parts.finish("real_subsets", command, results)
        for size in sizes:
            scores[size].append(results[str(size)])
    return scores


def _real_subset_scores(files, sizes, seed):
    """dict of a size, as text, -> dict of a metric -> result, for one seed."""
    from tf_pivae.evaluate import image_metrics

    tiny = _PRESET.value == "tiny"
    settings = image_metrics.Settings((), seed=seed, inception_weights=_INCEPTION.value, allow_rank_deficient=tiny)
    data = loading.configured_dataset(files, _PARAMS.value)
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


def _write(text, title, seeds, rows):
    from tf_pivae.files import write_atomically

    folder = Path(_OUTPUT_DIR.value)
    content = {
        "title": title,
        "preset": _PRESET.value,
        "seeds": seeds,
        "gin_file": _FILES.value,
        "gin_param": _PARAMS.value,
        "rows": [{"label": label, **{m: c.as_dict() for m, c in cells.items()}} for label, cells in rows],
    }
    write_atomically(folder / f"table_{_TABLE.value}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / f"table_{_TABLE.value}.md", text)


if __name__ == "__main__":
    cli.run(main)
