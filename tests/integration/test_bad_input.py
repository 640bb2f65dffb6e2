"""Bad input on real wires: a server on a socket, and a service's own process on a real broker and store.

That every route of every service refuses it is shown in ``tests/unit/api``; here is what memory cannot show.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn

from deploy.embedded.ports import free_ports
from services.referrals.model import Person
from services.referrals.service import Settings, build
from shared.contracts.intake import PatientRegistered
from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Message
from shared.kit.clock import SystemClock
from shared.kit.document import derived_id
from shared.kit.run import uvicorn_config
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.repository import Entry
from shared.kit.testing.harness import Harness
from tests.unit.api.doors import stored

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
PATIENCE = 60


# -- a server on a socket -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A service that listens."""

    harness: Harness
    port: int

    def headers(self, **more: str) -> dict[str, str]:
        """What every good request has."""
        token = self.harness.issuer.token(Role.CLINICIAN)
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **self.harness.key(), **more}

    async def raw(self, *pieces: bytes) -> bytes:
        """Write these bytes to a connection of their own; everything that comes back until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # Refused and closed before it was through: the answer is there all the same.
        try:
            return await asyncio.wait_for(reader.read(), PATIENCE)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def head(self, method: str = "POST", path: str = "/referrals", **more: str) -> bytes:
        """The head of a request that asks for the connection to be closed after it."""
        lines = {"Host": "service.test", "Connection": "close", **self.headers(**more)}
        return (f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n").encode()

    async def answers(self) -> bool:
        """Whether the next one is served: nothing blocks."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            body = {"patient_id": str(uuid4())}
            answer = await client.post("/referrals", json=body, headers=self.headers())
            return answer.status_code == 201


@asynccontextmanager
async def listening(**configured: Any) -> AsyncIterator[Served]:
    """Referrals on a free port, served as a process serves it."""
    harness = Harness(Settings, build, **configured)
    await harness.chassis.prepare()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # It listens from here on: nobody need wait for it.
        server = uvicorn.Server(uvicorn_config(harness.chassis.app, harness.settings))
        serving = asyncio.ensure_future(server._serve([listener]))
        yield Served(harness, listener.getsockname()[1])
        server.should_exit = True
        await serving


async def test_a_body_told_to_be_too_long_is_refused_without_being_waited_for() -> None:
    async with listening() as served:
        answer = await served.raw(served.head(**{"Content-Length": str(MIB + 1)}))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in answer
        assert await served.answers()


async def test_a_body_that_grows_too_long_in_chunks_is_refused() -> None:
    async with listening() as served:
        before = stored(served.harness.store)
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        answer = await served.raw(served.head(**{"Transfer-Encoding": "chunked"}), *[chunk] * 17, b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        assert stored(served.harness.store) == before
        assert await served.answers()


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\xff\xfe not HTTP at all\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /referrals HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}",
        b"POST /referrals HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /referrals HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["no HTTP", "a version never heard of", "no length", "two lengths", "no header", "an endless address"],
)
async def test_what_is_not_http_is_refused_and_the_next_one_is_served(request_: bytes) -> None:
    async with listening() as served:
        answer = await served.raw(request_)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
        assert b"Traceback" not in answer
        assert await served.answers()


async def test_a_body_that_never_ends_is_given_up_with_its_connection() -> None:
    """A client that goes away in the middle leaves nothing written and no place taken."""
    async with listening(max_requests=1) as served:
        before = stored(served.harness.store)
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(served.head(**{"Content-Length": "1000"}) + b'{"patient_id": ')
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while not await served.answers():
                continue  # 429: the one place is not free again yet.
        assert len(stored(served.harness.store)) == len(before) + 1


# -- a process on a broker and a store ------------------------------------------------------------------------------


@contextmanager
def referrals(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The service's own process."""
    command = [sys.executable, "-m", "services.referrals", "reactions"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def command(environment: dict[str, str], *arguments: str) -> list[dict[str, object]]:
    """What ``parked`` prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-m", "services.referrals", "parked", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def registered(subject: str, value: bytes | None = None) -> Message:
    """A patient's registration as intake publishes it, or with another value."""
    event = PatientRegistered(patient_id=subject, complete=True)
    at = SystemClock().now()
    entry = Entry(1, derived_id("e", subject), event.type, event.topic, at, event.model_dump_json(), None)
    message = message_of("intake", subject, entry)
    return message if value is None else Message(message.topic, message.key, value, message.headers)


async def test_bad_events_are_parked_by_the_process_shown_by_the_command_and_keep_nobody_waiting(
    broker_address: str, mongodb_uri: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    database = f"bad-input-{uuid4().hex[:8]}"
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": broker_address,
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": database,
        "HTTP_PORT": str(port),
    }
    bad = {str(uuid4()): value for value in (b"{ half", b"[]", b'{"patient_id": "x", "complete": "Quetzal"}')}
    strange, good = "Zanzibarra Quetzal", str(uuid4())
    bus = KafkaBus(broker_address, client_id="outsider", idempotence=False)
    store = MongoStore(mongodb_uri, database)
    await bus.ensure([PatientRegistered.topic])
    await bus.start()
    messages = [*(registered(key, value) for key, value in bad.items()), registered(strange, b"{}"), registered(good)]
    assert await bus.publish(messages) == [None] * len(messages)

    with referrals(environment):
        async with asyncio.timeout(PATIENCE):
            while not await store.load(Person.collection, [good]):
                await asyncio.to_thread(command, environment, "list")
        async with asyncio.timeout(PATIENCE):
            while len(listed := await asyncio.to_thread(command, environment, "list")) < len(bad) + 1:
                continue

    assert {one["key"] for one in listed} == {*bad, "(not an id)"}
    assert all("does not fit its schema" in str(one["reason"]) for one in listed)
    shown = json.dumps(listed)
    assert "Quetzal" not in shown
    assert "Zanzibarra" not in shown
    assert await store.load(Person.collection, list(bad)) == []
    await bus.stop()
    await store.close()
