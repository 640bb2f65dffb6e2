"""Folding a statement into the patient: what is said replaces, what is not said stays, what changes is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue, TypeAdapter

from services.intake.model.patient import (
    Consent,
    Correction,
    Coverage,
    Fact,
    Need,
    Patient,
    Provenance,
    Proxy,
    Revocation,
    Source,
)
from services.intake.model.statements import (
    StatedConsent,
    StatedCoverage,
    StatedFact,
    StatedProxy,
    Statement,
)
from shared.contracts.intake import Barrier, Channel, CoverageStatus
from shared.kit.document import derived_id

_PATHS = {
    "family": "Patient.name.family",
    "given": "Patient.name.given",
    "birth_date": "Patient.birthDate",
    "gender": "Patient.gender",
    "mobile": "Patient.telecom.mobile",
    "phone": "Patient.telecom.phone",
    "email": "Patient.telecom.email",
    "address": "Patient.address",
    "language": "Patient.communication.language",
    "timezone": "Patient.timezone",
    "channels": "Patient.channels",
}
"""The fields that a statement sets one by one, and how corrections name them."""

_COVERAGE_PATHS = {
    "payer_id": "Coverage.payor",
    "member_id": "Coverage.subscriberId",
    "plan": "Coverage.class",
    "relationship": "Coverage.relationship",
    "order": "Coverage.order",
    "valid_from": "Coverage.period.start",
    "valid_to": "Coverage.period.end",
}
_IDENTITY = frozenset({"payer_id", "member_id"})

_JSON: TypeAdapter[object] = TypeAdapter(object)


@dataclass(frozen=True, slots=True)
class Said:
    """Who stated something, through which door, and when."""

    by: str
    source: Source
    at: datetime


def take(patient: Patient, statement: Statement, said: Said, *, correcting: bool) -> None:
    """Fold a statement into the patient. Where it corrects a registration, what it changes goes into the history."""
    for name, path in _PATHS.items():
        if statement.says(name):
            _set(patient, name, getattr(statement, name), path, said, correcting)
    _take_needs(patient, statement, said)
    if statement.says("coverages"):
        _take_coverages(patient, statement.coverages, said, correcting)
    for fact in statement.facts:
        _take_fact(patient, fact, said, correcting)
    for proxy in statement.proxies:
        _take_proxy(patient, proxy, said, correcting)
    for consent in statement.consents:
        _take_consent(patient, consent, said, correcting)


def _set(patient: Patient, name: str, value: object, path: str, said: Said, correcting: bool) -> None:
    value = () if value is None and name in ("given", "channels") else value
    before = getattr(patient, name)
    if before == value:
        return
    setattr(patient, name, value)
    if correcting:
        note(patient, said, path, before, value)


def _take_needs(patient: Patient, statement: Statement, said: Said) -> None:
    """``barriers`` replaces the list, ``found_barriers`` adds to it."""
    held = {need.barrier: need for need in patient.needs}
    wanted: Iterable[Barrier] = held
    if statement.says("barriers"):
        wanted = statement.barriers or ()
    listed = dict.fromkeys([*wanted, *statement.found_barriers])
    patient.needs = [
        held.get(barrier) or Need(barrier=barrier, since=said.at, source=said.source) for barrier in listed
    ]


def _take_coverages(patient: Patient, stated: tuple[StatedCoverage, ...] | None, said: Said, correcting: bool) -> None:
    if stated is None:
        for coverage in patient.coverages:
            note(patient, said, f"Coverage({coverage.id})", coverage.model_dump(mode="json"), None)
        patient.coverages = []
        return
    for one in stated:
        _take_coverage(patient, one, said, correcting)


def _take_coverage(patient: Patient, stated: StatedCoverage, said: Said, correcting: bool) -> None:
    held = patient.coverage
    if stated.id is not None:
        held = next((coverage for coverage in patient.coverages if coverage.id == stated.id), None)
    if stated.withdrawn:
        if held is not None:
            patient.coverages = [coverage for coverage in patient.coverages if coverage is not held]
            note(patient, said, f"Coverage({held.id})", held.model_dump(mode="json"), None)
        return
    if held is None:
        id = stated.id or derived_id("coverage", patient.id, "stated", str(len(patient.coverages)))
        held = Coverage(id=id, source=stated.source)
        patient.coverages.append(held)
    changed = {n for n in _COVERAGE_PATHS if stated.says(n) and getattr(stated, n) != getattr(held, n)}
    for name in sorted(changed):
        if correcting:
            note(patient, said, _COVERAGE_PATHS[name], getattr(held, name), getattr(stated, name))
        setattr(held, name, getattr(stated, name))
    if changed & _IDENTITY:
        held.revision += 1
        held.status, held.reason, held.as_of = CoverageStatus.UNVERIFIED, None, None


def _take_fact(patient: Patient, stated: StatedFact, said: Said, correcting: bool) -> None:
    held = next((fact for fact in patient.facts if fact.id == stated.id), None)
    if stated.withdrawn:
        if held is not None:
            patient.facts.remove(held)
            note(patient, said, f"{held.kind}({held.id})", held.model_dump(mode="json"), None)
        return
    new = Fact(
        id=stated.id,
        kind=stated.kind,
        codings=stated.codings,
        text=stated.text,
        status=stated.status,
        onset=stated.onset,
        provenance=Provenance(
            source=said.source,
            by=said.by,
            at=said.at,
            reference=stated.reference,
            asserter=stated.asserter,
            recorded=stated.recorded,
        ),
    )
    if held is None:
        patient.facts.append(new)
        if correcting:
            note(patient, said, f"{new.kind}({new.id})", None, new.model_dump(mode="json"))
        return
    told = ("codings", "text", "status", "onset")
    if all(getattr(held, name) == getattr(new, name) for name in told):
        return
    # What a clinician confirmed was the old wording.
    patient.facts[patient.facts.index(held)] = new
    note(patient, said, f"{new.kind}({new.id})", held.model_dump(mode="json"), new.model_dump(mode="json"))


def _take_proxy(patient: Patient, stated: StatedProxy, said: Said, correcting: bool) -> None:
    held = next((proxy for proxy in patient.proxies if proxy.id == stated.id), None)
    revoked_at = held.revoked_at if held is not None else None
    if not stated.active and revoked_at is None:
        revoked_at = said.at
    # A revocation is undone by nobody's old record: only a new proxy, with a new id, gets rights again.
    new = Proxy(**stated.model_dump(exclude={"active"}), revoked_at=revoked_at)
    if held is None:
        patient.proxies.append(new)
        if correcting:
            note(patient, said, f"RelatedPerson({new.id})", None, new.model_dump(mode="json"))
        return
    if held == new:
        return
    patient.proxies[patient.proxies.index(held)] = new
    note(patient, said, f"RelatedPerson({new.id})", held.model_dump(mode="json"), new.model_dump(mode="json"))


def _take_consent(patient: Patient, stated: StatedConsent, said: Said, correcting: bool) -> None:
    held = next((consent for consent in patient.consents if consent.id == stated.id), None)
    given_at = stated.given_at or (held.given_at if held is not None else said.at)
    new = Consent(id=stated.id, active=stated.active, given_at=given_at, denies=stated.denies, permits=stated.permits)
    if held == new:
        return
    if held is None:
        patient.consents.append(new)
    else:
        patient.consents[patient.consents.index(held)] = new
    if correcting:
        was = None if held is None else held.model_dump(mode="json")
        note(patient, said, f"Consent({new.id})", was, new.model_dump(mode="json"))
    _apply_consent(patient, new, said)


def _apply_consent(patient: Patient, consent: Consent, said: Said) -> None:
    """A denial holds until its own consent ends or a later one permits; a permission lifts only what is older."""
    denies = frozenset(consent.denies if consent.active else ())
    own = [channel for channel, revocation in patient.revoked.items() if revocation.consent_id == consent.id]
    for channel in own:
        if channel not in denies:
            del patient.revoked[channel]
    for channel in consent.permits if consent.active else ():
        revocation = patient.revoked.get(channel)
        if revocation is not None and revocation.at < consent.given_at:
            del patient.revoked[channel]
    for channel in denies:
        patient.revoked.setdefault(
            Channel(channel), Revocation(at=consent.given_at, source=said.source, consent_id=consent.id)
        )


def note(patient: Patient, said: Said, field: str, before: object, after: object) -> None:
    """Put one changed field into the correction history."""
    patient.corrections.append(
        Correction(field=field, at=said.at, by=said.by, before=_json(before), after=_json(after))
    )


def _json(value: object) -> JsonValue:
    dumped: JsonValue = _JSON.dump_python(value, mode="json")
    return dumped
