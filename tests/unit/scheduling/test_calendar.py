"""The calendar alone decides on its slots: one winner, no overlap, holds that end in time."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from services.scheduling.model import calendar as days
from services.scheduling.model.calendar import (
    BlockSlot,
    Calendar,
    CalendarState,
    ConfirmHold,
    HoldExpired,
    HoldSlot,
    NewSlot,
    PublishSlots,
    SlotLost,
    SlotStatus,
    UnblockSlot,
)
from shared.contracts.base import Event
from shared.contracts.scheduling import (
    SlotBooked,
    SlotGivenBack,
    SlotHeld,
    SlotRefused,
    SlotReleased,
    SlotRequested,
    SlotsPublished,
)
from shared.kit.decisions import NO_FACTS, Due
from shared.kit.document import derived_id
from shared.kit.errors import Invalid, NotFound

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
NINE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DAY = "2026-03-02"
DOCTOR = derived_id("test", "doctor")
ID = days.calendar_id(DOCTOR, DAY)
HALF_HOUR = timedelta(minutes=30)


def who(number: int) -> str:
    return derived_id("test", "appointment", str(number))


def slots(*spans: tuple[datetime, datetime]) -> tuple[NewSlot, ...]:
    return tuple(NewSlot(f"slots[{place}]", start, end) for place, (start, end) in enumerate(spans))


def publication(*spans: tuple[datetime, datetime], zone: str = "America/Denver") -> PublishSlots:
    return PublishSlots(ID, DOCTOR, DAY, zone, slots(*spans))


def opened(count: int = 3) -> Calendar:
    """A calendar of half hours from nine, whose publication has been told."""
    spans = [(NINE + n * HALF_HOUR, NINE + (n + 1) * HALF_HOUR) for n in range(count)]
    calendar = days.publish(None, publication(*spans), NO_FACTS, NOW)
    calendar.recorded().clear()
    return calendar


def request(calendar: Calendar, place: int, number: int, until: datetime | None = None) -> SlotRequested:
    return SlotRequested(
        calendar_id=ID,
        slot_id=calendar.slots[place].slot_id,
        appointment_id=who(number),
        not_before=NOW if until else None,
        not_after=until,
    )


def told(calendar: Calendar) -> list[Event]:
    """What the calendar recorded since it was last asked."""
    events = list(calendar.recorded())
    calendar.recorded().clear()
    return events


# -- publishing -------------------------------------------------------------------------------------------------------


def test_published_slots_are_announced_to_waiting_appointments_once() -> None:
    calendar = days.publish(None, publication((NINE, NINE + HALF_HOUR)), NO_FACTS, NOW)
    assert told(calendar) == [
        SlotsPublished(calendar_id=ID, resource_id=DOCTOR, start=NINE, end=NINE + HALF_HOUR),
    ]
    assert calendar.state is CalendarState.OPEN
    again = days.publish(calendar, publication((NINE, NINE + HALF_HOUR)), NO_FACTS, NOW)
    assert told(again) == []
    assert len(again.slots) == 1


@pytest.mark.parametrize(
    ("start", "end", "path", "reason"),
    [
        (NINE, NINE, "slots[0].end", "must be after start"),
        (NINE + timedelta(days=1), NINE + timedelta(days=1, minutes=30), "slots[0].start", "another UTC day"),
        (NINE.replace(hour=23, minute=45), NINE + timedelta(hours=15, minutes=15), "slots[0].end", "midnight"),
        (NOW - HALF_HOUR, NOW, "slots[0].start", "in the past"),
        (NOW, NOW + HALF_HOUR, "slots[0].start", "in the past"),
    ],
)
def test_a_slot_that_cannot_be_is_refused_by_name(start: datetime, end: datetime, path: str, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        days.publish(None, publication((start, end)), NO_FACTS, NOW)
    assert [flaw.path for flaw in refusal.value.flaws] == [path]
    assert reason in refusal.value.flaws[0].reason


def test_a_slot_may_end_at_midnight_utc() -> None:
    midnight = NINE.replace(hour=0) + timedelta(days=1)
    calendar = days.publish(None, publication((midnight - HALF_HOUR, midnight)), NO_FACTS, NOW)
    assert calendar.slots[0].end == calendar.day_end() == midnight


def test_a_slot_more_than_a_year_ahead_is_refused() -> None:
    start = NINE + timedelta(days=400)
    command = PublishSlots(ID, DOCTOR, days.day_of(start), "UTC", slots((start, start + HALF_HOUR)))
    with pytest.raises(Invalid, match="cannot be published"):
        days.publish(None, command, NO_FACTS, NOW)


def test_slots_that_overlap_each_other_or_earlier_ones_are_all_named() -> None:
    calendar = opened(2)
    quarter = timedelta(minutes=15)
    command = publication(
        (NINE + quarter, NINE + 2 * HALF_HOUR),
        (NINE + 4 * HALF_HOUR, NINE + 5 * HALF_HOUR),
        (NINE + 4 * HALF_HOUR, NINE + 6 * HALF_HOUR),
    )
    with pytest.raises(Invalid) as refusal:
        days.publish(calendar, command, NO_FACTS, NOW)
    assert [flaw.path for flaw in refusal.value.flaws] == ["slots[0]", "slots[2]"]


def test_slots_that_touch_do_not_overlap() -> None:
    assert [slot.start for slot in opened(3).slots] == [NINE, NINE + HALF_HOUR, NINE + 2 * HALF_HOUR]


def test_a_day_takes_no_more_slots_than_its_bound() -> None:
    five = timedelta(minutes=5)
    start = NINE.replace(hour=0) + timedelta(days=1)
    spans = [(start + n * five / 2, start + (n + 1) * five / 2) for n in range(days.MOST_SLOTS + 1)]
    command = PublishSlots(ID, DOCTOR, days.day_of(start), "UTC", slots(*spans))
    with pytest.raises(Invalid) as refusal:
        days.publish(None, command, NO_FACTS, NOW)
    assert refusal.value.flaws[0].path == "slots"


def test_a_calendar_keeps_the_zone_it_was_given() -> None:
    with pytest.raises(Invalid) as refusal:
        days.publish(opened(), publication((NINE - HALF_HOUR, NINE), zone="America/Phoenix"), NO_FACTS, NOW)
    assert [flaw.path for flaw in refusal.value.flaws] == ["timezone"]


def test_a_blocked_slot_is_published_without_being_offered() -> None:
    lunch = NewSlot("slots[0]", NINE, NINE + HALF_HOUR, SlotStatus.UNAVAILABLE)
    calendar = days.publish(None, PublishSlots(ID, DOCTOR, DAY, "UTC", (lunch,)), NO_FACTS, NOW)
    assert told(calendar) == []
    assert calendar.state is CalendarState.FULL
    assert calendar.open_for is None


# -- booking ----------------------------------------------------------------------------------------------------------


def test_of_many_who_ask_for_one_slot_exactly_one_wins() -> None:
    calendar = opened(1)
    for number in range(50):
        days.take(calendar, request(calendar, 0, number), NO_FACTS, NOW)
    events = told(calendar)
    assert [event.appointment_id for event in events if isinstance(event, SlotBooked)] == [who(0)]
    assert [event.appointment_id for event in events if isinstance(event, SlotRefused)] == [
        who(n) for n in range(1, 50)
    ]
    assert calendar.holders == [who(0)]
    assert calendar.state is CalendarState.FULL


def test_of_many_who_hold_one_slot_exactly_one_wins() -> None:
    calendar = opened(1)
    winners = []
    for number in range(50):
        command = HoldSlot(calendar.slots[0].slot_id, who(number), derived_id("patient", str(number)))
        with suppress(SlotLost):
            days.hold(calendar, command, NO_FACTS, NOW)
            winners.append(number)
    assert winners == [0]
    assert len([event for event in told(calendar) if isinstance(event, SlotHeld)]) == 1


def test_whoever_has_the_slot_is_told_so_again() -> None:
    calendar = opened(2)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    assert [type(event) for event in told(calendar)] == [SlotBooked, SlotBooked]
    assert [slot.status for slot in calendar.slots] == [SlotStatus.BUSY, SlotStatus.FREE]


def test_a_loser_who_would_take_another_slot_of_the_day_gets_the_earliest_that_fits() -> None:
    calendar = opened(4)
    for number in range(3):
        days.take(calendar, request(calendar, 0, number, NINE + 2 * HALF_HOUR), NO_FACTS, NOW)
    days.take(calendar, request(calendar, 0, 3, NINE + 2 * HALF_HOUR), NO_FACTS, NOW)
    events = told(calendar)
    booked = [event.start for event in events if isinstance(event, SlotBooked)]
    assert booked == [NINE, NINE + HALF_HOUR, NINE + 2 * HALF_HOUR]
    assert isinstance(events[-1], SlotRefused), "the fourth slot lies after what it would take"


def test_asking_again_for_any_slot_of_the_day_gives_no_second_one() -> None:
    calendar = opened(3)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    for _ in range(2):
        days.take(calendar, request(calendar, 0, 2, NINE + timedelta(hours=3)), NO_FACTS, NOW)
    assert [slot.holder for slot in calendar.slots] == [who(1), who(2), None]


@pytest.mark.parametrize(
    ("slot_id", "now", "reason"),
    [("no such slot", NOW, "unknown"), (None, NINE, "past"), (None, NINE + HALF_HOUR, "past")],
)
def test_what_cannot_be_had_is_refused_with_its_reason(slot_id: str | None, now: datetime, reason: str) -> None:
    calendar = opened(1)
    wanted = SlotRequested(
        calendar_id=ID, slot_id=slot_id or calendar.slots[0].slot_id, appointment_id=who(1), not_before=None
    )
    days.take(calendar, wanted, NO_FACTS, now)
    (event,) = told(calendar)
    assert isinstance(event, SlotRefused)
    assert event.reason == reason


def test_what_is_given_back_is_free_again_and_offered() -> None:
    calendar = opened(1)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    told(calendar)
    back = SlotGivenBack(calendar_id=ID, slot_id=calendar.slots[0].slot_id, appointment_id=who(1))
    days.give_back(calendar, back, NO_FACTS, NOW)
    assert [type(event) for event in told(calendar)] == [SlotReleased, SlotsPublished]
    assert calendar.state is CalendarState.OPEN
    days.give_back(calendar, back, NO_FACTS, NOW)
    assert told(calendar) == []


def test_nobody_gives_back_what_another_has() -> None:
    calendar = opened(1)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    back = SlotGivenBack(calendar_id=ID, slot_id=calendar.slots[0].slot_id, appointment_id=who(2))
    days.give_back(calendar, back, NO_FACTS, NOW)
    assert calendar.slots[0].holder == who(1)


def test_a_slot_given_back_after_it_began_is_not_offered() -> None:
    calendar = opened(1)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    told(calendar)
    back = SlotGivenBack(calendar_id=ID, slot_id=calendar.slots[0].slot_id, appointment_id=who(1))
    days.give_back(calendar, back, NO_FACTS, NINE)
    assert [type(event) for event in told(calendar)] == [SlotReleased]
    assert calendar.state is CalendarState.FULL


# -- holding ----------------------------------------------------------------------------------------------------------


def held(number: int = 1, *, count: int = 1) -> Calendar:
    calendar = opened(count)
    command = HoldSlot(calendar.slots[0].slot_id, who(number), derived_id("patient", str(number)))
    days.hold(calendar, command, NO_FACTS, NOW)
    told(calendar)
    return calendar


def test_a_hold_keeps_others_out_until_it_ends() -> None:
    calendar = held()
    days.take(calendar, request(calendar, 0, 2), NO_FACTS, NOW + days.HOLD_FOR - timedelta(milliseconds=1))
    assert isinstance(told(calendar)[0], SlotRefused)
    days.take(calendar, request(calendar, 0, 3), NO_FACTS, NOW + days.HOLD_FOR)
    assert [type(event) for event in told(calendar)] == [SlotReleased, SlotsPublished, SlotBooked]
    assert calendar.slots[0].holder == who(3)


def test_a_hold_confirmed_in_time_is_a_booking() -> None:
    calendar = held()
    days.confirm(calendar, ConfirmHold(who(1)), NO_FACTS, NOW + days.HOLD_FOR - timedelta(milliseconds=1))
    assert [type(event) for event in told(calendar)] == [SlotBooked]
    assert calendar.slots[0].status is SlotStatus.BUSY
    assert "holds" not in calendar.timers
    days.confirm(calendar, ConfirmHold(who(1)), NO_FACTS, NOW + timedelta(hours=1))
    assert told(calendar) == [], "confirming what is confirmed changes nothing"


def test_a_hold_that_ended_cannot_be_confirmed_even_before_its_timer_fires() -> None:
    calendar = held()
    with pytest.raises(HoldExpired):
        days.confirm(calendar, ConfirmHold(who(1)), NO_FACTS, NOW + days.HOLD_FOR)
    with pytest.raises(HoldExpired):
        days.confirm(calendar, ConfirmHold(who(2)), NO_FACTS, NOW)


def test_the_timer_frees_what_was_not_confirmed_and_stays_for_the_next_hold() -> None:
    calendar = held(count=2)
    days.hold(calendar, HoldSlot(calendar.slots[1].slot_id, who(2), who(2)), NO_FACTS, NOW + timedelta(minutes=5))
    told(calendar)
    at = calendar.timers.pop("holds")
    assert at == NOW + days.HOLD_FOR
    days.expire_holds(calendar, Due("holds", at), NO_FACTS, at)
    (gone, offered) = told(calendar)
    assert isinstance(gone, SlotReleased)
    assert (gone.appointment_id, gone.reason) == (who(1), "hold-expired")
    assert isinstance(offered, SlotsPublished)
    assert calendar.timers["holds"] == NOW + timedelta(minutes=15)


def test_a_hold_ends_when_its_slot_begins_and_after_the_longest_time_allowed() -> None:
    calendar = opened(1)
    late = NINE - timedelta(minutes=3)
    days.hold(calendar, HoldSlot(calendar.slots[0].slot_id, who(1), who(1)), NO_FACTS, late)
    assert calendar.slots[0].held_until == NINE
    calendar = opened(1)
    command = HoldSlot(calendar.slots[0].slot_id, who(1), who(1), hold_for=timedelta(days=2))
    days.hold(calendar, command, NO_FACTS, NOW)
    assert calendar.slots[0].held_until == NOW + days.LONGEST_HOLD


def test_holding_what_one_holds_changes_nothing() -> None:
    calendar = held()
    days.hold(calendar, HoldSlot(calendar.slots[0].slot_id, who(1), who(1)), NO_FACTS, NOW + timedelta(minutes=1))
    assert told(calendar) == []
    assert calendar.slots[0].held_until == NOW + days.HOLD_FOR


def test_an_unknown_slot_is_not_found() -> None:
    with pytest.raises(NotFound):
        days.hold(opened(), HoldSlot("no such slot", who(1), who(1)), NO_FACTS, NOW)


# -- blocking and the end of the day ----------------------------------------------------------------------------------


def test_a_blocked_slot_is_refused_until_it_is_put_back() -> None:
    calendar = opened(1)
    slot = calendar.slots[0].slot_id
    days.block(calendar, BlockSlot(slot), NO_FACTS, NOW)
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    assert isinstance(told(calendar)[-1], SlotRefused)
    days.unblock(calendar, UnblockSlot(slot), NO_FACTS, NOW)
    assert [type(event) for event in told(calendar)] == [SlotsPublished]
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    assert calendar.slots[0].holder == who(1)
    with pytest.raises(SlotLost):
        days.block(calendar, BlockSlot(slot), NO_FACTS, NOW)


def test_a_day_that_is_over_offers_nothing_and_refuses_all() -> None:
    calendar = opened(2)
    end = calendar.timers.pop("close")
    days.close(calendar, Due("close", end), NO_FACTS, end)
    assert calendar.state is CalendarState.PAST
    assert (calendar.open_for, calendar.open_in, calendar.due) == (None, None, None)
    days.take(calendar, request(calendar, 0, 1, end), NO_FACTS, end)
    (event,) = told(calendar)
    assert isinstance(event, SlotRefused)
    days.close(calendar, Due("close", end), NO_FACTS, end)
    assert calendar.state is CalendarState.PAST


def test_only_days_with_a_slot_ahead_are_found_when_looking() -> None:
    calendar = opened(1)
    assert (calendar.open_for, calendar.open_in) == (DOCTOR, f"{DOCTOR}/2026-03")
    days.take(calendar, request(calendar, 0, 1), NO_FACTS, NOW)
    assert (calendar.open_for, calendar.open_in) == (None, None)
