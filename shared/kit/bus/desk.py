"""What a broker tells whoever asks, a member of no group: topics as they are, and how far a group has read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.kit.bus.port import Place, ReadFailed, Topic


@asynccontextmanager
async def _asking(servers: str, client_id: str, group: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A client that may ask what a group has committed. It subscribes to nothing, so that it never becomes a member."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, client_id=client_id, group_id=group, enable_auto_commit=False
    )
    try:
        await consumer.start()
        yield consumer
    except (KafkaError, OSError) as error:
        raise ReadFailed(type(error).__name__) from error
    finally:
        await consumer.stop()


async def since(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], at: datetime
) -> dict[TopicPartition, int]:
    """The offset of the first record at or after a time, of each partition that has one.

    Kafka gives no offset where there is none; Tansu gives offset 0 with a timestamp below 0.
    """
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(at.timestamp() * 1000)))
    return {part: first.offset for part, first in found.items() if first is not None and first.timestamp >= 0}


async def standing(servers: str, client_id: str, group: str, topics: Sequence[str], at: datetime) -> list[Place]:
    """How far a group has read topics, partition by partition; see ``Bus.standing``."""
    async with _asking(servers, client_id, group) as consumer:
        there = await consumer.topics()
        wanted = [topic for topic in topics if topic in there]
        parts = [TopicPartition(t, p) for t in wanted for p in sorted(consumer.partitions_for_topic(t) or ())]
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


async def described(servers: str, client_id: str, topics: Sequence[str]) -> list[Topic]:
    """Those of these topics that there are; see ``Bus.described``."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, client_id=client_id)
    try:
        await admin.start()
        there = set(await admin.list_topics())
        wanted = [topic for topic in topics if topic in there]
        told = await admin.describe_topics(wanted) if wanted else []
    except (KafkaError, OSError) as error:
        raise ReadFailed(type(error).__name__) from error
    finally:
        await admin.close()
    return [
        Topic(
            each["topic"],
            len(each["partitions"]),
            min((len(part["replicas"]) for part in each["partitions"]), default=0),
        )
        for each in told
    ]
