"""A payer's time ends when law and contract say, wherever weekends, holidays and clock changes fall."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.prior_authorization.model import State, people
from services.prior_authorization.model.clocks import (
    Calendar,
    Limit,
    LineOfBusiness,
    Outlook,
    Unit,
    end_of,
    extended,
    federal_holidays,
    outlook,
    run,
    run_appeal,
)
from services.prior_authorization.model.rules import RuleBook, RulesError
from shared.contracts.prior_authorization import AuthorizationEscalated, ReviewAction
from shared.kit.auth import Role
from shared.kit.errors import Conflict
from tests.unit.prior_authorization.cases import (
    A1,
    A4,
    CT,
    NOW,
    answered,
    due,
    events,
    facts,
    hear,
    last,
    rules,
    sent,
    shipped,
)
from tests.unit.prior_authorization.world import World

EASTERN = Calendar("America/New_York", 8, 18)


def at(text: str, zone: str = "America/New_York") -> datetime:
    """A local time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def book(line: str, rating: str = "01-01", zone: str = "America/New_York") -> RuleBook:
    """The shipped clocks for a payer of that line of business."""
    payer = f'[[payers]]\npayer = "*"\nline_of_business = "{line}"\nrating_period = "{rating}"\ntimezone = "{zone}"\n'
    return RuleBook.parse(payer).model_copy(update={"clocks": shipped().clocks})


def deadline(line: str, urgency: str, received: str, kind: str = "*", rating: str = "01-01") -> datetime:
    """When a payer of that line must have decided what it received at that local time (New York)."""
    received_at = at(received)
    on = received_at.astimezone(UTC).date()
    terms = book(line, rating).clocks_of("acme", kind=kind, on=on, expedited=urgency == "expedited")
    return run(terms, EASTERN, received_at).deadline


@pytest.mark.parametrize(
    ("line", "urgency", "received", "ends"),
    [
        # The effective date of CMS-0057-F, by the local date of receipt.
        ("medicare-advantage", "standard", "2025-12-31T23:59", "2026-01-15T00:00"),
        ("medicare-advantage", "standard", "2026-01-01T00:00", "2026-01-09T00:00"),
        ("medicaid-ffs", "standard", "2025-12-31T12:00", "2026-01-15T00:00"),
        ("medicaid-ffs", "standard", "2026-01-05T12:00", "2026-01-13T00:00"),
        ("chip-ffs", "standard", "2026-01-05T12:00", "2026-01-13T00:00"),
        ("medicaid-managed-care", "standard", "2026-01-05T12:00", "2026-01-13T00:00"),
        ("chip-managed-care", "standard", "2026-01-05T12:00", "2026-01-13T00:00"),
        # Outside it.
        ("exchange", "standard", "2026-01-05T12:00", "2026-01-21T00:00"),
        ("employer", "standard", "2026-01-05T12:00", "2026-01-21T00:00"),
        ("employer", "expedited", "2026-01-05T12:00", "2026-01-08T12:00"),
        ("other", "standard", "2026-01-05T12:00", "2026-01-20T00:00"),
        ("medicare-part-d", "standard", "2026-01-05T12:00", "2026-01-08T12:00"),
        ("medicare-part-d", "expedited", "2026-01-05T12:00", "2026-01-06T12:00"),
        # Hours are elapsed: over a weekend, a holiday (Martin Luther King, 2026-01-19), a year's end.
        ("medicare-advantage", "expedited", "2026-01-16T17:00", "2026-01-19T17:00"),
        ("medicare-advantage", "expedited", "2025-12-31T12:00", "2026-01-03T12:00"),
        # Days run over weekends and holidays, and end with the day even where that is a Saturday or Thanksgiving.
        ("medicare-advantage", "standard", "2026-03-13T16:00", "2026-03-21T00:00"),
        ("medicare-advantage", "standard", "2026-11-19T09:00", "2026-11-27T00:00"),
        ("medicare-advantage", "standard", "2026-12-18T09:00", "2026-12-26T00:00"),
        # A receipt at the ends of a day is of that day.
        ("medicare-advantage", "standard", "2026-06-01T00:00", "2026-06-09T00:00"),
        ("medicare-advantage", "standard", "2026-06-01T23:59", "2026-06-09T00:00"),
        # The clocks go forward on 2026-03-08 and back on 2026-11-01: days stay days, hours stay hours.
        ("medicare-advantage", "standard", "2026-03-05T12:00", "2026-03-13T00:00"),
        ("medicare-advantage", "expedited", "2026-03-06T12:00", "2026-03-09T13:00"),
        ("medicare-advantage", "standard", "2026-10-29T12:00", "2026-11-06T00:00"),
        ("medicare-advantage", "expedited", "2026-10-30T12:00", "2026-11-02T11:00"),
        ("medicare-part-d", "expedited", "2026-03-07T12:00", "2026-03-08T13:00"),
        ("medicare-part-d", "expedited", "2026-10-31T12:00", "2026-11-01T11:00"),
        ("medicare-advantage", "standard", "2026-03-08T01:59", "2026-03-16T00:00"),
    ],
)
def test_a_deadline_is_what_its_line_urgency_and_date_of_receipt_say(
    line: str, urgency: str, received: str, ends: str
) -> None:
    assert deadline(line, urgency, received) == at(ends)


@pytest.mark.parametrize(
    ("rating", "received", "days"),
    [
        ("07-01", "2026-06-30T12:00", 14),
        ("07-01", "2026-07-01T12:00", 7),
        ("09-01", "2026-07-01T12:00", 14),
        ("01-01", "2025-12-31T12:00", 14),
        ("01-01", "2026-01-01T12:00", 7),
    ],
)
def test_medicaid_managed_care_is_bound_from_its_first_rating_period_that_starts_in_2026(
    rating: str, received: str, days: int
) -> None:
    after = at(received).date() + timedelta(days=days + 1)
    assert deadline("medicaid-managed-care", "standard", received, rating=rating) == at(f"{after}T00:00")


@pytest.mark.parametrize(
    ("line", "urgency", "ends"),
    [
        ("medicare-advantage", "standard", "2026-02-05T12:00"),
        ("medicare-advantage", "expedited", "2026-02-03T12:00"),
        ("medicaid-managed-care", "standard", "2026-02-03T12:00"),
    ],
)
def test_drugs_have_limits_of_their_own(line: str, urgency: str, ends: str) -> None:
    assert deadline(line, urgency, "2026-02-02T12:00", kind="drug") == at(ends)


def test_a_contract_with_one_payer_comes_before_its_line_of_business() -> None:
    contract = (
        '[[payers]]\npayer = "*"\nline_of_business = "employer"\n[[clocks]]\npayer = "acme"\nfrom = 2026-01-01\n'
        'standard = "5 business days"\nexpedited = "8 business hours"\nappeal_standard = "10 business days"\n'
        'appeal_expedited = "1 business days"\n'
    )
    parsed = RuleBook.parse(contract)
    found = parsed.model_copy(update={"clocks": (*shipped().clocks, *parsed.clocks)})
    received = at("2026-11-24T16:00")  # the Tuesday before Thanksgiving
    terms = found.clocks_of("acme", kind="*", on=received.date(), expedited=False)
    assert run(terms, EASTERN, received).deadline == at("2026-12-03T00:00")
    urgent = found.clocks_of("acme", kind="*", on=received.date(), expedited=True)
    assert run(urgent, EASTERN, received).deadline == at("2026-11-25T14:00")
    others = found.clocks_of("other", kind="*", on=received.date(), expedited=False)
    assert run(others, EASTERN, received).limit == "15 calendar days"


@pytest.mark.parametrize(
    ("limit", "received", "ends"),
    [
        ("1 business days", "2026-07-02T12:00", "2026-07-07T00:00"),  # Independence Day is observed on Friday the 3rd
        ("3 business days", "2026-12-23T12:00", "2026-12-30T00:00"),
        ("4 business hours", "2026-03-06T16:00", "2026-03-09T10:00"),
        ("4 business hours", "2026-03-07T03:00", "2026-03-09T12:00"),
        ("2 business hours", "2026-03-06T16:00", "2026-03-06T18:00"),
        ("20 business hours", "2026-10-30T08:00", "2026-11-02T18:00"),
    ],
)
def test_business_time_passes_over_weekends_and_holidays(limit: str, received: str, ends: str) -> None:
    assert end_of(Limit.parse(limit), at(received), EASTERN) == at(ends)


@pytest.mark.parametrize(
    ("zone", "received", "ends"),
    [
        ("America/Los_Angeles", "2026-06-01T23:30", "2026-06-09T00:00"),
        ("America/Phoenix", "2026-03-05T12:00", "2026-03-13T00:00"),
        ("America/Vancouver", "2026-10-29T12:00", "2026-11-06T00:00"),
    ],
)
def test_days_are_the_payers_own(zone: str, received: str, ends: str) -> None:
    calendar = Calendar(zone, 8, 17)
    assert end_of(Limit.parse("7 calendar days"), at(received, zone), calendar) == at(ends, zone)


@pytest.mark.parametrize(
    ("end", "days", "later"),
    [
        ("2026-03-03T00:00", 14, "2026-03-17T00:00"),
        ("2026-03-06T12:00", 14, "2026-03-20T12:00"),
        ("2026-10-30T12:00", 14, "2026-11-13T12:00"),
    ],
)
def test_an_extension_adds_calendar_days_at_the_same_local_time(end: str, days: int, later: str) -> None:
    assert extended(at(end), days, EASTERN) == at(later)


@pytest.mark.parametrize(
    ("line", "expedited", "ends"),
    [
        ("medicare-advantage", False, "2026-04-02T00:00"),
        ("medicare-advantage", True, "2026-03-05T12:00"),
        ("medicaid-ffs", True, "2026-03-06T00:00"),
        ("medicaid-ffs", False, "2026-06-01T00:00"),
    ],
)
def test_appeals_have_their_own_clocks(line: str, expedited: bool, ends: str) -> None:
    received = at("2026-03-02T12:00")
    terms = book(line).clocks_of("acme", kind="*", on=received.date(), expedited=False)
    assert run_appeal(terms, EASTERN, received, expedited=expedited).deadline == at(ends)


@pytest.mark.parametrize(
    ("year", "days"),
    [
        (2020, "01-01 01-20 02-17 05-25 07-03 09-07 10-12 11-11 11-26 12-25"),
        (2021, "01-01 01-18 02-15 05-31 06-18 07-05 09-06 10-11 11-11 11-25 12-24 12-31"),
        (2022, "01-17 02-21 05-30 06-20 07-04 09-05 10-10 11-11 11-24 12-26"),
        (2026, "01-01 01-19 02-16 05-25 06-19 07-03 09-07 10-12 11-11 11-26 12-25"),
        (2027, "01-01 01-18 02-15 05-31 06-18 07-05 09-06 10-11 11-11 11-25 12-24 12-31"),
    ],
)
def test_federal_holidays_are_the_days_that_they_are_observed_on(year: int, days: str) -> None:
    assert federal_holidays(year) == {date.fromisoformat(f"{year}-{day}") for day in days.split()}


def test_working_time_left_leaves_out_nights_weekends_holidays_and_the_payers_own_days_off() -> None:
    # From Friday 16:00 to Tuesday 10:00, over Martin Luther King's day.
    start, end = at("2026-01-16T16:00"), at("2026-01-20T10:00")
    assert EASTERN.open_between(start, end) == timedelta(hours=4)
    closed = Calendar("America/New_York", 8, 18, frozenset({date(2026, 1, 20)}))
    assert closed.open_between(start, end) == timedelta(hours=2)
    assert EASTERN.open_between(end, start) == timedelta()


MINUTE = timedelta(minutes=1)
LIMITS = st.builds(Limit, st.integers(1, 60), st.sampled_from(Unit))
MOMENTS = st.integers(0, 6 * 365 * 24 * 60).map(lambda minutes: datetime(2024, 1, 1, tzinfo=UTC) + minutes * MINUTE)
ZONES = st.sampled_from(["America/New_York", "America/Chicago", "America/Phoenix", "America/Los_Angeles"])


@given(LIMITS, MOMENTS, ZONES, st.integers(0, 14 * 24 * 60))
def test_a_later_receipt_never_has_an_earlier_deadline_and_more_time_ends_later(
    limit: Limit, received: datetime, zone: str, minutes: int
) -> None:
    calendar = Calendar(zone, 8, 18)
    end = end_of(limit, received, calendar)
    assert end > received
    assert end_of(limit, received + timedelta(minutes=minutes), calendar) >= end
    assert end_of(Limit(limit.count + 1, limit.unit), received, calendar) > end
    assert extended(end, 14, calendar) - end <= timedelta(days=14, hours=1)
    assert extended(end, 14, calendar) - end >= timedelta(days=13, hours=23)


@given(st.integers(1, 30), MOMENTS, ZONES)
def test_so_many_calendar_days_are_never_less_than_as_many_times_24_hours_but_for_one_hour(
    days: int, received: datetime, zone: str
) -> None:
    calendar = Calendar(zone, 8, 18)
    taken = end_of(Limit(days, Unit.CALENDAR_DAYS), received, calendar) - received
    assert timedelta(days=days, hours=-1) <= taken <= timedelta(days=days + 1, hours=1)
    end = received + taken
    assert end.astimezone(calendar.zone).time().isoformat() == "00:00:00"
    business = end_of(Limit(days, Unit.BUSINESS_DAYS), received, calendar)
    assert business >= end
    assert calendar.open_between(received, business) <= business - received


@given(st.integers(1, 200), MOMENTS, ZONES)
def test_so_many_business_hours_hold_just_so_many_hours_of_work(hours: int, received: datetime, zone: str) -> None:
    calendar = Calendar(zone, 8, 18)
    end = end_of(Limit(hours, Unit.BUSINESS_HOURS), received, calendar)
    assert calendar.open_between(received, end) == timedelta(hours=hours)


# -- what is to be expected -----------------------------------------------------------------------------------------

SHARES = st.lists(st.floats(0, 3), max_size=30)
RANKS = list(Outlook)


@given(SHARES, st.floats(0, 2), st.floats(0, 2))
def test_the_outlook_never_gets_better_as_time_passes(history: list[float], one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    assert RANKS.index(outlook(earlier, history)) <= RANKS.index(outlook(later, history))


@pytest.mark.parametrize(
    ("spent", "history", "expected"),
    [
        (0.1, [], Outlook.ON_TRACK),
        (0.8, [], Outlook.AT_RISK),
        (0.95, [], Outlook.LIKELY_LATE),
        (1.0, [0.1] * 20, Outlook.LATE),
        (0.1, [0.2] * 10, Outlook.ON_TRACK),
        (0.5, [0.2] * 10, Outlook.LIKELY_LATE),
        (0.5, [0.2] * 10 + [0.9] * 3 + [1.5], Outlook.AT_RISK),
        (0.5, [0.2] * 10 + [0.9, 1.5], Outlook.LIKELY_LATE),
        (0.95, [0.99] * 10, Outlook.ON_TRACK),
    ],
)
def test_a_payers_own_history_tells_more_than_the_time_alone(
    spent: float, history: list[float], expected: Outlook
) -> None:
    assert outlook(spent, history) is expected


# -- what becomes of it ---------------------------------------------------------------------------------------------

WEEK = at("2026-03-10T00:00").astimezone(UTC)
"""Seven calendar days after Monday 2026-03-02, with the hour that the night of the 8th lost."""


def test_a_breach_is_told_once_with_its_evidence() -> None:
    document = answered(sent(shipped()), A4)
    assert document.breaches_at == WEEK
    document.polls, document.polled_at = 7, NOW + timedelta(days=7)
    document = people.deadline(document, due("deadline", WEEK), facts(), WEEK)
    told = last(document)
    assert isinstance(told, AuthorizationEscalated)
    assert (told.owner, told.reason, told.deadline) == ("payer", "payer-late", WEEK)
    assert told.breach is not None
    assert (told.breach.limit, told.breach.line_of_business) == ("7 calendar days", "medicare-advantage")
    assert "422.568(b)(1)" in told.breach.basis
    assert (told.breach.received_at, told.breach.in_force_from) == (NOW, date(2026, 1, 1))
    assert (told.breach.inquiries, told.breach.last_word, told.breach.last_word_at) == (7, ReviewAction.PENDED, NOW)
    again = people.deadline(document, due("deadline", WEEK), facts(), WEEK + timedelta(days=1))
    again = people.clock_ended(again, due("breach", WEEK), facts(), WEEK + timedelta(days=1))
    assert events(again).count("authorization.escalated.v1") == 1


def test_the_clock_runs_on_while_a_person_is_wanted_and_its_end_is_told_too() -> None:
    document = answered(sent(shipped()), CT)
    assert events(document).count("authorization.escalated.v1") == 1
    assert document.timers["breach"] == WEEK
    document = people.clock_ended(document, due("breach", WEEK), facts(), WEEK)
    told = last(document)
    assert isinstance(told, AuthorizationEscalated)
    assert told.breach is not None
    assert told.breach.last_word is ReviewAction.CONTACT_PAYER


def test_a_decision_in_time_stops_the_clock() -> None:
    document = answered(sent(shipped()), A4)
    hear(document, A1, 60)
    assert document.state is State.APPROVED
    assert document.breaches_at is None
    assert not {"deadline", "breach"} & set(document.timers)
    assert not events(people.clock_ended(document, due("breach", WEEK), facts(), WEEK)).count(
        "authorization.escalated.v1"
    )


def test_an_extension_moves_the_deadline_once_and_no_further_than_the_law_lets_it() -> None:
    document = answered(sent(shipped()), A4)
    with pytest.raises(Conflict):
        people.extend_clock(document, people.ExtendClock(days=15), facts(), NOW)
    document = people.extend_clock(document, people.ExtendClock(days=14), facts(), NOW)
    later = at("2026-03-24T00:00")
    assert document.wait is not None
    assert document.timers["deadline"] == document.wait.deadline == document.breaches_at == later
    with pytest.raises(Conflict):
        people.extend_clock(document, people.ExtendClock(days=1), facts(), NOW)


def test_where_no_extension_is_allowed_none_is_taken() -> None:
    document = answered(sent(rules()), A4)
    with pytest.raises(Conflict):
        people.extend_clock(document, people.ExtendClock(days=1), facts(), NOW)
    with pytest.raises(Conflict):
        people.extend_clock(answered(sent(shipped()), A1), people.ExtendClock(days=1), facts(), NOW)


def test_a_request_stored_before_limits_were_kept_has_the_hours_it_was_opened_with() -> None:
    document = sent(shipped())
    document.terms = document.terms.model_copy(update={"clocks": (), "decision_hours": 100})
    document = answered(document, A4)
    assert document.breaches_at == NOW + timedelta(hours=100)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ('standard = "7 days"', "clocks.0.standard"),
        ('standard = "0 hours"', "clocks.0.standard"),
        ('line_of_business = "medicare"', "clocks.0.line_of_business"),
        ("extension_days = 90", "clocks.0.extension_days"),
        ("standard_hours = 168", "clocks.0.standard_hours"),
    ],
)
def test_a_clock_that_cannot_be_used_is_refused_with_its_place(row: str, place: str) -> None:
    good = {
        "from": "2026-01-01",
        "standard": '"7 calendar days"',
        "expedited": '"72 hours"',
        "appeal_standard": '"30 calendar days"',
        "appeal_expedited": '"72 hours"',
    }
    name, _, value = row.partition(" = ")
    lines = [f"{key} = {text}" for key, text in {**good, name: value}.items()]
    with pytest.raises(RulesError, match=place):
        RuleBook.parse("[[clocks]]\n" + "\n".join(lines))


@pytest.mark.parametrize("text", ['rating_period = "02-30"', 'line_of_business = "x"', "opens = 9\ncloses = 9"])
def test_a_payer_whose_days_cannot_be_told_is_refused(text: str) -> None:
    with pytest.raises(RulesError, match=r"payers\.0"):
        RuleBook.parse(f"[[payers]]\n{text}\n")


def test_every_line_of_business_has_a_limit_for_both_urgencies() -> None:
    for line in LineOfBusiness:
        for expedited in (False, True):
            (found,) = book(line).clocks_of("acme", kind="*", on=date(2026, 8, 1), expedited=expedited)
            assert found.limit
            assert found.basis


# -- over the API ---------------------------------------------------------------------------------------------------


async def test_what_breaches_first_is_on_top_with_its_time_left() -> None:
    world = World()
    for name, expedited in (("ana", False), ("ben", True), ("cleo", False)):
        await world.know(name, "SBX-PEND-POLL-1" if name != "cleo" else "SBX-APPROVE-1")
        await world.refer(name, expedited=expedited)
    await world.until(1)
    async with world.harness.client(Role.COORDINATOR) as client:
        lines = (await client.get("/authorizations/clocks")).json()["authorizations"]
        one = (await client.get(f"/authorizations/{lines[0]['id']}")).json()
        refused = await client.get("/authorizations/clocks?limit=0")
        none = (await client.get("/authorizations/clocks?payer_id=nobody")).json()["authorizations"]
    assert [line["clock"]["limit"] for line in lines] == ["72 hours", "7 calendar days"]
    assert lines[0]["clock"]["seconds_left"] == 71 * 3600
    assert 0 < lines[0]["clock"]["working_seconds_left"] < 71 * 3600
    assert one["clock"] == lines[0]["clock"]
    assert one["clock"]["outlook"] == "on-track"
    assert refused.status_code == 422
    assert none == []


async def test_a_coordinator_tells_that_the_payer_takes_longer() -> None:
    world = World()
    await world.know("ana", "SBX-PEND-POLL-1")
    id = await world.refer("ana")
    await world.until()
    async with world.harness.client(Role.COORDINATOR) as client:
        path = f"/authorizations/{id}/extend-clock"
        taken = await client.post(path, json={"days": 10}, headers=world.harness.key())
        refused = await client.post(path, json={"days": 1}, headers=world.harness.key())
        shown = (await client.get(f"/authorizations/{id}")).json()
    assert (taken.status_code, refused.status_code) == (200, 409)
    assert shown["clock"]["extended_days"] == 10
