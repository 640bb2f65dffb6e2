"""CareRelay's side: the store of notifications seeded through its models, dispatcher and senders in processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import islice
from typing import Any

import httpx

from deploy.embedded import Stack
from deploy.embedded.ports import LOOPBACK
from services.notifications.model.delivery import SEND, Delivery, DeliveryState
from services.notifications.model.recipient import Recipient
from services.notifications.model.stray import Stray
from services.notifications.model.visit import Visit
from shared.contracts.intake import Channel
from shared.contracts.notifications import DeliveryKind
from shared.kit.clock import SystemClock
from shared.kit.document import Document, due_field, slot_of
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import Outcome, Write
from shared.kit.store.repository import Held, Repository
from tests.bench.reminders_processes import Processes, Started
from tests.bench.reminders_sides import AHEAD, CLINIC, FROM, PHONE, Reminder

NAME = "CareRelay"
DISPATCHER, SENDER = "dispatcher", "sender-sms"
_DATABASE = "notifications"
_BATCH = 1000
_VISIT = timedelta(minutes=30)
_USEFUL = timedelta(days=1)

HOW = (
    "CareRelay: one dispatcher and one sender-sms as `python -m services.notifications` runs them, on real Kafka and "
    "the store with its journal synced; permitted hours all day and no limit on messages a second, as the peers have "
    "neither; 10% of traces sampled, exported nowhere."
)


def visit_of(reminder: Reminder) -> Visit:
    """The visit that a reminder is about."""
    return Visit(
        id=reminder.appointment_id,
        patient_id=reminder.patient_id,
        occurrence=1,
        start=reminder.start,
        end=reminder.start + _VISIT,
        timezone=reminder.timezone,
        pending=[reminder.id],
    )


def recipient_of(reminder: Reminder) -> Recipient:
    """The person it goes to."""
    return Recipient(
        id=reminder.patient_id,
        family="Synthetic",
        given=("Person",),
        mobile=reminder.to,
        language=reminder.language,
        timezone=reminder.timezone,
        channels=(Channel.SMS,),
    )


def delivery_of(reminder: Reminder) -> Delivery:
    """The reminder itself, planned, with its timer set."""
    delivery = Delivery(
        id=reminder.id,
        appointment_id=reminder.appointment_id,
        patient_id=reminder.patient_id,
        occurrence=1,
        kind=DeliveryKind.REMINDER,
        ahead_seconds=int(AHEAD.total_seconds()),
        planned_for=reminder.due,
        useful_until=reminder.due + _USEFUL,
        timezone=reminder.timezone,
    )
    delivery.wake(SEND, reminder.due)
    return delivery


def _never(unsent: object) -> None:
    raise AssertionError("what is seeded records no event")


class Ours:
    """The side; see ``reminders_sides.Side``. As many dispatchers and senders run as ``scale`` was last told."""

    name = NAME

    def __init__(
        self, stack: Stack, processes: Processes, environment: Mapping[str, str], http: httpx.AsyncClient
    ) -> None:
        self._store = MongoStore(stack.mongodb_uri, _DATABASE, timeout=60.0)
        self._repository = Repository(self._store, SystemClock(), _never)
        self._processes = processes
        self._environment = environment
        self._http = http
        self._roles: dict[str, list[Started]] = {DISPATCHER: [], SENDER: []}
        known = stack.processes()
        self.servers = [pid for name in ("broker", "store") if (pid := known[name].pid) is not None]

    @property
    def dispatchers(self) -> list[int]:
        """Dispatchers by process id."""
        return [started.pid for started in self._roles[DISPATCHER]]

    @property
    def senders(self) -> list[int]:
        """Senders by process id."""
        return [started.pid for started in self._roles[SENDER]]

    @property
    def workers(self) -> list[int]:
        """Both."""
        return self.dispatchers + self.senders

    async def scale(self, dispatchers: int, senders: int) -> None:
        """Start and stop processes until so many of each run; returns when the new are ready and the others gone."""
        fresh: list[tuple[Started, str]] = []
        for role, count in ((DISPATCHER, dispatchers), (SENDER, senders)):
            running = self._roles[role]
            going, running[count:] = running[count:], []
            await asyncio.gather(*(asyncio.to_thread(self._processes.stop, one) for one in going))
            while len(running) < count:
                one, url = self._begin(role)
                running.append(one)
                fresh.append((one, url))
        for one, url in fresh:
            await self._processes.ready(one, f"{url}/health/ready", self._http)

    async def beside(self, role: str) -> tuple[Started, str]:
        """One process of another role, ready, and its address."""
        one, url = self._begin(role)
        await self._processes.ready(one, f"{url}/health/ready", self._http)
        return one, url

    def _begin(self, role: str) -> tuple[Started, str]:
        port = self._processes.port()
        argv = [sys.executable, "-m", "services.notifications", role]
        one = self._processes.start(role, argv, environment={**self._environment, "HTTP_PORT": str(port)})
        return one, f"http://{LOOPBACK}:{port}"

    async def close(self) -> None:
        """Stop what runs, and let go of the store."""
        await self.scale(0, 0)
        await self._store.close()

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._repository.ensure((Visit, Recipient, Delivery, Stray))

    async def enqueue(self, reminders: Sequence[Reminder]) -> None:
        """Store persons, visits and planned deliveries."""
        await self._store_all(Recipient, map(recipient_of, reminders))
        await self._store_all(Visit, map(visit_of, reminders))
        await self._store_all(Delivery, map(delivery_of, reminders))

    async def pend(self, reminders: Sequence[Reminder]) -> None:
        """Store planned deliveries alone: one made by the model, the others after its pattern, which is faster."""
        if not reminders:
            return
        one, other = (self._write_of(Delivery, delivery_of(reminder)).set for reminder in (reminders[0], reminders[-1]))
        assert {**one, **_own_of(reminders[-1])} == other, "a planned delivery holds more of its own than is known here"
        remaining = iter(reminders)
        while batch := list(islice(remaining, _BATCH)):
            writes = [Write(reminder.id, None, {**one, **_own_of(reminder)}) for reminder in batch]
            outcomes = await self._store.write(Delivery.collection, writes)
            assert all(outcome is Outcome.WON for outcome in outcomes)

    def key(self, reminder: Reminder) -> str:
        """What the gateway deduplicates on."""
        return delivery_of(reminder).key(Channel.SMS)

    async def kept(self) -> int:
        """How many deliveries are accepted."""
        return (await self.states()).get(str(DeliveryState.ACCEPTED), 0)

    async def states(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        found = {}
        for state in sorted({*Delivery.transitions}):
            found[str(state)] = await self._store.count(Delivery.collection, {"state": state.value})
        return {state: count for state, count in found.items() if count}

    async def _store_all(self, kind: type[Document], documents: Iterable[Document]) -> None:
        for batch in _in_batches(documents):
            outcomes = await self._store.write(kind.collection, [self._write_of(kind, document) for document in batch])
            assert all(outcome is Outcome.WON for outcome in outcomes)

    def _write_of(self, kind: type[Document], document: Document) -> Write:
        held: Held[Any] = Held(kind, document.id, None, document)
        write = self._repository.stage(held)
        assert write is not None
        return write


def _own_of(reminder: Reminder) -> dict[str, Any]:
    """The stored fields in which planned deliveries differ."""
    return {
        "appointment_id": reminder.appointment_id,
        "patient_id": reminder.patient_id,
        "planned_for": reminder.due,
        "useful_until": reminder.due + _USEFUL,
        "timezone": reminder.timezone,
        "timers": {SEND: reminder.due},
        "slot": slot_of(reminder.patient_id),
        due_field(""): reminder.due,
    }


def _in_batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


@asynccontextmanager
async def running(
    stack: Stack,
    processes: Processes,
    gateway_url: str,
    http: httpx.AsyncClient,
    foundation: Mapping[str, str],
    *,
    dispatchers: int = 1,
    senders: int = 1,
) -> AsyncIterator[Ours]:
    """So many dispatchers and senders on a stack's broker and store, ready. ``foundation`` is what its foundation has
    services told; the rest of their environment is that of ``deploy.embedded.catalogue``."""
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.broker_address,
        "MONGODB_URI": stack.mongodb_uri,
        "MONGODB_DATABASE": _DATABASE,
        "HTTP_HOST": LOOPBACK,
        "GATEWAY_URL": gateway_url,
        "GATEWAY_NUMBER": FROM,
        "CLINIC_NAME": CLINIC,
        "CLINIC_PHONE": PHONE,
        "WINDOW_OPENS": "00:00:00",
        "WINDOW_CLOSES": "23:59:59.999999",
        "SENDS_PER_SECOND": "0",
        **foundation,
    }
    ours = Ours(stack, processes, environment, http)
    try:
        await ours.prepare()
        await ours.scale(dispatchers, senders)
        yield ours
    finally:
        await ours.close()
