"""CloudEvents 1.0 in Kafka's binary mode: attributes as headers, the event's JSON as the value.

Reading is tolerant: what cannot be read comes back as Unreadable with a reason, never as an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from shared.contracts.base import Event
from shared.kit.bus.port import Message, Record
from shared.kit.decisions import Envelope
from shared.kit.telemetry import well_formed

if TYPE_CHECKING:
    from shared.kit.store.repository import Entry

CE_ID = "ce_id"
CE_SOURCE = "ce_source"
CE_SPECVERSION = "ce_specversion"
CE_TYPE = "ce_type"
CE_TIME = "ce_time"
CE_SUBJECT = "ce_subject"
CE_SEQUENCE = "ce_sequence"
CE_DATASCHEMA = "ce_dataschema"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"


def schema_uri(type: str) -> str:
    """Where the JSON Schema of an event type stands, relative to the repository."""
    return f"urn:carerelay:schema:{type}"


def message_of(service: str, document_id: str, entry: Entry) -> Message:
    """The Kafka message of one event in an outbox."""
    headers = [
        (CE_SPECVERSION, b"1.0"),
        (CE_ID, entry.id.encode()),
        (CE_SOURCE, f"/carerelay/{service}".encode()),
        (CE_TYPE, entry.type.encode()),
        (CE_TIME, entry.time.isoformat().replace("+00:00", "Z").encode()),
        (CE_SUBJECT, document_id.encode()),
        (CE_SEQUENCE, str(entry.sequence).encode()),
        (CE_DATASCHEMA, schema_uri(entry.type).encode()),
        (CONTENT_TYPE, b"application/json"),
    ]
    if entry.trace:
        headers.append((TRACEPARENT, entry.trace.encode()))
    return Message(entry.topic, entry.key or document_id, entry.data.encode(), tuple(headers))


@dataclass(frozen=True, slots=True)
class Received:
    """An event as it arrived, with what its envelope says."""

    record: Record
    event: Event
    id: str
    subject: str
    sequence: int
    time: datetime
    trace: str | None

    @property
    def mark(self) -> str:
        """Under what its sequence is remembered: per upstream document and topic, since topics keep no common order."""
        return mark(self.subject, self.record.topic)

    def envelope(self) -> Envelope:
        """For a decision that passes the event on as it came."""
        data = (self.record.value or b"").decode()
        return Envelope(self.id, self.record.topic, self.subject, self.sequence, self.time, data, self.trace)


@dataclass(frozen=True, slots=True)
class Unwanted:
    """An event of a type that this reader has no use for."""

    record: Record


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that cannot be understood; ``reason`` shows nothing of it."""

    record: Record
    reason: str


def mark(subject: str, topic: str) -> str:
    """The key of an upstream document's high-water mark in ``applied``."""
    return f"{subject}@{topic.replace('.', '-')}"


def read(record: Record, wanted: Mapping[str, type[Event]]) -> Received | Unwanted | Unreadable:
    """What a record holds, for a reader of these event types."""
    try:
        headers = {name: value.decode() for name, value in record.headers}
    except UnicodeDecodeError:
        return Unreadable(record, "a header is not UTF-8")
    type = headers.get(CE_TYPE)
    if type is None:
        return Unreadable(record, f"header {CE_TYPE} is missing")
    event_type = wanted.get(type)
    if event_type is None:
        return Unwanted(record)
    missing = [name for name in (CE_ID, CE_SUBJECT, CE_SEQUENCE, CE_TIME) if name not in headers]
    if missing:
        return Unreadable(record, f"header {missing[0]} is missing")
    try:
        sequence = int(headers[CE_SEQUENCE])
        time = datetime.fromisoformat(headers[CE_TIME].replace("Z", "+00:00"))
    except ValueError:
        return Unreadable(record, f"header {CE_SEQUENCE} or {CE_TIME} cannot be read")
    if sequence < 1:
        return Unreadable(record, f"header {CE_SEQUENCE} is not positive")
    try:
        event = event_type.model_validate_json(record.value or b"")
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in flaw["loc"]) or "(whole)" for flaw in error.errors()})
        kinds = sorted({flaw["type"] for flaw in error.errors()})
        known = [place for place in places if place.split(".")[0] in (*event_type.model_fields, "(whole)")]
        return Unreadable(record, f"{type} does not fit its schema at {', '.join(known)} ({', '.join(kinds)})")
    if record.key != (event.key() or headers[CE_SUBJECT]).encode():
        return Unreadable(record, "the key is not the subject")
    trace = well_formed(headers.get(TRACEPARENT))
    return Received(record, event, headers[CE_ID], headers[CE_SUBJECT], sequence, time, trace)
