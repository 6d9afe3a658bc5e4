"""Walks between images of your own: python -m tf_pivae.interpolate --run_dir=fashion_mnist --images=FOLDER

Through the latents, from the first image to the second, from the third to the fourth, and so on; each walk is a row of
one PNG. --output=FOLDER/ writes each image as a PNG, --output=NAME.npz all of them as one array. If interrupted, the
same command continues either.
"""

from absl import flags

from tf_pivae import cli, uses
from tf_pivae.uses import image_outputs

_FLAGS = cli.define_own_images_flags("The images, an even number: a folder, or an .npz file.", uses.interpolate)
_STEPS = flags.DEFINE_integer(
    "steps", cli.defaults(uses.interpolate)["steps"], "Images of a walk, with its two ends.", lower_bound=2
)


def main() -> None:
    run_dir, images, output, seed, step, label = (flag.value for flag in _FLAGS)
    image_outputs.check(output)
    cli.import_tensorflow_quietly()
    step = uses.interpolate(run_dir, images, output, _STEPS.value, seed, step, label)
    print(f"{images} by {run_dir} at step {step}: {output}")


if __name__ == "__main__":
    cli.run(main)
