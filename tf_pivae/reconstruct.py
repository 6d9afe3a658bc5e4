"""Encodes and decodes images of your own: python -m tf_pivae.reconstruct --run_dir=fashion_mnist --images=FOLDER

Writes each image beside its reconstruction into one PNG; --output=FOLDER/ writes each reconstruction as a PNG,
--output=NAME.npz all of them as one array. If interrupted, the same command continues either.
"""

from absl import flags

from tf_pivae import cli, uses
from tf_pivae.uses import image_outputs

_FLAGS = cli.define_own_images_flags("The images: a folder, or an .npz file.", uses.reconstruct)
_COLUMNS = flags.DEFINE_integer("columns", None, "Pairs in a row of the grid; 4 by default.", lower_bound=1)


def main() -> None:
    run_dir, images, output, seed, step, label = (flag.value for flag in _FLAGS)
    image_outputs.check(output)
    cli.import_tensorflow_quietly()
    step = uses.reconstruct(run_dir, images, output, seed, step, _COLUMNS.value, label)
    print(f"{images} by {run_dir} at step {step}: {output}")


if __name__ == "__main__":
    cli.run(main)
