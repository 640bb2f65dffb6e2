"""Golden payloads: what publishers write and what every reader reads, the same on both sides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.contracts.base import Event
from shared.contracts.snapshot import EXAMPLES, events
from shared.kit.bus.envelope import Received, Unreadable, Unwanted, message_of, read, schema_uri
from shared.kit.bus.port import Record
from shared.kit.chassis import published_topics
from shared.kit.document import derived_id
from shared.kit.reactions import Field, OfSubject, Reactions
from shared.kit.store.repository import Entry
from tests.contract.services import WIRING, tables

EVENTS = events()
PAYLOADS: dict[str, dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(EXAMPLES.glob("*.json"))
}
CASES = [(type, name) for type, payloads in PAYLOADS.items() for name in payloads]
TABLES = tables()
AT = datetime(2026, 6, 1, 14, 0, 0, 125000, tzinfo=UTC)
SUBJECT = derived_id("example", "subject")


def record_of(type: str, payload: dict[str, Any]) -> Record:
    """An example as it comes from its topic."""
    event = EVENTS[type]
    entry = Entry(3, derived_id("event", SUBJECT, "3"), type, event.topic, AT, json.dumps(payload), None)
    message = message_of(event.topic.split(".")[0], SUBJECT, entry)
    return Record(message.topic, 0, 7, message.key.encode(), message.value, message.headers)


def rows() -> Iterator[tuple[str, str, Reactions]]:
    """Every row of every reaction table: service, event type, table."""
    for service, table in TABLES:
        for type in table.rows:
            yield service, type, table


ROWS = [
    pytest.param(type, table, id=f"{service}-{table.document.collection}-{type}") for service, type, table in rows()
]


def test_every_event_has_its_examples_and_every_example_its_event() -> None:
    assert set(PAYLOADS) == set(EVENTS)


@pytest.mark.parametrize("type", EVENTS)
def test_a_full_example_holds_every_field(type: str) -> None:
    def missing(payload: Any, model: Any, path: str) -> list[str]:
        found = []
        for name in type_fields(model):
            if name not in payload:
                found.append(f"{path}{name}")
                continue
            value = payload[name]
            part = getattr(model, name)
            for item, below in zip(
                value if isinstance(value, list) else [value], part if isinstance(part, tuple) else [part], strict=True
            ):
                if isinstance(item, dict):
                    found += missing(item, below, f"{path}{name}.")
        return found

    def type_fields(model: Any) -> list[str]:
        return list(model.__class__.model_fields)

    full = PAYLOADS[type]["full"]
    assert missing(full, EVENTS[type].model_validate(full), "") == []


@pytest.mark.parametrize(("type", "name"), CASES)
def test_a_publisher_writes_an_example_as_it_stands_here(type: str, name: str) -> None:
    payload = PAYLOADS[type][name]
    written = json.loads(EVENTS[type].model_validate(payload).model_dump_json(exclude_none=True))
    assert written == {**written, **payload}
    if name == "full":
        assert written == payload


@pytest.mark.parametrize(("type", "name"), CASES)
def test_an_example_without_any_one_of_its_required_fields_is_refused(type: str, name: str) -> None:
    for field, info in EVENTS[type].model_fields.items():
        if info.is_required():
            lacking = {key: value for key, value in PAYLOADS[type][name].items() if key != field}
            found = read(record_of(type, lacking), {type: EVENTS[type]})
            assert isinstance(found, Unreadable)
            assert field in found.reason


@pytest.mark.parametrize(("type", "table"), ROWS)
def test_whoever_reacts_reads_every_example(type: str, table: Reactions) -> None:
    wanted = {name: row.event for name, row in table.rows.items()}
    for payload in PAYLOADS[type].values():
        found = read(record_of(type, payload), wanted)
        assert isinstance(found, Received)
        assert found.event == EVENTS[type].model_validate(payload)
        assert (found.subject, found.sequence, found.time, found.mark) == (
            SUBJECT, 3, AT, f"{SUBJECT}@{EVENTS[type].topic.replace('.', '-')}",
        )  # fmt: skip


@pytest.mark.parametrize(("type", "table"), ROWS)
def test_whoever_reacts_reads_the_topic_and_finds_whom_it_concerns(type: str, table: Reactions) -> None:
    row = table.rows[type]
    assert row.event is EVENTS[type]
    assert row.event.topic in table.topics
    event = row.event.model_validate(PAYLOADS[type]["full"])
    if isinstance(row.route, OfSubject):
        return  # It goes by the envelope alone.
    found = [row.route.value(event)] if isinstance(row.route, Field) else list(row.route(event))
    assert found
    assert all(isinstance(id, str) for id in found)


@pytest.mark.parametrize(("type", "table"), ROWS)
def test_whoever_reacts_reads_what_a_newer_publisher_added(type: str, table: Reactions) -> None:
    newer = {**PAYLOADS[type]["full"], "added_in_a_later_release": {"any": ["thing", 1, None]}}
    assert isinstance(read(record_of(type, newer), {type: table.rows[type].event}), Received)


@pytest.mark.parametrize("type", EVENTS)
def test_whoever_has_no_use_for_an_event_passes_it_over(type: str) -> None:
    assert isinstance(read(record_of(type, PAYLOADS[type]["full"]), {}), Unwanted)


@pytest.mark.parametrize("type", EVENTS)
def test_the_envelope_names_type_schema_and_subject(type: str) -> None:
    headers = dict(record_of(type, PAYLOADS[type]["full"]).headers)
    assert headers["ce_type"] == type.encode()
    assert headers["ce_dataschema"] == schema_uri(type).encode()
    assert headers["ce_subject"] == SUBJECT.encode()
    assert headers["content-type"] == b"application/json"


def test_what_somebody_reacts_to_is_published_on_a_topic_that_its_service_makes() -> None:
    for service, table in TABLES:
        for row in table.rows.values():
            publisher = row.event.topic.split(".")[0]
            assert row.event.topic in published_topics(publisher), f"{service} reads {row.event.topic}"


def test_a_private_topic_is_read_by_its_own_service_alone() -> None:
    for service, table in TABLES:
        for topic in table.topics:
            owner, _, kind = topic.partition(".")
            assert kind in {"events", "people"} or owner == service, f"{service} reads {topic}"


def test_people_topics_are_read_by_the_readers_that_the_contract_names() -> None:
    readers = {service for service, table in TABLES for topic in table.topics if topic.endswith(".people")}
    assert readers == {"notifications", "prior_authorization", "directory"}


def test_every_service_reacts_to_something() -> None:
    assert {service for service, _ in TABLES} == set(WIRING)


def test_no_example_is_about_somebody_real() -> None:
    people: list[Event] = [
        EVENTS["person.changed.v1"].model_validate(p) for p in PAYLOADS["person.changed.v1"].values()
    ]
    for person in people:
        told = person.model_dump()
        assert (told["family"] or "Example-").startswith("Example-")
        assert (told["email"] or ".example").endswith(".example")
        assert all((told[field] or "+1500555").startswith("+1500555") for field in ("mobile", "phone"))
