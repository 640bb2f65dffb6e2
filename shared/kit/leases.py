"""Who looks after which slots: leases with a rising epoch a slot, kept in one document a queue.

Without it two workers would do the same due work, or none would. No wall clock is compared between machines: a
worker counts as dead when its beat has not changed for a lease by the observer's own monotonic clock, which is never
sooner than by the worker's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.kit.clock import Clock
from shared.kit.document import SLOTS
from shared.kit.store.port import Outcome, Store, Write

COLLECTION = "leases"


@dataclass(slots=True)
class _Seen:
    beat: int
    at: float


class Leases:
    """One worker's share of one queue's slots. ``queue`` is its name in full, ``due_queue`` within its collection.

    ``busy`` tells whether a slot has work in flight here: such a slot is not handed over before that is done. Where
    much is due, a slot is used once all of it carries the new epoch, or, ``claiming``, at once: then each document is
    claimed before it is taken up, and an earlier owner may write others yet. It may intend calls that it will not make.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        queue: str,
        collection: str,
        worker: str,
        *,
        due_queue: str = "",
        lease: float = 10.0,
        margin: float = 2.0,
        horizon: timedelta = timedelta(minutes=1),
        busy: Callable[[int], bool] = lambda slot: False,
        claiming: bool = False,
    ) -> None:
        self.queue = queue
        self.worker = worker
        self._store = store
        self._clock = clock
        self._collection = collection
        self._due_queue = due_queue
        self._lease = lease
        self._margin = margin
        self._horizon = horizon
        self._busy = busy
        self.claiming = claiming
        self._held: dict[int, int] = {}
        self._unstamped: dict[int, int] = {}
        """Those of them of which not all documents carry the epoch yet: where much is due, that takes its time."""
        self._leaving: set[int] = set()
        self._seen: dict[str, _Seen] = {}
        self._until = float("-inf")

    @property
    def slots(self) -> dict[int, int]:
        """The slots that work may be begun in now, with their epochs; none once the lease may have ended."""
        if not self.holds():
            return {}
        passed_by = self._leaving if self.claiming else self._leaving | self._unstamped.keys()
        if not passed_by:  # As nearly always; asked before every look at what is due.
            return dict(self._held)
        return {slot: epoch for slot, epoch in self._held.items() if slot not in passed_by}

    @property
    def held(self) -> int:
        """How many slots are ours; none once the lease may have ended."""
        return len(self._held) if self.holds() else 0

    @property
    def taking_over(self) -> bool:
        """Whether documents of an earlier owner are still to be stamped, with which ``renew`` goes on."""
        return bool(self._unstamped)

    def holds(self) -> bool:
        """Whether the lease is certainly still ours."""
        return self._clock.monotonic() < self._until

    def may_call(self) -> bool:
        """Whether an outside call may be begun: not later than the end of the lease less a margin."""
        return self._clock.monotonic() < self._until - self._margin

    def epoch(self, slot: int) -> int | None:
        """The epoch under which a slot's documents may be written, or None where it is not ours."""
        usable = self.holds() and (self.claiming or slot not in self._unstamped)
        return self._held.get(slot) if usable else None

    async def renew(self) -> bool:
        """Beat, take what is free up to an even share, hand over what is above it.

        Returns whether the beat landed; when another worker was first, the next call tries again. New slots are used
        only after their documents carry the new epoch, so that nothing of an earlier owner lands after the first read;
        where this worker is ``claiming``, at once, and that holds for each document that it has claimed.
        """
        began = self._clock.monotonic()
        found = await self._store.load(COLLECTION, [self.queue])
        if not found:
            # Whoever is first makes it; an empty one, so that both then go the same way.
            fresh = {"version": 1, "workers": {}, "owners": {}, "epochs": [0] * SLOTS}
            await self._store.write(COLLECTION, [Write(self.queue, None, fresh)])
            found = await self._store.load(COLLECTION, [self.queue])
        table = found[0]
        # A beat is first seen when it was read, not when reading began: it may have been written in between.
        workers, owners = self._alive(table, self._clock.monotonic())
        epochs: list[int] = list(table["epochs"])
        mine = {slot for slot in owners.get(self.worker, []) if self._held.get(slot) == epochs[slot]}
        # What the table gives to others is not ours from now on, also where the answer to our handing it over was lost.
        self._held = {slot: epoch for slot, epoch in self._held.items() if slot in mine}
        self._unstamped = {slot: epoch for slot, epoch in self._unstamped.items() if slot in mine}
        self._leaving &= mine
        surplus = self._hand_over(mine, workers)
        mine -= surplus
        for slot in surplus:
            # From now on, whether or not we hear that the table says so: others may take it as soon as it does.
            self._held.pop(slot, None)
            self._unstamped.pop(slot, None)
            self._leaving.discard(slot)
        taken = self._take(mine, owners, workers)
        for slot in taken:
            epochs[slot] += 1
        owners[self.worker] = sorted(mine | taken)
        change: dict[str, Any] = {
            "version": table["version"] + 1,
            "workers": {**workers, self.worker: workers.get(self.worker, 0) + 1},
            "owners": {worker: slots for worker, slots in owners.items() if worker in {*workers, self.worker}},
            "epochs": epochs,
        }
        outcome = (await self._store.write(COLLECTION, [Write(self.queue, table["version"], change)]))[0]
        if outcome is not Outcome.WON:
            return False
        self._until = began + self._lease  # Others have seen the beat from now on, whatever becomes of the stamping.
        self._held.update({slot: epochs[slot] for slot in taken})
        self._unstamped.update({slot: epochs[slot] for slot in taken})
        if self._unstamped:
            new, until = dict(self._unstamped), self._clock.now() + self._horizon
            for slot in await self._store.stamp(self._collection, new, until, self._due_queue):
                if self._unstamped.get(slot) == new[slot]:  # not given up meanwhile
                    del self._unstamped[slot]
        return True

    async def claim(self, documents: Mapping[str, int]) -> None:
        """See to it that no write of an earlier owner lands on these any more, by id their slots, which are read next.

        In a slot whose takeover is over none does, and nothing is asked for.
        """
        epochs = {id: self._unstamped[slot] for id, slot in documents.items() if slot in self._unstamped}
        if epochs:
            await self._store.stamp_documents(self._collection, epochs, self._due_queue)

    def _alive(self, table: dict[str, Any], now: float) -> tuple[dict[str, int], dict[str, list[int]]]:
        """The workers whose beat changes, and what they own."""
        workers: dict[str, int] = {}
        for worker, beat in table["workers"].items():
            seen = self._seen.get(worker)
            if seen is None or seen.beat != beat:
                self._seen[worker] = _Seen(beat, now)
            elif worker != self.worker and now - seen.at >= self._lease + self._margin:
                continue
            workers[worker] = beat
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in table["workers"]}
        return workers, {worker: list(slots) for worker, slots in table["owners"].items() if worker in workers}

    def _hand_over(self, mine: set[int], workers: dict[str, int]) -> set[int]:
        """Slots above an even share that have nothing in flight; busy ones begin nothing new until they are free."""
        above = len(mine) - self._share(workers)
        if above <= 0:
            self._leaving.clear()
            return set()
        by_quiet = sorted(
            mine, key=lambda slot: (slot not in self._leaving, self._busy(slot), slot not in self._unstamped, slot)
        )
        self._leaving = set(by_quiet[:above])
        return {slot for slot in self._leaving if not self._busy(slot)}

    def _take(self, mine: set[int], owners: dict[str, list[int]], workers: dict[str, int]) -> set[int]:
        owned = {slot for worker, slots in owners.items() if worker != self.worker for slot in slots}
        free = [slot for slot in range(SLOTS) if slot not in owned and slot not in mine]
        return set(free[: max(0, self._share(workers) - len(mine))])

    def _share(self, workers: dict[str, int]) -> int:
        """An even share among those who stay. Who leaves, and has work in flight yet, counts its beats below zero."""
        staying = {worker for worker, beat in workers.items() if beat >= 0} | {self.worker}
        return -(-SLOTS // len(staying))

    async def vacant(self) -> bool:
        """Whether slots lie free that another worker gave up: a look without a beat, for between two of them.

        A worker that is alone has nobody to follow, and asks nobody.
        """
        if not self._seen.keys() - {self.worker}:
            return False
        found = await self._store.load(COLLECTION, [self.queue])
        return bool(found) and sum(len(slots) for slots in found[0]["owners"].values()) < SLOTS

    async def leave(self, busy: Callable[[int], bool] = lambda slot: False) -> bool:
        """Give everything up at once, so that others need not wait for the lease to end, but slots that are ``busy``.

        These keep their lease, which this call renews: it is to be called again until they are done. Nothing new is
        begun in them. Returns whether nothing is ours any more.
        """
        self._held = {slot: epoch for slot, epoch in self._held.items() if self.holds() and busy(slot)}
        self._leaving = set(self._held)
        self._unstamped.clear()
        if not self._held:
            self._until = float("-inf")
        for _ in range(10):
            began = self._clock.monotonic()
            found = await self._store.load(COLLECTION, [self.queue])
            if not found:
                return True
            table = found[0]
            ours = [slot for slot in table["owners"].get(self.worker, []) if slot in self._held]
            epochs = table["epochs"]
            self._held = {slot: self._held[slot] for slot in ours if self._held[slot] == epochs[slot]}
            workers = {worker: beat for worker, beat in table["workers"].items() if worker != self.worker}
            owners = {worker: slots for worker, slots in table["owners"].items() if worker != self.worker}
            if self._held:
                workers[self.worker] = -abs(table["workers"].get(self.worker, 0)) - 1
                owners[self.worker] = sorted(self._held)
            change = {"version": table["version"] + 1, "workers": workers, "owners": owners}
            outcome = (await self._store.write(COLLECTION, [Write(self.queue, table["version"], change)]))[0]
            if outcome is Outcome.WON:
                self._until = began + self._lease if self._held else float("-inf")
                break
        return not self._held
