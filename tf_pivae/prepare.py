"""Prepares the data set that a configuration names, ahead of training.

    python -m tf_pivae.prepare --gin_file=cifar.gin

Downloads what has to be downloaded, says how much disk space it takes, shows a progress bar, and prints where the data
set lies. Killed and started again, it continues. Training does the same when it finds nothing prepared.
"""

import logging
from collections.abc import Callable

import gin
from absl import flags

from tf_pivae import cli, loading
from tf_pivae.data import ImageDataset, cache
from tf_pivae.errors import UserError

cli.define_gin_flags()
flags.adopt_module_key_flags(cli)  # shows them in --help


@gin.configurable
def prepare(dataset: Callable[[], ImageDataset]) -> ImageDataset:
    """Gets its data set from gin, as `train` does: a function, whose call prepares what it returns.

    Raises:
      UserError: `dataset` is no function.
    """
    if not callable(dataset):
        raise UserError("train.dataset must be a function: write @bundled (say), without parentheses")
    return dataset()


def main() -> None:
    """Binds the configuration's `train.dataset` to `prepare` and calls it.

    Raises:
      UserError: there is none.
    """
    loading.parse_gin(flags.FLAGS.gin_file, flags.FLAGS.gin_param)
    try:
        dataset = gin.query_parameter("train.dataset")
    except ValueError as error:
        raise UserError("the configuration names no data set: add --gin_param=train.dataset=@bundled") from error
    gin.bind_parameter("prepare.dataset", dataset)
    # The space needed and free, and where a killed preparation is taken up again.
    logging.getLogger("tf_pivae.data").setLevel(logging.INFO)
    print(cache.describe(prepare()))


if __name__ == "__main__":
    cli.run(main)
