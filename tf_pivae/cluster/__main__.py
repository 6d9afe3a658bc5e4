"""Prints the TF_CONFIG of this worker, from what the scheduler tells it:

    export TF_CONFIG="$(python -m tf_pivae.cluster --scheduler=slurm)"
    python -m tf_pivae.train --gin_file=cifar.gin --run_dir=runs/cifar

Whole jobs: docs/clusters/.
"""

import os

from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError

_SCHEDULER = flags.DEFINE_enum("scheduler", None, ["slurm", "kubernetes"], "Whose variables to read.")
_PORT = flags.DEFINE_integer(
    "port",
    None,
    "Of the first worker on a machine; by default one that depends on the Slurm job, 15000 under Kubernetes.",
    lower_bound=1024,
    upper_bound=65000,
)


def main() -> None:
    from tf_pivae.cluster.tf_config import tf_config

    if _SCHEDULER.value is None:
        raise UserError("give --scheduler=slurm or --scheduler=kubernetes.")
    print(tf_config(_SCHEDULER.value, os.environ, _PORT.value))


if __name__ == "__main__":
    cli.run(main)
