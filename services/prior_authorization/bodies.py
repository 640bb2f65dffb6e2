"""What coordinators send: the bodies of the requests, checked before anything is decided."""

from __future__ import annotations

import base64
import hashlib
from datetime import date, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.prior_authorization.model.denials import TalkOutcome
from services.prior_authorization.model.evidence import (
    Canonical,
    EvidenceKind,
    LoincCode,
)
from services.prior_authorization.model.evidence import Evidence as Piece
from shared.contracts.base import Coding
from shared.kit.api import DocumentId
from shared.kit.errors import Flaw, Invalid

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
MAX_EVIDENCE = 4 * 1024 * 1024
"""Characters of base64 in one piece of evidence."""


class CancelBody(BaseModel):
    """Why an authorization is called off: a code, never text about a person."""

    model_config = ConfigDict(extra="forbid")

    reason: Code = "coordinator"


class Evidence(BaseModel):
    """One piece of what an appeal carries: what it is, and the id under which it is kept."""

    model_config = ConfigDict(extra="forbid")

    code: Code
    reference: DocumentId


class AppealBody(BaseModel):
    """How a denial is appealed."""

    model_config = ConfigDict(extra="forbid")

    expedited: bool = False
    evidence: list[Evidence] = Field(default=[], max_length=20)


class ResubmitBody(BaseModel):
    """The codes of what was put right, and the diagnoses where those were wrong."""

    model_config = ConfigDict(extra="forbid")

    corrected: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,20}$")]] = Field(max_length=50)
    diagnoses: list[Coding] | None = Field(None, max_length=12)


class TalkTime(BaseModel):
    """When an offered talk begins, with its zone."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime


class TalkOffer(TalkTime):
    """A time at which the payer's physician can be reached."""

    end: AwareDatetime

    @model_validator(mode="after")
    def _lasts(self) -> TalkOffer:
        if self.end <= self.start:
            raise ValueError("ends before it begins")
        return self


class TalkBody(BaseModel):
    """The times that the payer offers, until when it talks about the denial, and whose calendar is to have the talk.

    Within the offers the clinician's own calendar decides, unless a person takes one.
    """

    model_config = ConfigDict(extra="forbid")

    offers: list[TalkOffer] = Field(default=[], max_length=20)
    not_after: AwareDatetime | None = None
    clinician_id: DocumentId | None = None


class TalkEnd(BaseModel):
    """How a talk ended."""

    model_config = ConfigDict(extra="forbid")

    outcome: TalkOutcome


class ExtendBody(BaseModel):
    """By how many calendar days the payer extended its time."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[int, Field(ge=1, le=60)]


class EvidenceItem(BaseModel):
    """One piece of evidence with its bytes in base64; ``sha256`` (hex), where it is given, must be theirs."""

    model_config = ConfigDict(extra="forbid")

    kind: EvidenceKind
    type: LoincCode
    data: Annotated[str, StringConstraints(min_length=4, max_length=MAX_EVIDENCE)]
    content_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z0-9.+-]{1,60}$")] = "application/pdf"
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    reference: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}$")] | None = None
    dated: date | None = None
    canonical: Canonical | None = None

    def read(self, place: int, now: datetime) -> Piece:
        """What is kept of it on the authorization. Raises Invalid."""
        try:
            content = base64.b64decode(self.data, validate=True)
        except ValueError:
            raise Invalid(
                "the evidence cannot be read", flaws=[Flaw(f"items[{place}].data", "is not base64")]
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        if self.sha256 not in (None, digest):
            raise Invalid("the evidence cannot be used", flaws=[Flaw(f"items[{place}].sha256", "is not that of data")])
        about = self.model_dump(exclude={"data", "sha256"})
        return Piece(**about, sha256=digest, added_at=now)


class EvidenceBody(BaseModel):
    """Evidence for a request."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[tuple[EvidenceItem, ...], Field(min_length=1, max_length=20)]
