"""What is measured of every model, in the same way: samples, bits per dimension, seconds, distances."""

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tf_pivae.files import replacing

Bits = Callable[[np.ndarray, int], np.ndarray]  # uint8 [B, 28, 28, 1] and a seed -> bits per dimension [B]
_BATCH = 100
TIMED = 64  # samples, or images
_CALLS = 5
_SECONDS = 20.0  # after which a call is not made once more


class Bound(NamedTuple):
    """An upper bound on an image's bits per dimension."""

    name: str
    bits: Bits  # its mean over images is what it should be, but that of one image may be noisy
    single: Bits  # what compares single images, and is timed


class Settings(NamedTuple):
    """What is the same for all, kept as `race.json`."""

    images: str  # "complete" or "bundled"
    minutes: float
    cores: int
    num_samples: int
    num_log_probs: int  # test images whose probabilities are bounded
    gin_files: list[str]  # of ours
    inception_weights: str | None
    fast: bool = False  # the Inception's convolutions in bfloat16


class Contestant(Protocol):
    """What the race asks for."""

    title: str
    tuned: str  # optimiser and what else was chosen

    def fit(self, images: np.ndarray, folder: Path, settings: Settings) -> dict:
        """Trains on uint8 [N, 28, 28, 1], or goes on in the folder; returns steps, seconds and images_per_second."""

    def restore(self, folder: Path) -> None:
        """Takes the weights of a training that has ended."""

    def weights(self) -> int:
        """How many of them sample and measure: neither a critic's nor those of which others are averages."""

    def sample(self, count: int, seed: int) -> np.ndarray:
        """uint8 [count, 28, 28, 1]."""

    def bounds(self) -> list[Bound]:
        """The tightest first; none of a model without a likelihood."""


def use(model: Contestant, test: np.ndarray, folder: Path, num_samples: int) -> dict:
    """Draws samples and bounds the probabilities of images, then takes the time of both.

    Args:
      test: uint8 [N, 28, 28, 1].
      folder: for `samples.npy` and `bits.npz`, float64 [N] of each bound; what is there is not made again.

    Returns:
      The number of weights, and the seconds that 64 images take.
    """
    if not (folder / "samples.npy").exists():
        sizes = ((start, min(_BATCH, num_samples - start)) for start in range(0, num_samples, _BATCH))
        save(folder / "samples.npy", np.save, np.concatenate([model.sample(size, start) for start, size in sizes]))
    bounds = model.bounds()
    if not (folder / "bits.npz").exists():
        batches = [(start, test[start : start + _BATCH]) for start in range(0, len(test), _BATCH)]
        bits = {b.name: np.concatenate([b.bits(batch, start) for start, batch in batches]) for b in bounds}
        save(folder / "bits.npz", np.savez, **bits)
    return {
        "weights": model.weights(),
        "sample_seconds": _seconds(functools.partial(model.sample, TIMED, 0)),
        "bits_seconds": {b.name: _seconds(functools.partial(b.single, test[:TIMED], 0)) for b in bounds},
    }


def save(path: Path, write: Callable, *arrays: np.ndarray, **named: np.ndarray) -> None:
    """By `np.save` or `np.savez`: a file that is whole or absent."""
    with replacing(path) as partial, partial.open("wb") as file:
        write(file, *arrays, **named)


def _seconds(call: Callable[[], object]) -> float:
    """The median of some calls, the first of them not counted where there is time for more."""
    durations: list[float] = []
    while len(durations) <= _CALLS and sum(durations) < _SECONDS:
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:] or durations)


def score(folder: Path, test: np.ndarray, reference_dir: Path, inception_weights: str | None, fast: bool) -> dict:
    """FID, precision and recall of `folder`'s samples against as many test images.

    Args:
      folder: a contestant's, with `samples.npy` and `bits.npz`.
      test: uint8 [N, 28, 28, 1], at least as many as there are samples.
      reference_dir: where the test images' statistics are kept.
      inception_weights: file of the network's weights; None looks for them.
      fast: its convolutions in bfloat16.
    """
    from tf_pivae import metrics
    from tf_pivae.metrics.bits_per_dim import estimate
    from tf_pivae.metrics.scores import KEEP_FEATURES

    samples = np.load(folder / "samples.npy")
    network = metrics.inception_network(inception_weights, fast=fast)
    images = test[: len(samples)]
    key = metrics.ReferenceKey("fashion_mnist", "test", "none", len(images))
    reference = metrics.reference_statistics(
        images, network, key, cache_dir=reference_dir, keep_features=KEEP_FEATURES, progress=False
    )
    few = len(samples) <= network.feature_dim  # For a trial: the distance is too large.
    state = folder / "features.npz"
    scores = metrics.image_scores(
        samples,
        reference,
        network,
        ["fid", "precision", "recall"],
        allow_rank_deficient=few,
        progress=False,
        state_path=state,
        key=str(len(samples)),
    )
    state.unlink(missing_ok=True)
    values = {score.metric: score.value for score in scores}
    arrays = np.load(folder / "bits.npz")
    bits = {name: estimate(arrays[name]) for name in arrays.files}
    return {**values, "bits": bits, "num_bits": {name: arrays[name].size for name in arrays.files}}
