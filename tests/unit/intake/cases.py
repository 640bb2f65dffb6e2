"""Synthetic people and their Bundles, for the tests of intake."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.intake import fhir, model
from shared.contracts.base import Event
from shared.contracts.intake import Channel
from shared.kit.decisions import NO_FACTS
from shared.kit.document import derived_id

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
ID = derived_id("patient", "tester", "ana")
INTAKE = model.Intake()

ORGANIZATION: dict[str, Any] = {
    "resourceType": "Organization",
    "id": "payer-org",
    "identifier": [{"system": "urn:oid:2.16.840.1.113883.4.4", "value": "21-0000001"}],
    "name": "Example Health Plan",
}
COVERAGE: dict[str, Any] = {
    "resourceType": "Coverage",
    "id": "cov",
    "status": "active",
    "subscriberId": "SBX-APPROVE-1",
    "beneficiary": {"reference": "Patient/ana"},
    "payor": [{"reference": "Organization/payer-org"}],
    "class": [{"type": {"coding": [{"code": "plan"}]}, "value": "GOLD"}],
}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ana",
    "name": [{"use": "old", "family": "Vega"}, {"use": "official", "family": "Rivera", "given": ["Ana", "Luz"]}],
    "gender": "female",
    "birthDate": "1961-04-12",
    "telecom": [
        {"system": "phone", "use": "mobile", "value": "(512) 555-0142"},
        {"system": "email", "value": "ana.rivera@mail.example"},
    ],
    "address": [{"line": ["12 Elm St"], "city": "Austin", "state": "TX", "postalCode": "78701", "country": "USA"}],
    "communication": [
        {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en"}]}},
        {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "es"}]}, "preferred": True},
    ],
}


def bundle(*resources: Mapping[str, Any]) -> dict[str, Any]:
    """A transaction of these resources."""
    entries = [{"resource": resource, "request": {"method": "POST", "url": "x"}} for resource in resources]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def whole_bundle(*more: Mapping[str, Any]) -> dict[str, Any]:
    """A complete patient, and more about them."""
    return bundle(ORGANIZATION, COVERAGE, PATIENT, *more)


def condition(code: str, **more: Any) -> dict[str, Any]:
    """A condition in ICD-10-CM."""
    coding = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}
    subject = {"reference": "Patient/ana"}
    return {"resourceType": "Condition", "id": f"c-{code}", "subject": subject, "code": {"coding": [coding]}, **more}


def consent(type: str, channel: str, at: str, **more: Any) -> dict[str, Any]:
    """A consent that denies or permits a channel."""
    code = {"coding": [{"system": "https://carerelay.org/fhir/CodeSystem/channel", "code": channel}]}
    return {
        "resourceType": "Consent",
        "id": f"consent-{channel}",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"code": "59284-0"}]}],
        "patient": {"reference": "Patient/ana"},
        "dateTime": at,
        "provision": {"type": type, "code": [code]},
        **more,
    }


def read(raw: object, **options: Any) -> fhir.Registration:
    """A Bundle, read as the API reads it."""
    defaults: dict[str, Any] = {"patient_id": lambda of: ID, "payers": {}, "today": NOW.date()}
    return fhir.read_registration(raw, **{**defaults, **options})


def registered(raw: object | None = None, at: datetime = NOW) -> model.Patient:
    """A patient registered from a Bundle, what it announced already taken off."""
    patient = announced_registration(raw, at)
    patient.recorded().clear()
    return patient


def announced_registration(raw: object | None = None, at: datetime = NOW) -> model.Patient:
    """A patient registered from a Bundle, with what it announced."""
    registration = read(whole_bundle() if raw is None else raw)
    command = model.Register(ID, "tester", model.Source.BUNDLE, registration.statement, registration.reference)
    return INTAKE.register(None, command, NO_FACTS, at)


def correct(patient: model.Patient, at: datetime = LATER, **said: Any) -> list[Event]:
    """Correct a patient; returns what that announced."""
    command = model.Correct("coordinator-1", model.Source.JSON, model.Statement(**said))
    INTAKE.correct(patient, command, NO_FACTS, at)
    return taken(patient)


def resend(patient: model.Patient, raw: object, at: datetime = LATER) -> list[Event]:
    """Send a Bundle again; returns what that announced."""
    registration = read(raw)
    command = model.Register(ID, "tester", model.Source.BUNDLE, registration.statement, registration.reference)
    INTAKE.register(patient, command, NO_FACTS, at)
    return taken(patient)


def taken(patient: model.Patient) -> list[Event]:
    """What was announced since last asked."""
    events = list(patient.recorded())
    patient.recorded().clear()
    return events


def names(events: list[Event]) -> list[str]:
    """The events' class names, in order."""
    return [type(event).__name__ for event in events]


def consented(channel: Channel, *, permitted: bool, at: datetime) -> model.StatedConsent:
    """A consent on one channel in JSON."""
    channels = (channel,)
    return model.StatedConsent(
        id=derived_id("consent", ID, channel, at.isoformat()),
        given_at=at,
        denies=() if permitted else channels,
        permits=channels if permitted else (),
    )


BIRTH_DATE = date(1961, 4, 12)
