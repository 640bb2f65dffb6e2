"""What is asked for: the items of a request, each with the number by which payer and we speak of it for ever."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from enum import StrEnum

from shared.contracts.base import Coding
from shared.kit.document import Part

FIRST = 1
"""Item sequence numbers count from 1 and are stable for ever (PAS 2.2.1): never given anew, never given away."""


class ServiceKind(StrEnum):
    """What kind of service an item asks for: it decides the X12 1525 request category and which order is sent along."""

    REFERRAL = "referral"
    MEDICAL_SERVICES = "medical-services"
    HOMECARE = "homecare"
    SURGERY = "surgery"
    DRUG = "drug"
    DEVICE = "device"
    ADMISSION = "admission"


class Item(Part):
    """One service asked for. ``quantity`` counts ``unit``, an X12 673 code (``VS`` visits, ``DA`` days; None: plain).

    ``place`` is a CMS place-of-service code. ``diagnoses`` point at the authorization's diagnoses, counted from 1; none
    means all of them. ``providers`` are numbers of the authorization's. ``dropped``: taken out of the request by an
    update; it stays among the items, and its number is never given to another.
    """

    sequence: int
    service: Coding
    kind: ServiceKind = ServiceKind.REFERRAL
    quantity: int = 1
    unit: str | None = None
    modifiers: tuple[Coding, ...] = ()
    place: str | None = None
    starts: date | None = None
    ends: date | None = None
    diagnoses: tuple[int, ...] = ()
    providers: tuple[int, ...] = ()
    dropped: bool = False


class Provider(Part):
    """An organization that is to give the care. ``role`` is an X12 98 code (``SJ``: service provider)."""

    sequence: int
    npi: str
    name: str
    role: str = "SJ"


class Attachment(Part):
    """A document that goes along with a request: what it is, never what it says.

    ``type`` is a LOINC code, ``report`` X12 755 (``77``: support data), ``digest`` the SHA-256 of what is sent.
    ``control`` is the number under which the payer that asked for it looks for it.
    """

    sequence: int
    type: Coding
    report: str = "77"
    content_type: str = "application/pdf"
    digest: str | None = None
    control: str | None = None
    dropped: bool = False


def one_item(service: Coding, quantity: int, kind: ServiceKind = ServiceKind.REFERRAL) -> tuple[Item, ...]:
    """The items of a request for one service, at least one unit of it."""
    return (Item(sequence=FIRST, service=service, kind=kind, quantity=max(quantity, 1)),)


def next_sequence(numbered: Iterable[Item | Provider | Attachment]) -> int:
    """The number of the next one; those of dropped ones count too."""
    return max((each.sequence for each in numbered), default=FIRST - 1) + 1
