"""A resource's UTC day: its slots, and who has them. It alone decides on them, so no two bookings ever overlap.

Overlap is excluded once, when slots are published: those of a day are disjoint, and none passes midnight UTC, where
another calendar begins. After that a slot has one holder at a time, and every contest for it is a race of versions of
this one document.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from shared.contracts.scheduling import (
    SlotBooked,
    SlotGivenBack,
    SlotHeld,
    SlotRefused,
    SlotReleased,
    SlotRequested,
    SlotsPublished,
)
from shared.kit.decisions import Due, Facts
from shared.kit.document import Document, Part, derived_id
from shared.kit.errors import Conflict, Flaw, Invalid, NotFound

HOLD_FOR = timedelta(minutes=10)
"""How long a hold lasts unless its caller says otherwise."""

LONGEST_HOLD = timedelta(hours=1)
"""A hold keeps others out, so nobody may keep it for longer than this."""

FARTHEST = timedelta(days=366)
"""How far ahead slots may be published; it bounds what looking for a free slot has to read."""

MOST_SLOTS = 288
"""Slots a calendar may have: one every five minutes of a day."""


class CalendarState(StrEnum):
    """What a calendar has to give."""

    OPEN = "open"
    FULL = "full"
    PAST = "past"


class SlotStatus(StrEnum):
    """FHIR R4 Slot.status, but for entered-in-error."""

    FREE = "free"
    BUSY = "busy"
    UNAVAILABLE = "busy-unavailable"
    TENTATIVE = "busy-tentative"


class Lost(StrEnum):
    """Why a slot is refused."""

    TAKEN = "taken"
    PAST = "past"
    UNKNOWN = "unknown"


class Release(StrEnum):
    """Why a slot became free again."""

    HOLD_EXPIRED = "hold-expired"
    GIVEN_BACK = "given-back"


class SlotLost(Conflict):
    """The slot went to somebody else, or its time has passed (IHE ITI-116: an issue fatal, not-found)."""

    slug = "slot-lost"
    title = "The slot is no longer free"


class HoldExpired(Conflict):
    """There is no hold to confirm: it expired, was given back, or never was."""

    slug = "hold-expired"
    title = "The slot is not held for this appointment any more"


class Slot(Part):
    """A stretch of a resource's time. ``holder`` is the appointment that has it; ``held_until`` is set while the
    holder has yet to confirm.
    """

    slot_id: str
    start: datetime
    end: datetime
    status: SlotStatus = SlotStatus.FREE
    holder: str | None = None
    held_until: datetime | None = None

    def free_at(self, now: datetime) -> bool:
        """Whether it can be had: free, and not begun."""
        return self.status is SlotStatus.FREE and self.start > now


class Calendar(Document):
    """One resource's slots of one UTC day, ordered by start.

    ``open_for`` (the resource) and ``open_in`` (resource and month) are set only while a free slot lies ahead, so
    that looking for one never reads full or past days. ``slot_ids`` and ``holders`` find the calendar of a slot and
    of an appointment.
    """

    collection: ClassVar[str] = "calendar"
    indexes: ClassVar[tuple[str, ...]] = ("in_month", "open_for", "open_in", "slot_ids", "holders")
    transitions: ClassVar[dict[CalendarState, frozenset[CalendarState]]] = {
        CalendarState.OPEN: frozenset({CalendarState.FULL}),
        CalendarState.FULL: frozenset({CalendarState.OPEN, CalendarState.PAST}),
        CalendarState.PAST: frozenset(),
    }
    terminal: ClassVar[frozenset[CalendarState]] = frozenset({CalendarState.PAST})

    resource_id: str
    day: str
    timezone: str
    state: CalendarState = CalendarState.FULL
    slots: list[Slot] = []
    in_month: str
    open_for: str | None = None
    open_in: str | None = None
    slot_ids: list[str] = []
    holders: list[str] = []

    def slot(self, slot_id: str) -> Slot | None:
        """The slot with this id."""
        return next((slot for slot in self.slots if slot.slot_id == slot_id), None)

    def held_by(self, appointment_id: str) -> Slot | None:
        """The earliest slot that this appointment has."""
        return next((slot for slot in self.slots if slot.holder == appointment_id), None)

    def day_end(self) -> datetime:
        """The midnight that ends its day."""
        return day_start(self.day) + timedelta(days=1)


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A slot to publish. ``path`` is where it stands in the sender's request."""

    path: str
    start: datetime
    end: datetime
    status: SlotStatus = SlotStatus.FREE


@dataclass(frozen=True, slots=True)
class PublishSlots:
    """Add slots to a resource's day. ``timezone`` is the IANA zone that the resource's times are shown in."""

    calendar_id: str
    resource_id: str
    day: str
    timezone: str
    slots: tuple[NewSlot, ...]


@dataclass(frozen=True, slots=True)
class HoldSlot:
    """Keep a slot for an appointment while its booking is completed."""

    slot_id: str
    appointment_id: str
    patient_id: str
    referral_id: str | None = None
    hold_for: timedelta = HOLD_FOR
    beyond_approval: str | None = None


@dataclass(frozen=True, slots=True)
class ConfirmHold:
    """Make a held slot the appointment's."""

    appointment_id: str


@dataclass(frozen=True, slots=True)
class BlockSlot:
    """Take a free slot out of what can be booked."""

    slot_id: str


@dataclass(frozen=True, slots=True)
class UnblockSlot:
    """Put a blocked slot back."""

    slot_id: str


# -- ids and days -----------------------------------------------------------------------------------------------------


def calendar_id(resource_id: str, day: str) -> str:
    """The id of a resource's calendar of a UTC day (``YYYY-MM-DD``)."""
    return derived_id("calendar", resource_id, day)


def slot_id(resource_id: str, start: datetime) -> str:
    """The id of the slot that begins at ``start``, so that publishing it again is the same slot."""
    return derived_id("slot", resource_id, start.astimezone(UTC).isoformat(timespec="milliseconds"))


def day_of(start: datetime) -> str:
    """The UTC day that a slot belongs to: that of its start."""
    return start.astimezone(UTC).date().isoformat()


def day_start(day: str) -> datetime:
    """The midnight that begins a UTC day."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def month_of(resource_id: str, day: str) -> str:
    """What ``in_month`` and ``open_in`` hold for a day."""
    return f"{resource_id}/{day[:7]}"


# -- decisions --------------------------------------------------------------------------------------------------------


def publish(calendar: Calendar | None, command: PublishSlots, _: Facts, now: datetime) -> Calendar:
    """Add slots; those that are there already, with the same end, stay as they are.

    Raises Invalid, naming each slot, for one that ends before it begins, belongs to another day, passes midnight
    UTC, lies in the past or too far ahead, or overlaps another.
    """
    if calendar is None:
        calendar = _empty(command)
    flaws = [flaw for slot in command.slots if (flaw := _flaw_of(slot, command.day, now)) is not None]
    if command.timezone != calendar.timezone and calendar.slots:
        flaws.append(Flaw("timezone", "differs from the zone that this calendar has"))
    added, overlaps = _fit_in(calendar, command.slots)
    if flaws := flaws + overlaps:
        raise Invalid("The slots cannot be published", flaws=flaws)
    calendar.slots = sorted((*calendar.slots, *added), key=lambda slot: slot.start)
    calendar.slot_ids = [slot.slot_id for slot in calendar.slots]
    _announce(calendar, added, now)
    calendar.wake("close", calendar.day_end())
    return _settle(calendar, now)


def take(calendar: Calendar, request: SlotRequested, _: Facts, now: datetime) -> Calendar:
    """Give the slot to the appointment that asked first, or another of the day that it would take as well; else
    refuse. Whoever has it already is told so again.
    """
    _expire(calendar, now)
    slot = _grant(calendar, request, now)
    if slot is None:
        calendar.record(
            SlotRefused(
                calendar_id=calendar.id,
                slot_id=request.slot_id,
                appointment_id=request.appointment_id,
                reason=_why_lost(calendar.slot(request.slot_id), now),
            )
        )
        return _settle(calendar, now)
    _give(calendar, slot, request.appointment_id)
    return _settle(calendar, now)


def hold(calendar: Calendar, command: HoldSlot, _: Facts, now: datetime) -> Calendar:
    """Keep a free slot for an appointment, at most until the slot begins.

    Raises SlotLost where somebody else has it (IHE ITI-116). Holding what one holds changes nothing.
    """
    _expire(calendar, now)
    slot = _known(calendar, command.slot_id)
    if slot.holder == command.appointment_id:
        return _settle(calendar, now)
    if not slot.free_at(now):
        raise SlotLost(f"The slot is {_why_lost(slot, now)}")
    slot.status, slot.holder = SlotStatus.TENTATIVE, command.appointment_id
    slot.held_until = min(now + min(command.hold_for, LONGEST_HOLD), slot.start)
    calendar.record(
        SlotHeld(
            calendar_id=calendar.id,
            slot_id=slot.slot_id,
            appointment_id=command.appointment_id,
            patient_id=command.patient_id,
            referral_id=command.referral_id,
            resource_id=calendar.resource_id,
            start=slot.start,
            end=slot.end,
            until=slot.held_until,
            timezone=calendar.timezone,
            beyond_approval=command.beyond_approval,
        )
    )
    return _settle(calendar, now)


def confirm(calendar: Calendar, command: ConfirmHold, _: Facts, now: datetime) -> Calendar:
    """Make a held slot the appointment's. Raises HoldExpired where it is not held any more, to the millisecond."""
    slot = calendar.held_by(command.appointment_id)
    if slot is None or _lapsed(slot, now):
        raise HoldExpired
    if slot.status is SlotStatus.BUSY:
        return calendar
    _give(calendar, slot, command.appointment_id)
    return _settle(calendar, now)


def book(calendar: Calendar, command: HoldSlot, _: Facts, now: datetime) -> Calendar:
    """Take a free slot for an appointment at once (IHE ITI-117 without a hold before it). Raises SlotLost."""
    hold(calendar, command, _, now)
    return confirm(calendar, ConfirmHold(command.appointment_id), _, now)


def give_back(calendar: Calendar, message: SlotGivenBack, _: Facts, now: datetime) -> Calendar:
    """Free a slot that its holder no longer wants; anybody else's giving back changes nothing."""
    slot = calendar.slot(message.slot_id)
    if slot is None or slot.holder != message.appointment_id:
        return calendar
    _release(calendar, slot, Release.GIVEN_BACK)
    _announce(calendar, [slot], now)
    return _settle(calendar, now)


def block(calendar: Calendar, command: BlockSlot, _: Facts, now: datetime) -> Calendar:
    """Take a free slot out of what can be booked. Raises SlotLost where somebody has it: move that visit first."""
    _expire(calendar, now)
    slot = _known(calendar, command.slot_id)
    if slot.holder is not None:
        raise SlotLost("The slot is taken")
    slot.status = SlotStatus.UNAVAILABLE
    return _settle(calendar, now)


def unblock(calendar: Calendar, command: UnblockSlot, _: Facts, now: datetime) -> Calendar:
    """Put a blocked slot back; waiting appointments hear of it."""
    slot = _known(calendar, command.slot_id)
    if slot.status is not SlotStatus.UNAVAILABLE:
        return calendar
    slot.status = SlotStatus.FREE
    _announce(calendar, [slot], now)
    return _settle(calendar, now)


def expire_holds(calendar: Calendar, _: Due, __: Facts, now: datetime) -> Calendar:
    """Timer ``holds``: free what was held and not confirmed in time."""
    _expire(calendar, now)
    return _settle(calendar, now)


def close(calendar: Calendar, _: Due, __: Facts, now: datetime) -> Calendar:
    """Timer ``close``: the day is over, so nothing is free any more."""
    if calendar.state is CalendarState.PAST:
        return calendar
    _expire(calendar, now)
    _settle(calendar, now)
    calendar.move(CalendarState.PAST)
    calendar.open_for = calendar.open_in = None
    calendar.rest("holds", "close")
    return calendar


# -- parts of decisions -----------------------------------------------------------------------------------------------


def _empty(command: PublishSlots) -> Calendar:
    return Calendar(
        id=command.calendar_id,
        resource_id=command.resource_id,
        day=command.day,
        timezone=command.timezone,
        in_month=month_of(command.resource_id, command.day),
    )


def _flaw_of(slot: NewSlot, day: str, now: datetime) -> Flaw | None:
    """What is wrong with a slot on its own."""
    if slot.end <= slot.start:
        return Flaw(f"{slot.path}.end", "must be after start")
    if day_of(slot.start) != day:
        return Flaw(f"{slot.path}.start", "belongs to another UTC day than the calendar")
    if slot.end > day_start(day) + timedelta(days=1):
        return Flaw(f"{slot.path}.end", "passes midnight UTC, where another calendar begins")
    if slot.start <= now:
        return Flaw(f"{slot.path}.start", "is in the past")
    if slot.start > now + FARTHEST:
        return Flaw(f"{slot.path}.start", f"is more than {FARTHEST.days} days ahead")
    return None


def _fit_in(calendar: Calendar, wanted: Iterable[NewSlot]) -> tuple[list[Slot], list[Flaw]]:
    """The slots that are new, and a flaw for each that overlaps one that is there or came before it."""
    added: list[Slot] = []
    flaws: list[Flaw] = []
    for new in wanted:
        others = (*calendar.slots, *added)
        if any(slot.start == new.start and slot.end == new.end for slot in others):
            continue
        if any(slot.start < new.end and new.start < slot.end for slot in others):
            flaws.append(Flaw(new.path, "overlaps another slot of this resource"))
            continue
        id = slot_id(calendar.resource_id, new.start)
        added.append(Slot(slot_id=id, start=new.start, end=new.end, status=new.status))
    if len(calendar.slots) + len(added) > MOST_SLOTS:
        flaws.append(Flaw("slots", f"makes more than {MOST_SLOTS} slots in a day"))
    return added, flaws


def _known(calendar: Calendar, slot_id: str) -> Slot:
    slot = calendar.slot(slot_id)
    if slot is None:
        raise NotFound("There is no such slot")
    return slot


def _grant(calendar: Calendar, request: SlotRequested, now: datetime) -> Slot | None:
    """The slot that a request gets: what it has already, the one it named, or the earliest that would do as well."""
    named = calendar.slot(request.slot_id)
    own = [slot for slot in calendar.slots if slot.holder == request.appointment_id]
    if named is not None and (named in own or named.free_at(now)):
        return named
    earliest, latest = request.not_before, request.not_after
    if earliest is None or latest is None:
        return None
    fitting = [slot for slot in calendar.slots if earliest <= slot.start <= latest]
    return next((slot for slot in fitting if slot in own), None) or next(
        (slot for slot in fitting if slot.free_at(now)), None
    )


def _give(calendar: Calendar, slot: Slot, appointment_id: str) -> None:
    slot.status, slot.holder, slot.held_until = SlotStatus.BUSY, appointment_id, None
    calendar.record(
        SlotBooked(
            calendar_id=calendar.id,
            slot_id=slot.slot_id,
            appointment_id=appointment_id,
            start=slot.start,
            end=slot.end,
        )
    )


def _lapsed(slot: Slot, now: datetime) -> bool:
    return slot.held_until is not None and slot.held_until <= now


def _expire(calendar: Calendar, now: datetime) -> None:
    """Free what was held until now; a decision never waits for the timer to learn that a hold is over."""
    lapsed = [slot for slot in calendar.slots if _lapsed(slot, now)]
    for slot in lapsed:
        _release(calendar, slot, Release.HOLD_EXPIRED)
    _announce(calendar, lapsed, now)


def _release(calendar: Calendar, slot: Slot, reason: Release) -> None:
    holder = slot.holder
    slot.status, slot.holder, slot.held_until = SlotStatus.FREE, None, None
    if holder is not None:
        calendar.record(
            SlotReleased(calendar_id=calendar.id, slot_id=slot.slot_id, appointment_id=holder, reason=reason)
        )


def _announce(calendar: Calendar, slots: Iterable[Slot], now: datetime) -> None:
    """Tell waiting appointments of slots that became free, if any can still be had."""
    free = [slot for slot in slots if slot.free_at(now)]
    if not free:
        return
    calendar.record(
        SlotsPublished(
            calendar_id=calendar.id,
            resource_id=calendar.resource_id,
            start=min(slot.start for slot in free),
            end=max(slot.end for slot in free),
        )
    )


def _why_lost(slot: Slot | None, now: datetime) -> Lost:
    if slot is None:
        return Lost.UNKNOWN
    return Lost.PAST if slot.status is SlotStatus.FREE and slot.start <= now else Lost.TAKEN


def _settle(calendar: Calendar, now: datetime) -> Calendar:
    """Bring what is derived from the slots in line with them."""
    calendar.holders = sorted({slot.holder for slot in calendar.slots if slot.holder is not None})
    held = [slot.held_until for slot in calendar.slots if slot.held_until is not None]
    if held:
        calendar.wake("holds", min(held))
    else:
        calendar.rest("holds")
    if calendar.state is CalendarState.PAST:
        return calendar
    is_open = any(slot.free_at(now) for slot in calendar.slots)
    calendar.open_for = calendar.resource_id if is_open else None
    calendar.open_in = calendar.in_month if is_open else None
    state = CalendarState.OPEN if is_open else CalendarState.FULL
    if calendar.state is not state:
        calendar.move(state)
    return calendar
