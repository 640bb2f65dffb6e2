"""Which services need a payer's approval, and on what terms it is sought: rules as data, matched purely.

The text of a rules file (TOML) becomes a ``RuleBook``; ``RuleBook.assess`` answers for one request. The first rule
that matches decides, in the order of the file; where none does, approval is sought (``default``), because a visit
without a needed approval is paid by the patient, while asking for one that is not needed costs an answer NA.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from services.prior_authorization.model.clocks import (
    Calendar,
    Clock,
    ClockTerms,
    Limit,
    LineOfBusiness,
    applying,
    in_force,
)
from services.prior_authorization.model.rows import ANY, Row, covers, most_specific
from shared.contracts.base import Coding
from shared.kit.document import Part


class RulesError(ValueError):
    """A rules file that cannot be used; says where."""


class AppealPolicy(StrEnum):
    """What follows a denial that could still be appealed."""

    AUTOMATIC = "automatic"
    BY_PERSON = "by-person"
    NONE = "none"


class Rule(Row):
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
        if self.codes and not any(covers(pattern, service.code) for pattern in self.codes):
            return False
        return not (self.since and on < self.since) and not (self.until and on >= self.until)


class Budget(Row):
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


class PayerTerms(Row):
    """How one payer (or ``*``) is dealt with. Hours are its working hours in its time zone, Monday to Friday.

    ``submit`` is the budget of all that is sent to it (requests, appeals, cancellations), ``poll`` that of inquiries.
    A payer too large for one worker is split into ``shares``; the number may be raised at any time, and lowered only
    when nothing of the payer is open any more. ``poll_minutes``: one request is not asked about more often than that.
    ``closed`` are days off beside federal holidays. ``rating_period`` is the month and day (``07-01``) on which a
    Medicaid or CHIP managed care plan's rating periods start. ``notifies``: it takes a subscription to its decisions.
    """

    payer: str = ANY
    line_of_business: LineOfBusiness = LineOfBusiness.OTHER
    rating_period: str = Field("01-01", pattern=r"^\d\d-\d\d$")
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = Field(1, ge=0, le=5)
    timezone: str = "America/New_York"
    opens: int = Field(8, ge=0, le=23)
    closes: int = Field(18, ge=1, le=24)
    closed: tuple[date, ...] = ()
    poll_minutes: int = Field(15, ge=1, le=720)
    notifies: bool = False
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

    @model_validator(mode="after")
    def _open(self) -> PayerTerms:
        if self.closes <= self.opens:
            raise ValueError("closes before it opens")
        return self

    @property
    def rating_period_start(self) -> tuple[int, int]:
        """Month and day."""
        month, day = self.rating_period.split("-")
        return int(month), int(day)

    @field_validator("rating_period")
    @classmethod
    def _a_day(cls, value: str) -> str:
        month, day = value.split("-")
        try:
            date(2026, int(month), int(day))
        except ValueError:
            raise ValueError("is not a month and a day of every year, as in 07-01") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("is not a time zone of the IANA data base") from None
        return value


class Terms(Part):
    """What was laid down for one request when it was opened; kept on its document, so that decisions stay pure."""

    why: str
    needed: bool
    appeal: AppealPolicy = AppealPolicy.BY_PERSON
    appeal_levels: int = 1
    timezone: str = "America/New_York"
    opens: int = 8
    closes: int = 18
    decision_hours: int = 168
    appeal_hours: int = 720
    """The limits in nominal hours: what they are counted by exactly is ``clocks``, where those were kept."""
    poll_minutes: int = 15
    line_of_business: LineOfBusiness = LineOfBusiness.OTHER
    clocks: tuple[ClockTerms, ...] = ()
    """The limits in force when it was opened, and those that come into force later: the receipt decides."""
    closed: tuple[date, ...] = ()

    @property
    def by_hours(self) -> tuple[ClockTerms, ...]:
        """The limits of a request whose ``clocks`` were not kept."""
        hours = f"{self.appeal_hours} hours"
        return (
            ClockTerms(
                since=date.min,
                limit=f"{self.decision_hours} hours",
                appeal=hours,
                appeal_expedited=hours,
                appeal_within="60 calendar days",
                basis="as when it was opened",
            ),
        )

    @property
    def calendar(self) -> Calendar:
        """The payer's working days."""
        return Calendar(self.timezone, self.opens, self.closes, frozenset(self.closed))


_ClockKey = tuple[LineOfBusiness, tuple[int, int], str, str, date, bool]

_REMEMBERED = 1024


class RuleBook(Row):
    """All of a rules file."""

    rules: tuple[Rule, ...] = ()
    payers: tuple[PayerTerms, ...] = ()
    clocks: tuple[Clock, ...] = ()
    _clocks_of: dict[_ClockKey, tuple[ClockTerms, ...]] = PrivateAttr(default_factory=dict)
    """What was found for the requests of a day: the same for all requests of a line of business."""

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
        self,
        payer_id: str,
        plan: str | None,
        service: Coding,
        *,
        on: date,
        expedited: bool,
        kind: str = ANY,
        default: str = "default",
    ) -> Terms:
        """Whether approval is needed on a day, by which rule (``why``), and the terms of seeking it."""
        rule = next((rule for rule in self.rules if rule.matches(payer_id, plan, service, on)), None)
        payer = self._payer(payer_id)
        clocks = self.clocks_of(payer_id, kind=kind, on=on, expedited=expedited)
        limit = in_force(clocks, on)
        return Terms(
            why=rule.why if rule else default,
            needed=rule.needed if rule else True,
            appeal=payer.appeal,
            appeal_levels=payer.appeal_levels,
            timezone=payer.timezone,
            opens=payer.opens,
            closes=payer.closes,
            poll_minutes=payer.poll_minutes,
            line_of_business=payer.line_of_business,
            clocks=clocks,
            decision_hours=Limit.parse(limit.limit).hours,
            appeal_hours=Limit.parse(limit.appeal).hours,
            closed=payer.closed,
        )

    def clocks_of(self, payer_id: str, *, kind: str, on: date, expedited: bool) -> tuple[ClockTerms, ...]:
        """The payer's limits for a kind of service from the day before ``on``: it may still be that day there."""
        payer = self._payer(payer_id)
        key = (
            payer.line_of_business,
            payer.rating_period_start,
            payer_id if any(row.payer == payer_id for row in self.clocks) else ANY,
            kind if any(row.kind == kind for row in self.clocks) else ANY,
            on,
            expedited,
        )
        if key not in self._clocks_of:
            if len(self._clocks_of) >= _REMEMBERED:
                self._clocks_of.clear()
            line, rating_period, payer_key, kind_key, _, _ = key
            self._clocks_of[key] = applying(
                self.clocks,
                line,
                payer_id=payer_key,
                kind=kind_key,
                on=on - timedelta(days=1),
                expedited=expedited,
                rating_period=rating_period,
            )
        return self._clocks_of[key]

    def notifies(self, payer_id: str) -> bool:
        """Whether a payer takes a subscription to its decisions."""
        return self._payer(payer_id).notifies

    def share_of(self, payer_id: str, id: str) -> int:
        """The share of a payer that a new request of this id falls to: 0 where the payer is not split."""
        return zlib.crc32(id.encode()) % self._payer(payer_id).shares

    def budget(self, payer_id: str, purpose: Purpose) -> Budget:
        """What one share of a payer may be called for a purpose; the whole where it is not split."""
        payer = self._payer(payer_id)
        return payer.budget(purpose).share(payer.shares)

    def _payer(self, payer_id: str) -> PayerTerms:
        return most_specific(self.payers, payer_id, lambda row: row.payer) or PayerTerms()
