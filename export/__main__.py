"""Exports a trained model: python -m tf_pivae.export --run_dir=runs/demo --export_dir=exports/demo

Writes exports/demo/<version>/, a SavedModel with the moving-average weights that loads without this program:
TensorFlow Serving, tf.saved_model.load, the C API, OpenVINO. See docs/serving.md.
"""

import itertools
from pathlib import Path

from absl import flags

from tf_pivae import cli
from tf_pivae.arguments import MOST_SAMPLES
from tf_pivae.system.progress import progress_bar

cli.define_import_flag()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, or a pretrained model's name.", required=True)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder for the versions, which a server watches.", required=True)
_STEP = cli.define_step_flag("export")
_IMPORTANCE_SAMPLES = flags.DEFINE_integer(
    "importance_samples", 16, "K of the bound that log_prob gives.", 1, MOST_SAMPLES
)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Scales the priors' standard deviations in samples.", 0.0)
_SAMPLE_NOISE = flags.DEFINE_float(
    "sample_noise", 1.0, "Scales the noise of p(y|z) in samples: 1 is the model, 0 its mean.", 0.0
)


def main() -> None:
    cli.import_tensorflow_quietly()

    from tf_pivae.export.write.saved_model import PARTS, export_run
    from tf_pivae.export.write.signatures import Options

    options = Options(_IMPORTANCE_SAMPLES.value, _TEMPERATURE.value, _SAMPLE_NOISE.value)
    with progress_bar(total=PARTS, desc="export", unit="part") as bar:
        parts = itertools.count()

        def progress(text: str) -> None:
            bar.update(next(parts) - bar.n)  # Those before this one are done.
            bar.set_postfix_str(text)

        version, step = export_run(_RUN_DIR.value, _EXPORT_DIR.value, options, _STEP.value, progress)
        bar.update()
    print(f"{_RUN_DIR.value} at step {step}: {Path(_EXPORT_DIR.value, str(version))}")


if __name__ == "__main__":
    cli.run(main)
