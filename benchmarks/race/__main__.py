"""An hour each: python -m benchmarks.race --output=FOLDER

What a user would pick instead of ours, each as a good user would write it, trained for the same time on the same cores
and images, one after the other, alone on the machine: a spectrally normalised GAN, a Glow of normflows, a hierarchical
VAE, a small DDPM, ours. Writes FOLDER/race.md, a table of bits per dimension, FID, precision, recall, seconds and
weights, and a picture of each one's samples. The same command goes on where it was cut off, and does nothing twice.
Needs the extra `bench` and the weights of the FID Inception (README.md, Use).
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.process import ROOT
from benchmarks.race import measuring, page
from benchmarks.race.measuring import Settings
from benchmarks.race.worker import CLASSES, STEPS
from tf_pivae import cli
from tf_pivae.errors import UserError
from tf_pivae.files import read_json, write_atomically
from tf_pivae.system import children, startup, threads

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the race.", required=True)
_MINUTES = flags.DEFINE_float("minutes", 60.0, "Training of each contestant.")
_ONLY = flags.DEFINE_list("only", list(CLASSES), f"Contestants, of {', '.join(CLASSES)}.")
_CORES = flags.DEFINE_integer("cores", None, "Cores, and threads on them; all by default.", 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 10_000, "Samples, compared with as many test images.", 4)
_NUM_LOG_PROBS = flags.DEFINE_integer("num_log_probs", 10_000, "Test images of the bits per dimension.", 2)
_IMAGES = flags.DEFINE_enum(
    "images",
    "complete",
    ["complete", "bundled"],
    "Fashion-MNIST: all of it, or the subset that comes with the package.",
)
_GIN_FILES = flags.DEFINE_multi_string("gin_file", ["fashion_mnist_hour.gin"], "The configuration of ours; repeatable.")
_FAST = flags.DEFINE_bool("fast", False, "The Inception's convolutions in bfloat16, as `evaluate --fast`.")
_INCEPTION = flags.DEFINE_string("inception_weights", None, "File with the FID Inception's weights.")
_PACKAGE = Path("/usr/share/datasets/fashion-mnist")


def main() -> None:
    output = Path(_OUTPUT.value).absolute()
    names = _names()
    cores = min(_CORES.value or threads.num_cores(), threads.num_cores())
    settings = Settings(
        _IMAGES.value,
        _MINUTES.value,
        cores,
        _NUM_SAMPLES.value,
        _NUM_LOG_PROBS.value,
        _GIN_FILES.value,
        _INCEPTION.value,
        _FAST.value,
    )
    _check(names, settings)
    _prepare(output, settings)
    failed = [name for name in names if not _race(output, name)]
    print(page.write(output, settings).read_text(encoding="utf-8"))
    if failed:
        raise UserError(f"{', '.join(failed)} failed: see log.txt in the folder of each in {output}.")


def _names() -> list[str]:
    for name in _ONLY.value:
        if name not in CLASSES:
            raise UserError(f"--only: there is no contestant {name!r}; choose from {', '.join(CLASSES)}.")
    return [name for name in CLASSES if name in _ONLY.value]


def _check(names: list[str], settings: Settings) -> None:
    """Whatever can be known at once need not wait for the hour's end."""
    from tf_pivae.metrics.inception_weights import find_weights

    if settings.minutes <= 0.0:
        raise UserError(f"--minutes must be positive; got {settings.minutes:g}.")
    needed = {"pivae": [], "flow": ["torch", "normflows"]}
    startup.require_extra("bench", *(module for name in names for module in needed.get(name, ["torch"])))
    find_weights(settings.inception_weights)


def _prepare(output: Path, settings: Settings) -> None:
    """The folder with its settings and images; UserError if it is another race's, or nothing of the kind."""
    record = output / "race.json"
    if record.exists():
        earlier = Settings(**read_json(record))
        other = [name for name, a, b in zip(Settings._fields, earlier, settings, strict=True) if a != b]
        if other:
            values = ", ".join(f"{name} = {getattr(earlier, name)}" for name in other)
            raise UserError(f"{output} holds a race with {values}: give it the same, or another folder.")
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} holds something else: choose another --output.")
    if not (output / "images.npz").exists():
        train, test = _images(settings.images)
        if settings.num_samples > len(test):
            raise UserError(f"--num_samples={settings.num_samples}: there are {len(test)} test images to compare with.")
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(settings._asdict(), indent=1) + "\n")
        measuring.save(output / "images.npz", np.savez, train=train, test=test)


def _images(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, uint8 [N, 28, 28, 1]."""
    from tf_pivae import data, loading

    if source == "bundled":
        images = data.bundled(28)
    elif not _PACKAGE.is_dir():
        raise UserError(f"{_PACKAGE} is missing: apt-get install dataset-fashion-mnist, or --images=bundled.")
    else:
        images = loading.configured_dataset(["datasets/fashion_mnist_28.gin"], [])
    return np.asarray(images.train.images), np.asarray(images.test.images)


def _race(output: Path, name: str) -> bool:
    """One contestant, each of whose steps is done once; whether it got to the end."""
    folder = output / name
    folder.mkdir(exist_ok=True)
    for step, file in STEPS.items():
        if (folder / file).exists():
            continue
        print(f"{name}: {step}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.race.worker", str(output), name, step]
        with (folder / "log.txt").open("a") as log:
            ended = subprocess.run(command, check=False, cwd=ROOT, env=children.environment(), stdout=log, stderr=log)
        if ended.returncode:
            return False
    return True


if __name__ == "__main__":
    cli.run(main)
