"""Domain time in the demo: stands while anything is in flight, and moves on to what is due next when nothing is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from deploy.demo.api import Api, Json

SERVICES = ("intake", "referrals", "prior_authorization", "scheduling", "notifications", "directory", "webhooks")
OUTSIDE = ("payer", "gateway")

TOGETHER = timedelta(minutes=45)
"""Due times this close are taken in one step. Messages that would all go at once are spread over as long."""

ONE_EACH: Mapping[str, Sequence[str]] = {name: (name,) for name in SERVICES}
"""The processes of each service, as the client of their APIs knows them, where one process is the whole service."""

_LOOK_EVERY = 0.15
"""Seconds of real time. Looking asks every service and so takes from what is looked at."""


class DomainClock(Protocol):
    """The shared clock, which whoever conducts may move on."""

    def now(self) -> datetime:
        """The domain's time."""
        ...

    def advance_to(self, at: datetime) -> None:
        """Move it on, never back."""
        ...


class Restless(Exception):
    """Something was in flight for longer than it may take; says what."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything: what is in flight, and when something is due next."""

    stirring: tuple[str, ...]
    next_due: datetime | None
    marks: tuple[tuple[str, int], ...]
    """How far each topic was written and each group has read: unlike at the next look, something happened."""


class Conductor:
    """Knows when nothing is in flight, and moves the shared clock on."""

    def __init__(
        self,
        api: Api,
        clock: DomainClock,
        *,
        patience: float = 45.0,
        look_every: float = _LOOK_EVERY,
        processes: Mapping[str, Sequence[str]] = ONE_EACH,
    ) -> None:
        self._processes = processes
        self._look_every = look_every
        self._api = api
        self._clock = clock
        self._patience = patience

    def now(self) -> datetime:
        """The domain's time."""
        return self._clock.now()

    async def settle(self) -> datetime | None:
        """Return when nothing is in flight, with the time at which something is due next. Raises Restless."""
        end = time.monotonic() + self._patience
        before: Look | None = None
        while True:
            # What is known in memory is asked first: the stores are looked into only once nothing stirs.
            look = await self._look(stored=before is not None)
            if not look.stirring and before is not None and before.marks == look.marks:
                return look.next_due
            before = None if look.stirring else look
            if time.monotonic() > end:
                raise Restless(", ".join(look.stirring) or "events keep coming")
            await asyncio.sleep(self._look_every)

    def advance(self, due: datetime | None, wishes: Iterable[datetime], until: datetime) -> bool:
        """Move on to what is due next, or to where somebody waits for time to pass; False where that is too far."""
        wanted = sorted(wishes)
        targets = [at for at in (due, *wanted[:1]) if at is not None]
        if not targets or min(targets) > until:
            return False
        target = min(targets) + TOGETHER
        if wanted:
            target = min(target, max(wanted[0], min(targets)))
        self._clock.advance_to(target)
        return True

    async def _look(self, *, stored: bool) -> Look:
        pulses = await asyncio.gather(*(self._pulse(name, stored) for name in SERVICES))
        outside = await asyncio.gather(*(self._api.outside(name, "/next-due") for name in OUTSIDE))
        now = self._clock.now()
        named = dict(zip(SERVICES, pulses, strict=True))
        dues = [_time(pulse.get("next_due")) for pulse in pulses] + [_time(one.get("at")) for one in outside]
        late = [name for name, at in zip((*SERVICES, *OUTSIDE), dues, strict=True) if at is not None and at <= now]
        stirring = [f"{name} is due" for name in late]
        stirring += [f"{name} works" for name, pulse in named.items() if pulse["busy"] or pulse.get("unsent")]
        stirring += list(_behind(named))
        upcoming = min((at for at in dues if at is not None and at > now), default=None)
        return Look(tuple(stirring), upcoming, _marks(named))

    async def _pulse(self, service: str, stored: bool) -> Json:
        """A service's pulse over all its processes. They share a store, so one of them is asked what waits there."""

        def asked(number: int) -> str:
            return "true" if stored and number == 0 else "false"

        names = self._processes[service]
        pulses = (self._api.get(name, "/pulse", "operator", stored=asked(n)) for n, name in enumerate(names))
        return _together(await asyncio.gather(*pulses))


def _together(pulses: Sequence[Json]) -> Json:
    """The pulses of one service's processes as one: of each place, as far as any of them wrote or read."""
    consumed: dict[str, dict[str, int]] = {}
    for pulse in pulses:
        for group, places in pulse["consumed"].items():
            _raise(consumed.setdefault(group, {}), places)
    together = {"busy": sum(pulse["busy"] for pulse in pulses), "published": _furthest(pulses), "consumed": consumed}
    return {**pulses[0], **together}


def _furthest(pulses: Iterable[Json]) -> dict[str, int]:
    """The next offset of each topic and partition, as far as anybody wrote."""
    ends: dict[str, int] = {}
    for pulse in pulses:
        _raise(ends, pulse["published"])
    return ends


def _raise(known: dict[str, int], more: Mapping[str, int]) -> None:
    for place, offset in more.items():
        known[place] = max(known.get(place, 0), offset)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _behind(pulses: dict[str, Json]) -> Iterable[str]:
    """The groups that have not read all that was published on their topics."""
    ends = _furthest(pulses.values())
    for pulse in pulses.values():
        for group, positions in pulse["consumed"].items():
            if not positions:
                yield f"{group} has no partitions"  # as while it is shared out anew: how far it read is not known
            topics = {place.rpartition(":")[0] for place in positions}
            lag = sum(
                max(0, end - positions.get(place, 0))
                for place, end in ends.items()
                if place.rpartition(":")[0] in topics
            )
            if lag:
                yield f"{group} has {lag} to read"


def _marks(pulses: dict[str, Json]) -> tuple[tuple[str, int], ...]:
    read = {
        f"{group} {place}": offset
        for pulse in pulses.values()
        for group, positions in pulse["consumed"].items()
        for place, offset in positions.items()
    }
    return tuple(sorted({**_furthest(pulses.values()), **read}.items()))
