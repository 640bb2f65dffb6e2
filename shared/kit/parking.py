"""Parked keys: a poison event and what follows it under the same key wait in one document, the partition goes on.

Only the reaction role appends and drains; an operator marks a key for replay, or discards an entry, which stays on
record. Draining is due work like any other.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from shared.kit.bus.envelope import CE_SEQUENCE, CE_TYPE
from shared.kit.bus.port import Record
from shared.kit.decisions import Due, Facts
from shared.kit.document import Attempt, Document, Part, derived_id
from shared.kit.errors import Conflict, NotFound
from shared.kit.jobs import Jobs, call
from shared.kit.store.port import Conditions, Found, Outcome, Store, Unstorable
from shared.kit.store.repository import Repository


class ParkedState(StrEnum):
    """Whether events wait under a key."""

    PARKED = "parked"
    REPLAYING = "replaying"
    CLEAR = "clear"


class ParkedRecord(Part):
    """A record as it came, why it waits, and since when. ``value`` may hold personal data and is never shown."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    reason: str
    at: datetime

    @property
    def place(self) -> str:
        """Where it stands in its topic."""
        return f"{self.topic}:{self.partition}:{self.offset}"

    def record(self) -> Record:
        """The record as it came."""
        headers = tuple((name, value) for name, value in self.headers)
        return Record(self.topic, self.partition, self.offset, self.key, self.value, headers)


class Discarded(Part):
    """A record that an operator gave up."""

    place: str
    reason: str
    by: str
    at: datetime


class Parked(Document):
    """The events that wait under one key of one consumer group; or one document's timer that keeps failing."""

    collection: ClassVar[str] = "parked"
    indexes: ClassVar[tuple[str, ...]] = ("group", "state")
    listings = (("group", "state"),)
    transitions: ClassVar = {
        ParkedState.PARKED: frozenset({ParkedState.REPLAYING, ParkedState.CLEAR}),
        ParkedState.REPLAYING: frozenset({ParkedState.PARKED, ParkedState.CLEAR}),
        ParkedState.CLEAR: frozenset({ParkedState.PARKED, ParkedState.REPLAYING}),
    }

    group: str
    key: str
    state: ParkedState = ParkedState.PARKED
    entries: list[ParkedRecord] = []
    discarded: list[Discarded] = []
    timer: str | None = None
    reason: str | None = None


_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

WAITS = "waits behind an earlier event"
"""Why a record is parked that is not poison itself."""


def parking_key(record: Record) -> str:
    """The key under which a record is parked: its Kafka key, as far as it is text."""
    return (record.key or b"").decode(errors="replace")


def shown_key(key: str) -> str:
    """A key as it may be shown: every document's id is a UUID; what else somebody keyed by may say who a person is."""
    return key if _ID.fullmatch(key) else "(not an id)"


def parked_id(group: str, key: str) -> str:
    """The id of the document that holds a key's parked events."""
    return derived_id("parked", group, key)


class Parking:
    """Appends to parked keys, and marks them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def parked(self, group: str, keys: Iterable[str]) -> set[str]:
        """Which of these keys have events waiting."""
        by_id = {parked_id(group, key): key for key in keys}
        found = await self._repository.store.load(Parked.collection, list(by_id))
        return {by_id[raw["_id"]] for raw in found if raw["state"] != ParkedState.CLEAR}

    async def any(self, group: str) -> bool:
        """Whether events wait under any key of a group."""
        store = self._repository.store
        return bool(await store.find(Parked.collection, waiting_in(group), limit=1, fields=("state",)))

    async def append(self, group: str, key: str, records: Sequence[tuple[Record, str]]) -> None:
        """Add records behind those that wait; a record that is there already is not added again.

        Where the last of those that waited went off meanwhile, or the poison among them was discarded before, nothing
        but order holds the records back: they are replayed by themselves.
        """
        now = self._repository.clock.now()

        def add(parked: Parked | None) -> Parked:
            document = parked or Parked(id=parked_id(group, key), group=group, key=key)
            known = {entry.place for entry in document.entries} | {entry.place for entry in document.discarded}
            for record, reason in records:
                entry = ParkedRecord(
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    reason=reason,
                    at=now,
                )
                if entry.place not in known:
                    document.entries.append(entry)
            if document.state is ParkedState.CLEAR and document.entries:
                if document.entries[0].reason == WAITS:
                    document.move(ParkedState.REPLAYING)
                    document.wake("replay", now)
                else:
                    document.move(ParkedState.PARKED)
            return document

        await self._change(parked_id(group, key), add)

    async def timer_failed(self, collection: str, id: str, timer: str, reason: str) -> None:
        """Make a document's timer that keeps failing visible to the operator."""
        group = f"timer:{collection}:{timer}"

        def add(parked: Parked | None) -> Parked:
            document = parked or Parked(id=parked_id(group, id), group=group, key=id, timer=timer)
            if document.state is not ParkedState.PARKED:
                document.move(ParkedState.PARKED)
            document.reason = reason
            return document

        await self._change(parked_id(group, id), add)

    async def replay(self, id: str) -> Parked:
        """Mark a key: the reaction role applies its events again, in order. Raises NotFound."""
        now = self._repository.clock.now()

        def mark(parked: Parked | None) -> Parked:
            document = _waiting(parked)
            if document.state is not ParkedState.REPLAYING:
                document.move(ParkedState.REPLAYING)
            document.wake("replay", now)
            return document

        return await self._change(id, mark)

    async def discard(self, id: str, by: str, place: str | None = None) -> Parked:
        """Give up the first event that waits under a key, on record; those behind it are applied.

        Raises NotFound, and Conflict where ``place`` is given and another event, or timer, stands first by now: so that
        who asks twice does not give up two.
        """
        now = self._repository.clock.now()

        def give_up(parked: Parked | None) -> Parked:
            document = _waiting(parked)
            if place is not None and place != first_place(document):
                raise Conflict("another event stands first under this key by now")
            if document.entries:
                first = document.entries.pop(0)
                document.discarded.append(Discarded(place=first.place, reason=first.reason, by=by, at=now))
            elif document.timer is not None:
                reason = document.reason or ""
                document.discarded.append(Discarded(place=document.timer, reason=reason, by=by, at=now))
                document.move(ParkedState.CLEAR)
                return document
            if document.state is not ParkedState.REPLAYING:
                document.move(ParkedState.REPLAYING)
            document.wake("replay", now)
            return document

        return await self._change(id, give_up)

    async def _change(self, id: str, change: Callable[[Parked | None], Parked]) -> Parked:
        """Change a parked document, whatever version it has by now."""
        while True:
            held = (await self._repository.load(Parked, [id]))[id]
            held.document = change(held.document)
            write = self._repository.stage(held)
            if write is None:
                return held.document
            outcome = (await self._repository.write(Parked, [(held, write)]))[0]
            if isinstance(outcome, Unstorable):
                raise outcome
            if outcome is Outcome.WON:
                return held.document


def first_place(parked: Parked) -> str | None:
    """Where what holds the others back stands: its place on its topic, or the name of a timer."""
    return parked.entries[0].place if parked.entries else parked.timer


@dataclass(frozen=True, slots=True)
class Which:
    """Which parked keys are meant; what is None does not matter.

    ``group`` is the consumer group or ``timer:collection:timer``; ``reason`` a part of the first event's; ``type`` its
    event type.
    """

    group: str | None = None
    reason: str | None = None
    type: str | None = None

    def __call__(self, raw: Found) -> bool:
        """Whether this stored key is meant."""
        told = summary(raw)
        return (self.reason is None or self.reason in (told["reason"] or "")) and self.type in (None, told["type"])


def waiting_in(group: str) -> Conditions:
    """What events that wait under a key of a group are found by."""
    return {"group": group, "state": {"$in": _WAITING}}


async def waiting(store: Store, which: Which, limit: int) -> list[Found]:
    """The parked keys that are meant, as they are stored, those that wait longest first."""
    asked = {"group": which.group} if which.group is not None else {"state": {"$in": _WAITING}}
    found: list[Found] = []
    behind: dict[str, Any] = {}
    while page := await store.find(Parked.collection, {**asked, **behind}, limit=_PAGE):
        found += [raw for raw in page if raw["state"] in _WAITING and which(raw)]
        if len(page) < _PAGE:
            break
        behind = {"_id": {"$gt": page[-1]["_id"]}}
    return sorted(found, key=lambda raw: (summary(raw)["since"] or "", raw["_id"]))[:limit]


_WAITING = [ParkedState.PARKED.value, ParkedState.REPLAYING.value]
_PAGE = 500


def summary(raw: Found) -> dict[str, Any]:
    """A stored key as an operator may see it: reasons and places, never what a record holds."""
    entries = raw["entries"]
    first = entries[0] if entries else None
    return {
        "id": raw["_id"],
        "group": raw["group"],
        "key": shown_key(raw["key"]),
        "state": raw["state"],
        "events": len(entries),
        "since": first["at"].isoformat() if first else None,
        "type": _header(first, CE_TYPE, _EVENT_TYPE) if first else None,
        "first": _place(first) if first else raw.get("timer"),
        "reason": first["reason"] if first else raw.get("reason"),
    }


def whole(raw: Found) -> dict[str, Any]:
    """The same with each event that waits, and each that was given up."""
    entries = [
        {
            "place": _place(entry),
            "type": _header(entry, CE_TYPE, _EVENT_TYPE),
            "sequence": _header(entry, CE_SEQUENCE, _NUMBER),
            "reason": entry["reason"],
            "at": entry["at"].isoformat(),
            "bytes": len(entry["value"] or b""),
        }
        for entry in raw["entries"]
    ]
    discarded = [{**each, "at": each["at"].isoformat()} for each in raw["discarded"]]
    return {**summary(raw), "entries": entries, "discarded": discarded}


def _place(entry: dict[str, Any]) -> str:
    return f"{entry['topic']}:{entry['partition']}:{entry['offset']}"


_EVENT_TYPE = re.compile(r"[a-z-]{1,40}\.[a-z-]{1,60}\.v[0-9]{1,4}")
_NUMBER = re.compile(r"[0-9]{1,18}")


def _header(entry: dict[str, Any], name: str, form: re.Pattern[str]) -> str | None:
    """A header that has the form which we give it: an unreadable record may say anything anywhere."""
    told = dict(entry["headers"]).get(name)
    found = None if told is None else told.decode(errors="replace")
    return found if found is None or form.fullmatch(found) else "(unreadable)"


def _waiting(parked: Parked | None) -> Parked:
    if parked is None or parked.state is ParkedState.CLEAR:
        raise NotFound("nothing is parked under this id")
    return parked


@dataclass(frozen=True, slots=True)
class Drained:
    """How far a replay came: the places that are done with, and where and why it stopped, if it did."""

    done: tuple[str, ...]
    stopped: str | None = None
    reason: str = ""


Replay = Callable[[str, Record], Awaitable[str | None]]
"""``(group, record) -> None or the reason why it still is poison``."""

Rewake = Callable[[str, str, str], Awaitable[None]]
"""``(collection, document id, timer)``: let a failing timer fire again."""


def draining(replay: Replay, rewake: Rewake) -> Jobs:
    """The job table by which the reaction role drains what an operator marked."""

    def begin(document: Parked, due: Due, facts: Facts, now: datetime) -> Parked:
        if document.state is ParkedState.REPLAYING:
            document.intend("replay", now)
        return document

    async def drain(document: Parked, attempt: Attempt, facts: Facts) -> Drained:
        if document.timer is not None:
            await rewake(document.group.split(":")[1], document.key, document.timer)
            return Drained(())
        done: list[str] = []
        for entry in document.entries:
            reason = await replay(document.group, entry.record())
            if reason is not None:
                return Drained(tuple(done), entry.place, reason)
            done.append(entry.place)
        return Drained(tuple(done))

    def drained(document: Parked, outcome: object, facts: Facts, now: datetime) -> Parked:
        if document.state is not ParkedState.REPLAYING:
            return document  # An operator gave the last entry up meanwhile.
        if not isinstance(outcome, Drained):
            document.wake("replay", now)
            return document
        document.entries = [entry for entry in document.entries if entry.place not in outcome.done]
        if document.entries and document.entries[0].place == outcome.stopped:
            document.entries[0].reason = outcome.reason
            document.move(ParkedState.PARKED)
        elif document.entries:
            # More came meanwhile; or what it stopped at was given up, and no longer holds the rest back.
            document.wake("replay", now)
        else:
            document.move(ParkedState.CLEAR)
        return document

    return Jobs(Parked, call("replay", prepare=begin, perform=drain, settle=drained, idempotent=True, concurrency=4))
