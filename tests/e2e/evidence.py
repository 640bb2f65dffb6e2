"""What a running stack leaves behind, read past its services: stores, topics, ledgers, spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TypeVar

import httpx
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from deploy.demo.api import Api
from deploy.demo.conductor import Conductor
from deploy.demo.world import CLINIC_DAYS, furnish
from deploy.embedded import Stack
from deploy.simulators.ledger import GatewayLedger, PayerLedger
from services.directory import service as directory
from services.intake import service as intake
from services.notifications import service as notifications
from services.notifications.model.delivery import Delivery
from services.prior_authorization import service as prior_authorization
from services.prior_authorization.model.authorization import Authorization
from services.referrals import service as referrals
from services.referrals.model import Referral
from services.scheduling import service as scheduling
from services.scheduling.model.appointment import Appointment
from services.scheduling.model.calendar import Calendar
from services.webhooks import service as webhooks
from shared.kit.chassis import published_topics
from shared.kit.clock import OffsetClock
from shared.kit.document import Document
from shared.kit.parking import Parked
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import EPOCH, Found
from shared.kit.store.repository import Repository
from tests.checks.care import Held
from tests.checks.events import Published

D = TypeVar("D", bound=Document)

PATIENCE = 120.0
"""Real seconds that a service may be away, or something in flight, before a play is given up."""

WIRING: Mapping[str, ModuleType] = {
    "intake": intake,
    "referrals": referrals,
    "prior_authorization": prior_authorization,
    "scheduling": scheduling,
    "notifications": notifications,
    "directory": directory,
    "webhooks": webhooks,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record on a topic."""

    published: Published
    type: str
    trace_id: str | None


@asynccontextmanager
async def outside(stack: Stack) -> AsyncIterator[tuple[Api, Conductor]]:
    """A client of the public APIs, and the conductor of domain time."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        api = Api(stack.addresses, stack.token, http, patience=PATIENCE)
        yield api, Conductor(api, OffsetClock(stack.clock_offset_file), patience=PATIENCE)


async def furnish_anew(stack: Stack, api: Api, conductor: Conductor, run: str, *, slots_a_day: int = 6) -> None:
    """Publish calendars once those of other tests are past: a slot left free today leaves no time for reminders."""
    clock = OffsetClock(stack.clock_offset_file)
    clock.advance_to(clock.now() + timedelta(days=CLINIC_DAYS[-1] + 1))
    await conductor.settle()
    await furnish(api, clock.now(), run, slots_a_day=slots_a_day)


class Books:
    """The services' own databases, the payer's and the gateway's ledgers."""

    def __init__(self, stack: Stack) -> None:
        self.clock = OffsetClock(stack.clock_offset_file)
        self._stack = stack
        self._stores = {name: MongoStore(stack.mongodb_uri, name) for name in WIRING}

    async def close(self) -> None:
        """Let go of the connections."""
        for store in self._stores.values():
            await store.close()

    async def all(self, service: str, document: type[D]) -> list[D]:
        """All documents of a type."""
        return await Repository(self._stores[service], self.clock, lambda unsent: None).find(
            document, {}, limit=1_000_000
        )

    async def stored(self, service: str) -> dict[str, dict[str, Found]]:
        """All documents of a service as they are stored, by collection and id."""
        kinds: list[type[Document]] = [*documents_of(service), Parked]
        found = await asyncio.gather(
            *(self._stores[service].find(kind.collection, {}, limit=1_000_000) for kind in kinds)
        )
        return {kind.collection: {raw["_id"]: raw for raw in raws} for kind, raws in zip(kinds, found, strict=True)}

    async def unsent(self) -> int:
        """How many documents of all services have events that Kafka has not."""
        waiting = {"unsent": {"$gte": EPOCH}}
        kinds = [(name, kind.collection) for name in WIRING for kind in (*documents_of(name), Parked)]
        return sum(await asyncio.gather(*(self._stores[name].count(kind, waiting) for name, kind in kinds)))

    async def held(self) -> Held:
        """What the services hold of patients' care."""
        return Held(
            parked={service: await self.all(service, Parked) for service in WIRING},
            referrals=await self.all("referrals", Referral),
            appointments=await self.all("scheduling", Appointment),
            calendars=await self.all("scheduling", Calendar),
            authorizations=await self.all("prior_authorization", Authorization),
            deliveries=await self.all("notifications", Delivery),
        )

    async def ledgers(self) -> tuple[PayerLedger, GatewayLedger]:
        """What the payer and the gateway say that they took."""
        async with httpx.AsyncClient(trust_env=False) as http:
            payer, gateway = [await http.get(f"{self._stack.url(name)}/ledger") for name in ("payer", "gateway")]
        return PayerLedger.model_validate(payer.json()), GatewayLedger.model_validate(gateway.json())


def documents_of(service: str) -> tuple[type[Document], ...]:
    """The document types of a service, from its own wiring."""
    nowhere = "http://nowhere.test"
    settings = WIRING[service].Settings(payer_url=nowhere, gateway_url=nowhere, public_url=nowhere)
    documents: tuple[type[Document], ...] = WIRING[service].build(settings, httpx.AsyncClient()).documents
    return documents


@asynccontextmanager
async def consuming(stack: Stack, names: Sequence[str]) -> AsyncIterator[AsyncIterator[list[ConsumerRecord]]]:
    """Batches of all records of these topics from their start, to where nothing more comes."""
    async with AIOKafkaConsumer(
        *names, bootstrap_servers=stack.broker_address, enable_auto_commit=False, auto_offset_reset="earliest"
    ) as consumer:

        async def batches() -> AsyncIterator[list[ConsumerRecord]]:
            # The broker's end offsets run one batch behind, so the end is where nothing more comes.
            while found := await consumer.getmany(timeout_ms=3000):
                for records in found.values():
                    yield records

        yield batches()


async def topics(stack: Stack) -> dict[str, list[Record]]:
    """Every record of every topic from its start, by topic, each partition's in its order."""
    names = [name for service in WIRING for name in published_topics(service)]
    found: dict[str, list[Record]] = {name: [] for name in names}
    async with consuming(stack, names) as batches:
        async for records in batches:
            for record in records:
                found[record.topic].append(_read(record.topic, record.headers))
    return found


def _read(topic: str, headers: Sequence[tuple[str, bytes]]) -> Record:
    named = {name: value.decode() for name, value in headers}
    parent = named.get("traceparent")
    return Record(Published.read(topic, headers), named["ce_type"], parent.split("-")[1] if parent else None)
