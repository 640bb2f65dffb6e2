"""What an operator's tests stand on: a service as a process, the metrics that it exports, and carectl as a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from shared.kit.testing.tokens import TestIssuer

SECONDS = 60.0

Point = tuple[str, Mapping[str, str], float]
"""The name of a gauge or a sum, the attributes of one of its points, and its value."""


class Outside:
    """The issuer of tokens and the collector of metrics, on one port of this machine."""

    def __init__(self) -> None:
        self.issuer = TestIssuer()
        self.exports: list[list[Point]] = []
        self._arrived = threading.Condition()
        outside = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(json.dumps(outside.issuer.jwks).encode(), "application/json")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/metrics":
                    outside._take(body)
                self._answer(b"", "application/x-protobuf")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where both are."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, body: bytes) -> None:
        request = ExportMetricsServiceRequest.FromString(body)
        found: list[Point] = []
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in (*metric.gauge.data_points, *metric.sum.data_points):
                        about = {each.key: each.value.string_value for each in point.attributes}
                        found.append((metric.name, about, point.as_double or float(point.as_int)))
        with self._arrived:
            self.exports.append(found)
            self._arrived.notify_all()

    async def until(self, met: Callable[[list[Point]], bool]) -> list[Point]:
        """Return an export that comes from now on and is as asked for."""

        def wait() -> list[Point]:
            with self._arrived:
                begin = len(self.exports)

                def found() -> list[Point] | None:
                    return next((export for export in self.exports[begin:] if met(export)), None)

                if not self._arrived.wait_for(lambda: found() is not None, SECONDS):
                    raise TimeoutError(f"no export was as asked for; the last: {self.exports[-1:]}")
                export = found()
                assert export is not None
                return export

        return await asyncio.to_thread(wait)

    def close(self) -> None:
        """Be gone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def outside() -> Iterator[Outside]:
    """Both, while the block lasts."""
    made = Outside()
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def process(module: str, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """A service's process, from when it says that it has started until it has stopped in good order."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, "all"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1024 * 1024,
    )
    assert running.stdout is not None
    said: list[str] = []

    async def started() -> None:
        async for line in running.stdout or ():
            said.append(line.decode(errors="replace"))
            if '"event": "started"' in said[-1]:
                return
        raise AssertionError("it ended before it had started:\n" + "".join(said))

    async def listen() -> None:
        async for line in running.stdout or ():
            said.append(line.decode(errors="replace"))

    await asyncio.wait_for(started(), SECONDS)
    listening = asyncio.ensure_future(listen())
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(running.wait(), SECONDS)
        except TimeoutError:
            running.kill()
        await listening
        print("".join(said))
    assert running.returncode == 0


@dataclass(frozen=True)
class Carectl:
    """The command, as an operator gives it."""

    environment: Mapping[str, str]

    async def __call__(self, *words: str) -> tuple[int, str]:
        """Its exit status, and all that it says."""
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "deploy.carectl.main", *words),
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(running.communicate(), SECONDS)
        assert running.returncode is not None
        return running.returncode, said.decode()

    async def told(self, *words: str, expect: int = 0) -> Any:
        """What it says as JSON."""
        status, said = await self(*words, "--json")
        assert status == expect, said
        return json.loads(said)
