"""The development server put together: manager, batching, gRPC, REST, signals."""

import asyncio
import concurrent.futures
import dataclasses
import functools
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

import grpc
from absl import logging
from aiohttp import web

from tf_pivae.errors import UserError
from tf_pivae.export.serve.batching import Batcher
from tf_pivae.export.serve.grpc_service import GrpcService
from tf_pivae.export.serve.http_server import HttpServer
from tf_pivae.export.serve.limits import FirstLimits, Limits
from tf_pivae.export.serve.manager import ModelManager
from tf_pivae.export.serve.rest_service import RestService
from tf_pivae.export.serve.servable import Servable
from tf_pivae.export.serve.server_metrics import ServerMetrics

_ACCEPTED_AT_ONCE = 8  # connections; asyncio takes some such lots more until one too many is closed.
_BACKLOG = 1024  # connections that wait in the kernel
_OTHER_FILES = 64 + 8 * _ACCEPTED_AT_ONCE  # Descriptors to spare: TensorFlow ends the process where it gets none.
_LOG_SECONDS = 60.0  # between two lines on what the event loop met with
_CALLS_OF_ONE = 256  # at once over a connection of gRPC; clients let more wait by themselves.
_AGE_SECONDS = 300.0  # of a connection over gRPC; clients make a new one and do not notice.


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """The flags of `tf_pivae.export.serve`, by their names."""

    export_dir: str
    model_name: str
    runtime: str
    precision: str
    host: str
    grpc_port: int
    rest_port: int
    batching: bool
    max_batch_size: int
    batch_timeout_micros: int
    num_batch_threads: int
    max_message_bytes: int
    max_connections: int
    patience_seconds: float
    poll_seconds: float
    drain_seconds: float


async def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what has begun.

    Raises:
      UserError: nothing to serve, a port that is taken, or too few descriptors.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.set_exception_handler(one_line_a_minute())
    metrics = ServerMetrics()
    with concurrent.futures.ThreadPoolExecutor(settings.num_batch_threads, "batch") as executor:
        first = FirstLimits(settings.max_batch_size, settings.max_message_bytes)

        def load(folder: str, version: int) -> Servable:
            servable = Servable(folder, version, runtime=settings.runtime, precision=settings.precision)
            first.check(servable.signatures)
            return servable

        make_batcher = _batcher_factory(settings, executor, metrics)
        manager = ModelManager(settings.export_dir, load, make_batcher, settings.poll_seconds)
        await manager.start()
        limits = first.limits
        connections = _max_connections(settings.max_connections)
        grpc_server, grpc_port = await _start_grpc(settings, manager, limits, connections, metrics)
        rest_runner, rest_port = await _start_rest(settings, manager, limits, connections, metrics)
        host = _in_address(settings.host)
        _say(
            f"{settings.model_name} version {manager.version().number}: gRPC {host}:{grpc_port}, "
            f"REST http://{host}:{rest_port}/v1/models/{settings.model_name}"
        )
        await stop.wait()
        _say("draining")
        await asyncio.gather(grpc_server.stop(settings.drain_seconds), rest_runner.cleanup())
        manager.stop()
    _say("stopped")


def _in_address(host: str) -> str:
    """A host as it stands in front of a port: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _say(line: str) -> None:
    """Prints; a terminal that has gone away must not keep the server from finishing its requests."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for the rest of the process


def one_line_a_minute() -> Callable[[asyncio.AbstractEventLoop, dict], None]:
    """A handler of what goes wrong in an event loop, such as accepting a connection without a descriptor left.

    asyncio would write a traceback for each of some hundred attempts a second.
    """
    last = -_LOG_SECONDS

    def handle(loop: asyncio.AbstractEventLoop, context: dict) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_SECONDS:
            last = time.monotonic()
            error = context.get("exception")
            logging.error("%s%s", context["message"], "" if error is None else f": {type(error).__name__}: {error}")

    return handle


def _max_connections(requested: int) -> int:
    """How many each port may hold, so that some descriptors are always left.

    Raises:
      UserError: hardly any.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = (allowed - _OTHER_FILES - len(os.listdir("/dev/fd"))) // 2 if allowed > 0 else requested
    if possible < 8:
        raise UserError(f"this process may open only {allowed} files, too few to serve: raise it (ulimit -n).")
    return min(requested, possible)


def _batcher_factory(
    settings: ServerSettings, executor: concurrent.futures.Executor, metrics: ServerMetrics
) -> Callable[[Servable, str], Batcher]:
    slots = asyncio.Semaphore(settings.num_batch_threads)

    def make_batcher(servable: Servable, signature: str) -> Batcher:
        return Batcher(
            functools.partial(servable.run, signature),
            executor,
            slots,
            functools.partial(metrics.observe_rows, signature),
            max_batch_size=settings.max_batch_size,
            timeout=settings.batch_timeout_micros / 1e6,
            max_waiting=64 * settings.max_batch_size,
            join=settings.batching,
        )

    return make_batcher


async def _start_grpc(
    settings: ServerSettings, manager: ModelManager, limits: Limits, connections: int, metrics: ServerMetrics
) -> tuple[grpc.aio.Server, int]:
    patience = round(1e3 * settings.patience_seconds)
    calls = 64 * settings.max_batch_size
    options = [
        ("grpc.max_receive_message_length", limits.proto_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # None: a compressed message's true size is known too late.
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", _CALLS_OF_ONE),
        ("grpc.server.max_pending_requests", 2 * calls),  # Beyond 1,000 by default some end as CANCELLED.
        ("grpc.server.max_pending_requests_hard_limit", 2 * calls),
        ("grpc.server_handshake_timeout_ms", patience),
        ("grpc.max_connection_idle_ms", patience),
        ("grpc.max_connection_age_ms", round(1e3 * _AGE_SECONDS)),
        ("grpc.max_connection_age_grace_ms", patience),
        ("grpc.so_reuseport", 0),  # Otherwise a second server on the port would take half of the requests.
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls)
    GrpcService(manager, settings.model_name, limits, settings.patience_seconds, metrics).add_to(server)
    address = f"{_in_address(settings.host)}:{settings.grpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"cannot listen on {address}: choose another --grpc_port, or another --host.") from error
    await server.start()
    return server, port


async def _start_rest(
    settings: ServerSettings, manager: ModelManager, limits: Limits, connections: int, metrics: ServerMetrics
) -> tuple[web.ServerRunner, int]:
    patience = settings.patience_seconds
    service = RestService(manager, settings.model_name, limits, patience, metrics)
    server = HttpServer(service.answer, connections, patience)
    runner = web.ServerRunner(server, shutdown_timeout=settings.drain_seconds)
    await runner.setup()
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.rest_port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {_in_address(settings.host)}:{settings.rest_port} ({error.strerror}): choose another "
            "--rest_port, or another --host."
        ) from error
    await web.SockSite(runner, listener, backlog=_ACCEPTED_AT_ONCE).start()
    listener.listen(_BACKLOG)
    return runner, listener.getsockname()[1]
