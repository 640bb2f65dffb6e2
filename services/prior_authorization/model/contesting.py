"""What is done about a denial: corrected and sent anew, talked over with the payer's physician, appealed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from pydantic import BaseModel

from services.prior_authorization.model.answers import Rejection
from services.prior_authorization.model.authorization import (
    CORRECTION,
    CORRECTION_EXPEDITED,
    SUBMISSION,
    SUBMISSION_EXPEDITED,
    TALK,
    TALK_WITHIN,
    Authorization,
    Kind,
    Owner,
    State,
    Submission,
    quiet,
    seal,
)
from services.prior_authorization.model.clocks import Limit, end_of, in_force
from services.prior_authorization.model.denials import (
    RESUBMISSIONS,
    Correction,
    Denial,
    Offer,
    PeerToPeer,
    TalkOutcome,
    Track,
    correctable,
    corrections_for,
    evidence_for,
    file_by,
    levels_of,
    track_of,
)
from services.prior_authorization.model.rules import AppealPolicy
from shared.contracts.base import Coding
from shared.contracts.scheduling import TalkBooked
from shared.kit.decisions import Facts
from shared.kit.document import derived_id
from shared.kit.errors import Conflict, IllegalTransition

CONTESTABLE = frozenset({State.DENIED, State.APPEALING})


class Resubmit(BaseModel):
    """What was refused is put right: the codes of the corrections made, and new diagnoses where those were wrong."""

    corrected: tuple[str, ...]
    diagnoses: tuple[Coding, ...] | None = None


class AskForTalk(BaseModel):
    """Ask the payer for a peer-to-peer; ``offers`` are the times at which its physician can be reached,
    ``clinician_id`` is whose calendar it is to have a place in."""

    offers: tuple[Offer, ...] = ()
    not_after: datetime | None = None
    clinician_id: str | None = None


class BookTalk(BaseModel):
    """Take the offered time that begins at ``start``."""

    start: datetime


class EndTalk(BaseModel):
    """How the talk ended."""

    outcome: TalkOutcome


# -- reading a denial -----------------------------------------------------------------------------------------------


def read_denial(document: Authorization, now: datetime) -> Denial:
    """What the denial that stands means, and what can be done about it until when."""
    ruling = document.current
    reasons = ruling.reasons if ruling else ()
    since = ruling.decided_at if ruling else now
    corrections = corrections_for(reasons)
    track = track_of(reasons)
    level = document.appeals + 1
    open_level = document.appeals < document.terms.appeal_levels and document.terms.appeal is not AppealPolicy.NONE
    return Denial(
        claim_id=ruling.claim_id if ruling else document.claim_id or document.id,
        track=track,
        reasons=reasons,
        since=since,
        corrections=corrections if track is Track.ADMINISTRATIVE else (),
        level=level if open_level else 0,
        level_name=_name_of(document, level) if open_level else None,
        file_by=_file_by(document, level, since) if open_level else None,
        evidence=evidence_for(track, reasons, level) if open_level else (),
    )


def to_correct(document: Authorization, denial: Denial) -> bool:
    """Whether the denial is to be corrected rather than appealed, and was not corrected too often already."""
    allowed = denial.track is Track.ADMINISTRATIVE and correctable(denial.corrections)
    return allowed and document.resubmissions < RESUBMISSIONS


def await_correction(document: Authorization, now: datetime) -> None:
    """A coordinator is to put right what the payer refused."""
    within = CORRECTION_EXPEDITED if document.expedited else CORRECTION
    document.expect(Owner.COORDINATOR, "correct-and-resubmit", now, within)


def reject(document: Authorization, claim_id: str, errors: Iterable[Rejection], now: datetime) -> bool:
    """The payer would not take a request because of its data: whether a person was asked to correct it.

    Not so where the payer forbids to send it again, or it was corrected too often: a person is called then, as for
    anything that a payer will not take.
    """
    corrections = corrections_for((), errors)
    if not correctable(corrections) or document.resubmissions >= RESUBMISSIONS:
        return False
    document.denial = Denial(
        claim_id=claim_id, track=Track.ADMINISTRATIVE, since=now, rejected=True, corrections=corrections
    )
    document.rest("submit")
    await_correction(document, now)
    return True


def _name_of(document: Authorization, level: int) -> str | None:
    levels = levels_of(document.terms.line_of_business)
    return levels[level - 1].name if level <= len(levels) else None


def _file_by(document: Authorization, level: int, since: datetime) -> date | None:
    """The last local day to file the appeal of a level: the first by the payer's clock, further ones by the table."""
    levels, calendar = levels_of(document.terms.line_of_business), document.terms.calendar
    rows = document.terms.clocks
    if level == 1 and rows:
        limit = Limit.parse(in_force(rows, calendar.day(since)).appeal_within)
        return calendar.day(end_of(limit, since, calendar) - timedelta(microseconds=1))
    return file_by(levels[min(level, len(levels)) - 1], calendar.day(since))


# -- correct and resubmit -------------------------------------------------------------------------------------------


def resubmit(document: Authorization, command: Resubmit, facts: Facts, now: datetime) -> Authorization:
    """Send the request anew, put right: a new claim, related to the refused one.

    Raises IllegalTransition where nothing waits to be corrected, Conflict while something is still to be put right.
    """
    denial = _correcting(document)
    mark(document, denial, set(command.corrected), now)
    if command.diagnoses is not None:
        document.diagnoses = command.diagnoses
    left = denial.outstanding
    if left:
        raise Conflict("still to be put right: " + ", ".join(each.code for each in left))
    send_anew(document, denial, now)
    return document


def send_anew(document: Authorization, denial: Denial, now: datetime) -> None:
    """A new claim, related to the one that was refused, is to be submitted."""
    number = document.resubmissions + 1
    id = derived_id(document.id, "resubmission", str(number))
    anew = Submission(
        id=id,
        kind=Kind.RESUBMISSION,
        prior=denial.claim_id,
        opened_at=now,
        attached=document.attached,
        snapshot=seal(document),
    )
    document.submissions = [*document.submissions, anew]
    document.resubmission_id = id
    document.failures = 0
    quiet(document)
    if document.state is not State.SUBMITTING:
        document.move(State.SUBMITTING)
    document.wake("submit", now)
    within = SUBMISSION_EXPEDITED if document.expedited else SUBMISSION
    document.expect(Owner.OPERATOR, "resubmission", now, within)


def _correcting(document: Authorization) -> Denial:
    denial, wait = document.denial, document.wait
    if denial is None or wait is None or wait.reason != "correct-and-resubmit":
        raise IllegalTransition("Authorization", document.state, State.SUBMITTING)
    return denial


def mark(document: Authorization, denial: Denial, codes: set[str], now: datetime) -> None:
    """Note which errors were put right now."""
    denial.corrections = tuple(
        _done(each, now) if each.code in codes and each.done_at is None else each for each in denial.corrections
    )


def _done(correction: Correction, now: datetime) -> Correction:
    return correction.model_copy(update={"done_at": now})


# -- peer to peer ---------------------------------------------------------------------------------------------------


def ask_for_talk(document: Authorization, command: AskForTalk, facts: Facts, now: datetime) -> Authorization:
    """Ask for a talk about a denial, or add times that the payer offers. Raises Conflict where it is too late."""
    denial = document.denial
    if document.state not in CONTESTABLE or denial is None:
        raise IllegalTransition("Authorization", document.state, State.DENIED)
    if denial.track is Track.ADMINISTRATIVE:
        raise Conflict("data are to be corrected: there is nothing to talk over")
    talk = document.talk
    if talk is None or talk.claim_id != denial.claim_id or talk.outcome is TalkOutcome.NOT_HELD:
        document.close_talk()
        until = command.not_after or denial.since + TALK_WITHIN
        talk = PeerToPeer(claim_id=denial.claim_id, requested_at=now, not_after=until)
    if talk.outcome is not None:
        raise Conflict("the talk about this denial was held")
    if now >= talk.not_after:
        raise Conflict("the payer no longer talks about this denial")
    offers = {offer.start: offer for offer in (*talk.offers, *command.offers) if now <= offer.start < talk.not_after}
    talk.offers = tuple(offers[start] for start in sorted(offers))
    document.talk = talk
    if command.clinician_id not in (None, talk.clinician_id):
        document.tell_talk_closed(TalkOutcome.NOT_HELD)
        talk.clinician_id = command.clinician_id
        talk.id = derived_id(
            document.id, "talk", denial.claim_id, talk.requested_at.isoformat(), str(talk.clinician_id)
        )
    document.offer_talk()
    if document.state is State.DENIED and talk.booked is None:
        document.expect(Owner.COORDINATOR, "peer-to-peer-to-be-booked", now, min(TALK, talk.not_after - now))
    return document


def book_talk(document: Authorization, command: BookTalk, facts: Facts, now: datetime) -> Authorization:
    """Take one of the offered times. Raises Conflict where it is not offered, or is past."""
    talk = _talk(document)
    offer = next((each for each in talk.offers if each.start == command.start), None)
    if offer is None or offer.start < now:
        raise Conflict("this time is not offered")
    talk.booked = talk.chosen = offer
    document.offer_talk()
    _await_outcome(document, offer, now)
    return document


def talk_placed(document: Authorization, event: TalkBooked, facts: Facts, now: datetime) -> Authorization:
    """The clinician's calendar has a place for the talk, within a time that the payer offers: that is when it is."""
    talk = document.talk
    if talk is None or talk.id != event.talk_id or talk.outcome is not None:
        return document
    talk.booked = Offer(start=event.start, end=event.end)
    _await_outcome(document, talk.booked, now)
    return document


def _await_outcome(document: Authorization, offer: Offer, now: datetime) -> None:
    if document.state is State.DENIED:
        document.expect(Owner.COORDINATOR, "peer-to-peer-outcome", now, max(offer.end - now, timedelta()) + TALK)


def end_talk(document: Authorization, command: EndTalk, facts: Facts, now: datetime) -> Authorization:
    """Note how the talk ended. Overturned: the payer owes its new decision, which alone changes the state.

    Upheld or not held: it is appealed or accepted. Raises Conflict where no talk was booked, or it has not begun.
    """
    talk = _talk(document)
    held = command.outcome is not TalkOutcome.NOT_HELD
    if held and (talk.booked is None or now < talk.booked.start):
        raise Conflict("no talk was booked that has begun")
    talk.held_at = now
    document.tell_talk_closed(command.outcome)
    talk.outcome = command.outcome
    if document.state is not State.DENIED:
        return document
    if command.outcome is TalkOutcome.OVERTURNED:
        document.expect(Owner.PAYER, "revised-decision", now, TALK)
        document.wake("poll", document.next_look(now))
    else:
        await_choice(document, now)
    return document


def await_choice(document: Authorization, now: datetime) -> None:
    """A coordinator is to appeal or to accept, before the last day to file."""
    from_now = timedelta(days=1) if document.expedited else timedelta(days=5)
    denial = document.denial
    if denial is not None and denial.file_by is not None:
        last = document.terms.calendar.midnight(denial.file_by + timedelta(days=1))
        from_now = max(min(from_now, last - now), timedelta())
    document.expect(Owner.COORDINATOR, "appeal-or-accept", now, from_now)


def _talk(document: Authorization) -> PeerToPeer:
    talk = document.talk
    if talk is None or talk.outcome is not None or document.state not in CONTESTABLE:
        raise Conflict("no talk is open")
    return talk


def refuse_too_late(document: Authorization, now: datetime) -> None:
    """Raise Conflict where the last day to file the appeal has passed, at the payer's place."""
    last = document.denial.file_by if document.denial else None
    if last is not None and document.terms.calendar.day(now) > last:
        raise Conflict(f"the last day to file this appeal was {last.isoformat()}")
