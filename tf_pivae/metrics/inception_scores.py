"""Inception Score from logits (appendix B; Salimans et al. 2016)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.metrics.feature_moments import checked_features

NUM_SPLITS = 10  # Salimans et al. 2016


class InceptionScore(NamedTuple):
    """Mean and standard deviation of the score over splits."""

    mean: float
    std: float  # over splits, divided by their number (ddof = 0)


def inception_score(
    logits: np.ndarray, num_splits: int = NUM_SPLITS, *, shuffle_seed: int | None = None
) -> InceptionScore:
    """IS = exp(E_x KL(p(y|x) || p(y))), appendix B, for each of `num_splits` consecutive splits.

    Args:
      logits: array [N, K] of any float dtype, unnormalised; log-probabilities are formed in float64.
      num_splits: the splits have N // num_splits or one more rows each.
      shuffle_seed: permute the rows first with NumPy's `RandomState(shuffle_seed)`, which is what torch-fidelity does
        (its seed is 2020). Needed when the rows are ordered by class; None leaves the order alone.

    Returns:
      (mean, std) over the splits, floats; each split's score is between 1 and K.

    Raises:
      UserError: NaN logits, or fewer rows than splits.
    """
    logits = checked_features(logits, "logits")
    check_count(len(logits), num_splits)
    if shuffle_seed is not None:
        logits = logits[np.random.RandomState(shuffle_seed).permutation(len(logits))]
    edges = [split * len(logits) // num_splits for split in range(num_splits + 1)]
    scores = [_score(logits[start:stop]) for start, stop in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def check_count(count: int, num_splits: int = NUM_SPLITS) -> None:
    """Raises UserError where so many rows cannot be cut into so many splits."""
    if not 1 <= num_splits <= count:
        raise UserError(f"{num_splits} splits of {count} logits are impossible: use 1 to {count} splits.")


def _score(logits: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    prob = np.exp(log_prob)
    # A class with no mass at all contributes p log(p / p(y)) = 0; `tiny` keeps that from being 0 * inf.
    log_marginal = np.log(np.maximum(prob.mean(axis=0), np.finfo(np.float64).tiny))
    return float(np.exp((prob * (log_prob - log_marginal)).sum(axis=1).mean()))
