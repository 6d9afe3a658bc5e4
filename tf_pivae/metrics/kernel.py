"""Kernel distance between two sets of features (KID; Binkowski et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.metrics.feature_moments import checked_features

NUM_SUBSETS = 100  # Binkowski et al. 2018, section 4
SUBSET_SIZE = 1000
SUBSET_SEED = 2020  # the default of torch-fidelity, whose subsets are the same for the same seed
BLOCK = 2048  # rows of a Gram matrix held at a time


class KernelDistance(NamedTuple):
    """The subset protocol's result."""

    mean: float
    std: float  # over subsets, divided by their number (ddof = 0)


def kernel_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Unbiased squared MMD of two whole sets under the kernel k(x, y) = (x.y / D + 1)^3.

    sum_{i != j} k(a_i, a_j) / (n (n-1)) + sum_{i != j} k(b_i, b_j) / (m (m-1)) - 2 sum_ij k(a_i, b_j) / (n m)

    Args:
      features_a, features_b: arrays [N, D] and [M, D]; N and M may differ.

    Returns:
      A float whose expectation is the squared MMD; it may be slightly negative.

    Raises:
      UserError: NaN features, or such as overflow, fewer than 2 samples, or different dimensions.
    """
    a, b = _pair(features_a, features_b)
    n = len(a)
    m = len(b)
    with np.errstate(over="ignore", invalid="ignore"):
        within = _off_diagonal_sum(a) / (n * (n - 1)) + _off_diagonal_sum(b) / (m * (m - 1))
        distance = float(within - 2.0 * _gram_sum(a, b) / (n * m))
    if not np.isfinite(distance):
        raise UserError("the kernel of the features overflows: divide both sets by the same large number.")
    return distance


def kernel_distance_subsets(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SUBSET_SEED,
) -> KernelDistance:
    """KID as it is published: the mean and standard deviation of `kernel_distance` over random subsets.

    Each subset draws `subset_size` rows of either set without replacement, from one NumPy `RandomState(seed)`.
    The standard error of the mean is std / sqrt(num_subsets) when the sets are much larger than the subsets.

    Args:
      features_a, features_b: float [N, D] and [M, D].

    Raises:
      UserError: as `kernel_distance`, and when a set is smaller than a subset.
    """
    a, b = _pair(features_a, features_b)
    if num_subsets < 1 or subset_size < 2:
        raise UserError(f"KID needs num_subsets >= 1 and subset_size >= 2; got {num_subsets} and {subset_size}.")
    check_counts(len(a), len(b), subset_size)
    random = np.random.RandomState(seed)
    distances = [
        kernel_distance(*(x[random.choice(len(x), subset_size, replace=False)] for x in (a, b)))
        for _ in range(num_subsets)
    ]
    return KernelDistance(float(np.mean(distances)), float(np.std(distances)))


def _pair(features_a: np.ndarray, features_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = checked_features(features_a, "the first features")
    b = checked_features(features_b, "the second features")
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"the two sets have features of {a.shape[1]} and {b.shape[1]} dimensions: "
            "extract both with the same network."
        )
    if min(len(a), len(b)) < 2:
        raise UserError(f"a kernel distance needs at least 2 samples of each set; got {len(a)} and {len(b)}.")
    return a, b


def _kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    return (products * (1.0 / dimensions) + 1.0) ** 3


def _gram_sum(a: np.ndarray, b: np.ndarray) -> float:
    blocks = (a[start : start + BLOCK] @ b.T for start in range(0, len(a), BLOCK))
    return sum(float(_kernel(products, a.shape[1]).sum()) for products in blocks)


def _off_diagonal_sum(a: np.ndarray) -> float:
    return _gram_sum(a, a) - float(_kernel(np.einsum("nd,nd->n", a, a), a.shape[1]).sum())


def check_counts(count_a: int, count_b: int, subset_size: int = SUBSET_SIZE) -> None:
    """Raises UserError where one of two sets of so many images is smaller than a subset."""
    if min(count_a, count_b) < subset_size:
        raise UserError(
            f"KID draws subsets of {subset_size} from samples and from the reference, which have {count_a} and "
            f"{count_b} images: use more (or, in Python, a smaller subset_size)."
        )
