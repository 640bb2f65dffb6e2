"""The Patient document: everything that intake knows of one person, each thing with where it came from."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import JsonValue

from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel, CoverageStatus
from shared.kit.document import Document, Part


class State(StrEnum):
    """Whether the registration can be worked with."""

    INCOMPLETE = "incomplete"
    COMPLETE = "complete"
    ENTERED_IN_ERROR = "entered-in-error"


class Gender(StrEnum):
    """FHIR R4 administrative-gender."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """Through which door something was stated."""

    BUNDLE = "fhir-bundle"
    JSON = "json"
    REPLY = "reply"


class FactKind(StrEnum):
    """The FHIR R4 resource type that a clinical fact is of."""

    CONDITION = "Condition"
    ALLERGY = "AllergyIntolerance"
    MEDICATION = "MedicationStatement"


class ProxyScope(StrEnum):
    """What a family member or caregiver may do for the patient; without any they are only a contact."""

    APPOINTMENTS = "appointments"
    MESSAGES = "messages"
    RECORDS = "records"


class Address(Part):
    """A postal address."""

    lines: tuple[str, ...] = ()
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str = "US"

    @property
    def deliverable(self) -> bool:
        """Whether a letter can be sent there."""
        return bool(self.lines and (self.postal_code or (self.city and self.state)))


class Coverage(Part):
    """How the patient is insured, as stated, and what the payer said of it.

    ``revision`` rises when payer or member change: a verdict counts only for the revision it was asked for.
    ``plan``, ``valid_from`` and ``valid_to`` are as stated; ``inforce_*`` as the payer answered, ``as_of`` when.
    """

    id: str
    source: str | None = None
    order: int | None = None
    payer_id: str | None = None
    member_id: str | None = None
    plan: str | None = None
    relationship: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    revision: int = 1
    status: CoverageStatus = CoverageStatus.UNVERIFIED
    reason: str | None = None
    inforce_from: date | None = None
    inforce_to: date | None = None
    as_of: datetime | None = None
    tries: int = 0

    @property
    def verifiable(self) -> bool:
        """Whether there is enough to ask the payer."""
        return self.payer_id is not None and self.member_id is not None


class Provenance(Part):
    """Where a statement came from. ``reference`` is the sender's own name for it; ``asserter`` a FHIR reference."""

    source: Source
    by: str
    at: datetime
    reference: str | None = None
    asserter: str | None = None
    recorded: date | None = None


class Fact(Part):
    """A condition, an allergy or a medication; unconfirmed until a clinician of ours says otherwise."""

    id: str
    kind: FactKind
    codings: tuple[Coding, ...] = ()
    text: str | None = None
    status: str | None = None
    onset: date | None = None
    provenance: Provenance
    confirmed_by: str | None = None
    confirmed_at: datetime | None = None

    @property
    def unconfirmed(self) -> bool:
        """Whether no clinician has looked at it yet."""
        return self.confirmed_at is None


class Need(Part):
    """A barrier that the patient wants help with."""

    barrier: Barrier
    since: datetime
    source: Source


class Proxy(Part):
    """A person who may act for the patient within ``scopes``, until revoked."""

    id: str
    name: str | None = None
    relationship: str | None = None
    phone: str | None = None
    email: str | None = None
    scopes: tuple[ProxyScope, ...] = ()
    valid_to: date | None = None
    revoked_at: datetime | None = None

    def may(self, scope: ProxyScope, today: date) -> bool:
        """Whether they may do this now. A revocation counts at once, the last valid day to its end."""
        if self.revoked_at is not None or scope not in self.scopes:
            return False
        return self.valid_to is None or today <= self.valid_to


class Consent(Part):
    """A consent on file, with what it says about channels."""

    id: str
    active: bool
    given_at: datetime
    denies: tuple[Channel, ...] = ()
    permits: tuple[Channel, ...] = ()


class Revocation(Part):
    """Since when a channel must not be used, and what said so: a reply, or a consent's id."""

    at: datetime
    source: Source
    consent_id: str | None = None


class Correction(Part):
    """One field that changed after registration. The values stay in the store; nothing else shows them."""

    field: str
    at: datetime
    by: str
    before: JsonValue = None
    after: JsonValue = None


class Patient(Document):
    """A registered person. ``missing`` is what the completeness gate still wants, as FHIR paths."""

    collection: ClassVar[str] = "patient"
    indexes: ClassVar[tuple[str, ...]] = ("state",)
    transitions: ClassVar[dict[State, frozenset[State]]] = {
        State.INCOMPLETE: frozenset({State.COMPLETE, State.ENTERED_IN_ERROR}),
        State.COMPLETE: frozenset({State.INCOMPLETE, State.ENTERED_IN_ERROR}),
        State.ENTERED_IN_ERROR: frozenset(),
    }
    terminal: ClassVar[frozenset[State]] = frozenset({State.ENTERED_IN_ERROR})

    state: State = State.INCOMPLETE
    missing: tuple[str, ...] = ()
    registered_at: datetime
    provenance: Provenance | None = None

    family: str | None = None
    given: tuple[str, ...] = ()
    birth_date: date | None = None
    gender: Gender | None = None
    mobile: str | None = None
    phone: str | None = None
    email: str | None = None
    address: Address | None = None
    language: str | None = None
    timezone: str | None = None
    channels: tuple[Channel, ...] = ()

    revoked: dict[Channel, Revocation] = {}
    consents: list[Consent] = []
    needs: list[Need] = []
    coverages: list[Coverage] = []
    facts: list[Fact] = []
    proxies: list[Proxy] = []
    corrections: list[Correction] = []

    @property
    def coverage(self) -> Coverage | None:
        """The coverage that pays first (FHIR Coverage.order), else the one stated first."""
        return min(self.coverages, key=lambda coverage: (coverage.order is None, coverage.order or 0), default=None)

    @property
    def coverage_status(self) -> CoverageStatus:
        """What is known of the coverage that pays first."""
        return CoverageStatus.ABSENT if self.coverage is None else self.coverage.status

    @property
    def speaks(self) -> str:
        """The language to use, BCP 47; English until another is stated."""
        return self.language or "en"
