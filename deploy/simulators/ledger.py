"""What the simulators took, and when: the record that tests compare CareRelay's own stores with.

Kept in memory and served at ``GET /ledger``. A JSON-lines copy is appended to a file, so that a run can be read after
its processes are gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from shared.contracts.prior_authorization import ReviewAction


def stamp(at: datetime) -> str:
    """A time as the simulators write it: UTC, milliseconds, ``Z``. It is a FHIR instant too."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def earliest(times: Iterable[datetime | None]) -> datetime | None:
    """The first of the times that are there."""
    return min((at for at in times if at is not None), default=None)


Moment = Annotated[datetime, PlainSerializer(stamp, when_used="json")]


class Fact(BaseModel):
    """Part of a ledger. Fields with a Python keyword for a name are read and written under their own."""

    model_config = ConfigDict(populate_by_name=True)


class Sent(Fact):
    """One try to tell a service something. ``status`` is the HTTP status, None where no answer came."""

    at: Moment
    status: int | None


# -- payer ----------------------------------------------------------------------------------------------------------


class Received(Fact):
    """A submission that was taken. ``duplicates`` are the times at which the same one came again."""

    attempt_id: str
    certification_type: str
    related: str | None
    received_at: Moment
    idempotency_key: str | None
    units_requested: int
    duplicates: list[Moment] = []


class Ruling(Fact):
    """A decision: X12 306 action, and what was granted, dates inclusive. ``claim`` is the attempt id it answers.

    ``human_reviewed``: whether a person looked at it, where the payer says so.
    """

    at: Moment
    claim: str
    action: ReviewAction
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units_requested: int
    units_granted: int
    reasons: tuple[str, ...] = ()
    human_reviewed: bool | None = None


class Notification(Fact):
    """A decision notification: when it was due, every try, and whether the subscriber took it."""

    claim: str
    due: Moment
    sent: list[Sent] = []
    accepted: bool = False


class Authorization(Fact):
    """One case of a payer: a first submission and all that relate to it. ``id`` is the first one's attempt id."""

    payer_id: str
    id: str
    member_id: str
    claims: list[Received] = []
    inquiries: list[Moment] = []
    history: list[Ruling] = []
    notifications: list[Notification] = []
    current: Ruling | None = None


class EligibilityCheck(Fact):
    """One eligibility request. ``in_force`` is None where the member was not known."""

    payer_id: str
    member_id: str
    at: Moment
    in_force: bool | None


class Requests(Fact):
    """How many requests a payer got, refused ones among them and by themselves."""

    eligibility: int = 0
    submit: int = 0
    inquire: int = 0
    refused: int = 0


class PayerLedger(Fact):
    """All that the payers took."""

    authorizations: list[Authorization] = []
    eligibility: list[EligibilityCheck] = []
    requests: dict[str, Requests] = {}


# -- gateway --------------------------------------------------------------------------------------------------------


class MessageChannel(StrEnum):
    """By which of the gateway's doors a message came."""

    SMS = "sms"
    VOICE = "voice"
    EMAIL = "email"
    LETTER = "letter"


class MessageStatus(StrEnum):
    """What became of an accepted message."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"


class Message(Fact):
    """One accepted message. ``repeats`` are the times at which its key came again and was not sent again."""

    id: str
    channel: MessageChannel
    to: str
    sender: str = Field(alias="from")
    subject: str | None = None
    body: str
    reference: str | None
    language: str = "en"
    key: str
    accepted_at: Moment
    repeats: list[Moment] = []
    status: MessageStatus = MessageStatus.ACCEPTED
    callbacks: list[Sent] = []


class RefusedMessage(Fact):
    """A request that was not answered with success; ``status`` is the HTTP status or SMTP reply code, 0 where
    the connection was cut instead."""

    channel: MessageChannel
    key: str | None
    at: Moment
    status: int


class InboundReply(Fact):
    """What a person sent back, and the tries to hand it to notifications."""

    id: str
    channel: MessageChannel
    sender: str = Field(alias="from")
    to: str
    body: str
    received_at: Moment
    sent: list[Sent] = []
    accepted: bool = False


class GatewayLedger(Fact):
    """All that the gateway took, refused and forwarded."""

    messages: list[Message] = []
    refused: list[RefusedMessage] = []
    replies: list[InboundReply] = []

    @property
    def keys(self) -> Counter[str]:
        """How many messages were accepted under each key."""
        return Counter(message.key for message in self.messages)

    @property
    def references(self) -> Counter[str]:
        """How many messages were accepted under each reference."""
        return Counter(message.reference for message in self.messages if message.reference is not None)


# -- the copy on disk -----------------------------------------------------------------------------------------------


class Journal:
    """Appends one JSON object a line. Each line is handed to the operating system before the answer is."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, at: datetime, what: str, fact: Fact | Mapping[str, object]) -> None:
        """Append ``fact`` under the name ``what``."""
        if self._path is None:
            return
        plain = fact.model_dump(mode="json", by_alias=True) if isinstance(fact, Fact) else dict(fact)
        line = json.dumps({"at": stamp(at), "what": what, **{k: v for k, v in plain.items() if k != "at"}})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
