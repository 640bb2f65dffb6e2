"""What the payer decided is told once for each of its words, with its own dates; the scorecard counts from it alone."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.prior_authorization.model import Authorization, calling, opening
from services.prior_authorization.model.answers import Answered, Source
from services.prior_authorization.model.deciding import take
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationPended,
    AuthorizationRuled,
    AuthorizationSubmitted,
)
from tests.unit.prior_authorization.cases import (
    A1,
    A2,
    A3,
    A4,
    CT,
    NOW,
    C,
    Word,
    answer,
    answered,
    due,
    facts,
    hear,
    land,
    member,
    rules,
    sent,
)

FINAL = rules(appeal="none")


def ruled(document: Authorization) -> list[AuthorizationRuled]:
    return [event for event in document.recorded() if isinstance(event, AuthorizationRuled)]


def words(document: Authorization) -> list[tuple[str, float, bool]]:
    """Each as (action, minutes after NOW by the payer's date, whether it stands)."""
    return [(e.action.value, (e.decided_at - NOW) / timedelta(minutes=1), e.standing) for e in ruled(document)]


def answered_late(document: Authorization, word: Word, created: datetime, now: datetime) -> Authorization:
    """The request is answered at ``now`` by an answer of the payer's own date."""
    land(document, "submit")
    return calling.settle_submit(document, Answered(answer(document.claim_id, word, created)), facts(member()), now)


def test_a_ruling_tells_what_was_asked_of_whom_when_and_what_came_of_it() -> None:
    document = answered(sent(expedited=True), A2)
    (told,) = ruled(document)
    assert (told.payer_id, told.line_of_business, told.service) == ("acme-health", "other", document.service)
    assert (told.expedited, told.purpose, told.level, told.prior_claim_id) == (True, "initial", 0, None)
    assert (told.claim_id, told.received_at, told.decided_at) == (document.claim_id, NOW, NOW)
    assert (told.action, told.standing, told.extended) == ("A2", True, False)


def test_a_pend_is_no_ruling_and_is_told_once_with_the_payers_date() -> None:
    document = answered_late(sent(), A4, NOW + timedelta(minutes=1), NOW + timedelta(minutes=2))
    hear(document, A4, 5)
    hear(document, A4, 1)
    pended = [event for event in document.recorded() if isinstance(event, AuthorizationPended)]
    assert [event.pended_at for event in pended] == [NOW + timedelta(minutes=1)]
    assert ruled(document) == []


def test_a_repeat_is_not_told_again_whenever_it_is_dated() -> None:
    document = answered(sent(FINAL), A1)
    for minutes in (0, 5, 3, 0, 5):
        hear(document, A1, minutes)
    assert words(document) == [("A1", 0, True)]


def test_the_earlier_date_of_a_word_that_is_known_is_told() -> None:
    document = sent(FINAL)
    for minutes in (20, 10, 20, 10, 15):
        hear(document, A1, minutes)
    assert words(document) == [("A1", 20, True), ("A1", 10, True)]


def test_an_older_word_that_arrives_late_is_told_as_not_standing_and_once() -> None:
    document = answered(sent(FINAL), A1)
    for word, minutes in ((A3, 10), (A2, 5), (A2, 5), (A2, 6), (A1, 0), (A3, 10)):
        hear(document, word, minutes)
    assert words(document) == [("A1", 0, True), ("A3", 10, True), ("A2", 5, False)]


def test_a_word_said_again_later_stands_against_one_dated_in_between() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A1, 20)
    hear(document, A3, 10)
    assert words(document) == [("A1", 0, True), ("A3", 10, False)]


def test_a_revised_decision_is_told_and_so_is_a_return_to_the_first() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A3, 10)
    hear(document, A1, 20)
    assert words(document) == [("A1", 0, True), ("A3", 10, True), ("A1", 20, True)]


def test_a_contradiction_is_no_ruling() -> None:
    document = answered(sent(FINAL), A1)
    hear(document, A3, 0)
    assert words(document) == [("A1", 0, True)]


def test_the_denial_and_what_becomes_of_its_appeal_are_told_claim_by_claim() -> None:
    document = answered(sent(), A3)
    document = calling.prepare_appeal(document, due("appeal"), facts(member()), NOW)
    land(document, "appeal")
    told = answer(document.appeal_id, A1, NOW + timedelta(minutes=1))
    document = calling.settle_appeal(document, Answered(told), facts(member()), NOW + timedelta(minutes=2))
    first, second = ruled(document)
    assert (first.level, first.action, second.level, second.action) == (0, "A3", 1, "A1")
    assert (second.purpose, second.claim_id, second.prior_claim_id) == ("appeal", document.appeal_id, first.claim_id)
    assert second.received_at == NOW + timedelta(minutes=1)
    appealed = [event for event in document.recorded() if isinstance(event, AuthorizationAppealed)]
    assert [(event.level, event.claim_id) for event in appealed] == [(1, document.appeal_id)]


def test_the_payer_has_it_from_its_own_date_where_an_answer_was_lost() -> None:
    document = answered_late(sent(), A4, NOW + timedelta(minutes=1), NOW + timedelta(hours=1))
    (submitted,) = [event for event in document.recorded() if isinstance(event, AuthorizationSubmitted)]
    assert submitted.received_at == NOW + timedelta(minutes=1)
    take(document, answer(document.claim_id, A1, NOW + timedelta(hours=26)), Source.POLL, NOW + timedelta(hours=27))
    (told,) = ruled(document)
    assert (told.received_at, told.decided_at) == (NOW + timedelta(minutes=1), NOW + timedelta(hours=26))


def test_a_date_before_it_was_sent_or_after_it_was_heard_does_not_move_the_beginning() -> None:
    early = answered_late(sent(), A1, NOW - timedelta(days=3), NOW + timedelta(hours=1))
    assert ruled(early)[0].received_at == NOW
    late = answered_late(sent(), A1, NOW + timedelta(hours=20), NOW + timedelta(hours=1))
    assert ruled(late)[0].received_at == NOW + timedelta(hours=1)


def test_a_decision_later_than_the_payers_time_is_told_as_extended() -> None:
    for hours, extended in ((168, False), (168.1, True)):
        document = answered(sent(), A4)
        at = NOW + timedelta(hours=hours)
        take(document, answer(document.claim_id, A1, at), Source.POLL, at)
        assert ruled(document)[0].extended is extended


def test_what_the_payer_says_of_a_request_that_is_being_called_off_is_told() -> None:
    document = opening.call_off(answered(sent(), A4), "referral-cancelled", NOW)
    hear(document, A1, 5)
    hear(document, C, 6)
    assert words(document) == [("A1", 5, True), ("C", 6, True)]


def test_that_a_person_shall_call_is_told_as_what_it_is() -> None:
    document = answered(sent(), CT)
    hear(document, A1, 60)
    assert words(document) == [("CT", 0, True), ("A1", 60, True)]
