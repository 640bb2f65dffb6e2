"""How a service declares what it does with events: a table of event, route and decision per document type.

The engine that runs the table in batches is ``shared.kit.engine``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.contracts.base import Event
from shared.kit.decisions import Decision, Wants
from shared.kit.document import Document

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Field:
    """A route to all documents that hold ``value(event)`` in an indexed field."""

    name: str
    value: Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class OfSubject:
    """A route to the one document of an event's subject, whatever the event: its id is ``id(topic, subject)``."""

    id: Callable[[str, str], str]


Route = Callable[[Any], Iterable[str]] | Field | OfSubject


@dataclass(frozen=True, slots=True)
class Reaction:
    """One row: this event leads to this decision on the documents of its route.

    ``when`` are the states in which ``decide`` is asked; in all others the pair is ignored, or compensated by
    ``otherwise``. None means all states. ``creates`` says that ``decide`` may be given None for a document that is
    not there yet; without it an event for an absent document is ignored. A refusal (DomainError) that a decision
    raises is a fault and parks the event's key.
    """

    event: type[Event]
    route: Route
    decide: Decision
    when: frozenset[Any] | None = None
    otherwise: Decision | None = None
    creates: bool = False
    wants: Wants | None = None

    def decision_for(self, document: Document | None) -> Decision | None:
        """The decision that this pair of state and event has, or None where it is ignored."""
        if document is None:
            return self.decide if self.creates else None
        if self.when is None or getattr(document, "state", None) in self.when:
            return self.decide
        return self.otherwise


def on(
    event: type[E],
    route: Callable[[E], Iterable[str]] | Field | OfSubject,
    decide: Decision,
    *,
    when: Iterable[Any] | None = None,
    otherwise: Decision | None = None,
    creates: bool = False,
    wants: Wants | None = None,
) -> Reaction:
    """A row of a reaction table; see ``Reaction``."""
    states = None if when is None else frozenset(when)
    return Reaction(event, route, decide, states, otherwise, creates, wants)


class Reactions:
    """The reaction table of one document type, fed by one consumer group: ``<service>.<collection>``.

    Each event type has one row at most, so that one high-water mark per upstream document is enough.

    A document that lacks a fact must not miss its arrival. Ask after writing, answer after writing: a document that
    waits re-reads the fact in a reaction to its *own* event, and the fact's document announces itself by an event of
    its own, to which the waiting documents react by a ``Field`` route. Whichever write comes second then sees the
    first.
    """

    def __init__(self, document: type[Document], *rows: Reaction) -> None:
        self.document = document
        self.rows: dict[str, Reaction] = {}
        for row in rows:
            if row.event.type in self.rows:
                raise ValueError(f"{document.__name__} has two reactions to {row.event.type}")
            if isinstance(row.route, Field) and row.route.name not in document.indexes:
                raise ValueError(f"{document.__name__} is routed to by {row.route.name}, which is not indexed")
            self.rows[row.event.type] = row

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that hold the events of this table."""
        return tuple(sorted({row.event.topic for row in self.rows.values()}))
