"""What is sent to payers and when; what follows when they refuse, fail or talk nonsense."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.prior_authorization.model import Authorization, State, calling, opening, people
from services.prior_authorization.model.answers import Answered, Rejected, Unreadable
from services.prior_authorization.model.authorization import GIVE_UP
from services.prior_authorization.model.budget import FLOOR, QUERYABLE
from services.prior_authorization.model.member import Lack, MemberState, learn
from services.prior_authorization.model.payer import HEALTHY_FOR, HearPayer, PayerState, hear, worth_noting
from shared.contracts.prior_authorization import AuthorizationEscalated, MemberKnown, MemberWanted
from shared.kit.decisions import NO_FACTS, Refused, Unanswered
from shared.kit.errors import Conflict, IllegalTransition
from tests.unit.prior_authorization.cases import (
    A1,
    A4,
    CT,
    NOW,
    OFFICE_VISIT,
    PATIENT,
    PAYER_ID,
    answer,
    answered,
    asked,
    at_state,
    due,
    events,
    facts,
    land,
    last,
    member,
    opened,
    person,
    rules,
    sent,
    shipped,
    submitting,
)

KNOWN = MemberKnown(patient_id=PATIENT)


def settle_submit(document: Authorization, outcome: calling.Outcome) -> Authorization:
    land(document, "submit")
    return calling.settle_submit(document, outcome, facts(member()), NOW)


# -- opening --------------------------------------------------------------------------------------------------------


def test_a_service_that_needs_no_approval_is_told_at_once() -> None:
    document = opened(shipped(), service=OFFICE_VISIT)
    assert document.state is State.NOT_REQUIRED
    assert events(document) == ["authorization.not-required.v1"]
    assert document.due is None


def test_an_authorization_asks_for_its_member_after_it_was_written() -> None:
    document = opened()
    assert document.state is State.AWAITING_MEMBER
    assert events(document) == ["authorization.member-wanted.v1"]
    assert document.wait is not None
    assert (document.wait.owner, document.wait.reason) == ("coordinator", "member-unknown")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"member_id": None}, Lack.NO_MEMBER_ID),
        ({"payer_id": "other"}, Lack.OTHER_PAYER),
        ({"state": MemberState.FORGOTTEN}, Lack.FORGOTTEN),
    ],
)
def test_a_member_the_payer_cannot_recognise_is_waited_for_with_the_reason(changes: dict, reason: Lack) -> None:  # type: ignore[type-arg]
    document = opening.consider_member(rules(), opened(), KNOWN, facts(member(**changes)), NOW)
    assert document.state is State.AWAITING_MEMBER
    assert document.wait is not None
    assert document.wait.reason == reason


def test_it_is_submitted_as_soon_as_the_member_is_known() -> None:
    document = opening.consider_member(rules(), opened(), KNOWN, facts(member()), NOW)
    assert document.state is State.SUBMITTING
    assert document.timers["submit"] == NOW


def test_the_members_plan_may_change_what_the_rules_say() -> None:
    book = type(rules()).parse('[[rules]]\nwhy = "gold"\nplan = "gold"\nneeded = false\n')
    document = opening.consider_member(book, opened(book), KNOWN, facts(member(plan="gold")), NOW)
    assert document.state is State.NOT_REQUIRED
    assert document.terms.why == "gold"


def test_the_same_question_again_changes_nothing() -> None:
    document = submitting()
    before = document.model_dump()
    assert opening.request(rules(), document, asked(), facts(), NOW).model_dump() == before


def test_another_question_before_anything_was_sent_is_taken() -> None:
    document = opening.request(rules(), opened(), asked(payer_id="other"), facts(), NOW)
    assert (document.payer_id, document.slot_key()) == ("other", PAYER_ID)


def test_another_question_after_a_claim_was_sent_is_for_a_person() -> None:
    document = opening.request(rules(), answered(sent(), A4), asked(payer_id="other"), facts(), NOW)
    assert document.payer_id == PAYER_ID
    assert isinstance(last(document), AuthorizationEscalated)


def test_an_erased_person_is_forgotten_and_authorizations_learn_of_it() -> None:
    known = learn(None, person(), NO_FACTS, NOW)
    forgotten = learn(known, person(erased=True), NO_FACTS, NOW)
    assert forgotten.state is MemberState.FORGOTTEN
    kept = forgotten.model_dump(include={"family", "given", "birth_date", "gender", "member_id", "coverage_id"})
    assert not any(kept.values())
    assert events(forgotten) == ["member.known.v1", "member.known.v1"]


def test_a_change_that_is_no_concern_of_payers_announces_nothing() -> None:
    known = learn(None, person(), NO_FACTS, NOW)
    learn(known, person(mobile="+15005550001"), NO_FACTS, NOW)
    assert events(known) == ["member.known.v1"]


# -- submit ---------------------------------------------------------------------------------------------------------


def test_a_claim_keeps_its_identifier_over_all_attempts() -> None:
    document = sent()
    first = document.claim_id
    document = settle_submit(document, Refused("status-429", 2))
    document = calling.prepare_submit(document, due("submit"), facts(member()), NOW)
    assert document.claim_id == first
    assert document.attempts["submit"].id != first
    assert len(document.submissions) == 1


@pytest.mark.parametrize("named", [None, 2.0, 7200.0])
def test_a_refused_submission_is_sent_again_not_before_the_payer_wants_it(named: float | None) -> None:
    document = settle_submit(sent(), Refused("status-429", named))
    assert document.state is State.SUBMITTING
    assert document.timers["submit"] >= NOW + timedelta(seconds=named or 1)


def test_a_payer_that_is_down_for_long_is_asked_for_ever_and_its_deadline_calls_a_person() -> None:
    document = sent()
    for _ in range(GIVE_UP * 3):
        document = settle_submit(document, Refused("ConnectError"))
        document = calling.prepare_submit(document, due("submit"), facts(member()), NOW)
    assert "submit" in document.attempts
    assert "authorization.escalated.v1" not in events(document)
    later = NOW + timedelta(days=2)
    for _ in range(2):
        document = people.deadline(document, due("deadline", later), facts(), later)
    assert events(document).count("authorization.escalated.v1") == 1


def test_what_the_payer_will_not_take_is_not_sent_again_without_a_person() -> None:
    document = settle_submit(sent(), Rejected("status-422-required"))
    assert "submit" not in document.timers
    assert events(document)[-1] == "authorization.escalated.v1"
    document = people.send_again(document, people.SendAgain(), facts(), NOW)
    assert document.timers["submit"] == NOW


@pytest.mark.parametrize("outcome", [Unreadable("not-json"), Unanswered("worker-lost"), Answered(None)])
def test_an_answer_that_is_none_is_asked_for_again_a_few_times(outcome: calling.Outcome) -> None:
    document = sent()
    for _ in range(GIVE_UP):
        document = settle_submit(document, outcome)
        document = calling.prepare_submit(document, due("submit"), facts(member()), NOW)
    document = settle_submit(document, outcome)
    assert document.state is State.SUBMITTING
    assert "submit" not in document.timers
    assert events(document).count("authorization.escalated.v1") == 1


def test_a_decision_notified_before_the_answer_is_in_stands_when_the_answer_comes() -> None:
    document = sent()
    calling.take(document, answer(document.claim_id, A1, NOW), calling.Source.NOTIFICATION, NOW)
    told = ["authorization.submitted.v1", "authorization.ruled.v1", "authorization.approved.v1"]
    assert events(document)[-3:] == told
    document = settle_submit(document, Answered(answer(document.claim_id, A4, NOW)))
    assert document.state is State.APPROVED


def test_a_member_lost_before_the_claim_was_opened_is_waited_for_again() -> None:
    document = calling.prepare_submit(submitting(), due("submit"), facts(), NOW)
    assert document.state is State.AWAITING_MEMBER
    assert isinstance(last(document), MemberWanted)


def test_a_cancelled_request_is_not_sent_although_it_was_intended() -> None:
    document = sent()
    assert calling.may_submit(document, facts(member()), NOW)
    assert not calling.may_submit(opening.call_off(document, "x", NOW), facts(member()), NOW)


# -- poll -----------------------------------------------------------------------------------------------------------


def poll(document: Authorization, at: object = None, *others: object) -> Authorization:
    when = at or NOW + timedelta(hours=1)
    return calling.prepare_poll(document, due("poll"), facts(member(), *others), when)  # type: ignore[arg-type]


def test_a_pended_request_is_never_polled_twice_within_a_quarter_of_an_hour() -> None:
    document = poll(answered(sent(), A4))
    assert document.polled_at == NOW + timedelta(hours=1)
    land(document, "poll")
    document = poll(document, NOW + timedelta(hours=1, minutes=5))
    assert "poll" not in document.attempts
    assert document.timers["poll"] == NOW + timedelta(hours=1) + FLOOR


def test_while_the_payer_notifies_it_is_polled_on_the_next_business_day_only() -> None:
    healthy = hear(None, HearPayer(PAYER_ID, True), NO_FACTS, NOW)
    document = poll(answered(sent(), A4), None, healthy)
    assert "poll" not in document.attempts
    assert document.timers["poll"].date() == (NOW + timedelta(days=1)).date()


@pytest.mark.parametrize(
    ("active", "age"), [(False, timedelta()), (True, HEALTHY_FOR + timedelta(hours=2))], ids=["off", "silent"]
)
def test_a_payer_that_stopped_notifying_is_polled_again(active: bool, age: timedelta) -> None:
    payer = hear(None, HearPayer(PAYER_ID, active), NO_FACTS, NOW - age)
    assert "poll" in poll(answered(sent(), A4), None, payer).attempts


def test_a_sign_of_life_is_noted_now_and_then_and_a_change_at_once() -> None:
    payer = hear(None, HearPayer(PAYER_ID, True), NO_FACTS, NOW)
    soon = NOW + timedelta(minutes=5)
    assert not worth_noting(payer, HearPayer(PAYER_ID, True), soon)
    assert worth_noting(payer, HearPayer(PAYER_ID, False), soon)
    assert hear(payer, HearPayer(PAYER_ID, False), NO_FACTS, soon).state is PayerState.SILENT


@pytest.mark.parametrize(
    "outcome", [Refused("status-503", 3600), Unanswered("ReadTimeout"), Unreadable("not-json"), Answered(None)]
)
def test_a_poll_that_brought_nothing_is_followed_by_another_within_the_budget(outcome: calling.Outcome) -> None:
    document = poll(answered(sent(), A4))
    land(document, "poll")
    document = calling.settle_poll(document, outcome, facts(member()), NOW)
    least = timedelta(seconds=3600) if isinstance(outcome, Refused) else FLOOR
    assert document.state is State.PENDED
    assert document.timers["poll"] >= NOW + least


def test_a_request_older_than_six_months_is_not_polled_but_given_to_a_person() -> None:
    document = poll(answered(sent(), A4), NOW + QUERYABLE + timedelta(days=1))
    assert "poll" not in document.attempts
    assert events(document)[-1] == "authorization.escalated.v1"


def test_a_poll_that_comes_after_the_decision_asks_for_no_other() -> None:
    document = poll(answered(sent(), A4))
    calling.take(document, answer(document.claim_id, A1, NOW), calling.Source.NOTIFICATION, NOW)
    land(document, "poll")
    document = calling.settle_poll(document, Unanswered("ReadTimeout"), facts(member()), NOW)
    assert document.due is None


# -- cancel ---------------------------------------------------------------------------------------------------------


def cancelled(outcome: calling.Outcome) -> Authorization:
    document = opening.call_off(answered(sent(), A4), "referral-cancelled", NOW)
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    land(document, "cancel")
    return calling.settle_cancel(document, outcome, facts(member()), NOW)


def test_a_payer_that_has_no_such_claim_has_nothing_to_cancel() -> None:
    assert cancelled(Rejected("not-found-at-payer")).state is State.WITHDRAWN


def test_a_cancellation_that_the_payer_will_not_take_is_for_a_person() -> None:
    document = cancelled(Rejected("status-422-business-rule"))
    assert document.state is State.CANCELLING
    assert events(document)[-1] == "authorization.escalated.v1"


def test_an_answer_that_does_not_confirm_a_cancellation_is_asked_for_again() -> None:
    document = opening.call_off(answered(sent(), A4), "referral-cancelled", NOW)
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    land(document, "cancel")
    told = Answered(answer(document.cancel_id, A1, NOW))
    document = calling.settle_cancel(document, told, facts(member()), NOW)
    assert document.state is State.CANCELLING
    assert "cancel" in document.timers


# -- people ---------------------------------------------------------------------------------------------------------


def test_a_person_may_appeal_or_accept_an_open_denial_and_nothing_else() -> None:
    assert people.appeal(at_state(State.DENIED), people.Appeal(), facts(), NOW).state is State.APPEALING
    accepted = people.accept_denial(at_state(State.DENIED), people.AcceptDenial(), facts(), NOW)
    assert accepted.state is State.DENIED_FINAL
    with pytest.raises(IllegalTransition):
        people.appeal(at_state(State.DENIED_FINAL), people.Appeal(), facts(), NOW)
    with pytest.raises(IllegalTransition):
        people.accept_denial(at_state(State.APPROVED), people.AcceptDenial(), facts(), NOW)


def test_there_is_nothing_to_send_again_when_the_payer_has_everything() -> None:
    with pytest.raises(Conflict):
        people.send_again(at_state(State.PENDED), people.SendAgain(), facts(), NOW)


def test_a_contradiction_is_settled_once() -> None:
    document = at_state(State.APPROVED)
    calling.take(document, answer(document.claim_id, CT, NOW), calling.Source.POLL, NOW)
    assert document.contradictions
    people.settle_contradiction(document, people.SettleContradiction(), facts(), NOW)
    assert document.wait is None
    with pytest.raises(Conflict):
        people.settle_contradiction(document, people.SettleContradiction(), facts(), NOW)


@pytest.mark.parametrize("state", list(State))
def test_calling_off_is_refused_by_name_where_there_is_nothing_to_call_off(state: State) -> None:
    document = at_state(state)
    if state in opening.WITHDRAWABLE:
        opening.withdraw(document, opening.Withdraw(reason="x"), facts(), NOW)
        assert document.state in (State.CANCELLING, State.WITHDRAWN)
        return
    with pytest.raises(IllegalTransition):
        opening.withdraw(document, opening.Withdraw(reason="x"), facts(), NOW)


WORDLESS = {State.APPROVED, State.NO_ACTION, State.DENIED_FINAL, State.CANCELLED, State.NOT_REQUIRED, State.WITHDRAWN}


@pytest.mark.parametrize("state", list(State))
def test_every_waiting_state_has_an_owner_a_reason_and_a_deadline_and_no_other_has(state: State) -> None:
    document = at_state(state)
    if state in WORDLESS:
        assert document.wait is None
        assert document.due is None
        return
    assert document.wait is not None
    assert document.wait.owner
    assert document.wait.reason
    assert document.wait.deadline > NOW
