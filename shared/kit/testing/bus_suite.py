"""What every bus must do. An adapter's tests subclass ``BusSuite`` with fixtures ``connect`` and ``topic``.

``connect`` makes a new client of one broker, whose topics have three partitions and which refuses messages of more
than a mebibyte; ``topic`` is a name that no other test uses. Nothing waits for some time: a test waits for what it
expects, and fails when that does not come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from shared.kit.bus.port import Batch, Bus, GoingBack, Lag, Message, PublishFailed, ReadFailed, Record

Connect = Callable[[], Bus]

PARTITIONS = 3
SECONDS = 60.0
"""How long to wait for what must come; a group's members need some seconds to find each other."""

LONG_AGO, IN_A_LONG_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

REFUSED = b"x" * (2 * 1024 * 1024)
"""More than the broker takes."""

JAVA_MURMUR2: Mapping[str, int] = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
"""Hashes of keys as Kafka's own client computes them (Apache Kafka, UtilsTest.testMurmur2)."""


def java_partition(key: str, partitions: int) -> int:
    """The partition that Kafka's own client gives one of the keys above (BuiltInPartitioner.partitionForKey)."""
    return (JAVA_MURMUR2[key] & 0x7FFFFFFF) % partitions


class Reader:
    """A handler that remembers what it was given. ``before`` runs first; what it raises, the handler raises."""

    def __init__(self, before: Callable[[Batch], Awaitable[None]] | None = None) -> None:
        self.batches: list[list[Record]] = []
        self.taken: list[Record] = []
        self._before = before
        self._changed = asyncio.Condition()

    async def __call__(self, batch: Batch) -> None:
        async with self._changed:
            self.batches.append(list(batch))
            self._changed.notify_all()
        if self._before is not None:
            await self._before(batch)
        async with self._changed:
            self.taken.extend(batch)
            self._changed.notify_all()

    async def until(self, met: Callable[[], bool]) -> None:
        """Return as soon as ``met``; it is asked anew after every batch."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(met), SECONDS)

    async def until_taken(self, count: int) -> None:
        """Return when so many different records were taken."""
        await self.until(lambda: len(places(self.taken)) >= count)


async def either(one: Reader, other: Reader, met: Callable[[], bool]) -> None:
    """Return as soon as ``met``; it is asked anew after every batch of either."""
    waiting = [asyncio.ensure_future(reader.until(met)) for reader in (one, other)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
    assert met()


class Gate:
    """Holds a handler inside its first batch until it is opened."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, _: Batch) -> None:
        self.entered.set()
        await self.opened.wait()

    async def wait(self) -> None:
        """Return when the handler is inside."""
        await asyncio.wait_for(self.entered.wait(), SECONDS)


def places(records: Sequence[Record]) -> set[tuple[str, int, int]]:
    """Where these records stand."""
    return {(record.topic, record.partition, record.offset) for record in records}


def messages(topic: str, count: int, keys: int = 12) -> list[Message]:
    """Numbered messages over so many keys, which lie on every partition."""
    return [Message(topic, f"key-{n % keys}", str(n).encode()) for n in range(count)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    """What these records hold."""
    return [record.value for record in records]


async def put(bus: Bus, sent: Sequence[Message]) -> None:
    """Publish what must all be acknowledged."""
    assert await bus.publish(sent) == [None] * len(sent)


def in_order(records: Sequence[Record]) -> bool:
    """Whether first occurrences of each key's numbered messages stand in their order."""
    by_key: dict[bytes | None, list[int]] = defaultdict(list)
    for record in records:
        number = int(record.value or b"")
        if number not in by_key[record.key]:
            by_key[record.key].append(number)
    return all(numbers == sorted(numbers) for numbers in by_key.values())


async def lagging(bus: Bus, met: Callable[[Lag], bool]) -> Lag:
    """The lag of the one topic of the one group of a client, as soon as it is as wanted; it is looked at by itself."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = bus.lag()
            if len(found) == 1 and met(found[0]):
                return found[0]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.02)


async def read_anew(connect: Connect, topic: str, count: int) -> Reader:
    """What a new client of the topic's group is handed, from where the group stands."""
    bus, reader = connect(), Reader()
    bus.subscribe(f"{topic}.group", [topic], reader)
    await bus.start()
    await reader.until_taken(count)
    await bus.stop()
    return reader


class BusSuite:
    """The promises of ``shared.kit.bus.port.Bus``."""

    async def test_what_is_published_arrives_as_it_was_and_in_order_by_key(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        headers = (("ce_type", b"letter.arrived.v1"), ("traceparent", b"00-1-2-01"), ("ce_type", b"twice"))

        sent = messages(topic, 300)
        await put(bus, [Message(topic, "first", "Zoë".encode(), headers)])
        for start in range(0, len(sent), 50):
            await put(bus, sent[start : start + 50])
        await reader.until_taken(301)
        await bus.stop()

        (first,) = [record for record in reader.taken if record.key == b"first"]
        assert (first.topic, first.value, first.headers) == (topic, "Zoë".encode(), headers)
        rest = [record for record in reader.taken if record.key != b"first"]
        assert Counter(values(rest)) == Counter(str(n).encode() for n in range(300))
        assert in_order(rest)

    async def test_a_key_keeps_its_partition_which_is_the_one_that_kafka_gives_it(
        self, connect: Connect, topic: str
    ) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()

        await put(bus, [Message(topic, key, b"1") for key in JAVA_MURMUR2])
        await put(bus, [Message(topic, key, b"2") for key in JAVA_MURMUR2])
        await reader.until_taken(2 * len(JAVA_MURMUR2))
        await bus.stop()

        found = {((record.key or b"").decode(), record.partition) for record in reader.taken}
        assert found == {(key, java_partition(key, PARTITIONS)) for key in JAVA_MURMUR2}

    async def test_a_group_reads_from_the_beginning_and_every_group_reads_everything(
        self, connect: Connect, topic: str
    ) -> None:
        early = connect()
        await early.ensure([topic])
        await early.start()
        await put(early, messages(topic, 30))
        await early.stop()

        bus, first, second = connect(), Reader(), Reader()
        bus.subscribe(f"{topic}.first", [topic], first)
        bus.subscribe(f"{topic}.second", [topic], second)
        await bus.start()
        await first.until_taken(30)
        await second.until_taken(30)
        await bus.stop()

    async def test_a_batch_whose_handler_raises_is_handed_in_again_and_none_is_lost(
        self, connect: Connect, topic: str
    ) -> None:
        failures = 0

        async def fail_three_times(batch: Batch) -> None:
            nonlocal failures
            if failures < 3:
                failures += 1
                raise RuntimeError("the store is down")

        bus, reader = connect(), Reader(fail_three_times)
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 40))
        await reader.until_taken(40)
        await bus.stop()

        assert failures == 3
        assert places(reader.batches[0]) <= places(reader.batches[3]), "the failed batch comes again, whole"
        assert in_order(reader.taken)

    async def test_a_batch_that_kept_failing_is_not_committed(self, connect: Connect, topic: str) -> None:
        async def fail(_: Batch) -> None:
            raise RuntimeError("the store is down")

        failing, reader = connect(), Reader(fail)
        await failing.ensure([topic])
        failing.subscribe(f"{topic}.group", [topic], reader)
        await failing.start()
        await put(failing, messages(topic, 20))
        await reader.until(lambda: len(reader.batches) >= 2)
        await failing.stop()

        await read_anew(connect, topic, 20)

    async def test_who_leaves_with_a_batch_that_fails_commits_nothing_behind_it(
        self, connect: Connect, topic: str
    ) -> None:
        async def fail_the_first(batch: Batch) -> None:
            if batch[0].value == b"0":
                raise RuntimeError

        failing, reader = connect(), Reader(fail_the_first)
        await failing.ensure([topic])
        failing.subscribe(f"{topic}.group", [topic], reader, max_records=1)
        await failing.start()
        await put(failing, messages(topic, 6, keys=1))
        await reader.until(lambda: len(reader.batches) >= 2)
        await failing.stop()

        again = await read_anew(connect, topic, 6)

        assert reader.taken == []
        assert values(again.taken) == [b"0", b"1", b"2", b"3", b"4", b"5"]

    async def test_a_batch_that_was_cancelled_halfway_is_read_again(self, connect: Connect, topic: str) -> None:
        inside = asyncio.Event()

        async def be_cancelled(_: Batch) -> None:
            task = asyncio.current_task()
            assert task is not None
            inside.set()
            task.cancel()
            await asyncio.Event().wait()

        cancelled = connect()
        await cancelled.ensure([topic])
        cancelled.subscribe(f"{topic}.group", [topic], Reader(be_cancelled))
        await cancelled.start()
        await put(cancelled, messages(topic, 20))
        await asyncio.wait_for(inside.wait(), SECONDS)
        await cancelled.stop()

        again = await read_anew(connect, topic, 20)

        assert in_order(again.taken)

    async def test_a_batch_over_several_partitions_fails_and_comes_again_as_a_whole(
        self, connect: Connect, topic: str
    ) -> None:
        failed: list[Record] = []

        async def fail_once_over_partitions(batch: Batch) -> None:
            if not failed and len({record.partition for record in batch}) > 1:
                failed.extend(batch)
                raise RuntimeError("in the middle")

        bus, reader = connect(), Reader(fail_once_over_partitions)
        await bus.ensure([topic])
        await bus.start()
        await put(bus, messages(topic, 60))
        await bus.stop()

        bus = connect()
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await reader.until_taken(60)
        await bus.stop()

        assert len({record.partition for record in failed}) > 1
        assert places(failed) <= places(reader.taken)
        assert in_order(reader.taken)

    async def test_a_batch_is_no_larger_than_asked_for(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader, max_records=7)
        await bus.start()
        await put(bus, messages(topic, 50))
        await reader.until_taken(50)
        await bus.stop()

        assert max(len(batch) for batch in reader.batches) <= 7

    async def test_a_member_that_joins_in_the_middle_of_a_batch_loses_nothing(
        self, connect: Connect, topic: str
    ) -> None:
        gate = Gate()
        slow = Reader(gate)
        first, second, other = connect(), connect(), Reader()
        await first.ensure([topic])
        first.subscribe(f"{topic}.group", [topic], slow)
        second.subscribe(f"{topic}.group", [topic], other)
        await first.start()
        await put(first, messages(topic, 60))
        await gate.wait()

        await second.start()
        await put(second, messages(topic, 120)[60:])
        await other.until_taken(1)
        gate.opened.set()
        await put(second, messages(topic, 180)[120:])

        async def all_taken(reader: Reader) -> None:
            await reader.until(lambda: len(places(slow.taken) | places(other.taken)) == 180)

        waits = {asyncio.ensure_future(all_taken(reader)) for reader in (slow, other)}
        done, unfinished = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in unfinished:
            wait.cancel()
        for wait in done:
            await wait
        await first.stop()
        await second.stop()

        assert in_order(slow.taken)
        assert in_order(other.taken)

    async def test_who_gets_partitions_is_told_before_it_is_handed_records_of_them(
        self, connect: Connect, topic: str
    ) -> None:
        first, one, second, two = connect(), Reader(), connect(), Reader()
        group = f"{topic}.group"
        told: list[int] = []
        """How many batches the second had been handed when it was told."""
        await first.ensure([topic])
        first.subscribe(group, [topic], one)
        second.subscribe(group, [topic], two, reassigned=lambda: told.append(len(two.batches)))
        await first.start()
        await put(first, messages(topic, 24))
        await one.until_taken(24)
        await second.start()
        await put(second, messages(topic, 24))
        await either(one, two, lambda: len(places([*one.taken, *two.taken])) == 48)
        had, before = {record.partition for record in two.taken}, len(told)

        await first.stop()
        await put(second, messages(topic, 24))
        await two.until(lambda: {record.partition for record in two.taken} == set(range(PARTITIONS)))
        await second.stop()

        firsts = [number for number, batch in enumerate(two.batches) if {r.partition for r in batch} - had]
        assert not had or told[0] == 0
        assert any(at <= firsts[0] for at in told[before:]), (told, before, firsts)

    async def test_when_a_member_leaves_the_others_take_over_where_it_stopped(
        self, connect: Connect, topic: str
    ) -> None:
        first, second, one, two = connect(), connect(), Reader(), Reader()
        await first.ensure([topic])
        first.subscribe(f"{topic}.group", [topic], one)
        await first.start()
        await put(first, messages(topic, 30))
        await one.until_taken(30)
        second.subscribe(f"{topic}.group", [topic], two)
        await second.start()
        await first.stop()

        await put(second, messages(topic, 60)[30:])
        await two.until(lambda: len(places(one.taken) | places(two.taken)) == 60)
        await second.stop()

    async def test_reading_goes_on_behind_the_last_commit_after_a_restart(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 30))
        await reader.until_taken(30)
        await bus.stop()

        bus, later = connect(), Reader()
        bus.subscribe(f"{topic}.group", [topic], later)
        await bus.start()
        await put(bus, messages(topic, 60)[30:])
        await later.until_taken(30)
        await bus.stop()

        assert sorted(int(value or b"") for value in values(later.taken)) == list(range(30, 60))

    async def test_stopping_finishes_and_commits_the_batch_in_work(self, connect: Connect, topic: str) -> None:
        gate = Gate()
        bus, reader = connect(), Reader(gate)
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 1))
        await gate.wait()

        stopping = asyncio.ensure_future(bus.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        gate.opened.set()
        await asyncio.wait_for(stopping, SECONDS)
        assert values(reader.taken) == [b"0"]

        bus, later = connect(), Reader()
        bus.subscribe(f"{topic}.group", [topic], later)
        await bus.start()
        await put(bus, messages(topic, 2)[1:])
        await later.until_taken(1)
        await bus.stop()
        assert values(later.taken) == [b"1"]

    async def test_after_a_message_fails_later_ones_of_its_key_are_not_sent(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        unharmed = next(k for k in JAVA_MURMUR2 if java_partition(k, 3) != java_partition("abc", 3))

        results = await bus.publish(
            [
                Message(topic, "abc", b"1"),
                Message(topic, unharmed, b"1"),
                Message(topic, "abc", REFUSED),
                Message(topic, "abc", b"3"),
                Message(topic, unharmed, b"2"),
                Message(topic, "abc", b"4"),
            ]
        )

        assert [result is None for result in results] == [True, True, False, False, True, False]
        assert all(isinstance(result, PublishFailed) for result in results if result is not None)
        await put(bus, [Message(topic, "abc", b"2"), Message(topic, "abc", b"3"), Message(topic, "abc", b"4")])
        await reader.until_taken(6)
        await bus.stop()
        assert values([record for record in reader.taken if record.key == b"abc"]) == [b"1", b"2", b"3", b"4"]
        assert values([record for record in reader.taken if record.key == unharmed.encode()]) == [b"1", b"2"]

    async def test_a_record_that_nobody_can_read_comes_as_it_is_and_holds_up_nothing(
        self, connect: Connect, topic: str
    ) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        strange = Message(topic, "abc", b"\xff\xfe\x00{", (("ce_type", b"\xff\xff"), ("empty", b"")))

        await put(bus, [Message(topic, "abc", b"before"), strange, Message(topic, "abc", b""), *messages(topic, 5)])
        await put(bus, [Message(topic, "abc", b"after")])
        await reader.until_taken(9)
        await bus.stop()

        raw = [record for record in reader.taken if record.key == b"abc"]
        assert values(raw) == [b"before", strange.value, b"", b"after"]
        assert raw[1].headers == strange.headers

    async def test_positions_tell_when_everything_published_was_read(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 25))
        await reader.until_taken(25)
        await bus.stop()

        published = bus.positions.published
        assert sum(published.values()) == 25
        assert {key: bus.positions.consumed[f"{topic}.group"][key] for key in published} == published

    async def test_it_is_healthy_once_every_group_has_its_place(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        assert not bus.healthy()

        await bus.start()
        await put(bus, messages(topic, 1))
        await reader.until_taken(1)
        assert bus.healthy()

        await bus.stop()
        assert not bus.healthy()

    async def test_the_history_of_a_topic_is_all_of_it_in_order_and_disturbs_no_group(
        self, connect: Connect, topic: str
    ) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic, f"{topic}.other"])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        sent = messages(topic, 120)
        for start in range(0, len(sent), 40):
            await put(bus, sent[start : start + 40])
        await put(bus, [Message(topic, "last", b"120", (("ce_type", b"\xff"),)), Message(f"{topic}.other", "x", b"1")])
        await reader.until_taken(121)

        for _ in range(2):
            found = [record async for batch in connect().history(topic) for record in batch]
            assert Counter(values(found)) == Counter(str(n).encode() for n in range(121))
            assert in_order(found)
            assert [record.headers for record in found if record.key == b"last"] == [(("ce_type", b"\xff"),)]
        await put(bus, [Message(topic, "last", b"121")])
        await reader.until_taken(122)
        await bus.stop()
        assert len(reader.taken) == 122, "the group read on where it was"

    async def test_an_empty_topic_has_no_history_and_one_that_is_not_there_is_told(
        self, connect: Connect, topic: str
    ) -> None:
        bus = connect()
        await bus.ensure([topic])
        assert [batch async for batch in bus.history(topic)] == []
        with pytest.raises(ReadFailed):
            _ = [batch async for batch in bus.history(f"{topic}.missing")]

    async def test_of_some_keys_there_is_the_history_of_their_partitions(self, connect: Connect, topic: str) -> None:
        bus = connect()
        await bus.ensure([topic])
        await bus.start()
        await put(bus, messages(topic, 60))
        found = [record async for batch in bus.history(topic, ["key-3"]) for record in batch]
        await bus.stop()
        assert [int(value or b"") for value in values(found) if int(value or b"") % 12 == 3] == [3, 15, 27, 39, 51]
        assert len({record.partition for record in found}) == 1
        assert [batch async for batch in connect().history(topic, [])] == []

    async def test_a_paused_group_reads_nothing_and_goes_on_where_it_stood(self, connect: Connect, topic: str) -> None:
        bus, reader, other = connect(), Reader(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        bus.subscribe(f"{topic}.other", [topic], other)
        await bus.start()
        await put(bus, messages(topic, 20))
        await reader.until_taken(20)

        bus.pause(f"{topic}.group")
        held = connect()
        await put(bus, messages(topic, 30))
        await other.until_taken(50)
        assert len(reader.taken) == 20
        waiting = await held.standing(f"{topic}.group", [topic], LONG_AGO)
        assert sum(place.end - place.committed for place in waiting) in range(1, 31)  # a broker may tell an end late

        bus.resume(f"{topic}.group")
        await reader.until_taken(50)
        await bus.stop()
        assert len(reader.taken) == 50

    async def test_a_group_goes_back_to_a_time_tells_of_each_partition_and_reads_on(
        self, connect: Connect, topic: str
    ) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 24))
        await reader.until_taken(24)
        moved: dict[str, int] = {}
        done = asyncio.Event()

        async def told(place: str, offset: int) -> None:
            moved[place] = offset
            if len(moved) == PARTITIONS:
                done.set()

        bus.go_back(f"{topic}.group", GoingBack(1, LONG_AGO, frozenset(), told))
        await reader.until(lambda: len(reader.taken) == 48)
        await asyncio.wait_for(done.wait(), SECONDS)
        assert moved == {f"{topic}:{partition}": 0 for partition in range(PARTITIONS)}
        bus.go_back(f"{topic}.group", GoingBack(1, LONG_AGO, frozenset(moved), told))
        await put(bus, messages(topic, 1))
        await reader.until_taken(25)
        assert len(reader.taken) == 49, "an order is carried out once"

        bus.go_back(f"{topic}.group", GoingBack(2, LONG_AGO, frozenset(moved), told))
        bus.go_back(f"{topic}.group", None)
        await put(bus, messages(topic, 1))
        await reader.until_taken(26)
        await bus.stop()
        assert len(reader.taken) == 50, "one that is done with is not carried out by whoever gets a partition later"

    async def test_the_broker_tells_how_far_a_group_has_read_and_what_topics_are_like(
        self, connect: Connect, topic: str
    ) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        group = f"{topic}.group"
        bus.subscribe(group, [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 12))
        await reader.until_taken(12)
        await bus.stop()

        asking = connect()
        read = await asking.standing(group, [topic, f"{topic}.missing"], LONG_AGO)
        assert sum(place.committed for place in read) == 12
        assert [place.since for place in read] == [0] * PARTITIONS
        assert sorted(place.name for place in read) == [f"{topic}:{partition}" for partition in range(PARTITIONS)]
        unread = await asking.standing(f"{topic}.nobody", [topic], IN_A_LONG_TIME)
        assert [place.committed for place in unread] == [0] * PARTITIONS
        assert all(place.since == place.end for place in unread)
        (described,) = await asking.described([topic, f"{topic}.missing"])
        assert (described.name, described.partitions, described.replication) == (topic, PARTITIONS, 1)

    async def test_what_a_group_has_not_committed_is_told_as_its_lag_until_it_has(
        self, connect: Connect, topic: str
    ) -> None:
        gate = Gate()
        bus, reader = connect(), Reader(gate)
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await lagging(bus, lambda lag: (lag.records, lag.oldest) == (0, None))
        await put(bus, messages(topic, 5))
        await gate.wait()

        found = await lagging(bus, lambda lag: lag.records > 0 and lag.oldest is not None)
        assert (found.group, found.topic) == (f"{topic}.group", topic)
        gate.opened.set()
        await reader.until_taken(5)
        await lagging(bus, lambda lag: (lag.records, lag.oldest) == (0, None))

        assert bus.alive()
        assert bus.healthy()
        await bus.stop()

    async def test_who_has_left_its_groups_reads_no_more_and_still_publishes(
        self, connect: Connect, topic: str
    ) -> None:
        bus, other, reader, after = connect(), connect(), Reader(), Reader()
        await bus.ensure([topic])
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await put(bus, messages(topic, 5))
        await reader.until_taken(5)

        await bus.leave()
        await bus.leave()
        await put(bus, messages(topic, 9)[5:])
        other.subscribe(f"{topic}.group", [topic], after)
        await other.start()
        await after.until(lambda: len(places([*reader.taken, *after.taken])) == 9)

        assert len(reader.taken) == 5
        await bus.stop()
        await other.stop()

    async def test_ensuring_topics_again_keeps_what_is_on_them(self, connect: Connect, topic: str) -> None:
        bus, reader = connect(), Reader()
        await bus.ensure([topic])
        await bus.start()
        await put(bus, messages(topic, 9))
        await bus.ensure([topic, f"{topic}.other"])
        await bus.stop()

        bus = connect()
        bus.subscribe(f"{topic}.group", [topic], reader)
        await bus.start()
        await reader.until_taken(9)
        await bus.stop()
