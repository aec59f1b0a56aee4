"""One HTTP/1.1 connection to an engine: an asyncio.Protocol on httptools.

Owns: writing a request, parsing what comes back, telling when it is free or lost.
Not here: the bytes for the reader (engine_response.py), which connection (connection_pool.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from gateway.engine_response import EngineBroke, EngineResponse

HEADER_LIMIT = 64 * 1024


class EngineConnection(asyncio.Protocol):
    """Carries one request at a time. `on_end(connection)` is called each time a request ends
    and when the connection is lost: look at `usable`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_end: Callable[[EngineConnection], None]
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: EngineResponse | None = None
        self._header_bytes = 0
        self._framed = False
        self._keep = True
        #: how many responses it has carried to their end
        self.served = 0
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """May carry a new request."""
        return self._transport is not None and self._response is None and self._keep

    def send(self, request: bytes) -> EngineResponse:
        assert self._transport is not None and self._response is None
        response = self._response = EngineResponse(self, self._loop)
        self._header_bytes = 0
        self._framed = False
        self._transport.write(request)
        return response

    # Source of a response ------------------------------------------------------------------

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once; nothing is sent or received any more."""
        transport, self._transport = self._transport, None
        self._response = None
        if transport is not None:
            transport.abort()
            self._on_end(self)

    # asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.drop()
            return
        response.received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            response.fail(EngineBroke("the engine's answer is not HTTP"))
            if response.complete:
                self.drop()  # bytes after the whole answer: nobody shall ask here again
                response.wake()
            return
        response.wake()

    def eof_received(self) -> None:
        self._end_of_bytes()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_bytes()
        self.drop()

    def _end_of_bytes(self) -> None:
        response = self._response
        if response is None:
            return
        self._keep = False
        if response.status and not self._framed:
            self.on_message_complete()
            response.wake()
        else:
            response.fail(EngineBroke("the engine closed the connection before its answer's end"))

    # httptools -----------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._response is not None
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_LIMIT:
            raise ValueError("too many headers")
        key = name.decode("latin-1").lower()
        self._response.headers[key] = value.decode("latin-1")
        self._framed |= key in ("content-length", "transfer-encoding")

    def on_headers_complete(self) -> None:
        response = self._response
        assert response is not None
        response.status = self._parser.get_status_code()
        self._framed |= response.status in (204, 304)

    def on_body(self, body: bytes) -> None:
        # None after the reader has closed it while one read was still being parsed.
        if self._response is not None:
            self._response.feed(body)

    def on_message_complete(self) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        response.finish()
        self.served += 1
        self._keep = self._keep and self._parser.should_keep_alive()
        if not self._keep:
            self.drop()
            return
        self.resume()
        self._on_end(self)
