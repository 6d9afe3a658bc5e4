"""What needs the model: reconstructions, walks through the latents, likelihoods."""

import dataclasses

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.reports import latents, likelihoods, pictures
from tf_pivae.training import runs as run_directories
from tf_pivae.training.building import num_elements

_NO_LIKELIHOOD = "trained without likelihood: it has no bits per dimension."
_NO_ENCODER = "trained without likelihood: its encoder learnt nothing that could place an image among the latents."
_RECONSTRUCTIONS, _WALKS, _STEPS = 16, 4, 8


@dataclasses.dataclass(frozen=True)
class Views:
    """What a run's newest checkpoint shows; a str instead of something says why it is missing."""

    step: int | None  # of the checkpoint; None without one
    num_weights: int | None  # trainable weights of the model
    reconstructions: list | str  # of `Picture`, as the next two
    traversals: list | str
    interpolations: list | str
    likelihoods: likelihoods.Likelihoods | str


def gather(run, num_examples, seed, progress=lambda what: None, other=None):
    """Loads a run's newest checkpoint and its data, and looks at them.

    Args:
      run: `Run`.
      num_examples: images of each set for the likelihoods.
      seed: int, of all noise.
      progress: a function that is told, in two words, what comes next.
      other: another `ImageDataset` for the likelihoods, or None for the default.

    Returns:
      `Views`. What the run does not have is a reason instead of pictures, never an error.
    """
    progress("the model")
    try:
        model, step = run_directories.load_with_step(run.path)
    except UserError as error:
        return Views(None, None, *[str(error)] * 4)
    num_weights = num_elements(model.trainable_variables)
    progress("traversals")
    label = 0 if model.num_classes else None
    traversals = _traversals(model, seed, label)
    progress("interpolations")
    walks = [_between_samples(model, seed)]
    try:
        data = run_directories.load_dataset(run.path)
    except UserError as error:
        return Views(step, num_weights, str(error), traversals, [*walks, str(error)], str(error))
    if not run.facts["likelihood"]:
        return Views(step, num_weights, _NO_ENCODER, traversals, [*walks, _NO_ENCODER], _NO_LIKELIHOOD)
    walks.append(_between_images(model, data, seed))
    progress("reconstructions")
    reconstructions = [_reconstructions(model, data, seed)]
    progress("likelihoods")
    bits = likelihoods.gather(model, data, run.facts, num_examples, seed, other)
    return Views(step, num_weights, reconstructions, traversals, walks, bits)


def _reconstructions(model, data, seed):
    test = data.test.take(_RECONSTRUCTIONS)
    real = np.asarray(test.images)
    decoded = model.reconstruct(real, seed, labels=test.labels if model.num_classes else None)
    pairs = np.stack([real, decoded], 1).reshape(-1, *real.shape[1:])
    alt = f"{len(real)} held-out images, each with its reconstruction at its right."
    return pictures.grid(pairs, 8, alt, "Held-out image | its reconstruction, four pairs a row.", model.num_bins)


def _traversals(model, seed, label):
    names, by_group = latents.through_groups(model, _STEPS, seed, label)
    channels, by_channel = latents.through_top_channels(model, _WALKS, _STEPS, seed, label)
    of_class = "" if label is None else f" Class {label}."
    listed = ", ".join(names)
    shown = ", ".join(map(str, channels))
    return [
        pictures.grid(
            by_group,
            _STEPS,
            f"{len(names)} rows of samples. In each, one latent group changes from left to right: {listed}.",
            f"One latent group a row, the top of the hierarchy first ({listed}): it alone goes along a great circle "
            f"from one draw of its prior to another; the noise of the others stays.{of_class}",
            model.num_bins,
        ),
        pictures.grid(
            by_channel,
            _STEPS,
            f"{len(channels)} rows of samples. In each, one channel of the top latents grows from left to right.",
            f"One channel of the top latents a row, from −{latents.TOP_RANGE:g} to {latents.TOP_RANGE:g} standard "
            f"deviations: those that change this sample most, channels {shown}.{of_class}",
            model.num_bins,
        ),
    ]


def _between_samples(model, seed):
    labels = np.arange(_WALKS) % model.num_classes if model.num_classes else None
    walk = latents.between_samples(model, _WALKS, _STEPS, seed, labels)
    of_class = "" if labels is None else f" Classes {', '.join(map(str, labels))}."
    return pictures.grid(
        walk,
        _STEPS,
        f"{_WALKS} rows. In each, one sample turns into another from left to right.",
        f"Between two samples: all latents along great circles between two draws of the prior.{of_class}",
        model.num_bins,
    )


def _between_images(model, data, seed):
    chosen = pairs(data.test.labels if model.num_classes else None, len(data.test), _WALKS)
    images = np.asarray(data.test.images)[chosen]
    labels = data.test.labels[chosen] if model.num_classes else None
    walk = latents.between_images(model, images, _STEPS, seed, labels)
    of_class = "" if labels is None else " Both of one class."
    return pictures.grid(
        walk,
        _STEPS,
        f"{len(chosen) // 2} rows. In each, one held-out image turns into another from left to right.",
        "Between two held-out images: straight lines between their posteriors' samples; the ends are their "
        f"reconstructions.{of_class}",
        model.num_bins,
    )


def pairs(labels, count, wanted):
    """Indices of the first pairs of images, both of one class where labels are given: int [2 * at most `wanted`].

    Where no class has two images, an image is paired with itself.
    """
    if labels is None:
        return np.arange(2 * min(wanted, max(count // 2, 1))) % count
    found = [np.flatnonzero(labels == label)[:2] for label in np.unique(labels)]
    found = [pair for pair in found if len(pair) == 2][:wanted] or [np.zeros(2, np.int64)]
    return np.concatenate(found)
