"""What the simulators send to services: at its due time, with a bearer token, again until it is taken, within bounds.

Without bounds, a service that is gone for good would keep the simulators busy for ever; without repetition, one that
is restarted would miss what happened meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx

TokenSource = Callable[[], str]

TRIES = 20
FIRST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(hours=1)
CONCURRENCY = 8
TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class Parcel:
    """One thing to POST, under one idempotency ``key`` however often it is tried.

    ``note(at, status)`` is told of every try; status is None where no answer came.
    """

    key: str
    url: str
    content: bytes
    content_type: str
    due: datetime
    note: Callable[[datetime, int | None], None]
    tries: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


def taken(status: int | None) -> bool:
    """Whether an answer's status says that the other side has it."""
    return status is not None and 200 <= status < 300


def delay_after(tries: int) -> timedelta:
    """How long to wait after the given number of failed tries: 5 s doubled each time, at most one hour."""
    return min(FIRST_DELAY * (1 << min(tries - 1, 20)), LONGEST_DELAY)


class Outbound:
    """Parcels that wait for their time."""

    def __init__(self, now: Callable[[], datetime], http: httpx.AsyncClient, token: TokenSource | None) -> None:
        self._now = now
        self._http = http
        self._token = token
        self._waiting: list[Parcel] = []
        self._places = asyncio.Semaphore(CONCURRENCY)

    def add(self, parcel: Parcel) -> None:
        """Send it when it is due."""
        self._waiting.append(parcel)

    def next_due(self) -> datetime | None:
        """When the next parcel is due."""
        return min((parcel.due for parcel in self._waiting), default=None)

    async def tick(self) -> int:
        """Send what is due; returns how many tries were made."""
        now = self._now()
        due = sorted((parcel for parcel in self._waiting if parcel.due <= now), key=lambda parcel: parcel.due)
        # Out of the list while in flight, so that ticks which overlap send nothing twice.
        self._waiting = [parcel for parcel in self._waiting if parcel not in due]
        await asyncio.gather(*(self._send(parcel) for parcel in due))
        return len(due)

    async def _send(self, parcel: Parcel) -> None:
        status: int | None = None
        try:
            async with self._places:
                status = await self._post(parcel)
        finally:
            # Also when the tick is cancelled: the try counts, and the parcel is not lost.
            at = self._now()
            parcel.tries += 1
            parcel.note(at, status)
            if not taken(status) and parcel.tries < TRIES:
                parcel.due = at + delay_after(parcel.tries)
                self._waiting.append(parcel)

    async def _post(self, parcel: Parcel) -> int | None:
        headers = {**parcel.headers, "Content-Type": parcel.content_type, "Idempotency-Key": parcel.key}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        try:
            answer = await self._http.post(parcel.url, content=parcel.content, headers=headers, timeout=TIMEOUT_SECONDS)
        except Exception:
            # In process, whatever a service raises comes out here; to the sender it is a connection that broke.
            return None
        return answer.status_code
