"""HTTP requests that keep a deadline and follow no redirection, on top of `urllib`."""

import functools
import http.client
import io
import socket
import ssl
import time
import urllib.request
from typing import Any


def opener(context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """`opener(...).open(request, timeout=seconds)` is `urllib.request.urlopen` but for two things.

    `seconds` are those of the whole answer, after which it raises TimeoutError: `urllib` allows as many for every piece
    that comes. And it returns answers of any status: one that points elsewhere (3xx) is not followed, since whoever it
    points to would get the request's headers, a token among them, unencrypted where the address says so.

    Args:
      context: for https; None is the system's certificates.
    """
    return urllib.request.build_opener(_Http(), _Https(context=context), _AnyStatus())


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    def http_response(
        self, request: urllib.request.Request, response: http.client.HTTPResponse
    ) -> http.client.HTTPResponse:
        return response

    https_response = http_response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(context=context)
        self._connection = functools.partial(_EncryptedConnection, context=context)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, timeout: float = 30.0, **options: Any) -> None:
        super().__init__(host, timeout=timeout, **options)
        self.response_class = functools.partial(_Response, deadline=time.monotonic() + timeout)  # type: ignore[assignment]


class _EncryptedConnection(_Connection, http.client.HTTPSConnection):
    pass


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_UntilDeadline(sock, deadline))


class _UntilDeadline(io.RawIOBase):
    """What a socket receives, until a moment of `time.monotonic`."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = sock
        self._deadline = deadline
        self._received = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0.0:
            raise TimeoutError("timed out")
        self._socket.settimeout(seconds)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()
