"""Reference statistics of a data set: packaged, or cached on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.files import default_cache_dir
from tf_pivae.metrics.extraction import BATCH_SIZE, Extraction, Images, extract, load_saved, save_atomically
from tf_pivae.metrics.feature_moments import Moments
from tf_pivae.metrics.features import UNVERIFIED, FeatureNetwork
from tf_pivae.metrics.packaged_statistics import packaged_moments

FORMAT = 1  # raise it when the meaning of a cached array changes


@dataclasses.dataclass(frozen=True)
class ReferenceKey:
    """What reference statistics depend on: two of them are the same when their keys are."""

    dataset: str
    split: str
    preprocessing: str  # crops and the like, before the network; "none" for the images as they are
    count: int


def reference_statistics(
    images: Images,
    network: FeatureNetwork,
    key: ReferenceKey,
    *,
    cache_dir: str | os.PathLike | None = None,
    keep_features: int = 0,
    keep_logits: bool = False,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: bool = True,
) -> Extraction:
    """Statistics of a data set's images from the cache or the package, or by one resumable pass that fills the cache.

    Args:
      images: as for `extract`; looked at only when nothing is cached.
      key: names the images; it must change with them, and `key.count` must be their number.
      cache_dir: default the folder `reference` in `files.default_cache_dir()`.
      keep_features, keep_logits, batch_size, seed, progress: as for `extract`.

    Raises:
      UserError: the number of images is not `key.count`, the network has no checksum, or what `extract` raises.
    """
    if network.checksum == UNVERIFIED:
        raise UserError(f"statistics of '{network.name}' cannot be cached: give the network a checksum.")
    full = {
        "format": FORMAT,
        **dataclasses.asdict(key),
        "network": network.name,
        "checksum": network.checksum,
        "resize": network.resize,
        "keep_features": keep_features,
        "keep_logits": keep_logits,
        "seed": seed,
    }
    text = json.dumps(full, sort_keys=True)
    folder = default_cache_dir() / "reference" if cache_dir is None else Path(cache_dir)
    path = folder / f"{_slug(key)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
    cached = _load(path, text, network) or _packaged(path.name, text, network)
    if cached is not None:
        return cached
    result = extract(
        images,
        network,
        batch_size=batch_size,
        keep_features=keep_features,
        keep_logits=keep_logits,
        seed=seed,
        progress=progress,
        total=key.count,
        state_path=path.with_suffix(".state"),
        key=text,
        description=f"{key.dataset} {key.split}",
    )
    if result.count != key.count:
        raise UserError(f"{key.dataset} {key.split} gave {result.count} images instead of {key.count}.")
    logits = {} if result.logits is None else {"logits": result.logits}
    save_atomically(
        path,
        key=np.array(text),
        count=np.int64(result.count),
        mean=result.moments.mean,
        covariance=result.moments.covariance,
        features=result.features,
        **logits,
    )
    path.with_suffix(".state").unlink(missing_ok=True)
    return result


def _load(path: Path, text: str, network: FeatureNetwork) -> Extraction | None:
    """The cached statistics, or None if there are none, or the file is damaged or another key's: then it is remade."""
    try:
        arrays = load_saved(path)
        if str(arrays["key"]) != text:
            return None
        moments = Moments(int(arrays["count"]), arrays["mean"], arrays["covariance"])
        return Extraction(moments, arrays["features"], arrays.get("logits"), network.name, network.checksum)
    except (ValueError, KeyError, TypeError):
        return None


def _packaged(name: str, text: str, network: FeatureNetwork) -> Extraction | None:
    """Statistics that come with the package, or None; without single features and logits, which other keys ask for."""
    moments = packaged_moments(name, text)
    if moments is None:
        return None
    return Extraction(moments, np.zeros((0, len(moments.mean)), np.float32), None, network.name, network.checksum)


def _slug(key: ReferenceKey) -> str:
    """A readable start of the file's name; the digest behind it tells keys apart."""
    return "".join(c if c.isalnum() else "_" for c in f"{key.dataset}-{key.split}-{key.count}")[:60]
