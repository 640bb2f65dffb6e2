"""What a broker tells whoever asks, a member of no group: topics as they are, and how far a group has read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.kit.bus.port import Place, ReadFailed, Topic
from shared.kit.bus.security import Access

_PARTING = 2.0
"""Seconds that a connection may take to end: to a broker that hangs, TLS would wait half a minute for its goodbye."""


@asynccontextmanager
async def _asking(access: Access, group: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A client that may ask what a group has committed. It subscribes to nothing, so that it never becomes a member."""
    consumer = AIOKafkaConsumer(**access.options(), group_id=group, enable_auto_commit=False)
    try:
        await consumer.start()
        yield consumer
    finally:
        await parted(consumer.stop())


async def parted(ending: Awaitable[None]) -> None:
    """Wait for the end of a connection, and no longer than that of one that hangs is worth."""
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(ending, _PARTING)


@contextmanager
def answering() -> Iterator[None]:
    """Raises ReadFailed for what a client of the broker raises inside."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise ReadFailed(type(error).__name__) from error


async def since(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], at: datetime
) -> dict[TopicPartition, int]:
    """The offset of the first record at or after a time, of each partition that has one.

    Kafka gives no offset where there is none; Tansu gives offset 0 with a timestamp below 0.
    """
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(at.timestamp() * 1000)))
    return {part: first.offset for part, first in found.items() if first is not None and first.timestamp >= 0}


async def standing(access: Access, group: str, topics: Sequence[str], at: datetime) -> list[Place]:
    """How far a group has read topics, partition by partition; see ``Bus.standing``."""
    with answering():
        there = await partitions(access, topics)
        parts = [TopicPartition(topic, part) for topic in there for part in there[topic]]
        return await _standing(access, group, parts, at)


async def _standing(access: Access, group: str, parts: Sequence[TopicPartition], at: datetime) -> list[Place]:
    async with _asking(access, group) as consumer:
        begins, ends = await consumer.beginning_offsets(parts), await consumer.end_offsets(parts)
        firsts = await since(consumer, parts, at)
        found = []
        for part in parts:
            committed = await consumer.committed(part)
            found.append(
                Place(
                    part.topic,
                    part.partition,
                    begins[part],
                    ends[part],
                    begins[part] if committed is None else committed,
                    firsts.get(part, ends[part]),
                )
            )
        return found


async def described(access: Access, topics: Sequence[str]) -> list[Topic]:
    """Those of these topics that there are; see ``Bus.described``."""
    with answering():
        told = await _told(access, topics)
    return [
        Topic(name, len(parts), min((len(part["replicas"]) for part in parts), default=0))
        for name, parts in told.items()
    ]


async def partitions(access: Access, topics: Iterable[str]) -> dict[str, list[int]]:
    """The partitions of those of these topics that there are. Raises KafkaError or OSError.

    A consumer tells them too, of its own topics; of others only if it has happened to hear of them.
    """
    told = await _told(access, topics)
    return {name: sorted(part["partition"] for part in parts) for name, parts in told.items()}


async def _told(access: Access, topics: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """What the broker tells of each of these topics' partitions, in the order of the topics."""
    admin = AIOKafkaAdminClient(**access.options())
    try:
        await admin.start()
        # Of all topics: a broker may make one that it is asked for by name.
        told = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
    finally:
        await parted(admin.close())
    return {name: told[name] for name in topics if name in told}
