"""What becomes of an approval: the visits it is used for, its number told for each, its end seen ahead of a visit.

A visit uses one unit once it took place. An approval that ends before a visit that it has units for is extended by an
update of the request (X12 1322 code 4); a visit that is near and has no number is told to a person, once.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum

from services.prior_authorization.model.answers import GRANTED, Ruling
from services.prior_authorization.model.authorization import (
    OF_VISITS,
    Authorization,
    Kind,
    Owner,
    State,
    Submission,
    seal,
)
from services.prior_authorization.model.items import Item
from services.prior_authorization.model.visits import Visit, VisitStatus
from shared.contracts.prior_authorization import AuthorizationEscalated, AuthorizationFinancialNotice
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
)
from shared.kit.decisions import Due, Facts
from shared.kit.document import derived_id

NEAR = timedelta(days=3)
"""How long before a visit the number is missed."""

EXTEND_BEFORE = timedelta(days=14)
"""How long before an approval ends it is extended: twice what a payer may take over a standard request."""

_NEEDS_NONE = frozenset({State.NO_ACTION, State.NOT_REQUIRED, State.CANCELLING, State.WITHDRAWN, State.CANCELLED})

_KEPT = 200


class Cover(StrEnum):
    """Whether an approval covers a visit."""

    COVERED = "covered"
    WITHOUT_NUMBER = "visit-without-number"
    OUTSIDE = "visit-outside-approval"
    NO_UNITS = "visit-over-units"


# -- what is used ---------------------------------------------------------------------------------------------------


def granted(document: Authorization) -> Ruling | None:
    """The approval that stands."""
    ruling = document.current
    approved = document.state is State.APPROVED and ruling is not None and ruling.action in GRANTED
    return ruling if approved else None


def units(document: Authorization) -> tuple[int, int, int]:
    """Units granted, used by visits that took place, and booked for visits to come."""
    ruling = granted(document)
    whole = 0 if ruling is None else ruling.units if ruling.units is not None else document.quantity
    counts = [visit.status for visit in document.visits]
    return whole, counts.count(VisitStatus.USED), counts.count(VisitStatus.BOOKED)


def cover(document: Authorization, visit: Visit) -> Cover:
    """Whether the approval that stands covers a visit: its day, and a unit for it among those before it."""
    ruling = granted(document)
    if ruling is None or ruling.number is None:
        return Cover.WITHOUT_NUMBER
    day = document.terms.calendar.day(visit.start)
    if day < (ruling.valid_from or date.min) or day > (ruling.valid_to or date.max):
        return Cover.OUTSIDE
    whole, used, _ = units(document)
    before = sum(1 for each in document.booked_visits if each.start < visit.start)
    return Cover.COVERED if used + before < whole else Cover.NO_UNITS


# -- visits ---------------------------------------------------------------------------------------------------------


def booked(
    document: Authorization, event: AppointmentBooked | AppointmentRescheduled, facts: Facts, now: datetime
) -> Authorization:
    """A visit has a date, or another one."""
    known = _visit(document, event.appointment_id)
    if known is None:
        known = Visit(appointment_id=event.appointment_id, start=event.start)
        document.visits = [*document.visits, known][-_KEPT:]
    if known.status is not VisitStatus.USED:
        known.status, known.warned = VisitStatus.BOOKED, known.warned and known.start == event.start
    known.start = event.start
    look_ahead(document, now)
    return document


def took_place(document: Authorization, event: AppointmentFulfilled, facts: Facts, now: datetime) -> Authorization:
    """A visit took place: it used a unit."""
    return _end(document, event.appointment_id, VisitStatus.USED, now)


def called_off(
    document: Authorization, event: AppointmentCancelled | AppointmentNoShow, facts: Facts, now: datetime
) -> Authorization:
    """A visit will not take place, or did not: it uses no unit."""
    return _end(document, event.appointment_id, VisitStatus.GONE, now)


def _end(document: Authorization, appointment_id: str, status: VisitStatus, now: datetime) -> Authorization:
    visit = _visit(document, appointment_id)
    if visit is not None:
        visit.status = status
        look_ahead(document, now)
    return document


def _visit(document: Authorization, appointment_id: str) -> Visit | None:
    return next((visit for visit in document.visits if visit.appointment_id == appointment_id), None)


# -- looking ahead --------------------------------------------------------------------------------------------------


def look_ahead(document: Authorization, now: datetime) -> None:
    """Tell the number for each visit that the approval covers, and look again before a visit and before its end."""
    document.rest(*OF_VISITS)
    if document.state in _NEEDS_NONE:
        return
    for visit in document.booked_visits:
        if visit.start > now and cover(document, visit) is Cover.COVERED:
            _tell(document, visit)
    missing = [visit for visit in document.booked_visits if not visit.warned and visit.start > now]
    uncovered = [visit.start - NEAR for visit in missing if cover(document, visit) is not Cover.COVERED]
    if uncovered:
        document.wake("visit", max(min(uncovered), now))
    ruling = granted(document)
    if ruling is not None and ruling.valid_to is not None and _beyond(document, ruling):
        document.wake("expiry", max(document.terms.calendar.midnight(ruling.valid_to) - EXTEND_BEFORE, now))


def _tell(document: Authorization, visit: Visit) -> None:
    ruling = granted(document)
    if ruling is None or ruling.number is None:
        return
    told = "|".join(str(part) for part in (visit.start, ruling.number, ruling.valid_from, ruling.valid_to))
    if visit.told == told:
        return
    visit.told = told
    whole, used, _ = units(document)
    document.record(
        AuthorizationFinancialNotice(
            **document.announces(),
            payer_id=document.payer_id,
            appointment_id=visit.appointment_id,
            visit_start=visit.start,
            number=ruling.number,
            valid_from=ruling.valid_from,
            valid_to=ruling.valid_to,
            units_granted=whole,
            units_used=used,
        )
    )


def visit_near(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """A visit is near that no approval covers: a person is told, once for its date."""
    for visit in document.booked_visits:
        lacks = cover(document, visit)
        near = visit.start - NEAR <= now < visit.start
        if visit.warned or not near or lacks is Cover.COVERED or document.state in _NEEDS_NONE:
            continue
        visit.warned = True
        document.record(
            AuthorizationEscalated(
                **document.announces(),
                state=document.state,
                since=document.requested_at,
                deadline=visit.start,
                owner=Owner.COORDINATOR,
                reason=lacks,
            )
        )
    look_ahead(document, now)
    return document


# -- extension ------------------------------------------------------------------------------------------------------


def near_its_end(document: Authorization, due: Due, facts: Facts, now: datetime) -> Authorization:
    """The approval ends before a visit it has units for: an extension is sent, once for each end.

    Where the payer's requirement was satisfied without a claim nothing can be extended: the visit is told to a person.
    """
    ruling = granted(document)
    if ruling is None or ruling.valid_to is None or document.newest is None:
        return document
    visit = _beyond(document, ruling)
    if visit is None or document.update is not None:
        return document
    document.extended_from = ruling.valid_to
    items = _until(document, ruling.valid_to)
    document.updates += 1
    document.update = Submission(
        id=derived_id(document.id, "update-claim", str(document.updates)),
        kind=Kind.UPDATE,
        extends=True,
        prior=ruling.claim_id,
        opened_at=now,
        items=items,
        attached=document.attached,
        snapshot=seal(document, items),
    )
    document.update_id = document.update.id
    document.wake("update", now)
    return document


def _beyond(document: Authorization, ruling: Ruling) -> Visit | None:
    """The first visit after an approval's end, where there are units for it and its extension was not asked for."""
    end = ruling.valid_to
    whole, used, _ = units(document)
    if end is None or used >= whole or document.extended_from == end:
        return None
    return next((each for each in document.booked_visits if document.terms.calendar.day(each.start) > end), None)


def _until(document: Authorization, end: date) -> tuple[Item, ...]:
    """The items as asked for, until the last visit."""
    last = max((document.terms.calendar.day(visit.start) for visit in document.booked_visits), default=end)
    return tuple(item if item.dropped else item.model_copy(update={"ends": last}) for item in document.items)
