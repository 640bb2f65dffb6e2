"""Calls that a dispatcher told of: made once, asked about again, honest about what came of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

import pytest

from shared.contracts.base import Event
from shared.kit.bus.port import Record
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from shared.kit.document import Attempt, Document
from shared.kit.jobs import Jobs, dispatch
from shared.kit.parking import WAITS
from shared.kit.performing import Performer, Performing
from shared.kit.service import JOBS, Part, Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import StoreUnavailable
from shared.kit.testing.harness import Harness
from tests.unit.kit.bench import START, Bench, record_of

OWNER = "2b1de1de-0000-4000-8000-000000000001"


class ParcelState(StrEnum):
    PACKED = "packed"
    GOING = "going"
    TAKEN = "taken"
    UNKNOWN = "unknown"


class ParcelDue(Event):
    type: ClassVar[str] = "parcel.due.v1"
    topic: ClassVar[str] = "parcels.van"
    parcel_id: str
    attempt_id: str
    owner: str

    def key(self) -> str:
        return self.owner


class ParcelTaken(Event):
    type: ClassVar[str] = "parcel.taken.v1"
    topic: ClassVar[str] = "parcels.events"
    parcel_id: str


class Parcel(Document):
    collection: ClassVar[str] = "parcel"
    transitions: ClassVar = {
        ParcelState.PACKED: frozenset({ParcelState.GOING}),
        ParcelState.GOING: frozenset({ParcelState.PACKED, ParcelState.TAKEN, ParcelState.UNKNOWN}),
        ParcelState.UNKNOWN: frozenset({ParcelState.TAKEN}),
        ParcelState.TAKEN: frozenset(),
    }
    state: ParcelState = ParcelState.PACKED
    owner: str = OWNER
    wanted: bool = True


def prepare(parcel: Parcel, due: Due, facts: Facts, now: datetime) -> Parcel:
    if not parcel.wanted:
        parcel.state = ParcelState.PACKED
        return parcel
    if parcel.state is ParcelState.PACKED:
        parcel.move(ParcelState.GOING)
    parcel.intend("send", now)
    return parcel


def tell(parcel: Parcel, attempt: Attempt) -> ParcelDue:
    return ParcelDue(parcel_id=parcel.id, attempt_id=attempt.id, owner=parcel.owner)


def settle(parcel: Parcel, outcome: object, facts: Facts, now: datetime) -> Parcel:
    if isinstance(outcome, Unanswered):
        parcel.move(ParcelState.UNKNOWN)
    elif isinstance(outcome, Refused):
        parcel.move(ParcelState.PACKED)
        parcel.wake("send", now + timedelta(minutes=1))
    else:
        parcel.move(ParcelState.TAKEN)
        parcel.record(ParcelTaken(parcel_id=parcel.id))
    return parcel


def late(parcel: Parcel, outcome: object, facts: Facts, now: datetime) -> Parcel:
    if parcel.state is ParcelState.UNKNOWN and outcome == "taken":
        parcel.move(ParcelState.TAKEN)
    return parcel


class Van:
    """Whoever is called, and the attempts under which it was."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.answer: Callable[[], object] = lambda: "taken"

    async def take(self, parcel: Parcel, attempt: Attempt, facts: Facts) -> object:
        self.called.append(attempt.id)
        return self.answer()


def row(van: Van, *, deduplicates: bool = True) -> Performing:
    return Performing(
        role="van",
        event=ParcelDue,
        document=Parcel,
        name="send",
        of=lambda event: (event.parcel_id, event.attempt_id),
        check=lambda parcel, facts, now: parcel.wanted,
        perform=van.take,
        settle=settle,
        late=late,
        deduplicates=lambda parcel: deduplicates,
    )


class Depot:
    """One reader of the van's topic, on a bench."""

    def __init__(self, *, deduplicates: bool = True) -> None:
        self.bench, self.van = Bench(), Van()
        self.deduplicates = deduplicates
        self.performer = self.another()

    def another(self) -> Performer:
        bench = self.bench
        return Performer(
            "parcels", row(self.van, deduplicates=self.deduplicates), bench.repository, bench.parking, bench.telemetry
        )

    async def told(self, id: str = "one", **fields: object) -> Record:
        """The record of a parcel whose intention is stored."""
        parcel = Parcel(id=id, state=ParcelState.GOING, **fields)
        attempt = parcel.intend("send", START)
        parcel.wake("send", START + timedelta(minutes=10))
        await self.bench.put(parcel)
        return record_of(tell(parcel, attempt), id, 1, key=parcel.owner.encode())

    async def parcel(self, id: str = "one") -> Parcel:
        return await self.bench.get(Parcel, id)


async def test_a_call_is_made_once_however_often_it_is_told_of_and_its_outcome_written_in_one_batch() -> None:
    depot = Depot()
    records = [await depot.told(str(n)) for n in range(3)]
    depot.bench.gates.counts.clear()

    await depot.performer.handle([*records, records[0]])
    await depot.performer.handle(records)

    assert len(depot.van.called) == len(set(depot.van.called)) == 3
    assert {(await depot.parcel(str(n))).state for n in range(3)} == {ParcelState.TAKEN}
    assert (await depot.parcel("0")).timers == {}
    assert depot.bench.gates.counts["store.write"] == 1


async def test_what_is_no_longer_wanted_is_not_called_and_prepared_anew_at_once() -> None:
    depot = Depot()
    record = await depot.told(wanted=False)

    await depot.performer.handle([record])

    assert depot.van.called == []
    parcel = await depot.parcel()
    assert (parcel.attempts, parcel.timers) == ({}, {"send": START})


async def test_an_answer_is_written_although_the_store_failed_behind_the_call() -> None:
    depot = Depot(deduplicates=False)
    record = await depot.told()
    began = depot.bench.gates

    async def pass_() -> None:
        began.fail("store.write")

    began.once("store.write", pass_)  # the first is the beginning, the second what came of it
    with pytest.raises(StoreUnavailable):
        await depot.performer.handle([record])
    await depot.performer.handle([record])

    assert len(depot.van.called) == 1
    assert (await depot.parcel()).state is ParcelState.TAKEN


async def test_where_the_other_side_deduplicates_a_batch_of_the_dead_is_called_again_under_the_same_id() -> None:
    depot = Depot()
    record = await depot.told()
    depot.bench.gates.fail("store.write")
    with pytest.raises(StoreUnavailable):
        await depot.performer.handle([record])

    await depot.another().handle([record])

    assert len(depot.van.called) == 2
    assert len(set(depot.van.called)) == 1
    assert (await depot.parcel()).state is ParcelState.TAKEN


async def test_elsewhere_what_the_dead_began_is_unknown_until_a_late_answer_tells() -> None:
    depot = Depot(deduplicates=False)
    record = await depot.told()
    survivor = depot.another()

    def dies() -> object:
        raise ConnectionError  # it may have been taken

    async def take_over() -> None:
        await survivor.handle([record])

    depot.bench.gates.once("store.write", lambda: _nothing())
    depot.bench.gates.once("store.write", take_over)
    await depot.performer.handle([record])  # frozen behind its call, while another takes its batch over

    assert len(depot.van.called) == 1
    assert (await depot.parcel()).state is ParcelState.TAKEN, "the frozen one's answer came after all"

    depot.van.answer = dies
    lost = await depot.told("two")
    await depot.performer.handle([lost])
    assert (await depot.parcel("two")).state is ParcelState.UNKNOWN


async def test_elsewhere_nobody_calls_what_was_begun_before() -> None:
    depot = Depot(deduplicates=False)
    record = await depot.told()
    began = (await depot.bench.repository.load(Parcel, ["one"]))["one"]
    assert began.document is not None
    began.document.attempts["send"].tries = 1
    write = depot.bench.repository.stage(began)
    assert write is not None
    await depot.bench.repository.write(Parcel, [(began, write)])

    await depot.performer.handle([record])

    assert depot.van.called == []
    assert (await depot.parcel()).state is ParcelState.UNKNOWN


async def test_elsewhere_no_more_is_begun_than_may_be_in_flight_and_so_no_more_can_end_unknown() -> None:
    depot = Depot(deduplicates=False)
    ids = [f"{n}" for n in range(5)]
    records = [await depot.told(id) for id in ids]
    open_when_called: list[int] = []

    async def begun() -> int:
        attempts = [(await depot.parcel(id)).attempts.get("send") for id in ids]
        return sum(attempt is not None and attempt.tries > 0 for attempt in attempts)

    async def take(parcel: Parcel, attempt: Attempt, facts: Facts) -> object:
        open_when_called.append(await begun())
        return "taken"

    depot.performer.row = replace(depot.performer.row, perform=take, concurrency=2)
    await depot.performer.handle(records)

    assert open_when_called == [2, 2, 2, 2, 1]
    assert {(await depot.parcel(id)).state for id in ids} == {ParcelState.TAKEN}


async def test_a_document_that_moved_on_meanwhile_is_settled_as_it_then_stands() -> None:
    depot = Depot()
    record = await depot.told()

    async def move_on() -> None:
        held = (await depot.bench.repository.load(Parcel, ["one"]))["one"]
        assert held.document is not None
        held.document.owner = "somebody else"
        write = depot.bench.repository.stage(held)
        assert write is not None
        await depot.bench.repository.write(Parcel, [(held, write)])

    depot.bench.gates.once("store.write", move_on)
    await depot.performer.handle([record])

    parcel = await depot.parcel()
    assert (parcel.state, parcel.owner) == (ParcelState.TAKEN, "somebody else")
    assert len(depot.van.called) == 1


async def test_a_record_that_cannot_be_read_parks_its_key_and_nothing_else() -> None:
    depot = Depot()
    bad = record_of(ParcelDue(parcel_id="x", attempt_id="y", owner=OWNER), "x", 1, key=OWNER.encode(), value=b"{")
    behind, other = await depot.told("behind"), await depot.told("other", owner="somebody")

    await depot.performer.handle([bad, behind, other])

    assert (await depot.parcel("other")).state is ParcelState.TAKEN
    assert (await depot.parcel("behind")).state is ParcelState.GOING
    parked = await depot.bench.parked("parcels.van", OWNER)
    assert parked is not None
    assert [entry.reason for entry in parked.entries][1:] == [WAITS]
    assert await depot.performer.replay(behind) is None
    assert (await depot.parcel("behind")).state is ParcelState.TAKEN


async def test_from_due_to_taken_over_the_topic_with_a_refusal_in_between() -> None:
    van = Van()
    answers = iter([Refused("busy"), "taken"])
    van.answer = lambda: next(answers)
    kit = Harness(KitSettings, lambda settings, http: _service(van))
    parcel = Parcel(id="one")
    parcel.wake("send", START)
    held = (await kit.chassis.repository.load(Parcel, ["one"]))["one"]
    held.document = parcel
    write = kit.chassis.repository.stage(held)
    assert write is not None
    await kit.chassis.repository.write(Parcel, [(held, write)])

    await kit.settle()
    stored = await kit.stored(Parcel, "one")
    assert stored is not None
    assert stored.state is ParcelState.PACKED
    await kit.advance()

    stored = await kit.stored(Parcel, "one")
    assert stored is not None
    assert (stored.state, stored.timers) == (ParcelState.TAKEN, {})
    assert len(set(van.called)) == 2
    (told, again) = kit.broker.topics["parcels.van"][kit.broker.partition_of(OWNER)]
    assert {told.key, again.key} == {OWNER.encode()}


def test_roles_name_what_their_processes_do() -> None:
    service = _service(Van())

    assert service.part("sender") == Part(performing=frozenset({"van"}))
    assert service.part(JOBS).queues == {"parcel"}
    with pytest.raises(KeyError):
        service.part("nobody")
    with pytest.raises(ValueError, match="does what nobody does"):
        Service("parcels", (Parcel,), roles={"x": Part(queues=frozenset({"boxes"}))})


def _service(van: Van) -> Service:
    return Service(
        "parcels",
        (Parcel,),
        jobs=(Jobs(Parcel, dispatch("send", prepare=prepare, tell=tell)),),
        performing=(row(van),),
        roles={"sender": Part(performing=frozenset({"van"}))},
    )


async def _nothing() -> None:
    pass
