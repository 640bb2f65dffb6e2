"""What the kit asks of a bus. Every adapter passes the suite in ``shared.kit.testing.bus_suite``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


class PublishFailed(Exception):
    """A message was not acknowledged: it may or may not be on the topic."""


class ReadFailed(Exception):
    """A topic could not be read to its end."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: keyed by the document's id, always."""

    topic: str
    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What arrives. Headers stay bytes: whether they can be read is the reader's business, not the consumer's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


Batch = Sequence[Record]
Handler = Callable[[Batch], Awaitable[None]]
"""Takes a whole batch. Returning commits it. Raising gives it back: it is handed in again, after a backoff."""

Reassigned = Callable[[], None]


def nobody() -> None:
    """Who does not mind which partitions it has."""


@dataclass(slots=True)
class Positions:
    """By ``topic:partition``: the offset after the newest published here, and per group the next one to read."""

    published: dict[str, int] = field(default_factory=dict)
    consumed: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one consumer group is behind on one topic, as far as this client reads it.

    ``records`` are still to be committed, the oldest of them stands on the topic since ``oldest``; None where nothing
    waits, or where that is not known.
    """

    group: str
    topic: str
    records: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """One partition, as the broker tells it of a group.

    ``begin`` and ``end`` are the offsets of the first record kept and behind the last, ``committed`` the group's next
    one to read, ``since`` the first record at or after the time that was asked about: ``end`` where there is none.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int
    since: int

    @property
    def name(self) -> str:
        """``topic:partition``."""
        return f"{self.topic}:{self.partition}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker has it; ``replication`` is the least of its partitions'."""

    name: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class GoingBack:
    """That a group is to read again from its first record at or after ``to``.

    ``number`` tells one order from another; ``done`` are the partitions that have gone back already, ``moved`` is told
    of each one more and of its new position, once that is committed.
    """

    number: int
    to: datetime
    done: frozenset[str]
    moved: Callable[[str, int], Awaitable[None]]


class Bus(Protocol):
    """A connection to the broker."""

    positions: Positions

    async def ensure(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing."""
        ...

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailed | None]:
        """Send the messages; for each, None once acknowledged, or why it was not.

        Messages of one key keep their order, also across failure: after the first that fails, later ones of the same
        key are not sent.
        """
        ...

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        handler: Handler,
        *,
        max_records: int = 500,
        reassigned: Reassigned = nobody,
    ) -> None:
        """Have a consumer group read topics from their beginning. To be called before ``start``.

        ``reassigned`` is called when this process has lost or got partitions of the group, or may have: before it is
        handed a record of one that it got.
        """
        ...

    def pause(self, group: str) -> None:
        """Read nothing more for a group until ``resume``; this process stays a member. Before ``subscribe``, too."""
        ...

    def resume(self, group: str) -> None:
        """Read on for a group, from where it stood."""
        ...

    def go_back(self, group: str, order: GoingBack | None) -> None:
        """Have this process's partitions of a group, now and as it gets more, read again; never forward, which loses.

        To be called after ``start``. Done between two batches; a newer order takes the place of an older, and None ends
        it: a partition that comes later is read on from where it stands.
        """
        ...

    async def standing(self, group: str, topics: Sequence[str], at: datetime) -> list[Place]:
        """How far a group has read those of these topics that there are, as the broker tells whoever asks.

        Needs no ``start``. Raises ReadFailed where the broker does not answer.
        """
        ...

    async def described(self, topics: Sequence[str]) -> list[Topic]:
        """Those of these topics that there are. Needs no ``start``. Raises ReadFailed."""
        ...

    def history(self, topic: str, keys: Collection[str] | None = None) -> AsyncGenerator[Batch]:
        """All that stands on a topic, from its beginning to its end as it is found, in order by partition.

        Of ``keys``, where given, all that stands on their partitions. In no group: nothing is committed, and no reader
        is disturbed. Needs no ``start``. What is published meanwhile may come too. Raises ReadFailed where the topic is
        missing or its end cannot be reached.
        """
        ...

    async def start(self) -> None:
        """Connect; begin to read what was subscribed."""
        ...

    async def leave(self) -> None:
        """Read no more: finish the batches in work, commit them, leave the groups. What is published still goes out."""
        ...

    async def stop(self) -> None:
        """Leave the groups, if that was not done, and disconnect."""
        ...

    def healthy(self) -> bool:
        """Whether it is connected, and each group that was subscribed reads."""
        ...

    def alive(self) -> bool:
        """Whether its readers get on: False where one stands still before unread records and could not be helped."""
        ...

    def lag(self) -> Sequence[Lag]:
        """How far the groups of this client are behind, as it was last looked at; one entry a group and topic."""
        ...


def client_id(service: str) -> str:
    """What a service's processes call themselves to the broker."""
    return f"carerelay-{service}"


def headers_of(pairs: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """Headers as they go on the wire."""
    return tuple((name, value.encode()) for name, value in pairs.items())
