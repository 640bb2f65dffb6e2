"""What the service really sends, through all of its stories, passes the definitions of PAS 2.2.1."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from services.prior_authorization.pas import codes
from shared.contracts.base import Coding
from shared.contracts.referrals import ReferralCancelled
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import COVERAGE, PAYER_ID, SNOMED, uid
from tests.unit.prior_authorization.test_outgoing import DEFINITIONS, PSORIASIS, certification, claims, profiles
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]

pytestmark = pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")

ITEMS: list[Json] = [
    {
        "service": {"system": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", "code": "E1223"},
        "kind": "device",
    },
    {"service": {"system": "http://hl7.org/fhir/sid/ndc", "code": "0777-3105-02"}, "kind": "drug", "quantity": 300},
    {
        "service": {"system": "http://www.ama-assn.org/go/cpt", "code": "29881"},
        "kind": "surgery",
        "place": "24",
        "starts": "2026-04-01",
        "ends": "2026-04-01",
        "diagnoses": [1],
        "providers": [1],
    },
]


async def ask(world: World, path: str, body: object) -> Json:
    async with world.harness.client(Role.COORDINATOR) as client:
        answer = await client.post(path, json=body, headers=world.harness.key())
        assert answer.is_success, answer.text
        found: Json = answer.json()
        return found


async def test_every_bundle_of_every_story_passes_the_definitions() -> None:
    world = World()
    members = {
        "ana": "SBX-APPROVE-1",
        "ben": "SBX-DENY-OVERTURN-1",
        "cleo": "SBX-PEND-POLL-1",
        "dora": "SBX-MODIFY-1",
        "eve": "SBX-LOST-APPROVE-1",
        "finn": "SBX-PEND-NOTIFY-1",
    }
    for name, member_id in members.items():
        await world.know(name, member_id)
        await world.refer(name, diagnoses=(PSORIASIS,), expedited=name == "ben")
    await world.know("gus", "SBX-APPROVE-1")
    await world.refer("gus", service=Coding(system=SNOMED, code="103696004"))
    await world.know("hal", "SBX-APPROVE-1")
    several = {
        "patient_id": uid("patient", "hal"),
        "coverage_id": COVERAGE,
        "payer_id": PAYER_ID,
        "items": ITEMS,
        "diagnoses": [PSORIASIS.model_dump()],
        "providers": [{"npi": "1073558773", "name": "Riverside Hospital"}],
        "expedited": True,
    }
    id = (await ask(world, "/authorizations", several))["id"]
    await world.until(1)
    await ask(world, f"/authorizations/{id}/update", {"drop": [1], "change": [{"sequence": 2, "quantity": 100}]})
    await world.until(2)
    await ask(world, f"/authorizations/{id}/update", {"add": ITEMS[:1]})
    await world.tell(ReferralCancelled, "finn", reason="patient")
    await world.until(48)
    await ask(world, f"/authorizations/{id}/cancel", {"reason": "test"})
    await world.until(50)

    bundles = [found for found in map(json.loads, world.sent) if found["resourceType"] == "Bundle"]
    for bundle in bundles:
        assert [str(problem) for problem in profiles().check_bundle(bundle)] == []
    kinds = Counter(
        certification(claims(bundle)[0]) or certification(claims(bundle)[0]["item"][0]) for bundle in bundles
    )
    assert set(kinds) == {"I", "S", "1", "3"}, kinds
    assert any(bundle["meta"]["profile"] == [codes.INQUIRY_BUNDLE] for bundle in bundles)
    assert kinds["S"] == 2
