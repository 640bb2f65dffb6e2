"""Due queues of one document: each worker has its own timers and fence; who does not answer holds up nobody else."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Any, ClassVar

from shared.kit.chassis import Chassis
from shared.kit.decisions import Due, Facts
from shared.kit.document import Attempt, Document, slot_of
from shared.kit.jobs import Jobs, call, timer
from shared.kit.pacing import Allowance, Pacer
from shared.kit.service import Part, Service
from shared.kit.store.port import Outcome, Write
from tests.unit.kit.bench import LEASE, START, Bench, Town, until

SECOND = timedelta(seconds=1)


class ParcelState(StrEnum):
    OPEN = "open"


class Parcel(Document):
    """Rings by one queue, is asked about by another."""

    collection: ClassVar[str] = "parcel"
    transitions: ClassVar = {ParcelState.OPEN: frozenset()}
    queues: ClassVar[dict[str, str]] = {"ask": "asking"}
    callees: ClassVar[dict[str, str]] = {"asking": "carrier"}

    state: ParcelState = ParcelState.OPEN
    carrier: str = "post"
    place: str = "here"
    log: list[str] = []

    def slot_key(self) -> str:
        return self.place


def ring(parcel: Parcel, due: Due, facts: Facts, now: datetime) -> Parcel:
    parcel.log = [*parcel.log, due.timer]
    return parcel


def prepare(parcel: Parcel, due: Due, facts: Facts, now: datetime) -> Parcel:
    parcel.intend("ask", now)
    return parcel


def settle(parcel: Parcel, outcome: object, facts: Facts, now: datetime) -> Parcel:
    parcel.log = [*parcel.log, "asked"]
    return parcel


class Carriers:
    """Who is asked; the hung ones answer when ``answer`` is set, which may be never."""

    def __init__(self, *hung: str, rate: float = 1000.0) -> None:
        self.hung = hung
        self.answer = asyncio.Event()
        self.asked: list[str] = []
        self.allowance = Allowance(rate=rate, burst=4.0, concurrency=4, failures=2, cool_down=30.0)

    async def ask(self, parcel: Parcel, attempt: Attempt, facts: Facts) -> object:
        self.asked.append(parcel.id)
        if parcel.carrier in self.hung:
            await self.answer.wait()
        return "here"

    def service(self) -> Service:
        asking = call(
            "ask",
            prepare=prepare,
            perform=self.ask,
            settle=settle,
            pace=lambda parcel: (parcel.carrier, self.allowance),
            concurrency=64,
        )
        return Service(
            "toy",
            (Parcel,),
            (),
            (Jobs(Parcel, timer("ring", ring), asking),),
            roles={"asker": Part(queues=frozenset({"parcel.asking"}))},
        )


_numbers = count()


def parcel(carrier: str = "post", place: str = "here", **timers: datetime) -> Parcel:
    made = Parcel(id=f"parcel-{next(_numbers)}", carrier=carrier, place=place)
    for name, at in timers.items():
        made.wake(name, at)
    return made


async def started(town: Town, carriers: Carriers, name: str = "a") -> tuple[Chassis, Bench]:
    chassis, _ = await town.process(name, carriers.service())
    for worker in chassis.workers.values():
        await worker.leases.renew()
    bench = Bench()
    bench.server, bench.store = town.server, town.server
    bench.repository = chassis.repository
    return chassis, bench


async def look(
    town: Town, chassis: Chassis, queue: str = "parcel.asking", times: int = 12, seconds: float = 0.3
) -> None:
    """Let a worker make some passes; whatever calls can end does."""
    worker = chassis.workers[queue]
    for _ in range(times):
        if not worker.leases.may_call():
            await worker.leases.renew()
        await worker.work()
        for _ in range(50):
            await asyncio.sleep(0)
        town.clock.pass_(seconds)
    await worker.leases.renew()


async def test_each_worker_fires_the_timers_of_its_own_queue_only() -> None:
    town, carriers = Town(), Carriers()
    chassis, bench = await started(town, carriers)
    both = parcel(ring=START, ask=START)
    await bench.put(both)

    await look(town, chassis, "parcel")
    stored = await bench.get(Parcel, both.id)
    assert (stored.log, set(stored.timers), carriers.asked) == (["ring"], {"ask"}, [])

    await look(town, chassis)
    stored = await bench.get(Parcel, both.id)
    assert (stored.log, stored.timers, carriers.asked) == (["ring", "asked"], {}, [both.id])


async def test_a_role_of_a_queue_has_no_worker_of_another() -> None:
    assert Carriers().service().part("asker").queues == {"parcel.asking"}
    assert Carriers().service().part("jobs").queues == {"parcel", "parcel.asking"}


async def test_a_takeover_in_one_queue_fences_that_queue_and_leaves_the_other_alone() -> None:
    town, carriers = Town(), Carriers("post")
    old, bench = await started(town, carriers)
    both = parcel(ring=START + timedelta(seconds=40), ask=START)
    await bench.put(both)
    await look(town, old, times=4)
    assert carriers.asked == [both.id], "the old owner's call is out"

    town.clock.pass_(LEASE * 3)
    new, _ = await town.process("b", carriers.service())
    taker = new.workers["parcel.asking"]
    await taker.leases.renew()
    town.clock.pass_(LEASE * 1.5)
    await taker.leases.renew()
    town.clock.pass_(1.0)
    raw = await bench.raw(Parcel, both.id)
    assert raw is not None
    assert taker.leases.epoch(raw["slot"]) == raw["epoch_asking"] == 2
    assert raw["epoch"] == 0, "nobody took the other queue over"

    carriers.answer.set()
    await until(lambda: not old.workers["parcel.asking"]._calling)
    await old.workers["parcel.asking"].settle()
    stored = await bench.get(Parcel, both.id)
    assert (stored.log, set(stored.attempts)) == ([], {"ask"}), "the old owner's outcome is not written"
    held = (await bench.repository.load(Parcel, [both.id]))[both.id]
    assert held.document is not None
    held.document.log = ["late"]
    late = bench.repository.stage(held, epoch=1, queue="asking")
    assert late is not None
    assert await bench.repository.write(Parcel, [(held, late)]) == [Outcome.LOST]

    await old.workers["parcel"].leases.renew()
    town.clock.pass_(1.0)
    await old.workers["parcel"].leases.renew()
    town.clock.pass_(2.0)
    await look(town, old, "parcel", times=2)
    assert (await bench.get(Parcel, both.id)).log == ["ring"], "the old owner still has the other queue"


async def as_an_older_release_left_it(town: Town, bench: Bench, document: Parcel) -> None:
    """All timers in one queue, and no field of the other."""
    raw = await bench.raw(Parcel, document.id)
    assert raw is not None
    change = {"version": raw["version"] + 1, "due": document.due}
    write = Write(document.id, raw["version"], change, drop=("due_asking", "epoch_asking"))
    assert await town.server.write("parcel", [write]) == [Outcome.WON]


async def test_a_document_of_an_older_release_moves_over_when_it_is_looked_at() -> None:
    town, carriers = Town(), Carriers()
    chassis, bench = await started(town, carriers)
    document = parcel(ask=START + SECOND)
    await bench.put(document)
    await as_an_older_release_left_it(town, bench, document)

    await look(town, chassis)
    assert carriers.asked == [], "the queue's worker does not see it yet"
    await look(town, chassis, "parcel")
    raw = await bench.raw(Parcel, document.id)
    assert raw is not None
    assert (raw.get("due"), raw["due_asking"], raw["epoch_asking"]) == (None, document.timers["ask"], 0)

    await look(town, chassis)
    assert carriers.asked == [document.id]


async def test_a_document_of_an_older_release_moves_over_when_it_is_written() -> None:
    town, carriers = Town(), Carriers()
    chassis, bench = await started(town, carriers)
    document = parcel(ask=START + timedelta(days=1))
    await bench.put(document)
    await as_an_older_release_left_it(town, bench, document)

    held = (await bench.repository.load(Parcel, [document.id]))[document.id]
    assert held.document is not None
    held.document.log = ["written"]
    write = bench.repository.stage(held)
    assert write is not None
    await bench.repository.write(Parcel, [(held, write)])

    raw = await bench.raw(Parcel, document.id)
    assert raw is not None
    assert (raw.get("due"), raw["due_asking"]) == (None, document.timers["ask"])
    assert chassis.workers["parcel.asking"].place == ("parcel", "due_asking")


async def test_who_never_answers_does_not_delay_others() -> None:
    town, carriers = Town(), Carriers("hung")
    chassis, bench = await started(town, carriers)
    waiting = [parcel("hung", "a place", ask=START - timedelta(hours=1)) for _ in range(300)]
    others = [parcel("quick", "another place", ask=START) for _ in range(20)]
    await bench.put(*waiting, *others)

    await look(town, chassis)

    asked = set(carriers.asked)
    assert {each.id for each in others} <= asked
    assert len(asked - {each.id for each in others}) == carriers.allowance.concurrency


async def test_who_never_answers_does_not_delay_others_in_its_slot() -> None:
    town, carriers = Town(), Carriers("hung")
    chassis, bench = await started(town, carriers)
    waiting = [parcel("hung", ask=START - timedelta(hours=1)) for _ in range(1200)]
    others = [parcel("quick", ask=START) for _ in range(20)]
    assert {slot_of(each.slot_key()) for each in (*waiting, *others)} == {slot_of("here")}
    await bench.put(*waiting, *others)

    await look(town, chassis, times=30)

    assert {each.id for each in others} <= set(carriers.asked)


async def test_a_backlog_larger_than_a_budget_is_worked_off_at_its_pace_each_by_itself() -> None:
    town, carriers = Town(), Carriers(rate=2.0)
    chassis, bench = await started(town, carriers)
    carrying = {f"carrier-{n}": [parcel(f"carrier-{n}", f"place-{n}", ask=START) for _ in range(60)] for n in range(5)}
    await bench.put(*(each for parcels in carrying.values() for each in parcels))

    began = town.clock.monotonic()
    await look(town, chassis, times=40, seconds=0.25)
    allowed = carriers.allowance.rate * (town.clock.monotonic() - began)

    for parcels in carrying.values():
        asked = sum(each.id in carriers.asked for each in parcels)
        assert 0.9 * allowed - 1 <= asked <= allowed


async def test_calls_held_up_by_their_writes_do_not_go_out_together() -> None:
    town, carriers = Town(), Carriers()
    chassis, _ = await started(town, carriers)
    pacer: Any = chassis.workers["parcel.asking"]._pacer
    allowed = Allowance(rate=2.0, burst=2.0)
    assert pacer.begin("post", 1, allowed) > 0
    for _ in range(6):
        town.clock.pass_(0.5)
        assert pacer.begin("post", 1, allowed) == 0.0
    assert [pacer.departs_in("post") for _ in range(6)] == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]


def test_calls_begun_ahead_go_out_at_their_pace_and_not_before() -> None:
    clock = Town().clock
    pacer, allowed = Pacer(clock.monotonic, ahead=1.0), Allowance(rate=4.0, burst=1.0)
    begun = [pacer.begin("post", 1, allowed) for _ in range(5)]
    assert begun == [0.0, 0.0, 0.0, 0.0, 0.25], "a second's worth"
    assert [pacer.departs_in("post") for _ in range(4)] == [0.25, 0.5, 0.75, 1.0]
