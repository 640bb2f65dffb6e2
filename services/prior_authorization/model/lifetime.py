"""What becomes of an approval: the visits it is used for, its number told for each, its end seen ahead of a visit.

A visit uses one unit once it took place. An approval that ends before a visit that it has units for is extended by an
update of the request (X12 1322 code 4); a visit that is near and has no number is told to a person, once.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from services.prior_authorization.model.clocks import local_day
from services.prior_authorization.model.items import Item
from services.prior_authorization.model.visits import (
    Continuity,
    Planned,
    ReferralVisits,
    Visit,
    VisitStatus,
    answered_for,
    visits_id,
)
from shared.contracts.prior_authorization import (
    AuthorizationEscalated,
    AuthorizationFinancialNotice,
    AuthorizationUnitsUsed,
    VisitsTold,
    VisitsWanted,
)
from shared.kit.decisions import Due, Facts, Ref, Want
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
    used = [visit for visit in document.visits if visit.status is VisitStatus.USED]
    if ruling is not None:
        # What was given outside its days is not paid for by it, and takes nothing of it.
        used = [visit for visit in used if _within(ruling, day_at(document, visit))]
    return whole, len(used), len(document.booked_visits)


def day_at(document: Authorization, visit: Visit) -> date:
    """The date of service: the day it is at the place of the visit, or at the payer's where that is not known."""
    there = None if visit.timezone is None else local_day(visit.start, visit.timezone)
    return there or document.terms.calendar.day(visit.start)


def _within(ruling: Ruling, day: date) -> bool:
    return (ruling.valid_from or date.min) <= day <= (ruling.valid_to or date.max)


def continuity_of(before: Authorization) -> Continuity:
    """What a payer had granted, and how much of it was used, as evidence for the payer after it."""
    ruling = granted(before)
    whole, used, _ = units(before)
    return Continuity(
        payer_id=before.payer_id,
        number=ruling.number if ruling else None,
        valid_from=ruling.valid_from if ruling else None,
        valid_to=ruling.valid_to if ruling else None,
        units=whole,
        used=used,
    )


def cover(document: Authorization, visit: Visit) -> Cover:
    """Whether the approval that stands covers a visit: its day, and a unit for it among those before it."""
    ruling = granted(document)
    if ruling is None or ruling.number is None:
        return Cover.WITHOUT_NUMBER
    if not _within(ruling, day_at(document, visit)):
        return Cover.OUTSIDE
    whole, used, _ = units(document)
    before = sum(1 for each in document.booked_visits if each.start < visit.start)
    return Cover.COVERED if used + before < whole else Cover.NO_UNITS


# -- visits ---------------------------------------------------------------------------------------------------------


def visits_wanted(event: VisitsTold, document: Authorization | None) -> Iterable[Want]:
    """The visits of the referral that it is told of."""
    return (Ref(ReferralVisits, visits_id(event.referral_id)),)


def visits_told(document: Authorization, event: VisitsTold, facts: Facts, now: datetime) -> Authorization:
    """Take over the visits that this authorization answers for now, and let go of those that another one does."""
    kept = facts.get(ReferralVisits, visits_id(event.referral_id))
    if kept is None:
        return document
    used = units(document)[1]
    own = event.referral_id == document.referral_id
    about = None if own else event.referral_id
    known = {visit.appointment_id: visit for visit in document.visits}
    ours = [_taken(known.get(each.appointment_id), each, about) for each in answered_for(kept, document.id)]
    others = [visit for visit in document.visits if visit.referral_id != about]
    document.visits = [*others, *ours][-_KEPT:]
    _tell_use(document, used)
    look_ahead(document, now)
    return document


def ask_for_visits(document: Authorization, referral_id: str, *, used_too: bool) -> None:
    """Answer for a referral's visits from now on, in place of whichever authorization it replaces."""
    document.record(
        VisitsWanted(
            authorization_id=document.id, referral_id=referral_id, instead_of=document.replaces, used_too=used_too
        )
    )


def _taken(known: Visit | None, told: Planned, referral_id: str | None) -> Visit:
    visit = known or Visit(appointment_id=told.appointment_id, start=told.start, referral_id=referral_id)
    visit.warned = visit.warned and visit.start == told.start
    visit.start, visit.timezone, visit.status = told.start, told.timezone, told.status
    return visit


def _tell_use(document: Authorization, before: int) -> None:
    """Say how much is used, where that is otherwise now."""
    ruling = granted(document)
    whole, used, _ = units(document)
    if ruling is not None and ruling.number is not None and used != before:
        document.record(
            AuthorizationUnitsUsed(**document.announces(), number=ruling.number, units_granted=whole, units_used=used)
        )


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
    return next((each for each in document.booked_visits if day_at(document, each) > end), None)


def _until(document: Authorization, end: date) -> tuple[Item, ...]:
    """The items as asked for, until the last visit."""
    last = max((day_at(document, visit) for visit in document.booked_visits), default=end)
    return tuple(item if item.dropped else item.model_copy(update={"ends": last}) for item in document.items)
