"""What is due is found past who may not be called, without reading all that waits for him."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import ClassVar, cast

import pytest

from shared.kit.document import Document
from shared.kit.finding import BATCH, HINT, Finder
from shared.kit.pacing import Allowance, Pacer
from shared.kit.store.port import Conditions, Found, Store, StoreUnavailable
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.store_suite import fresh
from tests.unit.kit.bench import START, FrozenClock

SLOTS = frozenset({0, 1})
BACKLOG = 1500
FEW = HINT + 100
"""As many as fill a look over all slots."""
ENDLESS = Allowance(rate=1e6, burst=1e4, concurrency=1000)


class Question(Document):
    collection: ClassVar[str] = "question"
    callees: ClassVar = {"": "whom"}
    whom: str = ""


class Errand(Document):
    collection: ClassVar[str] = "errand"


class Reads:
    """A store that counts the documents which its looks return."""

    def __init__(self, store: MemoryStore, clock: FrozenClock) -> None:
        self.store = store
        self.rows = self.looks = 0
        self.takes = 0.0
        """Seconds that a look takes."""
        self.fails: set[int] = set()
        """Which looks fail."""
        self._clock = clock

    async def find(
        self, collection: str, conditions: Conditions, *, sort: str, limit: int, fields: Iterable[str]
    ) -> list[Found]:
        self.looks += 1
        self._clock.pass_(self.takes)
        if self.looks in self.fails:
            raise StoreUnavailable("nobody answers")
        found = await self.store.find(collection, conditions, sort=sort, limit=limit, fields=tuple(fields))
        self.rows += len(found)
        return found


class Search:
    """A finder over documents that a test stores, by a clock that it moves."""

    def __init__(self, document: type[Document] = Question, *, calls_alone: bool = True) -> None:
        self.clock = FrozenClock(START)
        self.server = MemoryStore()
        self.reads = Reads(self.server, self.clock)
        self.pacer = Pacer(self.clock.monotonic)
        self.flying: dict[str, int] = {}
        self.collection = document.collection
        self.finder = Finder(
            cast("Store", self.reads),
            document,
            "",
            self.clock,
            self.pacer,
            lambda: self.flying,
            calls_alone=calls_alone,
        )

    async def store(self, whom: str, count: int = 1, *, slot: int = 0, ago: float = 60.0, name: str = "") -> None:
        """Store so many that call ``whom``, the first due so many seconds ago, the others a millisecond later each."""
        first = self.clock.now() - timedelta(seconds=ago)
        times = [first + timedelta(milliseconds=n) for n in range(count)]
        documents = [fresh(f"{name or whom}-{n}", slot=slot, due=at, whom=whom) for n, at in enumerate(times)]
        await self.server.write(self.collection, documents)

    async def rest(self, *ids: str) -> None:
        """Take these out of what is due."""
        stored = self.server.collections[self.collection]
        for id in ids:
            document = stored.get(id)
            del document["due"]
            stored.put(document)

    async def whom(self) -> set[str]:
        """Who is called by what is found now."""
        self.finder.retain(SLOTS)
        return {id.partition("-")[0] for id in await self.finder.due(SLOTS)}


@pytest.fixture
async def search() -> Search:
    """In slot 0 a backlog of somebody who may not be called, in front of everything."""
    found = Search()
    await found.store("slow", BACKLOG, ago=600.0)
    found.finder.shut((0, "slow"), 3600.0)
    return found


async def test_who_may_be_called_is_found_past_who_may_not(search: Search) -> None:
    await search.store("quick", 5)
    await search.store("near", slot=1)

    assert await search.whom() == {"quick", "near"}


async def test_a_backlog_is_read_past_once_and_not_at_every_look(search: Search) -> None:
    await search.store("quick", BATCH)
    await search.whom()

    for _ in range(20):
        before = search.reads.rows
        assert await search.whom() == {"quick"}
        assert search.reads.rows - before <= BATCH, "his own, and nothing of who stands before him"


async def test_who_becomes_due_is_met_at_the_next_look_over_all(search: Search) -> None:
    assert await search.whom() == set()
    assert await search.whom() == set()

    search.clock.pass_(0.6)
    await search.store("new", ago=0.1)

    assert await search.whom() == {"new"}


async def test_what_is_stored_long_after_its_time_is_found_when_a_slot_is_searched_again(search: Search) -> None:
    assert await search.whom() == set()
    await search.store("late", ago=300.0)
    search.clock.pass_(30.0)
    assert await search.whom() == set()

    search.clock.pass_(271.0)

    assert await search.whom() == {"late"}


async def test_who_has_nothing_due_is_asked_for_no_more_until_he_is_met_again(search: Search) -> None:
    await search.store("quick")
    assert await search.whom() == {"quick"}
    await search.rest("quick-0")
    assert await search.whom() == set()
    before = search.reads.rows

    assert await search.whom() == set()
    assert search.reads.rows == before

    search.clock.pass_(0.6)
    await search.store("quick", ago=0.1, name="quick-again")
    assert await search.whom() == {"quick"}


async def test_what_is_in_flight_is_not_found_again_and_hides_nothing(search: Search) -> None:
    await search.store("quick", 3)
    search.pacer.begin("quick", 0, ENDLESS)
    search.flying = {"quick-0": 0, "quick-1": 0}

    assert set(await search.finder.due(SLOTS)) == {"quick-2"}


async def test_who_may_be_called_again_is_found_at_once(search: Search) -> None:
    assert await search.whom() == set()
    search.finder.open((0, "slow"))

    assert await search.whom() == {"slow"}


async def test_who_is_paused_is_waited_for_by_nobody_and_found_when_that_changes(search: Search) -> None:
    assert search.finder.waiting
    search.finder.shut((0, "slow"), 5.0, paused=True)
    assert not search.finder.waiting
    assert await search.whom() == set()

    search.finder.pauses_changed()

    assert await search.whom() == {"slow"}


async def test_what_is_known_of_a_slot_that_is_not_ours_any_more_is_forgotten(search: Search) -> None:
    await search.store("quick")
    assert await search.whom() == {"quick"}
    search.finder.retain({1})
    assert set(await search.finder.due({1})) == set()

    search.clock.pass_(0.6)
    assert await search.whom() | await search.whom() == {"slow", "quick"}, "a slot that comes back is new"


async def test_a_look_for_newcomers_that_failed_is_made_up_for(search: Search) -> None:
    await search.whom()
    search.clock.pass_(0.6)
    await search.whom()
    search.clock.pass_(0.6)
    await search.store("new", ago=0.1)
    search.reads.fails = {search.reads.looks + 2}  # behind the look over all
    with pytest.raises(StoreUnavailable):
        await search.whom()
    search.clock.pass_(0.6)

    assert await search.whom() == {"new"}


async def test_where_more_became_due_than_is_looked_at_every_slot_is_searched(search: Search) -> None:
    assert await search.whom() == set()
    search.clock.pass_(0.6)
    await search.store("slow", 2000, ago=5.5, name="many")
    await search.store("new", ago=0.1)

    assert await search.whom() | await search.whom() == {"new"}, "behind a page of others"


async def test_hundreds_who_were_known_cost_no_pass_more_than_about_a_second() -> None:
    search = Search()
    await search.store("slow", FEW, ago=600.0)
    search.finder.shut((0, "slow"), 3600.0)
    for number in range(300):
        search.finder.shut((0, f"gone {number}"), 0.0)
        search.finder.open((0, f"gone {number}"))
    await search.store("quick")
    search.reads.takes = 0.01
    found: set[str] = set()
    looks = []
    for _ in range(5):
        before = search.reads.looks
        found |= await search.whom()
        looks.append(search.reads.looks - before)

    assert found == {"quick"}
    assert max(looks) < 120
    assert looks[-1] < 20, "who has nothing due is not known any more"


async def test_where_not_all_can_be_begun_each_slot_has_its_turn() -> None:
    """What was found stays due, as where all places for calls are taken."""
    search = Search(calls_alone=False)
    slots = frozenset(range(40))
    await search.store("elsewhere", FEW, slot=99, ago=600.0)
    for slot in slots:
        await search.store(f"payer {slot}", 10, slot=slot)
    seen: Counter[int] = Counter()
    for _ in range(8):
        search.finder.retain(slots)
        seen.update(set((await search.finder.due(slots)).values()))

    assert min(seen[slot] for slot in slots) >= 3, seen


async def test_deadlines_are_reached_behind_any_number_of_calls_that_wait() -> None:
    search = Search(calls_alone=False)
    await search.store("paused", BACKLOG)
    search.finder.shut((0, "paused"), 3600.0, paused=True)
    reached: set[str] = set()
    for _ in range(BACKLOG // 500 + 1):
        reached |= set(await search.finder.due(SLOTS))
        search.clock.pass_(2.1)

    assert len(reached) == BACKLOG


async def test_whoever_else_waits_is_looked_at_for_his_deadlines_now_and_then_and_each_in_turn() -> None:
    search = Search(calls_alone=False)
    for name in ("one", "another"):
        await search.store(name, 600)
        search.finder.shut((0, name), 3600.0, paused=True)

    first = set(await search.finder.due(SLOTS))
    assert not await search.finder.due(SLOTS), "not at every pass: most of it only waits"
    search.clock.pass_(2.1)
    second = set(await search.finder.due(SLOTS))

    assert {id.partition("-")[0] for id in first} | {id.partition("-")[0] for id in second} == {"one", "another"}


async def test_without_anybody_to_be_called_each_slot_has_its_share() -> None:
    search = Search(Errand, calls_alone=False)
    await search.store("theirs", BACKLOG, slot=7, ago=600.0)
    await search.store("first", 5 * BATCH, slot=0)
    await search.store("second", 5 * BATCH, slot=1, ago=30.0)

    found = await search.finder.due(SLOTS)

    shares: Mapping[int, int] = {slot: list(found.values()).count(slot) for slot in SLOTS}
    assert shares == {0: BATCH // 2, 1: BATCH // 2}
