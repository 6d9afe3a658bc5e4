"""Evaluates a trained model: python -m tf_pivae.evaluate --run_dir=RUN --metrics=bits_per_dim,fid,kid --split=test

Prints a table and writes it to RUN/evaluation.json, which keeps the other metrics of the same step. With --watch it
follows a running training and evaluates every new checkpoint into RUN/evaluations.jsonl and TensorBoard. Without a run
it compares two folders of images (--images, --reference_images), or repeats the study of Table 7
(--real_subsets=50000,40000,... with --gin_file naming a data set).
An interrupted evaluation goes on where it stopped.
"""

import sys

from absl import flags

from tf_pivae import cli, loading
from tf_pivae.arguments import MOST_SAMPLES, SEEDS
from tf_pivae.errors import UserError
from tf_pivae.evaluate import image_metrics
from tf_pivae.evaluate.image_metrics import Settings
from tf_pivae.runs.changes import is_place
from tf_pivae.system import processor

cli.define_gin_flags()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_METRICS = flags.DEFINE_list("metrics", ["bits_per_dim"], f"Any of {', '.join(image_metrics.METRICS)}.")
_SPLIT = flags.DEFINE_enum("split", Settings.split, ["train", "test"], "Images of the bits per dimension.")
_REFERENCE_SPLIT = flags.DEFINE_enum(
    "reference_split",
    Settings.reference_split,
    ["train", "test"],
    "Images that samples are compared with; the paper takes held-out ones.",
)
_IMPORTANCE_SAMPLES = flags.DEFINE_integer(
    "importance_samples", Settings.importance_samples, "K of the tighter bound.", 1, MOST_SAMPLES
)
_REFINEMENT_STEPS = flags.DEFINE_integer(
    "refinement_steps", Settings.refinement_steps, "Steps that refine q for refined_bits_per_dim.", lower_bound=1
)
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Images for the bits per dimension; default all.", 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "How many samples; default as many as the reference.", 2)
_SEED = flags.DEFINE_integer("seed", Settings.seed, "Seed of all noise.", *SEEDS)
_STEP = cli.define_step_flag("evaluate")
_INCEPTION = flags.DEFINE_string(
    "inception_weights", None, "File with the FID Inception's weights: .pb, .tgz, .pt or .npz; see the guide."
)
_NETWORK = flags.DEFINE_string(
    "feature_network", None, "Another feature network: a Keras model file or a SavedModel; scores are named after it."
)
_RANK_DEFICIENT = flags.DEFINE_bool(
    "allow_rank_deficient", False, "Compute Frechet distances from fewer samples than feature dimensions."
)
_FAST = flags.DEFINE_bool(
    "fast", False, "Features of the Inception with bfloat16 convolutions: quicker where the processor has bfloat16."
)
_WATCH = flags.DEFINE_bool("watch", False, "Follow a running training until its last step.")
_POLL_SECONDS = flags.DEFINE_float("poll_seconds", 10.0, "How often --watch looks for a new checkpoint.", 0.1)
_REAL_SUBSETS = flags.DEFINE_list("real_subsets", [], "Sizes of random subsets of real images (Table 7).")
_IMAGES = flags.DEFINE_string("images", None, "Folder of PNGs to score without a run.")
_REFERENCE_IMAGES = flags.DEFINE_string("reference_images", None, "Folder of PNGs to compare --images with.")


def main() -> None:
    if not _REAL_SUBSETS.value:  # Bindings for the evaluation itself, such as ClassifierConfig.num_steps.
        loading.parse_gin(flags.FLAGS.gin_file, flags.FLAGS.gin_param, required=False)
    cli.import_tensorflow_quietly()
    import tensorflow as tf

    from tf_pivae.evaluate import results

    settings = Settings(
        metrics=tuple(_METRICS.value),
        split=_SPLIT.value,
        reference_split=_REFERENCE_SPLIT.value,
        importance_samples=_IMPORTANCE_SAMPLES.value,
        refinement_steps=_REFINEMENT_STEPS.value,
        num_examples=_NUM_EXAMPLES.value,
        num_samples=_NUM_SAMPLES.value,
        seed=_SEED.value,
        inception_weights=_INCEPTION.value,
        feature_network=_NETWORK.value,
        allow_rank_deficient=_RANK_DEFICIENT.value,
        fast=_FAST.value,
    )
    if _FAST.value and not processor.has_bfloat16() and not tf.config.list_physical_devices("GPU"):
        print(
            "--fast: this processor has no bfloat16 (avx512_bf16, amx_bf16) and emulates it, slowly.", file=sys.stderr
        )
    if _REAL_SUBSETS.value:
        data = loading.configured_dataset(flags.FLAGS.gin_file, flags.FLAGS.gin_param)
        print(results.table(image_metrics.real_subset_rows(data, _counts(_REAL_SUBSETS.value), settings)))
    elif _IMAGES.value and _RUN_DIR.value:
        raise UserError("--images scores a folder, --run_dir a run: give one of them.")
    elif _IMAGES.value:
        rows, refused = image_metrics.folder_rows(_IMAGES.value, _REFERENCE_IMAGES.value, settings)
        if rows:
            print(results.table(rows), flush=True)
        if refused:
            raise UserError(" ".join(refused))
    elif not _RUN_DIR.value:
        raise UserError("give --run_dir=RUN (or --images, or --real_subsets; see --help).")
    else:
        with loading.data_at(*(p for p in flags.FLAGS.gin_param if is_place(p.partition("=")[0].strip()))):
            _evaluate(settings)


def _evaluate(settings: Settings) -> None:
    """Evaluates the run, once or whenever it has a new checkpoint."""
    from tf_pivae.evaluate import watching
    from tf_pivae.runs.pretrained import check_own

    if not settings.metrics:
        raise UserError(f"--metrics is empty: choose from {', '.join(image_metrics.METRICS)}.")
    check_own(_RUN_DIR.value)
    if _WATCH.value and _STEP.value is not None:
        raise UserError("--watch evaluates every checkpoint, --step one: give one of them.")
    if _WATCH.value:
        watching.watch(_RUN_DIR.value, settings, _POLL_SECONDS.value)
    else:
        watching.evaluate(_RUN_DIR.value, settings, _STEP.value)


def _counts(values: list[str]) -> list[int]:
    try:
        return [int(value) for value in values]
    except ValueError:
        raise UserError(f"--real_subsets={','.join(values)}: expected whole numbers.") from None


if __name__ == "__main__":
    cli.run(main)
