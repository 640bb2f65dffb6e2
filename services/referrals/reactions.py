"""Which events referrals react to, and the decision each leads to.

A live referral reads the person anew on its own ReferralRequested and on every PersonKnown, in every stage, and keeps
what it needs; so whichever of the two is written second is seen. The same holds between SpecialistWanted and the
announcements of the registry. Ended referrals ignore everything.
"""

from __future__ import annotations

from services.referrals.model import LIVE, Person, Referral, facts, open_alternative, person
from shared.contracts.intake import (
    CoverageLapsed,
    CoverageUnverifiable,
    CoverageVerified,
    PatientCompleted,
    PatientEvent,
    PatientIncomplete,
    PatientRegistered,
)
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
    AlternativeWanted,
    PersonKnown,
    ReferralRequested,
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
from shared.kit.reactions import Field, Reactions, on


def _the_person(event: PatientEvent) -> list[str]:
    return [event.patient_id]


def _the_referral(event: ReferralRequested | SpecialistWanted | AuthorizationEvent) -> list[str]:
    return [event.referral_id]


def _referral_of(event: AppointmentEvent) -> list[str]:
    return [event.referral_id] if event.referral_id else []


def _the_alternative(event: AlternativeWanted) -> list[str]:
    return [event.alternative_id]


PEOPLE = Reactions(
    Person,
    on(PatientRegistered, _the_person, person.registered, creates=True),
    on(PatientCompleted, _the_person, person.completed, creates=True),
    on(PatientIncomplete, _the_person, person.incomplete, creates=True),
    on(CoverageVerified, _the_person, person.covered, creates=True),
    on(CoverageLapsed, _the_person, person.lapsed, creates=True),
    on(CoverageUnverifiable, _the_person, person.unverifiable, creates=True),
)

REFERRALS = Reactions(
    Referral,
    # the patient
    on(ReferralRequested, _the_referral, facts.learn_person, when=LIVE, wants=facts.person_wanted),
    on(
        PersonKnown,
        Field("patient_id", lambda event: event.patient_id),
        facts.learn_person,
        when=LIVE,
        wants=facts.person_wanted,
    ),
    # the specialist
    on(SpecialistWanted, _the_referral, facts.choose_specialist, when=facts.SEEKING, wants=facts.specialists_wanted),
    on(
        SpecialistListed,
        Field("seeking", lambda event: event.specialty),
        facts.choose_specialist,
        when=facts.SEEKING,
        wants=facts.specialists_wanted,
    ),
    on(
        SpecialistAvailable,
        Field("seeking_performer", lambda event: event.specialist_id),
        facts.choose_specialist,
        when=facts.SEEKING,
        wants=facts.specialists_wanted,
    ),
    on(AlternativeWanted, _the_alternative, open_alternative, creates=True),
    # the payer
    on(AuthorizationNotRequired, _the_referral, facts.authorization_not_required, when=LIVE),
    on(AuthorizationSubmitted, _the_referral, facts.authorization_submitted, when=LIVE),
    on(AuthorizationPended, _the_referral, facts.authorization_pended, when=LIVE),
    on(AuthorizationApproved, _the_referral, facts.authorization_approved, when=LIVE),
    on(AuthorizationDenied, _the_referral, facts.authorization_denied, when=LIVE),
    on(AuthorizationAppealed, _the_referral, facts.authorization_appealed, when=LIVE),
    on(AuthorizationCancelled, _the_referral, facts.authorization_cancelled, when=LIVE),
    on(AuthorizationEscalated, _the_referral, facts.authorization_escalated, when=LIVE),
    # the visit
    on(AppointmentBooked, _referral_of, facts.visit_booked, when=LIVE),
    on(AppointmentRescheduled, _referral_of, facts.visit_booked, when=LIVE),
    on(AppointmentCancelled, _referral_of, facts.visit_cancelled, when=LIVE),
    on(AppointmentNoShow, _referral_of, facts.visit_missed, when=LIVE),
    on(AppointmentFulfilled, _referral_of, facts.visit_fulfilled, when=LIVE),
)

REACTIONS: tuple[Reactions, ...] = (PEOPLE, REFERRALS)
