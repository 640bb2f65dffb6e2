"""Events of scheduling: appointments in public; slots between calendar and appointment on a private topic."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .base import Event


class CancelledBy(StrEnum):
    """Who called an appointment off."""

    PATIENT = "patient"
    PROVIDER = "provider"
    COORDINATOR = "coordinator"
    REFERRAL = "referral"


class AppointmentEvent(Event):
    """About one appointment; the subject is ``appointment_id``. ``referral_id`` is None where none led to it."""

    topic: ClassVar[str] = "scheduling.events"
    appointment_id: str
    patient_id: str
    referral_id: str | None = None


class AppointmentProposed(AppointmentEvent):
    """A visit is wanted and a slot is looked for."""

    type: ClassVar[str] = "appointment.proposed.v1"
    resource_id: str


class AppointmentUnplaced(AppointmentEvent):
    """No slot is free in the window; the appointment waits for one."""

    type: ClassVar[str] = "appointment.unplaced.v1"
    resource_id: str
    deadline: datetime


class AppointmentBooked(AppointmentEvent):
    """A slot is the patient's. ``occurrence`` counts the dates this appointment has had, from 1."""

    type: ClassVar[str] = "appointment.booked.v1"
    resource_id: str
    start: datetime
    end: datetime
    timezone: str = "UTC"
    occurrence: int = 1


class AppointmentRescheduled(AppointmentEvent):
    """Moved: ``start`` and ``end`` replace ``previous_start``."""

    type: ClassVar[str] = "appointment.rescheduled.v1"
    resource_id: str
    start: datetime
    end: datetime
    previous_start: datetime
    timezone: str = "UTC"
    occurrence: int


class AppointmentConfirmed(AppointmentEvent):
    """The patient said that they will come."""

    type: ClassVar[str] = "appointment.confirmed.v1"


class AppointmentCancelled(AppointmentEvent):
    """Called off; its slot is free again."""

    type: ClassVar[str] = "appointment.cancelled.v1"
    by: CancelledBy
    reason: str


class AppointmentArrived(AppointmentEvent):
    """The patient is there."""

    type: ClassVar[str] = "appointment.arrived.v1"
    arrived_at: datetime


class AppointmentFulfilled(AppointmentEvent):
    """The visit took place."""

    type: ClassVar[str] = "appointment.fulfilled.v1"


class AppointmentNoShow(AppointmentEvent):
    """The patient did not come."""

    type: ClassVar[str] = "appointment.noshow.v1"


class AppointmentEscalated(AppointmentEvent):
    """A waiting state outlived its deadline: once per wait."""

    type: ClassVar[str] = "appointment.escalated.v1"
    state: str
    since: datetime
    deadline: datetime
    owner: str


class TalkEvent(Event):
    """About one talk of a clinician with a payer's physician; the subject is ``talk_id``. No patient comes to it."""

    topic: ClassVar[str] = "scheduling.events"
    talk_id: str
    authorization_id: str
    patient_id: str
    resource_id: str


class TalkBooked(TalkEvent):
    """The clinician's calendar has a place for it."""

    type: ClassVar[str] = "talk.booked.v1"
    start: datetime
    end: datetime
    timezone: str


class TalkUnplaced(TalkEvent):
    """No slot of the clinician's calendar is free within the times that the payer offers; it waits for one."""

    type: ClassVar[str] = "talk.unplaced.v1"


class TalkWanted(TalkEvent):
    """A talk looks for a slot (subject: the talk). Private to scheduling."""

    type: ClassVar[str] = "talk.wanted.v1"
    topic: ClassVar[str] = "scheduling.slots"


class SlotEvent(Event):
    """Between an appointment and the calendar that alone decides on its slots. Private to scheduling."""

    topic: ClassVar[str] = "scheduling.slots"
    calendar_id: str
    slot_id: str
    appointment_id: str


class SlotRequested(SlotEvent):
    """An appointment asks for a slot (subject: the appointment).

    Where ``not_before`` and ``not_after`` are given, any free slot of the calendar that starts between them will do
    when the named one is lost; without them only the named one will.
    """

    type: ClassVar[str] = "slot.requested.v1"
    not_before: datetime | None = None
    not_after: datetime | None = None


class SlotBooked(SlotEvent):
    """The slot is the appointment's (subject: the calendar)."""

    type: ClassVar[str] = "slot.booked.v1"
    start: datetime
    end: datetime


class SlotHeld(SlotEvent):
    """The slot is kept for the appointment until ``until`` (subject: the calendar).

    ``beyond_approval`` says, as a code, why a person wants it although the payer did not approve the visit.
    """

    type: ClassVar[str] = "slot.held.v1"
    patient_id: str
    referral_id: str | None = None
    resource_id: str
    start: datetime
    end: datetime
    until: datetime
    timezone: str = "UTC"
    beyond_approval: str | None = None


class SlotRefused(SlotEvent):
    """The slot went to somebody else, or is gone (subject: the calendar)."""

    type: ClassVar[str] = "slot.refused.v1"
    reason: str


class SlotReleased(SlotEvent):
    """A hold expired, or a booking was given back (subject: the calendar)."""

    type: ClassVar[str] = "slot.released.v1"
    reason: str


class SlotGivenBack(SlotEvent):
    """An appointment no longer wants its slot (subject: the appointment)."""

    type: ClassVar[str] = "slot.given-back.v1"


class SlotsPublished(Event):
    """A calendar has new free slots, for which appointments may be waiting (subject: the calendar)."""

    type: ClassVar[str] = "slots.published.v1"
    topic: ClassVar[str] = "scheduling.slots"
    calendar_id: str
    resource_id: str
    start: datetime
    end: datetime


class ReferralOver(Event):
    """A referral ended, however: no visit is wanted for it any more (subject: the referral). Private to scheduling."""

    type: ClassVar[str] = "referral.over.v1"
    topic: ClassVar[str] = "scheduling.slots"
    referral_id: str
