"""Makes `fashion_mnist.npz`, the bundled subset, from the complete Fashion-MNIST, bit for bit.

    python -m tf_pivae.data.bundled.make_fashion_mnist [SOURCE_DIR] [OUTPUT]

SOURCE_DIR holds the four IDX files (Debian's package `dataset-fashion-mnist` installs them in
/usr/share/datasets/fashion-mnist). The subset is 8,000 of the 60,000 training images and 2,000 of the 10,000 test
images, 800 and 200 of every class, chosen and ordered at random with a fixed seed.
"""

import io
import os
import pathlib
import sys
import zipfile

import numpy as np

from tf_pivae.data import idx

SEED = 2017
PER_CLASS = {"train": 800, "t10k": 200}
_KEYS = {"train": "train", "t10k": "test"}


def choose(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Positions `[10 * per_class]` of `per_class` random examples of every class, in random order."""
    rows = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(10)]
    return rng.permutation(np.concatenate(rows))


def make(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Writes the subset of the IDX files in `source` to `output`."""
    source = pathlib.Path(source)
    # PCG64 and `permutation` have not changed since NumPy 1.17; a test compares what this makes with the kept file.
    rng = np.random.Generator(np.random.PCG64(SEED))
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for prefix, per_class in PER_CLASS.items():
            images = idx.idx_file(source / f"{prefix}-images-idx3-ubyte.gz").read()
            labels = idx.idx_file(source / f"{prefix}-labels-idx1-ubyte.gz").read()
            order = choose(labels, per_class, rng)
            for kind, array in (("images", images[order]), ("labels", labels[order])):
                stream = io.BytesIO()
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
                # A fixed date: the archive's bytes depend on nothing but the images.
                member = zipfile.ZipInfo(f"{_KEYS[prefix]}_{kind}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, stream.getvalue(), compresslevel=9)


if __name__ == "__main__":
    make(
        sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist",
        sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).with_name("fashion_mnist.npz"),
    )
