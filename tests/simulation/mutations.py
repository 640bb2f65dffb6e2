"""The kit with one guarantee switched off: each must make some seed fail, or the simulation would prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shared.kit.bus.envelope import Received
from shared.kit.bus.port import Message, PublishFailed, Record
from shared.kit.bus.publisher import Publisher
from shared.kit.commands import Commands
from shared.kit.document import Document, derived_id
from shared.kit.duework import DueWorker
from shared.kit.engine import Reactor
from shared.kit.jobs import Call, Job
from shared.kit.leases import Leases
from shared.kit.parking import Parking
from shared.kit.reading import Reader
from shared.kit.store.port import StoreUnavailable, Write
from shared.kit.store.repository import Repository, Unsent
from shared.kit.testing.memory_bus import MemoryBus
from shared.kit.testing.memory_store import Collection, MemoryStore

Mutation = Callable[[], Any]


@contextmanager
def replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` for a while."""
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def unconditional_writes() -> Any:
    """1: a change is written whatever version stands."""
    right = MemoryStore._write_one

    def write_one(self: MemoryStore, stored: Collection, write: Write) -> Any:
        if write.expected is not None and write.id in stored.texts:
            write = Write(write.id, stored.get(write.id)["version"], write.set, write.push, None)
        return right(self, stored, write)

    return replaced(MemoryStore, "_write_one", write_one)


def events_apart_from_state() -> Any:
    """1: events are handed to the publisher alone, not kept in the document with the change."""
    right = Repository.stage

    def stage(self: Repository, held: Any, epoch: int | None = None, queue: str = "") -> Write | None:
        write = right(self, held, epoch, queue)
        if write is None or not write.push:
            return write
        kept = {name: value for name, value in write.set.items() if name != "unsent"}
        return _Apart(write.id, write.expected, kept, write.push, write.epoch, write.drop, write.queue)

    right_write = MemoryStore._write_one

    def write_one(self: MemoryStore, stored: Collection, write: Write) -> Any:
        if isinstance(write, _Apart):
            write = Write(write.id, write.expected, write.set, (), write.epoch, write.drop, write.queue)
        return right_write(self, stored, write)

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(Repository, "stage", stage), replaced(MemoryStore, "_write_one", write_one):
            yield

    return both()


class _Apart(Write):
    """A write whose events do not go with it."""


def answers_are_not_kept() -> Any:
    """1: an idempotency key's answer is not part of the write."""
    return replaced(Commands, "_remember", lambda self, document, request, status, body: None)


def publishing_goes_on_after_a_failure() -> Any:
    """2: events behind a failed one are sent."""

    async def publish(self: MemoryBus, messages: Sequence[Message]) -> list[PublishFailed | None]:
        await self._gate("bus.publish")
        results: list[PublishFailed | None] = []
        for message in messages:
            if self._refuses(message):
                results.append(PublishFailed("refused"))
            else:
                self.broker.append(message)
                results.append(None)
        await self._gate("bus.published")
        return results

    return replaced(MemoryBus, "publish", publish)


def only_new_events_are_published() -> Any:
    """2: a publisher sends what this write recorded, not the whole outbox."""
    right = Publisher.offer

    def offer(self: Publisher, unsent: Unsent) -> None:
        right(self, Unsent(unsent.collection, unsent.id, unsent.entries[-1:]))

    return replaced(Publisher, "offer", offer)


def the_outbox_is_emptied_whole() -> Any:
    """2: an acknowledgement takes out more than was acknowledged."""

    async def sent(self: MemoryStore, collection: str, published: Sequence[tuple[str, int]]) -> None:
        await self._gate("store.sent")
        for id, _ in published:
            document = self._of(collection).get(id)
            document["outbox"] = []
            document.pop("unsent", None)
            self._of(collection).put(document)

    return replaced(MemoryStore, "sent", sent)


def nobody_sweeps() -> Any:
    """2: what could not be published at once is left."""

    async def sweep(self: DueWorker) -> int:
        return 0

    return replaced(DueWorker, "sweep", sweep)


def marks_are_forgotten() -> Any:
    """3: what was applied is applied again."""
    return replaced(Received, "mark", property(lambda self: f"{id(self)}"))


def created_ids_are_random() -> Any:
    """3: a document that a request creates has an id of its own each time."""
    from shared.kit import api

    right = api.CallContext.new_id
    numbers = iter(range(10**9))

    def new_id(self: Any, kind: str) -> str:
        right(self, kind)
        return derived_id(kind, str(next(numbers)))

    return replaced(api.CallContext, "new_id", new_id)


def losers_are_dropped() -> Any:
    """4: who loses a version race is not decided again."""
    right = Reactor._write

    async def write(self: Reactor, round: Any, careful: bool) -> Any:
        await right(self, round, careful)
        return [], careful

    return replaced(Reactor, "_write", write)


def commits_come_first() -> Any:
    """4: a batch is committed before it is done."""
    right = MemoryBus.step

    async def step(self: MemoryBus, name: str, *, max_records: int | None = None) -> int:
        subscription = self._subscriptions[name]
        for record in self._fetch(subscription)[: max_records or subscription.max_records]:
            subscription.next[record.topic, record.partition] = record.offset
        return await _handled_late(self, name, max_records)

    async def _handled_late(self: MemoryBus, name: str, max_records: int | None) -> int:
        subscription = self._subscriptions[name]
        handler = subscription.handler

        async def after(records: Sequence[Record]) -> None:
            group = self.broker.groups[name]
            for record in records:
                group.committed[record.topic, record.partition] = record.offset + 1
            await handler(records)

        subscription.handler = after
        try:
            return await right(self, name, max_records=max_records)
        finally:
            subscription.handler = handler

    return replaced(MemoryBus, "step", step)


def store_failures_park() -> Any:
    """4: a batch that the store failed is parked instead of given back."""
    right = Reactor.handle

    async def handle(self: Reactor, batch: Sequence[Record]) -> None:
        try:
            await right(self, batch)
        except StoreUnavailable:
            for record in batch:
                await self._parking.append(self.group, (record.key or b"").decode(), [(record, "store")])

    return replaced(Reader, "handle", handle)


def parked_keys_go_on() -> Any:
    """5: events behind a parked one are applied."""

    async def parked(self: Parking, group: str, keys: Any) -> set[str]:
        return set()

    return replaced(Parking, "parked", parked)


def timers_die_with_the_process() -> Any:
    """6: a timer is taken off when its call is intended, so nobody finds the attempt of a worker that died."""
    right = DueWorker._fire_one

    async def fire_one(self: DueWorker, work: Any, document: Any, row: Job, *rest: Any) -> Any:
        decided = await right(self, work, document, row, *rest)
        if isinstance(row, Call) and work.calls:
            decided.rest(row.name)
        return decided

    return replaced(DueWorker, "_fire_one", fire_one)


def everybody_holds_every_lease() -> Any:
    """6: slots are not leased: each worker takes all due work for its own."""
    return replaced(Leases, "slots", property(lambda self: _Everything()))


class _Everything(dict[int, int]):
    """Every slot, at an epoch above all."""

    def __contains__(self, slot: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


def leases_are_not_asked() -> Any:
    """6: no lease, no epoch, no fence."""

    @contextmanager
    def all_of_it() -> Iterator[None]:
        with (
            everybody_holds_every_lease(),
            replaced(Leases, "epoch", lambda self, slot: 1_000_000),
            replaced(Leases, "may_call", lambda self: True),
        ):
            yield

    return all_of_it()


def attempts_are_made_anew() -> Any:
    """7: a call whose worker died is made again under another key."""
    right = DueWorker._fire_one

    async def fire_one(self: DueWorker, work: Any, document: Any, row: Job, *rest: Any) -> Any:
        if isinstance(row, Call):
            document.abandon(row.name)
        return await right(self, work, document, row, *rest)

    return replaced(DueWorker, "_fire_one", fire_one)


def lost_answers_count_as_refusals() -> Any:
    """7: a call that was not answered is simply made again, though the other side may have taken it."""
    right = Document.intend

    def intend(self: Document, timer: str, now: Any) -> Any:
        attempt = right(self, timer, now)
        attempt.id = derived_id(attempt.id, str(self.version))
        return attempt

    right_fire = DueWorker._fire_one

    async def fire_one(self: DueWorker, work: Any, document: Any, row: Job, *rest: Any) -> Any:
        if isinstance(row, Call) and row.name in document.attempts:
            self._not_made.add((document.attempts[row.name].id, work.epoch))
        return await right_fire(self, work, document, row, *rest)

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(Document, "intend", intend), replaced(DueWorker, "_fire_one", fire_one):
            yield

    return both()


MUTATIONS: tuple[Mutation, ...] = (
    unconditional_writes,
    events_apart_from_state,
    answers_are_not_kept,
    publishing_goes_on_after_a_failure,
    only_new_events_are_published,
    the_outbox_is_emptied_whole,
    nobody_sweeps,
    marks_are_forgotten,
    created_ids_are_random,
    losers_are_dropped,
    commits_come_first,
    store_failures_park,
    parked_keys_go_on,
    timers_die_with_the_process,
    leases_are_not_asked,
    attempts_are_made_anew,
    lost_answers_count_as_refusals,
)
