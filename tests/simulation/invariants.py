"""What must hold in every world once it has come to rest, whatever went wrong on the way."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

from tests.simulation.world import World

_BOOKKEEPING = frozenset({"version", "applied", "epoch", "unsent", "outbox", "requests", "attempted"})
"""How the kit remembers what it has done; a replay may add marks to it without any state changing."""


def digest(world: World) -> dict[str, str]:
    """A hash of every document's state, by service, collection and id."""
    found = {}
    for service, store in sorted(world.stores.items()):
        for name, collection in sorted(store.collections.items()):
            if name in {"leases", "audit"}:
                continue
            for id in sorted(collection.texts):
                document = {k: v for k, v in collection.get(id).items() if k not in _BOOKKEEPING}
                text = json.dumps(document, sort_keys=True, default=str)
                found[f"{service}/{name}/{id}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def check_sequences(world: World) -> None:
    """Per document, first occurrences on the topics are exactly 1..n in order, n the last that it recorded."""
    for service, store in world.stores.items():
        recorded: dict[str, int] = {}
        for name, collection in store.collections.items():
            if name in {"leases", "audit", "parked"}:
                continue
            for id in collection.texts:
                document = collection.get(id)
                assert not document["outbox"], f"{service}/{name}/{id} still has events to publish"
                assert "unsent" not in document, f"{service}/{name}/{id} is still marked as unsent"
                if document["sequence"]:
                    recorded[id] = document["sequence"]
        published: dict[str, list[int]] = defaultdict(list)
        by_topic: dict[tuple[str, str], list[int]] = defaultdict(list)
        for topic, partitions in world.broker.topics.items():
            if not topic.startswith(f"{service}."):
                continue
            for record in (record for log in partitions for record in log):
                headers = {key: value.decode() for key, value in record.headers}
                subject, sequence = headers["ce_subject"], int(headers["ce_sequence"])
                if sequence not in by_topic[topic, subject]:
                    by_topic[topic, subject].append(sequence)
                    published[subject].append(sequence)
        for (topic, subject), sequences in by_topic.items():
            assert sequences == sorted(sequences), f"{topic} {subject}: out of order: {sequences}"
        for subject, sequences in published.items():
            upto = recorded.get(subject)
            assert sorted(sequences) == list(range(1, (upto or 0) + 1)), (
                f"{service} {subject}: {sorted(sequences)}, recorded {upto}"
            )
        assert set(recorded) == set(published), f"{service}: events of {set(recorded) ^ set(published)}"


def check_timers_not_early(world: World) -> None:
    """Nothing that is due is left undone, and every open attempt has come to its end."""
    now = world.clock.now()
    for service, store in world.stores.items():
        for name, collection in store.collections.items():
            if name in {"leases", "audit"}:
                continue
            for id in collection.texts:
                document: dict[str, Any] = collection.get(id)
                due = document.get("due")
                assert due is None or due > now, f"{service}/{name}/{id} has been due since {due}"
                assert not document.get("attempts"), f"{service}/{name}/{id} has an open attempt"
