"""What needs the model: everything drawn from a run's newest checkpoint, and its likelihoods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tf_pivae import loading
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.errors import UserError
from tf_pivae.metrics import describe_groups, groups_in_use
from tf_pivae.report import drawn, likelihoods
from tf_pivae.report.pictures import Picture, PicturesOrReason, from_file
from tf_pivae.report.run import Run
from tf_pivae.report.waterfall import Terms, measured_terms
from tf_pivae.training.building import num_elements
from tf_pivae.uses.held_out import training_dataset

PARTS = 6  # What `gather` announces.
_NO_LIKELIHOOD = "trained without likelihood: it has no bits per dimension."
_NO_ENCODER = "trained without likelihood: its encoder learnt nothing that could place an image among the latents."


@dataclasses.dataclass(frozen=True)
class Views:
    """What a run's newest checkpoint shows; a str instead of something says why it is missing."""

    step: int | None  # of the checkpoint; None without one
    num_weights: int | None  # trainable weights of the model
    samples: tuple[int, bytes] | None  # the step, and a PNG
    neighbours: PicturesOrReason
    reconstructions: PicturesOrReason
    traversals: PicturesOrReason
    unused: tuple[str, Picture] | None  # a sentence on the latent groups without information, and their traversals
    likelihoods: likelihoods.Likelihoods | str
    terms: Terms | str


def unloadable(run: Run, reason: str) -> Views:
    """The views of a run without a checkpoint: what its training left as files, and the reason for the rest."""
    left = "Held-out images and their reconstructions, which the training left at its end."
    files = from_file(run.path / "reconstructions.png", f"Reconstructions of {run.name}.", left)
    return Views(None, None, None, reason, files or reason, reason, None, reason, measured_terms(run, reason))


def gather(run: Run, num_examples: int, seed: int, progress: Callable[[str], None] = lambda text: None,
           other: ImageDataset | None = None) -> Views:  # fmt: skip
    """Loads a run's newest checkpoint and its data, and looks at them.

    Args:
      num_examples: images of each set for the likelihoods.
      seed: of all noise.
      progress: a function that is told, in two words, what comes next.
      other: another `ImageDataset` for the likelihoods, or None for the default.

    Returns:
      `Views`. What the run does not have is a reason instead of pictures, never an error.
    """
    progress("the model")
    try:
        model, step = loading.load_with_step(run.path)
    except UserError as error:
        return unloadable(run, str(error))
    progress("samples")
    samples = drawn.samples(model)
    data = _dataset(run)
    likely = run.facts["likelihood"]
    progress("likelihoods")
    if not likely:
        bits: likelihoods.Likelihoods | str = _NO_LIKELIHOOD
    elif isinstance(data, str):
        bits = data
    else:
        bits = likelihoods.gather(model, data, run.facts, num_examples, seed, other)
    terms = measured_terms(run, bits)
    progress("neighbours")
    neighbours = data if isinstance(data, str) else [drawn.neighbours(data, samples)]
    progress("reconstructions")
    reconstructions: PicturesOrReason = data if likely and isinstance(data, str) else _NO_ENCODER
    if likely and not isinstance(data, str):
        reconstructions = [drawn.reconstructions(model, data.test, seed), drawn.between_images(model, data.test, seed)]
    progress("latents")
    kl_bits = {} if isinstance(terms, str) else terms.kl_bits(run.dimensions)
    used = groups_in_use(kl_bits)
    groups, others = drawn.through_groups(model, seed, [name for name in kl_bits if name not in used])
    return Views(
        step=step,
        num_weights=num_elements(model.trainable_variables),
        samples=(step, drawn.sample_picture(model, samples)),
        neighbours=neighbours,
        reconstructions=reconstructions,
        traversals=[drawn.between_samples(model, seed), drawn.through_channels(model, seed), groups],
        unused=None if others is None else (describe_groups(kl_bits), others),
        likelihoods=bits,
        terms=terms,
    )


def _dataset(run: Run) -> ImageDataset | str:
    """What the run was trained on, or why it cannot be read."""
    try:
        return training_dataset(run.path, run.facts)
    except UserError as error:
        return str(error)
