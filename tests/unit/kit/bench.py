"""Small workbenches for the kit's parts: one reactor, one repository, or several processes of one service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

import httpx

from shared.contracts.base import Event
from shared.kit.bus.envelope import message_of
from shared.kit.bus.port import Record
from shared.kit.chassis import Chassis
from shared.kit.clock import FrozenClock
from shared.kit.document import Document, derived_id
from shared.kit.engine import Reactor
from shared.kit.parking import Parked, Parking, parked_id
from shared.kit.reactions import Reactions
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import Found, Outcome, StoreUnavailable
from shared.kit.store.repository import Entry, Repository, Unsent
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer

D = TypeVar("D", bound=Document)

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LEASE = 10.0

_offsets = count()


def record_of(event: Event, subject: str, sequence: int, *, trace: str | None = None, **replaced: Any) -> Record:
    """An event as it comes from its topic; ``replaced`` replaces fields of the record."""
    id = derived_id("event", subject, str(sequence))
    entry = Entry(sequence, id, event.type, event.topic, START, event.model_dump_json(exclude_none=True), trace)
    message = message_of("elsewhere", subject, entry)
    fields: dict[str, Any] = {
        "topic": event.topic,
        "partition": 0,
        "offset": next(_offsets),
        "key": subject.encode(),
        "value": message.value,
        "headers": message.headers,
    }
    return Record(**{**fields, **replaced})


class Gates:
    """Counts a store's calls, and lets a test do something before one of them, once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._once: dict[str, list[Callable[[], Awaitable[None]]]] = {}

    async def __call__(self, name: str) -> None:
        self.counts[name] += 1
        if self._once.get(name):
            await self._once[name].pop(0)()

    def once(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        """Do this at the next call of this name; several are done at one call each."""
        self._once.setdefault(name, []).append(do)

    def clear(self) -> None:
        """Let everything pass."""
        self._once.clear()

    def fail(self, name: str, times: int = 1) -> None:
        """Have the next calls fail as if the store did not answer."""
        for _ in range(times):
            self.once(name, unavailable)


async def unavailable() -> None:
    raise StoreUnavailable("nobody answers")


class Bench:
    """A repository on a store in memory, with everything it published offered to ``offered``."""

    def __init__(self, telemetry: Telemetry | None = None, max_event_bytes: int = 900_000) -> None:
        self.clock = FrozenClock(START)
        self.gates = Gates()
        self.server = MemoryStore()
        self.store = self.server.seen_by(self.gates)
        self.offered: list[Unsent] = []
        self.telemetry = telemetry or Telemetry.quiet()
        self.repository = Repository(self.store, self.clock, self.offered.append, max_event_bytes=max_event_bytes)
        self.parking = Parking(self.repository)

    def reactor(self, table: Reactions) -> Reactor:
        """A consumer group on this bench."""
        return Reactor("toy", table, self.repository, self.parking, self.telemetry)

    async def put(self, *documents: Document) -> None:
        """Store documents as they are."""
        for document in documents:
            held = (await self.repository.load(type(document), [document.id]))[document.id]
            held.document = document
            held.take_events(None)
            write = self.repository.stage(held)
            assert write is not None
            assert await self.repository.write(type(document), [(held, write)]) == [Outcome.WON]

    async def raw(self, document: type[Document], id: str) -> Found | None:
        """A document as the server has it, past every gate."""
        found = await self.server.load(document.collection, [id])
        return found[0] if found else None

    async def get(self, document: type[D], id: str) -> D:
        """A document that must be there."""
        found = (await self.repository.load(document, [id]))[id].document
        assert found is not None
        return found

    async def parked(self, group: str, key: str) -> Parked | None:
        """What is parked under a key."""
        id = parked_id(group, key)
        return (await self.repository.load(Parked, [id]))[id].document


class Town:
    """Several processes of one service on one store and one broker; they work when a test says so."""

    def __init__(self) -> None:
        self.clock = FrozenClock(START)
        self.server = MemoryStore()
        self.broker = MemoryBroker()
        self.issuer = TestIssuer()

    async def process(self, name: str, service: Service, **configured: Any) -> tuple[Chassis, Gates]:
        """A new process. It holds no lease yet."""
        gates = Gates()
        settings = KitSettings(
            **{
                "jwks_url": JWKS_URL,
                "jwt_issuer": ISSUER,
                "jwt_audience": AUDIENCE,
                "sweep_after_seconds": 0.0,
                "lease_seconds": LEASE,
                **configured,
            }
        )
        chassis = Chassis(
            service,
            settings,
            store=self.server.seen_by(gates),
            bus=MemoryBus(self.broker, running=False),
            clock=self.clock,
            http=httpx.AsyncClient(transport=self.issuer.transport()),
            telemetry=Telemetry.quiet(),
            ids=lambda: name,
        )
        await chassis.prepare()
        return chassis, gates


async def until(met: Callable[[], bool], turns: int = 200) -> None:
    """Let other tasks have their turns until ``met``."""
    for _ in range(turns):
        if met():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")
