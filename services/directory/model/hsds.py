"""The Human Services Data Specification 3.0, as far as a service record must hold together.

Required fields and enumerations are those of the specification's compiled ``service.json`` (``service_full``). Fields
that a profile adds are kept as they came.
"""

from __future__ import annotations

from datetime import date, datetime, time
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.contracts.directory import ServiceStatus


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("is not a UUID") from None


def _date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a date (YYYY-MM-DD)") from None
    return text


def _time(text: str) -> str:
    try:
        time.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a time (HH:MM, ISO 8601)") from None
    return text


def _timestamp(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a date and time (ISO 8601)") from None
    return text


HsdsId = Annotated[str, AfterValidator(_uuid)]
"""An HSDS identifier: a UUID, kept in its canonical form."""

_BYDAY = r"([+-]?\d{0,2}(MO|TU|WE|TH|FR|SA|SU))"

IsoDate = Annotated[str, AfterValidator(_date)]
IsoTime = Annotated[str, AfterValidator(_time)]
Timestamp = Annotated[str, AfterValidator(_timestamp)]
Filled = Annotated[str, Field(min_length=1)]


class Place(StrEnum):
    """HSDS location.location_type and address.address_type."""

    PHYSICAL = "physical"
    POSTAL = "postal"
    VIRTUAL = "virtual"


class Record(BaseModel):
    """A part of a service record. What a profile adds is kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Taxonomy(Record):
    """The classification that a term belongs to."""

    id: HsdsId
    name: Filled
    description: str


class TaxonomyTerm(Record):
    """What kind of help, in a classification's words."""

    id: HsdsId
    name: Filled
    description: str
    code: str | None = None
    parent_id: HsdsId | None = None
    taxonomy: str | None = None
    taxonomy_id: HsdsId | None = None
    taxonomy_detail: Taxonomy | None = None


class Attribute(Record):
    """Links a term to a record."""

    id: HsdsId
    taxonomy_term_id: HsdsId | None = None
    taxonomy_term: TaxonomyTerm | None = None


class Language(Record):
    """A language in which help is given; ``code`` is ISO 639-1 or 639-2."""

    id: HsdsId
    name: str | None = None
    code: str | None = None


class Phone(Record):
    """A telephone number."""

    id: HsdsId
    number: Filled
    languages: tuple[Language, ...] = ()


class Schedule(Record):
    """When help is given: RFC 5545 recurrence by its parts."""

    id: HsdsId
    valid_from: IsoDate | None = None
    valid_to: IsoDate | None = None
    dtstart: IsoDate | None = None
    until: IsoDate | None = None
    timezone: float | None = None
    count: int | None = None
    interval: int | None = None
    freq: Literal["WEEKLY", "MONTHLY"] | None = None
    wkst: Literal["MO", "TU", "WE", "TH", "FR", "SA", "SU"] | None = None
    byday: str | None = Field(None, pattern=rf"^{_BYDAY}(,{_BYDAY})*$")
    byweekno: str | None = None
    bymonthday: str | None = None
    byyearday: str | None = None
    opens_at: IsoTime | None = None
    closes_at: IsoTime | None = None


class Contact(Record):
    """Whom to ask for."""

    id: HsdsId
    phones: tuple[Phone, ...] = ()


class Address(Record):
    """Where a location is, or takes post."""

    id: HsdsId
    address_1: Filled
    city: Filled
    state_province: Filled
    postal_code: Filled
    country: Filled
    address_type: Place


class Location(Record):
    """A place where help is given."""

    id: HsdsId
    location_type: Place
    name: str | None = None
    languages: tuple[Language, ...] = ()
    addresses: tuple[Address, ...] = ()
    contacts: tuple[Contact, ...] = ()
    phones: tuple[Phone, ...] = ()
    schedules: tuple[Schedule, ...] = ()


class ServiceAtLocation(Record):
    """The service at one of its places."""

    id: HsdsId
    location: Location | None = None
    contacts: tuple[Contact, ...] = ()
    phones: tuple[Phone, ...] = ()
    schedules: tuple[Schedule, ...] = ()


class ServiceArea(Record):
    """Where people may live to be helped."""

    id: HsdsId
    name: str | None = None
    description: str | None = None
    extent: str | None = None
    extent_type: str | None = None


class Organization(Record):
    """Who gives the help."""

    id: HsdsId
    name: Filled
    description: Filled
    locations: tuple[Location, ...] = ()
    phones: tuple[Phone, ...] = ()
    contacts: tuple[Contact, ...] = ()


class Program(Record):
    """A set of services."""

    id: HsdsId
    name: Filled
    description: str


class ServiceFull(Record):
    """One service with all that belongs to it (HSDS 3.0 ``service_full``)."""

    id: HsdsId
    name: Filled
    status: ServiceStatus
    organization: Organization
    description: str | None = None
    alternate_name: str | None = None
    url: str | None = None
    email: str | None = None
    alert: str | None = None
    minimum_age: float | None = None
    maximum_age: float | None = None
    assured_date: IsoDate | None = None
    last_modified: Timestamp | None = None
    phones: tuple[Phone, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    service_areas: tuple[ServiceArea, ...] = ()
    service_at_locations: tuple[ServiceAtLocation, ...] = ()
    languages: tuple[Language, ...] = ()
    program: Program | None = None
    contacts: tuple[Contact, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    def terms(self) -> tuple[TaxonomyTerm, ...]:
        """The taxonomy terms that the service carries itself."""
        return tuple(attribute.taxonomy_term for attribute in self.attributes if attribute.taxonomy_term is not None)

    def term_ids(self) -> tuple[str, ...]:
        """The ids of those terms, also where only the id is given."""
        linked = {attribute.taxonomy_term_id for attribute in self.attributes if attribute.taxonomy_term_id is not None}
        return tuple(sorted(linked | {term.id for term in self.terms()}))

    def taxonomy_ids(self) -> tuple[str, ...]:
        """The ids of the taxonomies that those terms belong to."""
        named = {term.taxonomy_id for term in self.terms() if term.taxonomy_id is not None}
        nested = {term.taxonomy_detail.id for term in self.terms() if term.taxonomy_detail is not None}
        return tuple(sorted(named | nested))

    def places(self) -> tuple[Location, ...]:
        """The locations where this service is given (not all of its organization's)."""
        return tuple(at.location for at in self.service_at_locations if at.location is not None)


ONE_TO_ONE = frozenset({"organization", "program"})
"""Nested parts that a listing shows: it has "only one-to-one fields" (HSDS API 3.0)."""


def listed(full: dict[str, object]) -> dict[str, object]:
    """A service record as a listing shows it: without its one-to-many parts."""
    shown: dict[str, object] = {}
    for name, value in full.items():
        if isinstance(value, list):
            continue
        if isinstance(value, dict):
            if name in ONE_TO_ONE:
                shown[name] = {key: part for key, part in value.items() if not isinstance(part, list | dict)}
            continue
        shown[name] = value
    return shown
