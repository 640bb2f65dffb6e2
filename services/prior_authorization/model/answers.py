"""A payer's words as data, and what they mean for an authorization.

The decision is never in ``ClaimResponse.outcome`` but in each item's review action (X12 306); ``weigh`` rolls the items
up to one ``Ruling``, or says why an answer cannot be used. Nothing that cannot be used changes an authorization.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from services.prior_authorization.model.items import Item
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ItemDifference, ReviewAction
from shared.kit.document import Part

AHEAD = timedelta(days=1)
"""How far a payer's clock may run ahead of ours; further is a mistake that would outrank every later decision."""

GRANTED = frozenset({ReviewAction.CERTIFIED, ReviewAction.PARTIAL, ReviewAction.MODIFIED})

_AS_ASKED = frozenset({ReviewAction.CERTIFIED, ReviewAction.NO_ACTION_REQUIRED})
"""Where an item may be given as it was asked for."""

_REJECTED = "rejected-"
UNKNOWN = "unknown"
"""Said in place of a code that a payer did not give, or not as a code."""

_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/#-]{0,49}")
_CODE = re.compile(r"[A-Za-z0-9.-]{1,20}")
"""What a reason or an error must look like to travel on: a code, never text about a person."""
_PATH = re.compile(r"[A-Za-z0-9_.:\[\]()'=-]{1,200}")
"""What a path in a payer's error must look like to be kept: FHIRPath or an X12 element, without blanks."""


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
    """What the payer grants in place of an item (``addItem``); ``shared`` where it stands for several together."""

    service: Coding | None
    units: Units | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """The payer's word on one item. ``code`` is X12 306 as received, ``action`` what it means, where it means anything.

    ``units`` are those granted, from the item's authorized detail or, where the payer granted something else, from
    ``addItem``, whose services are ``granted``. ``reasons`` are X12 886 codes. Dates are inclusive. ``reference`` is
    the payer's administrative number, ``authorized`` the number of an earlier authorization of the item, ``service``
    the service that its authorized detail names. ``told`` is whether it was given a review action code at all, be it
    one that means nothing, or text alone.
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
    authorized: str | None = None
    service: Coding | None = None
    added: bool = False
    granted: tuple[GrantAnswer, ...] = ()
    told: bool = False


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error the payer found in the request: X12 901 code, its FHIRPath or X12 element, X12 889 action, item."""

    code: str | None
    path: str | None = None
    follow_up: str | None = None
    item: int | None = None


@dataclass(frozen=True, slots=True)
class AskAnswer:
    """Something a payer asks for before it decides. ``codes`` say what: LOINC, or X12 755 report types; none where it
    cannot be read.

    ``item`` is the item's number (None: the claim), ``modifiers`` LOINC codes of which of it, ``questionnaire`` the one
    to be answered (canonical, or DTR's context), ``control`` the number under which the payer looks for what is sent,
    ``until`` when it must be there, ``url`` where the payer takes attachments.
    """

    codes: tuple[Coding, ...] = ()
    item: int | None = None
    modifiers: tuple[str, ...] = ()
    questionnaire: str | None = None
    control: str | None = None
    until: datetime | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PayerAnswer:
    """One ClaimResponse. ``claims`` are all identifiers by which it says which claim it answers.

    ``whole`` is its decision on the claim, for items that have none of their own; ``human_reviewed`` whether a person
    looked at it, where the payer says so; ``asks`` what the payer wants to see first.
    """

    claims: tuple[str, ...]
    created: datetime
    outcome: str
    items: tuple[ItemAnswer, ...] = ()
    errors: tuple[ErrorAnswer, ...] = ()
    whole: ItemAnswer | None = None
    human_reviewed: bool | None = None
    asks: tuple[AskAnswer, ...] = ()

    @property
    def rejects(self) -> bool:
        """Whether it names errors in the request, and decides nothing."""
        items = self.items or ((self.whole,) if self.whole is not None else ())
        return bool(self.errors) and not any(item.code for item in items)


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


class Grant(Part):
    """A service granted in place of an item."""

    service: Coding | None = None
    units: int | None = None


class ItemRuling(Part):
    """What the payer decided on one item. ``units`` are those granted; None: as asked for, where it is certified.

    ``granted`` is what stands in its place where that is something else. ``reference`` is the payer's administrative
    number; ``human_reviewed`` whether a person looked at it, where the payer says so.
    """

    sequence: int
    action: ReviewAction
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units: int | None = None
    reasons: tuple[str, ...] = ()
    human_reviewed: bool | None = None
    reference: str | None = None
    granted: tuple[Grant, ...] = ()

    def units_of(self, quantity: int) -> int:
        """How many units of the ``quantity`` asked for may be given."""
        if self.action in GRANTED and self.units is not None:
            return self.units
        return quantity if self.action in _AS_ASKED else 0

    def says(self) -> tuple[object, ...]:
        """Its words."""
        granted = tuple((grant.service, grant.units) for grant in self.granted)
        dates = (self.valid_from, self.valid_to)
        return (self.sequence, self.action, self.number, *dates, self.units, self.reasons, granted)


class Rejection(Part):
    """An error that the payer found in a request, as it is kept: codes and a path, nothing that could be a person's."""

    code: str
    path: str | None = None
    follow_up: str | None = None
    item: int | None = None


class Ruling(Part):
    """What the payer decided on one claim, by its own date: item by item, and together (``roll_up``).

    ``number`` is the first granted item's, the dates those on which all that is granted holds.
    """

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
    items: tuple[ItemRuling, ...] = ()
    human_reviewed: bool | None = None

    @property
    def age(self) -> tuple[datetime, date]:
        """What rulings are ordered by: the payer's own time, then the day it says it decided."""
        return self.decided_at, self.issued or date.min

    def says(self) -> tuple[object, ...]:
        """Its words without its dates of telling: equal for a repeat. One item says no more than the whole."""
        items = tuple(item.says() for item in self.items) if len(self.items) > 1 else ()
        return (self.action, self.number, self.valid_from, self.valid_to, self.units, self.reasons, *items)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why an answer changes nothing: a code."""

    reason: str

    @property
    def rejects(self) -> bool:
        """Whether the payer found errors in the request, and decided nothing."""
        return self.reason.startswith(_REJECTED)


def weigh(
    answer: PayerAnswer, claim_id: str, items: Collection[Item], source: Source, now: datetime
) -> Ruling | Unusable:
    """What an answer means for a claim for these items. Those that were dropped from it no longer count."""
    flaw = _flaw(answer, claim_id, {item.sequence for item in items}, now)
    if flaw is not None:
        return Unusable(flaw)
    counted = [item for item in items if not item.dropped or all(i.dropped for i in items)]
    asked = {item.sequence: item.quantity for item in counted}
    words = _words(answer, asked, {item.sequence: item.service for item in items})
    counting = [word for word in words if word.sequence in asked]
    missing = asked.keys() - {word.sequence for word in counting}
    action = roll_up([*(word.action for word in counting), *(ReviewAction.PENDED for _ in missing)])
    granted = [word for word in counting if word.action in GRANTED]
    flaw = next(filter(None, map(_gap, granted)), None) if action in GRANTED else None
    if flaw is not None:
        return Unusable(flaw)
    telling = granted if action in GRANTED else counting
    valid_from, valid_to = _window(telling)
    number = next((word.number for word in telling if word.number), None)
    if action in GRANTED and number is None:
        return Unusable("number-missing")
    return Ruling(
        claim_id=claim_id,
        action=action,
        decided_at=answer.created,
        issued=max((item.issued for item in answer.items if item.issued), default=None),
        number=number,
        valid_from=valid_from,
        valid_to=valid_to,
        units=_units(action, counting, asked),
        reasons=tuple(dict.fromkeys(reason for word in counting for reason in word.reasons)),
        source=source,
        taken_at=now,
        items=words,
        human_reviewed=answer.human_reviewed,
    )


def rejections(answer: PayerAnswer) -> tuple[Rejection, ...]:
    """The errors of an answer as they are kept: what does not look like a code or a path is left out."""
    return tuple(
        Rejection(
            code=_kept(_CODE, error.code) or UNKNOWN,
            path=_kept(_PATH, error.path),
            follow_up=_kept(_CODE, error.follow_up),
            item=error.item,
        )
        for error in answer.errors
    )


def differences(ruling: Ruling, items: Iterable[Item]) -> tuple[ItemDifference, ...]:
    """The items that were not granted as they were asked for."""
    asked = {item.sequence: item for item in items if not item.dropped}
    found = ((asked[word.sequence], word) for word in ruling.items if word.sequence in asked)
    return tuple(_difference(item, word) for item, word in found if _differs(item, word))


def _differs(item: Item, word: ItemRuling) -> bool:
    other = any(grant.service not in (None, item.service) for grant in word.granted)
    return word.action not in _AS_ASKED or word.units_of(item.quantity) < item.quantity or other


def _difference(item: Item, word: ItemRuling) -> ItemDifference:
    return ItemDifference(
        sequence=item.sequence,
        action=word.action,
        service=item.service,
        units_requested=item.quantity,
        units_granted=word.units_of(item.quantity),
        granted=tuple(grant.service for grant in word.granted if grant.service is not None),
        reasons=word.reasons,
    )


def roll_up(actions: Collection[ReviewAction]) -> ReviewAction:
    """One action for all items: what needs a person or is undecided comes first, then what is granted of the whole.

    | items | together |
    |---|---|
    | any CT | CT |
    | any A4, or one that the answer leaves out | A4 |
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
    items = answer.items or ((answer.whole,) if answer.whole is not None else ())
    if answer.rejects:
        return f"{_REJECTED}{_kept(_CODE, answer.errors[0].code) or UNKNOWN}"
    if not items:
        return "no-item"
    sequences = [item.sequence for item in answer.items]
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
    if any(grant.shared for item in items for grant in item.granted):
        return "grant-for-several-items"  # Which of them it is for, and how much, nobody can tell.
    units = [units for item in items for units in (item.units, *(grant.units for grant in item.granted))]
    return None if all(isinstance(each, int | None) for each in units) else "units-not-whole"


def _words(answer: PayerAnswer, asked: Mapping[int, int], services: Mapping[int, Coding]) -> tuple[ItemRuling, ...]:
    """The payer's word on each item, its own or the one on the whole claim, by number."""
    told = {item.sequence: item for item in answer.items}
    if answer.whole is not None and answer.whole.action is not None:
        told |= {sequence: replace(answer.whole, sequence=sequence) for sequence in asked if sequence not in told}
    return tuple(_word(told[sequence], answer, services.get(sequence)) for sequence in sorted(told))


def _grants(item: ItemAnswer, asked: Coding | None) -> tuple[GrantAnswer, ...]:
    """What stands in place of an item: what was added for it, or another service of its code system in its detail."""
    if item.granted or item.service is None or asked is None or item.action not in GRANTED:
        return item.granted
    other = item.service.system == asked.system and item.service.code != asked.code
    return (GrantAnswer(item.service, item.units),) if other else ()


def _word(item: ItemAnswer, answer: PayerAnswer, asked: Coding | None) -> ItemRuling:
    if item.action is None:
        raise ValueError("an answer is weighed only where each of its items has a review action")
    grants = _grants(item, asked)
    return ItemRuling(
        sequence=item.sequence,
        action=item.action,
        number=item.number,
        valid_from=item.valid_from,
        valid_to=item.valid_to,
        units=_whole_units(item.units),
        reasons=item.reasons,
        human_reviewed=answer.human_reviewed,
        reference=_kept(_NUMBER, item.reference),
        granted=tuple(Grant(service=grant.service, units=_whole_units(grant.units)) for grant in grants),
    )


def _gap(word: ItemRuling) -> str | None:
    """What a grant lacks to be used: it is of no use with a malformed number, nor a smaller one without its size, nor
    where only a part of what was added has one.
    """
    if word.number is not None and not _NUMBER.fullmatch(word.number):
        return "number-malformed"
    if word.valid_from and word.valid_to and word.valid_to < word.valid_from:
        return "dates-reversed"
    sized = word.action is not ReviewAction.CERTIFIED or any(grant.units is not None for grant in word.granted)
    if sized and word.units is None:
        return "units-missing"
    return None


def _window(words: Iterable[ItemRuling]) -> tuple[date | None, date | None]:
    """The days on which all of it holds; where there are none, those of its first item."""
    dated = [word for word in words if word.valid_from or word.valid_to]
    valid_from = max((word.valid_from for word in dated if word.valid_from), default=None)
    valid_to = min((word.valid_to for word in dated if word.valid_to), default=None)
    if valid_from and valid_to and valid_to < valid_from:
        return dated[0].valid_from, dated[0].valid_to
    return valid_from, valid_to


def _units(action: ReviewAction, words: Iterable[ItemRuling], asked: Mapping[int, int]) -> int | None:
    """How many units may be given of all that was asked for; None where nobody said a number and all of it may be."""
    counted = list(words)
    if action not in GRANTED or (action is ReviewAction.CERTIFIED and all(word.units is None for word in counted)):
        return None
    return sum(word.units_of(asked[word.sequence]) for word in counted)


def _whole_units(units: Units | None) -> int | None:
    return int(units) if units is not None else None


def _kept(form: re.Pattern[str], text: str | None) -> str | None:
    return text if text is not None and form.fullmatch(text) else None
