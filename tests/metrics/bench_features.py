"""Features a second of the Inception network beside torch-fidelity's, and the time of the distance.

python tests/metrics/bench_features.py [--images=200] [--batch_size=50] [--threads=2]

The same weights, uint8 images, batch size and number of threads; each network in its own process, because either
library's idle threads would slow the other's. Not collected by pytest. Needs the extra `peers`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np


def measure(run, images, batch_size, repeats=3):
    """Images a second, best of `repeats` passes after one batch of warm-up."""
    run(images[:batch_size])
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for first in range(0, len(images), batch_size):
            run(images[first : first + batch_size])
        best = min(best, time.perf_counter() - start)
    return len(images) / best


def ours(images, flags):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from tf_pivae.metrics import inception_network

    return measure(inception_network(), images, flags.batch_size)


def torch_fidelity(images, flags):
    import torch
    from torch_fidelity_peer import peer_extractor

    from tf_pivae.metrics.inception_weights import load_weights

    torch.set_num_threads(flags.threads)
    softmax = (np.zeros((2048, 1008), np.float32), np.zeros(1008, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        network = peer_extractor(load_weights(), softmax, os.path.join(folder, "peer.pth"))

    def run(batch):
        with torch.no_grad():
            return network(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))[0].numpy()

    return measure(run, images, flags.batch_size)


def distance(images, flags):
    """Seconds of moments and distance at 2048 dimensions, 10,000 vectors each, ours and torch-fidelity's."""
    import torch
    from torch_fidelity import metric_fid

    from tf_pivae.metrics import frechet_distance_from_moments, moments_of

    random = np.random.default_rng(0)
    sets = [np.maximum(random.normal(size=(10_000, 2048)) + shift, 0).astype(np.float32) for shift in (0, 0.1)]
    start = time.perf_counter()
    moments = [moments_of(features) for features in sets]
    middle = time.perf_counter()
    value = frechet_distance_from_moments(*moments)
    end = time.perf_counter()
    peers = [metric_fid.fid_features_to_statistics(torch.from_numpy(features).double()) for features in sets]
    peer_start = time.perf_counter()
    peer = metric_fid.fid_statistics_to_metric(*peers, False)["frechet_inception_distance"]
    peer_end = time.perf_counter()
    return {
        "moments_s": middle - start,
        "ours_s": end - middle,
        "torch_fidelity_s": peer_end - peer_start,
        "ours": value,
        "torch_fidelity": peer,
        "relative_difference": abs(value / peer - 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["ours", "torch_fidelity", "distance"], help="used by the script itself")
    flags = parser.parse_args()
    if flags.only:
        images = np.random.default_rng(0).integers(0, 256, (flags.images, 32, 32, 3), np.uint8)
        print(json.dumps(globals()[flags.only](images, flags)))
        return
    for name in ("ours", "torch_fidelity", "ours", "torch_fidelity", "distance"):
        command = [
            sys.executable,
            __file__,
            f"--only={name}",
            f"--images={flags.images}",
            f"--batch_size={flags.batch_size}",
            f"--threads={flags.threads}",
        ]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(f"{name}: {result:.2f} images/s" if isinstance(result, float) else f"{name}: {json.dumps(result)}")


if __name__ == "__main__":
    main()
