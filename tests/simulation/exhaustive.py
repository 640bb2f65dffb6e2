"""All interleavings of a few processes over the real kit: a scope small enough to be searched to its end.

A seed tries what chance brings; here nothing is left to chance. The kit's own coroutines run on the in-memory store
and bus and are driven by hand. A step takes one coroutine from the gate where it stands through one call of store or
bus to the next gate. Before every step every choice is tried: which coroutine goes on, whether a process is killed
where it stands, whether a message is refused, or taken and not acknowledged, whether time passes. No preemption bound,
and no bound on crashes: any of the processes may die, at any gate.

What keeps that feasible loses nothing:

- What a coroutine does next follows from what it was given: a process's memory is a function of the answers that it
  had from store, bus and clock, in their order. Where documents, topics, groups, time, budgets and those answers are
  equal, the futures are equal too and are looked at once; ways that lead there are counted, not walked again.
- For the same reason the outcome of a step follows from what is shared and from the memory of the one process that
  takes it, so it is played once for each of these. Coroutines cannot be copied: a process is brought to where it is
  by playing its own steps again, each on the shared state that it had before it then. What all checks look at is
  shared.
- Behind a call and before the next one, a process with one coroutine touches nothing but its own memory, so the gates
  there are one with the gate that follows. Where a process has several coroutines at work, they are gates.
"""

from __future__ import annotations

import asyncio
import hashlib
import types
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any

from shared.kit.bus.port import Message, PublishFailed, Record
from shared.kit.bus.publisher import Publisher
from shared.kit.clock import FrozenClock
from shared.kit.commands import Commands
from shared.kit.document import Document
from shared.kit.duework import DueWorker
from shared.kit.engine import Reactor
from shared.kit.jobs import Call, Jobs, Timer
from shared.kit.leases import Leases
from shared.kit.parking import Parked, Parking
from shared.kit.reactions import Reactions
from shared.kit.store.port import Conditions, Found, Outcome, Unstorable, Write
from shared.kit.store.repository import Repository, indexes_of
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus, _Group, _Subscription
from shared.kit.testing.memory_store import Collection, MemoryStore
from tests.unit.kit.toy import Box, Stamp

SERVICE = "toy"
DOCUMENTS: tuple[type[Document], ...] = (Box, Stamp, Parked)
START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LEASE = 10.0
MARGIN = 2.0
TOO_LATE = 9.0
"""Seconds after which a lease still holds, but no call may be begun."""

OVER = 4.0
"""Seconds that later another worker takes its slots."""

BEHIND = frozenset({"store.written", "bus.published", "bus.committed"})
"""Gates behind a call, and before nothing but the caller's own memory."""


_QUIET = Telemetry.quiet()


class Variant(StrEnum):
    """What happens at a step."""

    GO = "goes on"
    REFUSED = "goes on; the message is refused"
    UNACKNOWLEDGED = "goes on; the message is taken, the acknowledgement lost"
    CRASH = "crashes"
    PASS = "passes"


Choice = tuple[str, int, Variant]
"""Which process, which of its coroutines, and what happens."""


class Violated(AssertionError):
    """Some interleaving breaks a promise; the message tells which, and how it came to that."""


class Astray(Exception):
    """The same choices led elsewhere: something in a scene depends on chance, and nothing is proven."""


@types.coroutine
def _pause(gate: str) -> Generator[str, None, None]:
    yield gate


Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all processes share, as it was at one moment."""

    collections: Mapping[str, tuple[dict[str, bytes], dict[str, Found], set[str], dict[str, dict[str, datetime]]]]
    topics: Mapping[str, list[list[Record]]]
    groups: Mapping[str, tuple[dict[tuple[str, int], int], list[str], int, set[str]]]
    """Committed positions, members by the name of their process, generation, topics."""
    monotonic: float
    failures: int
    ticks: Sequence[float]
    told: list[str]
    stamped: dict[int, int]
    writers: dict[tuple[str, int, int], str]

    def digest(self) -> bytes:
        """A hash of it all; of documents just their texts, since the rest follows from these."""
        stored = [(name, sorted(texts.items())) for name, (texts, *_) in sorted(self.collections.items())]
        groups = [
            (name, sorted(committed.items()), rest[:2]) for name, (committed, *rest) in sorted(self.groups.items())
        ]
        topics = sorted(self.topics.items())
        seen = (sorted(self.told), sorted(self.stamped.items()), sorted(self.writers.items()))
        text = repr((stored, groups, topics, self.monotonic, self.failures, tuple(self.ticks), seen))
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class State:
    """What is shared, by its digest, and what each process knows: together all that the future depends on."""

    shared: bytes
    memories: Mapping[str, bytes]

    @property
    def key(self) -> Key:
        """The same for the same futures."""
        return (self.shared, *self.memories.values())

    def after(self, choice: Choice, effect: Effect) -> State:
        """The state that a choice of known effect leads to."""
        shared, memory = effect
        return State(shared, {name: memory if name == choice[0] else known for name, known in self.memories.items()})


Cause = tuple[Choice, bytes, bytes]
"""What the outcome of a choice follows from: the choice, what is shared, what the one who acts knows."""

Effect = tuple[bytes, bytes]
"""What is shared afterwards, and what the one who acted knows then."""


class Thread:
    """One coroutine of a process, driven by hand; to the kit it is the task that it asked for."""

    def __init__(self, coroutine: Coroutine[Any, None, None], ready: Callable[[], bool] = lambda: True) -> None:
        self.coroutine = coroutine
        self.gate = ""
        self.done = False
        self.ready = ready
        self._callbacks: list[Callable[[Any], object]] = []

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have somebody told when it is through."""
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        """Nobody cancels here: what ends early ends with its process."""
        return False

    def exception(self) -> None:
        """An exception ends the search, so there is none."""

    def advance(self) -> None:
        """To the next gate, or to the end."""
        try:
            self.gate = self.coroutine.send(None)
        except StopIteration:
            self.done = True
            for callback in self._callbacks:
                callback(self)


class Process:
    """One process of the service: the kit's parts around its own connections to store and bus."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self.threads: list[Thread] = []
        self.variant = Variant.GO
        self.until = float("-inf")
        """When its lease ends, by its own last beat that landed; what ``Leases`` says is not asked."""
        self._memory = b""
        self._parts: list[object] = []
        self.clock = _SeenClock(self)
        self.store = _SeenStore(self)
        self.bus = _FineBus(self)
        self.telemetry = _QUIET
        self.publisher = Publisher(SERVICE, self.store, self.bus, self.telemetry)
        self.repository = Repository(self.store, self.clock, self.publisher.offer)
        self.parking = Parking(self.repository)
        self.commands = Commands(self.repository, self.telemetry)

    def reactor(self, table: Reactions) -> Reactor:
        """One of the service's consumer groups, read by this process once its bus has started."""
        reactor = Reactor(SERVICE, table, self.repository, self.parking, self.telemetry)
        self.bus.subscribe(reactor.group, table.topics, reactor.handle, reassigned=reactor.reassigned)
        self._parts.append(reactor)
        return reactor

    def worker(self, document: type[Document], jobs: Jobs | None) -> DueWorker:
        """This process's worker on the due work of one document type, sweeping at once."""
        workers: list[DueWorker] = []
        leases = _SeenLeases(self, document, lambda slot: workers[0].slot_busy(slot))
        workers.append(
            DueWorker(
                SERVICE,
                jobs,
                document,
                self.repository,
                leases,
                self.telemetry,
                self.publisher.offer,
                self.parking,
                sweep_after=timedelta(0),
            )
        )
        self._parts += (workers[0], leases)
        return workers[0]

    async def beat(self, worker: DueWorker) -> None:
        """Renew the lease once, and note when it ends."""
        began = self.stage.clock.monotonic()
        if await worker.leases.renew():
            self.until = began + LEASE

    async def gate(self, name: str) -> None:
        """A call is about to be made, or was made: whoever else wants to goes first."""
        if self.stage.phase is not Phase.PLAY or (name in BEHIND and len(self.live()) == 1):
            return
        await _pause(name)

    def rests(self, where: object) -> None:
        """Its one coroutine is in none of the kit's functions: of all that it was told only what they kept matters.

        ``where`` is the place in the script. What is kept is what stands in the kit's objects, whatever that may be.
        """
        if len(self.live()) == 1:
            kept = [_kept(part) for part in (self.publisher, self.bus, *self._parts)]
            self._memory = b""
            self.saw(where, len(self.threads), kept)

    async def idle(self, ready: Callable[[], bool]) -> None:
        """Do nothing until then; for a coroutine that waits for another one of its process."""
        if self.stage.phase is Phase.PLAY and not ready():
            self.stage.running.ready = ready
            await _pause("idle")

    def live(self) -> list[Thread]:
        """Its coroutines that are not through."""
        return [thread for thread in self.threads if not thread.done]

    @property
    def ready(self) -> list[tuple[int, str]]:
        """Its coroutines that can go on, by number, and the gate where each stands. Raises Violated if it is stuck."""
        live = self.live()
        found = [(n, thread.gate) for n, thread in enumerate(self.threads) if thread in live and thread.ready()]
        if live and not found:
            raise Violated(f"{self.name} waits for ever")
        return found

    def saw(self, *what: object) -> None:
        """Take note of an answer that the process got: its memory follows from these."""
        self._memory = hashlib.blake2b(self._memory + repr(what).encode(), digest_size=16).digest()

    @property
    def memory(self) -> bytes:
        """What it knows; nothing any more once it is through."""
        return self._memory + repr(self.until).encode() if self.live() else GONE


NOBODY = "nobody"
GONE = b"gone"
"""What a process knows that is through, or was killed."""

_COLLABORATORS = (
    Process, Telemetry, Reactions, Timer, Call, Repository, Parking, Leases, MemoryStore, MemoryBus, MemoryBroker,
    FrozenClock,
)  # fmt: skip


def _kept(part: object) -> object:
    """What an object of the kit keeps from one call to the next, but for other objects of the kit."""
    if isinstance(part, asyncio.Event):
        return part.is_set()
    if isinstance(part, asyncio.Semaphore | asyncio.Lock):
        return part.locked()
    if isinstance(part, Mapping):
        return [(key, _kept(value)) for key, value in part.items()]
    if isinstance(part, list | tuple):
        return [_kept(each) for each in part]
    if isinstance(part, set | frozenset):
        return sorted(part)
    if part is None or isinstance(part, str | bytes | int | float | Enum | datetime | timedelta | type):
        return part
    names = vars(part) if hasattr(part, "__dict__") else {name: getattr(part, name) for name in part.__slots__}
    return [
        (name, _kept(value))
        for name, value in names.items()
        if not isinstance(value, _COLLABORATORS) and not callable(value)
    ]


class Phase(Enum):
    """Where a stage is."""

    BEFORE = "scripts are given out, and what went before is run straight through"
    PLAY = "every gate is a choice"
    AFTER = "what is left is put in order"


class Stage:
    """A store, a broker, a clock and some processes; what an exploration plays on, made anew for each play.

    ``only`` one process is to be played on it: of what went before its own part is run again, on what was shared then,
    as ``before`` tells.
    """

    def __init__(self, only: str | None = None, before: Sequence[Shared] = ()) -> None:
        self.clock = FrozenClock(START)
        self.broker = MemoryBroker(partitions=1)
        self.collections: dict[str, Collection] = {}
        for document in DOCUMENTS:
            made = self.collections[document.collection] = Collection()
            made.index([name for index in indexes_of(document) for name in index.fields])
        self.processes: dict[str, Process] = {}
        self.failures = 0
        """How many messages may still be refused, or taken without an acknowledgement."""
        self.ticks: Sequence[float] = ()
        """How much time may still pass, in seconds: each of these at any moment, one after the other."""
        self.phase = Phase.BEFORE
        self.before = list(before)
        self._only = only
        self._runs = 0
        self.told: list[str] = []
        """What the world outside has seen: answers to requests, calls that were begun."""
        self.broken: list[str] = []
        self.stamped: dict[int, int] = {}
        self.writers: dict[tuple[str, int, int], str] = {}
        self.always: Callable[[], None] = lambda: None
        self.finish: Callable[[], None] = lambda: None
        self.running: Thread
        self._at_work: Process

    # -- before and after the play --------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """Start a process."""
        made = self.processes[name] = Process(self, name)
        return made

    def run(self, process: Process, coroutine: Coroutine[Any, None, Any]) -> Any:
        """Run a coroutine to its end, and the calls that it begins, with nobody in between."""
        if self.phase is Phase.BEFORE and not self._is_played(process):
            coroutine.close()
            return None
        self._turn(process)
        try:
            coroutine.send(None)
        except StopIteration as end:
            for thread in process.live():
                thread.advance()
            return end.value
        raise AssertionError("something waits, though every gate is open")

    def _is_played(self, process: Process) -> bool:
        self._runs += 1
        if self._only is None:
            self.before.append(self.shared())
            return True
        if process.name == self._only:
            self.restore(self.before[self._runs - 1])
            return True
        return False

    def play(self, process: Process, script: Coroutine[Any, None, None]) -> None:
        """Give a process something to do once the play has begun."""
        if self._only in (None, process.name):
            process.threads.append(Thread(script))
        else:
            script.close()

    def begin(self) -> None:
        """From here on every choice counts; each script goes up to its first gate."""
        self.phase = Phase.PLAY
        for process in self.processes.values():
            for thread in process.live():
                self._advance(process, thread)

    def end(self) -> None:
        """Everybody is through or gone; what is left is put in order and looked at."""
        self.phase = Phase.AFTER
        for process in self.processes.values():
            self._gone(process)
        self.finish()

    def _gone(self, process: Process) -> None:
        """To the groups that it read for, a process that is gone is a session that ends."""
        if any(process.bus in group.members for group in self.broker.groups.values()):
            process.bus.vanish()

    # -- the play -------------------------------------------------------------------------------------------

    def take(self, choice: Choice) -> None:
        """Have it happen."""
        name, number, variant = choice
        if variant is Variant.PASS:
            passed, *self.ticks = self.ticks
            self.clock._monotonic += passed
            return
        process = self.processes[name]
        if variant is Variant.CRASH:
            self._gone(process)
            return
        if variant is not Variant.GO:
            self.failures -= 1
        process.variant = variant
        process.saw(number, variant)
        process.threads[number].ready = lambda: True
        self._advance(process, process.threads[number])

    def judge(self) -> None:
        """Raises Violated where the last step has broken a promise."""
        self.always()
        if self.broken:
            raise Violated(self.broken[0])

    def _advance(self, process: Process, thread: Thread) -> None:
        self._turn(process)
        self.running = thread
        known = len(process.threads)
        thread.advance()
        for begun in process.threads[known:]:
            self.running = begun
            begun.advance()

    def _turn(self, process: Process) -> None:
        self._at_work = process
        asyncio._set_running_loop(self)  # type: ignore[arg-type] # ensure_future asks for create_task, and no more

    def create_task(self, coroutine: Coroutine[Any, None, None], **_: object) -> Thread:
        """What ``asyncio.ensure_future`` asks of a loop: the process at work gets one more coroutine."""
        thread = Thread(coroutine)
        self._at_work.threads.append(thread)
        return thread

    # -- what is seen ---------------------------------------------------------------------------------------

    def shared(self) -> Shared:
        """What all processes share now."""
        collections = {
            name: (dict(c.texts), dict(c.heads), set(c.indexed), {field: dict(at) for field, at in c.timed.items()})
            for name, c in self.collections.items()
        }
        topics = {name: [list(log) for log in logs] for name, logs in self.broker.topics.items()}
        groups = {
            name: (
                dict(group.committed),
                [process.name for process in self.processes.values() if process.bus in group.members],
                group.generation,
                set(group.topics),
            )
            for name, group in self.broker.groups.items()
        }
        return Shared(
            collections,
            topics,
            groups,
            self.clock.monotonic(),
            self.failures,
            self.ticks,
            list(self.told),
            dict(self.stamped),
            dict(self.writers),
        )

    def restore(self, shared: Shared) -> None:
        """Have what all processes share be as it was then."""
        for name, (texts, heads, indexed, timed) in shared.collections.items():
            made = self.collections[name] = Collection()
            made.texts, made.heads, made.indexed = dict(texts), dict(heads), set(indexed)
            made.timed = {field: dict(at) for field, at in timed.items()}
        for name in self.collections.keys() - shared.collections.keys():
            del self.collections[name]
        broker = self.broker
        broker.topics = {name: [list(log) for log in logs] for name, logs in shared.topics.items()}
        broker.appended = sum(len(log) for logs in broker.topics.values() for log in logs)
        broker.groups = {
            name: _Group([self.processes[member].bus for member in members], dict(committed), generation, set(topics))
            for name, (committed, members, generation, topics) in shared.groups.items()
        }
        self.clock._monotonic = shared.monotonic
        self.failures, self.ticks = shared.failures, shared.ticks
        self.told, self.stamped, self.writers = list(shared.told), dict(shared.stamped), dict(shared.writers)

    def tell(self, what: str) -> None:
        """The world outside has seen something."""
        self.told.append(what)

    def blame(self, what: str) -> None:
        """A promise is broken. Not raised here: the kit takes what a decision or a call raises for its outcome."""
        self.broken.append(what)

    def fenced(self, process: Process, collection: str, slot: int, epoch: int) -> None:
        """A write under a lease has landed: nobody else may write under its epoch, nor after a takeover's stamp."""
        owner = self.writers.setdefault((collection, slot, epoch), process.name)
        if owner != process.name:
            self.blame(f"{owner} and {process.name} both wrote in slot {slot} under epoch {epoch}")
        if epoch < self.stamped.get(slot, 0):
            self.blame(f"a write of {process.name} under epoch {epoch} landed after {self.stamped[slot]} was stamped")

    def stored(self) -> dict[str, dict[str, Found]]:
        """The documents of the service, by collection and id."""
        return {name: {id: each.get(id) for id in each.texts} for name, each in self.collections.items()}

    def close(self) -> None:
        """Let go of coroutines that are not through."""
        for process in self.processes.values():
            for thread in process.threads:
                thread.coroutine.close()


# -- a process's connections, which note what it is told ----------------------------------------------------


class _SeenClock(FrozenClock):
    """The stage's clock. Domain time stands still in a play; what is read of the monotonic time is noted."""

    def __init__(self, process: Process) -> None:
        super().__init__(START)
        self._process = process
        self.noting = True

    def now(self) -> datetime:
        return self._process.stage.clock.now()

    def real(self) -> datetime:
        return self._process.stage.clock.real()

    def monotonic(self) -> float:
        now = self._process.stage.clock.monotonic()
        if self.noting:
            self._process.saw("monotonic", now)
        return now


class _SeenLeases(Leases):
    """Notes what the lease allows instead of the time it was asked at: times that allow the same are the same."""

    def __init__(self, process: Process, document: type[Document], busy: Callable[[int], bool]) -> None:
        collection = document.collection
        super().__init__(
            process.store,
            process.clock,
            f"{SERVICE}.{collection}",
            collection,
            process.name,
            lease=LEASE,
            margin=MARGIN,
            busy=busy,
        )
        self._process = process

    def holds(self) -> bool:
        return self._noted(super().holds)

    def may_call(self) -> bool:
        return self._noted(super().may_call)

    def _noted(self, ask: Callable[[], bool]) -> bool:
        clock = self._process.clock
        clock.noting = False
        answer = ask()
        clock.noting = True
        self._process.saw(answer)
        return answer


class _SeenStore(MemoryStore):
    """The stage's store, as one process sees it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.stage.collections, gate=process.gate)
        self._process = process

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        found = await super().load(collection, ids)
        self._process.saw("load", found)
        return found

    async def find(
        self,
        collection: str,
        conditions: Conditions,
        *,
        sort: str = "_id",
        limit: int = 1000,
        fields: Sequence[str] | None = None,
    ) -> list[Found]:
        found = await super().find(collection, conditions, sort=sort, limit=limit, fields=fields)
        self._process.saw("find", found)
        return found

    def _write_one(self, stored: Collection, write: Write) -> Outcome | Unstorable:
        outcome = super()._write_one(stored, write)
        self._process.saw("write", outcome)
        if outcome is Outcome.WON and write.epoch is not None:
            name = next(name for name, each in self.collections.items() if each is stored)
            self._process.stage.fenced(self._process, name, stored.get(write.id)["slot"], write.epoch)
        return outcome

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime, queue: str = "") -> set[int]:
        done = await super().stamp(collection, slots, until, queue)
        stamped = self._process.stage.stamped
        for document in map(self._of(collection).get, self._of(collection).texts):
            slot, due = document["slot"], document.get("due")
            if slot in slots and due is not None and due <= until:
                stamped[slot] = max(stamped.get(slot, 0), slots[slot])
        return done


class _FineBus(MemoryBus):
    """The stage's bus, as one process sees it. A batch goes out message by message, and others come in between."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.stage.broker, gate=process.gate, refuses=self._refused, running=False)
        self.process = process
        self._lost = False

    def _refused(self, message: Message) -> bool:
        self._lost = self.process.variant is Variant.UNACKNOWLEDGED
        return self.process.variant is Variant.REFUSED

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailed | None]:
        results: list[PublishFailed | None] = []
        failed: set[tuple[str, str]] = set()
        for message in messages:
            if (message.topic, message.key) in failed:
                results.append(PublishFailed("not sent"))
                continue
            (result,) = await super().publish([message])
            if result is None and self._lost:
                result = PublishFailed("not acknowledged")
            if result is not None:
                failed.add((message.topic, message.key))
            results.append(result)
        return results

    def _fetch(self, subscription: _Subscription) -> list[Record]:
        records = super()._fetch(subscription)
        self.process.saw("fetch", subscription.generation, [(record.topic, record.offset) for record in records])
        return records

    async def step(self, name: str, *, max_records: int | None = None) -> int:
        committed = await super().step(name, max_records=max_records)
        self.process.saw("committed", committed)
        return committed


# -- the search ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fork:
    """A state on the way that is being looked at, and how many of its choices are done."""

    state: State
    choices: list[Choice]
    at: int = 0
    ways: int = 0


@dataclass(frozen=True, slots=True)
class Explored:
    """How much there was: interleavings (ways through the choices to an end), different states, different ends."""

    interleavings: int
    states: int
    ends: int

    def __str__(self) -> str:
        return f"{self.interleavings:,} interleavings, {self.states:,} states, {self.ends:,} ends"


Scene = Callable[[Stage], None]
"""Sets a stage: processes, what each is about to do, what must hold, how things are put in order at the end."""


def explore(scene: Scene) -> Explored:
    """Try every choice there is on the stage that ``scene`` sets. Raises Violated at the first that breaks a promise.

    ``scene`` must set the same stage each time: nothing in it may depend on chance or on an earlier play.
    """
    try:
        return _Search(scene).run()
    finally:
        asyncio._set_running_loop(None)


class _Search:
    """One exploration, depth first: the way to where it is, and what is known of the states behind it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._path: list[_Fork] = []
        self._ways: dict[Key, int] = {}
        self._effects: dict[Cause, Effect] = {}
        self._shared: dict[bytes, Shared] = {}
        self._ready: dict[tuple[str, bytes], list[tuple[int, str]]] = {}
        self._ended: set[bytes] = set()
        self._before: Sequence[Shared] = ()
        self._calm: Stage | None = None
        """A stage where nobody does anything, for what happens to a process and not in it."""
        self._stages: dict[str, tuple[Stage, list[tuple[bytes, Choice]]]] = {}
        """By process the stage where it was played last, and its steps there."""

    def run(self) -> Explored:
        """Until there is no choice left that was not tried."""
        try:
            return self._run()
        except Astray:
            raise
        except Exception as error:
            raise Violated(f"{type(error).__name__}: {error}\n  " + "\n  ".join(self._told())) from error
        finally:
            for stage, _ in self._stages.values():
                stage.close()

    def _run(self) -> Explored:
        found = self._enter(self._first())
        while self._path:
            fork = self._path[-1]
            if found is not None:
                fork.ways += found
                fork.at += 1
            if fork.at < len(fork.choices):
                found = self._enter(self._next(fork))
                continue
            self._path.pop()
            found = self._ways[fork.state.key] = fork.ways
        assert found is not None
        return Explored(found, len(self._ways), len(self._ended))

    def _first(self) -> State:
        stage = self._stage()
        self._before = stage.before
        state = State(self._keep(stage), {process.name: process.memory for process in stage.processes.values()})
        for process in stage.processes.values():
            self._ready[process.name, process.memory] = process.ready
        stage.close()
        return state

    def _stage(self, only: str | None = None) -> Stage:
        stage = Stage(only, self._before)
        self._scene(stage)
        stage.begin()
        return stage

    def _enter(self, state: State) -> int | None:
        """Come to a state. Returns how many ways lead on from it, None where that is still to be found out."""
        if state.key in self._ways:
            return self._ways[state.key]
        choices = self._choices(state)
        if choices:
            self._path.append(_Fork(state, choices))
            return None
        if state.shared not in self._ended:
            self._end(state)
        self._ways[state.key] = 1
        return 1

    def _choices(self, state: State) -> list[Choice]:
        """Everything that may happen next."""
        shared = self._shared[state.shared]
        found: list[Choice] = []
        crashes: list[Choice] = []
        for name, memory in state.memories.items():
            ready = self._ready[name, memory]
            for number, gate in ready:
                found.append((name, number, Variant.GO))
                if gate == "bus.publish" and shared.failures:
                    found.append((name, number, Variant.REFUSED))
                    found.append((name, number, Variant.UNACKNOWLEDGED))
            if ready:
                crashes.append((name, 0, Variant.CRASH))
        if found and shared.ticks:
            found.append(("time", 0, Variant.PASS))
        return found + crashes

    def _next(self, fork: _Fork) -> State:
        """The state that the choice at hand leads to, played where that is not known."""
        choice = fork.choices[fork.at]
        cause = (choice, fork.state.shared, fork.state.memories.get(choice[0], b""))
        if cause not in self._effects:
            self._effects[cause] = self._play(fork.state, choice)
        return fork.state.after(choice, self._effects[cause])

    def _play(self, state: State, choice: Choice) -> Effect:
        """Have a choice happen where it is known what is shared."""
        name, _, variant = choice
        if variant in (Variant.PASS, Variant.CRASH):
            if self._calm is None:
                self._calm = self._stage(NOBODY)
            self._calm.restore(self._shared[state.shared])
            self._calm.take(choice)
            return self._keep(self._calm), GONE
        stage = self._stage_of(name)
        process = stage.processes[name]
        if process.memory != state.memories[name]:
            raise Astray(f"{name} at {choice}")
        stage.restore(self._shared[state.shared])
        stage.take(choice)
        stage.judge()
        self._stages[name][1].append((state.shared, choice))
        self._ready.setdefault((name, process.memory), process.ready)
        return self._keep(stage), process.memory

    def _stage_of(self, name: str) -> Stage:
        """A stage on which a process was brought to where it is, by its own steps on the way here."""
        steps = [(f.state.shared, f.choices[f.at]) for f in self._path[:-1] if f.choices[f.at][0] == name]
        stage, played = self._stages.pop(name, (None, []))
        if stage is None or played != steps[: len(played)]:
            if stage is not None:
                stage.close()
            stage, played = self._stage(name), []
        for shared, step in steps[len(played) :]:
            stage.restore(self._shared[shared])
            stage.take(step)
        self._stages[name] = (stage, steps)
        return stage

    def _keep(self, stage: Stage) -> bytes:
        shared = stage.shared()
        digest = shared.digest()
        self._shared.setdefault(digest, shared)
        return digest

    def _end(self, state: State) -> None:
        """Nobody is left: put in order what they shared, and look at it."""
        stage = self._stage(NOBODY)
        stage.restore(self._shared[state.shared])
        stage.end()
        stage.close()
        self._ended.add(state.shared)

    def _told(self) -> list[str]:
        """How it came to where the search is."""
        lines = []
        for fork in self._path:
            name, number, variant = fork.choices[fork.at]
            gates = dict(self._ready.get((name, fork.state.memories.get(name, b"")), []))
            lines.append(" ".join(part for part in (f"{name}.{number}", gates.get(number, ""), variant) if part))
        return lines
