"""One step of one contestant, in a process of its own: python -m benchmarks.race.worker FOLDER NAME STEP"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.race import measuring
from benchmarks.race.measuring import Settings
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, write_atomically
from tf_pivae.system import children, startup

CLASSES = {"gan": "GAN", "flow": "Glow", "vae": "VAE", "ddpm": "DDPM", "pivae": "PiVAE"}  # In modules of these names.
STEPS = {"train": "training.json", "use": "use.json", "score": "scores.json"}  # The files say that they are done.


def main(output: Path, name: str, step: str) -> None:
    """Does the step, and writes its file."""
    children.end_with_parent()
    settings = Settings(**read_json(output / "race.json"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.cores])
    os.environ["OMP_NUM_THREADS"] = str(settings.cores)
    if step == "score" or name == "pivae":
        startup.import_tensorflow_quietly()
    folder = output / name
    with np.load(output / "images.npz") as images:
        train = images["train"]
        test = images["test"]
    if step == "score":
        result = measuring.score(folder, test, output / "reference", settings.inception_weights, settings.fast)
    else:
        contestant = getattr(importlib.import_module(f"benchmarks.race.{name}"), CLASSES[name])()
        if step == "train":
            started = time.monotonic()
            before = _others_seconds()
            result = contestant.fit(train, folder, settings)
            result["date"] = time.strftime("%Y-%m-%d")
            if before is not None:
                result["others"] = (_others_seconds() - before) / (time.monotonic() - started)
        else:
            contestant.restore(folder)
            result = measuring.use(contestant, test[: settings.num_log_probs], folder, settings.num_samples)
            result |= {"title": contestant.title, "tuned": contestant.tuned}
    write_atomically(folder / STEPS[step], json.dumps(result, indent=1) + "\n")


def _others_seconds() -> float | None:
    """Processor time of all but this process and its children since the machine's start; None but on Linux."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except (UserError, ArithmeticError) as error:
        sys.exit(f"{sys.argv[2]}: {error}")
