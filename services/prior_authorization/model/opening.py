"""The beginning and the end from outside: a referral asks, the member becomes known, the referral needs it no more."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel

from services.prior_authorization.model.authorization import (
    AWAIT_MEMBER,
    FLAGGED,
    SUBMISSION,
    SUBMISSION_EXPEDITED,
    Authorization,
    Kind,
    Owner,
    State,
    authorization_id,
    day_of,
    escalate,
    note,
    quiet,
)
from services.prior_authorization.model.deciding import announce_standing, begin_cancelling, withdrawn
from services.prior_authorization.model.items import Item, one_item
from services.prior_authorization.model.member import Lack, Member, lack
from services.prior_authorization.model.rules import RuleBook, Terms
from shared.contracts.prior_authorization import AuthorizationNotRequired, MemberKnown, MemberWanted
from shared.contracts.referrals import (
    AuthorizationRequested,
    ReferralCancelled,
    ReferralFailed,
    ReferralRejected,
    ReferralRequested,
)
from shared.kit.decisions import Facts

WITHDRAWABLE = Authorization.rest_of(
    {State.NO_ACTION, State.DENIED_FINAL, State.CANCELLED, State.CANCELLING, State.NOT_REQUIRED, State.WITHDRAWN}
)
"""The states in which there is something to call off."""


class Withdraw(BaseModel):
    """A coordinator calls the authorization off. ``reason`` is a code."""

    reason: str


def request(
    rules: RuleBook, document: Authorization | None, event: AuthorizationRequested, facts: Facts, now: datetime
) -> Authorization:
    """Open the authorization of a referral: not required by a rule, or to be sought as soon as the member is known."""
    if document is not None:
        return _asked_again(rules, document, event, now)
    id = authorization_id(event.referral_id)
    authorization = Authorization(
        id=id,
        referral_id=event.referral_id,
        patient_id=event.patient_id,
        coverage_id=event.coverage_id,
        payer_id=event.payer_id,
        items=one_item(event.service, event.quantity),
        diagnoses=event.diagnoses,
        expedited=event.expedited,
        specialist_id=event.specialist_id,
        opened_for=event.payer_id,
        share=rules.share_of(event.payer_id, id),
        requested_at=now,
        terms=_assess(rules, event, None, now),
    )
    return start(authorization, now)


def start(authorization: Authorization, now: datetime) -> Authorization:
    """Begin a new authorization as its terms say."""
    if authorization.terms.needed:
        _await_member(authorization, Lack.UNKNOWN, now)
    else:
        _not_required(authorization)
    return authorization


def assess_all(
    rules: RuleBook, payer_id: str, plan: str | None, items: tuple[Item, ...], on: date, *, expedited: bool
) -> Terms:
    """Whether any of these items needs approval, and on what terms: those of the first that does."""
    each = [rules.assess(payer_id, plan, item.service, on=on, expedited=expedited, kind=item.kind) for item in items]
    return next((terms for terms in each if terms.needed), each[0])


def consider_member(
    rules: RuleBook, document: Authorization, event: MemberWanted | MemberKnown, facts: Facts, now: datetime
) -> Authorization:
    """Go on as soon as the payer can recognise the member; the plan may change what the rules say."""
    member = facts.get(Member, document.patient_id)
    missing = lack(member, document.payer_id)
    if missing is not None or member is None:
        if document.wait is not None and document.wait.reason != missing:
            document.wait.reason = str(missing)
        return document
    if member.plan is not None:
        document.terms = _reassess(rules, document, member.plan)
    if not document.terms.needed:
        _not_required(document)
        return document
    document.met()
    document.move(State.SUBMITTING)
    document.wake("submit", now)
    within = SUBMISSION_EXPEDITED if document.expedited else SUBMISSION
    document.expect(Owner.OPERATOR, "submission", now, within)
    return document


def lose_member(document: Authorization, missing: Lack, now: datetime) -> None:
    """Wait for the member again: what was known is gone, or is another payer's, before anything was sent."""
    document.met()
    document.rest("submit")
    document.move(State.AWAITING_MEMBER)
    _await_member(document, missing, now)


def referral_ended(
    document: Authorization,
    event: ReferralCancelled | ReferralFailed | ReferralRejected,
    facts: Facts,
    now: datetime,
) -> Authorization:
    """The referral will not use the approval: call it off with the payer, unless an alternative relies on it."""
    if isinstance(event, ReferralRejected) and event.authorization_carried:
        return document
    code = {ReferralCancelled: "referral-cancelled", ReferralFailed: "referral-failed"}
    return call_off(document, code.get(type(event), "referral-rejected"), now)


def carry(document: Authorization, event: ReferralRequested, facts: Facts, now: datetime) -> Authorization:
    """An alternative relies on it from now on, and is told how it stands: it may have changed since it was handed on.

    Asked for by the alternative itself, after it was written: so it is there to hear this, and all that comes later.
    """
    document.carried_to = event.referral_id
    announce_standing(document)
    return document


def withdraw(document: Authorization, command: Withdraw, facts: Facts, now: datetime) -> Authorization:
    """A coordinator calls it off. Raises IllegalTransition where there is nothing to call off."""
    if document.state not in WITHDRAWABLE:
        document.move(State.CANCELLING)
    return call_off(document, command.reason, now)


def call_off(document: Authorization, reason: str, now: datetime) -> Authorization:
    """Withdraw it: with the payer where it may have a claim that is not denied, else by ourselves.

    A denied request may not be updated, and to cancel is to update (PAS 2.2.1): a denial is simply left.
    """
    document.cancel_reason = reason
    newest = document.newest
    nothing_sent = newest is None or document.state is State.DENIED
    denied_only = document.state is State.APPEALING and newest is not None and newest.kind is Kind.INITIAL
    if nothing_sent or denied_only:
        withdrawn(document, reason)
    else:
        begin_cancelling(document, now)
    return document


def _asked_again(
    rules: RuleBook, document: Authorization, event: AuthorizationRequested, now: datetime
) -> Authorization:
    """The same question again changes nothing. Another one is taken until a claim was sent; then a person is called."""
    asked = (event.payer_id, event.coverage_id, event.service, event.quantity, event.diagnoses)
    first = document.asked_by(document.submissions[0])[0] if document.submissions else document.items[0]
    known = (document.payer_id, document.coverage_id, first.service, first.quantity, document.diagnoses)
    if asked == known or document.state in Authorization.terminal:
        return document
    if document.state is not State.AWAITING_MEMBER:
        note(document, "request-changed", "referral", now)
        escalate(document, now, owner=Owner.COORDINATOR, reason="request-changed", within=FLAGGED)
        return document
    document.payer_id, document.coverage_id = event.payer_id, event.coverage_id
    document.items, document.diagnoses = one_item(event.service, event.quantity), event.diagnoses
    document.terms = _assess(rules, event, None, now)
    document.met()
    if document.terms.needed:
        _await_member(document, Lack.UNKNOWN, now)
    else:
        _not_required(document)
    return document


def _await_member(document: Authorization, missing: Lack, now: datetime) -> None:
    document.expect(Owner.COORDINATOR, missing, now, AWAIT_MEMBER)
    # Asked after this write: the member is read again when this event comes back, so no arrival is missed.
    document.record(MemberWanted(authorization_id=document.id, patient_id=document.patient_id))


def _not_required(document: Authorization) -> None:
    quiet(document)
    document.move(State.NOT_REQUIRED)
    document.record(AuthorizationNotRequired(**document.announces(), rule=document.terms.why))


def _assess(rules: RuleBook, event: AuthorizationRequested, plan: str | None, now: datetime) -> Terms:
    return rules.assess(event.payer_id, plan, event.service, on=day_of(now), expedited=event.expedited)


def _reassess(rules: RuleBook, document: Authorization, plan: str) -> Terms:
    day = day_of(document.requested_at)
    return assess_all(rules, document.payer_id, plan, document.items, day, expedited=document.expedited)
