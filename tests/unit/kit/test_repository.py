"""Decisions become writes: only what changed, events in their sequence, nothing that a newer release added lost."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import pytest
from pydantic import BaseModel

from shared.kit.decisions import Want, Where
from shared.kit.document import Attempt, Document, Part
from shared.kit.errors import IllegalTransition
from shared.kit.store import repository
from shared.kit.store.port import Outcome, Unstorable, Write
from shared.kit.store.repository import NewerShape, hold, indexes_of, plain, unsent_of
from tests.unit.kit.bench import START, Bench
from tests.unit.kit.toy import Box, BoxOpened, BoxState, LetterCounted


class Colour(StrEnum):
    RED = "red"


class Inner(Part):
    at: datetime
    colour: Colour = Colour.RED


class Older(Document):
    """What a release knows of a document to which the next one has added fields."""

    collection: ClassVar[str] = "thing"
    name: str = ""
    inner: Inner | None = None


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def changed(bench: Bench, id: str, **fields: object) -> Write | None:
    """What a write of these changes would be."""
    held = (await bench.repository.load(Older, [id]))[id]
    assert held.document is not None
    for name, value in fields.items():
        setattr(held.document, name, value)
    return bench.repository.stage(held)


async def test_a_write_names_only_what_changed(bench: Bench) -> None:
    await bench.put(Older(id="a", name="x", inner=Inner(at=START)))

    write = await changed(bench, "a", name="y")
    assert write is not None
    assert (write.expected, dict(write.set)) == (1, {"name": "y", "version": 2})

    write = await changed(bench, "a", timers={"ring": START})
    assert write is not None
    assert dict(write.set) == {"timers": {"ring": START}, "due": START, "version": 2}


async def test_where_nothing_changed_there_is_nothing_to_write(bench: Bench) -> None:
    await bench.put(Older(id="a", name="x", inner=Inner(at=START), timers={"ring": START}))

    assert await changed(bench, "a") is None
    assert await changed(bench, "a", name="x", inner=Inner(at=START, colour=Colour.RED)) is None


async def test_fields_of_a_newer_release_outlive_a_write_by_an_older_one(bench: Bench) -> None:
    await bench.put(Older(id="a", name="x", inner=Inner(at=START)))
    added = {"added": {"deep": [1]}, "inner": {"at": START, "colour": "red", "tint": "dark"}}
    await bench.server.write("thing", [Write("a", 1, {"version": 2, **added})])

    held = (await bench.repository.load(Older, ["a"]))["a"]
    assert held.document is not None
    assert held.document.inner is not None
    held.document.name = "y"
    held.document.inner.at = START + timedelta(days=1)
    write = bench.repository.stage(held)
    assert write is not None
    assert await bench.repository.write(Older, [(held, write)]) == [Outcome.WON]

    raw = await bench.raw(Older, "a")
    assert raw is not None
    assert (raw["name"], raw["added"], raw["inner"]["tint"]) == ("y", {"deep": [1]}, "dark")
    assert raw["inner"]["at"] == START + timedelta(days=1)


async def test_a_document_of_a_shape_that_is_not_known_is_refused(bench: Bench) -> None:
    await bench.put(Older(id="a"))
    await bench.server.write("thing", [Write("a", 1, {"version": 2, "shape": Older.shape_known + 1})])

    with pytest.raises(NewerShape):
        await bench.repository.load(Older, ["a"])


async def test_a_document_comes_back_as_it_was_decided(bench: Bench) -> None:
    box = Box(id="box", owner="Zoë 李雷", letters=["a"], trace="t")
    box.expect("clerk", "nothing-came", START, timedelta(days=3))
    box.attempts["send"] = Attempt(id="x", number=1, since=START)

    await bench.put(box)

    assert await bench.get(Box, "box") == box.model_copy(update={"version": 1})


async def test_the_due_time_is_the_earliest_timer_and_goes_with_the_last(bench: Bench) -> None:
    box = Box(id="box")
    box.wake("late", START + timedelta(days=2))
    box.wake("early", START + timedelta(days=1))
    await bench.put(box)
    raw = await bench.raw(Box, "box")
    assert raw is not None
    assert raw["due"] == START + timedelta(days=1)

    box = await bench.get(Box, "box")
    box.rest("late", "early", "absent")
    await bench.put(box)
    raw = await bench.raw(Box, "box")
    assert raw is not None
    assert "due" not in raw


async def test_events_are_numbered_on_and_told_with_what_still_waits(bench: Bench) -> None:
    box = Box(id="box")
    box.record(BoxOpened(box_id="box"))
    await bench.put(box)
    box = await bench.get(Box, "box")
    box.record(LetterCounted(box_id="box", count=1))
    box.record(LetterCounted(box_id="box", count=2))
    await bench.put(box)

    assert [unsent.upto for unsent in bench.offered] == [1, 3]
    assert [entry.sequence for entry in bench.offered[1].entries] == [1, 2, 3]
    raw = await bench.raw(Box, "box")
    assert raw is not None
    stored = unsent_of("box", raw)
    assert stored == bench.offered[1]
    assert json.loads(stored.entries[2].data) == {"box_id": "box", "count": 2}
    assert len({entry.id for entry in stored.entries}) == 3
    assert raw["unsent"] == bench.clock.real()


async def test_an_event_over_the_limit_is_refused_by_its_bytes() -> None:
    bench = Bench(max_event_bytes=100)
    held = (await bench.repository.load(Box, ["box"]))["box"]
    held.document = Box(id="box")
    held.document.record(BoxOpened(box_id="é" * 60))
    held.take_events(None)

    with pytest.raises(Unstorable, match=r"box\.opened\.v1, which is larger than 100 bytes"):
        bench.repository.stage(held)


def test_values_become_what_bson_has() -> None:
    class Model(BaseModel):
        colour: Colour = Colour.RED

    id = UUID(int=7)
    assert plain(Model()) == {"colour": "red"}
    assert plain({Colour.RED: (1, Colour.RED)}) == {"red": [1, "red"]}
    assert plain({"b", "a"}) == ["a", "b"]
    assert plain([date(1931, 4, 5), datetime(2026, 1, 1, tzinfo=UTC), id, timedelta(seconds=90)]) == [
        "1931-04-05",
        datetime(2026, 1, 1, tzinfo=UTC),
        str(id),
        90.0,
    ]


def test_every_route_fact_and_listing_has_an_index() -> None:
    fields = [index.fields for index in indexes_of(Box)]
    assert ("owner", "_id") in fields
    assert {("slot", "due"), ("due",), ("unsent",)} <= set(fields)


def test_an_absent_document_is_held_without_one() -> None:
    held = hold(Box, "box", None)
    assert (held.document, held.outbox) == (None, [])


# -- the aggregate itself -------------------------------------------------------------------------------------


def test_a_move_outside_the_table_is_refused_by_its_name() -> None:
    box = Box(id="box", state=BoxState.FULL)

    with pytest.raises(IllegalTransition) as refused:
        box.move(BoxState.OPEN)

    assert (refused.value.document, refused.value.state, refused.value.wanted) == ("Box", "full", "open")
    assert box.state is BoxState.FULL


def test_a_wait_is_overdue_once_and_not_before_its_deadline() -> None:
    box = Box(id="box")
    box.expect("clerk", "nothing-came", START, timedelta(days=3))

    assert box.overdue(START + timedelta(days=3) - timedelta(milliseconds=1)) is None
    assert box.overdue(START + timedelta(days=3)) is box.wait
    assert box.overdue(START + timedelta(days=4)) is None

    box.expect("clerk", "again", START, timedelta(days=1))
    assert box.overdue(START + timedelta(days=1)) is not None, "another wait is another matter"
    box.met()
    assert (box.wait, box.timers, box.overdue(START + timedelta(days=9))) == (None, {}, None)


def test_an_intention_keeps_its_id_until_it_is_over_and_the_next_has_another() -> None:
    box = Box(id="box")

    first = box.intend("send", START)
    assert box.intend("send", START + timedelta(hours=1)) is first
    box.abandon("send")
    second = box.intend("send", START)

    assert (first.number, second.number) == (1, 2)
    assert first.id != second.id
    assert Box(id="box").intend("send", START + timedelta(days=1)).id == first.id


async def test_many_wants_of_one_field_are_found_in_one_look_each_up_to_its_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.put(*(Box(id=f"{owner}{n}", owner=owner) for owner in ("ann", "bob", "eve") for n in range(3)))
    ann, bob, nobody = Where(Box, "owner", "ann"), Where(Box, "owner", "bob", limit=2), Where(Box, "owner", "zoe")
    known: dict[Want, list[Box]] = {}
    bench.gates.counts.clear()

    await bench.repository.facts([ann, bob, nobody], known)

    assert {want: [box.id for box in found] for want, found in known.items()} == {
        ann: ["ann0", "ann1", "ann2"],
        bob: ["bob0", "bob1"],
        nobody: [],
    }
    assert bench.gates.counts["store.find"] == 1
    monkeypatch.setattr(repository, "PAGE", 2)
    again: dict[Want, list[Box]] = {}
    await bench.repository.facts([ann, bob, nobody], again)
    assert {want: [box.id for box in found] for want, found in again.items()} == {
        want: [box.id for box in found] for want, found in known.items()
    }
