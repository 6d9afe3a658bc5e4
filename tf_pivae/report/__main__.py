"""Shows runs on one page: python -m tf_pivae.report --run_dir=runs/demo --output=report.html

Repeat --run_dir to put several runs side by side. The page is one file and needs no network. Pictures that a folder
lacks are drawn by its checkpoint, so that a published or copied model shows its samples, too.
"""

from absl import flags

from tf_pivae import cli
from tf_pivae.arguments import SEEDS
from tf_pivae.errors import check_output

cli.define_import_flag()
_RUN_DIRS = flags.DEFINE_multi_string(
    "run_dir", None, "Folder of a run, or a pretrained model; repeat for others.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "report.html", "The HTML page to write.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 200, "Images of each set for the likelihoods.", lower_bound=1)
_OTHER_DATA = flags.DEFINE_string(
    "other_data",
    None,
    "A gin file whose train.dataset is shown to the models as another data set, such as datasets/photographs.gin; by "
    "default Fashion-MNIST, to those of other data.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise but that of the samples.", *SEEDS)


_GIN_PARAM = cli.define_data_flag()


def main() -> None:
    cli.import_tensorflow_quietly()
    from tf_pivae.loading import configured_dataset, data_at
    from tf_pivae.report.page import write_report

    check_output(_OUTPUT.value)
    other = None if _OTHER_DATA.value is None else configured_dataset([_OTHER_DATA.value], [])
    with data_at(*_GIN_PARAM.value):
        write_report(_RUN_DIRS.value, _OUTPUT.value, _NUM_EXAMPLES.value, _SEED.value, other)
    print(f"report: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
