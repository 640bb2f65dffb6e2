"""What must hold in every world once it has come to rest, whatever went wrong on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from tests.checks.events import NO_DOCUMENTS, Published, Stored, check_nothing_is_overdue, documents
from tests.checks.events import check_sequences as check_sequences_of
from tests.simulation.world import World

_BOOKKEEPING = frozenset({"version", "applied", "epoch", "unsent", "outbox", "requests", "attempted"})
"""How the kit remembers what it has done; a replay may add marks to it without any state changing."""


def _stored(world: World) -> Iterator[tuple[str, Stored]]:
    for service, store in sorted(world.stores.items()):
        collections = store.collections.items()
        yield service, {name: {id: each.get(id) for id in each.texts} for name, each in collections}


def digest(world: World) -> dict[str, str]:
    """A hash of every document's state, by service, collection and id."""
    found = {}
    for service, stored in _stored(world):
        for name, id, document in documents(stored, NO_DOCUMENTS):
            state = {k: v for k, v in document.items() if k not in _BOOKKEEPING}
            text = json.dumps(state, sort_keys=True, default=str)
            found[f"{service}/{name}/{id}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def check_sequences(world: World) -> None:
    """Per document, first occurrences on the topics are exactly 1..n in order, n the last that it recorded."""
    for service, stored in _stored(world):
        published = [
            Published.read(topic, record.headers)
            for topic, partitions in world.broker.topics.items()
            if topic.startswith(f"{service}.")
            for log in partitions
            for record in log
        ]
        check_sequences_of(service, stored, published)


def check_timers_not_early(world: World) -> None:
    """Nothing that is due is left undone, and every open attempt has come to its end."""
    for service, stored in _stored(world):
        check_nothing_is_overdue(service, stored, world.clock.now())
