"""Walks between images of your own: python -m tf_pivae.interpolate --run_dir=fashion_mnist --images=FOLDER

From the first image to the second, from the third to the fourth, and so on, through the latents: a row each of one PNG.
--output=FOLDER/ writes a PNG an image, --output=NAME.npz one array. Interrupted, those are continued by the same
command.
"""

from absl import flags

from tf_pivae import cli, uses
from tf_pivae.arguments import SEEDS
from tf_pivae.uses import image_outputs

cli.define_import_flag()
flags.adopt_module_key_flags(cli)  # shows it in --help
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "The images, an even number: a folder, or an .npz file.", required=True)
_OUTPUT = flags.DEFINE_string("output", "walks.png", "NAME.png, FOLDER/ or NAME.npz.")
_STEPS = flags.DEFINE_integer("steps", 8, "Images of a walk, its ends among them.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise.", *SEEDS)
_STEP = cli.define_step_flag("use")
_LABEL = flags.DEFINE_integer("label", None, "Class of the images, for a class-conditional model.", lower_bound=0)


def main() -> None:
    image_outputs.check(_OUTPUT.value)
    cli.import_tensorflow_quietly()
    step = uses.interpolate(
        _RUN_DIR.value, _IMAGES.value, _OUTPUT.value, _STEPS.value, _SEED.value, _STEP.value, _LABEL.value
    )
    print(f"{_IMAGES.value} by {_RUN_DIR.value} at step {step}: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
