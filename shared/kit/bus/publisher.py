"""Publishes outboxes: every acknowledged write's events, oldest first, at once; what fails is left to the sweeper.

Without it events would sit in their documents until swept. If it sent past a failed event, the failed one would come
behind its readers' high-water mark and be lost to them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from shared.kit import metrics
from shared.kit.bus.envelope import message_of
from shared.kit.bus.port import Bus, Message, PublishFailed
from shared.kit.store.port import Store, StoreUnavailable
from shared.kit.store.repository import Unsent
from shared.kit.telemetry import Telemetry, log, where_raised


class Publisher:
    """Sends what repositories hand over. Bounded: what finds no place waits in its document for the sweeper."""

    def __init__(self, service: str, store: Store, bus: Bus, telemetry: Telemetry, *, limit: int = 10_000) -> None:
        self._service = service
        self._store = store
        self._bus = bus
        self._telemetry = telemetry
        self._limit = limit
        self._waiting: dict[tuple[str, str], Unsent] = {}
        self._wanted = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.in_work = 0

    @property
    def waiting(self) -> int:
        """Documents whose events are still to be sent or acknowledged here."""
        return len(self._waiting) + self.in_work

    def offer(self, unsent: Unsent) -> None:
        """Take a document's outbox in. A newer one replaces an older one of the same document, which it includes."""
        place = (unsent.collection, unsent.id)
        if place not in self._waiting and len(self._waiting) >= self._limit:
            return
        known = self._waiting.get(place)
        if known is None or known.upto < unsent.upto:
            self._waiting[place] = unsent
        self._wanted.set()

    async def flush(self) -> int:
        """Send what waits now; returns how many documents were sent whole."""
        async with self._one_at_a_time:
            self._wanted.clear()
            batch = list(self._waiting.values())
            self._waiting.clear()
            self.in_work = len(batch)
            try:
                return await self._send(batch)
            finally:
                self.in_work = 0

    async def _send(self, batch: Sequence[Unsent]) -> int:
        """Send whole outboxes and take what was acknowledged out of the documents.

        The events of one document may go to several topics, between which the bus keeps no order; so events go out in
        waves, a document's next one only after the one before was acknowledged, except that a run on one topic shares
        a wave: there the bus stops at the first failure by itself.
        """
        done: dict[tuple[str, str], int] = {}
        pending = [(unsent, 0) for unsent in batch]
        while pending:
            messages: list[Message] = []
            runs: list[tuple[Unsent, int, int]] = []
            for unsent, first in pending:
                topic = unsent.entries[first].topic
                last = first
                while last + 1 < len(unsent.entries) and unsent.entries[last + 1].topic == topic:
                    last += 1
                runs.append((unsent, first, last))
                messages.extend(
                    message_of(self._service, unsent.id, entry) for entry in unsent.entries[first : last + 1]
                )
            results = await self._bus.publish(messages)
            pending = []
            at = 0
            for unsent, first, last in runs:
                outcome = results[at : at + last - first + 1]
                at += last - first + 1
                acknowledged = next((n for n, failure in enumerate(outcome) if failure is not None), len(outcome))
                if acknowledged:
                    done[unsent.collection, unsent.id] = unsent.entries[first + acknowledged - 1].sequence
                if acknowledged < len(outcome):
                    log.warning("publish.failed", document=unsent.id, topic=unsent.entries[first].topic)
                elif last + 1 < len(unsent.entries):
                    pending.append((unsent, last + 1))
            self._count(messages, results)
        await self._take_out(done)
        return len(done)

    def _count(self, messages: Sequence[Message], results: Sequence[PublishFailed | None]) -> None:
        """By topic, and by why they were not acknowledged."""
        ended = zip(messages, results, strict=True)
        for (topic, reason), count in Counter((m.topic, None if r is None else str(r)) for m, r in ended).items():
            told = {metrics.SYSTEM: "kafka", metrics.OPERATION: "send", metrics.DESTINATION: topic}
            failed = {} if reason is None else {metrics.ERROR: reason if reason.isidentifier() else "_OTHER"}
            self._telemetry.published.add(count, {**told, **failed})

    async def _take_out(self, done: dict[tuple[str, str], int]) -> None:
        by_collection: dict[str, list[tuple[str, int]]] = {}
        for (collection, id), upto in done.items():
            by_collection.setdefault(collection, []).append((id, upto))
        for collection, published in by_collection.items():
            try:
                await self._store.sent(collection, published)
            except StoreUnavailable as error:
                # They stay in their outboxes and are swept: published twice, which readers skip.
                log.warning("outbox.kept", collection=collection, documents=len(published), error=str(error))

    async def run(self, stopping: asyncio.Event) -> None:
        """Send whatever is offered, until stopped; then what is left, once."""
        while not stopping.is_set():
            waits = {asyncio.ensure_future(self._wanted.wait()), asyncio.ensure_future(stopping.wait())}
            _, unfinished = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in unfinished:
                wait.cancel()
            if self._waiting:
                await self._flush_surely()
        await self._flush_surely()

    async def _flush_surely(self) -> None:
        """Send what waits. Whatever goes wrong, this loop goes on: what was not sent stays in its document."""
        try:
            await self.flush()
        except Exception as error:
            log.error("publisher.failed", error=where_raised(error), exc_info=error)
