"""What coordinators do with an authorization: appeal, accept a denial, send again, settle a contradiction."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from services.prior_authorization.model.authorization import (
    SUBMISSION,
    Authorization,
    Kind,
    Owner,
    State,
    announce_escalation,
    quiet,
)
from services.prior_authorization.model.deciding import begin_appeal
from shared.contracts.prior_authorization import AuthorizationDenied
from shared.kit.decisions import Due, Facts
from shared.kit.errors import Conflict, IllegalTransition


class Appeal(BaseModel):
    """Appeal the denial that stands."""


class AcceptDenial(BaseModel):
    """Do not appeal: the denial is final."""


class SendAgain(BaseModel):
    """Send once more what the payer did not take."""


class SettleContradiction(BaseModel):
    """A person looked at the payer's contradicting decisions; the state stands."""


def appeal(document: Authorization, command: Appeal, facts: Facts, now: datetime) -> Authorization:
    """Appeal an open denial. Raises IllegalTransition where none is open."""
    if document.state is not State.DENIED:
        raise IllegalTransition("Authorization", document.state, State.APPEALING)
    quiet(document)
    begin_appeal(document, now)
    return document


def accept_denial(document: Authorization, command: AcceptDenial, facts: Facts, now: datetime) -> Authorization:
    """Let a denial stand for good. Raises IllegalTransition where no denial is open."""
    if document.state is not State.DENIED:
        raise IllegalTransition("Authorization", document.state, State.DENIED_FINAL)
    quiet(document)
    document.move(State.DENIED_FINAL)
    reasons = document.current.reasons if document.current else ()
    document.record(AuthorizationDenied(**document.announces(), reasons=reasons, final=True))
    return document


def send_again(document: Authorization, command: SendAgain, facts: Facts, now: datetime) -> Authorization:
    """Repeat a call that was given up. Raises Conflict where nothing waits to be sent."""
    call = _unsent_call(document)
    if call is None:
        raise Conflict("nothing of this authorization waits to be sent")
    document.failures = 0
    document.wake(call, now)
    document.expect(Owner.OPERATOR, f"{call}-again", now, SUBMISSION)
    return document


def _unsent_call(document: Authorization) -> str | None:
    """The call whose claim the payer is not known to have."""
    newest = document.newest
    has_it = newest is not None and newest.received_at is not None
    if document.state is State.SUBMITTING:
        return None if has_it else "submit"
    if document.state is State.APPEALING:
        return None if has_it and newest is not None and newest.kind is Kind.APPEAL else "appeal"
    return "cancel" if document.state is State.CANCELLING else None


def settle_contradiction(
    document: Authorization, command: SettleContradiction, facts: Facts, now: datetime
) -> Authorization:
    """Close a contradiction: the decision taken first stands. Raises Conflict where there is none."""
    if not document.contradictions:
        raise Conflict("the payer did not contradict itself")
    document.contradictions = []
    if document.wait is not None and document.wait.reason == "contradiction":
        document.met()
    return document


def deadline(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """A wait outlived its deadline: escalate it, once."""
    if document.overdue(now) is not None:
        announce_escalation(document)
    return document
