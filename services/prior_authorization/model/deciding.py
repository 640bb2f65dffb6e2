"""Taking a payer's answer in: its latest decision by its own date counts, whatever order its words arrive in.

- A pend after a decision, a repeat and an older decision change nothing but the history.
- A later decision that says something else is taken, with its history.
- Two decisions of one date that say different things contradict each other: the state stays, a person is called.
- An answer that cannot be used changes nothing; its reason is kept.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from services.prior_authorization.model.answers import GRANTED, PayerAnswer, Ruling, Source, Unusable, weigh
from services.prior_authorization.model.authorization import (
    APPEAL_CHOICE,
    CANCELLATION,
    CONTACT,
    FLAGGED,
    PATIENCE,
    SUBMISSION,
    Authorization,
    Kind,
    Owner,
    State,
    Submission,
    escalate,
    note,
    quiet,
)
from services.prior_authorization.model.rules import AppealPolicy
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationNotRequired,
    AuthorizationPended,
    AuthorizationRuled,
    AuthorizationSubmitted,
    ReviewAction,
)

_KEPT_RULINGS = 50

_SENDING = frozenset({Source.SUBMIT, Source.APPEAL})
"""Ways by which the answer comes at once: within 15 seconds of the payer's taking the claim (PAS 2.2.1)."""

_GOOD_NEWS = GRANTED | {ReviewAction.NO_ACTION_REQUIRED}


class Effect(Enum):
    """What became of an answer."""

    TAKEN = "taken"
    REPEATED = "repeated"
    SET_ASIDE = "set-aside"
    CONTRADICTED = "contradicted"
    UNUSABLE = "unusable"


def take(document: Authorization, answer: PayerAnswer, source: Source, now: datetime) -> Effect:
    """Fold one answer of the payer onto the authorization."""
    submission = document.submission(answer.claims)
    if submission is None:
        return unusable(document, "other-claim", source, now)
    weighed = weigh(answer, submission.id, document.sequences, source, now)
    if isinstance(weighed, Unusable):
        return unusable(document, weighed.reason, source, now)
    document.failures = document.refusals = 0
    if document.state is State.WITHDRAWN:
        return Effect.SET_ASIDE
    if source in _SENDING:
        submission.dated(weighed.decided_at)
    received(document, submission, now)
    if weighed.action is ReviewAction.PENDED:
        return _pend(document, submission, weighed.decided_at, now)
    return _rule(document, submission, weighed, now)


def unusable(document: Authorization, reason: str, source: Source, now: datetime) -> Effect:
    """Keep why an answer changes nothing; a person is called when the payer does not get it right."""
    note(document, reason, source, now)
    document.failures += 1
    if document.failures >= PATIENCE and document.state not in Authorization.terminal:
        escalate(document, now, owner=Owner.COORDINATOR, reason=reason, within=FLAGGED)
    return Effect.UNUSABLE


def received(document: Authorization, submission: Submission, now: datetime) -> None:
    """Note, once, that the payer has a claim; what the claim is decides what is announced."""
    if submission.received_at is not None:
        return
    submission.received_at = now
    if document.state is State.CANCELLING:
        return
    claim_id, began = submission.id, submission.began
    if submission.kind is Kind.APPEAL:
        level = submission.level
        document.record(
            AuthorizationAppealed(**document.announces(), level=level, claim_id=claim_id, received_at=began)
        )
    else:
        document.record(
            AuthorizationSubmitted(
                **document.announces(),
                claim_id=claim_id,
                received_at=began,
                payer_id=document.payer_id,
                service=document.service,
                expedited=document.expedited,
                line_of_business=document.terms.line_of_business,
            )
        )


def schedule_poll(document: Authorization, now: datetime) -> None:
    """Ask the payer again when its budget allows."""
    document.wake("poll", document.next_look(now))


def withdrawn(document: Authorization, reason: str) -> None:
    """It is over, by us."""
    quiet(document)
    document.move(State.WITHDRAWN)
    document.record(AuthorizationCancelled(**document.announces(), reason=reason))


def deny(document: Authorization, now: datetime) -> None:
    """A denial stands: appeal it as the payer's terms say, leave the choice to a person, or end it."""
    reasons = document.current.reasons if document.current else ()
    terms = document.terms
    open_level = document.appeals < terms.appeal_levels and terms.appeal is not AppealPolicy.NONE
    document.record(AuthorizationDenied(**document.announces(), reasons=reasons, final=not open_level))
    if not open_level:
        _become(document, State.DENIED_FINAL)
    elif terms.appeal is AppealPolicy.AUTOMATIC and document.appeals == 0:
        begin_appeal(document, now)
    else:
        _become(document, State.DENIED)
        document.expect(Owner.COORDINATOR, "appeal-or-accept", now, APPEAL_CHOICE)


def begin_appeal(document: Authorization, now: datetime) -> None:
    """Have an appeal of the denial that stands sent: a new claim, never an update of the denied one."""
    _become(document, State.APPEALING)
    document.wake("appeal", now)
    document.expect(Owner.OPERATOR, "appeal-to-be-sent", now, SUBMISSION)


def _pend(document: Authorization, submission: Submission, told: datetime, now: datetime) -> Effect:
    if submission.ruling is not None or submission.pended_at is not None or submission is not document.newest:
        return Effect.REPEATED
    submission.pended_at = now
    if document.state is State.CANCELLING:
        return Effect.REPEATED
    quiet(document)
    _become(document, State.PENDED if submission.kind is Kind.INITIAL else State.APPEALING)
    if submission.kind is Kind.INITIAL:
        document.record(
            AuthorizationPended(
                **document.announces(), payer_id=document.payer_id, claim_id=submission.id, pended_at=min(told, now)
            )
        )
    hours = document.terms.decision_hours if submission.kind is Kind.INITIAL else document.terms.appeal_hours
    since = submission.received_at or now
    document.expect(Owner.PAYER, "decision", now, max(since + timedelta(hours=hours) - now, timedelta()))
    schedule_poll(document, now)
    return Effect.TAKEN


def _rule(document: Authorization, submission: Submission, ruling: Ruling, now: datetime) -> Effect:
    known = submission.ruling
    if known is not None and known.says() == ruling.says():
        if ruling.age > known.age:
            # The payer still says so at a later time: what it says between the two is older news.
            told = {"decided_at": ruling.decided_at, "issued": ruling.issued}
            submission.ruling = known.model_copy(update=told)
        else:
            _look_back(document, submission, ruling, standing=True)
        return Effect.REPEATED
    if known is not None and ruling.age < known.age:
        _look_back(document, submission, ruling, standing=False)
        return Effect.SET_ASIDE
    if known is not None and ruling.age == known.age:
        return _contradict(document, ruling, now)
    submission.ruling = ruling
    _remember(document, ruling)
    _announce_ruling(document, submission, ruling, standing=True)
    if not _counts(document, submission, ruling):
        return Effect.SET_ASIDE
    if document.state is State.CANCELLING:
        return _while_cancelling(document, ruling)
    document.current = ruling
    _act(document, ruling, now)
    return Effect.TAKEN


def _counts(document: Authorization, submission: Submission, ruling: Ruling) -> bool:
    """Whether a ruling on this claim speaks for the authorization: the newest claim's does, an older one's good news
    does too, unless the newest was decided later."""
    newest = document.newest
    if newest is None or submission is newest:
        return True
    if ruling.action not in _GOOD_NEWS:
        return False
    return newest.ruling is None or newest.ruling.age < ruling.age


def _contradict(document: Authorization, ruling: Ruling, now: datetime) -> Effect:
    if any(known.says() == ruling.says() and known.age == ruling.age for known in document.contradictions):
        return Effect.REPEATED
    document.contradictions = [*document.contradictions, ruling][-_KEPT_RULINGS:]
    note(document, "contradiction", ruling.source, now)
    if document.state is not State.CANCELLING:
        escalate(document, now, owner=Owner.COORDINATOR, reason="contradiction", within=FLAGGED)
    return Effect.CONTRADICTED


def _while_cancelling(document: Authorization, ruling: Ruling) -> Effect:
    """Only the payer's word that it is cancelled changes anything now."""
    document.current = ruling
    if ruling.action is ReviewAction.CANCELLED:
        withdrawn(document, document.cancel_reason or "cancelled")
    return Effect.TAKEN


def _act(document: Authorization, ruling: Ruling, now: datetime) -> None:
    """What a decision that counts leads to. An appeal not yet sent is no longer wanted where the denial fell."""
    if ruling.action is ReviewAction.NOT_CERTIFIED and _still_denied(document):
        return
    quiet(document)
    if ruling.action in GRANTED:
        _approve(document, ruling)
    elif ruling.action is ReviewAction.NOT_CERTIFIED:
        deny(document, now)
    elif ruling.action is ReviewAction.CANCELLED:
        _become(document, State.CANCELLED)
        document.record(AuthorizationCancelled(**document.announces(), reason="payer"))
    elif ruling.action is ReviewAction.NO_ACTION_REQUIRED:
        _become(document, State.NO_ACTION)
        document.record(AuthorizationNotRequired(**document.announces(), rule="payer:NA"))
    else:
        _become(document, State.CONTACT_PAYER)
        escalate(document, now, owner=Owner.COORDINATOR, reason="contact-payer", within=CONTACT)
        schedule_poll(document, now)


def _still_denied(document: Authorization) -> bool:
    """Whether a denial changes no more than its reasons: one of the same claim is already being dealt with."""
    newest = document.newest
    if document.state in (State.DENIED, State.DENIED_FINAL):
        return True
    return document.state is State.APPEALING and newest is not None and newest.kind is Kind.INITIAL


def announce_standing(document: Authorization) -> None:
    """Say once more what was decided last, where that is a grant or its loss."""
    ruling, state = document.current, document.state
    reasons = ruling.reasons if ruling else ()
    if state is State.APPROVED and ruling is not None:
        _announce_approval(document, ruling)
    elif state in (State.DENIED, State.APPEALING, State.DENIED_FINAL):
        final = state is State.DENIED_FINAL
        document.record(AuthorizationDenied(**document.announces(), reasons=reasons, final=final))
    elif state in (State.CANCELLED, State.WITHDRAWN):
        reason = document.cancel_reason if state is State.WITHDRAWN else None
        document.record(AuthorizationCancelled(**document.announces(), reason=reason or "payer"))


def _approve(document: Authorization, ruling: Ruling) -> None:
    _become(document, State.APPROVED)
    _announce_approval(document, ruling)


def _announce_approval(document: Authorization, ruling: Ruling) -> None:
    units = ruling.units if ruling.units is not None else document.quantity
    document.record(
        AuthorizationApproved(
            **document.announces(),
            action=ruling.action,
            number=ruling.number or "",
            valid_from=ruling.valid_from,
            valid_to=ruling.valid_to,
            units_requested=document.quantity,
            units_granted=units,
        )
    )


def begin_cancelling(document: Authorization, now: datetime) -> None:
    """Tell the payer that its approval is no longer wanted."""
    quiet(document)
    document.move(State.CANCELLING)
    document.wake("cancel", now)
    document.expect(Owner.OPERATOR, "cancellation", now, CANCELLATION)


def _become(document: Authorization, state: State) -> None:
    if document.state is not state:
        document.move(state)


def _look_back(document: Authorization, submission: Submission, ruling: Ruling, *, standing: bool) -> None:
    """Take an older word than the one that stands into the history; told where it was not said as early before."""
    told = any(
        known.claim_id == ruling.claim_id and known.age <= ruling.age and known.says() == ruling.says()
        for known in document.history
    )
    _remember(document, ruling)
    if not told:
        _announce_ruling(document, submission, ruling, standing=standing)


def _announce_ruling(document: Authorization, submission: Submission, ruling: Ruling, *, standing: bool) -> None:
    initial = submission.kind is not Kind.APPEAL
    hours = document.terms.decision_hours if initial else document.terms.appeal_hours
    document.record(
        AuthorizationRuled(
            **document.announces(),
            payer_id=document.payer_id,
            line_of_business=document.terms.line_of_business,
            service=document.service,
            expedited=document.expedited,
            claim_id=submission.id,
            prior_claim_id=submission.prior,
            purpose=submission.kind,
            level=submission.level,
            received_at=submission.began,
            decided_at=ruling.decided_at,
            action=ruling.action,
            standing=standing,
            extended=ruling.decided_at - submission.began > timedelta(hours=hours),
        )
    )


def _remember(document: Authorization, ruling: Ruling) -> None:
    """Keep a ruling in the history, unless it is there or repeats the one before it by the payer's dates."""
    told = [known for known in document.history if known.claim_id == ruling.claim_id and known.age <= ruling.age]
    before = max(told, key=lambda known: known.age, default=None)
    if before is not None and before.says() == ruling.says():
        return
    document.history = [*document.history, ruling][-_KEPT_RULINGS:]
