"""What a decision is given beside its document: facts it may read, a timer that fired, an outside call's outcome.

A decision is a plain function ``(document or None, message, facts, now) -> document or None``. It may change the
document in place. ``None`` for no document means that there is nothing to create.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from shared.kit.document import Attempt, Document

D = TypeVar("D", bound=Document)
M = TypeVar("M")
F = TypeVar("F", bound=Document)


class Ref(NamedTuple):
    """A fact wanted by its id."""

    document: type[Document]
    id: str


class Where(NamedTuple):
    """Facts wanted by an indexed field; at most ``limit`` of them, ordered by id."""

    document: type[Document]
    field: str
    value: str
    limit: int = 1000


Want = Ref | Where


@dataclass(frozen=True, slots=True)
class Envelope:
    """How an event came: what a decision needs that passes it on as it is. ``data`` is its JSON, unknown fields too."""

    id: str
    topic: str
    subject: str
    sequence: int
    time: datetime
    data: str
    trace: str | None = None


class Facts:
    """Read-only documents of the same service, loaded with the batch. Asking for what was not wanted is a fault.

    ``id`` is the id of the document that is decided on: what a decision that creates one of several must go by.
    """

    def __init__(
        self,
        loaded: Mapping[Want, list[Any]] | None = None,
        id: str = "",
        envelope: Callable[[], Envelope] | None = None,
    ) -> None:
        self._loaded = loaded or {}
        self.id = id
        self._envelope = envelope

    @property
    def envelope(self) -> Envelope:
        """How the event came that is reacted to. Raises LookupError for a command or due time: there is none."""
        if self._envelope is None:
            raise LookupError("only a reaction is given an envelope")
        return self._envelope()

    def get(self, document: type[F], id: str) -> F | None:
        """The fact with this id, or None where no such document is stored."""
        found = self._loaded[Ref(document, id)]
        return found[0] if found else None

    def where(self, document: type[F], field: str, value: str, limit: int = 1000) -> list[F]:
        """The facts that hold ``value`` in ``field``."""
        return self._loaded[Where(document, field, value, limit)]


NO_FACTS = Facts()
"""For decisions that ask for none."""

Decision = Callable[[Any, Any, Facts, datetime], Any]
Wants = Callable[[Any, Any], Iterable[Want]]
"""``(message, document or None) -> the facts wanted for this decision``."""

Check = Callable[[Any, Facts, datetime], bool]
"""``(document, facts, now)`` -> whether an intended call is still to be made."""

Perform = Callable[[Any, Attempt, Facts], Awaitable[Any]]
"""``(document, attempt, facts) -> outcome``: an outside call itself."""


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that fired: its name, and the time it was set to (it may be later now)."""

    timer: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An outside call's answer was lost: it may or may not have been taken.

    Where the other side deduplicates, the same attempt is made again and this is only seen as ``tries`` rises;
    elsewhere it is the outcome, and the attempt is over.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The other side certainly did not take the call (429, 5xx before work, connection refused).

    ``retry_after`` is in seconds where the other side named one. The settling decision says when to try again.
    """

    reason: str
    retry_after: float | None = None
