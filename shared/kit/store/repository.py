"""Turns decisions into conditional writes: loads documents, tells what changed, and hands winners to the publisher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel

from shared.contracts.base import Event
from shared.kit.clock import Clock
from shared.kit.decisions import Ref, Want, Where
from shared.kit.document import Document, derived_id, due_field, epoch_field, queue_key, slot_of
from shared.kit.store.mongodb import encode
from shared.kit.store.port import Found, Index, Outcome, Store, Unstorable, Write, is_unset_when_none

D = TypeVar("D", bound=Document)


PAGE = 1000
"""How many documents are asked for at once where many hold the values that are looked for."""


CHANGED_AT = "changed_at"
"""The field in which a document that declares it is told when it last changed."""


class NewerShape(Exception):
    """A document was written by a newer release than this one understands; the service is not ready."""


@dataclass(slots=True)
class Entry:
    """An event in an outbox: everything that is needed to publish it, encoded when it was decided."""

    sequence: int
    id: str
    type: str
    topic: str
    time: datetime
    data: str
    trace: str | None
    key: str | None = None
    """The Kafka key, where that is not the document's id."""

    def stored(self) -> dict[str, Any]:
        """As it stands in the document."""
        keyed = {} if self.key is None else {"key": self.key}
        return {
            **keyed,
            "sequence": self.sequence,
            "id": self.id,
            "type": self.type,
            "topic": self.topic,
            "time": self.time,
            "data": self.data,
            "trace": self.trace,
        }


@dataclass(frozen=True, slots=True)
class Unsent:
    """A document's whole outbox as of one write: what a publisher sends, oldest first."""

    collection: str
    id: str
    entries: tuple[Entry, ...]

    @property
    def upto(self) -> int:
        """The sequence of the newest event in it."""
        return self.entries[-1].sequence


@dataclass(slots=True)
class Held(Generic[D]):
    """A document in work: as it was stored, as it is decided now, and what it recorded with which trace."""

    type: type[D]
    id: str
    raw: Mapping[str, Any] | None
    document: D | None
    events: list[tuple[Event, str | None]] = field(default_factory=list)
    touched: bool = False

    def take_events(self, trace: str | None) -> None:
        """Move what the last decision recorded into the write, under the trace of that decision."""
        if self.document is None:
            return
        recorded = self.document.recorded()
        self.events.extend((event, trace) for event in recorded)
        recorded.clear()

    @property
    def outbox(self) -> list[dict[str, Any]]:
        """The events that Kafka did not have yet when the document was loaded."""
        return list(self.raw["outbox"]) if self.raw else []


_AS_IT_IS = frozenset({str, int, float, bool, bytes, datetime, type(None)})
"""Types that BSON has; most values are of these, so they are looked for first."""


def plain(value: Any) -> Any:
    """A value in the types that BSON has: enums by value, dates as ISO text, tuples and sets as lists."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if kind is dict:
        return {
            k if type(k) is str else str(plain(k)): v if type(v) in _AS_IT_IS else plain(v) for k, v in value.items()
        }
    if kind is list or kind is tuple:
        return [v if type(v) in _AS_IT_IS else plain(v) for v in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(plain(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


class Repository:
    """Documents of one service in its store.

    ``unsent`` is called with the outbox of every winner; it must not wait. ``max_event_bytes`` bounds an event's data:
    a larger one makes its document Unstorable, before anything is written. ``recorded`` is told of the events of every
    winner, once.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        unsent: Callable[[Unsent], None],
        *,
        max_event_bytes: int = 900_000,
        became_due: Callable[[str, datetime], None] | None = None,
        recorded: Callable[[Sequence[tuple[Event, str | None]]], None] = lambda events: None,
    ) -> None:
        self._recorded = recorded
        self._became_due = became_due
        self.behind = False
        """Whether a document was met that a newer release wrote: this process is not ready then."""
        self.store = store
        self.clock = clock
        self._unsent = unsent
        self._max_event_bytes = max_event_bytes

    async def ensure(self, documents: Iterable[type[Document]]) -> None:
        """Create the indexes of these document types."""
        for document in documents:
            await self.store.ensure(document.collection, indexes_of(document))

    async def load(self, document: type[D], ids: Sequence[str]) -> dict[str, Held[D]]:
        """These documents, in work; an id that is not stored is held without a document."""
        return {id: hold(document, id, raw) for id, raw in (await self.raw(document, ids)).items()}

    async def raw(self, document: type[Document], ids: Sequence[str]) -> dict[str, Found | None]:
        """These documents as they are stored, None for one that is not."""
        found = {raw["_id"]: raw for raw in await self.store.load(document.collection, ids)}
        return {id: found.get(id) for id in ids}

    async def facts(self, wants: Iterable[Want], known: dict[Want, list[Any]]) -> None:
        """Load what is wanted and not yet known into ``known``: one query per type of document, or per field."""
        missing = [want for want in dict.fromkeys(wants) if want not in known]
        by_type: dict[type[Document], list[str]] = {}
        for want in missing:
            if isinstance(want, Ref):
                by_type.setdefault(want.document, []).append(want.id)
        for document, ids in by_type.items():
            held = await self.load(document, ids)
            for id in ids:
                fact = held[id].document
                known[Ref(document, id)] = [] if fact is None or fact.shrunk else [fact]
        by_field: dict[tuple[type[Document], str], list[Where]] = {}
        for want in missing:
            if isinstance(want, Where):
                known[want] = []
                by_field.setdefault((want.document, want.field), []).append(want)
        for (document, name), wheres in by_field.items():
            await self._find_each(document, name, wheres, known)

    async def _find_each(
        self, document: type[Document], name: str, wheres: Sequence[Where], known: dict[Want, list[Any]]
    ) -> None:
        """Find what many wants of one field want, in one look as far as a page holds it; each ordered by id."""
        by_value: dict[str, list[Where]] = {}
        for where in wheres:
            by_value.setdefault(where.value, []).append(where)
        async for page in self.pages(document, {name: {"$in": list(by_value)}}):
            for raw in page:
                if raw.get("shrunk"):
                    continue
                held = hold(document, raw["_id"], raw).document
                values = raw[name] if isinstance(raw[name], list) else [raw[name]]
                for where in (each for value in values for each in by_value.get(value, ())):
                    if len(known[where]) < where.limit:
                        known[where].append(held)
            if all(len(known[where]) >= where.limit for where in wheres):
                return

    async def pages(
        self, document: type[Document], conditions: Mapping[str, Any], *, fields: Sequence[str] | None = None
    ) -> AsyncIterator[list[Found]]:
        """All documents that meet the conditions, as they are stored, ordered by id, a page at a time."""
        behind: dict[str, Any] = {}
        while page := await self.store.find(document.collection, {**conditions, **behind}, limit=PAGE, fields=fields):
            yield page
            if len(page) < PAGE:
                return
            behind = {"_id": {"$gt": page[-1]["_id"]}}

    async def find(
        self, document: type[D], conditions: Mapping[str, Any], *, limit: int = 1000, sort: str = "_id"
    ) -> list[D]:
        """Documents that meet the conditions, ordered by id, or by an indexed field that the conditions bound."""
        found = await self.store.find(document.collection, conditions, limit=limit, sort=sort)
        parsed = [hold(document, raw["_id"], raw).document for raw in found if not raw.get("shrunk")]
        return [each for each in parsed if each is not None]

    def stage(self, held: Held[Any], epoch: int | None = None, queue: str = "") -> Write | None:
        """The conditional write of what was decided on a document, or None where nothing changed.

        ``epoch`` is the one of its slot in ``queue``, where a due worker writes. Raises Unstorable for an event that is
        too large.
        """
        document = held.document
        if document is None:
            return None
        sequence = document.sequence
        now = self.clock.now()
        entries = []
        for event, trace in held.events:
            sequence += 1
            entries.append(self._entry(document.id, sequence, event, trace, now))
        document.sequence = sequence
        if document.ended != (document.ended_at is not None):
            document.ended_at = now if document.ended else None
        dump = document.model_dump(exclude={"id", "version"})
        before = held.raw
        changed: dict[str, Any] = {}
        if before is None:
            changed = {name: plain(value) for name, value in dump.items()}
            changed |= dict.fromkeys(map(epoch_field, held.type.all_queues()), 0)
            changed["slot"] = slot_of(document.slot_key())
        else:
            for name, value in dump.items():
                if name in before and before[name] == value:
                    continue
                stored = plain(value)
                if name not in before or before[name] != stored:
                    changed[name] = stored
        for each in held.type.all_queues():
            field, due = due_field(each), document.due_in(each)
            if (before or {}).get(field) != due:
                changed[field] = due
            if before is not None and epoch_field(each) not in before:
                changed[epoch_field(each)] = 0
        if not changed and not entries:
            return None
        if CHANGED_AT in dump and (entries or changed.keys() - {"applied"}):
            changed[CHANGED_AT] = now
            setattr(document, CHANGED_AT, now)
        if entries:
            changed["unsent"] = self.clock.real()
        changed["version"] = document.version + 1
        if before is None:
            changed = {n: value for n, value in changed.items() if not (value is None and is_unset_when_none(n))}
        push = [entry.stored() for entry in entries]
        expected = document.version if before is not None else None
        return Write(document.id, expected, changed, push, epoch, queue=queue)

    def check(self, write: Write) -> None:
        """Raise Unstorable where this write cannot be encoded."""
        encode({"set": dict(write.set), "push": list(write.push)})

    async def write(
        self, document: type[Document], batch: Sequence[tuple[Held[Any], Write]]
    ) -> list[Outcome | Unstorable]:
        """Write a batch; the winners' outboxes go to the publisher, and the winners are at their new version."""
        outcomes = await self.store.write(document.collection, [write for _, write in batch])
        for (held, write), outcome in zip(batch, outcomes, strict=True):
            if outcome is not Outcome.WON or held.document is None:
                continue
            held.document.version = write.set["version"]
            for queue in document.all_queues():
                if self._became_due is not None and (due := write.set.get(due_field(queue))) is not None:
                    self._became_due(queue_key(document.collection, queue), due)
            if write.push:
                entries = tuple(Entry(**entry) for entry in (*held.outbox, *write.push))
                self._unsent(Unsent(document.collection, held.id, entries))
                self._recorded(held.events)
        return outcomes

    def _entry(self, id: str, sequence: int, event: Event, trace: str | None, now: datetime) -> Entry:
        data = event.model_dump_json(exclude_none=True)
        if len(data) > self._max_event_bytes or len(data.encode()) > self._max_event_bytes:
            raise Unstorable(f"records {event.type}, which is larger than {self._max_event_bytes} bytes")
        event_id = derived_id("event", id, str(sequence))
        return Entry(sequence, event_id, event.type, event.topic, now, data, trace, event.key())


def hold(document: type[D], id: str, raw: Mapping[str, Any] | None) -> Held[D]:
    """A stored document, parsed and in work. Raises NewerShape where a newer release wrote it."""
    if raw is None:
        return Held(document, id, None, None)
    if raw.get("shape", 1) > document.shape_known:
        raise NewerShape(f"{document.__name__} of shape {raw['shape']}; this release knows {document.shape_known}")
    fields = dict(raw)
    for name in document.kits_own():
        fields.pop(name, None)
    if raw.get("shrunk"):
        return Held(document, id, raw, remains_of(document, fields, id))
    fields["id"] = id
    return Held(document, id, raw, document.model_validate(fields))


REMAINS = frozenset({"shape", "version", "sequence", "applied", "state", "ended_at", "shrunk"})
"""What is kept of an ended document for ever, beside the kit's own fields: enough to answer a replay."""


def remains_of(document: type[D], fields: Mapping[str, Any], id: str) -> D:
    """A shrunk document; it holds nothing of its own fields but its state."""
    kept = {name: value for name, value in fields.items() if name in REMAINS}
    state = document.model_fields["state"].annotation
    if callable(state):
        kept["state"] = state(kept["state"])
    return cast(D, document.model_construct(id=id, **kept))


def unsent_of(collection: str, raw: Mapping[str, Any]) -> Unsent | None:
    """The outbox of a stored document, or None where it is empty."""
    if not raw["outbox"]:
        return None
    return Unsent(collection, raw["_id"], tuple(Entry(**entry) for entry in raw["outbox"]))


def indexes_of(document: type[Document]) -> list[Index]:
    """The indexes that the kit's queries and the document's own routes, facts and listings need."""
    looked_up = [*((name,) for name in document.indexes), *document.listings]
    own = [Index((*names, "_id")) for names in looked_up]  # pages go on behind an id
    times = [due_field(queue) for queue in document.all_queues()]
    kit = [Index(fields) for time in times for fields in (("slot", time), (time,))]
    kit.extend(Index(("slot", callee, due_field(queue))) for queue, callee in document.callees.items())
    kit.append(Index(("unsent",), sparse=True))
    return [*kit, *([Index(("ended_at",))] if document.terminal else []), *own]
