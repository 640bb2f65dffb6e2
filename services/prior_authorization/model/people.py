"""What coordinators do with an authorization: appeal, accept a denial, send again, settle a contradiction."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from services.prior_authorization.model.authorization import (
    DECISION,
    SUBMISSION,
    Authorization,
    Kind,
    Owner,
    State,
    announce_escalation,
    check_clock,
    quiet,
)
from services.prior_authorization.model.contesting import refuse_too_late
from services.prior_authorization.model.deciding import UPDATABLE, begin_appeal
from shared.contracts.prior_authorization import AuthorizationDenied
from shared.kit.decisions import Due, Facts
from shared.kit.errors import Conflict, IllegalTransition


class Appeal(BaseModel):
    """Appeal the denial that stands, ``expedited`` or not; ``attached`` is what it carries: reference by code."""

    expedited: bool = False
    attached: dict[str, str] = {}


class AcceptDenial(BaseModel):
    """Do not appeal: the denial is final."""


class SendAgain(BaseModel):
    """Send once more what the payer did not take."""


class SettleContradiction(BaseModel):
    """A person looked at the payer's contradicting decisions; the state stands."""


def appeal(document: Authorization, command: Appeal, facts: Facts, now: datetime) -> Authorization:
    """Appeal an open denial. Raises IllegalTransition where none is open, Conflict where it is too late or no level
    is left."""
    if document.state is not State.DENIED:
        raise IllegalTransition("Authorization", document.state, State.APPEALING)
    denial = document.denial
    if denial is not None:
        if not denial.level:
            raise Conflict("no level of appeal is left")
        refuse_too_late(document, now)
        denial.expedited = command.expedited
        denial.attached = {**denial.attached, **command.attached}
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
    if document.update is not None and document.state in UPDATABLE:
        return "update"
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


class ExtendClock(BaseModel):
    """The payer said that it takes so many more calendar days."""

    days: int


def extend_clock(document: Authorization, command: ExtendClock, facts: Facts, now: datetime) -> Authorization:
    """Move the payer's deadline by what it said, once a claim, as far as its limit allows (42 CFR 422.568(b)).

    Raises Conflict where no clock runs, its limit knows no such extension, or it was extended before.
    """
    held, clock = document.held, document.clock
    if held is None or clock is None or document.breaches_at is None:
        raise Conflict("no clock of the payer runs")
    if held.extended_days:
        raise Conflict("the payer has extended its time once already")
    if command.days > clock.extension_days:
        raise Conflict(f"the payer may extend its time by {clock.extension_days} days at most")
    held.extended_days = command.days
    held.breached_at = None
    moved = document.clock
    if moved is None:
        return document
    document.breaches_at = moved.deadline
    wait = document.wait
    if wait is not None and wait.reason == DECISION and wait.escalated_at is None:
        wait.deadline = moved.deadline
        document.wake("deadline", moved.deadline)
    else:
        document.wake("breach", moved.deadline)
    return document


def deadline(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """A wait outlived its deadline: escalate it, once."""
    wait = document.overdue(now)
    if wait is not None and not (wait.reason == DECISION and check_clock(document, now)):
        announce_escalation(document)
    return document


def clock_ended(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """The payer's time ran out while a person is waited for: that is told too, once."""
    check_clock(document, now)
    return document
