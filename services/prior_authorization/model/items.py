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
    """One service asked for. ``quantity`` counts ``unit`` (UCUM; None: units of service), over ``starts`` to ``ends``.

    ``place`` is a CMS place-of-service code. ``diagnoses`` point at the authorization's diagnoses, counted from 1; none
    means all of them. ``dropped``: taken out of the request by an update; its number is never given to another.
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
    dropped: bool = False


def one_item(service: Coding, quantity: int, kind: ServiceKind = ServiceKind.REFERRAL) -> tuple[Item, ...]:
    """The items of a request for one service, at least one unit of it."""
    return (Item(sequence=FIRST, service=service, kind=kind, quantity=max(quantity, 1)),)


def next_sequence(items: Iterable[Item]) -> int:
    """The number of the next item; those of dropped items count too."""
    return max((item.sequence for item in items), default=FIRST - 1) + 1
