"""Scores of images against a reference, each with its protocol (section 5.1)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.metrics import frechet, inception_scores, kernel, manifold
from tf_pivae.metrics.extraction import BATCH_SIZE, Extraction, Images, extract
from tf_pivae.metrics.feature_moments import moments_of
from tf_pivae.metrics.features import FeatureNetwork
from tf_pivae.metrics.image_folder import images_from_folder

NEIGHBOURS = {
    "precision": manifold.PRECISION_RECALL_NEIGHBOURS,
    "recall": manifold.PRECISION_RECALL_NEIGHBOURS,
    "density": manifold.DENSITY_COVERAGE_NEIGHBOURS,
    "coverage": manifold.DENSITY_COVERAGE_NEIGHBOURS,
}
WITH_FEATURES = ("kid", *NEIGHBOURS)  # metrics that need single features of both sets, not just their moments
WITH_REFERENCE = ("fid", *WITH_FEATURES)
METRICS = (*WITH_REFERENCE, "inception_score")
KEEP_FEATURES = 10_000  # single features kept of either set


@dataclass(frozen=True)
class Protocol:
    """What a score depends on besides the samples: two scores compare only if these are the same."""

    samples: int
    reference: str  # data set and split; "" for a score without a reference
    reference_count: int
    network: str
    checksum: str  # SHA-256 of the network's weights
    resize: str
    detail: str  # splits, subsets, shuffling


@dataclass(frozen=True)
class Score:
    """One number of one table row."""

    metric: str  # one of METRICS
    name: str  # 'FID', or 'Frechet[network]' with another network
    value: float
    std: float | None  # over splits (Inception Score) or subsets (KID)
    protocol: Protocol

    def __str__(self) -> str:
        spread = "" if self.std is None else f" +- {self.std:.4g}"
        p = self.protocol
        against = f" against {p.reference_count} {p.reference}" if p.reference else ""
        return (
            f"{self.name} {self.value:.6g}{spread} ({p.samples} samples{against}; {p.detail}; "
            f"{p.network} {p.checksum[:8]}; resize {p.resize})"
        )


def image_scores(
    samples: Images | str | os.PathLike | Extraction,
    reference: Images | str | os.PathLike | Extraction | None,
    network: FeatureNetwork,
    metrics: Sequence[str] | None = None,
    *,
    reference_name: str = "reference",
    batch_size: int = BATCH_SIZE,
    num_splits: int = inception_scores.NUM_SPLITS,
    shuffle_seed: int | None = None,
    num_subsets: int = kernel.NUM_SUBSETS,
    subset_size: int = kernel.SUBSET_SIZE,
    subset_seed: int = kernel.SUBSET_SEED,
    keep_features: int = KEEP_FEATURES,
    allow_rank_deficient: bool = False,
    progress: bool = True,
    state_path: str | os.PathLike | None = None,
    key: str = "",
) -> list[Score]:
    """Scores of `samples`, with one pass of the network over either set.

    Args:
      samples: uint8 [N, H, W, C], a folder's path, what `extract` takes, or an `Extraction`.
      reference: likewise (`reference_statistics` gives one from the cache); None if only 'inception_score' is asked.
      metrics: of `METRICS`; by default all that the network and the reference allow.
      reference_name: data set and split, for the protocol.
      num_splits, shuffle_seed: as for `inception_score`.
      num_subsets, subset_size, subset_seed: those of `kernel_distance_subsets`.
      keep_features: bound on the single features kept of either set, for KID and nearest neighbours.
      allow_rank_deficient: as for `frechet_distance`.
      batch_size, progress: as for `extract`.
      state_path, key: make the pass over `samples` resumable, see `extract`.

    Returns:
      One `Score` for each metric, in the order asked for.

    Raises:
      UserError: an unknown metric, no logits for the Inception Score, no reference to compare with, and what the
        functions named above raise.
    """
    if metrics is None:
        metrics = [m for m in METRICS if (network.has_logits if m == "inception_score" else reference is not None)]
    _check_metrics(metrics, network, reference)
    keep = keep_features if set(WITH_FEATURES) & set(metrics) else 0
    extraction = _extraction(
        samples,
        network,
        batch_size=batch_size,
        keep_features=keep,
        progress=progress,
        keep_logits="inception_score" in metrics,
        state_path=state_path,
        key=key,
        description="samples",
    )
    real = None
    if set(WITH_REFERENCE) & set(metrics):
        real = _extraction(
            reference, network, batch_size=batch_size, keep_features=keep, progress=progress, description=reference_name
        )

    def score(metric: str, value: float, std: float | None, detail: str) -> Score:
        against = ("", 0) if metric == "inception_score" else (reference_name, real.count)
        return _score(network, metric, value, std, extraction.count, against, detail)

    neighbourhoods = {
        k: manifold.manifold_scores(extraction.features, real.features, k)
        for k in {NEIGHBOURS[metric] for metric in metrics if metric in NEIGHBOURS}
    }
    scores = []
    for metric in metrics:
        if metric == "fid":
            value = frechet.frechet_distance_from_moments(
                extraction.moments, real.moments, allow_rank_deficient=allow_rank_deficient
            )
            scores.append(score(metric, value, None, "float64, unbiased covariances"))
        elif metric == "kid":
            result = kernel.kernel_distance_subsets(
                extraction.features, real.features, num_subsets=num_subsets, subset_size=subset_size, seed=subset_seed
            )
            scores.append(
                score(
                    metric,
                    *result,
                    f"{num_subsets} subsets of {subset_size} from "
                    f"{len(extraction.features)} and {len(real.features)}, seed {subset_seed}",
                )
            )
        elif metric in NEIGHBOURS:
            k = NEIGHBOURS[metric]
            detail = f"{k} nearest neighbours among {len(extraction.features)} and {len(real.features)}"
            scores.append(score(metric, getattr(neighbourhoods[k], metric), None, detail))
        else:
            result = inception_scores.inception_score(extraction.logits, num_splits, shuffle_seed=shuffle_seed)
            order = "in order" if shuffle_seed is None else f"shuffled with seed {shuffle_seed}"
            scores.append(score(metric, *result, f"{num_splits} splits, {order}"))
    return scores


@dataclass(frozen=True)
class RealSubset:
    """A row of Table 7: scores of a random subset of real images."""

    count: int
    inception_score: Score | None  # None where the network has no logits
    fid: Score  # against the full set


def real_subsets(
    images: np.ndarray,
    counts: Iterable[int],
    network: FeatureNetwork,
    seed: int = 0,
    *,
    name: str = "full set",
    allow_rank_deficient: bool = False,
    progress: bool = True,
) -> list[RealSubset]:
    """The study of Table 7 (appendix B): IS and FID of random subsets of real images against all of them.

    The subsets are nested: the first images of one random order, fewer and fewer.

    Args:
      images: uint8 [N, H, W, C]. All N features are kept: N x D x 4 bytes.
      counts: sizes of the subsets, each at most N.
      network: `FeatureNetwork`.
      seed: int, of the random order.
      name: what the protocol calls the whole set.
      allow_rank_deficient: as for `frechet_distance`.
      progress: as for `extract`.

    Raises:
      UserError: a count out of range, and what `frechet_distance` and `inception_score` raise.
    """
    counts = [int(count) for count in counts]
    if not counts or min(counts) < 2 or max(counts) > len(images):
        raise UserError(f"subsets of {counts} images cannot be drawn from {len(images)}: use 2 to {len(images)}.")
    full = extract(
        images,
        network,
        keep_features=len(images),
        keep_logits=network.has_logits,
        progress=progress,
        description=name,
    )
    order = np.random.default_rng(seed % 2**64).permutation(len(images))  # NumPy takes none below 0.
    rows = []
    for count in counts:
        subset = order[:count]
        inception = None
        if full.logits is not None:
            result = inception_scores.inception_score(full.logits[subset])
            detail = f"{inception_scores.NUM_SPLITS} splits, random order, seed {seed}"
            inception = _score(network, "inception_score", *result, count, ("", 0), detail)
        # Sorted, the full set's rows come in the order that its moments were accumulated in.
        distance = frechet.frechet_distance_from_moments(
            moments_of(full.features[np.sort(subset)]), full.moments, allow_rank_deficient=allow_rank_deficient
        )
        detail = f"random subset, seed {seed}"
        fid = _score(network, "fid", distance, None, count, (name, full.count), detail)
        rows.append(RealSubset(count, inception, fid))
    return rows


def _score(network, metric, value, std, samples, against, detail):
    """The `Score` of a number of samples; `against`: the reference's name and number of images."""
    protocol = Protocol(samples, *against, network.name, network.checksum, network.resize, detail)
    return Score(metric, network.title(metric), value, std, protocol)


def check_possible(
    metric: str,
    network: FeatureNetwork,
    num_samples: int,
    num_reference: int | None,
    *,
    allow_rank_deficient: bool = False,
) -> None:
    """Says before samples are drawn whether `image_scores` could give a metric of them.

    Args:
      metric: one of `METRICS`.
      network: `FeatureNetwork`.
      num_samples, num_reference: numbers of images; None where there is no reference.
      allow_rank_deficient: as for `frechet_distance`.

    Raises:
      UserError: the one of `image_scores`.
    """
    _check_metrics([metric], network, num_reference)
    if metric == "inception_score":
        inception_scores.check_count(num_samples)
    if num_reference is None:
        return
    if metric == "fid":
        for label, count in (("first", num_samples), ("second", num_reference)):
            frechet.check_count(label, count, network.feature_dim, allow_rank_deficient)
    elif metric == "kid":
        kernel.check_counts(num_samples, num_reference)
    elif metric in NEIGHBOURS:
        manifold.check_counts(num_samples, num_reference, NEIGHBOURS[metric])


def _check_metrics(metrics: Sequence[str], network: FeatureNetwork, reference: object) -> None:
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise UserError(f"unknown metrics {unknown}: choose from {', '.join(METRICS)}.")
    if "inception_score" in metrics and not network.has_logits:
        raise UserError(
            f"{network.title('inception_score')} needs logits, which the weights of '{network.name}' do "
            "not have: use inception-2015-12-05.tgz, or leave the metric out."
        )
    compared = [metric for metric in metrics if metric in WITH_REFERENCE]
    if reference is None and compared:
        raise UserError(f"{', '.join(compared)}: there is no reference to compare with.")


def _extraction(
    images: Images | str | os.PathLike | Extraction, network: FeatureNetwork, **arguments: Any
) -> Extraction:
    if isinstance(images, Extraction):
        if (images.network, images.checksum) != (network.name, network.checksum):
            raise UserError(
                f"statistics come from {images.network} {images.checksum[:8]}, not from "
                f"{network.name} {network.checksum[:8]}: make them again."
            )
        if arguments.get("keep_logits") and images.logits is None:
            raise UserError("the statistics hold no logits: extract them with keep_logits=True.")
        return images
    if isinstance(images, (str, os.PathLike)):
        images = images_from_folder(images)
    return extract(images, network, **arguments)
