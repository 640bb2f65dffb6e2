"""What operators do here: pause a payer, which then is left alone and caught up with later; read a patient's story."""

from __future__ import annotations

from typing import Any

from services.prior_authorization.model import State
from shared.contracts.intake import PersonCoverage
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import COVERAGE
from tests.unit.prior_authorization.world import World


async def say(world: World, state: str, name: str = "acme-health", **more: Any) -> dict[str, Any]:
    """Pause a payer, or have it go on."""
    body = {"kind": "payer", "name": name, "state": state, **more}
    async with world.harness.client(Role.OPERATOR) as client:
        answer = await client.post("/operations/paused", json=body, headers=world.harness.key())
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_what_a_paused_payer_would_be_sent_waits_and_is_told_of_and_goes_when_it_is_resumed() -> None:
    world = World()
    await say(world, "paused")
    await world.know("ana", "SBX-APPROVE-1")
    await world.refer("ana", payer_id="acme-health")
    other = PersonCoverage(coverage_id=COVERAGE, payer_id="sandbox-health", member_id="SBX-APPROVE-1")
    await world.know("ben", None, coverage=other)
    await world.refer("ben", payer_id="sandbox-health")
    await world.settle()
    assert (await world.of("ana")).state is State.SUBMITTING
    assert (await world.of("ben")).state is State.APPROVED
    told = await say(world, "paused", dry_run=True)
    assert (told["waiting"], told["state"]) == (1, "paused")

    world.harness.clock.pass_(3600)
    await world.settle()
    assert (await world.of("ana")).state is State.SUBMITTING

    await say(world, "running")
    await world.settle()
    assert (await world.of("ana")).state is State.APPROVED
    assert (await say(world, "running", dry_run=True))["waiting"] == 0


async def test_a_payer_that_is_paused_while_it_decides_is_not_asked_until_it_goes_on() -> None:
    world = World()
    await world.know("ana", "SBX-PEND-POLL-1")
    await world.refer("ana", payer_id="acme-health")
    await world.settle()
    assert (await world.of("ana")).state is State.PENDED
    await say(world, "paused")
    before = len(world.sent)
    for _ in range(48):
        world.harness.clock.pass_(3600)
        await world.settle()
    assert len(world.sent) == before
    assert (await world.of("ana")).state is State.PENDED
    await say(world, "running")
    for _ in range(48):
        world.harness.clock.pass_(3600)
        await world.settle()
    assert (await world.of("ana")).state is State.APPROVED


async def test_a_patients_story_is_told_in_ids_and_codes_alone() -> None:
    world = World()
    await world.know("ana", "SBX-DENY-OVERTURN-1")
    id = await world.refer("ana")
    await world.until(24 * 30)
    patient = world.ids("ana")["patient_id"]
    async with world.harness.client(Role.OPERATOR, subject="olga") as client:
        answer = await client.get(f"/operations/patients/{patient}/story")
        (document,) = (await client.get(f"/operations/documents/{id}")).json()["documents"]
    told = answer.json()
    assert {each["document"] for each in told["documents"]} == {"Authorization", "Member"}
    (shown,) = [each for each in told["documents"] if each["id"] == id]
    assert shown == document
    assert (shown["state"], shown["wait"]) == ("approved", None)
    types = [event["type"] for event in told["events"] if event["document"] == id]
    assert [type for type in types if type in ("authorization.denied.v1", "authorization.approved.v1")] == [
        "authorization.denied.v1",
        "authorization.approved.v1",
    ]
    assert told["complete"]
    for personal in ("Canaria", "Tess", "SBX", "1980"):
        assert personal not in answer.text
    read = [each for each in await world.harness.store.find("audit", {}) if each["caller"] == "olga"]
    assert {each["document"] for each in read} == {"Authorization", "Member"}
