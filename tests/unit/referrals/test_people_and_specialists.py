"""What referrals keep of persons and specialists, and when they announce a change of it."""

from __future__ import annotations

import pytest

from services.referrals import model
from services.referrals.model import Listing, Person, Registration
from services.referrals.reactions import PEOPLE
from shared.contracts.base import Event
from shared.contracts.intake import (
    CoverageLapsed,
    CoverageStatus,
    CoverageUnverifiable,
    CoverageVerified,
    PatientCompleted,
    PatientIncomplete,
    PatientRegistered,
)
from shared.contracts.referrals import PersonKnown, SpecialistAvailable, SpecialistListed
from shared.kit.decisions import NO_FACTS
from tests.unit.referrals import cases
from tests.unit.referrals.cases import COVERAGE, NOW, PATIENT, PAYER, recorded

REGISTERED = PatientRegistered(patient_id=PATIENT, complete=False, missing=("Patient.telecom",))
COMPLETED = PatientCompleted(patient_id=PATIENT)
INCOMPLETE = PatientIncomplete(patient_id=PATIENT, missing=("Patient.birthDate",))
VERIFIED = CoverageVerified(patient_id=PATIENT, coverage_id=COVERAGE, payer_id=PAYER, as_of=NOW)
LAPSED = CoverageLapsed(patient_id=PATIENT, coverage_id=COVERAGE, payer_id=PAYER, reason="terminated", as_of=NOW)
UNVERIFIABLE = CoverageUnverifiable(patient_id=PATIENT, reason="no-coverage", as_of=NOW)


def told(person: Person | None, *events: Event) -> Person:
    """The person after these events, by the reaction table."""
    for event in events:
        decide = PEOPLE.rows[event.type].decision_for(person)
        assert decide is not None
        person = decide(person, event, NO_FACTS, NOW)
    assert person is not None
    return person


def test_registration_and_coverage_are_kept_as_intake_tells_them() -> None:
    person = told(None, REGISTERED)
    assert (person.id, person.state, person.missing) == (PATIENT, Registration.INCOMPLETE, ("Patient.telecom",))
    assert told(person, COMPLETED).state is Registration.COMPLETE
    assert person.missing == ()
    assert told(person, VERIFIED).cover.status is CoverageStatus.ACTIVE
    assert told(person, LAPSED).cover.reason == "terminated"
    assert told(person, UNVERIFIABLE).cover.coverage_id is None
    assert told(person, INCOMPLETE).missing == ("Patient.birthDate",)


@pytest.mark.parametrize("first", [REGISTERED, COMPLETED, INCOMPLETE, VERIFIED, LAPSED, UNVERIFIABLE])
def test_whatever_is_heard_first_of_a_person_is_kept_and_announced(first: Event) -> None:
    assert recorded(told(None, first), PersonKnown) == [PersonKnown(patient_id=PATIENT)]


def test_the_same_coverage_verified_again_is_not_announced_again() -> None:
    person = told(None, REGISTERED, VERIFIED, VERIFIED)
    assert len(recorded(person, PersonKnown)) == 2


def test_an_active_specialist_is_announced_by_specialty_and_by_name() -> None:
    specialist = cases.specialist()
    assert specialist.available_for == "dermatology"
    assert specialist.resource_id == specialist.id
    assert recorded(specialist, SpecialistListed) == [cases.LISTED]
    assert recorded(specialist, SpecialistAvailable) == [SpecialistAvailable(specialist_id=cases.FIRST)]


def test_a_specialist_who_takes_no_referrals_is_kept_and_not_announced() -> None:
    specialist = cases.specialist()
    specialist.recorded().clear()
    off = model.ListSpecialist(id=cases.FIRST, specialty="dermatology", active=False)
    for _ in range(2):
        model.list_specialist(specialist, off, NO_FACTS, NOW)
    assert (specialist.state, specialist.available_for) == (Listing.INACTIVE, None)
    assert specialist.recorded() == []
    on = model.ListSpecialist(id=cases.FIRST, specialty="allergy", capabilities=("patch-test",))
    model.list_specialist(specialist, on, NO_FACTS, NOW)
    assert (specialist.state, specialist.available_for) == (Listing.ACTIVE, "allergy")
