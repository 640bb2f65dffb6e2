"""Synthetic people, visits and deliveries that tests of notifications begin with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from services.notifications.model import delivery as deliveries
from services.notifications.model import recipient as recipients
from services.notifications.model import visit as visits
from services.notifications.model.delivery import Delivery
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import Recipient
from services.notifications.model.visit import Visit
from shared.contracts.intake import Channel, PersonAddress, PersonChanged
from shared.contracts.notifications import DeliveryKind, DeliveryPlanned
from shared.contracts.scheduling import AppointmentBooked, AppointmentRescheduled
from shared.kit.decisions import Due, Facts, Ref, Where
from shared.kit.document import derived_id

POLICY = Policy(spread=timedelta(0), number_key=b"test")
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
"""A Monday; 10:00 in New York, 9:00 in Chicago."""

PATIENT = derived_id("test", "patient")
APPOINTMENT = derived_id("test", "appointment")
RESOURCE = derived_id("test", "resource")


def changed(**fields: Any) -> PersonChanged:
    """A person in New York who is best reached by text, then by e-mail."""
    known: dict[str, Any] = {
        "patient_id": PATIENT,
        "family": "Núñez",
        "given": ("Zoé",),
        "mobile": "+15005559001",
        "email": "zoe@people.example",
        "address": PersonAddress(lines=("1 Test Way",), city="Testville", state="NY", postal_code="10001"),
        "language": "en-US",
        "timezone": "America/New_York",
        "channels": (Channel.SMS, Channel.EMAIL),
    }
    return PersonChanged(**{**known, **fields})


def person(**fields: Any) -> Recipient:
    """That person, kept, with nothing left to publish."""
    kept = recipients.keep(POLICY, None, changed(**fields), Facts(), NOW)
    kept.recorded().clear()
    return kept


def booked(start: datetime, **fields: Any) -> AppointmentBooked:
    """A visit of an hour."""
    known: dict[str, Any] = {
        "appointment_id": APPOINTMENT,
        "patient_id": PATIENT,
        "resource_id": RESOURCE,
        "start": start,
        "end": start + timedelta(hours=1),
        "timezone": "America/New_York",
    }
    return AppointmentBooked(**{**known, **fields})


def rescheduled(start: datetime, previous: datetime, occurrence: int = 2) -> AppointmentRescheduled:
    """That visit at another time."""
    return AppointmentRescheduled(
        appointment_id=APPOINTMENT,
        patient_id=PATIENT,
        resource_id=RESOURCE,
        start=start,
        end=start + timedelta(hours=1),
        previous_start=previous,
        timezone="America/New_York",
        occurrence=occurrence,
    )


def a_visit(start: datetime | None = None, policy: Policy = POLICY) -> Visit:
    """A booked visit, by default in ten days, at 10:00 in New York."""
    visit = visits.book(policy, None, booked(start or NOW + timedelta(days=10)), Facts(), NOW)
    visit.recorded().clear()
    return visit


def planned(**fields: Any) -> DeliveryPlanned:
    """A reminder two days before a visit in ten days."""
    known: dict[str, Any] = {
        "delivery_id": derived_id("test", "delivery"),
        "appointment_id": APPOINTMENT,
        "patient_id": PATIENT,
        "occurrence": 1,
        "kind": DeliveryKind.REMINDER,
        "ahead_seconds": 2 * 86400,
        "planned_at": NOW,
        "planned_for": NOW + timedelta(days=8),
        "useful_until": NOW + timedelta(days=10, hours=-3),
        "timezone": "America/New_York",
    }
    return DeliveryPlanned(**{**known, **fields})


def facts(who: Recipient | None, visit: Visit | None, others: Iterable[Delivery] = ()) -> Facts:
    """What choosing and sending read."""
    return Facts(
        {
            Ref(Recipient, PATIENT): [] if who is None else [who],
            Ref(Visit, APPOINTMENT): [] if visit is None else [visit],
            Where(Delivery, "messaged", PATIENT): list(others),
        }
    )


def a_delivery(who: Recipient | None = None, policy: Policy = POLICY, **fields: Any) -> Delivery:
    """That reminder, planned, with nothing left to publish."""
    delivery = deliveries.plan(policy, None, planned(**fields), facts(who, None), NOW)
    delivery.recorded().clear()
    return delivery


def fire(delivery: Delivery, known: Facts, now: datetime, policy: Policy = POLICY) -> Delivery:
    """What the kit does when the timer ``send`` fires, up to the call."""
    due = Due(deliveries.SEND, delivery.timers.pop(deliveries.SEND, now))
    return deliveries.prepare(policy, delivery, due, known, now)


def outcome(delivery: Delivery, came: object, known: Facts, now: datetime, policy: Policy = POLICY) -> Delivery:
    """What the kit does with a call's outcome."""
    delivery.abandon(deliveries.SEND)
    delivery.rest(deliveries.SEND)
    return deliveries.settle(policy, delivery, came, known, now)


def names(document: Delivery | Recipient | Visit) -> list[str]:
    """The types of what a document has recorded."""
    return [event.type for event in document.recorded()]
