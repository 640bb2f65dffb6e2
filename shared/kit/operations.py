"""What operators see and change of a service, over HTTP: every process with the role ``api`` answers for all of it.

Nothing here shows personal data: ids, codes, places and figures alone. Each change is written to the audit trail before
it is made, with who asked for it; reading about a patient, or about what is parked, is written there as any reading is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.contracts.base import Event
from shared.kit.api import Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.bus.envelope import Received, read
from shared.kit.bus.port import ReadFailed
from shared.kit.document import SLOTS, Document, due_field, queue_key
from shared.kit.errors import Conflict, DomainError, Flaw, Invalid, NotFound, Unavailable
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.parking import Parked, Which, summary, waiting, whole
from shared.kit.pausing import Pausable, Pause, PauseState, SetPause, pause_id, set_pause
from shared.kit.presence import Life, Process, processes
from shared.kit.rewinding import Order, Rewind, RewindState, order, rewind_id
from shared.kit.shown import instant
from shared.kit.store.port import EPOCH, Found

if TYPE_CHECKING:
    from shared.kit.chassis import Chassis

OPERATED = Routes("/operations", tags=("operations",))
"""What the role ``api`` of every service answers to operators."""

OPERATORS = frozenset({Role.OPERATOR})

LATE = 60.0
"""Seconds by which lag, outbox and due work may be behind before that is called a problem."""

MOST = 1000
_MOST_DUE = 1000
_STORY_SECONDS = 15.0
"""How long a topic is read for a story; behind that it says that it is not whole."""

Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
Place = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,200}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False


class ReplayParked(_Body):
    """Keys to be replayed."""

    ids: list[DocumentId] = Field(min_length=1, max_length=MOST)


class Given(BaseModel):
    """A key, and the event that stands first in it: another one is not given up in its place."""

    model_config = ConfigDict(extra="forbid")

    id: DocumentId
    first: Place


class DiscardParked(_Body):
    """Keys whose first event is given up."""

    keys: list[Given] = Field(min_length=1, max_length=MOST)


class PauseCallee(_Body):
    """Somebody whose calls are to wait, or to go on."""

    kind: Code
    name: Code
    state: Literal["paused", "running"]


class GoBack(_Body):
    """A group that is to read again from a time on, by the broker's clock."""

    group: Code
    since: AwareDatetime


class EnsureTopics(_Body):
    """Topics that are missing are to be made."""


def _chassis(request: Request) -> Chassis:
    chassis: Chassis = request.app.state.chassis
    return chassis


# -- how it stands -----------------------------------------------------------------------------------------------------


@OPERATED.get("/status", roles=OPERATORS)
async def status(call: Call, request: Request) -> Reply:
    """The service at a glance: its processes, groups, queues, outboxes, what is parked or paused, what is wrong."""
    chassis = _chassis(request)
    known = await processes(chassis.store, chassis.clock.real())
    groups = await _groups(chassis, known)
    stored = await chassis.signals.stored()
    queues = await _queues(chassis, stored.due)
    paused = await _paused(chassis)
    back = await _going_back(chassis)
    body = {
        "service": chassis.service.name,
        "at": instant(chassis.clock.real()),
        "processes": [_process(each) for each in known],
        "groups": groups,
        "queues": queues,
        "outbox": {"oldest_seconds": round(max(stored.outbox.values(), default=0.0), 3)},
        "parked": sum(stored.parked.values()),
        "paused": paused,
        "going_back": back,
        "callees": _callees(known),
    }
    return Reply(200, {**body, "problems": list(_problems(body)), "notices": list(_notices(body))})


@OPERATED.get("/lag", roles=OPERATORS)
async def lag(call: Call, request: Request) -> Reply:
    """How far each consumer group is behind, by topic, in records and in seconds."""
    chassis = _chassis(request)
    known = await processes(chassis.store, chassis.clock.real())
    return Reply(200, {"service": chassis.service.name, "groups": await _groups(chassis, known)})


@OPERATED.get("/outbox", roles=OPERATORS)
async def outbox(call: Call, request: Request) -> Reply:
    """By document type, how many documents have events that Kafka does not have yet, and since when."""
    chassis = _chassis(request)
    ages = (await chassis.signals.stored()).outbox
    found = []
    for document in _stored(chassis):
        count = await chassis.store.count(document.collection, {"unsent": {"$gte": EPOCH}})
        age = round(ages.get(document.collection, 0.0), 3)
        found.append({"document": document.__name__, "documents": count, "oldest_seconds": age})
    return Reply(200, {"service": chassis.service.name, "outbox": found})


@OPERATED.get("/slots", roles=OPERATORS)
async def slots(call: Call, request: Request, queue: Annotated[Code | None, Query()] = None) -> Reply:
    """By due queue, who has which slots, at which epoch, and since when something in a slot is due.

    ``oldest_due`` is told of the slots in which the thousand documents stand that are due longest.
    """
    chassis = _chassis(request)
    roles = {each.name: each.role for each in await processes(chassis.store, chassis.clock.real())}
    tables = {table["_id"]: table for table in await chassis.store.find(LEASES, {})}
    found = []
    for document, due_queue in _due_queues(chassis):
        name = f"{chassis.service.name}.{queue_key(document.collection, due_queue)}"
        if queue not in (None, name):
            continue
        oldest = await _oldest_by_slot(chassis, document, due_queue)
        table = tables.get(name, {"owners": {}, "epochs": [0] * SLOTS})
        owners = {slot: worker for worker, own in table["owners"].items() for slot in own}
        found.append(
            {
                "queue": name,
                "workers": [
                    {"worker": worker, "role": roles.get(worker), "slots": len(own)}
                    for worker, own in sorted(table["owners"].items())
                ],
                "slots": [
                    {
                        "slot": slot,
                        "owner": owners.get(slot),
                        "epoch": table["epochs"][slot],
                        "oldest_due": instant(oldest.get(slot)),
                    }
                    for slot in range(SLOTS)
                ],
            }
        )
    if queue is not None and not found:
        raise NotFound("this service has no such queue")
    return Reply(200, {"service": chassis.service.name, "queues": found})


def _stored(chassis: Chassis) -> Iterable[type[Document]]:
    yield from chassis.service.documents
    yield Parked


def _due_queues(chassis: Chassis) -> Iterable[tuple[type[Document], str]]:
    for document in _stored(chassis):
        for queue in document.all_queues():
            yield document, queue


async def _oldest_by_slot(chassis: Chassis, document: type[Document], queue: str) -> dict[int, datetime]:
    field = due_field(queue)
    due = {field: {"$gte": EPOCH, "$lte": chassis.clock.now()}}
    first = await chassis.store.find(document.collection, due, sort=field, limit=_MOST_DUE, fields=("slot", field))
    oldest: dict[int, datetime] = {}
    for each in first:
        oldest.setdefault(each["slot"], each[field])
    return oldest


async def _queues(chassis: Chassis, late: Mapping[str, float]) -> list[dict[str, Any]]:
    tables = {table["_id"]: table["owners"] for table in await chassis.store.find(LEASES, {}, fields=("owners",))}
    found = []
    for document, queue in _due_queues(chassis):
        name = f"{chassis.service.name}.{queue_key(document.collection, queue)}"
        owned = [len(own) for own in tables.get(name, {}).values()]
        found.append(
            {
                "queue": name,
                "workers": len(owned),
                "free_slots": SLOTS - sum(owned),
                "overdue_seconds": round(late.get(name, 0.0), 3),
            }
        )
    return found


async def _groups(chassis: Chassis, known: Sequence[Process]) -> list[dict[str, Any]]:
    """Each group by topic: from what its running readers said last; where there are none, from the broker."""
    read: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    readers: dict[str, int] = defaultdict(int)
    for process in known:
        if process.life is Life.RUNNING:
            for group in process.facts.get("groups", ()):
                readers[group] += 1
            for reading in process.facts.get("readings", ()):
                read[reading["group"], reading["topic"]].append(reading)
    found = []
    for reader in chassis.all_readers:
        told = await _by_broker(chassis, reader.group, reader.topics) if not readers[reader.group] else {}
        for topic in reader.topics:
            readings = read[reader.group, topic]
            seconds = max((reading["seconds"] for reading in readings), default=None)
            found.append(
                {
                    "group": reader.group,
                    "topic": topic,
                    "readers": readers[reader.group],
                    "records": told.get(topic, sum(reading["records"] for reading in readings)),
                    "seconds": None if seconds is None else round(seconds, 3),
                }
            )
    return found


async def _by_broker(chassis: Chassis, group: str, topics: Sequence[str]) -> dict[str, int | None]:
    try:
        places = await chassis.bus.standing(group, topics, chassis.clock.real())
    except ReadFailed:
        return dict.fromkeys(topics)
    records: dict[str, int | None] = dict.fromkeys(topics, 0)
    for place in places:
        records[place.topic] = (records[place.topic] or 0) + max(0, place.end - place.committed)
    return records


def _callees(known: Sequence[Process]) -> list[dict[str, Any]]:
    """Whom the running processes call, and what their breakers say; each breaker is one process's own."""
    return [
        {"process": process.name, **callee}
        for process in known
        if process.life is Life.RUNNING
        for callee in process.facts.get("callees", ())
    ]


def _process(process: Process) -> dict[str, Any]:
    return {
        "name": process.name,
        "role": process.role,
        "host": process.host,
        "pid": process.pid,
        "since": instant(process.since),
        "seen": instant(process.seen),
        "life": process.life.value,
        "missing": list(process.facts.get("missing", ())),
        "groups": list(process.facts.get("groups", ())),
        "queues": list(process.facts.get("queues", ())),
        "busy": process.facts.get("busy", 0),
    }


def _problems(status: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """What somebody should look into."""
    for process in status["processes"]:
        if process["life"] == Life.SILENT:
            yield _said("process-silent", process["role"], f"last heard of at {process['seen']}")
        if process["life"] == Life.RUNNING and process["missing"]:
            yield _said("not-ready", process["role"], f"lacks {', '.join(process['missing'])}")
    for group in status["groups"]:
        if not group["readers"]:
            yield _said("nobody-reads", group["group"], f"{group['records']} records of {group['topic']} wait")
        elif (group["seconds"] or 0) > LATE and not _is_paused(status, group["group"]):
            yield _said("lag", group["group"], f"{group['seconds']:.0f} s behind on {group['topic']}")
    for queue in status["queues"]:
        if not queue["workers"]:
            yield _said("nobody-works", queue["queue"], "no process has slots of it")
        elif queue["overdue_seconds"] > LATE and not status["paused"]:
            yield _said("overdue", queue["queue"], f"{queue['overdue_seconds']:.0f} s")
    if status["outbox"]["oldest_seconds"] > LATE:
        yield _said("outbox", status["service"], f"an event has waited for {status['outbox']['oldest_seconds']:.0f} s")
    if status["parked"]:
        yield _said("parked", status["service"], f"{status['parked']} keys wait for somebody's word")
    for callee in status["callees"]:
        if callee["breaker"] == "open":
            yield _said("breaker-open", callee["whom"], f"called by {callee['queue']}")


def _notices(status: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """What somebody did, and may want to end."""
    for paused in status["paused"]:
        yield _said("paused", f"{paused['kind']} {paused['name']}", f"since {paused['at']} by {paused['by']}")
    for back in status["going_back"]:
        yield _said("going-back", back["group"], f"{back['moved']} of {back['places']} partitions")


def _is_paused(status: Mapping[str, Any], group: str) -> bool:
    return any(group in paused["groups"] for paused in status["paused"])


def _said(code: str, subject: str, detail: str) -> dict[str, str]:
    return {"code": code, "subject": subject, "detail": detail}


# -- what is parked ----------------------------------------------------------------------------------------------------


@OPERATED.get("/parked", roles=OPERATORS)
async def parked(
    call: Call,
    request: Request,
    group: Annotated[Code | None, Query()] = None,
    reason: Annotated[Text | None, Query()] = None,
    type: Annotated[Code | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Reply:
    """Keys that wait, those that wait longest first; ``reason`` is a part of one."""
    chassis = _chassis(request)
    found = await waiting(chassis.store, Which(group, reason, type), limit)
    await call.audit("read", Parked, [raw["_id"] for raw in found])
    return Reply(200, {"service": chassis.service.name, "keys": [summary(raw) for raw in found]})


@OPERATED.get("/parked/{id}", roles=OPERATORS)
async def parked_key(id: DocumentId, call: Call, request: Request) -> Reply:
    """One key: each event that waits and why, each that was given up and by whom."""
    chassis = _chassis(request)
    stored = await chassis.store.load(Parked.collection, [id])
    if not stored:
        raise NotFound("nothing is parked under this id")
    await call.audit("read", Parked, [id])
    return Reply(200, {"service": chassis.service.name, **whole(stored[0])})


@OPERATED.post("/parked/replay", roles=OPERATORS)
async def replay_parked(body: ReplayParked, call: Call, request: Request) -> Reply:
    """Have the events of these keys applied again, in order; tells of each key whether it was marked, or why not."""
    parking = _chassis(request).parking
    if not body.dry_run:
        await call.audit("parked.replay", Parked, body.ids)
    return await _each(request, body.dry_run, body.ids, parking.replay)


@OPERATED.post("/parked/discard", roles=OPERATORS)
async def discard_parked(body: DiscardParked, call: Call, request: Request) -> Reply:
    """Give up the first event of each of these keys, on record; what stood behind it is applied."""
    parking = _chassis(request).parking
    firsts = {given.id: given.first for given in body.keys}
    if not body.dry_run:
        await call.audit("parked.discard", Parked, list(firsts))

    async def discard(id: str) -> Parked:
        return await parking.discard(id, call.caller.subject, firsts[id])

    return await _each(request, body.dry_run, list(firsts), discard)


async def _each(request: Request, dry_run: bool, ids: Sequence[str], do: Any) -> Reply:
    """Do it to each key, or only tell what it would be done to; one that is refused keeps no other from it."""
    chassis = _chassis(request)
    stored = {raw["_id"]: raw for raw in await chassis.store.load(Parked.collection, ids)}
    told = []
    for id in ids:
        line: dict[str, Any] = {"id": id, "done": False, "refused": None}
        if id in stored:
            line |= {name: value for name, value in summary(stored[id]).items() if name != "id"}
        if dry_run:
            line["refused"] = None if id in stored else NotFound.slug
        else:
            try:
                line["state"] = (await do(id)).state.value
                line["done"] = True
            except DomainError as refusal:
                line["refused"] = refusal.slug
        told.append(line)
    return Reply(200, {"service": chassis.service.name, "dry_run": dry_run, "keys": told})


# -- pausing -----------------------------------------------------------------------------------------------------------


@OPERATED.get("/paused", roles=OPERATORS)
async def paused(call: Call, request: Request) -> Reply:
    """Who may be paused here, and who is."""
    chassis = _chassis(request)
    kinds = [
        {"kind": callee.kind, "names": None if callee.names is None else sorted(callee.names)}
        for callee in chassis.service.pausable
    ]
    return Reply(200, {"service": chassis.service.name, "kinds": kinds, "paused": await _paused(chassis)})


@OPERATED.post("/paused", roles=OPERATORS)
async def pause(body: PauseCallee, call: Call, request: Request) -> Reply:
    """Have the calls to somebody wait, or go on. Processes that make them heed it within a second or so."""
    chassis = _chassis(request)
    callee = next((each for each in chassis.service.pausable if each.kind == body.kind), None)
    if callee is None:
        raise Invalid("this service pauses nobody of this kind", flaws=[Flaw("kind", "is not one of this service's")])
    if callee.names is not None and body.name not in callee.names:
        raise Invalid(
            "there is nobody of this name", flaws=[Flaw("name", f"is none of {', '.join(sorted(callee.names))}")]
        )
    id, state = pause_id(body.kind, body.name), PauseState(body.state)
    told = {"kind": body.kind, "name": body.name, "waiting": await _waiting_for(chassis, callee, body.name)}
    if body.dry_run:
        stands = any((each["kind"], each["name"]) == (body.kind, body.name) for each in await _paused(chassis))
        return Reply(200, {**told, "state": str(PauseState.PAUSED if stands else PauseState.RUNNING), "dry_run": True})
    await call.audit(f"callee.{body.state}", Pause, [id])
    command = SetPause(body.kind, body.name, state, call.caller.subject)
    reply = await call.put(
        Pause, id, command, set_pause, answer=lambda pause: {**told, "state": str(pause.state), "dry_run": False}
    )
    await chassis.heed()
    return reply


async def _paused(chassis: Chassis) -> list[dict[str, Any]]:
    if not chassis.service.pausable:
        return []
    found = await chassis.repository.find(Pause, {"state": PauseState.PAUSED.value})
    by_kind = {callee.kind: callee for callee in chassis.service.pausable}
    told = []
    for each in found:
        callee = by_kind.get(each.kind)
        told.append(
            {
                "kind": each.kind,
                "name": each.name,
                "by": each.by,
                "at": instant(each.at),
                "waiting": await _waiting_for(chassis, callee, each.name) if callee else None,
                "groups": [group for group, name in _groups_of(chassis, callee) if name == each.name],
            }
        )
    return told


def _groups_of(chassis: Chassis, callee: Pausable | None) -> Iterable[tuple[str, str]]:
    for performer in chassis.performers:
        if callee is not None and performer.row.role in callee.performing:
            yield performer.group, callee.performing[performer.row.role]


async def _waiting_for(chassis: Chassis, callee: Pausable, name: str) -> int | None:
    """How many documents and records wait to be taken to a callee, None where the broker does not say."""
    count = 0
    for document in callee.of:
        for queue, field in document.callees.items():
            due = {due_field(queue): {"$gte": EPOCH, "$lte": chassis.clock.now()}}
            count += await chassis.store.count(document.collection, {field: name, **due})
    for group, whom in _groups_of(chassis, callee):
        if whom == name:
            topics = next(reader.topics for reader in chassis.performers if reader.group == group)
            records = await _by_broker(chassis, group, topics)
            if None in records.values():
                return None
            count += sum(each or 0 for each in records.values())
    return count


# -- going back --------------------------------------------------------------------------------------------------------


@OPERATED.post("/going-back", roles=OPERATORS)
async def go_back(body: GoBack, call: Call, request: Request) -> Reply:
    """Have a group read again from a time on. Its running processes do it at once, others when they start.

    What a document has taken in is skipped by its marks, so nothing changes by it but what was missed.
    """
    chassis = _chassis(request)
    reader = next((each for each in chassis.all_readers if each.group == body.group), None)
    if reader is None:
        raise NotFound("this service reads as no such group")
    try:
        places = await chassis.bus.standing(reader.group, reader.topics, body.since)
    except ReadFailed:
        raise Unavailable("the broker does not say how far the group has read") from None
    if not places:
        raise NotFound("the group's topics are not there")
    told = {
        "group": reader.group,
        "since": instant(body.since),
        "partitions": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "from": each.committed,
                "to": min(each.committed, each.since),
            }
            for each in places
        ],
        "records": sum(max(0, each.committed - each.since) for each in places),
    }
    stands = (await chassis.repository.load(Rewind, [rewind_id(reader.group)]))[rewind_id(reader.group)].document
    if stands is not None and stands.state is RewindState.OPEN:
        raise Conflict("the group has not finished going back where it was told to before")
    if body.dry_run:
        return Reply(200, {**told, "dry_run": True})
    await call.audit("group.go-back", Rewind, [rewind_id(reader.group)])
    command = Order(
        group=reader.group, to=body.since, by=call.caller.subject, places=tuple(each.name for each in places)
    )
    reply = await call.put(
        Rewind, rewind_id(reader.group), command, order, answer=lambda rewind: {**told, "dry_run": False}
    )
    await chassis.heed()
    return reply


async def _going_back(chassis: Chassis) -> list[dict[str, Any]]:
    found = await chassis.repository.find(Rewind, {"state": RewindState.OPEN.value})
    return [
        {
            "group": each.group,
            "since": instant(each.to),
            "by": each.by,
            "at": instant(each.at),
            "places": len(each.places),
            "moved": len(each.moved),
        }
        for each in found
    ]


# -- topics ------------------------------------------------------------------------------------------------------------


@OPERATED.get("/topics", roles=OPERATORS)
async def topics(call: Call, request: Request) -> Reply:
    """The topics that the service reads and publishes to, as the broker has them, and what is wrong with them."""
    chassis = _chassis(request)
    return Reply(200, {"service": chassis.service.name, "topics": await _topics(chassis)})


@OPERATED.post("/topics", roles=OPERATORS)
async def ensure_topics(body: EnsureTopics, call: Call, request: Request) -> Reply:
    """Make the topics that are missing. One that is there is left as it is: more partitions would break its order."""
    chassis = _chassis(request)
    missing = [each["topic"] for each in await _topics(chassis) if each["problem"] == "missing"]
    if missing and not body.dry_run:
        await call.audit("topics.ensure", None, missing)
        await chassis.bus.ensure(missing)
    told = {"service": chassis.service.name, "dry_run": body.dry_run, "made": missing}
    return Reply(200, {**told, "topics": await _topics(chassis)})


async def _topics(chassis: Chassis) -> list[dict[str, Any]]:
    needed = chassis.topics
    try:
        there = {topic.name: topic for topic in await chassis.bus.described(needed)}
    except ReadFailed:
        raise Unavailable("the broker does not say which topics there are") from None
    settings = chassis.settings
    told = []
    for name in needed:
        topic = there.get(name)
        problem = None
        if topic is None:
            problem = "missing"
        elif topic.replication < settings.kafka_replication:
            problem = "replication"
        elif topic.partitions != settings.kafka_partitions:
            problem = "partitions"
        told.append(
            {
                "topic": name,
                "partitions": topic.partitions if topic else None,
                "replication": topic.replication if topic else None,
                "wanted": {"partitions": settings.kafka_partitions, "replication": settings.kafka_replication},
                "problem": problem,
            }
        )
    return told


# -- cases -------------------------------------------------------------------------------------------------------------


@OPERATED.get("/documents/{id}", roles=OPERATORS)
async def document(id: DocumentId, call: Call, request: Request) -> Reply:
    """The documents of this service with this id, of whatever type: state, version, wait, timers, and their trace."""
    chassis = _chassis(request)
    found = []
    for kind in chassis.service.documents:
        for raw in await chassis.store.load(kind.collection, [id]):
            await call.audit("read", kind, [id])
            found.append(_document(kind, raw))
    return Reply(200, {"service": chassis.service.name, "documents": found})


@OPERATED.get("/patients/{id}/story", roles=OPERATORS)
async def story(id: DocumentId, call: Call, request: Request) -> Reply:
    """What this service has of a patient: its documents, and the events that they told and that Kafka still has.

    ``complete`` says whether the topics were read to their ends.
    """
    chassis = _chassis(request)
    found = await _documents_of(chassis, id)
    for kind in dict.fromkeys(kind for kind, _ in found):
        await call.audit("read", kind, [raw["_id"] for each, raw in found if each is kind])
    events, complete = await _told(chassis, {raw["_id"] for _, raw in found})
    body = {
        "service": chassis.service.name,
        "patient_id": id,
        "documents": [_document(kind, raw) for kind, raw in found],
        "events": events,
        "complete": complete,
    }
    return Reply(200, body)


async def _documents_of(chassis: Chassis, patient_id: str) -> list[tuple[type[Document], Found]]:
    """Documents with the patient's id, or whose ``patient_id`` it is; by an index, or named by those found so."""
    found: dict[tuple[type[Document], str], Found] = {}
    kinds = chassis.service.documents
    for kind in kinds:
        for raw in await chassis.store.load(kind.collection, [patient_id]):
            found[kind, raw["_id"]] = raw
        if "patient_id" in kind.indexes:
            for raw in await chassis.store.find(kind.collection, {"patient_id": patient_id}, limit=MOST):
                found[kind, raw["_id"]] = raw
    named = {
        value
        for raw in found.values()
        for name, value in raw.items()
        if name.endswith("_id") and isinstance(value, str) and value != patient_id
    }
    for kind in kinds:
        if "patient_id" in kind.model_fields and "patient_id" not in kind.indexes:
            for raw in await chassis.store.load(kind.collection, sorted(named)):
                if raw.get("patient_id") == patient_id:
                    found[kind, raw["_id"]] = raw
    return [(kind, raw) for (kind, _), raw in found.items()]


def _document(kind: type[Document], raw: Found) -> dict[str, Any]:
    """What every document has, whatever else it holds; its own fields are not shown."""
    wait, trace = raw.get("wait"), raw.get("trace")
    return {
        "document": kind.__name__,
        "id": raw["_id"],
        "state": raw.get("state"),
        "version": raw["version"],
        "events": raw["sequence"],
        "unsent": len(raw["outbox"]),
        "ended_at": instant(raw.get("ended_at")),
        "shrunk": bool(raw.get("shrunk")),
        "wait": None
        if wait is None
        else {
            "owner": wait["owner"],
            "reason": wait["reason"],
            "since": instant(wait["since"]),
            "deadline": instant(wait["deadline"]),
            "escalated_at": instant(wait.get("escalated_at")),
        },
        "timers": {name: instant(at) for name, at in sorted(raw.get("timers", {}).items())},
        "calls": {
            name: {"attempt": attempt["number"], "since": instant(attempt["since"]), "tries": attempt["tries"]}
            for name, attempt in sorted(raw.get("attempts", {}).items())
        },
        "trace_id": trace.split("-")[1] if trace else None,
    }


async def _told(chassis: Chassis, subjects: set[str]) -> tuple[list[dict[str, Any]], bool]:
    """The events of these documents on the topics that hold nothing personal, oldest first."""
    if not subjects:
        return [], True
    wanted = {event.type: event for event in chassis.published if not event.topic.endswith(".people")}
    found: dict[tuple[str, str, int], Received] = {}
    complete = True
    for topic in sorted({event.topic for event in wanted.values()}):
        try:
            async with (
                asyncio.timeout(_STORY_SECONDS),
                contextlib.aclosing(chassis.bus.history(topic, subjects)) as logs,
            ):
                async for batch in logs:
                    for record in batch:
                        item = read(record, wanted)
                        if isinstance(item, Received) and item.subject in subjects:
                            found.setdefault((topic, item.subject, item.sequence), item)
        except (ReadFailed, TimeoutError):
            complete = False
    ordered = sorted(found.values(), key=lambda item: (item.time, item.subject, item.sequence))
    return [_event(item) for item in ordered], complete


def _event(item: Received) -> dict[str, Any]:
    return {
        "at": instant(item.time),
        "type": item.event.type,
        "document": item.subject,
        "sequence": item.sequence,
        "codes": _codes(item.event),
    }


def _codes(event: Event) -> dict[str, str]:
    """What an event says in codes; of its other fields nothing is shown."""
    said = ((name, getattr(event, name)) for name in type(event).model_fields)
    return {name: str(value.value) for name, value in said if isinstance(value, Enum)}
