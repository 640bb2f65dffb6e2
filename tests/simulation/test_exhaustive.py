"""Outbox, parking and lease in the small, exhaustively: every interleaving, a crash anywhere, one refused message."""

from __future__ import annotations

import pytest

from tests.simulation import mutations, scopes
from tests.simulation.exhaustive import Scene, explore

SCENES: tuple[Scene, ...] = (*scopes.OUTBOX, *scopes.PARKING, *scopes.LEASES)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_whatever_the_order_of_things_every_promise_holds(scene: Scene) -> None:
    print(f"{scene.__name__}: {explore(scene)}")


@pytest.mark.parametrize(
    ("mutation", "scene"),
    [
        (mutations.unconditional_writes, scopes.two_commands),
        (mutations.the_outbox_is_emptied_whole, scopes.two_commands),
        (mutations.only_new_events_are_published, scopes.two_commands),
    ],
    ids=lambda part: part.__name__,
)
def test_without_this_some_order_of_things_breaks_one(mutation: mutations.Mutation, scene: Scene) -> None:
    with mutation(), pytest.raises(Exception):  # noqa: B017, PT011 - whatever breaks first shows it
        explore(scene)
