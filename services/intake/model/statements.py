"""What callers state about a patient, and the commands that carry it: plain data, whichever door it came through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from pydantic import BaseModel, ConfigDict

from services.intake.model.patient import Address, FactKind, Gender, ProxyScope, Source
from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel


class Stated(BaseModel):
    """A part of a statement. A field that was not set says nothing; one set to None says that there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def says(self, field: str) -> bool:
        """Whether anything was said of this field."""
        return field in self.model_fields_set


class StatedCoverage(Stated):
    """A coverage. Without ``id`` it is the one that pays first, corrected or newly stated."""

    id: str | None = None
    source: str | None = None
    order: int | None = None
    payer_id: str | None = None
    member_id: str | None = None
    plan: str | None = None
    relationship: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    withdrawn: bool = False


class StatedFact(Stated):
    """A clinical fact; ``withdrawn`` where it was entered in error."""

    id: str
    kind: FactKind
    codings: tuple[Coding, ...] = ()
    text: str | None = None
    status: str | None = None
    onset: date | None = None
    reference: str | None = None
    asserter: str | None = None
    recorded: date | None = None
    withdrawn: bool = False


class StatedProxy(Stated):
    """A person who may act for the patient; ``active`` False takes that back."""

    id: str
    name: str | None = None
    relationship: str | None = None
    phone: str | None = None
    email: str | None = None
    scopes: tuple[ProxyScope, ...] = ()
    valid_to: date | None = None
    active: bool = True


class StatedConsent(Stated):
    """A consent; ``given_at`` None means now."""

    id: str
    active: bool = True
    given_at: datetime | None = None
    denies: tuple[Channel, ...] = ()
    permits: tuple[Channel, ...] = ()


class Statement(Stated):
    """Everything that one request states. Lists of records add and correct; ``barriers`` and ``channels`` replace."""

    family: str | None = None
    given: tuple[str, ...] | None = None
    birth_date: date | None = None
    gender: Gender | None = None
    mobile: str | None = None
    phone: str | None = None
    email: str | None = None
    address: Address | None = None
    language: str | None = None
    timezone: str | None = None
    channels: tuple[Channel, ...] | None = None
    barriers: tuple[Barrier, ...] | None = None
    found_barriers: tuple[Barrier, ...] = ()
    """Barriers read out of clinical resources: they add, for a record elsewhere does not know them all."""
    coverages: tuple[StatedCoverage, ...] | None = None
    facts: tuple[StatedFact, ...] = ()
    proxies: tuple[StatedProxy, ...] = ()
    consents: tuple[StatedConsent, ...] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """Open a registration, or correct the one that the same caller opened for the same patient."""

    id: str
    by: str
    source: Source
    statement: Statement
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Correct:
    """Complete or correct a registration."""

    by: str
    source: Source
    statement: Statement


@dataclass(frozen=True, slots=True)
class ConfirmFact:
    """A clinician confirms a clinical fact."""

    by: str
    fact_id: str


@dataclass(frozen=True, slots=True)
class RevokeProxy:
    """Take a proxy's rights back, at once."""

    by: str
    proxy_id: str


@dataclass(frozen=True, slots=True)
class VerifyCoverage:
    """Ask the payer now, not only when the last answer ages."""

    by: str


@dataclass(frozen=True, slots=True)
class EnterInError:
    """This registration should never have been: forget the person."""

    by: str
