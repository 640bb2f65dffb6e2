"""The registry of specialists: whom a referral can be sent to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shared.contracts.referrals import SpecialistAvailable, SpecialistListed
from shared.kit.decisions import Facts
from shared.kit.document import Document


class Listing(StrEnum):
    """Whether a specialist takes referrals."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class Specialist(Document):
    """One specialist. The calendar that scheduling books is the resource with the same id.

    ``available_for`` is the specialty while active, else None: what a referral in search of a specialist looks by.
    """

    collection: ClassVar[str] = "specialist"
    indexes: ClassVar[tuple[str, ...]] = ("specialty", "available_for")
    transitions = {
        Listing.ACTIVE: frozenset({Listing.INACTIVE}),
        Listing.INACTIVE: frozenset({Listing.ACTIVE}),
    }

    state: Listing = Listing.ACTIVE
    specialty: str
    capabilities: tuple[str, ...] = ()
    available_for: str | None = None

    @property
    def resource_id(self) -> str:
        """The calendar resource that scheduling books for this specialist."""
        return self.id


class ListSpecialist(BaseModel):
    """Add a specialist to the registry, or change the entry."""

    model_config = ConfigDict(frozen=True)

    id: str
    specialty: str
    capabilities: tuple[str, ...] = ()
    active: bool = True


def list_specialist(specialist: Specialist | None, command: ListSpecialist, facts: Facts, now: datetime) -> Specialist:
    """Keep the entry; one that takes referrals is announced to those that wait for such a one."""
    entry = specialist or Specialist(id=command.id, specialty=command.specialty)
    to = Listing.ACTIVE if command.active else Listing.INACTIVE
    if entry.state is not to:
        entry.move(to)
    entry.specialty = command.specialty
    entry.capabilities = command.capabilities
    entry.available_for = command.specialty if command.active else None
    if command.active:
        entry.record(SpecialistListed(specialist_id=entry.id, specialty=entry.specialty))
        entry.record(SpecialistAvailable(specialist_id=entry.id))
    return entry
