"""Mean and covariance of a stream of feature vectors, in float64 and in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tf_pivae.errors import UserError


class Moments(NamedTuple):
    """First two moments of `count` feature vectors."""

    count: int  # type: ignore[assignment]
    mean: np.ndarray  # [D], float64
    covariance: np.ndarray  # [D, D], float64, unbiased (divided by count - 1)


class StreamingMoments:
    """Accumulates mean and scatter batch by batch (Chan, Golub and LeVeque 1979, pairwise form).

    With n vectors seen (mean m, scatter S) and a batch of k (mean m', scatter S'), d = m' - m:
        mean    <- m + d k / (n + k)
        scatter <- S + S' + d d^T n k / (n + k)
    The memory is O(D^2), whatever the count. The same batches in the same order give the same bits.
    """

    def __init__(self, feature_dim: int) -> None:
        if feature_dim < 1:
            raise ValueError(f"`feature_dim` must be positive; got {feature_dim}.")
        self.count = 0
        self.mean = np.zeros(feature_dim, np.float64)
        self.scatter = np.zeros((feature_dim, feature_dim), np.float64)

    @property
    def feature_dim(self) -> int:
        return self.mean.shape[0]

    def update(self, features: np.ndarray) -> StreamingMoments:
        """Adds a batch [B, D] of any float dtype; returns itself. Raises UserError for NaN, infinity or another D."""
        features = checked_features(features, "features")
        if features.shape[1] != self.feature_dim:
            raise UserError(
                f"features have {features.shape[1]} dimensions but {self.feature_dim} are accumulated: "
                "use one feature network for all of them."
            )
        if len(features):
            mean = features.mean(axis=0)
            centred = features - mean
            total = self.count + len(features)
            delta = mean - self.mean
            self.mean = self.mean + delta * (len(features) / total)
            between = np.outer(delta, delta * (self.count * len(features) / total))
            self.scatter = self.scatter + centred.T @ centred + between
            self.count = total
        return self

    def result(self) -> Moments:
        """The moments so far. Raises UserError with fewer than 2 vectors."""
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 samples; got {self.count}.")
        return Moments(self.count, self.mean.copy(), self.scatter / (self.count - 1))

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `np.savez` stores and `from_state` restores bit by bit."""
        return {"count": np.int64(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> StreamingMoments:
        """The inverse of `state`: any mapping with its three arrays, an open npz included.

        Raises:
          UserError: arrays of other shapes.
        """
        mean = np.array(state["mean"], np.float64)
        scatter = np.array(state["scatter"], np.float64)
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)):
            raise UserError(f"not a state of moments: mean {mean.shape}, scatter {scatter.shape}.")
        moments = cls(len(mean))
        moments.count = int(state["count"])
        moments.mean = mean
        moments.scatter = scatter
        return moments


def moments_of(features: np.ndarray, chunk: int = 4096) -> Moments:
    """Moments of an array [N, D], read `chunk` rows at a time so that it may be a memory map.

    Raises:
      UserError: an array of another rank, or fewer than two rows.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise UserError(f"features must be an array [N, D]; got shape {features.shape}.")
    stream = StreamingMoments(features.shape[1])
    for start in range(0, len(features), chunk):
        stream.update(features[start : start + chunk])
    return stream.result()


def checked_features(features: np.ndarray, name: str) -> np.ndarray:
    """`features` as float64 [N, D]. Raises UserError unless it is a matrix of finite numbers."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise UserError(f"{name} must be an array [N, D]; got shape {features.shape}.")
    features = features.astype(np.float64, copy=False)
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        raise UserError(
            f"{name}: {bad} of {len(features)} rows hold NaN or infinity; "
            "check the images and the feature network that made them."
        )
    return features
