"""A web server for three pages: GET only, one answer for each connection, everything bounded in
size, number and time.

Why not waitress, which serves the dashboard: its time-out counts from the last byte, so whoever
sends one byte in a while keeps a place for as long as he likes, and this page may be open to the
network without a password. Here the whole request has REQUEST_TIMEOUT seconds. Nor does it need
threads in a process that was forked from the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

MAX_REQUEST = 8192
"""Bytes of a request line and its fields; beyond: 431."""
REQUEST_TIMEOUT = 5.0
"""Seconds for the request to come, and again for the answer to be taken."""
MAX_CONNECTIONS = 64
"""At once; one more is closed without a word."""
PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]
"""Exact path -> the page, made anew for each request; quick, and never waiting for anything."""


class HttpServer:
    """Serves `pages` on a listening socket until cancelled."""

    def __init__(
        self,
        pages: Pages,
        *,
        patience: float = REQUEST_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._pages, self._patience, self._most = pages, patience, max_connections
        self._open = 0

    async def serve(self, sock: socket.socket) -> None:
        """Takes over the socket."""
        server = await asyncio.start_server(self._connected, sock=sock, limit=MAX_REQUEST)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= self._most:
                await self._converse(reader, writer)
        except (OSError, TimeoutError):
            pass  # gone, or too slow to take its answer
        finally:
            self._open -= 1
            writer.transport.abort()  # what was not taken in time is not kept

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = b"GET"
        try:
            async with asyncio.timeout(self._patience):
                head = await reader.readuntil(b"\r\n\r\n")
            method, page = self._answer(head)
        except TimeoutError:
            page = Page(408, b"too slow\n")
        except asyncio.LimitOverrunError:
            page = Page(431, b"too long\n")
        except asyncio.IncompleteReadError:
            return
        async with asyncio.timeout(self._patience):
            writer.write(_head(page) + (page.body if method != b"HEAD" else b""))
            await writer.drain()
            writer.write_eof()
            await _drained(reader)

    def _answer(self, head: bytes) -> tuple[bytes, Page]:
        """request-line = method SP request-target SP HTTP-version (RFC 9112 3); the fields do not
        matter."""
        parts = head.partition(b"\r\n")[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return b"GET", Page(400, b"not understood\n")
        method, target, _ = parts
        if method not in (b"GET", b"HEAD"):
            return method, Page(405, b"only GET\n")
        make = self._pages.get(target.partition(b"?")[0].decode("latin-1"))
        if make is None:
            return method, Page(404, b"there is no such page\n")
        try:
            return method, make()
        except Exception:
            return method, Page(500, b"the page could not be made\n")


def _head(page: Page) -> bytes:
    fields = {
        "Content-Type": page.content_type,
        "Content-Length": str(len(page.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    } | ({"Allow": "GET, HEAD"} if page.status == 405 else {})
    lines = [
        f"HTTP/1.1 {page.status} {PHRASES[page.status]}",
        *(f"{name}: {value}" for name, value in fields.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


async def _drained(reader: asyncio.StreamReader) -> None:
    """Wait for the other side to close, so that closing first does not take the answer from it;
    what it still sends is thrown away."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass
