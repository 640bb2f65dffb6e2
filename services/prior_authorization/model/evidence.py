"""What a request must be sent with: what is needed by rule or by the payer's word, what is there, what is missing.

An authorization keeps the type (LOINC) of each piece and the SHA-256 of its bytes. The bytes are personal data,
and a document of their own (``Contents``): a payer takes none by reference (PAS 2.2.1, DocumentReference).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, StringConstraints

from services.prior_authorization.model.rows import Row, Scope
from shared.contracts.intake import PersonChanged
from shared.contracts.referrals import PacketEntry
from shared.kit.decisions import Facts
from shared.kit.document import Document, Part, derived_id

LOINC = "http://loinc.org"

QUESTIONNAIRE_FORM = "102089-0"
"""LOINC: Questionnaire form. What a QuestionnaireResponse is sent as, whatever it asks."""

LoincCode = Annotated[str, StringConstraints(pattern=r"^\d{1,7}-\d$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
Canonical = Annotated[str, StringConstraints(pattern=r"^(https?://|urn:)[^\s]{1,500}$")]


class EvidenceKind(StrEnum):
    """What kind of thing it is."""

    QUESTIONNAIRE = "questionnaire"
    DOCUMENT = "document"
    NOTE = "note"
    RESULT = "result"


class Need(Part):
    """One thing that must be there. ``types`` are LOINC codes, any of which will do; none: any of its kind.

    ``canonical`` is the questionnaire that must be answered, whatever its version. ``days``: it may be no older than
    that when the request is made.
    """

    name: str
    kind: EvidenceKind
    types: tuple[str, ...] = ()
    canonical: str | None = None
    days: int | None = None

    @classmethod
    def questionnaire(cls, canonical: str) -> Need:
        """The answers to one questionnaire."""
        name = f"questionnaire-{hashlib.sha256(unversioned(canonical).encode()).hexdigest()[:8]}"
        return cls(name=name, kind=EvidenceKind.QUESTIONNAIRE, types=(QUESTIONNAIRE_FORM,), canonical=canonical)

    def met_by(self, piece: Evidence, on: date) -> bool:
        """Whether a piece of evidence that can be sent is what is wanted by a request made on a day."""
        if not piece.held or piece.kind is not self.kind or (self.types and piece.type not in self.types):
            return False
        if self.canonical is not None and unversioned(piece.canonical or "") != unversioned(self.canonical):
            return False
        return self.days is None or (piece.dated is not None and piece.dated >= on - timedelta(days=self.days))


class Evidence(Part):
    """One thing that is known of: its LOINC ``type``, the SHA-256 of its bytes, ``dated`` when it was made.

    ``reference`` is where it is kept. ``sequence`` is the number it is attached by, where its bytes are here.
    """

    kind: EvidenceKind
    type: str
    sha256: str
    reference: str | None = None
    content_type: str = "application/pdf"
    dated: date | None = None
    canonical: str | None = None
    sequence: int | None = None
    added_at: datetime

    @property
    def held(self) -> bool:
        """Whether it can be sent."""
        return self.sequence is not None


class NeedRow(Row):
    """A need as a rules file names it."""

    name: Name
    kind: EvidenceKind
    types: tuple[LoincCode, ...] = ()
    canonical: Canonical | None = None
    days: int | None = Field(None, ge=1, le=3660)

    def need(self) -> Need:
        """What it asks for; a questionnaire is a questionnaire form (102089-0), whatever it asks."""
        types = self.types or ((QUESTIONNAIRE_FORM,) if self.kind is EvidenceKind.QUESTIONNAIRE else ())
        return Need(name=self.name, kind=self.kind, types=types, canonical=self.canonical, days=self.days)


class EvidenceRule(Scope):
    """One row: what requests of this scope must be sent with. All rows that match count together."""

    why: str
    needs: tuple[NeedRow, ...] = Field(min_length=1)


def missing(needs: Iterable[Need], there: Iterable[Evidence], on: date) -> tuple[Need, ...]:
    """What a request made on a day still lacks."""
    listed = list(there)
    return tuple(need for need in needs if not any(need.met_by(piece, on) for piece in listed))


def together(*several: Iterable[Need]) -> tuple[Need, ...]:
    """All needs, each once."""
    found: dict[tuple[object, ...], Need] = {}
    for needs in several:
        for need in needs:
            found.setdefault((need.kind, need.types, need.canonical, need.days), need)
    return tuple(found.values())


_OF_PACKET = {
    "results": EvidenceKind.RESULT,
    "ecg": EvidenceKind.RESULT,
    "pathology": EvidenceKind.RESULT,
    "imaging": EvidenceKind.RESULT,
    "notes": EvidenceKind.NOTE,
}
"""What the items of a referral's packet are here; all others are documents."""


def in_packet(entries: Iterable[PacketEntry], now: datetime) -> tuple[Evidence, ...]:
    """The evidence in a referral's packet: what has a LOINC type and a place where it is kept."""
    return tuple(
        Evidence(
            kind=EvidenceKind.QUESTIONNAIRE
            if entry.code.code == QUESTIONNAIRE_FORM
            else _OF_PACKET.get(entry.kind, EvidenceKind.DOCUMENT),
            type=entry.code.code,
            reference=entry.reference,
            sha256=entry.sha256,
            added_at=now,
        )
        for entry in entries
        if entry.code is not None and entry.code.system == LOINC and entry.reference is not None
    )


def unversioned(canonical: str) -> str:
    """A canonical URL without its version."""
    return canonical.partition("|")[0]


# -- what was sent --------------------------------------------------------------------------------------------------


class Snapshot(Part):
    """What a claim was sent with: its evidence as it then was, and the SHA-256 over the canonical JSON of all of it."""

    sha256: str
    evidence: tuple[Evidence, ...] = ()


def canonical_json(value: object) -> bytes:
    """One way to write a value: keys in order, no spaces, UTF-8. Dates and times in ISO 8601."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_iso)
    return text.encode()


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical form")


def snapshot(request: object, evidence: tuple[Evidence, ...]) -> Snapshot:
    """Seal what a claim is sent with: ``request`` is what is asked for, as plain values."""
    listed = [piece.model_dump(exclude={"added_at"}) for piece in evidence]
    digest = hashlib.sha256(canonical_json({"request": request, "evidence": listed})).hexdigest()
    return Snapshot(sha256=digest, evidence=evidence)


# -- the bytes ------------------------------------------------------------------------------------------------------


class ContentsState(StrEnum):
    """Whether they may still be kept."""

    KEPT = "kept"
    FORGOTTEN = "forgotten"


class Contents(Document):
    """The bytes of one piece of evidence, in base64. Personal data: never published, forgotten with the person."""

    collection = "contents"
    indexes = ("patient_id",)
    transitions: ClassVar = {
        ContentsState.KEPT: frozenset({ContentsState.FORGOTTEN}),
        ContentsState.FORGOTTEN: frozenset(),
    }
    terminal: ClassVar = frozenset({ContentsState.FORGOTTEN})

    state: ContentsState = ContentsState.KEPT
    patient_id: str
    data: str | None = None


class KeepContents(BaseModel):
    """Keep the bytes of a piece of evidence of a patient."""

    patient_id: str
    data: str


def contents_id(authorization_id: str, sha256: str) -> str:
    """The id of the bytes that an authorization is sent with."""
    return derived_id("contents", authorization_id, sha256)


def keep(document: Contents | None, command: KeepContents, facts: Facts, now: datetime) -> Contents:
    """Keep the bytes; the same again changes nothing."""
    return document or Contents(id=facts.id, patient_id=command.patient_id, data=command.data)


def forget(document: Contents, event: PersonChanged, facts: Facts, now: datetime) -> Contents:
    """The person is erased: so is what was kept of them."""
    if event.erased and document.state is ContentsState.KEPT:
        document.data = None
        document.move(ContentsState.FORGOTTEN)
    return document
