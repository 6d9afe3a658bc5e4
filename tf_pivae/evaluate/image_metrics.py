"""What an evaluation is asked for, and the metrics that take images alone: of a folder, or of subsets of real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_pivae import figures, metrics
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.data.levels import LookedUpImages
from tf_pivae.errors import UserError
from tf_pivae.evaluate.results import Row

IMAGE_METRICS = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")
CLASSIFIER_METRICS = ("gan_train", "gan_test")
METRICS = ("bits_per_dim", "refined_bits_per_dim", *IMAGE_METRICS, *CLASSIFIER_METRICS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of an evaluation."""

    metrics: tuple[str, ...]
    split: str = "test"  # of the bits per dimension
    reference_split: str = "test"  # that samples are compared with: held-out data, the paper's protocol
    importance_samples: int = 16
    refinement_steps: int = 2  # of the refined bits per dimension
    num_examples: int | None = None  # held-out images for the bits per dimension; None is all
    num_samples: int | None = None  # None is as many as the reference has
    seed: int = 0
    inception_weights: str | None = None
    feature_network: str | None = None
    allow_rank_deficient: bool = False
    fast: bool = False  # the Inception's convolutions in bfloat16
    progress: bool = True

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(f"unknown metric {name!r}: choose from {', '.join(METRICS)}.")
        for split in (self.split, self.reference_split):
            if split not in ("train", "test"):
                raise UserError(f"unknown split {split!r}: choose train or test.")
        if self.fast and self.feature_network:
            raise UserError("--fast applies to the Inception network of FID only: leave it out with --feature_network.")


def feature_network(settings: Settings, example: np.ndarray) -> metrics.FeatureNetwork:
    """The Inception network of FID, or the network that the settings name."""
    if settings.feature_network:
        return metrics.keras_network(settings.feature_network, example=example)
    return metrics.inception_network(settings.inception_weights, fast=settings.fast)


def full_scale(data: ImageDataset) -> ImageDataset:
    """The data set's images on the full scale, which is what a feature network expects, whatever their levels."""
    if data.num_bins == 256:
        return data
    table = np.zeros(256, np.uint8)
    table[: data.num_bins] = figures.full_scale(np.arange(data.num_bins), data.num_bins)
    train, test = (
        dataclasses.replace(split, images=LookedUpImages(split.images, table)) for split in (data.train, data.test)
    )
    return dataclasses.replace(data, train=train, test=test)


def real_subset_rows(data: ImageDataset, counts: Sequence[int], settings: Settings) -> list[Row]:
    """Table 7: scores of random subsets of the training images against all of them."""
    data = full_scale(data)
    network = feature_network(settings, np.asarray(data.train.images[:1]))
    rows = []
    for subset in metrics.real_subsets(
        data.train.images,
        counts,
        network,
        settings.seed,
        name=f"{data.name} train",
        allow_rank_deficient=settings.allow_rank_deficient,
        progress=settings.progress,
    ):
        for score in (subset.inception_score, subset.fid):
            if score is not None:
                rows.append(score_row(score, f"{subset.count} real: "))
    return rows


def possible(
    requested: Sequence[str],
    network: metrics.FeatureNetwork,
    num_samples: int,
    num_reference: int | None,
    settings: Settings,
    refused: list[str],
) -> list[str]:
    """Those of the metrics that can be had.

    Args:
      requested: metrics' names.
      network: `metrics.FeatureNetwork`.
      num_samples, num_reference: numbers of images; None where there is no reference.
      settings: of the evaluation.
      refused: a list to which is added why the others cannot be had.
    """
    names = []
    for metric in requested:
        try:
            metrics.check_possible(
                metric, network, num_samples, num_reference, allow_rank_deficient=settings.allow_rank_deficient
            )
            names.append(metric)
        except UserError as error:
            refused.append(f"{metric}: {error}")
    return names


def folder_rows(
    images: str | Path, reference_images: str | Path | None, settings: Settings
) -> tuple[list[Row], list[str]]:
    """Scores of a folder of PNGs against another (or alone, for the Inception Score).

    Returns:
      The rows, and why a metric that was asked for is missing.

    Raises:
      UserError: none of the settings' metrics can be had of images alone.
    """
    metric_names = [name for name in settings.metrics if name in IMAGE_METRICS]
    if not metric_names:
        raise UserError(f"--images can be scored by {', '.join(IMAGE_METRICS)}: name some with --metrics.")
    samples = metrics.images_from_folder(images)
    reference = None if reference_images is None else metrics.images_from_folder(reference_images)
    network = feature_network(settings, samples[:1])
    refused: list[str] = []
    num_reference = None if reference is None else len(reference)
    metric_names = possible(metric_names, network, len(samples), num_reference, settings, refused)
    if not metric_names:
        return [], refused
    scores = metrics.image_scores(
        samples,
        reference,
        network,
        metric_names,
        reference_name=reference_images or "",
        shuffle_seed=settings.seed,  # Files are often named by class: a split of the score needs them all.
        allow_rank_deficient=settings.allow_rank_deficient,
        progress=settings.progress,
    )
    return [score_row(score) for score in scores], refused


def score_row(score: metrics.Score, prefix: str = "") -> Row:
    """The `Row` of a score, its name behind `prefix`."""
    return Row(prefix + score.name, score.value, score.std, str(score).split(" (", 1)[1].removesuffix(")"))
