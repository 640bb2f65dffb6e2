"""A bulk of conditional updates as one commit, on a server that would commit, and sync, each of them by itself.

``mongod`` groups the commits of a bulk; SecantusDB's compiled server does not (measured: 560 us an update by itself,
140 in a transaction). It also takes twice as long to find a document by its id and more as by its id alone (115 us an
update against 65), so a transaction reads what its updates hang on, of all documents at once, and then updates by id:
what it read holds until it commits, or the server refuses it for the conflict.

By itself, an update of many documents waits on that server for one that a transaction holds, and lets nobody write to
the collection meanwhile, that transaction included: both wait for ever. So such an update is a transaction too, which
is refused where it would have to wait, and tried again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

Update = tuple[dict[str, Any], Mapping[str, Any]]
"""What an update matches, one document by ``_id`` and more, and what it changes."""

WORTH_IT = 4
"""Fewer updates are as fast by themselves as with the round trip of a commit."""

_TRIES = 8
_FIRST_PAUSE = 0.005
"""An update of many documents is tried so often, after a pause in seconds that doubles."""

_LIFETIME = 2
"""Seconds after which the server takes back a transaction whose client says nothing more: a process that was frozen in
the middle of one holds its documents until then, and those who wait for them wait no longer."""

_ASKED_EVERY = 30.0
"""Seconds after which the server is asked, and told, again: it may have been started anew, or be another."""


class OneCommit:
    """How bulks are committed on the server of ``client``."""

    def __init__(self, client: Any, concern: WriteConcern, *, wanted: bool = True) -> None:
        """``wanted`` False where the driver's sessions are not asked for."""
        self._client = client
        self._concern = concern
        self._possible = wanted
        self._wanted = False
        self._asked_at = float("-inf")
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By collection, whose turn it is in this process: two of ours need not refuse each other."""

    async def lands(self, collection: Any, updates: Sequence[Update]) -> set[str] | None:
        """The ids whose updates lost, once all others were done, in one commit.

        Between its one write and its commit a transaction says nothing else: whoever waits for a document of it holds
        the server's lock on the collection meanwhile, and would wait for ever for one that waits for that lock.

        None where nothing was done: it is not for here, or somebody else changed one of the documents meanwhile.
        Raises PyMongoError where the server does not answer: what was asked may or may not have happened.
        """
        if not self._possible or len(updates) < WORTH_IT or not await self._is_wanted():
            return None
        # In one order everywhere: two bulks that each wait for a document of the other's would wait for ever.
        ordered = sorted(updates, key=lambda update: str(update[0]["_id"]))
        if len({where["_id"] for where, _ in ordered}) < len(ordered):
            return None  # Of two updates of one document, the second hangs on the first.
        async with self._turns[collection.name], self._client.start_session() as session:
            await session.start_transaction(write_concern=self._concern)
            try:
                lost = await _losers(collection, ordered, session)
                writes = [
                    UpdateOne({"_id": where["_id"]}, change) for where, change in ordered if where["_id"] not in lost
                ]
                if writes:
                    await collection.bulk_write(writes, ordered=False, session=session)
            except (BulkWriteError, OperationFailure):
                await _taken_back(session)
                return None
            try:
                await session.commit_transaction()
            except OperationFailure as refusal:
                if refusal.has_error_label("UnknownTransactionCommitResult"):
                    raise
                return None
        return lost

    def turn(self, collection: Any) -> asyncio.Lock:
        """To be held around a write beside bulks of this process, which the server would else refuse for it."""
        return self._turns[collection.name]

    async def many(self, collection: Any, updates: Sequence[UpdateMany], concern: WriteConcern) -> int | None:
        """How many documents these updates of many found, once they were done in one commit; None: it is not for here.

        Raises PyMongoError where the server does not answer, or others kept changing the same documents.
        """
        if not self._possible or not await self._is_wanted():
            return None
        pause = _FIRST_PAUSE
        for left in reversed(range(_TRIES)):
            try:
                async with self._turns[collection.name], self._client.start_session() as session:
                    await session.start_transaction(write_concern=concern)
                    done = await collection.bulk_write(list(updates), ordered=False, session=session)
                    await session.commit_transaction()
                    return int(done.matched_count)
            except (BulkWriteError, OperationFailure):
                if not left:
                    raise
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    async def _is_wanted(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= _ASKED_EVERY:
            self._wanted = await self._bounded()
            self._asked_at = now
        return self._wanted

    async def _bounded(self) -> bool:
        """Whether it is such a server, and one that lets the life of a transaction be bounded."""
        admin = self._client.admin
        if "secantusVersion" not in await admin.command("buildInfo"):
            return False
        try:
            await admin.command("setParameter", 1, transactionLifetimeLimitSeconds=_LIFETIME)
        except OperationFailure:
            return False
        return True


async def _losers(collection: Any, updates: Sequence[Update], session: Any) -> set[str]:
    """The ids of documents that are not, or no longer, as their updates ask."""
    fields = {name: 1 for where, _ in updates for name in where}
    wanted = {"_id": {"$in": [where["_id"] for where, _ in updates]}}
    found = {raw["_id"]: raw for raw in await collection.find(wanted, fields, session=session).to_list()}
    return {where["_id"] for where, _ in updates if not _meets(found.get(where["_id"]), where)}


def _meets(found: Mapping[str, Any] | None, where: Mapping[str, Any]) -> bool:
    """Whether a document is as an update asks: each field equal, or at most so much."""
    if found is None:
        return False
    for name, wanted in where.items():
        if name not in found:
            return False
        if isinstance(wanted, Mapping):
            if set(wanted) != {"$lte"}:
                raise ValueError(f"a conditional update asks {sorted(wanted)} of {name}: only $lte is known here")
            if not found[name] <= wanted["$lte"]:
                return False
        elif found[name] != wanted:
            return False
    return True


async def _taken_back(session: Any) -> None:
    try:
        await session.abort_transaction()
    except ConnectionFailure:
        raise
    except PyMongoError:
        return
