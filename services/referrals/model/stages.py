"""The stages of a referral: which lead where, who owes the next step in each, and for how long it may be owed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise

from shared.contracts.referrals import Priority


class State(StrEnum):
    """Where a referral stands: what it waits for, or how it ended."""

    AWAITING_ORDER = "awaiting-order"
    AWAITING_PATIENT = "awaiting-patient"
    AWAITING_PACKET = "awaiting-packet"
    AWAITING_COVERAGE = "awaiting-coverage"
    AWAITING_AUTHORIZATION = "awaiting-authorization"
    AWAITING_SPECIALIST = "awaiting-specialist"
    AWAITING_ACCEPTANCE = "awaiting-acceptance"
    AWAITING_APPOINTMENT = "awaiting-appointment"
    AWAITING_VISIT = "awaiting-visit"
    AWAITING_REPORT = "awaiting-report"
    CLOSED = "closed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ENTERED_IN_ERROR = "entered-in-error"


class Owner(StrEnum):
    """Who can owe the next step. A specialist acts through a clinician's token or a FHIR Task."""

    CLINICIAN = "clinician"
    COORDINATOR = "coordinator"
    SPECIALIST = "specialist"
    SCHEDULER = "scheduler"


class Reason(StrEnum):
    """Why a referral waits where it does."""

    ORDER_DRAFT = "order-draft"
    ORDER_ON_HOLD = "order-on-hold"
    ORDER_STATUS_UNKNOWN = "order-status-unknown"
    PATIENT_UNKNOWN = "patient-unknown"
    REGISTRATION_INCOMPLETE = "registration-incomplete"
    PACKET_INCOMPLETE = "packet-incomplete"
    COVERAGE_UNVERIFIED = "coverage-unverified"
    COVERAGE_UNVERIFIABLE = "coverage-unverifiable"
    COVERAGE_LAPSED = "coverage-lapsed"
    COVERAGE_CHANGED = "coverage-changed"
    AUTHORIZATION_WITHDRAWN = "authorization-withdrawn"
    AUTHORIZATION_EXPIRED = "authorization-expired"
    AUTHORIZATION_UNDECIDED = "authorization-undecided"
    AUTHORIZATION_DENIED = "authorization-denied-appeal-open"
    APPEAL_UNDECIDED = "appeal-undecided"
    SPECIALIST_SOUGHT = "specialist-sought"
    ALTERNATIVE_SOUGHT = "alternative-sought"
    ANSWER_OWED = "answer-owed"
    DATE_OWED = "date-owed"
    NEW_DATE_AFTER_NO_SHOW = "new-date-after-no-show"
    NEW_DATE_AFTER_CANCELLATION = "new-date-after-cancellation"
    VISIT_AHEAD = "visit-ahead"
    REPORT_OWED = "report-owed"


PATH: tuple[State, ...] = (
    State.AWAITING_ORDER,
    State.AWAITING_PATIENT,
    State.AWAITING_PACKET,
    State.AWAITING_COVERAGE,
    State.AWAITING_AUTHORIZATION,
    State.AWAITING_SPECIALIST,
    State.AWAITING_ACCEPTANCE,
    State.AWAITING_APPOINTMENT,
    State.AWAITING_VISIT,
    State.AWAITING_REPORT,
)
"""The way of a referral that nothing holds up. Each stage is left when its need is met, in this order."""

NEXT: dict[State, State] = dict(pairwise(PATH))

LIVE = frozenset(PATH)

TERMINAL = frozenset({State.CLOSED, State.REJECTED, State.CANCELLED, State.FAILED, State.ENTERED_IN_ERROR})

PAYMENT_MATTERS = frozenset(
    {
        State.AWAITING_AUTHORIZATION,
        State.AWAITING_SPECIALIST,
        State.AWAITING_ACCEPTANCE,
        State.AWAITING_APPOINTMENT,
        State.AWAITING_VISIT,
    }
)
"""Stages that a lapse of the coverage, or the loss of the authorization, sends back to ``awaiting-coverage``."""

_ANY_TIME = frozenset({State.CLOSED, State.CANCELLED, State.ENTERED_IN_ERROR})
"""A linked report, a withdrawal and a correction can come at any time before the end."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.AWAITING_ORDER: frozenset({State.AWAITING_PATIENT}) | _ANY_TIME,
    State.AWAITING_PATIENT: frozenset({State.AWAITING_PACKET}) | _ANY_TIME,
    State.AWAITING_PACKET: frozenset({State.AWAITING_COVERAGE}) | _ANY_TIME,
    State.AWAITING_COVERAGE: frozenset({State.AWAITING_AUTHORIZATION, State.REJECTED}) | _ANY_TIME,
    State.AWAITING_AUTHORIZATION: frozenset({State.AWAITING_SPECIALIST, State.AWAITING_COVERAGE, State.FAILED})
    | _ANY_TIME,
    State.AWAITING_SPECIALIST: frozenset({State.AWAITING_ACCEPTANCE, State.AWAITING_COVERAGE}) | _ANY_TIME,
    State.AWAITING_ACCEPTANCE: frozenset({State.AWAITING_APPOINTMENT, State.AWAITING_COVERAGE, State.REJECTED})
    | _ANY_TIME,
    State.AWAITING_APPOINTMENT: frozenset({State.AWAITING_VISIT, State.AWAITING_COVERAGE}) | _ANY_TIME,
    State.AWAITING_VISIT: frozenset({State.AWAITING_REPORT, State.AWAITING_APPOINTMENT, State.AWAITING_COVERAGE})
    | _ANY_TIME,
    State.AWAITING_REPORT: _ANY_TIME,
    State.CLOSED: frozenset(),
    State.REJECTED: frozenset(),
    State.CANCELLED: frozenset(),
    State.FAILED: frozenset(),
    State.ENTERED_IN_ERROR: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Duty:
    """Who owes the step that ends a wait, and within what time of its beginning, by priority."""

    owner: Owner
    within: dict[Priority, timedelta]


def _duty(owner: Owner, routine: timedelta, urgent: timedelta, asap: timedelta, stat: timedelta) -> Duty:
    return Duty(
        owner,
        {Priority.ROUTINE: routine, Priority.URGENT: urgent, Priority.ASAP: asap, Priority.STAT: stat},
    )


def _days(days: float) -> timedelta:
    return timedelta(days=days)


def _hours(hours: float) -> timedelta:
    return timedelta(hours=hours)


DUTIES: dict[State, Duty] = {
    State.AWAITING_ORDER: _duty(Owner.CLINICIAN, _days(7), _days(2), _days(1), _hours(4)),
    State.AWAITING_PATIENT: _duty(Owner.COORDINATOR, _days(7), _days(2), _days(1), _hours(4)),
    State.AWAITING_PACKET: _duty(Owner.CLINICIAN, _days(5), _days(2), _days(1), _hours(2)),
    State.AWAITING_COVERAGE: _duty(Owner.COORDINATOR, _days(3), _days(1), _hours(12), _hours(4)),
    # The payer has 7 calendar days, 72 hours if expedited (CMS-0057-F); a day on top is ours, to send and to read.
    State.AWAITING_AUTHORIZATION: _duty(Owner.COORDINATOR, _days(8), _days(4), _days(4), _days(4)),
    State.AWAITING_SPECIALIST: _duty(Owner.COORDINATOR, _days(5), _days(2), _days(1), _hours(4)),
    State.AWAITING_ACCEPTANCE: _duty(Owner.SPECIALIST, _days(5), _days(2), _days(1), _hours(2)),
    State.AWAITING_APPOINTMENT: _duty(Owner.SCHEDULER, _days(14), _days(3), _days(1), _hours(4)),
    # Counted from the end of the visit: by then somebody has said whether the patient came.
    State.AWAITING_VISIT: _duty(Owner.SCHEDULER, _days(2), _days(1), _days(1), _hours(12)),
    State.AWAITING_REPORT: _duty(Owner.SPECIALIST, _days(30), _days(14), _days(7), _days(3)),
}

# Plan reconsideration before service: 30 days, 72 hours if expedited (42 CFR 422.590); two days, one day are ours.
APPEAL = _duty(Owner.COORDINATOR, _days(32), _days(4), _days(4), _days(4))

VISIT_WITHIN: dict[Priority, timedelta] = {
    Priority.ROUTINE: _days(90),
    Priority.URGENT: _days(14),
    Priority.ASAP: _days(7),
    Priority.STAT: _days(2),
}
"""How long after its acceptance a referral may be seen: what scheduling gets as ``latest``."""
