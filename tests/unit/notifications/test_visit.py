"""What a visit plans, and what it withdraws."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from services.notifications.model import visit as visits
from services.notifications.model.visit import Standing, Visit, delivery_id
from shared.contracts.notifications import DeliveriesWithdrawn, DeliveryKind, DeliveryPlanned
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    CancelledBy,
)
from shared.kit.decisions import Facts
from tests.unit.notifications.cases import APPOINTMENT, NOW, PATIENT, POLICY, a_visit, booked, rescheduled

START = NOW + timedelta(days=10)


def plans(visit: Visit) -> list[DeliveryPlanned]:
    return [event for event in visit.recorded() if isinstance(event, DeliveryPlanned)]


def withdrawals(visit: Visit) -> list[DeliveriesWithdrawn]:
    return [event for event in visit.recorded() if isinstance(event, DeliveriesWithdrawn)]


def cancelled(by: CancelledBy) -> AppointmentCancelled:
    return AppointmentCancelled(appointment_id=APPOINTMENT, patient_id=PATIENT, by=by, reason="test")


def test_a_booking_plans_a_confirmation_now_and_a_reminder_seven_days_two_days_and_three_hours_before() -> None:
    visit = visits.book(POLICY, None, booked(START), Facts(), NOW)
    assert [(plan.kind, plan.planned_for) for plan in plans(visit)] == [
        (DeliveryKind.CONFIRMATION, NOW),
        (DeliveryKind.REMINDER, START - timedelta(days=7)),
        (DeliveryKind.REMINDER, START - timedelta(days=2)),
        (DeliveryKind.REMINDER, START - timedelta(hours=3)),
    ]
    assert visit.pending == [plan.delivery_id for plan in plans(visit)]
    assert visit.state is Standing.BOOKED


def test_a_reminder_is_of_use_until_the_next_one_and_the_last_until_the_visit() -> None:
    visit = visits.book(POLICY, None, booked(START), Facts(), NOW)
    assert [plan.useful_until for plan in plans(visit)] == [
        START,
        START - timedelta(days=2),
        START - timedelta(hours=3),
        START,
    ]


def test_a_message_has_one_id_for_ever_of_appointment_date_kind_and_time_before() -> None:
    first = visits.book(POLICY, None, booked(START), Facts(), NOW)
    again = visits.book(POLICY, None, booked(START), Facts(), NOW + timedelta(hours=1))
    assert first.pending == again.pending
    assert first.pending[0] == delivery_id(APPOINTMENT, 1, DeliveryKind.CONFIRMATION)
    assert len(set(first.pending)) == 4


def test_a_moved_visit_withdraws_what_its_old_date_wanted_before_it_plans_the_new_one() -> None:
    visit = a_visit(START)
    old = list(visit.pending)
    later = START + timedelta(days=5)
    visits.book(POLICY, visit, rescheduled(later, START), Facts(), NOW + timedelta(days=1))
    assert isinstance(visit.recorded()[0], DeliveriesWithdrawn)
    assert [(event.delivery_ids, event.reason) for event in withdrawals(visit)] == [(tuple(old), "moved")]
    assert not set(visit.pending) & set(old)
    assert (visit.start, visit.occurrence) == (later, 2)


@pytest.mark.parametrize("by", list(CancelledBy))
def test_a_cancelled_visit_withdraws_everything_and_tells_a_patient_who_did_not_call_it_off(by: CancelledBy) -> None:
    visit = a_visit(START)
    old = tuple(visit.pending)
    visits.cancel(visit, cancelled(by), Facts(), NOW)
    assert [(event.delivery_ids, event.reason) for event in withdrawals(visit)] == [(old, "cancelled")]
    kinds = [plan.kind for plan in plans(visit)]
    assert kinds == ([] if by is CancelledBy.PATIENT else [DeliveryKind.CANCELLATION])
    assert visit.state is Standing.CANCELLED


def test_a_visit_cancelled_when_it_is_over_or_begun_is_not_announced() -> None:
    over = visits.cancel(a_visit(START), cancelled(CancelledBy.PROVIDER), Facts(), START + timedelta(hours=1))
    assert plans(over) == []
    begun = a_visit(START)
    arrived = AppointmentArrived(appointment_id=APPOINTMENT, patient_id=PATIENT, arrived_at=START)
    visits.attend(begun, arrived, Facts(), START - timedelta(minutes=5))
    visits.cancel(begun, cancelled(CancelledBy.PROVIDER), Facts(), START - timedelta(minutes=1))
    assert plans(begun) == []


@pytest.mark.parametrize("missed", [True, False])
def test_a_visit_that_was_missed_or_attended_wants_nothing_more(missed: bool) -> None:
    visit = a_visit(START)
    if missed:
        visits.miss(visit, AppointmentNoShow(appointment_id=APPOINTMENT, patient_id=PATIENT), Facts(), START)
    else:
        visits.attend(visit, AppointmentFulfilled(appointment_id=APPOINTMENT, patient_id=PATIENT), Facts(), START)
    assert [event.reason for event in withdrawals(visit)] == ["cancelled" if missed else "past-usefulness"]
    assert visit.pending == []
    assert visit.ended


def test_a_visit_told_of_first_by_its_move_is_planned_too() -> None:
    start: datetime = START
    visit = visits.book(POLICY, None, rescheduled(start, NOW), Facts(), NOW)
    assert visit.occurrence == 2
    assert len(plans(visit)) == 4
