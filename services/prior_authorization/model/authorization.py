"""The authorization of one referral: its states, what it keeps of each claim sent, and the steps that decisions share.

Pure. The decisions themselves stand in ``opening`` (request, member, withdrawal), ``deciding`` (what the payer says),
``calling`` (what is sent to the payer, and when) and ``people`` (what coordinators do).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import model_validator

from services.prior_authorization.model.answers import AskAnswer, Rejection, Ruling
from services.prior_authorization.model.budget import Hours, Manner, next_poll
from services.prior_authorization.model.clocks import Running, run, run_appeal
from services.prior_authorization.model.denials import Denial, PeerToPeer, TalkOutcome
from services.prior_authorization.model.evidence import Evidence, Need, Snapshot, missing, snapshot
from services.prior_authorization.model.items import FIRST, Attachment, Item, Provider, one_item
from services.prior_authorization.model.rules import Terms
from services.prior_authorization.model.visits import Continuity, Visit, VisitStatus
from services.prior_authorization.model.wanted import WANTED, WITHIN, WITHIN_EXPEDITED, Wanted, take_asks
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import (
    AuthorizationEscalated,
    AuthorizationPeerToPeerClosed,
    AuthorizationPeerToPeerOffered,
    Breach,
    ReviewAction,
    TalkWindow,
)
from shared.kit.document import Document, Part

AWAIT_MEMBER = timedelta(days=2)
CHOICE = timedelta(days=2)
EVIDENCE = timedelta(days=3)
EVIDENCE_EXPEDITED = timedelta(hours=12)
SUBMISSION = timedelta(days=1)
SUBMISSION_EXPEDITED = timedelta(hours=4)
CONTACT = timedelta(days=2)
APPEAL_CHOICE = timedelta(days=5)
CANCELLATION = timedelta(days=2)
CORRECTION = timedelta(days=3)
CORRECTION_EXPEDITED = timedelta(days=1)
TALK = timedelta(days=2)
TALK_WITHIN = timedelta(days=14)
"""How long after a denial payers talk it over, where they do not say otherwise."""

FLAGGED = timedelta(days=2)

PATIENCE = 3
"""After so many unusable answers in a row a person is called."""

GIVE_UP = 6
"""After so many unusable answers in a row to one kind of call it is no longer repeated without a person."""

_KEPT_TROUBLES = 20

ITEM = FIRST
"""The first item of a request, and the only one where a referral asked for it."""


CLAIM_FIELDS = ("claim_ids", "claim_id", "appeal_id", "update_id", "resubmission_id")
"""Where the identifiers of claims are found by: all of them; the latest of each kind, as they were kept before."""


class State(StrEnum):
    """Where the authorization of a referral stands."""

    AWAITING_MEMBER = "awaiting-member"
    AWAITING_CHOICE = "awaiting-choice"
    AWAITING_EVIDENCE = "awaiting-evidence"
    SUBMITTING = "submitting"
    PENDED = "pended"
    CONTACT_PAYER = "contact-payer"
    APPROVED = "approved"
    NO_ACTION = "no-action-required"
    DENIED = "denied"
    APPEALING = "appealing"
    DENIED_FINAL = "denied-final"
    CANCELLED = "cancelled"
    CANCELLING = "cancelling"
    NOT_REQUIRED = "not-required"
    WITHDRAWN = "withdrawn"


class Owner(StrEnum):
    """Who owes the next step of a wait."""

    COORDINATOR = "coordinator"
    OPERATOR = "operator"
    PAYER = "payer"


class Kind(StrEnum):
    """Why a claim was sent."""

    INITIAL = "initial"
    UPDATE = "update"
    APPEAL = "appeal"
    RESUBMISSION = "resubmission"


class Submission(Part):
    """One claim sent to the payer. ``id`` is Claim.identifier for ever, whatever attempts it takes to get it there.

    ``items`` are those it was sent with (None: the authorization's), ``attached`` the numbers of what went along.
    """

    id: str
    kind: Kind
    level: int = 0
    prior: str | None = None
    opened_at: datetime
    received_at: datetime | None = None
    taken_at: datetime | None = None
    """When the payer took it, by the payer's own date on its answer to the sending."""
    pended_at: datetime | None = None
    items: tuple[Item, ...] | None = None
    attached: tuple[int, ...] = ()
    tried: bool = False
    """Whether an update may have reached the payer."""
    ruling: Ruling | None = None
    extends: bool = False
    """Whether an update asks that an approval be extended (X12 1322, 4)."""
    expedited: bool = False
    """Whether an appeal is itself expedited; the request's urgency is the authorization's."""
    extended_days: int = 0
    """Calendar days by which the payer extended its time."""
    snapshot: Snapshot | None = None
    """What it was sent with."""
    breached_at: datetime | None = None
    """When it was told that the payer's time ran out."""
    interim: Ruling | None = None
    """What the payer said of some items while it decides the others."""
    errors: tuple[Rejection, ...] = ()
    """What the payer last found wrong with it."""

    def heard(self, told: Ruling, errors: tuple[Rejection, ...]) -> None:
        """Keep what the payer said of it beside its decision, where that is its latest word."""
        latest = max((each.age for each in (self.ruling, self.interim) if each is not None), default=None)
        if latest is not None and told.age < latest:
            return
        self.errors = errors
        if told.action is not ReviewAction.PENDED:
            self.interim = None
        elif self.ruling is None and {word.action for word in told.items} != {ReviewAction.PENDED}:
            self.interim = told

    def dated(self, told: datetime) -> None:
        """The payer answered the sending of this claim, and dated its answer."""
        at = max(told, self.opened_at)
        self.taken_at = at if self.taken_at is None else min(at, self.taken_at)

    @property
    def began(self) -> datetime:
        """From when the payer has had it: by its own date, where that lies before we knew."""
        return min(filter(None, (self.taken_at, self.received_at)), default=self.opened_at)


class Trouble(Part):
    """Something a payer said or did not say that changed nothing: a code, where it came from, when."""

    reason: str
    source: str
    at: datetime


DECISION = "decision"
"""What a payer is waited for; the deadline of that wait is the end of its clock."""

_WORDS = frozenset(
    {
        State.PENDED,
        State.CONTACT_PAYER,
        State.APPROVED,
        State.NO_ACTION,
        State.DENIED,
        State.APPEALING,
        State.DENIED_FINAL,
        State.CANCELLED,
    }
)
"""Where a payer's word can lead from wherever it is listened to; its later word may always be another."""


_PREPARED = frozenset({State.SUBMITTING, State.NOT_REQUIRED, State.APPROVED, State.WITHDRAWN})
"""Where a request that was not sent yet can come: sent, not needed, approved already (satisfied), not wanted."""

_UNDECIDED = frozenset({State.PENDED, State.CONTACT_PAYER, State.APPROVED, State.DENIED, State.APPEALING})
"""Where a payer can owe its word on the newest claim: of an update also when what was before is decided."""

UNSENT = frozenset({State.AWAITING_MEMBER, State.AWAITING_CHOICE, State.AWAITING_EVIDENCE})
"""Where nothing was sent, and what is known of member, requirement and evidence may still change everything."""


def _after(state: State, *more: State) -> frozenset[State]:
    return (_WORDS - {State.PENDED, state}) | frozenset(more)


class Authorization(Document):
    """A payer's approval for one referral; the id follows from ``referral_id``. Holds no personal data but ids."""

    collection = "authorization"
    shape_known = 2
    indexes = (
        "referral_id",
        "patient_id",
        "payer_id",
        "state",
        "claim_ids",
        "claim_id",
        "appeal_id",
        "update_id",
        "resubmission_id",
        "breaches_at",
    )
    listings = (("payer_id", "breaches_at"), ("payer_id", "state"))
    transitions: ClassVar = {
        State.AWAITING_MEMBER: _PREPARED | {State.AWAITING_CHOICE, State.AWAITING_EVIDENCE},
        State.AWAITING_CHOICE: _PREPARED | {State.AWAITING_EVIDENCE},
        State.AWAITING_EVIDENCE: _PREPARED | {State.AWAITING_CHOICE},
        State.SUBMITTING: _WORDS | {State.AWAITING_MEMBER, State.CANCELLING, State.WITHDRAWN},
        State.PENDED: _after(State.PENDED, State.SUBMITTING, State.CANCELLING),
        State.CONTACT_PAYER: _after(State.CONTACT_PAYER, State.CANCELLING),
        State.APPROVED: _after(State.APPROVED, State.CANCELLING, State.WITHDRAWN),
        State.NO_ACTION: _after(State.NO_ACTION),
        State.DENIED: _after(State.DENIED, State.SUBMITTING, State.WITHDRAWN),
        State.APPEALING: _after(State.APPEALING, State.CANCELLING, State.WITHDRAWN),
        State.DENIED_FINAL: _after(State.DENIED_FINAL) - {State.DENIED, State.APPEALING},
        State.CANCELLED: _after(State.CANCELLED),
        State.CANCELLING: frozenset({State.WITHDRAWN}),
        State.NOT_REQUIRED: frozenset(),
        State.WITHDRAWN: frozenset(),
    }
    terminal: ClassVar = frozenset({State.NOT_REQUIRED, State.WITHDRAWN})
    queues: ClassVar = {"poll": "poll"}
    callees: ClassVar = {"": "payer_id", "poll": "payer_id"}

    shape: int = 2
    state: State = State.AWAITING_MEMBER
    referral_id: str
    patient_id: str
    coverage_id: str
    payer_id: str
    items: tuple[Item, ...]
    diagnoses: tuple[Coding, ...] = ()
    providers: tuple[Provider, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    expedited: bool = False
    specialist_id: str | None = None
    opened_for: str
    """The payer it was opened for."""
    share: int = 0
    """The share of that payer it fell to when it was opened; others may be with other workers."""
    requested_at: datetime
    terms: Terms

    submissions: list[Submission] = []
    update: Submission | None = None
    """An update that the payer is not known to have; the authorization's items are changed when it has."""
    updates: int = 0
    """How many updates were asked for."""
    replaces: str | None = None
    """The denied authorization that this one was opened in place of."""
    renews: str | None = None
    """The approved authorization whose care goes on with this one."""
    renewed_number: str | None = None
    """The payer's number of that one."""
    claim_ids: tuple[str, ...] = ()
    """The identifiers of all claims that a payer may have, those that call one off too."""
    claim_id: str | None = None
    appeal_id: str | None = None
    update_id: str | None = None
    resubmission_id: str | None = None
    cancel_id: str | None = None
    cancels: str | None = None
    """The claim that ``cancel_id`` calls off."""
    cancel_opened_at: datetime | None = None
    cancel_reason: str | None = None
    carried_to: str | None = None
    """The alternative referral that relies on this approval since its own was rejected by the specialist."""
    current: Ruling | None = None
    history: list[Ruling] = []
    contradictions: list[Ruling] = []
    denial: Denial | None = None
    """The denial or rejection that was looked into last; what stands is in ``current``."""
    talk: PeerToPeer | None = None
    visits: list[Visit] = []
    transferred_to: str | None = None
    """The authorization that was opened with the payer who covers the patient now, or would have been."""
    continuity: Continuity | None = None
    retrospective: bool = False
    """Whether the service was given before it was asked for."""
    extended_from: date | None = None
    """The end of the approval for which an extension was asked last."""
    troubles: list[Trouble] = []
    failures: int = 0
    """Unusable answers in a row."""
    refusals: int = 0
    """How often in a row a call was not taken at all."""
    notified: tuple[str, ...] = ()
    """The notifications taken last, by what makes them one."""
    polled_at: datetime | None = None
    polls: int = 0
    wanted: tuple[Wanted, ...] = ()
    """What the payer asked for before it decides."""
    evidence: tuple[Evidence, ...] = ()
    """What is there to be sent with it; each claim keeps what it was sent with."""
    chosen: bool = False
    """Whether a person said that it is to be sought although the service may not be covered, or not by us."""
    changed_at: datetime | None = None
    """When it last changed, as the kit wrote it; None of what has not changed since that is kept."""
    breaches_at: datetime | None = None
    """The end of the payer's clock while it runs; what breaches first is found by it."""

    @model_validator(mode="before")
    @classmethod
    def _of_shape_one(cls, raw: Any) -> Any:
        """Shape 1 had ``service`` and ``quantity``, which are the first item's."""
        if not isinstance(raw, dict) or "service" not in raw:
            return raw
        fields = {name: value for name, value in raw.items() if name not in ("service", "quantity")}
        if "items" not in fields:
            service = Coding.model_validate(raw["service"])
            fields |= {"items": one_item(service, raw.get("quantity", 1)), "shape": 2}
        return fields

    def slot_key(self) -> str:
        """One share of a payer is called by one worker. Never changes: the slot is fixed when it is stored."""
        return self.opened_for if self.share == 0 else f"{self.opened_for}#{self.share}"

    @property
    def service(self) -> Coding:
        """What is asked for, where it is one service: the first item's."""
        return self.items[0].service

    @property
    def quantity(self) -> int:
        """How many units are asked for, of all items that still are."""
        return sum(item.quantity for item in self.items if not item.dropped)

    def asked_by(self, submission: Submission) -> tuple[Item, ...]:
        """The items that a claim was sent with."""
        return submission.items if submission.items is not None else self.items

    @property
    def attached(self) -> tuple[int, ...]:
        """The numbers of what goes along with a claim that is sent now."""
        return tuple(attachment.sequence for attachment in self.attachments)

    @property
    def newest(self) -> Submission | None:
        """The claim sent last."""
        return self.submissions[-1] if self.submissions else None

    @property
    def unreceived(self) -> Submission | None:
        """The newest claim, where the payer is not known to have it."""
        newest = self.newest
        return newest if newest is not None and newest.received_at is None else None

    @property
    def appeals(self) -> int:
        """How many levels of appeal the payer has received."""
        return sum(1 for sent in self.submissions if sent.kind is Kind.APPEAL and sent.received_at is not None)

    @property
    def resubmissions(self) -> int:
        """How often the request was corrected and sent anew."""
        return sum(1 for sent in self.submissions if sent.kind is Kind.RESUBMISSION)

    @property
    def booked_visits(self) -> list[Visit]:
        """The visits to come, the earliest first."""
        booked = (visit for visit in self.visits if visit.status is VisitStatus.BOOKED)
        return sorted(booked, key=lambda visit: (visit.start, visit.appointment_id))

    @property
    def hours(self) -> Hours:
        """The payer's working hours."""
        return Hours(self.terms.timezone, self.terms.opens, self.terms.closes)

    @property
    def wanting(self) -> tuple[Need, ...]:
        """What must be sent with the request and is not there."""
        return missing(self.terms.needs, self.evidence, day_of(self.requested_at))

    @property
    def asked_of_us(self) -> tuple[Wanted, ...]:
        """What the payer that has not decided yet asks for and was not sent."""
        held = self.held
        if held is None or held.ruling is not None or self.state not in _UNDECIDED:
            return ()
        sent = {submission.id for submission in (*self.submissions, *filter(None, (self.update,)))}
        return tuple(each for each in self.wanted if each.supplied_by not in sent)

    @property
    def held(self) -> Submission | None:
        """The newest claim that the payer is known to have."""
        return next((sent for sent in reversed(self.submissions) if sent.received_at is not None), None)

    @property
    def clock(self) -> Running | None:
        """The payer's clock on the newest claim that it has; None where it has none."""
        held = self.held
        if held is None:
            return None
        terms, calendar, days = self.terms, self.terms.calendar, held.extended_days
        rows = terms.clocks or terms.by_hours
        if held.kind is Kind.APPEAL:
            urgent = held.expedited or self.expedited
            return run_appeal(rows, calendar, held.began, expedited=urgent, extended_days=days)
        return run(rows, calendar, held.began, extended_days=days)

    def next_look(self, now: datetime, named: float | None = None) -> datetime:
        """When the payer is to be asked next what became of the newest claim; ``named`` seconds are what it said."""
        newest = self.newest
        since = (newest.received_at if newest is not None else None) or now
        floor = timedelta(minutes=self.terms.poll_minutes)
        return next_poll(Manner(self.hours, floor, self.expedited, now - since), self.id, self.polls + 1, now, named)

    def sends(self, claim_id: str) -> None:
        """A claim of this identifier is about to be sent: whatever a payer says of it from now on is found by it."""
        if claim_id not in self.claim_ids:
            self.claim_ids = (*self.claim_ids, claim_id)

    def submission(self, claims: tuple[str, ...]) -> Submission | None:
        """The claim that the first of these identifiers which names one of ours names."""
        known = self.submissions if self.update is None else [*self.submissions, self.update]
        return next((sent for claim in claims for sent in known if sent.id == claim), None)

    def move(self, to: StrEnum) -> None:
        """Go to another state; there is nothing to talk over where no denial is contested."""
        super().move(to)
        if to not in (State.DENIED, State.APPEALING):
            self.close_talk()

    def offer_talk(self) -> None:
        """Tell at which times a talk may be, where it is to have a place in a clinician's calendar."""
        talk = self.talk
        if talk is None or talk.id is None or talk.clinician_id is None or not talk.offers:
            return
        windows = tuple(TalkWindow(start=offer.start, end=offer.end) for offer in talk.offers)
        chosen = TalkWindow(start=talk.chosen.start, end=talk.chosen.end) if talk.chosen is not None else None
        self.record(
            AuthorizationPeerToPeerOffered(
                **self.announces(),
                talk_id=talk.id,
                clinician_id=talk.clinician_id,
                offers=windows,
                chosen=chosen,
                not_after=talk.not_after,
            )
        )

    def close_talk(self) -> None:
        """No talk is wanted any more, if one was open."""
        if self.talk is not None and self.talk.outcome is None:
            self.tell_talk_closed(TalkOutcome.NOT_HELD)
            self.talk.outcome = TalkOutcome.NOT_HELD

    def tell_talk_closed(self, outcome: TalkOutcome) -> None:
        """Have the clinician's calendar hear how an open talk ended."""
        if self.talk is not None and self.talk.id is not None and self.talk.outcome is None:
            self.record(AuthorizationPeerToPeerClosed(**self.announces(), talk_id=self.talk.id, outcome=outcome))

    def announces(self) -> dict[str, str]:
        """What every event of this document says of it: whose it is, and which referral relies on it now."""
        referral_id = self.carried_to or self.referral_id
        return {"authorization_id": self.id, "referral_id": referral_id, "patient_id": self.patient_id}


OF_VISITS = frozenset({"visit", "expiry"})
"""Timers that follow from visits, whatever is waited for."""


def seal(document: Authorization, items: tuple[Item, ...] | None = None) -> Snapshot:
    """What a claim is sent with from now on, whatever is added later; ``items`` where they are not the document's."""
    asked = document.model_dump(include={"payer_id", "coverage_id", "items", "diagnoses", "providers", "expedited"})
    if items is not None:
        asked["items"] = [item.model_dump() for item in items]
    return snapshot(asked, tuple(piece for piece in document.evidence if piece.held))


def quiet(document: Authorization) -> None:
    """Nothing is waited for and nothing is due any more, but the outcomes of calls that were begun, and visits.

    The timer of an open attempt stays: without it nobody would find the attempt again after a crash.
    """
    document.met()
    document.breaches_at = None
    document.rest(*(set(document.timers) - set(document.attempts) - OF_VISITS))


def start_clock(document: Authorization, now: datetime) -> None:
    """The payer owes a decision until its clock ends: that is what is waited for, unless a person is owed more."""
    clock = document.clock
    if clock is None:
        return
    document.breaches_at = clock.deadline
    if document.wait is None:
        document.expect(Owner.PAYER, DECISION, now, max(clock.deadline - now, timedelta()))
    elif document.wait.reason != DECISION:
        document.wake("breach", clock.deadline)


def ask_for(
    document: Authorization, submission: Submission, asks: Iterable[AskAnswer], told: datetime, now: datetime
) -> None:
    """The payer asks for more before it decides: a coordinator owes it, while the payer's clock goes on."""
    added = take_asks(document, submission.id, asks, told)
    if not added.wanted:
        return
    within = WITHIN_EXPEDITED if document.expedited else WITHIN
    if added.until is not None:
        within = max(added.until - now, timedelta())
    if document.wait is not None and document.wait.reason not in (DECISION, WANTED):
        return  # A person is owed something else first; the event tells of this.
    document.expect(Owner.COORDINATOR, WANTED, now, within)
    if document.breaches_at is not None:
        document.wake("breach", document.breaches_at)


def check_clock(document: Authorization, now: datetime) -> bool:
    """Tell, once for each deadline, that the payer's clock has ended undecided; whether it was told now."""
    held, clock, ends = document.held, document.clock, document.breaches_at
    if held is None or clock is None or held.breached_at is not None or ends is None or now < ends:
        return False
    held.breached_at = now
    announce_breach(document, clock)
    return True


def escalate(document: Authorization, now: datetime, *, owner: Owner, reason: str, within: timedelta) -> None:
    """Call a person before the deadline: the wait as it stands, or a new one, is escalated, once."""
    if document.wait is None:
        document.expect(owner, reason, now, within)
    wait = document.wait
    if wait is None or wait.escalated_at is not None:
        return
    wait.escalated_at = now
    document.rest("deadline")
    if wait.reason == DECISION:
        document.wake("breach", wait.deadline)
    announce_escalation(document, reason)


def announce_escalation(document: Authorization, reason: str | None = None) -> None:
    """Record the escalation of the wait as it stands; ``reason`` where that is not what is waited for."""
    wait = document.wait
    if wait is None:
        return
    document.record(
        AuthorizationEscalated(
            **document.announces(),
            state=document.state,
            since=wait.since,
            deadline=wait.deadline,
            owner=wait.owner,
            reason=reason or wait.reason,
        )
    )


def announce_breach(document: Authorization, clock: Running) -> None:
    """Record that the payer's clock has ended without a decision, with what shows it."""
    document.record(
        AuthorizationEscalated(
            **document.announces(),
            state=document.state,
            since=clock.received_at,
            deadline=clock.deadline,
            owner=Owner.PAYER,
            reason="payer-late",
            breach=_evidence(document, clock),
        )
    )


def _evidence(document: Authorization, clock: Running) -> Breach:
    """What shows that the payer is late: the limit and its source, receipt, deadline, what was asked, its last word."""
    held = document.held
    word = (ReviewAction.PENDED, held.pended_at) if held is not None and held.pended_at else (None, None)
    if document.current is not None and (word[1] is None or document.current.taken_at > word[1]):
        word = (document.current.action, document.current.taken_at)
    return Breach(
        payer_id=document.payer_id,
        line_of_business=document.terms.line_of_business,
        expedited=document.expedited,
        limit=clock.limit,
        basis=clock.basis,
        in_force_from=clock.since,
        received_at=clock.received_at,
        deadline=clock.deadline,
        extended_days=clock.extended_days,
        inquiries=document.polls,
        inquired_at=document.polled_at,
        last_word=word[0],
        last_word_at=word[1],
    )


def note(document: Authorization, reason: str, source: str, now: datetime) -> None:
    """Keep that something went wrong, without changing anything else."""
    trouble = Trouble(reason=reason, source=source, at=now)
    document.troubles = [*document.troubles, trouble][-_KEPT_TROUBLES:]


def day_of(at: datetime) -> date:
    """The UTC day that rules and dates are looked up by."""
    return at.date()
