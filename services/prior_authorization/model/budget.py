"""When a payer is asked again: when it said; else sooner where it is urgent or new; in its working hours, at least once
a business day, never too often.

Every time is computed from the document's id and a running number, so that the same document always chooses the same
times and different documents spread out. Polling manners: Gravity's for referral tasks, taken here for payers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

FLOOR = timedelta(minutes=15)
"""One request is not asked about more often than this, unless the payer's terms say otherwise."""

HOURLY = timedelta(hours=1)

_BY_AGE = ((timedelta(days=1), HOURLY), (timedelta(days=3), 2 * HOURLY))
"""The longest pause between two looks at a request that is so old at the most. Most are decided in the first days."""

_WHEN_OLD = 4 * HOURLY

_STEPS = 12
"""How many intervals decorrelated jitter is drawn from; the ones before no longer tell in the last."""

QUERYABLE = timedelta(days=183)
"""Payers keep pended requests queryable for six months (PAS 2.2.1, Claim $inquire)."""

RETRY_BASE = timedelta(seconds=30)
RETRY_CAP = timedelta(hours=1)

_SPREAD = timedelta(minutes=30)
_NAMED_SPREAD = timedelta(minutes=5)
_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Hours:
    """A payer's working hours, whole local hours, Monday to Friday."""

    timezone: str
    opens: int
    closes: int

    def open_at(self, at: datetime) -> bool:
        """Whether somebody works there at that time."""
        local = at.astimezone(ZoneInfo(self.timezone))
        return local.weekday() < _SATURDAY and self.opens <= local.hour < self.closes

    def opening(self, day: date) -> datetime:
        """When it opens on a local day, in UTC."""
        local = datetime.combine(day, time(self.opens), tzinfo=ZoneInfo(self.timezone))
        return local.astimezone(UTC)

    def next_opening(self, after: datetime) -> datetime:
        """The first opening not before ``after``."""
        day = after.astimezone(ZoneInfo(self.timezone)).date()
        while day.weekday() >= _SATURDAY or self.opening(day) < after:
            day += timedelta(days=1)
        return self.opening(day)

    def next_business_day(self, after: datetime) -> datetime:
        """The opening of the first business day after the local day of ``after``."""
        day = after.astimezone(ZoneInfo(self.timezone)).date() + timedelta(days=1)
        while day.weekday() >= _SATURDAY:
            day += timedelta(days=1)
        return self.opening(day)


def chance(id: str, number: int, purpose: str) -> float:
    """A number in [0, 1) that follows from a document, a running number and what it is for."""
    digest = sha256(f"{id}\x1f{purpose}\x1f{number}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def jittered(id: str, number: int, purpose: str, base: timedelta, cap: timedelta) -> timedelta:
    """Decorrelated jitter: the ``number``-th interval (from 1), between ``base`` and three times the one before.

    Drawn below the cap, not cut to it: else intervals that have grown would all be of one length.
    """
    interval = base
    for step in range(max(1, number - _STEPS + 1), number + 1):
        interval = base + (min(cap, 3 * interval) - base) * chance(id, step, purpose)
    return _whole(interval)


def retry_in(id: str, number: int, purpose: str, named: float | None) -> timedelta:
    """How long to wait before a refused or unusable call is made again; never less than the other side named (s)."""
    wanted = jittered(id, number, purpose, RETRY_BASE, RETRY_CAP)
    return max(wanted, timedelta(seconds=named)) if named is not None else wanted


@dataclass(frozen=True, slots=True)
class Manner:
    """How one request is followed: the payer's hours, how often at most, whether it is urgent, how old it is."""

    hours: Hours
    floor: timedelta = FLOOR
    expedited: bool = False
    age: timedelta = timedelta()

    @property
    def cap(self) -> timedelta:
        """The longest pause between two looks in working hours."""
        if self.expedited:
            return 2 * self.floor
        by_age = next((pause for most, pause in _BY_AGE if self.age < most), _WHEN_OLD)
        return max(by_age, 2 * self.floor)


def next_poll(manner: Manner, id: str, number: int, now: datetime, named: float | None = None) -> datetime:
    """When to ask next while nobody tells us, in working hours.

    Where the payer would not answer and ``named`` seconds: soon after them, for nothing was learned. Else from the
    floor to the cap of the request's urgency and age, by jitter.
    """
    if named is not None:
        at = now + max(timedelta(seconds=named), manner.floor) + _whole(_NAMED_SPREAD * chance(id, number, "named"))
    else:
        at = now + jittered(id, number, "poll", manner.floor, manner.cap)
    hours = manner.hours
    if hours.open_at(at):
        return at
    return hours.next_opening(at) + _whole(_SPREAD * chance(id, number, "opening"))


def next_fallback(hours: Hours, id: str, number: int, since: datetime) -> datetime:
    """When to ask next although the payer tells us: some time in the next business day after ``since``."""
    open_for = timedelta(hours=hours.closes - hours.opens)
    return hours.next_business_day(since) + _whole(open_for * chance(id, number, "fallback"))


def _whole(interval: timedelta) -> timedelta:
    return timedelta(seconds=round(interval.total_seconds()))
