"""Latency and throughput of the development server with batching on and off:

    python benchmarks/serving.py --export_dir=exports/demo

Starts the server twice on this machine and lets `--clients` clients send requests of `--rows` rows, each the next one
when the last is answered. Clients and server share the machine: on few cores they slow each other down.
"""

import asyncio
import os
import platform
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any

import numpy as np
from absl import app, flags

_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "The folder of versions.", required=True)
_CLIENTS = flags.DEFINE_integer("clients", 64, "Clients at once.", 1)
_ROWS = flags.DEFINE_integer("rows", 1, "Rows of a request.", 1)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "Of measurement for each line.", 0.1)
_SIGNATURES = flags.DEFINE_list("signatures", ["log_prob", "sample", "reconstruct"], "Which to call.")


def main(_: Any) -> None:
    kind = platform.machine()
    cores = os.cpu_count()
    load = os.getloadavg()[0]
    print(f"{cores} cores ({kind}), load average {load:.1f} before the start; {_CLIENTS.value} clients over gRPC")
    print(f"{'signature':12} {'batching':>8} {'p50 ms':>8} {'p99 ms':>8} {'images/s':>9} {'rows/run':>8}")
    for batching in (True, False):
        command = [sys.executable, "-m", "tf_pivae.export.serve", f"--export_dir={_EXPORT_DIR.value}"]
        command += ["--grpc_port=0", "--rest_port=0", f"--batching={str(batching).lower()}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address, url = re.search(r"gRPC ([\d.:]+), REST (http://[\d.:]+)", server.stdout.readline()).groups()
                for signature in _SIGNATURES.value:
                    before = _rows_and_runs(url, signature)
                    seconds, elapsed = asyncio.run(_measure(address, signature))
                    rows, runs = _rows_and_runs(url, signature) - before
                    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
                    rate = len(seconds) * _ROWS.value / elapsed
                    on = "on" if batching else "off"
                    print(f"{signature:12} {on:>8} {p50:8.1f} {p99:8.1f} {rate:9.0f} {rows / runs:8.1f}", flush=True)
            finally:
                server.terminate()
                server.wait()


async def _measure(address, signature):
    """Seconds of each request, and of them all."""
    import grpc
    from tensorflow_serving.apis import predict_pb2

    from tf_pivae.export.client.grpc_client import GrpcClient

    with GrpcClient(address) as client:
        request = _request(predict_pb2.PredictRequest(), client, signature)
    body = request.SerializeToString()
    seconds = []
    async with grpc.aio.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        await asyncio.gather(*(predict(body) for _ in range(_CLIENTS.value)))  # Warm.
        start = time.perf_counter()

        async def work():
            while time.perf_counter() < start + _SECONDS.value:
                sending_time = time.perf_counter()
                await predict(body)
                seconds.append(time.perf_counter() - sending_time)

        await asyncio.gather(*(work() for _ in range(_CLIENTS.value)))
    return seconds, time.perf_counter() - start


def _rows_and_runs(url, signature):
    """Rows and runs of the model so far, float64 [2], as the server counts them."""
    with urllib.request.urlopen(f"{url}/monitoring/prometheus/metrics") as response:
        text = response.read().decode()
    matches = [
        re.search(rf'pivae_batch_rows_{part}{{signature="{signature}"}} (\S+)', text) for part in ("sum", "count")
    ]
    return np.array([0.0 if match is None else float(match[1]) for match in matches])


def _request(request, client, signature):
    import tensorflow as tf

    request.model_spec.name = client.model_name
    request.model_spec.signature_name = signature
    rng = np.random.default_rng(0)
    for name, spec in client.signatures[signature].inputs.items():
        values = rng.integers(0, 2, [_ROWS.value, *spec.shape]).astype(spec.dtype)
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


if __name__ == "__main__":
    app.run(main)
