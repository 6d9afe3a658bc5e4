"""HTTP by aiohttp, with limits on connections, bytes and time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web, web_protocol

from tf_pivae.export.requests import RequestError
from tf_pivae.export.serve.json_tensors import too_large

_LINGER_SECONDS = 2.0  # How long a refused body is read on, so that its sender gets to the answer.
_silent = logging.getLogger("tf_pivae.export.serve.http_server")
_silent.disabled = True  # aiohttp would log a traceback for each malformed request.


class HttpServer(web.Server):
    """Connections that do nothing for `patience` seconds are closed, or earlier where others need their place.

    It covers a request's head, the pauses between requests and the time that a client takes to read an answer; the body
    is `read_body`'s affair.

    Args:
      answer: function of a request to its response; it does not raise.
      max_connections: beyond them, the one that has been idle for longest gives way, or else the new one.
      patience: seconds.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.Response]],
        max_connections: int,
        patience: float,
    ) -> None:
        options = dict(access_log=None, logger=_silent, auto_decompress=False, lingering_time=_LINGER_SECONDS)
        super().__init__(self._respond, keepalive_timeout=patience, timeout_ceil_threshold=patience + 1.0, **options)
        self._answer = answer
        self._max_connections = max_connections
        self._patience = patience
        self._busy: set[web_protocol.RequestHandler] = set()

    def connection_made(self, handler: web_protocol.RequestHandler, transport: asyncio.Transport) -> None:
        """Called for each new connection."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._max_connections:
            next(other for other in [*self.connections, handler] if other not in self._busy).force_close()

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        self._busy.add(request.protocol)
        try:
            response = await self._answer(request)
            await asyncio.wait_for(self._send(request, response), self._patience)
            return response
        except (asyncio.TimeoutError, TimeoutError):
            request.transport.abort()
            raise ConnectionResetError from None
        finally:
            self._busy.discard(request.protocol)

    async def _send(self, request: web.BaseRequest, response: web.Response) -> None:
        await response.prepare(request)
        await response.write_eof()


async def read_body(request: web.BaseRequest, max_bytes: int, patience: float) -> bytes:
    """The body as it was sent.

    Raises:
      RequestError: RESOURCE_EXHAUSTED, it has more than `max_bytes`: where the head says so, before any of it is read;
        DEADLINE_EXCEEDED, it is not there after `patience` seconds.
    """
    if (request.content_length or 0) > max_bytes:
        raise too_large(max_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await asyncio.wait_for(_read(request, max_bytes), patience)
    except (asyncio.TimeoutError, TimeoutError):
        raise RequestError("DEADLINE_EXCEEDED", f"the body did not arrive within {patience:g} s.") from None


async def _read(request: web.BaseRequest, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)
    return bytes(body)
