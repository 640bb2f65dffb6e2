"""Every declared transition is taken by some decision, and no decision takes one that is not declared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from services.prior_authorization.model import Authorization, State, calling, contesting, opening, people
from services.prior_authorization.model.answers import Answered, ErrorAnswer
from shared.contracts.referrals import ReferralCancelled
from shared.kit.document import Document
from tests.unit.prior_authorization.cases import (
    A1,
    A3,
    A3_DATA,
    A4,
    CT,
    NA,
    NOT_COVERED,
    NOW,
    OFFICE_VISIT,
    PATIENT,
    REFERRAL,
    WITH_FORM,
    C,
    Word,
    answer,
    answered,
    asked,
    at_state,
    due,
    facts,
    knowing,
    land,
    member,
    opened,
    rules,
    sent,
    shipped,
    told,
)

Way = Callable[[], object]
CANCELLED = ReferralCancelled(referral_id=REFERRAL, patient_id=PATIENT, reason="patient")

SPOKEN = {
    State.PENDED: (A4, "automatic"),
    State.CONTACT_PAYER: (CT, "automatic"),
    State.APPROVED: (A1, "automatic"),
    State.NO_ACTION: (NA, "automatic"),
    State.DENIED: (A3, "by-person"),
    State.APPEALING: (A3, "automatic"),
    State.DENIED_FINAL: (A3, "none"),
    State.CANCELLED: (C, "automatic"),
}
"""Which word of the payer, under which policy of appeal, leads to a state."""


def speak(state: State, to: State) -> None:
    """The payer's next word about an authorization that stands at ``state``."""
    word, policy = SPOKEN[to]
    document = at_state(state) if state is not State.SUBMITTING else sent()
    document.terms = rules(appeal=policy).assess("any", None, document.service, on=NOW.date(), expedited=False)
    later = NOW + timedelta(minutes=1)
    claim = document.newest.id if document.newest else None
    calling.take(document, answer(claim, word, later), calling.Source.NOTIFICATION, NOW)


def appeal_ends(word: Word, levels: int = 1) -> None:
    """An appeal is sent and answered."""
    document = at_state(State.APPEALING)
    document.terms.appeal_levels = levels
    document = calling.prepare_appeal(document, due("appeal"), facts(member()), NOW)
    land(document, "appeal")
    outcome = Answered(answer(document.appeal_id, word, NOW + timedelta(minutes=1)))
    calling.settle_appeal(document, outcome, facts(member()), NOW)


def appeal_called_off() -> None:
    document = calling.prepare_appeal(at_state(State.APPEALING), due("appeal"), facts(member()), NOW)
    opening.referral_ended(document, CANCELLED, facts(), NOW)


def confirmed() -> None:
    document = calling.prepare_cancel(at_state(State.CANCELLING), due("cancel"), facts(member()), NOW)
    land(document, "cancel")
    calling.settle_cancel(document, Answered(answer(document.cancel_id, C, NOW)), facts(member()), NOW)


def corrected() -> None:
    document = answered(sent(), A3_DATA)
    contesting.resubmit(document, contesting.Resubmit(corrected=("0P",)), facts(), NOW)


def refused_for_its_data() -> None:
    document = answered(sent(), A4)
    errors = (ErrorAnswer("72", None, "C"),)
    calling.take_rejection(
        document, answer(document.claim_id, A1, NOW, items=(), errors=errors), calling.Source.NOTIFICATION, NOW
    )
    contesting.resubmit(document, contesting.Resubmit(corrected=("72",)), facts(), NOW)


def asked_for_what_needs_none() -> None:
    opening.request(shipped(), opened(), asked(service=OFFICE_VISIT), facts(), NOW)


PREPARED_BY = {
    State.SUBMITTING: told(),
    State.NOT_REQUIRED: told("no-auth"),
    State.APPROVED: told("satisfied"),
    State.AWAITING_CHOICE: NOT_COVERED,
    State.AWAITING_EVIDENCE: WITH_FORM,
}
"""What the payer's word on its requirements makes of a request that was not sent yet."""

PREPARED = [
    (state, to)
    for state in (State.AWAITING_MEMBER, State.AWAITING_CHOICE, State.AWAITING_EVIDENCE)
    for to in PREPARED_BY
    if state is not to
]


def special() -> dict[tuple[State, State], Way]:
    """The transitions that are not a payer's word on the request."""
    ways: dict[tuple[State, State], Way] = {
        (State.AWAITING_MEMBER, State.SUBMITTING): lambda: at_state(State.SUBMITTING),
        (State.AWAITING_MEMBER, State.NOT_REQUIRED): asked_for_what_needs_none,
        (State.AWAITING_MEMBER, State.WITHDRAWN): lambda: at_state(State.WITHDRAWN),
        (State.SUBMITTING, State.AWAITING_MEMBER): lambda: calling.prepare_submit(
            at_state(State.SUBMITTING), due("submit"), facts(), NOW
        ),
        (State.SUBMITTING, State.WITHDRAWN): lambda: call_off(State.SUBMITTING),
        (State.SUBMITTING, State.CANCELLING): lambda: opening.referral_ended(sent(), CANCELLED, facts(), NOW),
        (State.DENIED, State.APPEALING): lambda: people.appeal(at_state(State.DENIED), people.Appeal(), facts(), NOW),
        (State.DENIED, State.SUBMITTING): corrected,
        (State.PENDED, State.SUBMITTING): refused_for_its_data,
        (State.DENIED, State.DENIED_FINAL): lambda: people.accept_denial(
            at_state(State.DENIED), people.AcceptDenial(), facts(), NOW
        ),
        (State.DENIED, State.WITHDRAWN): lambda: call_off(State.DENIED),
        (State.APPEALING, State.DENIED_FINAL): lambda: appeal_ends(A3),
        (State.APPEALING, State.DENIED): lambda: appeal_ends(A3, levels=2),
        (State.APPEALING, State.CANCELLING): appeal_called_off,
        (State.APPEALING, State.WITHDRAWN): lambda: call_off(State.APPEALING),
        (State.CANCELLING, State.WITHDRAWN): confirmed,
    }
    for state, to in PREPARED:
        ways[state, to] = lambda state=state, to=to: knowing(at_state(state), PREPARED_BY[to])  # type: ignore[misc]
    ways[State.AWAITING_CHOICE, State.WITHDRAWN] = lambda: call_off(State.AWAITING_CHOICE)
    ways[State.AWAITING_EVIDENCE, State.WITHDRAWN] = lambda: call_off(State.AWAITING_EVIDENCE)
    ways[State.APPROVED, State.WITHDRAWN] = lambda: opening.call_off(knowing(opened(), told("satisfied")), "test", NOW)
    for state in (State.PENDED, State.CONTACT_PAYER, State.APPROVED):
        ways[state, State.CANCELLING] = lambda state=state: call_off(state)  # type: ignore[misc]
    return ways


def call_off(state: State) -> None:
    opening.referral_ended(at_state(state), CANCELLED, facts(), NOW)


DECLARED = [(state, to) for state, ends in Authorization.transitions.items() for to in sorted(ends)]


@pytest.mark.parametrize(("state", "to"), DECLARED, ids=[f"{state}-to-{to}" for state, to in DECLARED])
def test_a_declared_transition_is_taken(state: State, to: State, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, str]] = []
    monkeypatch.setattr(Document, "watch", lambda kind, at, end: taken.append((at, end)))
    way = special().get((state, to))
    if way is not None:
        way()
    else:
        speak(state, to)
    assert (state, to) in taken


def test_every_state_is_in_the_table_and_the_terminal_ones_lead_nowhere() -> None:
    assert set(Authorization.transitions) == set(State)
    ends = {state for state, ways in Authorization.transitions.items() if not ways}
    assert ends == Authorization.terminal
