"""What operators see and change of a service over HTTP: audited, safe to ask twice, and nobody's data shown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.kit.auth import Role
from shared.kit.bus.port import Batch, Record
from shared.kit.decisions import Facts
from shared.kit.document import derived_id
from shared.kit.parking import Parked, ParkedState, parked_id
from shared.kit.pausing import Pausable
from shared.kit.presence import EVERY, Life, Presence, processes
from shared.kit.reactions import Reactions, on
from shared.kit.rewinding import Rewind, RewindState
from shared.kit.service import Service
from shared.kit.settings import KitSettings
from shared.kit.store.port import Found
from shared.kit.testing.harness import Harness
from shared.kit.testing.memory_bus import MemoryBus
from tests.unit.kit.toy import REACTIONS, Box, BoxState, LetterArrived, Stamp, jobs, routes, take

GROUP = "toy.box"
CANARY = "Synthea-Canary"
ANN, BOB = (derived_id("sender", name) for name in ("ann", "bob"))
BOX = derived_id("box", "one")

Json = dict[str, Any]


def letter(subject: str, sequence: int) -> str:
    """The name of a sender's letter."""
    return f"{subject[:4]}-{sequence}"


class Desk:
    """The toy service, whose decision fails on some letters until it is mended, and an operator before it."""

    def __init__(self, *poison: str) -> None:
        self.poison = set(poison)
        self.taken: list[str] = []
        self.read: list[Record] = []
        """What its group was handed."""
        self.kit = Harness(KitSettings, self._build)
        self._reader: Any = next(each for each in self.kit.chassis.readers if each.group == GROUP)
        self._handle = self._reader.handle
        self._reader.handle = self._noting

    async def _noting(self, batch: Batch) -> None:
        self.read.extend(batch)
        await self._handle(batch)

    def _build(self, settings: KitSettings, http: httpx.AsyncClient) -> Service:
        table = Reactions(Box, on(LetterArrived, lambda e: e.boxes, self._take, creates=True, when=[BoxState.OPEN]))
        owners = Pausable("owner", of={Box: lambda box: box.owner})
        return Service("toy", (Box, Stamp), (table, REACTIONS[1]), jobs(), (routes(),), pausable=(owners,))

    def _take(self, box: Box | None, event: LetterArrived, facts: Facts, now: datetime) -> Box:
        if event.letter_id in self.poison:
            raise RuntimeError(CANARY)
        self.taken.append(event.letter_id)
        return take(box, event, facts, now)

    async def arrive(self, subject: str, *sequences: int) -> None:
        for sequence in sequences:
            event = LetterArrived(letter_id=letter(subject, sequence), boxes=(BOX,), text=CANARY)
            await self.kit.arrive(event, subject, sequence)
        await self.kit.settle()

    async def get(self, path: str, **params: Any) -> Json:
        async with self.kit.client(Role.OPERATOR, subject="olga") as client:
            answer = await client.get(f"/operations{path}", params=params)
        assert answer.status_code == 200, answer.text
        assert CANARY not in answer.text
        told: Json = answer.json()
        return told

    async def post(self, path: str, body: Json, *, expect: int = 200, key: str | None = None) -> Json:
        async with self.kit.client(Role.OPERATOR, subject="olga") as client:
            headers = self.kit.key() if key is None else {"Idempotency-Key": key}
            answer = await client.post(f"/operations{path}", json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        assert CANARY not in answer.text
        told: Json = answer.json()
        return told

    async def audited(self) -> list[Found]:
        """The changes that were written to the audit trail, in their order."""
        found = await self.kit.store.find("audit", {})
        return [entry for entry in found if entry["action"] != "read"]


async def test_no_one_but_an_operator_sees_or_changes_anything() -> None:
    desk = Desk()
    others = set(Role) - {Role.OPERATOR}
    async with desk.kit.client(*others) as client:
        assert (await client.get("/operations/status")).status_code == 403
        body = {"kind": "owner", "name": "ann", "state": "paused"}
        assert (await client.post("/operations/paused", json=body, headers=desk.kit.key())).status_code == 403
    assert await desk.audited() == []
    assert (await desk.get("/paused"))["paused"] == []


# -- what is parked -------------------------------------------------------------------------------------------------


async def test_what_is_parked_is_listed_by_group_reason_and_type_the_longest_waiting_first() -> None:
    desk = Desk(letter(ANN, 1), letter(BOB, 1))
    await desk.arrive(BOB, 1)
    desk.kit.clock.pass_(60)
    await desk.arrive(ANN, 1, 2)

    everything = (await desk.get("/parked"))["keys"]
    assert [(key["key"], key["events"], key["type"]) for key in everything] == [
        (BOB, 1, "letter.arrived.v1"),
        (ANN, 2, "letter.arrived.v1"),
    ]
    assert all("RuntimeError at test_operations.py" in key["reason"] for key in everything)
    assert [key["key"] for key in (await desk.get("/parked", limit=1))["keys"]] == [BOB]
    assert (await desk.get("/parked", group=GROUP, reason="RuntimeError", type="letter.arrived.v1"))[
        "keys"
    ] == everything
    for other in ({"group": "toy.stamp"}, {"reason": "ValueError"}, {"type": "letter.lost.v1"}):
        assert (await desk.get("/parked", **other))["keys"] == []


async def test_a_parked_key_is_shown_with_reasons_and_places_and_nobodys_data() -> None:
    desk = Desk(letter(ANN, 1))
    await desk.arrive(ANN, 1, 2)
    shown = await desk.get(f"/parked/{parked_id(GROUP, ANN)}")
    assert [entry["sequence"] for entry in shown["entries"]] == ["1", "2"]
    assert shown["entries"][1]["reason"] == "waits behind an earlier event"
    assert shown["first"] == shown["entries"][0]["place"]
    (entry,) = [each for each in await desk.kit.store.find("audit", {}) if each["ids"] == [parked_id(GROUP, ANN)]]
    assert (entry["caller"], entry["action"], entry["document"]) == ("olga", "read", "Parked")


async def test_a_dry_run_tells_what_a_replay_would_do_and_does_nothing() -> None:
    desk = Desk(letter(ANN, 1))
    await desk.arrive(ANN, 1, 2)
    desk.poison.clear()
    id = parked_id(GROUP, ANN)

    told = await desk.post("/parked/replay", {"ids": [id, BOX], "dry_run": True})
    await desk.kit.settle()
    assert [(key["done"], key["refused"]) for key in told["keys"]] == [(False, None), (False, "not-found")]
    assert told["keys"][0]["events"] == 2
    assert desk.taken == []
    assert await desk.audited() == []

    told = await desk.post("/parked/replay", {"ids": [id, BOX]})
    await desk.kit.settle()
    assert [(key["done"], key["refused"]) for key in told["keys"]] == [(True, None), (False, "not-found")]
    assert desk.taken == [letter(ANN, 1), letter(ANN, 2)]
    (order,) = await desk.audited()
    assert (order["caller"], order["action"], order["ids"]) == ("olga", "parked.replay", [id, BOX])


async def test_a_discard_that_is_asked_for_twice_gives_up_one_event() -> None:
    desk = Desk(letter(ANN, 1), letter(ANN, 2))
    await desk.arrive(ANN, 1, 2, 3)
    id = parked_id(GROUP, ANN)
    first = (await desk.get(f"/parked/{id}"))["first"]

    for again in range(2):
        told = await desk.post("/parked/discard", {"keys": [{"id": id, "first": first}]})
        await desk.kit.settle()
        assert told["keys"][0]["refused"] == (None, "conflict")[again]
    held = await desk.kit.stored(Parked, id)
    assert held is not None
    assert held.state is ParkedState.PARKED
    assert [(each.place, each.by) for each in held.discarded] == [(first, "olga")]
    assert len(held.entries) == 2


# -- pausing --------------------------------------------------------------------------------------------------------


async def box_of(desk: Desk, owner: str) -> str:
    """A box whose letter is to be sent to its owner at once."""
    async with desk.kit.client(Role.COORDINATOR) as client:
        made = (await client.post("/boxes", json={"owner": owner}, headers=desk.kit.key())).json()
        await client.post(f"/boxes/{made['id']}/letters", json={"letter": BOX}, headers=desk.kit.key())
    id: str = made["id"]
    return id


async def sent(desk: Desk, id: str) -> int:
    box = await desk.kit.stored(Box, id)
    assert box is not None
    return len(box.sent)


async def test_calls_to_whoever_is_paused_wait_and_go_on_when_he_is_resumed() -> None:
    desk = Desk()
    told = await desk.post("/paused", {"kind": "owner", "name": "ann", "state": "paused"})
    assert told["state"] == "paused"
    hers, his = await box_of(desk, "ann"), await box_of(desk, "bob")
    await desk.kit.settle()
    assert (await sent(desk, hers), await sent(desk, his)) == (0, 1)
    status = await desk.get("/status")
    assert [notice["subject"] for notice in status["notices"]] == ["owner ann"]
    (paused,) = (await desk.get("/paused"))["paused"]
    assert (paused["name"], paused["by"]) == ("ann", "olga")

    desk.kit.clock.pass_(3600)
    await desk.kit.settle()
    assert await sent(desk, hers) == 0

    await desk.post("/paused", {"kind": "owner", "name": "ann", "state": "running"})
    await desk.kit.settle()
    assert await sent(desk, hers) == 1
    assert (await desk.get("/paused"))["paused"] == []
    assert [entry["action"] for entry in await desk.audited()] == ["callee.paused", "callee.running"]


async def test_deadlines_go_on_while_calls_wait() -> None:
    desk = Desk()
    await desk.post("/paused", {"kind": "owner", "name": "ann", "state": "paused"})
    async with desk.kit.client(Role.COORDINATOR) as client:
        made = (await client.post("/boxes", json={"owner": "ann"}, headers=desk.kit.key())).json()
    await desk.kit.settle()
    desk.kit.clock.pass_(timedelta(days=4).total_seconds())
    await desk.kit.settle()
    box = await desk.kit.stored(Box, made["id"])
    assert box is not None
    assert box.escalations == 1


async def test_a_pause_is_known_to_a_process_that_starts_and_to_others_when_they_ask() -> None:
    desk = Desk()
    await desk.post("/paused", {"kind": "owner", "name": "ann", "state": "paused"})
    other = desk.kit.chassis.pauses
    assert ("owner", "ann") in other.now
    later = type(other)(desk.kit.store, desk.kit.chassis.service.pausable)
    assert not later.hold(Box(id=BOX, owner="ann"))
    assert await later.refresh()
    assert later.hold(Box(id=BOX, owner="ann"))
    assert not later.hold(Box(id=BOX, owner="bob"))
    assert not later.hold(Stamp(id=BOX))
    assert not await later.refresh(), "nothing has changed since"


async def test_who_cannot_be_paused_here_is_refused_by_name_and_a_dry_run_changes_nothing() -> None:
    desk = Desk()
    refused = await desk.post("/paused", {"kind": "payer", "name": "acme", "state": "paused"}, expect=422)
    assert [flaw["path"] for flaw in refused["errors"]] == ["kind"]
    told = await desk.post("/paused", {"kind": "owner", "name": "ann", "state": "paused", "dry_run": True})
    assert (told["state"], told["dry_run"]) == ("running", True)
    assert await desk.audited() == []
    assert (await desk.get("/paused"))["paused"] == []


# -- going back -----------------------------------------------------------------------------------------------------


async def test_a_group_that_goes_back_reads_again_and_changes_nothing_that_was_taken_in() -> None:
    desk = Desk()
    await desk.arrive(ANN, 1, 2)
    desk.kit.clock.pass_(60)
    since = desk.kit.clock.real()
    await desk.arrive(BOB, 1, 2, 3)
    before = dict(desk.kit.store.collections["box"].texts)

    body = {"group": GROUP, "since": since.isoformat()}
    told = await desk.post("/going-back", {**body, "dry_run": True})
    assert (told["records"], told["dry_run"]) == (3, True)
    told = await desk.post("/going-back", body)
    assert told["records"] == 3
    assert (await desk.get("/status"))["going_back"][0]["group"] == GROUP
    again = await desk.post("/going-back", body, expect=409)
    assert again["type"].endswith("conflict")

    desk.read.clear()
    await desk.kit.settle()
    assert len(desk.read) == 3
    assert len(desk.taken) == 5, "its marks skip what was taken in"
    assert dict(desk.kit.store.collections["box"].texts) == before
    (done,) = await desk.kit.all(Rewind)
    assert done.state is RewindState.DONE
    assert (await desk.get("/status"))["going_back"] == []
    bus = desk.kit.chassis.bus
    assert isinstance(bus, MemoryBus)
    assert bus.ordered(GROUP)
    await desk.kit.chassis.heed()
    assert not bus.ordered(GROUP), "whoever gets a partition later does not go back with it again"
    assert [entry["action"] for entry in await desk.audited()] == ["group.go-back"]


async def test_a_group_never_goes_forward_over_what_it_has_not_read() -> None:
    desk = Desk()
    await desk.kit.start()
    for sequence in (1, 2):
        event = LetterArrived(letter_id=letter(ANN, sequence), boxes=(BOX,))
        await desk.kit.arrive(event, ANN, sequence)
    later = desk.kit.clock.real() + timedelta(hours=1)
    told = await desk.post("/going-back", {"group": GROUP, "since": later.isoformat()})
    assert told["records"] == 0
    await desk.kit.settle()
    assert desk.taken == [letter(ANN, 1), letter(ANN, 2)]


async def test_a_group_that_is_not_of_this_service_and_a_time_without_a_zone_are_refused() -> None:
    desk = Desk()
    await desk.kit.start()
    await desk.post("/going-back", {"group": "other.box", "since": "2026-03-02T15:00:00Z"}, expect=404)
    refused = await desk.post("/going-back", {"group": GROUP, "since": "2026-03-02T15:00:00"}, expect=422)
    assert [flaw["path"] for flaw in refused["errors"]] == ["since"]


# -- how it stands --------------------------------------------------------------------------------------------------


async def test_the_status_tells_of_processes_that_live_fell_silent_or_stopped() -> None:
    desk = Desk()
    store, clock = desk.kit.store, desk.kit.clock
    living, dying, leaving = (Presence(store, clock, name, "all", "host", n) for n, name in enumerate(("a", "b", "c")))
    for each in (living, dying, leaving):
        await each.tell({"groups": [GROUP]})
    clock.pass_(5 * EVERY)
    await living.tell({"groups": [GROUP]})
    await leaving.tell({}, stopped=True)
    found = {each.name: each.life for each in await processes(store, clock.real())}
    assert found == {"a": Life.RUNNING, "b": Life.SILENT, "c": Life.STOPPED}
    status = await desk.get("/status")
    assert [process["life"] for process in status["processes"]] == ["running", "silent", "stopped"]
    assert ("process-silent", "all") in {(each["code"], each["subject"]) for each in status["problems"]}
    assert {group["group"]: group["readers"] for group in status["groups"]} == {GROUP: 1, "toy.stamp": 0}


async def test_a_sign_of_life_whose_answer_was_lost_is_given_again() -> None:
    desk = Desk()
    store, clock = desk.kit.store, desk.kit.clock
    first = Presence(store, clock, "a", "all", "host", 1)
    await first.tell({"busy": 1})
    lost = Presence(store, clock, "a", "all", "host", 1)  # It does not know that its first write landed.
    await lost.tell({"busy": 2})
    await lost.tell({"busy": 3})
    (found,) = await processes(store, clock.real())
    assert found.facts == {"busy": 3}


async def test_a_key_that_is_parked_is_a_problem_until_it_is_replayed() -> None:
    desk = Desk(letter(ANN, 1))
    await desk.arrive(ANN, 1)
    assert ("parked", "toy") in codes(await desk.get("/status"))
    desk.poison.clear()
    await desk.post("/parked/replay", {"ids": [parked_id(GROUP, ANN)]})
    await desk.kit.settle()
    assert ("parked", "toy") not in codes(await desk.get("/status"))


def codes(status: Json) -> set[tuple[str, str]]:
    return {(problem["code"], problem["subject"]) for problem in status["problems"]}


async def test_what_nobody_reads_is_told_from_the_broker() -> None:
    desk = Desk()
    await desk.arrive(ANN, 1)
    for sequence in (2, 3):
        await desk.kit.arrive(LetterArrived(letter_id="x", boxes=(BOX,)), ANN, sequence)
    lag = {(each["group"], each["topic"]): each for each in (await desk.get("/lag"))["groups"]}
    assert lag[GROUP, "elsewhere.events"]["records"] == 2
    assert lag[GROUP, "elsewhere.events"]["readers"] == 0


async def test_slots_tell_owner_epoch_and_what_is_due_longest() -> None:
    desk = Desk()
    id = await box_of(desk, "ann")
    told = await desk.get("/slots", queue="toy.box")
    (queue,) = told["queues"]
    stored = (await desk.kit.store.load("box", [id]))[0]
    slot = queue["slots"][stored["slot"]]
    assert slot["owner"] is None
    assert slot["oldest_due"] is not None
    await desk.kit.settle()
    (queue,) = (await desk.get("/slots", queue="toy.box"))["queues"]
    assert {each["owner"] for each in queue["slots"]} == {desk.kit.chassis.worker_name}
    assert queue["workers"][0]["slots"] == len(queue["slots"]) == 256
    assert queue["slots"][stored["slot"]]["oldest_due"] is None
    async with desk.kit.client(Role.OPERATOR) as client:
        assert (await client.get("/operations/slots?queue=toy.nothing")).status_code == 404


async def test_the_outbox_tells_how_many_documents_wait_for_the_broker_and_since_when() -> None:
    desk = Desk()
    async with desk.kit.client(Role.COORDINATOR) as client:
        await client.post("/boxes", json={"owner": "ann"}, headers=desk.kit.key())
    desk.kit.clock.pass_(90)
    told = {each["document"]: each for each in (await desk.get("/outbox"))["outbox"]}
    assert (told["Box"]["documents"], told["Box"]["oldest_seconds"]) == (1, 90.0)
    assert ("outbox", "toy") in codes(await desk.get("/status"))
    await desk.kit.settle()
    told = {each["document"]: each for each in (await desk.get("/outbox"))["outbox"]}
    assert told["Box"]["documents"] == 0


async def test_topics_that_are_missing_are_told_and_made() -> None:
    desk = Desk()
    told = {each["topic"]: each for each in (await desk.get("/topics"))["topics"]}
    assert {name: each["problem"] for name, each in told.items()} == dict.fromkeys(
        ("elsewhere.events", "toy.events"), "missing"
    )
    dry = await desk.post("/topics", {"dry_run": True})
    assert dry["made"] == ["elsewhere.events", "toy.events"]
    assert await desk.audited() == []
    made = await desk.post("/topics", {})
    assert made["made"] == ["elsewhere.events", "toy.events"]
    assert {each["problem"] for each in made["topics"]} == {"partitions"}, "the broker in memory gives three"
    (entry,) = await desk.audited()
    assert (entry["action"], entry["ids"]) == ("topics.ensure", ["elsewhere.events", "toy.events"])


# -- cases ----------------------------------------------------------------------------------------------------------


async def test_a_document_is_shown_without_its_own_fields() -> None:
    desk = Desk()
    id = await box_of(desk, CANARY)
    await desk.kit.settle()
    (shown,) = (await desk.get(f"/documents/{id}"))["documents"]
    assert (shown["document"], shown["state"], shown["events"]) == ("Box", "open", 2)
    assert "owner" not in shown
    assert (await desk.get(f"/documents/{ANN}"))["documents"] == []


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_limit_out_of_bounds_is_refused_by_name(limit: int) -> None:
    desk = Desk()
    async with desk.kit.client(Role.OPERATOR) as client:
        answer = await client.get(f"/operations/parked?limit={limit}")
    assert answer.status_code == 422
    assert [flaw["path"] for flaw in answer.json()["errors"]] == ["limit"]
