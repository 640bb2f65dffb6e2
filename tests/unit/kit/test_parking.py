"""Parked keys: replayed in order by an operator's word, discarded on record, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import httpx
import pytest

from shared.kit.bus.port import Message
from shared.kit.decisions import Facts
from shared.kit.parking import Parked, ParkedState, parked_id
from shared.kit.reactions import Reactions, on
from shared.kit.run import arguments_of, parked
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.testing.harness import Harness
from tests.unit.kit.toy import Box, BoxState, LetterArrived, Stamp, jobs, take

GROUP = "toy.box"
CANARY = "Synthea-Canary"
ANN, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


class Post:
    """The toy service, whose decision fails on some letters until it is mended."""

    def __init__(self, *poison: str) -> None:
        self.poison = set(poison)
        self.taken: list[str] = []
        self.kit = Harness(KitSettings, self._build)

    def _build(self, settings: KitSettings, http: httpx.AsyncClient) -> Service:
        table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, self._take, creates=True, when=[BoxState.OPEN]))
        return Service("toy", (Box, Stamp), (table,), jobs())

    def _take(self, box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        if event.letter_id in self.poison:
            raise RuntimeError(CANARY)
        self.taken.append(event.letter_id)
        return take(box, event, facts, now)

    async def arrive(self, subject: str, *sequences: int) -> None:
        """Letters of one sender, named by sender and sequence."""
        for sequence in sequences:
            event = LetterArrived(letter_id=f"{subject[-1]}{sequence}", boxes=("box",), text=CANARY)
            await self.kit.arrive(event, subject, sequence)
        await self.kit.settle()

    async def letters(self) -> list[str]:
        box = await self.kit.stored(Box, "box")
        return box.letters if box else []

    async def parked(self, key: str = ANN) -> Parked:
        found = await self.kit.stored(Parked, parked_id(GROUP, key))
        assert found is not None
        return found

    async def say(self, *words: str) -> int:
        """Give the command ``parked ...``."""
        return await parked(self.kit.store, self.kit.clock, arguments_of("toy", ["parked", *words]))


async def test_a_replay_applies_what_waits_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    post = Post("a2")
    await post.arrive(ANN, 1, 2, 3)
    await post.arrive(BOB, 1)
    await post.arrive(ANN, 4)
    assert await post.letters() == ["a1", "b1"]

    post.poison.clear()
    capsys.readouterr()
    assert await post.say("replay", parked_id(GROUP, ANN)) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "replaying"
    await post.kit.settle()

    assert await post.letters() == ["a1", "b1", "a2", "a3", "a4"]
    assert (await post.parked()).state is ParkedState.CLEAR
    await post.arrive(ANN, 5)
    assert (await post.letters())[-1] == "a5"


async def test_a_replay_stops_at_what_still_is_poison_and_keeps_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    post = Post("a1", "a3")
    await post.arrive(ANN, 1, 2, 3, 4)

    post.poison = {"a3"}
    await post.say("replay", parked_id(GROUP, ANN))
    await post.kit.settle()

    assert await post.letters() == ["a1", "a2"]
    waiting = await post.parked()
    assert waiting.state is ParkedState.PARKED
    assert [entry.place for entry in waiting.entries] == [
        f"elsewhere.events:{waiting.entries[0].partition}:{n}" for n in (2, 3)
    ]
    assert "RuntimeError at test_parking.py" in waiting.entries[0].reason
    assert waiting.timers == {}, "it waits for the operator, and does not spin"


async def test_a_discard_gives_up_one_event_on_record_and_applies_those_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    post = Post("a2")
    await post.arrive(ANN, 1, 2, 3)

    assert await post.say("discard", parked_id(GROUP, ANN), "--by", "operator-7") == 0
    await post.kit.settle()

    assert await post.letters() == ["a1", "a3"]
    cleared = await post.parked()
    assert cleared.state is ParkedState.CLEAR
    (given_up,) = cleared.discarded
    assert (given_up.by, given_up.place.split(":")[2]) == ("operator-7", "1")
    assert "RuntimeError" in given_up.reason


async def test_reading_the_topic_again_after_a_discard_changes_nothing() -> None:
    post = Post("a2")
    await post.arrive(ANN, 1, 2, 3)
    await post.say("discard", parked_id(GROUP, ANN), "--by", "operator-7")
    await post.kit.settle()
    before = await post.kit.store.load(Box.collection, ["box"])

    post.kit.broker.rewind()
    await post.kit.settle()

    assert await post.kit.store.load(Box.collection, ["box"]) == before
    again = await post.parked()
    assert (again.state, again.entries, again.timers) == (ParkedState.CLEAR, [], {})
    assert len(again.discarded) == 1


async def test_reading_the_topic_again_while_a_key_is_parked_doubles_nothing() -> None:
    post = Post("a2")
    await post.arrive(ANN, 1, 2, 3)
    before = [entry.place for entry in (await post.parked()).entries]

    for _ in range(2):
        post.kit.broker.rewind()
        await post.kit.settle()

    again = await post.parked()
    assert again.state is ParkedState.PARKED
    assert [entry.place for entry in again.entries][:2] == before
    assert len({entry.place for entry in again.entries}) == len(again.entries)
    post.poison.clear()
    await post.say("replay", again.id)
    await post.kit.settle()
    assert await post.letters() == ["a1", "a2", "a3"]


async def test_a_record_that_waited_only_for_order_is_not_left_behind_by_a_drain_that_was_faster() -> None:
    """The reader saw the key parked, the drain emptied it, then the reader appended."""
    post = Post("a1")
    await post.arrive(ANN, 1)
    post.poison.clear()
    reactor = post.kit.chassis.reactors[0]
    event = LetterArrived(letter_id="a2", boxes=("box",))
    await post.kit.arrive(event, ANN, 2)
    (record,) = [r for log in post.kit.broker.topic("elsewhere.events") for r in log if r.offset == 1]
    original = post.kit.chassis.parking.append

    async def drain_first(*arguments: object) -> None:
        post.kit.chassis.parking.append = original  # type: ignore[method-assign]
        await post.say("replay", parked_id(GROUP, ANN))
        worker = post.kit.chassis.workers["parked"]
        while await worker.work() or worker.busy:
            await worker.drain()
        await original(*arguments)  # type: ignore[arg-type]

    post.kit.chassis.parking.append = drain_first  # type: ignore[method-assign]
    await reactor.handle([record])
    assert await post.letters() == ["a1"]
    await post.kit.settle()

    assert await post.letters() == ["a1", "a2"]
    assert (await post.parked()).state is ParkedState.CLEAR


async def test_a_poison_given_up_while_it_is_replayed_in_vain_holds_nothing_back() -> None:
    """The replay had met it before; its outcome came after the operator's word."""
    post = Post("a1")
    await post.arrive(ANN, 1, 2)
    await post.say("replay", parked_id(GROUP, ANN))
    worker = post.kit.chassis.workers["parked"]
    await worker.work()
    await asyncio.wait([task for _, task in worker._calling.values()])
    await post.say("discard", parked_id(GROUP, ANN), "--by", "operator-7")

    await post.kit.settle()

    assert await post.letters() == ["a2"]
    assert (await post.parked()).state is ParkedState.CLEAR


async def test_events_that_come_while_a_key_is_replayed_go_behind_it() -> None:
    post = Post("a1")
    await post.arrive(ANN, 1, 2)
    post.poison.clear()
    await post.say("replay", parked_id(GROUP, ANN))
    await post.kit.arrive(LetterArrived(letter_id="a3", boxes=("box",)), ANN, 3)
    await post.kit.chassis.bus.step(GROUP)  # type: ignore[attr-defined]
    assert len((await post.parked()).entries) == 3

    await post.kit.settle()

    assert await post.letters() == ["a1", "a2", "a3"]


async def test_only_the_service_applies_an_operator_marks() -> None:
    post = Post("a1")
    await post.arrive(ANN, 1)
    post.poison.clear()

    await post.say("replay", parked_id(GROUP, ANN))

    assert await post.letters() == []


async def test_what_is_shown_names_reasons_and_places_and_no_content(capsys: pytest.CaptureFixture[str]) -> None:
    post = Post("a1")
    await post.arrive(ANN, 1, 2)
    strange = Message("elsewhere.events", CANARY, CANARY.encode(), (("ce_type", b"letter.arrived.v1"),))
    post.kit.broker.append(strange)
    post.kit.broker.append(Message("elsewhere.events", ANN, b"", (("ce_type", CANARY.encode()),)))
    await post.kit.settle()
    capsys.readouterr()

    assert await post.say("list") == 0
    listed = capsys.readouterr().out
    lines = {line["id"]: line for line in map(json.loads, listed.splitlines())}
    assert lines[parked_id(GROUP, ANN)]["events"] == 2
    assert "RuntimeError at test_parking.py" in lines[parked_id(GROUP, ANN)]["reason"]
    assert len(lines) == 2

    for id in lines:
        assert await post.say("show", id) == 0
    shown = capsys.readouterr().out
    assert CANARY not in listed + shown
    assert "waits behind an earlier event" in shown


@pytest.mark.parametrize("words", [("show",), ("replay",), ("discard", "--by", "me")])
async def test_what_is_not_parked_cannot_be_marked(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    post = Post()

    assert await post.say(words[0], "no-such-id", *words[1:]) == 1
    assert "nothing is parked under this id" in capsys.readouterr().err


async def test_the_list_is_empty_once_everything_is_clear(capsys: pytest.CaptureFixture[str]) -> None:
    post = Post("a1")
    await post.arrive(ANN, 1)
    await post.say("discard", parked_id(GROUP, ANN), "--by", "me")
    await post.kit.settle()
    capsys.readouterr()

    assert await post.say("list") == 0
    assert capsys.readouterr().out == ""


async def test_a_store_that_fails_during_a_replay_only_delays_it() -> None:
    post = Post("a1")
    await post.arrive(ANN, 1, 2)
    post.poison.clear()
    await post.say("replay", parked_id(GROUP, ANN))
    reactor = post.kit.chassis.reactors[0]
    original, failed = reactor.replay, []

    async def fail_once(record: object) -> str | None:
        if not failed:
            failed.append(record)
            raise ConnectionError("the store")
        return await original(record)  # type: ignore[arg-type]

    reactor.replay = fail_once  # type: ignore[method-assign]
    await post.kit.settle()
    assert await post.letters() == []

    await post.kit.advance()

    assert failed
    assert await post.letters() == ["a1", "a2"]
    assert (await post.parked()).state is ParkedState.CLEAR
