"""Encodes and decodes images of your own: python -m tf_pivae.reconstruct --run_dir=fashion_mnist --images=FOLDER

Writes each image beside its reconstruction into one PNG; --output=FOLDER/ writes a PNG a reconstruction,
--output=NAME.npz one array. Interrupted, those are continued by the same command.
"""

from absl import flags

from tf_pivae import cli, uses
from tf_pivae.arguments import SEEDS
from tf_pivae.uses import image_outputs

cli.define_import_flag()
flags.adopt_module_key_flags(cli)  # shows it in --help
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "The images: a folder, or an .npz file.", required=True)
_OUTPUT = flags.DEFINE_string("output", "reconstructions.png", "NAME.png, FOLDER/ or NAME.npz.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise.", *SEEDS)
_STEP = cli.define_step_flag("use")
_COLUMNS = flags.DEFINE_integer("columns", None, "Pairs in a row of the grid; 4 by default.", lower_bound=1)
_LABEL = flags.DEFINE_integer("label", None, "Class of the images, for a class-conditional model.", lower_bound=0)


def main() -> None:
    image_outputs.check(_OUTPUT.value)
    cli.import_tensorflow_quietly()
    step = uses.reconstruct(
        _RUN_DIR.value, _IMAGES.value, _OUTPUT.value, _SEED.value, _STEP.value, _COLUMNS.value, _LABEL.value
    )
    print(f"{_IMAGES.value} by {_RUN_DIR.value} at step {step}: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
