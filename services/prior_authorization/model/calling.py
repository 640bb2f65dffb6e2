"""What is sent to the payer and when: submit, poll, appeal, cancel. Intentions before the call, outcomes after it.

A claim keeps its identifier over all attempts to get it across, so that the payer takes it once. What the payer will
not take as it is (a 4xx) is not sent again without a person; what it did not take, or answered in a way that cannot be
used, is sent again with decorrelated jitter, under the same identifier.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.prior_authorization.model.answers import (
    NOT_FOUND,
    Answered,
    PayerAnswer,
    Rejected,
    Source,
    Unreadable,
    Unusable,
    rejections,
    weigh,
)
from services.prior_authorization.model.authorization import (
    CANCELLATION,
    FLAGGED,
    GIVE_UP,
    Authorization,
    Kind,
    Owner,
    State,
    Submission,
    escalate,
    note,
    seal,
)
from services.prior_authorization.model.budget import QUERYABLE, next_fallback, retry_in
from services.prior_authorization.model.contesting import reject
from services.prior_authorization.model.deciding import (
    UPDATABLE,
    Effect,
    resume_update,
    standing,
    take,
    to_cancel,
    unusable,
    withdrawn,
)
from services.prior_authorization.model.denials import TalkOutcome
from services.prior_authorization.model.member import Lack, Member, lack
from services.prior_authorization.model.opening import lose_member
from services.prior_authorization.model.payer import Payer, payer_key
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from shared.kit.document import derived_id

Outcome = Answered | Unreadable | Rejected | Refused | Unanswered

POLLED = frozenset({State.PENDED, State.CONTACT_PAYER, State.APPEALING})

_REJECTABLE = frozenset({State.SUBMITTING, State.PENDED, State.APPEALING})
"""Where errors alone can lead to a correction: the payer has not decided."""

_BEHIND = timedelta(minutes=1)
"""How long a cancellation waits for the outcome of a call that is still out."""

_DAILY = timedelta(days=1)


# -- submit ---------------------------------------------------------------------------------------------------------


def prepare_submit(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """Intend to send the request; without a usable member wait for one again."""
    if document.state is not State.SUBMITTING or (document.newest and document.newest.received_at):
        return document
    missing = lack(facts.get(Member, document.patient_id), document.payer_id)
    if missing is not None and document.newest is None:
        lose_member(document, missing, now)
        return document
    if missing is not None:
        _stuck(document, missing, Source.SUBMIT, now)
        return document
    if document.newest is None and document.wanting:
        escalate(document, now, owner=Owner.COORDINATOR, reason="evidence-missing", within=FLAGGED)
        return document
    attempt = document.intend("submit", now)
    if document.newest is None:
        first = Submission(
            id=attempt.id, kind=Kind.INITIAL, opened_at=now, attached=document.attached, snapshot=seal(document)
        )
        document.submissions = [first]
        document.claim_id = attempt.id
    if document.newest is not None:
        document.sends(document.newest.id)
    return document


def may_submit(document: Authorization, facts: Facts, now: datetime) -> bool:
    """Whether the request is still wanted when it is about to be sent."""
    return document.state is State.SUBMITTING and _recognised(document, facts)


def settle_submit(document: Authorization, outcome: Outcome, facts: Facts, now: datetime) -> Authorization:
    """Fold the answer to the request."""
    _settle_sent(document, outcome, "submit", State.SUBMITTING, now)
    return document


# -- update ---------------------------------------------------------------------------------------------------------


def prepare_update(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """Intend to send the update that waits, while the payer still takes one."""
    resume_update(document, now)
    update = document.update
    if update is None or document.state not in UPDATABLE:
        return document
    missing = lack(facts.get(Member, document.patient_id), document.payer_id)
    if missing is not None:
        _stuck(document, missing, Source.UPDATE, now)
        return document
    document.intend("update", now)
    document.sends(update.id)
    update.tried = True
    return document


def may_update(document: Authorization, facts: Facts, now: datetime) -> bool:
    """Whether the update may still be sent when it is about to be: a denied request may not be updated (PAS 2.2.1)."""
    return document.update is not None and document.state in UPDATABLE and _recognised(document, facts)


def settle_update(document: Authorization, outcome: Outcome, facts: Facts, now: datetime) -> Authorization:
    """Fold the answer to an update. What the payer will not take leaves the request as it is, and a person is told."""
    source = Source.UPDATE
    if isinstance(outcome, Answered) and outcome.answer is not None:
        unusable = take(document, outcome.answer, source, now) is Effect.UNUSABLE
        if unusable and not take_rejection(document, outcome.answer, source, now) and _update_waits(document):
            _repeat(document, "update", now)
    elif not _update_waits(document):
        note(document, _reason(outcome), source, now)
    elif isinstance(outcome, Rejected):
        _refuse_update(document, outcome.reason, source, now)
    elif isinstance(outcome, Refused):
        _refused(document, "update", outcome, source, now)
    else:
        _again(document, "update", _reason(outcome), source, now)
    return document


def _refuse_update(document: Authorization, reason: str, source: Source, now: datetime) -> None:
    """The payer will not have the update: what it changes stays as it was, and a person is told."""
    document.update = None
    document.rest("update")
    note(document, "update-refused", source, now)
    _call_person(document, reason, source, now)


def _update_waits(document: Authorization) -> bool:
    return document.update is not None and document.state in UPDATABLE


# -- appeal ---------------------------------------------------------------------------------------------------------


def prepare_appeal(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """Intend to send an appeal of the claim that was denied: a claim of its own, related to that one."""
    newest = document.newest
    if document.state is not State.APPEALING or newest is None:
        return document
    if newest.kind is Kind.APPEAL and newest.received_at is not None and newest.ruling is None:
        return document
    missing = lack(facts.get(Member, document.patient_id), document.payer_id)
    if missing is not None:
        _stuck(document, missing, Source.APPEAL, now)
        return document
    attempt = document.intend("appeal", now)
    held, denied = document.held or newest, standing(document)
    if newest.kind is not Kind.APPEAL or newest.received_at is not None:
        denial = document.denial
        appeal = Submission(
            id=attempt.id,
            kind=Kind.APPEAL,
            level=document.appeals + 1,
            prior=denied.claim_id if denied is not None else held.id,
            opened_at=now,
            attached=document.attached,
            expedited=denial is not None and denial.expedited,
            snapshot=seal(document),
        )
        document.submissions = [*document.submissions, appeal]
        document.appeal_id = attempt.id
    if document.newest is not None:
        document.sends(document.newest.id)
    return document


def may_appeal(document: Authorization, facts: Facts, now: datetime) -> bool:
    """Whether the appeal is still wanted when it is about to be sent."""
    return document.state is State.APPEALING and _recognised(document, facts)


def settle_appeal(document: Authorization, outcome: Outcome, facts: Facts, now: datetime) -> Authorization:
    """Fold the answer to an appeal."""
    _settle_sent(document, outcome, "appeal", State.APPEALING, now)
    return document


# -- poll -----------------------------------------------------------------------------------------------------------


def prepare_poll(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """Intend to ask what became of a request, as often as the budget allows and no oftener than is needed."""
    newest = document.newest
    if newest is None or newest.received_at is None or not _undecided(document):
        return document
    if now - newest.received_at > QUERYABLE:
        note(document, "no-longer-queryable", Source.POLL, now)
        escalate(document, now, owner=Owner.COORDINATOR, reason="no-longer-queryable", within=FLAGGED)
        return document
    earliest = _earliest_poll(document, newest, facts, now)
    if now < earliest:
        document.wake("poll", earliest)
        return document
    missing = lack(facts.get(Member, document.patient_id), document.payer_id)
    if missing is not None:
        _stuck(document, missing, Source.POLL, now)
        return document
    document.intend("poll", now)
    document.polled_at = now
    document.polls += 1
    return document


def may_poll(document: Authorization, facts: Facts, now: datetime) -> bool:
    """Whether an answer is still waited for when the payer is about to be asked."""
    return _undecided(document) and _recognised(document, facts)


def settle_poll(document: Authorization, outcome: Outcome, facts: Facts, now: datetime) -> Authorization:
    """Fold the answer to an inquiry; where it brought no decision, ask again later."""
    named: float | None = None
    if isinstance(outcome, Answered) and outcome.answer is not None:
        unused = take(document, outcome.answer, Source.POLL, now) is Effect.UNUSABLE
        if unused and take_rejection(document, outcome.answer, Source.POLL, now):
            return document
    elif isinstance(outcome, Answered):
        unusable(document, NOT_FOUND, Source.POLL, now)
    elif isinstance(outcome, Refused):
        note(document, outcome.reason, Source.POLL, now)
        document.refusals += 1
        named = outcome.retry_after
    else:
        unusable(document, outcome.reason, Source.POLL, now)
    if _undecided(document):
        document.wake("poll", document.next_look(now, named))
    return document


def _undecided(document: Authorization) -> bool:
    """Whether the payer has the newest claim and owes a word on it that ends the wait."""
    newest, talk = document.newest, document.talk
    if newest is None or newest.received_at is None:
        return False
    pended_update = newest.kind is Kind.UPDATE and newest.ruling is None
    if document.state is State.DENIED:
        overturned = talk is not None and talk.claim_id == newest.id and talk.outcome is TalkOutcome.OVERTURNED
        return pended_update or overturned
    if document.state is State.APPROVED:
        return pended_update
    if document.state not in POLLED:
        return False
    return document.state is State.CONTACT_PAYER or newest.ruling is None


def _earliest_poll(document: Authorization, newest: Submission, facts: Facts, now: datetime) -> datetime:
    """The first time at which it may be asked about again: the floor, or the fallback where the payer notifies."""
    looked = max(filter(None, (document.polled_at, newest.received_at)), default=now)
    payer = facts.get(Payer, payer_key(document.payer_id))
    relaxed = document.state is State.CONTACT_PAYER or (payer is not None and payer.healthy(now))
    if relaxed:
        return next_fallback(document.hours, document.id, document.polls + 1, looked)
    return looked + timedelta(minutes=document.terms.poll_minutes)


# -- cancel ---------------------------------------------------------------------------------------------------------


def prepare_cancel(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """Intend to tell the payer that the request is withdrawn, once no other call of it is out."""
    if document.state is not State.CANCELLING:
        return document
    if set(document.attempts) - {"cancel"}:
        document.wake("cancel", now + _BEHIND)
        return document
    missing = lack(facts.get(Member, document.patient_id), document.payer_id)
    if missing is not None:
        _stuck(document, missing, Source.CANCEL, now)
        return document
    wanted = to_cancel(document)
    if wanted is None:
        withdrawn(document, document.cancel_reason or "cancelled")
        return document
    document.intend("cancel", now)
    if document.cancels != wanted.id:
        document.cancels, document.cancel_opened_at = wanted.id, now
        document.cancel_id = derived_id("cancellation", wanted.id)
        document.sends(document.cancel_id)
    return document


def may_cancel(document: Authorization, facts: Facts, now: datetime) -> bool:
    """Whether there still is something to cancel when it is about to be sent."""
    wanted = to_cancel(document)
    same = wanted is not None and wanted.id == document.cancels
    return same and document.state is State.CANCELLING and _recognised(document, facts)


def settle_cancel(document: Authorization, outcome: Outcome, facts: Facts, now: datetime) -> Authorization:
    """Fold the answer to a cancellation: over when the payer confirms it (C), or has no such claim."""
    if document.state is not State.CANCELLING:
        return document
    reason = document.cancel_reason or "cancelled"
    if isinstance(outcome, Rejected) and outcome.unknown_claim:
        withdrawn(document, reason)
    elif isinstance(outcome, Rejected):
        _call_person(document, outcome.reason, Source.CANCEL, now)
    elif isinstance(outcome, Refused):
        _refused(document, "cancel", outcome, Source.CANCEL, now)
    elif isinstance(outcome, Answered) and outcome.answer is not None:
        weighed = weigh(outcome.answer, document.cancel_id or "", document.items, Source.CANCEL, now)
        if isinstance(weighed, Unusable):
            _again(document, "cancel", weighed.reason, Source.CANCEL, now)
        elif weighed.action is ReviewAction.CANCELLED:
            document.current = weighed
            document.history = [*document.history, weighed]
            withdrawn(document, reason)
        else:
            _again(document, "cancel", "cancel-not-confirmed", Source.CANCEL, now)
    else:
        _again(document, "cancel", _reason(outcome), Source.CANCEL, now)
    return document


# -- shared steps ---------------------------------------------------------------------------------------------------


def _settle_sent(document: Authorization, outcome: Outcome, timer: str, sending: State, now: datetime) -> None:
    source = Source(timer)
    if document.state in (State.CANCELLING, State.WITHDRAWN):
        _note_late(document, outcome, source, now)
        return
    if isinstance(outcome, Answered) and outcome.answer is not None:
        unusable = take(document, outcome.answer, source, now) is Effect.UNUSABLE
        if unusable and not take_rejection(document, outcome.answer, source, now) and _unsent(document, sending):
            _repeat(document, timer, now)
    elif document.state is not sending or not _unsent(document, sending):
        note(document, _reason(outcome), source, now)
    elif isinstance(outcome, Rejected):
        _call_person(document, outcome.reason, source, now)
    elif isinstance(outcome, Refused):
        _refused(document, timer, outcome, source, now)
    else:
        _again(document, timer, _reason(outcome), source, now)


def _note_late(document: Authorization, outcome: Outcome, source: Source, now: datetime) -> None:
    """The answer to a claim that is being cancelled: it tells whether the payer has it, and nothing more."""
    if isinstance(outcome, Answered) and outcome.answer is not None:
        take(document, outcome.answer, source, now)
    else:
        note(document, _reason(outcome), source, now)


def take_rejection(document: Authorization, answer: PayerAnswer, source: Source, now: datetime) -> bool:
    """Where an answer that could not be used holds errors alone, of a claim that the payer still owes its word on: have
    them put right, and tell whether that is under way.

    A request is corrected and sent anew, an update is given up; what cannot be corrected so is for a person, and is not
    sent again without one.
    """
    sent = document.submission(answer.claims)
    if sent is None or not answer.rejects or sent.ruling is not None:
        return False
    if sent is document.update:
        _refuse_update(document, "update-rejected", source, now)
        return True
    if sent is not document.newest or document.state not in _REJECTABLE:
        return False
    if _correcting(document, sent):
        return True
    errors = rejections(answer)
    if sent.kind in (Kind.INITIAL, Kind.RESUBMISSION) and reject(document, sent.id, errors, now):
        document.breaches_at = None
        document.rest("poll", "breach")
    else:
        escalate(document, now, owner=Owner.COORDINATOR, reason=f"rejected-{errors[0].code}", within=CANCELLATION)
    return True


def _correcting(document: Authorization, sent: Submission) -> bool:
    """Whether a person has been asked to correct this claim."""
    denial, wait = document.denial, document.wait
    awaited = wait is not None and wait.reason == "correct-and-resubmit"
    return awaited and denial is not None and denial.rejected and denial.claim_id == sent.id


def _unsent(document: Authorization, sending: State) -> bool:
    return document.state is sending and document.unreceived is not None


def _refused(document: Authorization, timer: str, refused: Refused, source: Source, now: datetime) -> None:
    """Nothing was taken: send again when the payer said, for as long as it takes. The deadline calls a person."""
    note(document, refused.reason, source, now)
    document.refusals += 1
    document.wake(timer, now + retry_in(document.id, document.refusals, timer, refused.retry_after))


def _again(document: Authorization, timer: str, reason: str, source: Source, now: datetime) -> None:
    """An answer could not be used: keep why, and send again later."""
    unusable(document, reason, source, now)
    _repeat(document, timer, now)


def _repeat(document: Authorization, timer: str, now: datetime) -> None:
    if document.failures < GIVE_UP:
        document.wake(timer, now + retry_in(document.id, document.failures, timer, None))


def _call_person(document: Authorization, reason: str, source: Source, now: datetime) -> None:
    """The payer will not take it as it is: only a person can tell what to change."""
    note(document, reason, source, now)
    escalate(document, now, owner=Owner.COORDINATOR, reason=reason, within=CANCELLATION)


def _stuck(document: Authorization, missing: Lack, source: Source, now: datetime) -> None:
    """The payer cannot be told whom this is about: look again in a day, and let a person know."""
    note(document, missing, source, now)
    escalate(document, now, owner=Owner.COORDINATOR, reason=missing, within=FLAGGED)
    timer = source.value
    document.wake(timer, now + _DAILY)


def _recognised(document: Authorization, facts: Facts) -> bool:
    return lack(facts.get(Member, document.patient_id), document.payer_id) is None


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome, Answered):
        return NOT_FOUND
    return outcome.reason
