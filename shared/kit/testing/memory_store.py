"""The store in memory: the real one's promises, kept by the same suite, fast enough for thousands of simulations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from shared.kit.store.mongodb import decode, encode
from shared.kit.store.port import Conditions, Found, Index, Outcome, Unstorable, Write

Gate = Callable[[str], Awaitable[None]]
"""Called before and after each operation with its name; a simulation schedules, delays, fails or crashes there."""


async def _open(_: str) -> None:
    return None


class MemoryStore:
    """Collections of BSON texts by id. What is read back is a copy, as from a server."""

    def __init__(self, collections: dict[str, dict[str, bytes]] | None = None, *, gate: Gate = _open) -> None:
        self.collections = {} if collections is None else collections
        self._gate = gate

    def seen_by(self, gate: Gate) -> MemoryStore:
        """Another client's view of the same server, with a gate of its own."""
        return MemoryStore(self.collections, gate=gate)

    async def ensure(self, collection: str, indexes: Sequence[Index]) -> None:
        """Nothing to do: every query reads all."""
        self.collections.setdefault(collection, {})

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        """The documents with these ids."""
        await self._gate("store.load")
        stored = self.collections.setdefault(collection, {})
        return [decode(stored[id]) for id in dict.fromkeys(ids) if id in stored]

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
        found = [
            document
            for raw in self.collections.setdefault(collection, {}).values()
            if meets(document := decode(raw), conditions)
        ]
        found.sort(key=lambda document: (document.get(sort) is not None, document.get(sort), document["_id"]))
        if fields is not None:
            kept = ("_id", *fields)
            found = [{name: document[name] for name in kept if name in document} for document in found]
        return found[:limit]

    async def count(self, collection: str, conditions: Conditions) -> int:
        """How many documents meet the conditions."""
        return len(await self.find(collection, conditions, limit=1_000_000_000, fields=()))

    async def write(self, collection: str, writes: Sequence[Write]) -> list[Outcome | Unstorable]:
        """Do all writes; each wins, loses, or cannot be stored."""
        await self._gate("store.write")
        stored = self.collections.setdefault(collection, {})
        outcomes = [self._write_one(stored, write) for write in writes]
        await self._gate("store.written")
        return outcomes

    def _write_one(self, stored: dict[str, bytes], write: Write) -> Outcome | Unstorable:
        try:
            if write.expected is None:
                raw = encode({"_id": write.id, **write.set, "outbox": list(write.push)})
            else:
                encode(write.set)
                encode({"push": list(write.push)})
        except Unstorable as refusal:
            return refusal
        if write.expected is None:
            if write.id in stored:
                return Outcome.LOST
            stored[write.id] = raw
            return Outcome.WON
        if write.id not in stored:
            return Outcome.LOST
        document = decode(stored[write.id])
        if document["version"] != write.expected:
            return Outcome.LOST
        if write.epoch is not None and document["epoch"] > write.epoch:
            return Outcome.LOST
        document.update(write.set)
        for name in ("unsent", "due"):
            if name in document and document[name] is None:
                del document[name]
        document["outbox"] = [*document["outbox"], *write.push]
        stored[write.id] = encode(document)
        return Outcome.WON

    async def sent(self, collection: str, published: Sequence[tuple[str, int]]) -> None:
        """Take published events out of the outboxes."""
        await self._gate("store.sent")
        stored = self.collections.setdefault(collection, {})
        for id, upto in published:
            if id not in stored:
                continue
            document = decode(stored[id])
            document["outbox"] = [entry for entry in document["outbox"] if entry["sequence"] > upto]
            if not document["outbox"] and document["sequence"] == upto:
                document.pop("unsent", None)
            stored[id] = encode(document)

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime) -> None:
        """Raise the epoch of each slot's documents that are due until ``until``."""
        await self._gate("store.stamp")
        stored = self.collections.setdefault(collection, {})
        for id, raw in stored.items():
            document = decode(raw)
            epoch = slots.get(document.get("slot", -1))
            due = document.get("due")
            if epoch is not None and due is not None and due <= until and document["epoch"] < epoch:
                document["epoch"] = epoch
                stored[id] = encode(document)

    async def append(self, collection: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add entries that are never changed."""
        await self._gate("store.append")
        stored = self.collections.setdefault(collection, {})
        for entry in entries:
            stored[f"{len(stored):09d}"] = encode({"_id": f"{len(stored):09d}", **entry})

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
