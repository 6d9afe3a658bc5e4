"""One pass of a feature network over images: moments, a reservoir of features, logits; resumable bit by bit."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.files import replacing
from tf_pivae.metrics.feature_moments import Moments, StreamingMoments
from tf_pivae.metrics.features import FeatureNetwork, Features
from tf_pivae.system.progress import progress_bar

BATCH_SIZE = 100
Images: TypeAlias = np.ndarray | Iterable | Callable[[int], Iterable]  # see `extract`
PROBES = 64  # images of an array that its fingerprint looks at


@dataclass(frozen=True)
class Extraction:
    """The statistics of one pass over N images."""

    moments: Moments  # of all N features
    features: np.ndarray  # [min(N, keep_features), D], float32: all, or a uniform sample without replacement
    logits: np.ndarray | None  # [N, K], float32, or None if not asked for
    network: str
    checksum: str

    @property
    def count(self) -> int:
        return self.moments.count


def extract(
    images: Images,
    network: FeatureNetwork,
    *,
    batch_size: int = BATCH_SIZE,
    keep_features: int = 0,
    keep_logits: bool = False,
    seed: int = 0,
    progress: bool = True,
    total: int | None = None,
    state_path: str | os.PathLike | None = None,
    save_every: int = 50,
    key: str = "",
    description: str = "features",
) -> Extraction:
    """Runs `network` over `images` once.

    Args:
      images: uint8 [N, H, W, C] (a memory map too); or an iterable of batches [B, H, W, C] of any sizes; or a
        function of the number of images already done that returns such an iterable of the rest, which spares a
        resumed pass from making them again.
      batch_size: batches are cut to this size whatever the source's are, so that they never depend on it.
      keep_features: bound on the features kept for KID: a reservoir sample (Vitter 1985, algorithm R).
      keep_logits: keep those of every image, for the Inception Score.
      seed: int, of the reservoir.
      progress, description: show a bar, and what it says.
      total: number of images, for the progress bar, where `images` does not say.
      state_path: file for the state, written atomically every `save_every` batches and at the end. If it exists, the
        pass goes on where it stopped, and its result is the same bit by bit. Who has kept the result removes it.
      key: names the images (a run and step, say). A state saved under another key is refused.

    Raises:
      UserError: no images, NaN features, a state of other images, network or arguments, or a damaged state.
    """
    if batch_size < 1 or keep_features < 0 or save_every < 1:
        raise UserError(
            f"batch_size and save_every must be positive, keep_features not negative; got {batch_size}, "
            f"{save_every}, {keep_features}."
        )
    if keep_logits and not network.has_logits:
        raise UserError(
            f"feature network '{network.name}' has no logits, which the Inception Score needs: "
            "use weights that have them (inception-2015-12-05.tgz)."
        )
    if hasattr(images, "shape"):
        total = len(images)  # type: ignore[arg-type]
    fingerprint = json.dumps(
        {
            "key": key,
            "images": _probe(images) if hasattr(images, "shape") else "",
            "network": network.name,
            "checksum": network.checksum,
            "batch_size": batch_size,
            "keep_features": keep_features,
            "keep_logits": keep_logits,
            "seed": seed,
        },
        sort_keys=True,
    )
    state = _State(network.feature_dim, keep_features, seed, keep_logits)
    if state_path is not None and Path(state_path).exists():
        state.restore(state_path, fingerprint)

    with progress_bar(
        total=total, initial=state.moments.count, desc=description, unit="img", disable=not progress
    ) as bar:
        for number, batch in enumerate(_batches(images, state.moments.count, batch_size), start=1):
            state.add(network(batch))
            bar.update(len(batch))
            if state_path is not None and number % save_every == 0:
                state.save(state_path, fingerprint)
    if not state.moments.count:
        raise UserError("there are no images to take features of.")
    if state_path is not None:
        state.save(state_path, fingerprint)
    return Extraction(
        state.moments.result(),
        state.features[: min(state.moments.count, keep_features)].copy(),
        np.concatenate(state.logits) if keep_logits else None,
        network.name,
        network.checksum,
    )


class _State:
    """Everything that a pass carries from batch to batch."""

    def __init__(self, feature_dim: int, keep_features: int, seed: int, keep_logits: bool) -> None:
        self.moments = StreamingMoments(feature_dim)
        self.features = np.zeros((0, feature_dim), np.float32)
        self.logits: list[np.ndarray] = []
        self.keep_features = keep_features
        self.seed = seed
        self.keep_logits = keep_logits

    def add(self, features: Features) -> None:
        first = self.moments.count
        self.moments.update(features.pool)
        self._sample(features.pool, first)
        if self.keep_logits:
            self.logits.append(features.logits)

    def _sample(self, pool: np.ndarray, first: int) -> None:
        """Algorithm R: image i >= k takes the place of a uniform one of the first i + 1, if that is one of the k."""
        fill = min(max(self.keep_features - first, 0), len(pool))
        if fill:
            if first + fill > len(self.features):  # grow by doubling: the count need not be known beforehand
                grown = min(max(2 * len(self.features), first + fill), self.keep_features)
                self.features = np.concatenate(
                    [self.features, np.zeros((grown - len(self.features), pool.shape[1]), np.float32)]
                )
            self.features[first : first + fill] = pool[:fill]
        if not self.keep_features or fill == len(pool):
            return
        # Drawn from (seed, position), not from a running generator: nothing of it needs to be saved.
        positions = np.arange(first + fill, first + len(pool))
        places = np.random.default_rng([self.seed, first]).integers(0, positions + 1)
        for row, place in zip(pool[fill:], places, strict=True):
            if place < self.keep_features:
                self.features[place] = row

    def save(self, path: str | os.PathLike, fingerprint: str) -> None:
        logits = {"logits": np.concatenate(self.logits)} if self.logits else {}
        count = min(self.moments.count, self.keep_features)
        save_atomically(
            path, fingerprint=np.array(fingerprint), features=self.features[:count], **logits, **self.moments.state()
        )

    def restore(self, path: str | os.PathLike, fingerprint: str) -> None:
        arrays = restored(path, fingerprint, "pass over images")
        try:
            self.moments = StreamingMoments.from_state(arrays)
            self.features = arrays["features"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} lacks an array ({error}): delete it to start again.") from error
        self.logits = [arrays["logits"]] if "logits" in arrays else []


def restored(path: str | os.PathLike, fingerprint: str, kind: str) -> dict[str, np.ndarray]:
    """The arrays of a state that `save_atomically` wrote with a fingerprint, JSON of an object.

    Raises:
      UserError: it cannot be read, or is the state of another `kind`; says how that differs.
    """
    try:
        arrays = load_saved(path)
        saved = str(arrays["fingerprint"])
        old = json.loads(saved)
        new = json.loads(fingerprint)
        changed = ", ".join(name for name in new if old.get(name) != new[name])
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a readable state of a {kind} ({error}): delete it to start again.") from error
    if saved != fingerprint:
        raise UserError(f"{path} is the state of another {kind} ({changed} differ): delete it, or use another path.")
    return arrays


def load_saved(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_atomically` wrote, by name.

    Raises:
      ValueError: anything else lies there: a pipe, a link, what is packed or claims more than it holds.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError("it is not a regular file")
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is packed")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def save_atomically(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Writes an npz beside `path` and renames it there: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, shared=True) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def _batches(images: Any, start: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of `batch_size` images (the last may be smaller) from image `start` on."""
    if hasattr(images, "shape"):
        for first in range(start, len(images), batch_size):
            yield np.asarray(images[first : first + batch_size])
        return
    skip = 0 if callable(images) else start
    pending: list[np.ndarray] = []
    for batch in images(start) if callable(images) else images:
        batch = np.asarray(batch)
        if batch.ndim != 4:
            raise UserError(f"images must come in batches [B, H, W, C]; got shape {batch.shape}.")
        if pending and batch.shape[1:] != pending[-1].shape[1:]:
            raise UserError(
                f"images of different sizes: {pending[-1].shape[1:]} and {batch.shape[1:]}; make them one size."
            )
        skipped = min(skip, len(batch))
        skip -= skipped
        pending.append(batch[skipped:])
        if sum(map(len, pending)) >= batch_size:
            ready = np.concatenate(pending)
            cut = len(ready) - len(ready) % batch_size
            for first in range(0, cut, batch_size):
                yield ready[first : first + batch_size]
            pending = [ready[cut:]]
    remainder = np.concatenate(pending) if pending else np.zeros(0)
    if len(remainder):
        yield remainder


def _probe(images: np.ndarray) -> str:
    """Shape of an array and a digest of some of its images: enough to tell a mistake, cheap on a memory map."""
    digest = hashlib.sha256()
    for index in np.unique(np.linspace(0, max(len(images) - 1, 0), PROBES).astype(int))[: len(images)]:
        digest.update(np.ascontiguousarray(images[index]))
    return f"{tuple(images.shape)} {digest.hexdigest()}"
