"""Slots are shared evenly, handed over, taken over, and never have two owners at once."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from functools import partial

import pytest

from shared.kit.document import SLOTS
from shared.kit.leases import Leases
from shared.kit.settings import KitSettings
from shared.kit.store.port import Outcome, StoreUnavailable, Write
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.store_suite import INDEXES, fresh
from tests.unit.kit.bench import LEASE, START, FrozenClock, Gates

MARGIN = 2.0


class Workers:
    """Some workers of one queue on one store, by one machine's clock."""

    def __init__(self) -> None:
        self.clock = FrozenClock(START)
        self.server = MemoryStore()
        self.busy: set[int] = set()
        self.all: dict[str, Leases] = {}
        self.gates: dict[str, Gates] = {}

    def add(self, name: str, lease: float = LEASE, margin: float = MARGIN, *, claiming: bool = False) -> Leases:
        gates = self.gates[name] = Gates()
        self.all[name] = Leases(
            self.server.seen_by(gates),
            self.clock,
            "toy.box",
            "box",
            name,
            lease=lease,
            margin=margin,
            claiming=claiming,
            busy=lambda slot: slot in self.busy,
        )
        return self.all[name]

    async def renew(self, *names: str, rounds: int = 1) -> None:
        """Let workers renew in turn, time passing as between beats, and see that no slot has two owners."""
        for _ in range(rounds):
            for name in names or tuple(self.all):
                await self.all[name].renew()
                self.check()
            self.clock.pass_(LEASE / 3)
            self.check()

    def check(self) -> None:
        owners = Counter(slot for leases in self.all.values() for slot in leases.slots)
        twice = [slot for slot, number in owners.items() if number > 1]
        assert not twice, f"slots with two owners: {twice}"

    def shares(self) -> dict[str, int]:
        return {name: len(leases.slots) for name, leases in self.all.items()}


@pytest.fixture
def workers() -> Workers:
    return Workers()


async def test_a_worker_alone_has_every_slot(workers: Workers) -> None:
    alone = workers.add("a")
    assert alone.slots == {}

    assert await alone.renew()

    assert sorted(alone.slots) == list(range(SLOTS))
    assert set(alone.slots.values()) == {1}


async def test_shares_are_even_as_workers_come_and_go(workers: Workers) -> None:
    workers.add("a")
    await workers.renew()
    workers.add("b")
    workers.add("c")
    await workers.renew(rounds=3)
    assert sorted(workers.shares().values()) == [84, 86, 86]

    await workers.all.pop("b").leave()
    await workers.renew(rounds=2)
    assert workers.shares() == {"a": 128, "c": 128}


async def test_who_leaves_is_followed_at_once(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")
    await workers.renew(rounds=3)

    await first.leave()
    assert first.slots == {}
    await second.renew()

    assert len(second.slots) == SLOTS


async def test_who_dies_is_followed_after_a_lease_and_not_before(workers: Workers) -> None:
    dead, survivor = workers.add("a"), workers.add("b")
    await workers.renew(rounds=3)
    await dead.renew()
    left = set(dead.slots)
    await survivor.renew()

    workers.clock.pass_(LEASE - 0.1)
    await survivor.renew()
    assert not left & set(survivor.slots)
    assert set(dead.slots) == left

    workers.clock.pass_(MARGIN + 0.2)
    assert dead.slots == {}
    await survivor.renew()
    assert len(survivor.slots) == SLOTS


@pytest.mark.parametrize("phase", range(10))
async def test_by_the_default_settings_who_dies_is_followed_within_ten_seconds(workers: Workers, phase: int) -> None:
    """Whenever it beat for the last time, so that what it left can be done within fifteen."""
    settings = KitSettings()
    lease, between = settings.lease_seconds, settings.lease_seconds / 3
    dead, survivor = (workers.add(name, lease, settings.lease_margin_seconds) for name in "ab")
    for _ in range(3):
        await survivor.renew()
        await dead.renew()
        workers.clock.pass_(between)
    await survivor.renew()
    workers.clock.pass_(between * phase / 10)
    await dead.renew()
    waited = 0.0

    workers.clock.pass_(between * (1 - phase / 10))
    waited += between * (1 - phase / 10)
    while await survivor.renew() and len(survivor.slots) < SLOTS:
        workers.clock.pass_(between)
        waited += between

    assert lease < waited <= 10.0 + 1e-6


async def test_every_new_owner_of_a_slot_has_a_higher_epoch(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")
    await first.renew()
    before = first.slots
    await workers.renew(rounds=3)

    assert set(first.slots.items()) <= set(before.items()), "who keeps a slot keeps its epoch"
    assert set(second.slots.values()) == {2}


async def test_what_was_handed_over_is_not_ours_even_if_nobody_told_us_that_it_was(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")
    await first.renew()
    await second.renew()
    workers.gates["a"].fail("store.written")

    with pytest.raises(StoreUnavailable):
        await first.renew()
    await second.renew()

    assert len(second.slots) == SLOTS // 2
    workers.check()


async def test_a_lease_that_was_not_renewed_ends_by_its_own_clock(workers: Workers) -> None:
    alone = workers.add("a")
    await alone.renew()

    workers.clock.pass_(LEASE - MARGIN - 0.1)
    assert alone.may_call()
    workers.clock.pass_(0.2)
    assert not alone.may_call()
    assert alone.holds()
    assert alone.epoch(3) == 1

    workers.clock.pass_(MARGIN)
    assert not alone.holds()
    assert alone.slots == {}
    assert alone.epoch(3) is None


async def test_a_lease_runs_from_before_its_renewal_began(workers: Workers) -> None:
    alone = workers.add("a")

    async def slow_store() -> None:
        workers.clock.pass_(LEASE - 1)

    workers.gates["a"].once("store.write", slow_store)
    await alone.renew()
    workers.clock.pass_(1.1)

    assert not alone.holds()


async def test_domain_time_may_jump_without_ending_a_lease(workers: Workers) -> None:
    alone = workers.add("a")
    await alone.renew()

    workers.clock.advance(workers.clock.now() - START.replace(year=2020))

    assert alone.holds()
    assert len(alone.slots) == SLOTS


async def test_a_busy_slot_is_handed_over_only_when_its_work_is_done(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")
    await first.renew()
    workers.busy = set(range(SLOTS))

    await workers.renew(rounds=3)
    assert second.slots == {}
    assert len(first.slots) == SLOTS // 2, "nothing new is begun in what is to be handed over"
    assert all(first.epoch(slot) == 1 for slot in range(SLOTS)), "what is in flight there is still written"

    workers.busy = set()
    await workers.renew(rounds=2)
    assert workers.shares() == {"a": 128, "b": 128}


async def test_of_two_that_renew_at_once_one_tries_again(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")

    async def overtake() -> None:
        assert await second.renew()

    await first.renew()
    workers.gates["a"].once("store.load", overtake)
    workers.gates["a"].once("store.load", overtake)
    assert await first.renew(), "overtaken before it read"
    workers.gates["a"].once("store.write", overtake)

    assert not await first.renew()
    assert await first.renew()
    workers.check()


async def test_new_slots_are_used_only_once_their_documents_are_stamped(workers: Workers) -> None:
    alone = workers.add("a")
    workers.gates["a"].fail("store.stamp")

    with pytest.raises(StoreUnavailable):
        await alone.renew()
    assert alone.slots == {}

    await alone.renew()
    assert len(alone.slots) == SLOTS
    assert set(alone.slots.values()) == {1}


@pytest.mark.parametrize("claiming", [False, True])
async def test_where_much_is_due_slots_are_stamped_one_after_another_and_none_is_taken_twice(
    workers: Workers, claiming: bool
) -> None:
    workers.server = MemoryStore(slots_at_once=100)
    first = workers.add("a", claiming=claiming)

    shares = []
    for _ in range(3):
        assert await first.renew()
        shares.append((len(first.slots), first.epoch(SLOTS - 1), first.taking_over))
    used = [(SLOTS, 1), (SLOTS, 1)] if claiming else [(100, None), (200, None)]
    assert shares == [(*used[0], True), (*used[1], True), (SLOTS, 1, False)]
    assert set(first.slots.values()) == {1}

    second = workers.add("b", claiming=claiming)
    await workers.renew(rounds=5)
    assert workers.shares() == {"a": 128, "b": 128}
    assert not second.taking_over


async def test_a_beat_that_was_seen_holds_the_lease_whatever_becomes_of_the_stamping(workers: Workers) -> None:
    """Else others would take its worker for alive, and it would do nothing."""
    alone = workers.add("a")
    workers.gates["a"].fail("store.stamp")

    with pytest.raises(StoreUnavailable):
        await alone.renew()

    assert alone.holds()
    assert alone.slots == {}


async def test_what_is_claimed_is_stamped_where_its_slot_is_not_yet(workers: Workers) -> None:
    workers.server = MemoryStore(slots_at_once=100)
    await workers.server.ensure("box", INDEXES)
    await workers.server.write("box", [fresh("early", slot=99, due=START), fresh("late", slot=100, due=START)])
    heir = workers.add("a", claiming=True)
    await heir.renew()
    asked: list[str] = []

    async def stamped() -> None:
        asked.append("stamped")

    workers.gates["a"].once("store.stamp", stamped)
    await heir.claim({"early": 99})
    assert asked == [], "its slot was taken over whole"
    await heir.claim({"early": 99, "late": 100})
    assert asked == ["stamped"]

    zombie = [Write(id, 1, {"version": 2}, epoch=0) for id in ("early", "late")]
    assert await workers.server.write("box", zombie) == [Outcome.LOST, Outcome.LOST]


async def test_a_worker_that_froze_past_its_lease_takes_nothing_back_that_is_others(workers: Workers) -> None:
    zombie, heir = workers.add("a"), workers.add("b")
    await workers.renew(rounds=3)
    for _ in range(5):
        workers.clock.pass_(LEASE / 3)
        await heir.renew()
    assert len(heir.slots) == SLOTS

    await zombie.renew()
    workers.check()
    assert zombie.slots == {}

    await workers.renew(rounds=3)
    assert workers.shares() == {"a": 128, "b": 128}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_no_slot_has_two_owners_and_in_quiet_the_shares_are_even(
    workers: Workers, seed: int
) -> None:
    chance = random.Random(seed)
    names = list("abcd")
    for name in names:
        workers.add(name)

    async def renew(name: str) -> None:
        try:
            await workers.all[name].renew()
        except StoreUnavailable:
            pass
        finally:
            workers.check()

    for step in range(120):
        name = chance.choice(names)
        match chance.choice(("renew", "renew", "renew", "pass", "fail", "restart", "busy", "interleave")):
            case "pass":
                workers.clock.pass_(chance.choice((0.1, 1.0, 4.0, 9.0)))
            case "fail":
                workers.gates[name].fail(chance.choice(("store.write", "store.written", "store.stamp")))
            case "restart":
                with contextlib.suppress(StoreUnavailable):
                    await workers.all[name].leave()
                names[names.index(name)] = f"{name[0]}{step}"  # a new process has a new name
                workers.add(f"{name[0]}{step}")
            case "busy":
                workers.busy = set(chance.sample(range(SLOTS), 100))
            case "interleave":
                other = chance.choice([each for each in names if each != name])
                gate = chance.choice(("store.load", "store.write", "store.written", "store.stamp"))
                workers.gates[name].once(gate, partial(renew, other))
            case _:
                await renew(name)
        workers.check()
    workers.busy = set()
    for gates in workers.gates.values():
        gates.clear()

    await workers.renew(*names, rounds=12)

    assert {name: share for name, share in workers.shares().items() if share} == dict.fromkeys(names, SLOTS // 4)


async def test_who_was_read_slowly_is_not_taken_for_dead_too_early(workers: Workers) -> None:
    """The observer's reading takes five seconds, in which the other beats; its lease runs from that beat."""
    first, observer = workers.add("a"), workers.add("b")
    await first.renew()

    async def beat_while_it_is_read() -> None:
        workers.clock.pass_(5.0)
        await first.renew()

    workers.gates["b"].once("store.load", beat_while_it_is_read)
    await observer.renew()
    workers.clock.pass_(LEASE - 3.0 + MARGIN)
    assert first.holds()

    await observer.renew()

    workers.check()


async def test_what_was_handed_over_is_not_taken_back_when_the_answer_was_lost(workers: Workers) -> None:
    first, second = workers.add("a"), workers.add("b")
    await first.renew()
    await second.renew()
    workers.gates["a"].fail("store.written")
    with pytest.raises(StoreUnavailable):
        await first.renew()
    await second.renew()
    workers.check()

    workers.gates["a"].fail("store.write")
    with pytest.raises(StoreUnavailable):
        await first.renew()

    workers.check()
