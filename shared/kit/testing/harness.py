"""One service around an in-memory store and bus, with its real API: for tests of what it does as a whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

import httpx

from shared.contracts.base import Event
from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.chassis import Chassis
from shared.kit.clock import FrozenClock
from shared.kit.document import Document, derived_id
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.repository import Entry
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer

D = TypeVar("D", bound=Document)
S = TypeVar("S", bound=KitSettings)

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
PACE = 0.1
"""Seconds that ``settle`` lets pass at a time while whoever is to be called may not be called yet."""


class Harness:
    """A service under test. ``await settle()`` runs everything that is due now, to the end; time moves only by
    hand, and on to when whoever is to be called may be."""

    def __init__(
        self,
        settings: type[S],
        build: Callable[[S, httpx.AsyncClient], Service],
        *,
        http: httpx.AsyncClient | None = None,
        at: datetime = START,
        telemetry: Telemetry | None = None,
        **configured: Any,
    ) -> None:
        self.issuer = TestIssuer()
        self.clock = FrozenClock(at)
        self.broker = MemoryBroker(now=self.clock.real)
        self.store = MemoryStore()
        self._numbers = count(1)
        defaults = {
            "jwks_url": JWKS_URL,
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "sweep_after_seconds": 0.0,
        }
        self.settings = settings(**{**defaults, **configured})
        outside = http or httpx.AsyncClient(transport=self.issuer.transport())
        self.chassis = Chassis(
            build(self.settings, outside),
            self.settings,
            store=self.store,
            bus=MemoryBus(self.broker, running=False),
            clock=self.clock,
            http=httpx.AsyncClient(transport=self.issuer.transport()),
            telemetry=telemetry or Telemetry.quiet(),
            ids=lambda: f"worker-{next(self._numbers)}",
        )
        self._started = False

    async def start(self) -> Harness:
        """Join the groups and take the leases; tests may skip it, ``settle`` does it."""
        if not self._started:
            self._started = True
            await self.chassis.prepare()
            for reader in self.chassis.readers:
                self.chassis.bus.subscribe(reader.group, reader.topics, reader.handle)
            await self.chassis.bus.start()
        for worker in self.chassis.workers.values():
            # Time moves by hand: a lease that may still be worked under is as good as a new one.
            if worker.leases.taking_over or not worker.leases.may_call():
                await worker.leases.renew()
        return self

    def client(self, *roles: Role, subject: str = "tester") -> httpx.AsyncClient:
        """A client of the API with a token of these roles."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.chassis.app),
            base_url="http://service.test",
            headers={"Authorization": f"Bearer {self.issuer.token(*roles, subject=subject)}"},
        )

    def key(self) -> dict[str, str]:
        """A header with an idempotency key that was not used before."""
        return {"Idempotency-Key": f"key-{next(self._numbers)}"}

    async def settle(self) -> None:
        """Publish, react and do due work until nothing is left to do at this time."""
        await self.start()
        assert isinstance(self.chassis.bus, MemoryBus)
        while True:
            did = await self.chassis.publisher.flush()
            for group in self.chassis.bus.groups:
                did += await self.chassis.bus.step(group)
            for worker in self.chassis.workers.values():
                did += await worker.work()
                did += worker.busy
                await worker.drain()
            if did or self.chassis.publisher.waiting:
                continue
            if not any(worker.held_back for worker in self.chassis.workers.values()):
                return
            self.clock.pass_(PACE)
            await self.start()

    async def advance(self) -> datetime | None:
        """Move time on to the next due time and settle; None where nothing is due any more."""
        due = (await self.chassis.pulse())["next_due"]
        if due is None:
            return None
        at = datetime.fromisoformat(due)
        if at > self.clock.now():
            self.clock.pass_((at - self.clock.now()).total_seconds())
        await self.settle()
        return at

    async def arrive(self, event: Event, subject: str, sequence: int, *, service: str = "elsewhere") -> None:
        """Put another service's event on its topic, as that service would publish it."""
        entry = Entry(
            sequence,
            derived_id("event", subject, str(sequence)),
            event.type,
            event.topic,
            self.clock.now(),
            event.model_dump_json(exclude_none=True),
            None,
        )
        self.broker.append(message_of(service, subject, entry))

    async def stored(self, document: type[D], id: str) -> D | None:
        """A document as it is stored now."""
        return (await self.chassis.repository.load(document, [id]))[id].document

    async def all(self, document: type[D]) -> list[D]:
        """All documents of a type."""
        return await self.chassis.repository.find(document, {}, limit=100_000)

    def published(self, topic: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """The (type, headers and data) of everything on the topics, in no order between keys."""
        found = []
        for name, partitions in self.broker.topics.items():
            if topic is not None and name != topic:
                continue
            for record in (record for log in partitions for record in log):
                headers = {key: value.decode() for key, value in record.headers}
                found.append((headers["ce_type"], {"headers": headers, "data": record.value}))
        return found
