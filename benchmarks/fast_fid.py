"""What `evaluate --fast` changes: FID with the Inception's convolutions in float32 and in bfloat16, of the same images.

    python -m benchmarks.fast_fid

The sets are the first bundled training images, the first bundled test images, and as many samples of the packaged
model. Printed: each pair's distance in either precision, the images a second (the median of the sets), the processor
time of an image, and the share of the convolutions in the time of the network's operations. Sets of fewer images than
the 2048 features are compared, too: their distances are too large, but equally so in either precision.
"""

import functools
import statistics
import time

import numpy as np
from absl import flags

from tf_pivae import cli

_NUM_IMAGES = flags.DEFINE_integer("num_images", 2500, "Images of each set.", 2)
_PAIRS = (("training images", "test images"), ("samples", "test images"), ("samples", "training images"))


def main() -> None:
    cli.import_tensorflow_quietly()
    from benchmarks import ours
    from tf_pivae import loading, metrics
    from tf_pivae.data import bundled

    count = _NUM_IMAGES.value
    data = bundled(image_size=28)
    sets = {
        "training images": np.asarray(data.train.images[:count]),
        "test images": np.asarray(data.test.images[:count]),
        "samples": loading.load("fashion_mnist").sample(count, seed=0),
    }
    distances = []
    rates = []
    milliseconds = []
    shares = []
    for fast in (True, False):
        network = metrics.inception_network(fast=fast)
        network(sets["samples"][:2])  # traced before the clock starts
        processor = time.process_time()
        durations = []
        moments = {}
        for name, images in sets.items():
            start = time.perf_counter()
            moments[name] = metrics.extract(images, network, progress=False).moments
            durations.append(time.perf_counter() - start)
        rates.append(count / statistics.median(durations))
        milliseconds.append(1e3 * (time.process_time() - processor) / (count * len(sets)))
        operations = ours.profile(functools.partial(network, sets["samples"][:64]), 3)
        shares.append(sum(time for name, time in operations.items() if "Conv" in name) / sum(operations.values()))
        distances.append(
            [
                metrics.frechet_distance_from_moments(moments[a], moments[b], allow_rank_deficient=True)
                for a, b in _PAIRS
            ]
        )
    print(f"| {count} images of each set | bfloat16 | float32 | relative difference |")
    print("|---|---|---|---|")
    for (a, b), quick, exact in zip(_PAIRS, *distances, strict=True):
        print(f"| {a} against {b} | {quick:.3f} | {exact:.3f} | {quick / exact - 1:+.1e} |")
    print(f"| images a second | {rates[0]:.0f} | {rates[1]:.0f} | |")
    print(f"| processor time of an image, ms | {milliseconds[0]:.0f} | {milliseconds[1]:.0f} | |")
    print(f"| convolutions' share | {shares[0]:.0%} | {shares[1]:.0%} | |")


if __name__ == "__main__":
    cli.run(main)
