"""What strangers may send costs little memory and hardly holds up a neighbour."""

import asyncio
import contextlib
import gzip
import json
import os
import resource
import socket
import threading
import time
import urllib.request

import attacks
import grpc
import numpy as np
import pytest
import servers
import talking
from absl import logging
from aiohttp import web
from tensorflow_serving.apis import get_model_status_pb2

from tf_pivae.errors import UserError
from tf_pivae.export.serve.http_server import HttpServer
from tf_pivae.export.serve.server import one_line_a_minute

MORE_MIB = 40  # Above what the server held; without limits the attacks took 50 to 5,400.
SLOWEST = 4.0  # Seconds that a neighbour waits, also on a machine that does other things; it was 5 to 18.
PATIENCE = 2.0


@pytest.fixture(scope="module")
def quiet(export_dir):
    """A server with the limits of its model alone, and little patience."""
    with servers.development(export_dir, f"--patience_seconds={PATIENCE}") as server:
        watch = attacks.Watch(server)
        with watch.during():  # What a server takes for its first requests is not the attacks'.
            time.sleep(0.5)
        yield server


@pytest.fixture
def watched(quiet):
    """Fails the test if the server took much memory or let a neighbour wait."""
    watch = attacks.Watch(quiet)
    with watch.during():
        yield quiet
        time.sleep(0.1)
    print(f"{watch.peak:.0f} MiB more, a neighbour waited for {watch.slowest:.2f} s")
    assert quiet.process.poll() is None
    assert watch.peak < MORE_MIB
    assert watch.slowest < SLOWEST


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", attacks.BODIES)
def test_large_bodies_are_refused_before_anything_is_made_of_them(watched, name, zipped):
    body = attacks.BODIES[name]
    sent = (gzip.compress(body, 6), {"Content-Encoding": "gzip"}) if zipped else (body,)
    status, answer = attacks.post(watched, *sent)
    assert status in (400, 413)
    assert "values or more" in answer or "bytes" in answer


@pytest.mark.parametrize("name", attacks.MESSAGES)
def test_large_messages_are_refused_before_anything_is_made_of_them(watched, name):
    channel, predict = talking.raw_predict(watched)
    with channel, pytest.raises(grpc.RpcError) as error:
        predict(attacks.MESSAGES[name], timeout=20)
    assert error.value.code().name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


def test_a_compressed_message_is_not_unpacked(watched):
    channel, predict = talking.raw_predict(watched)
    with channel, pytest.raises(grpc.RpcError) as error:  # Packed in less than the connection's patience.
        predict(bytes(8 * attacks.MiB), timeout=20, compression=grpc.Compression.Gzip)
    assert error.value.code().name == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        ("gzip", b'{"instances": [1]}', 400, "not gzip"),
        ("gzip", gzip.compress(b'{"instances": [1]}', mtime=0)[:-4], 400, "ends in the middle"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400, "followed by other data"),
        ("br", b"{}", 400, "must be gzip or none"),
        ("gzip", gzip.compress(json.dumps(talking.by_rows("sample", 1)).encode(), mtime=0), 200, "predictions"),
    ],
)
def test_content_encodings(quiet, encoding, body, status, reason):
    result, answer = attacks.post(quiet, body, {"Content-Encoding": encoding})
    assert result == status
    assert reason in answer


def test_a_large_content_length_is_answered_before_the_body_comes(watched):
    with attacks.dial(watched, attacks.head(10**10)) as connection:
        started = time.monotonic()
        assert b" 413 " in connection.recv(1000)
        assert time.monotonic() - started < PATIENCE / 2


def test_a_client_that_asks_whether_to_send_is_told_to_go_on(quiet):
    body = json.dumps(talking.by_rows("sample", 1)).encode()
    with attacks.dial(quiet, attacks.head(len(body), "Expect: 100-continue")) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


SLOW = {
    "says nothing": (),
    "half a head": (b"POST /v1/models/pivae:predict HTTP/1.1\r\nHost: a\r\n",),
    "half a body": (attacks.head(100), b'{"instances": ['),
    "a body in chunks without end": (
        attacks.head(0, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b""),
    ),
    "stays after its answer": (b"GET /v1/models/pivae HTTP/1.1\r\nHost: a\r\n\r\n",),
}


@pytest.mark.parametrize("kind", SLOW)
def test_connections_that_do_nothing_are_closed(watched, kind):
    connections = [attacks.dial(watched, *SLOW[kind]) for _ in range(50)]
    started = time.monotonic()
    answers = [_read_to_the_end(connection) for connection in connections]
    assert time.monotonic() - started < 3 * PATIENCE + 2.0  # A body that does not come is lingered for 2 s.
    assert {answer[:12] for answer in answers} <= {
        b"" if kind in ("says nothing", "half a head") else b"HTTP/1.1 408" if "body" in kind else b"HTTP/1.1 200"
    }


def test_connections_over_grpc_that_do_nothing_are_closed(watched):
    host, port = watched.address.split(":")
    connections = [socket.create_connection((host, int(port)), timeout=20) for _ in range(50)]
    started = time.monotonic()
    for connection in connections:
        _read_to_the_end(connection)
    assert time.monotonic() - started < 3 * PATIENCE + 2.0


def test_calls_over_grpc_without_a_message_end(watched):
    """They keep their connection from being idle, and a place among the calls at once."""
    with grpc.insecure_channel(watched.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        started = time.monotonic()
        over = threading.Event()
        begin = channel.stream_unary(talking.PREDICT)
        calls = [begin.future(iter(over.wait, True), timeout=60) for _ in range(20)]
        other, predict = talking.raw_predict(watched)
        with other:
            predict(talking.request_bytes("sample", seeds=np.array([1])), timeout=20)
        reasons = {(call.code().name, call.details()) for call in calls}
        over.set()
    assert reasons == {("DEADLINE_EXCEEDED", f"the message did not arrive within {PATIENCE:g} s.")}
    assert time.monotonic() - started < 3 * PATIENCE + 2.0


def test_many_calls_over_grpc_at_once_are_answered(quiet):
    """gRPC would end some of them, CANCELLED, where a thousand wait to be looked at."""
    status = "/tensorflow.serving.ModelService/GetModelStatus"
    body = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "pivae"}).SerializeToString()

    async def ask():
        async with contextlib.AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(quiet.address, options)) for _ in range(8)
            ]
            return await asyncio.gather(
                *(c.unary_unary(status)(body, timeout=60) for c in channels for _ in range(250))
            )

    assert len(asyncio.run(ask())) == 2000


def test_a_client_that_does_not_read_its_answers_is_left(watched):
    """More answers than the sockets' buffers hold: the server must not keep them for ever."""
    metrics = b"GET /monitoring/prometheus/metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with attacks.dial(watched) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError, match=r"reset|pipe|timed out"):  # noqa: PT012
            connection.settimeout(5 * PATIENCE)
            for _ in range(100_000):
                connection.sendall(100 * metrics)


def _read_to_the_end(connection):
    answer = b""
    with connection:
        try:
            while data := connection.recv(1000):
                answer += data
        except ConnectionError:
            pass
    return answer


def test_the_longest_idle_connection_gives_way():
    async def answer(request):
        return web.Response()

    async def connected():
        server = HttpServer(answer, max_connections=2, patience=60.0)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        address = listening.sockets[0].getsockname()
        connections = [await asyncio.open_connection(*address) for _ in range(3)]
        assert await asyncio.wait_for(connections[0][0].read(), 10.0) == b""
        for reader, _ in connections[1:]:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
        listening.close()

    asyncio.run(connected())


def test_few_descriptors(export_dir, tmp_path):
    """More connections than descriptors: neighbours are answered, the server lives, and its log stays short."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    errors = os.dup(2)
    log = tmp_path / "log"
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (250, allowed[1]))
        try:
            with servers.development(export_dir, f"--patience_seconds={PATIENCE}") as server:
                resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
                watch = attacks.Watch(server)
                with watch.during():
                    for port in (server.url.removeprefix("http://"), server.address):
                        host, number = port.split(":")
                        connections = [socket.create_connection((host, int(number)), timeout=20) for _ in range(300)]
                        time.sleep(1.0)
                        for connection in connections:
                            connection.close()
                assert server.process.poll() is None
        finally:
            os.dup2(errors, 2)
            os.close(errors)
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert watch.slowest < 2 * SLOWEST  # Some connections wait for their second attempt, a second later.
    assert len(log.read_text().splitlines()) < 50  # There were 88,000 tracebacks, or the server's end.


def test_hardly_any_descriptors_are_a_users_mistake(monkeypatch):
    from tf_pivae.export.serve import server

    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(UserError, match="ulimit -n"):
        server._max_connections(512)


def test_the_event_loops_failures_are_one_line_a_minute(monkeypatch):
    lines = []
    now = [1000.0]
    monkeypatch.setattr(logging, "error", lambda text, *values: lines.append(text % values))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    handle = one_line_a_minute()
    for _ in range(3):
        for _ in range(1000):
            handle(None, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many")})
        now[0] += 61.0
    assert lines == ["socket.accept() out of system resource: OSError: [Errno 24] Too many"] * 3


def test_a_version_beyond_int64_is_ignored(export_dir, quiet):
    for name in ("99999999999999999999", str(2**63)):
        (export_dir / name).mkdir()
    time.sleep(0.5)
    with urllib.request.urlopen(f"{quiet.url}/v1/models/pivae", timeout=20) as response:
        (status,) = json.load(response)["model_version_status"]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
    for version in (2**63, 99999999999999999999):
        assert (
            talking.post(quiet, talking.by_rows("sample", 1), f"/v1/models/pivae/versions/{version}:predict")[0] == 404
        )
