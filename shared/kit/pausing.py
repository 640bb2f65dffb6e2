"""Callees that an operator paused: calls to them are not made, wait where they stand, and go on when they are resumed.

Without it the only way to spare a payer or a gateway would be to stop the processes that call it, and everybody else's
calls with them. Nothing is lost by a pause: due work stays due, what was told to a sender stays on its topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from shared.kit.decisions import Facts
from shared.kit.document import Document, derived_id
from shared.kit.store.port import Store


class PauseState(StrEnum):
    """Whether calls to somebody are made."""

    PAUSED = "paused"
    RUNNING = "running"


class Pause(Document):
    """Whether calls to one callee are made, and who said so when. The id follows from ``kind`` and ``name``."""

    collection: ClassVar[str] = "pause"
    indexes: ClassVar[tuple[str, ...]] = ("state",)
    transitions: ClassVar = {
        PauseState.PAUSED: frozenset({PauseState.RUNNING}),
        PauseState.RUNNING: frozenset({PauseState.PAUSED}),
    }

    state: PauseState = PauseState.RUNNING
    kind: str
    name: str
    by: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pausable:
    """A kind of callee that may be paused by name: a payer, a channel.

    ``of`` says by document type who its calls go to; ``performing`` by a performer's role, whom it calls. ``names``
    are all there are, None where anybody may be meant.
    """

    kind: str
    of: Mapping[type[Document], Callable[[Any], str | None]] = field(default_factory=dict)
    performing: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class SetPause:
    """Pause or resume a callee; ``by`` is who decides it."""

    kind: str
    name: str
    state: PauseState
    by: str


def pause_id(kind: str, name: str) -> str:
    """The id of a callee's document."""
    return derived_id("pause", kind, name)


def set_pause(pause: Pause | None, command: SetPause, facts: Facts, now: datetime) -> Pause:
    """Decide that a callee is paused, or goes on; a repeat changes nothing."""
    pause = pause or Pause(id=pause_id(command.kind, command.name), kind=command.kind, name=command.name)
    if pause.state is not command.state:
        pause.move(command.state)
        pause.by, pause.at = command.by, now
    return pause


class Pauses:
    """Who is paused, as this process knows; ``refresh`` asks the store, everything else is answered from memory."""

    def __init__(self, store: Store, pausable: tuple[Pausable, ...]) -> None:
        self._pausable = pausable
        self.now: frozenset[tuple[str, str]] = frozenset()
        """The (kind, name) of whoever is paused."""
        self._store = store

    async def refresh(self) -> bool:
        """Ask the store; whether anything has changed. Raises StoreUnavailable: what was known stands."""
        if not self._pausable:
            return False
        found = await self._store.find(Pause.collection, {"state": PauseState.PAUSED.value}, fields=("kind", "name"))
        before, self.now = self.now, frozenset((each["kind"], each["name"]) for each in found)
        return self.now != before

    def hold(self, document: Document) -> bool:
        """Whether the calls of a document go to somebody who is paused."""
        if not self.now:
            return False
        asked = ((callee.kind, callee.of.get(type(document))) for callee in self._pausable)
        return any(of is not None and (kind, of(document)) in self.now for kind, of in asked)

    def hold_performer(self, role: str) -> bool:
        """Whether a performer calls somebody who is paused."""
        return any((callee.kind, callee.performing.get(role)) in self.now for callee in self._pausable)


Paused = Callable[[Document], bool]
"""Whether a document's calls are to wait."""


def nobody(_: Document) -> bool:
    """Nobody is paused."""
    return False
