"""Outbox, parking and lease in every interleaving of a small scope; and with a guarantee switched off, one fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from shared.kit.document import Document
from shared.kit.leases import Leases
from shared.kit.parking import Parked, ParkedState
from shared.kit.store.port import Outcome, Write
from shared.kit.testing.memory_store import Collection, MemoryStore
from tests.simulation import mutations, scopes
from tests.simulation.exhaustive import Scene, Violated, explore
from tests.simulation.mutations import Mutation, replaced
from tests.unit.kit.toy import CURED

FEWEST = 5_000
"""Interleavings that the smallest scope has, or it has shrunk to nothing worth searching."""


@pytest.fixture(autouse=True)
def _nothing_stays_cured() -> Iterator[None]:
    before = set(CURED)
    yield
    CURED.clear()
    CURED.update(before)


@pytest.mark.parametrize("scene", [*scopes.OUTBOX, *scopes.PARKING, *scopes.LEASES], ids=lambda scene: scene.__name__)
def test_every_interleaving_keeps_the_promise(scene: Scene) -> None:
    explored = explore(scene)
    print(f"{scene.__name__}: {explored}")
    assert explored.interleavings >= FEWEST


def nobody_is_fenced() -> Any:
    """6: a due write is taken whatever epoch its document is stamped with."""
    right = MemoryStore._update

    def update(self: MemoryStore, stored: Collection, write: Write) -> Outcome:
        return right(self, stored, Write(write.id, write.expected, write.set, write.push, None))

    return replaced(MemoryStore, "_update", update)


def nobody_stamps() -> Any:
    """6: a new owner reads without having stamped its epoch."""

    async def stamp(self: MemoryStore, collection: str, slots: Mapping[int, int], *rest: object) -> set[int]:
        await self._gate("store.stamp")
        return set(slots)

    return replaced(MemoryStore, "stamp", stamp)


def calls_have_no_margin() -> Any:
    """6: a call is begun up to the very end of a lease."""
    return replaced(Leases, "may_call", lambda self: self.holds())


def a_clear_key_stays_clear() -> Any:
    """5: who appends behind a drain that was faster leaves the record where nobody looks."""
    right = Parked.move

    def move(self: Any, to: Any) -> None:
        if isinstance(self, Parked) and self.state is ParkedState.CLEAR:
            return
        right(self, to)

    return replaced(Document, "move", move)


BITES: Sequence[tuple[Mutation, Scene]] = (
    (mutations.unconditional_writes, scopes.two_commands),
    (mutations.events_apart_from_state, scopes.two_commands),
    (mutations.only_new_events_are_published, scopes.two_commands),
    (mutations.the_outbox_is_emptied_whole, scopes.two_commands),
    (mutations.nobody_sweeps, scopes.two_commands),
    (mutations.only_new_events_are_published, scopes.one_publisher_for_two),
    (mutations.losers_are_dropped, scopes.a_command_and_a_reaction),
    (mutations.commits_come_first, scopes.a_command_and_a_reaction),
    (mutations.only_new_events_are_published, scopes.two_reactions_create),
    (mutations.parked_keys_go_on, scopes.replayed_while_more_arrives),
    (mutations.parked_keys_go_on, scopes.replayed_by_two_readers),
    (mutations.parked_keys_go_on, scopes.replayed_in_vain),
    (mutations.parked_keys_go_on, scopes.discarded_while_more_arrives),
    (mutations.parked_keys_go_on, scopes.parked_by_two_readers),
    (a_clear_key_stays_clear, scopes.replayed_while_more_arrives),
    (mutations.leases_are_not_asked, scopes.a_lease_runs_out),
    (mutations.leases_are_not_asked, scopes.two_take_over),
    (mutations.leases_are_not_asked, scopes.the_first_two),
    (mutations.leases_are_not_asked, scopes.a_worker_joins),
    (nobody_is_fenced, scopes.a_lease_runs_out),
    (nobody_stamps, scopes.a_lease_runs_out),
    (calls_have_no_margin, scopes.a_lease_runs_out),
)


@pytest.mark.parametrize(
    ("mutation", "scene"), BITES, ids=[f"{mutation.__name__}-{scene.__name__}" for mutation, scene in BITES]
)
def test_without_a_guarantee_some_interleaving_fails(mutation: Mutation, scene: Scene) -> None:
    with mutation(), pytest.raises(Violated) as violated:
        explore(scene)
    print(violated.value)
