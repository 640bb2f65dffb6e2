"""Referrals as a whole: the API over an in-memory store and bus, with other services' events arriving by topic."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from services.referrals.model import Person, Referral, Specialist, State
from services.referrals.service import Settings, build
from shared.contracts.base import Event
from shared.contracts.intake import CoverageLapsed, CoverageVerified, PatientRegistered
from shared.contracts.prior_authorization import AuthorizationApproved, AuthorizationNotRequired, ReviewAction
from shared.contracts.scheduling import AppointmentBooked, AppointmentFulfilled
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.testing.harness import Harness
from tests.unit.referrals.cases import COVERAGE, FIRST, PATIENT, PAYER, REPORT, SECOND, uid
from tests.unit.referrals.test_fhir import document_reference, service_request, task_of

APPOINTMENT, AUTHORIZATION = uid("appointment"), uid("authorization")
PACKET = [{"sha256": "ab" * 32, "kind": kind} for kind in ("medications", "photo")]
DERMATOLOGY = {
    "patient_id": PATIENT,
    "service": {"system": "http://snomed.info/sct", "code": "308472003"},
    "reasons": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "L40.0"}],
    "packet": PACKET,
}


class World:
    """The service, and short words for what a test does to it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self._sequences: dict[str, count[int]] = {}

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: Role = Role.COORDINATOR,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        async with self.harness.client(role) as client:
            keyed = {**(self.harness.key() if method == "POST" else {}), **(headers or {})}
            answer = await client.request(method, path, json=body, headers=keyed)
        await self.harness.settle()
        return answer

    async def post(self, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        answer = await self.send("POST", path, {} if body is None else body, **more)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def get(self, path: str, role: Role = Role.CLINICIAN) -> dict[str, Any]:
        answer = await self.send("GET", path, role=role)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def hear(self, subject: str, *events: Event) -> None:
        for event in events:
            number = next(self._sequences.setdefault(subject, count(1)))
            await self.harness.arrive(event, subject, number)
        await self.harness.settle()

    async def register(self) -> None:
        await self.hear(
            PATIENT,
            PatientRegistered(patient_id=PATIENT, complete=True),
            CoverageVerified(patient_id=PATIENT, coverage_id=COVERAGE, payer_id=PAYER, as_of=self.harness.clock.now()),
        )

    async def listed(self, id: str = FIRST, specialty: str = "dermatology", **more: Any) -> None:
        answer = await self.send("PUT", f"/specialists/{id}", {"specialty": specialty, **more})
        assert answer.status_code == 200, answer.text

    async def approve(self, id: str) -> None:
        case = {"authorization_id": derived_id("authorization", id), "referral_id": id, "patient_id": PATIENT}
        await self.hear(case["authorization_id"], AuthorizationNotRequired(**case, rule="none"))

    async def referral(self, id: str) -> Referral:
        found = await self.harness.stored(Referral, id)
        assert found is not None
        return found

    async def sent(self) -> str:
        """A referral that is with the first specialist."""
        await self.register()
        await self.listed()
        made = await self.post("/referrals", DERMATOLOGY)
        await self.approve(made["id"])
        assert (await self.referral(made["id"])).state is State.AWAITING_ACCEPTANCE
        id: str = made["id"]
        return id


@pytest.fixture
async def world() -> World:
    return World(await Harness(Settings, build).start())


def refused(answer: httpx.Response, status: int, slug: str, *paths: str) -> None:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["type"] == f"urn:carerelay:problem:{slug}"
    if paths:
        assert {error["path"] for error in problem["errors"]} == set(paths)


async def test_a_referral_goes_from_the_clinicians_request_to_the_closing_report(world: World) -> None:
    id = await world.sent()
    await world.post(f"/referrals/{id}/accept", role=Role.CLINICIAN)
    await world.post(f"/referrals/{id}/acknowledgement")
    start = world.harness.clock.now() + timedelta(days=5)
    case = {"appointment_id": APPOINTMENT, "patient_id": PATIENT, "referral_id": id}
    booked = AppointmentBooked(**case, resource_id=FIRST, start=start, end=start + timedelta(hours=1))
    await world.hear(APPOINTMENT, booked, AppointmentFulfilled(**case))
    shown = await world.get(f"/referrals/{id}")
    assert (shown["state"], shown["task_status"], shown["business_status"]) == (
        "awaiting-report",
        "in-progress",
        "5.1.4",
    )
    (owed,) = shown["missing"]
    assert (owed["what"], owed["owner"]) == ("report-owed", "specialist")
    note = document_reference(context={"related": [{"reference": f"ServiceRequest/{id}"}]})
    closed = await world.post("/fhir/DocumentReference", note, role=Role.SERVICE)
    assert closed["status"] == "completed"
    types = [type for type, _ in world.harness.published("referrals.events")]
    assert sorted(types) == sorted(
        f"referral.{name}.v1"
        for name in (
            "requested",
            "packet-completed",
            "authorization-requested",
            "sent",
            "accepted",
            "scheduled",
            "attended",
            "closed",
        )
    )
    history = (await world.get(f"/referrals/{id}/history"))["history"]
    assert history[0]["what"] == "requested"
    assert history[-1] == {"at": history[-1]["at"], "what": "moved", "state": "closed", "code": "report"}


async def test_a_referral_requested_before_the_patient_is_heard_of_waits_and_goes_on(world: World) -> None:
    made = await world.post("/referrals", DERMATOLOGY, role=Role.CLINICIAN)
    shown = await world.get(f"/referrals/{made['id']}")
    assert (shown["state"], shown["wait"]["reason"], shown["wait"]["owner"]) == (
        "awaiting-patient",
        "patient-unknown",
        "coordinator",
    )
    await world.register()
    assert (await world.referral(made["id"])).state is State.AWAITING_AUTHORIZATION


async def test_a_specialist_listed_after_the_referral_was_ready_is_sent_it(world: World) -> None:
    await world.register()
    await world.listed(SECOND, "cardiology")
    made = await world.post("/referrals", {**DERMATOLOGY, "performer_id": FIRST})
    await world.approve(made["id"])
    assert (await world.referral(made["id"])).state is State.AWAITING_SPECIALIST
    await world.listed(FIRST, "immunology")
    assert (await world.referral(made["id"])).specialist_id == FIRST


async def test_a_rejection_is_followed_by_an_alternative_that_reaches_the_next_specialist(world: World) -> None:
    id = await world.sent()
    await world.listed(SECOND)
    answer = await world.post(f"/referrals/{id}/reject", {"reason": "no-capacity"}, role=Role.CLINICIAN)
    assert answer["state"] == "rejected"
    alternative = await world.referral(answer["alternative_id"])
    assert (alternative.state, alternative.specialist_id, alternative.replaces) == (
        State.AWAITING_ACCEPTANCE,
        SECOND,
        id,
    )


async def test_a_lapse_stops_and_a_new_verification_resumes(world: World) -> None:
    id = await world.sent()
    now = world.harness.clock.now()
    lapse = CoverageLapsed(patient_id=PATIENT, coverage_id=COVERAGE, payer_id=PAYER, reason="terminated", as_of=now)
    await world.hear(PATIENT, lapse)
    shown = await world.get(f"/referrals/{id}")
    assert (shown["state"], shown["wait"]["reason"], shown["task_status"]) == (
        "awaiting-coverage",
        "coverage-lapsed",
        "on-hold",
    )
    again = CoverageVerified(patient_id=PATIENT, coverage_id=COVERAGE, payer_id=PAYER, as_of=now)
    await world.hear(PATIENT, again)
    assert (await world.referral(id)).state is State.AWAITING_ACCEPTANCE


async def test_a_breached_deadline_is_published_once_however_long_it_lasts(world: World) -> None:
    id = await world.sent()
    await world.harness.advance()
    assert await world.harness.advance() is None
    world.harness.clock.advance(timedelta(days=400))
    await world.harness.settle()
    types = [type for type, _ in world.harness.published("referrals.events")]
    assert types.count("referral.escalated.v1") == 1
    wait = (await world.get(f"/referrals/{id}"))["wait"]
    assert wait["escalated_at"] is not None


async def _told(world: World) -> list[dict[str, Any]]:
    """What the documents say, without the kit's book-keeping of what was heard when."""
    found = [each for type in (Referral, Person, Specialist) for each in await world.harness.all(type)]
    return [each.model_dump(exclude={"version", "applied"}) for each in found]


async def test_replaying_every_topic_changes_no_document_and_tells_nothing_again(world: World) -> None:
    id = await world.sent()
    await world.listed(SECOND)
    await world.post(f"/referrals/{id}/reject", {"reason": "no-capacity"})
    before, published = await _told(world), len(world.harness.published())
    for reactor in world.harness.chassis.reactors:
        logs = [log for topic in reactor.table.topics for log in world.harness.broker.topics.get(topic, [])]
        await reactor.handle([record for log in logs for record in log])
    await world.harness.settle()
    assert await _told(world) == before
    assert len(world.harness.published()) == published


async def test_the_packet_is_added_to_by_hash_and_says_what_is_wanting(world: World) -> None:
    await world.register()
    made = await world.post("/referrals", {**DERMATOLOGY, "packet": []})
    packet = (await world.get(f"/referrals/{made['id']}"))["packet"]
    assert packet["wanting"] == ["medications", "photo"]
    by_type = [
        {"sha256": "cd" * 32, "code": {"system": "http://loinc.org", "code": code}} for code in ("10160-0", "72170-4")
    ]
    answer = await world.post(f"/referrals/{made['id']}/packet", {"items": by_type})
    assert answer["state"] == "awaiting-authorization"
    unclear = {"items": [{"sha256": "ef" * 32, "code": {"system": "http://loinc.org", "code": "0-0"}}]}
    refused(await world.send("POST", f"/referrals/{made['id']}/packet", unclear), 422, "invalid", "items[0].kind")


async def test_worklists_are_by_patient_and_state_and_come_in_pages(world: World) -> None:
    for _ in range(3):
        await world.post("/referrals", DERMATOLOGY)
    await world.post("/referrals", {**DERMATOLOGY, "patient_id": uid("somebody else")})
    found = await world.get(f"/referrals?patient={PATIENT}&state=awaiting-patient&limit=2")
    assert len(found["referrals"]) == 2
    rest = await world.get(f"/referrals?patient={PATIENT}&limit=2&after={found['next']}")
    assert (len(rest["referrals"]), rest["next"]) == (1, None)
    assert {one["wait"]["reason"] for one in found["referrals"]} == {"patient-unknown"}
    assert (await world.get("/referrals?state=closed"))["referrals"] == []


async def test_the_registry_is_kept_by_editors_and_listed_by_specialty(world: World) -> None:
    await world.listed(capabilities=["patch-test"])
    await world.listed(SECOND, "cardiology", active=False)
    shown = await world.get("/specialists?specialty=dermatology")
    assert [(one["id"], one["resource_id"], one["active"]) for one in shown["specialists"]] == [(FIRST, FIRST, True)]
    assert (await world.get(f"/specialists/{SECOND}"))["active"] is False
    body = {"specialty": "dermatology"}
    refused(await world.send("PUT", f"/specialists/{FIRST}", body, role=Role.SCHEDULER), 403, "forbidden")


# -- FHIR ---------------------------------------------------------------------------------------------------------


async def test_a_posted_service_request_gets_an_id_of_ours_and_reads_back_as_order_and_task(world: World) -> None:
    created = await world.post("/fhir/ServiceRequest", service_request(), role=Role.CLINICIAN)
    assert created["id"] != service_request()["id"]
    assert (await world.get(f"/fhir/ServiceRequest/{created['id']}"))["status"] == "active"
    task = await world.get(f"/fhir/Task/{created['id']}")
    assert task["basedOn"] == [{"reference": f"ServiceRequest/{created['id']}"}]
    assert task["statusReason"] == {"text": "patient-unknown"}


async def test_a_put_service_request_keeps_its_id_so_that_its_task_closes_it(world: World) -> None:
    raw = service_request(status="completed")
    put = await world.send("PUT", f"/fhir/ServiceRequest/{raw['id']}", raw)
    assert put.status_code == 200, put.text
    assert (await world.referral(raw["id"])).state is State.AWAITING_REPORT
    again = await world.send("PUT", f"/fhir/ServiceRequest/{raw['id']}", raw)
    assert again.status_code == 200
    done = await world.post("/fhir/Task", task_of())
    assert (done["status"], done["id"]) == ("completed", raw["id"])
    other = await world.send("PUT", f"/fhir/ServiceRequest/{uid('other')}", raw)
    refused(other, 422, "invalid", "ServiceRequest.id")


async def test_a_specialist_may_answer_by_task(world: World) -> None:
    id = await world.sent()
    accepted = task_of(status="accepted", basedOn=[{"reference": f"ServiceRequest/{id}"}])
    assert (await world.post("/fhir/Task", accepted))["status"] == "accepted"


@pytest.mark.parametrize("intent", ["proposal", "plan", "option"])
async def test_a_request_that_is_no_order_is_refused(world: World, intent: str) -> None:
    answer = await world.send("POST", "/fhir/ServiceRequest", service_request(intent=intent))
    refused(answer, 422, "invalid", "ServiceRequest.intent")
    assert await world.harness.all(Referral) == []


# -- refusals -----------------------------------------------------------------------------------------------------


async def test_a_report_for_another_referral_or_patient_is_refused_by_name(world: World) -> None:
    id = await world.sent()
    report = {"report_id": REPORT, "based_on": id}
    slug = "report-not-based-on-this-referral"
    elsewhere = {**report, "based_on": uid("other")}
    refused(await world.send("POST", f"/referrals/{id}/report", elsewhere), 409, slug, "basedOn")
    somebody = {**report, "patient_id": uid("somebody else")}
    refused(await world.send("POST", f"/referrals/{id}/report", somebody), 409, slug, "subject")
    assert (await world.referral(id)).state is State.AWAITING_ACCEPTANCE
    await world.post(f"/referrals/{id}/report", {**report, "patient_id": PATIENT})
    refused(await world.send("POST", f"/referrals/{id}/cancel", {"reason": "late"}), 409, "illegal-transition")


async def test_a_report_for_a_referral_nobody_knows_finds_nothing(world: World) -> None:
    refused(await world.send("POST", "/fhir/Task", task_of()), 404, "not-found")


async def test_bad_input_is_named_by_field(world: World) -> None:
    bad = {**DERMATOLOGY, "patient_id": "not-a-uuid", "quantity": 0, "colour": "red"}
    refused(await world.send("POST", "/referrals", bad), 422, "invalid", "patient_id", "quantity", "(unknown field)")
    refused(await world.send("GET", "/referrals?state=lost"), 422, "invalid", "state")
    ahead = {"acknowledged_on": "2999-01-01T00:00:00Z"}
    made = await world.post("/referrals", DERMATOLOGY)
    refused(
        await world.send("POST", f"/referrals/{made['id']}/acknowledgement", ahead), 422, "invalid", "acknowledged_on"
    )


async def test_a_repeated_key_is_answered_as_before_and_makes_one_referral(world: World) -> None:
    key = {"Idempotency-Key": "once"}
    first = await world.send("POST", "/referrals", DERMATOLOGY, headers=key)
    second = await world.send("POST", "/referrals", DERMATOLOGY, headers=key)
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert len(await world.harness.all(Referral)) == 1
    other = await world.send("POST", "/referrals", {**DERMATOLOGY, "quantity": 2}, headers=key)
    refused(other, 422, "idempotency-key-reused")


async def test_a_stale_if_match_is_refused(world: World) -> None:
    made = await world.post("/referrals", DERMATOLOGY)
    stale = {"If-Match": '"99"'}
    answer = await world.send("POST", f"/referrals/{made['id']}/cancel", {"reason": "late"}, headers=stale)
    refused(answer, 412, "stale")


async def test_an_approvals_number_dates_and_units_are_shown(world: World) -> None:
    await world.register()
    made = await world.post("/referrals", DERMATOLOGY)
    approval = AuthorizationApproved(
        authorization_id=AUTHORIZATION,
        referral_id=made["id"],
        patient_id=PATIENT,
        action=ReviewAction.MODIFIED,
        number="AUTH-7",
        units_requested=4,
        units_granted=2,
    )
    await world.hear(AUTHORIZATION, approval)
    shown = (await world.get(f"/referrals/{made['id']}"))["authorization"]
    assert (shown["number"], shown["units_requested"], shown["units_granted"]) == ("AUTH-7", 4, 2)
