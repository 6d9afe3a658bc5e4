"""How well each column of `tf_pivae.score` tells unusual images: python -m benchmarks.anomaly_scores --num_images=200

The usual images are held-out ones of the bundled Fashion-MNIST; the unusual ones are the same turned upside down, made
noisy or blurred, letters, and tiles of photographs where there is a folder of them. Prints a table of AUROCs.
"""

import string
import tempfile
from collections.abc import Iterator

import numpy as np
from absl import flags
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tf_pivae import cli
from tf_pivae.system.progress import progress_bar

_RUN_DIR = flags.DEFINE_string("run_dir", "fashion_mnist", "A run on grey images, square ones, or such a model.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 200, "Of each set.", 2)
_NUM_HELD_OUT = flags.DEFINE_integer("num_held_out", 500, "Images to compare with.", 2)
_IMPORTANCE_SAMPLES = flags.DEFINE_integer("importance_samples", 8, "K of log_prob.", 1)
_PHOTOGRAPHS = flags.DEFINE_string("photographs", None, "A folder of photographs.")

_COLUMNS = ("log_prob", "percentile", "typicality_p", "bits_over_png")
_NOISE = 10.0  # Standard deviation, of 255 levels.
_BLUR = 1.0  # Standard deviation, pixels.
_RESAMPLES = 1000


def main() -> None:
    cli.import_tensorflow_quietly()
    from tf_pivae.data import bundled
    from tf_pivae.uses.columns import UNUSUAL, bits_per_dim, columns, reference
    from tf_pivae.uses.detection import separation
    from tf_pivae.uses.opening import density

    model = density(_RUN_DIR.value, _IMPORTANCE_SAMPLES.value)
    side = model.facts["image_shape"][0]
    test = np.asarray(bundled(side).test.images)
    held_out = test[-_NUM_HELD_OUT.value :]
    usual = test[: _NUM_IMAGES.value]
    usual_bits = reference(bits_per_dim(model.measure(held_out, None)[0], held_out))

    def measured(images: np.ndarray) -> dict[str, np.ndarray]:
        return columns(*model.measure(images, None), images, usual_bits)

    print(f"AUROC, {len(usual)} images of each set (95 % bootstrap interval)\n")
    print("| held-out images against | " + " | ".join(f"`{name}`" for name in _COLUMNS) + " |")
    print("|---|" + "---|" * len(_COLUMNS))
    ordinary = measured(usual)
    for name, images in progress_bar(unusual_sets(usual, _PHOTOGRAPHS.value), desc="sets", leave=False):
        unusual = measured(images)
        areas = [
            separation(UNUSUAL[column] * ordinary[column], UNUSUAL[column] * unusual[column], _RESAMPLES).auroc
            for column in _COLUMNS
        ]
        cells = (f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" for area in areas)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def unusual_sets(usual: np.ndarray, photographs: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs (name, uint8 [N, S, S, 1]) made of the usual images, or at most as many others."""
    rng = np.random.default_rng(0)
    side = usual.shape[1]
    yield "themselves upside down", usual[:, ::-1]
    noisy = usual + rng.normal(0.0, _NOISE, usual.shape)
    yield f"themselves with noise of {_NOISE:g} levels", np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    blur = ImageFilter.GaussianBlur(_BLUR)
    yield (
        "themselves blurred",
        np.stack([np.asarray(Image.fromarray(i[..., 0]).filter(blur))[..., None] for i in usual]),
    )
    yield "letters", np.stack([letter(rng, side) for _ in usual])
    if photographs is not None:
        yield "tiles of photographs", tiles(photographs, len(usual), side)


def letter(rng: np.random.Generator, side: int) -> np.ndarray:
    """A letter of Pillow's own font, of a random size and at a random slant, white on black: uint8 [side, side, 1]."""
    canvas = Image.new("L", (side, side))
    font = ImageFont.load_default(size=int(side * rng.integers(18, 30) / 32))
    text = string.ascii_letters[rng.integers(len(string.ascii_letters))]
    ImageDraw.Draw(canvas).text((side / 2, side / 2), text, 255, font, anchor="mm")
    return np.asarray(canvas.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC))[..., None]


def tiles(folder: str, count: int, side: int) -> np.ndarray:
    """Tiles of photographs made smaller, grey: uint8 [at most `count`, side, side, 1]."""
    from tf_pivae.data import image_folder

    with tempfile.TemporaryDirectory() as cache:
        data = image_folder(folder, side, crop="tiles", downscale=(4, 8, 16), channels=1, cache_dir=cache)
        images = data.train.images
        return np.asarray(images[np.random.default_rng(0).permutation(len(images))[:count]])


if __name__ == "__main__":
    cli.run(main)
