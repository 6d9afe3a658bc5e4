"""Where the start of a training goes: a process that starts the demo and says when each part of it was done.

    python -m benchmarks.starting RUN_DIR     -> {"imports": s, ..., "operations": n}, a line of JSON

Run by the part "start" of `benchmarks.run`, as `python -m tf_pivae.train --gin_file=demo.gin` up to its first step.
"""

import contextlib
import functools
import json
import os
import sys
import time
from typing import Any

from tf_pivae import cli
from tf_pivae.system import startup
from tf_pivae.train import train

PARTS = {  # The parts in their order -> what the page calls them.
    "imports": "imports and the configuration",
    "model": "building the model",
    "average": "building it once more, for the moving average",
    "optimizers": "critic, optimisers, copies of weights",
    "data": "data set, run directory, first batch",
    "tracing": "tracing the step",
    "preparation": "TensorFlow's preparation of the graph, and the step",
}


def main(run_dir: str) -> None:
    """Trains one step in a new run directory and prints the seconds of each part, from the start of Python on."""
    with contextlib.redirect_stdout(sys.stderr):
        parts = measured(run_dir)
    print(json.dumps(parts), flush=True)


def measured(run_dir: str) -> dict[str, float]:
    """Seconds by part, and the number of the graph's operations."""
    started = time.time() - _age()
    startup.import_tensorflow_quietly()
    import tensorflow as tf

    from tf_pivae.training.recipe import Recipe
    from tf_pivae.training.trainer import Trainer

    spans: dict[str, list[tuple[float, float]]] = {}
    operations = []

    def timed(owner: type, name: str) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def run(*arguments: Any, **keywords: Any) -> Any:
            begun = time.time()
            result = method(*arguments, **keywords)
            spans.setdefault(name, []).append((begun, time.time()))
            if name == "train_step":
                operations.append(len(tf.compat.v1.get_default_graph().get_operations()))
            return result

        setattr(owner, name, run)

    for owner, name in ((Recipe, "build_model"), (Recipe, "build"), (Trainer, "train_step")):
        timed(owner, name)
    first_step: list[float] = []
    bindings = ["num_steps=1", "train.log_every=1", "train.eval_examples=0"]
    train(run_dir, "demo.gin", bindings, callback=lambda *_: first_step.append(time.time()))
    model, average = spans["build_model"]
    built_from, built = spans["build"][0]
    traced_from, traced = spans["train_step"][0]
    seconds = {
        "imports": built_from - started,
        "model": model[1] - model[0],
        "average": average[1] - average[0],
        "data": traced_from - built,
        "tracing": traced - traced_from,
        "preparation": first_step[0] - traced,
    }
    seconds["optimizers"] = built - built_from - seconds["model"] - seconds["average"]
    return {**{part: seconds[part] for part in PARTS}, "operations": operations[0]}


def _age() -> float:
    """Seconds since this process began."""
    with open("/proc/uptime") as uptime, open("/proc/self/stat") as stat:
        began = int(stat.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(uptime.read().split()[0]) - began


if __name__ == "__main__":
    cli.run(functools.partial(main, sys.argv.pop(1)))
