"""Ended documents shrink: after their time nothing of them is kept but id, version, sequence, marks and state.

They are never deleted: a replayed event would else make them anew.
"""

from __future__ import annotations

from datetime import datetime

from shared.kit.document import Document, is_kits
from shared.kit.store.port import EPOCH, Outcome, Store, Write
from shared.kit.store.repository import REMAINS

BATCH = 200


async def shrink(store: Store, document: type[Document], before: datetime) -> int:
    """Shrink the documents of a type that ended before a time (UTC) and have published all; returns how many.

    A document that changes meanwhile is left for the next time.
    """
    if not document.terminal:
        return 0
    shrunk = 0
    ended = {"ended_at": {"$gte": EPOCH, "$lt": before}, "shrunk": False}
    while True:
        found = await store.find(document.collection, ended, sort="ended_at", limit=BATCH)
        writes = [
            Write(
                raw["_id"],
                raw["version"],
                {"version": raw["version"] + 1, "shrunk": True},
                drop=[name for name in raw if not is_kits(name) and name not in REMAINS],
            )
            for raw in found
            if not raw["outbox"]
        ]
        outcomes = await store.write(document.collection, writes) if writes else []
        won = sum(outcome is Outcome.WON for outcome in outcomes)
        shrunk += won
        if not won:
            return shrunk
