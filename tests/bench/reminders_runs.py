"""How a side is measured: a herd that is due at one moment, and a stream that is due at an even rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.bench.reminders_gateway import Gateway, Taken
from tests.bench.reminders_processes import at, cpu_seconds, memory_mib, passed
from tests.bench.reminders_sides import Reminder, Side, herd, stream

_SOONEST = 2.5
"""Seconds that a run is given to be scheduled in, at the least."""

_ROOM = timedelta(seconds=1)
"""How long everything is at rest between scheduling and due time, at the least."""

_PATIENCE = 300.0
"""Seconds that a run which was cut, or does not count, is given to come to an end."""

_LOOKS = 30
"""How often, a second apart, outcomes are counted that may still be being written."""


class Broken(RuntimeError):
    """A side sent what nobody scheduled: the run proves nothing."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: what was accepted, of how many, at which rate (a second), how late (seconds), at which cost.

    ``again`` counts reminders that were asked for more than once under their one key, of which the gateway takes one;
    ``early`` those that came before their time.
    """

    accepted: int
    of: int
    again: int
    early: int
    rate: float
    p50: float
    p99: float
    memory_mib: float
    servers_mib: float
    workers_cpu_us: float
    servers_cpu_us: float
    gateway_cpu_us: float

    @property
    def whole(self) -> bool:
        """Whether all were accepted in time."""
        return self.accepted == self.of


class Course:
    """Runs on one side. Remembers how long it takes to schedule, so that each run is due soon after.

    ``scheduled`` and ``sent`` count the reminders of all of them, and those that the gateway took; ``begun`` is set
    while a run is under way, from shortly before its due time.
    """

    def __init__(self, side: Side, gateway: Gateway) -> None:
        self.side = side
        self._gateway = gateway
        self._seconds_each = 0.0
        self.scheduled = self.sent = 0
        self.begun = asyncio.Event()

    async def herd(self, size: int, *, within: float) -> Ran:
        """Reminders that are all due at one moment; those that are accepted ``within`` seconds of it count."""
        return await self._run(lambda due: herd(size, due), size, within)

    async def stream(self, size: int, rate: float, *, within: float) -> Ran:
        """Reminders that are due one after the other at ``rate`` a second, the last accepted ``within`` seconds."""
        return await self._run(lambda due: stream(size, due, rate), size, within)

    async def _run(self, made: Callable[[datetime], list[Reminder]], size: int, within: float) -> Ran:
        while True:
            due = _in(_SOONEST + 1.3 * self._seconds_each * size)
            reminders = made(due)
            await self._gateway.forget()
            began = time.monotonic()
            await self.side.enqueue(reminders)
            self.scheduled += size
            self._seconds_each = (time.monotonic() - began) / size
            if due - datetime.now(UTC) >= _ROOM:
                return await self._follow(reminders, within)
            # Some were due before all were scheduled: let them go by, and give the next more time.
            self.sent += await self._gateway.wait(size, _PATIENCE)

    async def _follow(self, reminders: list[Reminder], within: float) -> Ran:
        first, last = reminders[0].due.timestamp(), reminders[-1].due.timestamp()
        await at(first - _ROOM.total_seconds() / 2)
        before = self._costs()
        self.begun.set()
        end = last + within
        await self._gateway.wait(len(reminders), end - time.time())
        self.begun.clear()
        each = [now - then for now, then in zip(self._costs(), before, strict=True)]
        memory = memory_mib(self.side.workers), memory_mib(self.side.servers)
        ran = self._told(reminders, await self._gateway.taken(), first, end, memory, each)
        # Also after a run that was cut, so that the next starts from rest.
        self.sent += await self._gateway.wait(len(reminders), _PATIENCE)
        return ran

    async def kept(self) -> int:
        """How many outcomes the side holds once it has had time to write the last."""
        for _ in range(_LOOKS):
            if await self.side.kept() >= self.sent:
                break
            await passed(1.0)
        return await self.side.kept()

    def _costs(self) -> tuple[float, float, float]:
        return cpu_seconds(self.side.workers), cpu_seconds(self.side.servers), cpu_seconds([self._gateway.pid])

    def _told(
        self,
        reminders: list[Reminder],
        taken: Mapping[str, Taken],
        first: float,
        end: float,
        memory: tuple[float, float],
        seconds: Sequence[float],
    ) -> Ran:
        due = {self.side.key(each): each.due.timestamp() for each in reminders}
        if strange := taken.keys() - due.keys():
            raise Broken(f"{self.side.name} sent {len(strange)} that nobody scheduled")
        counted = {key: each.at for key, each in taken.items() if each.at <= end}
        # What was not accepted in time is at least so late.
        lateness = sorted(counted.get(key, end) - planned for key, planned in due.items())
        rate = len(counted) / (max(counted.values()) - first) if counted else 0.0
        microseconds = [1e6 * each / max(len(counted), 1) for each in seconds]
        return Ran(
            accepted=len(counted),
            of=len(due),
            again=sum(each.count > 1 for each in taken.values()),
            early=sum(each < 0 for each in lateness),
            rate=rate,
            p50=lateness[len(lateness) // 2],
            p99=lateness[min(len(lateness) - 1, len(lateness) * 99 // 100)],
            memory_mib=memory[0],
            servers_mib=memory[1],
            workers_cpu_us=microseconds[0],
            servers_cpu_us=microseconds[1],
            gateway_cpu_us=microseconds[2],
        )


def _in(seconds: float) -> datetime:
    """A time so far ahead, in whole milliseconds, as every store keeps it: else a reminder could seem to be early."""
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    return due.replace(microsecond=due.microsecond // 1000 * 1000)
