"""A payer's words as data, and what they mean for an authorization.

The decision is never in ``ClaimResponse.outcome`` but in each item's review action (X12 306); ``weigh`` rolls the items
up to one ``Ruling``, or says why an answer cannot be used. Nothing that cannot be used changes an authorization.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.document import Part

AHEAD = timedelta(days=1)
"""How far a payer's clock may run ahead of ours; further is a mistake that would outrank every later decision."""

GRANTED = frozenset({ReviewAction.CERTIFIED, ReviewAction.PARTIAL, ReviewAction.MODIFIED})

_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/#-]{0,49}")
_CODE = re.compile(r"[A-Za-z0-9.-]{1,20}")
"""What a reason or an error must look like to travel on: a code, never text about a person."""


class Source(StrEnum):
    """By which way an answer came."""

    SUBMIT = "submit"
    UPDATE = "update"
    APPEAL = "appeal"
    CANCEL = "cancel"
    POLL = "poll"
    NOTIFICATION = "notification"
    COVERAGE = "coverage-information"


Units = int | float
"""A number of units as a payer says it; only a whole one can be used."""

WHOLE = 0
"""The sequence number of a decision on the claim as a whole; items count from 1."""


@dataclass(frozen=True, slots=True)
class GrantAnswer:
    """What the payer grants in place of an item (``addItem``)."""

    service: Coding | None
    units: Units | None = None


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """The payer's word on one item. ``code`` is X12 306 as received, ``action`` what it means, where it means anything.

    ``units`` are those granted, from the item's authorized detail or, where the payer granted something else, from
    ``addItem``, whose services are ``granted``. ``reasons`` are X12 886 codes. Dates are inclusive. ``reference`` is
    the payer's administrative number.
    """

    sequence: int
    code: str | None = None
    action: ReviewAction | None = None
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    issued: date | None = None
    units: Units | None = None
    reasons: tuple[str, ...] = ()
    reference: str | None = None
    added: bool = False
    granted: tuple[GrantAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error the payer found in the request: X12 901 code, its FHIRPath or X12 element, X12 889 action, item."""

    code: str | None
    path: str | None = None
    follow_up: str | None = None
    item: int | None = None


@dataclass(frozen=True, slots=True)
class PayerAnswer:
    """One ClaimResponse. ``claims`` are all identifiers by which it says which claim it answers.

    ``whole`` is its decision on the claim, for items that have none of their own; ``human_reviewed`` whether a person
    looked at it, where the payer says so.
    """

    claims: tuple[str, ...]
    created: datetime
    outcome: str
    items: tuple[ItemAnswer, ...] = ()
    errors: tuple[ErrorAnswer, ...] = ()
    whole: ItemAnswer | None = None
    human_reviewed: bool | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The payer answered a call in the form it should. ``answer`` None: an inquiry that found nothing."""

    answer: PayerAnswer | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The payer answered, but what it said is not a PAS answer. ``reason`` is a code, ``where`` a path."""

    reason: str
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The payer will not take this as it is (a 4xx): asking again changes nothing. ``reason`` is a code."""

    reason: str

    @property
    def unknown_claim(self) -> bool:
        """Whether it says that it has no such claim."""
        return self.reason == NOT_FOUND


NOT_FOUND = "not-found-at-payer"


class Ruling(Part):
    """What the payer decided on one claim, by its own date."""

    claim_id: str
    action: ReviewAction
    decided_at: datetime
    issued: date | None = None
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units: int | None = None
    reasons: tuple[str, ...] = ()
    source: Source
    taken_at: datetime

    @property
    def age(self) -> tuple[datetime, date]:
        """What rulings are ordered by: the payer's own time, then the day it says it decided."""
        return self.decided_at, self.issued or date.min

    def says(self) -> tuple[object, ...]:
        """Its words without its dates of telling: equal for a repeat."""
        return (self.action, self.number, self.valid_from, self.valid_to, self.units, self.reasons)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why an answer changes nothing: a code."""

    reason: str


def weigh(
    answer: PayerAnswer, claim_id: str, requested: Collection[int], source: Source, now: datetime
) -> Ruling | Unusable:
    """What an answer means for a claim whose items had the sequence numbers ``requested``."""
    flaw = _flaw(answer, claim_id, requested, now)
    if flaw is not None:
        return Unusable(flaw)
    items = answer.items
    action = roll_up([item.action for item in items if item.action is not None])
    telling = [item for item in items if item.action in GRANTED] if action in GRANTED else list(items)
    ruling = Ruling(
        claim_id=claim_id,
        action=action,
        decided_at=answer.created,
        issued=max((item.issued for item in items if item.issued), default=None),
        number=next((item.number for item in telling if item.number), None),
        valid_from=max((item.valid_from for item in telling if item.valid_from), default=None),
        valid_to=min((item.valid_to for item in telling if item.valid_to), default=None),
        units=_units(telling),
        reasons=tuple(dict.fromkeys(reason for item in items for reason in item.reasons)),
        source=source,
        taken_at=now,
    )
    flaw = _gap(ruling)
    return ruling if flaw is None else Unusable(flaw)


def roll_up(actions: Collection[ReviewAction]) -> ReviewAction:
    """One action for all items: what needs a person or is undecided comes first, then what is granted of the whole.

    | items | together |
    |---|---|
    | any CT | CT |
    | any A4 | A4 |
    | all the same | the same |
    | something granted, among it an A6 | A6 |
    | something granted, something not, or an A2 | A2 |
    | all granted or not needed (A1, NA) | A1 |
    | nothing granted, something denied | A3 |
    | only C and NA | C |
    """
    found = set(actions)
    for first in (ReviewAction.CONTACT_PAYER, ReviewAction.PENDED):
        if first in found:
            return first
    if len(found) == 1:
        return found.pop()
    if found & GRANTED:
        if ReviewAction.MODIFIED in found:
            return ReviewAction.MODIFIED
        whole = found <= {ReviewAction.CERTIFIED, ReviewAction.NO_ACTION_REQUIRED}
        return ReviewAction.CERTIFIED if whole else ReviewAction.PARTIAL
    return ReviewAction.NOT_CERTIFIED if ReviewAction.NOT_CERTIFIED in found else ReviewAction.CANCELLED


def _flaw(answer: PayerAnswer, claim_id: str, requested: Collection[int], now: datetime) -> str | None:
    """What makes an answer unusable before its decision is looked at."""
    if claim_id not in answer.claims:
        return "other-claim"
    if answer.created > now + AHEAD:
        return "dated-ahead"
    if answer.errors and not any(item.code for item in answer.items):
        code = answer.errors[0].code or ""
        return f"rejected-{code if _CODE.fullmatch(code) else 'unknown'}"
    items = answer.items
    if not items:
        return "no-item"
    sequences = [item.sequence for item in items]
    if not set(sequences) <= set(requested):
        return "unknown-item"
    if len(sequences) != len(set(sequences)):
        return "item-twice"
    if any(item.code is None for item in items):
        return "no-review-action"
    if any(item.action is None for item in items):
        return "unknown-review-action"
    if not all(_CODE.fullmatch(reason) for item in items for reason in item.reasons):
        return "reason-malformed"
    if not all(isinstance(item.units, int | None) for item in items):
        return "units-not-whole"
    return None


def _gap(ruling: Ruling) -> str | None:
    """What a grant lacks to be used: it is of no use without a number, nor a smaller one without its size."""
    if ruling.action not in GRANTED:
        return None
    if ruling.number is None:
        return "number-missing"
    if not _NUMBER.fullmatch(ruling.number):
        return "number-malformed"
    if ruling.valid_from and ruling.valid_to and ruling.valid_to < ruling.valid_from:
        return "dates-reversed"
    if ruling.action is not ReviewAction.CERTIFIED and ruling.units is None:
        return "units-missing"
    return None


def _units(items: list[ItemAnswer]) -> int | None:
    known = [int(item.units) for item in items if item.units is not None]
    return sum(known) if known else None
