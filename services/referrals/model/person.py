"""The person as referrals know them: whether the registration is complete, and how they are covered. Fed by intake."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.contracts.intake import (
    CoverageLapsed,
    CoverageStatus,
    CoverageUnverifiable,
    CoverageVerified,
    PatientCompleted,
    PatientIncomplete,
    PatientRegistered,
)
from shared.contracts.referrals import PersonKnown
from shared.kit.decisions import Facts
from shared.kit.document import Document, Part


class Registration(StrEnum):
    """Whether intake's completeness gate let the person through."""

    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


class Cover(Part):
    """A person's coverage as intake last told it. ``reason`` is a code of the payer's or of intake's."""

    status: CoverageStatus
    coverage_id: str | None = None
    payer_id: str | None = None
    reason: str | None = None


class Person(Document):
    """One patient; the id is ``patient_id``. ``missing`` are FHIR paths, never values."""

    collection: ClassVar[str] = "person"
    transitions = {
        Registration.INCOMPLETE: frozenset({Registration.COMPLETE}),
        Registration.COMPLETE: frozenset({Registration.INCOMPLETE}),
    }

    state: Registration = Registration.INCOMPLETE
    missing: tuple[str, ...] = ()
    cover: Cover = Cover(status=CoverageStatus.UNVERIFIED)


def registered(person: Person | None, event: PatientRegistered, facts: Facts, now: datetime) -> Person:
    """A registration was opened, complete or not."""
    known = person or Person(id=event.patient_id)
    _gate(known, event.complete, event.missing)
    return _announce(known)


def completed(person: Person | None, event: PatientCompleted, facts: Facts, now: datetime) -> Person:
    """Nothing is missing any more."""
    known = person or Person(id=event.patient_id)
    _gate(known, True, ())
    return _announce(known)


def incomplete(person: Person | None, event: PatientIncomplete, facts: Facts, now: datetime) -> Person:
    """A correction left fields missing."""
    known = person or Person(id=event.patient_id)
    _gate(known, False, event.missing)
    return _announce(known)


def covered(person: Person | None, event: CoverageVerified, facts: Facts, now: datetime) -> Person:
    """The payer said that the coverage is in force."""
    cover = Cover(status=CoverageStatus.ACTIVE, coverage_id=event.coverage_id, payer_id=event.payer_id)
    return _cover(person, event.patient_id, cover)


def lapsed(person: Person | None, event: CoverageLapsed, facts: Facts, now: datetime) -> Person:
    """The payer said that the coverage is not in force."""
    cover = Cover(
        status=CoverageStatus.LAPSED, coverage_id=event.coverage_id, payer_id=event.payer_id, reason=event.reason
    )
    return _cover(person, event.patient_id, cover)


def unverifiable(person: Person | None, event: CoverageUnverifiable, facts: Facts, now: datetime) -> Person:
    """No verdict could be had."""
    cover = Cover(status=CoverageStatus.UNVERIFIABLE, coverage_id=event.coverage_id, reason=event.reason)
    return _cover(person, event.patient_id, cover)


def _gate(person: Person, complete: bool, missing: tuple[str, ...]) -> None:
    to = Registration.COMPLETE if complete else Registration.INCOMPLETE
    if person.state is not to:
        person.move(to)
    person.missing = missing


def _cover(person: Person | None, patient_id: str, cover: Cover) -> Person:
    known = person or Person(id=patient_id)
    if person is not None and person.cover == cover:
        return person
    known.cover = cover
    return _announce(known)


def _announce(person: Person) -> Person:
    person.record(PersonKnown(patient_id=person.id))
    return person
