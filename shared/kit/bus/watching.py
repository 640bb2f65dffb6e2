"""Looks at topics from outside every group, by a connection of its own: do they hold what a group has not read yet?

A client that hangs cannot be asked whether it hangs, and a broker may tell an end that is a batch low: so the records
themselves are looked for, one a partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.kit.bus import desk
from shared.kit.bus.security import Access

_WAIT_MS = 300
"""How long a record is waited for; where none is there, the broker answers as late as that."""

_REST_MS = 50
"""How long those of other partitions are waited for then: most came in the same answer."""

_MOST_BYTES = 4 * 1024 * 1024
"""A look reads the batch in which the record stands, of a few partitions at a time."""


@dataclass(frozen=True, slots=True)
class Unread:
    """How many records stand on a partition from a position on, and since when the first of them."""

    records: int
    since: datetime | None


class Watch:
    """One observer of a broker. Any failure is a KafkaError, OSError or TimeoutError; the next look connects anew."""

    def __init__(self, access: Access, request_timeout: float) -> None:
        self._access = replace(access, client_id=f"{access.client_id}-watch")
        self._request_timeout = request_timeout
        self._consumer: Any = None

    async def unread(self, places: Mapping[TopicPartition, int], busy: Iterable[TopicPartition]) -> dict[Any, Unread]:
        """What stands on these partitions from these offsets on. Of those that are ``busy`` no record is looked for."""
        if not places:
            return {}
        try:
            async with asyncio.timeout(self._request_timeout):
                return await self._unread(places, set(places) - set(busy))
        except (KafkaError, OSError, TimeoutError):
            await self.close()
            raise

    async def _unread(self, places: Mapping[TopicPartition, int], asked: set[TopicPartition]) -> dict[Any, Unread]:
        consumer = await self._on(places)
        ends = await consumer.end_offsets(list(places))
        found = {place: Unread(max(0, ends[place] - offset), None) for place, offset in places.items()}
        for place in asked:
            consumer.seek(place, places[place])
        consumer.resume(*asked)
        try:
            left = set(asked)
            patience = _WAIT_MS
            while left and (records := await consumer.getmany(*left, timeout_ms=patience, max_records=1)):
                for place, (record,) in records.items():
                    since = datetime.fromtimestamp(record.timestamp / 1000, UTC) if record.timestamp > 0 else None
                    found[place] = Unread(max(1, ends[place] - record.offset), since)
                    left.discard(place)
                patience = _REST_MS
        finally:
            consumer.pause(*asked)
        return found

    async def _on(self, places: Mapping[TopicPartition, int]) -> Any:
        """A consumer that may read these partitions, and reads none until it is told to."""
        if self._consumer is None:
            self._consumer = self._made(None)
            await self._consumer.start()
        known = self._consumer.assignment()
        if not known.issuperset(places):
            self._consumer.assign([*known, *(place for place in places if place not in known)])
            self._consumer.pause(*self._consumer.assignment())
        return self._consumer

    def _made(self, group: str | None) -> Any:
        return AIOKafkaConsumer(
            **self._access.options(),
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=_WAIT_MS // 2,
            fetch_max_bytes=_MOST_BYTES,
            request_timeout_ms=int(self._request_timeout * 1000),
        )

    async def committed(self, group: str, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """What a group has committed on all partitions of these topics, without being a member of it."""
        consumer = self._made(group)
        try:
            async with asyncio.timeout(self._request_timeout):
                there = await desk.partitions(self._access, topics)
                places = [TopicPartition(topic, part) for topic, parts in there.items() for part in parts]
                await consumer.start()
                consumer.assign(places)
                return {place: await consumer.committed(place) or 0 for place in places}
        finally:
            await desk.parted(consumer.stop())

    async def close(self) -> None:
        """Let go of the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await desk.parted(consumer.stop())


async def cut(consumer: Any) -> None:
    """Close a consumer's connections under it: what it waits for fails at once, and it can be stopped.

    Stopping alone would wait for answers over the very connections that hang. The library has no name for this.
    """
    client = getattr(consumer, "_client", None)
    if client is not None:
        await desk.parted(client.close())
