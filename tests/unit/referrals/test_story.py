"""Referrals' ways through the world, told message by message."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import permutations

import pytest

from services.referrals import model
from services.referrals.model import OrderStatus, Referral, State
from services.referrals.reactions import REFERRALS
from shared.contracts.base import Coding, Event
from shared.contracts.intake import CoverageStatus
from shared.contracts.referrals import (
    AlternativeWanted,
    AuthorizationRequested,
    Priority,
    ReferralAccepted,
    ReferralAttended,
    ReferralCancelled,
    ReferralClosed,
    ReferralFailed,
    ReferralPacketCompleted,
    ReferralRejected,
    ReferralRequested,
    ReferralScheduled,
    ReferralSent,
    ReferralUnscheduled,
    SpecialistAvailable,
)
from shared.kit.decisions import NO_FACTS
from shared.kit.document import derived_id
from shared.kit.errors import Conflict, IllegalTransition
from tests.unit.referrals import cases
from tests.unit.referrals.cases import NOW, Registration, recorded, tell

PUBLIC = "referrals.events"


def said(referral: Referral) -> list[str]:
    """The types of the public events, in order."""
    return [event.type for event in referral.recorded() if event.topic == PUBLIC]


def test_a_referral_that_nothing_holds_up_tells_the_whole_story() -> None:
    referral = model.close(cases.in_state(State.AWAITING_REPORT), cases.report(), NO_FACTS, NOW)
    assert said(referral) == [
        "referral.requested.v1",
        "referral.packet-completed.v1",
        "referral.authorization-requested.v1",
        "referral.sent.v1",
        "referral.accepted.v1",
        "referral.scheduled.v1",
        "referral.attended.v1",
        "referral.closed.v1",
    ]
    assert [step.state for step in referral.history if step.what == "moved"] == [
        *model.PATH[2:],
        State.CLOSED,
    ]


def test_an_unknown_patient_and_then_an_incomplete_registration_are_waited_for_by_name() -> None:
    referral = cases.requested()
    tell(referral)
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.PATIENT_UNKNOWN
    missing = ("Patient.telecom", "Patient.address")
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(Registration.INCOMPLETE, missing=missing)])
    assert referral.wait.reason == model.Reason.REGISTRATION_INCOMPLETE
    assert [one.what for one in model.missing(referral)] == list(missing)
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.state is State.AWAITING_AUTHORIZATION


def test_a_person_known_before_the_request_is_found_by_asking_after_writing() -> None:
    referral = tell(cases.requested(), stored=[cases.known()])
    assert referral.state is State.AWAITING_AUTHORIZATION


def test_the_authorization_is_asked_for_once_with_what_the_payer_must_know() -> None:
    diagnosis = Coding(system="http://hl7.org/fhir/sid/icd-10-cm", code="L40.0")
    referral = cases.authorizing(priority=Priority.URGENT, diagnoses=(diagnosis,), quantity=3)
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known()])
    (asked,) = recorded(referral, AuthorizationRequested)
    assert isinstance(asked, AuthorizationRequested)
    assert asked == AuthorizationRequested(
        referral_id=cases.REFERRAL,
        patient_id=cases.PATIENT,
        coverage_id=cases.COVERAGE,
        payer_id=cases.PAYER,
        service=cases.order().service,
        diagnoses=(diagnosis,),
        quantity=3,
        expedited=True,
    )


def test_a_denial_that_can_be_appealed_keeps_waiting_and_an_approval_of_the_appeal_goes_on() -> None:
    referral = tell(cases.authorizing(), cases.SUBMITTED, cases.PENDED, cases.DENIED)
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.AUTHORIZATION_DENIED
    tell(referral, cases.APPEALED)
    assert referral.wait.reason == model.Reason.APPEAL_UNDECIDED
    tell(referral, cases.approved(date(2026, 3, 1), date(2026, 6, 1)), stored=[cases.specialist()])
    assert referral.state is State.AWAITING_ACCEPTANCE
    (sent,) = recorded(referral, ReferralSent)
    assert isinstance(sent, ReferralSent)
    assert sent.authorization_number == "AUTH-1"
    assert referral.authorization is not None
    assert (referral.authorization.units_granted, referral.authorization.valid_to) == (1, date(2026, 6, 1))


def test_a_final_denial_fails_the_referral_and_says_so() -> None:
    referral = tell(cases.authorizing(), cases.REFUSED)
    assert recorded(referral, ReferralFailed) == [
        ReferralFailed(
            referral_id=cases.REFERRAL,
            patient_id=cases.PATIENT,
            reason="authorization-denied",
            authorization_id=cases.AUTHORIZATION,
        )
    ]


@pytest.mark.parametrize(
    "state",
    [
        State.AWAITING_AUTHORIZATION,
        State.AWAITING_SPECIALIST,
        State.AWAITING_ACCEPTANCE,
        State.AWAITING_APPOINTMENT,
        State.AWAITING_VISIT,
    ],
    ids=str,
)
def test_a_lapse_stops_every_stage_before_the_visit_and_verifying_again_resumes_where_it_was(state: State) -> None:
    referral = cases.in_state(state)
    events = len(referral.recorded())
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    assert referral.state is State.AWAITING_COVERAGE
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.COVERAGE_LAPSED
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.state is state
    told_again = [event for event in referral.recorded()[events:] if event.topic == PUBLIC]
    assert told_again == [], "what was asked for before the lapse is not asked for again"


def test_a_payer_who_cannot_be_reached_undoes_nothing() -> None:
    referral = cases.scheduled()
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.UNVERIFIABLE)])
    assert referral.state is State.AWAITING_VISIT


def test_a_decision_made_during_a_lapse_is_kept_for_afterwards() -> None:
    lapsed = [cases.known(status=CoverageStatus.LAPSED)]
    referral = tell(cases.authorizing(), cases.PERSON_KNOWN, stored=lapsed)
    tell(referral, cases.approved())
    assert referral.state is State.AWAITING_COVERAGE
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(), cases.specialist()])
    assert referral.state is State.AWAITING_ACCEPTANCE


def test_a_refusal_during_a_lapse_fails_the_referral_when_coverage_is_back() -> None:
    referral = tell(cases.authorizing(), cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    tell(referral, cases.REFUSED)
    assert referral.state is State.AWAITING_COVERAGE
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.state is State.FAILED


def test_another_payers_coverage_makes_the_old_authorization_worth_nothing() -> None:
    referral = cases.sent()
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known(coverage_id=cases.uid("new coverage"))])
    assert referral.state is State.AWAITING_COVERAGE
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.COVERAGE_CHANGED


def test_the_specialist_may_answer_while_payment_is_unclear() -> None:
    lapsed = [cases.known(status=CoverageStatus.LAPSED)]
    referral = tell(cases.sent(), cases.PERSON_KNOWN, stored=lapsed)
    model.accept(referral, model.Accept(), NO_FACTS, NOW)
    assert referral.state is State.AWAITING_COVERAGE
    assert recorded(referral, ReferralAccepted) == [], "scheduling is not set going for a visit nobody pays for"
    with pytest.raises(IllegalTransition):
        model.accept(referral, model.Accept(), NO_FACTS, NOW)
    tell(referral, cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.state is State.AWAITING_APPOINTMENT
    assert len(recorded(referral, ReferralAccepted)) == 1


def test_a_specialist_may_decline_while_payment_is_unclear() -> None:
    referral = tell(cases.sent(), cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    assert model.reject(referral, model.Reject(reason="full"), NO_FACTS, NOW).state is State.REJECTED


# -- the specialist -----------------------------------------------------------------------------------------------


def test_the_specialist_who_was_asked_for_is_sent_the_referral() -> None:
    specialists = (cases.specialist(cases.FIRST), cases.specialist(cases.SECOND))
    assert cases.sent(*specialists, performer_id=cases.SECOND).specialist_id == cases.SECOND


@pytest.mark.parametrize("performer", [None, cases.uid("unheard of")])
def test_else_the_first_active_specialist_by_id_is(performer: str | None) -> None:
    specialists = (cases.specialist(cases.SECOND), cases.specialist(cases.FIRST))
    assert cases.sent(*specialists, performer_id=performer).specialist_id == cases.FIRST


def test_an_inactive_specialist_and_one_of_another_specialty_are_passed_over() -> None:
    stored = [cases.known(), cases.specialist(cases.FIRST, active=False), cases.specialist(cases.SECOND, "cardiology")]
    referral = tell(cases.authorizing(), cases.NOT_REQUIRED, stored=stored)
    assert referral.state is State.AWAITING_SPECIALIST
    assert referral.seeking == "dermatology"
    tell(referral, cases.LISTED, stored=[cases.specialist(cases.FIRST)])
    assert referral.state is State.AWAITING_ACCEPTANCE
    assert referral.seeking is None


def test_a_specialist_asked_for_by_name_may_be_of_another_specialty() -> None:
    referral = tell(cases.authorizing(performer_id=cases.SECOND), cases.NOT_REQUIRED, stored=[cases.known()])
    assert referral.seeking_performer == cases.SECOND
    news = SpecialistAvailable(specialist_id=cases.SECOND)
    tell(referral, news, stored=[cases.specialist(cases.SECOND, "immunology")])
    assert referral.specialist_id == cases.SECOND


def test_what_a_payer_approved_for_one_specialist_by_name_is_sent_to_nobody_else() -> None:
    stored = [cases.known(), cases.specialist(cases.FIRST)]
    referral = tell(cases.authorizing(performer_id=cases.SECOND), cases.approved(), stored=stored)
    assert referral.state is State.AWAITING_SPECIALIST
    tell(referral, cases.LISTED, stored=[*stored, cases.specialist(cases.SECOND)])
    assert referral.specialist_id == cases.SECOND


def test_only_whom_it_was_sent_to_may_answer() -> None:
    referral = cases.sent()
    with pytest.raises(model.NotTheirs):
        model.accept(referral, model.Accept(specialist_id=cases.SECOND), NO_FACTS, NOW)
    with pytest.raises(model.NotTheirs):
        model.reject(referral, model.Reject(reason="full", specialist_id=cases.SECOND), NO_FACTS, NOW)


def _alternative_of(rejected: Referral) -> Referral:
    (wanted,) = recorded(rejected, AlternativeWanted)
    alternative = cases.react(None, wanted)
    assert alternative is not None
    return alternative


def _rejected(*events: Event, **changes: object) -> Referral:
    referral = tell(
        cases.authorizing(**changes), *(events or (cases.NOT_REQUIRED,)), stored=[cases.known(), cases.specialist()]
    )
    return model.reject(referral, model.Reject(reason="full"), NO_FACTS, NOW)


def test_a_rejection_opens_a_linked_alternative_with_packet_and_authorization_to_the_next_specialist() -> None:
    rejected = _rejected(cases.approved(valid_to=date(2026, 6, 1)))
    alternative_id = derived_id("alternative", cases.REFERRAL)
    (told,) = recorded(rejected, ReferralRejected)
    assert isinstance(told, ReferralRejected)
    assert (told.reason, told.alternative_id, told.authorization_carried) == ("full", alternative_id, True)
    alternative = _alternative_of(rejected)
    assert (alternative.id, alternative.replaces) == (alternative_id, cases.REFERRAL)
    (requested,) = recorded(alternative, ReferralRequested)
    assert isinstance(requested, ReferralRequested)
    assert (requested.replaces, requested.authorization_id) == (cases.REFERRAL, cases.AUTHORIZATION)
    stored = [cases.known(), cases.specialist(cases.FIRST), cases.specialist(cases.SECOND)]
    tell(alternative, stored=stored)
    assert alternative.state is State.AWAITING_ACCEPTANCE
    assert alternative.specialist_id == cases.SECOND
    assert recorded(alternative, AuthorizationRequested) == [], "the payer's approval still holds"
    assert [(i.kind, i.sha256) for i in alternative.packet] == [(i.kind, i.sha256) for i in rejected.packet]


def test_an_alternative_that_is_withdrawn_names_the_authorization_that_it_was_handed() -> None:
    alternative = _alternative_of(_rejected(cases.approved(valid_to=date(2026, 6, 1))))
    model.cancel(alternative, model.Cancel(reason="patient-request"), NO_FACTS, NOW)
    (withdrawn,) = recorded(alternative, ReferralCancelled)
    assert isinstance(withdrawn, ReferralCancelled)
    assert withdrawn.authorization_id == cases.AUTHORIZATION


def test_where_all_have_declined_the_alternative_waits_for_another_specialist() -> None:
    alternative = tell(_alternative_of(_rejected()), stored=[cases.known(), cases.specialist()])
    assert alternative.state is State.AWAITING_SPECIALIST
    assert alternative.wait is not None
    assert alternative.wait.reason == model.Reason.ALTERNATIVE_SOUGHT


def test_an_authorization_for_one_specialist_by_name_is_asked_for_anew_for_the_alternative() -> None:
    rejected = _rejected(cases.approved(), performer_id=cases.FIRST)
    (told,) = recorded(rejected, ReferralRejected)
    assert isinstance(told, ReferralRejected)
    assert not told.authorization_carried, "prior_authorization may call the old one off"
    alternative = tell(_alternative_of(rejected), stored=[cases.known(), cases.specialist()])
    assert alternative.state is State.AWAITING_AUTHORIZATION
    assert len(recorded(alternative, AuthorizationRequested)) == 1


def test_an_authorization_that_ran_out_is_not_handed_to_the_alternative() -> None:
    referral = tell(
        cases.authorizing(), cases.approved(valid_to=NOW.date()), stored=[cases.known(), cases.specialist()]
    )
    rejected = model.reject(referral, model.Reject(reason="full"), NO_FACTS, NOW + timedelta(days=1))
    alternative = tell(_alternative_of(rejected), stored=[cases.known(), cases.specialist()])
    assert alternative.state is State.AWAITING_AUTHORIZATION


def test_an_authorization_that_ran_out_before_the_acceptance_stops_the_referral_there() -> None:
    referral = tell(
        cases.authorizing(), cases.approved(valid_to=NOW.date()), stored=[cases.known(), cases.specialist()]
    )
    model.accept(referral, model.Accept(), NO_FACTS, NOW + timedelta(days=1))
    assert referral.state is State.AWAITING_COVERAGE
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.AUTHORIZATION_EXPIRED


def test_the_same_rejection_heard_twice_opens_one_alternative() -> None:
    rejected = _rejected()
    alternative = _alternative_of(rejected)
    before = alternative.copy_deep()
    cases.react(alternative, recorded(rejected, AlternativeWanted)[0])
    assert alternative.model_dump() == before.model_dump()


# -- the window ---------------------------------------------------------------------------------------------------


def _window(*events: Event, **changes: object) -> ReferralAccepted:
    referral = tell(cases.authorizing(**changes), *events, stored=[cases.known(), cases.specialist()])
    model.accept(referral, model.Accept(), NO_FACTS, NOW)
    (accepted,) = recorded(referral, ReferralAccepted)
    assert isinstance(accepted, ReferralAccepted)
    return accepted


@pytest.mark.parametrize("priority", list(Priority), ids=str)
def test_priority_bounds_the_time_until_the_visit(priority: Priority) -> None:
    accepted = _window(cases.NOT_REQUIRED, priority=priority)
    assert (accepted.earliest, accepted.latest) == (NOW, NOW + model.VISIT_WITHIN[priority])


def test_the_authorizations_dates_narrow_the_window_of_the_visit() -> None:
    accepted = _window(cases.approved(date(2026, 3, 10), date(2026, 3, 20)))
    assert accepted.earliest == datetime(2026, 3, 10, tzinfo=UTC)
    assert accepted.latest == datetime(2026, 3, 20, 23, 59, 59, 999000, tzinfo=UTC)


def test_an_approval_that_begins_late_leaves_a_window_all_the_same() -> None:
    accepted = _window(cases.approved(date(2026, 4, 10)), priority=Priority.STAT)
    assert accepted.latest is not None
    assert accepted.earliest < accepted.latest


def test_a_visit_after_the_authorizations_end_stops_before_anybody_is_billed() -> None:
    referral = tell(
        cases.authorizing(), cases.approved(valid_to=date(2026, 3, 20)), stored=[cases.known(), cases.specialist()]
    )
    model.accept(referral, model.Accept(), NO_FACTS, NOW)
    tell(referral, cases.booked(start=NOW + timedelta(days=30)))
    assert referral.state is State.AWAITING_COVERAGE
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.AUTHORIZATION_EXPIRED
    tell(referral, cases.moved(NOW + timedelta(days=5)))
    assert referral.state is State.AWAITING_VISIT


# -- the visit ----------------------------------------------------------------------------------------------------


def test_a_missed_visit_is_told_and_another_date_is_waited_for() -> None:
    referral = tell(cases.scheduled(), cases.missed())
    assert referral.state is State.AWAITING_APPOINTMENT
    assert referral.wait is not None
    assert referral.wait.reason == model.Reason.NEW_DATE_AFTER_NO_SHOW
    assert recorded(referral, ReferralUnscheduled) == [
        ReferralUnscheduled(
            referral_id=cases.REFERRAL, patient_id=cases.PATIENT, appointment_id=cases.APPOINTMENT, reason="no-show"
        )
    ]
    again = cases.uid("second appointment")
    tell(referral, cases.booked(again, NOW + timedelta(days=20)), cases.fulfilled(again))
    assert referral.state is State.AWAITING_REPORT
    (attended,) = recorded(referral, ReferralAttended)
    assert isinstance(attended, ReferralAttended)
    assert attended.appointment_id == again


def test_a_moved_date_is_told_and_moves_the_deadline() -> None:
    referral = cases.scheduled()
    start = NOW + timedelta(days=40)
    tell(referral, cases.moved(start))
    assert [event.start for event in recorded(referral, ReferralScheduled) if isinstance(event, ReferralScheduled)] == [
        NOW + timedelta(days=10),
        start,
    ]
    assert referral.wait is not None
    assert referral.wait.deadline == start + timedelta(minutes=30) + timedelta(days=2)


def test_news_of_an_earlier_appointment_does_not_undo_a_later_one() -> None:
    """Appointments are documents of their own: their events come in any order between them."""
    later = cases.uid("later")
    first = [cases.booked(), cases.missed()]
    second = [cases.booked(later, NOW + timedelta(days=20))]
    for order in {tuple(order) for order in permutations([0, 0, 1])}:
        queues = [iter(first), iter(second)]
        referral = cases.accepted()
        for which in order:
            tell(referral, next(queues[which]))
        assert referral.state is State.AWAITING_VISIT
        assert referral.visit is not None
        assert referral.visit[0] == later


def test_an_appointment_of_another_referral_is_nobodys_business_here() -> None:
    news = cases.booked().model_copy(update={"referral_id": None})
    route = REFERRALS.rows[news.type].route
    assert callable(route)
    assert list(route(news)) == []
    assert list(route(cases.booked())) == [cases.REFERRAL]


def test_a_patient_who_was_seen_during_a_lapse_owes_nothing_but_the_report() -> None:
    referral = tell(cases.scheduled(), cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    tell(referral, cases.fulfilled())
    assert referral.state is State.AWAITING_REPORT


# -- the end ------------------------------------------------------------------------------------------------------


def test_a_report_before_the_news_of_the_visit_closes_the_referral() -> None:
    referral = model.close(cases.scheduled(), cases.report(), NO_FACTS, NOW)
    assert referral.attended
    assert recorded(referral, ReferralClosed) == [
        ReferralClosed(referral_id=cases.REFERRAL, patient_id=cases.PATIENT, report_id=cases.REPORT)
    ]
    tell(referral, cases.fulfilled(), cases.missed())
    assert referral.state is State.CLOSED


def test_a_withdrawal_is_told_once() -> None:
    referral = cases.in_state(State.CANCELLED)
    with pytest.raises(IllegalTransition):
        model.cancel(referral, model.Cancel(reason="again"), NO_FACTS, NOW)
    assert len(recorded(referral, ReferralCancelled)) == 1


# -- the order's own status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (OrderStatus.ACTIVE, State.AWAITING_PATIENT, model.Reason.PATIENT_UNKNOWN),
        (OrderStatus.DRAFT, State.AWAITING_ORDER, model.Reason.ORDER_DRAFT),
        (OrderStatus.ON_HOLD, State.AWAITING_ORDER, model.Reason.ORDER_ON_HOLD),
        (OrderStatus.UNKNOWN, State.AWAITING_ORDER, model.Reason.ORDER_STATUS_UNKNOWN),
        (OrderStatus.COMPLETED, State.AWAITING_REPORT, model.Reason.REPORT_OWED),
        (OrderStatus.REVOKED, State.CANCELLED, None),
        (OrderStatus.ENTERED_IN_ERROR, State.ENTERED_IN_ERROR, None),
    ],
)
def test_an_order_of_any_status_is_taken_in_and_none_is_lost(
    status: OrderStatus, state: State, reason: model.Reason | None
) -> None:
    referral = cases.requested(order_status=status)
    assert referral.state is state
    assert (referral.wait.reason if referral.wait else None) == reason
    assert len(recorded(referral, ReferralRequested)) == 1
    assert len(recorded(referral, ReferralCancelled)) == (1 if reason is None else 0)


def _put(referral: Referral, **changes: object) -> Referral:
    return model.take_order(referral, cases.order(**changes), NO_FACTS, NOW)


def test_a_held_order_put_again_as_active_goes_on_with_what_is_known_by_then() -> None:
    referral = tell(cases.in_state(State.AWAITING_ORDER), cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.state is State.AWAITING_ORDER
    assert _put(referral).state is State.AWAITING_AUTHORIZATION


def test_an_order_put_again_unchanged_changes_nothing() -> None:
    referral = cases.in_state(State.AWAITING_AUTHORIZATION)
    before = referral.copy_deep()
    _put(referral)
    assert referral.model_dump() == before.model_dump()
    assert referral.recorded() == before.recorded()


def test_an_order_put_as_revoked_or_in_error_ends_and_as_completed_awaits_the_report() -> None:
    assert _put(cases.scheduled(), order_status=OrderStatus.REVOKED).state is State.CANCELLED
    assert _put(cases.in_state(State.CANCELLED), order_status=OrderStatus.REVOKED).state is State.CANCELLED
    assert _put(cases.scheduled(), order_status=OrderStatus.ENTERED_IN_ERROR).state is State.ENTERED_IN_ERROR
    assert _put(cases.scheduled(), order_status=OrderStatus.COMPLETED).state is State.AWAITING_REPORT
    with pytest.raises(IllegalTransition):
        _put(cases.in_state(State.CLOSED), order_status=OrderStatus.REVOKED)


def test_an_order_about_something_else_is_not_an_update() -> None:
    with pytest.raises(Conflict) as refusal:
        _put(cases.in_state(State.AWAITING_PATIENT), patient_id=cases.uid("other patient"))
    assert [flaw.path for flaw in refusal.value.flaws] == ["ServiceRequest.subject"]


# -- the packet ---------------------------------------------------------------------------------------------------


def test_a_packet_is_stopped_until_each_item_of_the_specialtys_checklist_is_there() -> None:
    referral = cases.in_state(State.AWAITING_PACKET)
    assert [one.what for one in model.missing(referral)] == ["packet.medications", "packet.photo", "packet.reason"]
    for kind in ("medications", "photo"):
        model.add_to_packet(referral, model.AddToPacket(items=(cases.item(model.PacketKind(kind)),)), NO_FACTS, NOW)
        assert referral.state is State.AWAITING_PACKET
    assert recorded(referral, ReferralPacketCompleted) == []
    model.add_to_packet(referral, model.AddToPacket(items=(cases.item(model.PacketKind.REASON),)), NO_FACTS, NOW)
    assert referral.state is State.AWAITING_AUTHORIZATION
    assert len(recorded(referral, ReferralPacketCompleted)) == 1


def test_the_packets_hash_depends_on_its_items_and_not_on_their_order() -> None:
    kinds = (model.PacketKind.REASON, model.PacketKind.MEDICATIONS, model.PacketKind.PHOTO)
    hashes = {
        cases.authorizing(packet=tuple(cases.item(kind) for kind in order)).packet_hash for order in permutations(kinds)
    }
    assert len(hashes) == 1
    other = (cases.item(kinds[0], "another"), *(cases.item(kind) for kind in kinds[1:]))
    assert cases.authorizing(packet=other).packet_hash not in hashes


def test_an_item_added_to_a_complete_packet_is_told_and_the_same_item_again_is_not() -> None:
    referral = cases.authorizing()
    more = model.AddToPacket(items=(cases.item(model.PacketKind.NOTES),))
    for _ in range(2):
        model.add_to_packet(referral, more, NO_FACTS, NOW)
    assert len(referral.packet) == 4
    hashes = [
        e.packet_hash for e in recorded(referral, ReferralPacketCompleted) if isinstance(e, ReferralPacketCompleted)
    ]
    assert len(set(hashes)) == len(hashes) == 2


def test_a_packet_that_was_sent_is_sealed() -> None:
    with pytest.raises(model.PacketSealed):
        model.add_to_packet(cases.sent(), model.AddToPacket(items=(cases.item(model.PacketKind.NOTES),)), NO_FACTS, NOW)


def test_an_order_without_specialty_reason_or_performer_is_not_held_up_by_a_checklist() -> None:
    generic = {"specialty": model.GENERAL, "packet": ()}
    assert cases.authorizing(**generic).state is State.AWAITING_AUTHORIZATION


def test_a_specialty_without_a_checklist_of_its_own_wants_a_reason() -> None:
    referral = tell(cases.requested(specialty="podiatry", packet=()), cases.PERSON_KNOWN, stored=[cases.known()])
    assert referral.wanting == (model.PacketKind.REASON,)
