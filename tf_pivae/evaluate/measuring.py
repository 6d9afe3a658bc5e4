"""Evaluates a trained model: the metrics of section 5.1, put together from models, data and `tf_pivae.metrics`."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_pivae import figures, loading, metrics
from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.errors import UserError, nan_is_an_error
from tf_pivae.evaluate.image_metrics import (
    CLASSIFIER_METRICS,
    IMAGE_METRICS,
    Settings,
    feature_network,
    full_scale,
    possible,
    score_row,
)
from tf_pivae.evaluate.results import Evaluation, Row
from tf_pivae.metrics.bits_per_dim import BitsPerDim, bits_per_dim
from tf_pivae.metrics.scores import KEEP_FEATURES, NEIGHBOURS, WITH_FEATURES, WITH_REFERENCE
from tf_pivae.models.pivae import PiVAE
from tf_pivae.runs import records
from tf_pivae.runs.weights import digest
from tf_pivae.training.workers import local_strategy

_BATCH = 100  # Samples at a time.
_MASS_SAMPLES = 1000  # From which the mass outside of all images is estimated.
_log = logging.getLogger(__name__)


def evaluate_run(run_dir: str | Path, settings: Settings, step: int | str | None = None) -> Evaluation:
    """Evaluates a checkpoint of a run (the newest by default).

    Args:
      run_dir: folder of the run.

    Returns:
      `Evaluation`. A metric that this model or machine cannot give does not keep the others from being computed.
      Whoever has written it removes its `states`: until then the same call repeats nothing.

    Raises:
      UserError: no run, or no such checkpoint.
    """
    network = None
    rows = []
    refused = []
    work = Path(run_dir) / "evaluation"
    if work.is_symlink() or (work.exists() and not work.is_dir()):  # A link may lead out of the run.
        raise UserError(f"{work} is not a folder: remove it, then evaluate again.")
    requested = [name for name in settings.metrics if name in IMAGE_METRICS]
    if requested and not settings.feature_network:  # Reported before the other metrics, which take minutes.
        try:
            network = metrics.inception_network(settings.inception_weights, fast=settings.fast)
        except UserError as error:
            refused.append(f"{', '.join(requested)}: {error}")
            settings = dataclasses.replace(settings, metrics=tuple(n for n in settings.metrics if n not in requested))
            if settings.metrics:  # Otherwise it is reported at once.
                _log.warning("%s", refused[0])
    with local_strategy().scope():
        model, step = loading.load_with_step(run_dir, step)
    data = loading.load_dataset(run_dir)
    weights = digest(model)
    subject = _Subject(model, data, records.load_facts(run_dir), settings, work, f"{step}-{weights}", network, [])
    parts = [
        (_bits_per_dim_rows, ["bits_per_dim"]),
        (_refined_rows, ["refined_bits_per_dim"]),
        (_image_rows, IMAGE_METRICS),
        (_classifier_rows, CLASSIFIER_METRICS),
    ]
    for part, names in parts:
        requested = [name for name in settings.metrics if name in names]
        if requested:
            try:
                part(subject, requested, rows, refused)
            except UserError as error:
                refused.append(f"{', '.join(requested)}: {error}")
    return Evaluation(step, weights, rows, refused, model.dimensions, subject.states)


class _Subject(NamedTuple):
    """What is evaluated, and how."""

    model: PiVAE
    data: ImageDataset
    facts: dict  # `RUN/data.json`
    settings: Settings
    work: Path  # folder of the states of interrupted passes
    name: str  # of the weights
    network: metrics.FeatureNetwork | None  # Inception, where it is wanted
    states: list[Path]  # those of finished passes are added


def _split(data: ImageDataset, name: str) -> ImageSplit:
    return data.train if name == "train" else data.test


def _bits_per_dim_rows(subject: _Subject, requested: list[str], rows: list[Row], refused: list[str]) -> None:
    classes = subject.data.class_names
    result, detail = _bits_per_dim(subject, 0)
    approximate = subject.facts["inference_only"]
    rows.append(Row("bits/dim, K=1", *result.one_sample, detail, approximate))
    name = f"bits/dim, K={result.num_importance_samples}"
    if result.num_importance_samples > 1:
        rows.append(Row(name, *result.importance_weighted, detail, approximate))
    rows += [Row(f"  {name}", *value, "bits/dim, part of K=1") for name, value in result.terms.items()]
    if not subject.model.dequantization.partition:
        rows += _mass_rows(subject.model, subject.settings.seed)
    for label, (value, count) in result.by_class.items():
        name = classes[label] if classes else label
        rows.append(Row(f"bits/dim, K=1, class {name}", *value, f"{count} images of class {label}", approximate))


def _refined_rows(subject: _Subject, requested: list[str], rows: list[Row], refused: list[str]) -> None:
    num_steps = subject.settings.refinement_steps
    result, detail = _bits_per_dim(subject, num_steps)
    detail += f"; the dequantisation refined for each image, steps: {num_steps}"
    for k, value in {1: result.one_sample, result.num_importance_samples: result.importance_weighted}.items():
        rows.append(Row(f"refined bits/dim, K={k}", *value, detail, subject.facts["inference_only"]))


def _bits_per_dim(subject: _Subject, refinement_steps: int) -> tuple[BitsPerDim, str]:
    """Bits per dimension, by so many steps of refinement, and their protocol."""
    model = subject.model
    settings = subject.settings
    if not subject.facts["likelihood"]:
        raise UserError(
            "this run was trained without likelihood, so it has no bound yet: train an inference network around it "
            "with --gin_file=gan_bits_per_dim.gin --gin_param=initial_run=RUN, then evaluate that run."
        )
    split = _split(subject.data, settings.split).take(settings.num_examples)
    labels = split.labels if model.num_classes else None
    refinement: dict[int, np.ndarray] = {}  # Of the batch that begins at a row: its importance samples share it.

    def terms(images: np.ndarray, k: int, row: int) -> dict[str, np.ndarray]:
        batch_labels = None if labels is None else labels[row : row + len(images)]
        if refinement_steps and row not in refinement:
            refinement.clear()
            refinement[row] = model.refine(images, refinement_steps, batch_labels)
        return model.bound_terms(images, settings.seed, batch_labels, row, k, refinement.get(row))

    key = f"weights {subject.name} seed {settings.seed} split {settings.split}"
    key += f" refined {refinement_steps}" * bool(refinement_steps)
    state = subject.work / f"bits_per_dim-{_digest(f'{key} {settings.importance_samples} {len(split)}')}.npz"
    result = bits_per_dim(
        split.images,
        terms,
        num_importance_samples=settings.importance_samples,
        progress=settings.progress,
        classes=labels,
        state_path=state,
        key=key,
    )
    subject.states.append(state)
    detail = f"{result.count} {settings.split} images, seed {settings.seed}; standard error over images"
    return result, detail


def _mass_rows(model: PiVAE, seed: int) -> list[Row]:
    """How much of the density belongs to no image: 1 minus the sum of the probabilities of all images."""
    labels = np.arange(_MASS_SAMPLES) % model.num_classes if model.num_classes else None
    mass = model.mass_outside(_MASS_SAMPLES, seed, labels)
    detail = f"share, {_MASS_SAMPLES} samples; what lies outside belongs to no image, but is clipped in samples"
    names = "samples wholly inside [0, 1)^D", "pixels below 0", "pixels from 1 on"
    return [Row(f"mass: {name}", share, None, detail) for name, share in zip(names, mass, strict=True)]


def _image_rows(subject: _Subject, requested: list[str], rows: list[Row], refused: list[str]) -> None:
    model = subject.model
    data = full_scale(subject.data)
    settings = subject.settings
    reference = _split(data, settings.reference_split)
    network = subject.network or feature_network(settings, np.asarray(reference.images[:1]))
    count = settings.num_samples or len(reference)
    requested = possible(requested, network, count, len(reference), settings, refused)
    if not requested:
        return
    keep = KEEP_FEATURES if set(WITH_FEATURES) & set(requested) else 0
    statistics = None
    if set(WITH_REFERENCE) & set(requested):
        key = reference_key(data, settings.reference_split)
        statistics = metrics.reference_statistics(
            reference.images, network, key, keep_features=keep, progress=settings.progress
        )
    network_name = network.checksum[:8] + "-fast" * settings.fast
    pass_name = f"{subject.name}-{settings.seed}-{count}-{settings.reference_split}-{network_name}-{keep}"
    state = subject.work / f"features-{pass_name}.npz"
    samples = metrics.extract(
        sampler(model, count, settings.seed, _class_labels(model, reference, count)),
        network,
        keep_features=keep,
        keep_logits=network.has_logits,
        progress=settings.progress,
        total=count,
        state_path=state,
        key=pass_name,
        description="samples",
    )
    subject.states.append(state)
    for group in _same_neighbours(requested):
        try:
            scores = metrics.image_scores(
                samples,
                statistics,
                network,
                group,
                reference_name=f"{data.name} {settings.reference_split}",
                allow_rank_deficient=settings.allow_rank_deficient,
            )
            rows += map(score_row, scores)
        except UserError as error:
            refused.append(f"{', '.join(group)}: {error}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _same_neighbours(requested: list[str]) -> list[list[str]]:
    """Metrics in groups that are computed at once, so that what one group lacks does not cost another."""
    groups: dict[object, list[str]] = {}
    for metric in requested:
        groups.setdefault(NEIGHBOURS.get(metric, metric), []).append(metric)
    return list(groups.values())


def reference_key(data: ImageDataset, split: str) -> metrics.ReferenceKey:
    """The key of a split's statistics. A digest of some of the images tells data sets of one name apart."""
    images = _split(data, split).images
    probes = np.ascontiguousarray(images[:: max(1, len(images) // 64)])
    digest = f"{'x'.join(map(str, images.shape[1:]))} {hashlib.sha256(probes).hexdigest()[:16]}"
    return metrics.ReferenceKey(data.name, split, digest, len(images))


def sampler(model: PiVAE, count: int, seed: int, labels: np.ndarray | None) -> Callable[[int], Iterator[np.ndarray]]:
    """A function of the number of samples already drawn that yields the rest in batches, for `metrics.extract`.

    They are uint8 [B, H, W, C] on the full scale, whatever the model's levels.

    Args:
      count: int, samples in all.
      seed: int; sample i is a function of it and of i.
      labels: int [count] for a class-conditional model.
    """

    def batches(start: int) -> Iterator[np.ndarray]:
        for first in range(start, count, _BATCH):
            size = min(_BATCH, count - first)
            batch_labels = None if labels is None else labels[first : first + size]
            with nan_is_an_error():
                images = model.sample(size, seed, labels=batch_labels, batch_size=_BATCH, first_row=first)
            yield figures.full_scale(images, model.num_bins)

    return batches


def _class_labels(model: PiVAE, split: ImageSplit, count: int) -> np.ndarray | None:
    """Labels with the data's own class frequencies, in random order whatever the data's; None without classes."""
    if not model.num_classes:
        return None
    return np.resize(np.random.default_rng(0).permutation(split.labels), count)


def _classifier_rows(subject: _Subject, requested: list[str], rows: list[Row], refused: list[str]) -> None:
    model = subject.model
    data = full_scale(subject.data)
    settings = subject.settings
    if not model.num_classes:
        raise UserError(
            "gan_train and gan_test need a class-conditional model: train with train.class_conditional=True."
        )
    count = settings.num_samples or len(data.train)
    labels = _class_labels(model, data.train, count)
    samples = np.concatenate(list(sampler(model, count, settings.seed, labels)(0)))
    recipe_digest = _digest(repr(metrics.ClassifierConfig()))
    result = metrics.gan_train_test(
        samples,
        labels,
        np.asarray(data.train.images),
        data.train.labels,
        np.asarray(data.test.images),
        data.test.labels,
        num_classes=model.num_classes,
        state_dir=subject.work / f"classifiers-{subject.name}-{settings.seed}-{count}-{recipe_digest}",
        real_state_dir=subject.work / f"classifier-real-{recipe_digest}",
        progress=settings.progress,
    )
    recipe = f"ResNet-{result.config.depth}, {result.config.num_steps} steps"
    values = {
        "GAN-train": (result.gan_train, result.test_count, f"trained on {result.samples} samples"),
        "GAN-test": (result.gan_test, result.samples, f"trained on {result.train_count} real images"),
        "real-on-real": (result.real, result.test_count, f"trained on {result.train_count} real images"),
    }
    row_names = {"gan_train": ["GAN-train", "real-on-real"], "gan_test": ["GAN-test", "real-on-real"]}
    names = {name for metric in requested for name in row_names[metric]}
    for name, (value, tested, training) in values.items():
        if name in names:
            error = 100 * result.standard_error(value, tested)
            rows.append(Row(f"{name} %", 100 * value, error, f"{training}, tested on {tested} images; {recipe}"))
