"""What the fault tests of the high-volume paths share: a gateway's ledger, processes to harm, how work went on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

from deploy.embedded import Stack
from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import LOOPBACK
from services.notifications.model.delivery import Delivery
from shared.kit.document import SLOTS, slot_of
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import EPOCH, Store
from tests.bench.reminders_gateway import Book, GatewayDoor
from tests.bench.reminders_ours import Ours, running
from tests.bench.reminders_processes import Processes, passed
from tests.bench.reminders_sides import Reminder, stream

T = TypeVar("T")

AFTER_A_DEATH, AFTER_A_RESTART = 15.0, 60.0
"""Seconds within which work that a dead worker had goes on, and all work after broker or store have come back."""

_LOOK_EVERY = 0.1


async def until(look: Callable[[], Awaitable[T | None]], within: float, what: str) -> T:
    """What ``look`` gives, asked again until it gives something. Raises AssertionError after ``within`` seconds."""
    end = time.monotonic() + within
    while not (found := await look()):
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}"
        await passed(_LOOK_EVERY)
    return found


async def shared(store: Store, queue: str) -> dict[str, set[int]]:
    """The slots of a queue by worker, once two workers have half of them each, as the table of leases says."""

    async def look() -> dict[str, set[int]] | None:
        found = await store.load(LEASES, [queue])
        owners = {worker: set(slots) for worker, slots in found[0]["owners"].items()} if found else {}
        return owners if sorted(map(len, owners.values())) == [SLOTS // 2] * 2 else None

    return await until(look, 60, f"two workers share the slots of {queue}")


class Ledger(Book):
    """What a gateway took: each arrival of each key, and the message it was about.

    While ``holding``, what is taken is not answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: dict[str, list[float]] = defaultdict(list)
        self.keys_of: dict[str, set[str]] = defaultdict(set)
        self.unanswered = 0
        self.holding = False
        self._held: list[Callable[[], None]] = []

    def take(self, key: str, body: bytes) -> tuple[bytes, bytes]:
        """Note one request, and count it."""
        refused = self.refused
        status, answer = super().take(key, body)
        if self.refused == refused:
            self.arrivals[key].append(time.time())
            self.keys_of[json.loads(body)["reference"]].add(key)
        return status, answer

    def answered(self, answer: Callable[[], None]) -> None:
        """Send an answer, now or when no more is held back."""
        if self.holding:
            self._held.append(answer)
        else:
            self.unanswered -= 1
            answer()

    def let_go(self) -> None:
        """Send the answers that were held back, and hold back no more."""
        self.holding = False
        held, self._held = self._held, []
        for answer in held:
            self.answered(answer)


class SlowDoor(GatewayDoor):
    """A connection whose answers take a while, so that there always are calls in flight."""

    def __init__(self, ledger: Ledger, latency: float) -> None:
        super().__init__(ledger)
        self._ledger = ledger
        self._latency = latency

    def answer(self, status: bytes, body: bytes) -> None:
        """Answer in a while."""
        self._ledger.unanswered += 1
        answer = partial(super().answer, status, body)
        asyncio.get_running_loop().call_later(self._latency, self._ledger.answered, answer)


@asynccontextmanager
async def gateway(latency: float = 0.1) -> AsyncIterator[tuple[str, Ledger]]:
    """A gateway in this process: its address, and its ledger. An answer takes ``latency`` seconds."""
    ledger = Ledger()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SlowDoor(ledger, latency), LOOPBACK, 0, backlog=1024)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}", ledger
    finally:
        server.close()


@dataclass
class Scene:
    """Dispatchers and senders on real broker and store, a gateway, and reminders under way between them."""

    stack: Stack
    ours: Ours
    ledger: Ledger
    store: MongoStore
    reminders: list[Reminder] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.time)

    def tell(self, what: str) -> None:
        """Note what was done; shown where the test fails."""
        self.told.append(f"{time.time() - self._began:6.1f} s  {what}")

    # -- load -----------------------------------------------------------------------------------------------

    async def load(self, size: int = 600, rate: float = 50.0, first_in: float = 2.0) -> None:
        """Plan so many more reminders, ``rate`` of them due a second."""
        first = datetime.now(UTC) + timedelta(seconds=first_in)
        more = stream(size, first, rate)
        await self.ours.enqueue(more)
        self.reminders += more
        self.tell(f"{size} reminders stored, the first due {first.timestamp() - self._began:.1f} s, {rate:.0f}/s")

    async def taken(self, count: int, within: float) -> None:
        """Wait until the gateway has taken so many."""
        await self.ledger.until(count, within)
        self.tell(f"{len(self.ledger.taken)} taken")
        assert len(self.ledger.taken) >= count, f"{len(self.ledger.taken)} of {count} taken within {within:.0f} s"

    async def kept(self, within: float) -> dict[str, int]:
        """Wait until every reminder has an outcome and its events are published; how many have which."""

        async def look() -> dict[str, int] | None:
            states = await self.states()
            open_ = states.get("planned", 0) + states.get("sending", 0)
            unsent = await self.store.count(Delivery.collection, {"unsent": {"$gte": EPOCH}})
            return states if not open_ and not unsent else None

        states = await until(look, within, "every reminder has an outcome and every outbox is empty")
        self.tell(f"ended: {states}")
        return states

    async def in_flight(self, number: int) -> None:
        """Hold answers back until so many calls wait for theirs."""
        self.ledger.holding = True

        async def look() -> bool:
            return self.ledger.unanswered >= number

        await until(look, 30, f"{number} calls in flight")
        self.tell(f"{self.ledger.unanswered} calls in flight")

    async def only_known_or_unknown(self, within: float, unknown: int) -> int:
        """Wait until every reminder has an outcome: accepted, or, of so many at the most, unknown; how many are."""
        states = await self.kept(within)
        doubtful = states.pop("unknown", 0)
        assert states == {"accepted": len(self.reminders) - doubtful}
        assert doubtful <= unknown
        self.check_ledger(lost=doubtful)
        return doubtful

    async def states(self) -> dict[str, int]:
        """How many of the reminders are in which state."""
        states: dict[str, int] = defaultdict(int)
        for raw in await self.store.load(Delivery.collection, [reminder.id for reminder in self.reminders]):
            states[str(raw["state"])] += 1
        return dict(states)

    async def shared(self) -> None:
        """Return once two dispatchers have half of the slots each."""
        await shared(self.store, f"notifications.{Delivery.collection}")
        self.tell("slots are shared evenly")

    # -- harm -----------------------------------------------------------------------------------------------

    def harm(self, pid: int, number: signal.Signals, name: str) -> float:
        """Send a signal; returns when, in seconds since 1970."""
        self.tell(f"{number.name} to {name} ({pid}); {len(self.ledger.taken)} taken so far")
        return harmed(pid, number)

    # -- what must hold -------------------------------------------------------------------------------------

    def check_ledger(self, *, lost: int = 0) -> None:
        """Each reminder was taken under its one key, but for ``lost`` at the most; nothing else was."""
        expected = {self.ours.key(reminder) for reminder in self.reminders}
        assert not self.ledger.refused
        assert self.ledger.taken.keys() <= expected, "something was sent under another key"
        missing = expected - self.ledger.taken.keys()
        assert len(missing) <= lost, f"{len(missing)} were never sent"
        doubled = {reference: keys for reference, keys in self.ledger.keys_of.items() if len(keys) > 1}
        assert not doubled

    def check_none_early(self) -> None:
        """Nothing was sent before it was due."""
        for reminder in self.reminders:
            for at in self.ledger.arrivals.get(self.ours.key(reminder), ())[:1]:
                assert at >= reminder.due.timestamp(), f"{reminder.id} was sent {reminder.due.timestamp() - at} s early"

    def stall(self, group: Callable[[Reminder], int], since: float) -> float:
        """The longest time in seconds, from ``since`` on, in which something of some group (a slot, a partition) was
        due and nothing of that group was taken."""
        grouped: dict[int, list[Reminder]] = defaultdict(list)
        for reminder in self.reminders:
            grouped[group(reminder)].append(reminder)
        longest = max(self._stall(members, since) for members in grouped.values())
        self.tell(f"longest stall of one {group.__name__.removeprefix('by_')}: {longest:.1f} s")
        return longest

    def _stall(self, members: Iterable[Reminder], since: float) -> float:
        taken = sorted((self.ledger.arrivals[self.ours.key(one)][0], one.due.timestamp()) for one in members)
        longest, last = 0.0, since
        for place, (at, _) in enumerate(taken):
            if at < since:
                continue
            waiting_since = min(due for _, due in taken[place:])
            longest = max(longest, at - max(last, waiting_since))
            last = at
        return longest


def by_slot(reminder: Reminder) -> int:
    """The slot that a reminder's delivery is in."""
    return slot_of(reminder.patient_id)


@asynccontextmanager
async def scene(
    stack: Stack,
    kind: Foundation,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    latency: float = 0.1,
) -> AsyncIterator[Scene]:
    """One dispatcher and one sender, ready. Prints what was done, and logs."""
    with Processes(folder) as processes:
        async with gateway(latency) as (url, ledger), httpx.AsyncClient(trust_env=False, timeout=10) as http:
            foundation = {**kind.environment, **(environment or {})}
            store = MongoStore(stack.mongodb_uri, "notifications", timeout=30)
            try:
                async with running(stack, processes, url, http, foundation) as ours:
                    found = Scene(stack, ours, ledger, store)
                    try:
                        yield found
                    finally:
                        print(*found.told, *last_lines(folder), sep="\n")  # shown where the test fails
                        resume(ours.workers)
            finally:
                await store.close()


def harmed(pid: int, number: signal.Signals) -> float:
    """Send a process a signal; returns when, in seconds since 1970."""
    os.kill(pid, number)
    return time.time()


def resume(pids: Sequence[int]) -> None:
    """Let processes that were stopped go on, so that they can be ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def last_lines(folder: Path, count: int = 15) -> list[str]:
    """What each process logged last."""
    lines: list[str] = []
    for log in sorted(folder.glob("*.log")):
        lines += [f"-- {log.name}", *log.read_text(errors="replace").splitlines()[-count:]]
    return lines
