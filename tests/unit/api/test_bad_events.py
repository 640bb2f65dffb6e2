"""Bad events to every reaction of every service: parked with a reason, nothing written, and nobody else waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shared.contracts.base import Event
from shared.contracts.snapshot import EXAMPLES, events
from shared.kit.bus.envelope import message_of
from shared.kit.bus.port import Record
from shared.kit.document import derived_id
from shared.kit.parking import Parked, ParkedState
from shared.kit.reactions import Reaction, Reactions
from shared.kit.store.repository import Entry
from shared.kit.testing.harness import Harness
from tests.contract.services import WIRING, declared
from tests.unit.api.doors import harness, stored

EVENTS = events()


def example(event: type[Event], name: str = "full") -> dict[str, Any]:
    """A golden payload."""
    payloads: dict[str, dict[str, Any]] = json.loads((EXAMPLES / f"{event.type}.json").read_text(encoding="utf-8"))
    return payloads[name]


def rows(service: str) -> Iterator[tuple[Reactions, Reaction]]:
    """Every row of a service's reaction tables."""
    for table in declared(service).reactions:
        yield from ((table, row) for row in table.rows.values())


def group(service: str, table: Reactions) -> str:
    """The consumer group of a table."""
    return f"{service}.{table.document.collection}"


def put(served: Harness, record: Record) -> None:
    """A record on its topic, as it is: whatever a publisher could have sent."""
    partition = served.broker.partition_of((record.key or b"").decode(errors="replace"))
    log = served.broker.topic(record.topic)[partition]
    log.append(Record(record.topic, partition, len(log), record.key, record.value, record.headers))
    served.broker.appended += 1


def record_of(event: type[Event], subject: str, payload: object, sequence: int = 1) -> Record:
    """A good record but for its payload."""
    at = harness("directory").clock.now()
    entry = Entry(sequence, derived_id("e", subject), event.type, event.topic, at, json.dumps(payload), None)
    message = message_of("elsewhere", subject, entry)
    return Record(message.topic, 0, 0, message.key.encode(), message.value, message.headers)


def changed(record: Record, **changes: Any) -> Record:
    """A record that differs in one thing; a header set to None is gone."""
    headers = dict(record.headers)
    for name, value in changes.pop("headers", {}).items():
        if value is None:
            headers.pop(name)
        else:
            headers[name] = value
    parts = {"key": record.key, "value": record.value, **changes}
    return Record(record.topic, 0, 0, parts["key"], parts["value"], tuple(headers.items()))


def bad_records(event: type[Event]) -> Iterator[tuple[str, Record, str]]:
    """What is wrong, the record, and a word of the reason that is to be given. Each has a key of its own."""

    def good(kind: str) -> Record:
        return record_of(event, derived_id("bad", event.type, kind), example(event))

    whole = example(event)
    required = next(name for name, field in event.model_fields.items() if field.is_required())
    yield "no json", changed(good("no json"), value=b'{"half": '), "(whole)"
    yield "no utf-8", changed(good("no utf-8"), value=b'{"a": "\xff"}'), "(whole)"
    yield "no value", changed(good("no value"), value=None), "(whole)"
    yield "empty", changed(good("empty"), value=b""), "(whole)"
    yield "no object", changed(good("no object"), value=b"[1, 2]"), "(whole)"
    yield "deep", changed(good("deep"), value=b"[" * 100_000), "(whole)"
    lacking = {name: value for name, value in whole.items() if name != required}
    yield "lacking", changed(good("lacking"), value=json.dumps(lacking).encode()), required
    wrong = {**whole, required: {"of": ["another", "type"]}}
    yield "wrong type", changed(good("wrong type"), value=json.dumps(wrong).encode()), required
    for header in ("ce_id", "ce_subject", "ce_sequence", "ce_time"):
        yield f"no {header}", changed(good(f"no {header}"), headers={header: None}), header
    for header, value in {"ce_sequence": b"many", "ce_time": b"yesterday"}.items():
        yield f"bad {header}", changed(good(f"bad {header}"), headers={header: value}), header
    for value in (b"0", b"-1"):
        yield f"sequence {value!r}", changed(good(f"sequence {value!r}"), headers={"ce_sequence": value}), "positive"
    yield "header bytes", changed(good("header bytes"), headers={"ce_source": b"\xff\xfe"}), "UTF-8"
    yield "another key", changed(good("another key"), key=derived_id("another", event.type).encode()), "key"


def parked_of(served: Harness) -> dict[tuple[str, str], Parked]:
    """What is parked: by group and key."""
    collection = served.store.collections.get("parked")
    found = [] if collection is None else [collection.get(id) for id in collection.texts]
    parsed = [Parked.model_validate({"id": raw["_id"], **raw}) for raw in found]
    return {(parked.group, parked.key): parked for parked in parsed if parked.state is not ParkedState.CLEAR}


def domain(served: Harness) -> dict[str, Any]:
    """What is stored beside what is parked."""
    return {place: document for place, document in stored(served.store).items() if not place.startswith("parked/")}


ROWS = [
    pytest.param(service, table, row, id=f"{group(service, table)} {row.event.type}")
    for service in WIRING
    for table, row in rows(service)
]


@pytest.mark.parametrize(("service", "table", "row"), ROWS)
async def test_a_bad_record_is_parked_with_its_reason_and_keeps_nobody_else_waiting(
    service: str, table: Reactions, row: Reaction
) -> None:
    """Between bad ones, in the same batch and the same partitions, a good one is taken in as if it were alone."""
    served, alone = harness(service), harness(service)
    subject = derived_id("good", row.event.type)
    good = record_of(row.event, subject, example(row.event))
    bad = list(bad_records(row.event))
    half = len(bad) // 2
    for record in (*(r for _, r, _ in bad[:half]), good, *(r for _, r, _ in bad[half:])):
        put(served, record)
    put(alone, good)

    await served.settle()
    await alone.settle()

    parked = parked_of(served)
    for kind, record, reason in bad:
        entry = parked[group(service, table), (record.key or b"").decode()].entries[0]
        assert reason in entry.reason, f"{kind}: {entry.reason}"
        assert entry.value == record.value
    assert (group(service, table), subject) not in parked
    assert domain(served) == domain(alone)
    assert served.broker.lag() == 0


@pytest.mark.parametrize("service", WIRING)
async def test_a_record_without_a_type_or_key_is_parked_by_whoever_reads_its_topic(service: str) -> None:
    served = harness(service)
    await served.start()
    before = domain(served)
    for _, row in rows(service):
        good = record_of(row.event, derived_id("untyped", row.event.topic), example(row.event))
        put(served, changed(good, headers={"ce_type": None}))
        put(served, changed(good, key=None))

    await served.settle()

    parked = parked_of(served)
    for table, row in rows(service):
        assert "ce_type" in parked[group(service, table), derived_id("untyped", row.event.topic)].entries[0].reason
        assert (group(service, table), "") in parked
    assert domain(served) == before
    assert served.broker.lag() == 0


@pytest.mark.parametrize("service", WIRING)
async def test_an_event_of_a_type_never_heard_of_is_passed_over(service: str) -> None:
    served = harness(service)
    await served.start()
    before = stored(served.store)
    for _, row in rows(service):
        good = record_of(row.event, derived_id("unknown"), example(row.event))
        put(served, changed(good, headers={"ce_type": b"referral.teleported.v9"}, value=b"\xff not even JSON"))

    await served.settle()

    assert stored(served.store) == before
    assert served.broker.lag() == 0


CREATING = [
    pytest.param(service, table, row, id=f"{group(service, table)} {row.event.type}")
    for service in WIRING
    for table, row in rows(service)
    if row.creates and callable(row.route)
]


@pytest.mark.parametrize(("service", "table", "row"), CREATING)
async def test_what_follows_a_bad_event_waits_behind_it_and_goes_on_when_it_is_discarded(
    service: str, table: Reactions, row: Reaction
) -> None:
    served, alone = harness(service), harness(service)
    subject = derived_id("follows", row.event.type)
    good = record_of(row.event, subject, example(row.event), sequence=2)
    put(served, changed(record_of(row.event, subject, example(row.event)), value=b"{}"))
    put(served, good)
    put(alone, good)
    await served.settle()
    await alone.settle()

    waiting = parked_of(served)[group(service, table), subject]
    assert len(waiting.entries) == 2
    assert domain(served) != domain(alone) or not domain(alone)
    for place in [parked.id for (_, key), parked in parked_of(served).items() if key == subject]:
        await served.chassis.parking.discard(place, "operator")
    await served.settle()

    assert parked_of(served) == {}
    assert domain(served) == domain(alone)


@pytest.mark.parametrize(("service", "table", "row"), CREATING)
async def test_an_event_that_leads_to_one_too_large_to_publish_is_parked_and_nothing_is_written(
    service: str, table: Reactions, row: Reaction
) -> None:
    served, roomy = harness(service, max_event_bytes=10), harness(service)
    record = record_of(row.event, derived_id("large", row.event.type), example(row.event))
    for each in (served, roomy):
        put(each, record)
        await each.settle()

    recorded = [
        document for name, document in domain(roomy).items() if name.startswith(f"{table.document.collection}/")
    ]
    if not any(document["sequence"] for document in recorded):
        assert parked_of(served) == parked_of(roomy) == {} or not recorded
        return
    entry = parked_of(served)[group(service, table), derived_id("large", row.event.type)].entries[0]
    assert "larger than 10 bytes" in entry.reason
    assert not any(name.startswith(f"{table.document.collection}/") for name in domain(served))
    assert served.broker.lag() == 0


def test_every_service_but_intake_records_something_on_what_it_hears() -> None:
    """So that the test above has something to look at. Intake creates nothing by events."""
    assert {param.values[0] for param in CREATING} == set(WIRING) - {"intake"}
