"""Time and ids: milliseconds in UTC, an offset that processes share, and a clock that stands still for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from shared.kit.clock import FrozenClock, OffsetClock, SystemClock, random_id, to_milliseconds
from shared.kit.document import SLOTS, derived_id, slot_of

AT = datetime(2026, 3, 2, 15, 0, 0, 123_456, tzinfo=UTC)


def test_times_are_cut_to_what_the_store_keeps() -> None:
    assert to_milliseconds(AT) == AT.replace(microsecond=123_000)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert now.microsecond % 1000 == 0


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_an_offset_is_shared_by_all_that_hold_its_file_and_moves_domain_time_alone(tmp_path: Path) -> None:
    one, two = OffsetClock(tmp_path / "clock" / "offset"), OffsetClock(tmp_path / "clock" / "offset")
    assert one.offset == 0.0
    target = one.real() + timedelta(days=9)

    one.advance_to(target)

    assert two.now() >= target
    assert two.offset == one.offset == pytest.approx(timedelta(days=9).total_seconds(), abs=5)
    assert abs((two.real() - SystemClock().real()).total_seconds()) < 5


def test_domain_time_is_never_moved_back(tmp_path: Path) -> None:
    clock = OffsetClock(tmp_path / "offset")
    clock.advance_to(clock.real() + timedelta(days=9))
    offset = clock.offset

    clock.advance_to(clock.real() + timedelta(days=1))

    assert clock.offset == offset


def test_an_offset_outlives_the_process_that_set_it(tmp_path: Path) -> None:
    OffsetClock(tmp_path / "offset").advance_to(SystemClock().real() + timedelta(days=9))

    assert OffsetClock(tmp_path / "offset").offset > 0


def test_a_frozen_clock_stands_until_it_is_moved() -> None:
    clock = FrozenClock(AT)
    start = clock.now()

    clock.advance(timedelta(days=2))
    assert (clock.now() - start, clock.real() - start, clock.monotonic()) == (timedelta(days=2), timedelta(0), 0.0)
    clock.pass_(1.5)
    assert (clock.real() - start, clock.monotonic()) == (timedelta(seconds=1.5), 1.5)
    clock.advance_to(start)
    assert clock.now() == start + timedelta(days=2, seconds=1.5)


def test_derived_ids_follow_from_their_parts_alone() -> None:
    assert derived_id("a", "b") == derived_id("a", "b")
    assert len({derived_id("a", "b"), derived_id("ab"), derived_id("a", "b", ""), derived_id("b", "a")}) == 4
    assert UUID(derived_id("a")).version == 5
    assert random_id() != random_id()


def test_slots_are_stable_and_evenly_used() -> None:
    assert slot_of("00000000-0000-4000-8000-000000000000") == 23
    counts = [0] * SLOTS
    for number in range(SLOTS * 40):
        counts[slot_of(derived_id(str(number)))] += 1
    assert min(counts) > 10
    assert max(counts) < 80
