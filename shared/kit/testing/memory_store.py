"""The store in memory: the real one's promises, kept by the same suite, fast enough for thousands of simulations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from shared.kit.document import SLOTS, due_field, epoch_field
from shared.kit.store.mongodb import decode, encode
from shared.kit.store.port import Conditions, Found, Index, Outcome, Unstorable, Write, is_unset_when_none

Gate = Callable[[str], Awaitable[None]]
"""Called before and after each operation with its name; a simulation schedules, delays, fails or crashes there."""


async def _open(_: str) -> None:
    return None


class Collection:
    """Documents as BSON texts by id, and beside them the fields that are indexed."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}
        self.heads: dict[str, Found] = {}
        self.indexed: set[str] = {"_id"}
        self.timed: dict[str, dict[str, datetime]] = {"due": {}, "unsent": {}}
        self._earliest: dict[str, datetime | None] = {}

    def index(self, fields: Sequence[str]) -> None:
        """Keep these fields at hand."""
        for field in fields:
            if field.startswith("due_"):
                self.timed.setdefault(field, {})
        if not self.indexed.issuperset(fields):
            self.indexed.update(fields)
            self.heads = {id: self._head(decode(text)) for id, text in self.texts.items()}

    def put(self, document: Mapping[str, Any]) -> None:
        """Store a document. Raises Unstorable."""
        text = encode(document)
        self.texts[document["_id"]] = text
        self.heads[document["_id"]] = self._head(document)
        self._earliest.clear()
        for field, times in self.timed.items():
            if field in document:
                times[document["_id"]] = document[field]
            else:
                times.pop(document["_id"], None)

    def earliest(self, field: str) -> datetime | None:
        """The first ``due`` or ``unsent`` of any document."""
        if field not in self._earliest:
            self._earliest[field] = min(self.timed[field].values(), default=None)
        return self._earliest[field]

    def get(self, id: str) -> Found:
        """A copy of a document."""
        return decode(self.texts[id])

    def _head(self, document: Mapping[str, Any]) -> Found:
        return {name: document[name] for name in self.indexed if name in document}


class MemoryStore:
    """A database in memory. What is read back is a copy, as from a server.

    ``slots_at_once`` bounds how many slots one stamping gets through, as a server's time does where much is due.
    """

    def __init__(
        self, collections: dict[str, Collection] | None = None, *, gate: Gate = _open, slots_at_once: int = SLOTS
    ) -> None:
        self.collections = {} if collections is None else collections
        self._gate = gate
        self._slots_at_once = slots_at_once

    def seen_by(self, gate: Gate) -> MemoryStore:
        """Another client's view of the same server, with a gate of its own."""
        return MemoryStore(self.collections, gate=gate, slots_at_once=self._slots_at_once)

    def unsent(self) -> bool:
        """Whether any document has events to publish, read past every gate; for whoever drives a simulation."""
        return any(collection.timed["unsent"] for collection in self.collections.values())

    def dues(self) -> dict[tuple[str, str], datetime]:
        """When something is due first, by collection and the field of its due queue, read past every gate."""
        return {
            (name, field): first
            for name, collection in self.collections.items()
            for field in collection.timed
            if field != "unsent" and (first := collection.earliest(field)) is not None
        }

    def _of(self, collection: str) -> Collection:
        found = self.collections.get(collection)
        if found is None:
            found = self.collections[collection] = Collection()
        return found

    async def ensure(self, collection: str, indexes: Sequence[Index]) -> None:
        """Keep the indexed fields at hand."""
        self._of(collection).index([name for index in indexes for name in index.fields])

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        """The documents with these ids."""
        await self._gate("store.load")
        stored = self._of(collection)
        return [stored.get(id) for id in dict.fromkeys(ids) if id in stored.texts]

    async def find(
        self,
        collection: str,
        conditions: Conditions,
        *,
        sort: str = "_id",
        limit: int = 1000,
        fields: Sequence[str] | None = None,
    ) -> list[Found]:
        """Documents that meet the conditions, ascending by ``sort``."""
        await self._gate("store.find")
        stored = self._of(collection)
        indexed = stored.indexed.issuperset({*conditions, sort})
        source = stored.heads.values() if indexed else [decode(text) for text in stored.texts.values()]
        found = [document for document in source if meets(document, conditions)]
        found.sort(key=lambda document: (document.get(sort) is not None, document.get(sort), document["_id"]))
        found = found[:limit]
        if fields is None:
            return [stored.get(document["_id"]) for document in found]
        kept = ("_id", *fields)
        if not stored.indexed.issuperset(kept):
            found = [stored.get(document["_id"]) for document in found]
        return [{name: document[name] for name in kept if name in document} for document in found]

    async def count(self, collection: str, conditions: Conditions) -> int:
        """How many documents meet the conditions."""
        return len(await self.find(collection, conditions, limit=1_000_000_000, fields=()))

    async def write(self, collection: str, writes: Sequence[Write]) -> list[Outcome | Unstorable]:
        """Do all writes; each wins, loses, or cannot be stored."""
        await self._gate("store.write")
        stored = self._of(collection)
        outcomes = [self._write_one(stored, write) for write in writes]
        await self._gate("store.written")
        return outcomes

    def _write_one(self, stored: Collection, write: Write) -> Outcome | Unstorable:
        try:
            return self._insert(stored, write) if write.expected is None else self._update(stored, write)
        except Unstorable as refusal:
            return refusal

    def _update(self, stored: Collection, write: Write) -> Outcome:
        encode(write.set)
        encode({"push": list(write.push)})
        if write.id not in stored.texts:
            return Outcome.LOST
        document = stored.get(write.id)
        if document["version"] != write.expected:
            return Outcome.LOST
        if write.epoch is not None and document[epoch_field(write.queue)] > write.epoch:
            return Outcome.LOST
        document.update(write.set)
        for name in [name for name, value in document.items() if value is None and is_unset_when_none(name)]:
            del document[name]
        for name in write.drop:
            document.pop(name, None)
        document["outbox"] = [*document["outbox"], *write.push]
        stored.put(document)
        return Outcome.WON

    def _insert(self, stored: Collection, write: Write) -> Outcome:
        document = {"_id": write.id, **write.set, "outbox": list(write.push)}
        encode(document)
        if write.id in stored.texts:
            return Outcome.LOST
        stored.put(document)
        return Outcome.WON

    async def sent(self, collection: str, published: Sequence[tuple[str, int]]) -> None:
        """Take published events out of the outboxes."""
        await self._gate("store.sent")
        stored = self._of(collection)
        for id, upto in published:
            if id not in stored.texts:
                continue
            document = stored.get(id)
            document["outbox"] = [entry for entry in document["outbox"] if entry["sequence"] > upto]
            if not document["outbox"] and document["sequence"] == upto:
                document.pop("unsent", None)
            stored.put(document)

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime, queue: str = "") -> set[int]:
        """Raise the queue's epoch of each slot's documents that are due in it until ``until``; which slots are done."""
        await self._gate("store.stamp")
        slots = dict(list(slots.items())[: self._slots_at_once])
        stored = self._of(collection)
        stamped = epoch_field(queue)
        for id, head in list(stored.heads.items()):
            due = head.get(due_field(queue))
            if due is None or due > until or head["slot"] not in slots:
                continue
            document = stored.get(id)
            if document[stamped] < slots[document["slot"]]:
                document[stamped] = slots[document["slot"]]
                stored.put(document)
        return set(slots)

    async def stamp_documents(self, collection: str, epochs: Mapping[str, int], queue: str = "") -> None:
        """Raise the queue's epoch of these documents, by id, to what is given."""
        await self._gate("store.stamp")
        stored = self._of(collection)
        stamped = epoch_field(queue)
        for id, epoch in epochs.items():
            if id in stored.texts and (document := stored.get(id))[stamped] < epoch:
                document[stamped] = epoch
                stored.put(document)

    async def append(self, collection: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add entries that are never changed."""
        await self._gate("store.append")
        stored = self._of(collection)
        for entry in entries:
            stored.put({"_id": f"{len(stored.texts):09d}", **entry})

    async def ping(self) -> None:
        """Return if the store answers."""
        await self._gate("store.ping")

    async def close(self) -> None:
        """Nothing to let go of."""


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$in": lambda value, wanted: any(w in value if isinstance(value, list) else w == value for w in wanted),
    "$ne": lambda value, wanted: bool(value != wanted),
    "$gt": lambda value, wanted: value is not None and value > wanted,
    "$gte": lambda value, wanted: value is not None and value >= wanted,
    "$lt": lambda value, wanted: value is not None and value < wanted,
    "$lte": lambda value, wanted: value is not None and value <= wanted,
}


def meets(document: Mapping[str, Any], conditions: Conditions) -> bool:
    """Whether a document meets the conditions, as MongoDB would say; a list field meets what an element meets."""
    for name, wanted in conditions.items():
        value = document.get(name)
        if not isinstance(wanted, Mapping):
            if not (value == wanted or (isinstance(value, list) and wanted in value)):
                return False
            continue
        for operator, operand in wanted.items():
            if operator == "$exists":
                if (name in document) != operand:
                    return False
            elif not _OPERATORS[operator](value, operand):
                return False
    return True
