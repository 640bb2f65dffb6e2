"""The beginning and the end from outside: a referral asks, the member becomes known, the referral needs it no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime

from pydantic import BaseModel

from services.prior_authorization.model.answers import Ruling, Source
from services.prior_authorization.model.authorization import (
    AWAIT_MEMBER,
    CHOICE,
    EVIDENCE,
    EVIDENCE_EXPEDITED,
    FLAGGED,
    SUBMISSION,
    SUBMISSION_EXPEDITED,
    UNSENT,
    Authorization,
    Kind,
    Owner,
    State,
    day_of,
    escalate,
    note,
    quiet,
)
from services.prior_authorization.model.deciding import announce_standing, begin_cancelling, withdrawn
from services.prior_authorization.model.evidence import LOINC, Evidence, in_packet, together
from services.prior_authorization.model.items import Attachment, Item, next_sequence, one_item
from services.prior_authorization.model.lifetime import ask_for_visits
from services.prior_authorization.model.member import Lack, Member, lack
from services.prior_authorization.model.requirement import Course, CoverageInformation, standing_answer
from services.prior_authorization.model.rows import age_on
from services.prior_authorization.model.rules import RuleBook, Terms
from services.prior_authorization.model.visits import authorization_id
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import AuthorizationNotRequired, MemberKnown, MemberWanted, ReviewAction
from shared.contracts.referrals import (
    AuthorizationRequested,
    ReferralCancelled,
    ReferralFailed,
    ReferralPacketCompleted,
    ReferralRejected,
    ReferralRequested,
)
from shared.kit.decisions import Facts, Ref, Want
from shared.kit.errors import Conflict, IllegalTransition

WITHDRAWABLE = Authorization.rest_of(
    {State.NO_ACTION, State.DENIED_FINAL, State.CANCELLED, State.CANCELLING, State.NOT_REQUIRED, State.WITHDRAWN}
)
"""The states in which there is something to call off."""


class Withdraw(BaseModel):
    """A coordinator calls the authorization off. ``reason`` is a code."""

    reason: str


class Seek(BaseModel):
    """Seek approval although the service may not be covered, or somebody else might have to ask."""


class AddEvidence(BaseModel):
    """Evidence for the request."""

    pieces: tuple[Evidence, ...]


def request(
    rules: RuleBook, document: Authorization | None, event: AuthorizationRequested, facts: Facts, now: datetime
) -> Authorization:
    """Open the authorization of a referral: not required by a rule, or to be sought as soon as the member is known."""
    if document is not None:
        return _asked_again(rules, document, event, facts, now)
    id, items = authorization_id(event.referral_id), one_item(event.service, event.quantity)
    authorization = Authorization(
        id=id,
        referral_id=event.referral_id,
        patient_id=event.patient_id,
        coverage_id=event.coverage_id,
        payer_id=event.payer_id,
        items=items,
        diagnoses=event.diagnoses,
        expedited=event.expedited,
        specialist_id=event.specialist_id,
        opened_for=event.payer_id,
        share=rules.share_of(event.payer_id, id),
        requested_at=now,
        evidence=in_packet(event.packet, now),
        terms=_unknown_member(rules, event, items, now),
    )
    return start(authorization, now, _member_of(authorization, facts))


def wants_member(rules: RuleBook, event: AuthorizationRequested, document: Authorization | None) -> Iterable[Want]:
    """The member, where rules may end it at once: what the payer itself said of this member comes before them."""
    return (Ref(Member, event.patient_id),) if rules.may_be_free(event.payer_id, event.service) else ()


def start(document: Authorization, now: datetime, member: Member | None = None) -> Authorization:
    """Begin an authorization: wait for the member, unless no approval is needed whoever it is, and the payer itself did
    not say otherwise."""
    told = _answer(document, member) if member is not None else None
    if told is not None:
        document.terms = document.terms.with_answer(told)
    if document.terms.needed:
        _await_member(document, Lack.UNKNOWN, now)
    else:
        _not_required(document)
    return document


def _member_of(document: Authorization, facts: Facts) -> Member | None:
    """The member, where ``wants_member`` has asked for it."""
    return None if document.terms.needed else facts.get(Member, document.patient_id)


def consider_member(
    rules: RuleBook, document: Authorization, event: MemberWanted | MemberKnown, facts: Facts, now: datetime
) -> Authorization:
    """Go on as soon as the payer can recognise the member: plan, age and the payer's own word say what is required."""
    if document.state not in UNSENT:
        return document
    member = facts.get(Member, document.patient_id)
    missing = lack(member, document.payer_id)
    if missing is not None or member is None:
        if document.wait is not None and document.state is State.AWAITING_MEMBER and document.wait.reason != missing:
            document.wait.reason = str(missing)
        return document
    if document.state is State.AWAITING_MEMBER or member.answers:
        _reassess(rules, document, member)
        proceed(document, now)
    return document


def proceed(document: Authorization, now: datetime) -> None:
    """Take a request that was not sent yet as far as requirement and evidence let it."""
    which, why = document.terms.course
    if which is Course.NOT_REQUIRED:
        _not_required(document)
    elif which is Course.SATISFIED:
        _satisfied(document, now)
    elif which is Course.ASK_PERSON and not document.chosen:
        _ask_person(document, why, now)
    elif document.wanting:
        _await_evidence(document, now)
    else:
        _submit(document, now)


def _await_evidence(document: Authorization, now: datetime) -> None:
    """Nothing is sent incomplete: wait for what is missing."""
    if document.state is State.AWAITING_EVIDENCE:
        return
    quiet(document)
    document.move(State.AWAITING_EVIDENCE)
    within = EVIDENCE_EXPEDITED if document.expedited else EVIDENCE
    document.expect(Owner.COORDINATOR, "evidence-missing", now, within)


def add_evidence(document: Authorization, command: AddEvidence, facts: Facts, now: datetime) -> Authorization:
    """Attach evidence whose bytes are here, and go on where nothing is missing any more.

    The same piece again changes nothing. Raises Conflict where it can be of no use.
    """
    check_of_use(document)
    for piece in command.pieces:
        _attach(document, piece)
    if document.state is State.AWAITING_EVIDENCE:
        proceed(document, now)
    elif document.state is State.SUBMITTING and document.newest is None and not document.wanting:
        document.wake("submit", now)
    return document


def check_of_use(document: Authorization) -> None:
    """Raises Conflict where evidence can be of no use any more."""
    if document.state in Authorization.terminal or document.state is State.CANCELLING:
        raise Conflict("nothing will be sent for this authorization any more")


def _attach(document: Authorization, piece: Evidence) -> None:
    others = tuple(known for known in document.evidence if known.sha256 != piece.sha256 or known.type != piece.type)
    if any(known.held for known in document.evidence if known not in others):
        return
    sequence = next_sequence(document.attachments)
    attachment = Attachment(
        sequence=sequence,
        type=Coding(system=LOINC, code=piece.type),
        content_type=piece.content_type,
        digest=piece.sha256,
    )
    document.attachments = (*document.attachments, attachment)
    document.evidence = (*others, piece.model_copy(update={"sequence": sequence}))


def _know(document: Authorization, pieces: Iterable[Evidence]) -> None:
    """Keep what is known to exist, though its bytes are elsewhere."""
    known = {(piece.sha256, piece.type) for piece in document.evidence}
    new = [piece for piece in pieces if (piece.sha256, piece.type) not in known]
    document.evidence = (*document.evidence, *new)


def packet_completed(
    document: Authorization, event: ReferralPacketCompleted, facts: Facts, now: datetime
) -> Authorization:
    """The referral's packet holds more than it did when approval was asked for."""
    _know(document, in_packet(event.packet, now))
    return document


def seek(document: Authorization, command: Seek, facts: Facts, now: datetime) -> Authorization:
    """A person looked at the requirement: approval is to be sought. Raises IllegalTransition where none is asked."""
    if document.state is not State.AWAITING_CHOICE:
        raise IllegalTransition("Authorization", document.state, State.SUBMITTING)
    document.chosen = True
    proceed(document, now)
    return document


def _ask_person(document: Authorization, why: str, now: datetime) -> None:
    """Not covered, conditional, or for another to seek: only a person can tell whether to go on."""
    if document.state is State.AWAITING_CHOICE:
        return
    quiet(document)
    document.move(State.AWAITING_CHOICE)
    escalate(document, now, owner=Owner.COORDINATOR, reason=why, within=CHOICE)


def _satisfied(document: Authorization, now: datetime) -> None:
    """The payer says that its conditions are met already: the number it gives counts as approval."""
    told = document.terms.told
    quiet(document)
    document.move(State.APPROVED)
    document.current = Ruling(
        claim_id=document.id,
        action=ReviewAction.CERTIFIED,
        decided_at=now,
        issued=told.asserted_on,
        number=told.satisfied_pa_id,
        valid_to=told.expires_on,
        units=document.quantity,
        source=Source.COVERAGE,
        taken_at=now,
    )
    document.history = [*document.history, document.current]
    announce_standing(document)


def _submit(document: Authorization, now: datetime) -> None:
    quiet(document)
    document.move(State.SUBMITTING)
    document.wake("submit", now)
    within = SUBMISSION_EXPEDITED if document.expedited else SUBMISSION
    document.expect(Owner.OPERATOR, "submission", now, within)


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
    ask_for_visits(document, event.referral_id, used_too=True)
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
    rules: RuleBook, document: Authorization, event: AuthorizationRequested, facts: Facts, now: datetime
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
    _know(document, in_packet(event.packet, now))
    document.terms = _unknown_member(rules, event, document.items, now)
    document.met()
    return start(document, now, _member_of(document, facts))


def _await_member(document: Authorization, missing: Lack, now: datetime) -> None:
    document.expect(Owner.COORDINATOR, missing, now, AWAIT_MEMBER)
    # Asked after this write: the member is read again when this event comes back, so no arrival is missed.
    document.record(MemberWanted(authorization_id=document.id, patient_id=document.patient_id))


def _not_required(document: Authorization) -> None:
    quiet(document)
    document.move(State.NOT_REQUIRED)
    document.record(AuthorizationNotRequired(**document.announces(), rule=document.terms.why))


def _unknown_member(rules: RuleBook, event: AuthorizationRequested, items: Sequence[Item], now: datetime) -> Terms:
    """What is required before the member is known."""
    day = day_of(now)
    return assess_all(rules, event.payer_id, None, items, day, expedited=event.expedited, member_known=False)


def _reassess(rules: RuleBook, document: Authorization, member: Member) -> None:
    """What is required of this member: by rule, unless its payer said so itself and that still holds."""
    day = day_of(document.requested_at)
    document.terms = assess_all(
        rules,
        document.payer_id,
        member.plan,
        document.items,
        day,
        expedited=document.expedited,
        age=age_on(member.birth_date, day),
    )
    told = _answer(document, member)
    if told is not None:
        document.terms = document.terms.with_answer(told)


_STRICTNESS = (Course.ASK_PERSON, Course.SEEK, Course.SATISFIED, Course.NOT_REQUIRED)


def assess_all(
    rules: RuleBook,
    payer_id: str,
    plan: str | None,
    items: Sequence[Item],
    on: date,
    *,
    expedited: bool,
    age: int | None = None,
    member_known: bool = True,
) -> Terms:
    """The terms of a request with several items: of the item that demands most, with what any of them must bring."""
    found = [
        rules.assess(
            payer_id,
            plan,
            item.service,
            on=on,
            expedited=expedited,
            kind=item.kind,
            place=item.place,
            age=age,
            member_known=member_known,
        )
        for item in items
        if not item.dropped
    ]
    first = min(found, key=lambda terms: _STRICTNESS.index(terms.course[0]))
    if len(found) == 1:
        return first
    return first.model_copy(update={"needs": together(*(terms.needs for terms in found))})


def _answer(document: Authorization, member: Member) -> CoverageInformation | None:
    """What the payer said of this member and what is asked for, where it is one service and its word still holds."""
    asked = [item for item in document.items if not item.dropped]
    if len(asked) != 1 or not member.answers:
        return None
    day = day_of(document.requested_at)
    return standing_answer(member.answers, document.payer_id, document.coverage_id, asked[0].service, day)
