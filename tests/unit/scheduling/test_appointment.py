"""An appointment asks, waits, wins, moves, and gives back; told as the stories of patients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.scheduling.model import appointment as visit
from services.scheduling.model import calendar as days
from services.scheduling.model.appointment import (
    Appointment,
    AppointmentState,
    CancelAppointment,
    ChangeUnderWay,
    ConfirmAttendance,
    EnterInError,
    MoveAppointment,
    ProposeAppointment,
    RecordArrival,
    RecordFulfilment,
    RecordNoShow,
    TooEarly,
)
from services.scheduling.model.calendar import Calendar, ConfirmHold, HoldExpired, HoldSlot, SlotLost, SlotStatus
from services.scheduling.model.person import Person, PersonState
from services.scheduling.reactions import APPOINTMENTS
from shared.contracts.directory import HandOffAccepted, HandOffClosed, HandOffOutcome
from shared.contracts.intake import Barrier, BarrierRecorded
from shared.contracts.notifications import ReplyIntent, ReplyReceived
from shared.contracts.referrals import Priority, ReferralCancelled, ReferralClosed, ReferralFailed, ReferralRejected
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
    SlotBooked,
    SlotGivenBack,
    SlotReleased,
    SlotRequested,
)
from shared.kit.document import derived_id
from shared.kit.errors import IllegalTransition, Invalid, NotFound
from tests.unit.scheduling.world import DOCTOR, OTHER_DOCTOR, START, World, accepted, patient, referral

S = AppointmentState
TEN = datetime(2026, 3, 3, 16, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HALF_HOUR = timedelta(minutes=30)


def booked_world(*starts: datetime) -> World:
    """A world in which patient 1 is booked into the first of these slots."""
    world = World()
    world.publish(*(starts or (TEN, TEN + HOUR)))
    world.hear(accepted())
    world.settle()
    assert world.visit().state is S.BOOKED
    return world


def act(world: World, command: object, decide: object, number: int = 1) -> None:
    """A person's command on a patient's first appointment."""
    wants = visit.calendar_wanted if isinstance(command, MoveAppointment) else None
    world.do(Appointment, world.visit(number).id, command, decide, wants)  # type: ignore[arg-type]


def slot_at(world: World, start: datetime, doctor: str = DOCTOR) -> MoveAppointment:
    day = world.calendar(start, doctor)
    return MoveAppointment(day.id, next(slot.slot_id for slot in day.slots if slot.start == start))


# -- from the referral to the date ------------------------------------------------------------------------------------


def test_an_accepted_referral_is_booked_into_the_earliest_free_slot() -> None:
    world = World()
    world.publish(TEN + HOUR, TEN, TEN + timedelta(days=1))
    world.hear(accepted())
    world.settle()
    (booked,) = world.events(AppointmentBooked)
    assert (booked.start, booked.end, booked.occurrence) == (TEN, TEN + HALF_HOUR, 1)
    assert (booked.referral_id, booked.patient_id, booked.resource_id) == (referral(), patient(), DOCTOR)
    assert booked.timezone == "America/Denver"
    assert len(world.events(AppointmentProposed)) == 1
    assert world.visit().waiting_for is None


def test_the_window_is_kept_on_both_sides() -> None:
    world = World()
    world.publish(TEN, TEN + timedelta(days=2), TEN + timedelta(days=9))
    world.hear(accepted(earliest=TEN + timedelta(minutes=1), latest=TEN + timedelta(days=2)))
    world.settle()
    assert world.events(AppointmentBooked)[0].start == TEN + timedelta(days=2)
    world.hear(accepted(2, earliest=TEN + timedelta(minutes=1), latest=TEN + timedelta(days=2)))
    world.settle()
    assert world.visit(2).state is S.WAITLIST


def test_a_window_over_the_turn_of_the_year_reads_both_years() -> None:
    december, january = datetime(2026, 12, 30, 16, 0, tzinfo=UTC), datetime(2027, 1, 4, 16, 0, tzinfo=UTC)
    world = World()
    world.publish(january)
    world.hear(accepted(earliest=december, latest=january))
    world.settle()
    assert world.visit().state is S.BOOKED
    assert visit.months(december, january) == ["2026-12", "2027-01"]


def test_a_long_window_looks_at_all_open_days() -> None:
    world = World()
    world.publish(TEN + timedelta(days=250))
    world.hear(accepted(latest=START + timedelta(days=300)))
    world.settle()
    assert world.visit().state is S.BOOKED


def test_a_slot_that_has_begun_is_not_taken() -> None:
    world = World()
    world.publish(TEN, TEN + HOUR)
    world.now = TEN
    world.hear(accepted())
    world.settle()
    assert world.events(AppointmentBooked)[0].start == TEN + HOUR


def test_as_many_are_booked_as_there_are_slots_and_each_asks_few_times() -> None:
    world = World()
    world.publish(*(TEN + n * HALF_HOUR for n in range(12)), TEN + timedelta(days=1))
    for number in range(20):
        world.hear(accepted(number))
    world.settle()
    starts = [booked.start for booked in world.events(AppointmentBooked)]
    assert len(starts) == len(set(starts)) == 13
    assert len(world.appointments(S.WAITLIST)) == 7
    assert len(world.events(SlotRequested)) <= 20 + 8 + 7, "a loser gets another slot of the day without asking again"


def test_acceptance_told_twice_leads_to_one_appointment() -> None:
    world = World()
    world.publish(TEN, TEN + HOUR)
    world.hear(accepted())
    world.hear(accepted())
    world.settle()
    assert len(world.appointments()) == len(world.events(AppointmentBooked)) == 1


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_without_a_free_slot_it_waits_and_says_until_when() -> None:
    world = World()
    world.hear(accepted(priority=Priority.URGENT))
    world.settle()
    (unplaced,) = world.events(AppointmentUnplaced)
    assert unplaced.deadline == START + visit.PLACE_WITHIN[Priority.URGENT]
    assert world.visit().state is S.WAITLIST
    assert world.visit().wait is not None
    assert world.visit().wait.owner == "scheduler"  # type: ignore[union-attr]


def test_the_wait_never_outlasts_the_window() -> None:
    world = World()
    world.hear(accepted(latest=START + HOUR))
    world.settle()
    assert world.events(AppointmentUnplaced)[0].deadline == START + HOUR


def test_a_wait_escalates_exactly_once_and_still_ends_when_a_slot_appears() -> None:
    world = World()
    world.hear(accepted())
    world.pass_time(START + timedelta(days=30))
    (escalated,) = world.events(AppointmentEscalated)
    assert (escalated.state, escalated.owner) == ("waitlist", "scheduler")
    assert escalated.deadline == START + visit.PLACE_WITHIN[Priority.ROUTINE]
    start = world.now + timedelta(days=1)
    world.publish(start.replace(hour=16))
    world.pass_time(world.now + timedelta(minutes=5))
    assert world.visit().state is S.BOOKED
    assert len(world.events(AppointmentEscalated)) == 1


def test_a_slot_given_back_goes_to_who_waits() -> None:
    world = booked_world(TEN)
    world.hear(accepted(2))
    world.settle()
    assert world.visit(2).state is S.WAITLIST
    act(world, CancelAppointment(CancelledBy.PROVIDER, "ill"), visit.cancel)
    world.pass_time(START + timedelta(minutes=5))
    assert world.visit(2).state is S.BOOKED
    assert world.visit(2).place is not None


def test_of_those_who_wait_the_more_urgent_and_then_the_longer_waiting_goes_first() -> None:
    world = World()
    for number, priority in ((1, Priority.ROUTINE), (2, Priority.ROUTINE), (3, Priority.ASAP), (4, Priority.STAT)):
        world.hear(accepted(number, priority=priority))
        world.pass_time(world.now + timedelta(days=1))
    for place, expected in enumerate((4, 3, 1, 2)):
        world.publish(world.now.replace(hour=16) + timedelta(days=1 + place))
        world.pass_time(world.now + timedelta(minutes=5))
        assert world.visit(expected).state is S.BOOKED
        assert len(world.appointments(S.BOOKED)) == place + 1


def test_slots_outside_the_window_or_of_another_resource_wake_nobody() -> None:
    world = World()
    world.hear(accepted(latest=TEN))
    world.settle()
    asked = len(world.events(SlotRequested))
    world.publish(TEN + HOUR)
    world.publish(TEN, doctor=OTHER_DOCTOR)
    world.settle()
    assert "look" not in world.visit().timers
    assert len(world.events(SlotRequested)) == asked


def test_a_slot_published_between_looking_and_waiting_is_not_missed() -> None:
    """The calendar's news comes before the appointment has looked at all, and is not repeated."""
    world = World()
    world.hear(accepted())
    world.publish(TEN)
    calendar = world.calendar(TEN)
    world.deliver(APPOINTMENTS, calendar.id)
    world.settle()
    world.pass_time(START + timedelta(minutes=5))
    assert world.visit().state is S.BOOKED


def test_nothing_is_read_from_a_calendar_that_owes_an_answer() -> None:
    world = World()
    world.publish(TEN)
    world.hear(accepted())
    world.deliver(APPOINTMENTS, world.visit().id)
    assert world.visit().asked is not None
    event = world.events(AppointmentProposed)[0]
    assert list(visit.slots_wanted(event, world.visit())) == []


# -- the chosen slot --------------------------------------------------------------------------------------------------


def propose(world: World, number: int, start: datetime | None, *, flexible: bool = False) -> str:
    id = derived_id("test", "asked for", str(number))
    move = None if start is None else slot_at(world, start)
    command = ProposeAppointment(
        appointment_id=id,
        patient_id=patient(number),
        resource_id=DOCTOR,
        earliest=START,
        calendar_id=move and move.calendar_id,
        slot_id=move and move.slot_id,
        flexible=flexible,
    )
    world.do(Appointment, id, command, visit.propose, visit.calendar_wanted)
    return id


def test_a_chosen_slot_is_taken_and_no_other() -> None:
    world = World()
    world.publish(TEN, TEN + HOUR, TEN + 2 * HOUR)
    first, second = propose(world, 1, TEN + HOUR), propose(world, 2, TEN + HOUR)
    third = propose(world, 3, TEN + HOUR, flexible=True)
    world.settle()
    assert world.appointment(first).place.start == TEN + HOUR  # type: ignore[union-attr]
    loser = world.appointment(second)
    assert (loser.state, loser.place, loser.waiting_for) == (S.WAITLIST, None, None)
    assert loser.refused is not None
    assert loser.wait is not None
    assert loser.wait.reason == "chosen-slot-lost"
    assert world.appointment(third).place.start == TEN  # type: ignore[union-attr]


def test_who_lost_the_chosen_slot_may_choose_again() -> None:
    world = World()
    world.publish(TEN, TEN + HOUR)
    propose(world, 1, TEN)
    loser = propose(world, 2, TEN)
    world.settle()
    world.do(Appointment, loser, slot_at(world, TEN + HOUR), visit.move_to, visit.calendar_wanted)
    world.settle()
    assert world.appointment(loser).state is S.BOOKED
    assert world.appointment(loser).occurrence == 1


def test_a_slot_plainly_taken_or_unknown_is_refused_at_once() -> None:
    world = booked_world(TEN)
    with pytest.raises(SlotLost):
        propose(world, 2, TEN)
    command = ProposeAppointment("x", patient(2), DOCTOR, START, calendar_id="no such calendar", slot_id="no such slot")
    with pytest.raises(NotFound):
        world.do(Appointment, "x", command, visit.propose, visit.calendar_wanted)


def test_a_window_without_time_is_refused() -> None:
    for latest in (START - HOUR, START + HOUR):
        command = ProposeAppointment("x", patient(), DOCTOR, earliest=START + 2 * HOUR, latest=latest)
        with pytest.raises(Invalid):
            World().do(Appointment, "x", command, visit.propose, visit.calendar_wanted)


# -- hold and confirm -------------------------------------------------------------------------------------------------


def hold(world: World, number: int, start: datetime, *, of: str | None = None) -> str:
    id = derived_id("test", "held", str(number))
    move = slot_at(world, start)
    world.do(Calendar, move.calendar_id, HoldSlot(move.slot_id, id, patient(number), of), days.hold)
    return id


def confirm(world: World, id: str, start: datetime) -> None:
    world.do(Calendar, world.calendar(start).id, ConfirmHold(id), days.confirm)


def test_a_held_slot_is_a_pending_appointment_and_booked_when_confirmed() -> None:
    world = World()
    world.publish(TEN)
    id = hold(world, 1, TEN)
    world.settle()
    assert world.appointment(id).state is S.PENDING
    assert world.appointment(id).held_until == START + days.HOLD_FOR
    assert world.events(AppointmentBooked) == []
    confirm(world, id, TEN)
    world.settle()
    (booked,) = world.events(AppointmentBooked)
    assert (booked.appointment_id, booked.start, booked.timezone) == (id, TEN, "America/Denver")
    assert world.appointment(id).held_until is None


def test_a_hold_may_be_confirmed_before_its_appointment_is_stored() -> None:
    world = World()
    world.publish(TEN)
    id = hold(world, 1, TEN)
    confirm(world, id, TEN)
    world.settle()
    assert world.appointment(id).state is S.BOOKED


def test_a_hold_that_ends_cancels_its_appointment_and_frees_the_slot_for_who_waits() -> None:
    world = World()
    world.publish(TEN)
    id = hold(world, 1, TEN)
    world.hear(accepted(2))
    world.pass_time(START + timedelta(minutes=9))
    assert world.visit(2).state is S.WAITLIST
    world.pass_time(START + timedelta(minutes=15))
    assert world.appointment(id).state is S.CANCELLED
    assert world.appointment(id).end_reason == "hold-expired"
    assert world.visit(2).state is S.BOOKED
    assert not [event for event in world.events(AppointmentCancelled) if event.appointment_id == id]
    with pytest.raises(HoldExpired):
        confirm(world, id, TEN)


def test_cancelling_a_hold_frees_its_slot() -> None:
    world = World()
    world.publish(TEN)
    id = hold(world, 1, TEN)
    world.settle()
    world.do(Appointment, id, CancelAppointment(CancelledBy.COORDINATOR, "changed-mind"), visit.cancel)
    world.settle()
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE
    assert world.events(AppointmentCancelled) == [], "nobody was told of it, so nobody is told of its end"


def test_a_confirmation_that_crosses_a_cancellation_leaves_the_slot_free() -> None:
    world = World()
    world.publish(TEN)
    id = hold(world, 1, TEN)
    world.settle()
    world.do(Appointment, id, CancelAppointment(CancelledBy.COORDINATOR, "changed-mind"), visit.cancel)
    confirm(world, id, TEN)
    world.settle()
    assert world.appointment(id).state is S.CANCELLED
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE


# -- moving -----------------------------------------------------------------------------------------------------------


def test_moving_wins_the_new_slot_first_and_then_gives_the_old_one_back() -> None:
    world = booked_world(TEN, TEN + timedelta(days=1))
    act(world, ConfirmAttendance(), visit.attendance_confirmed)
    act(world, slot_at(world, TEN + timedelta(days=1)), visit.move_to)
    assert world.visit().place.start == TEN, "the old date stands until the new one is won"  # type: ignore[union-attr]
    world.settle()
    (moved,) = world.events(AppointmentRescheduled)
    assert (moved.previous_start, moved.start, moved.occurrence) == (TEN, TEN + timedelta(days=1), 2)
    assert world.visit().confirmed_at is None, "the new date is not confirmed"
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE
    assert world.visit().state is S.BOOKED


def test_moving_within_one_day_keeps_both_slots_until_it_is_done() -> None:
    world = booked_world(TEN, TEN + HOUR)
    act(world, slot_at(world, TEN + HOUR), visit.move_to)
    world.settle()
    assert [slot.status for slot in world.calendar(TEN).slots] == [SlotStatus.FREE, SlotStatus.BUSY]


def test_moving_to_another_resource_takes_the_visit_there() -> None:
    world = booked_world(TEN)
    world.publish(TEN, doctor=OTHER_DOCTOR, zone="America/Chicago")
    act(world, slot_at(world, TEN, OTHER_DOCTOR), visit.move_to)
    world.settle()
    (moved,) = world.events(AppointmentRescheduled)
    assert (moved.resource_id, moved.timezone) == (OTHER_DOCTOR, "America/Chicago")


def test_a_move_that_loses_leaves_the_old_date_and_says_so() -> None:
    world = booked_world(TEN, TEN + HOUR)
    act(world, slot_at(world, TEN + HOUR), visit.move_to)
    hold(world, 2, TEN + HOUR)
    world.settle()
    appointment = world.visit()
    assert appointment.state is S.BOOKED
    assert appointment.place is not None
    assert appointment.place.start == TEN
    assert appointment.asked is None
    assert appointment.refused is not None
    assert appointment.refused.reason == "taken"
    assert world.events(AppointmentRescheduled) == []
    assert world.calendar(TEN).slots[0].holder == appointment.id


def test_a_second_move_waits_for_the_answer_to_the_first() -> None:
    world = booked_world(TEN, TEN + HOUR, TEN + 2 * HOUR)
    act(world, slot_at(world, TEN + HOUR), visit.move_to)
    with pytest.raises(ChangeUnderWay):
        act(world, slot_at(world, TEN + 2 * HOUR), visit.move_to)


def test_moving_to_where_one_is_changes_nothing() -> None:
    world = booked_world(TEN)
    act(world, slot_at(world, TEN), visit.move_to)
    assert world.undelivered() == []


def test_a_visit_cancelled_while_it_moves_keeps_neither_slot() -> None:
    world = booked_world(TEN, TEN + HOUR)
    act(world, slot_at(world, TEN + HOUR), visit.move_to)
    act(world, CancelAppointment(CancelledBy.PATIENT, "well-again"), visit.cancel)
    world.settle()
    assert {slot.status for slot in world.calendar(TEN).slots} == {SlotStatus.FREE}


def test_a_patient_who_arrives_while_the_visit_moves_keeps_the_present_slot_only() -> None:
    world = booked_world(TEN, TEN + HOUR)
    world.now = TEN - HALF_HOUR
    act(world, slot_at(world, TEN + HOUR), visit.move_to)
    act(world, RecordArrival(), visit.arrive)
    world.settle()
    assert [slot.status for slot in world.calendar(TEN).slots] == [SlotStatus.BUSY, SlotStatus.FREE]


# -- the visit --------------------------------------------------------------------------------------------------------


def test_a_visit_goes_from_booked_to_arrived_to_fulfilled() -> None:
    world = booked_world(TEN)
    world.now = TEN - timedelta(minutes=10)
    act(world, RecordArrival(), visit.arrive)
    assert world.events(AppointmentArrived)[0].arrived_at == world.now
    act(world, RecordFulfilment(), visit.fulfil)
    assert world.visit().state is S.FULFILLED
    assert (world.visit().wait, world.visit().due) == (None, None)
    assert len(world.events(AppointmentFulfilled)) == 1


def test_what_has_not_come_cannot_be_recorded() -> None:
    world = booked_world(TEN)
    for command, decide in (
        (RecordArrival(), visit.arrive),
        (RecordFulfilment(), visit.fulfil),
        (RecordNoShow(), visit.no_show),
    ):
        with pytest.raises(TooEarly):
            act(world, command, decide)
    world.now = TEN - visit.ARRIVAL_OPENS
    act(world, RecordArrival(), visit.arrive)
    assert world.visit().state is S.ARRIVED


def test_a_no_show_ends_the_appointment_and_the_referral_can_be_booked_anew() -> None:
    world = booked_world(TEN, TEN + timedelta(days=7))
    world.pass_time(TEN + HOUR)
    act(world, RecordNoShow(), visit.no_show)
    assert len(world.events(AppointmentNoShow)) == 1
    id = visit.appointment_id(referral(), 2)
    command = ProposeAppointment(id, patient(), DOCTOR, world.now, referral_id=referral())
    world.do(Appointment, id, command, visit.propose, visit.calendar_wanted)
    world.settle()
    assert world.appointment(id).state is S.BOOKED
    assert [event.occurrence for event in world.events(AppointmentBooked)] == [1, 1]


def test_a_visit_without_outcome_escalates_once() -> None:
    world = booked_world(TEN)
    world.pass_time(TEN + timedelta(days=10))
    (escalated,) = world.events(AppointmentEscalated)
    assert escalated.state == "booked"
    assert escalated.deadline == TEN + HALF_HOUR + visit.OUTCOME_WITHIN


def test_confirming_twice_is_told_once() -> None:
    world = booked_world(TEN)
    for _ in range(2):
        act(world, ConfirmAttendance(), visit.attendance_confirmed)
    assert len(world.events(AppointmentConfirmed)) == 1


def test_a_booking_in_error_is_cancelled_to_everybody_else() -> None:
    world = booked_world(TEN)
    act(world, EnterInError(), visit.enter_in_error)
    world.settle()
    assert world.visit().state is S.ENTERED_IN_ERROR
    assert world.events(AppointmentCancelled)[0].reason == "entered-in-error"
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE


# -- replies and referrals --------------------------------------------------------------------------------------------


def reply(world: World, intent: ReplyIntent, *, by: int = 1) -> ReplyReceived:
    return ReplyReceived(patient_id=patient(by), appointment_id=world.visit().id, intent=intent)


def test_a_patient_who_replies_cancel_loses_the_date_and_the_slot_is_free() -> None:
    world = booked_world(TEN)
    world.hear(reply(world, ReplyIntent.CANCEL))
    world.settle()
    (cancelled,) = world.events(AppointmentCancelled)
    assert cancelled.by is CancelledBy.PATIENT
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE
    world.hear(reply(world, ReplyIntent.CANCEL))
    assert len(world.events(AppointmentCancelled)) == 1


def test_a_patient_who_replies_confirm_has_confirmed() -> None:
    world = booked_world(TEN)
    world.hear(reply(world, ReplyIntent.CONFIRM))
    assert world.visit().confirmed_at == START


@pytest.mark.parametrize("intent", [ReplyIntent.STOP, ReplyIntent.HELP, ReplyIntent.OTHER])
def test_other_replies_change_no_appointment(intent: ReplyIntent) -> None:
    world = booked_world(TEN)
    world.hear(reply(world, intent))
    assert world.undelivered() == []
    assert world.visit().state is S.BOOKED


def test_a_reply_of_somebody_else_or_after_the_start_or_to_no_appointment_changes_nothing() -> None:
    world = booked_world(TEN)
    world.hear(reply(world, ReplyIntent.CANCEL, by=2))
    world.hear(ReplyReceived(patient_id=patient(), intent=ReplyIntent.CANCEL))
    world.now = TEN
    world.hear(reply(world, ReplyIntent.CANCEL))
    assert world.visit().state is S.BOOKED


def cancelled(number: int = 1) -> ReferralCancelled:
    return ReferralCancelled(referral_id=referral(number), patient_id=patient(number), reason="patient-request")


ENDINGS = {
    "referral-cancelled": cancelled(),
    "referral-closed": ReferralClosed(referral_id=referral(), patient_id=patient(), report_id=referral(9)),
    "referral-failed": ReferralFailed(referral_id=referral(), patient_id=patient(), reason="authorization-denied"),
    "referral-rejected": ReferralRejected(
        referral_id=referral(), patient_id=patient(), specialist_id=DOCTOR, reason="full"
    ),
}


@pytest.mark.parametrize("reason", ENDINGS)
def test_a_referral_that_ends_takes_its_appointment_with_it(reason: str) -> None:
    world = booked_world(TEN)
    world.hear(ENDINGS[reason])
    world.settle()
    (told,) = world.events(AppointmentCancelled)
    assert (told.by, told.reason) == (CancelledBy.REFERRAL, reason)
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE


def test_a_visit_that_has_begun_when_its_referral_ends_waits_for_its_outcome() -> None:
    world = booked_world(TEN)
    world.now = TEN + timedelta(minutes=1)
    world.hear(ENDINGS["referral-closed"])
    world.settle()
    assert world.visit().state is S.BOOKED
    act(world, RecordFulfilment(), visit.fulfil)
    assert world.visit().state is S.FULFILLED


def test_what_was_held_for_a_referral_that_nobody_accepted_ends_with_it() -> None:
    world = World()
    world.publish(TEN)
    held = hold(world, 1, TEN, of=referral())
    confirm(world, held, TEN)
    world.settle()
    assert world.appointment(held).state is S.BOOKED
    world.hear(cancelled())
    world.settle()
    assert world.appointment(held).state is S.CANCELLED


def test_a_referral_accepted_and_cancelled_at_once_leaves_nothing_booked() -> None:
    world = World()
    world.publish(TEN)
    world.settle()
    world.hear(accepted())
    world.hear(cancelled())
    world.settle()
    assert world.visit().state is S.CANCELLED
    assert world.calendar(TEN).slots[0].status is SlotStatus.FREE


def test_a_cancelled_referral_takes_later_appointments_and_holds_with_it() -> None:
    world = booked_world(TEN, TEN + timedelta(days=7))
    world.pass_time(TEN + HOUR)
    act(world, RecordNoShow(), visit.no_show)
    held = hold(world, 1, TEN + timedelta(days=7), of=referral())
    world.settle()
    world.hear(cancelled())
    world.settle()
    assert world.appointment(held).state is S.CANCELLED
    assert world.visit().state is S.NOSHOW


def test_what_is_confirmed_after_its_referral_was_cancelled_is_given_back() -> None:
    world = booked_world(TEN, TEN + timedelta(days=7))
    world.pass_time(TEN + HOUR)
    act(world, RecordNoShow(), visit.no_show)
    world.settle()
    world.hear(cancelled())
    world.settle()
    held = hold(world, 1, TEN + timedelta(days=7), of=referral())
    confirm(world, held, TEN + timedelta(days=7))
    world.settle()
    assert world.appointment(held).state is S.CANCELLED
    assert world.calendar(TEN + timedelta(days=7)).slots[0].status is SlotStatus.FREE


def test_a_visit_proposed_after_its_referral_was_cancelled_ends_by_itself() -> None:
    world = booked_world(TEN, TEN + timedelta(days=7))
    world.hear(cancelled())
    world.settle()
    id = visit.appointment_id(referral(), 2)
    command = ProposeAppointment(id, patient(), DOCTOR, world.now, referral_id=referral())
    world.do(Appointment, id, command, visit.propose, visit.calendar_wanted)
    world.settle()
    assert world.appointment(id).state is S.CANCELLED


def test_a_patient_who_has_arrived_is_seen_though_the_referral_is_cancelled() -> None:
    world = booked_world(TEN)
    world.now = TEN
    act(world, RecordArrival(), visit.arrive)
    world.hear(cancelled())
    world.settle()
    assert world.visit().state is S.ARRIVED


# -- every state and every command ------------------------------------------------------------------------------------


def in_state(state: AppointmentState) -> World:
    """A world in which patient 1's first appointment is in this state, late enough for any outcome."""
    if state is S.PENDING:
        world = World()
        world.publish(TEN)
        id = visit.appointment_id(referral())
        move = slot_at(world, TEN)
        world.do(Calendar, move.calendar_id, HoldSlot(move.slot_id, id, patient(), referral()), days.hold)
        world.settle()
        return world
    if state in (S.PROPOSED, S.WAITLIST):
        world = World()
        world.hear(accepted())
        if state is S.WAITLIST:
            world.settle()
        return world
    world = booked_world(TEN)
    world.now = TEN
    if state is S.ARRIVED:
        act(world, RecordArrival(), visit.arrive)
    if state is S.FULFILLED:
        act(world, RecordFulfilment(), visit.fulfil)
    if state is S.NOSHOW:
        act(world, RecordNoShow(), visit.no_show)
    if state is S.CANCELLED:
        act(world, CancelAppointment(CancelledBy.PROVIDER, "ill"), visit.cancel)
    if state is S.ENTERED_IN_ERROR:
        act(world, EnterInError(), visit.enter_in_error)
    world.settle()
    return world


COMMANDS = {
    "arrive": (RecordArrival(), visit.arrive, {S.BOOKED: S.ARRIVED}),
    "fulfil": (RecordFulfilment(), visit.fulfil, {S.BOOKED: S.FULFILLED, S.ARRIVED: S.FULFILLED}),
    "no-show": (RecordNoShow(), visit.no_show, {S.BOOKED: S.NOSHOW}),
    "confirm": (ConfirmAttendance(), visit.attendance_confirmed, {S.BOOKED: S.BOOKED}),
    "enter-in-error": (
        EnterInError(),
        visit.enter_in_error,
        {S.BOOKED: S.ENTERED_IN_ERROR, S.ARRIVED: S.ENTERED_IN_ERROR},
    ),
    "cancel": (
        CancelAppointment(CancelledBy.COORDINATOR, "unspecified"),
        visit.cancel,
        dict.fromkeys((S.PROPOSED, S.PENDING, S.WAITLIST, S.BOOKED, S.ARRIVED), S.CANCELLED),
    ),
}


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_state_allows_its_commands_and_refuses_the_others_by_name(state: AppointmentState, name: str) -> None:
    command, decide, allowed = COMMANDS[name]
    world = in_state(state)
    assert world.visit().state is state
    if state in allowed:
        act(world, command, decide)
        assert world.visit().state is allowed[state]
        return
    before = world.visit().model_dump()
    with pytest.raises(IllegalTransition):
        act(world, command, decide)
    assert world.visit().model_dump() == before


@pytest.mark.parametrize("state", [S.PENDING, S.ARRIVED, S.FULFILLED, S.CANCELLED, S.NOSHOW, S.ENTERED_IN_ERROR])
def test_only_what_is_booked_or_waits_can_be_moved(state: AppointmentState) -> None:
    world = in_state(state)
    with pytest.raises(IllegalTransition):
        act(world, MoveAppointment("any", "any"), visit.move_to)


@pytest.mark.parametrize("state", [state for state in S if state is not S.PENDING])
def test_a_slot_won_too_late_is_given_back_in_every_state(state: AppointmentState) -> None:
    world = in_state(state)
    before = world.visit().state
    event = SlotBooked(
        calendar_id="some calendar", slot_id="some slot", appointment_id=world.visit().id, start=TEN, end=TEN + HOUR
    )
    world.hear(event)
    back = [event for event in world.events(SlotGivenBack) if event.slot_id == "some slot"]
    assert len(back) == 1
    assert world.visit().state is before


@pytest.mark.parametrize("state", list(S))
def test_a_hold_that_ended_concerns_only_the_pending(state: AppointmentState) -> None:
    world = in_state(state)
    slot = world.visit().place
    event = SlotReleased(
        calendar_id="any",
        slot_id=slot.slot_id if slot is not None else "any",
        appointment_id=world.visit().id,
        reason="hold-expired",
    )
    world.hear(event)
    assert world.visit().state is (S.CANCELLED if state is S.PENDING else state)


def test_every_state_stands_in_the_table_and_terminal_ones_lead_nowhere() -> None:
    assert set(Appointment.transitions) == set(S)
    assert {state for state, ways in Appointment.transitions.items() if not ways} == Appointment.terminal


# -- what the patient needs -------------------------------------------------------------------------------------------


def test_a_visit_is_not_ready_until_interpreter_and_ride_are_promised() -> None:
    world = World()
    for barrier in (Barrier.INTERPRETER, Barrier.TRANSPORTATION, Barrier.PRESCRIPTION_ASSISTANCE):
        world.hear(BarrierRecorded(patient_id=patient(), barrier=barrier, language="es"))
    person = world.get(Person, patient())
    assert isinstance(person, Person)
    assert person.missing() == ("interpreter", "transportation")
    for barrier in (Barrier.INTERPRETER, Barrier.TRANSPORTATION):
        world.hear(HandOffAccepted(handoff_id="h", patient_id=patient(), barrier=barrier, service_id="s"))
    assert world.get(Person, patient()).state is PersonState.READY  # type: ignore[union-attr]


def test_a_promise_that_overtakes_its_need_stands_and_one_that_fails_is_a_need_again() -> None:
    world = World()
    ride = Barrier.TRANSPORTATION
    world.hear(HandOffAccepted(handoff_id="h", patient_id=patient(), barrier=ride, service_id="s"))
    world.hear(BarrierRecorded(patient_id=patient(), barrier=ride))
    assert world.get(Person, patient()).state is PersonState.READY  # type: ignore[union-attr]
    world.hear(HandOffClosed(handoff_id="h", patient_id=patient(), barrier=ride, outcome=HandOffOutcome.NO_SERVICE))
    assert world.get(Person, patient()).state is PersonState.NOT_READY  # type: ignore[union-attr]


@pytest.mark.parametrize("outcome", [HandOffOutcome.HELPED, HandOffOutcome.DECLINED_BY_PATIENT])
def test_help_given_or_not_wanted_is_missed_no_more(outcome: HandOffOutcome) -> None:
    world = World()
    world.hear(BarrierRecorded(patient_id=patient(), barrier=Barrier.INTERPRETER))
    world.hear(HandOffClosed(handoff_id="h", patient_id=patient(), barrier=Barrier.INTERPRETER, outcome=outcome))
    assert world.get(Person, patient()).state is PersonState.READY  # type: ignore[union-attr]


def test_help_with_prescriptions_is_nothing_a_visit_waits_for() -> None:
    world = World()
    barrier = Barrier.PRESCRIPTION_ASSISTANCE
    world.hear(BarrierRecorded(patient_id=patient(), barrier=barrier))
    world.hear(HandOffAccepted(handoff_id="h", patient_id=patient(), barrier=barrier, service_id="s"))
    assert world.get(Person, patient()) is None
