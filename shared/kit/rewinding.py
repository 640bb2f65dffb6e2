"""An operator's order that a consumer group reads again from a time on; its processes follow it while they run.

Kafka lets nobody move the positions of a group that has members; so the members do it themselves, each for the
partitions it holds, between two batches. What was taken in before is skipped by its marks, so no state changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from shared.kit.decisions import Facts
from shared.kit.document import Document, Part, derived_id
from shared.kit.errors import Conflict
from shared.kit.store.port import Outcome, StoreUnavailable, Unstorable
from shared.kit.store.repository import Repository


class RewindState(StrEnum):
    """Whether an order still has partitions to be moved."""

    OPEN = "open"
    DONE = "done"


class Moved(Part):
    """A partition (``topic:partition``) whose position was set to ``offset``."""

    place: str
    offset: int


class Rewind(Document):
    """The last order for one group. ``places`` are its partitions, ``moved`` those that were set back so far."""

    collection: ClassVar[str] = "rewind"
    indexes: ClassVar[tuple[str, ...]] = ("state",)
    transitions: ClassVar = {
        RewindState.OPEN: frozenset({RewindState.DONE}),
        RewindState.DONE: frozenset({RewindState.OPEN}),
    }

    state: RewindState = RewindState.DONE
    group: str
    number: int = 0
    to: datetime | None = None
    by: str | None = None
    at: datetime | None = None
    places: tuple[str, ...] = ()
    moved: list[Moved] = []


class Order(Part):
    """Have a group read again from its first record at or after ``to`` (by the broker's clock)."""

    group: str
    to: datetime
    by: str
    places: tuple[str, ...]


def rewind_id(group: str) -> str:
    """The id of a group's document."""
    return derived_id("rewind", group)


def order(rewind: Rewind | None, command: Order, facts: Facts, now: datetime) -> Rewind:
    """Take an order. Raises Conflict while the one before it is not carried out."""
    rewind = rewind or Rewind(id=rewind_id(command.group), group=command.group)
    if rewind.state is RewindState.OPEN:
        raise Conflict("the group has not finished going back where it was told to before")
    rewind.move(RewindState.OPEN)
    rewind.number += 1
    rewind.to, rewind.by, rewind.at = command.to, command.by, now
    rewind.places, rewind.moved = command.places, []
    return rewind


class Rewinding:
    """The orders for the groups that this process reads for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def open(self, groups: Collection[str]) -> Sequence[Rewind]:
        """The orders that are not carried out yet. Raises StoreUnavailable."""
        if not groups:
            return ()
        found = await self._repository.find(Rewind, {"state": RewindState.OPEN.value})
        return [rewind for rewind in found if rewind.group in groups]

    async def moved(self, rewind: Rewind, place: str, offset: int) -> None:
        """Note that a partition was set back; the last of them carries the order out. Raises StoreUnavailable."""
        while True:
            held = (await self._repository.load(Rewind, [rewind.id]))[rewind.id]
            stands = held.document
            if stands is None or stands.number != rewind.number or stands.state is RewindState.DONE:
                return
            if all(each.place != place for each in stands.moved):
                stands.moved = [*stands.moved, Moved(place=place, offset=offset)]
            if {each.place for each in stands.moved} >= set(stands.places):
                stands.move(RewindState.DONE)
            write = self._repository.stage(held)
            if write is None:
                return
            outcome = (await self._repository.write(Rewind, [(held, write)]))[0]
            if isinstance(outcome, Unstorable):
                raise StoreUnavailable(str(outcome))
            if outcome is Outcome.WON:
                return
