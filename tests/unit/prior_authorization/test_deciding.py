"""The state is the payer's latest decision by the payer's own date, whatever order its words arrive in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.prior_authorization.model import Authorization, State, calling, opening
from services.prior_authorization.model.answers import (
    Answered,
    ErrorAnswer,
    ItemAnswer,
    PayerAnswer,
    Source,
    Unusable,
    roll_up,
    weigh,
)
from services.prior_authorization.model.authorization import Kind
from services.prior_authorization.model.deciding import Effect, take
from services.prior_authorization.model.items import Item
from shared.contracts.prior_authorization import AuthorizationApproved, AuthorizationDenied, ReviewAction
from tests.unit.prior_authorization.cases import (
    A1,
    A1_OTHER,
    A2,
    A3,
    A3_OTHER,
    A4,
    A6,
    CONSULT,
    CT,
    NA,
    NOW,
    WORDS,
    C,
    Word,
    answer,
    answered,
    due,
    events,
    facts,
    hear,
    land,
    last,
    member,
    rules,
    sent,
    submitting,
)

FINAL = rules(appeal="none")
STATE_OF = {
    ReviewAction.CERTIFIED: State.APPROVED,
    ReviewAction.PARTIAL: State.APPROVED,
    ReviewAction.MODIFIED: State.APPROVED,
    ReviewAction.NOT_CERTIFIED: State.DENIED_FINAL,
    ReviewAction.CANCELLED: State.CANCELLED,
    ReviewAction.CONTACT_PAYER: State.CONTACT_PAYER,
    ReviewAction.NO_ACTION_REQUIRED: State.NO_ACTION,
}


# -- one word -------------------------------------------------------------------------------------------------------


def test_an_approval_tells_number_dates_and_units() -> None:
    document = answered(sent(), A2)
    event = last(document)
    assert document.state is State.APPROVED
    assert isinstance(event, AuthorizationApproved)
    assert (event.action, event.number) == (ReviewAction.PARTIAL, "AUTH-3")
    assert (event.units_requested, event.units_granted) == (4, 2)
    assert (event.valid_from, event.valid_to) == (date(2026, 3, 2), date(2026, 5, 31))
    assert document.wait is None
    assert document.due is None


def test_an_approval_in_total_without_units_grants_what_was_asked() -> None:
    document = answered(sent(), Word(ReviewAction.CERTIFIED, "AUTH-1"))
    event = last(document)
    assert isinstance(event, AuthorizationApproved)
    assert event.units_granted == 4


def test_a_pend_waits_for_the_payer_until_its_clock_runs_out_and_is_polled() -> None:
    document = answered(sent(), A4)
    assert document.state is State.PENDED
    assert events(document)[-2:] == ["authorization.submitted.v1", "authorization.pended.v1"]
    assert document.wait is not None
    assert (document.wait.owner, document.wait.deadline) == ("payer", datetime(2026, 3, 10, 4, tzinfo=UTC))
    assert document.timers["poll"] > NOW


def test_contact_payer_calls_a_person_at_once_and_only_once() -> None:
    document = answered(sent(), CT)
    assert events(document)[-1] == "authorization.escalated.v1"
    assert document.wait is not None
    assert document.wait.escalated_at == NOW
    assert "deadline" not in document.timers


def test_no_action_required_is_told_as_not_required() -> None:
    document = answered(sent(), NA)
    assert document.state is State.NO_ACTION
    assert events(document)[-1] == "authorization.not-required.v1"


# -- order, repeats, contradictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [A1, A2, A3, A6, C, CT, NA])
def test_a_pend_or_a_repeat_after_a_decision_changes_nothing(word: Word) -> None:
    document = answered(sent(FINAL), word)
    before = document.model_dump(exclude={"current", "submissions", "history"})
    recorded = events(document)
    assert hear(document, A4, 5) is Effect.REPEATED
    assert hear(document, word, 0) is Effect.REPEATED
    assert hear(document, word, 7) is Effect.REPEATED
    assert document.model_dump(exclude={"current", "submissions", "history"}) == before
    assert events(document) == recorded


def test_an_older_decision_that_arrives_late_is_history_only() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A3, 10)
    recorded = events(document)
    assert hear(document, A2, 5) is Effect.SET_ASIDE
    assert document.state is State.DENIED_FINAL
    assert events(document) == [*recorded, "authorization.ruled.v1"]
    assert [ruling.action for ruling in document.history] == ["A1", "A3", "A2"]


def test_a_revised_decision_is_taken_with_its_history() -> None:
    document = answered(sent(FINAL), A1)
    assert hear(document, A1_OTHER, 10) is Effect.TAKEN
    event = last(document)
    assert isinstance(event, AuthorizationApproved)
    assert event.number == "AUTH-2"
    assert [ruling.number for ruling in document.history] == ["AUTH-1", "AUTH-2"]


def test_a_decision_said_again_later_outlives_another_dated_in_between() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A1, 20)
    assert hear(document, A3, 10) is Effect.SET_ASIDE
    assert document.state is State.APPROVED


def test_two_decisions_of_one_date_are_a_contradiction_for_a_person() -> None:
    document = answered(sent(FINAL), A1)
    assert hear(document, A3, 0) is Effect.CONTRADICTED
    assert document.state is State.APPROVED
    assert events(document)[-1] == "authorization.escalated.v1"
    recorded = events(document)
    assert hear(document, A3, 0) is Effect.REPEATED
    assert events(document) == recorded


def test_a_later_decision_ends_a_contradiction() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A3, 0)
    hear(document, A2, 5)
    assert document.state is State.APPROVED
    assert document.wait is None


Heard = tuple[int, int]
"""(minutes after NOW by the payer's date, index into WORDS)."""


@st.composite
def conversations(draw: st.DrawFn) -> list[Heard]:
    """What a payer says, each date meaning one thing, in any order, with repeats."""
    dated = draw(st.dictionaries(st.integers(1, 60), st.integers(0, len(WORDS) - 1), min_size=1, max_size=8))
    said = list(dated.items())
    again = draw(st.lists(st.sampled_from(said), max_size=6))
    return draw(st.permutations(said + again))


@settings(max_examples=300, deadline=None)
@given(conversations())
def test_the_state_equals_the_payers_latest_decision_whatever_the_order(heard: list[Heard]) -> None:
    document = sent(FINAL)
    for minutes, place in heard:
        hear(document, WORDS[place], minutes)
    decided = sorted((minutes, place) for minutes, place in heard if WORDS[place] != A4)
    if not decided:
        assert document.state is State.PENDED
        return
    latest = WORDS[decided[-1][1]]
    assert document.state is STATE_OF[latest.action]
    assert document.current is not None
    assert (document.current.action, document.current.number) == (latest.action, latest.number)


@settings(max_examples=200, deadline=None)
@given(conversations())
def test_hearing_everything_again_changes_no_state_no_decision_and_no_event(heard: list[Heard]) -> None:
    document = sent(FINAL)
    for minutes, place in heard:
        hear(document, WORDS[place], minutes)
    before, recorded = document.model_dump(exclude={"history"}), events(document)
    remembered = {ruling.says() for ruling in document.history}
    for minutes, place in heard:
        hear(document, WORDS[place], minutes)
    assert document.model_dump(exclude={"history"}) == before
    assert {ruling.says() for ruling in document.history} == remembered
    assert events(document) == recorded


# -- answers that cannot be used ------------------------------------------------------------------------------------

GOOD = ItemAnswer(sequence=1, code="A1", action=ReviewAction.CERTIFIED, number="N-1")
REVERSED = ItemAnswer(
    sequence=1,
    code="A1",
    action=ReviewAction.CERTIFIED,
    number="N-1",
    valid_from=date(2026, 3, 2),
    valid_to=date(2026, 3, 1),
)


ONE = (Item(sequence=1, service=CONSULT, quantity=4),)


def bare(*items: ItemAnswer, **changes: object) -> PayerAnswer:
    return answer("claim", A1, **{"items": items, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (bare(GOOD, claims=("another",)), "other-claim"),
        (bare(GOOD, created=NOW + timedelta(days=2)), "dated-ahead"),
        (bare(), "no-item"),
        (bare(ItemAnswer(sequence=2, code="A1", action=ReviewAction.CERTIFIED, number="N-1")), "unknown-item"),
        (bare(GOOD, GOOD), "item-twice"),
        (bare(ItemAnswer(sequence=1)), "no-review-action"),
        (bare(ItemAnswer(sequence=1, code="PENDEDCODE")), "unknown-review-action"),
        (bare(ItemAnswer(sequence=1, code="A1", action=ReviewAction.CERTIFIED)), "number-missing"),
        (bare(ItemAnswer(sequence=1, code="A1", action=ReviewAction.CERTIFIED, number="\n")), "number-malformed"),
        (bare(ItemAnswer(sequence=1, code="A6", action=ReviewAction.MODIFIED, number="N-1")), "units-missing"),
        (bare(REVERSED), "dates-reversed"),
        (bare(ItemAnswer(sequence=1), errors=(ErrorAnswer(code="75"),)), "rejected-75"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why_and_changes_nothing(told: PayerAnswer, reason: str) -> None:
    assert weigh(told, "claim", ONE, Source.POLL, NOW) == Unusable(reason)
    document = answered(sent(), A4)
    mine = {"claims": (document.claim_id,)} if "claim" in told.claims else {}
    state, recorded = document.state, events(document)
    assert take(document, answer_with(told, **mine), Source.POLL, NOW) is Effect.UNUSABLE
    assert (document.state, events(document)) == (state, recorded)
    assert document.troubles[-1].reason == reason


def answer_with(told: PayerAnswer, **changes: object) -> PayerAnswer:
    return replace(told, **changes)  # type: ignore[arg-type]


def test_a_person_is_called_when_a_payer_does_not_get_it_right_three_times() -> None:
    document = answered(sent(), A4)
    for _ in range(5):
        take(document, bare(claims=("another",)), Source.POLL, NOW)
    assert events(document).count("authorization.escalated.v1") == 1


@pytest.mark.parametrize(
    ("items", "together"),
    [
        (["A1", "A1"], "A1"),
        (["A1", "NA"], "A1"),
        (["A1", "A3"], "A2"),
        (["A1", "A2"], "A2"),
        (["A3", "A6"], "A6"),
        (["A1", "A4"], "A4"),
        (["A4", "CT"], "CT"),
        (["A3", "C"], "A3"),
        (["C", "NA"], "C"),
        (["NA", "NA"], "NA"),
    ],
)
def test_items_roll_up_to_one_action(items: list[str], together: str) -> None:
    assert roll_up([ReviewAction(item) for item in items]) == together


# -- denial and appeal ----------------------------------------------------------------------------------------------


def appealed(document: Authorization, word: Word, minutes: float = 1) -> Authorization:
    """The appeal of a denial, sent and answered."""
    document = calling.prepare_appeal(document, due("appeal"), facts(member()), NOW)
    land(document, "appeal")
    told = answer(document.appeal_id, word, NOW + timedelta(minutes=minutes))
    return calling.settle_appeal(document, Answered(told), facts(member()), NOW)


def test_a_denial_is_appealed_once_by_a_new_claim_related_to_the_denied_one() -> None:
    document = answered(sent(), A3)
    denied = last(document)
    assert isinstance(denied, AuthorizationDenied)
    assert (denied.final, denied.reasons) == (False, ("82",))
    document = calling.prepare_appeal(document, due("appeal"), facts(member()), NOW)
    assert [claim.kind for claim in document.submissions] == [Kind.INITIAL, Kind.APPEAL]
    assert document.submissions[1].prior == document.claim_id
    assert document.submissions[1].id != document.claim_id


def test_an_appeal_that_wins_approves() -> None:
    document = appealed(answered(sent(), A3), A1)
    assert document.state is State.APPROVED
    told = ["authorization.appealed.v1", "authorization.ruled.v1", "authorization.approved.v1"]
    assert events(document)[-3:] == told


def test_an_appeal_that_fails_makes_the_denial_final() -> None:
    document = appealed(answered(sent(), A3), A3)
    event = last(document)
    assert document.state is State.DENIED_FINAL
    assert isinstance(event, AuthorizationDenied)
    assert event.final


def test_a_repeat_of_the_first_denial_does_not_touch_the_appeal() -> None:
    document = appealed(answered(sent(), A3), A1)
    assert hear(document, A3, 30) is Effect.REPEATED
    assert document.state is State.APPROVED


def test_other_reasons_for_the_first_denial_do_not_end_the_appeal() -> None:
    document = appealed(answered(sent(), A3), A4)
    assert hear(document, A3_OTHER, 30) is Effect.SET_ASIDE
    assert document.state is State.APPEALING


def test_a_payer_that_reverses_its_denial_before_the_appeal_is_decided_approves() -> None:
    document = appealed(answered(sent(), A3), A4)
    assert hear(document, A1, 30) is Effect.TAKEN
    assert document.state is State.APPROVED


def test_a_denial_left_to_a_person_waits_for_one() -> None:
    document = answered(sent(rules(appeal="by-person")), A3)
    assert document.state is State.DENIED
    assert document.wait is not None
    assert document.wait.reason == "appeal-or-accept"


# -- withdrawal -----------------------------------------------------------------------------------------------------


def test_a_denied_request_is_never_updated_not_even_to_cancel_it() -> None:
    document = opening.call_off(answered(sent(), A3), "referral-cancelled", NOW)
    assert document.state is State.WITHDRAWN
    assert "cancel" not in document.timers


def test_what_was_never_sent_is_withdrawn_without_a_call() -> None:
    document = opening.call_off(submitting(), "referral-cancelled", NOW)
    assert document.state is State.WITHDRAWN
    assert events(document)[-1] == "authorization.cancelled.v1"


def test_a_request_on_its_way_is_cancelled_only_after_its_answer_is_in() -> None:
    document = opening.call_off(sent(), "referral-cancelled", NOW)
    assert document.state is State.CANCELLING
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    assert "cancel" not in document.attempts
    land(document, "submit")
    document = calling.settle_submit(document, Answered(answer(document.claim_id, A1)), facts(member()), NOW)
    assert document.state is State.CANCELLING
    assert "authorization.approved.v1" not in events(document)
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    land(document, "cancel")
    told = answer(document.cancel_id, C, NOW)
    document = calling.settle_cancel(document, Answered(told), facts(member()), NOW)
    assert document.state is State.WITHDRAWN
