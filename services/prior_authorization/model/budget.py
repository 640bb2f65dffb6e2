"""When a payer is asked again: hourly in its working hours, at least once a business day, never too often.

Every time is computed from the document's id and a running number, so that the same document always chooses the same
times and different documents spread out. Polling manners: Gravity's for referral tasks, taken here for payers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

FLOOR = timedelta(minutes=15)
"""One request is never asked about more often than this."""

HOURLY = timedelta(hours=1)

QUERYABLE = timedelta(days=183)
"""Payers keep pended requests queryable for six months (PAS 2.2.1, Claim $inquire)."""

RETRY_BASE = timedelta(seconds=30)
RETRY_CAP = timedelta(hours=1)

_SPREAD = timedelta(minutes=30)
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
    """Decorrelated jitter: the ``number``-th interval (from 1), between ``base`` and three times the one before."""
    interval = base
    for step in range(1, number + 1):
        interval = min(cap, base + (3 * interval - base) * chance(id, step, purpose))
    return _whole(interval)


def retry_in(id: str, number: int, purpose: str, named: float | None) -> timedelta:
    """How long to wait before a refused or unusable call is made again; never less than the other side named (s)."""
    wanted = jittered(id, min(number, 12), purpose, RETRY_BASE, RETRY_CAP)
    return max(wanted, timedelta(seconds=named)) if named is not None else wanted


def next_poll(hours: Hours, id: str, number: int, now: datetime) -> datetime:
    """When to ask next while nobody tells us: in 15 to 60 minutes in working hours, else soon after opening."""
    at = now + jittered(id, min(number, 12), "poll", FLOOR, HOURLY)
    if hours.open_at(at):
        return at
    return hours.next_opening(at) + _whole(_SPREAD * chance(id, number, "opening"))


def next_fallback(hours: Hours, id: str, number: int, since: datetime) -> datetime:
    """When to ask next although the payer tells us: some time in the next business day after ``since``."""
    open_for = timedelta(hours=hours.closes - hours.opens)
    return hours.next_business_day(since) + _whole(open_for * chance(id, number, "fallback"))


def _whole(interval: timedelta) -> timedelta:
    return timedelta(seconds=round(interval.total_seconds()))
