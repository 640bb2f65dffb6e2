"""The completeness gate: what must be known of a patient before anything is done for them."""

from __future__ import annotations

from services.intake.model.contact import reachable
from services.intake.model.patient import Patient


def missing_of(patient: Patient) -> tuple[str, ...]:
    """What is missing, as FHIR paths. ``Patient.telecom`` and ``Patient.address`` come together: either is enough."""
    coverage = patient.coverage
    unreachable = not reachable(patient)
    wanted = {
        "Patient.name": not patient.family and not patient.given,
        "Patient.birthDate": patient.birth_date is None,
        "Patient.gender": patient.gender is None,
        "Patient.telecom": unreachable,
        "Patient.address": unreachable,
        "Patient.communication.language": patient.language is None,
        "Coverage.payor": coverage is None or coverage.payer_id is None,
        "Coverage.subscriberId": coverage is None or coverage.member_id is None,
    }
    return tuple(path for path, is_missing in wanted.items() if is_missing)
