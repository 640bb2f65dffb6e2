"""Makes a declared service run: its documents, reactors, due workers, publisher and HTTP door around one store and bus.

Nothing here knows a process or a signal; that is ``shared.kit.run``. A simulation drives the same parts step by step.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
from fastapi import FastAPI, Request

from shared.contracts.base import Event
from shared.kit.api import Call, Door, Gate, Reply, Routes, application
from shared.kit.auth import Role, Verifier
from shared.kit.bus.port import Bus, GoingBack
from shared.kit.bus.publisher import Publisher
from shared.kit.clock import Clock, Ids
from shared.kit.commands import Commands
from shared.kit.document import Document, due_field, queue_key
from shared.kit.duework import DueWorker
from shared.kit.engine import Reactor
from shared.kit.jobs import Jobs
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.leases import Leases
from shared.kit.operations import OPERATED
from shared.kit.parking import Parked, Parking, draining
from shared.kit.pausing import Pause, Pauses
from shared.kit.performing import Performer
from shared.kit.presence import EVERY, SOON, Presence
from shared.kit.presence import ensure as ensure_processes
from shared.kit.reading import Reader
from shared.kit.rewinding import Rewind, Rewinding
from shared.kit.service import ALL, Service
from shared.kit.settings import KitSettings
from shared.kit.signals import Signals
from shared.kit.store.port import EPOCH, Outcome, Store, StoreUnavailable
from shared.kit.store.repository import NewerShape, Repository, hold
from shared.kit.telemetry import Telemetry, log, where_raised

_BETWEEN_STEPS = 3.0
"""How much longer than a step of taking slots over lasted the next one waits, where work goes on meanwhile."""
_LAST_WORDS = 3.0
"""Seconds for what is still to be published when a process ends, and for its parting from the broker; what is not
published then is swept by another."""


def topics_of(events: Iterable[type[Event]]) -> tuple[str, ...]:
    """The topics of these events."""
    return tuple(sorted({event.topic for event in events}))


def published_topics(service: str) -> tuple[str, ...]:
    """The topics that a service publishes to."""
    return topics_of(published_events(service))


def published_events(service: str) -> tuple[type[Event], ...]:
    """The events that a service publishes: those of its contract whose topic's name begins with its own."""

    def below(kind: type[Event]) -> Iterable[type[Event]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    whole = (event for event in below(Event) if hasattr(event, "topic") and hasattr(event, "type"))
    return tuple(event for event in whole if event.topic.startswith(f"{service}."))


class Chassis:
    """One process's worth of a service."""

    def __init__(
        self,
        service: Service,
        settings: KitSettings,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        http: httpx.AsyncClient,
        telemetry: Telemetry,
        ids: Ids,
        role: str = ALL,
        call_ahead: float = 0.0,
        worker: str | None = None,
        host: str = "",
        pid: int = 0,
    ) -> None:
        self.service = service
        self.settings = settings
        self.store = store
        self.bus = bus
        self.clock = clock
        self.role = role
        self._call_ahead = call_ahead
        self.part = part = service.part(role)
        self.telemetry = telemetry
        self.worker_name = worker or ids()
        self.publisher = Publisher(service.name, store, bus, telemetry, limit=settings.max_publishing)
        self.repository = Repository(
            store,
            clock,
            self.publisher.offer,
            max_event_bytes=settings.max_event_bytes,
            became_due=self._became_due,
            recorded=telemetry.recorded,
        )
        self.parking = Parking(self.repository)
        self.pauses = Pauses(store, service.pausable)
        self.rewinding = Rewinding(self.repository)
        self.presence = Presence(store, clock, self.worker_name, role, host, pid)
        self.commands = Commands(self.repository, telemetry)
        self.reactors = [
            Reactor(service.name, table, self.repository, self.parking, telemetry) for table in service.reactions
        ]
        self.performers = [
            Performer(
                service.name,
                row,
                self.repository,
                self.parking,
                telemetry,
                paused=partial(self.pauses.hold_performer, row.role),
            )
            for row in service.performing
        ]
        tables = {table.document: table for table in service.jobs}
        self.workers: dict[str, DueWorker] = {}
        for document in service.documents:
            for queue in document.all_queues():
                if queue_key(document.collection, queue) in part.queues:
                    self._add_worker(tables.get(document), document, queue)
        if self.readers or part.queues:
            self._add_worker(draining(self._replay, self._rewake), Parked)
        self.signals = Signals(
            service.name,
            role,
            self.worker_name,
            store=store,
            bus=bus,
            clock=clock,
            documents=service.documents,
            workers=self.workers,
            publishing=lambda: self.publisher.waiting,
            ready=self.ready,
        )
        telemetry.observe(self.signals.observed)
        telemetry.count(service.counts)
        self.door = Door(
            service.name,
            self.repository,
            self.commands,
            telemetry,
            Verifier(
                http,
                clock,
                jwks_url=settings.jwks_url,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                algorithms=settings.jwt_algorithms,
            ),
            Gate(settings.max_requests),
        )
        routes = [OPERATIONS, *((OPERATED, *service.routes) if part.api else ())]
        self.app: FastAPI = application(self.door, routes, max_body_bytes=settings.max_body_bytes)
        self.app.state.chassis = self
        self._going_back: set[str] = set()
        self._stopping = asyncio.Event()
        self._closing = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def all_readers(self) -> list[Reader]:
        """The consumer groups of this service, whatever this process does: each replays what is parked in any."""
        return [*self.reactors, *self.performers]

    @property
    def readers(self) -> list[Reader]:
        """The consumer groups that processes of this role are members of."""
        reactors = [each for each in self.reactors if each.table.document.collection in self.part.reactions]
        return [*reactors, *(each for each in self.performers if each.row.role in self.part.performing)]

    @property
    def published(self) -> tuple[type[Event], ...]:
        """The events that this service publishes."""
        return published_events(self.service.name)

    @property
    def topics(self) -> list[str]:
        """The topics that this service reads, and those that it publishes to."""
        read = {topic for reader in self.all_readers for topic in reader.topics}
        return sorted(read | set(topics_of(self.published)))

    def _add_worker(self, jobs: Jobs | None, document: type[Document], queue: str = "") -> None:
        key = queue_key(document.collection, queue)
        leases = Leases(
            self.store,
            self.clock,
            f"{self.service.name}.{key}",
            document.collection,
            self.worker_name,
            due_queue=queue,
            lease=self.settings.lease_seconds,
            margin=self.settings.lease_margin_seconds,
            busy=lambda slot: self.workers[key].slot_busy(slot),
            claiming=jobs is not None and jobs.may_be_claimed(queue),
        )
        self.workers[key] = DueWorker(
            self.service.name,
            jobs,
            document,
            self.repository,
            leases,
            self.telemetry,
            self.publisher.offer,
            self.parking,
            queue=queue,
            sweep_after=timedelta(seconds=self.settings.sweep_after_seconds),
            ahead=self._call_ahead,
            paused=self.pauses.hold,
        )

    def _became_due(self, queue: str, due: datetime) -> None:
        """A write of this process set a due time: a worker here need not wait for its next look."""
        worker = self.workers.get(queue)
        if worker is not None and due <= self.clock.now():
            worker.wake.set()

    async def _replay(self, group: str, record: Any) -> str | None:
        for reader in self.all_readers:
            if reader.group == group:
                return await reader.replay(record)
        return f"nobody of {self.service.name} reads as {group}"

    async def _rewake(self, collection: str, id: str, timer: str) -> None:
        """Let a timer that kept failing fire again at once."""
        document = next(d for d in self.service.documents if d.collection == collection)
        while True:
            raw = (await self.repository.raw(document, [id]))[id]
            held = hold(document, id, raw)
            if held.document is None or timer not in held.document.timers:
                return
            held.document.wake(timer, self.clock.now())
            held.document.attempted.pop(f"!{timer}", None)
            write = self.repository.stage(held)
            if write is None or (await self.repository.write(document, [(held, write)]))[0] is Outcome.WON:
                return

    # -- life -----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Create the indexes and topics that are missing."""
        await self.repository.ensure([*self.service.documents, Parked, Pause, Rewind])
        await self.store.ensure(LEASES, [])
        await ensure_processes(self.store)
        await self.bus.ensure(self.topics)
        await self.pauses.refresh()

    async def start(self) -> None:
        """Begin to work, in the background."""
        for reader in self.readers:
            self.bus.subscribe(
                reader.group,
                reader.topics,
                reader.handle,
                max_records=self.settings.batch_records,
                reassigned=reader.reassigned,
            )
        self._apply_pauses()
        await self.bus.start()
        self._publishing = asyncio.ensure_future(self.publisher.run(self._closing))
        self._tasks.extend(asyncio.ensure_future(self._look_after(worker)) for worker in self.workers.values())
        self._tasks.append(asyncio.ensure_future(self.signals.run(self._stopping, self.settings.signals_seconds)))
        self._tasks.append(asyncio.ensure_future(self._follow_orders()))
        self._tasks.append(asyncio.ensure_future(self._be_seen()))
        if hasattr(self.clock, "offset"):
            self._tasks.append(asyncio.ensure_future(self._watch_clock()))

    async def retire(self) -> None:
        """Begin nothing more, within ``drain_seconds``: give leases up, finish and commit the batches in work.

        Requests are still answered, and events still published.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        for worker in self.workers.values():
            worker.wake.set()
        waiting = {*self._tasks, asyncio.ensure_future(self.bus.leave())}
        _, late = await asyncio.wait(waiting, timeout=self.settings.drain_seconds)
        if late:
            log.warning("drain.late", left=len(late))

    async def stop(self) -> None:
        """Retire, publish what is left, and let go."""
        await self.retire()
        self._closing.set()
        if self._publishing is not None:
            await asyncio.wait({self._publishing}, timeout=_LAST_WORDS)
        await asyncio.wait({asyncio.ensure_future(self.bus.stop())}, timeout=_LAST_WORDS)
        await self.store.close()
        self.telemetry.close()

    def _renew_in(self, leases: Leases, renewed: bool, took: float) -> float:
        """Seconds until the next beat. While there is more to take over, what waits for that makes it urgent."""
        if renewed and not leases.taking_over:
            return self.settings.lease_seconds / 3
        if renewed and leases.claiming:
            return min(_BETWEEN_STEPS * took, self.settings.lease_seconds / 3)
        return 0.05

    async def _look_after(self, worker: DueWorker) -> None:
        """Renew the lease, look for due work, sweep; until stopped, then finish and hand over."""
        renew_at = sweep_at = look_at = self.clock.monotonic()
        while not self._stopping.is_set():
            did = 0
            worker.wake.clear()
            try:
                if look_at <= self.clock.monotonic() < renew_at:
                    look_at = self.clock.monotonic() + self.settings.poll_seconds
                    renew_at = self.clock.monotonic() if await worker.leases.vacant() else renew_at
                if self.clock.monotonic() >= renew_at:
                    renew_at = self.clock.monotonic() + self.settings.poll_seconds  # where the store does not answer
                    began = self.clock.monotonic()
                    renewed = await worker.leases.renew()
                    renewed_at = self.clock.monotonic()
                    renew_at = renewed_at + self._renew_in(worker.leases, renewed, renewed_at - began)
                if self.clock.monotonic() >= sweep_at:
                    await worker.sweep()
                    sweep_at = self.clock.monotonic() + max(0.5, self.settings.sweep_after_seconds / 2)
                did = await worker.work()
            except NewerShape:
                self.repository.behind = True
            except StoreUnavailable as error:
                log.warning("store.unavailable", queue=worker.queue, error=str(error))
            except Exception as error:
                log.error("worker.failed", queue=worker.queue, error=where_raised(error), exc_info=error)
            if not did and not self._stopping.is_set():
                # Not past the next beat: others count a worker's silence from the last one, and it theirs at each.
                pause = min(self.settings.poll_seconds, worker.pause, max(renew_at - self.clock.monotonic(), 0.0))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.wake.wait(), pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hand_over(worker), self.settings.drain_seconds)

    async def _hand_over(self, worker: DueWorker) -> None:
        """Give up at once what has nothing in flight, the rest as its calls end; its lease is kept up until then."""
        while True:
            worker.wake.clear()
            try:
                await worker.settle()
                if await worker.leases.leave(worker.slot_busy):
                    return
                pause = self.settings.lease_seconds / 3
            except StoreUnavailable as error:
                log.warning("store.unavailable", queue=worker.queue, error=str(error))
                pause = self.settings.poll_seconds
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.wake.wait(), pause)

    async def heed(self) -> None:
        """Ask what operators have ordered, and follow it. Raises StoreUnavailable: what was known stands."""
        if await self.pauses.refresh():
            self._apply_pauses()
        groups = {reader.group for reader in self.readers}
        orders = await self.rewinding.open(groups)
        for group in self._going_back - {rewind.group for rewind in orders}:
            self.bus.go_back(group, None)
        self._going_back = {rewind.group for rewind in orders}
        for rewind in orders:
            assert rewind.to is not None  # noqa: S101 - an open order has one
            done = frozenset(each.place for each in rewind.moved)
            moved = partial(self.rewinding.moved, rewind)
            self.bus.go_back(rewind.group, GoingBack(rewind.number, rewind.to, done, moved))

    def _apply_pauses(self) -> None:
        for worker in self.workers.values():
            worker.pauses_changed()
        for performer in self.performers:
            if performer not in self.readers:
                continue
            if self.pauses.hold_performer(performer.row.role):
                self.bus.pause(performer.group)
            else:
                self.bus.resume(performer.group)

    async def _follow_orders(self) -> None:
        """Ask every second or so: an operator who pauses a payer wants it now."""
        while not await self._stopped_within(self.settings.orders_seconds):
            try:
                await self.heed()
            except StoreUnavailable as error:
                log.info("orders.unknown", error=str(error))
            except Exception as error:
                log.error("orders.failed", error=where_raised(error), exc_info=error)

    async def _be_seen(self) -> None:
        """Tell now and then that this process lives, and how it stands; in the end, that it stops."""
        while True:
            stopping, pause = self._stopping.is_set(), SOON
            try:
                standing = await self.standing()
                pause = SOON if standing["missing"] else EVERY
                await self.presence.tell(standing, stopped=stopping)
            except StoreUnavailable as error:
                log.info("presence.untold", error=str(error))
            except Exception as error:
                log.error("presence.failed", error=where_raised(error), exc_info=error)
            if stopping:
                return
            await self._stopped_within(pause)

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _watch_clock(self) -> None:
        """Wake the workers as soon as domain time was moved on by another process."""
        last = self.clock.offset  # type: ignore[attr-defined]
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.02)
            if (offset := self.clock.offset) != last:  # type: ignore[attr-defined]
                last = offset
                for worker in self.workers.values():
                    worker.wake.set()

    # -- what operators see ---------------------------------------------------------------------------------

    async def ready(self) -> list[str]:
        """What keeps this process from its work; nothing where it is ready."""
        missing = ["stopping"] if self._stopping.is_set() else []
        try:
            await self.store.ping()
        except StoreUnavailable:
            missing.append("store")
        if not self.bus.healthy():
            missing.append("broker")
        if any(not worker.leases.holds() for worker in self.workers.values()):
            missing.append("leases")
        if self.repository.behind:
            missing.append("release")
        return missing

    async def standing(self) -> dict[str, Any]:
        """What this process tells others of how it stands."""
        here = self.signals.here()
        return {
            "missing": await self.ready(),
            "groups": [reader.group for reader in self.readers],
            "queues": [worker.queue for worker in self.workers.values()],
            "busy": self.busy,
            "readings": [asdict(reading) for reading in here.readings],
            "callees": [{**asdict(callee), "breaker": callee.breaker.value} for callee in here.callees],
        }

    @property
    def busy(self) -> int:
        """What is in work here: documents to be published, records, due work and calls."""
        return (
            self.publisher.waiting
            + sum(reader.in_work for reader in self.all_readers)
            + sum(worker.busy for worker in self.workers.values())
        )

    async def pulse(self, *, stored: bool = True) -> dict[str, Any]:
        """What is in work here, how far topics are written and read, and, if ``stored``, what waits in the store.

        The first is known in memory and costs nothing; the second costs the store a few queries.
        """
        told: dict[str, Any] = {
            "service": self.service.name,
            "role": self.role,
            "now": self.clock.now().isoformat(),
            "busy": self.busy,
            "published": dict(self.bus.positions.published),
            "consumed": {group: dict(places) for group, places in self.bus.positions.consumed.items()},
        }
        return {**told, **await self._waiting()} if stored else told

    async def _waiting(self) -> dict[str, Any]:
        """Which events are not published, when something is due next, how many keys are parked."""
        unsent = 0
        dues: list[datetime] = []
        kinds: list[type[Document]] = [*self.service.documents, Parked]
        for document in kinds:
            for name in ("unsent", *map(due_field, document.all_queues())):
                first = await self.store.find(
                    document.collection, {name: {"$gte": EPOCH}}, sort=name, limit=1, fields=(name,)
                )
                if first and name != "unsent":
                    dues.append(first[0][name])
                unsent += len(first) if name == "unsent" else 0
        return {
            "unsent": unsent,
            "next_due": min(dues).isoformat() if dues else None,
            "parked": await self.store.count(Parked.collection, {"state": {"$in": ["parked", "replaying"]}}),
        }


OPERATIONS = Routes(tags=("operations",))
"""What every process answers, whatever its service and role."""


@OPERATIONS.public("/health/live")
async def live(request: Request) -> Reply:
    """Whether the process gets on: 503 where a reader stands still before unread records and could not be helped."""
    chassis: Chassis = request.app.state.chassis
    alive = chassis.bus.alive()
    return Reply(200 if alive else 503, {"status": "live" if alive else "stuck"})


@OPERATIONS.public("/health/ready")
async def ready(request: Request) -> Reply:
    """Whether the process can do its work, and what keeps it from it."""
    chassis: Chassis = request.app.state.chassis
    missing = await chassis.ready()
    return Reply(503 if missing else 200, {"status": "waiting" if missing else "ready", "missing": missing})


@OPERATIONS.get("/pulse", roles={Role.OPERATOR})
async def pulse(call: Call, request: Request, stored: bool = True) -> Reply:
    """What is in work, how far topics are written and read, and, if ``stored``, what waits in the store.

    ``unsent`` counts the document types that have events to publish.
    """
    chassis: Chassis = request.app.state.chassis
    return Reply(200, await chassis.pulse(stored=stored))


@OPERATIONS.get("/openapi.json", roles=set(Role))
async def openapi(call: Call, request: Request) -> Reply:
    """This process's OpenAPI document."""
    app: FastAPI = request.app
    return Reply(200, app.openapi())
