"""The development server put together: manager, batching, gRPC, REST, signals."""

import asyncio
import concurrent.futures
import dataclasses
import functools
import os
import signal
import sys

import grpc
from aiohttp import web

from tf_pivae.errors import UserError
from tf_pivae.export.batching import Batcher, Unbatched
from tf_pivae.export.grpc_service import GrpcService
from tf_pivae.export.manager import ModelManager
from tf_pivae.export.rest_service import RestService
from tf_pivae.export.server_metrics import ServerMetrics


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `tf_pivae.export.serve`; times in seconds."""

    export_dir: str
    model_name: str
    host: str
    grpc_port: int
    rest_port: int
    batching: bool
    max_batch_size: int
    batch_timeout: float
    num_batch_threads: int
    max_message_bytes: int
    poll_seconds: float
    drain_seconds: float


async def serve(settings):
    """Serves until SIGTERM or SIGINT, then finishes what has begun.

    Raises:
      UserError: nothing to serve, or a port that is taken.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = ServerMetrics()
    with concurrent.futures.ThreadPoolExecutor(settings.num_batch_threads, "batch") as executor:
        manager = ModelManager(settings.export_dir, _runner_factory(settings, executor, metrics), settings.poll_seconds)
        await manager.start()
        grpc_server, grpc_port = await _start_grpc(settings, manager, metrics)
        rest_runner, rest_port = await _start_rest(settings, manager, metrics)
        _say(
            f"{settings.model_name} version {manager.version}: gRPC {settings.host}:{grpc_port}, "
            f"REST http://{settings.host}:{rest_port}/v1/models/{settings.model_name}"
        )
        await stop.wait()
        _say("draining")
        await asyncio.gather(grpc_server.stop(settings.drain_seconds), rest_runner.cleanup())
        await manager.stop()
    _say("stopped")


def _say(line):
    """Prints; a terminal that has gone away must not keep the server from finishing its requests."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for the rest of the process


def _runner_factory(settings, executor, metrics):
    slots = asyncio.Semaphore(settings.num_batch_threads)

    def make_runner(servable, signature):
        run = functools.partial(servable.run, signature)
        observe = functools.partial(metrics.observe_rows, signature)
        if not settings.batching:
            return Unbatched(run, executor, slots, observe)
        limits = settings.max_batch_size, settings.batch_timeout, 64 * settings.max_batch_size
        return Batcher(run, executor, slots, observe, *limits)

    return make_runner


async def _start_grpc(settings, manager, metrics):
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # Otherwise a second server on the port would take half of the requests.
    ]
    server = grpc.aio.server(options=options)
    GrpcService(manager, settings.model_name, settings.max_batch_size, metrics).add_to(server)
    try:
        port = server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise UserError(
            f"cannot listen on {settings.host}:{settings.grpc_port}: choose another --grpc_port."
        ) from error
    await server.start()
    return server, port


async def _start_rest(settings, manager, metrics):
    limits = settings.max_batch_size, settings.max_message_bytes
    app = RestService(manager, settings.model_name, *limits, metrics).application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.drain_seconds)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.rest_port).start()
    except OSError as error:
        raise UserError(
            f"cannot listen on {settings.host}:{settings.rest_port} ({error.strerror}): choose another --rest_port."
        ) from error
    return runner, runner.addresses[0][1]
