"""Draws samples from a trained model: python -m tf_pivae.sample --run_dir=runs/demo --output=grid.png

--output=samples/ writes each sample as a PNG, --output=samples.npz all of them as one array; if interrupted, the same
command continues either. The same seed gives the same samples. --run_dir=fashion_mnist is the model that comes with the
package. A class-conditional model draws one class in each row of the grid, or the classes that --labels names.
"""

from absl import flags

from tf_pivae import cli, uses
from tf_pivae.arguments import SEEDS
from tf_pivae.errors import UserError
from tf_pivae.uses import image_outputs

cli.define_import_flag()
_DEFAULTS = cli.defaults(uses.sample)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True)
_STEP = cli.define_step_flag("draw from")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", _DEFAULTS["num_samples"], "How many samples to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS["seed"], "Sample i is a function of (seed, i).", *SEEDS)
_OUTPUT = flags.DEFINE_string(
    "output", _DEFAULTS["output"], "NAME.png for a grid, FOLDER/ for one PNG each, NAME.npz for an array."
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", _DEFAULTS["temperature"], "Scales the priors' standard deviations.", lower_bound=0.0
)
_SAMPLE_NOISE = flags.DEFINE_float(
    "sample_noise",
    _DEFAULTS["sample_noise"],
    "Scales the noise of p(y|z): 1 is the model, 0 its mean.",
    lower_bound=0.0,
)
_COLUMNS = flags.DEFINE_integer(
    "columns", None, "Columns of the grid; by default it is about square, or has a row for each class.", lower_bound=1
)
_LABELS = flags.DEFINE_list("labels", [], "Classes of a class-conditional model: 0,3,7; default all.")


def main() -> None:
    image_outputs.check(_OUTPUT.value)
    labels = [int(label) if label.isdecimal() else -1 for label in _LABELS.value]
    if -1 in labels:
        raise UserError(f"--labels={','.join(_LABELS.value)}: expected numbers, such as 0,3,7.")
    cli.import_tensorflow_quietly()
    step = uses.sample(
        _RUN_DIR.value,
        _OUTPUT.value,
        _NUM_SAMPLES.value,
        _SEED.value,
        _STEP.value,
        _TEMPERATURE.value,
        _SAMPLE_NOISE.value,
        _COLUMNS.value,
        labels,
    )
    samples = "1 sample" if _NUM_SAMPLES.value == 1 else f"{_NUM_SAMPLES.value} samples"
    print(f"{samples} of {_RUN_DIR.value} at step {step}: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
