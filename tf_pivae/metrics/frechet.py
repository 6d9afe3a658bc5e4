"""Frechet distance between two Gaussians fitted to features (equation (9), appendix B; Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.metrics.feature_moments import Moments, moments_of

_ROUNDING = 1e-6  # Relative: of float32, in which others may have computed or kept a covariance.
_MUST_BE = "it must be positive semi-definite, as `moments_of` computes it"
CHOLESKY_LIMIT = 1e-4  # smallest over largest diagonal of a factor; its square is about the condition number's inverse


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray, *, allow_rank_deficient: bool = False) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features, equation (9).

    Args:
      features_a, features_b: arrays [N, D] and [M, D] of any float dtype.
      allow_rank_deficient: compute the distance also with fewer samples than feature dimensions. The covariance is
        then singular and the number strongly biased upwards, so it must be asked for.

    Returns:
      A float >= 0; 0 for a set against itself, up to rounding (about 1e-13 of the total variance).

    Raises:
      UserError: NaN or infinite features, fewer than 2 samples, different dimensions, or fewer samples than
        dimensions unless `allow_rank_deficient`.
    """
    return frechet_distance_from_moments(
        moments_of(features_a), moments_of(features_b), allow_rank_deficient=allow_rank_deficient
    )


def frechet_distance_from_moments(a: Moments, b: Moments, *, allow_rank_deficient: bool = False) -> float:
    """As `frechet_distance`, from (count, mean [D], covariance [D, D]) of each set.

    ||m_a - m_b||^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2, the symmetric form of equation (9): its
    square root is that of a positive semi-definite matrix, hence real. With any factors F F^T = C the last trace is
    the sum of the singular values of F_a^T F_b, which are exact to the rounding of float64, where the square roots
    of the eigenvalues of the product would be exact to the root of it only.

    Raises:
      UserError: as `frechet_distance`, and for a covariance that is none: not symmetric, or not positive semi-definite.
    """
    _check(a, b, allow_rank_deficient)
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    difference = np.asarray(a.mean, np.float64) - np.asarray(b.mean, np.float64)
    distance = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross
    return max(float(distance), 0.0)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] with F F^T = covariance: Cholesky's where it is well conditioned, else from an eigen-decomposition
    that leaves out the eigenvalues which are rounding noise around zero."""
    covariance = np.asarray(covariance, np.float64)
    try:
        factor = np.linalg.cholesky(covariance)
        if np.diag(factor).min() > CHOLESKY_LIMIT * np.diag(factor).max():
            return factor
    except np.linalg.LinAlgError:  # singular, as that of few samples, or of features some of which never vary
        if (pivoted := _pivoted_factor(covariance)) is not None:
            return pivoted
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -_ROUNDING * max(values[-1], 0.0):
        raise UserError(f"a covariance has the eigenvalue {values[0]:.3g}: {_MUST_BE}.")
    nonzero = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, nonzero] * np.sqrt(values[nonzero])


def _pivoted_factor(covariance: np.ndarray) -> np.ndarray | None:
    """F [D, rank] by Cholesky's method, the largest variance that is left first, until what is left is rounding noise.

    In D rank^2 operations, where an eigen-decomposition takes D^3: seconds for 2048 dimensions. None: ill-conditioned,
    or not positive semi-definite.
    """
    variances = np.diag(covariance).copy()
    largest = variances.max()
    factor = np.zeros_like(covariance, order="F")
    for rank in range(len(variances)):
        i = variances.argmax()
        if variances[i] <= largest * len(variances) * np.finfo(np.float64).eps:
            return factor[:, :rank] if variances.min() >= -_ROUNDING * largest else None
        if variances[i] <= CHOLESKY_LIMIT**2 * largest:
            return None
        column = (covariance[i] - factor[:, :rank] @ factor[i, :rank]) / np.sqrt(variances[i])
        factor[:, rank] = column
        variances -= column**2
    return factor


def _check(a: Moments, b: Moments, allow_rank_deficient: bool) -> None:
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"the two sets have features of {a.mean.shape[-1]} and {b.mean.shape[-1]} dimensions: "
            "extract both with the same network."
        )
    for label, moments in (("first", a), ("second", b)):
        dim = len(moments.mean)
        if moments.covariance.shape != (dim, dim):
            raise UserError(f"the {label} covariance has shape {moments.covariance.shape}; ({dim}, {dim}) is needed.")
        check_count(label, moments.count, dim, allow_rank_deficient)
        if not (np.isfinite(moments.mean).all() and np.isfinite(moments.covariance).all()):
            raise UserError(f"the moments of the {label} set hold NaN or infinity; check its features.")
        variances = np.diag(moments.covariance)
        rounding = _ROUNDING * max(variances.max(), 0.0)
        if abs(moments.covariance - moments.covariance.T).max() > rounding:
            raise UserError(f"the {label} covariance is not symmetric: {_MUST_BE}.")
        if abs(moments.covariance).max() > variances.max() + rounding:  # Negative variances among them.
            raise UserError(f"the {label} covariance has a number larger than every variance: {_MUST_BE}.")


def check_count(label: str, count: int, dim: int, allow_rank_deficient: bool) -> None:
    """Checks that a set is large enough for a covariance.

    Args:
      label: what the message calls the set: "first" or "second".
      count: its number of samples.
      dim: dimensions of a feature.
      allow_rank_deficient: as for `frechet_distance`.

    Raises:
      UserError: fewer than 2 samples, or fewer than `dim` that are not allowed.
    """
    if count < 2:
        raise UserError(f"the {label} set has {count} samples; a covariance needs at least 2.")
    if count < dim and not allow_rank_deficient:
        raise UserError(
            f"the {label} set has {count} samples, fewer than the {dim} feature dimensions: its covariance is singular "
            "and the distance biased; use more samples, or allow_rank_deficient=True (--allow_rank_deficient) to "
            "compute it anyway."
        )
