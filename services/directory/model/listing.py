"""A community service: its HSDS record, what it can be found by, how it was verified and who was in contact with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import ClassVar

from services.directory.model.hsds import ServiceFull
from services.directory.model.needs import languages_of, needs_of, words_of
from services.directory.model.places import reach_of
from shared.contracts.directory import NeedServed, ServiceListed, ServiceStatus
from shared.contracts.intake import Barrier
from shared.kit.decisions import Due, Facts
from shared.kit.document import Document, Part
from shared.kit.errors import Flaw, Invalid

VERIFY_EVERY = timedelta(days=180)
"""How long a record counts as verified. Stale entries are the pain of directories: 36% of callers got help."""

CONTACTS_KEPT = 50
"""How many entries the contact log of a service keeps, the newest."""


class ContactChannel(StrEnum):
    """How somebody got in contact with a service."""

    PHONE = "phone"
    EMAIL = "email"
    VISIT = "visit"
    WEB = "web"


class ContactResult(StrEnum):
    """What came of it."""

    REACHED = "reached"
    NOT_REACHED = "not-reached"
    WRONG_NUMBER = "wrong-number"
    CLOSED = "closed"


class Contact(Part):
    """One entry of the contact log. Says nothing of patients."""

    at: datetime
    by: str
    channel: ContactChannel
    result: ContactResult


class CommunityService(Document):
    """One HSDS service. ``listing`` is the ``service_full`` JSON as it came; all else is derived, or ours."""

    collection: ClassVar[str] = "service"
    State: ClassVar[type[ServiceStatus]] = ServiceStatus
    indexes: ClassVar[tuple[str, ...]] = (
        "state",
        "needs",
        "languages",
        "reach",
        "terms",
        "taxonomies",
        "organization_id",
        "words",
        "supply",
        "stale",
    )
    transitions: ClassVar[dict[ServiceStatus, frozenset[ServiceStatus]]] = {
        ServiceStatus.ACTIVE: frozenset(
            {ServiceStatus.INACTIVE, ServiceStatus.TEMPORARILY_CLOSED, ServiceStatus.DEFUNCT},
        ),
        ServiceStatus.INACTIVE: frozenset(
            {ServiceStatus.ACTIVE, ServiceStatus.TEMPORARILY_CLOSED, ServiceStatus.DEFUNCT},
        ),
        ServiceStatus.TEMPORARILY_CLOSED: frozenset(
            {ServiceStatus.ACTIVE, ServiceStatus.INACTIVE, ServiceStatus.DEFUNCT},
        ),
        ServiceStatus.DEFUNCT: frozenset({ServiceStatus.INACTIVE}),
    }
    terminal: ClassVar[frozenset[ServiceStatus]] = frozenset()

    state: ServiceStatus
    listing: str
    name: str
    organization_id: str
    needs: tuple[Barrier, ...] = ()
    languages: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    taxonomies: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    supply: tuple[str, ...] = ()
    """What hand-offs look for: each need it meets, with each place it reaches, while it is active."""
    listed_at: datetime
    verified_at: datetime | None = None
    verified_by: str | None = None
    stale: bool = False
    contacts: tuple[Contact, ...] = ()


def supply_key(need: Barrier, place: str) -> str:
    """What a need in a place is looked for by."""
    return f"{need}@{place}"


@dataclass(frozen=True, slots=True)
class ListService:
    """List a service, or replace its record. ``listing`` is the same as ``service``, as JSON text."""

    id: str
    service: ServiceFull
    listing: str


@dataclass(frozen=True, slots=True)
class VerifyService:
    """Somebody made sure that the record is right. ``by`` is the caller's subject."""

    by: str


@dataclass(frozen=True, slots=True)
class LogContact:
    """Somebody was in contact with the service."""

    by: str
    channel: ContactChannel
    result: ContactResult


def list_service(
    document: CommunityService | None, command: ListService, facts: Facts, now: datetime
) -> CommunityService:
    """List a service or change its record; unchanged, nothing happens.

    Raises Invalid where the record's id is not the path's, IllegalTransition where the status cannot change so.
    """
    service = command.service
    if service.id != command.id:
        raise Invalid(flaws=[Flaw("id", "is not the id of the address it was put to")])
    if document is not None and document.listing == command.listing:
        return document
    if document is None:
        document = CommunityService(
            id=command.id,
            state=service.status,
            listing=command.listing,
            name=service.name,
            organization_id=service.organization.id,
            listed_at=now,
        )
        document.wake("verify", now + VERIFY_EVERY)
    elif document.state != service.status:
        document.move(service.status)
    document.listing = command.listing
    document.listed_at = now
    _derive(document, service)
    _assure(document, service, now)
    _announce(document)
    return document


def _derive(document: CommunityService, service: ServiceFull) -> None:
    document.name = service.name
    document.organization_id = service.organization.id
    document.needs = needs_of(service)
    document.languages = languages_of(service)
    document.reach = reach_of(service)
    document.terms = service.term_ids()
    document.taxonomies = service.taxonomy_ids()
    document.words = words_of((service.name, service.alternate_name, service.description, service.organization.name))
    active = document.state is ServiceStatus.ACTIVE
    pairs = ((need, place) for need in document.needs for place in document.reach)
    document.supply = tuple(supply_key(need, place) for need, place in pairs) if active else ()


def _assure(document: CommunityService, service: ServiceFull, now: datetime) -> None:
    """Take over the record's own assurance (HSDS service.assured_date) where it is newer than ours."""
    if service.assured_date is None:
        return
    assured = datetime.combine(date.fromisoformat(service.assured_date), time(), UTC)
    if assured > now or (document.verified_at is not None and assured <= document.verified_at):
        return
    document.verified_at = assured
    document.verified_by = None
    document.stale = assured + VERIFY_EVERY <= now
    document.rest("verify")
    if not document.stale:
        document.wake("verify", assured + VERIFY_EVERY)


def _announce(document: CommunityService) -> None:
    document.record(
        ServiceListed(service_id=document.id, status=document.state, needs=document.needs, languages=document.languages)
    )
    if document.state is not ServiceStatus.ACTIVE:
        return
    for need in document.needs:
        document.record(NeedServed(service_id=document.id, need=need))


def verify_service(document: CommunityService, command: VerifyService, facts: Facts, now: datetime) -> CommunityService:
    """Count the record as right from now on, until the next verification is due."""
    document.verified_at = now
    document.verified_by = command.by
    document.stale = False
    document.wake("verify", now + VERIFY_EVERY)
    return document


def log_contact(document: CommunityService, command: LogContact, facts: Facts, now: datetime) -> CommunityService:
    """Add to the contact log. A wrong number or closed doors make the record stale; being reached verifies nothing."""
    entry = Contact(at=now, by=command.by, channel=command.channel, result=command.result)
    document.contacts = (*document.contacts, entry)[-CONTACTS_KEPT:]
    if command.result in (ContactResult.WRONG_NUMBER, ContactResult.CLOSED):
        document.stale = True
    return document


def verification_due(document: CommunityService, due: Due, facts: Facts, now: datetime) -> CommunityService:
    """The record was not verified for too long: it ranks behind fresh ones, and editors find it listed as stale."""
    document.stale = True
    return document
