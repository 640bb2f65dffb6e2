"""A consumer group's way through a batch: what cannot be read or applied is parked with what follows under its key.

What is done with its events is a subclass's: decisions (``shared.kit.engine``) or calls (``shared.kit.performing``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

from shared.contracts.base import Event
from shared.kit import metrics
from shared.kit.bus.envelope import Received, Unreadable, Unwanted, read
from shared.kit.bus.port import Record, client_id
from shared.kit.parking import WAITS, Parking, parking_key, shown_key
from shared.kit.store.repository import NewerShape, Repository
from shared.kit.telemetry import Telemetry, log

_FREE_FOR = 1.0
"""Seconds for which it is taken as known that nothing waits under any key."""

Poisoned = list[tuple[Record, str]]
"""Records that cannot be applied, and those held back behind them, each with its reason; in order under each key."""


class Reader(ABC):
    """One consumer group of this process, and the events that it wants of its topics."""

    def __init__(
        self, group: str, events: Iterable[type[Event]], repository: Repository, parking: Parking, telemetry: Telemetry
    ) -> None:
        self.group = group
        self._told = {metrics.SYSTEM: "kafka", metrics.OPERATION: "process", metrics.GROUP: group}
        self.in_work = 0
        self._asked_at = float("-inf")
        self._assignment = 0
        self._free = False
        """Whether nothing waited under any key when that was asked last, and this process has parked nothing since."""
        self._repository = repository
        self._parking = parking
        self._telemetry = telemetry
        self._wanted = {event.type: event for event in events}
        self.topics = tuple(sorted({event.topic for event in self._wanted.values()}))

    @abstractmethod
    async def apply(self, received: Sequence[Received]) -> Poisoned:
        """Do what these events ask for; returns what could not be done. Raises StoreUnavailable."""

    async def handle(self, batch: Sequence[Record]) -> None:
        """Take a batch in: every event is applied, ignored or parked when this returns.

        Raises StoreUnavailable where the store failed; nothing is parked for that, and the batch may be given again.
        """
        self.in_work = len(batch)
        clock = self._repository.clock
        began = clock.monotonic()
        failed: dict[str, str] = {}
        try:
            await self._handle(batch)
        except Exception as error:
            failed = {metrics.ERROR: type(error).__name__}
            if isinstance(error, NewerShape):
                self._repository.behind = True
            raise
        finally:
            self.in_work = 0
            self._telemetry.processed.record(clock.monotonic() - began, {**self._told, **failed})

    def messaging(self, record: Record) -> dict[str, str | int | float | bool]:
        """What a span of work on a record says of it, by OpenTelemetry's conventions for messaging."""
        return {
            **self._told,
            metrics.OPERATION_TYPE: "process",
            metrics.DESTINATION: record.topic,
            metrics.CLIENT: client_id(self.group.partition(".")[0]),
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }

    async def replay(self, record: Record) -> str | None:
        """Apply one parked record; None where it is done with, or the reason why it still is poison."""
        item = read(record, self._wanted)
        if isinstance(item, Unwanted):
            return None
        if isinstance(item, Unreadable):
            return item.reason
        return next((reason for _, reason in await self.apply([item])), None)

    def reassigned(self) -> None:
        """Others may have read, and parked, what this process is handed from now on."""
        self._assignment += 1
        self._asked_at = float("-inf")

    async def _waiting(self, items: Sequence[Received | Unreadable]) -> set[str]:
        """Under which keys of these records events wait; not asked of each batch while nothing waits at all.

        What another process parks of a topic that only it reads may hold back a key here ``_FREE_FOR`` seconds late:
        topics have no order among each other.
        """
        now = self._repository.clock.monotonic()
        if now - self._asked_at >= _FREE_FOR:
            assignment = self._assignment
            self._free = not await self._parking.any(self.group)
            if assignment == self._assignment:
                self._asked_at = now
        if self._free:
            return set()
        return await self._parking.parked(self.group, {parking_key(item.record) for item in items})

    async def _handle(self, batch: Sequence[Record]) -> None:
        items = [item for record in batch if not isinstance(item := read(record, self._wanted), Unwanted)]
        if not items:
            return
        for topic, count in Counter(item.record.topic for item in items).items():
            self._telemetry.consumed.add(count, {**self._told, metrics.OPERATION: "poll", metrics.DESTINATION: topic})
        parked = await self._waiting(items)
        aside: dict[str, Poisoned] = {}
        wanted: list[Received] = []
        for item in items:
            key = parking_key(item.record)
            if key in parked or key in aside:
                aside.setdefault(key, []).append((item.record, WAITS))
            elif isinstance(item, Unreadable):
                aside[key] = [(item.record, item.reason)]
            else:
                wanted.append(item)
        poisoned: dict[str, Poisoned] = {}
        refused = await self.apply(wanted)
        if wanted:
            oldest = min(item.time for item in wanted)
            late = (self._repository.clock.now() - oldest).total_seconds()
            self._telemetry.latency.record(max(0.0, late), {metrics.DOOR: "reactions", metrics.GROUP: self.group})
        for record, reason in refused:
            poisoned.setdefault(parking_key(record), []).append((record, reason))
        for key, records in poisoned.items():
            aside.setdefault(key, [])[:0] = records  # What was to be applied stood before what was set aside unread.
        for key, records in aside.items():
            self._free = False
            await self._parking.append(self.group, key, records)
            self._telemetry.parked.add(len(records), {metrics.GROUP: self.group})
            log.warning("key.parked", group=self.group, key=shown_key(key), events=len(records), reason=records[0][1])
