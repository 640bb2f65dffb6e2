"""A visit as notifications needs it: when it is, whether it still is, and the messages that it wants sent.

Fed by scheduling's events of one appointment, in their order; deliveries are fed by the visit alone. So a booking, a
move and a cancellation that come close together are never taken in the wrong order, and the visit is the fact that is
read at the last moment before anything is sent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from services.notifications.model.policy import Policy
from shared.contracts.notifications import DeliveriesWithdrawn, DeliveryKind, DeliveryPlanned
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
    CancelledBy,
)
from shared.kit.decisions import Facts
from shared.kit.document import Document, derived_id


class Standing(StrEnum):
    """Where a visit stands; the words of FHIR R4 Appointment.status."""

    BOOKED = "booked"
    ARRIVED = "arrived"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    NOSHOW = "noshow"


class DropReason(StrEnum):
    """Why a message was not sent, on purpose."""

    CANCELLED = "cancelled"
    MOVED = "moved"
    PAST_USEFULNESS = "past-usefulness"
    NO_CHANNEL = "no-channel"
    REVOKED = "revoked"
    LIMIT = "limit"


class Visit(Document):
    """One appointment; its id is the appointment's. ``pending`` are the deliveries planned for this occurrence."""

    collection = "visit"
    transitions = {
        Standing.BOOKED: frozenset({Standing.ARRIVED, Standing.FULFILLED, Standing.CANCELLED, Standing.NOSHOW}),
        Standing.ARRIVED: frozenset({Standing.FULFILLED, Standing.CANCELLED}),
        Standing.FULFILLED: frozenset(),
        Standing.CANCELLED: frozenset(),
        Standing.NOSHOW: frozenset(),
    }
    terminal = frozenset({Standing.FULFILLED, Standing.CANCELLED, Standing.NOSHOW})

    state: Standing = Standing.BOOKED
    patient_id: str
    occurrence: int
    start: datetime
    end: datetime
    timezone: str = "UTC"
    pending: list[str] = []


def delivery_id(appointment_id: str, occurrence: int, kind: DeliveryKind, ahead_seconds: int | None = None) -> str:
    """One message has one id for ever: of this appointment, this date of it, this kind and this long before."""
    offset = "" if ahead_seconds is None else str(ahead_seconds)
    return derived_id("delivery", appointment_id, str(occurrence), kind, offset)


def book(
    policy: Policy,
    visit: Visit | None,
    event: AppointmentBooked | AppointmentRescheduled,
    facts: Facts,
    now: datetime,
) -> Visit:
    """Plan a date's messages; what was planned for an earlier date is withdrawn."""
    if visit is None:
        visit = Visit(
            id=event.appointment_id,
            patient_id=event.patient_id,
            occurrence=event.occurrence,
            start=event.start,
            end=event.end,
            timezone=event.timezone,
        )
    else:
        _withdraw(visit, DropReason.MOVED)
        visit.occurrence, visit.timezone = event.occurrence, event.timezone
        visit.start, visit.end = event.start, event.end
    plan(policy, visit, now)
    return visit


def plan(policy: Policy, visit: Visit, now: datetime) -> None:
    """A confirmation now and each reminder in its time. A reminder is of use until the next one's time, or the visit.

    Reminders whose time has passed are planned too, and are dropped as they are made: visibly, and never sent.
    """
    _want(visit, DeliveryKind.CONFIRMATION, None, now, now, visit.start)
    ahead = sorted(policy.reminders, reverse=True)
    ends = [visit.start - next_one for next_one in ahead[1:]] + [visit.start]
    for before, useful_until in zip(ahead, ends, strict=True):
        _want(visit, DeliveryKind.REMINDER, before, now, visit.start - before, useful_until)


def cancel(visit: Visit, event: AppointmentCancelled, facts: Facts, now: datetime) -> Visit:
    """Nothing reminds of it any more; a patient who did not call it off is told, while that still helps."""
    expected = visit.state is Standing.BOOKED and now < visit.start
    visit.move(Standing.CANCELLED)
    _withdraw(visit, DropReason.CANCELLED)
    if expected and event.by is not CancelledBy.PATIENT:
        _want(visit, DeliveryKind.CANCELLATION, None, now, now, visit.start)
    return visit


def miss(visit: Visit, event: AppointmentNoShow, facts: Facts, now: datetime) -> Visit:
    """The patient did not come; there is nothing left to remind of."""
    visit.move(Standing.NOSHOW)
    _withdraw(visit, DropReason.CANCELLED)
    return visit


def attend(visit: Visit, event: AppointmentArrived | AppointmentFulfilled, facts: Facts, now: datetime) -> Visit:
    """The patient came; what was not sent by now is of no use."""
    visit.move(Standing.ARRIVED if isinstance(event, AppointmentArrived) else Standing.FULFILLED)
    _withdraw(visit, DropReason.PAST_USEFULNESS)
    return visit


def _want(
    visit: Visit,
    kind: DeliveryKind,
    before: timedelta | None,
    planned_at: datetime,
    planned_for: datetime,
    useful_until: datetime,
) -> None:
    ahead = None if before is None else int(before.total_seconds())
    id = delivery_id(visit.id, visit.occurrence, kind, ahead)
    visit.pending.append(id)
    visit.record(
        DeliveryPlanned(
            delivery_id=id,
            appointment_id=visit.id,
            patient_id=visit.patient_id,
            occurrence=visit.occurrence,
            kind=kind,
            ahead_seconds=ahead,
            planned_at=planned_at,
            planned_for=planned_for,
            useful_until=useful_until,
            timezone=visit.timezone,
        )
    )


def _withdraw(visit: Visit, reason: DropReason) -> None:
    if not visit.pending:
        return
    withdrawn = DeliveriesWithdrawn(appointment_id=visit.id, delivery_ids=tuple(visit.pending), reason=reason)
    visit.record(withdrawn)
    visit.pending = []
