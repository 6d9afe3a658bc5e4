"""Scores images of your own: python -m tf_pivae.score --run_dir=fashion_mnist --images=FOLDER --output=scores.csv

Writes a row for each file: how probable the model finds it, where that lies among held-out images, and how many bits
it takes compared with a PNG. --against=OTHER_FOLDER adds how well each column tells the two folders apart. If
interrupted, the same command continues.
"""

from absl import flags

from tf_pivae import cli, loading, uses
from tf_pivae.arguments import MOST_SAMPLES, SEEDS
from tf_pivae.errors import check_output

cli.define_import_flag()
_DEFAULTS = cli.defaults(uses.score)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of the run, a pretrained model's name, or an export's folder.", required=True
)
_IMAGES = flags.DEFINE_string("images", None, "The images: a folder, or an .npz file.", required=True)
_OUTPUT = flags.DEFINE_string("output", _DEFAULTS["output"], "The CSV to write.")
_AGAINST = flags.DEFINE_string("against", None, "Other images, which ought to be unusual: a folder, or an .npz file.")
_HELD_OUT = flags.DEFINE_string(
    "held_out", None, "Images to compare with, that the model has not seen; the run's test split by default."
)
_NUM_HELD_OUT = flags.DEFINE_integer(
    "num_held_out", _DEFAULTS["num_held_out"], "At most this many images of held_out.", lower_bound=1
)
_IMPORTANCE_SAMPLES = flags.DEFINE_integer(
    "importance_samples", None, "K of log_prob; 16 by default. An export has its own.", 1, MOST_SAMPLES
)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS["seed"], "Seed of the noise.", *SEEDS)
_STEP = cli.define_step_flag("score with")
_LABEL = flags.DEFINE_integer("label", None, "Class of the images, for a class-conditional model.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULTS["batch_size"], "Images at a time.", lower_bound=1)


_GIN_PARAM = cli.define_data_flag()


def main() -> None:
    check_output(_OUTPUT.value)
    cli.import_tensorflow_quietly()
    with loading.data_at(*_GIN_PARAM.value):
        result = uses.score(
            _RUN_DIR.value,
            _IMAGES.value,
            _OUTPUT.value,
            _AGAINST.value,
            _HELD_OUT.value,
            _NUM_HELD_OUT.value,
            _IMPORTANCE_SAMPLES.value,
            _SEED.value,
            _STEP.value,
            _LABEL.value,
            _BATCH_SIZE.value,
        )
    skipped = f", {result.skipped} skipped (see the column `problem`)" if result.skipped else ""
    print(f"{result.scored} images scored{skipped}: {_OUTPUT.value}")
    for column, areas in result.separations.items():
        (roc, low, high), (pr, pr_low, pr_high) = areas
        print(f"{column:<16} AUROC {roc:.3f} ({low:.3f} to {high:.3f})   AUPR {pr:.3f} ({pr_low:.3f} to {pr_high:.3f})")


if __name__ == "__main__":
    cli.run(main)
