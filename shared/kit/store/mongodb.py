"""The store on MongoDB's protocol: PyMongo's async API by default, Motor where MONGODB_DRIVER=motor.

The only module of the system that imports a driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, InsertOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.write_concern import WriteConcern

from shared.kit.document import due_field, epoch_field
from shared.kit.store.commits import WORTH_IT, OneCommit, Update
from shared.kit.store.port import (
    EPOCH,
    MAX_DOCUMENT_BYTES,
    Conditions,
    Found,
    Index,
    Outcome,
    StoreUnavailable,
    Unstorable,
    Write,
    is_unset_when_none,
)

_DUPLICATE_KEY = 11000
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
_STAMPING = 0.25
"""Seconds after which no more is stamped at once: much less than a lease."""
_LITTLE = 2_000
"""So many documents are stamped by one update, where no more than these are due."""
_PAGE = 500
"""So many are stamped by one update, where more are, and at least twice as many for a look."""
_MANY = 20_000
"""So many are looked up to be stamped: a server may read all that is due in a slot for each such look."""
_MUCH_FOR = 300.0
"""Seconds for which it is taken as known that much is due."""

_JOURNALED = WriteConcern(w="majority", j=True)
_TAKEN = WriteConcern(w=1)
"""For what may be forgotten in a crash: an event that is still in its outbox then is published twice."""

Driver = Literal["pymongo", "motor"]


def encode(document: Mapping[str, Any]) -> bytes:
    """BSON of a document. Raises Unstorable, without its values, where it cannot be encoded or is too large."""
    try:
        raw = bson.encode(document)
    except (BSONError, OverflowError, TypeError, ValueError) as error:
        raise Unstorable(f"cannot be encoded ({type(error).__name__})") from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise Unstorable(f"is larger than {MAX_DOCUMENT_BYTES} bytes")
    return raw


def decode(raw: bytes) -> Found:
    """The document in a BSON text, times in UTC."""
    return bson.decode(raw, codec_options=_CODEC)


def _client(uri: str, driver: Driver, timeout: float) -> Any:
    """A client of the chosen driver; both have the same methods, so the rest of this module does not care."""
    options: dict[str, Any] = {
        "tz_aware": True,
        "serverSelectionTimeoutMS": int(timeout * 1000),
        "connectTimeoutMS": int(timeout * 1000),
        "socketTimeoutMS": int(timeout * 4000),
        "retryWrites": False,
    }
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return AsyncIOMotorClient(uri, **options)
    return AsyncMongoClient(uri, **options)


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(type(error).__name__) from error


class MongoStore:
    """A database of one service on MongoDB's protocol."""

    def __init__(self, uri: str, database: str, *, driver: Driver = "pymongo", timeout: float = 5.0) -> None:
        self._motor = driver == "motor"
        self._client = _client(uri, driver, timeout)
        self._database = self._client.get_database(database, write_concern=_JOURNALED)
        self._one_commit = OneCommit(self._client, _JOURNALED, wanted=not self._motor)
        self._much_until: dict[tuple[str, str], float] = {}
        """By collection and field that says when: until when it is known that much is due."""

    def _collection(self, name: str) -> Any:
        return self._database[name]

    async def ensure(self, collection: str, indexes: Sequence[Index]) -> None:
        """Create the collection's indexes where they are missing."""
        async with _answering():
            for index in indexes:
                # Sparse, not partial: the embedded server's planner passes a partial index by (20,000 documents: 830 ms
                # by collection scan, 2 ms by a sparse index), and MongoDB uses either for a range.
                options = {"sparse": True} if index.sparse else {}
                await self._collection(collection).create_index([(name, 1) for name in index.fields], **options)

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        """The documents with these ids, in no order; absent ones are left out."""
        if not ids:
            return []
        async with _answering():
            cursor = self._collection(collection).find({"_id": {"$in": list(ids)}})
            return await self._all(cursor)

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
        projection = None if fields is None else dict.fromkeys(("_id", *fields), 1)
        async with _answering():
            cursor = self._collection(collection).find(dict(conditions), projection).sort(sort, 1).limit(limit)
            return await self._all(cursor)

    async def plan(self, collection: str, conditions: Conditions, *, sort: str, limit: int) -> Mapping[str, Any]:
        """The server's winning plan of a query, for the tests that watch over plans."""
        async with _answering():
            cursor = self._collection(collection).find(dict(conditions)).sort(sort, 1).limit(limit)
            explained = await cursor.explain()
            plan: Mapping[str, Any] = explained["queryPlanner"]["winningPlan"]
            return plan

    async def count(self, collection: str, conditions: Conditions) -> int:
        """How many documents meet the conditions."""
        async with _answering():
            return int(await self._collection(collection).count_documents(dict(conditions)))

    async def write(self, collection: str, writes: Sequence[Write]) -> list[Outcome | Unstorable]:
        """Do all writes in one bulk; each wins, loses, or cannot be stored.

        Updates upsert on (id, version): a server reports totals of a bulk write, not its losers, but a loser's upsert
        is refused with a duplicate key, which it does report. Documents are never deleted, so no upsert inserts.
        """
        outcomes: list[Outcome | Unstorable] = [Outcome.WON] * len(writes)
        operations: dict[int, InsertOne[Any] | Update] = {}
        for place, write in enumerate(writes):
            try:
                operations[place] = _operation(write)
            except Unstorable as refusal:
                outcomes[place] = refusal
        if not operations:
            return outcomes
        async with _answering():
            updates = {place: each for place, each in operations.items() if isinstance(each, tuple)}
            lost = await self._one_commit.lands(self._collection(collection), list(updates.values()))
            if lost is not None:
                for place in updates:
                    del operations[place]
                    if writes[place].id in lost:
                        outcomes[place] = Outcome.LOST
            await self._bulk(collection, operations, outcomes)
        return outcomes

    async def _bulk(
        self,
        collection: str,
        operations: Mapping[int, InsertOne[Any] | Update],
        outcomes: list[Outcome | Unstorable],
    ) -> None:
        """Do these in one bulk, and note at their places which lost or were refused."""
        if not operations:
            return
        bulk = [UpdateOne(*each, upsert=True) if isinstance(each, tuple) else each for each in operations.values()]
        places = list(operations)
        try:
            await self._collection(collection).bulk_write(bulk, ordered=False)
        except BulkWriteError as error:
            for failure in error.details.get("writeErrors", ()):
                place = places[failure["index"]]
                if failure["code"] == _DUPLICATE_KEY:
                    outcomes[place] = Outcome.LOST
                else:
                    outcomes[place] = Unstorable(f"was refused by the store (code {failure['code']})")
            if error.details.get("writeConcernErrors"):
                raise StoreUnavailable("WriteConcernError") from error

    async def sent(self, collection: str, published: Sequence[tuple[str, int]]) -> None:
        """Take published events out of the outboxes.

        Where the document has recorded nothing since, its whole outbox is done with; only a document that has moved on
        meanwhile needs the second, finer update.
        """
        if not published:
            return
        async with _answering():
            if await self._emptied(collection, published) == len(published):
                return
            upto_of = dict(published)
            wanted = {"_id": {"$in": list(upto_of)}}
            cursor = self._collection(collection).find(wanted, {"outbox.sequence": 1})
            pulls: list[Update] = [
                ({"_id": raw["_id"]}, {"$pull": {"outbox": {"sequence": {"$lte": upto_of[raw["_id"]]}}}})
                for raw in await self._all(cursor)
                if any(entry["sequence"] <= upto_of[raw["_id"]] for entry in raw.get("outbox", ()))
            ]
            if pulls and await self._one_commit.lands(self._collection(collection), pulls) is None:
                taken = self._collection(collection).with_options(write_concern=_TAKEN)
                await taken.bulk_write([UpdateOne(*pull) for pull in pulls], ordered=False)

    async def _emptied(self, collection: str, published: Sequence[tuple[str, int]]) -> int:
        """Empty the outboxes of the documents that have recorded nothing since; how many these are."""
        empty = {"$set": {"outbox": []}, "$unset": {"unsent": ""}}
        if len(published) < WORTH_IT:
            taken = self._collection(collection).with_options(write_concern=_TAKEN)
            each = [UpdateOne({"_id": id, "sequence": upto}, empty) for id, upto in published]
            async with self._one_commit.turn(taken):
                return int((await taken.bulk_write(each, ordered=False)).matched_count)
        at: dict[int, list[str]] = {}
        for id, upto in published:
            at.setdefault(upto, []).append(id)
        whole = [UpdateMany({"_id": {"$in": ids}, "sequence": upto}, empty) for upto, ids in at.items()]
        return await self._many(collection, whole, _TAKEN)

    async def _many(self, collection: str, updates: Sequence[UpdateMany], concern: WriteConcern) -> int:
        """Do these updates of many documents; how many they found."""
        chosen = self._collection(collection).with_options(write_concern=concern)
        found = await self._one_commit.many(chosen, updates, concern)
        if found is None:
            found = int((await chosen.bulk_write(list(updates), ordered=False)).matched_count)
        return found

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime, queue: str = "") -> set[int]:
        """Raise the queue's epoch of each slot's documents that are due in it until ``until``; which slots are done.

        One update an epoch where little is due at all: a worker that takes many slots at once mostly finds them at few
        epochs. Else slot by slot and page by page: a lease would be over before hundreds of thousands in one.
        """
        if not slots:
            return set()
        due, stamped = due_field(queue), epoch_field(queue)
        time = {due: {"$gte": EPOCH, "$lte": until}}
        if await self._little_is(collection, due, time):
            by_epoch: dict[int, list[int]] = {}
            for slot, epoch in sorted(slots.items()):
                by_epoch.setdefault(epoch, []).append(slot)
            for epoch, some in by_epoch.items():
                wanted = {**time, "slot": {"$in": some}, stamped: {"$lt": epoch}}
                await self._raise(collection, [(wanted, epoch)], queue)
            return set(slots)
        done = set[int]()
        end = asyncio.get_running_loop().time() + _STAMPING
        for slot, epoch in slots.items():
            if done and asyncio.get_running_loop().time() >= end:
                break
            left = {"slot": slot, **time, stamped: {"$lt": epoch}}
            if not await self._stamp_slot(collection, left, epoch, queue, end):
                break
            done.add(slot)
        return done

    async def _little_is(self, collection: str, due: str, time: Conditions) -> bool:
        """Whether little is due at all; where much was, it is not asked again at once: some servers read all of it."""
        now = asyncio.get_running_loop().time()
        if now < self._much_until.get((collection, due), now):
            return False
        little = len(await self.find(collection, time, sort=due, limit=_LITTLE, fields=())) < _LITTLE
        if not little:
            self._much_until[collection, due] = now + _MUCH_FOR
        return little

    async def _stamp_slot(self, collection: str, left: Conditions, epoch: int, queue: str, end: float) -> bool:
        """Raise the epoch of what is left of a slot, page by page, until a time; whether nothing is left."""
        not_ahead = {epoch_field(queue): {"$lt": epoch}}
        while True:
            found = await self.find(collection, left, sort=due_field(queue), limit=_MANY, fields=())
            ids = [each["_id"] for each in found]
            for begin in range(0, len(ids), _PAGE):
                page = ids[begin : begin + _PAGE]
                await self._raise(collection, [({"_id": {"$in": page}, **not_ahead}, epoch)], queue)
                over = asyncio.get_running_loop().time() >= end
                if over and begin >= _PAGE:  # Not before two pages: a long look would be nearly all it did.
                    return begin + _PAGE >= len(ids) and len(ids) < _MANY
            if len(ids) < _MANY:
                return True

    async def stamp_documents(self, collection: str, epochs: Mapping[str, int], queue: str = "") -> None:
        """Raise the queue's epoch of these documents, by id, to what is given."""
        by_epoch: dict[int, list[str]] = {}
        for id, epoch in sorted(epochs.items()):
            by_epoch.setdefault(epoch, []).append(id)
        stamped = epoch_field(queue)
        wanted = [({"_id": {"$in": ids}, stamped: {"$lt": epoch}}, epoch) for epoch, ids in by_epoch.items()]
        if wanted:
            await self._raise(collection, wanted, queue)

    async def _raise(self, collection: str, wanted: Sequence[tuple[Conditions, int]], queue: str) -> None:
        """Raise the epochs of what meets these conditions, in one bulk."""
        updates = [UpdateMany(dict(some), {"$set": {epoch_field(queue): epoch}}) for some, epoch in wanted]
        async with _answering():
            await self._many(collection, updates, _JOURNALED)

    async def append(self, collection: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add entries that are never changed."""
        if not entries:
            return
        async with _answering():
            await self._collection(collection).insert_many([dict(entry) for entry in entries])

    async def ping(self) -> None:
        """Return if the store answers."""
        async with _answering():
            await self._client.admin.command("ping")

    async def close(self) -> None:
        """Let go of the connection."""
        closing = self._client.close()
        if closing is not None:
            await closing

    async def _all(self, cursor: Any) -> list[Found]:
        found: list[Found] = await (cursor.to_list(length=None) if self._motor else cursor.to_list())
        return found


def _operation(write: Write) -> InsertOne[Any] | Update:
    """What a bulk does for a write. Encodes once here, where a failure concerns only this document."""
    if write.expected is None:
        return InsertOne(RawBSONDocument(encode({"_id": write.id, **write.set, "outbox": list(write.push)})))
    matched: dict[str, Any] = {"_id": write.id, "version": write.expected}
    if write.epoch is not None:
        matched[epoch_field(write.queue)] = {"$lte": write.epoch}
    change: dict[str, Any] = {}
    unset = {name: "" for name, value in write.set.items() if value is None and is_unset_when_none(name)}
    unset |= dict.fromkeys(write.drop, "")
    change["$set"] = RawBSONDocument(encode({k: v for k, v in write.set.items() if k not in unset}))
    if unset:
        change["$unset"] = unset
    if write.push:
        change["$push"] = {"outbox": {"$each": [RawBSONDocument(encode(entry)) for entry in write.push]}}
    return matched, change
