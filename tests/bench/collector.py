"""Where the spans of a process under measurement go: the least of an OpenTelemetry collector, which only counts."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class Collector:
    """Keeps what is posted to it; parses only when asked, so that it takes next to nothing from what is measured."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._posted: list[tuple[bytes, bool]] = []

    def spans(self) -> int:
        """How many spans have come since the last call."""
        posted, self._posted = self._posted, []
        count = 0
        for body, packed in posted:
            request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if packed else body)
            count += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the posts of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                if head.startswith("post /v1/traces"):
                    self._posted.append((body, fields.get("content-encoding") == "gzip"))
                writer.write(_ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector on a free port of this machine."""
    collecting = Collector()
    server = await asyncio.start_server(collecting.serve, "127.0.0.1", 0)
    collecting.endpoint = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield collecting
    finally:
        server.close()
