"""The referral: what is known of it, and the rule that leads it from stage to stage as its needs are met.

A decision writes down a fact (the packet is complete, the payer approved, the patient did not come) and calls
``proceed``, which goes on as far as the facts reach, back where they no longer do, and sets the wait for what is owed.
So facts may arrive in any order, and the same facts end in the same state.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import ClassVar

from services.referrals.model.packet import GENERAL, PacketItem, PacketKind, documents, snapshot_hash, wanting
from services.referrals.model.person import Cover, Person, Registration
from services.referrals.model.stages import (
    APPEAL,
    DUTIES,
    NEXT,
    PAYMENT_MATTERS,
    TERMINAL,
    TRANSITIONS,
    VISIT_WITHIN,
    Duty,
    Reason,
    State,
)
from shared.contracts.base import Coding
from shared.contracts.intake import CoverageStatus
from shared.contracts.prior_authorization import ItemDifference
from shared.contracts.referrals import (
    AuthorizationRequested,
    CarriedAuthorization,
    Priority,
    ReferralAccepted,
    ReferralAttended,
    ReferralFailed,
    ReferralPacketCompleted,
    ReferralScheduled,
    ReferralUnscheduled,
    SpecialistWanted,
)
from shared.kit.document import Document, Part


class OrderStatus(StrEnum):
    """FHIR R4 ServiceRequest.status, as the order came in."""

    DRAFT = "draft"
    ACTIVE = "active"
    ON_HOLD = "on-hold"
    REVOKED = "revoked"
    COMPLETED = "completed"
    ENTERED_IN_ERROR = "entered-in-error"
    UNKNOWN = "unknown"


class AuthorizationStatus(StrEnum):
    """What prior_authorization last said. Denied is open to appeal; refused is final."""

    REQUESTED = "requested"
    SUBMITTED = "submitted"
    PENDED = "pended"
    DENIED = "denied"
    APPEALED = "appealed"
    APPROVED = "approved"
    NOT_REQUIRED = "not-required"
    REFUSED = "refused"
    CANCELLED = "cancelled"


GRANTED = frozenset({AuthorizationStatus.APPROVED, AuthorizationStatus.NOT_REQUIRED})
LOST = frozenset({AuthorizationStatus.REFUSED, AuthorizationStatus.CANCELLED})


class Authorization(Part):
    """The payer's approval for this referral. Dates inclusive. ``granted_before`` says that it once held.

    ``specialist_id`` is whom it was asked for by name: then it holds for nobody else.
    """

    status: AuthorizationStatus
    coverage_id: str
    payer_id: str
    specialist_id: str | None = None
    authorization_id: str | None = None
    rule: str | None = None
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units_requested: int | None = None
    units_granted: int | None = None
    differences: tuple[ItemDifference, ...] = ()
    reasons: tuple[str, ...] = ()
    appeals: int = 0
    granted_before: bool = False

    def carried(self, on: date) -> CarriedAuthorization | None:
        """What of it an alternative referral can rely on: a grant that still runs and names no specialist."""
        if self.status not in GRANTED or self.specialist_id is not None or self.authorization_id is None:
            return None
        if self.valid_to is not None and self.valid_to < on:
            return None
        return CarriedAuthorization(
            authorization_id=self.authorization_id,
            status=self.status,
            coverage_id=self.coverage_id,
            payer_id=self.payer_id,
            rule=self.rule,
            number=self.number,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            units_requested=self.units_requested,
            units_granted=self.units_granted,
        )

    @classmethod
    def from_carried(cls, carried: CarriedAuthorization) -> Authorization:
        """What the alternative was handed, which is a grant."""
        return cls(
            status=AuthorizationStatus(carried.status),
            coverage_id=carried.coverage_id,
            payer_id=carried.payer_id,
            authorization_id=carried.authorization_id,
            rule=carried.rule,
            number=carried.number,
            valid_from=carried.valid_from,
            valid_to=carried.valid_to,
            units_requested=carried.units_requested,
            units_granted=carried.units_granted,
            granted_before=True,
        )


class VisitStatus(StrEnum):
    """How an appointment of the referral stands."""

    BOOKED = "booked"
    CANCELLED = "cancelled"
    NO_SHOW = "no-show"
    FULFILLED = "fulfilled"


class Visit(Part):
    """One appointment of the referral, as scheduling last told it."""

    status: VisitStatus
    start: datetime | None = None
    end: datetime | None = None


class Window(Part):
    """When the visit may be: what the specialist's acceptance and the authorization leave."""

    earliest: datetime
    latest: datetime


class Report(Part):
    """The consult report that closed the referral. ``code`` is its LOINC type."""

    id: str
    received_at: datetime
    issued_at: datetime | None = None
    code: Coding | None = None
    sha256: str | None = None


class Step(Part):
    """One line of the referral's history. ``what`` and ``code`` are codes, never text about a person."""

    at: datetime
    what: str
    state: State
    code: str | None = None


HISTORY = 400
"""Lines of history kept, the newest: a coverage that flaps for years must not outgrow the document."""


class Referral(Document):
    """One referral, and the process manager of everything that it needs.

    ``seeking`` and ``seeking_performer`` are set only while a specialist is looked for: what the announcement of one
    finds the referral by.
    """

    collection: ClassVar[str] = "referral"
    indexes: ClassVar[tuple[str, ...]] = ("patient_id", "state", "seeking", "seeking_performer")
    transitions = TRANSITIONS
    terminal = TERMINAL

    state: State = State.AWAITING_PATIENT
    patient_id: str
    specialty: str = GENERAL
    service: Coding
    priority: Priority = Priority.ROUTINE
    requester_id: str
    performer_id: str | None = None
    authored_on: datetime
    requested_at: datetime
    diagnoses: tuple[Coding, ...] = ()
    quantity: int = 1
    order_status: OrderStatus = OrderStatus.ACTIVE
    order_intent: str = "order"

    known: bool = False
    registration: Registration | None = None
    missing_fields: tuple[str, ...] = ()
    cover: Cover | None = None

    packet: tuple[PacketItem, ...] = ()
    packet_hash: str | None = None
    authorization: Authorization | None = None
    specialist_id: str | None = None
    tried: tuple[str, ...] = ()
    seeking: str | None = None
    seeking_performer: str | None = None
    sent_at: datetime | None = None
    accepted_at: datetime | None = None
    window: Window | None = None
    visits: dict[str, Visit] = {}
    announced: str | None = None
    announced_start: datetime | None = None
    fell_through: VisitStatus | None = None
    attended: bool = False
    report: Report | None = None
    acknowledged_on: datetime | None = None
    replaces: str | None = None
    alternative_id: str | None = None
    ending: str | None = None
    history: list[Step] = []

    # -- what is known --------------------------------------------------------------------------------------

    @property
    def wanting(self) -> tuple[PacketKind, ...]:
        """What the specialty's checklist asks for and the packet lacks."""
        return wanting(self.specialty, self.packet)

    @property
    def visit(self) -> tuple[str, Visit] | None:
        """The booked appointment that counts, with its id: the latest, where more than one stands."""
        booked = [(id, visit) for id, visit in self.visits.items() if visit.status is VisitStatus.BOOKED]
        return max(booked, key=lambda pair: (pair[1].start or self.requested_at, pair[0]), default=None)

    @property
    def authorization_id(self) -> str | None:
        """The authorization that it relies on, its own or one that it was handed on, as far as it was told of one."""
        return self.authorization.authorization_id if self.authorization else None

    @property
    def sealed(self) -> bool:
        """Whether the packet went to a specialist, so that it may no longer change."""
        return self.sent_at is not None

    def note(self, now: datetime, what: str, code: str | None = None) -> None:
        """Write a line of history."""
        self.history = [*self.history, Step(at=now, what=what, state=self.state, code=code)][-HISTORY:]

    def learn(self, person: Person | None) -> None:
        """Take over what is known of the patient."""
        if person is None:
            return
        self.known = True
        self.registration = person.state
        self.missing_fields = person.missing
        self.cover = person.cover

    def go(self, to: StrEnum, now: datetime, code: str | None = None) -> None:
        """Move, and write it down."""
        self.move(to)
        self.note(now, "moved", code)
        looking = self.state is State.AWAITING_SPECIALIST
        self.seeking = self.specialty if looking else None
        self.seeking_performer = self.performer_id if looking else None

    def end(self, to: State, now: datetime, code: str | None = None) -> None:
        """Come to a terminal state: nothing is waited for any more."""
        self.go(to, now, code)
        self.ending = code
        self.met()
        self.rest(*tuple(self.timers))


# -- from stage to stage ------------------------------------------------------------------------------------------


def proceed(referral: Referral, now: datetime) -> Referral:
    """Go as far as the facts reach, and wait there for what is owed."""
    before = referral.state
    announce_visit(referral)
    to = _onward(referral, now)
    while to is not None:
        if to is State.FAILED:
            return fail(referral, "authorization-denied" if _refused(referral) else "authorization-cancelled", now)
        referral.go(to, now)
        _enter(referral, now)
        to = _onward(referral, now)
    _expect(referral, now, anew=referral.state is not before)
    return referral


def fail(referral: Referral, reason: str, now: datetime) -> Referral:
    """The referral cannot be fulfilled."""
    referral.end(State.FAILED, now, reason)
    referral.record(
        ReferralFailed(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            reason=reason,
            authorization_id=referral.authorization_id,
        )
    )
    return referral


def begin(referral: Referral, now: datetime) -> Referral:
    """The first wait of a new referral, in the state it was made with."""
    referral.note(now, "requested")
    _expect(referral, now, anew=True)
    return referral


def announce_visit(referral: Referral) -> None:
    """Tell once of a date that fell through; its place is taken by nothing, or by another date."""
    if referral.announced is None or referral.attended:
        return
    current = referral.visit
    if current is not None:
        return
    status = referral.visits[referral.announced].status
    referral.record(
        ReferralUnscheduled(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            appointment_id=referral.announced,
            reason="no-show" if status is VisitStatus.NO_SHOW else "cancelled",
        )
    )
    referral.fell_through = status
    referral.announced = None
    referral.announced_start = None


def hold_reason(referral: Referral, now: datetime) -> Reason | None:
    """Why the steps that somebody must pay for have to stop, or None where payment stands."""
    if referral.attended:
        return None
    cover = referral.cover
    if cover is None or cover.status in (CoverageStatus.UNVERIFIED, CoverageStatus.ABSENT):
        return Reason.COVERAGE_UNVERIFIED
    if cover.status is CoverageStatus.LAPSED:
        return Reason.COVERAGE_LAPSED
    if cover.status is CoverageStatus.UNVERIFIABLE:
        return Reason.COVERAGE_UNVERIFIABLE
    return _authorization_gap(referral, now)


def _authorization_gap(referral: Referral, now: datetime) -> Reason | None:
    authorization, cover = referral.authorization, referral.cover
    if authorization is None or cover is None:
        return None
    if authorization.coverage_id != cover.coverage_id:
        # One payer's decision says nothing about another's.
        return Reason.COVERAGE_CHANGED
    if authorization.granted_before and authorization.status in LOST:
        return Reason.AUTHORIZATION_WITHDRAWN
    visit = referral.visit
    needed_on = visit[1].start.date() if visit and visit[1].start else now.date()
    if authorization.valid_to is not None and authorization.valid_to < needed_on:
        return Reason.AUTHORIZATION_EXPIRED
    return None


_SENDS_BACK = frozenset(
    {
        Reason.COVERAGE_LAPSED,
        Reason.COVERAGE_CHANGED,
        Reason.AUTHORIZATION_WITHDRAWN,
        Reason.AUTHORIZATION_EXPIRED,
    }
)
"""A payer who cannot be reached today undoes nothing; a payer who says no does."""


def _refused(referral: Referral) -> bool:
    authorization = referral.authorization
    return authorization is not None and authorization.status is AuthorizationStatus.REFUSED


def _onward(referral: Referral, now: datetime) -> State | None:
    """Where the facts lead from here, or None where the referral has to wait."""
    state = referral.state
    if referral.ended:
        return None
    if state in PAYMENT_MATTERS and hold_reason(referral, now) in _SENDS_BACK:
        return State.AWAITING_COVERAGE
    if state is State.AWAITING_AUTHORIZATION and not referral.attended:
        authorization = referral.authorization
        if authorization is not None and authorization.status in LOST:
            return State.FAILED
    if state is State.AWAITING_VISIT and referral.visit is None and not referral.attended:
        return State.AWAITING_APPOINTMENT
    return NEXT.get(state) if _met(referral, now) else None


def _met(referral: Referral, now: datetime) -> bool:
    """Whether the need of the present stage is met. A patient who was seen has nothing more to wait for before that."""
    if referral.attended:
        return True
    match referral.state:
        case State.AWAITING_ORDER:
            return referral.order_status is OrderStatus.ACTIVE
        case State.AWAITING_PATIENT:
            return referral.registration is Registration.COMPLETE
        case State.AWAITING_PACKET:
            return not referral.wanting
        case State.AWAITING_COVERAGE:
            return hold_reason(referral, now) is None
        case State.AWAITING_AUTHORIZATION:
            return referral.authorization is not None and referral.authorization.status in GRANTED
        case State.AWAITING_SPECIALIST:
            return referral.specialist_id is not None
        case State.AWAITING_ACCEPTANCE:
            return referral.accepted_at is not None
        case State.AWAITING_APPOINTMENT:
            return referral.visit is not None
        case _:
            return False


def _enter(referral: Referral, now: datetime) -> None:
    """What entering a stage sets going, once however often the stage is entered."""
    if referral.state is State.AWAITING_REPORT:
        seen = [id for id, visit in referral.visits.items() if visit.status is VisitStatus.FULFILLED]
        referral.record(
            ReferralAttended(
                referral_id=referral.id, patient_id=referral.patient_id, appointment_id=seen[-1] if seen else None
            )
        )
        return
    if referral.attended:
        return
    match referral.state:
        case State.AWAITING_COVERAGE:
            _complete_packet(referral)
        case State.AWAITING_AUTHORIZATION:
            _ask_for_authorization(referral)
        case State.AWAITING_SPECIALIST:
            if referral.specialist_id is None:
                referral.record(SpecialistWanted(referral_id=referral.id))
        case State.AWAITING_APPOINTMENT:
            _ask_for_date(referral, now)
        case State.AWAITING_VISIT:
            tell_date(referral)
        case _:
            pass


def _complete_packet(referral: Referral) -> None:
    """Seal what is there by a hash; told again only where the packet has changed since."""
    if referral.sealed:
        return
    hash = snapshot_hash(referral.packet)
    if hash == referral.packet_hash:
        return
    referral.packet_hash = hash
    referral.record(
        ReferralPacketCompleted(
            referral_id=referral.id, patient_id=referral.patient_id, packet_hash=hash, packet=documents(referral.packet)
        )
    )


def refresh_packet(referral: Referral) -> None:
    """Take the hash anew after a change, where the packet was complete already."""
    if referral.packet_hash is not None:
        _complete_packet(referral)


def _ask_for_authorization(referral: Referral) -> None:
    cover = referral.cover
    if referral.authorization is not None or cover is None or cover.coverage_id is None or cover.payer_id is None:
        return
    referral.authorization = Authorization(
        status=AuthorizationStatus.REQUESTED,
        coverage_id=cover.coverage_id,
        payer_id=cover.payer_id,
        specialist_id=referral.performer_id,
    )
    referral.record(
        AuthorizationRequested(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            coverage_id=cover.coverage_id,
            payer_id=cover.payer_id,
            service=referral.service,
            diagnoses=referral.diagnoses,
            quantity=referral.quantity,
            expedited=referral.priority is not Priority.ROUTINE,
            specialist_id=referral.performer_id,
            packet=documents(referral.packet),
        )
    )


def _ask_for_date(referral: Referral, now: datetime) -> None:
    """Announce the acceptance, with the window that priority and authorization leave for the visit."""
    if referral.window is not None or referral.specialist_id is None:
        return
    authorization = referral.authorization
    earliest = now
    if authorization is not None and authorization.valid_from is not None:
        earliest = max(earliest, datetime.combine(authorization.valid_from, time.min, UTC))
    # Counted from the first day that is paid for: an approval that begins late must not leave an empty window.
    latest = earliest + VISIT_WITHIN[referral.priority]
    if authorization is not None and authorization.valid_to is not None:
        last_day = datetime.combine(authorization.valid_to, time.min, UTC)
        latest = min(latest, last_day + timedelta(days=1, milliseconds=-1))
    referral.window = Window(earliest=earliest, latest=latest)
    referral.record(
        ReferralAccepted(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            specialist_id=referral.specialist_id,
            priority=referral.priority,
            service=referral.service,
            earliest=earliest,
            latest=latest,
        )
    )


def tell_date(referral: Referral) -> bool:
    """Announce the date that counts, where it is another than was announced before. Says whether it did."""
    current = referral.visit
    if current is None:
        return False
    id, visit = current
    if visit.start is None or (referral.announced, referral.announced_start) == (id, visit.start):
        return False
    referral.announced, referral.announced_start = id, visit.start
    referral.fell_through = None
    referral.record(
        ReferralScheduled(referral_id=referral.id, patient_id=referral.patient_id, appointment_id=id, start=visit.start)
    )
    return True


# -- waiting ------------------------------------------------------------------------------------------------------


def reason_of(referral: Referral, now: datetime) -> Reason:
    """Why the referral waits in its present stage."""
    match referral.state:
        case State.AWAITING_ORDER:
            return {
                OrderStatus.DRAFT: Reason.ORDER_DRAFT,
                OrderStatus.ON_HOLD: Reason.ORDER_ON_HOLD,
            }.get(referral.order_status, Reason.ORDER_STATUS_UNKNOWN)
        case State.AWAITING_PATIENT:
            return Reason.REGISTRATION_INCOMPLETE if referral.known else Reason.PATIENT_UNKNOWN
        case State.AWAITING_PACKET:
            return Reason.PACKET_INCOMPLETE
        case State.AWAITING_COVERAGE:
            return hold_reason(referral, now) or Reason.COVERAGE_UNVERIFIED
        case State.AWAITING_AUTHORIZATION:
            return _authorization_reason(referral)
        case State.AWAITING_SPECIALIST:
            return Reason.ALTERNATIVE_SOUGHT if referral.tried else Reason.SPECIALIST_SOUGHT
        case State.AWAITING_ACCEPTANCE:
            return Reason.ANSWER_OWED
        case State.AWAITING_APPOINTMENT:
            return _date_reason(referral)
        case State.AWAITING_VISIT:
            return Reason.VISIT_AHEAD
        case _:
            return Reason.REPORT_OWED


def _authorization_reason(referral: Referral) -> Reason:
    status = referral.authorization.status if referral.authorization else AuthorizationStatus.REQUESTED
    return {
        AuthorizationStatus.DENIED: Reason.AUTHORIZATION_DENIED,
        AuthorizationStatus.APPEALED: Reason.APPEAL_UNDECIDED,
    }.get(status, Reason.AUTHORIZATION_UNDECIDED)


def _date_reason(referral: Referral) -> Reason:
    if referral.fell_through is VisitStatus.NO_SHOW:
        return Reason.NEW_DATE_AFTER_NO_SHOW
    if referral.fell_through is VisitStatus.CANCELLED:
        return Reason.NEW_DATE_AFTER_CANCELLATION
    return Reason.DATE_OWED


_APPEALABLE = frozenset({Reason.AUTHORIZATION_DENIED, Reason.APPEAL_UNDECIDED})
"""Waits that have the appeal's clock, and not the first decision's."""


def _duty_of(referral: Referral, reason: Reason) -> Duty:
    return APPEAL if reason in _APPEALABLE else DUTIES[referral.state]


def _expect(referral: Referral, now: datetime, *, anew: bool) -> None:
    """Wait for what the stage owes. Another reason in the same stage keeps the clock, but for an appeal's."""
    if referral.ended:
        return
    reason = reason_of(referral, now)
    wait = referral.wait
    appealing = wait is not None and wait.reason != reason and not _APPEALABLE.isdisjoint({wait.reason, reason})
    moved = referral.state is State.AWAITING_VISIT and tell_date(referral)
    if wait is not None and not (anew or appealing or moved):
        wait.reason = reason
        return
    duty = _duty_of(referral, reason)
    within = duty.within[referral.priority]
    visit = referral.visit
    if referral.state is State.AWAITING_VISIT and visit is not None and visit[1].end is not None:
        within += max(visit[1].end - now, timedelta())
    referral.expect(duty.owner, reason, now, within)
