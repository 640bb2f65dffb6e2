"""When a person may be called or texted: hours of the day where they live, so many a day and a week, no herd.

All times are aware; results are UTC, in whole seconds after or before what they were placed by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from services.notifications.model.policy import Policy

_DAY = timedelta(days=1)
_WEEK = timedelta(days=6)
"""A week that ends with a day began six days before it."""


def zone_of(*names: str | None) -> ZoneInfo:
    """The first of these IANA time zones that is known and says something; UTC, a contract's default, says nothing."""
    for name in names:
        if not name or name == "UTC":
            continue
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # unknown; not a key; a directory of the zone database
            continue
    return ZoneInfo("UTC")


def fraction(key: str) -> float:
    """A number from 0 to below 1 that is always the same for a key, and evenly spread over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32


def allowed(policy: Policy, at: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock on the recipient's wall shows a permitted hour."""
    return policy.opens <= at.astimezone(zone).time() < policy.closes


def day_of(at: datetime, zone: ZoneInfo) -> date:
    """The date where the recipient lives."""
    return at.astimezone(zone).date()


def opening(policy: Policy, day: date, zone: ZoneInfo) -> datetime:
    """When the permitted hours of a day begin."""
    return datetime.combine(day, policy.opens, zone).astimezone(UTC)


def closing(policy: Policy, day: date, zone: ZoneInfo) -> datetime:
    """When the permitted hours of a day are over; that moment itself is not permitted."""
    return datetime.combine(day, policy.closes, zone).astimezone(UTC)


def place_after(policy: Policy, at: datetime, zone: ZoneInfo, key: str) -> datetime:
    """A permitted time at or after ``at``, spread by ``key`` over the beginning of what is left of the day."""
    begin = at
    if not allowed(policy, at, zone):
        day = day_of(at, zone)
        begin = opening(policy, day, zone)
        if begin < at:
            begin = opening(policy, day + _DAY, zone)
    room = closing(policy, day_of(begin, zone), zone) - begin - timedelta(seconds=1)
    return begin + _share(policy, room, key)


def place_before(policy: Policy, at: datetime, zone: ZoneInfo, key: str) -> datetime:
    """A permitted time at or before ``at``, spread by ``key`` over the end of what was permitted until then."""
    end = at
    if not allowed(policy, at, zone):
        day = day_of(at, zone)
        if at < opening(policy, day, zone):
            day -= _DAY
        end = closing(policy, day, zone) - timedelta(seconds=1)
    return end - _share(policy, end - opening(policy, day_of(end, zone), zone), key)


def place_on(policy: Policy, day: date, zone: ZoneInfo, key: str) -> datetime:
    """A permitted time at the beginning of a day, spread by ``key``."""
    return place_after(policy, opening(policy, day, zone), zone, key)


def day_with_room(policy: Policy, today: date, sent: Iterable[date]) -> date:
    """The first day from ``today`` on that can bear one more call or text, after those of the days ``sent``."""
    days = list(sent)
    day = today
    while days.count(day) >= policy.a_day or sum(day - _WEEK <= d <= day for d in days) >= policy.a_week:
        day += _DAY
    return day


def _share(policy: Policy, room: timedelta, key: str) -> timedelta:
    spread = max(min(policy.spread, room), timedelta(0))
    return timedelta(seconds=int(spread.total_seconds() * fraction(key)))
