"""Makes a file of this folder from one that `evaluate` has cached, and notes its checksum.

    python -m tf_pivae.evaluate --run_dir=RUN --metrics=fid
    python -m tf_pivae.metrics.packaged_statistics.make_statistics CACHE/reference/NAME.npz

CACHE is $TF_PIVAE_CACHE, or ~/.cache/tf_pivae.
"""

import sys
from pathlib import Path

import numpy as np

from tf_pivae.files import file_sha256, read_json, write_json
from tf_pivae.metrics.extraction import load_saved, save_atomically
from tf_pivae.metrics.packaged_statistics import CHECKSUMS, FOLDER


def make(cached: Path, folder: Path = FOLDER) -> Path:
    """Writes the moments in `cached`, a file of `reference_statistics`, into the folder; returns their file."""
    arrays = load_saved(cached)
    covariance = arrays["covariance"]
    path = folder / cached.name
    save_atomically(
        path,
        key=arrays["key"],
        count=arrays["count"],
        mean=arrays["mean"],
        triangle=covariance[np.triu_indices(len(covariance))].astype(np.float32),
    )
    checksums = read_json(folder / CHECKSUMS) if (folder / CHECKSUMS).exists() else {}
    write_json(folder / CHECKSUMS, {**checksums, path.name: file_sha256(path)})
    return path


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
