"""One side of the comparison: something that is given reminders in advance, and has the gateway take each when due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

AHEAD = timedelta(days=2)
"""How long before the visit these reminders go."""

FAR = timedelta(days=30)
"""How far off, at the least, what only waits beside is due; it is spread over as long again."""

TIMEZONES = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
FROM = "+15550100100"
CLINIC = "CareRelay Clinic"
PHONE = "555-010-0100"


@dataclass(frozen=True, slots=True)
class Reminder:
    """One text to one synthetic person about one visit."""

    number: int
    run: str
    due: datetime

    @property
    def id(self) -> str:
        """What it is called in the gateway's ledger."""
        return f"reminder-{self.run}-{self.number}"

    @property
    def patient_id(self) -> str:
        """Its person, who gets no other reminder in a run: so no limit on messages a day holds one back."""
        return f"patient-{self.run}-{self.number}"

    @property
    def appointment_id(self) -> str:
        """Its visit."""
        return f"appointment-{self.run}-{self.number}"

    @property
    def to(self) -> str:
        """A number of the range that is nobody's."""
        return f"+1555{self.number % 10_000_000:07d}"

    @property
    def language(self) -> str:
        """Every fifth person speaks Spanish."""
        return "es" if self.number % 5 == 0 else "en"

    @property
    def timezone(self) -> str:
        """Where the person lives and the visit is."""
        return TIMEZONES[self.number % len(TIMEZONES)]

    @property
    def start(self) -> datetime:
        """When the visit is."""
        return self.due + AHEAD


_RUNS = count(1)


def herd(size: int, due: datetime) -> list[Reminder]:
    """So many reminders, all due at one moment."""
    run = str(next(_RUNS))
    return [Reminder(number, run, due) for number in range(size)]


def stream(size: int, first: datetime, rate: float) -> list[Reminder]:
    """So many reminders, due one after the other from ``first`` on, ``rate`` a second."""
    run = str(next(_RUNS))
    return [Reminder(number, run, first + timedelta(seconds=number / rate)) for number in range(size)]


def far_off(size: int) -> list[Reminder]:
    """So many reminders that are due long after every run."""
    run, first = f"far-{next(_RUNS)}", datetime.now(UTC) + FAR
    return [Reminder(number, run, first + FAR * (number / size)) for number in range(size)]


class Side(Protocol):
    """What is measured, with its servers and workers running."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def workers(self) -> Sequence[int]:
        """The processes that do the work, by id; their descendants count too."""
        ...

    @property
    def servers(self) -> Sequence[int]:
        """The broker and the store it stands on, by id."""
        ...

    async def enqueue(self, reminders: Sequence[Reminder]) -> None:
        """Store persons and visits, and schedule the reminders; returns when all of that is done and taken in."""
        ...

    async def pend(self, reminders: Sequence[Reminder]) -> None:
        """Schedule reminders that only wait; persons and visits of these are stored by nobody."""
        ...

    def key(self, reminder: Reminder) -> str:
        """The Idempotency-Key under which this side sends it."""
        ...

    async def kept(self) -> int:
        """How many reminders this side holds an outcome of: that the gateway accepted them."""
        ...
