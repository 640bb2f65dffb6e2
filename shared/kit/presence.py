"""Which processes of a service there are: each writes down what it is run as, and how it stands, while it lives.

Without it whoever answers an operator would know of its own process alone. Nothing is decided by it: who owns what
stands in the leases. A process that stops says so; one that died falls silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.kit.clock import Clock
from shared.kit.store.port import Index, Outcome, Store, Write

COLLECTION = "process"

EVERY = 5.0
SOON = 0.5
"""Seconds between two signs of life: of a process that is ready, and of one that is not yet, or no longer."""

_SILENT_AFTER = timedelta(seconds=4 * EVERY)
_FORGOTTEN_AFTER = timedelta(hours=1)
"""How long one that stopped or fell silent is still told of."""

_MOST = 1000


class Life(StrEnum):
    """Whether a process is there."""

    RUNNING = "running"
    SILENT = "silent"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Process:
    """One process as it told of itself last; ``facts`` is what it said of how it stands."""

    name: str
    role: str
    host: str
    pid: int
    since: datetime
    seen: datetime
    life: Life
    facts: Mapping[str, Any]


class Presence:
    """One process's sign of life, in a document of its own."""

    def __init__(self, store: Store, clock: Clock, name: str, role: str, host: str, pid: int) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._about = {"role": role, "host": host, "pid": pid, "since": clock.real()}
        self._version: int | None = None

    async def tell(self, facts: Mapping[str, Any], *, stopped: bool = False) -> None:
        """Say how this process stands, and that it lives or stops. Raises StoreUnavailable."""
        version = (self._version or 0) + 1
        written = {
            **self._about,
            "version": version,
            "seen": self._clock.real(),
            "stopped": stopped,
            "facts": dict(facts),
        }
        outcome = (await self._store.write(COLLECTION, [Write(self._name, self._version, written)]))[0]
        if outcome is Outcome.WON:
            self._version = version
            return
        # The answer to an earlier write was lost: it landed after all.
        found = await self._store.load(COLLECTION, [self._name])
        self._version = found[0]["version"] if found else None


async def ensure(store: Store) -> None:
    """Create the index by which processes are found."""
    await store.ensure(COLLECTION, [Index(("seen",))])


async def processes(store: Store, now: datetime) -> list[Process]:
    """The processes that told of themselves lately, by role and since when they run. Raises StoreUnavailable."""
    lately = {"seen": {"$gte": now - _FORGOTTEN_AFTER}}
    found = await store.find(COLLECTION, lately, sort="seen", limit=_MOST)
    known = [
        Process(
            raw["_id"],
            raw["role"],
            raw["host"],
            raw["pid"],
            raw["since"],
            raw["seen"],
            _life(raw["stopped"], raw["seen"], now),
            raw["facts"],
        )
        for raw in found
    ]
    return sorted(known, key=lambda each: (each.role, each.since, each.name))


def _life(stopped: bool, seen: datetime, now: datetime) -> Life:
    if stopped:
        return Life.STOPPED
    return Life.SILENT if now - seen > _SILENT_AFTER else Life.RUNNING
