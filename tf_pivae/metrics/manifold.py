"""How much of one set of features lies where another one does: precision, recall, density, coverage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.metrics.feature_moments import checked_features

PRECISION_RECALL_NEIGHBOURS = 3  # Kynkäänniemi et al. 2019, section 3
DENSITY_COVERAGE_NEIGHBOURS = 5  # Naeem et al. 2020, section 4
BLOCK = 1024  # rows of a matrix of distances held at a time


class ManifoldScores(NamedTuple):
    """Shares of samples and of real images, for one number of neighbours."""

    precision: float  # of samples within some real image's ball: falls when samples lack quality
    recall: float  # of real images within some sample's ball: falls when samples lack diversity
    density: float  # real images' balls around a sample, on average, divided by k: 1 for the real distribution
    coverage: float  # of real images whose ball holds a sample: falls when samples lack diversity


def manifold_scores(samples: np.ndarray, real: np.ndarray, neighbours: int) -> ManifoldScores:
    """The four scores of Kynkäänniemi et al. 2019 (equations 1 and 2) and Naeem et al. 2020 (equations 3 to 5).

    The ball of a feature vector reaches to its k-th nearest neighbour within its own set, itself not counted. Samples
    come first, the real images second: precision and recall trade places when they are swapped.

    Args:
      samples: float [N, D], features of samples.
      real: float [M, D], features of real images.
      neighbours: k; the papers take 3 for precision and recall, 5 for density and coverage.

    Raises:
      UserError: NaN features, or such as overflow when squared, different dimensions, k < 1, or a set of k images or
        fewer.
    """
    samples = checked_features(samples, "the samples' features")
    real = checked_features(real, "the real features")
    if samples.shape[1] != real.shape[1]:
        raise UserError(
            f"the two sets have features of {samples.shape[1]} and {real.shape[1]} dimensions: "
            "extract both with the same network."
        )
    check_counts(len(samples), len(real), neighbours)
    centre = 0.5 * (samples.mean(axis=0) + real.mean(axis=0))  # Rounding errors go with the vectors' lengths.
    samples = samples - centre
    real = real - centre
    if not all(np.isfinite(np.square(features).sum()) for features in (samples, real)):
        raise UserError("the squares of the features overflow: divide both sets by the same large number.")
    sample_radii = _squared_radii(samples, neighbours)
    real_radii = _squared_radii(real, neighbours)
    precise = np.zeros(len(samples), bool)
    balls = 0
    recalled = 0
    covered = 0
    for start in range(0, len(real), BLOCK):
        distances = _squared_distances(real[start : start + BLOCK], samples, at_least=True)
        inside_real = distances <= real_radii[start : start + BLOCK, None]
        precise |= inside_real.any(axis=0)
        balls += np.count_nonzero(inside_real)
        covered += np.count_nonzero(inside_real.any(axis=1))
        recalled += np.count_nonzero((distances <= sample_radii).any(axis=1))
    return ManifoldScores(
        float(precise.mean()), recalled / len(real), balls / (neighbours * len(samples)), covered / len(real)
    )


def check_counts(num_samples: int, num_real: int, neighbours: int) -> None:
    """Raises UserError unless each of two sets of so many images gives every image that many neighbours."""
    if neighbours < 1:
        raise UserError(f"`neighbours` must be positive; got {neighbours}.")
    if min(num_samples, num_real) <= neighbours:
        raise UserError(
            f"{neighbours} nearest neighbours need more than {neighbours} images of samples and of the reference; "
            f"got {num_samples} and {num_real}."
        )


def _squared_radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """[N], the squared distance of each vector to its k-th nearest neighbour among the others."""
    radii = np.empty(len(features))
    for start in range(0, len(features), BLOCK):
        distances = _squared_distances(features[start : start + BLOCK], features)
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        radii[start : start + BLOCK] = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii


def _squared_distances(a: np.ndarray, b: np.ndarray, at_least: bool = False) -> np.ndarray:
    """[N, M]. `at_least`: less what rounding may have added here or taken from a radius: ties are ties."""
    sums = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    slack = 4 * a.shape[1] * np.finfo(np.float64).eps if at_least else 0.0
    return np.maximum((1.0 - slack) * sums - 2.0 * a @ b.T, 0.0)
