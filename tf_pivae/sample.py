"""Draws samples from a trained model: python -m tf_pivae.sample --run_dir=runs/demo --output=grid.png

The same seed gives the same picture. --run_dir=fashion_mnist is the model that comes with the package. A
class-conditional model gets one class a row, or those that --labels names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError, check_output
from tf_pivae.system.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from tf_pivae.models.pivae import PiVAE

_BATCH = 64  # Images at a time.
_NO_PNG = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
cli.define_import_flag()
flags.adopt_module_key_flags(cli)  # shows it in --help
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True)
_STEP = cli.define_step_flag("draw from")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 64, "How many.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Sample i is a function of (seed, i).")
_OUTPUT = flags.DEFINE_string("output", "samples.png", "The PNG to write.")
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Scales the priors' standard deviations.", lower_bound=0.0)
_SAMPLE_NOISE = flags.DEFINE_float(
    "sample_noise", 1.0, "Scales the noise of p(y|z): 1 is the model, 0 its mean.", lower_bound=0.0
)
_COLUMNS = flags.DEFINE_integer(
    "columns", None, "Columns of the grid; by default it is about square, or has a row for each class.", lower_bound=1
)
_LABELS = flags.DEFINE_list("labels", [], "Classes of a class-conditional model, a row each: 0,3,7; default all.")


def main() -> None:
    check_output(_OUTPUT.value)
    if Path(_OUTPUT.value).suffix.lower() in _NO_PNG:
        raise UserError(
            f"--output={_OUTPUT.value}: samples are written as a PNG; call it {Path(_OUTPUT.value).stem}.png."
        )
    cli.import_tensorflow_quietly()
    import numpy as np

    from tf_pivae import figures
    from tf_pivae.loading import load_with_step

    model, step = load_with_step(_RUN_DIR.value, _STEP.value)
    labels, columns = None, _COLUMNS.value
    classes = _classes(_LABELS.value, model.num_classes)
    if classes:
        rows, columns = figures.class_rows(_NUM_SAMPLES.value, len(classes), columns)
        labels = np.asarray(classes)[rows]
    images = np.concatenate(list(_batches(model, labels)))
    figures.save_png(figures.image_grid(images, columns, num_bins=model.num_bins), _OUTPUT.value)
    print(f"{_NUM_SAMPLES.value} samples of {_RUN_DIR.value} at step {step}: {_OUTPUT.value}")


def _batches(model: "PiVAE", labels: "np.ndarray | None") -> Iterator["np.ndarray"]:
    """uint8 [b, H, W, C], batch by batch, with a progress bar; sample i is the same whatever the batches."""
    count = _NUM_SAMPLES.value
    with progress_bar(total=count, desc="samples", unit="img", leave=False) as bar:
        for first in range(0, count, _BATCH):
            size = min(_BATCH, count - first)
            chosen = None if labels is None else labels[first : first + size]
            yield model.sample(
                size, _SEED.value, _TEMPERATURE.value, _SAMPLE_NOISE.value, chosen, batch_size=_BATCH, first_row=first
            )
            bar.update(size)


def _classes(wanted: list[str], num_classes: int) -> list[int]:
    """The classes to draw: those wanted, or all."""
    if not wanted:
        return list(range(num_classes))
    if not num_classes:
        raise UserError("--labels: this model is not class-conditional.")
    if not all(label.isdecimal() and int(label) < num_classes for label in wanted):
        raise UserError(f"--labels={','.join(wanted)}: expected numbers from 0 to {num_classes - 1}.")
    return [int(label) for label in wanted]


if __name__ == "__main__":
    cli.run(main)
