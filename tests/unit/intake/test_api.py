"""Intake as a whole, through its API: registered, verified with the payer, corrected, told to others, read back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from deploy.simulators import payer
from services.intake import model
from services.intake.service import Settings, build
from shared.contracts.intake import Channel, CoverageStatus
from shared.contracts.notifications import ChannelRevoked
from shared.kit import fhir
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.testing.harness import START, Harness
from tests.unit.intake.cases import COVERAGE, ORGANIZATION, PATIENT, bundle, condition, whole_bundle

CANARY = "Zyxwv-Canary"
PERSONAL = ("Rivera", "Luz", "5125550142", "555-0142", "1961-04", "ana.rivera", "SBX-APPROVE-1", "Elm")
WHOLE: dict[str, Any] = {
    "family": "Rivera",
    "given": ["Ana"],
    "birth_date": "1961-04-12",
    "gender": "female",
    "mobile": "(512) 555-0142",
    "language": "es",
    "barriers": ["transportation"],
    "coverage": {"payer_id": "acme", "member_id": "SBX-APPROVE-1"},
    "conditions": [{"codings": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}]}],
    "proxies": [{"name": "Luz Rivera", "scopes": ["appointments"]}],
}


class World:
    """Intake beside a simulated payer, under one frozen clock."""

    def __init__(self) -> None:
        payers = payer.app(lambda: self.harness.clock.now(), httpx.AsyncClient())
        self.outside = httpx.AsyncClient(transport=httpx.ASGITransport(app=payers))
        self.harness = Harness(Settings, build, http=self.outside, payer_url="http://payer.test")
        self.coordinator = self.harness.client(Role.COORDINATOR, subject="coordinator-1")
        self.clinician = self.harness.client(Role.CLINICIAN, subject="clinician-1")

    async def register(self, body: object, **query: str) -> httpx.Response:
        return await self.coordinator.post("/registrations", json=body, headers=self.harness.key(), params=query)

    async def patient(self, id: str) -> model.Patient:
        found = await self.harness.stored(model.Patient, id)
        assert found is not None
        return found

    def events(self, topic: str = "intake.events") -> list[str]:
        return [type for type, _ in self.harness.published(topic)]


@pytest.fixture
def world() -> World:
    return World()


def errors(response: httpx.Response) -> dict[str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return {each["path"]: each["reason"] for each in response.json().get("errors", [])}


class TestRegistering:
    async def test_a_bundle_is_registered_verified_and_told_to_others(self, world: World) -> None:
        response = await world.register(whole_bundle(condition("Z59.82")))
        assert response.status_code == 201
        body = response.json()
        assert (body["state"], body["missing"], body["coverage"]) == ("complete", [], "unverified")
        assert [taken["reference"] for taken in body["taken"]] == ["Patient/ana", "Coverage/cov", "Condition/c-Z59.82"]
        await world.harness.settle()
        assert world.events() == ["patient.registered.v1", "patient.barrier-recorded.v1", "coverage.verified.v1"]
        assert world.events("intake.people") == ["person.changed.v1", "person.changed.v1"]
        patient = await world.patient(body["id"])
        assert patient.coverage_status is CoverageStatus.ACTIVE
        ledger = (await world.outside.get("http://payer.test/ledger")).json()
        assert [(asked["member_id"], asked["in_force"]) for asked in ledger["eligibility"]] == [("SBX-APPROVE-1", True)]

    async def test_the_answer_and_the_public_events_hold_nothing_personal(self, world: World) -> None:
        response = await world.register(whole_bundle())
        await world.harness.settle()
        public = str(world.harness.published("intake.events"))
        keys = str([published["headers"] for _, published in world.harness.published("intake.people")])
        for personal in PERSONAL:
            assert personal not in response.text
            assert personal not in public
            assert personal not in keys

    async def test_sending_a_bundle_again_corrects_the_same_patient(self, world: World) -> None:
        first = await world.register(whole_bundle())
        changed = {**PATIENT, "birthDate": "1961-04-13"}
        second = await world.register(bundle(ORGANIZATION, COVERAGE, changed))
        assert first.json()["id"] == second.json()["id"]
        patient = await world.patient(first.json()["id"])
        assert [correction.field for correction in patient.corrections] == ["Patient.birthDate"]

    async def test_another_callers_same_patient_is_another_patient(self, world: World) -> None:
        other = world.harness.client(Role.SERVICE, subject="another-clinic")
        first = await world.register(whole_bundle())
        second = await other.post("/registrations", json=whole_bundle(), headers=world.harness.key())
        assert first.json()["id"] != second.json()["id"]

    async def test_a_repeat_under_the_same_key_is_answered_as_before(self, world: World) -> None:
        key = world.harness.key()
        first = await world.coordinator.post("/registrations", json=whole_bundle(), headers=key)
        second = await world.coordinator.post("/registrations", json=whole_bundle(), headers=key)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert first.json() == second.json()
        reused = await world.coordinator.post("/registrations", json=bundle(PATIENT), headers=key)
        assert reused.status_code == 422

    async def test_plain_json_registers_too(self, world: World) -> None:
        response = await world.register(WHOLE)
        assert response.status_code == 201
        assert response.json()["state"] == "complete"
        patient = await world.patient(response.json()["id"])
        assert patient.mobile == "+15125550142"
        assert [fact.kind for fact in patient.facts] == [model.FactKind.CONDITION]

    async def test_fhir_json_is_taken_under_its_own_media_type(self, world: World) -> None:
        headers = {**world.harness.key(), "Content-Type": "application/fhir+json"}
        response = await world.coordinator.post(
            "/registrations", content=httpx.Request("POST", "http://x", json=whole_bundle()).content, headers=headers
        )
        assert response.status_code == 201

    async def test_missing_contact_makes_it_incomplete_and_listed_until_completed(self, world: World) -> None:
        bare = {name: value for name, value in PATIENT.items() if name not in ("telecom", "address", "communication")}
        response = await world.register(bundle(ORGANIZATION, COVERAGE, bare))
        assert response.status_code == 201
        id = response.json()["id"]
        missing = ["Patient.telecom", "Patient.address", "Patient.communication.language"]
        assert (response.json()["state"], response.json()["missing"]) == ("incomplete", missing)
        worklist = (await world.coordinator.get("/patients")).json()
        assert [(listed["id"], listed["missing"]) for listed in worklist["patients"]] == [(id, missing)]
        assert worklist["patients"][0]["wait"]["escalated_at"] is None
        for personal in PERSONAL:
            assert personal not in str(worklist)
        completed = await world.coordinator.patch(f"/patients/{id}", json={"mobile": "5125550142", "language": "es"})
        assert completed.json()["state"] == "complete"
        assert (await world.coordinator.get("/patients")).json()["patients"] == []
        await world.harness.settle()
        assert "patient.completed.v1" in world.events()

    async def test_an_incomplete_registration_stands_as_overdue_when_its_time_has_passed(self, world: World) -> None:
        await world.register(bundle(PATIENT))
        await world.harness.settle()
        while world.harness.clock.now() < START + timedelta(days=14):
            assert await world.harness.advance() is not None
        listed = (await world.coordinator.get("/patients")).json()["patients"]
        assert listed[0]["wait"]["escalated_at"] is not None


class TestRefusing:
    async def test_a_bundle_that_is_not_usable_names_its_paths_and_registers_nobody(self, world: World) -> None:
        response = await world.register(bundle({**PATIENT, "birthDate": CANARY}, {**COVERAGE, "status": CANARY}))
        assert response.status_code == 422
        assert set(errors(response)) == {
            "Bundle.entry[0].resource.birthDate",
            "Bundle.entry[1].resource.status",
        }
        assert CANARY not in response.text
        assert await world.harness.all(model.Patient) == []

    @pytest.mark.parametrize(
        ("change", "path"),
        [
            ({"birth_date": "yesterday"}, "birth_date"),
            ({"birth_date": "2090-01-01"}, "birth_date"),
            ({"mobile": CANARY}, "mobile"),
            ({"email": CANARY}, "email"),
            ({"gender": CANARY}, "gender"),
            ({"timezone": CANARY}, "timezone"),
            ({"language": "??"}, "language"),
            ({"family": "\ud800"}, "family"),
            ({"coverage": {"payer_id": "a/b"}}, "coverage.payer_id"),
            ({"conditions": [{}]}, "conditions[0]"),
            ({CANARY: 1}, "(unknown field)"),
        ],
    )
    async def test_a_wrong_field_of_json_is_named_without_its_value(
        self, world: World, change: dict[str, Any], path: str
    ) -> None:
        headers = {**world.harness.key(), "Content-Type": "application/json"}
        content = json.dumps({**WHOLE, **change})
        response = await world.coordinator.post("/registrations", content=content, headers=headers)
        assert response.status_code == 422
        assert path in errors(response)
        assert CANARY not in response.text

    async def test_what_is_no_json_object_is_refused(self, world: World) -> None:
        for content in (b"{", b"[]", b"7"):
            headers = {**world.harness.key(), "Content-Type": "application/json"}
            response = await world.coordinator.post("/registrations", content=content, headers=headers)
            assert response.status_code in (400, 422)

    async def test_roles_are_kept_apart(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        scheduler = world.harness.client(Role.SCHEDULER)
        assert (await scheduler.get(f"/patients/{id}")).status_code == 403
        assert (await world.clinician.patch(f"/patients/{id}", json={"family": "X"})).status_code == 403

    async def test_a_stale_or_unknown_patient_is_not_changed(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        stale = await world.coordinator.patch(f"/patients/{id}", json={"family": "X"}, headers={"If-Match": '"99"'})
        assert stale.status_code == 412
        assert (await world.coordinator.patch(f"/patients/{derived_id('nobody')}", json={})).status_code == 404
        assert (await world.coordinator.get("/patients/not-an-id")).status_code == 422


class TestReading:
    async def test_everything_but_the_values_of_corrections_is_shown_and_the_reading_is_audited(
        self, world: World
    ) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        await world.coordinator.patch(f"/patients/{id}", json={"family": "Rivera Soto"})
        shown = await world.coordinator.get(f"/patients/{id}")
        body = shown.json()
        assert body["family"] == "Rivera Soto"
        assert body["facts"][0]["unconfirmed"] is True
        assert body["channels"] == ["sms", "voice"]
        assert "corrections" not in body
        assert "requests" not in body
        history = (await world.coordinator.get(f"/patients/{id}/corrections")).json()
        assert [(each["field"], each["by"]) for each in history["corrections"]] == [
            ("Patient.name.family", "coordinator-1")
        ]
        assert "Rivera" not in str(history)
        audited = await world.harness.store.find("audit", {})
        assert {(entry["caller"], entry["action"], tuple(entry["ids"])) for entry in audited} == {
            ("coordinator-1", "read", (id,))
        }

    async def test_the_patient_is_shown_as_valid_fhir(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        response = await world.clinician.get(f"/patients/{id}/fhir")
        assert response.headers["content-type"] == "application/fhir+json"
        assert fhir.parse(response.json(), "Patient").id == id

    async def test_the_worklist_goes_on_page_by_page(self, world: World) -> None:
        for number in range(5):
            await world.register({"family": f"Person{number}"})
        seen: list[str] = []
        after = None
        while True:
            query = {"limit": "2", **({"after": after} if after else {})}
            page = (await world.coordinator.get("/patients", params=query)).json()
            seen += [listed["id"] for listed in page["patients"]]
            after = page["next"]
            if after is None:
                break
        assert len(set(seen)) == len(seen) == 5


class TestChanging:
    async def test_put_states_the_whole_and_patch_a_part(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        await world.coordinator.patch(f"/patients/{id}", json={"gender": None})
        assert (await world.patient(id)).family == "Rivera"
        replaced = await world.coordinator.put(f"/patients/{id}", json={"family": "Rivera", "gender": "other"})
        assert "Patient.birthDate" in replaced.json()["missing"]
        patient = await world.patient(id)
        assert (patient.mobile, patient.coverages, patient.needs) == (None, [], [])

    async def test_the_member_id_that_was_missing_completes_the_coverage_that_came(self, world: World) -> None:
        bare = {name: value for name, value in COVERAGE.items() if name != "subscriberId"}
        registered = (await world.register(bundle(ORGANIZATION, bare, PATIENT))).json()
        await world.coordinator.patch(
            f"/patients/{registered['id']}", json={"coverage": {"member_id": "SBX-APPROVE-1"}}
        )
        await world.harness.settle()
        patient = await world.patient(registered["id"])
        assert [coverage.id for coverage in patient.coverages] == [registered["taken"][1]["id"]]
        assert patient.coverage_status is CoverageStatus.ACTIVE

    async def test_a_lapsed_coverage_is_told_and_another_one_is_asked_for(self, world: World) -> None:
        lapsed = {**WHOLE, "coverage": {"payer_id": "acme", "member_id": "SBX-LAPSED-1"}}
        id = (await world.register(lapsed)).json()["id"]
        await world.harness.settle()
        assert "coverage.lapsed.v1" in world.events()
        await world.coordinator.patch(f"/patients/{id}", json={"coverage": {"member_id": "SBX-APPROVE-2"}})
        await world.harness.settle()
        assert (await world.patient(id)).coverage_status is CoverageStatus.ACTIVE

    async def test_an_unknown_payer_makes_it_unverifiable(self, world: World) -> None:
        body = {**WHOLE, "coverage": {"payer_id": "unknown-payer", "member_id": "M1"}}
        id = (await world.register(body)).json()["id"]
        await world.harness.settle()
        patient = await world.patient(id)
        assert patient.coverage is not None
        assert (patient.coverage.status, patient.coverage.reason) == (CoverageStatus.UNVERIFIABLE, "payer-unknown")

    async def test_coverage_is_asked_about_again_before_the_answer_ages(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        await world.harness.settle()
        await world.harness.advance()
        patient = await world.patient(id)
        assert patient.coverage is not None
        assert patient.coverage.as_of == START + timedelta(days=25)
        assert world.events().count("coverage.verified.v1") == 1

    async def test_a_stop_said_to_notifications_reaches_every_reader(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        await world.harness.settle()
        before = len(world.events("intake.people"))
        event = ChannelRevoked(patient_id=id, channel=Channel.SMS)
        await world.harness.arrive(event, id, 1, service="notifications")
        await world.harness.settle()
        assert Channel.SMS in (await world.patient(id)).revoked
        assert len(world.events("intake.people")) == before + 1

    async def test_a_stop_of_somebody_unknown_changes_nothing(self, world: World) -> None:
        nobody = derived_id("nobody")
        await world.harness.arrive(ChannelRevoked(patient_id=nobody, channel=Channel.SMS), nobody, 1)
        await world.harness.settle()
        assert await world.harness.all(model.Patient) == []

    async def test_a_clinician_confirms_a_fact(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        fact = (await world.patient(id)).facts[0].id
        path = f"/patients/{id}/facts/{fact}/$confirm"
        assert (await world.coordinator.post(path, headers=world.harness.key())).status_code == 403
        assert (await world.clinician.post(path, headers=world.harness.key())).status_code == 200
        assert not (await world.patient(id)).facts[0].unconfirmed

    async def test_a_revoked_proxy_may_do_nothing_from_then_on(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        proxy = (await world.patient(id)).proxies[0].id
        path = f"/patients/{id}/proxies/{proxy}"
        assert (await world.coordinator.get(path)).json()["scopes"] == ["appointments"]
        await world.coordinator.delete(path)
        assert (await world.coordinator.get(path)).json()["scopes"] == []

    async def test_having_the_payer_asked_now_is_accepted_or_refused_with_what_is_missing(self, world: World) -> None:
        whole = (await world.register(WHOLE)).json()["id"]
        bare = (await world.register({"family": "Ortiz"})).json()["id"]
        verify = "/patients/{}/coverage/$verify"
        asked = await world.coordinator.post(verify.format(whole), headers=world.harness.key())
        assert asked.status_code == 202
        refused = await world.coordinator.post(verify.format(bare), headers=world.harness.key())
        assert refused.status_code == 409
        assert set(errors(refused)) == {"Coverage.payor", "Coverage.subscriberId"}

    async def test_a_registration_entered_in_error_is_forgotten_and_stays_so(self, world: World) -> None:
        id = (await world.register(WHOLE)).json()["id"]
        path = f"/patients/{id}/$entered-in-error"
        assert (await world.coordinator.post(path, headers=world.harness.key())).status_code == 200
        await world.harness.settle()
        stored = (await world.patient(id)).model_dump_json()
        assert not [personal for personal in PERSONAL if personal in stored]
        again = await world.coordinator.post(path, headers=world.harness.key())
        assert again.status_code == 409
        assert await world.harness.advance() is None
