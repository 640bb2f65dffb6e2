"""What the rows of a rules file have in common: strict tables, and which requests a row speaks of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.contracts.base import Coding

T = TypeVar("T")

ANY = "*"

_CODE = re.compile(r"[^\s*]+\*?|\*")


class Row(BaseModel):
    """One table of a rules file: frozen, and refused where it holds a name that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _pattern(text: str) -> str:
    low, dots, high = text.partition("..")
    if dots and ("*" in text or ".." in high or len(low) != len(high) or not low or low > high):
        raise ValueError("is not a range of codes of one length from the lower to the higher, as in 99202..99215")
    if not dots and not _CODE.fullmatch(text):
        raise ValueError("is not a code, a prefix (G04*) or a range (99202..99215)")
    return text


CodePattern = Annotated[str, AfterValidator(_pattern)]


def covers(pattern: str, code: str) -> bool:
    """Whether a code is meant: itself (``99214``), its prefix (``G04*``), a range of its length (``99202..99215``)."""
    if pattern.endswith("*"):
        return code.startswith(pattern[:-1])
    low, dots, high = pattern.partition("..")
    if not dots:
        return code == pattern
    return len(low) == len(code) == len(high) and low <= code <= high


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the rules. ``place`` is a CMS place-of-service code, ``kind`` a kind of service, ``age`` years.

    ``plan`` and ``age`` count as not known yet while ``member_known`` is false: rows that ask for them may apply later.
    """

    payer_id: str
    service: Coding
    on: date
    plan: str | None = None
    age: int | None = None
    place: str | None = None
    kind: str | None = None
    member_known: bool = True


class Match(Enum):
    """Whether a row speaks of a request."""

    NO = "no"
    YES = "yes"
    DEPENDS = "depends"
    """On the member, who is not known yet."""


class Scope(Row):
    """Which requests a row speaks of: those that meet every column it has.

    ``payer`` and ``plan`` are ids or ``*``. ``codes`` are exact, a prefix or an inclusive range of codes of one length;
    none means every code of ``system``. ``places`` are CMS place-of-service codes, ``kinds`` kinds of service. Ages are
    whole years on the day, ``age_until`` and ``until`` exclusive. What a request does not say is met by no column that
    asks for it.
    """

    payer: str = ANY
    plan: str = ANY
    system: str = ANY
    codes: tuple[CodePattern, ...] = ()
    places: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    age_from: int | None = Field(None, ge=0, le=130)
    age_until: int | None = Field(None, ge=1, le=131)
    since: date | None = Field(None, alias="from")
    until: date | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Scope:
        if self.since and self.until and self.until <= self.since:
            raise ValueError("until is not after from: the row would never apply")
        if self.age_from is not None and self.age_until is not None and self.age_until <= self.age_from:
            raise ValueError("age_until is not above age_from: the row would never apply")
        return self

    @property
    def asks_age(self) -> bool:
        """Whether it depends on the member's age."""
        return self.age_from is not None or self.age_until is not None

    def matches(self, question: Question) -> Match:
        """Whether this row speaks of that request."""
        if not self._fits(question):
            return Match.NO
        plan, age = self.plan in (ANY, question.plan), self._ages(question.age)
        if plan and age:
            return Match.YES
        open_plan = plan or question.plan is None
        open_age = age or question.age is None
        return Match.DEPENDS if not question.member_known and open_plan and open_age else Match.NO

    def speaks_of(self, payer_id: str, service: Coding) -> bool:
        """Whether it is about this payer and service, for some member, place and time."""
        if self.payer not in (ANY, payer_id) or self.system not in (ANY, service.system):
            return False
        return not self.codes or any(covers(pattern, service.code) for pattern in self.codes)

    def _fits(self, question: Question) -> bool:
        if not self.speaks_of(question.payer_id, question.service):
            return False
        if self.places and question.place not in self.places:
            return False
        if self.kinds and question.kind not in self.kinds:
            return False
        return not (self.since and question.on < self.since) and not (self.until and question.on >= self.until)

    def _ages(self, age: int | None) -> bool:
        if not self.asks_age:
            return True
        if age is None:
            return False
        return (self.age_from or 0) <= age and (self.age_until is None or age < self.age_until)


def most_specific(rows: Iterable[T], wanted: str, key: Callable[[T], str]) -> T | None:
    """The first row of that very name, else the first for any."""
    listed = list(rows)
    named = next((row for row in listed if key(row) == wanted), None)
    return named or next((row for row in listed if key(row) == ANY), None)


def age_on(born: date | None, day: date) -> int | None:
    """Whole years of age on a day; None where the day of birth is not known. Who is born on 29 February is a year older
    on 1 March of other years."""
    if born is None:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))
