"""What the named internal readers of ``intake.people`` are told of a person."""

from __future__ import annotations

from services.intake.model.contact import channels_of, timezone_of
from services.intake.model.patient import Patient
from shared.contracts.intake import PersonAddress, PersonChanged, PersonCoverage


def person_of(patient: Patient) -> PersonChanged:
    """The whole of what readers keep. Two equal answers mean that there is nothing to tell."""
    address, coverage = patient.address, patient.coverage
    return PersonChanged(
        patient_id=patient.id,
        family=patient.family,
        given=patient.given,
        birth_date=patient.birth_date,
        gender=patient.gender,
        mobile=patient.mobile,
        phone=patient.phone,
        email=patient.email,
        address=None
        if address is None
        else PersonAddress(
            lines=address.lines,
            city=address.city,
            state=address.state,
            postal_code=address.postal_code,
            country=address.country,
        ),
        language=patient.speaks,
        timezone=timezone_of(patient.timezone, address),
        channels=channels_of(patient),
        revoked=tuple(sorted(patient.revoked)),
        coverage=None
        if coverage is None or coverage.payer_id is None
        else PersonCoverage(
            coverage_id=coverage.id,
            payer_id=coverage.payer_id,
            member_id=coverage.member_id,
            plan=coverage.plan,
            status=coverage.status,
        ),
    )
