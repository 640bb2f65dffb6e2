"""A world in one process: services on an in-memory store and bus, stepped by a seed, with crashes wherever it likes.

Nothing here runs by itself. A seed chooses which actor takes its next step: a process's publisher, one of its
consumer groups, one of its due workers, its lease, its sweep, or somebody outside. At every gate (each call of store
and bus, before and after) it may have the call fail, crash the process, let another actor step in between, or freeze
the process while time passes, so that it goes on as a zombie.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI

from shared.kit.bus.port import Message
from shared.kit.chassis import Chassis
from shared.kit.clock import FrozenClock
from shared.kit.document import SLOTS
from shared.kit.duework import DueWorker
from shared.kit.engine import Reactor
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import StoreUnavailable
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LEASE = 10.0


ROLE: ContextVar[str] = ContextVar("role", default="api")
"""What kind of actor is at work; requests from outside are the API's work."""


class Crash(BaseException):
    """The process is gone, in the middle of whatever it did."""


@dataclass(frozen=True)
class Faults:
    """How likely what goes wrong is, at each gate."""

    crash: float = 0.004
    store_before: float = 0.005
    store_after: float = 0.005
    publish: float = 0.02
    interleave: float = 0.08
    freeze: float = 0.002
    rewind: float = 0.01
    http_refused: float = 0.03
    http_lost: float = 0.03

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Process:
    """One incarnation of a process of a service."""

    service: str
    number: int
    chassis: Chassis
    bus: MemoryBus
    dead: bool = False
    busy: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"


@dataclass(frozen=True)
class Actor:
    """Something that can take a step."""

    process: Process | None
    kind: str
    name: str
    step: Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class Declared:
    """A service as the world runs it."""

    name: str
    settings: KitSettings
    build: Callable[[Any, httpx.AsyncClient], Service]
    processes: int = 1
    _built: dict[str, Any] = field(default_factory=dict)

    def service(self, world: World) -> Service:
        """The service, built once for all its processes: making its routes takes longer than most plays."""
        if not self._built:
            self._built["network"] = _Network()
            self._built["service"] = self.build(self.settings, httpx.AsyncClient(transport=self._built["network"]))
        self._built["network"].world = world
        service: Service = self._built["service"]
        return service

    def serve(self, app: FastAPI) -> None:
        """Have an application use the routes that the first one of this service resolved: each does so anew, which
        takes longer than what is asked of it. They know their application by the request alone."""
        app.router.routes = self._built.setdefault("routes", app.router.routes)


class World:
    """Everything that a seed plays with."""

    def __init__(
        self,
        seed: int,
        services: Sequence[Declared],
        *,
        faults: Faults | None = None,
        at: datetime = START,
        telemetry: Callable[[str], Telemetry] = lambda name: Telemetry.quiet(),
        partitions: int = 3,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.calm = False
        self.patience = 2_000
        """How many rounds it may take to come to rest."""
        self.clock = FrozenClock(at)
        self.broker = MemoryBroker(partitions)
        self.issuer = TestIssuer()
        self.declared = {each.name: each for each in services}
        self.doubled = frozenset(self.random.sample(sorted(self.declared), min(2, len(self.declared))))
        """Services of which two processes run, at odds with each other."""
        at_once = (SLOTS, 100, 5)[seed % 3]
        self.apart = (100, 2)[seed // 3 % 2]
        """How many events make a batch that is applied in two parts."""
        self.stores: dict[str, MemoryStore] = {each.name: MemoryStore(slots_at_once=at_once) for each in services}
        self.processes: list[Process] = []
        self.hosts: dict[str, httpx.AsyncBaseTransport] = {}
        self.others: list[Actor] = []
        self.gates: Counter[str] = Counter()
        self.passed: Counter[tuple[str, str]] = Counter()
        self.crashed_at: Counter[tuple[str, str]] = Counter()
        self.steps = 0
        self.unanswered = 0
        """Outside calls whose answer nobody can know: lost, refused at an unknown point, or in flight at a kill."""
        self._intended: set[str] = set()
        self._depth = 0
        self._busy: set[str] = set()
        self._numbers = 0
        self._telemetry = telemetry

    # -- processes ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every service's processes."""
        await self.revive()

    async def spawn(self, declared: Declared) -> Process:
        """Start one process of a service."""
        self._numbers += 1
        number = self._numbers
        holder: list[Process] = []

        async def gate(name: str) -> None:
            if holder:
                await self._gate(holder[0], name)

        def refuses(message: Message) -> bool:
            return not self.calm and self.random.random() < self.faults.publish

        bus = MemoryBus(self.broker, gate=gate, refuses=refuses, running=False)
        chassis = Chassis(
            declared.service(self),
            declared.settings,
            store=self.stores[declared.name].seen_by(gate),
            bus=bus,
            clock=self.clock,
            http=httpx.AsyncClient(transport=self.issuer.transport()),
            telemetry=self._telemetry(declared.name),
            ids=lambda: f"{declared.name}-{number}",
        )
        declared.serve(chassis.app)
        await chassis.prepare()
        for reader in chassis.readers:
            if isinstance(reader, Reactor):
                reader.apart = self.apart
            bus.subscribe(reader.group, reader.topics, reader.handle, reassigned=reader.reassigned)
        await bus.start()
        process = Process(declared.name, number, chassis, bus)
        holder.append(process)
        self.processes.append(process)
        return process

    def kill(self, process: Process, where: str = "outside") -> None:
        """End a process where it stands."""
        if process.dead:
            return
        process.dead = True
        self.unanswered += self._in_flight(process)
        self.crashed_at[where, ROLE.get()] += 1
        process.bus.vanish()
        for worker in process.chassis.workers.values():
            for _, task in list(worker._calling.values()):
                task.cancel()
        self.processes.remove(process)

    def _in_flight(self, process: Process) -> int:
        """Calls that may have been begun, for all that others can know: intentions that stand open count once."""
        store = self.stores[process.service]
        intended = {
            attempt["id"]
            for collection in store.collections.values()
            for id in {id for field, times in collection.timed.items() if field != "unsent" for id in times}
            for attempt in collection.get(id).get("attempts", {}).values()
        }
        fresh = intended - self._intended
        self._intended |= fresh
        return len(fresh) + sum(worker.busy for worker in process.chassis.workers.values())

    def live(self, service: str) -> list[Process]:
        """The processes of a service that run."""
        return [process for process in self.processes if process.service == service]

    async def revive(self) -> None:
        """Start anew what died."""
        for declared in self.declared.values():
            while len(self.live(declared.name)) < declared.processes + (declared.name in self.doubled):
                await self.spawn(declared)

    # -- steps ----------------------------------------------------------------------------------------------

    def actors(self) -> list[Actor]:
        """Everybody who may take a step now."""
        found = list(self.others)
        now = self.clock.now()
        due = {
            (service, *place)
            for service, store in self.stores.items()
            for place, first in store.dues().items()
            if first <= now
        }
        for process in self.processes:
            found.extend(self._actors_of(process, due))
        return [actor for actor in found if actor.name not in (actor.process.busy if actor.process else self._busy)]

    def _actors_of(self, process: Process, due: set[tuple[str, str, str]]) -> list[Actor]:
        chassis = process.chassis
        found = []
        if chassis.publisher.waiting:
            found.append(Actor(process, "publish", "publish", chassis.publisher.flush))
        for group in process.bus.groups:
            if process.bus.waiting(group):
                found.append(Actor(process, "react", f"react {group}", self._reading(process, group)))
        now = self.clock.monotonic()
        for key, worker in chassis.workers.items():
            holds = now < worker.leases._until
            if not holds:
                found.append(Actor(process, "renew", f"due {key}", self._renewing(worker)))
            elif worker._rows and (worker._outcomes or (process.service, *worker.place) in due):
                found.append(Actor(process, "due", f"due {key}", worker.work))
            if self._soon_over(worker, now):
                found.append(Actor(process, "renew", f"due {key}", self._renewing(worker)))
        return found

    def _soon_over(self, worker: DueWorker, now: float) -> bool:
        """Whether a process would renew this lease by now: a third of it is over, or all, or there is more to take."""
        return now > worker.leases._until - LEASE * 2 / 3 or worker.leases.taking_over

    def _reading(self, process: Process, group: str) -> Callable[[], Awaitable[int]]:
        async def step() -> int:
            return await process.bus.step(group, max_records=self.random.choice((1, 2, 3, 10, 500)))

        return step

    def _renewing(self, worker: DueWorker) -> Callable[[], Awaitable[int]]:
        async def step() -> int:
            return int(await worker.leases.renew())

        return step

    async def step(self) -> bool:
        """Let one actor take one step; False where nobody could."""
        actors = self.actors()
        if not actors:
            await self.revive()
            return False
        await self._take(self.random.choice(actors))
        for _ in range(self.random.choice((1, 3, 10))):
            await asyncio.sleep(0)
        if not self.calm:
            self._disturb()
            if self.random.random() < 0.2:
                await self.revive()
        return True

    async def _take(self, actor: Actor) -> None:
        self.steps += 1
        busy = actor.process.busy if actor.process else self._busy
        busy.add(actor.name)
        role = ROLE.set(actor.kind)
        try:
            await actor.step()
        except Crash:
            pass
        except StoreUnavailable:
            pass  # The step's loop would come again, after a backoff.
        finally:
            ROLE.reset(role)
            busy.discard(actor.name)

    def _disturb(self) -> None:
        """Redeliver: a group reads something again."""
        if self.random.random() < self.faults.rewind and self.broker.groups:
            group = self.random.choice(sorted(self.broker.groups))
            committed = self.broker.groups[group].committed
            if committed:
                place = self.random.choice(sorted(committed))
                committed[place] = max(0, committed[place] - self.random.randint(1, 5))
                self.broker.groups[group].generation += 1
        if self.random.random() < 0.02:
            self.clock.pass_(self.random.choice((0.5, 2.0, 4.0)))

    async def _gate(self, process: Process, name: str) -> None:
        """A call of store or bus is about to happen, or has just happened."""
        if process.dead:
            raise Crash
        self.gates[name] += 1
        if self.calm:
            return
        self.passed[name, ROLE.get()] += 1
        faults = self.faults
        if self.random.random() < faults.crash:
            self.kill(process, name)
            raise Crash
        if name.startswith("store."):
            if name == "store.written":
                if self.random.random() < faults.store_after:
                    raise StoreUnavailable("the answer was lost")
            elif self.random.random() < faults.store_before:
                raise StoreUnavailable("the store did not answer")
        if self._depth < 3 and self.random.random() < faults.interleave:
            await self._in_between(1)
        if self._depth < 2 and self.random.random() < faults.freeze:
            for _ in range(2):
                self._freeze()
                await self._in_between(12)
        if process.dead:
            raise Crash

    def _freeze(self) -> None:
        """More than a lease passes; whatever is in flight comes back to a slot that is no longer its own."""
        self.unanswered += sum(self._in_flight(each) for each in self.processes)
        self.clock.pass_(LEASE * 2.5)

    async def _in_between(self, steps: int) -> None:
        self._depth += 1
        try:
            for _ in range(steps):
                actors = self.actors()
                if actors:
                    await self._take(self.random.choice(actors))
        finally:
            self._depth -= 1

    # -- to the end -----------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Step until nothing is left to do at this domain time, at last without faults, so that it really ends.

        Real time passes meanwhile, in seconds, as it does when a system comes to rest: backoffs and sweeps need it.
        """
        was = self.calm
        for round in range(self.patience):
            self.calm = was or round > 5
            if self.calm:
                await self.revive()
            for _ in range(60):
                if not await self.step() or not self._pending():
                    break
            for _ in range(50):
                await asyncio.sleep(0)  # Calls in flight go on; a second is long for them.
            if not self._pending():
                self.calm = was
                return
            self.clock.pass_(1.0)
            await self._sweep()
        raise AssertionError(f"seed {self.seed}: does not come to rest")

    def _pending(self) -> bool:
        """Whether anything is still to be published, read, decided or answered at this time."""
        now = self.clock.now()
        for store in self.stores.values():
            if store.unsent() or any(first <= now for first in store.dues().values()):
                return True
        if any(process.chassis.publisher.waiting for process in self.processes) or self.broker.lag():
            return True
        return any(worker.busy for process in self.processes for worker in process.chassis.workers.values())

    async def _sweep(self) -> None:
        role = ROLE.set("sweep")
        for process in list(self.processes):
            for worker in process.chassis.workers.values():
                if f"due {worker.key}" in process.busy:
                    continue
                try:
                    if self._soon_over(worker, self.clock.monotonic()):
                        await worker.leases.renew()
                    await worker.sweep()
                except (StoreUnavailable, Crash):
                    pass
        ROLE.reset(role)

    def forget(self) -> None:
        """Let go of everything: FastAPI keeps the endpoints that it has seen, and with them whole worlds."""
        for store in self.stores.values():
            store.collections.clear()
        for each in (self.processes, self.others, self.broker.clients):
            each.clear()
        for each in (self.hosts, self.broker.topics, self.broker.groups):
            each.clear()

    def next_due(self) -> datetime | None:
        """When something is due next in any service."""
        return min((first for store in self.stores.values() for first in store.dues().values()), default=None)


class _Network(httpx.AsyncBaseTransport):
    """What a process of ours sees of the world outside: hosts in memory, refusals, and answers that get lost."""

    world: World

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        world = self.world
        transport = world.hosts.get(request.url.host)
        chance = world.random.random()
        if transport is None or (not world.calm and chance < world.faults.http_refused):
            world.unanswered += 1
            raise httpx.ConnectError("refused", request=request)
        response = await transport.handle_async_request(request)
        if not world.calm and chance > 1 - world.faults.http_lost:
            world.unanswered += 1
            raise httpx.ReadTimeout("lost", request=request)
        return response


def settings_for(kind: type[KitSettings], **configured: Any) -> KitSettings:
    """A service's settings in a world: the test issuer's tokens, no waiting before a sweep."""
    defaults: dict[str, Any] = {
        "jwks_url": JWKS_URL,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "sweep_after_seconds": 0.0,
        "lease_seconds": LEASE,
    }
    return kind(**{**defaults, **configured})
