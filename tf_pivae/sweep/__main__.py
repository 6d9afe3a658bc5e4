"""Trains many times, with different settings, side by side:

    python -m tf_pivae.sweep --gin_file=demo.gin --sweep=adversarial_weight=10,30,100 --sweep=seed=0,1 \\
        --sweep_dir=sweeps/demo --max_parallel=2
    python -m tf_pivae.sweep --gin_file=demo.gin --mode=random --num_trials=20 \\
        --sweep='learning_rate=log(1e-4,1e-2)' --sweep='RealNVP.num_couplings=int(2,6)' --sweep_dir=sweeps/random

Every trial is a process and a run directory of its own. Run again with the same command to go on after an interruption
or a failure; finished trials are not run again, values and trials may be added. Writes results.csv, sweep.png, and
what `tensorboard --logdir=SWEEP_DIR` shows. Exit status: 0 all trials finished; 2 a mistake that the message explains,
or no trial finished; 3 some trials failed, see results.csv; 130 or 143 stopped by SIGINT or SIGTERM, after all trials
have saved.
"""

import sys

from absl import flags

from tf_pivae import cli

cli.define_gin_flags()
_SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "NAME=VALUE,VALUE,... or (with --mode=random) NAME=log(a,b), uniform(a,b), int(a,b); repeat for other settings. "
    "NAME is a macro, a binding such as Trainer.beta_1, or a parameter that one part of the model has.",
)
_SWEEP_DIR = flags.DEFINE_string("sweep_dir", None, "Folder of the sweep, with a run directory for each trial.")
_MODE = flags.DEFINE_enum("mode", "grid", ["grid", "random"], "Every combination, or --num_trials random draws.")
_NUM_TRIALS = flags.DEFINE_integer("num_trials", None, "How many random draws --mode=random makes.", lower_bound=1)
_SWEEP_SEED = flags.DEFINE_integer("sweep_seed", 0, "Seed of the random draws.")
_MAX_PARALLEL = flags.DEFINE_integer("max_parallel", 1, "Trials at a time.", lower_bound=1)
_METRICS = flags.DEFINE_list("metrics", [], "Evaluate every trial: see tf_pivae.evaluate, --metrics.")
_LAUNCHER = flags.DEFINE_enum(
    "launcher", "local", ["local", "ray"], "Processes of this machine, or tasks of a Ray cluster (pip install ray)."
)
_CPUS = flags.DEFINE_integer(
    "cpus_per_trial",
    None,
    "Threads of a trial; by default its share of this machine's cores, and 1 under Ray, which reserves as many CPUs.",
    lower_bound=1,
)
_GPUS = flags.DEFINE_integer("gpus_per_trial", 0, "GPUs that a trial reserves on Ray; locally, trials share all.", 0)
_RAY_ADDRESS = flags.DEFINE_string("ray_address", None, "A running Ray cluster (auto, ray://...); default a local one.")


def main() -> None:
    cli.import_tensorflow_quietly()
    from tf_pivae.sweep import command

    status = command.sweep(
        flags.FLAGS.gin_file,
        flags.FLAGS.gin_param,
        _SWEEP.value,
        sweep_dir=_SWEEP_DIR.value,
        mode=_MODE.value,
        num_trials=_NUM_TRIALS.value,
        sweep_seed=_SWEEP_SEED.value,
        max_parallel=_MAX_PARALLEL.value,
        metrics=_METRICS.value,
        launcher=_LAUNCHER.value,
        cpus_per_trial=_CPUS.value,
        gpus_per_trial=_GPUS.value,
        ray_address=_RAY_ADDRESS.value,
        flags=cli.import_flags(),
    )
    if status:
        sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
