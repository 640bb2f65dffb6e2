"""Payers are asked hourly in their working hours, at least once a business day, never too often, never in step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from services.prior_authorization.model.budget import (
    FLOOR,
    HOURLY,
    RETRY_CAP,
    Hours,
    Manner,
    next_fallback,
    next_poll,
    retry_in,
)

EASTERN = Hours("America/New_York", 8, 18)
START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 365 * 24 * 3600).map(lambda seconds: START + timedelta(seconds=seconds))
IDS = st.uuids().map(str)


@given(IDS, st.integers(1, 500), TIMES)
def test_the_next_poll_is_never_within_a_quarter_of_an_hour_and_always_in_working_hours(
    id: str, number: int, now: datetime
) -> None:
    at = next_poll(Manner(EASTERN), id, number, now)
    assert at - now >= FLOOR
    assert EASTERN.open_at(at)


@given(IDS, st.integers(1, 500), TIMES)
def test_in_working_hours_the_next_poll_comes_within_the_hour(id: str, number: int, now: datetime) -> None:
    at = next_poll(Manner(EASTERN), id, number, now)
    if EASTERN.open_at(now) and EASTERN.open_at(now + HOURLY):
        assert at - now <= HOURLY


@settings(deadline=None)
@given(IDS, TIMES)
def test_polls_follow_one_another_so_that_no_business_day_is_left_out(id: str, start: datetime) -> None:
    at, polled = start, []
    for number in range(1, 200):
        at = next_poll(Manner(EASTERN, age=at - start), id, number, at)
        polled.append(at.astimezone(ZoneInfo("America/New_York")).date())
    for earlier, later in pairwise(polled):
        between = [earlier + timedelta(days=n) for n in range(1, (later - earlier).days)]
        assert all(day.weekday() >= 5 for day in between)


@given(IDS, st.integers(1, 500), TIMES)
def test_the_fallback_is_on_the_next_business_day(id: str, number: int, since: datetime) -> None:
    at = next_fallback(EASTERN, id, number, since)
    day, local = (t.astimezone(ZoneInfo("America/New_York")).date() for t in (since, at))
    skipped = [day + timedelta(days=n) for n in range(1, (local - day).days)]
    assert local > day
    assert EASTERN.open_at(at)
    assert all(each.weekday() >= 5 for each in skipped)


@given(IDS, st.integers(1, 500), TIMES, st.floats(0, 86_400))
def test_what_the_payer_named_comes_first(id: str, number: int, now: datetime, named: float) -> None:
    at = next_poll(Manner(EASTERN), id, number, now, named)
    wanted = now + max(FLOOR, timedelta(seconds=named))
    assert at >= wanted - timedelta(seconds=1), "not before what was named, nor before the floor"
    if EASTERN.open_at(wanted) and EASTERN.open_at(wanted + timedelta(minutes=5)):
        assert at <= wanted + timedelta(minutes=5), "soon after it: nothing was learned"


def spacing(manner: Manner) -> timedelta:
    """How far apart looks at such requests are in a working morning, on the average."""
    now = datetime(2026, 3, 2, 13, tzinfo=UTC)
    waits = [next_poll(manner, f"id-{n}", number, now) - now for n in range(100) for number in (1, 5, 50)]
    return sum(waits, timedelta()) / len(waits)


def test_the_urgent_is_looked_at_sooner_and_the_old_more_rarely() -> None:
    ages = [timedelta(hours=2), timedelta(days=2), timedelta(days=20)]
    young, older, old = (spacing(Manner(EASTERN, age=age)) for age in ages)
    assert young < older < old
    for age in ages:
        assert spacing(Manner(EASTERN, expedited=True, age=age)) < 0.8 * young


@given(IDS, st.integers(1, 500), st.sampled_from([30, 120, 720]), st.booleans())
def test_a_payers_own_floor_is_kept(id: str, number: int, minutes: int, expedited: bool) -> None:
    now, floor = datetime(2026, 3, 2, 13, tzinfo=UTC), timedelta(minutes=minutes)
    assert next_poll(Manner(EASTERN, floor, expedited), id, number, now) - now >= floor


def test_intervals_do_not_settle_on_one_length() -> None:
    now = datetime(2026, 3, 2, 13, tzinfo=UTC)
    late = [next_poll(Manner(EASTERN), "id", number, now) - now for number in range(20, 60)]
    assert len(set(late)) > 30


def test_opening_hours_follow_the_payers_clock_over_the_change_to_summer_time() -> None:
    friday, monday = datetime(2026, 3, 6, 12, tzinfo=UTC), datetime(2026, 3, 9, 5, tzinfo=UTC)
    assert EASTERN.next_opening(friday) == datetime(2026, 3, 6, 13, tzinfo=UTC)
    assert EASTERN.next_opening(monday) == datetime(2026, 3, 9, 12, tzinfo=UTC)


def test_the_same_request_chooses_the_same_times_and_others_spread_out() -> None:
    now = datetime(2026, 3, 2, 15, tzinfo=UTC)
    times = [next_poll(Manner(EASTERN), f"id-{n}", 1, now) for n in range(200)]
    assert times == [next_poll(Manner(EASTERN), f"id-{n}", 1, now) for n in range(200)]
    assert len(set(times)) > 150


@given(IDS, st.integers(1, 1000), st.one_of(st.none(), st.floats(0, 86_400)))
def test_a_retry_waits_as_long_as_the_payer_named_and_otherwise_an_hour_at_the_most(
    id: str, number: int, named: float | None
) -> None:
    wait = retry_in(id, number, "submit", named)
    assert timedelta(0) < wait
    if named is None:
        assert wait <= RETRY_CAP
    else:
        assert wait >= timedelta(seconds=named)
