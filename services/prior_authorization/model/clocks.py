"""How long a payer may take, and when that ends: limits by line of business, urgency and date, counted as law counts.

- Hours are elapsed hours from the moment of receipt (42 CFR 422.572(a): "72 hours after receiving the request").
- Days are counted after the date of receipt (42 CFR 422.568(b)(1): "after the date the organization receives the
  request"), in the payer's time zone, and end with the last of them, at midnight: a day is a day whether the clocks
  change in it or not. Weekends and holidays count; nothing is put off to the next business day.
- Business days and hours are for contracts: they pass over weekends, federal holidays and the payer's own.
- An extension moves the end by whole calendar days, to the same time of the local day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from services.prior_authorization.model.rows import ANY, Row
from shared.kit.document import Part

_SATURDAY, _SUNDAY = 5, 6
_DAY = timedelta(days=1)


class LineOfBusiness(StrEnum):
    """What kind of coverage a payer gives: it decides which law sets its limits."""

    MEDICARE_ADVANTAGE = "medicare-advantage"
    MEDICARE_PART_D = "medicare-part-d"
    MEDICAID_FFS = "medicaid-ffs"
    MEDICAID_MANAGED_CARE = "medicaid-managed-care"
    CHIP_FFS = "chip-ffs"
    CHIP_MANAGED_CARE = "chip-managed-care"
    EXCHANGE = "exchange"
    EMPLOYER = "employer"
    OTHER = "other"


# -- limits ---------------------------------------------------------------------------------------------------------


class Unit(StrEnum):
    """What a limit is counted in."""

    HOURS = "hours"
    CALENDAR_DAYS = "calendar days"
    BUSINESS_DAYS = "business days"
    BUSINESS_HOURS = "business hours"


_LIMIT = re.compile(rf"([1-9]\d{{0,3}}) ({'|'.join(Unit)})")


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units. Written as in ``72 hours``, ``7 calendar days``, ``10 business days``, ``24 business hours``."""

    count: int
    unit: Unit

    @classmethod
    @lru_cache(256)
    def parse(cls, text: str) -> Limit:
        """Read a limit. Raises ValueError."""
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise ValueError(f"is not a number of {', '.join(Unit)}, as in '7 calendar days'")
        return cls(int(found[1]), Unit(found[2]))

    @property
    def hours(self) -> int:
        """So many hours, a day taken for 24."""
        return self.count * (24 if self.unit in (Unit.CALENDAR_DAYS, Unit.BUSINESS_DAYS) else 1)


def _limit(text: str) -> str:
    Limit.parse(text)
    return text


LimitText = Annotated[str, AfterValidator(_limit)]


# -- working time ---------------------------------------------------------------------------------------------------


@lru_cache(256)
def federal_holidays(year: int) -> frozenset[date]:
    """The days that federal holidays of a year are observed on (5 U.S.C. 6103; Executive Order 11582).

    One that falls on a Saturday is observed on the Friday before, on a Sunday on the Monday after: New Year's Day of
    the next year may so fall into this one. Juneteenth is one since 2021.
    """
    fixed = [date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25), date(year + 1, 1, 1)]
    if year >= 2021:
        fixed.append(date(year, 6, 19))
    moving = [
        _nth(year, 1, 0, 3),
        _nth(year, 2, 0, 3),
        _nth(year, 6, 0, 1) - 7 * _DAY,
        _nth(year, 9, 0, 1),
        _nth(year, 10, 0, 2),
        _nth(year, 11, 3, 4),
    ]
    return frozenset(day for day in (*map(_observed, fixed), *moving) if day.year == year)


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    """The n-th such weekday (Monday 0) of a month. The last Monday of May is a week before the first of June."""
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


def _observed(day: date) -> date:
    return day + {_SATURDAY: -_DAY, _SUNDAY: _DAY}.get(day.weekday(), timedelta())


def local_day(at: datetime, zone: str) -> date | None:
    """The day that a moment falls on in an IANA zone; None where the zone is not known here."""
    try:
        return at.astimezone(ZoneInfo(zone)).date()
    except (ZoneInfoNotFoundError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Calendar:
    """A payer's days: its time zone, working hours Monday to Friday (whole local hours), and days it is closed."""

    timezone: str = "America/New_York"
    opens: int = 8
    closes: int = 18
    closed: frozenset[date] = frozenset()

    @property
    def zone(self) -> ZoneInfo:
        """Its time zone."""
        return ZoneInfo(self.timezone)

    def day(self, at: datetime) -> date:
        """The local day of a moment."""
        return at.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        """When a local day begins, in UTC."""
        return self._local(day, 0)

    def works(self, day: date) -> bool:
        """Whether it is a business day."""
        return day.weekday() < _SATURDAY and day not in self.closed and day not in federal_holidays(day.year)

    def hours_of(self, day: date) -> tuple[datetime, datetime]:
        """When it opens and closes on a business day, in UTC."""
        return self._local(day, self.opens), self._local(day, self.closes)

    def open_between(self, start: datetime, end: datetime) -> timedelta:
        """How much of the time from ``start`` to ``end`` somebody works there; nothing where ``end`` is earlier."""
        total = timedelta()
        day, last = self.day(start), self.day(end)
        while day <= last:
            if self.works(day):
                opens, closes = self.hours_of(day)
                total += max(min(closes, end) - max(opens, start), timedelta())
            day += _DAY
        return total

    def _local(self, day: date, hour: int) -> datetime:
        if hour == 24:
            day, hour = day + _DAY, 0
        return datetime.combine(day, time(hour), tzinfo=self.zone).astimezone(UTC)


def end_of(limit: Limit, received_at: datetime, calendar: Calendar) -> datetime:
    """When a limit that began with the receipt at ``received_at`` ends, in UTC: a decision is late from then on."""
    if limit.unit is Unit.HOURS:
        return received_at.astimezone(UTC) + timedelta(hours=limit.count)
    if limit.unit is Unit.CALENDAR_DAYS:
        return calendar.midnight(calendar.day(received_at) + timedelta(days=limit.count + 1))
    if limit.unit is Unit.BUSINESS_DAYS:
        return calendar.midnight(_business_day(calendar, calendar.day(received_at), limit.count) + _DAY)
    return _after_working(calendar, received_at, timedelta(hours=limit.count))


def extended(end: datetime, days: int, calendar: Calendar) -> datetime:
    """The end so many calendar days later, at the same time of the local day."""
    local = end.astimezone(calendar.zone)
    later = datetime.combine(local.date() + timedelta(days=days), local.time(), tzinfo=calendar.zone)
    return later.astimezone(UTC)


def _business_day(calendar: Calendar, day: date, count: int) -> date:
    """The ``count``-th business day after a day."""
    while count:
        day += _DAY
        count -= calendar.works(day)
    return day


def _after_working(calendar: Calendar, start: datetime, wanted: timedelta) -> datetime:
    day = calendar.day(start)
    while True:
        if calendar.works(day):
            opens, closes = calendar.hours_of(day)
            begins = max(opens, start)
            if closes > begins and closes - begins >= wanted:
                return begins + wanted
            wanted -= max(closes - begins, timedelta())
        day += _DAY


# -- the table ------------------------------------------------------------------------------------------------------


class Clock(Row):
    """One row: how long a payer of this line of business may take over requests received from a date on.

    ``rating_period``: the row begins for a payer with its first rating period that starts on or after ``from`` (42 CFR
    438.210(d)). ``extension_days`` is how many calendar days the payer may add. ``appeal_within`` is how long a denial
    can be appealed, from the notice. ``basis`` names the regulation or contract. ``kind`` is a kind of service, as
    ``drug``, whose limits differ; ``payer`` an id, for a contract with one payer.
    """

    line_of_business: LineOfBusiness | Literal["*"] = "*"
    payer: str = ANY
    kind: str = ANY
    since: date = Field(alias="from")
    rating_period: bool = False
    standard: LimitText
    expedited: LimitText
    appeal_standard: LimitText
    appeal_expedited: LimitText
    appeal_within: LimitText = "60 calendar days"
    extension_days: int = Field(0, ge=0, le=60)
    basis: str = "contract"


class ClockTerms(Part):
    """A row as it applies to one request: from which receipt on, for how long. Kept on the request's document."""

    since: date
    limit: str
    appeal: str
    appeal_expedited: str
    appeal_within: str
    extension_days: int = 0
    basis: str


FALLBACK = Clock.model_validate(
    {
        "from": date(2000, 1, 1),
        "standard": "7 calendar days",
        "expedited": "72 hours",
        "appeal_standard": "30 calendar days",
        "appeal_expedited": "72 hours",
        "basis": "no row of the rules applies",
    }
)
"""Where the rules have no row: the shortest of the law's limits, so that a person is called early, not late."""


def applying(
    rows: Iterable[Clock],
    line: LineOfBusiness,
    *,
    payer_id: str,
    kind: str,
    on: date,
    expedited: bool,
    rating_period: tuple[int, int] = (1, 1),
) -> tuple[ClockTerms, ...]:
    """The row in force for a request on a day, and those that come into force later: receipt decides between them.

    A row that names the kind of service comes before one that names the payer, that before the line of business, and
    any of them before those for all; among equals the later ``from`` counts. ``rating_period`` is month and day.
    """
    fitting = [row for row in rows if _fits(row, line, payer_id, kind)]
    if not fitting:
        return (_terms(FALLBACK, FALLBACK.since, expedited),)
    dated = [(_begins(row, rating_period), _weight(row), row) for row in fitting]
    changes = sorted({on, *(begins for begins, _, _ in dated if begins > on)})
    found: list[ClockTerms] = []
    for day in changes:
        in_force = [each for each in dated if each[0] <= day]
        if not in_force:
            found.append(_terms(FALLBACK, FALLBACK.since, expedited))
            continue
        begins, _, row = max(in_force, key=lambda each: (each[1], each[0]))
        terms = _terms(row, begins, expedited)
        if not found or found[-1] != terms:
            found.append(terms)
    return tuple(found)


def in_force(terms: Sequence[ClockTerms], received: date) -> ClockTerms:
    """The row for a request received on a day; the earliest where it came before all of them."""
    return next((each for each in reversed(terms) if each.since <= received), terms[0])


def _fits(row: Clock, line: LineOfBusiness, payer_id: str, kind: str) -> bool:
    return row.line_of_business in (ANY, line) and row.payer in (ANY, payer_id) and row.kind in (ANY, kind)


def _weight(row: Clock) -> tuple[bool, bool, bool]:
    return row.kind != ANY, row.payer != ANY, row.line_of_business != ANY


def _begins(row: Clock, rating_period: tuple[int, int]) -> date:
    """When a row begins to hold for a payer whose rating periods start on that month and day."""
    if not row.rating_period:
        return row.since
    month, day = rating_period
    start = date(row.since.year, month, day)
    return start if start >= row.since else start.replace(year=start.year + 1)


def _terms(row: Clock, begins: date, expedited: bool) -> ClockTerms:
    return ClockTerms(
        since=begins,
        limit=row.expedited if expedited else row.standard,
        appeal=row.appeal_expedited if expedited else row.appeal_standard,
        appeal_expedited=row.appeal_expedited,
        appeal_within=row.appeal_within,
        extension_days=row.extension_days,
        basis=row.basis,
    )


# -- one clock that runs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A payer's clock for one claim: from its receipt to the end, which an extension has moved already.

    ``since`` is the day from which the limit is in force. ``extension_days`` is how many days the payer may add.
    """

    limit: str
    basis: str
    since: date
    received_at: datetime
    deadline: datetime
    extended_days: int
    extension_days: int
    calendar: Calendar

    def left(self, now: datetime) -> timedelta:
        """Time left by the calendar; negative once it is late."""
        return self.deadline - now

    def working_left(self, now: datetime) -> timedelta:
        """How much of the time left somebody works at the payer's; never negative."""
        return self.calendar.open_between(now, self.deadline)

    def spent(self, now: datetime) -> float:
        """The share of its time that the payer has used, 0 at receipt, 1 at the deadline, more when it is late."""
        return max((now - self.received_at) / (self.deadline - self.received_at), 0.0)


def run(terms: Sequence[ClockTerms], calendar: Calendar, received_at: datetime, *, extended_days: int = 0) -> Running:
    """The clock of a request received at ``received_at``."""
    row = in_force(terms, calendar.day(received_at))
    return _running(row, row.limit, calendar, received_at, extended_days)


def run_appeal(
    terms: Sequence[ClockTerms],
    calendar: Calendar,
    received_at: datetime,
    *,
    expedited: bool = False,
    extended_days: int = 0,
) -> Running:
    """The clock of an appeal received at ``received_at``; ``expedited`` where the appeal itself is."""
    row = in_force(terms, calendar.day(received_at))
    return _running(row, row.appeal_expedited if expedited else row.appeal, calendar, received_at, extended_days)


def _running(row: ClockTerms, limit: str, calendar: Calendar, received_at: datetime, extended_days: int) -> Running:
    end = end_of(Limit.parse(limit), received_at, calendar)
    deadline = extended(end, extended_days, calendar) if extended_days else end
    return Running(limit, row.basis, row.since, received_at, deadline, extended_days, row.extension_days, calendar)


# -- what is to be expected -----------------------------------------------------------------------------------------


class Outlook(StrEnum):
    """Whether a decision will come in time, from best to worst."""

    ON_TRACK = "on-track"
    AT_RISK = "at-risk"
    LIKELY_LATE = "likely-late"
    LATE = "late"


ENOUGH = 5
"""How many of a payer's own decisions tell more about it than the mere time that has passed."""

_RISK, _LIKELY = 0.2, 0.5
_RISK_SPENT, _LIKELY_SPENT = 0.75, 0.9


def outlook(spent: float, history: Sequence[float]) -> Outlook:
    """What is to be expected of a request that has used the share ``spent`` of its payer's time.

    ``history`` is what shares the payer's decided requests had used. Of those that had not been decided so far into
    their time either, the part that was late is how likely this one is to be late. Without ``ENOUGH`` of them the time
    alone tells. Never better as time passes.
    """
    if spent >= 1:
        return Outlook.LATE
    if len(history) < ENOUGH:
        return _graded(spent, _RISK_SPENT, _LIKELY_SPENT)
    as_slow = [share for share in history if share > spent]
    late = sum(share > 1 for share in as_slow) / len(as_slow) if as_slow else 1.0
    return _graded(late, _RISK, _LIKELY)


def _graded(value: float, risk: float, likely: float) -> Outlook:
    if value >= likely:
        return Outlook.LIKELY_LATE
    return Outlook.AT_RISK if value >= risk else Outlook.ON_TRACK
