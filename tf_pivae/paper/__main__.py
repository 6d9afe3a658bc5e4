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

from absl import flags

from tf_pivae import cli
from tf_pivae.arguments import SEEDS
from tf_pivae.errors import UserError

cli.define_import_flag()
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
    from tf_pivae.paper import comparison, numbers, table_runs

    seeds = [_whole_number(seed) for seed in _SEEDS.value]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={','.join(_SEEDS.value)}: a seed comes twice, which counts one training twice.")
    if not seeds:
        raise UserError("--seeds is empty: give seeds, such as --seeds=0.")
    options = table_runs.TableOptions(
        table=_TABLE.value,
        preset=_PRESET.value,
        seeds=seeds,
        output_dir=_OUTPUT_DIR.value,
        rows=_ROWS.value,
        also=_ALSO.value,
        gin_files=_FILES.value,
        gin_params=_PARAMS.value,
        inception_weights=_INCEPTION.value,
        pictures=_PICTURES.value,
        retry=_RETRY.value,
        import_flags=cli.import_flags(),
    )
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
        rows = comparison.real_subset_rows(table_runs.real_subsets(options))
    else:
        table = numbers.TABLES[_TABLE.value]
        title = table.title
        metrics = [m for m in table.metrics if not _METRICS.value or m in _METRICS.value]
        if not set(_METRICS.value) <= set(table.metrics):
            raise UserError(f"--only_metrics: table {_TABLE.value} has {', '.join(table.metrics)}.")
        unknown = set(_ALSO.value) - set(numbers.BEYOND)
        if unknown:
            raise UserError(f"--also: choose from {', '.join(numbers.BEYOND)}.")
        rows = table_runs.systems(options, table, metrics, notes)
        metrics += _ALSO.value
    text = comparison.markdown(title, metrics, rows, notes)
    table_runs.write(options, text, title, rows)
    print(text, end="")
    missing = [label for label, cells in rows if any(cells[metric].reasons for metric in metrics)]
    if missing:
        raise UserError(f"numbers are missing for {', '.join(missing)}: the table says why; --retry evaluates again.")


def _whole_number(seed):
    if not (seed.isascii() and seed.isdecimal() and len(seed) < 20 and int(seed) <= SEEDS[1]):
        raise UserError(f"--seeds={','.join(_SEEDS.value)}: expected whole numbers, of 63 bits at most.")
    return int(seed)


if __name__ == "__main__":
    cli.run(main)
