"""Which services need a payer's approval, and on what terms it is sought: rules as data, matched purely.

The text of a rules file (TOML) becomes a ``RuleBook``; ``RuleBook.assess`` answers for one request. The first rule
that matches decides, in the order of the file; where none does, approval is sought (``default``), because a visit
without a needed approval is paid by the patient, while asking for one that is not needed costs an answer NA.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import StrEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.contracts.base import Coding
from shared.kit.document import Part

T = TypeVar("T")

ANY = "*"


class RulesError(ValueError):
    """A rules file that cannot be used; says where."""


class AppealPolicy(StrEnum):
    """What follows a denial that could still be appealed."""

    AUTOMATIC = "automatic"
    BY_PERSON = "by-person"
    NONE = "none"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Rule(_Row):
    """One row: for this payer, plan and service, between these dates (``until`` exclusive), approval is needed or not.

    ``codes`` are exact (``99214``), a prefix (``G04*``) or an inclusive range of codes of one length
    (``99202..99215``); none means every code of ``system``. ``payer`` and ``plan`` are ids or ``*``.
    """

    why: str
    needed: bool
    payer: str = ANY
    plan: str = ANY
    system: str = ANY
    codes: tuple[str, ...] = ()
    since: date | None = Field(None, alias="from")
    until: date | None = None

    def matches(self, payer_id: str, plan: str | None, service: Coding, on: date) -> bool:
        """Whether this row speaks of that request."""
        if self.payer not in (ANY, payer_id) or self.plan not in (ANY, plan):
            return False
        if self.system not in (ANY, service.system):
            return False
        if self.codes and not any(_covers(pattern, service.code) for pattern in self.codes):
            return False
        return not (self.since and on < self.since) and not (self.until and on >= self.until)


class Budget(_Row):
    """How fast one payer may be called, for one purpose, by all workers together.

    ``a_second`` calls a second, up to ``burst`` of them at once after a pause, at most ``in_flight`` unanswered. After
    ``failures`` calls in a row without an answer it is left alone for ``left_alone`` seconds, then tried by one call.
    """

    a_second: float = Field(10.0, gt=0, allow_inf_nan=False)
    burst: float = Field(5.0, ge=1, allow_inf_nan=False)
    in_flight: int = Field(8, ge=1)
    failures: int = Field(5, ge=1)
    left_alone: float = Field(30.0, gt=0, allow_inf_nan=False)

    def share(self, shares: int) -> Budget:
        """What one of so many equal shares may use; together they use no more than the whole.

        At least one call at once and one in flight: ``PayerTerms`` sees to it that there is so much to be shared.
        """
        divided = {
            "a_second": self.a_second / shares,
            "burst": max(1.0, self.burst / shares),
            "in_flight": max(1, self.in_flight // shares),
        }
        return self.model_copy(update=divided)


class Purpose(StrEnum):
    """What a payer is called for; each has a budget of its own."""

    SUBMIT = "submit"
    POLL = "poll"


class PayerTerms(_Row):
    """How one payer (or ``*``) is dealt with. Hours are its working hours in its time zone, Monday to Friday.

    ``submit`` is the budget of all that is sent to it (requests, appeals, cancellations), ``poll`` that of inquiries.
    A payer too large for one worker is split into ``shares``; the number may be raised at any time, and lowered only
    when nothing of the payer is open any more. ``poll_minutes``: one request is not asked about more often than that.
    """

    payer: str = ANY
    line_of_business: str = "other"
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = Field(1, ge=0, le=5)
    timezone: str = "America/New_York"
    opens: int = Field(8, ge=0, le=23)
    closes: int = Field(18, ge=1, le=24)
    poll_minutes: int = Field(15, ge=1, le=720)
    shares: int = Field(1, ge=1, le=64)
    submit: Budget = Budget()
    poll: Budget = Budget()

    @model_validator(mode="after")
    def _divisible(self) -> PayerTerms:
        for purpose in Purpose:
            budget = self.budget(purpose)
            if self.shares > min(budget.burst, budget.in_flight):
                raise ValueError(f"has more shares than {purpose} has calls at once or in flight")
        return self

    def budget(self, purpose: Purpose) -> Budget:
        """The whole budget for a purpose."""
        return self.submit if purpose is Purpose.SUBMIT else self.poll

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("is not a time zone of the IANA data base") from None
        return value


class Clock(_Row):
    """How long a payer may take to decide, by line of business and the date the request was received."""

    line_of_business: str = ANY
    since: date = Field(alias="from")
    standard_hours: int = Field(gt=0)
    expedited_hours: int = Field(gt=0)
    appeal_standard_hours: int = Field(gt=0)
    appeal_expedited_hours: int = Field(gt=0)


class Terms(Part):
    """What was laid down for one request when it was opened; kept on its document, so that decisions stay pure."""

    why: str
    needed: bool
    line_of_business: str = "other"
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = 1
    timezone: str = "America/New_York"
    opens: int = 8
    closes: int = 18
    decision_hours: int = 168
    appeal_hours: int = 720
    poll_minutes: int = 15


class RuleBook(_Row):
    """All of a rules file."""

    rules: tuple[Rule, ...] = ()
    payers: tuple[PayerTerms, ...] = ()
    clocks: tuple[Clock, ...] = ()

    @classmethod
    def parse(cls, text: str) -> RuleBook:
        """Read the text of a rules file. Raises RulesError naming each place that is wrong."""
        try:
            raw: Mapping[str, Any] = tomllib.loads(text)
            return cls.model_validate(raw)
        except tomllib.TOMLDecodeError as refusal:
            raise RulesError(f"not TOML: {refusal}") from None
        except ValidationError as refusal:
            flaws = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in refusal.errors())
            raise RulesError(flaws) from None

    def assess(
        self, payer_id: str, plan: str | None, service: Coding, *, on: date, expedited: bool, default: str = "default"
    ) -> Terms:
        """Whether approval is needed on a day, by which rule (``why``), and the terms of seeking it."""
        rule = next((rule for rule in self.rules if rule.matches(payer_id, plan, service, on)), None)
        payer = self._payer(payer_id)
        clock = self._clock(payer.line_of_business, on)
        return Terms(
            why=rule.why if rule else default,
            needed=rule.needed if rule else True,
            line_of_business=payer.line_of_business,
            appeal=payer.appeal,
            appeal_levels=payer.appeal_levels,
            timezone=payer.timezone,
            opens=payer.opens,
            closes=payer.closes,
            decision_hours=clock.expedited_hours if expedited else clock.standard_hours,
            appeal_hours=clock.appeal_expedited_hours if expedited else clock.appeal_standard_hours,
            poll_minutes=payer.poll_minutes,
        )

    def share_of(self, payer_id: str, id: str) -> int:
        """The share of a payer that a new request of this id falls to: 0 where the payer is not split."""
        return zlib.crc32(id.encode()) % self._payer(payer_id).shares

    def budget(self, payer_id: str, purpose: Purpose) -> Budget:
        """What one share of a payer may be called for a purpose; the whole where it is not split."""
        payer = self._payer(payer_id)
        return payer.budget(purpose).share(payer.shares)

    def _payer(self, payer_id: str) -> PayerTerms:
        return _most_specific(self.payers, payer_id, lambda row: row.payer) or PayerTerms()

    def _clock(self, line_of_business: str, on: date) -> Clock:
        in_force = sorted((row for row in self.clocks if row.since <= on), key=lambda row: row.since, reverse=True)
        found = _most_specific(in_force, line_of_business, lambda row: row.line_of_business)
        return found or _DEFAULT_CLOCK


_DEFAULT_CLOCK = Clock.model_validate(
    {
        "from": date(2026, 1, 1),
        "standard_hours": 7 * 24,
        "expedited_hours": 72,
        "appeal_standard_hours": 30 * 24,
        "appeal_expedited_hours": 72,
    }
)
"""CMS-0057-F, 42 CFR 422.568(b) and 422.572 since 2026; appeals 42 CFR 422.590."""


def _most_specific(rows: Iterable[T], wanted: str, key: Callable[[T], str]) -> T | None:
    """The first row of that very name, else the first for any."""
    listed = list(rows)
    named = next((row for row in listed if key(row) == wanted), None)
    return named or next((row for row in listed if key(row) == ANY), None)


def _covers(pattern: str, code: str) -> bool:
    if pattern.endswith("*"):
        return code.startswith(pattern[:-1])
    low, dots, high = pattern.partition("..")
    if not dots:
        return code == pattern
    return len(low) == len(code) == len(high) and low <= code <= high
