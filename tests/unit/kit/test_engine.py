"""Reactions in batches: folding, poison, losers, what cannot be stored, facts, routes, and doing it twice."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from shared.kit.decisions import Facts, Ref, Where
from shared.kit.engine import Reactor
from shared.kit.parking import ParkedState
from shared.kit.reactions import Reactions, on
from shared.kit.store import repository
from shared.kit.store.port import Outcome, StoreUnavailable, Write
from shared.kit.store.repository import NewerShape
from tests.unit.kit.bench import Bench, record_of
from tests.unit.kit.toy import BY_OWNER, POISON, UNSTORABLE, Box, BoxState, LetterArrived, LetterCounted, Stamp, take

BOXES = Reactions(Box, on(LetterArrived, lambda e: e.boxes, take, creates=True, when=[BoxState.OPEN]))
GROUP = "toy.box"


def letter(number: str, *boxes: str, text: str = "") -> LetterArrived:
    return LetterArrived(letter_id=number, boxes=boxes or ("box",), text=text)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- folding --------------------------------------------------------------------------------------------------


async def test_the_events_of_a_batch_are_folded_into_one_write_a_document(bench: Bench) -> None:
    batch = [record_of(letter(str(n), "a", "b"), "sender", n) for n in (1, 2, 3)]

    await bench.reactor(BOXES).handle(batch)

    for id in "ab":
        box = await bench.get(Box, id)
        assert (box.letters, box.version, box.sequence) == (["1", "2", "3"], 1, 3)
    assert bench.gates.counts["store.write"] == 1
    assert [[entry.sequence for entry in unsent.entries] for unsent in bench.offered] == [[1, 2, 3], [1, 2, 3]]


async def test_an_event_taken_in_again_changes_nothing(bench: Bench) -> None:
    reactor = bench.reactor(BOXES)
    batch = [record_of(letter(str(n)), "sender", n) for n in (1, 2)]
    await reactor.handle(batch)
    before = await bench.raw(Box, "box")

    await reactor.handle(batch)
    await reactor.handle(batch[:1])
    await reactor.handle([batch[1], batch[0], batch[1]])

    assert await bench.raw(Box, "box") == before
    assert len(bench.offered) == 1


async def test_what_was_applied_is_kept_by_upstream_document(bench: Bench) -> None:
    await bench.reactor(BOXES).handle(
        [record_of(letter("1"), "ann", 7), record_of(letter("2"), "bob", 2), record_of(letter("3"), "ann", 8)]
    )

    assert (await bench.get(Box, "box")).applied == {"ann@elsewhere-events": 8, "bob@elsewhere-events": 2}


async def test_an_event_of_a_type_that_is_not_wanted_is_passed_by(bench: Bench) -> None:
    await bench.reactor(BOXES).handle([record_of(LetterCounted(box_id="x", count=1), "x", 1)])

    assert bench.gates.counts["store.write"] == 0
    assert await bench.parked(GROUP, "x") is None


async def test_an_event_whose_document_is_absent_is_ignored_where_nothing_is_created(bench: Bench) -> None:
    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, take))

    await bench.reactor(table).handle([record_of(letter("1"), "sender", 1)])

    assert await bench.raw(Box, "box") is None


async def test_a_decision_may_find_nothing_to_create(bench: Bench) -> None:
    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, lambda box, event, facts, now: None, creates=True))

    await bench.reactor(table).handle([record_of(letter("1"), "sender", 1)])

    assert await bench.raw(Box, "box") is None
    assert await bench.parked(GROUP, "sender") is None


# -- states ---------------------------------------------------------------------------------------------------


async def test_outside_its_states_a_pair_is_ignored_for_good(bench: Bench) -> None:
    await bench.put(Box(id="box", state=BoxState.FULL))
    record = record_of(letter("1"), "sender", 1)
    await bench.reactor(BOXES).handle([record])

    box = await bench.get(Box, "box")
    assert (box.letters, box.applied) == ([], {"sender@elsewhere-events": 1})

    box.state = BoxState.OPEN
    await bench.put(box)
    await bench.reactor(BOXES).handle([record])
    assert (await bench.get(Box, "box")).letters == [], "it was ignored once, and a replay does not change that"


async def test_an_ended_document_is_not_even_written(bench: Bench) -> None:
    await bench.put(Box(id="box", state=BoxState.CLOSED))
    before = await bench.raw(Box, "box")

    await bench.reactor(BOXES).handle([record_of(letter("1"), "sender", 1)])

    assert await bench.raw(Box, "box") == before


async def test_outside_its_states_a_pair_may_be_compensated(bench: Bench) -> None:
    def compensate(box: Box, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        box.unknown += 1
        return box

    table = Reactions(
        Box, on(LetterArrived, lambda e: e.boxes, take, when=[BoxState.OPEN], otherwise=compensate, creates=True)
    )
    await bench.put(Box(id="box", state=BoxState.FULL))

    await bench.reactor(table).handle([record_of(letter("1"), "sender", 1)])

    box = await bench.get(Box, "box")
    assert (box.letters, box.unknown) == ([], 1)


# -- poison ---------------------------------------------------------------------------------------------------


async def test_a_poison_event_parks_its_key_and_not_its_partition(bench: Bench) -> None:
    batch = [
        record_of(letter("a1"), "ann", 1),
        record_of(letter("a2", text=POISON), "ann", 2),
        record_of(letter("b1"), "bob", 1),
        record_of(letter("a3"), "ann", 3),
        record_of(letter("b2"), "bob", 2),
        record_of(letter("a4"), "ann", 4),
    ]

    await bench.reactor(BOXES).handle(batch)

    assert (await bench.get(Box, "box")).letters == ["a1", "b1", "b2"]
    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert parked.state is ParkedState.PARKED
    assert [entry.record() for entry in parked.entries] == [batch[1], batch[3], batch[5]]
    assert [entry.reason for entry in parked.entries] == [
        "letter.arrived.v1: invalid: this letter cannot be taken",
        "waits behind an earlier event",
        "waits behind an earlier event",
    ]


async def test_later_batches_of_a_parked_key_wait_in_order_and_once(bench: Bench) -> None:
    reactor = bench.reactor(BOXES)
    batch = [record_of(letter(str(n), text=POISON if n == 1 else ""), "ann", n) for n in range(1, 6)]

    await reactor.handle(batch[:2])
    await reactor.handle([batch[2], record_of(letter("b"), "bob", 1)])
    await reactor.handle(batch)

    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert [entry.record() for entry in parked.entries] == batch
    assert (await bench.get(Box, "box")).letters == ["b"]


# -- two halves side by side ----------------------------------------------------------------------------------

ONE_HALF, OTHER_HALF = ("ann", "dot"), ("bob", "cid")
"""Keys that fall into different halves of a batch."""


def halved(bench: Bench) -> Reactor:
    reactor = bench.reactor(BOXES)
    reactor.apart = 2
    return reactor


async def test_halves_that_lead_to_one_document_both_are_written_each_key_in_its_order(bench: Bench) -> None:
    keys = [*ONE_HALF, *OTHER_HALF]
    batch = [record_of(letter(f"{key}{n}"), key, n) for n in (1, 2, 3) for key in keys]
    other_decided = asyncio.Event()

    async def decided() -> None:
        other_decided.set()

    bench.gates.once("store.write", other_decided.wait)
    bench.gates.once("store.write", decided)

    await halved(bench).handle(batch)

    letters = (await bench.get(Box, "box")).letters
    assert sorted(letters) == sorted(f"{key}{n}" for key in keys for n in (1, 2, 3))
    for key in keys:
        assert [each for each in letters if each.startswith(key)] == [f"{key}{n}" for n in (1, 2, 3)]
    assert bench.gates.counts["store.write"] == 3, "one half lost, and decided again"


async def test_poison_in_both_halves_is_parked_with_what_follows_it(bench: Bench) -> None:
    keys = [*ONE_HALF, *OTHER_HALF]
    batch = [record_of(letter(f"{key}{n}", text=POISON if n == 2 else ""), key, n) for n in (1, 2, 3) for key in keys]

    await halved(bench).handle(batch)

    assert sorted((await bench.get(Box, "box")).letters) == sorted(f"{key}1" for key in keys)
    for key in keys:
        parked = await bench.parked(GROUP, key)
        assert parked is not None
        assert [entry.record() for entry in parked.entries] == [r for r in batch if r.key == key.encode()][1:]


async def test_a_half_that_fails_fails_the_batch_once_the_other_is_at_rest(bench: Bench) -> None:
    reactor = halved(bench)
    batch = [record_of(letter(f"{key}{n}", key), key, n) for n in (1, 2) for key in ("ann", "bob")]
    happened: list[str] = []
    later = asyncio.Event()

    async def fail() -> None:
        raise StoreUnavailable("the store did not answer")

    async def go_on_later() -> None:
        asyncio.get_running_loop().call_later(0.05, later.set)
        await later.wait()
        happened.append("the other goes on")

    bench.gates.once("store.write", fail)
    bench.gates.once("store.write", go_on_later)
    with pytest.raises(StoreUnavailable):
        await reactor.handle(batch)
    happened.append("the batch failed")

    assert happened == ["the other goes on", "the batch failed"]
    assert [key for key in ("ann", "bob") if await bench.raw(Box, key) is not None] in (["ann"], ["bob"])

    await reactor.handle(batch)

    for key in ("ann", "bob"):
        assert (await bench.get(Box, key)).letters == [f"{key}1", f"{key}2"]


# -- what waits under parked keys -----------------------------------------------------------------------------


async def test_while_nothing_waits_that_is_asked_once_a_second(bench: Bench) -> None:
    reactor = bench.reactor(BOXES)
    asked = []
    for number in range(1, 5):
        bench.gates.counts.clear()
        await reactor.handle([record_of(letter(str(number)), "ann", number, offset=number)])
        asked.append(bench.gates.counts["store.find"])
        bench.clock.pass_(0.6)

    assert asked == [1, 0, 1, 0]
    assert (await bench.get(Box, "box")).letters == ["1", "2", "3", "4"]


async def test_who_takes_a_partition_over_knows_at_once_what_was_parked_there(bench: Bench) -> None:
    one, other = bench.reactor(BOXES), bench.reactor(BOXES)
    await one.handle([record_of(letter("1"), "ann", 1)])
    await other.handle([record_of(letter("2", text=POISON), "ann", 2)])

    one.reassigned()
    await one.handle([record_of(LetterCounted(box_id="box", count=1), "box", 1)])  # is not for this group
    await one.handle([record_of(letter("3"), "ann", 3)])

    assert (await bench.get(Box, "box")).letters == ["1"]
    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert len(parked.entries) == 2


async def test_what_was_asked_while_partitions_changed_hands_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = bench.reactor(BOXES), bench.reactor(BOXES)
    await other.handle([record_of(letter("1"), "ann", 1)])
    right = bench.parking.any

    async def answered_late(group: str) -> bool:
        monkeypatch.undo()
        found = await right(group)
        await other.handle([record_of(letter("2", text=POISON), "ann", 2)])
        one.reassigned()
        return found

    monkeypatch.setattr(bench.parking, "any", answered_late)
    await one.handle([record_of(letter("b"), "bob", 1)])
    await one.handle([record_of(letter("3"), "ann", 3)])

    assert (await bench.get(Box, "box")).letters == ["1", "b"]


async def test_a_failing_timer_does_not_have_keys_asked_for(bench: Bench) -> None:
    reactor = bench.reactor(BOXES)
    await bench.parking.timer_failed(Box.collection, "box", "open", "a fault")

    await reactor.handle([record_of(letter("1"), "ann", 1)])
    bench.gates.counts.clear()
    await reactor.handle([record_of(letter("2"), "ann", 2)])

    assert bench.gates.counts["store.load"] == 1, "documents"
    assert (await bench.get(Box, "box")).letters == ["1", "2"]


async def test_several_poison_keys_of_one_batch_are_parked_each(bench: Bench) -> None:
    batch = [record_of(letter(f"{key}{n}", text=POISON if n == 2 else ""), key, n) for n in (1, 2, 3) for key in "abc"]

    await bench.reactor(BOXES).handle(batch)

    assert (await bench.get(Box, "box")).letters == ["a1", "b1", "c1"]
    for key in "abc":
        parked = await bench.parked(GROUP, key)
        assert parked is not None
        assert len(parked.entries) == 2


async def test_an_event_that_is_poison_to_one_of_its_documents_is_kept_from_the_others(bench: Bench) -> None:
    def refuse_second(box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        if facts.id == "second":
            raise RuntimeError("canary: Synthea Canary")
        return take(box, event, facts, now)

    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, refuse_second, creates=True))

    await bench.reactor(table).handle([record_of(letter("1", "first", "second"), "ann", 1)])

    assert await bench.raw(Box, "first") is None
    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert "RuntimeError at test_engine.py" in parked.entries[0].reason
    assert "canary" not in parked.entries[0].reason


async def test_a_decision_that_makes_another_document_than_its_route_is_a_fault(bench: Bench) -> None:
    table = Reactions(
        Box, on(LetterArrived, lambda e: e.boxes, lambda box, event, facts, now: Box(id="elsewhere"), creates=True)
    )

    await bench.reactor(table).handle([record_of(letter("1"), "ann", 1)])

    assert await bench.raw(Box, "elsewhere") is None
    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert "another document than its route" in parked.entries[0].reason


CANARY = "Synthea-Canary"
GOOD = letter("1")


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"value": None}, "does not fit its schema at (whole)"),
        ({"value": b"\xff{"}, "does not fit its schema"),
        ({"value": f'{{"letter_id": ["{CANARY}"], "boxes": []}}'.encode()}, "does not fit its schema at letter_id"),
        ({"value": f'{{"{CANARY}": 1}}'.encode()}, "does not fit its schema at boxes, letter_id (missing)"),
        ({"headers": (("ce_type", b"\xff"),)}, "a header is not UTF-8"),
        ({"headers": ()}, "header ce_type is missing"),
        ({"headers": (("ce_type", b"letter.arrived.v1"),)}, "header ce_id is missing"),
        ({"key": f"{CANARY}".encode()}, "the key is not the subject"),
        ({"key": None}, "the key is not the subject"),
    ],
)
async def test_what_cannot_be_read_is_parked_with_a_reason_that_shows_none_of_it(
    bench: Bench, replaced: dict[str, Any], reason: str
) -> None:
    bad = record_of(GOOD, "ann", 1, **replaced)
    good = record_of(letter("2"), "bob", 1)

    await bench.reactor(BOXES).handle([bad, good])

    parked = await bench.parked(GROUP, (bad.key or b"").decode())
    assert parked is not None
    assert [entry.record() for entry in parked.entries] == [bad]
    assert reason in parked.entries[0].reason
    assert CANARY not in parked.entries[0].reason
    assert (await bench.get(Box, "box")).letters == ["2"]


@pytest.mark.parametrize("sequence", [b"0", b"-1", b"one", b""])
async def test_a_sequence_that_is_no_positive_number_cannot_be_read(bench: Bench, sequence: bytes) -> None:
    good = record_of(GOOD, "ann", 1)
    headers = tuple((name, sequence if name == "ce_sequence" else value) for name, value in good.headers)

    await bench.reactor(BOXES).handle([record_of(GOOD, "ann", 1, headers=headers)])

    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert "ce_sequence" in parked.entries[0].reason


# -- what cannot be stored ------------------------------------------------------------------------------------


async def test_what_an_event_makes_unstorable_is_found_among_those_folded_with_it(bench: Bench) -> None:
    batch = [
        record_of(letter("1"), "ann", 1),
        record_of(letter("2"), "bob", 1),
        record_of(letter("3", text=UNSTORABLE), "eve", 1),
        record_of(letter("4"), "ann", 2),
        record_of(letter("5", "other"), "bob", 2),
        record_of(letter("6"), "eve", 2),
    ]

    await bench.reactor(BOXES).handle(batch)

    assert (await bench.get(Box, "box")).letters == ["1", "2", "4"]
    assert (await bench.get(Box, "other")).letters == ["5"]
    assert await bench.parked(GROUP, "ann") is None
    parked = await bench.parked(GROUP, "eve")
    assert parked is not None
    assert [entry.record() for entry in parked.entries] == [batch[2], batch[5]]
    assert "Box cannot be encoded" in parked.entries[0].reason


async def test_an_event_too_large_to_publish_is_refused_before_anything_is_written() -> None:
    bench = Bench(max_event_bytes=500)

    def shout(box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        box = take(box, event, facts, now)
        if event.text:
            box.record(LetterArrived(letter_id="é" * 300, boxes=()))
        return box

    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, shout, creates=True))
    batch = [
        record_of(letter("1"), "ann", 1),
        record_of(letter("2", text="!"), "eve", 1),
        record_of(letter("3"), "bob", 1),
    ]

    await bench.reactor(table).handle(batch)

    box = await bench.get(Box, "box")
    assert (box.letters, box.sequence, box.version) == (["1", "3"], 2, 1)
    parked = await bench.parked(GROUP, "eve")
    assert parked is not None
    assert "larger than 500 bytes" in parked.entries[0].reason


# -- losers, and a store that fails ---------------------------------------------------------------------------


async def test_the_loser_of_a_race_is_decided_again_on_the_fresh_document(bench: Bench) -> None:
    await bench.put(Box(id="box"), Box(id="quiet"))

    async def somebody_else() -> None:
        await bench.server.write("box", [Write("box", 1, {"version": 2, "letters": ["first"]})])

    bench.gates.once("store.write", somebody_else)
    bench.offered.clear()

    await bench.reactor(BOXES).handle([record_of(letter("1", "box", "quiet"), "ann", 1)])

    box, quiet = await bench.get(Box, "box"), await bench.get(Box, "quiet")
    assert (box.letters, box.version, box.sequence) == (["first", "1"], 3, 1)
    assert (quiet.letters, quiet.version, quiet.sequence) == (["1"], 2, 1)
    assert [(unsent.id, unsent.upto) for unsent in bench.offered] == [("quiet", 1), ("box", 1)]
    assert '"count":2' in bench.offered[1].entries[0].data, "what the loser recorded is never published"


async def test_of_two_processes_that_create_one_document_both_letters_are_kept(bench: Bench) -> None:
    rival = bench.reactor(BOXES)

    async def be_first() -> None:
        await rival.handle([record_of(letter("2"), "bob", 1)])

    bench.gates.once("store.write", be_first)

    await bench.reactor(BOXES).handle([record_of(letter("1"), "ann", 1)])

    box = await bench.get(Box, "box")
    assert (box.letters, box.sequence) == (["2", "1"], 2)


@pytest.mark.parametrize("gate", ["store.load", "store.write", "store.written"])
async def test_a_store_that_fails_parks_nothing_and_the_batch_lands_when_it_is_given_again(
    bench: Bench, gate: str
) -> None:
    reactor = bench.reactor(BOXES)
    batch = [record_of(letter(str(n)), "ann", n) for n in (1, 2, 3)]
    bench.gates.fail(gate)

    with pytest.raises(StoreUnavailable):
        await reactor.handle(batch)
    assert reactor.in_work == 0
    await reactor.handle(batch)

    box = await bench.get(Box, "box")
    assert (box.letters, box.sequence, box.version) == (["1", "2", "3"], 3, 1)
    assert await bench.parked(GROUP, "ann") is None


async def test_a_document_of_a_newer_shape_is_left_alone(bench: Bench) -> None:
    await bench.put(Box(id="box"))
    await bench.server.write("box", [Write("box", 1, {"version": 2, "shape": 2})])
    before = await bench.raw(Box, "box")

    with pytest.raises(NewerShape):
        await bench.reactor(BOXES).handle([record_of(letter("1"), "ann", 1)])

    assert await bench.raw(Box, "box") == before
    assert await bench.parked(GROUP, "ann") is None


# -- facts and routes -----------------------------------------------------------------------------------------


async def test_facts_are_loaded_for_the_whole_batch_at_once(bench: Bench) -> None:
    await bench.put(*(Box(id=f"box-{n}", owner="ann", letters=[str(n)]) for n in range(20)))
    seen: dict[str, tuple[list[str] | None, list[str]]] = {}

    def look(stamp: Stamp | None, event: LetterCounted, facts: Facts, now: datetime) -> Stamp:
        box = facts.get(Box, event.box_id)
        seen[facts.id] = (box.letters if box else None, [each.id for each in facts.where(Box, "owner", "ann", 3)])
        return stamp or Stamp(id=facts.id)

    table = Reactions(
        Stamp,
        on(
            LetterCounted,
            lambda e: [f"of {e.box_id}"],
            look,
            creates=True,
            wants=lambda e, d: [Ref(Box, e.box_id), Where(Box, "owner", "ann", 3)],
        ),
    )
    batch = [record_of(LetterCounted(box_id=f"box-{n}", count=1), f"box-{n}", 1) for n in range(20)]
    batch.append(record_of(LetterCounted(box_id="absent", count=1), "absent", 1))
    bench.gates.counts.clear()

    await bench.reactor(table).handle(batch)

    assert seen["of box-7"] == (["7"], ["box-0", "box-1", "box-10"])
    assert seen["of absent"][0] is None
    assert bench.gates.counts["store.find"] == 2, "whether anything is parked, facts"
    assert bench.gates.counts["store.load"] == 2, "documents, facts"


async def test_asking_for_a_fact_that_was_not_wanted_is_a_fault(bench: Bench) -> None:
    def nosy(box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        facts.get(Stamp, "somebody's")
        return Box(id=facts.id)

    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, nosy, creates=True))

    await bench.reactor(table).handle([record_of(letter("1"), "ann", 1)])

    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert "KeyError" in parked.entries[0].reason


async def test_facts_that_only_a_fold_makes_wanted_are_loaded_too(bench: Bench) -> None:
    await bench.put(Stamp(id="of 1", total=7))

    def sum_up(box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        box = take(box, event, facts, now)
        for number in box.letters[:-1]:
            stamp = facts.get(Stamp, f"of {number}")
            box.sent.append(str(stamp.total if stamp else None))
        return box

    def wants(event: LetterArrived, box: Box | None) -> list[Ref]:
        return [Ref(Stamp, f"of {number}") for number in (box.letters if box else [])]

    table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, sum_up, creates=True, wants=wants))

    await bench.reactor(table).handle([record_of(letter("1"), "ann", 1), record_of(letter("2"), "bob", 1)])

    assert (await bench.get(Box, "box")).sent == ["7"]


async def test_a_route_or_a_wish_that_raises_is_poison_like_a_decision(bench: Bench) -> None:
    def broken(*_: object) -> list[Any]:
        raise RuntimeError(CANARY)

    for group, table in {
        "route": Reactions(Box, on(LetterArrived, broken, take, creates=True)),
        "wish": Reactions(Box, on(LetterArrived, lambda e: e.boxes, take, creates=True, wants=broken)),
    }.items():
        reactor = bench.reactor(table)
        reactor.group = group

        await reactor.handle([record_of(letter("1"), "ann", 1), record_of(letter("2"), "ann", 2)])

        parked = await bench.parked(group, "ann")
        assert parked is not None
        assert len(parked.entries) == 2
        assert "RuntimeError at test_engine.py" in parked.entries[0].reason
        assert CANARY not in parked.entries[0].reason
    assert await bench.raw(Box, "box") is None


async def test_a_document_that_does_not_fit_its_model_holds_up_its_own_events_alone(bench: Bench) -> None:
    await bench.put(Box(id="broken"))
    await bench.server.write("box", [Write("broken", 1, {"version": 2, "letters": {CANARY: 1}})])

    await bench.reactor(BOXES).handle([record_of(letter("1", "broken"), "ann", 1), record_of(letter("2"), "bob", 1)])

    assert (await bench.get(Box, "box")).letters == ["2"]
    parked = await bench.parked(GROUP, "ann")
    assert parked is not None
    assert parked.entries[0].reason == "Box as stored does not fit its model"


async def test_a_route_by_a_field_finds_every_document_that_holds_the_value(bench: Bench) -> None:
    table = Reactions(Box, on(LetterArrived, BY_OWNER, take))
    await bench.put(Box(id="a", owner="ann"), Box(id="b", owner="bob"), Box(id="c", owner="ann"))
    bench.gates.counts.clear()

    await bench.reactor(table).handle(
        [
            record_of(letter("ann"), "x", 1),
            record_of(letter("bob"), "x", 2),
            record_of(letter("nobody"), "x", 3),
            record_of(letter("ann"), "y", 1),
        ]
    )

    found = {id: (await bench.get(Box, id)).letters for id in "abc"}
    assert found == {"a": ["ann", "ann"], "b": ["bob"], "c": ["ann", "ann"]}
    assert bench.gates.counts["store.find"] == 2, "whether anything is parked, documents"


async def test_a_route_by_a_field_finds_more_than_a_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "PAGE", 2)
    table = Reactions(Box, on(LetterArrived, BY_OWNER, take))
    await bench.put(*(Box(id=id, owner="ann") for id in "abcde"))

    await bench.reactor(table).handle([record_of(letter("ann"), "x", 1)])

    assert [(await bench.get(Box, id)).letters for id in "abcde"] == [["ann"]] * 5


def test_a_table_has_one_row_an_event() -> None:
    row = on(LetterArrived, lambda e: e.boxes, take)
    with pytest.raises(ValueError, match="two reactions"):
        Reactions(Box, row, row)


def test_a_route_by_a_field_wants_an_index() -> None:
    with pytest.raises(ValueError, match="not indexed"):
        Reactions(Stamp, on(LetterArrived, BY_OWNER, take))


# -- traces ---------------------------------------------------------------------------------------------------


async def test_a_document_keeps_the_trace_that_made_it_and_each_event_its_own(bench: Bench) -> None:
    one, two = (f"00-{n:032x}-{n:016x}-01" for n in (1, 2))

    await bench.reactor(BOXES).handle(
        [record_of(letter("1"), "ann", 1, trace=one), record_of(letter("2"), "bob", 1, trace=two)]
    )

    assert (await bench.get(Box, "box")).trace == one
    assert [entry.trace for entry in bench.offered[0].entries] == [one, two]


async def test_a_winner_is_at_its_new_version(bench: Bench) -> None:
    held = (await bench.repository.load(Box, ["box"]))["box"]
    held.document = Box(id="box")
    write = bench.repository.stage(held)
    assert write is not None

    assert await bench.repository.write(Box, [(held, write)]) == [Outcome.WON]

    assert held.document.version == 1
