"""Trains a PiVAE: python -m tf_pivae.train --gin_file=demo.gin --run_dir=runs/demo

Run again with the same command to continue a run that was cut off, or with a larger num_steps one that is finished.
--from_here lets it go on with other settings, which RUN/changes.json records. --describe prints what is built, at
full size and without its data, and trains nothing; --dry_run does everything up to the first step, says what it would
do and writes nothing. Exit status: 0 finished, 2 a mistake that the message explains, 75 another worker is gone, 143
(130, 129) stopped by SIGTERM (SIGINT, SIGHUP: a closed terminal) after saving.
"""

import sys
from pathlib import Path

from absl import flags

from tf_pivae import cli, loading
from tf_pivae.train import train

cli.define_gin_flags()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; default runs/NAME for --gin_file=NAME.gin.")
_DESCRIBE = flags.DEFINE_bool("describe", False, "Print blocks, weights, FLOPs, latents and memory; train nothing.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Build everything, check data, disk and run directory, print what would be done; write nothing."
)


_FROM_HERE = flags.DEFINE_bool(
    "from_here", False, "Go on with other settings, such as another learning rate, from the run's last checkpoint."
)


def main() -> None:
    stem = Path(flags.FLAGS.gin_file[-1]).stem if flags.FLAGS.gin_file else ""  # Without a file, `train` says so.
    run_dir = _RUN_DIR.value or str(Path("runs") / stem)
    if _DESCRIBE.value or _DRY_RUN.value:
        loading.parse_gin(flags.FLAGS.gin_file, flags.FLAGS.gin_param)
        from tf_pivae.training import precision

        line = precision.settle(run_dir)
        if line:
            print(line)
    if _DESCRIBE.value:
        from tf_pivae.describe import architecture, architecture_text

        title = ", ".join(flags.FLAGS.gin_file)
        print(architecture_text.describe(architecture.measure(*architecture.configured()), title))
        return
    if _DRY_RUN.value:
        from tf_pivae.train import dry_run
        from tf_pivae.training.recipe import Recipe

        print(dry_run.rehearse(Recipe(), run_dir, _FROM_HERE.value))
        return
    outcome = train(run_dir, flags.FLAGS.gin_file, flags.FLAGS.gin_param, _FROM_HERE.value)
    if outcome.signal is not None:
        sys.exit(128 + outcome.signal)


if __name__ == "__main__":
    cli.run(main)
