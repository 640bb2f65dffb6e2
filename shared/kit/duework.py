"""Due work: finds the documents whose time has come in the slots this worker leases, and runs their job table.

Without it a deadline, a poll or a reminder would live in some process's memory and die with it. Every write here
carries the slot's epoch, so that a worker that lost its slot changes nothing any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from shared.kit.clock import Clock
from shared.kit.decisions import Due, Facts, Refused, Unanswered, Want, Wants
from shared.kit.document import Attempt, Document
from shared.kit.jobs import Call, Job, Jobs, Timer
from shared.kit.leases import Leases
from shared.kit.parking import Parking
from shared.kit.store.port import EPOCH, Found, Outcome, Store, StoreUnavailable, Unstorable, Write
from shared.kit.store.repository import Held, Repository, Unsent, hold, unsent_of
from shared.kit.telemetry import Telemetry, case_attributes, log, where_raised

BATCH = 200
HINT = 1000
FAILURES_TO_PARK = 5
_BACKOFF = (timedelta(seconds=1), timedelta(hours=1))


def backoff(tries: int) -> timedelta:
    """How long to wait after so many failures: a second, doubling, an hour at the most."""
    least, most = _BACKOFF
    return most if tries > 12 else min(most, least * (1 << tries))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of an outside call, to be folded onto whatever version of the document then stands."""

    id: str
    slot: int
    timer: str
    attempt: str
    outcome: Any
    trace: str | None


@dataclass(slots=True)
class _Work:
    """One document in one pass: what to do to it, in order, and which calls its write then allows."""

    held: Held[Any]
    slot: int
    epoch: int
    calls: list[Call] = field(default_factory=list)
    recovered: list[Call] = field(default_factory=list)


class DueWorker:
    """The due work of one document type in this process."""

    def __init__(
        self,
        service: str,
        jobs: Jobs | None,
        document: type[Document],
        repository: Repository,
        leases: Leases,
        telemetry: Telemetry,
        publish: Callable[[Unsent], None],
        parking: Parking,
        *,
        sweep_after: timedelta = timedelta(seconds=3),
    ) -> None:
        self.queue = f"{service}.{document.collection}"
        self.document = document
        self.leases = leases
        self.wake = asyncio.Event()
        self._rows: Mapping[str, Job] = jobs.rows if jobs else {}
        self._repository = repository
        self._telemetry = telemetry
        self._publish = publish
        self._parking = parking
        self._sweep_after = sweep_after
        self._calling: dict[tuple[str, str], tuple[int, asyncio.Task[None]]] = {}
        self._not_made: set[str] = set()
        """Attempts of which this process is sure that their call was not begun, whatever became of their write."""
        self._outcomes: list[_Outcome] = []
        self._gates = {
            row.name: asyncio.Semaphore(row.concurrency) for row in self._rows.values() if isinstance(row, Call)
        }
        self.in_work = 0

    @property
    def _store(self) -> Store:
        return self._repository.store

    @property
    def _clock(self) -> Clock:
        return self._repository.clock

    @property
    def busy(self) -> int:
        """Documents in work: decisions, calls in flight, outcomes not yet written."""
        return self.in_work + len(self._calling) + len(self._outcomes)

    def slot_busy(self, slot: int) -> bool:
        """Whether a slot has a call in flight here, or an outcome to be written."""
        return any(at == slot for at, _ in self._calling.values()) or any(o.slot == slot for o in self._outcomes)

    def _in_flight(self) -> set[str]:
        """Documents with a call in flight here, or an outcome that is not written yet: theirs is no time for more."""
        return {id for id, _ in self._calling} | {outcome.id for outcome in self._outcomes}

    # -- one pass -------------------------------------------------------------------------------------------

    async def work(self) -> int:
        """One pass: write the outcomes that came, then begin what is due. Returns how many documents were decided."""
        settled = await self.settle()
        if not self._rows or not self.leases.slots:
            return settled
        found = await self._due()
        if not found:
            return settled
        self.in_work = len(found)
        try:
            return settled + await self._decide(found)
        finally:
            self.in_work = 0

    async def _due(self) -> list[Found]:
        """The documents that are due in our slots, the longest due first.

        One look over all slots tells where there is work. Only when that look is full of other workers' documents are
        our own slots asked one by one.
        """
        slots = self.leases.slots
        reach = {"due": {"$gte": EPOCH, "$lte": self._clock.now()}}
        limit = HINT + len(self._in_flight())
        hints = await self._store.find(self.document.collection, reach, sort="due", limit=limit, fields=("slot", "due"))
        flying = self._in_flight()
        mine = [hint["_id"] for hint in hints if hint["slot"] in slots and hint["_id"] not in flying][:BATCH]
        if mine or len(hints) < limit:
            return await self._store.load(self.document.collection, mine) if mine else []
        for slot in slots:
            found = await self._store.find(
                self.document.collection, {"slot": slot, **reach}, sort="due", limit=BATCH + len(flying)
            )
            flying = self._in_flight()
            free = [raw for raw in found if raw["_id"] not in flying]
            if free:
                return free[:BATCH]
        return []

    async def _decide(self, found: Sequence[Found]) -> int:
        """Decide on due documents, write once, and begin the calls that the winners intend."""
        now = self._clock.now()
        facts: dict[Want, list[Any]] = {}
        works: list[_Work] = []
        for raw in found:
            epoch = self.leases.epoch(raw["slot"])
            if epoch is None:
                continue
            work = _Work(hold(self.document, raw["_id"], raw), raw["slot"], epoch)
            work = await self._fire(work, now, facts)
            works.append(work)
        batch = []
        for work in works:
            if (write := await self._stage(work, now)) is not None:
                batch.append((work, write))
        outcomes = await self._repository.write(self.document, [(work.held, write) for work, write in batch])
        for (work, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Unstorable):  # Only the server could tell: as it would stand, it is too large.
                set_back = await self._set_back(work, now, outcome)
                if set_back is not None:
                    await self._repository.write(self.document, [(work.held, set_back)])
        won = {work.held.id for (work, _), outcome in zip(batch, outcomes, strict=True) if outcome is Outcome.WON}
        unchanged = {work.held.id for work in works} - {work.held.id for work, _ in batch}
        for work in works:
            if work.held.id in won:
                self._begin(work, [*work.calls, *work.recovered])
            elif work.held.id in unchanged:
                self._begin(work, work.recovered)
        self._telemetry.decided.add(len(won), {"carerelay.document.type": self.document.__name__})
        return len(works)

    async def _stage(self, work: _Work, now: datetime) -> Write | None:
        """The write of what was decided; where that cannot be stored, the write that backs its timers off."""
        try:
            write = self._repository.stage(work.held, work.epoch)
            if write is not None:
                self._repository.check(write)
        except Unstorable as refusal:
            return await self._set_back(work, now, refusal)
        return write

    async def _set_back(self, work: _Work, now: datetime, refusal: Unstorable) -> Write | None:
        """The write that backs off the timers of a document, in place of one that cannot be stored."""
        self._start_over(work)
        document = work.held.document
        for timer in [name for name, at in document.timers.items() if at <= now] if document else []:
            await self._failed(work, timer, str(refusal))
        return self._repository.stage(work.held, work.epoch)

    def _start_over(self, work: _Work) -> None:
        """Forget what was decided on a document in this pass."""
        work.held = hold(self.document, work.held.id, work.held.raw)
        work.calls.clear()
        work.recovered.clear()

    async def _fire(self, work: _Work, now: datetime, facts: dict[Want, list[Any]]) -> _Work:
        """Ask the job of each timer that has come, the earliest first. A job that raises is backed off."""
        document: Document | None = work.held.document
        if document is None:
            return work
        due = sorted((at, name) for name, at in document.timers.items() if at <= now)
        for at, name in due:
            if document.timers.get(name) != at:
                continue  # An earlier timer's decision took it off, or moved it.
            row = self._rows.get(name)
            if row is None:
                await self._failed(work, name, f"there is no job for the timer {name}")
                continue
            traced = self._telemetry.start(
                f"due {name}",
                document.trace,
                {
                    "carerelay.document.type": self.document.__name__,
                    "carerelay.document.id": document.id,
                    **case_attributes(document),
                },
            )
            try:
                document = await self._fire_one(work, document, row, Due(name, at), now, facts)
            except StoreUnavailable as error:
                traced.end(error)
                raise  # A fact could not be read: that is no failure of the job.
            except Exception as error:
                traced.end(error)
                self._start_over(work)
                await self._failed(work, name, where_raised(error))
                return work
            work.held.document = document
            work.held.take_events(traced.context)
            traced.end()
            self._telemetry.lateness.record((now - at).total_seconds(), {"carerelay.timer": name})
        return work

    async def _fire_one(
        self, work: _Work, document: Any, row: Job, due: Due, now: datetime, facts: dict[Want, list[Any]]
    ) -> Any:
        known = await self._facts(row.wants, due, document, facts)
        if isinstance(row, Timer):
            document.rest(row.name)
            document.attempted.pop(f"!{row.name}", None)
            return row.decide(document, due, known, now)
        open_attempt = document.attempts.get(row.name)
        if open_attempt is not None and not row.idempotent and open_attempt.id not in self._not_made:
            # Somebody died between the intention and its outcome: it may have been sent, and is not sent again.
            return self._settled(document, row, Unanswered("worker-lost"), known, now)
        if open_attempt is not None:
            work.recovered.append(row)
            return document
        decided = row.prepare(document, due, known, now)
        if row.name in decided.attempts:
            # The timer stays as it is, so that the attempt is found again should this worker die.
            decided.timers.setdefault(row.name, due.at)
            decided.timers[row.name] = min(decided.timers[row.name], due.at)
            self._not_made.add(decided.attempts[row.name].id)
            work.calls.append(row)
        elif decided.timers.get(row.name) == due.at:
            decided.rest(row.name)
        return decided

    async def _facts(self, wants: Wants | None, message: Any, document: Any, facts: dict[Want, list[Any]]) -> Facts:
        if wants is None:
            return Facts(id=document.id)
        wanted = list(wants(message, document))
        await self._repository.facts(wanted, facts)
        return Facts({want: facts[want] for want in wanted}, document.id)

    async def _failed(self, work: _Work, timer: str, reason: str) -> None:
        """Back a failing timer off; from the fifth failure on it is also shown as parked."""
        document = work.held.document
        if document is None:
            return
        failures = document.attempted.get(f"!{timer}", 0) + 1
        document.attempted[f"!{timer}"] = failures
        document.wake(timer, self._clock.now() + backoff(failures))
        log.warning("job.failed", queue=self.queue, timer=timer, document=document.id, failures=failures, reason=reason)
        if failures >= FAILURES_TO_PARK:
            await self._parking.timer_failed(self.document.collection, document.id, timer, reason)

    # -- outside calls --------------------------------------------------------------------------------------

    def _begin(self, work: _Work, rows: Sequence[Call]) -> None:
        for row in rows:
            task = asyncio.ensure_future(self._call(work.held.id, row))
            self._calling[work.held.id, row.name] = (work.slot, task)
            task.add_done_callback(partial(self._called, work.held.id, row.name))

    def _called(self, id: str, timer: str, task: asyncio.Task[None]) -> None:
        del self._calling[id, timer]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("call.failed", queue=self.queue, timer=timer, document=id, error=where_raised(error))
        self.wake.set()

    async def _call(self, id: str, row: Call) -> None:
        """Make one intended call: read again, ask ``check``, see to the lease, and only then go out."""
        async with self._gates[row.name]:
            raw = (await self._repository.raw(self.document, [id]))[id]
            document: Document | None = hold(self.document, id, raw).document
            attempt = document.attempts.get(row.name) if document is not None else None
            if raw is None or document is None or attempt is None:
                return
            facts: dict[Want, list[Any]] = {}
            due = Due(row.name, document.timers.get(row.name, self._clock.now()))
            known = await self._facts(row.wants, due, document, facts)
            if row.check is not None and not row.check(document, known, self._clock.now()):
                await self._withdraw(id, row.name, attempt)
                return
            epoch = self.leases.epoch(raw["slot"])
            if epoch is None or not self.leases.may_call() or raw["epoch"] > epoch:
                # Its timer still stands: it is found again, by us or by the slot's next owner.
                self._not_made.add(attempt.id)
                return
            self._not_made.discard(attempt.id)
            outcome, trace = await self._perform(row, document, attempt, known)
            self._telemetry.calls.add(1, {"carerelay.timer": row.name, "carerelay.outcome": type(outcome).__name__})
            self._outcomes.append(_Outcome(id, raw["slot"], row.name, attempt.id, outcome, trace))

    async def _perform(self, row: Call, document: Document, attempt: Attempt, known: Facts) -> tuple[Any, str | None]:
        traced = self._telemetry.start(
            f"call {row.name}",
            document.trace,
            {
                "carerelay.document.type": self.document.__name__,
                "carerelay.document.id": document.id,
                "carerelay.attempt": attempt.number,
                **case_attributes(document),
            },
        )
        try:
            outcome = await row.perform(document, attempt, known)
        except Exception as error:
            traced.end(error)
            log.warning("call.raised", queue=self.queue, document=document.id, error=where_raised(error))
            return Unanswered(type(error).__name__), traced.context
        traced.end()
        return outcome, traced.context

    async def _withdraw(self, id: str, timer: str, attempt: Attempt) -> None:
        """Take an intention back whose check said no, and have ``prepare`` asked again."""

        def withdraw(document: Any) -> Any:
            document.abandon(timer)
            document.wake(timer, self._clock.now())
            return document

        await self._change(id, timer, attempt.id, withdraw, None)

    async def settle(self) -> int:
        """Fold the outcomes that came onto whatever versions now stand; each is kept until its write lands."""
        settled = 0
        while self._outcomes:
            outcome = self._outcomes[0]
            row = self._rows[outcome.timer]
            assert isinstance(row, Call)  # noqa: S101 - only calls have outcomes
            await self._settle_one(row, outcome)
            self._outcomes.pop(0)
            settled += 1
        return settled

    async def _settle_one(self, row: Call, outcome: _Outcome) -> None:
        facts: dict[Want, list[Any]] = {}

        async def prepare(document: Any) -> Facts:
            due = Due(row.name, document.timers.get(row.name, self._clock.now()))
            return await self._facts(row.wants, due, document, facts)

        def fold(document: Any, known: Facts) -> Any:
            now = self._clock.now()
            if isinstance(outcome.outcome, Unanswered) and row.idempotent:
                # The same attempt is made again under the same id; the other side knows it.
                attempt = document.attempts[row.name]
                attempt.tries += 1
                document.wake(row.name, now + backoff(attempt.tries))
                return document
            return self._settled(document, row, outcome.outcome, known, now)

        try:
            await self._change(outcome.id, row.name, outcome.attempt, None, outcome.trace, prepare, fold)
        except StoreUnavailable:
            raise
        except Exception as error:
            reason = where_raised(error)
            log.warning("settle.failed", queue=self.queue, timer=row.name, document=outcome.id, reason=reason)
            await self._park_attempt(outcome, reason)

    def _settled(self, document: Any, row: Call, outcome: Any, known: Facts, now: datetime) -> Any:
        """End the attempt and let the service decide what follows; a timer it does not set anew is off."""
        document.abandon(row.name)
        document.rest(row.name)
        document.attempted.pop(f"!{row.name}", None)
        return row.settle(document, outcome, known, now)

    async def _park_attempt(self, outcome: _Outcome, reason: str) -> None:
        """An outcome that its decision cannot take: the attempt stays open, its timer is backed off and shown."""

        def postpone(document: Any) -> Any:
            failures = document.attempted.get(f"!{outcome.timer}", 0) + 1
            document.attempted[f"!{outcome.timer}"] = failures
            document.wake(outcome.timer, self._clock.now() + backoff(failures + 4))
            return document

        await self._change(outcome.id, outcome.timer, outcome.attempt, postpone, None)
        await self._parking.timer_failed(self.document.collection, outcome.id, outcome.timer, reason)

    async def _change(
        self,
        id: str,
        timer: str,
        attempt: str,
        change: Callable[[Any], Any] | None,
        trace: str | None,
        prepare: Callable[[Any], Awaitable[Facts]] | None = None,
        fold: Callable[[Any, Facts], Any] | None = None,
    ) -> None:
        """Change a document while ``attempt`` is open on it and its slot is ours, whatever version it has by now."""
        while True:
            raw = (await self._repository.raw(self.document, [id]))[id]
            held = hold(self.document, id, raw)
            document = held.document
            if raw is None or document is None:
                return
            current = document.attempts.get(timer)
            epoch = self.leases.epoch(raw["slot"])
            if current is None or current.id != attempt or epoch is None or raw["epoch"] > epoch:
                return
            if change is not None:
                held.document = change(document)
            if fold is not None:
                known = await prepare(document) if prepare is not None else Facts(id=id)
                held.document = fold(document, known)
            held.take_events(trace)
            write = self._repository.stage(held, epoch)
            if write is None:
                return
            outcome = (await self._repository.write(self.document, [(held, write)]))[0]
            if isinstance(outcome, Unstorable):
                raise outcome
            if outcome is Outcome.WON:
                return

    # -- the sweep ------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Offer the publisher the outboxes in our slots that have waited too long; returns how many."""
        slots = self.leases.slots
        if not slots:
            return 0
        until = self._clock.real() - self._sweep_after
        hints = await self._store.find(
            self.document.collection,
            {"unsent": {"$gte": EPOCH, "$lte": until}},
            sort="unsent",
            limit=HINT,
            fields=("slot", "unsent"),
        )
        mine = [hint["_id"] for hint in hints if hint["slot"] in slots]
        swept = 0
        for raw in await self._store.load(self.document.collection, mine):
            unsent = unsent_of(self.document.collection, raw)
            if unsent is not None:
                self._publish(unsent)
                swept += 1
        return swept

    # -- in a process ---------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Let the calls in flight come to their end and write their outcomes."""
        while self._calling or self._outcomes:
            tasks = [task for _, task in self._calling.values()]
            if tasks:
                await asyncio.wait(tasks)
            await self.settle()


__all__ = ["BATCH", "FAILURES_TO_PARK", "DueWorker", "Refused", "backoff"]
