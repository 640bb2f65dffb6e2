"""Makes the calls that a dispatcher told of: reads a private topic in batches, asks, calls, and writes what came of it.

So finding what is due and calling somebody for it are scaled apart. A batch costs one read, one write and its calls;
whatever is read again after a crash finds its attempt closed, or is called again under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.contracts.base import Event
from shared.kit.bus.envelope import Received
from shared.kit.bus.port import Record
from shared.kit.decisions import Check, Decision, Due, Facts, Perform, Unanswered, Want, Wants
from shared.kit.document import Attempt, Document
from shared.kit.parking import Parking
from shared.kit.reading import Poisoned, Reader
from shared.kit.store.port import Outcome, StoreUnavailable, Unstorable, Write
from shared.kit.store.repository import Held, Repository, hold
from shared.kit.telemetry import Telemetry, about, log, where_raised

_AGAIN = 3
"""How often a write is tried on fresh documents before the batch is given back."""

_PORTION = 128
"""So many records are read, called and written together."""

_LANES = 3
"""So many portions are in work at once: one is read, one called, one written."""


@dataclass(frozen=True, slots=True)
class Performing:
    """What one reader of a private topic does; ``event`` is told by a ``Dispatch`` row called ``name``.

    ``of(event)`` gives the ids of the document and of the attempt. ``check``, ``perform`` and ``settle`` are as of
    ``Call``. ``late`` is asked in place of ``settle`` where the attempt was closed meanwhile, as when another reader
    took this one for dead. ``deduplicates(document)`` says whether the other side knows a repeated
    ``attempt.id``: elsewhere the call's beginning is written first, and one that was begun before is settled as
    ``Unanswered``. ``concurrency`` bounds the calls in flight of one reader, ``rate`` how many it begins a second.
    """

    role: str
    event: type[Event]
    document: type[Document]
    name: str
    of: Callable[[Any], tuple[str, str]]
    check: Check
    perform: Perform
    settle: Decision
    late: Decision | None = None
    wants: Wants | None = None
    deduplicates: Callable[[Any], bool] = lambda document: True
    concurrency: int = 64
    rate: float | None = None


async def perform(
    telemetry: Telemetry, queue: str, row: Any, document: Document, attempt: Attempt, known: Facts
) -> tuple[Any, str | None]:
    """Make one call; its outcome, where an exception counts as Unanswered, and the trace context of its span."""
    traced = telemetry.start(
        f"call {row.name}",
        document.trace,
        lambda: {
            **about(document),
            "carerelay.attempt": attempt.number,
        },
    )
    outcome: Any
    try:
        outcome = await row.perform(document, attempt, known)
    except Exception as error:
        traced.end(error)
        log.warning("call.raised", queue=queue, document=document.id, error=where_raised(error))
        outcome = Unanswered(type(error).__name__)
    else:
        traced.end()
    telemetry.calls.add(1, {"carerelay.timer": row.name, "carerelay.outcome": type(outcome).__name__})
    return outcome, traced.context


@dataclass(slots=True)
class MadeCall:
    """One call of a batch: its record, its document as it was read, and what came of it."""

    record: Record
    id: str
    attempt: str
    held: Held[Any]
    known: Facts
    outcome: Any = None
    trace: str | None = None
    called: bool = False
    withdrawn: bool = False


class Performer(Reader):
    """One consumer group: the reader of one private topic.

    ``handle`` calls no one twice because the store failed behind a call.
    """

    def __init__(
        self,
        service: str,
        row: Performing,
        repository: Repository,
        parking: Parking,
        telemetry: Telemetry,
        *,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(f"{service}.{row.role}", [row.event], repository, parking, telemetry)
        self.row = row
        self._paused = paused
        self._next_at = float("-inf")
        self._outcomes: dict[str, tuple[Any, str | None]] = {}
        """By attempt: what came of calls whose write has not landed yet; a batch that is given again looks here."""

    async def apply(self, received: Sequence[Received]) -> Poisoned:
        """Make these calls and write what came of them: each is settled, withdrawn, or left for later.

        In portions, so that some are read or written while others are called.
        """
        gate, lanes, once = asyncio.Semaphore(self.row.concurrency), asyncio.Semaphore(_LANES), asyncio.Lock()

        async def through(items: Sequence[Received]) -> Poisoned:
            async with lanes:
                return await self._portion(items, gate, once)

        portions = [received[first : first + _PORTION] for first in range(0, len(received), _PORTION)]
        # All come to their end, also where one fails: a batch that is given back has nothing in flight.
        ended = await asyncio.gather(*map(through, portions), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each
        return [record for poisoned in ended if not isinstance(poisoned, BaseException) for record in poisoned]

    async def _portion(self, items: Sequence[Received], gate: asyncio.Semaphore, one_by_one: asyncio.Lock) -> Poisoned:
        """Make one portion's calls: at once what may be called again, of the rest no more than may be in flight, since
        whatever is written as begun when this process dies ends unknown."""
        poison: Poisoned = []
        freely: list[MadeCall] = []
        once: list[MadeCall] = []
        for job in await self._jobs(items, poison):
            again = job.called or job.withdrawn or self.row.deduplicates(job.held.document)
            (freely if again else once).append(job)
        await self._through(freely, gate, poison)
        for first in range(0, len(once), self.row.concurrency):
            async with one_by_one:
                await self._through(once[first : first + self.row.concurrency], gate, poison)
        return poison

    async def _through(self, jobs: Sequence[MadeCall], gate: asyncio.Semaphore, poison: Poisoned) -> None:
        """Begin, call and write these."""
        ready = await self._begun([job for job in jobs if not job.withdrawn])
        await asyncio.gather(*(self._make(job, gate) for job in ready))
        await self._write([*ready, *(job for job in jobs if job.withdrawn)], poison)
        for job in ready:
            self._outcomes.pop(job.attempt, None)

    async def _jobs(self, items: Sequence[Received], poison: Poisoned) -> list[MadeCall]:
        """The attempts that are still open, read again behind the write of their intention, and checked."""
        told: dict[str, tuple[Received, str]] = {}
        for item in items:
            id, attempt = self.row.of(item.event)
            told[id] = (item, attempt)
        stored = await self._repository.raw(self.row.document, list(told))
        found: list[tuple[Received, str, Held[Any]]] = []
        for id, (item, attempt) in told.items():
            try:
                held = hold(self.row.document, id, stored[id])
            except ValidationError:
                poison.append((item.record, f"{self.row.document.__name__} as stored does not fit its model"))
                continue
            current = held.document.attempts.get(self.row.name) if held.document is not None else None
            if current is not None and current.id == attempt:
                found.append((item, attempt, held))
        facts: dict[Want, list[Any]] = {}
        wanted: list[Want] = []
        for _, _, held in found:
            with contextlib.suppress(Exception):  # It is raised again where it is this record's poison.
                wanted.extend(self._wants(held.document))
        await self._repository.facts(wanted, facts)
        jobs = []
        now = self._repository.clock.now()
        for item, attempt, held in found:
            try:
                known = Facts({want: facts[want] for want in self._wants(held.document)}, held.id)
                job = MadeCall(item.record, held.id, attempt, held, known)
                kept = self._outcomes.get(attempt)
                if kept is not None:
                    job.outcome, job.trace = kept
                    job.called = True
                else:
                    job.withdrawn = not self.row.check(held.document, known, now)
                jobs.append(job)
            except Exception as error:
                poison.append((item.record, f"{item.event.type}: {where_raised(error)}"))
        return jobs

    def _wants(self, document: Any) -> Iterable[Want]:
        if self.row.wants is None:
            return ()
        due = Due(self.row.name, document.timers.get(self.row.name, self._repository.clock.now()))
        return self.row.wants(due, document)

    async def _begun(self, jobs: Sequence[MadeCall]) -> list[MadeCall]:
        """Those that may be called now. Where nobody deduplicates, that they are begun is written first."""
        ready: list[MadeCall] = []
        batch: list[tuple[MadeCall, Write]] = []
        for job in jobs:
            document: Any = job.held.document
            if job.called or self.row.deduplicates(document):
                ready.append(job)
                continue
            attempt = document.attempts[self.row.name]
            if attempt.tries > 0:
                # Somebody died, or froze, between its beginning and its outcome: it may have been taken.
                job.outcome, job.called = Unanswered("worker-lost"), True
                ready.append(job)
                continue
            attempt.tries += 1
            write = self._repository.stage(job.held)
            if write is not None:
                batch.append((job, write))
        if batch:
            outcomes = await self._repository.write(self.row.document, [(job.held, write) for job, write in batch])
            for (job, write), outcome in zip(batch, outcomes, strict=True):
                if outcome is Outcome.WON:
                    job.held = _as_written(job.held, write)
                    ready.append(job)
                # A loser's document has moved on: the dispatcher's timer has it told of again.
        return ready

    async def _make(self, job: MadeCall, gate: asyncio.Semaphore) -> None:
        if job.called:
            return
        async with gate:
            await self._turn()
            if self._paused():  # Its dispatcher tells of it again, behind what waits on the topic.
                job.withdrawn = True
                return
            document: Any = job.held.document
            attempt = document.attempts[self.row.name]
            job.outcome, job.trace = await perform(self._telemetry, self.group, self.row, document, attempt, job.known)
        job.called = True
        self._outcomes[job.attempt] = (job.outcome, job.trace)

    async def _turn(self) -> None:
        """Wait until one more call may be begun, where so many a second are allowed."""
        if self.row.rate is None:
            return
        now = self._repository.clock.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + 1 / self.row.rate
        if at > now:
            await asyncio.sleep(at - now)

    async def _write(self, jobs: Sequence[MadeCall], poison: Poisoned) -> None:
        """Fold what came of the calls onto the documents as read; where one has moved on, onto what then stands."""
        left = list(jobs)
        for round in range(_AGAIN):
            if not left:
                return
            if round:
                await self._reload(left)
            batch: list[tuple[MadeCall, Write]] = []
            for job in left:
                try:
                    write = self._folded(job)
                except Exception as error:
                    poison.append((job.record, where_raised(error)))
                else:
                    if write is not None:
                        batch.append((job, write))
            outcomes = await self._repository.write(self.row.document, [(job.held, write) for job, write in batch])
            left = []
            for (job, _), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Unstorable):
                    poison.append((job.record, str(outcome)))
                elif outcome is not Outcome.WON:
                    left.append(job)
        if left:
            raise StoreUnavailable(f"{len(left)} documents kept changing")

    async def _reload(self, jobs: Sequence[MadeCall]) -> None:
        stored = await self._repository.raw(self.row.document, [job.id for job in jobs])
        facts: dict[Want, list[Any]] = {}
        for job in jobs:
            job.held = hold(self.row.document, job.id, stored[job.id])
        present = [job for job in jobs if job.held.document is not None]
        await self._repository.facts([want for job in present for want in self._wants(job.held.document)], facts)
        for job in present:
            job.known = Facts({want: facts[want] for want in self._wants(job.held.document)}, job.id)

    def _folded(self, job: MadeCall) -> Write | None:
        """The write of what came of a call, or None where nothing changes."""
        document: Any = job.held.document
        now = self._repository.clock.now()
        if document is None:
            return None
        attempt = document.attempts.get(self.row.name)
        if attempt is not None and attempt.id == job.attempt:
            document.abandon(self.row.name)
            if job.withdrawn:
                document.wake(self.row.name, now)
            else:
                document.rest(self.row.name)
                document = self.row.settle(document, job.outcome, job.known, now)
        elif job.withdrawn or self.row.late is None:
            return None
        else:
            document = self.row.late(document, job.outcome, job.known, now)
        job.held.document = document
        job.held.take_events(job.trace)
        return self._repository.stage(job.held)


def _as_written(held: Held[Any], write: Write) -> Held[Any]:
    """A document as it stands after a write of ours landed, without reading it again."""
    raw: Mapping[str, Any] = {**(held.raw or {}), **write.set}
    return Held(held.type, held.id, raw, held.document)
