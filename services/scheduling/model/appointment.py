"""An appointment: a visit that is wanted, looks for a slot, wins it from a calendar, and is kept, moved or called off.

Its states are FHIR R4 Appointment.status. It never decides on a slot: it asks the calendar and waits for the answer,
one question at a time. An answer that it no longer wants is given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from services.scheduling.model.approval import Approval
from services.scheduling.model.calendar import Calendar, Release, Slot, SlotLost, month_of
from services.scheduling.model.referral import EndedReferral
from shared.contracts.base import Coding
from shared.contracts.notifications import ReplyIntent, ReplyReceived
from shared.contracts.referrals import Priority, ReferralAccepted
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentConfirmed,
    AppointmentEscalated,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentProposed,
    AppointmentRescheduled,
    AppointmentUnplaced,
    CancelledBy,
    ReferralOver,
    SlotBooked,
    SlotGivenBack,
    SlotHeld,
    SlotRefused,
    SlotReleased,
    SlotRequested,
    SlotsPublished,
)
from shared.kit.decisions import Due, Facts, Ref, Want, Where
from shared.kit.document import Document, Part, derived_id
from shared.kit.errors import Conflict, Flaw, IllegalTransition, Invalid, NotFound

OWNER = "scheduler"
"""The role that owes the next step in every waiting state."""

PLACE_WITHIN = {
    Priority.STAT: timedelta(hours=4),
    Priority.ASAP: timedelta(days=1),
    Priority.URGENT: timedelta(days=2),
    Priority.ROUTINE: timedelta(days=7),
}
"""How long an appointment may be without a date before a person must see to it."""

OUTCOME_WITHIN = timedelta(days=1)
"""How long after its end a visit may be without an outcome (arrived, fulfilled, no-show)."""

ARRIVAL_OPENS = timedelta(hours=12)
"""How long before its start a patient can arrive; earlier, the wrong appointment was meant."""

HEAD_START = {
    Priority.STAT: timedelta(),
    Priority.ASAP: timedelta(seconds=15),
    Priority.URGENT: timedelta(seconds=30),
    Priority.ROUTINE: timedelta(seconds=45),
}
"""How long the waiting let those of higher priority go first when a slot becomes free."""

BAND = timedelta(seconds=15)
LONG_WAIT = timedelta(days=30)
"""Within one priority, who has waited longer goes first: up to ``BAND`` earlier, all of it after ``LONG_WAIT``."""

LOOK_MONTHS = 6
"""A window over more months than this is looked for in all open calendars of the resource, not month by month."""

MOST_OPEN = 1000
"""Facts asked for at once. A resource has a calendar a day and a year ahead at most, so nothing is cut off."""


class AppointmentState(StrEnum):
    """FHIR R4 Appointment.status; checked-in is not told apart from arrived."""

    PROPOSED = "proposed"
    PENDING = "pending"
    WAITLIST = "waitlist"
    BOOKED = "booked"
    ARRIVED = "arrived"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    NOSHOW = "noshow"
    ENTERED_IN_ERROR = "entered-in-error"


LOOKING = frozenset({AppointmentState.PROPOSED, AppointmentState.WAITLIST})
ACTIVE = frozenset({AppointmentState.BOOKED, AppointmentState.ARRIVED})
"""The states in which a slot is the patient's; no two of these overlap for a resource."""


class TooEarly(Conflict):
    """The visit has not come near enough for this to be so."""

    slug = "too-early"
    title = "It is too early for this"


class ChangeUnderWay(Conflict):
    """The calendar has not answered the last question yet."""

    slug = "change-under-way"
    title = "Another slot is being asked for; read the appointment again shortly"


class Placement(Part):
    """A slot, and the zone in which its times are shown."""

    calendar_id: str
    slot_id: str
    resource_id: str
    start: datetime
    end: datetime
    timezone: str = "UTC"


class Asked(Placement):
    """The slot that the calendar was asked for. Unless ``exact``, another of that day in the window will do."""

    exact: bool = False


class Refusal(Part):
    """The last slot that was asked for and not had."""

    slot_id: str
    reason: str
    at: datetime


class Appointment(Document):
    """One visit of one patient. ``waiting_for`` is the resource while a free slot would be taken."""

    collection: ClassVar[str] = "appointment"
    indexes: ClassVar[tuple[str, ...]] = ("referral_id", "patient_id", "waiting_for")
    transitions: ClassVar[dict[AppointmentState, frozenset[AppointmentState]]] = {
        AppointmentState.PROPOSED: frozenset(
            {AppointmentState.BOOKED, AppointmentState.WAITLIST, AppointmentState.CANCELLED}
        ),
        AppointmentState.WAITLIST: frozenset({AppointmentState.BOOKED, AppointmentState.CANCELLED}),
        AppointmentState.PENDING: frozenset({AppointmentState.BOOKED, AppointmentState.CANCELLED}),
        AppointmentState.BOOKED: frozenset(
            {
                AppointmentState.ARRIVED,
                AppointmentState.FULFILLED,
                AppointmentState.NOSHOW,
                AppointmentState.CANCELLED,
                AppointmentState.ENTERED_IN_ERROR,
            }
        ),
        AppointmentState.ARRIVED: frozenset(
            {AppointmentState.FULFILLED, AppointmentState.CANCELLED, AppointmentState.ENTERED_IN_ERROR}
        ),
        AppointmentState.FULFILLED: frozenset(),
        AppointmentState.CANCELLED: frozenset(),
        AppointmentState.NOSHOW: frozenset(),
        AppointmentState.ENTERED_IN_ERROR: frozenset(),
    }
    terminal: ClassVar[frozenset[AppointmentState]] = frozenset(
        {
            AppointmentState.FULFILLED,
            AppointmentState.CANCELLED,
            AppointmentState.NOSHOW,
            AppointmentState.ENTERED_IN_ERROR,
        }
    )

    patient_id: str
    referral_id: str | None = None
    resource_id: str
    priority: Priority = Priority.ROUTINE
    service: Coding | None = None
    earliest: datetime
    latest: datetime | None = None
    created_at: datetime
    state: AppointmentState
    place: Placement | None = None
    asked: Asked | None = None
    refused: Refusal | None = None
    flexible: bool = True
    waiting_for: str | None = None
    held_until: datetime | None = None
    occurrence: int = 0
    confirmed_at: datetime | None = None
    arrived_at: datetime | None = None
    ended_by: CancelledBy | None = None
    end_reason: str | None = None
    beyond_approval: str | None = None
    """Why a person booked it although the payer did not approve it: a code."""


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProposeAppointment:
    """A visit is wanted: the earliest in the window, or the chosen slot.

    With a chosen slot and without ``flexible`` no other is taken in its place.
    """

    appointment_id: str
    patient_id: str
    resource_id: str
    earliest: datetime
    latest: datetime | None = None
    referral_id: str | None = None
    priority: Priority = Priority.ROUTINE
    service: Coding | None = None
    calendar_id: str | None = None
    slot_id: str | None = None
    flexible: bool = True
    beyond_approval: str | None = None


@dataclass(frozen=True, slots=True)
class MoveAppointment:
    """Have this slot instead of the present one, or instead of none."""

    calendar_id: str
    slot_id: str
    beyond_approval: str | None = None


@dataclass(frozen=True, slots=True)
class CancelAppointment:
    """Call it off. ``reason`` is a code."""

    by: CancelledBy
    reason: str


@dataclass(frozen=True, slots=True)
class EnterInError:
    """It should never have been."""


@dataclass(frozen=True, slots=True)
class ConfirmAttendance:
    """The patient said that they will come."""


@dataclass(frozen=True, slots=True)
class RecordArrival:
    """The patient is there."""


@dataclass(frozen=True, slots=True)
class RecordFulfilment:
    """The visit took place."""


@dataclass(frozen=True, slots=True)
class RecordNoShow:
    """The patient did not come."""


# -- ids and wants ----------------------------------------------------------------------------------------------------


def appointment_id(referral_id: str, number: int = 1) -> str:
    """The id of a referral's appointment; the first is what its acceptance leads to, later ones are rebookings."""
    return derived_id("appointment", referral_id, str(number))


def slots_wanted(message: object, appointment: Appointment | None) -> Iterable[Want]:
    """The open calendars of the window, whether the referral still stands, and what was approved for it; nothing while
    an answer is owed.

    A calendar that owes an answer is never read: what was read is not heard again.
    """
    if appointment is None or appointment.state not in LOOKING or not _answers(message, appointment):
        return ()
    wanted: list[Want] = list(_open_calendars(appointment)) if appointment.flexible else []
    if appointment.referral_id is not None:
        wanted.append(Ref(Approval, appointment.referral_id))
    return (*wanted, *referral_wanted(message, appointment))


def referral_wanted(_: object, appointment: Appointment | None) -> Iterable[Want]:
    """Whether the appointment's referral is over."""
    if appointment is None or appointment.referral_id is None:
        return ()
    return (Ref(EndedReferral, appointment.referral_id),)


def calendar_wanted(command: ProposeAppointment | MoveAppointment, _: Appointment | None) -> Iterable[Want]:
    """The calendar of the chosen slot."""
    return () if command.calendar_id is None else (Ref(Calendar, command.calendar_id),)


def _answers(message: object, appointment: Appointment) -> bool:
    """Whether nothing is asked, or this message is the refusal of what is."""
    if appointment.asked is None:
        return True
    return isinstance(message, SlotRefused) and _is_answer(appointment.asked, message.calendar_id, message.slot_id)


def _is_answer(asked: Asked, calendar_id: str, slot_id: str) -> bool:
    return asked.calendar_id == calendar_id and asked.slot_id == slot_id


def _open_calendars(appointment: Appointment) -> list[Where]:
    if appointment.latest is None:
        return [Where(Calendar, "open_for", appointment.resource_id, MOST_OPEN)]
    touched = months(appointment.earliest, appointment.latest)
    if len(touched) > LOOK_MONTHS:
        return [Where(Calendar, "open_for", appointment.resource_id, MOST_OPEN)]
    return [Where(Calendar, "open_in", month_of(appointment.resource_id, month), MOST_OPEN) for month in touched]


def months(earliest: datetime, latest: datetime) -> list[str]:
    """The months (``YYYY-MM``) that a window touches."""
    first, last = earliest.year * 12 + earliest.month - 1, latest.year * 12 + latest.month - 1
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(first, last + 1)]


# -- wanting a visit --------------------------------------------------------------------------------------------------


def propose_for_referral(
    appointment: Appointment | None, event: ReferralAccepted, _: Facts, now: datetime
) -> Appointment:
    """An accepted referral wants a visit with the specialist who took it. Where a person was faster, theirs stands."""
    if appointment is not None:
        return appointment
    return _proposed(
        ProposeAppointment(
            appointment_id=appointment_id(event.referral_id),
            patient_id=event.patient_id,
            resource_id=event.specialist_id,
            earliest=event.earliest,
            latest=event.latest,
            referral_id=event.referral_id,
            priority=event.priority,
            service=event.service,
        ),
        now,
    )


def propose(_: Appointment | None, command: ProposeAppointment, facts: Facts, now: datetime) -> Appointment:
    """A person wants a visit for a patient: the earliest in the window, or a chosen slot.

    Raises Invalid for a window that is over or ends before it begins, NotFound and SlotLost for the chosen slot.
    """
    if command.latest is not None and command.latest < max(command.earliest, now):
        raise Invalid("The window holds no time", flaws=[Flaw("latest", "is before earliest, or in the past")])
    appointment = _proposed(command, now)
    if command.calendar_id is not None and command.slot_id is not None:
        appointment.flexible = command.flexible
        appointment.waiting_for = appointment.waiting_for if command.flexible else None
        _ask_exactly(appointment, command.calendar_id, command.slot_id, facts, now)
    return appointment


def _proposed(command: ProposeAppointment, now: datetime) -> Appointment:
    appointment = Appointment(
        id=command.appointment_id,
        patient_id=command.patient_id,
        referral_id=command.referral_id,
        resource_id=command.resource_id,
        priority=command.priority,
        service=command.service,
        earliest=command.earliest,
        latest=command.latest,
        created_at=now,
        state=AppointmentState.PROPOSED,
        waiting_for=command.resource_id,
        beyond_approval=command.beyond_approval,
    )
    appointment.expect(OWNER, "no-slot-asked", now, PLACE_WITHIN[command.priority])
    appointment.record(AppointmentProposed(**_names(appointment), resource_id=appointment.resource_id))
    return appointment


def held(appointment: Appointment | None, event: SlotHeld, _: Facts, now: datetime) -> Appointment:
    """A slot is kept for a visit that is yet to be confirmed."""
    if appointment is not None:
        return appointment
    appointment = Appointment(
        id=event.appointment_id,
        patient_id=event.patient_id,
        referral_id=event.referral_id,
        resource_id=event.resource_id,
        earliest=event.start,
        latest=event.start,
        created_at=now,
        state=AppointmentState.PENDING,
        held_until=event.until,
        beyond_approval=event.beyond_approval,
        place=Placement(
            calendar_id=event.calendar_id,
            slot_id=event.slot_id,
            resource_id=event.resource_id,
            start=event.start,
            end=event.end,
            timezone=event.timezone,
        ),
    )
    appointment.expect(OWNER, "hold-unconfirmed", now, max(event.until - now, timedelta()) + timedelta(hours=1))
    return appointment


# -- looking for a slot -----------------------------------------------------------------------------------------------


def look(appointment: Appointment, _: AppointmentProposed | Due, facts: Facts, now: datetime) -> Appointment:
    """Ask for the earliest free slot of the window, if any; else be on the waiting list."""
    if appointment.state not in LOOKING or appointment.asked is not None:
        return appointment
    return _look(appointment, facts, now)


def slots_appeared(appointment: Appointment, event: SlotsPublished, _: Facts, now: datetime) -> Appointment:
    """Free slots appeared: look again, after those who come first."""
    if appointment.asked is not None or not _may_fit(appointment, event):
        return appointment
    at = now + _head_start(appointment, now)
    appointment.wake("look", min(at, appointment.timers.get("look", at)))
    return appointment


def refused(appointment: Appointment, event: SlotRefused, facts: Facts, now: datetime) -> Appointment:
    """The slot went to somebody else: look on, or stay with the present date."""
    asked = appointment.asked
    if asked is None or not _is_answer(asked, event.calendar_id, event.slot_id):
        return appointment
    appointment.asked = None
    appointment.refused = Refusal(slot_id=event.slot_id, reason=event.reason, at=now)
    return _look(appointment, facts, now) if appointment.state in LOOKING else appointment


def _look(appointment: Appointment, facts: Facts, now: datetime) -> Appointment:
    if (over := _ended_referral(appointment, facts)) is not None:
        return _end_with(appointment, over)
    found = _earliest_fit(appointment, facts, now) if appointment.flexible else None
    if found is None:
        return _unplaced(appointment, now)
    calendar, slot = found
    _ask(appointment, calendar, slot, exact=False, now=now)
    return appointment


def _earliest_fit(appointment: Appointment, facts: Facts, now: datetime) -> tuple[Calendar, Slot] | None:
    referral_id = appointment.referral_id if appointment.beyond_approval is None else None
    approval = None if referral_id is None else facts.get(Approval, referral_id)
    fitting = [
        (slot.start, slot.slot_id, calendar, slot)
        for where in _open_calendars(appointment)
        for calendar in facts.where(where.document, where.field, where.value, where.limit)
        if isinstance(calendar, Calendar)
        for slot in calendar.slots
        if slot.free_at(now) and _in_window(appointment, slot.start)
        if approval is None or approval.pays_on(slot.start, calendar.timezone)
    ]
    if not fitting:
        return None
    _, _, calendar, slot = min(fitting, key=lambda fit: fit[:2])
    return calendar, slot


def _in_window(appointment: Appointment, start: datetime) -> bool:
    return appointment.earliest <= start and (appointment.latest is None or start <= appointment.latest)


def _may_fit(appointment: Appointment, event: SlotsPublished) -> bool:
    """Whether a slot between these times can lie in the window."""
    return event.end > appointment.earliest and (appointment.latest is None or event.start <= appointment.latest)


def _head_start(appointment: Appointment, now: datetime) -> timedelta:
    """How long to let others go first: by priority, then by how long they have waited."""
    left = max(0.0, 1.0 - (now - appointment.created_at) / LONG_WAIT)
    return HEAD_START[appointment.priority] + timedelta(milliseconds=int(left * (BAND / timedelta(milliseconds=1))))


def _unplaced(appointment: Appointment, now: datetime) -> Appointment:
    """Wait for a slot; whoever waits already keeps the first deadline."""
    if appointment.state is AppointmentState.WAITLIST:
        return appointment
    appointment.move(AppointmentState.WAITLIST)
    within = PLACE_WITHIN[appointment.priority]
    if appointment.latest is not None:
        within = min(within, max(appointment.latest - now, timedelta()))
    reason = "no-free-slot" if appointment.flexible else "chosen-slot-lost"
    appointment.expect(OWNER, reason, now, within)
    appointment.record(
        AppointmentUnplaced(**_names(appointment), resource_id=appointment.resource_id, deadline=now + within)
    )
    return appointment


def _ask(appointment: Appointment, calendar: Calendar, slot: Slot, *, exact: bool, now: datetime) -> None:
    appointment.asked = Asked(
        calendar_id=calendar.id,
        slot_id=slot.slot_id,
        resource_id=calendar.resource_id,
        start=slot.start,
        end=slot.end,
        timezone=calendar.timezone,
        exact=exact,
    )
    appointment.rest("look")
    appointment.record(
        SlotRequested(
            calendar_id=calendar.id,
            slot_id=slot.slot_id,
            appointment_id=appointment.id,
            not_before=None if exact else max(appointment.earliest, now),
            not_after=None if exact else appointment.latest or calendar.day_end(),
        )
    )


def _ask_exactly(appointment: Appointment, calendar_id: str, slot_id: str, facts: Facts, now: datetime) -> None:
    """Ask for a chosen slot. Raises NotFound where there is none, SlotLost where it is plain that it is taken."""
    calendar = facts.get(Calendar, calendar_id)
    slot = calendar.slot(slot_id) if calendar is not None else None
    if calendar is None or slot is None:
        raise NotFound("There is no such slot")
    if not slot.free_at(now):
        raise SlotLost
    _ask(appointment, calendar, slot, exact=True, now=now)


# -- having a slot ----------------------------------------------------------------------------------------------------


def booked(appointment: Appointment, event: SlotBooked, facts: Facts, now: datetime) -> Appointment:
    """The calendar gave a slot: take the place, or move to it; what is not wanted any more goes back."""
    if appointment.state is AppointmentState.PENDING:
        return _confirmed_hold(appointment, event, facts, now)
    asked = appointment.asked
    if asked is None or not _is_grant(asked, event):
        return not_wanted(appointment, event, facts, now)
    appointment.asked = None
    place = Placement(**asked.model_dump(exclude={"exact"}) | event.model_dump(include={"slot_id", "start", "end"}))
    if appointment.state is AppointmentState.BOOKED:
        return _move_to(appointment, place, now)
    if (over := _ended_referral(appointment, facts)) is not None:
        _give_back(appointment, event.calendar_id, event.slot_id)
        return _end_with(appointment, over)
    return _place(appointment, place, now)


def not_wanted(appointment: Appointment, event: SlotBooked, _: Facts, __: datetime) -> Appointment:
    """Give back a slot that came too late, unless it is the very one that the visit took place in."""
    if appointment.place is not None and appointment.place.slot_id == event.slot_id:
        return appointment
    _give_back(appointment, event.calendar_id, event.slot_id)
    return appointment


def released(appointment: Appointment, event: SlotReleased, _: Facts, __: datetime) -> Appointment:
    """The hold was not confirmed in time. Nobody ever heard of the visit, so nobody is told."""
    slot = appointment.place
    if slot is None or slot.slot_id != event.slot_id or event.reason != Release.HOLD_EXPIRED:
        return appointment
    appointment.place = None
    return _close(appointment, AppointmentState.CANCELLED, None, Release.HOLD_EXPIRED)


def move_to(appointment: Appointment, command: MoveAppointment, facts: Facts, now: datetime) -> Appointment:
    """Ask for another slot. The present one is kept until the other is won; nothing is lost if it is not.

    Also gives a date to whoever is on the waiting list. Raises IllegalTransition in other states, ChangeUnderWay
    while an answer is owed, NotFound and SlotLost for the slot.
    """
    if appointment.state not in LOOKING | {AppointmentState.BOOKED}:
        raise IllegalTransition("Appointment", appointment.state, AppointmentState.BOOKED)
    if appointment.asked is not None:
        raise ChangeUnderWay
    if appointment.place is not None and appointment.place.slot_id == command.slot_id:
        return appointment
    appointment.beyond_approval = command.beyond_approval
    _ask_exactly(appointment, command.calendar_id, command.slot_id, facts, now)
    return appointment


def _is_grant(asked: Asked, event: SlotBooked) -> bool:
    return asked.calendar_id == event.calendar_id and (not asked.exact or asked.slot_id == event.slot_id)


def _confirmed_hold(appointment: Appointment, event: SlotBooked, facts: Facts, now: datetime) -> Appointment:
    slot = appointment.place
    if slot is None or slot.slot_id != event.slot_id:
        return not_wanted(appointment, event, facts, now)
    if (over := _ended_referral(appointment, facts)) is not None:
        return _end_with(appointment, over)
    return _place(appointment, slot, now)


def _place(appointment: Appointment, place: Placement, now: datetime) -> Appointment:
    appointment.move(AppointmentState.BOOKED)
    _have(appointment, place, now)
    appointment.record(
        AppointmentBooked(
            **_names(appointment),
            resource_id=place.resource_id,
            start=place.start,
            end=place.end,
            timezone=place.timezone,
            occurrence=appointment.occurrence,
        )
    )
    return appointment


def _move_to(appointment: Appointment, place: Placement, now: datetime) -> Appointment:
    previous = appointment.place
    assert previous is not None  # noqa: S101 - what is booked has a slot
    _have(appointment, place, now)
    _give_back(appointment, previous.calendar_id, previous.slot_id)
    appointment.record(
        AppointmentRescheduled(
            **_names(appointment),
            resource_id=place.resource_id,
            start=place.start,
            end=place.end,
            previous_start=previous.start,
            timezone=place.timezone,
            occurrence=appointment.occurrence,
        )
    )
    return appointment


def _have(appointment: Appointment, place: Placement, now: datetime) -> None:
    appointment.place = place
    appointment.resource_id = place.resource_id
    appointment.occurrence += 1
    appointment.waiting_for = appointment.held_until = appointment.confirmed_at = appointment.refused = None
    appointment.rest("look")
    appointment.expect(OWNER, "visit-without-outcome", now, max(place.end - now, timedelta()) + OUTCOME_WITHIN)


# -- the visit itself -------------------------------------------------------------------------------------------------


def attendance_confirmed(appointment: Appointment, _: ConfirmAttendance, __: Facts, now: datetime) -> Appointment:
    """The patient will come. Saying it again changes nothing. Raises IllegalTransition where nothing is booked."""
    if appointment.state is not AppointmentState.BOOKED:
        raise IllegalTransition("Appointment", appointment.state, "confirmed")
    if appointment.confirmed_at is None:
        appointment.confirmed_at = now
        appointment.record(AppointmentConfirmed(**_names(appointment)))
    return appointment


def arrive(appointment: Appointment, _: RecordArrival, __: Facts, now: datetime) -> Appointment:
    """The patient is there. Raises TooEarly more than ``ARRIVAL_OPENS`` before the start."""
    slot = _slot_of(appointment, AppointmentState.ARRIVED)
    if now < slot.start - ARRIVAL_OPENS:
        raise TooEarly("The visit starts later than the patient can have come for it")
    appointment.move(AppointmentState.ARRIVED)
    appointment.arrived_at = now
    appointment.asked = None
    appointment.expect(OWNER, "visit-without-outcome", now, max(slot.end - now, timedelta()) + OUTCOME_WITHIN)
    appointment.record(AppointmentArrived(**_names(appointment), arrived_at=now))
    return appointment


def fulfil(appointment: Appointment, _: RecordFulfilment, __: Facts, now: datetime) -> Appointment:
    """The visit took place, whether or not the arrival was recorded. Raises TooEarly for one not arrived before its
    start.
    """
    slot = _slot_of(appointment, AppointmentState.FULFILLED)
    if appointment.state is AppointmentState.BOOKED and now < slot.start:
        raise TooEarly("The visit has not started, and no arrival is recorded")
    _close(appointment, AppointmentState.FULFILLED, None, None)
    appointment.record(AppointmentFulfilled(**_names(appointment)))
    return appointment


def no_show(appointment: Appointment, _: RecordNoShow, __: Facts, now: datetime) -> Appointment:
    """The patient did not come. Raises TooEarly before the start."""
    slot = _slot_of(appointment, AppointmentState.NOSHOW)
    if now < slot.start:
        raise TooEarly("The visit has not started")
    _close(appointment, AppointmentState.NOSHOW, None, None)
    appointment.record(AppointmentNoShow(**_names(appointment)))
    return appointment


def cancel(appointment: Appointment, command: CancelAppointment, _: Facts, __: datetime) -> Appointment:
    """Call it off; its slot goes back. Raises IllegalTransition where it is over already."""
    return _end(appointment, AppointmentState.CANCELLED, command.by, command.reason)


def enter_in_error(appointment: Appointment, _: EnterInError, __: Facts, ___: datetime) -> Appointment:
    """A booking that should never have been; to everybody else it is cancelled. Raises IllegalTransition where there
    is none: before it is booked it is cancelled, and what is over stays.
    """
    return _end(appointment, AppointmentState.ENTERED_IN_ERROR, CancelledBy.COORDINATOR, "entered-in-error")


def replied(appointment: Appointment, event: ReplyReceived, facts: Facts, now: datetime) -> Appointment:
    """The patient answered a message about this appointment: confirm it, or call it off while it lies ahead."""
    if event.patient_id != appointment.patient_id:
        return appointment
    if event.intent is ReplyIntent.CONFIRM and appointment.state is AppointmentState.BOOKED:
        return attendance_confirmed(appointment, ConfirmAttendance(), facts, now)
    if event.intent is not ReplyIntent.CANCEL or (appointment.place is not None and appointment.place.start <= now):
        return appointment
    return _end(appointment, AppointmentState.CANCELLED, CancelledBy.PATIENT, "patient-reply")


def unwanted(appointment: Appointment, _: ReferralOver, facts: Facts, now: datetime) -> Appointment:
    """The referral is over: so is its visit, unless it has begun; how that one ended is for a person to say."""
    if appointment.place is not None and appointment.place.start <= now:
        return appointment
    over = _ended_referral(appointment, facts)
    return appointment if over is None else _end_with(appointment, over)


def overdue(appointment: Appointment, _: Due, __: Facts, now: datetime) -> Appointment:
    """Timer ``deadline``: a person is told, once for each wait."""
    wait = appointment.overdue(now)
    if wait is not None:
        appointment.record(
            AppointmentEscalated(
                **_names(appointment),
                state=appointment.state,
                since=wait.since,
                deadline=wait.deadline,
                owner=wait.owner,
            )
        )
    return appointment


# -- parts of decisions -----------------------------------------------------------------------------------------------


def _names(appointment: Appointment) -> dict[str, str]:
    """The fields that every event of an appointment has."""
    names = {"appointment_id": appointment.id, "patient_id": appointment.patient_id}
    return names if appointment.referral_id is None else names | {"referral_id": appointment.referral_id}


def _slot_of(appointment: Appointment, wanted: AppointmentState) -> Placement:
    """The slot that it has. Raises IllegalTransition where the state does not lead to the wanted one."""
    if appointment.place is None or wanted not in appointment.transitions[appointment.state]:
        raise IllegalTransition("Appointment", appointment.state, wanted)
    return appointment.place


def _ended_referral(appointment: Appointment, facts: Facts) -> EndedReferral | None:
    """The appointment's referral, where it is over."""
    return None if appointment.referral_id is None else facts.get(EndedReferral, appointment.referral_id)


def _give_back(appointment: Appointment, calendar_id: str, slot_id: str) -> None:
    appointment.record(SlotGivenBack(calendar_id=calendar_id, slot_id=slot_id, appointment_id=appointment.id))


def _end_with(appointment: Appointment, over: EndedReferral) -> Appointment:
    """End with the referral."""
    return _end(appointment, AppointmentState.CANCELLED, CancelledBy.REFERRAL, over.reason)


def _end(appointment: Appointment, state: AppointmentState, by: CancelledBy, reason: str) -> Appointment:
    """Call it off: the slot goes back, and whoever heard of the visit is told."""
    heard_of = appointment.state is not AppointmentState.PENDING
    slot = appointment.place
    _close(appointment, state, by, reason)
    if slot is not None:
        _give_back(appointment, slot.calendar_id, slot.slot_id)
        appointment.place = None
    if heard_of:
        appointment.record(AppointmentCancelled(**_names(appointment), by=by, reason=reason))
    return appointment


def _close(
    appointment: Appointment, state: AppointmentState, by: CancelledBy | None, reason: str | None
) -> Appointment:
    """Go to a terminal state. A slot still asked for is given back when the calendar's answer comes."""
    appointment.move(state)
    appointment.ended_by, appointment.end_reason = by, reason
    appointment.asked = appointment.waiting_for = appointment.held_until = None
    appointment.met()
    appointment.rest("look")
    return appointment
