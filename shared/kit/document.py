"""The aggregate: state, the events it recorded, and when time must look at it again, stored as one document.

Pure: no I/O, no clock, no randomness. ``model`` modules build on it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from hashlib import sha1
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PrivateAttr

from shared.contracts.base import Event
from shared.kit.errors import IllegalTransition

SLOTS = 256
"""Fixed logical slots into which due work of a queue is divided; never to be changed once documents are stored."""

KIT_FIELDS = frozenset({"_id", "outbox", "unsent", "slot", "due", "epoch"})
"""Stored beside a document's own fields; the kit alone reads and writes them. See ``is_kits`` for those of queues."""

_OF_QUEUES = ("due_", "epoch_")


def is_kits(field: str) -> bool:
    """Whether a stored field is the kit's own."""
    return field in KIT_FIELDS or field.startswith(_OF_QUEUES)


def due_field(queue: str) -> str:
    """The stored field by which a queue's worker finds documents: when the first of the queue's timers fires."""
    return f"due_{queue}" if queue else "due"


def epoch_field(queue: str) -> str:
    """The stored field that fences a queue's writes."""
    return f"epoch_{queue}" if queue else "epoch"


def queue_key(collection: str, queue: str) -> str:
    """What a due queue is called within its service: ``delivery``, ``authorization.poll``."""
    return f"{collection}.{queue}" if queue else collection


_NAMESPACE = UUID("6f1c9d0e-8a57-5d0b-9e55-0f6f6d1c7a11")
_VERSION_BITS = 0xF000 << 64 | 0xC000 << 48
_VERSION_5 = 0x5000 << 64 | 0x8000 << 48


def derived_id(*parts: str) -> str:
    """A UUIDv5 that follows from what caused the document, so that causing it again creates nothing new.

    Written out, since every event has one and ``uuid.uuid5`` takes ten times as long.
    """
    digest = sha1(_NAMESPACE.bytes + "\x1f".join(parts).encode(), usedforsecurity=False).digest()
    number = int.from_bytes(digest[:16]) & ~_VERSION_BITS | _VERSION_5
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def slot_of(key: str) -> int:
    """The due slot of a document: a stable hash of its slot key, 0 to 255."""
    return zlib.crc32(key.encode()) % SLOTS


class Part(BaseModel):
    """A value inside a document. Keeps fields it does not know, so that an older process drops nothing."""

    model_config = ConfigDict(extra="allow")


class Attempt(Part):
    """The intention to make one outside call, written before the call. ``id`` is its idempotency key."""

    id: str
    number: int
    since: datetime
    tries: int = 0


class Answer(Part):
    """What an idempotency key was answered, kept in the write that it caused."""

    request_hash: str
    status: int
    body: dict[str, Any]
    at: datetime
    version: int | None = None


class Wait(Part):
    """What a waiting state waits for. ``owner`` is the role that owes the next step; ``reason`` is a code."""

    since: datetime
    deadline: datetime
    owner: str
    reason: str
    escalated_at: datetime | None = None


class Document(Part):
    """Base of every aggregate.

    A subclass declares its fields, ``collection``, the ``indexes`` that routes, facts and listings find it by, each one
    field, ``listings`` that are found by several fields together (a store uses one index for a look), a
    ``State`` with its ``transitions``, and which states are ``terminal``. Timers that processes of their own look after
    are in ``queues``, by timer the name of its due queue; all others are in the queue without a name. ``callees`` says,
    by due queue, which field tells who is called: whoever may not be called now is passed by. One that declares
    ``changed_at`` is told there when more of it changed than its marks. Decisions change it in place or build it anew
    and return it; the kit writes it.
    """

    collection: ClassVar[str]
    indexes: ClassVar[tuple[str, ...]] = ()
    listings: ClassVar[tuple[tuple[str, ...], ...]] = ()
    shape_known: ClassVar[int] = 1
    transitions: ClassVar[dict[Any, frozenset[Any]]] = {}
    terminal: ClassVar[frozenset[Any]] = frozenset()
    queues: ClassVar[dict[str, str]] = {}
    callees: ClassVar[dict[str, str]] = {}
    watch: ClassVar[Callable[[str, str, str], None] | None] = None
    """Tests set it on ``Document`` to see (document type, from, to) of every transition taken."""

    id: str
    shape: int = 1
    version: int = 0
    sequence: int = 0
    applied: dict[str, int] = {}
    timers: dict[str, datetime] = {}
    attempts: dict[str, Attempt] = {}
    attempted: dict[str, int] = {}
    requests: dict[str, Answer] = {}
    trace: str | None = None
    wait: Wait | None = None
    ended_at: datetime | None = None
    shrunk: bool = False
    """Whether only id, version, sequence, marks and state are left of it; see ``shared.kit.shrinking``."""

    _recorded: list[Event] = PrivateAttr(default_factory=list)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse fields that the kit stores beside a document's own."""
        super().__pydantic_init_subclass__(**kwargs)
        taken = {name for name in cls.model_fields if is_kits(name)}
        if taken:
            raise TypeError(f"{cls.__name__} declares {', '.join(sorted(taken))}, which the kit stores for itself")

    # -- events ---------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        """Record that something happened; it is published after the write that carries it."""
        self._recorded.append(event)

    def recorded(self) -> list[Event]:
        """The events recorded since the document was loaded, oldest first."""
        return self._recorded

    # -- state ----------------------------------------------------------------------------------------------

    def move(self, to: StrEnum) -> None:
        """Go to another state. Raises IllegalTransition where the table has no such way."""
        at: StrEnum = getattr(self, "state")  # noqa: B009 - each subclass declares its own State
        if to not in self.transitions.get(at, frozenset()):
            raise IllegalTransition(type(self).__name__, at, to)
        setattr(self, "state", to)  # noqa: B010
        if Document.watch is not None:
            Document.watch(type(self).__name__, at, to)

    @property
    def ended(self) -> bool:
        """Whether the state is terminal."""
        return getattr(self, "state", None) in self.terminal

    # -- time -----------------------------------------------------------------------------------------------

    @property
    def due(self) -> datetime | None:
        """When time must look at it next: the earliest of its timers."""
        return min(self.timers.values(), default=None)

    @classmethod
    def all_queues(cls) -> tuple[str, ...]:
        """The names of its due queues, the one without a name first."""
        return _queues_of(cls)

    @classmethod
    def kits_own(cls) -> tuple[str, ...]:
        """The names of the fields that the kit stores beside the document's own."""
        return _kits_own(cls)

    def due_in(self, queue: str) -> datetime | None:
        """When time must look at it next on account of a queue's timers."""
        return min((at for timer, at in self.timers.items() if self.queues.get(timer, "") == queue), default=None)

    def slot_key(self) -> str:
        """What its due slot is taken from; override to keep, say, one payer's documents with one worker."""
        return self.id

    def wake(self, timer: str, at: datetime) -> None:
        """Have ``timer`` fire at ``at`` (UTC), never before, at least once; replaces an earlier setting."""
        self.timers[timer] = at

    def rest(self, *timers: str) -> None:
        """Take timers back."""
        for timer in timers:
            self.timers.pop(timer, None)

    def expect(self, owner: str, reason: str, now: datetime, within: timedelta) -> None:
        """Begin to wait: ``owner`` (a role) owes a step for ``reason`` (a code) until ``now + within``.

        Sets the timer ``deadline``; the job table's ``deadline`` decision calls ``overdue``.
        """
        self.wait = Wait(since=now, deadline=now + within, owner=owner, reason=reason)
        self.wake("deadline", self.wait.deadline)

    def met(self) -> None:
        """What was waited for came, or is no longer wanted."""
        self.wait = None
        self.rest("deadline")

    def overdue(self, now: datetime) -> Wait | None:
        """The wait whose deadline has passed, once: later calls for the same wait return None."""
        wait = self.wait
        if wait is None or wait.escalated_at is not None or now < wait.deadline:
            return None
        wait.escalated_at = now
        return wait

    # -- outside calls --------------------------------------------------------------------------------------

    def intend(self, timer: str, now: datetime) -> Attempt:
        """Write down the intention to make the outside call of ``timer``; a second intention keeps the first."""
        if timer not in self.attempts:
            number = self.attempted.get(timer, 0) + 1
            self.attempted[timer] = number
            self.attempts[timer] = Attempt(id=derived_id(self.id, timer, str(number)), number=number, since=now)
        return self.attempts[timer]

    def abandon(self, timer: str) -> None:
        """Give an intention up before its call was made."""
        self.attempts.pop(timer, None)

    @classmethod
    def rest_of(cls, states: Iterable[Any]) -> frozenset[Any]:
        """All states of this document but ``states``."""
        return frozenset(cls.transitions) - frozenset(states)

    def copy_deep(self) -> Self:
        """An independent copy with the recorded events, for tests of decisions."""
        twin = self.model_copy(deep=True)
        twin._recorded = list(self._recorded)
        return twin


@cache
def _queues_of(kind: type[Document]) -> tuple[str, ...]:
    return ("", *sorted(set(kind.queues.values())))


@cache
def _kits_own(kind: type[Document]) -> tuple[str, ...]:
    named = (field(queue) for queue in _queues_of(kind) for field in (due_field, epoch_field))
    return tuple(sorted({*KIT_FIELDS, *named}))
