"""The bus in memory: topics of partitions, consumer groups that rebalance, the same promises as the real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.kit.bus.kafka import partition_of
from shared.kit.bus.port import (
    Batch,
    GoingBack,
    Handler,
    Lag,
    Message,
    Place,
    Positions,
    PublishFailed,
    ReadFailed,
    Reassigned,
    Record,
    Topic,
    nobody,
)
from shared.kit.testing.memory_store import Gate

Refuses = Callable[[Message], bool]
"""Whether the broker refuses a message; for tests of failed publishing."""


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


async def _open(_: str) -> None:
    return None


@dataclass(slots=True)
class _Group:
    """A consumer group: who is in it, and how far it has committed."""

    members: list[MemoryBus] = field(default_factory=list)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    generation: int = 0
    topics: set[str] = field(default_factory=set)


class MemoryBroker:
    """What survives its clients: topics and the groups' committed positions. ``now`` dates what is appended."""

    def __init__(self, partitions: int = 3, now: Callable[[], datetime] = lambda: _LONG_AGO) -> None:
        self.partitions = partitions
        self.now = now
        self.appended_at: dict[tuple[str, int, int], datetime] = {}
        self.topics: dict[str, list[list[Record]]] = {}
        self.groups: dict[str, _Group] = {}
        self.clients: list[MemoryBus] = []
        self.appended = 0

    def topic(self, name: str) -> list[list[Record]]:
        """The partitions of a topic, made where they are missing."""
        found = self.topics.get(name)
        if found is None:
            found = self.topics[name] = [[] for _ in range(self.partitions)]
        return found

    def append(self, message: Message) -> Record:
        """Add a message to its key's partition."""
        partition = self.partition_of(message.key)
        log = self.topic(message.topic)[partition]
        record = Record(message.topic, partition, len(log), message.key.encode(), message.value, message.headers)
        log.append(record)
        self.appended_at[message.topic, partition, record.offset] = self.now()
        self.appended += 1
        for client in self.clients:
            client.arrived.set()
        return record

    def partition_of(self, key: str) -> int:
        """The partition that Kafka's own partitioner gives a key."""
        return partition_of(key, list(range(self.partitions)))

    def since(self, topic: str, partition: int, at: datetime) -> int:
        """The offset of the first record at or after a time; behind the last where there is none."""
        end = len(self.topic(topic)[partition])
        return next((offset for offset in range(end) if self.appended_at[topic, partition, offset] >= at), end)

    def rewind(self) -> None:
        """Have every group read every topic from its start again."""
        for group in self.groups.values():
            group.committed.clear()
            group.generation += 1
            for member in group.members:
                member.reset(group)

    def lag(self) -> int:
        """How many records wait to be read and committed, over all groups."""
        there = sum(len(log) for group in self.groups.values() for name in group.topics for log in self.topic(name))
        return there - sum(sum(group.committed.values()) for group in self.groups.values())


@dataclass(slots=True)
class _Subscription:
    name: str
    topics: tuple[str, ...]
    handler: Handler
    max_records: int
    reassigned: Reassigned = nobody
    generation: int = -1
    empty_at: int = -1
    """How many records the broker had when there was nothing to read."""
    next: dict[tuple[str, int], int] = field(default_factory=dict)
    order: GoingBack | None = None
    gone_back: set[str] = field(default_factory=set)


class MemoryBus:
    """One client of a MemoryBroker. ``running`` reads by itself; else a test calls ``step``."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        gate: Gate = _open,
        refuses: Refuses = lambda message: False,
        running: bool = True,
        backoff: float = 0.01,
    ) -> None:
        self.positions = Positions()
        self.arrived = asyncio.Event()
        self.broker = broker
        self._gate = gate
        self._refuses = refuses
        self._running = running
        self._backoff = backoff
        self._subscriptions: dict[str, _Subscription] = {}
        self._paused: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self._reading = False

    def topics_of(self, group: str) -> tuple[str, ...]:
        """The topics that this client reads for a group."""
        return self._subscriptions[group].topics if group in self._subscriptions else ()

    @property
    def groups(self) -> list[str]:
        """The groups that this client reads for."""
        return list(self._subscriptions)

    async def ensure(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing."""
        for topic in topics:
            self.broker.topic(topic)

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailed | None]:
        """Send the messages; after the first of a key that is refused, later ones of that key are not sent."""
        await self._gate("bus.publish")
        results: list[PublishFailed | None] = []
        stopped: set[tuple[str, str]] = set()
        for message in messages:
            if (message.topic, message.key) in stopped or self._refuses(message):
                stopped.add((message.topic, message.key))
                results.append(PublishFailed("refused"))
                continue
            record = self.broker.append(message)
            self.positions.published[f"{record.topic}:{record.partition}"] = record.offset + 1
            results.append(None)
        await self._gate("bus.published")
        return results

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        handler: Handler,
        *,
        max_records: int = 500,
        reassigned: Reassigned = nobody,
    ) -> None:
        """Have a consumer group read topics from their beginning."""
        self._subscriptions[group] = _Subscription(group, tuple(topics), handler, max_records, reassigned)

    def pause(self, group: str) -> None:
        """Read nothing more for a group."""
        self._paused.add(group)

    def resume(self, group: str) -> None:
        """Read on for a group."""
        self._paused.discard(group)
        self.arrived.set()

    def go_back(self, group: str, order: GoingBack | None) -> None:
        """Have this client's partitions of a group read again, before it reads on."""
        subscription = self._subscriptions[group]
        if order is None or subscription.order is None or subscription.order.number != order.number:
            subscription.gone_back = set()
        subscription.order = order
        subscription.gone_back |= order.done if order is not None else frozenset()
        self.arrived.set()

    def ordered(self, group: str) -> bool:
        """Whether this client follows an order to go back with a group."""
        return self._subscriptions[group].order is not None

    async def _heed(self, subscription: _Subscription) -> None:
        order, group = subscription.order, self.broker.groups[subscription.name]
        if order is None or self not in group.members:
            return
        for topic, partition in self._assigned(subscription):
            place = f"{topic}:{partition}"
            if place in subscription.gone_back:
                continue
            stands = group.committed.get((topic, partition), 0)
            offset = min(stands, self.broker.since(topic, partition, order.to))
            group.committed[topic, partition] = subscription.next[topic, partition] = offset
            subscription.empty_at = -1
            self.positions.consumed.setdefault(subscription.name, {})[place] = offset
            await order.moved(place, offset)
            subscription.gone_back.add(place)

    async def standing(self, group: str, topics: Sequence[str], at: datetime) -> list[Place]:
        """How far a group has read topics."""
        known = self.broker.groups.get(group)
        committed = known.committed if known is not None else {}
        return [
            Place(topic, n, 0, len(log), committed.get((topic, n), 0), self.broker.since(topic, n, at))
            for topic in topics
            if topic in self.broker.topics
            for n, log in enumerate(self.broker.topic(topic))
        ]

    async def described(self, topics: Sequence[str]) -> list[Topic]:
        """Those of these topics that there are."""
        return [Topic(topic, len(self.broker.topics[topic]), 1) for topic in topics if topic in self.broker.topics]

    async def history(self, topic: str, keys: Collection[str] | None = None) -> AsyncGenerator[Batch]:
        """All that stands on a topic, or on the partitions of these keys, a batch a partition."""
        if topic not in self.broker.topics:
            raise ReadFailed(f"there is no topic {topic}")
        wanted = None if keys is None else {self.broker.partition_of(key) for key in keys}
        for partition, log in enumerate(self.broker.topic(topic)):
            if log and (wanted is None or partition in wanted):
                yield list(log)

    async def start(self) -> None:
        """Join the groups; begin to read."""
        self._started = self._reading = True
        self.broker.clients.append(self)
        for name in self._subscriptions:
            group = self.broker.groups.setdefault(name, _Group())
            group.members.append(self)
            group.topics.update(self.topics_of(name))
            group.generation += 1
            if self._running:
                self._tasks.append(asyncio.ensure_future(self._read(name)))

    def vanish(self) -> None:
        """Be gone from the groups, as after a crash and a session timeout."""
        self._started = self._reading = False
        self._withdraw()

    def _withdraw(self) -> None:
        if self in self.broker.clients:
            self.broker.clients.remove(self)
        for name in self._subscriptions:
            group = self.broker.groups[name]
            if self in group.members:
                group.members.remove(self)
                group.generation += 1

    async def leave(self) -> None:
        """Finish the batches in work, and leave."""
        self._reading = False
        self.arrived.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._withdraw()

    async def stop(self) -> None:
        """Leave, and be no more."""
        await self.leave()
        self._started = False

    def healthy(self) -> bool:
        """Whether it was started."""
        return self._started

    def alive(self) -> bool:
        """Always."""
        return True

    def lag(self) -> list[Lag]:
        """How far the groups of this client are behind on the partitions that it reads."""
        return [
            self._lag_on(subscription, topic)
            for subscription in self._subscriptions.values()
            for topic in subscription.topics
        ]

    def _lag_on(self, subscription: _Subscription, topic: str) -> Lag:
        group = self.broker.groups.get(subscription.name)
        if group is None or self not in group.members:
            return Lag(subscription.name, topic, 0, None)
        records, since = 0, []
        for name, partition in self._assigned(subscription):
            log, committed = self.broker.topic(name)[partition], group.committed.get((name, partition), 0)
            if name == topic and committed < len(log):
                records += len(log) - committed
                since.append(self.broker.appended_at[topic, partition, committed])
        return Lag(subscription.name, topic, records, min(since, default=None))

    def reset(self, group: _Group) -> None:
        """Forget read positions: the group was rebalanced, or rewound."""
        for subscription in self._subscriptions.values():
            if self.broker.groups.get(subscription.name) is group:
                subscription.generation = -1

    def _assigned(self, subscription: _Subscription) -> list[tuple[str, int]]:
        group = self.broker.groups[subscription.name]
        places = [
            (topic, partition) for topic in subscription.topics for partition in range(len(self.broker.topic(topic)))
        ]
        mine = group.members.index(self)
        return [place for n, place in enumerate(places) if n % len(group.members) == mine]

    def waiting(self, group: str) -> bool:
        """Whether there is something for this client to read."""
        subscription = self._subscriptions[group]
        if group in self._paused:
            return False
        known = subscription.generation == self.broker.groups[group].generation
        return not (known and subscription.empty_at == self.broker.appended) and bool(self._fetch(subscription))

    def _fetch(self, subscription: _Subscription) -> list[Record]:
        group = self.broker.groups[subscription.name]
        if self not in group.members:
            return []
        if subscription.generation != group.generation:
            subscription.generation = group.generation
            subscription.next = {}
            subscription.reassigned()
        elif subscription.empty_at == self.broker.appended:
            return []
        records: list[Record] = []
        for topic, partition in self._assigned(subscription):
            start = subscription.next.get((topic, partition), group.committed.get((topic, partition), 0))
            room = subscription.max_records - len(records)
            records.extend(self.broker.topic(topic)[partition][start : start + room])
        subscription.empty_at = self.broker.appended if not records else -1
        return records

    async def step(self, name: str, *, max_records: int | None = None) -> int:
        """Read a batch, hand it over, commit. Returns how many records were committed; raises what the handler does."""
        subscription = self._subscriptions[name]
        await self._heed(subscription)
        if name in self._paused:
            return 0
        records = self._fetch(subscription)[: max_records or subscription.max_records]
        if not records:
            return 0
        generation = subscription.generation
        await self._gate("bus.fetched")
        await subscription.handler(records)
        await self._gate("bus.commit")
        group = self.broker.groups[name]
        if generation != group.generation or self not in group.members:
            return 0  # Rebalanced meanwhile: whoever has the partitions now reads them again.
        for record in records:
            group.committed[record.topic, record.partition] = record.offset + 1
            subscription.next[record.topic, record.partition] = record.offset + 1
        place = self.positions.consumed.setdefault(name, {})
        for record in records:
            place[f"{record.topic}:{record.partition}"] = record.offset + 1
        await self._gate("bus.committed")
        return len(records)

    async def _read(self, name: str) -> None:
        while self._reading:
            self.arrived.clear()
            try:
                if await self.step(name):
                    self.arrived.set()
                    continue
            except Exception:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), self._backoff)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.arrived.wait(), 0.05)
