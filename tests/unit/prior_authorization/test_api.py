"""What coordinators see and do, and what payers may tell us, over the real API."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.simulators.adjudication import Script
from services.prior_authorization.model import Payer, State
from shared.kit.api import undeclared
from shared.kit.auth import Role
from shared.kit.fhir import parse
from tests.unit.prior_authorization.cases import PAYER_ID, uid
from tests.unit.prior_authorization.test_reading import response, review
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]
BY_PERSON = '[[payers]]\npayer = "*"\nappeal = "by-person"\nappeal_levels = 1\n'


@pytest.fixture
def by_person(tmp_path: Path) -> World:
    """A world in which denials are left to people."""
    file = tmp_path / "rules.toml"
    file.write_text(BY_PERSON, encoding="utf-8")
    return World(rules=file)


async def case(world: World, member_id: str, hours: float = 0) -> str:
    """The id of an authorization of that member, so many hours on."""
    await world.know("tess", member_id)
    id = await world.refer("tess")
    await world.until(hours)
    return id


async def post(
    world: World, path: str, body: object = None, role: Role = Role.COORDINATOR, subject: str = "payer-simulator"
) -> httpx.Response:
    async with world.harness.client(role, subject=subject) as client:
        return await client.post(path, json=body, headers=world.harness.key())


async def get(world: World, path: str, role: Role = Role.COORDINATOR) -> httpx.Response:
    async with world.harness.client(role) as client:
        return await client.get(path)


def test_every_route_declares_its_roles() -> None:
    assert undeclared(World().harness.chassis.app) == []


# -- reading --------------------------------------------------------------------------------------------------------


async def test_an_authorization_is_shown_with_its_ruling_claims_and_history() -> None:
    world = World()
    id = await case(world, "SBX-DENY-OVERTURN-1")
    answered = await get(world, f"/authorizations/{id}")
    shown = answered.json()
    assert answered.headers["ETag"]
    assert (shown["state"], shown["action"]) == ("approved", "A1")
    assert [claim["kind"] for claim in shown["claims"]] == ["initial", "appeal"]
    assert [ruling["action"] for ruling in shown["history"]] == ["A3", "A1"]
    assert "Canaria" not in answered.text
    assert "SBX" not in answered.text


async def test_the_worklist_is_by_state_payer_referral_or_patient_and_pages() -> None:
    world = World()
    for name in ("ana", "ben", "cleo"):
        await world.know(name, "SBX-PEND-POLL-1")
        await world.refer(name)
    await world.until()
    first = (await get(world, "/authorizations?state=pended&limit=2")).json()
    rest = (await get(world, f"/authorizations?state=pended&limit=2&after={first['after']}")).json()
    assert [len(first["authorizations"]), len(rest["authorizations"]), rest["after"]] == [2, 1, None]
    assert first["authorizations"][0]["wait"]["owner"] == "payer"
    mine = (await get(world, f"/authorizations?referral_id={uid('referral', 'ana')}")).json()
    assert [each["referral_id"] for each in mine["authorizations"]] == [uid("referral", "ana")]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/authorizations", 422),
        ("/authorizations?state=lost", 422),
        ("/authorizations/not-an-id", 422),
        (f"/authorizations/{uid('nothing')}", 404),
        (f"/fhir/ClaimResponse/{uid('nothing')}", 404),
    ],
)
async def test_what_cannot_be_shown_is_refused_by_name(path: str, status: int) -> None:
    assert (await get(World(), path)).status_code == status


@pytest.mark.parametrize(
    ("member_id", "code"), [("SBX-APPROVE-1", "A1"), ("SBX-PEND-POLL-1", "A4"), ("SBX-DENY-1", "A3")]
)
async def test_it_reads_as_a_fhir_claim_response_whose_decision_is_in_the_review_action(
    member_id: str, code: str
) -> None:
    world = World()
    id = await case(world, member_id)
    shown = (await get(world, f"/fhir/ClaimResponse/{id}")).json()
    parse(shown, "ClaimResponse")
    assert f'"code": "{code}"' in json.dumps(shown)


# -- what people do -------------------------------------------------------------------------------------------------


async def test_a_person_appeals_a_denial(by_person: World) -> None:
    id = await case(by_person, "SBX-DENY-OVERTURN-1")
    assert by_person.events("tess") == ["submitted", "denied"]
    assert (await post(by_person, f"/authorizations/{id}/appeal")).json()["state"] == "appealing"
    await by_person.until(1)
    assert by_person.events("tess") == ["submitted", "denied", "appealed", "approved"]


async def test_a_person_accepts_a_denial(by_person: World) -> None:
    id = await case(by_person, "SBX-DENY-1")
    assert (await post(by_person, f"/authorizations/{id}/accept-denial")).json()["state"] == "denied-final"
    assert (await post(by_person, f"/authorizations/{id}/appeal")).status_code == 409


async def test_a_person_cancels_and_the_same_key_cancels_once() -> None:
    world = World()
    id = await case(world, "SBX-APPROVE-1")
    async with world.harness.client(Role.COORDINATOR) as client:
        key = world.harness.key()
        first = await client.post(f"/authorizations/{id}/cancel", json={"reason": "patient-moved"}, headers=key)
        again = await client.post(f"/authorizations/{id}/cancel", json={"reason": "patient-moved"}, headers=key)
        other = await client.post(f"/authorizations/{id}/cancel", json={"reason": "other"}, headers=key)
    await world.until(1)
    assert (first.json(), again.json()) == (first.json(), first.json())
    assert (first.status_code, other.status_code) == (200, 422)
    assert world.events("tess") == ["submitted", "approved", "cancelled"]


@pytest.mark.parametrize("body", [{"reason": "Tess Canaria moved"}, {"reason": "x", "note": "y"}, [], "x"])
async def test_a_reason_is_a_code_and_nothing_else(body: object) -> None:
    world = World()
    id = await case(world, "SBX-APPROVE-1")
    refused = await post(world, f"/authorizations/{id}/cancel", body)
    assert refused.status_code == 422
    assert "Canaria" not in refused.text


async def test_what_the_payer_would_not_take_is_sent_again_by_hand() -> None:
    world = World()
    await world.know("tess", "SBX-APPROVE-1")
    id = await world.refer("tess")
    world.payer.outage(1, status=422)
    await world.until(2)
    assert world.events("tess") == ["escalated"]
    assert (await post(world, f"/authorizations/{id}/send-again")).status_code == 200
    await world.until(3)
    assert world.events("tess") == ["escalated", "submitted", "approved"]
    assert (await post(world, f"/authorizations/{id}/send-again")).status_code == 409


@pytest.mark.parametrize("step", ["cancel", "appeal", "accept-denial", "settle-contradiction"])
async def test_only_coordinators_act(step: str) -> None:
    world = World()
    id = await case(world, "SBX-APPROVE-1")
    assert (await post(world, f"/authorizations/{id}/{step}", {}, Role.CLINICIAN)).status_code == 403


# -- what payers tell us --------------------------------------------------------------------------------------------


async def pended(world: World) -> str:
    """The claim's identifier of a case that the payer pended and will not notify of by itself."""
    world.payer.script("quiet", Script(pend_hours=24 * 30))
    await case(world, "quiet")
    claim = (await world.of("tess")).claim_id
    assert claim is not None
    return claim


def notice(claim: str | None, created: str = "2026-03-02T15:30:00Z", **changes: object) -> Json:
    """A notification with full resource, made as the guide's example is."""
    answer = response(identifier=[{"system": "urn:x", "value": claim}], created=created, **changes)
    status = [
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": "event-notification"},
    ]
    entries = [{"resource": {"resourceType": "Parameters", "parameter": status}}, {"resource": answer}]
    return {"resourceType": "Bundle", "type": "history", "entry": entries}


async def notify(world: World, body: object, payer_id: str = PAYER_ID) -> httpx.Response:
    return await post(world, f"/payers/{payer_id}/notifications", body, Role.SERVICE)


async def test_a_notified_decision_is_taken_once_however_often_it_is_told() -> None:
    world = World()
    body = notice(await pended(world))
    answers = [await notify(world, body) for _ in range(3)]
    await world.settle()
    assert {answer.status_code for answer in answers} == {200}
    assert world.events("tess") == ["submitted", "pended", "approved"]
    document = await world.of("tess")
    assert document.current is not None
    assert document.current.source == "notification"


async def test_a_heartbeat_is_a_sign_of_life_and_changes_no_authorization() -> None:
    world = World()
    await pended(world)
    before = (await world.of("tess")).version
    parameter = [{"name": "status", "valueCode": "active"}, {"name": "type", "valueCode": "heartbeat"}]
    resource = {"resourceType": "Parameters", "parameter": parameter}
    body = {"resourceType": "Bundle", "type": "history", "entry": [{"resource": resource}]}
    assert (await notify(world, body)).status_code == 200
    (payer,) = await world.harness.all(Payer)
    assert payer.healthy(world.harness.clock.now())
    assert (await world.of("tess")).version == before
    assert (await notify(world, body, "stranger")).status_code == 200
    assert len(await world.harness.all(Payer)) == 1


def broken(claim: str) -> dict[str, tuple[object, int]]:
    """Notifications that must change nothing, and the answer each gets."""
    good = notice(claim)
    no_status = copy.deepcopy(good)
    no_status["entry"].pop(0)
    no_answer = copy.deepcopy(good)
    no_answer["entry"].pop(1)
    item = {"itemSequence": 9, "adjudication": [review("A1", "N-1")]}
    return {
        "not an object": ([], 422),
        "no bundle": ({"resourceType": "Patient"}, 422),
        "a collection": ({**good, "type": "collection"}, 422),
        "no status": (no_status, 422),
        "no answer": (no_answer, 422),
        "a claim that was never sent": (notice(uid("foreign")), 404),
        "an unknown item": (notice(claim, item=[item]), 422),
        "an unknown action": (notice(claim, item=[{"itemSequence": 1, "adjudication": [review("ZZ")]}]), 422),
        "a grant without number": (notice(claim, item=[{"itemSequence": 1, "adjudication": [review("A1")]}]), 422),
        "a date far ahead": (notice(claim, "2031-01-01T00:00:00Z"), 422),
        "no use": (notice(claim, use="claim"), 422),
    }


@pytest.mark.parametrize("kind", broken("x"))
async def test_a_notification_that_cannot_be_used_is_refused_with_its_reason_and_changes_nothing(kind: str) -> None:
    world = World()
    body, status = broken(await pended(world))[kind]
    before = await world.of("tess")
    refused = await notify(world, body)
    assert refused.status_code == status
    assert refused.json()["errors"]
    assert (await world.of("tess")).model_dump() == before.model_dump()


async def test_one_payer_cannot_speak_for_another() -> None:
    world = World()
    body = notice(await pended(world))
    assert (await notify(world, body, "other-payer")).status_code == 404
    assert (await world.of("tess")).state is State.PENDED


async def test_only_services_may_notify_and_a_token_is_needed() -> None:
    world = World()
    body = notice(await pended(world))
    path = f"/payers/{PAYER_ID}/notifications"
    assert (await post(world, path, body, Role.COORDINATOR)).status_code == 403
    async with world.harness.client(Role.SERVICE, subject="payer-simulator") as client:
        stranger = {**world.harness.key(), "Authorization": "Bearer nonsense"}
        assert (await client.post(path, json=body, headers=stranger)).status_code == 401
        assert (await client.post(path, content=b"{", headers=world.harness.key())).status_code in (400, 422)


async def test_a_contradiction_is_shown_to_a_person_who_settles_it() -> None:
    world = World()
    claim = await pended(world)
    await notify(world, notice(claim))
    denied = [{"itemSequence": 1, "adjudication": [review("A3", None, "82")]}]
    assert (await notify(world, notice(claim, item=denied))).status_code == 200
    await world.settle()
    assert world.events("tess") == ["submitted", "pended", "approved", "escalated"]
    id = (await world.of("tess")).id
    shown = (await get(world, f"/authorizations/{id}")).json()
    assert (shown["state"], shown["contradicted"], shown["wait"]["reason"]) == ("approved", True, "contradiction")
    assert [ruling["action"] for ruling in shown["contradictions"]] == ["A3"]
    assert (await post(world, f"/authorizations/{id}/settle-contradiction")).status_code == 200
    assert (await get(world, f"/authorizations/{id}")).json()["contradicted"] is False
