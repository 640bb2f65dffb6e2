"""The published language stands still: within a version of an event only optional fields may be added."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel

from shared.contracts import snapshot
from shared.contracts.base import Event, Phi, PhiText, Value
from shared.contracts.snapshot import breaks, events, phi_paths, schema_of
from tests.contract.services import WIRING

EVENTS = events()
SNAPSHOTS = snapshot.committed()
NAME = re.compile(r"[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*\.v[1-9][0-9]*")

PERSONAL = {
    "family", "given", "name", "birth_date", "gender", "mobile", "phone", "email", "address", "lines", "line", "city",
    "postal_code", "postcode", "member_id", "subscriber_id", "text", "body", "message", "display", "note", "sender",
    "recipient", "ssn", "mrn",
}  # fmt: skip
"""Field names that speak of a person; where one stands in an event, it must be marked, or hold marked fields only."""


# -- what is there --------------------------------------------------------------------------------------------------


def test_every_event_has_a_snapshot_and_every_snapshot_its_event() -> None:
    assert set(SNAPSHOTS) == set(EVENTS)
    assert EVENTS


@pytest.mark.parametrize("type", EVENTS)
def test_a_change_breaks_nobody(type: str) -> None:
    assert breaks(SNAPSHOTS[type], schema_of(EVENTS[type])) == []


@pytest.mark.parametrize("type", EVENTS)
def test_the_snapshot_on_file_is_what_the_event_is(type: str) -> None:
    assert schema_of(EVENTS[type]) == SNAPSHOTS[type], "run: python -m shared.contracts.snapshot"


@pytest.mark.parametrize("type", EVENTS)
def test_an_event_type_reads_noun_fact_version(type: str) -> None:
    assert NAME.fullmatch(type)


def test_no_two_events_share_a_type() -> None:
    class Twin(Event):
        type: ClassVar[str] = "referral.sent.v1"
        topic: ClassVar[str] = "referrals.events"

    Twin.__module__ = "shared.contracts.referrals"
    try:
        with pytest.raises(ValueError, match=r"referral\.sent\.v1"):
            events()
    finally:
        Twin.__module__ = __name__
    assert events() == EVENTS


def test_every_class_that_has_a_type_in_the_source_is_among_the_events() -> None:
    written = set()
    for path in snapshot.FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "type" and node.value is not None:
                written.add(ast.literal_eval(node.value))
    assert written == set(EVENTS)


def test_every_service_has_a_module_of_events_and_publishes_on_topics_of_its_own() -> None:
    assert set(WIRING) <= set(snapshot.modules())
    for event in EVENTS.values():
        service = event.__module__.rpartition(".")[2]
        assert event.topic.split(".")[0] == service, f"{event.type} is published on {event.topic}"


def test_each_service_has_one_public_topic() -> None:
    for service in WIRING:
        topics = {event.topic for event in EVENTS.values() if event.topic.startswith(f"{service}.")}
        assert f"{service}.events" in topics


# -- personal data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", EVENTS)
def test_personal_fields_are_found_on_people_topics_alone(type: str) -> None:
    event = EVENTS[type]
    assert event.topic.endswith(".people") or not list(phi_paths(event))


def fields(model: type[BaseModel], path: str = "") -> list[str]:
    """Every path of a model, those of nested models included."""
    schema = snapshot.spelled_out(model.model_json_schema(), model.model_json_schema())

    def below(part: Any, at: str) -> list[str]:
        if isinstance(part, list):
            return [found for item in part for found in below(item, at)]
        if not isinstance(part, dict):
            return []
        found = []
        for name, field in part.get("properties", {}).items():
            here = f"{at}.{name}" if at else name
            found += [here, *below(field, here)]
        for key in part.keys() & {"items", "anyOf", "allOf"}:
            found += below(part[key], f"{at}[]" if key == "items" else at)
        return found

    return list(dict.fromkeys(below(schema, path)))


@pytest.mark.parametrize("type", EVENTS)
def test_a_field_whose_name_speaks_of_a_person_is_marked(type: str) -> None:
    event = EVENTS[type]
    marked = {path.removesuffix("[]") for path in phi_paths(event)}
    parents = {path.rpartition(".")[0] for path in marked if "." in path}
    speaking = {path for path in fields(event) if path.rpartition(".")[2] in PERSONAL}
    assert speaking <= marked | parents


def test_the_person_is_marked_through_and_through() -> None:
    assert set(phi_paths(EVENTS["person.changed.v1"])) >= {
        "family", "given[]", "birth_date", "mobile", "phone", "email", "address.lines[]", "address.city",
        "address.postal_code", "coverage.member_id",
    }  # fmt: skip


class Part(Value):
    """Something inside an event."""

    secret: PhiText
    plain: str


class Whole(Event):
    """Marks wherever they can stand."""

    one: Part | None = None
    many: tuple[Part, ...] = ()
    named: dict[str, Part] = {}
    when: Annotated[date | None, Phi()] = None
    texts: tuple[PhiText, ...] | None = None
    free: tuple[str, ...] = ()


def test_a_mark_is_found_however_deep_it_stands() -> None:
    assert set(phi_paths(Whole)) == {"one.secret", "many[].secret", "named[].secret", "when", "texts[]"}


# -- what the check sees --------------------------------------------------------------------------------------------

ALTERNATIVE = "referral.alternative-wanted.v1"
"""It has everything that an event may have: codes, lists, nested parts, enumerations, dates, defaults."""


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"]
    return found


def _remove(schema: dict[str, Any]) -> None:
    del _properties(schema)["tried"]
    schema["required"].remove("tried")


def _rename(schema: dict[str, Any]) -> None:
    _properties(schema)["amount"] = _properties(schema).pop("quantity")


def _add_required(schema: dict[str, Any]) -> None:
    _properties(schema)["ward"] = {"type": "string"}
    schema["required"].append("ward")


def _require(schema: dict[str, Any]) -> None:
    schema["required"].append("quantity")


def _no_longer_require(schema: dict[str, Any]) -> None:
    schema["required"].remove("specialty")


def _narrow_enumeration(schema: dict[str, Any]) -> None:
    schema["$defs"]["Priority"]["enum"].remove("stat")


def _widen_enumeration(schema: dict[str, Any]) -> None:
    schema["$defs"]["Priority"]["enum"].append("whenever")


def _narrow_type(schema: dict[str, Any]) -> None:
    _properties(schema)["authorization"] = _properties(schema)["authorization"]["anyOf"][0]


def _other_type(schema: dict[str, Any]) -> None:
    _properties(schema)["quantity"]["type"] = "string"


def _other_item(schema: dict[str, Any]) -> None:
    _properties(schema)["tried"]["items"] = {"type": "integer"}


def _one_for_many(schema: dict[str, Any]) -> None:
    _properties(schema)["tried"] = {"type": "string"}


def _bound(schema: dict[str, Any]) -> None:
    _properties(schema)["quantity"]["maximum"] = 5


def _pattern(schema: dict[str, Any]) -> None:
    _properties(schema)["patient_id"]["pattern"] = "^[0-9]+$"


def _format(schema: dict[str, Any]) -> None:
    _properties(schema)["authored_on"]["format"] = "date"


def _default(schema: dict[str, Any]) -> None:
    _properties(schema)["quantity"]["default"] = 2


def _remove_below(schema: dict[str, Any]) -> None:
    del schema["$defs"]["CarriedAuthorization"]["properties"]["number"]


def _require_below(schema: dict[str, Any]) -> None:
    schema["$defs"]["PacketEntry"]["required"].append("reference")


def _topic(schema: dict[str, Any]) -> None:
    schema["x-topic"] = "referrals.events"


def _type(schema: dict[str, Any]) -> None:
    schema["x-type"] = "referral.alternative-sought.v1"


def _refuse_unknown(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


BREAKING: dict[Callable[[dict[str, Any]], None], str] = {
    _remove: "tried was removed",
    _rename: "quantity was removed",
    _add_required: "ward is required now",
    _require: "quantity is required now",
    _no_longer_require: "specialty is no longer required",
    _narrow_enumeration: 'priority can no longer be "stat"',
    _widen_enumeration: 'priority can now be "whenever"',
    _narrow_type: "authorization",
    _other_type: "quantity: type",
    _other_item: "tried[]: type",
    _one_for_many: "tried",
    _bound: "quantity: maximum",
    _pattern: "patient_id: pattern",
    _format: "authored_on: format",
    _default: "quantity: default",
    _remove_below: "authorization.number was removed",
    _require_below: "packet[].reference is required now",
    _topic: "x-topic",
    _type: "x-type",
    _refuse_unknown: "additionalProperties",
}


@pytest.mark.parametrize("change", BREAKING, ids=lambda change: change.__name__.strip("_"))
def test_a_breaking_change_is_seen(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(SNAPSHOTS[ALTERNATIVE])
    change(changed)
    found = breaks(SNAPSHOTS[ALTERNATIVE], changed)
    assert any(BREAKING[change] in reason for reason in found), found


def test_a_field_that_is_no_longer_marked_is_seen() -> None:
    changed = copy.deepcopy(SNAPSHOTS["person.changed.v1"])
    changed["x-phi"].remove("email")
    assert breaks(SNAPSHOTS["person.changed.v1"], changed) == ["email is no longer marked as personal"]


@pytest.mark.parametrize("type", EVENTS)
def test_any_field_that_goes_is_seen_in_every_event(type: str) -> None:
    for name in SNAPSHOTS[type]["properties"]:
        changed = copy.deepcopy(SNAPSHOTS[type])
        del changed["properties"][name]
        assert f"{name} was removed" in breaks(SNAPSHOTS[type], changed)


def test_an_optional_field_breaks_nobody_at_the_top_or_below() -> None:
    changed = copy.deepcopy(SNAPSHOTS[ALTERNATIVE])
    changed["properties"]["ward"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    changed["$defs"]["PacketEntry"]["properties"]["pages"] = {"type": "integer", "default": 1}
    assert breaks(SNAPSHOTS[ALTERNATIVE], changed) == []


def test_other_words_for_people_break_nobody() -> None:
    changed = copy.deepcopy(SNAPSHOTS[ALTERNATIVE])
    changed["description"] = changed["title"] = "other words"
    changed["properties"]["quantity"]["title"] = "How many"
    changed["$defs"]["Coding"]["description"] = "other words"
    assert breaks(SNAPSHOTS[ALTERNATIVE], changed) == []


def test_a_field_called_title_is_a_field_and_no_words_for_people() -> None:
    old = {"properties": {"title": {"type": "string"}}}
    assert breaks(old, {"properties": {}}) == ["title was removed"]


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshot, "SCHEMAS", tmp_path)
    return tmp_path


def test_the_command_writes_what_is_on_file(folder: Path) -> None:
    assert snapshot.main() == 0
    assert snapshot.committed() == SNAPSHOTS


def test_the_command_refuses_to_write_over_what_it_would_break(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = copy.deepcopy(SNAPSHOTS[ALTERNATIVE])
    _properties(earlier)["ward"] = {"type": "string"}
    file = folder / f"{ALTERNATIVE}.json"
    file.write_text(json.dumps(earlier))

    assert snapshot.main() == 1

    assert json.loads(file.read_text()) == earlier
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert "ward was removed" in capsys.readouterr().err


def test_the_command_refuses_where_a_whole_event_is_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "referral.lost.v1.json").write_text("{}")
    assert snapshot.main() == 1
    assert "referral.lost.v1: its event was removed" in capsys.readouterr().err
