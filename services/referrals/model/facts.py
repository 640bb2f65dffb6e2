"""What other documents and services tell a referral: the person, the payer's decision, the specialist, the visit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.referrals.model.person import Person
from services.referrals.model.referral import (
    GRANTED,
    Authorization,
    AuthorizationStatus,
    Referral,
    Visit,
    VisitStatus,
    proceed,
)
from services.referrals.model.specialist import Listing, Specialist
from services.referrals.model.stages import State
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationEscalated,
    AuthorizationEvent,
    AuthorizationNotRequired,
    AuthorizationPended,
    AuthorizationSubmitted,
)
from shared.contracts.referrals import (
    PersonKnown,
    ReferralRequested,
    ReferralSent,
    SpecialistAvailable,
    SpecialistListed,
    SpecialistWanted,
)
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentEvent,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
)
from shared.kit.decisions import Facts, Ref, Want, Where

CANDIDATES = 50
"""How many specialists of a specialty a referral chooses among: more than a region has, few enough to load."""

# -- the person ---------------------------------------------------------------------------------------------------


def person_wanted(event: PersonKnown | ReferralRequested, referral: Referral | None) -> Iterable[Want]:
    """The person whom the event is about."""
    return (Ref(Person, event.patient_id),)


def learn_person(referral: Referral, event: PersonKnown | ReferralRequested, facts: Facts, now: datetime) -> Referral:
    """Take over registration and coverage, and go on, or back, as far as they reach."""
    referral.learn(facts.get(Person, event.patient_id))
    return proceed(referral, now)


# -- the specialist -----------------------------------------------------------------------------------------------


def specialists_wanted(
    event: SpecialistWanted | SpecialistListed | SpecialistAvailable, referral: Referral | None
) -> Iterable[Want]:
    """Who could be sent the referral: the one who was asked for, and those of the specialty."""
    if referral is None:
        return ()
    listed: Want = Where(Specialist, "available_for", referral.specialty, CANDIDATES)
    return (listed, Ref(Specialist, referral.performer_id)) if referral.performer_id else (listed,)


def choose_specialist(
    referral: Referral,
    event: SpecialistWanted | SpecialistListed | SpecialistAvailable,
    facts: Facts,
    now: datetime,
) -> Referral:
    """Send it to the specialist who was asked for, else to the first of the specialty by id, never to one who declined.

    What a payer approved for one specialist by name is sent to nobody else. Where there is none, the referral goes on
    waiting for one to be listed.
    """
    chosen = _choice(referral, facts)
    if chosen is None:
        return referral
    referral.specialist_id = chosen.id
    referral.sent_at = now
    referral.note(now, "sent", chosen.id)
    authorization = referral.authorization
    referral.record(
        ReferralSent(
            referral_id=referral.id,
            patient_id=referral.patient_id,
            specialist_id=chosen.id,
            authorization_number=authorization.number if authorization else None,
        )
    )
    return proceed(referral, now)


def _choice(referral: Referral, facts: Facts) -> Specialist | None:
    performer = facts.get(Specialist, referral.performer_id) if referral.performer_id else None
    listed = facts.where(Specialist, "available_for", referral.specialty, CANDIDATES)
    candidates = [*([performer] if performer else []), *sorted(listed, key=lambda specialist: specialist.id)]
    approved_for = _approved_for(referral)
    fitting = (one for one in candidates if one.state is Listing.ACTIVE and one.id not in referral.tried)
    return next((one for one in fitting if approved_for in (None, one.id)), None)


def _approved_for(referral: Referral) -> str | None:
    """The only specialist for whom the payer pays, where it was asked about one."""
    authorization = referral.authorization
    if authorization is None or authorization.status is AuthorizationStatus.NOT_REQUIRED:
        return None
    return authorization.specialist_id


# -- the payer's decision -----------------------------------------------------------------------------------------


def _told(referral: Referral, event: AuthorizationEvent, status: AuthorizationStatus, now: datetime) -> Authorization:
    """The authorization with its new status, noted."""
    held = referral.authorization
    cover = referral.cover
    authorization = held or Authorization(
        status=status,
        coverage_id=(cover.coverage_id if cover else None) or "",
        payer_id=(cover.payer_id if cover else None) or "",
    )
    if authorization.appeals and status in (AuthorizationStatus.SUBMITTED, AuthorizationStatus.PENDED):
        # What the payer says of receiving an appeal, or of deciding it later, does not restart the first decision.
        status = AuthorizationStatus.APPEALED
    authorization.authorization_id = event.authorization_id
    authorization.status = status
    authorization.granted_before = authorization.granted_before or status in GRANTED
    referral.authorization = authorization
    referral.note(now, "authorization", status)
    return authorization


def authorization_not_required(
    referral: Referral, event: AuthorizationNotRequired, facts: Facts, now: datetime
) -> Referral:
    """No approval is needed."""
    _told(referral, event, AuthorizationStatus.NOT_REQUIRED, now).rule = event.rule
    return proceed(referral, now)


def authorization_submitted(referral: Referral, event: AuthorizationSubmitted, facts: Facts, now: datetime) -> Referral:
    """The payer has the request."""
    _told(referral, event, AuthorizationStatus.SUBMITTED, now)
    return proceed(referral, now)


def authorization_pended(referral: Referral, event: AuthorizationPended, facts: Facts, now: datetime) -> Referral:
    """The payer will decide later."""
    _told(referral, event, AuthorizationStatus.PENDED, now)
    return proceed(referral, now)


def authorization_approved(referral: Referral, event: AuthorizationApproved, facts: Facts, now: datetime) -> Referral:
    """Approved: number, dates and units are kept; the dates bound the visit."""
    authorization = _told(referral, event, AuthorizationStatus.APPROVED, now)
    authorization.number = event.number
    authorization.valid_from, authorization.valid_to = event.valid_from, event.valid_to
    authorization.units_requested, authorization.units_granted = event.units_requested, event.units_granted
    authorization.differences = event.differences
    return proceed(referral, now)


def authorization_denied(referral: Referral, event: AuthorizationDenied, facts: Facts, now: datetime) -> Referral:
    """Denied: while an appeal is open the referral waits, else it fails; a grant taken back stops what is paid for."""
    status = AuthorizationStatus.REFUSED if event.final else AuthorizationStatus.DENIED
    authorization = _told(referral, event, status, now)
    authorization.reasons, authorization.differences = event.reasons, event.differences
    return proceed(referral, now)


def authorization_appealed(referral: Referral, event: AuthorizationAppealed, facts: Facts, now: datetime) -> Referral:
    """The appeal is with the payer, who has its own time for it."""
    _told(referral, event, AuthorizationStatus.APPEALED, now).appeals = event.level
    return proceed(referral, now)


def authorization_cancelled(referral: Referral, event: AuthorizationCancelled, facts: Facts, now: datetime) -> Referral:
    """Withdrawn by the payer: nothing will come of it."""
    _told(referral, event, AuthorizationStatus.CANCELLED, now)
    return proceed(referral, now)


def authorization_escalated(referral: Referral, event: AuthorizationEscalated, facts: Facts, now: datetime) -> Referral:
    """The authorization needs a person; that is told there, and shown here."""
    referral.note(now, "authorization-escalated", event.state)
    return referral


# -- the visit ----------------------------------------------------------------------------------------------------


def visit_booked(
    referral: Referral, event: AppointmentBooked | AppointmentRescheduled, facts: Facts, now: datetime
) -> Referral:
    """A date stands, the first one or another."""
    return _visit(referral, event, Visit(status=VisitStatus.BOOKED, start=event.start, end=event.end), now)


def visit_cancelled(referral: Referral, event: AppointmentCancelled, facts: Facts, now: datetime) -> Referral:
    """The date was called off."""
    return _visit(referral, event, _with(referral, event, VisitStatus.CANCELLED), now)


def visit_missed(referral: Referral, event: AppointmentNoShow, facts: Facts, now: datetime) -> Referral:
    """The patient did not come."""
    return _visit(referral, event, _with(referral, event, VisitStatus.NO_SHOW), now)


def visit_fulfilled(referral: Referral, event: AppointmentFulfilled, facts: Facts, now: datetime) -> Referral:
    """The patient was seen, wherever the paperwork stands: what is owed now is the report."""
    referral.attended = True
    return _visit(referral, event, _with(referral, event, VisitStatus.FULFILLED), now)


def _with(referral: Referral, event: AppointmentEvent, status: VisitStatus) -> Visit:
    """The visit as it was known, with another status."""
    held = referral.visits.get(event.appointment_id)
    return Visit(status=status, start=held.start if held else None, end=held.end if held else None)


def _visit(referral: Referral, event: AppointmentEvent, visit: Visit, now: datetime) -> Referral:
    referral.visits = {**referral.visits, event.appointment_id: visit}
    referral.note(now, f"appointment-{visit.status.value}", event.appointment_id)
    return proceed(referral, now)


SEEKING = frozenset({State.AWAITING_SPECIALIST})
"""Only here does a referral look for a specialist."""
