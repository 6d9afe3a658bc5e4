"""How well a column tells two sets of images apart: areas under two curves, and their bootstrap intervals."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
_INTERVAL = 2.5, 97.5  # Percentiles: 95 % of the resamples lie between.


class Area(NamedTuple):
    """An area under a curve, and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Separation(NamedTuple):
    """How well unusual images are distinguished from usual ones."""

    auroc: Area
    aupr: Area  # The area under the precision-recall curve by chance is the share of unusual images.


def separation(usual: np.ndarray, unusual: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Separation:
    """The areas for values that are expected to be higher for unusual images.

    The areas are the rank statistic (half for equal values) and the average precision, over all thresholds. Each set
    is resampled by itself, the sorted values stay as they are: a resample costs a pass over them.

    Args:
      usual, unusual: float [N] and [M], finite.
      resamples: of the bootstrap.
      seed: of the resamples.
    """
    levels, place = np.unique(np.concatenate([usual, unusual]), return_inverse=True)
    sets = place[: len(usual)], place[len(usual) :]
    rng = np.random.default_rng(seed)

    def resampled() -> tuple[float, float]:
        samples = (places[rng.integers(len(places), size=len(places))] for places in sets)
        return _areas(*(np.bincount(places, minlength=len(levels)) for places in samples))

    exact = _areas(*(np.bincount(places, minlength=len(levels)) for places in sets))
    spread = np.percentile([resampled() for _ in range(resamples)], _INTERVAL, axis=0)
    return Separation(*(Area(value, *spread[:, i].tolist()) for i, value in enumerate(exact)))


def _areas(negative: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """AUROC and average precision of the counts of both sets at each level, ascending."""
    num_below = np.cumsum(negative) - negative / 2
    auroc = (positive * num_below).sum() / (negative.sum() * positive.sum())
    true_positives, all_above = (np.cumsum(counts[::-1])[::-1] for counts in (positive, positive + negative))
    precision = true_positives / np.maximum(all_above, 1)
    return float(auroc), float((positive * precision).sum() / positive.sum())
