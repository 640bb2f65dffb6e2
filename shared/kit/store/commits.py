"""A bulk of conditional updates as one commit, on a server that would commit, and sync, each of them by itself.

``mongod`` groups the commits of a bulk; SecantusDB's compiled server does not (measured: 560 us an update by itself,
140 in a transaction). A transaction is taken back, and the bulk done without it, as soon as one update finds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

Update = tuple[dict[str, Any], Mapping[str, Any]]
"""What an update matches, one document by ``_id`` and more, and what it changes."""

_WORTH_IT = 4
"""Fewer updates are as fast by themselves as with the round trip of a commit."""

_LIFETIME = 2
"""Seconds after which the server takes back a transaction whose client says nothing more: a process that was frozen in
the middle of one holds its documents until then, and those who wait for them wait no longer."""

_ASKED_EVERY = 30.0
"""Seconds after which the server is asked, and told, again: it may have been started anew, or be another."""


class OneCommit:
    """How bulks are committed on the server of ``client``."""

    def __init__(self, client: Any, concern: WriteConcern) -> None:
        self._client = client
        self._concern = concern
        self._wanted = False
        self._asked_at = float("-inf")

    async def lands(self, collection: Any, inserts: Sequence[InsertOne[Any]], updates: Sequence[Update]) -> bool:
        """Whether all of these were done, in one commit. If not, nothing was: one of them lost, or it is not for here.

        Raises PyMongoError where the server does not answer: what was asked may or may not have happened.
        """
        if len(updates) < _WORTH_IT or not await self._is_wanted():
            return False
        # In one order everywhere: two bulks that each wait for a document of the other's would wait for ever.
        ordered = [UpdateOne(*update) for update in sorted(updates, key=lambda update: str(update[0]["_id"]))]
        async with self._client.start_session() as session:
            await session.start_transaction(write_concern=self._concern)
            try:
                done = await collection.bulk_write([*ordered, *inserts], ordered=False, session=session)
            except (BulkWriteError, OperationFailure):
                await _taken_back(session)
                return False
            if done.matched_count < len(ordered):
                await _taken_back(session)
                return False
            try:
                await session.commit_transaction()
            except OperationFailure as refusal:
                if refusal.has_error_label("UnknownTransactionCommitResult"):
                    raise
                return False
        return True

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


async def _taken_back(session: Any) -> None:
    try:
        await session.abort_transaction()
    except ConnectionFailure:
        raise
    except PyMongoError:
        return
