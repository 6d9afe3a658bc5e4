"""What bfloat16 convolutions cost: a trained run evaluated in float32 and in bfloat16, with the same weights and noise.

    python -m benchmarks.precision --run_dir=runs/demo

For held-out images it prints the difference from float32 in bits per dimension (the mean over images with its standard
error, and the largest of an image) at K = 1 and K = 8, and what is left of an image after the head and its inverse, in
the image's own levels. Three rows: all convolutions in float32; in bfloat16 but for the head's, which is what
`options/mixed_precision.gin` does outside of training steps; all in bfloat16, which shows why.
"""

import math

import numpy as np
from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of a run that was trained by likelihood.", required=True)
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 500, "Held-out images.", 2)
_IMPORTANCE_SAMPLES = flags.DEFINE_integer("importance_samples", 8, "The second K.", 2)

# Precision of the VAE's convolutions and of the head's.
_PRECISIONS = {
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "bfloat16, head too": ("bfloat16", "bfloat16"),
}


def main() -> None:
    from tf_pivae import loading

    cli.import_tensorflow_quietly()
    data = loading.load_dataset(_RUN_DIR.value).test.take(_NUM_EXAMPLES.value)
    images = np.asarray(data.images)
    labels = data.labels
    exact = None
    samples = (1, _IMPORTANCE_SAMPLES.value)
    print(f"{len(images)} held-out images; difference from float32 in bits/dim: mean +- standard error, largest")
    print(_line("convolutions", *(f"K = {k}" for k in samples), "head, there and back"))
    for name, dtypes in _PRECISIONS.items():
        model = _load(_RUN_DIR.value, *dtypes)
        labels = labels if model.num_classes else None
        bits = [model.bits_per_dim(images, k, labels=labels).astype(np.float64) for k in samples]
        exact = exact or bits
        cells = [_difference(b - e) for b, e in zip(bits, exact, strict=True)]
        if bits is exact:
            cells = [f"{np.mean(b):.5f} bits/dim" for b in bits]
        print(_line(name, *cells, _round_trip(model, images)), flush=True)


def _line(name, *cells):
    return f"{name:24}" + "".join(f"{cell:>34}" for cell in cells)


def _load(run_dir, dtype, head_dtype):
    """The run's model with convolutions of other precisions than it was trained with."""
    from tf_pivae import loading
    from tf_pivae.bijectors.real_nvp import Conditioner
    from tf_pivae.layers.convolution import ConvolutionPrecision

    if not loading.load_facts(run_dir)["likelihood"]:
        raise UserError(f"{run_dir} was not trained by likelihood: it has no bits per dimension.")
    model = loading.load(run_dir)
    for part, part_dtype in ((model.vae, dtype), (model.flow, head_dtype)):
        for layer in [] if part is None else part._flatten_layers():
            if hasattr(layer, "precision"):
                layer.precision = ConvolutionPrecision(part_dtype)
            if isinstance(layer, Conditioner):
                layer.call = _in_its_precision(layer.call)
    return model


def _in_its_precision(call):
    return lambda x, training=False, exact=True: call(x, training=training, exact=False)


def _difference(values):
    error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.1e} +- {error:.0e}, {np.abs(values).max():.0e}"


def _round_trip(model, images, batch_size=50):
    """Root mean square and maximum of v - f^-1(f(v)), in levels of a pixel."""
    import tensorflow as tf

    from tf_pivae.noise import RowNoise

    if model.flow is None:
        return "no head"
    errors = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        v = model.dequantize(batch, RowNoise(0, len(batch), start))
        y = model.flow.bijector().forward(model.preprocessing().forward(v))
        errors.append(np.abs((model.to_image_space(y) - v) * tf.cast(model.num_bins, tf.float32)))
    errors = np.concatenate(errors)
    return f"rms {math.sqrt(np.mean(np.square(errors))):.1e}, largest {errors.max():.1e}"


if __name__ == "__main__":
    cli.run(main)
