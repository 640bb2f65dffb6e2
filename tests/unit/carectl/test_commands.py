"""The commands, against services in memory: what they say to people and to programs, and how they end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from deploy.carectl.main import app, chair
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.parking import parked_id
from tests.unit.kit.test_operations import ANN, BOB, BOX, CANARY, GROUP, Desk, letter

Json = dict[str, Any]


class Hosts(httpx.AsyncBaseTransport):
    """One service by its host; every other refuses connections."""

    def __init__(self, desk: Desk) -> None:
        self.down: set[str] = set()
        self._app = httpx.ASGITransport(app=desk.kit.chassis.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "toy.test" or request.url.host in self.down:
            raise httpx.ConnectError("nobody is there", request=request)
        return await self._app.handle_async_request(request)


class Room:
    """An operator with carectl before the toy service."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.desk = Desk(letter(ANN, 1), letter(BOB, 1))
        self.hosts = Hosts(self.desk)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(chair, "http", lambda: httpx.AsyncClient(transport=self.hosts))
        monkeypatch.setenv("CARECTL_SERVICES", "toy=http://toy.test")
        self.as_role(Role.OPERATOR)

    def as_role(self, *roles: Role) -> None:
        """Have a token of these roles."""
        self._monkeypatch.setenv("CARECTL_TOKEN", self.desk.kit.issuer.token(*roles, subject="olga"))

    def know(self, *services: str) -> None:
        """Be told of other services, too."""
        told = ",".join(f"{name}=http://{name}.test" for name in services)
        self._monkeypatch.setenv("CARECTL_SERVICES", told)

    def say(self, *words: str, expect: int = 0) -> Result:
        """Give a command."""
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == expect, (result.output, result.exception)
        assert CANARY not in result.output
        return result

    def told(self, *words: str, expect: int = 0) -> Json:
        """What a command says to programs."""
        told: Json = json.loads(self.say(*words, "--json", expect=expect).stdout)
        return told

    def park(self) -> None:
        """Have two keys parked."""

        async def arrive() -> None:
            await self.desk.arrive(ANN, 1, 2)
            await self.desk.arrive(BOB, 1)

        asyncio.run(arrive())

    def settle(self) -> None:
        asyncio.run(self.desk.kit.settle())


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def test_the_status_is_wrong_while_a_key_is_parked_and_says_so_to_people(room: Room) -> None:
    room.park()
    told = room.told("status", expect=1)
    assert set(told) == {"ok", "services", "unreachable"}
    (service,) = told["services"]
    assert set(service) == {
        "service",
        "at",
        "processes",
        "groups",
        "queues",
        "outbox",
        "parked",
        "paused",
        "going_back",
        "callees",
        "problems",
        "notices",
    }
    shown = room.say("status", expect=1).stdout
    assert "2 keys wait for somebody's word" in shown
    assert "toy.box" in room.say("status", "toy", expect=1).stdout
    assert "there is no service other" in room.say("status", "other", expect=2).output


def test_whoever_does_not_answer_is_told_of_and_the_others_are_shown(room: Room) -> None:
    room.settle()
    room.know("toy", "away")
    told = room.told("status", expect=3)
    assert list(told["unreachable"]) == ["away"]
    assert [each["service"] for each in told["services"]] == ["toy"]
    assert "away" in room.say("lag", expect=3).output
    assert "ConnectError" in room.say("status", expect=3).stdout


def test_a_token_of_another_role_is_not_allowed_anything(room: Room) -> None:
    room.as_role(Role.COORDINATOR, Role.AUDITOR)
    for words in (["status"], ["parked", "list"], ["topics", "ensure"], ["replay", GROUP, "--from", "1h", "--yes"]):
        assert "do not allow" in room.say(*words, expect=4).output
    room.as_role(Role.OPERATOR)
    assert asyncio.run(room.desk.audited()) == []


@pytest.mark.parametrize(
    ("words", "rows", "fields"),
    [
        (["lag"], "groups", {"service", "group", "topic", "readers", "records", "seconds"}),
        (["outbox"], "outbox", {"service", "document", "documents", "oldest_seconds"}),
        (["slots"], "queues", {"service", "queue", "workers", "slots"}),
        (
            ["parked", "list"],
            "keys",
            {"service", "id", "group", "key", "state", "events", "since", "type", "first", "reason"},
        ),
        (["topics", "check"], "topics", {"topic", "services", "partitions", "replication", "wanted", "problem"}),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_what_programs_are_told_keeps_its_shape(room: Room, words: list[str], rows: str, fields: set[str]) -> None:
    room.park()
    told = room.told(*words, expect=1 if words[0] == "topics" else 0)  # the broker in memory has its own partitions
    assert set(told) == {rows, "unreachable"}
    assert told[rows]
    assert {frozenset(row) - {"service"} for row in told[rows]} == {frozenset(fields) - {"service"}}
    assert room.say(*words, expect=1 if words[0] == "topics" else 0).stdout


def test_parked_keys_are_found_by_filters_shown_replayed_and_given_up(room: Room) -> None:
    room.park()
    keys = room.told("parked", "list", "--group", GROUP, "--reason", "RuntimeError")["keys"]
    assert {key["id"] for key in keys} == {parked_id(GROUP, ANN), parked_id(GROUP, BOB)}
    assert "RuntimeError at test_operations.py" in room.say("parked", "show", parked_id(GROUP, ANN)).stdout
    assert room.told("parked", "list", "--type", "letter.lost.v1")["keys"] == []

    assert "name keys" in room.say("parked", "replay", expect=2).output
    dry = room.told("parked", "replay", "--reason", "RuntimeError", "--dry-run")
    assert [key["done"] for key in dry["keys"]] == [False, False]
    room.desk.poison.clear()
    done = room.told("parked", "replay", parked_id(GROUP, ANN))
    assert [(key["done"], key["state"]) for key in done["keys"]] == [(True, "replaying")]
    room.settle()
    assert room.desk.taken == [letter(ANN, 1), letter(ANN, 2)]

    assert "--yes" in room.say("parked", "discard", parked_id(GROUP, BOB), expect=2).output
    assert room.told("parked", "discard", "--all", "--yes")["keys"][0]["id"] == parked_id(GROUP, BOB)
    room.settle()
    assert room.told("parked", "list")["keys"] == []
    assert "nothing is parked" in room.say("parked", "show", BOX, expect=5).output
    assert "nothing is parked" in room.say("parked", "replay", BOX, expect=5).output
    orders = [entry["action"] for entry in asyncio.run(room.desk.audited())]
    assert orders == ["parked.replay", "parked.discard"]


def test_nobody_is_paused_of_a_kind_that_no_service_calls(room: Room) -> None:
    room.settle()
    assert "no service calls a payer" in room.say("pause", "payer", "acme", expect=5).output
    assert room.say("pause", "doctor", "acme", expect=2)
    assert room.told("paused") == {"paused": [], "unreachable": {}}


def test_a_group_is_had_read_again_and_what_cannot_be_is_refused(room: Room) -> None:
    room.settle()
    assert room.told("replay", GROUP, "--from", "1h", "--dry-run")["dry_run"]
    assert "there is no service" in room.say("replay", "other.box", "--from", "1h", "--dry-run", expect=2).output
    assert "no such group" in room.say("replay", "toy.none", "--from", "1h", "--dry-run", expect=5).output
    assert "zone" in room.say("replay", GROUP, "--from", "2026-03-02T10:00", "--yes", expect=2).output
    told = room.told("replay", GROUP, "--from", "1h", "--yes")
    assert set(told) >= {"group", "since", "records", "partitions", "dry_run"}
    assert "has not finished" in room.say("replay", GROUP, "--from", "1h", "--yes", expect=5).output


def test_a_story_and_a_trace_of_nobody_are_told_as_such(room: Room) -> None:
    room.settle()
    nobody = derived_id("patient", "nobody")
    assert "nobody has heard" in room.say("story", nobody, expect=5).output
    assert "no service has a document" in room.say("trace", nobody, expect=5).output
    assert "id" in room.say("story", "not-an-id", expect=5).output
