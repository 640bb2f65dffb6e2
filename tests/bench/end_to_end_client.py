"""What the load comes from: HTTP over kept connections, as little CPU as can be, since it shares the machine."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.bench.children import Broke, moment

_AGAIN = frozenset({429, 503})


class Door:
    """One service's HTTP door. A refusal for overload is asked again when it says; ``refused`` counts them."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._token = token
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self.refused = 0

    async def ask(self, method: str, path: str, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Ask until it is taken. Raises Broke for an answer that says the request is wrong."""
        content = json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\nauthorization: Bearer {self._token}\r\n"
            f"idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        while True:
            status, headers, answer = await self._exchange(head.encode() + content)
            if status not in _AGAIN:
                break
            self.refused += 1
            await moment(asyncio.get_running_loop().time() + float(headers.get("retry-after", "1")))
        if not 200 <= status < 300:
            raise Broke(f"{method} {path}: {status} {answer.decode(errors='replace')[:300]}")
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        while True:
            kept = bool(self._idle)
            reader, writer = self._idle.pop() if kept else await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, *lines = head.split("\r\n")
                headers = {n.lower(): value for n, _, value in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                if not kept:
                    raise
                continue  # the server closed it while it was idle; requests carry keys, so asking again is safe
            if headers.get("connection", "").lower() == "close":
                writer.close()
            else:
                self._idle.append((reader, writer))
            return int(status.split(" ", 2)[1]), headers, body

    def close(self) -> None:
        """Let go of the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()
