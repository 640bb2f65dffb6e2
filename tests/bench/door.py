"""One connection of a counting server: as much of HTTP/1.1 as a benchmark's client speaks, as cheaply as can be."""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Door(asyncio.Protocol):
    """Keep-alive, bodies with a Content-Length, one connection's requests in turn. ``media`` is what it answers in."""

    media = b"application/json"

    def __init__(self) -> None:
        self._buffer = b""
        self.transport: asyncio.WriteTransport | None = None

    @abstractmethod
    def request(self, head: bytes, body: bytes) -> None:
        """Answer one whole request by ``answer``, at once or later; ``head`` ends with its last line's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connected."""
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one by what it does, not by its class

    def data_received(self, data: bytes) -> None:
        """Take every request that is whole."""
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(buffer, 0, end + 2)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(buffer) < whole:
                break
            self.request(buffer[: end + 2], buffer[end + 4 : whole])
            buffer = buffer[whole:]
        self._buffer = buffer

    def answer(self, status: bytes, body: bytes) -> None:
        """Send an answer; ``status`` is code and reason."""
        if self.transport is not None and not self.transport.is_closing():
            head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, self.media, len(body))
            self.transport.write(head + body)
