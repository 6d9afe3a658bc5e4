"""Many mixed requests over many connections, every row compared: python tests/export/load.py --export_dir=exports/demo

Starts the development server, and prints what became of the requests and the memory of the server's process on the way.
Requests of one to four rows of every signature that takes images, seeds or latents, half of them over gRPC, half over
REST, with bad ones and ones that are given up among them. What each row must be is asked first, alone.
"""

import argparse
import asyncio
import collections
import json
import sys
import time
from typing import Any, NamedTuple

import aiohttp
import attacks
import grpc
import numpy as np
import servers
import tensorflow as tf
from talking import PREDICT, request_bytes, same
from tensorflow_serving.apis import predict_pb2

from tf_pivae.export.client import GrpcClient

ROWS = 16  # Different rows of each signature.
SIGNATURES = ("log_prob", "sample", "reconstruct", "encode", "decode")


class Result(NamedTuple):
    """What became of the requests."""

    counts: collections.Counter  # right, wrong, refused (bad ones, as they should), given up, failed
    seconds: float
    memory: list[float]  # MiB of the server's process after each tenth


def ask_all(server: servers.Server, requests: int, connections: int, signatures: tuple = SIGNATURES) -> Result:
    """Sends `requests` requests over `connections` connections at once."""
    return asyncio.run(_ask_all(server, requests, connections, _truth(server, signatures)))


def _truth(server: servers.Server, signatures: tuple) -> dict[str, tuple[dict, dict]]:
    """Inputs and outputs of `ROWS` rows of each signature, from requests of one row."""
    rng = np.random.default_rng(0)
    truth = {}
    with GrpcClient(server.address, batch_size=1) as client:
        for name in signatures:
            inputs = {key: _draw(rng, spec) for key, spec in client.signatures[name].inputs.items()}
            rows = [client.predict(name, {key: value[i : i + 1] for key, value in inputs.items()}) for i in range(ROWS)]
            truth[name] = inputs, {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return truth


def _draw(rng: np.random.Generator, spec: Any) -> np.ndarray:
    shape = [ROWS, *spec.shape]
    return (
        rng.normal(size=shape).astype(spec.dtype)
        if spec.dtype == "float32"
        else rng.integers(0, 256, shape, spec.dtype)
    )


async def _ask_all(server: servers.Server, requests: int, connections: int, truth: dict) -> Result:
    numbers = iter(range(requests))
    counts = collections.Counter()
    memory = []
    watch = attacks.Watch(server)
    started = time.monotonic()

    async def work(index: int) -> None:
        rng = np.random.default_rng(index)
        ask = _over_grpc if index % 2 else _over_rest
        async with ask(server) as send:
            for number in numbers:
                if number % (requests // 10) == 0:
                    memory.append(watch.resident())
                counts[await _one(send, truth, rng)] += 1

    await asyncio.gather(*map(work, range(connections)))
    memory.append(watch.resident())
    return Result(counts, time.monotonic() - started, memory)


async def _one(send: Any, truth: dict, rng: np.random.Generator) -> str:
    name = rng.choice(list(truth))
    inputs, outputs = truth[name]
    rows = rng.integers(ROWS, size=rng.integers(1, 5))
    chosen = {key: value[rows] for key, value in inputs.items()}
    kind = rng.choice(20)
    if kind == 0:  # Bad: one dimension too many.
        chosen = {key: value[..., None] for key, value in chosen.items()}
    try:
        result = await asyncio.wait_for(send(name, chosen), 0.01 if kind == 1 else 60.0)
    except (asyncio.TimeoutError, TimeoutError):
        return "given up" if kind == 1 else "failed"
    if result is None:
        return "refused" if kind == 0 else "failed"
    right = kind != 0 and all(same(np.array(result[key], out.dtype), out[rows]) for key, out in outputs.items())
    return "right" if right else "wrong"


class _over_grpc:
    """Sends requests over a channel of its own; None is a request that was refused."""

    def __init__(self, server: servers.Server):
        self._channel = grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])

    async def __aenter__(self) -> Any:
        predict = self._channel.unary_unary(PREDICT)

        async def send(name: str, inputs: dict) -> dict | None:
            try:
                response = predict_pb2.PredictResponse.FromString(await predict(request_bytes(name, **inputs)))
            except grpc.aio.AioRpcError as error:
                return None if error.code() == grpc.StatusCode.INVALID_ARGUMENT else {}
            return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}

        return send

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class _over_rest:
    """The same over HTTP."""

    def __init__(self, server: servers.Server):
        self._url = server.url + attacks.PATH
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))

    async def __aenter__(self) -> Any:
        async def send(name: str, inputs: dict) -> dict | None:
            body = json.dumps({"signature_name": name, "inputs": {key: v.tolist() for key, v in inputs.items()}})
            async with self._session.post(self._url, data=body) as response:
                answer = await response.json()
            if response.status != 200:
                return None if response.status == 400 else {}
            outputs = answer["outputs"]
            return outputs if isinstance(outputs, dict) else {"images": outputs}

        return send

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


def main(arguments: list[str]) -> int:
    """Prints the result; exit status 1 if a row was wrong or a request failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--export_dir", required=True, help="the folder of versions")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--runtime", default="tensorflow", help="tensorflow or openvino")
    chosen = parser.parse_args(arguments)
    signatures = SIGNATURES if chosen.runtime == "tensorflow" else tuple(s for s in SIGNATURES if s != "sample")
    with servers.development(chosen.export_dir, f"--runtime={chosen.runtime}") as server:
        result = ask_all(server, chosen.requests, chosen.connections, signatures)
    print(
        f"{chosen.requests / result.seconds:.0f} requests/s; " + ", ".join(f"{n} {k}" for k, n in result.counts.items())
    )
    print("MiB of the server after each tenth: " + " ".join(f"{mib:.0f}" for mib in result.memory))
    return int(result.counts["wrong"] + result.counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
