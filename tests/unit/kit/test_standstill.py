"""When a reader is taken for stuck: by what it has committed, what is unread, what it has in work, and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from aiokafka import TopicPartition

from shared.kit.bus.kafka import _Subscription
from shared.kit.bus.port import Positions, Record

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)
PATIENCE = 30.0


async def take(batch: Sequence[Record]) -> None:
    """Take a batch."""


def timed(operation: str, kind: str, about: Mapping[str, str]) -> nullcontext[None]:
    return nullcontext()


def new() -> _Subscription:
    return _Subscription("g", ("t",), take, 500, Positions(), timed)


def reader() -> _Subscription:
    made = new()
    assert not made.stuck({ONE: 5}, False, 0.0, PATIENCE)
    return made


def test_who_stands_still_before_unread_records_for_so_long_is_stuck_and_not_before() -> None:
    made = reader()
    assert [made.stuck({ONE: 5}, True, at, PATIENCE) for at in (10.0, 29.9, 30.0)] == [False, False, True]


def test_who_finds_unread_records_as_it_begins_has_all_its_time() -> None:
    made = new()
    assert not made.stuck({ONE: 5}, True, 1000.0, PATIENCE)
    assert not made.stuck({ONE: 5}, True, 1029.9, PATIENCE)
    assert made.stuck({ONE: 5}, True, 1030.0, PATIENCE)


def test_who_gets_on_is_not_stuck_and_has_all_its_time_again() -> None:
    made = reader()
    assert not made.stuck({ONE: 6}, True, 29.0, PATIENCE)
    assert not made.stuck({ONE: 6}, True, 58.0, PATIENCE)
    assert made.stuck({ONE: 6}, True, 59.0, PATIENCE)


def test_who_has_a_batch_in_work_is_not_stuck_however_long_it_takes() -> None:
    made = reader()
    made.handling = True
    assert not made.stuck({ONE: 5}, True, 1000.0, PATIENCE)
    made.handling = False
    assert not made.stuck({ONE: 5}, True, 1029.0, PATIENCE)
    assert made.stuck({ONE: 5}, True, 1030.0, PATIENCE)


def test_who_has_nothing_to_read_is_not_stuck() -> None:
    made = reader()
    assert not made.stuck({ONE: 5}, False, 1000.0, PATIENCE)


def test_another_partition_is_no_progress_and_going_back_is() -> None:
    made = reader()
    assert made.stuck({ONE: 5, TWO: 7}, True, 30.0, PATIENCE)
    assert not made.stuck({ONE: 0, TWO: 7}, True, 31.0, PATIENCE)


def test_each_new_client_has_twice_the_time_and_progress_clears_its_name() -> None:
    made = reader()
    made.replaced = 2
    assert not made.stuck({ONE: 5}, True, 119.0, PATIENCE)
    assert made.stuck({ONE: 5}, True, 120.0, PATIENCE)
    made.lost = True
    assert not made.stuck({ONE: 6}, True, 121.0, PATIENCE)
    assert (made.replaced, made.lost) == (0, False)
