"""Notifications of any claim that was ever sent: errors alone lead to a correction, old claims change nothing, and the
calling off of a claim may be confirmed so."""

from __future__ import annotations

from typing import Any

import pytest

from services.prior_authorization.model import Authorization, Kind, State, calling, contesting
from services.prior_authorization.model.answers import Answered, ErrorAnswer, PayerAnswer
from services.prior_authorization.model.asking import Update, update
from services.prior_authorization.model.notified import TakeNotification, take_notification, unusable_for
from services.prior_authorization.pas import codes
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import (
    A1,
    A3,
    A4,
    NOW,
    C,
    answer,
    answered,
    at_state,
    due,
    facts,
    land,
    member,
    rules,
    sent,
)
from tests.unit.prior_authorization.test_api import notice, notify, pended
from tests.unit.prior_authorization.test_reading import concept, review
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]
WRONG = ErrorAnswer("72", "Coverage.subscriberId", "C")
NEVER = ErrorAnswer("72", None, "N")


def errors_alone(claim: str | None, *errors: ErrorAnswer) -> PayerAnswer:
    return answer(claim, A1, NOW, items=(), errors=errors or (WRONG,))


def notified(document: Authorization, told: PayerAnswer) -> Authorization:
    """A notification that the payer's door let in."""
    assert unusable_for(document, told, NOW) is None
    return take_notification(document, TakeNotification(told), facts(), NOW)


# -- errors alone ---------------------------------------------------------------------------------------------------


def test_errors_alone_on_what_is_pended_are_corrected_and_the_request_is_sent_anew() -> None:
    document = answered(sent(), A4)
    first = document.claim_id
    document = notified(document, errors_alone(first))
    assert document.state is State.PENDED
    assert document.wait is not None
    assert (document.wait.reason, document.wait.owner) == ("correct-and-resubmit", "coordinator")
    assert "poll" not in document.timers
    assert document.breaches_at is None
    assert document.denial is not None
    assert [(each.code, each.path) for each in document.denial.corrections] == [("72", "Coverage.subscriberId")]
    document = contesting.resubmit(document, contesting.Resubmit(corrected=("72",)), facts(), NOW)
    assert document.state is State.SUBMITTING
    newest = document.newest
    assert newest is not None
    assert (newest.kind, newest.prior) == (Kind.RESUBMISSION, first)


def test_errors_told_again_ask_for_no_second_correction() -> None:
    document = notified(answered(sent(), A4), errors_alone(answered(sent(), A4).claim_id))
    asked, denial = document.wait, document.denial
    document = notified(document, errors_alone(document.claim_id))
    assert (document.wait, document.denial) == (asked, denial)


def test_an_inquiry_that_finds_errors_alone_leads_there_too_and_asks_no_more() -> None:
    document = calling.prepare_poll(answered(sent(), A4), due("poll"), facts(member()), NOW.replace(hour=20))
    land(document, "poll")
    outcome = Answered(errors_alone(document.claim_id))
    document = calling.settle_poll(document, outcome, facts(member()), NOW.replace(hour=20))
    assert document.wait is not None
    assert document.wait.reason == "correct-and-resubmit"
    assert "poll" not in document.timers


def test_errors_that_may_not_be_corrected_call_a_person() -> None:
    document = notified(answered(sent(), A4), errors_alone(answered(sent(), A4).claim_id, NEVER))
    assert document.denial is None
    assert document.wait is not None
    assert document.wait.escalated_at == NOW


def test_an_update_whose_errors_are_told_is_given_up_and_the_request_stays() -> None:
    document = update(
        answered(sent(), A4), Update.model_validate({"change": [{"sequence": 1, "quantity": 6}]}), facts(), NOW
    )
    document = calling.prepare_update(document, due("update"), facts(member()), NOW)
    assert document.update is not None
    document = notified(document, errors_alone(document.update.id))
    assert (document.update, document.state, document.quantity) == (None, State.PENDED, 4)
    assert [each.reason for each in document.troubles][-1] == "update-rejected"


@pytest.mark.parametrize("state", [State.APPROVED, State.DENIED, State.CANCELLED])
def test_errors_of_what_is_decided_change_nothing_but_the_record(state: State) -> None:
    document = at_state(state)
    before = (document.state, document.wait, document.current)
    document = notified(document, errors_alone(document.claim_id))
    assert (document.state, document.wait, document.current) == before
    assert document.submissions[-1].errors == ()
    assert document.troubles[-1].reason == "rejected-72"


async def test_errors_alone_are_taken_at_the_door() -> None:
    world = World()
    claim = await pended(world)
    error = {"code": concept(codes.X12_REJECT, "72")}
    told = notice(claim, item=None, outcome="error", error=[error])
    told["entry"][1]["resource"]["entry"][0]["resource"].pop("item")
    assert (await notify(world, told)).status_code == 200
    document = await world.of("tess")
    assert document.wait is not None
    assert document.wait.reason == "correct-and-resubmit"


# -- claims of before -----------------------------------------------------------------------------------------------


def updated(document: Authorization, quantity: int) -> Authorization:
    """An update of which the payer has said that it is pended."""
    command = Update.model_validate({"change": [{"sequence": 1, "quantity": quantity}]})
    document = calling.prepare_update(update(document, command, facts(), NOW), due("update"), facts(member()), NOW)
    assert document.update is not None
    told = answer(document.update.id, A4, NOW)
    land(document, "update")
    return calling.settle_update(document, Answered(told), facts(member()), NOW)


def test_every_claim_that_was_sent_is_found_by_its_identifier() -> None:
    document = updated(updated(answered(sent(rules(appeal="by-person")), A4), 6), 8)
    assert document.claim_ids == tuple(each.id for each in document.submissions)
    document = answered_newest(document)
    appealed = calling.prepare_appeal(appealing(document), due("appeal"), facts(member()), NOW)
    assert appealed.claim_ids == tuple(each.id for each in appealed.submissions)
    assert len(set(appealed.claim_ids)) == 4
    cancelling = calling.prepare_cancel(at_state(State.CANCELLING), due("cancel"), facts(member()), NOW)
    assert cancelling.claim_ids == (cancelling.claim_id, cancelling.cancel_id)


def answered_newest(document: Authorization) -> Authorization:
    newest = document.newest
    assert newest is not None
    return notified(document, answer(newest.id, A3, NOW))


def appealing(document: Authorization) -> Authorization:
    document.terms = rules().assess("any", None, document.service, on=NOW.date(), expedited=False)
    document.move(State.APPEALING)
    return document


async def test_a_word_on_an_older_update_changes_nothing_and_is_no_unknown_claim() -> None:
    world = World()
    claim = await pended(world)
    document = await world.of("tess")
    older: list[str] = []
    for quantity in (6, 8):
        async with world.harness.client(Role.COORDINATOR) as client:
            body = {"change": [{"sequence": 1, "quantity": quantity}]}
            answered_ = await client.post(
                f"/authorizations/{document.id}/update", json=body, headers=world.harness.key()
            )
        assert answered_.status_code == 200, answered_.text
        await world.settle()
        newest = (await world.of("tess")).newest
        assert newest is not None
        older.append(newest.id)
    before = await world.of("tess")
    for told in (claim, older[0]):
        pend = notice(told, item=[{"itemSequence": 1, "adjudication": [review("A4")]}])
        assert (await notify(world, pend)).status_code == 200
    after = await world.of("tess")
    assert (after.state, after.current, after.wait) == (before.state, before.current, before.wait)
    assert (await notify(world, notice(older[1], created="2026-03-02T15:45:00Z"))).status_code == 200
    assert (await world.of("tess")).state is State.APPROVED


# -- called off -----------------------------------------------------------------------------------------------------


def test_that_a_claim_is_called_off_may_be_confirmed_by_a_notification() -> None:
    document = calling.prepare_cancel(at_state(State.CANCELLING), due("cancel"), facts(member()), NOW)
    land(document, "cancel")
    document = calling.settle_cancel(document, Answered(answer(document.cancel_id, A4)), facts(member()), NOW)
    assert document.state is State.CANCELLING
    assert notified(document, answer(document.cancel_id, C)).state is State.WITHDRAWN
