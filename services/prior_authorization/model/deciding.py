"""Taking a payer's answer in: its latest decision by its own date counts, whatever order its words arrive in.

- A pend after a decision, a repeat and an older decision change nothing but the history.
- A later decision that says something else is taken, with its history.
- Two decisions of one date that say different things contradict each other: the state stays, a person is called.
- An answer that cannot be used changes nothing; its reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum

from services.prior_authorization.model.answers import (
    GRANTED,
    PayerAnswer,
    Ruling,
    Source,
    Unusable,
    differences,
    rejections,
    weigh,
)
from services.prior_authorization.model.authorization import (
    CANCELLATION,
    CONTACT,
    FLAGGED,
    OF_VISITS,
    PATIENCE,
    SUBMISSION,
    Authorization,
    Kind,
    Owner,
    State,
    Submission,
    ask_for,
    escalate,
    note,
    quiet,
    start_clock,
)
from services.prior_authorization.model.contesting import await_choice, await_correction, read_denial, to_correct
from services.prior_authorization.model.denials import Denial
from services.prior_authorization.model.items import Item
from services.prior_authorization.model.lifetime import look_ahead
from services.prior_authorization.model.lifetime import units as lifetime_units
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
    ItemDifference,
    ReviewAction,
    ServiceItem,
)

_KEPT_RULINGS = 50

_SENDING = frozenset({Source.SUBMIT, Source.UPDATE, Source.APPEAL})
"""Ways by which the answer comes at once: within 15 seconds of the payer's taking the claim (PAS 2.2.1)."""

UPDATABLE = frozenset({State.PENDED, State.APPROVED})
"""Where a payer takes an update: it has the request, and did not deny it (PAS 2.2.1)."""

UPDATE_AGAIN = timedelta(minutes=15)
"""How long after its last word a payer is sent an update again that it did not answer."""

_GOOD_NEWS = GRANTED | {ReviewAction.NO_ACTION_REQUIRED}

_OVER = frozenset({ReviewAction.NOT_CERTIFIED, ReviewAction.CANCELLED})


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
    weighed = weigh_for(document, submission, answer, source, now)
    if isinstance(weighed, Unusable):
        if weighed.rejects and submission.ruling is None:
            submission.errors = rejections(answer)
        return unusable(document, weighed.reason, source, now)
    if submission is document.update:
        adopt_update(document)
    submission.heard(weighed, rejections(answer))
    effect = _fold(document, submission, weighed, source, now)
    owed = submission is document.held and submission.ruling is None and document.state is not State.CANCELLING
    if weighed.action is ReviewAction.PENDED and owed and document.state is not State.WITHDRAWN:
        ask_for(document, submission, answer.asks, weighed.decided_at, now)
    resume_update(document, now)
    return effect


def weigh_for(
    document: Authorization, submission: Submission, answer: PayerAnswer, source: Source, now: datetime
) -> Ruling | Unusable:
    """What an answer means for one of the claims."""
    return weigh(answer, submission.id, document.asked_by(submission), source, now)


def differing(document: Authorization, ruling: Ruling) -> tuple[ItemDifference, ...]:
    """The items of the claim ruled on that were not granted as they were asked for."""
    submission = document.submission((ruling.claim_id,))
    items = document.asked_by(submission) if submission is not None else document.items
    return differences(ruling, items)


def adopt_update(document: Authorization) -> None:
    """The payer has the update: it is the newest claim, and what it asks for is what is asked for."""
    update = document.update
    if update is None:
        return
    for sent in document.submissions:
        if sent.items is None:
            sent.items = document.items
    document.items = document.asked_by(update)
    document.submissions = [*document.submissions, update]
    document.update = None


def resume_update(document: Authorization, now: datetime) -> None:
    """An update that waits to be sent goes on where the payer still takes one. Else it is given up, unless the payer
    may have it: its word on it is still listened to then."""
    update = document.update
    if update is None or document.state is State.CANCELLING:
        return
    if document.state in UPDATABLE:
        if "update" not in document.timers:
            document.wake("update", now + UPDATE_AGAIN if update.tried else now)
    elif not update.tried:
        document.update = None
        note(document, "update-overtaken", Source.UPDATE, now)


def _fold(document: Authorization, submission: Submission, weighed: Ruling, source: Source, now: datetime) -> Effect:
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
    if document.state is State.CANCELLING or (submission.kind is Kind.UPDATE and standing(document) is not None):
        return
    claim_id, began = submission.id, submission.began
    if submission.kind is Kind.APPEAL:
        document.record(
            AuthorizationAppealed(
                **document.announces(),
                level=submission.level,
                claim_id=claim_id,
                prior_claim_id=submission.prior,
                received_at=began,
            )
        )
    else:
        document.record(
            AuthorizationSubmitted(
                **document.announces(),
                claim_id=claim_id,
                received_at=began,
                payer_id=document.payer_id,
                service=document.service,
                kind=document.items[0].kind,
                expedited=document.expedited,
                line_of_business=document.terms.line_of_business,
                items=_each(document.items, None),
            )
        )


def _each(asked: Iterable[Item], ruling: Ruling | None) -> tuple[ServiceItem, ...]:
    """The items still asked for, where there are several, each with the payer's decision on it."""
    items = [item for item in asked if not item.dropped]
    words = {word.sequence: word.action for word in ruling.items} if ruling is not None else {}
    whole = ruling.action if ruling is not None else None
    return tuple(
        ServiceItem(
            sequence=item.sequence, service=item.service, kind=item.kind, action=words.get(item.sequence, whole)
        )
        for item in items
        if len(items) > 1
    )


def schedule_poll(document: Authorization, now: datetime) -> None:
    """Ask the payer again when its budget allows."""
    document.wake("poll", document.next_look(now))


def withdrawn(document: Authorization, reason: str) -> None:
    """It is over, by us."""
    quiet(document)
    document.move(State.WITHDRAWN)
    document.rest(*OF_VISITS)
    document.record(AuthorizationCancelled(**document.announces(), reason=reason))


def deny(document: Authorization, now: datetime) -> None:
    """A denial stands: correct its data, appeal it as the payer's terms say, leave that to a person, or end it."""
    denial = read_denial(document, now)
    final = not denial.level and not to_correct(document, denial)
    announce_denial(document, denial.reasons, final=final)
    _contest(document, denial, now)


def _contest(document: Authorization, denial: Denial, now: datetime) -> None:
    """What follows a denial. Wrong data are corrected, whatever the terms of appeal: that needs no appeal."""
    document.denial = denial
    if to_correct(document, denial):
        _become(document, State.DENIED)
        await_correction(document, now)
    elif not denial.level:
        _become(document, State.DENIED_FINAL)
    elif document.terms.appeal is AppealPolicy.AUTOMATIC and document.appeals == 0:
        begin_appeal(document, now)
    else:
        _become(document, State.DENIED)
        await_choice(document, now)


def announce_denial(document: Authorization, reasons: tuple[str, ...], *, final: bool) -> None:
    """Tell of the denial that stands; item by item where there are several."""
    ruling = document.current
    several = ruling is not None and len(ruling.items) > 1
    items = differing(document, ruling) if ruling is not None and several else ()
    document.record(AuthorizationDenied(**document.announces(), reasons=reasons, final=final, differences=items))


def begin_appeal(document: Authorization, now: datetime) -> None:
    """Have an appeal of the denial that stands sent: a new claim, never an update of the denied one."""
    _become(document, State.APPEALING)
    document.wake("appeal", now)
    document.expect(Owner.OPERATOR, "appeal-to-be-sent", now, SUBMISSION)


def _pend(document: Authorization, submission: Submission, told: datetime, now: datetime) -> Effect:
    if submission.ruling is not None or submission.pended_at is not None or submission is not document.held:
        return Effect.REPEATED
    submission.pended_at = now
    if document.state in (State.CANCELLING, State.DENIED_FINAL):
        return Effect.REPEATED
    if standing(document) is not None:
        _await_beside(document, submission, now)
        return Effect.REPEATED
    await_decision(document, submission, now)
    if submission.kind is not Kind.APPEAL:
        document.record(
            AuthorizationPended(
                **document.announces(), payer_id=document.payer_id, claim_id=submission.id, pended_at=min(told, now)
            )
        )
    return Effect.TAKEN


def _await_beside(document: Authorization, submission: Submission, now: datetime) -> None:
    """An update of what is decided is pended: the decision stands, and the payer owes one on what was changed."""
    if submission.kind is Kind.UPDATE and document.state in (State.APPROVED, State.DENIED):
        start_clock(document, now)
        schedule_poll(document, now)


def await_decision(document: Authorization, submission: Submission, now: datetime) -> None:
    """The payer has a claim and owes its decision within its clock."""
    quiet(document)
    _become(document, State.APPEALING if submission.kind is Kind.APPEAL else State.PENDED)
    start_clock(document, now)
    schedule_poll(document, now)


def standing(document: Authorization) -> Ruling | None:
    """The decision that speaks for the authorization: that on the newest claim the payer has, or good news on an older
    one that is dated later. None while the newest is undecided and no older one was granted. An undecided update leaves
    what was decided before it."""
    received = [submission for submission in document.submissions if submission.received_at is not None]
    while received and received[-1].kind is Kind.UPDATE and received[-1].ruling is None:
        received.pop()
    found = received[-1].ruling if received else None
    for older in reversed(received[:-1]):
        ruling = older.ruling
        if ruling is None or ruling.action not in _GOOD_NEWS:
            continue
        if found is None or ruling.age > found.age:
            found = ruling
    return found


def to_cancel(document: Authorization) -> Submission | None:
    """The claim that a cancellation is about: the one granted, else the newest the payer may have. None where that one
    was denied or cancelled: such a claim is not updated (PAS 2.2.1)."""
    stands = standing(document)
    if stands is not None and stands.action in _GOOD_NEWS:
        return document.submission((stands.claim_id,))
    newest = document.newest
    over = newest is not None and newest.ruling is not None and newest.ruling.action in _OVER
    return None if over else newest


def _rule(document: Authorization, submission: Submission, ruling: Ruling, now: datetime) -> Effect:
    known = submission.ruling
    if known is None or (known.says() != ruling.says() and ruling.age > known.age):
        submission.ruling = ruling
        _remember(document, ruling)
        _announce_ruling(document, submission, ruling, standing=True)
        return _follow(document, submission, ruling, Effect.SET_ASIDE, now)
    if known.says() == ruling.says():
        if ruling.age <= known.age:
            _look_back(document, submission, ruling, standing=True)
            return Effect.REPEATED
        # The payer still says so at a later time: what it says between the two is older news.
        told = {"decided_at": ruling.decided_at, "issued": ruling.issued}
        submission.ruling = known.model_copy(update=told)
        return _follow(document, submission, ruling, Effect.REPEATED, now)
    if ruling.age < known.age:
        _look_back(document, submission, ruling, standing=False)
        return Effect.SET_ASIDE
    return _contradict(document, ruling, now)


def _follow(document: Authorization, submission: Submission, ruling: Ruling, unless: Effect, now: datetime) -> Effect:
    """Go where the decision that stands now leads; ``unless`` is the effect where it is the one that stood before."""
    stands, before = standing(document), document.current
    if stands is not None and before is not None and _same(stands, before):
        return _overruled(document, submission, ruling, stands, unless, now)
    if document.state is State.CANCELLING:
        return _while_cancelling(document, ruling, now)
    if stands is not None:
        document.current = stands
        _act(document, stands, before, now)
        return Effect.TAKEN
    newest = document.held
    if newest is None or before is None or before.action not in _GOOD_NEWS:
        return unless
    # What was granted on the older claim was taken back, and the payer still owes its word on the newest.
    document.current = ruling
    await_decision(document, newest, now)
    document.record(AuthorizationDenied(**document.announces(), reasons=ruling.reasons, final=False))
    return Effect.TAKEN


def _overruled(
    document: Authorization, submission: Submission, ruling: Ruling, stands: Ruling, unless: Effect, now: datetime
) -> Effect:
    """A denial of an older claim that is dated after the grant of a newer one is for a person to look at."""
    if submission is document.held or unless is Effect.REPEATED:
        return unless
    denies = ruling.action is ReviewAction.NOT_CERTIFIED and stands.action in _GOOD_NEWS
    return _contradict(document, ruling, now) if denies and ruling.age > stands.age else unless


def _same(one: Ruling, other: Ruling) -> bool:
    return one.claim_id == other.claim_id and one.says() == other.says()


def _contradict(document: Authorization, ruling: Ruling, now: datetime) -> Effect:
    if any(known.says() == ruling.says() and known.age == ruling.age for known in document.contradictions):
        return Effect.REPEATED
    document.contradictions = [*document.contradictions, ruling][-_KEPT_RULINGS:]
    note(document, "contradiction", ruling.source, now)
    if document.state is not State.CANCELLING:
        escalate(document, now, owner=Owner.COORDINATOR, reason="contradiction", within=FLAGGED)
    return Effect.CONTRADICTED


def _while_cancelling(document: Authorization, ruling: Ruling, now: datetime) -> Effect:
    """Only the payer's word that it is cancelled, or denied, so that nothing may be cancelled, changes anything now."""
    document.current = ruling
    wanted = to_cancel(document)
    if ruling.action is ReviewAction.CANCELLED and (wanted is None or wanted.id == ruling.claim_id):
        withdrawn(document, document.cancel_reason or "cancelled")
    elif wanted is None:
        document.wake("cancel", now)
    return Effect.TAKEN


def _act(document: Authorization, ruling: Ruling, before: Ruling | None, now: datetime) -> None:
    """What a decision that counts leads to, and what that means for the visits that rely on it."""
    _go(document, ruling, before, now)
    look_ahead(document, now)


def _go(document: Authorization, ruling: Ruling, before: Ruling | None, now: datetime) -> None:
    """What a decision that counts leads to, ``before`` being the one that stood until now."""
    if ruling.action is ReviewAction.NOT_CERTIFIED and _still_denied(document, ruling, before):
        if document.state is State.DENIED:
            quiet(document)
            _contest(document, read_denial(document, now), now)
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
        start_clock(document, now)
        schedule_poll(document, now)


def _still_denied(document: Authorization, ruling: Ruling, before: Ruling | None) -> bool:
    """Whether a denial changes no more than its reasons: one of the same claim is already being dealt with, or a person
    has let it stand."""
    if document.state is State.DENIED_FINAL:
        return True
    same_claim = before is not None and before.claim_id == ruling.claim_id
    return same_claim and document.state in (State.DENIED, State.APPEALING, State.SUBMITTING)


def announce_standing(document: Authorization) -> None:
    """Say once more what was decided last, where that is a grant or its loss."""
    ruling, state = document.current, document.state
    reasons = ruling.reasons if ruling else ()
    if state is State.APPROVED and ruling is not None:
        _announce_approval(document, ruling)
    elif state in (State.DENIED, State.APPEALING, State.DENIED_FINAL):
        final = state is State.DENIED_FINAL
        announce_denial(document, reasons, final=final)
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
            differences=differing(document, ruling),
            units_used=lifetime_units(document)[1],
            replaces=document.replaces,
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
            kind=document.items[0].kind,
            expedited=document.expedited,
            claim_id=submission.id,
            prior_claim_id=submission.prior,
            purpose=submission.kind,
            level=submission.level,
            received_at=submission.began,
            decided_at=ruling.decided_at,
            action=ruling.action,
            standing=standing,
            human_reviewed=ruling.human_reviewed,
            items=_each(document.asked_by(submission), ruling),
            extended=submission.extended_days > 0 or ruling.decided_at - submission.began > timedelta(hours=hours),
        )
    )


def _remember(document: Authorization, ruling: Ruling) -> None:
    """Keep a ruling in the history, unless it is there or repeats the one before it by the payer's dates."""
    told = [known for known in document.history if known.claim_id == ruling.claim_id and known.age <= ruling.age]
    before = max(told, key=lambda known: known.age, default=None)
    if before is not None and before.says() == ruling.says():
        return
    document.history = [*document.history, ruling][-_KEPT_RULINGS:]
