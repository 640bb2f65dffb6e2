"""What must hold of the documents of a store and the events on the topics, whatever went wrong on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Stored = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The documents of one service as they are stored: by collection, then by id."""

NO_DOCUMENTS = frozenset({"leases", "audit", "requests"})
"""Collections that hold no documents with a sequence, an outbox and timers."""

RECORDS_NOTHING = NO_DOCUMENTS | {"parked"}


@dataclass(frozen=True, slots=True)
class Published:
    """One record on a topic, in the order in which its partition gives it back."""

    topic: str
    subject: str
    sequence: int

    @classmethod
    def read(cls, topic: str, headers: Iterable[tuple[str, bytes]]) -> Published:
        """From a record's headers."""
        named = {name: value.decode() for name, value in headers}
        return cls(topic, named["ce_subject"], int(named["ce_sequence"]))


def documents(stored: Stored, without: frozenset[str]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Collection, id and fields of every document outside the collections ``without``."""
    for name, collection in sorted(stored.items()):
        if name not in without:
            for id in sorted(collection):
                yield name, id, collection[id]


def check_sequences(service: str, stored: Stored, published: Iterable[Published]) -> None:
    """Per document, first occurrences on the topics are exactly 1..n in order, n the last that it recorded.

    ``published`` holds all records of the service's own topics.
    """
    recorded: dict[str, int] = {}
    for name, id, document in documents(stored, RECORDS_NOTHING):
        assert not document["outbox"], f"{service}/{name}/{id} still has events to publish"
        assert "unsent" not in document, f"{service}/{name}/{id} is still marked as unsent"
        if document["sequence"]:
            recorded[id] = document["sequence"]
    firsts: dict[tuple[str, str], dict[int, None]] = defaultdict(dict)  # a dict keeps the order and is fast to look in
    for record in published:
        firsts[record.topic, record.subject].setdefault(record.sequence)
    by_subject: dict[str, list[int]] = defaultdict(list)
    for (topic, subject), seen in firsts.items():
        assert list(seen) == sorted(seen), f"{topic} {subject}: out of order: {list(seen)}"
        by_subject[subject].extend(seen)
    for subject, sequences in by_subject.items():
        upto = recorded.get(subject)
        assert sorted(sequences) == list(range(1, (upto or 0) + 1)), (
            f"{service} {subject}: {sorted(sequences)}, recorded {upto}"
        )
    assert set(recorded) == set(by_subject), f"{service}: events of {set(recorded) ^ set(by_subject)}"


def check_nothing_is_overdue(service: str, stored: Stored, now: datetime) -> None:
    """Nothing that is due is left undone, and every open attempt has come to its end."""
    for name, id, document in documents(stored, NO_DOCUMENTS):
        for due in (value for field, value in document.items() if field == "due" or field.startswith("due_")):
            assert due > now, f"{service}/{name}/{id} has been due since {due}"
        assert not document.get("attempts"), f"{service}/{name}/{id} has an open attempt"
