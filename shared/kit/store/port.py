"""What the kit asks of a store. Every adapter passes the suite in ``shared.kit.testing.store_suite``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Protocol

Found = dict[str, Any]
"""A stored document as the store gives it back: plain values, ``_id`` among them."""

Conditions = Mapping[str, Any]
"""A MongoDB filter of top-level fields: equality, $in, $ne, $gt, $gte, $lt, $lte and $exists."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The lower bound that every range over a time has: without it plans read the whole index (measured)."""

MAX_DOCUMENT_BYTES = 15 * 1024 * 1024
"""Under MongoDB's 16 MiB, with room for the fields that an update adds."""


class StoreUnavailable(Exception):
    """The store did not answer, or not in time: what was asked may or may not have happened."""


class Unstorable(Exception):
    """A document that cannot be encoded, or is too large; says why without showing it."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index over ``fields``; ``sparse`` covers only documents that hold the (single) field."""

    fields: tuple[str, ...]
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional write of one document.

    ``expected`` None inserts ``set`` with ``push`` as its outbox. Else ``set`` (top-level fields) is set and ``push``
    appended to the outbox, if the stored version is ``expected`` and, where ``epoch`` is given, the stored epoch of
    ``queue`` is not above it. ``set`` holds the new version. ``drop`` names fields to be taken out.
    """

    id: str
    expected: int | None
    set: Mapping[str, Any]
    push: Sequence[Mapping[str, Any]] = ()
    epoch: int | None = None
    drop: Sequence[str] = ()
    queue: str = ""


def is_unset_when_none(field: str) -> bool:
    """Whether a field is taken out where it would be None: its absence keeps the document out of an index."""
    return field == "unsent" or field == "due" or field.startswith("due_")


class Outcome(Enum):
    """How a conditional write ended."""

    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class DuePlace:
    """Where a due document stands: enough to decide whose it is, without reading it."""

    id: str
    slot: int
    at: datetime = field(compare=False)


class Store(Protocol):
    """A database of one service. All methods raise StoreUnavailable when the store does not answer."""

    async def ensure(self, collection: str, indexes: Sequence[Index]) -> None:
        """Create the collection's indexes where they are missing."""
        ...

    async def load(self, collection: str, ids: Sequence[str]) -> list[Found]:
        """The documents with these ids, in no order; absent ones are left out."""
        ...

    async def find(
        self,
        collection: str,
        conditions: Conditions,
        *,
        sort: str = "_id",
        limit: int = 1000,
        fields: Sequence[str] | None = None,
    ) -> list[Found]:
        """Documents that meet the conditions, ascending by ``sort``; only ``fields`` (and ``_id``) where given."""
        ...

    async def count(self, collection: str, conditions: Conditions) -> int:
        """How many documents meet the conditions."""
        ...

    async def write(self, collection: str, writes: Sequence[Write]) -> list[Outcome | Unstorable]:
        """Do all writes in one round trip, acknowledged by the journal; each wins, loses, or cannot be stored."""
        ...

    async def sent(self, collection: str, published: Sequence[tuple[str, int]]) -> None:
        """Take events up to a sequence out of the outboxes of these documents; changes no version."""
        ...

    async def stamp(self, collection: str, slots: Mapping[int, int], until: datetime, queue: str = "") -> set[int]:
        """Raise the queue's epoch of each slot's documents that are due in it until ``until`` to the slot's epoch.

        Returns the slots that are done: with many documents not all of them, so that it never takes long.
        """
        ...

    async def stamp_documents(self, collection: str, epochs: Mapping[str, int], queue: str = "") -> None:
        """Raise the queue's epoch of these documents, by id, to what is given."""
        ...

    async def append(self, collection: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add entries that are never changed (the audit trail)."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
