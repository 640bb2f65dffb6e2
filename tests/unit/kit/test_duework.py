"""Due work: never early, at least once, fenced; and what leaves the system is honest about what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.kit.chassis import Chassis
from shared.kit.decisions import Due, Facts, Ref, Refused, Unanswered
from shared.kit.document import Attempt
from shared.kit.duework import FAILURES_TO_PARK, backoff
from shared.kit.jobs import Jobs, call, timer
from shared.kit.parking import Parked, ParkedState, parked_id
from shared.kit.run import arguments_of, parked
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import MAX_DOCUMENT_BYTES, StoreUnavailable, Write
from shared.kit.testing.harness import Harness
from shared.kit.testing.memory_store import MemoryStore
from tests.unit.kit.bench import LEASE, START, Bench, Town, until
from tests.unit.kit.toy import Box, BoxState, LetterCounted, may_send, prepare, settle

SECOND = timedelta(seconds=1)
CANARY = "Synthea-Canary"


def service(*rows: Any) -> Service:
    return Service("toy", (Box,), (), (Jobs(Box, *rows),))


class Clockwork:
    """One process of a service of boxes whose job table is the test's own."""

    def __init__(self, *rows: Any) -> None:
        self.kit = Harness(KitSettings, lambda settings, http: service(*rows))
        self.bench = Bench()
        self.bench.clock = self.kit.clock
        self.bench.store = self.bench.server = self.kit.store
        self.bench.repository = self.kit.chassis.repository

    async def put(self, *boxes: Box) -> None:
        await self.kit.start()
        await self.bench.put(*boxes)

    async def get(self, id: str = "box") -> Box:
        return await self.bench.get(Box, id)

    async def pass_(self, by: timedelta) -> None:
        self.kit.clock.pass_(by.total_seconds())
        await self.kit.settle()


def due_box(at: datetime = START, timer: str = "ring", **fields: Any) -> Box:
    box = Box(id=fields.pop("id", "box"), **fields)
    box.wake(timer, at)
    return box


def ring(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
    box.letters.append(f"{due.timer} {due.at:%H:%M:%S} {now:%H:%M:%S}")
    box.record(LetterCounted(box_id=box.id, count=len(box.letters)))
    return box


# -- timers ---------------------------------------------------------------------------------------------------


async def test_a_timer_fires_when_its_time_has_come_and_not_before() -> None:
    work = Clockwork(timer("ring", ring))
    await work.put(due_box(START + timedelta(seconds=10)))

    await work.pass_(timedelta(milliseconds=9_999))
    assert (await work.get()).letters == []
    await work.pass_(timedelta(milliseconds=1))
    assert (await work.get()).letters == ["ring 15:00:10 15:00:10"]

    await work.pass_(timedelta(days=1))
    assert len((await work.get()).letters) == 1, "once, where nothing sets it anew"
    assert (await work.get()).timers == {}


async def test_a_late_timer_knows_when_it_was_meant_to_fire() -> None:
    work = Clockwork(timer("ring", ring))
    await work.put(due_box(START + SECOND))

    work.kit.clock.advance(timedelta(hours=2))
    await work.kit.settle()

    assert (await work.get()).letters == ["ring 15:00:01 17:00:00"]


async def test_timers_of_one_document_fire_in_their_order_in_one_write() -> None:
    work = Clockwork(timer("ring", ring), timer("bell", ring))
    box = due_box(START + 2 * SECOND)
    box.wake("bell", START + SECOND)
    await work.put(box)

    await work.pass_(3 * SECOND)

    rung = await work.get()
    assert rung.letters == ["bell 15:00:01 15:00:03", "ring 15:00:02 15:00:03"]
    assert rung.version == 2
    assert [headers["headers"]["ce_sequence"] for _, headers in work.kit.published()] == ["1", "2"]


async def test_a_timer_that_an_earlier_one_took_off_does_not_fire() -> None:
    def silence(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
        box.rest("ring")
        return box

    work = Clockwork(timer("ring", ring), timer("silence", silence))
    box = due_box(START + 2 * SECOND)
    box.wake("silence", START + SECOND)
    await work.put(box)

    await work.pass_(3 * SECOND)

    assert (await work.get()).letters == []


async def test_more_than_a_batch_of_due_documents_is_done_to_the_end() -> None:
    work = Clockwork(timer("ring", ring))
    await work.put(*(due_box(id=f"box-{n}") for n in range(450)))

    await work.kit.settle()

    assert all(len(box.letters) == 1 for box in await work.kit.all(Box))


async def test_a_document_that_was_changed_meanwhile_is_decided_on_as_it_then_is() -> None:
    town = Town()
    chassis, gates = await town.process("a", service(timer("ring", ring)))
    bench = bench_of(chassis)
    await bench.put(due_box())
    worker = chassis.workers["box"]
    await worker.leases.renew()

    async def somebody_else() -> None:
        await town.server.write("box", [Write("box", 1, {"version": 2, "letters": ["first"]})])

    gates.once("store.write", somebody_else)
    await worker.work()
    assert (await bench.get(Box, "box")).letters == ["first"]
    await worker.work()

    assert (await bench.get(Box, "box")).letters == ["first", "ring 15:00:00 15:00:00"]


@pytest.mark.parametrize("gate", ["store.find", "store.load", "store.write", "store.written"])
async def test_a_store_that_fails_delays_due_work_and_doubles_nothing(gate: str) -> None:
    town = Town()
    chassis, gates = await town.process("a", service(timer("ring", ring)))
    bench = bench_of(chassis)
    await bench.put(due_box())
    worker = chassis.workers["box"]
    await worker.leases.renew()
    gates.fail(gate)

    with pytest.raises(StoreUnavailable):
        await worker.work()
    assert worker.busy == 0
    await worker.work()
    await worker.work()

    box = await bench.get(Box, "box")
    assert (len(box.letters), box.sequence, box.version) == (1, 1, 2)


# -- a job that fails -----------------------------------------------------------------------------------------


def test_backoff_doubles_from_a_second_up_to_an_hour() -> None:
    assert [backoff(n).total_seconds() for n in (0, 1, 2, 5)] == [1, 2, 4, 32]
    assert backoff(12) == backoff(13) == backoff(10_000) == timedelta(hours=1)


class Faulty:
    """A decision that raises until it is mended."""

    def __init__(self) -> None:
        self.broken = True
        self.asked: list[datetime] = []

    def __call__(self, box: Box, due: Due, facts: Facts, now: datetime) -> Box:
        self.asked.append(now)
        if self.broken:
            box.letters.append("half done")
            raise RuntimeError(CANARY)
        return ring(box, due, facts, now)


async def test_a_timer_whose_job_raises_is_backed_off_and_changes_nothing_else() -> None:
    faulty = Faulty()
    work = Clockwork(timer("ring", faulty))
    await work.put(due_box())

    await work.kit.settle()
    for _ in range(3):
        await work.kit.advance()

    assert [(at - START).total_seconds() for at in faulty.asked] == [0, 2, 6, 14]
    assert (await work.get()).letters == []
    assert await work.kit.all(Parked) == []


async def test_a_timer_that_keeps_failing_is_shown_as_parked_and_goes_on_trying() -> None:
    faulty = Faulty()
    work = Clockwork(timer("ring", faulty))
    await work.put(due_box())
    await work.kit.settle()
    for _ in range(FAILURES_TO_PARK - 1):
        await work.kit.advance()

    (shown,) = await work.kit.all(Parked)
    assert (shown.id, shown.state) == (parked_id("timer:box:ring", "box"), ParkedState.PARKED)
    assert shown.reason is not None
    assert "RuntimeError at test_duework.py" in shown.reason
    assert CANARY not in shown.reason

    asked = len(faulty.asked)
    await work.kit.advance()
    assert len(faulty.asked) == asked + 1


async def test_a_replay_wakes_a_failing_timer_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    faulty = Faulty()
    work = Clockwork(timer("ring", faulty))
    await work.put(due_box())
    await work.kit.settle()
    for _ in range(8):
        await work.kit.advance()
    now = work.kit.clock.now()
    faulty.broken = False

    (shown,) = await work.kit.all(Parked)
    await parked(work.kit.store, work.kit.clock, arguments_of("toy", ["parked", "replay", shown.id]))
    await work.kit.settle()

    assert work.kit.clock.now() == now
    box = await work.get()
    assert len(box.letters) == 1
    assert box.timers == {}
    assert not [name for name in box.attempted if name.startswith("!")]
    assert (await work.kit.all(Parked))[0].state is ParkedState.CLEAR


async def test_one_timer_that_fails_does_not_hold_up_another_of_its_document() -> None:
    work = Clockwork(timer("ring", ring), timer("fail", Faulty()))
    box = due_box(START + SECOND)
    box.wake("fail", START)
    await work.put(box)

    await work.pass_(SECOND)

    assert (await work.get()).letters == ["ring 15:00:01 15:00:01"]


async def test_a_timer_without_a_job_is_backed_off_and_not_lost() -> None:
    work = Clockwork(timer("ring", ring))
    await work.put(due_box(timer="unheard-of"))

    await work.kit.settle()

    assert (await work.get()).timers["unheard-of"] > START


async def test_what_a_timer_makes_unstorable_is_backed_off_and_the_rest_of_the_batch_lands() -> None:
    def spoil(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
        box.owner = "\ud800" if box.id == "bad" else "good"
        return box

    work = Clockwork(timer("ring", spoil))
    await work.put(due_box(id="bad"), due_box(id="one"), due_box(id="two"))

    await work.kit.settle()

    assert {box.id: box.owner for box in await work.kit.all(Box)} == {"bad": "", "one": "good", "two": "good"}
    assert (await work.get("bad")).timers["ring"] == START + backoff(1)


async def test_what_only_the_store_finds_too_large_is_backed_off_too() -> None:
    half = "x" * (MAX_DOCUMENT_BYTES * 3 // 5)

    def grow(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
        box.letters = [*box.letters, half] if box.id == "bad" else box.letters
        return box

    work = Clockwork(timer("ring", grow))
    await work.put(due_box(id="bad", owner=half), due_box(id="one"))

    await work.kit.settle()

    assert (await work.get("bad")).timers["ring"] == START + backoff(1)
    assert (await work.get("bad")).letters == []
    assert (await work.get("one")).timers == {}


# -- outside calls --------------------------------------------------------------------------------------------

Perform = Callable[[Box, Attempt, Facts], Awaitable[object]]


class Outside:
    """Somebody outside, who answers as the test says, and remembers the attempts and what was stored by then."""

    def __init__(self, answer: object = "taken") -> None:
        self.answer = answer
        self.attempts: list[str] = []
        self.entered = asyncio.Event()
        self.held: asyncio.Event | None = None

    async def __call__(self, box: Box, attempt: Attempt, facts: Facts) -> object:
        self.attempts.append(attempt.id)
        self.entered.set()
        if self.held is not None:
            await self.held.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def sending(outside: Perform, *, idempotent: bool = True, **options: Any) -> Any:
    return call(
        "send",
        **{
            "prepare": prepare,
            "perform": outside,
            "settle": settle,
            "check": may_send,
            "idempotent": idempotent,
            **options,
        },
    )


def bench_of(chassis: Chassis) -> Bench:
    bench = Bench()
    bench.repository = chassis.repository
    return bench


async def test_the_intention_is_stored_before_the_call_and_the_outcome_after_it() -> None:
    work: Clockwork

    async def look(box: Box, attempt: Attempt, facts: Facts) -> object:
        stored = await work.get()
        assert stored.attempts["send"].id == attempt.id
        assert stored.timers["send"] == START, "it is found again should we die now"
        return "taken"

    work = Clockwork(sending(look))
    await work.put(due_box(timer="send"))

    await work.kit.settle()

    box = await work.get()
    assert (box.sent, box.attempts, box.timers) == (["taken"], {}, {})


async def test_no_call_is_made_for_an_intention_that_was_not_stored() -> None:
    town, outside = Town(), Outside()
    chassis, gates = await town.process("a", service(sending(outside)))
    await bench_of(chassis).put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()

    async def close_it() -> None:
        await town.server.write("box", [Write("box", 1, {"version": 2, "state": "closed", "timers": {}, "due": None})])

    gates.once("store.write", close_it)
    await worker.work()
    await worker.drain()

    assert outside.attempts == []


async def test_prepare_may_decide_against_the_call() -> None:
    outside = Outside()
    work = Clockwork(sending(outside))
    await work.put(due_box(timer="send", state=BoxState.FULL))

    await work.kit.settle()

    assert outside.attempts == []
    assert (await work.get()).timers == {}


async def test_a_check_that_says_no_on_the_fresh_read_withdraws_the_intention() -> None:
    """Between the intention's write and the call the box is closed: nothing goes out, and prepare is asked again."""
    town, outside = Town(), Outside()
    chassis, gates = await town.process("a", service(sending(outside)))
    bench = bench_of(chassis)
    await bench.put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()

    async def fill_it() -> None:
        await town.server.write("box", [Write("box", 2, {"version": 3, "state": "full"})])

    await worker.work()
    gates.once("store.load", fill_it)
    await worker.drain()
    await worker.work()
    await worker.drain()

    box = await bench.get(Box, "box")
    assert outside.attempts == []
    assert (box.attempts, box.timers, box.sent, box.unknown) == ({}, {}, [], 0)


async def test_the_outcome_is_folded_onto_whatever_version_then_stands() -> None:
    town, outside = Town(), Outside()
    outside.held = asyncio.Event()
    chassis, _ = await town.process("a", service(sending(outside)))
    bench = bench_of(chassis)
    await bench.put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()
    await worker.work()
    await outside.entered.wait()

    await town.server.write("box", [Write("box", 2, {"version": 3, "letters": ["meanwhile"]})])
    outside.held.set()
    await worker.drain()

    box = await bench.get(Box, "box")
    assert (box.letters, box.sent, box.version) == (["meanwhile"], ["taken"], 4)


async def test_an_outcome_is_kept_until_its_write_lands() -> None:
    town, outside = Town(), Outside()
    chassis, gates = await town.process("a", service(sending(outside)))
    bench = bench_of(chassis)
    await bench.put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()
    await worker.work()
    await until(lambda: worker.busy == 1 and bool(outside.attempts) and not worker._calling)

    gates.fail("store.write", 2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await worker.work()
        assert worker.busy == 1
    await worker.work()

    assert worker.busy == 0
    assert (await bench.get(Box, "box")).sent == ["taken"]
    assert len(outside.attempts) == 1


async def test_a_document_with_a_call_in_flight_is_not_begun_again() -> None:
    town, outside = Town(), Outside()
    outside.held = asyncio.Event()
    chassis, _ = await town.process("a", service(sending(outside)))
    await bench_of(chassis).put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()
    await worker.work()
    await outside.entered.wait()

    for _ in range(3):
        await worker.work()
    outside.held.set()
    await worker.drain()

    assert len(outside.attempts) == 1


async def test_a_refusal_is_the_services_to_settle() -> None:
    outside = Outside(Refused("status-429", 30.0))
    seen: list[object] = []

    def again(box: Box, outcome: object, facts: Facts, now: datetime) -> Box:
        seen.append(outcome)
        if isinstance(outcome, Refused):
            box.wake("send", now + timedelta(seconds=outcome.retry_after or 0))
            outside.answer = "taken"
        else:
            box.sent.append(str(outcome))
        return box

    work = Clockwork(sending(outside, settle=again))
    await work.put(due_box(timer="send"))
    await work.kit.settle()
    assert (await work.get()).attempts == {}

    await work.kit.advance()

    assert work.kit.clock.now() == START + timedelta(seconds=30)
    assert (await work.get()).sent == ["taken"]
    assert len(set(outside.attempts)) == 2, "what was certainly not taken is tried as a new attempt"


@pytest.mark.parametrize("answer", [Unanswered("timeout"), RuntimeError(CANARY)])
async def test_a_lost_answer_is_asked_for_again_under_the_same_id_where_the_other_side_deduplicates(
    answer: object,
) -> None:
    outside = Outside(answer)
    work = Clockwork(sending(outside))
    await work.put(due_box(timer="send"))
    await work.kit.settle()
    await work.kit.advance()
    await work.kit.advance()
    assert (await work.get()).attempts["send"].tries == 3

    outside.answer = "taken"
    await work.kit.advance()

    assert len(outside.attempts) == 4
    assert len(set(outside.attempts)) == 1
    box = await work.get()
    assert (box.sent, box.unknown, box.timers) == (["taken"], 0, {})


@pytest.mark.parametrize("answer", [Unanswered("timeout"), RuntimeError(CANARY)])
async def test_a_lost_answer_is_unknown_and_never_asked_for_again_where_the_other_side_does_not(
    answer: object,
) -> None:
    outside = Outside(answer)
    work = Clockwork(sending(outside, idempotent=False))
    await work.put(due_box(timer="send"))

    await work.kit.settle()
    await work.pass_(timedelta(days=30))

    assert len(outside.attempts) == 1
    box = await work.get()
    assert (box.sent, box.unknown, box.attempts, box.timers) == ([], 1, {}, {})


async def test_each_new_attempt_has_an_id_of_its_own_that_follows_from_its_document() -> None:
    outside = Outside()
    work = Clockwork(sending(outside))
    await work.put(due_box(timer="send", id="a"), due_box(timer="send", id="b"))
    await work.kit.settle()
    box = await work.get("a")
    box.wake("send", work.kit.clock.now())
    await work.bench.put(box)
    await work.kit.settle()

    other = Outside()
    again = Clockwork(sending(other))
    await again.put(due_box(timer="send", id="a"))
    await again.kit.settle()

    assert len(set(outside.attempts)) == 3
    assert other.attempts[0] in outside.attempts[:2]


async def test_no_more_calls_are_in_flight_than_the_table_allows() -> None:
    town, outside = Town(), Outside()
    outside.held = asyncio.Event()
    chassis, _ = await town.process("a", service(sending(outside, concurrency=3)))
    await bench_of(chassis).put(*(due_box(timer="send", id=f"box-{n}") for n in range(10)))
    worker = chassis.workers["box"]
    await worker.leases.renew()

    await worker.work()
    await until(lambda: len(outside.attempts) == 3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(outside.attempts) == 3

    outside.held.set()
    while len(outside.attempts) < 10:
        await worker.drain()
        assert await worker.work() <= 6, "three that came to an end, and three more"
    assert len(set(outside.attempts)) == 10


# -- workers that die, freeze and come back -------------------------------------------------------------------


class Succession:
    """A worker that began a call, and the one that follows it."""

    def __init__(self, *, idempotent: bool) -> None:
        self.town = Town()
        self.first_outside, self.next_outside = Outside("late"), Outside("taken")
        self.first_outside.held = asyncio.Event()
        self.idempotent = idempotent

    async def begin(self) -> None:
        self.first, self.gates = await self.town.process(
            "a", service(sending(self.first_outside, idempotent=self.idempotent))
        )
        self.heir, _ = await self.town.process("b", service(sending(self.next_outside, idempotent=self.idempotent)))
        self.bench = bench_of(self.heir)
        await self.bench.put(due_box(timer="send"))
        await self.first.workers["box"].leases.renew()
        await self.first.workers["box"].work()
        await self.first_outside.entered.wait()

    async def succeed(self) -> None:
        """The first beats no more; the second takes over after the lease."""
        worker = self.heir.workers["box"]
        for _ in range(6):
            await worker.leases.renew()
            self.town.clock.pass_(LEASE / 3)
        await worker.leases.renew()
        await worker.work()
        await worker.drain()
        await worker.work()
        await worker.drain()


async def test_a_dead_workers_open_call_is_made_again_under_the_same_id_where_the_other_side_deduplicates() -> None:
    story = Succession(idempotent=True)
    await story.begin()

    await story.succeed()

    assert story.next_outside.attempts == story.first_outside.attempts
    box = await story.bench.get(Box, "box")
    assert (box.sent, box.unknown) == (["taken"], 0)


async def test_a_dead_workers_open_call_is_unknown_once_where_the_other_side_does_not() -> None:
    story = Succession(idempotent=False)
    await story.begin()

    await story.succeed()
    await story.succeed()

    assert story.next_outside.attempts == []
    box = await story.bench.get(Box, "box")
    assert (box.sent, box.unknown, box.attempts, box.timers) == ([], 1, {}, {})


async def test_the_outcome_that_a_worker_brings_back_after_its_slot_went_to_another_changes_nothing() -> None:
    story = Succession(idempotent=False)
    await story.begin()
    await story.succeed()
    before = await story.town.server.load("box", ["box"])

    assert story.first_outside.held is not None
    story.first_outside.held.set()
    await story.first.workers["box"].drain()

    assert await story.town.server.load("box", ["box"]) == before


@pytest.mark.parametrize("gate", ["store.find", "store.load", "store.write"])
async def test_a_worker_that_freezes_anywhere_writes_and_calls_nothing_once_another_took_over(gate: str) -> None:
    town, zombies, heirs = Town(), Outside("zombie"), Outside("heir")
    zombie, gates = await town.process("a", service(sending(zombies), timer("ring", ring)))
    heir, _ = await town.process("b", service(sending(heirs), timer("ring", ring)))
    bench = bench_of(heir)
    box = due_box(timer="send")
    box.wake("ring", START)
    await bench.put(box)
    await zombie.workers["box"].leases.renew()
    await heir.workers["box"].leases.renew()

    async def freeze() -> None:
        town.clock.pass_(LEASE / 2)
        await heir.workers["box"].leases.renew()
        town.clock.pass_(LEASE)
        for _ in range(3):
            await heir.workers["box"].leases.renew()
            await heir.workers["box"].work()
            await heir.workers["box"].drain()

    gates.once(gate, freeze)
    await zombie.workers["box"].work()
    await zombie.workers["box"].drain()

    found = await bench.get(Box, "box")
    assert zombies.attempts == []
    assert found.sent == ["heir"]
    assert len(found.letters) == 1


@pytest.mark.parametrize("gate", ["store.find", "store.load", "store.write"])
async def test_once_a_slots_documents_are_stamped_nothing_of_its_earlier_owner_lands(gate: str) -> None:
    """The new owner has not looked at the document yet, so that no version tells the zombie that it is late."""
    town = Town()
    zombie, gates = await town.process("a", service(timer("ring", ring)))
    heir, _ = await town.process("b", service(timer("ring", ring)))
    bench = bench_of(heir)
    await bench.put(due_box())
    await zombie.workers["box"].leases.renew()
    await heir.workers["box"].leases.renew()

    async def freeze() -> None:
        for _ in range(5):
            town.clock.pass_(LEASE / 3)
            await heir.workers["box"].leases.renew()

    gates.once(gate, freeze)
    await zombie.workers["box"].work()
    assert (await bench.get(Box, "box")).letters == []

    await heir.workers["box"].work()
    assert len((await bench.get(Box, "box")).letters) == 1


async def test_in_a_takeover_that_is_not_over_nothing_of_an_earlier_owner_lands_behind_the_first_read() -> None:
    """More is due than was stamped: a document is claimed before it is read, and the zombie comes in between."""
    town = Town()
    town.server = MemoryStore(slots_at_once=0)

    def ringing(name: str) -> Service:
        def ring(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
            box.letters.append(name)
            return box

        return service(timer("ring", ring))

    zombie, zombies_gates = await town.process("a", ringing("zombie"))
    heir, heirs_gates = await town.process("b", ringing("heir"))
    bench = bench_of(heir)
    await bench.put(due_box())
    await zombie.workers["box"].leases.renew()
    await heir.workers["box"].leases.renew()
    frozen, thawed = asyncio.Event(), asyncio.Event()

    async def freeze() -> None:
        frozen.set()
        await thawed.wait()

    zombies_gates.once("store.write", freeze)
    late = asyncio.create_task(zombie.workers["box"].work())
    await frozen.wait()
    for _ in range(5):
        town.clock.pass_(LEASE / 3)
        await heir.workers["box"].leases.renew()
    assert heir.workers["box"].leases.taking_over

    async def thaw() -> None:
        thawed.set()
        await late

    heirs_gates.once("store.load", thaw)
    await heir.workers["box"].work()

    assert (await bench.get(Box, "box")).letters == ["heir"]


async def test_an_outcome_whose_slot_was_stamped_by_another_leaves_the_attempt_to_that_one() -> None:
    story = Succession(idempotent=True)
    await story.begin()
    for _ in range(6):
        await story.heir.workers["box"].leases.renew()
        story.town.clock.pass_(LEASE / 3)

    assert story.first_outside.held is not None
    story.first_outside.held.set()
    await story.first.workers["box"].drain()
    box = await story.bench.get(Box, "box")
    assert (box.sent, list(box.attempts)) == ([], ["send"])

    await story.succeed()
    assert (await story.bench.get(Box, "box")).sent == ["taken"]


async def test_no_call_is_begun_at_the_end_of_a_lease() -> None:
    town, outside = Town(), Outside()
    chassis, gates = await town.process("a", service(sending(outside, idempotent=False)))
    bench = bench_of(chassis)
    await bench.put(due_box(timer="send"))
    worker = chassis.workers["box"]
    await worker.leases.renew()

    async def take_long() -> None:
        town.clock.pass_(LEASE - 1.5)

    gates.once("store.written", take_long)
    await worker.work()
    await worker.drain()
    assert outside.attempts == []

    await worker.leases.renew()
    await worker.work()
    await worker.drain()
    assert len(outside.attempts) == 1, "it was certainly not made, so it may be"
    assert (await bench.get(Box, "box")).sent == ["taken"]


async def test_a_worker_without_a_lease_does_nothing() -> None:
    town = Town()
    chassis, _ = await town.process("a", service(timer("ring", ring)))
    await bench_of(chassis).put(due_box())

    assert await chassis.workers["box"].work() == 0
    assert await chassis.workers["box"].sweep() == 0

    await chassis.workers["box"].leases.renew()
    assert await chassis.workers["box"].work() == 1


async def test_two_workers_share_the_work_and_do_each_piece_once() -> None:
    town = Town()
    both = [(await town.process(name, service(timer("ring", ring))))[0] for name in "ab"]
    bench = bench_of(both[0])
    await bench.put(*(due_box(id=f"box-{n}") for n in range(100)))
    for _ in range(3):
        for chassis in both:
            await chassis.workers["box"].leases.renew()
    counts = [await chassis.workers["box"].work() for chassis in both]

    assert sum(counts) == 100
    assert min(counts) > 20
    assert {len(box.letters) for box in await bench.repository.find(Box, {})} == {1}


# -- the sweep ------------------------------------------------------------------------------------------------


async def test_what_was_not_published_is_swept_after_a_while_and_not_before() -> None:
    town = Town()
    chassis, _ = await town.process("a", service(timer("ring", ring)), sweep_after_seconds=3.0)
    bench = bench_of(chassis)
    box = Box(id="box")
    box.record(LetterCounted(box_id="box", count=1))
    await bench.put(box)
    chassis.publisher._waiting.clear()  # as if the process had died before it published
    worker = chassis.workers["box"]
    await worker.leases.renew()
    assert await worker.sweep() == 0

    town.clock.pass_(3.0)
    assert await worker.sweep() == 1
    await chassis.publisher.flush()

    assert sum(len(log) for log in town.broker.topic("toy.events")) == 1
    assert await worker.sweep() == 0


async def test_a_store_that_fails_to_give_a_fact_is_no_failure_of_the_job() -> None:
    town = Town()
    wants = [Ref(Box, "other")]
    chassis, gates = await town.process("a", service(timer("ring", ring, wants=lambda due, box: wants)))
    bench = bench_of(chassis)
    await bench.put(due_box())
    worker = chassis.workers["box"]
    await worker.leases.renew()

    for _ in range(FAILURES_TO_PARK + 1):
        gates.once("store.load", nothing_happens)
        gates.fail("store.load")
        with pytest.raises(StoreUnavailable):
            await worker.work()
    assert await bench.repository.find(Parked, {}) == []
    await worker.work()

    box = await bench.get(Box, "box")
    assert len(box.letters) == 1
    assert box.attempted == {}


async def nothing_happens() -> None:
    return None
