"""The figures that a service is watched by are those of its store, its broker and its leases; few looks find them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from shared.kit.auth import Role
from shared.kit.decisions import Unanswered
from shared.kit.pacing import Allowance, Breaker, Pacer
from shared.kit.settings import KitSettings
from shared.kit.store.port import StoreUnavailable
from shared.kit.testing.harness import Harness
from tests.unit.kit.bench import LEASE, Town, until
from tests.unit.kit.test_engine import letter
from tests.unit.kit.toy import POISON, build

GROUP = "toy.box"


async def running() -> Harness:
    harness = Harness(KitSettings, build)
    await harness.settle()
    return harness


async def test_a_service_with_nothing_to_do_is_behind_in_nothing() -> None:
    harness = await running()

    found = await harness.chassis.signals.snapshot()

    assert found.stored is not None
    assert {(each.records, each.seconds) for each in found.here.readings} == {(0, 0.0)}
    assert set(found.stored.outbox) == {"box", "stamp", "parked"}
    assert set(found.stored.due) == {"toy.box", "toy.stamp", "toy.parked"}
    assert {*found.stored.outbox.values(), *found.stored.due.values()} == {0.0}
    assert found.stored.parked == {}


async def test_lag_is_the_age_of_the_oldest_record_that_a_group_has_not_taken_in() -> None:
    harness = await running()
    await harness.arrive(letter("1"), "sender", 1)
    harness.clock.pass_(20)
    await harness.arrive(letter("2"), "sender", 2)
    harness.clock.pass_(5)

    behind = {each.group: each for each in harness.chassis.signals.here().readings if each.topic == "elsewhere.events"}
    assert (behind[GROUP].records, behind[GROUP].seconds) == (2, 25.0)

    await harness.settle()
    behind = {each.group: each for each in harness.chassis.signals.here().readings if each.topic == "elsewhere.events"}
    assert (behind[GROUP].records, behind[GROUP].seconds) == (0, 0.0)


async def test_the_outbox_is_as_old_as_the_oldest_event_that_is_not_published() -> None:
    harness = await running()
    await harness.arrive(letter("1"), "sender", 1)
    await harness.chassis.bus.step(GROUP)  # type: ignore[attr-defined]
    harness.clock.pass_(7)

    stored = (await harness.chassis.signals.snapshot()).stored

    assert stored is not None
    assert stored.outbox == {"box": 7.0, "stamp": 0.0, "parked": 0.0}


async def test_due_work_is_as_old_as_its_due_time_and_young_until_then() -> None:
    harness = await running()
    async with harness.client(Role.COORDINATOR) as client:
        answer = await client.post("/boxes", json={"owner": "o", "limit_days": 3}, headers=harness.key())
    assert answer.status_code == 201
    harness.clock.advance(timedelta(days=3) - timedelta(seconds=1))
    early = (await harness.chassis.signals.snapshot()).stored
    harness.clock.advance(timedelta(seconds=61))
    late = (await harness.chassis.signals.snapshot()).stored

    assert early is not None
    assert late is not None
    assert (early.due["toy.box"], late.due["toy.box"]) == (0.0, 60.0)


async def test_parked_keys_are_counted_by_the_group_that_they_wait_for() -> None:
    harness = await running()
    await harness.arrive(letter("1", text=POISON), "sender", 1)
    await harness.arrive(letter("2"), "sender", 2)
    await harness.arrive(letter("3", text=POISON), "another", 1)
    await harness.settle()

    stored = (await harness.chassis.signals.snapshot()).stored

    assert stored is not None
    assert stored.parked == {GROUP: 2}


async def test_the_lease_table_and_the_leases_here_say_the_same() -> None:
    harness = await running()

    found = await harness.chassis.signals.snapshot()

    assert found.stored is not None
    held = {queue.name: queue.held for queue in found.here.queues}
    assert held == {"toy.box": 256, "toy.stamp": 256, "toy.parked": 256}
    assert {queue: owners[found.here.worker] for queue, owners in found.stored.slots.items()} == held

    harness.clock.pass_(harness.settings.lease_seconds + 1)
    assert {queue.held for queue in harness.chassis.signals.here().queues} == {0}


async def test_one_process_of_a_service_looks_into_the_store_and_another_when_that_one_is_gone() -> None:
    town = Town()
    first, _ = await town.process("first", build(KitSettings(), None))  # type: ignore[arg-type]
    second, _ = await town.process("second", build(KitSettings(), None))  # type: ignore[arg-type]
    for _ in range(4):
        for each in (first, second):
            for worker in each.workers.values():
                await worker.leases.renew()
    (watching,) = [each for each in (first, second) if each.signals.watching]
    (other,) = {first, second} - {watching}

    for _ in range(20):
        town.clock.pass_(LEASE / 5)
        for worker in other.workers.values():
            await worker.leases.renew()

    assert [watching.signals.watching, other.signals.watching] == [False, True]


async def test_a_store_that_does_not_answer_leaves_what_the_process_knows_of_itself() -> None:
    town = Town()
    chassis, gates = await town.process("only", build(KitSettings(), None))  # type: ignore[arg-type]
    await chassis.workers["parked"].leases.renew()
    stopping = asyncio.Event()
    gates.fail("store.find", times=100)

    looking = asyncio.ensure_future(chassis.signals.run(stopping, every=60.0))
    await until(lambda: chassis.signals.latest is not None)
    stopping.set()
    await looking

    assert chassis.signals.latest is not None
    assert chassis.signals.latest.stored is None
    assert chassis.signals.latest.here.worker == "only"
    with pytest.raises(StoreUnavailable):
        await chassis.signals.snapshot()


async def test_a_snapshot_can_be_written_as_json() -> None:
    harness = await running()

    found = json.loads(json.dumps((await harness.chassis.signals.snapshot()).as_json()))

    assert found["here"]["service"] == "toy"
    assert found["stored"]["due"] == {"toy.box": 0.0, "toy.stamp": 0.0, "toy.parked": 0.0}


def test_how_somebody_outside_stands_is_told_by_breaker_budget_and_when_they_may_be_called() -> None:
    now = 0.0
    pacer = Pacer(lambda: now)
    allowance = Allowance(rate=1.0, burst=2.0, failures=2, cool_down=30.0, whom="payer")
    pacer.begin("payer#1", 1, allowance)
    now = 2.0
    assert pacer.begin("payer#1", 1, allowance) == 0.0
    (standing,) = pacer.standings()
    assert (standing.whom, standing.breaker, standing.budget, standing.in_flight) == ("payer", Breaker.CLOSED, 1.0, 1)

    pacer.begin("payer#1", 1, allowance)
    for _ in range(2):
        pacer.end("payer#1", Unanswered("timeout"), allowance)
    (standing,) = pacer.standings()
    assert (standing.breaker, standing.budget, standing.again_in) == (Breaker.OPEN, 0.0, 30.0)

    now = 33.0
    (standing,) = pacer.standings()
    assert standing.breaker is Breaker.HALF_OPEN
