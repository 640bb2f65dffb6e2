"""Time and ids, injected everywhere.

``Clock.now`` is the domain's time: only ``now`` and ``due`` use it. ``Clock.real`` and ``Clock.monotonic`` are the
machine's: leases, timeouts, tokens, the sweeper and spans use those.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4


def to_milliseconds(at: datetime) -> datetime:
    """Cut to the precision that BSON keeps, so that a stored time equals the decided one."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


class Clock(Protocol):
    """Where the kit takes every time from."""

    def now(self) -> datetime:
        """The domain's time, UTC, in milliseconds."""
        ...

    def real(self) -> datetime:
        """The machine's time, UTC, in milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """The machine's own time for everything."""

    def now(self) -> datetime:
        """The machine's time."""
        return self.real()

    def real(self) -> datetime:
        """The machine's time."""
        return to_milliseconds(datetime.now(UTC))

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class OffsetClock(SystemClock):
    """Real time plus an offset that processes share through a file: eight bytes, a little-endian double of seconds.

    For the demo: whoever holds the file moves domain time on; the machine's time goes on as it is.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack("<d", 0.0))
        self._file = os.open(path, os.O_RDWR)
        self._map = mmap.mmap(self._file, 8)

    @property
    def offset(self) -> float:
        """Seconds that domain time is ahead of real time."""
        value: float = struct.unpack_from("<d", self._map)[0]
        return value

    def now(self) -> datetime:
        """Real time plus the shared offset."""
        return to_milliseconds(self.real() + timedelta(seconds=self.offset))

    def advance_to(self, at: datetime) -> None:
        """Move domain time on to ``at``; never back."""
        ahead = (at - self.real()).total_seconds()
        if ahead > self.offset:
            struct.pack_into("<d", self._map, 0, ahead)


class FrozenClock:
    """Stands still until it is moved; for tests. Domain and machine time move apart only by ``advance``."""

    def __init__(self, at: datetime) -> None:
        self._now = self._real = to_milliseconds(at)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """The domain's time."""
        return self._now

    def real(self) -> datetime:
        """The machine's time."""
        return self._real

    def monotonic(self) -> float:
        """Seconds since the clock was made, as far as ``pass_`` has moved it."""
        return self._monotonic

    def advance(self, by: timedelta) -> None:
        """Move the domain's time on."""
        self._now = to_milliseconds(self._now + by)

    def advance_to(self, at: datetime) -> None:
        """Move the domain's time on to ``at``; never back."""
        self._now = max(self._now, to_milliseconds(at))

    def pass_(self, seconds: float) -> None:
        """Let both times pass."""
        self._real = to_milliseconds(self._real + timedelta(seconds=seconds))
        self._now = to_milliseconds(self._now + timedelta(seconds=seconds))
        self._monotonic += seconds


Ids = Callable[[], str]
"""Makes a fresh opaque id, where none can be derived (a worker's name, a request without a key)."""


def random_id() -> str:
    """A random UUID."""
    return str(uuid4())
