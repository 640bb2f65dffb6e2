"""Events of intake: who the patient is, how they are covered, what they need to be reached."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from .base import Event, Phi, PhiText, Value


class Barrier(StrEnum):
    """What stands between a patient and a visit, and can be helped with."""

    INTERPRETER = "interpreter"
    TRANSPORTATION = "transportation"
    PRESCRIPTION_ASSISTANCE = "prescription-assistance"


class Channel(StrEnum):
    """How a message reaches a person."""

    SMS = "sms"
    EMAIL = "email"
    VOICE = "voice"
    LETTER = "letter"


class CoverageStatus(StrEnum):
    """What is known of a patient's coverage."""

    ABSENT = "absent"
    UNVERIFIED = "unverified"
    ACTIVE = "active"
    LAPSED = "lapsed"
    UNVERIFIABLE = "unverifiable"


class PatientEvent(Event):
    """About one registered patient; the subject is ``patient_id``."""

    topic: ClassVar[str] = "intake.events"
    patient_id: str


class PatientRegistered(PatientEvent):
    """A registration was opened. ``missing`` names each field the completeness gate still wants, as FHIR paths."""

    type: ClassVar[str] = "patient.registered.v1"
    complete: bool
    missing: tuple[str, ...] = ()
    language: str = "en"


class PatientCompleted(PatientEvent):
    """Nothing is missing any more."""

    type: ClassVar[str] = "patient.completed.v1"


class PatientIncomplete(PatientEvent):
    """A correction left fields missing, or other fields than before."""

    type: ClassVar[str] = "patient.incomplete.v1"
    missing: tuple[str, ...]


class BarrierRecorded(PatientEvent):
    """The patient needs help of a kind; ``language`` is BCP 47."""

    type: ClassVar[str] = "patient.barrier-recorded.v1"
    barrier: Barrier
    language: str = "en"


class CoverageVerified(PatientEvent):
    """The payer said that the coverage is in force (FHIR CoverageEligibilityResponse.insurance.inforce)."""

    type: ClassVar[str] = "coverage.verified.v1"
    coverage_id: str
    payer_id: str
    plan: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    as_of: datetime


class CoverageLapsed(PatientEvent):
    """The payer said that the coverage is not in force. ``reason`` is a code, never text of the payer's."""

    type: ClassVar[str] = "coverage.lapsed.v1"
    coverage_id: str
    payer_id: str
    reason: str
    as_of: datetime


class CoverageUnverifiable(PatientEvent):
    """No verdict could be had (``no-coverage``, ``payer-unknown``, ``payer-unreachable``, ``not-enough-data``)."""

    type: ClassVar[str] = "coverage.unverifiable.v1"
    coverage_id: str | None = None
    reason: str
    as_of: datetime


class PersonAddress(Value):
    """A postal address."""

    lines: tuple[PhiText, ...] = ()
    city: PhiText | None = None
    state: PhiText | None = None
    postal_code: PhiText | None = None
    country: str = "US"


class PersonCoverage(Value):
    """What a payer needs to recognise the member."""

    coverage_id: str
    payer_id: str
    member_id: PhiText | None = None
    plan: str | None = None
    status: CoverageStatus = CoverageStatus.UNVERIFIED


class PersonChanged(Event):
    """The whole of what named internal readers keep of a person, each time anything of it changes.

    Readers: notifications (contact), prior_authorization (member), directory (area). ``channels`` are in order of
    preference; a channel in ``revoked`` must not be used. ``erased`` asks readers to forget the person.
    """

    type: ClassVar[str] = "person.changed.v1"
    topic: ClassVar[str] = "intake.people"
    patient_id: str
    family: PhiText | None = None
    given: tuple[PhiText, ...] = ()
    birth_date: Annotated[date | None, Phi()] = None
    gender: Annotated[str | None, Phi()] = None
    mobile: PhiText | None = None
    phone: PhiText | None = None
    email: PhiText | None = None
    address: PersonAddress | None = None
    language: str = "en"
    timezone: str | None = None
    channels: tuple[Channel, ...] = ()
    revoked: tuple[Channel, ...] = ()
    coverage: PersonCoverage | None = None
    erased: bool = False
