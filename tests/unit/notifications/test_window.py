"""Permitted hours, where clocks change too; limits; the spread of a herd."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifications.model import window
from services.notifications.model.policy import Policy

POLICY = Policy()
NEW_YORK = ZoneInfo("America/New_York")
ZONES = ["America/New_York", "America/Phoenix", "Pacific/Honolulu", "Asia/Kolkata", "Pacific/Apia", "Africa/Cairo"]
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 3 * 365 * 86400).map(lambda seconds: EPOCH + timedelta(seconds=seconds))


def local(day: date, hour: int, minute: int = 0, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime.combine(day, time(hour, minute), zone).astimezone(UTC)


@given(MOMENTS, st.sampled_from(ZONES), st.text(max_size=8))
def test_a_message_put_off_lands_in_a_permitted_hour_and_never_earlier(at: datetime, name: str, key: str) -> None:
    zone = ZoneInfo(name)
    placed = window.place_after(POLICY, at, zone, key)
    assert placed >= at
    assert window.allowed(POLICY, placed, zone)
    assert placed - at < timedelta(hours=12) + POLICY.spread + timedelta(hours=1)  # the night, and a clock's change


@given(MOMENTS, st.sampled_from(ZONES), st.text(max_size=8))
def test_a_message_pulled_forward_lands_in_a_permitted_hour_and_never_later(at: datetime, name: str, key: str) -> None:
    zone = ZoneInfo(name)
    placed = window.place_before(POLICY, at, zone, key)
    assert placed <= at
    assert window.allowed(POLICY, placed, zone)


@pytest.mark.parametrize("day", [date(2026, 3, 8), date(2026, 11, 1)], ids=["spring forward", "fall back"])
def test_the_window_follows_the_wall_clock_on_the_days_clocks_change(day: date) -> None:
    assert window.opening(POLICY, day, NEW_YORK).astimezone(NEW_YORK).time() == time(8)
    assert window.closing(POLICY, day, NEW_YORK).astimezone(NEW_YORK).time() == time(21)
    assert window.closing(POLICY, day, NEW_YORK) - window.opening(POLICY, day, NEW_YORK) == timedelta(hours=13)
    night = window.opening(POLICY, day, NEW_YORK) - window.closing(POLICY, day - timedelta(days=1), NEW_YORK)
    assert night == timedelta(hours=10 if day.month == 3 else 12)


def test_a_message_due_in_the_hour_that_spring_leaves_out_goes_in_the_morning() -> None:
    still = Policy(spread=timedelta(0))
    due = datetime(2026, 3, 8, 7, 30, tzinfo=UTC)  # would be 2:30 in New York, where there is no 2:30 that day
    assert window.place_after(still, due, NEW_YORK, "x") == local(date(2026, 3, 8), 8)
    assert window.place_before(still, due, NEW_YORK, "x") == local(date(2026, 3, 7), 20, 59) + timedelta(seconds=59)


@pytest.mark.parametrize("hour", [5, 6])  # 1:30 in New York comes twice that night: 5:30 and 6:30 UTC
def test_both_of_the_hours_that_autumn_repeats_wait_for_the_same_morning(hour: int) -> None:
    due = datetime(2026, 11, 1, hour, 30, tzinfo=UTC)
    assert window.place_after(Policy(spread=timedelta(0)), due, NEW_YORK, "x") == local(date(2026, 11, 1), 8)


@pytest.mark.parametrize(
    ("at", "permitted"),
    [(time(7, 59, 59), False), (time(8), True), (time(20, 59, 59), True), (time(21), False), (time(0), False)],
)
def test_the_window_opens_at_eight_and_is_closed_at_nine_in_the_evening(at: time, permitted: bool) -> None:
    assert window.allowed(POLICY, datetime.combine(date(2026, 3, 2), at, NEW_YORK), NEW_YORK) is permitted


def test_a_herd_is_spread_evenly_and_always_the_same() -> None:
    due = local(date(2026, 3, 2), 3)
    placed = [window.place_after(POLICY, due, NEW_YORK, f"delivery-{n}") for n in range(2000)]
    assert placed == [window.place_after(POLICY, due, NEW_YORK, f"delivery-{n}") for n in range(2000)]
    minutes = [int((at - local(date(2026, 3, 2), 8)).total_seconds() // 60) for at in placed]
    assert set(minutes) == set(range(45))
    assert max(minutes.count(minute) for minute in range(45)) < 2 * 2000 / 45


def test_a_zone_that_is_unknown_or_says_nothing_gives_way_to_the_next() -> None:
    assert window.zone_of(None, "UTC", "Not/AZone", "../etc", "America", "America/Chicago").key == "America/Chicago"
    assert window.zone_of(None, "").key == "UTC"


def test_room_is_found_one_a_day_and_three_in_any_seven_days() -> None:
    monday = date(2026, 3, 2)
    days = [monday + timedelta(days=n) for n in range(10)]
    assert window.day_with_room(POLICY, days[0], []) == days[0]
    assert window.day_with_room(POLICY, days[0], [days[0]]) == days[1]
    assert window.day_with_room(POLICY, days[3], [days[0], days[1], days[2]]) == days[7]
    assert window.day_with_room(POLICY, days[6], [days[0], days[1], days[2]]) == days[7]
    assert window.day_with_room(POLICY, days[7], [days[0], days[1], days[2]]) == days[7]
    assert window.day_with_room(POLICY, days[3], [days[0] - timedelta(days=4), days[1], days[2]]) == days[3]
