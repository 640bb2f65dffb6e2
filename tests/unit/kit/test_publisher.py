"""Outboxes go out whole, oldest first, and stop at the first event that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.contracts.base import Event
from shared.kit.bus.port import Message, PublishFailed, Record
from shared.kit.bus.publisher import Publisher
from shared.kit.store.port import Write
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from tests.unit.kit.bench import Bench
from tests.unit.kit.toy import Box, BoxOpened, LetterArrived, LetterCounted


class Press:
    """A publisher on a bench, and a broker that refuses what the test says."""

    def __init__(self, limit: int = 100) -> None:
        self.bench = Bench()
        self.broker = MemoryBroker()
        self.refused: set[tuple[str, str, int]] = set()
        self.bus = MemoryBus(self.broker, refuses=self._refuses, running=False)
        self.publisher = Publisher("toy", self.bench.store, self.bus, self.bench.telemetry, limit=limit)

    def _refuses(self, message: Message) -> bool:
        sequence = int(dict(message.headers)["ce_sequence"])
        return (message.topic, message.key, sequence) in self.refused

    async def record(self, id: str, *events: Event) -> None:
        """Have a box record events, and offer what the write says is unsent."""
        box = (await self.bench.repository.load(Box, [id]))[id].document or Box(id=id)
        for event in events:
            box.record(event)
        self.bench.offered.clear()
        await self.bench.put(box)
        for unsent in self.bench.offered:
            self.publisher.offer(unsent)

    def on(self, topic: str, key: str) -> list[int]:
        """The sequences of a key on a topic, in their order."""
        records: Sequence[Record] = [record for log in self.broker.topic(topic) for record in log]
        return [int(dict(record.headers)["ce_sequence"]) for record in records if record.key == key.encode()]

    async def outbox(self, id: str = "a") -> list[int]:
        raw = await self.bench.raw(Box, id)
        assert raw is not None
        return [entry["sequence"] for entry in raw["outbox"]]


def counted(n: int = 1) -> LetterCounted:
    return LetterCounted(box_id="a", count=n)


def elsewhere() -> LetterArrived:
    return LetterArrived(letter_id="1", boxes=())


TOY, ELSEWHERE = LetterCounted.topic, LetterArrived.topic


@pytest.fixture
def press() -> Press:
    return Press()


async def test_an_outbox_goes_out_whole_and_is_then_empty(press: Press) -> None:
    await press.record("a", counted(1), counted(2))
    await press.record("b", counted(1))

    assert await press.publisher.flush() == 2

    assert press.on(TOY, "a") == [1, 2]
    assert await press.outbox() == []
    raw = await press.bench.raw(Box, "a")
    assert raw is not None
    assert raw["version"] == 1
    assert "unsent" not in raw


async def test_when_the_second_event_of_an_outbox_fails_no_later_one_goes_out(press: Press) -> None:
    press.refused = {(TOY, "a", 2)}
    await press.record("a", counted(1), counted(2), counted(3))
    await press.record("b", counted(1), counted(2), counted(3))

    await press.publisher.flush()
    assert (press.on(TOY, "a"), await press.outbox("a")) == ([1], [2, 3])
    assert (press.on(TOY, "b"), await press.outbox("b")) == ([1, 2, 3], [])

    await press.record("a", counted(4))
    await press.publisher.flush()
    assert press.on(TOY, "a") == [1]

    press.refused = set()
    await press.record("a", counted(5))
    await press.publisher.flush()
    assert press.on(TOY, "a") == [1, 2, 3, 4, 5]
    assert await press.outbox() == []


async def test_an_event_on_another_topic_waits_for_the_one_before_it(press: Press) -> None:
    press.refused = {(ELSEWHERE, "a", 2)}
    await press.record("a", counted(1), elsewhere(), counted(3), elsewhere())

    await press.publisher.flush()
    assert (press.on(TOY, "a"), press.on(ELSEWHERE, "a")) == ([1], [])
    assert await press.outbox() == [2, 3, 4]

    press.refused = set()
    await press.record("a", counted(5))
    await press.publisher.flush()
    assert (press.on(TOY, "a"), press.on(ELSEWHERE, "a")) == ([1, 3, 5], [2, 4])
    assert await press.outbox() == []


async def test_what_was_recorded_while_an_outbox_was_on_its_way_stays_in_it(press: Press) -> None:
    await press.record("a", counted(1))

    async def record_more() -> None:
        await press.bench.server.write(
            "box", [Write("a", 1, {"version": 2, "sequence": 2}, [{"sequence": 2, "data": "{}"}])]
        )

    press.bench.gates.once("store.sent", record_more)
    await press.publisher.flush()

    assert await press.outbox() == [2]


async def test_a_newer_outbox_of_a_document_replaces_the_older_one(press: Press) -> None:
    await press.record("a", counted(1))
    older = press.bench.offered[0]
    await press.record("a", counted(2))
    press.publisher.offer(older)

    assert press.publisher.waiting == 1
    await press.publisher.flush()

    assert press.on(TOY, "a") == [1, 2]


async def test_a_store_that_fails_after_publishing_leaves_the_outbox_to_the_sweeper(press: Press) -> None:
    await press.record("a", counted(1))
    press.bench.gates.fail("store.sent")

    await press.publisher.flush()

    assert press.on(TOY, "a") == [1]
    assert await press.outbox() == [1]
    raw = await press.bench.raw(Box, "a")
    assert raw is not None
    assert "unsent" in raw


async def test_what_finds_no_place_waits_in_its_document(press: Press) -> None:
    small = Press(limit=2)
    for id in "abc":
        await small.record(id, BoxOpened(box_id=id))

    assert small.publisher.waiting == 2
    await small.publisher.flush()

    assert await small.outbox("c") == [1]


async def test_the_loop_outlives_a_flush_that_raises_and_sends_what_comes_next(press: Press) -> None:
    publish, calls = press.bus.publish, 0
    sent = asyncio.Event()

    async def raise_once(messages: Sequence[Message]) -> list[PublishFailed | None]:
        nonlocal calls
        calls += 1
        if calls == 1:
            sent.set()
            raise RuntimeError("nobody foresaw this")
        results = await publish(messages)
        sent.set()
        return results

    press.bus.publish = raise_once  # type: ignore[method-assign]
    stopping = asyncio.Event()
    loop = asyncio.ensure_future(press.publisher.run(stopping))
    await press.record("a", counted(1))
    await asyncio.wait_for(sent.wait(), 5)
    sent.clear()

    await press.record("b", counted(1))
    await asyncio.wait_for(sent.wait(), 5)
    stopping.set()
    await asyncio.wait_for(loop, 5)

    assert press.on(TOY, "b") == [1]
    assert await press.outbox("a") == [1]


async def test_stopping_sends_what_still_waits(press: Press) -> None:
    stopping = asyncio.Event()
    stopping.set()
    await press.record("a", counted(1))

    await asyncio.wait_for(press.publisher.run(stopping), 5)

    assert press.on(TOY, "a") == [1]
