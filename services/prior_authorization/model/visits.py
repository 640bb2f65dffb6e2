"""The visits of a referral, which authorization answers for them, and what another payer had approved.

Scheduling tells of a referral's visits; which authorization they rely on changes: an alternative referral relies on one
that was asked for another, a new payer's takes the old one's place, one that is asked for anew that of a denied one.
So the visits are kept by referral. An authorization that is to answer for them asks (``VisitsWanted``) after it was
written, and is told of each change from then on (``VisitsTold``). Visits that took place stay with the one that
answered for them then.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from shared.contracts.prior_authorization import VisitsTold, VisitsWanted
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentEvent,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
)
from shared.kit.decisions import Facts
from shared.kit.document import Document, Part, derived_id

_KEPT = 200


class VisitStatus(StrEnum):
    """What became of a visit."""

    BOOKED = "booked"
    USED = "used"
    GONE = "gone"


class Planned(Part):
    """One visit as scheduling tells of it. ``timezone`` is that of the place it is at; ``under`` is the authorization
    that answered for it when it took place."""

    appointment_id: str
    start: datetime
    timezone: str
    status: VisitStatus = VisitStatus.BOOKED
    under: str | None = None


class Visit(Part):
    """One visit that an authorization answers for. ``told``: for which date and number financial services were told;
    ``warned``: a person was called; ``referral_id``: whose it is, where not the authorization's own referral's."""

    appointment_id: str
    start: datetime
    status: VisitStatus = VisitStatus.BOOKED
    told: str | None = None
    warned: bool = False
    timezone: str | None = None
    referral_id: str | None = None


class Continuity(Part):
    """What the payer before had granted of the same care, and how much of it was used: evidence for the payer now."""

    payer_id: str
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units: int = 0
    used: int = 0


class VisitsState(StrEnum):
    """They are only kept."""

    KEPT = "kept"


class ReferralVisits(Document):
    """The visits of one referral. ``relies_on`` is the authorization that answers for them, ``let_go`` are those that
    others took over from: their late asking changes nothing."""

    collection = "referral_visits"
    transitions: ClassVar = {VisitsState.KEPT: frozenset()}

    state: VisitsState = VisitsState.KEPT
    referral_id: str
    relies_on: str
    let_go: tuple[str, ...] = ()
    visits: list[Planned] = []


def visits_id(referral_id: str) -> str:
    """The id of a referral's visits."""
    return derived_id("referral-visits", referral_id)


def authorization_id(referral_id: str) -> str:
    """The id of the authorization of a referral."""
    return derived_id("authorization", referral_id)


# -- what scheduling tells ------------------------------------------------------------------------------------------


def told_of(
    document: ReferralVisits | None, event: AppointmentEvent, facts: Facts, now: datetime
) -> ReferralVisits | None:
    """A visit got a date, or another one; took place, which stays so; or is off."""
    referral_id = event.referral_id
    if referral_id is None:
        return document
    known = document or _nothing_yet(referral_id)
    if not _changed(known, event):
        return document
    _tell(known, known.relies_on)
    return known


def _nothing_yet(referral_id: str) -> ReferralVisits:
    return ReferralVisits(id=visits_id(referral_id), referral_id=referral_id, relies_on=authorization_id(referral_id))


def _changed(document: ReferralVisits, event: AppointmentEvent) -> bool:
    """Take an event in; whether anything is otherwise now."""
    visit = next((each for each in document.visits if each.appointment_id == event.appointment_id), None)
    if isinstance(event, AppointmentBooked | AppointmentRescheduled):
        if visit is None:
            visit = Planned(appointment_id=event.appointment_id, start=event.start, timezone=event.timezone)
            document.visits = [*document.visits, visit][-_KEPT:]
            return True
        before = (visit.start, visit.timezone, visit.status)
        visit.start, visit.timezone = event.start, event.timezone
        if visit.status is not VisitStatus.USED:
            visit.status = VisitStatus.BOOKED
        return before != (visit.start, visit.timezone, visit.status)
    if visit is None:
        return False
    before_status = visit.status
    if isinstance(event, AppointmentFulfilled):
        visit.status, visit.under = VisitStatus.USED, visit.under or document.relies_on
    elif isinstance(event, AppointmentCancelled | AppointmentNoShow):
        visit.status, visit.under = VisitStatus.GONE, None
    return visit.status is not before_status


# -- who answers for them -------------------------------------------------------------------------------------------


def wanted_by(document: ReferralVisits | None, event: VisitsWanted, facts: Facts, now: datetime) -> ReferralVisits:
    """An authorization answers for the visits from now on, and so for those that took place where it wants them too.

    Of two that ask, that one stands which was opened in place of the other, whichever is heard first.
    """
    known = document or _nothing_yet(event.referral_id)
    if event.instead_of is not None and event.instead_of not in known.let_go:
        known.let_go = (*known.let_go, event.instead_of)
    if event.authorization_id not in known.let_go:
        before, known.relies_on = known.relies_on, event.authorization_id
        for visit in known.visits:
            if event.used_too and visit.under is not None:
                visit.under = event.authorization_id
        if before != known.relies_on:
            _tell(known, before)
    _tell(known, event.authorization_id)
    return known


def _tell(document: ReferralVisits, authorization_id: str) -> None:
    document.record(VisitsTold(referral_id=document.referral_id, authorization_id=authorization_id))


def answered_for(document: ReferralVisits, authorization_id: str) -> list[Planned]:
    """The visits that an authorization answers for: those to come, or called off, and those that used it."""
    return [visit for visit in document.visits if (visit.under or document.relies_on) == authorization_id]
