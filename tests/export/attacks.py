"""What strangers send to wear a server out, and what it costs: memory, and the time that a neighbour waits."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from servers import Server
from talking import by_rows

PATH = "/v1/models/pivae:predict"
MiB = 1 << 20


def column(value: object) -> bytes:
    """A request in the column format."""
    return json.dumps({"inputs": value}).encode()


def head(length: int, *lines: str) -> bytes:
    """The head of a request whose body has, or claims to have, `length` bytes."""
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: a", f"Content-Length: {length}", *lines, "", ""]).encode()


# Bodies.
BODIES = {
    "a long string among empty ones": column(["a" * 10_000] + [""] * 40_000),
    "a longer string among more": column(["a" * 100_000] + [""] * 220_000),
    "rows beyond counting": b'{"instances": [' + b"[]," * 20_000_000 + b"[]]}",
    "nesting": b'{"inputs": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "one wide row": column([0] * 2_000_000),
    "names": json.dumps({"inputs": {str(i): 0 for i in range(200_000)}}).encode(),
    "spaces": b'{"inputs": [' + b" " * 60_000_000 + b"]}",
}


def field(number: int, content: bytes) -> bytes:
    """A field of bytes in the wire format."""
    size = len(content)
    length = b""
    while size > 127:
        length = length + bytes([size & 127 | 128])
        size = size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def tensor(content: bytes) -> bytes:
    """A `PredictRequest` for one input, a tensor of these bytes."""
    return field(1, field(1, b"pivae")) + field(2, field(1, b"images") + field(2, content))


# Messages of gRPC of just less than the largest that the small model of the tests may get.
_SIZE = 1_000_000
MESSAGES = {
    "inputs without a name": b"\x12\x00" * (_SIZE // 2),
    "filters": b"\x1a\x00" * (_SIZE // 2),
    "resources in a tensor": tensor(b"\x72\x00" * (_SIZE // 2)),
    "fields in fields": field(2, field(2, b"\x08\x04" * 128) * 64) * 60,
    "dimensions": tensor(field(2, b"\x12\x00" * (_SIZE // 2))),
    "far too large": b"\x12\x00" * (30 * MiB),
}


class Watch:
    """Memory of a server's process, and the latency of a neighbour who asks for a sample over and over."""

    def __init__(self, server: Server):
        self._server = server
        self._status = Path(f"/proc/{server.process.command_pid()}/status")
        self.latencies: list[float] = []
        self.peak = 0.0

    @contextlib.contextmanager
    def during(self) -> Iterator["Watch"]:
        """Watches while the context lasts; then `peak` (MiB, above what it held before) and `slowest` (s) are set."""
        self.latencies = []
        stop = threading.Event()
        before = self.resident()
        Path(self._status.with_name("clear_refs")).write_text("5")  # The highest resident size starts again.
        thread = threading.Thread(target=self._ask, args=[stop])
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            self.peak = self._kilobytes("VmHWM") / 1024 - before

    @property
    def slowest(self) -> float:
        """Seconds that the neighbour waited at most."""
        return max(self.latencies)

    def resident(self) -> float:
        """MiB that the process holds."""
        return self._kilobytes("VmRSS") / 1024

    def _kilobytes(self, field: str) -> int:
        lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(lines[field].split()[0])

    def _ask(self, stop: threading.Event) -> None:
        """Over a connection of its own each time: a server out of descriptors is noticed."""
        body = json.dumps(by_rows("sample", 1)).encode()
        while not stop.is_set():
            started = time.monotonic()
            status = 0
            while status != 200 and time.monotonic() - started < 60.0:
                with contextlib.suppress(OSError, http.client.HTTPException):  # Then it tries again, as our clients do.
                    status, _ = post(self._server, body)
            self.latencies.append(time.monotonic() - started)
            stop.wait(0.02)


def post(server: Server, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and answer."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", PATH, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def dial(server: Server, *sent: bytes) -> socket.socket:
    """A connection to the REST port on which some bytes were sent."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    for data in sent:
        connection.sendall(data)
    return connection
