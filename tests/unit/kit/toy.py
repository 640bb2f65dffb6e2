"""A small service of two document types, to test the kit with: letters come in, are counted, stamped and posted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar

import httpx
from pydantic import BaseModel, ConfigDict

from shared.contracts.base import Event, Phi
from shared.kit.api import Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.decisions import Due, Facts, Ref
from shared.kit.document import Attempt, Document, derived_id
from shared.kit.errors import Invalid
from shared.kit.jobs import Jobs, call, timer
from shared.kit.reactions import Field, Reactions, on
from shared.kit.service import Service
from shared.kit.settings import KitSettings


class LetterArrived(Event):
    """Somebody else's event."""

    type: ClassVar[str] = "letter.arrived.v1"
    topic: ClassVar[str] = "elsewhere.events"
    letter_id: str
    boxes: tuple[str, ...]
    text: Annotated[str, Phi()] = ""


class LetterCounted(Event):
    type: ClassVar[str] = "letter.counted.v1"
    topic: ClassVar[str] = "toy.events"
    box_id: str
    count: int


class BoxOpened(Event):
    type: ClassVar[str] = "box.opened.v1"
    topic: ClassVar[str] = "toy.events"
    box_id: str


class BoxState(StrEnum):
    OPEN = "open"
    FULL = "full"
    CLOSED = "closed"


class Box(Document):
    collection: ClassVar[str] = "box"
    indexes: ClassVar[tuple[str, ...]] = ("owner",)
    transitions: ClassVar = {
        BoxState.OPEN: frozenset({BoxState.FULL, BoxState.CLOSED}),
        BoxState.FULL: frozenset({BoxState.CLOSED}),
        BoxState.CLOSED: frozenset(),
    }
    terminal: ClassVar = frozenset({BoxState.CLOSED})

    state: BoxState = BoxState.OPEN
    owner: str = ""
    letters: list[str] = []
    sent: list[str] = []
    escalations: int = 0
    unknown: int = 0


class Stamp(Document):
    """Counts what the boxes counted; fed by the service's own events."""

    collection: ClassVar[str] = "stamp"
    total: int = 0


class OpenBox(BaseModel):
    model_config = ConfigDict(extra="forbid")

    owner: str
    limit_days: int = 3


class PutLetter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    letter: DocumentId


POISON = "poison"
UNSTORABLE = "unstorable"


CURED: set[str] = set()
"""Letters whose poison a newer release can take: what a fix of the code amounts to."""


def take(box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
    if event.text == POISON and event.letter_id not in CURED:
        raise Invalid("this letter cannot be taken")
    box = box or Box(id=facts.id)
    box.letters.append(event.letter_id)
    if event.text == UNSTORABLE:
        box.owner = "\ud800"
    box.record(LetterCounted(box_id=box.id, count=len(box.letters)))
    return box


def open_box(box: Box | None, command: tuple[str, OpenBox], facts: Facts, now: datetime) -> Box:
    id, asked = command
    made = Box(id=id, owner=asked.owner)
    made.expect("clerk", "nothing-came", now, timedelta(days=asked.limit_days))
    made.record(BoxOpened(box_id=id))
    return made


def put_letter(box: Box, command: PutLetter, facts: Facts, now: datetime) -> Box:
    box.letters.append(command.letter)
    box.met()
    box.wake("send", now)
    box.record(LetterCounted(box_id=box.id, count=len(box.letters)))
    return box


def close_box(box: Box, command: object, facts: Facts, now: datetime) -> Box:
    box.move(BoxState.CLOSED)
    box.met()
    box.rest("send")
    return box


def escalate(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
    if box.overdue(now) is not None:
        box.escalations += 1
    return box


def count_total(stamp: Stamp | None, event: LetterCounted, facts: Facts, now: datetime) -> Stamp:
    stamp = stamp or Stamp(id=derived_id("stamp", event.box_id))
    box = facts.get(Box, event.box_id)
    assert box is not None
    stamp.total = max(stamp.total, event.count)
    return stamp


def prepare(box: Box, due: Due, facts: Facts, now: datetime) -> Box:
    if box.state is BoxState.OPEN:
        box.intend("send", now)
    return box


def may_send(box: Box, facts: Facts, now: datetime) -> bool:
    return box.state is BoxState.OPEN


def settle(box: Box, outcome: object, facts: Facts, now: datetime) -> Box:
    if isinstance(outcome, str):
        box.sent.append(outcome)
    else:
        box.unknown += 1
    return box


Sender = Callable[[Box, Attempt, Facts], Awaitable[object]]


async def send_nothing(box: Box, attempt: Attempt, facts: Facts) -> object:
    return attempt.id


REACTIONS = (
    Reactions(Box, on(LetterArrived, lambda e: e.boxes, take, creates=True, when=[BoxState.OPEN])),
    Reactions(
        Stamp,
        on(
            LetterCounted,
            lambda e: [derived_id("stamp", e.box_id)],
            count_total,
            creates=True,
            wants=lambda e, d: [Ref(Box, e.box_id)],
        ),
    ),
)

BY_OWNER = Field("owner", lambda e: e.letter_id)


def jobs(send: Sender = send_nothing, *, idempotent: bool = True) -> tuple[Jobs, ...]:
    return (
        Jobs(
            Box,
            timer("deadline", escalate),
            call("send", prepare=prepare, perform=send, settle=settle, check=may_send, idempotent=idempotent),
        ),
    )


def routes() -> Routes:
    made = Routes("/boxes")

    @made.post("", roles={Role.COORDINATOR}, status=201)
    async def create(body: OpenBox, call: Call) -> Reply:
        id = call.new_id("box")
        return await call.create(Box, id, (id, body), open_box)

    @made.get("/{box_id}", roles={Role.COORDINATOR, Role.AUDITOR})
    async def read(box_id: DocumentId, call: Call) -> Reply:
        box = await call.read(Box, box_id)
        return call.show(box, {"id": box.id, "letters": len(box.letters), "state": box.state})

    @made.post("/{box_id}/letters", roles={Role.COORDINATOR})
    async def put(box_id: DocumentId, body: PutLetter, call: Call) -> Reply:
        return await call.change(Box, box_id, body, put_letter)

    @made.post("/{box_id}/close", roles={Role.COORDINATOR})
    async def close(box_id: DocumentId, call: Call) -> Reply:
        return await call.change(Box, box_id, None, close_box)

    return made


def build(
    settings: KitSettings, http: httpx.AsyncClient, *, send: Sender = send_nothing, idempotent: bool = True
) -> Service:
    return Service("toy", (Box, Stamp), REACTIONS, jobs(send, idempotent=idempotent), (routes(),))
