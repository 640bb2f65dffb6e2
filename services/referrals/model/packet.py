"""The clinical packet: which items a specialty wants to see, what is there, and the hash of what was sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from shared.contracts.base import Coding
from shared.contracts.referrals import PacketEntry
from shared.kit.document import Part


class PacketKind(StrEnum):
    """What an item of a packet is about."""

    REASON = "reason"
    PROBLEMS = "problems"
    MEDICATIONS = "medications"
    ALLERGIES = "allergies"
    NOTES = "notes"
    RESULTS = "results"
    ECG = "ecg"
    IMAGING = "imaging"
    PATHOLOGY = "pathology"
    PHOTO = "photo"
    OTHER = "other"


class PacketSource(StrEnum):
    """Where an item came from."""

    ORDER = "order"
    DOCUMENT = "document"
    REPLACED = "replaced-referral"


LOINC = "http://loinc.org"

GENERAL = "general"
"""The specialty of an order that names none (SNOMED CT 103696004, 'Patient referral to specialist')."""

DEFAULT_CHECKLIST = frozenset({PacketKind.REASON})
"""What any named specialty wants, where it has no checklist of its own."""

CHECKLISTS: dict[str, frozenset[PacketKind]] = {
    # An order that names neither specialty nor reason must still reach a person: nothing is demanded of it here, what
    # it states is sent, and whoever takes it asks for the rest.
    GENERAL: frozenset(),
    "cardiology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.ALLERGIES, PacketKind.ECG}),
    "dermatology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.PHOTO}),
    "endocrinology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.RESULTS}),
    "gastroenterology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.ALLERGIES}),
    "nephrology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.RESULTS}),
    "neurology": frozenset({PacketKind.REASON, PacketKind.PROBLEMS, PacketKind.MEDICATIONS}),
    "oncology": frozenset({PacketKind.REASON, PacketKind.PROBLEMS, PacketKind.PATHOLOGY, PacketKind.IMAGING}),
    "orthopedics": frozenset({PacketKind.REASON, PacketKind.IMAGING}),
    "pulmonology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.IMAGING}),
    "rheumatology": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.RESULTS}),
    "surgery": frozenset({PacketKind.REASON, PacketKind.MEDICATIONS, PacketKind.ALLERGIES, PacketKind.IMAGING}),
}


class PacketItem(Part):
    """One item: its kind and the SHA-256 (hex) of its content. The content itself is kept where it came from.

    ``code`` says what kind of document it is (LOINC), or what the reason is (SNOMED CT, ICD-10-CM). ``reference`` is
    the FHIR reference that the order named it by.
    """

    kind: PacketKind
    sha256: str
    source: PacketSource
    added_at: datetime
    code: Coding | None = None
    reference: str | None = None

    def entry(self) -> PacketEntry:
        """As it travels to the alternative of a rejected referral."""
        return PacketEntry(kind=self.kind, sha256=self.sha256, code=self.code, reference=self.reference)

    @classmethod
    def carried(cls, entry: PacketEntry, now: datetime) -> PacketItem:
        """The item in the packet of the alternative."""
        return cls(
            kind=PacketKind(entry.kind),
            sha256=entry.sha256,
            source=PacketSource.REPLACED,
            added_at=now,
            code=entry.code,
            reference=entry.reference,
        )


def content_hash(*parts: str) -> str:
    """SHA-256, hex, of what an order states itself, such as a reason's code: parts in order, none ambiguous."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def checklist(specialty: str) -> frozenset[PacketKind]:
    """What a packet for this specialty must hold."""
    return CHECKLISTS.get(specialty, DEFAULT_CHECKLIST)


def wanting(specialty: str, items: Iterable[PacketItem]) -> tuple[PacketKind, ...]:
    """What the checklist asks for and the packet does not hold, in alphabetical order."""
    return tuple(sorted(checklist(specialty) - {item.kind for item in items}))


def documents(items: Iterable[PacketItem]) -> tuple[PacketEntry, ...]:
    """What others may want to see of a packet: what has a LOINC type and a place where it is kept."""
    return tuple(
        item.entry()
        for item in items
        if item.reference is not None and item.code is not None and item.code.system == LOINC
    )


def snapshot_hash(items: Iterable[PacketItem]) -> str:
    """SHA-256, hex, over the packet's items whatever their order: what was sent can be proved later."""
    lines = sorted(
        json.dumps([item.kind, item.sha256, *((item.code.system, item.code.code) if item.code else ())])
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
