"""Prepares the data set that a configuration names, ahead of training.

    python -m tf_pivae.prepare --gin_file=cifar.gin

Downloads what has to be downloaded, says how much disk space it takes, shows a progress bar, and prints where the data
set lies. If killed, it continues when started again. Training does the same if the data are not prepared yet.
"""

import logging

from absl import flags

from tf_pivae import cli, loading
from tf_pivae.data import cache

cli.define_gin_flags()


def main() -> None:
    """Prepares the data set, and says where it lies."""
    # The space needed and free, and where a killed preparation is taken up again.
    logging.getLogger("tf_pivae.data").setLevel(logging.INFO)
    print(cache.describe(loading.configured_dataset(flags.FLAGS.gin_file, flags.FLAGS.gin_param)))


if __name__ == "__main__":
    cli.run(main)
