"""What a payer decides: the script that a member id stands for, and the case that submissions build up. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from deploy.simulators.ledger import Ruling
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import DomainError

APPROVING = frozenset({ReviewAction.CERTIFIED, ReviewAction.PARTIAL, ReviewAction.MODIFIED})
"""Actions that carry a number, dates and units."""

APPEALABLE = frozenset({ReviewAction.NOT_CERTIFIED, ReviewAction.PARTIAL, ReviewAction.MODIFIED})
UNREVISABLE = frozenset({ReviewAction.NOT_CERTIFIED, ReviewAction.CANCELLED})
"""A denied request may not be updated; a new one is opened (PAS 2.2.1, profile-claim-update)."""


class Certification(StrEnum):
    """X12 1322, certification type: what a submission asks for."""

    APPEAL_IMMEDIATE = "1"
    APPEAL_STANDARD = "2"
    CANCEL = "3"
    EXTENSION = "4"
    INITIAL = "I"
    RENEWAL = "R"
    REVISED = "S"

    @property
    def is_first(self) -> bool:
        """Whether it follows no other claim."""
        return self in (Certification.INITIAL, Certification.RENEWAL)

    @property
    def is_appeal(self) -> bool:
        """Whether a decision is contested."""
        return self in (Certification.APPEAL_IMMEDIATE, Certification.APPEAL_STANDARD)


class NotAllowed(DomainError):
    """The case's state does not allow what the submission asks for."""

    slug = "business-rule"
    status = 422
    title = "The authorization's state does not allow this"


# -- scripts --------------------------------------------------------------------------------------------------------


class Script(BaseModel):
    """How the payer treats one member. ``appeal`` None means that appeals get what the first request got.

    ``pend_hours``: pended first and decided that much later. ``copies``: how often each notification is sent.
    ``units``: granted per item where the action is A2 or A6; by default half, at least one. ``busy``, ``error`` and
    ``lost`` count submissions answered so; ``slow`` those whose answer comes late. ``human_reviewed``: whether a person
    looked at a decision, where the payer says so. ``asks``: the LOINC codes of documents that are asked for where a
    request is pended; what brings them all is decided at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    known: bool = True
    in_force: bool = True
    decision: ReviewAction = ReviewAction.CERTIFIED
    appeal: ReviewAction | None = None
    pend_hours: float | None = Field(None, ge=0)
    notify: bool = False
    copies: int = Field(1, ge=1, le=10)
    units: int | None = Field(None, ge=0)
    reasons: tuple[str, ...] = ("82",)
    period_days: int = Field(90, ge=1)
    busy: int = Field(0, ge=0)
    error: int = Field(0, ge=0)
    lost: int = Field(0, ge=0)
    slow: int = Field(0, ge=0)
    retry_after: int = Field(2, ge=0)
    human_reviewed: bool | None = None
    asks: tuple[str, ...] = ()


_PHRASES: tuple[tuple[str, dict[str, object]], ...] = (
    ("PEND-POLL", {"pend_hours": 26}),
    ("PEND-NOTIFY", {"pend_hours": 5, "notify": True}),
    ("PEND-ASK", {"pend_hours": 120, "asks": ("18776-5",)}),
    ("DENY-OVERTURN", {"decision": ReviewAction.NOT_CERTIFIED, "appeal": ReviewAction.CERTIFIED}),
    ("DENY", {"decision": ReviewAction.NOT_CERTIFIED}),
    ("APPROVE", {"decision": ReviewAction.CERTIFIED}),
    ("MODIFY", {"decision": ReviewAction.MODIFIED}),
    ("PARTIAL", {"decision": ReviewAction.PARTIAL}),
    ("CONTACT", {"decision": ReviewAction.CONTACT_PAYER}),
    ("NOTREQUIRED", {"decision": ReviewAction.NO_ACTION_REQUIRED}),
    ("LAPSED", {"in_force": False}),
    ("UNKNOWN", {"known": False}),
    ("SLOW", {"slow": 1}),
    ("BUSY", {"busy": 2}),
    ("ERROR", {"error": 2}),
    ("LOST", {"lost": 2}),
    ("DUP", {"copies": 2}),
)
"""Longer phrases before those they begin with."""

_SANDBOX = re.compile(r"SBX-(?P<words>[A-Z]+(?:-[A-Z]+)*)-\d+")


def script_of_words(words: str) -> Script:
    """The script that words such as ``BUSY-PEND-POLL-DENY`` stand for. Raises ValueError at an unknown word."""
    rest, fields = words, {}
    while rest:
        for phrase, meaning in _PHRASES:
            if rest == phrase or rest.startswith(phrase + "-"):
                fields.update(meaning)
                rest = rest[len(phrase) + 1 :]
                break
        else:
            raise ValueError(f"unknown script words: {rest}")
    return Script.model_validate(fields)


def script_of_member(member_id: str) -> Script:
    """The script of a sandbox member id ``SBX-<WORDS>-<n>``; anybody else is approved at once."""
    sandbox = _SANDBOX.fullmatch(member_id)
    if sandbox is None:
        return Script()
    try:
        return script_of_words(sandbox["words"])
    except ValueError:
        return Script()


# -- decisions ------------------------------------------------------------------------------------------------------


def reference_number(prefix: str, *parts: str) -> str:
    """A number that follows from what it is for, so that a run can be repeated: ``AUTH-3F2A9C41``."""
    return f"{prefix}-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()[:8].upper()}"


def granted(script: Script, action: ReviewAction, units: int) -> int:
    """How many of one item's ``units`` an action grants."""
    if action is ReviewAction.CERTIFIED:
        return units
    if action in (ReviewAction.PARTIAL, ReviewAction.MODIFIED):
        return script.units if script.units is not None else max(1, units // 2)
    return 0


def action_for(script: Script, certification: Certification) -> ReviewAction:
    """The decision that a submission gets in the end."""
    if certification is Certification.CANCEL:
        return ReviewAction.CANCELLED
    if certification.is_appeal and script.appeal is not None:
        return script.appeal
    return script.decision


def decides_at(
    script: Script, certification: Certification, received: datetime, documents: Collection[str] = ()
) -> datetime:
    """When a submission with documents of these types is decided: at once, or when its pend is over. Cancellations are
    never pended, nor is what brings all that is asked for."""
    brought = bool(script.asks) and set(script.asks) <= set(documents)
    if certification is Certification.CANCEL or script.pend_hours is None or brought:
        return received
    return received + timedelta(hours=script.pend_hours)


def rule(
    script: Script, action: ReviewAction, *, payer_id: str, claim: str, units: tuple[int, ...], at: datetime
) -> Ruling:
    """The ruling on a submission whose items ask for ``units``. Dates are inclusive and start on the UTC day."""
    approving = action in APPROVING
    return Ruling(
        at=at,
        claim=claim,
        action=action,
        number=reference_number("AUTH", payer_id, claim) if approving else None,
        valid_from=at.date() if approving else None,
        valid_to=at.date() + timedelta(days=script.period_days) if approving else None,
        units_requested=sum(units),
        units_granted=sum(granted(script, action, asked) for asked in units),
        reasons=script.reasons if action is ReviewAction.NOT_CERTIFIED else (),
        human_reviewed=None if action is ReviewAction.PENDED else script.human_reviewed,
    )


def refuse_unless_allowed(certification: Certification, current: ReviewAction) -> None:
    """Raise NotAllowed where a case that stands at ``current`` cannot take such a submission."""
    if certification.is_appeal and current not in APPEALABLE:
        raise NotAllowed(f"an authorization at {current} cannot be appealed")
    if certification in (Certification.REVISED, Certification.EXTENSION) and current in UNREVISABLE:
        raise NotAllowed(f"an authorization at {current} cannot be revised; open a new one")
