"""Due work: finds the documents whose time has come in the slots this worker leases, and runs their job table.

Without it a deadline, a poll or a reminder would live in some process's memory and die with it. Every write here
carries the slot's epoch, so that a worker that lost its slot changes nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from shared.kit.clock import Clock
from shared.kit.decisions import Due, Facts, Refused, Unanswered, Want, Wants
from shared.kit.document import Attempt, Document, due_field, epoch_field, queue_key
from shared.kit.finding import BATCH, HINT, Finder
from shared.kit.jobs import Call, Dispatch, Job, Jobs, Timer
from shared.kit.leases import Leases
from shared.kit.pacing import Allowance, Pacer, Standing
from shared.kit.parking import Parking
from shared.kit.pausing import Paused, nobody
from shared.kit.performing import perform
from shared.kit.store.port import EPOCH, Found, Outcome, Store, StoreUnavailable, Unstorable, Write
from shared.kit.store.repository import Held, Repository, Unsent, hold, unsent_of
from shared.kit.telemetry import Telemetry, about, log, where_raised

FAILURES_TO_PARK = 5
_BREATH = 0.02
"""Seconds that a worker waits at least when nobody may be called, so that calls are begun several at a time."""
_PAUSED = 5.0
"""Seconds that what calls somebody paused is passed by, unless ``pauses_changed`` says sooner that he goes on."""
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
    intended: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    paces: dict[str, str] = field(default_factory=dict)
    put_off: bool = False
    """Whether a call of it has to wait: for a place among those in flight, or for whoever is called."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call that a write allows."""

    id: str
    slot: int
    epoch: int
    row: Call
    pace: str | None
    whom: str


@dataclass(frozen=True, slots=True)
class _Fresh:
    """Documents read again after their intentions were written, and the facts that their calls want."""

    held: Mapping[str, Held[Any]]
    facts: dict[Want, list[Any]]


class DueWorker:
    """The due work of one queue of a document type in this process."""

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
        queue: str = "",
        sweep_after: timedelta = timedelta(seconds=3),
        ahead: float = 0.0,
        paused: Paused = nobody,
    ) -> None:
        self.key = queue_key(document.collection, queue)
        self.queue = f"{service}.{self.key}"
        self.place = (document.collection, due_field(queue))
        """Where it looks: the collection, and the field that says when."""
        self.document = document
        self.leases = leases
        self.wake = asyncio.Event()
        self._due_queue = queue
        self._rows: Mapping[str, Job] = jobs.of(queue) if jobs else {}
        self._repository = repository
        self._telemetry = telemetry
        self._publish = publish
        self._parking = parking
        self._sweep_after = sweep_after
        self._pacer = Pacer(repository.clock.monotonic, ahead)
        self._calling: dict[tuple[str, str], tuple[int, asyncio.Task[None]]] = {}
        self._not_made: set[tuple[str, int]] = set()
        """Attempts of which this process is sure that their call was not begun, whatever became of their write: by id
        and epoch, since the next owner of a slot intends what we intended under the same id."""
        self._outcomes: dict[tuple[str, str], _Outcome] = {}
        self._taken: Counter[str] = Counter()
        """By call: how many are in flight, or will be once their intentions are written."""
        self._callee = document.callees.get(queue)
        self._paused = paused
        self._finder = Finder(
            repository.store,
            document,
            queue,
            repository.clock,
            self._pacer,
            self._in_flight,
            calls_alone=all(isinstance(row, Call) and row.pace is not None for row in self._rows.values()),
        )
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

    @property
    def held_back(self) -> bool:
        """Whether something due waits until whoever it calls may be called."""
        return self._finder.waiting

    def pauses_changed(self) -> None:
        """Somebody was paused or goes on: look again at once at what was passed by."""
        self._finder.pauses_changed()
        self.wake.set()

    @property
    def standings(self) -> list[Standing]:
        """How those who are called from here stand."""
        return self._pacer.standings()

    def slot_busy(self, slot: int) -> bool:
        """Whether a slot has a call in flight here, or an outcome to be written."""
        in_flight = any(at == slot for at, _ in self._calling.values())
        return in_flight or any(outcome.slot == slot for outcome in self._outcomes.values())

    def _in_flight(self) -> dict[str, int]:
        """The slots of documents with a call in flight here, or an outcome that is not written yet, by id."""
        calling = {id: slot for (id, _), (slot, _) in self._calling.items()}
        return calling | {outcome.id: outcome.slot for outcome in self._outcomes.values()}

    # -- one pass -------------------------------------------------------------------------------------------

    async def work(self) -> int:
        """One pass: write the outcomes that came, then begin what is due. Returns how many documents were decided."""
        settled = await self.settle()
        slots = self.leases.slots
        self._pacer.retain(slots)
        self._finder.retain(slots.keys())
        if not self._rows or not slots:
            return settled
        due = await self._finder.due(slots.keys())
        await self.leases.claim(due)
        found = await self._store.load(self.document.collection, list(due)) if due else []
        if not found:
            return settled
        self.in_work = len(found)
        try:
            return settled + await self._decide(found)
        finally:
            self.in_work = 0

    @property
    def pause(self) -> float:
        """Seconds until somebody may be called who may not be now; infinite where nobody waits for that."""
        return max(_BREATH, self._finder.opens_in)

    def _whom(self, document: Document) -> str:
        """Who is called for a document, as far as that is told by a field."""
        whom = getattr(document, self._callee) if self._callee else None
        return "" if whom is None else str(whom)

    def _shut_or_open(self, key: str, slot: int, whom: str) -> None:
        """Remember until when somebody may not be called, or that he may be."""
        wait = self._pacer.wait(key)
        if wait > 0:
            self._finder.shut((slot, whom), min(wait, 1.0))
        else:
            self._finder.open((slot, whom))

    async def _decide(self, found: Sequence[Found]) -> int:
        """Decide on due documents, write once, and begin the calls that the winners intend."""
        now = self._clock.now()
        facts: dict[Want, list[Any]] = {}
        works: list[_Work] = []
        for raw in found:
            epoch = self.leases.epoch(raw["slot"])
            if epoch is None:
                continue
            works.append(_Work(hold(self.document, raw["_id"], raw), raw["slot"], epoch))
        begun: list[tuple[_Work, Call]] = []
        try:
            await self._foresee(works, now, facts)
            for work in works:
                await self._fire(work, now, facts)
            batch = []
            for work in works:
                if (write := await self._stage(work, now)) is not None:
                    batch.append((work, write))
            outcomes = await self._repository.write(self.document, [(work.held, write) for work, write in batch])
            for (work, _), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Unstorable):  # It cannot be encoded, or would be too large as it stands.
                    set_back = await self._set_back(work, now, outcome)
                    if set_back is not None:
                        await self._repository.write(self.document, [(work.held, set_back)])
                if outcome is Outcome.LOST:  # Whoever was first may have intended the same, under the same id.
                    self._not_made -= {(attempt, work.epoch) for attempt in work.intended}
            won = {work.held.id for (work, _), outcome in zip(batch, outcomes, strict=True) if outcome is Outcome.WON}
            unchanged = {work.held.id for work in works} - {work.held.id for work, _ in batch}
            for work in works:
                if work.held.id in won:
                    begun.extend((work, row) for row in (*work.calls, *work.recovered))
                elif work.held.id in unchanged:
                    begun.extend((work, row) for row in work.recovered)
        finally:
            self._let_go(works, begun)
        self._begin(begun)
        self._telemetry.decided.add(len(won), {"carerelay.document.type": self.document.__name__})
        return sum(not work.put_off or work.held.id in won for work in works)

    async def _foresee(self, works: Sequence[_Work], now: datetime, facts: dict[Want, list[Any]]) -> None:
        """Load at once the facts that the timers want of their documents as stored."""
        wanted: list[Want] = []
        for work in works:
            document: Document | None = work.held.document
            for name, at in document.timers.items() if document is not None else ():
                row = self._rows.get(name)
                if at <= now and row is not None and row.wants is not None:
                    with contextlib.suppress(Exception):  # It is raised again where it fails its own document.
                        wanted.extend(row.wants(Due(name, at), document))
        await self._repository.facts(wanted, facts)

    async def _stage(self, work: _Work, now: datetime) -> Write | None:
        """The write of what was decided; where an event of it is too large, the write that backs its timers off."""
        try:
            return self._repository.stage(work.held, work.epoch, self._due_queue)
        except Unstorable as refusal:
            return await self._set_back(work, now, refusal)

    async def _set_back(self, work: _Work, now: datetime, refusal: Unstorable) -> Write | None:
        """The write that backs off the timers of a document, in place of one that cannot be stored."""
        self._start_over(work)
        document = work.held.document
        for timer in [name for name, at in document.timers.items() if at <= now] if document else []:
            await self._failed(work, timer, str(refusal))
        return self._repository.stage(work.held, work.epoch, self._due_queue)

    def _start_over(self, work: _Work) -> None:
        """Forget what was decided on a document in this pass."""
        self._let_go([work], [])
        work.held = hold(self.document, work.held.id, work.held.raw)
        work.calls.clear()
        work.recovered.clear()

    async def _fire(self, work: _Work, now: datetime, facts: dict[Want, list[Any]]) -> None:
        """Ask the job of each timer that has come, the earliest first. A job that raises is backed off."""
        document: Document | None = work.held.document
        if document is None:
            return
        ours = [name for name in document.timers if document.queues.get(name, "") == self._due_queue]
        due = sorted((document.timers[name], name) for name in ours if document.timers[name] <= now)
        for at, name in due:
            if document.timers.get(name) != at:
                continue  # An earlier timer's decision took it off, or moved it.
            row = self._rows.get(name)
            if isinstance(row, Call) and not self._may_begin(row, document, work):
                work.put_off = True
                continue
            if row is None:
                await self._failed(work, name, f"there is no job for the timer {name}")
                continue
            traced = self._telemetry.start(
                f"due {name}",
                document.trace,
                partial(about, document),
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
                return
            work.held.document = document
            work.held.take_events(traced.context)
            traced.end()
            self._telemetry.lateness.record((now - at).total_seconds(), {"carerelay.timer": name})

    def _may_begin(self, row: Call, document: Document, work: _Work) -> bool:
        """Whether one more call of this row finds a place among those in flight, and whoever is called allows it."""
        if self._paused(document):
            self._finder.shut((work.slot, self._whom(document)), _PAUSED, paused=True)
            return False
        if self._taken[row.name] >= row.concurrency:
            return False
        if row.pace is not None:
            key, allowance = row.pace(document)
            wait = self._pacer.begin(key, work.slot, allowance)
            self._shut_or_open(key, work.slot, self._whom(document))
            if wait > 0:
                return False
            work.paces[row.name] = key
        self._taken[row.name] += 1
        work.places.append(row.name)
        return True

    def _let_go(self, works: Sequence[_Work], begun: Sequence[tuple[_Work, Call]]) -> None:
        """Give back the places that were taken for calls which are not begun."""
        used = {(work.held.id, row.name) for work, row in begun}
        for work in works:
            for name in [name for name in work.places if (work.held.id, name) not in used]:
                work.places.remove(name)
                self._taken[name] -= 1
                if (key := work.paces.pop(name, None)) is not None:
                    self._pacer.take_back(key)
                    if work.held.document is not None:
                        self._shut_or_open(key, work.slot, self._whom(work.held.document))

    async def _fire_one(
        self, work: _Work, document: Any, row: Job, due: Due, now: datetime, facts: dict[Want, list[Any]]
    ) -> Any:
        known = await self._facts(row.wants, due, document, facts)
        if isinstance(row, Timer):
            document.rest(row.name)
            document.attempted.pop(f"!{row.name}", None)
            return row.decide(document, due, known, now)
        open_attempt = document.attempts.get(row.name)
        if isinstance(row, Dispatch):
            decided = document if open_attempt is not None else row.prepare(document, due, known, now)
            attempt = decided.attempts.get(row.name)
            if attempt is not None:
                # What was told stands on its topic; while its reader is paused, telling it again would only add to it.
                if open_attempt is None or not self._paused(decided):
                    decided.record(row.tell(decided, attempt))
                decided.wake(row.name, now + row.again)
            elif decided.timers.get(row.name) == due.at:
                decided.rest(row.name)
            return decided
        if open_attempt is not None and not row.idempotent and (open_attempt.id, work.epoch) not in self._not_made:
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
            work.intended.append(decided.attempts[row.name].id)
            self._not_made.add((decided.attempts[row.name].id, work.epoch))
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

    def _begin(self, begun: Sequence[tuple[_Work, Call]]) -> None:
        if not begun:
            return
        calls = []
        for work, row in begun:
            whom = self._whom(work.held.document) if work.held.document is not None else ""
            calls.append(_Begun(work.held.id, work.slot, work.epoch, row, work.paces.get(row.name), whom))
        start = asyncio.ensure_future(self._start(calls))
        for call in calls:
            self._calling[call.id, call.row.name] = (call.slot, start)
        start.add_done_callback(partial(self._started, calls))

    async def _start(self, calls: Sequence[_Begun]) -> None:
        """Read the documents of a pass again, all in one look, and then make each call by itself."""
        fresh = await self._read_again([(call.id, call.row) for call in calls])
        for call in calls:
            task = asyncio.ensure_future(self._call(call, fresh))
            self._calling[call.id, call.row.name] = (call.slot, task)
            task.add_done_callback(partial(self._called, call))

    def _started(self, calls: Sequence[_Begun], start: asyncio.Task[None]) -> None:
        """Where that look failed, none of the calls is made; their timers stand, and they are found again."""
        for call in calls:
            if self._calling.get((call.id, call.row.name)) == (call.slot, start):
                if call.pace is not None:
                    self._pacer.take_back(call.pace)
                self._called(call, start)

    async def _read_again(self, calls: Sequence[tuple[str, Call]]) -> _Fresh:
        """Read the documents of a pass again, behind the write of their intentions, with the facts for their calls."""
        held = await self._repository.load(self.document, list(dict.fromkeys(id for id, _ in calls)))
        facts: dict[Want, list[Any]] = {}
        wanted: list[Want] = []
        for id, row in calls:
            document = held[id].document
            if document is not None and row.wants is not None:
                due = Due(row.name, document.timers.get(row.name, self._clock.now()))
                wanted.extend(row.wants(due, document))
        await self._repository.facts(wanted, facts)
        return _Fresh(held, facts)

    def _called(self, call: _Begun, task: asyncio.Task[None]) -> None:
        del self._calling[call.id, call.row.name]
        self._taken[call.row.name] -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = where_raised(error)
            log.warning("call.failed", queue=self.queue, timer=call.row.name, document=call.id, error=reason)
        if call.pace is not None:
            self._shut_or_open(call.pace, call.slot, call.whom)
        self.wake.set()

    async def _call(self, call: _Begun, fresh: _Fresh) -> None:
        """Make one intended call: ask ``check`` on the fresh read, see to the lease, and only then go out."""
        id, row = call.id, call.row
        ended: object = None
        allowance: Allowance | None = None
        try:
            raw = fresh.held[id].raw
            document: Document | None = fresh.held[id].document
            attempt = document.attempts.get(row.name) if document is not None else None
            if raw is None or document is None or attempt is None:
                return
            if row.pace is not None:
                _, allowance = row.pace(document)
            due = Due(row.name, document.timers.get(row.name, self._clock.now()))
            known = await self._facts(row.wants, due, document, fresh.facts)
            if row.check is not None and not row.check(document, known, self._clock.now()):
                await self._withdraw(id, row.name, attempt)
                return
            if call.pace is not None and (wait := self._pacer.departs_in(call.pace)) > 0:
                await asyncio.sleep(wait)
            epoch = self.leases.epoch(raw["slot"])
            if epoch is None or not self.leases.may_call() or raw[epoch_field(self._due_queue)] > epoch:
                # Its timer still stands: it is found again, by us or by the slot's next owner.
                return
            self._not_made.discard((attempt.id, call.epoch))
            ended, trace = await perform(self._telemetry, self.queue, row, document, attempt, known)
            self._outcomes[id, row.name] = _Outcome(id, raw["slot"], row.name, attempt.id, ended, trace)
        finally:
            if call.pace is not None and allowance is not None and ended is not None:
                self._pacer.end(call.pace, ended, allowance)
            elif call.pace is not None:
                self._pacer.take_back(call.pace)

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
            by_id = {outcome.id: outcome for outcome in list(self._outcomes.values())[:BATCH]}
            landed = await self._settle_many(by_id)
            for outcome in by_id.values():
                if outcome.id not in landed:
                    row = self._rows[outcome.timer]
                    assert isinstance(row, Call)  # noqa: S101 - only calls have outcomes
                    await self._settle_one(row, outcome)
                self._outcomes.pop((outcome.id, outcome.timer), None)
            settled += len(by_id)
        return settled

    async def _settle_many(self, outcomes: Mapping[str, _Outcome]) -> set[str]:
        """Fold one outcome each onto many documents, and write once; returns those that need nothing more."""
        stored = await self._repository.raw(self.document, list(outcomes))
        landed: set[str] = set()
        folding: list[tuple[_Outcome, Call, Held[Any], int]] = []
        facts: dict[Want, list[Any]] = {}
        wanted: list[Want] = []
        for id, outcome in outcomes.items():
            row, raw = self._rows[outcome.timer], stored[id]
            held = hold(self.document, id, raw)
            epoch = self._still_ours(raw, held.document, outcome.timer, outcome.attempt)
            if epoch is None:
                landed.add(id)
            elif isinstance(row, Call) and held.document is not None:
                folding.append((outcome, row, held, epoch))
                with contextlib.suppress(Exception):  # It is raised again where it fails its own document.
                    due = Due(row.name, held.document.timers.get(row.name, self._clock.now()))
                    wanted.extend(row.wants(due, held.document) if row.wants is not None else ())
        await self._repository.facts(wanted, facts)
        batch: list[tuple[Held[Any], Write]] = []
        for outcome, row, held, epoch in folding:
            document: Any = held.document
            try:
                due = Due(row.name, document.timers.get(row.name, self._clock.now()))
                known = await self._facts(row.wants, due, document, facts)
                held.document = self._fold(document, row, outcome, known)
                held.take_events(outcome.trace)
                write = self._repository.stage(held, epoch, self._due_queue)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.debug("settle.alone", queue=self.queue, document=outcome.id, reason=where_raised(error))
                continue
            if write is None:
                landed.add(outcome.id)
            else:
                batch.append((held, write))
        results = await self._repository.write(self.document, batch) if batch else []
        landed |= {held.id for (held, _), result in zip(batch, results, strict=True) if result is Outcome.WON}
        return landed

    def _still_ours(self, raw: Found | None, document: Document | None, timer: str, attempt: str) -> int | None:
        """The epoch under which a document may be written while ``attempt`` is open on it, or None."""
        if raw is None or document is None:
            return None
        current = document.attempts.get(timer)
        epoch = self.leases.epoch(raw["slot"])
        if current is None or current.id != attempt or epoch is None or raw[epoch_field(self._due_queue)] > epoch:
            return None
        return epoch

    def _fold(self, document: Any, row: Call, outcome: _Outcome, known: Facts) -> Any:
        now = self._clock.now()
        if isinstance(outcome.outcome, Unanswered) and row.idempotent:
            # The same attempt is made again under the same id; the other side knows it.
            attempt = document.attempts[row.name]
            attempt.tries += 1
            document.wake(row.name, now + backoff(attempt.tries))
            return document
        return self._settled(document, row, outcome.outcome, known, now)

    async def _settle_one(self, row: Call, outcome: _Outcome) -> None:
        facts: dict[Want, list[Any]] = {}

        async def prepare(document: Any) -> Facts:
            due = Due(row.name, document.timers.get(row.name, self._clock.now()))
            return await self._facts(row.wants, due, document, facts)

        def fold(document: Any, known: Facts) -> Any:
            return self._fold(document, row, outcome, known)

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
            epoch = self._still_ours(raw, document, timer, attempt)
            if epoch is None:
                return
            if change is not None:
                held.document = change(document)
            if fold is not None:
                known = await prepare(document) if prepare is not None else Facts(id=id)
                held.document = fold(document, known)
            held.take_events(trace)
            write = self._repository.stage(held, epoch, self._due_queue)
            if write is None:
                return
            outcome = (await self._repository.write(self.document, [(held, write)]))[0]
            if isinstance(outcome, Unstorable):
                raise outcome
            if outcome is Outcome.WON:
                return

    # -- the sweep ------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Offer the publisher the outboxes in our slots that have waited too long; returns how many.

        A document's own queue sweeps, the one without a name; else each would be swept once a queue.
        """
        slots = self.leases.slots
        if not slots or self._due_queue:
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
