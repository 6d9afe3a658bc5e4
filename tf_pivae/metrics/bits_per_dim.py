"""Bits per dimension on held-out images, and what they are made of (section 5.1)."""

import hashlib
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tf_pivae.metrics.extraction import load_saved, save_atomically
from tf_pivae.system.progress import progress_bar


class Estimate(NamedTuple):
    """A mean over images."""

    mean: float
    standard_error: float | None  # over images; None for a single one


class BitsPerDim(NamedTuple):
    """Bits per dimension of a set of images, and their parts."""

    one_sample: Estimate  # K = 1, the paper's number
    importance_weighted: Estimate  # K = num_importance_samples
    num_importance_samples: int
    count: int  # type: ignore[assignment]  # images
    terms: dict[str, Estimate]  # bits per dimension; at K = 1 they add up to `one_sample`
    by_class: dict[int, tuple[Estimate, int]]  # label -> at K = 1, and of how many images; empty without classes


def bits_per_dim(
    images: np.ndarray,
    terms: Callable[[np.ndarray, int, int], dict[str, np.ndarray]],
    num_importance_samples: int,
    *,
    classes: np.ndarray | None = None,
    batch_size: int = 64,
    progress: bool = True,
    state_path: str | os.PathLike | None = None,
    key: str = "",
) -> BitsPerDim:
    """Averages a model's bounds over images, the last, partial batch with its own weight.

    Args:
      images: uint8 [N, H, W, C].
      terms: a function (images, k, first_row) -> dict of float [B] arrays in nats that add up to log w of importance
        sample k, which for k = 0 is the one-sample bound. `first_row` says which rows of the whole set these are: noise
        should depend on it, so that the result does not depend on `batch_size`.
      num_importance_samples: K.
      classes: int [N], the images' classes, for the mean of each; or None.
      batch_size: images at a time.
      progress: show a bar.
      state_path: file for the state, written every 20 batches and at the end; an interrupted pass goes on, a finished
        one is not repeated. Who has kept the result removes it.
      key: names model and images; a state under another key is ignored.
    """
    dimensions = math.prod(images.shape[1:])
    fingerprint = f"{key} K={num_importance_samples} N={len(images)} {hashlib.sha256(images[0].tobytes()).hexdigest()}"
    rows, weighted = _restore(state_path, fingerprint)
    with progress_bar(
        total=len(images), initial=len(weighted), desc="bits/dim", unit="img", disable=not progress
    ) as bar:
        start = len(weighted)
        since = 0
        while start < len(images):
            batch = np.asarray(images[start : start + batch_size])
            log_total = np.full(len(batch), -math.inf)
            for k in range(num_importance_samples):
                parts = {name: np.asarray(value, np.float64) for name, value in terms(batch, k, start).items()}
                if k == 0:
                    rows = {name: np.concatenate([rows.get(name, np.zeros(0)), value]) for name, value in parts.items()}
                log_total = np.logaddexp(log_total, sum(parts.values()))
            weighted = np.concatenate([weighted, log_total - math.log(num_importance_samples)])
            bar.update(len(batch))
            start += len(batch)
            since += 1
            if state_path is not None and (since % 20 == 0 or start >= len(images)):
                save_atomically(state_path, fingerprint=np.array(fingerprint), weighted=weighted, **rows)
    scale = -1.0 / (dimensions * math.log(2.0))
    one_sample = scale * sum(rows.values())
    members = {} if classes is None else {int(label): one_sample[classes == label] for label in np.unique(classes)}
    return BitsPerDim(
        estimate(one_sample),
        estimate(scale * weighted),
        num_importance_samples,
        len(images),
        {name: estimate(scale * value) for name, value in rows.items()},
        {label: (estimate(values), len(values)) for label, values in members.items()},
    )


def estimate(values: np.ndarray) -> Estimate:
    """Mean and standard error of float [N]."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(float(values.mean()), None if error is None else float(error))


def _restore(path: str | os.PathLike | None, fingerprint: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The terms of an interrupted pass and its weighted bounds, float64 [n]; none of a damaged one."""
    if path is not None and os.path.lexists(path):
        try:
            state = load_saved(path)
            saved = str(state.pop("fingerprint"))
            weighted = state.pop("weighted")
        except (ValueError, KeyError):
            return {}, np.zeros(0)
        one_each = weighted.ndim == 1 and all(values.shape == weighted.shape for values in state.values())
        if saved == fingerprint and one_each:
            return state, weighted
    return {}, np.zeros(0)
