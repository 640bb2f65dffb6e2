"""What every store must do. An adapter's tests subclass ``StoreSuite`` with a fixture ``store``, an empty database.

Each test takes a collection of its own, so that a suite can share one server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

import pytest

from shared.kit.clock import SystemClock
from shared.kit.document import SLOTS, Document
from shared.kit.leases import Leases
from shared.kit.store.port import EPOCH, MAX_DOCUMENT_BYTES, Found, Outcome, Store, Unstorable, Write
from shared.kit.store.repository import indexes_of

WON, LOST = Outcome.WON, Outcome.LOST
AT = datetime(2026, 3, 2, 15, 0, 0, 123_000, tzinfo=UTC)


class Thing(Document):
    """What the suite's collections have the indexes of."""

    collection: ClassVar[str] = "thing"
    indexes: ClassVar[tuple[str, ...]] = ("owner",)
    callees: ClassVar[dict[str, str]] = {"": "owner"}


INDEXES = indexes_of(Thing)

UNENCODABLE: Mapping[str, Any] = {
    "half a character": "\ud800",
    "a number beyond 64 bits": 1 << 64,
    "a type that BSON has not": {1, 2},
    "a nested one": {"a": [{"b": object()}]},
    "a key that is no text": {"a": {1: "x"}},
    "a key with a zero byte": {"a": {"x\0y": "x"}},
}
"""Values with which a document cannot be encoded, by what is wrong with them."""

CANARY = "Synthea Canary"
"""What must not be shown by any refusal."""


def fresh(id: str, **fields: Any) -> Write:
    """An insert of a document at version 1."""
    return Write(id, None, {"version": 1, "sequence": 0, "epoch": 0, "slot": 0, **fields})


def event(sequence: int) -> dict[str, Any]:
    """An outbox's entry."""
    return {"sequence": sequence, "type": "thing.done.v1", "data": "{}"}


def recording(id: str, expected: int | None, *sequences: int) -> Write:
    """A write that records events up to the last of ``sequences``."""
    fields: dict[str, Any] = {"version": (expected or 0) + 1, "sequence": sequences[-1], "unsent": AT}
    if expected is None:
        fields |= {"epoch": 0, "slot": 0}
    return Write(id, expected, fields, [event(n) for n in sequences])


async def one(store: Store, collection: str, id: str) -> Found:
    """A document that must be there."""
    (found,) = await store.load(collection, [id])
    return found


async def seed(store: Store, collection: str, *writes: Write) -> None:
    """Write what must all land."""
    await store.ensure(collection, INDEXES)
    assert await store.write(collection, writes) == [WON] * len(writes)


TAKING_OVER = (
    "reading the table",
    "table read",
    "writing the table",
    "table written",
    "stamping",
    "stamped",
    "taken over",
)
"""The points of ``Leases.renew`` at which a worker takes slots over, in their order."""

_LEASE = 10.0


class _Stopped(SystemClock):
    """A clock that goes on when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return AT

    def monotonic(self) -> float:
        return self.seconds


class _Watched:
    """A store as ``Leases`` uses it, that lets a test do something before and after each call."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.at: Callable[[str], Awaitable[None]] = self._nothing

    async def _nothing(self, point: str) -> None:
        return None

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        await self.at("reading the table")
        found = await self._store.load(collection, ids)
        await self.at("table read")
        return found

    async def write(self, collection: str, writes: Sequence[Write]) -> list[Outcome | Unstorable]:
        await self.at("writing the table")
        outcomes = await self._store.write(collection, writes)
        await self.at("table written")
        return outcomes

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime, queue: str = "") -> set[int]:
        await self.at("stamping")
        done = await self._store.stamp(collection, slots, until, queue)
        await self.at("stamped")
        return done


class StoreSuite:
    """The promises of ``shared.kit.store.port.Store``."""

    # -- winners and losers ---------------------------------------------------------------------------------

    async def test_a_bulk_write_names_its_losers_and_lands_the_rest(self, store: Store) -> None:
        await seed(store, "mixed", *(fresh(id, value="before") for id in "abcd"))
        await seed(store, "mixed", Write("b", 1, {"version": 2, "value": "overtaken"}))

        outcomes = await store.write(
            "mixed",
            [
                Write("a", 1, {"version": 2, "value": "after"}),
                Write("b", 1, {"version": 2, "value": "after"}),
                fresh("c", value="after"),
                fresh("new", value="after"),
                fresh("unencodable", value=1 << 64),
                Write("d", 1, {"version": 2, "value": "\ud800"}),
                fresh("large", value="x" * MAX_DOCUMENT_BYTES),
                Write("c", 7, {"version": 8, "value": "after"}),
                Write("c", 1, {"version": 2, "value": "after"}),
            ],
        )

        assert [o if isinstance(o, Outcome) else type(o) for o in outcomes] == [
            WON,
            LOST,
            LOST,
            WON,
            Unstorable,
            Unstorable,
            Unstorable,
            LOST,
            WON,
        ]
        stored = {raw["_id"]: (raw["version"], raw["value"]) for raw in await store.find("mixed", {})}
        assert stored == {
            "a": (2, "after"),
            "b": (2, "overtaken"),
            "c": (2, "after"),
            "d": (1, "before"),
            "new": (1, "after"),
        }

    async def test_a_batch_in_which_nothing_can_be_encoded_says_so_of_each(self, store: Store) -> None:
        outcomes = await store.write("none", [fresh("a", value={1}), fresh("b", value="\ud800")])

        assert [type(outcome) for outcome in outcomes] == [Unstorable, Unstorable]
        assert await store.find("none", {}) == []

    @pytest.mark.parametrize("kind", list(UNENCODABLE))
    async def test_what_cannot_be_encoded_is_set_apart(self, store: Store, kind: str) -> None:
        await seed(store, "apart", fresh("there"))
        value = UNENCODABLE[kind]

        outcomes = await store.write(
            "apart",
            [
                fresh("inserted", value=value, name=CANARY),
                Write("there", 1, {"version": 2, "value": value}),
                Write("there", 1, {"version": 2, "name": CANARY}, [{**event(1), "data": value}]),
                fresh("good"),
            ],
        )

        assert [type(outcome) for outcome in outcomes] == [Unstorable, Unstorable, Unstorable, Outcome]
        assert not any(CANARY in str(outcome) for outcome in outcomes)
        assert {raw["_id"]: raw["version"] for raw in await store.find("apart", {})} == {"there": 1, "good": 1}

    async def test_a_document_that_grows_over_the_limit_is_set_apart_where_it_stands(self, store: Store) -> None:
        half = "x" * (MAX_DOCUMENT_BYTES * 3 // 5)
        await seed(store, "grown", fresh("a"), fresh("b"))
        await seed(store, "grown", Write("a", 1, {"version": 2}, [{**event(1), "data": half}]))

        outcomes = await store.write(
            "grown",
            [Write("a", 2, {"version": 3}, [{**event(2), "data": half}]), Write("b", 1, {"version": 2})],
        )

        assert [type(outcome) for outcome in outcomes] == [Unstorable, Outcome]
        assert {raw["_id"]: raw["version"] for raw in await store.find("grown", {})} == {"a": 2, "b": 2}

    async def test_of_writers_racing_on_one_version_exactly_one_wins(self, store: Store) -> None:
        await seed(store, "race", fresh("a"))

        for version in range(1, 6):
            write = Write("a", version, {"version": version + 1})
            outcomes = await asyncio.gather(*(store.write("race", [write]) for _ in range(6)))
            assert sorted(o.value for (o,) in outcomes if isinstance(o, Outcome)) == ["lost"] * 5 + ["won"]

        assert (await one(store, "race", "a"))["version"] == 6

    async def test_bulks_that_meet_over_the_same_documents_in_opposite_order_both_end(self, store: Store) -> None:
        ids = [f"{n:02d}" for n in range(40)]
        await seed(store, "meet", *(fresh(id) for id in ids))

        for version in range(1, 6):
            writes = [Write(id, version, {"version": version + 1}) for id in ids]
            racing = (store.write("meet", each) for each in (writes, writes[::-1], writes[20:] + writes[:20]))
            outcomes = await asyncio.wait_for(asyncio.gather(*racing), 60)
            assert sum(outcome is WON for each in outcomes for outcome in each) == len(ids)
            assert sum(outcome is LOST for each in outcomes for outcome in each) == 2 * len(ids)

        assert {raw["version"] for raw in await store.find("meet", {})} == {6}

    async def test_bulks_that_create_and_change_end_while_outboxes_are_emptied(self, store: Store) -> None:
        """Emptying waits for a bulk that holds its documents, and the bulk for nothing that emptying holds."""
        ids = [f"{n:02d}" for n in range(40)]
        await seed(store, "both", *(recording(id, None, 1) for id in ids))

        for version in range(1, 11):
            writes = [recording(id, version, version + 1) for id in ids]
            born = [fresh(f"born-{version}-{n:02d}") for n in range(20)]
            emptying = (store.sent("both", [(id, version) for id in each]) for each in (ids[::-1], ids[20:] + ids[:20]))
            outcomes, *_ = await asyncio.wait_for(asyncio.gather(store.write("both", [*writes, *born]), *emptying), 60)
            assert outcomes == [WON] * (len(writes) + len(born))

        assert [raw["version"] for raw in await store.find("both", {"_id": {"$in": ids}})] == [11] * len(ids)

    async def test_of_inserts_racing_for_one_id_exactly_one_wins(self, store: Store) -> None:
        outcomes = await asyncio.gather(*(store.write("born", [fresh("a", by=n)]) for n in range(6)))

        (winner,) = [n for n, (outcome,) in enumerate(outcomes) if outcome is WON]
        assert (await one(store, "born", "a"))["by"] == winner

    async def test_a_large_batch_lands_whole(self, store: Store) -> None:
        ids = [f"{n:04d}" for n in range(1200)]

        await seed(store, "many", *(fresh(id) for id in ids))

        assert await store.count("many", {}) == len(ids)
        assert [raw["_id"] for raw in await store.find("many", {}, limit=5000)] == ids

    async def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        assert await store.write("nothing", []) == []
        await store.sent("nothing", [])
        await store.stamp("nothing", {}, AT)
        await store.stamp_documents("nothing", {})
        await store.append("nothing", [])
        assert await store.load("nothing", []) == []

    # -- one write: state and events ------------------------------------------------------------------------

    async def test_a_write_carries_its_events_and_a_lost_one_none(self, store: Store) -> None:
        await seed(store, "outbox", recording("a", None, 1, 2))
        await seed(store, "outbox", recording("a", 1, 3))

        assert await store.write("outbox", [recording("a", 1, 3, 4)]) == [LOST]

        stored = await one(store, "outbox", "a")
        assert [entry["sequence"] for entry in stored["outbox"]] == [1, 2, 3]
        assert stored["version"] == 2

    async def test_sent_takes_out_what_was_published_and_changes_no_version(self, store: Store) -> None:
        await seed(store, "sent", recording("whole", None, 1, 2), recording("part", None, 1, 2, 3), fresh("none"))

        await store.sent("sent", [("whole", 2), ("part", 2), ("none", 0), ("absent", 4)])

        whole, part, none = [await one(store, "sent", id) for id in ("whole", "part", "none")]
        assert whole["outbox"] == []
        assert "unsent" not in whole
        assert [entry["sequence"] for entry in part["outbox"]] == [3]
        assert part["unsent"] == AT
        assert none["outbox"] == []
        assert [raw["version"] for raw in (whole, part, none)] == [1, 1, 1]
        assert await store.load("sent", ["absent"]) == []

    async def test_sent_keeps_what_was_recorded_while_it_was_published(self, store: Store) -> None:
        await seed(store, "moved", recording("a", None, 1, 2))
        await seed(store, "moved", recording("a", 1, 3))

        await store.sent("moved", [("a", 2)])
        await store.sent("moved", [("a", 2)])

        stored = await one(store, "moved", "a")
        assert [entry["sequence"] for entry in stored["outbox"]] == [3]
        assert (stored["version"], stored["unsent"]) == (2, AT)

        await store.sent("moved", [("a", 3)])
        assert "unsent" not in await one(store, "moved", "a")

    async def test_a_write_conditional_on_a_version_wins_after_its_events_were_sent(self, store: Store) -> None:
        await seed(store, "after", recording("a", None, 1))
        await store.sent("after", [("a", 1)])

        assert await store.write("after", [recording("a", 1, 2)]) == [WON]

        assert [entry["sequence"] for entry in (await one(store, "after", "a"))["outbox"]] == [2]

    # -- epochs ---------------------------------------------------------------------------------------------

    async def test_stamp_raises_the_epoch_of_what_is_due_in_its_slots_alone(self, store: Store) -> None:
        until, later = AT, AT + timedelta(milliseconds=1)
        await seed(
            store,
            "stamp",
            fresh("due", slot=1, due=AT - timedelta(days=400)),
            fresh("at the bound", slot=1, due=until),
            fresh("later", slot=1, due=later),
            fresh("resting", slot=1),
            fresh("other slot", slot=2, due=AT),
            fresh("third slot", slot=3, due=AT),
            fresh("ahead", slot=1, due=AT, epoch=9),
        )

        await store.stamp("stamp", {1: 4, 3: 7}, until)

        assert {raw["_id"]: raw["epoch"] for raw in await store.find("stamp", {})} == {
            "due": 4,
            "at the bound": 4,
            "later": 0,
            "resting": 0,
            "other slot": 0,
            "third slot": 7,
            "ahead": 9,
        }
        assert {raw["version"] for raw in await store.find("stamp", {})} == {1}

    async def test_where_much_is_due_the_slots_are_stamped_one_after_another(self, store: Store) -> None:
        many = [fresh(f"{n:04d}", slot=n % 4, due=AT) for n in range(2400)]
        await store.ensure("much", INDEXES)
        await seed(store, "much", *many, fresh("later", slot=1, due=AT + timedelta(hours=1)))

        left = {0: 5, 1: 6, 3: 5}
        while left:
            for slot in await store.stamp("much", left, AT):
                del left[slot]

        stamped = {(raw["slot"], raw["epoch"]) for raw in await store.find("much", {"due": AT}, limit=5000)}
        assert stamped == {(0, 5), (1, 6), (2, 0), (3, 5)}
        assert (await one(store, "much", "later"))["epoch"] == 0

    async def test_documents_are_stamped_by_id_whatever_is_due(self, store: Store) -> None:
        await seed(store, "claimed", fresh("due", due=AT), fresh("resting"), fresh("ahead", epoch=9), fresh("other"))

        await store.stamp_documents("claimed", {"due": 4, "resting": 5, "ahead": 5, "absent": 5})
        await store.stamp_documents("claimed", {})

        found = {raw["_id"]: (raw["epoch"], raw["version"]) for raw in await store.find("claimed", {})}
        assert found == {"due": (4, 1), "resting": (5, 1), "ahead": (9, 1), "other": (0, 1)}

    async def test_after_a_stamp_a_write_of_an_older_epoch_loses(self, store: Store) -> None:
        await seed(store, "fence", fresh("a", slot=1, due=AT), fresh("b", slot=1, due=AT))
        await store.stamp("fence", {1: 5}, AT)

        zombie = [Write(id, 1, {"version": 2, "by": "zombie"}, epoch=4) for id in "ab"]
        assert await store.write("fence", zombie) == [LOST, LOST]

        owner = Write("a", 1, {"version": 2, "by": "owner"}, epoch=5)
        later_owner = Write("b", 1, {"version": 2, "by": "later owner"}, epoch=6)
        assert await store.write("fence", [owner, later_owner]) == [WON, WON]
        stored = {raw["_id"]: (raw["by"], raw["epoch"]) for raw in await store.find("fence", {})}
        assert stored == {"a": ("owner", 5), "b": ("later owner", 5)}

    async def test_a_write_that_names_no_epoch_is_not_fenced(self, store: Store) -> None:
        await seed(store, "unfenced", fresh("a", slot=1, due=AT))
        await store.stamp("unfenced", {1: 5}, AT)

        assert await store.write("unfenced", [Write("a", 1, {"version": 2})]) == [WON]

    async def test_once_a_takeover_has_stamped_its_epoch_no_write_of_the_old_owner_lands(self, store: Store) -> None:
        """The old owner froze with its writes decided, and tries one at every point of its slots being taken over."""
        await seed(store, "taken", *(fresh(point, slot=slot, due=AT) for slot, point in enumerate(TAKING_OVER)))
        clock, landed = _Stopped(), dict[str, Outcome | Unstorable]()
        old = Leases(store, clock, "suite.taken", "taken", "old", lease=_LEASE)
        assert await old.renew()
        staged = {
            raw["_id"]: Write(raw["_id"], 1, {"version": 2, "by": "old"}, epoch=old.epoch(raw["slot"]))
            for raw in await store.find("taken", {})
        }

        async def try_at(point: str) -> None:
            (landed[point],) = await store.write("taken", [staged[point]])

        watched = _Watched(store)
        new = Leases(cast("Store", watched), clock, "suite.taken", "taken", "new", lease=_LEASE)
        assert await new.renew()
        assert new.slots == {}, "the old owner's beat was only just seen"
        clock.seconds += 2 * _LEASE
        watched.at = try_at
        assert await new.renew()
        await try_at("taken over")

        assert new.slots == dict.fromkeys(range(SLOTS), 2)
        fence = TAKING_OVER.index("stamped")
        assert list(landed.items()) == [(point, WON if at < fence else LOST) for at, point in enumerate(TAKING_OVER)]
        read = {raw["_id"]: (raw["version"], raw.get("by")) for raw in await store.find("taken", {})}
        assert read == {point: (2, "old") if at < fence else (1, None) for at, point in enumerate(TAKING_OVER)}
        mine = [Write(id, version, {"version": version + 1, "by": "new"}, epoch=2) for id, (version, _) in read.items()]
        assert await store.write("taken", mine) == [WON] * len(mine)

    # -- what is stored comes back --------------------------------------------------------------------------

    async def test_values_come_back_as_they_were(self, store: Store) -> None:
        values: dict[str, Any] = {
            "time": AT,
            "long ago": datetime(1931, 4, 5, 6, 7, 8, 999_000, tzinfo=UTC),
            "far ahead": datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
            "text": "Zoë Ñandú 李雷 👩🏽‍⚕️ é \u0000 end",
            "empty": "",
            "number": 2**62,
            "negative": -1,
            "fraction": 0.1 + 0.2,
            "truth": [True, False, None],
            "bytes": b"\x00\xff\xfe",
            "nested": {"a": {"b": [{"at": AT, "c": []}, {}]}},
            "a.dotted key": {"$money": {"x.y": 1}},
        }
        nested = {"nested": values}
        await seed(store, "values", fresh("a", **nested), fresh("b"))
        await seed(store, "values", Write("b", 1, {"version": 2, **nested}, [{**event(1), "data": values}]))

        for id in "ab":
            stored = await one(store, "values", id)
            assert stored["nested"] == values
            assert list(stored["nested"]) == list(values)
            assert stored["nested"]["time"].utcoffset() == timedelta(0)
        assert (await one(store, "values", "b"))["outbox"][0]["data"] == values

    async def test_what_is_read_is_a_copy(self, store: Store) -> None:
        await seed(store, "copy", fresh("a", list=[1]))

        (await one(store, "copy", "a"))["list"].append(2)

        assert (await one(store, "copy", "a"))["list"] == [1]

    async def test_a_write_leaves_fields_that_it_does_not_name(self, store: Store) -> None:
        await seed(store, "newer", fresh("a", known=1, unknown={"of a": "newer release"}))

        await seed(store, "newer", Write("a", 1, {"version": 2, "known": 2}))

        stored = await one(store, "newer", "a")
        assert (stored["known"], stored["unknown"]) == (2, {"of a": "newer release"})

    async def test_due_and_unsent_set_to_none_are_gone_and_other_fields_are_none(self, store: Store) -> None:
        await seed(store, "unset", fresh("a", due=AT, unsent=AT, wait={"x": 1}))

        await seed(store, "unset", Write("a", 1, {"version": 2, "due": None, "unsent": None, "wait": None}))

        stored = await one(store, "unset", "a")
        assert "due" not in stored
        assert "unsent" not in stored
        assert stored["wait"] is None

    async def test_a_write_takes_out_the_fields_that_it_drops(self, store: Store) -> None:
        await seed(store, "drop", fresh("a", state="closed", name=CANARY, notes=[CANARY]), fresh("b", name="kept"))

        dropping = [
            Write("a", 1, {"version": 2, "shrunk": True}, drop=("name", "notes", "absent")),
            Write("b", 7, {"version": 8}, drop=("name",)),
        ]
        assert await store.write("drop", dropping) == [WON, LOST]

        stored = await one(store, "drop", "a")
        assert (stored["state"], stored["version"], stored["shrunk"]) == ("closed", 2, True)
        assert not {"name", "notes", "absent"} & set(stored)
        assert (await one(store, "drop", "b"))["name"] == "kept"

    # -- finding --------------------------------------------------------------------------------------------

    async def test_load_gives_what_is_there_once(self, store: Store) -> None:
        await seed(store, "load", fresh("a"), fresh("b"))

        found = await store.load("load", ["b", "absent", "a", "b"])

        assert sorted(raw["_id"] for raw in found) == ["a", "b"]

    async def test_find_meets_every_condition_in_the_order_asked_for(self, store: Store) -> None:
        await seed(
            store,
            "find",
            fresh("c", owner="x", due=AT),
            fresh("a", owner="x", due=AT + timedelta(seconds=1)),
            fresh("b", owner=["x", "y"], due=AT - timedelta(seconds=1)),
            fresh("d", owner="z"),
        )

        async def ids(conditions: Mapping[str, Any], **options: Any) -> list[str]:
            return [raw["_id"] for raw in await store.find("find", conditions, **options)]

        assert await ids({"owner": "x"}) == ["a", "b", "c"]
        assert await ids({"owner": "x"}, limit=2) == ["a", "b"]
        assert await ids({"owner": "y"}) == ["b"]
        assert await ids({"owner": {"$in": ["y", "z"]}}) == ["b", "d"]
        assert await ids({"owner": {"$ne": "z"}, "_id": {"$gt": "a"}}) == ["b", "c"]
        assert await ids({"due": {"$gte": EPOCH, "$lte": AT}}, sort="due") == ["b", "c"]
        assert await ids({"due": {"$gt": AT}}, sort="due") == ["a"]
        assert await ids({"due": {"$lt": AT}}) == ["b"]
        assert await ids({"due": {"$exists": False}}) == ["d"]
        assert await ids({"slot": 0, "due": {"$gte": EPOCH, "$lte": AT}}, sort="due", limit=1) == ["b"]
        assert await ids({"owner": "nobody"}) == []
        assert await store.count("find", {"owner": "x"}) == 3

    async def test_find_gives_the_fields_asked_for(self, store: Store) -> None:
        await seed(store, "fields", fresh("a", due=AT, owner="x", large="x" * 1000), fresh("b", owner="x"))

        found = await store.find("fields", {"owner": "x"}, fields=("slot", "due"))

        assert found == [{"_id": "a", "slot": 0, "due": AT}, {"_id": "b", "slot": 0}]

    async def test_what_is_appended_is_all_there(self, store: Store) -> None:
        await store.append("trail", [{"at": AT, "caller": "x"}, {"at": AT, "caller": "y"}])
        await store.append("trail", [{"at": AT, "caller": "x"}])

        assert await store.count("trail", {"caller": "x"}) == 2
        assert await store.count("trail", {}) == 3

    async def test_a_store_that_is_there_answers(self, store: Store) -> None:
        await store.ping()

    async def test_ensuring_again_changes_nothing(self, store: Store) -> None:
        await seed(store, "twice", fresh("a", due=AT))
        await store.ensure("twice", INDEXES)

        assert await store.count("twice", {"due": {"$gte": EPOCH}}) == 1
