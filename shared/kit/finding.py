"""Which due documents of a worker's slots may be taken up now.

Without it a worker would load what it may not touch yet: other workers' documents, such with a call in flight, and such
that call who may not be called now. With a backlog nearly all that is due stands behind somebody's budget.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Any

from shared.kit.clock import Clock
from shared.kit.document import Document, due_field
from shared.kit.horizon import Horizon, Look
from shared.kit.pacing import Pacer
from shared.kit.store.port import EPOCH, Found, Store

BATCH = 200
HINT = 1000
_WORTH_IT = 20
"""So few documents for us in a look over all slots are better looked for slot by slot."""
_ONE_BY_ONE = 0.5
"""Seconds in which, after a look over all slots in vain, each slot is looked into by itself."""
_LOOK_PAST = 2.0
"""Seconds after which is looked again where nothing was to be done."""
_OTHERS = 300.0
"""Seconds after which a whole slot is searched for somebody unknown; who becomes due is met sooner."""
_PAGE = 2000
"""At most so many documents are looked at together for somebody unknown."""
_LATE = timedelta(seconds=5)
"""So long after its own due time by our clock a document may be stored, and is still met as a newcomer."""
_UNKNOWN_ROOM = 10
_STRANGE = 8
"""So many slots in which nobody was called yet are looked into in one pass."""
_SEARCHING = 0.1
"""Seconds after which no more slots are searched for somebody unknown in one pass."""
_ASKING = 1.0
"""Seconds after which nobody else is looked for in one pass; the next one goes on behind."""
_BESIDE = 500
"""At most so many documents of somebody who may not be called are taken up at once, for their other timers."""

Place = tuple[int, str]
"""A slot, and who is called in it; nobody in particular where that is told by no field."""


class Finder:
    """The looks of one worker into one queue of a document type.

    ``flying`` gives the documents with a call in flight here or an outcome that is not written yet, by id their slots:
    theirs is no time for more. ``calls_alone`` says that all that can be due is a call somebody paces.
    """

    def __init__(
        self,
        store: Store,
        document: type[Document],
        queue: str,
        clock: Clock,
        pacer: Pacer,
        flying: Callable[[], Mapping[str, int]],
        *,
        calls_alone: bool,
    ) -> None:
        self._store = store
        self._collection = document.collection
        self._time = due_field(queue)
        self._callee = document.callees.get(queue)
        self._clock = clock
        self._pacer = pacer
        self._flying = flying
        self._calls_alone = calls_alone
        self._fields = ("slot", self._time, *([self._callee] if self._callee else []))
        self._horizon = Horizon()
        self._one_by_one_until = float("-inf")
        self._turn = 0
        self._shut: dict[Place, float] = {}
        """Who may not be called before a time by the monotonic clock."""
        self._paused: set[Place] = set()
        """Who of these is paused: nobody waits for that to end by itself."""
        self._idle: dict[Place, float] = {}
        """What is not looked into before a time: there was nothing to be done."""
        self._known: dict[int, dict[str, None]] = {}
        """By slot, who is called by what is due in it, as far as is known, in the order in which they were met."""
        self._others_at: dict[int, float] = {}
        """By slot, when it is searched for somebody unknown."""
        self._searched: dict[int, datetime] = {}
        """By slot that is being searched, up to which time it was."""
        self._beside: dict[Place, tuple[float, datetime]] = {}
        """By who may not be called: when other timers of his documents were looked for, and up to which time."""
        self._beside_at = float("-inf")
        self._met_until: datetime | None = None
        """Until when whoever became due is known, in every slot that was searched since."""

    # -- who may be called ----------------------------------------------------------------------------------

    def shut(self, place: Place, seconds: float, *, paused: bool = False) -> None:
        """Nobody may be called there for so long."""
        self._shut[place] = self._clock.monotonic() + seconds
        self._idle.pop(place, None)
        if self._callee:
            slot, whom = place
            self._known.setdefault(slot, {}).setdefault(whom)
        if paused:
            self._paused.add(place)
        else:
            self._paused.discard(place)

    def open(self, place: Place) -> None:
        """Who is called there may be called."""
        self._paused.discard(place)
        self._shut.pop(place, None)
        self._idle.pop(place, None)

    def pauses_changed(self) -> None:
        """Somebody was paused or goes on: what was passed by is looked at again at once."""
        for place in list(self._paused):
            self.open(place)

    @property
    def waiting(self) -> bool:
        """Whether something due waits until whoever it calls may be called."""
        now = self._clock.monotonic()
        return any(until > now for place, until in self._shut.items() if place not in self._paused)

    @property
    def opens_in(self) -> float:
        """Seconds until somebody may be called who may not be now; infinite where there is nobody."""
        return min(self._shut.values(), default=float("inf")) - self._clock.monotonic()

    def retain(self, slots: Set[int]) -> None:
        """Forget what is known of slots that are not ours any more, and what is over."""
        now = self._clock.monotonic()
        self._horizon.retain(slots)
        self._shut = {place: until for place, until in self._shut.items() if place[0] in slots and until > now}
        self._idle = {place: until for place, until in self._idle.items() if place[0] in slots and until > now}
        self._known = {slot: known for slot, known in self._known.items() if slot in slots}
        self._others_at = {slot: at for slot, at in self._others_at.items() if slot in slots}
        self._searched = {slot: upto for slot, upto in self._searched.items() if slot in slots}
        self._beside = {place: beside for place, beside in self._beside.items() if place[0] in slots}

    # -- what is due ----------------------------------------------------------------------------------------

    async def due(self, slots: Set[int]) -> dict[str, int]:
        """The documents that are due in these slots and may be taken up, by id their slots; at most some hundred.

        One look over all slots tells where there is work. Only when that look is full of documents that are not for us
        now, other workers' or such that call who may not be called, are our own slots asked one by one, each for its
        share, and those passed by.
        """
        found = await self._free_to_be_called(slots)
        if not self._calls_alone:
            found += await self._with_other_timers(slots)
        return {hint["_id"]: hint["slot"] for hint in found}

    async def _free_to_be_called(self, slots: Set[int]) -> list[Found]:
        found: list[Found] = []
        if self._clock.monotonic() >= self._one_by_one_until:
            began = self._clock.now()
            hints, all_of_it = await self._first(None, {}, limit=HINT + len(self._flying()), enough=BATCH)
            hints = [hint for hint in hints if hint["slot"] in slots]
            found = self._as_may_be_called(self._free(hints))
            if len(found) >= _WORTH_IT or all_of_it:
                return found
            self._one_by_one_until = self._clock.monotonic() + _ONE_BY_ONE
            if self._callee:
                await self._meet_newcomers(slots, began)
        one_by_one = self._callee_by_callee if self._callee else self._slot_by_slot
        found += await one_by_one(sorted(slots))
        return found[:BATCH]

    async def _with_other_timers(self, slots: Set[int]) -> list[Found]:
        """Some documents of those who may not be called, page by page, again and again.

        Where not all that is due is a call, a deadline may stand behind any number of calls that wait. That is for now
        and then: most of these documents have nothing but such a call.
        """
        now, upto = self._clock.monotonic(), self._clock.now()
        if now < self._beside_at:
            return []
        found: list[Found] = []
        unseen = (float("-inf"), EPOCH)
        places = [place for place in self._shut if place[0] in slots]
        for place in sorted(places, key=lambda place: self._beside.get(place, unseen)[0]):
            if len(found) >= _BESIDE:
                break
            self._beside_at = now + _LOOK_PAST
            _, since = self._beside.get(place, unseen)
            where: dict[str, Any] = {"slot": place[0], self._time: {"$gte": since, "$lte": upto}}
            if self._callee:
                where[self._callee] = place[1]
            hints = await self._store.find(self._collection, where, sort=self._time, limit=_BESIDE, fields=self._fields)
            on = len(hints) == _BESIDE and hints[-1][self._time] > since
            self._beside[place] = (now, hints[-1][self._time] if on else EPOCH)
            flying = self._flying()
            found += [hint for hint in hints if hint["_id"] not in flying]
        return found

    async def _slot_by_slot(self, slots: Sequence[int]) -> list[Found]:
        """Each slot's share of what may be taken up, where nothing tells beforehand who is called."""
        room, in_slot = self._pacer.room(), Counter(self._flying().values())
        found: list[Found] = []
        strange = 0
        for slot in self._in_turn(slots):
            if (slot, "") in self._shut or (slot, "") in self._idle:
                continue
            strange += slot not in room
            if self._calls_alone and slot not in room and strange > _STRANGE:
                continue  # In its turn: most slots in which nobody was ever called hold nobody.
            share = self._share(slot, room, len(slots))
            hints, all_of_it = await self._first(slot, {"slot": slot}, limit=share + in_slot[slot])
            new = self._free(hints)[:share]
            found.extend(new)
            if not new and all_of_it:
                self._idle[slot, ""] = self._clock.monotonic() + _LOOK_PAST
            if slot not in room or not self._calls_alone:
                self._turn = slot + 1
            if len(found) >= BATCH:
                break
        return found

    async def _callee_by_callee(self, slots: Sequence[int]) -> list[Found]:
        """The share of each who may be called, and what calls somebody unknown.

        Who may not be called is not looked past: thousands of documents may stand behind him.
        """
        room, in_slot = self._pacer.room(), Counter(self._flying().values())
        shares = {slot: self._share(slot, room, len(slots)) for slot in slots}
        found = await self._of_others(slots, shares)
        began = self._clock.monotonic()
        places = [(slot, whom) for slot in self._in_turn(slots) for whom in self._known.get(slot, ())]
        for slot, whom in places:
            if (slot, whom) in self._shut or (slot, whom) in self._idle:
                continue
            if len(found) >= BATCH or self._clock.monotonic() - began > _ASKING:
                self._turn = slot
                break
            self._known[slot][whom] = self._known[slot].pop(whom)  # Behind all others of its slot, for the next time.
            where = {"slot": slot, str(self._callee): whom}
            hints, all_of_it = await self._first((slot, whom), where, limit=shares[slot] + in_slot[slot])
            new = self._free(hints)[: shares[slot]]
            found.extend(new)
            if not hints:
                del self._known[slot][whom]  # Until he is met again.
            elif not new and all_of_it:
                self._idle[slot, whom] = self._clock.monotonic() + _LOOK_PAST
        return found

    async def _of_others(self, slots: Sequence[int], shares: Mapping[int, int]) -> list[Found]:
        """What is due and calls somebody unknown, of slots that were not searched for long; he is known from now on."""
        found: list[Found] = []
        began, upto = self._clock.monotonic(), self._clock.now()
        for slot in self._in_turn([slot for slot in slots if self._others_at.get(slot, began) <= began]):
            since = self._searched.pop(slot, EPOCH)
            where = {"slot": slot, self._time: {"$gte": since, "$lte": upto}}
            hints = await self._store.find(self._collection, where, sort=self._time, limit=_PAGE, fields=self._fields)
            known = set(self._known.get(slot, ()))
            found += self._free([hint for hint in hints if self._whom(hint) not in known])[: shares[slot]]
            self._meet(hints)
            if len(hints) == _PAGE and hints[-1][self._time] > since:
                self._searched[slot] = hints[-1][self._time]
            else:
                nameless = any(self._whom(hint) is None for hint in hints)
                self._others_at[slot] = self._clock.monotonic() + (_LOOK_PAST if nameless else _OTHERS)
            self._turn = slot + 1
            if len(found) >= BATCH or self._clock.monotonic() - began > _SEARCHING:
                break
        return found

    async def _meet_newcomers(self, slots: Set[int], now: datetime) -> None:
        """Get to know who is called by what became due since the last time."""
        if self._met_until is not None:  # At first every slot is searched anyway.
            time = {self._time: {"$gte": self._met_until, "$lte": now}}
            hints = await self._store.find(self._collection, time, sort=self._time, limit=_PAGE, fields=self._fields)
            self._meet([hint for hint in hints if hint["slot"] in slots])
            if len(hints) == _PAGE:
                self._others_at.clear()  # Some were passed by: every slot is searched.
        self._met_until = now - _LATE

    def _meet(self, hints: Sequence[Found]) -> None:
        for hint in hints:
            if (whom := self._whom(hint)) is not None:
                self._known.setdefault(hint["slot"], {}).setdefault(whom)

    async def _first(
        self, key: int | Place | None, where: Mapping[str, Any], *, limit: int, enough: int | None = None
    ) -> tuple[list[Found], bool]:
        look = Look(self._store, self._collection, self._time, self._clock.now())
        return await self._horizon.first(look, key, where, limit=limit, enough=enough or limit, fields=self._fields)

    def _in_turn(self, slots: Sequence[int]) -> tuple[int, ...]:
        begin = bisect.bisect_left(slots, self._turn)
        return (*slots[begin:], *slots[:begin])

    def _share(self, slot: int, room: Mapping[int, int], slots: int) -> int:
        """How many documents of a slot are taken up in one pass."""
        if self._calls_alone:
            return max(1, min(room.get(slot, _UNKNOWN_ROOM), BATCH))
        return max(10, BATCH // slots)

    def _free(self, hints: Sequence[Found]) -> list[Found]:
        """Those of these that nothing keeps from being taken up."""
        flying = self._flying()
        return [
            hint
            for hint in hints
            if hint["_id"] not in flying and (hint["slot"], self._whom(hint) or "") not in self._shut
        ]

    def _whom(self, hint: Found) -> str | None:
        """Who is called for a document, as far as that is told by a field."""
        whom = hint.get(self._callee) if self._callee else None
        return None if whom is None else str(whom)

    def _as_may_be_called(self, hints: Sequence[Found]) -> list[Found]:
        """The first of these, where all are calls no more of a slot than may begin now."""
        if not self._calls_alone:
            return list(hints[:BATCH])
        room = self._pacer.room()
        taken: Counter[int] = Counter()
        mine: list[Found] = []
        for hint in hints:
            slot = hint["slot"]
            if taken[slot] < max(1, room.get(slot, _UNKNOWN_ROOM)):
                taken[slot] += 1
                mine.append(hint)
        return mine[:BATCH]
