"""The counting gateway: a process that takes texts as the message gateway does, at a small part of what sending costs.

``python -m tests.bench.reminders_gateway PORT`` answers ``POST /sms`` with 202 and an id, the same for the same
``Idempotency-Key``, and keeps per key how often it came and when it first did. ``GET /wait?count=N&seconds=S`` answers
when N keys have come or S seconds are over, ``GET /taken`` tells all, ``POST /forget`` begins anew.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import httpx
import uvloop

from deploy.embedded.ports import LOOPBACK
from tests.bench.door import Door
from tests.bench.reminders_processes import Processes, Started

_KEY = re.compile(rb"\r\nidempotency-key: *([^\r]+)", re.IGNORECASE)
_FIELDS = ("to", "from", "body", "reference", "callback_url")
_GRACE = 5.0
"""Seconds that an answer may take beyond what was asked."""


@dataclass(slots=True)
class Taken:
    """One idempotency key: how often it came, and when first, in seconds since 1970."""

    count: int
    at: float


class Book:
    """What has come, and who waits for how much of it."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.refused = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def take(self, key: str, body: bytes) -> tuple[bytes, bytes]:
        """Count one request; returns status and answer. What a text must have is looked for in every one."""
        now = time.time()
        try:
            message = json.loads(body)
        except ValueError:
            message = None
        if not key or not isinstance(message, dict) or any(not message.get(name) for name in _FIELDS):
            self.refused += 1
            return b"400 Bad Request", b'{"code":"invalid-request"}'
        known = self.taken.get(key)
        if known is not None:
            known.count += 1
        else:
            self.taken[key] = Taken(1, now)
            if self._waiting and len(self.taken) >= self._waiting[0][0]:
                self._waiting.pop(0)[1].set()
        return b"202 Accepted", b'{"id":"%b"}' % key.encode()

    async def until(self, count: int, seconds: float) -> None:
        """Return when so many keys have come, or after so many seconds."""
        if len(self.taken) >= count:
            return
        waiter = (count, asyncio.Event())
        self._waiting = sorted([*self._waiting, waiter], key=lambda entry: entry[0])
        try:
            await asyncio.wait_for(waiter[1].wait(), seconds)
        except TimeoutError:
            self._waiting.remove(waiter)


class GatewayDoor(Door):
    """One sender's connection to the gateway."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book
        self._asked: asyncio.Task[None] | None = None

    def request(self, head: bytes, body: bytes) -> None:
        """A text, or what the scenario wants to know."""
        if head.startswith(b"POST /sms "):
            key = _KEY.search(head)
            self.answer(*self._book.take(key[1].decode("latin-1") if key else "", body))
            return
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self._asked = asyncio.ensure_future(self._control(method, target))

    async def _control(self, method: str, target: str) -> None:
        path, _, query = target.partition("?")
        if method == "GET" and path == "/wait":
            asked = parse_qs(query)
            await self._book.until(int(asked["count"][0]), float(asked["seconds"][0]))
            self.answer(b"200 OK", json.dumps({"taken": len(self._book.taken)}).encode())
        elif method == "GET" and path == "/taken":
            taken = {key: (each.count, each.at) for key, each in self._book.taken.items()}
            self.answer(b"200 OK", json.dumps({"refused": self._book.refused, "taken": taken}).encode())
        elif method == "POST" and path == "/forget":
            self._book.taken.clear()
            self._book.refused = 0
            self.answer(b"200 OK", b"{}")
        else:
            self.answer(b"404 Not Found", b"{}")


class Gateway:
    """The counting gateway as a scenario sees it: its address, its process, and what it has taken."""

    def __init__(self, started: Started, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self.pid = started.pid
        self._http = http

    @classmethod
    async def start(cls, processes: Processes, http: httpx.AsyncClient) -> Gateway:
        """A gateway of its own process, ready."""
        port = processes.port()
        started = processes.start("gateway", [sys.executable, "-m", "tests.bench.reminders_gateway", str(port)])
        await processes.accepting(started, port)
        return cls(started, f"http://{LOOPBACK}:{port}", http)

    async def wait(self, count: int, seconds: float) -> int:
        """Wait until so many keys have come, at most so many seconds; returns how many have."""
        asked = {"count": count, "seconds": max(seconds, 0.0)}
        answer = await self._http.get(f"{self.url}/wait", params=asked, timeout=seconds + _GRACE)
        return int(answer.json()["taken"])

    async def taken(self) -> Mapping[str, Taken]:
        """Every key that has come. Raises RuntimeError where a request was refused: then somebody sends nonsense."""
        answer = (await self._http.get(f"{self.url}/taken", timeout=60.0)).json()
        if answer["refused"]:
            raise RuntimeError(f"the gateway refused {answer['refused']} requests")
        return {key: Taken(count, at) for key, (count, at) in answer["taken"].items()}

    async def forget(self) -> None:
        """Begin anew."""
        (await self._http.post(f"{self.url}/forget")).raise_for_status()


async def serve(port: int) -> None:
    """Take texts until the process is ended."""
    book = Book()
    server = await asyncio.get_running_loop().create_server(lambda: GatewayDoor(book), LOOPBACK, port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
