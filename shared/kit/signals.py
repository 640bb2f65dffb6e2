"""How a service stands, in figures: lag, outbox age, oldest due, leases, parked keys, breakers. Computed here alone.

Metrics and the operators' routes show the same ``Snapshot``. What a process knows of itself (``Here``) costs nothing;
what waits in the store (``Stored``) costs it a few bounded queries by an index, and one process of a service is enough
to make them: the one that has the first slot of its parked keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from shared.kit import metrics
from shared.kit.bus.port import Bus
from shared.kit.clock import Clock
from shared.kit.document import Document, due_field, queue_key
from shared.kit.duework import DueWorker
from shared.kit.horizon import Horizon, Look
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.metrics import Attributes, Metric
from shared.kit.pacing import Breaker, Standing
from shared.kit.parking import Parked, ParkedState
from shared.kit.store.port import Store, StoreUnavailable
from shared.kit.telemetry import log, where_raised

MOST_PARKED = 1000
"""So many parked keys are counted; where there are more, it does not matter how many."""


_STALE = 3
"""A look that is so many intervals old is shown no more: whoever made it hangs."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a consumer group of this process is behind on a topic: records to be committed, age of the oldest."""

    group: str
    topic: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Queue:
    """A due queue as this process works it off: slots leased to it, and documents in work."""

    name: str
    held: int
    taking_over: bool
    busy: int


@dataclass(frozen=True, slots=True)
class Callee:
    """Somebody outside, as this process calls them in a queue: the worst of their shares' breakers, budgets summed."""

    queue: str
    whom: str
    breaker: Breaker
    budget: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class Here:
    """What a process knows of itself. ``publishing`` are documents whose events it is sending."""

    service: str
    role: str
    worker: str
    at: datetime
    readings: tuple[Reading, ...]
    queues: tuple[Queue, ...]
    callees: tuple[Callee, ...]
    publishing: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What waits in the service's store, whichever process it is for.

    ``outbox``: by collection, how many seconds its oldest unsent event has waited; 0 where none does. ``due``: by due
    queue, how many seconds its oldest due document is overdue. ``parked``: by consumer group, how many keys wait.
    ``slots``: by due queue, how many slots each worker has, as the lease table says.
    """

    at: datetime
    outbox: Mapping[str, float]
    due: Mapping[str, float]
    parked: Mapping[str, int]
    slots: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both; ``stored`` is None where it was not asked for, or the store did not answer.

    ``missing`` is what keeps this process from its work; nothing where it is ready.
    """

    here: Here
    stored: Stored | None = None
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """In types that JSON has; times in ISO 8601."""
        found = asdict(self)
        for part in (found["here"], found["stored"]):
            if part is not None:
                part["at"] = part["at"].isoformat()
        return found


class Signals:
    """The figures of one process. ``latest`` is what the last look of ``run`` found."""

    def __init__(
        self,
        service: str,
        role: str,
        worker: str,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        documents: Sequence[type[Document]],
        workers: Mapping[str, DueWorker],
        publishing: Callable[[], int],
        ready: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self.latest: Snapshot | None = None
        self._service = service
        self._role = role
        self._worker = worker
        self._store = store
        self._bus = bus
        self._clock = clock
        self._documents: tuple[type[Document], ...] = (*documents, Parked)
        self._workers = workers
        self._publishing = publishing
        self._ready = ready
        self._every = float("inf")
        self._horizons: dict[tuple[str, str], Horizon] = {}

    def here(self) -> Here:
        """What this process knows of itself."""
        return Here(
            self._service,
            self._role,
            self._worker,
            self._clock.real(),
            tuple(self._readings()),
            tuple(
                Queue(worker.queue, worker.leases.held, worker.leases.taking_over, worker.busy)
                for worker in self._workers.values()
            ),
            tuple(self._callees()),
            self._publishing(),
        )

    async def stored(self) -> Stored:
        """What waits in the store. Raises StoreUnavailable."""
        outbox: dict[str, float] = {}
        due: dict[str, float] = {}
        for document in self._documents:
            outbox[document.collection] = await self._oldest(document.collection, "unsent", self._clock.real())
            for queue in document.all_queues():
                name = f"{self._service}.{queue_key(document.collection, queue)}"
                due[name] = await self._oldest(document.collection, due_field(queue), self._clock.now())
        waiting = {"state": {"$in": [ParkedState.PARKED.value, ParkedState.REPLAYING.value]}}
        parked = await self._store.find(Parked.collection, waiting, limit=MOST_PARKED, fields=("group",))
        tables = await self._store.find(LEASES, {}, fields=("owners",))
        slots = {table["_id"]: {worker: len(own) for worker, own in table["owners"].items()} for table in tables}
        groups = Counter(each["group"] for each in parked)
        return Stored(self._clock.real(), outbox, due, dict(groups), slots)

    async def snapshot(self, *, stored: bool = True) -> Snapshot:
        """Everything as it is now. Raises StoreUnavailable where ``stored`` is asked for and cannot be had."""
        found = await self.stored() if stored else None
        return Snapshot(self.here(), found, tuple(await self._ready()))

    async def _oldest(self, collection: str, time: str, now: datetime) -> float:
        """How many seconds before ``now`` the earliest of an indexed time is; 0 where it is none, or later."""
        horizon = self._horizons.setdefault((collection, time), Horizon())
        look = Look(self._store, collection, time, now)
        found, _ = await horizon.first(look, None, {}, limit=1, enough=1, fields=(time,))
        return max(0.0, (now - found[0][time]).total_seconds()) if found else 0.0

    def _readings(self) -> Iterable[Reading]:
        now = self._clock.real()
        for lag in self._bus.lag():
            age = (now - lag.oldest).total_seconds() if lag.oldest is not None else 0.0
            yield Reading(lag.group, lag.topic, lag.records, max(0.0, age))

    def _callees(self) -> Iterable[Callee]:
        worst = list(Breaker)
        for worker in self._workers.values():
            by_name: dict[str, list[Standing]] = {}
            for standing in worker.standings:
                by_name.setdefault(standing.whom, []).append(standing)
            for whom, shares in by_name.items():
                yield Callee(
                    worker.queue,
                    whom,
                    max((share.breaker for share in shares), key=worst.index),
                    sum(share.budget for share in shares),
                    sum(share.in_flight for share in shares),
                )

    def observed(self) -> list[tuple[Metric, float, Attributes]]:
        """What the gauges of the catalogue show, of the latest look; nothing where that was long ago."""
        found = self.latest
        if found is None or (self._clock.real() - found.here.at).total_seconds() > _STALE * self._every:
            return []
        return [*_of_here(found), *(_of_store(found.stored) if found.stored is not None else ())]

    @property
    def watching(self) -> bool:
        """Whether looking into the store is this process's part: at most one process of a service holds a slot."""
        worker = self._workers.get(Parked.collection)
        return worker is not None and 0 in worker.leases.slots

    async def run(self, stopping: asyncio.Event, every: float) -> None:
        """Look every so many seconds until stopped, so that whoever reads ``latest`` costs nobody anything."""
        self._every = every
        while not stopping.is_set():
            try:
                self.latest = await self.snapshot(stored=self.watching)
            except StoreUnavailable:
                self.latest = Snapshot(self.here(), None, tuple(await self._ready()))
            except Exception as error:
                self.latest = None
                log.error("signals.failed", error=where_raised(error), exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), every)


def _of_here(found: Snapshot) -> Iterator[tuple[Metric, float, Attributes]]:
    here = found.here
    yield metrics.READY, 0.0 if found.missing else 1.0, {metrics.ROLE: here.role}
    yield metrics.PUBLISHING, here.publishing, {}
    for reading in here.readings:
        about: Attributes = {metrics.GROUP: reading.group, metrics.DESTINATION: reading.topic}
        yield metrics.LAG, reading.seconds, about
        yield metrics.LAG_MESSAGES, reading.records, about
    for queue in here.queues:
        yield metrics.LEASES, queue.held, {metrics.QUEUE: queue.name}
    for callee in here.callees:
        whom: Attributes = {metrics.QUEUE: callee.queue, metrics.CALLEE: callee.whom}
        yield metrics.BREAKER, list(Breaker).index(callee.breaker), whom
        yield metrics.BUDGET, callee.budget, whom
        yield metrics.IN_FLIGHT, callee.in_flight, whom


def _of_store(stored: Stored) -> Iterator[tuple[Metric, float, Attributes]]:
    for collection, seconds in stored.outbox.items():
        yield metrics.OUTBOX_AGE, seconds, {metrics.COLLECTION: collection}
    for queue, seconds in stored.due.items():
        yield metrics.DUE_AGE, seconds, {metrics.QUEUE: queue}
    for group, keys in stored.parked.items():
        yield metrics.PARKED_KEYS, keys, {metrics.GROUP: group}
