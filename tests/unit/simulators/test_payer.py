"""The payer answers as its README says, by script, by the injected clock, and its ledger knows all of it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.coverageeligibilityresponse import CoverageEligibilityResponse
from fhir.resources.R4B.operationoutcome import OperationOutcome

from deploy.simulators import payer as payers
from deploy.simulators.adjudication import script_of_member
from deploy.simulators.outbound import TRIES
from deploy.simulators.payer import InquiryAnswer, Payer
from shared.kit.clock import FrozenClock
from tests.unit.simulators.world import (
    ELIGIBILITY,
    INQUIRE,
    PAS,
    START,
    SUBMIT,
    Json,
    Listener,
    action_of,
    bundle,
    changed,
    client,
    eligibility,
    extension_of,
    frozen,
    paths_of,
    response_of,
    review,
    without,
)

HOUR = timedelta(hours=1)


@dataclass
class World:
    """A payer in process, its clock, and whom it notifies."""

    clock: FrozenClock
    listener: Listener
    payer: Payer
    http: httpx.AsyncClient
    slept: list[float] = field(default_factory=list)

    async def submit(self, attempt: str, member: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key is not None else {}
        return await self.http.post(SUBMIT, json=bundle(attempt, member, **options), headers=headers)

    async def action(self, attempt: str, member: str, **options: Any) -> str:
        answer = await self.submit(attempt, member, **options)
        assert answer.status_code == 200, answer.text
        return action_of(answer.json())

    async def inquire(self, attempt: str, member: str = "M-1") -> Json:
        answer = await self.http.post(INQUIRE, json=bundle(attempt, member))
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def ledger(self) -> Json:
        found: Json = (await self.http.get("/ledger")).json()
        return found

    async def authorization(self) -> Json:
        (only,) = (await self.ledger())["authorizations"]
        found: Json = only
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock, listener, slept = frozen(), Listener(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    payer = Payer(
        now=clock.now,
        http=listener.http,
        notify_url="http://authorizations.test/payers/{payer_id}/notifications",
        token=lambda: "a-token",
        sleep=sleep,
    )
    async with client(payer.app) as http:
        yield World(clock, listener, payer, http, slept)


# -- what each script leads to --------------------------------------------------------------------------------------


async def test_an_ordinary_member_is_approved_at_once_with_number_dates_and_units(world: World) -> None:
    answer = await world.submit("a1", "M-1", units=4)
    response = response_of(answer.json())
    decision = review(response["item"][0])
    assert decision["action"] == "A1"
    assert response["outcome"] == "complete"
    assert response["preAuthRef"] == decision["number"]
    assert response["preAuthPeriod"] == {"start": "2026-03-02", "end": "2026-05-31"}
    assert response["identifier"][0]["value"] == "a1"
    assert response["request"] == {"reference": "Claim/claim-a1"}
    assert extension_of(response["item"][0], "itemPreAuthIssueDate")["valueDate"] == "2026-03-02"
    assert extension_of(response["item"][0], "itemPreAuthPeriod")["valuePeriod"]["end"] == "2026-05-31"
    detail = extension_of(response["item"][0], "itemAuthorizedDetail")["extension"]
    assert {"url": "quantity", "valueQuantity": {"value": 4}} in detail
    current = (await world.authorization())["current"]
    assert current["number"] == decision["number"]
    assert (current["valid_from"], current["valid_to"]) == ("2026-03-02", "2026-05-31")
    assert (current["units_requested"], current["units_granted"]) == (4, 4)


@pytest.mark.parametrize(
    ("member", "action"),
    [
        ("SBX-APPROVE-1", "A1"),
        ("SBX-PARTIAL-1", "A2"),
        ("SBX-DENY-1", "A3"),
        ("SBX-PEND-POLL-1", "A4"),
        ("SBX-PEND-NOTIFY-1", "A4"),
        ("SBX-MODIFY-1", "A6"),
        ("SBX-CONTACT-1", "CT"),
        ("SBX-NOTREQUIRED-1", "NA"),
        ("SBX-NONSENSE-1", "A1"),
        ("SBX-APPROVE", "A1"),
    ],
)
async def test_a_sandbox_member_gets_the_decision_that_its_id_names(world: World, member: str, action: str) -> None:
    assert await world.action("a1", member) == action
    assert (await world.authorization())["current"]["action"] == action


async def test_what_a_modified_approval_grants_stands_in_add_item_and_not_in_the_item(world: World) -> None:
    response = response_of((await world.submit("a1", "SBX-MODIFY-1", units=5)).json())
    (added,) = response["addItem"]
    assert added["itemSequence"] == [1]
    assert added["quantity"] == {"value": 2}
    assert review(added)["action"] == "A6"
    assert review(added)["number"] == response["preAuthRef"]
    assert not [x for x in response["item"][0]["extension"] if x["url"].endswith("itemAuthorizedDetail")]
    assert (await world.authorization())["current"]["units_granted"] == 2


async def test_a_denial_names_its_reasons_and_has_no_number(world: World) -> None:
    response = response_of((await world.submit("a1", "SBX-DENY-1")).json())
    assert review(response["item"][0]) == {"action": "A3", "reasons": ["82"]}
    assert "preAuthRef" not in response


async def test_words_of_a_member_id_combine() -> None:
    script = script_of_member("SBX-BUSY-PEND-POLL-DENY-OVERTURN-12")
    assert (script.busy, script.pend_hours, script.decision, script.appeal) == (2, 26, "A3", "A1")


# -- time -----------------------------------------------------------------------------------------------------------


async def test_a_pended_request_is_decided_after_26_hours_and_not_before(world: World) -> None:
    await world.submit("a1", "SBX-PEND-POLL-1")
    assert world.payer.next_due() == START + 26 * HOUR
    world.clock.advance(26 * HOUR - timedelta(milliseconds=1))
    assert await world.payer.tick() == 0
    assert action_of(await world.inquire("a1")) == "A4"
    world.clock.advance(timedelta(milliseconds=1))
    assert await world.payer.tick() == 1
    assert action_of(await world.inquire("a1")) == "A1"
    assert world.listener.got == []
    assert world.payer.next_due() is None


async def test_a_pended_answer_carries_the_number_under_which_it_is_known(world: World) -> None:
    response = response_of((await world.submit("a1", "SBX-PEND-POLL-1")).json())
    number = extension_of(response["item"][0], "administrationReferenceNumber")["valueString"]
    other = changed(bundle("unheard-of", "M-1"), None, "entry", 0, "resource", "item", 0, "quantity")
    item = other["entry"][0]["resource"]["item"][0]
    del item["quantity"]
    url = item["extension"][0]["url"].replace("certificationType", "administrationReferenceNumber")
    item["extension"].append({"url": url, "valueString": number})
    found = (await world.http.post(INQUIRE, json=other)).json()
    assert action_of(found) == "A4"


async def test_an_inquiry_learns_of_a_decision_that_no_tick_has_made_yet(world: World) -> None:
    await world.submit("a1", "SBX-PEND-POLL-1")
    world.clock.advance(40 * HOUR)
    assert action_of(await world.inquire("a1")) == "A1"
    history = (await world.authorization())["history"]
    assert [(ruling["at"], ruling["action"]) for ruling in history] == [
        ("2026-03-02T15:00:00.000Z", "A4"),
        ("2026-03-03T17:00:00.000Z", "A1"),
    ]


async def test_a_decision_is_notified_after_5_hours_with_the_whole_answer_and_a_token(world: World) -> None:
    await world.submit("a1", "SBX-PEND-NOTIFY-1")
    world.clock.advance(5 * HOUR)
    await world.payer.tick()
    ((path, authorization, body),) = world.listener.got
    assert (path, authorization) == ("payers/acme/notifications", "Bearer a-token")
    assert body["type"] == "history"
    Bundle.model_validate(body)
    status, answer = (entry["resource"] for entry in body["entry"])
    parameters = {parameter["name"]: parameter for parameter in status["parameter"]}
    assert parameters["type"]["valueCode"] == "event-notification"
    parts = {part["name"]: part for part in parameters["notification-event"]["part"]}
    assert parts["focus"]["valueReference"]["reference"] == body["entry"][1]["fullUrl"]
    assert action_of(answer) == "A1"
    assert response_of(answer)["identifier"][0]["value"] == "a1"
    (notification,) = (await world.authorization())["notifications"]
    assert notification["accepted"]


async def test_a_notification_is_sent_again_until_it_is_taken(world: World) -> None:
    world.listener.statuses = [503, 500]
    await world.submit("a1", "SBX-PEND-NOTIFY-1")
    for _ in range(5):
        due = world.payer.next_due()
        if due is None:
            break
        world.clock.advance_to(due)
        await world.payer.tick()
    (notification,) = (await world.authorization())["notifications"]
    assert [sent["status"] for sent in notification["sent"]] == [503, 500, 202]
    assert len(world.listener.got) == 3
    assert len(set(world.listener.keys)) == 1
    assert world.payer.next_due() is None


async def test_a_subscriber_that_never_answers_is_given_up_after_a_bounded_number_of_tries(world: World) -> None:
    world.listener.statuses = [500] * 1000
    await world.submit("a1", "SBX-PEND-NOTIFY-1")
    while (due := world.payer.next_due()) is not None:
        world.clock.advance_to(due)
        await world.payer.tick()
    assert len(world.listener.got) == TRIES
    (notification,) = (await world.authorization())["notifications"]
    assert not notification["accepted"]


async def test_a_member_with_dup_is_notified_twice(world: World) -> None:
    await world.submit("a1", "SBX-PEND-NOTIFY-DUP-1")
    world.clock.advance(5 * HOUR)
    await world.payer.tick()
    assert len(world.listener.got) == 2
    assert world.listener.got[0] == world.listener.got[1]
    assert world.listener.keys[0] != world.listener.keys[1]


# -- once and once only ---------------------------------------------------------------------------------------------


async def test_a_repeated_submission_gets_the_same_bytes_and_opens_no_second_authorization(world: World) -> None:
    first = await world.submit("a1", "SBX-PEND-POLL-1", key="k")
    world.clock.advance(30 * HOUR)
    again = await world.submit("a1", "SBX-PEND-POLL-1", key="k")
    assert again.content == first.content
    (received,) = (await world.authorization())["claims"]
    assert received["duplicates"] == ["2026-03-03T21:00:00.000Z"]
    assert received["idempotency_key"] == "k"


async def test_an_attempt_id_that_comes_back_for_something_else_is_refused(world: World) -> None:
    await world.submit("a1", "M-1", units=1)
    refused = await world.submit("a1", "M-1", units=2)
    assert refused.status_code == 422
    assert refused.json()["issue"][0]["code"] == "duplicate"
    assert paths_of(refused.json()) == ["Bundle.entry[0].resource.identifier[0].value"]


async def test_an_idempotency_key_that_comes_back_with_another_claim_is_refused(world: World) -> None:
    await world.submit("a1", "M-1", key="k")
    refused = await world.submit("a2", "M-1", key="k")
    assert refused.status_code == 422
    assert len((await world.ledger())["authorizations"]) == 1


async def test_two_payers_keep_the_same_attempt_id_apart(world: World) -> None:
    await world.submit("a1", "M-1")
    other = await world.http.post(SUBMIT.replace("acme", "zenith"), json=bundle("a1", "M-1"))
    assert other.status_code == 200
    assert {entry["payer_id"] for entry in (await world.ledger())["authorizations"]} == {"acme", "zenith"}


# -- appeals, cancellations, revisions ------------------------------------------------------------------------------


async def test_an_appeal_overturns_a_denial_and_both_attempts_lead_to_the_same_decision(world: World) -> None:
    assert await world.action("a1", "SBX-DENY-OVERTURN-1") == "A3"
    assert await world.action("a2", "SBX-DENY-OVERTURN-1", certification="2", related="a1") == "A1"
    for attempt in ("a1", "a2"):
        found = await world.inquire(attempt)
        assert action_of(found) == "A1"
        assert response_of(found)["identifier"][0]["value"] == attempt
        assert response_of(found)["request"] == {"reference": "Claim/claim-a2"}
    case = await world.authorization()
    assert case["id"] == "a1"
    assert [(received["attempt_id"], received["related"]) for received in case["claims"]] == [
        ("a1", None),
        ("a2", "a1"),
    ]


async def test_a_denial_that_is_final_is_denied_on_every_appeal(world: World) -> None:
    await world.submit("a1", "SBX-DENY-1")
    assert await world.action("a2", "SBX-DENY-1", certification="2", related="a1") == "A3"
    assert await world.action("a3", "SBX-DENY-1", certification="1", related="a2") == "A3"


async def test_an_appeal_may_name_the_earlier_claim_by_reference(world: World) -> None:
    await world.submit("a1", "SBX-DENY-OVERTURN-1")
    appeal = bundle("a2", "SBX-DENY-OVERTURN-1", certification="2", related="a1")
    by_reference = changed(appeal, {"reference": "Claim/claim-a1"}, "entry", 0, "resource", "related", 0, "claim")
    assert action_of((await world.http.post(SUBMIT, json=by_reference)).json()) == "A1"


@pytest.mark.parametrize(
    ("member", "certification"),
    [("M-1", "2"), ("SBX-PEND-POLL-1", "2"), ("SBX-DENY-1", "S")],
    ids=["appeal of an approval", "appeal of what is pended", "revision of a denial"],
)
async def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(
    world: World, member: str, certification: str
) -> None:
    await world.submit("a1", member)
    before = await world.authorization()
    refused = await world.submit("a2", member, certification=certification, related="a1")
    assert refused.status_code == 422
    assert refused.json()["issue"][0]["code"] == "business-rule"
    assert await world.authorization() == before


@pytest.mark.parametrize("member", ["M-1", "SBX-DENY-1", "SBX-PEND-POLL-1", "SBX-MODIFY-1"])
async def test_a_cancellation_is_answered_c_in_every_state_and_nothing_comes_after_it(
    world: World, member: str
) -> None:
    await world.submit("a1", member)
    assert await world.action("a2", member, certification="3", related="a1") == "C"
    world.clock.advance(100 * HOUR)
    await world.payer.tick()
    assert action_of(await world.inquire("a1")) == "C"
    assert world.payer.next_due() is None


async def test_a_revision_of_what_is_pended_replaces_it(world: World) -> None:
    await world.submit("a1", "SBX-PEND-POLL-1", units=4)
    world.clock.advance(HOUR)
    assert await world.action("a2", "SBX-PEND-POLL-1", certification="S", related="a1", units=6) == "A4"
    assert world.payer.next_due() == START + 27 * HOUR
    world.clock.advance(26 * HOUR)
    await world.payer.tick()
    assert (await world.authorization())["current"]["units_granted"] == 6


async def test_an_item_that_an_update_takes_out_is_answered_c_and_asks_for_no_unit(world: World) -> None:
    await world.submit("a1", "M-1", units=4)
    update = bundle("a2", "M-1", certification="S", related="a1", units=6)
    claim = update["entry"][0]["resource"]
    flag = {"url": PAS + "modifierextension-infoCancelled", "valueBoolean": True}
    cancelled = copy.deepcopy(claim["item"][0]) | {"sequence": 2, "modifierExtension": [flag]}
    cancelled["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] = "3"
    claim["item"].append(cancelled)
    mixed = await world.http.post(SUBMIT, json=update)
    assert mixed.status_code == 422
    claim["extension"] = [copy.deepcopy(claim["item"][0]["extension"][0])]
    answer = await world.http.post(SUBMIT, json=update)
    assert answer.status_code == 200, answer.text
    assert [review(item)["action"] for item in response_of(answer.json())["item"]] == ["A1", "C"]
    assert (await world.authorization())["current"]["units_granted"] == 6


async def test_a_subscription_is_taken_and_renewed_under_its_id(world: World) -> None:
    url = SUBMIT.replace("Claim/$submit", "Subscription")
    made = await world.http.post(url, json={"resourceType": "Subscription", "end": "2026-06-01T00:00:00Z"})
    id = made.json()["id"]
    renewed = await world.http.put(f"{url}/{id}", json={"resourceType": "Subscription", "end": "2026-09-01T00:00:00Z"})
    assert (made.status_code, renewed.status_code, renewed.json()["id"]) == (201, 200, id)
    assert (await world.http.put(f"{url}/other", json={"resourceType": "Subscription"})).status_code == 404
    assert (await world.http.post(url, json={"resourceType": "Claim"})).status_code == 422


async def test_a_related_claim_that_nobody_submitted_is_not_found(world: World) -> None:
    refused = await world.submit("a2", "M-1", certification="2", related="nowhere")
    assert refused.status_code == 422
    assert refused.json()["issue"][0]["code"] == "not-found"
    assert paths_of(refused.json()) == ["Bundle.entry[0].resource.related[0].claim"]


async def test_a_related_claim_of_another_member_is_refused(world: World) -> None:
    await world.submit("a1", "SBX-DENY-1")
    refused = await world.submit("a2", "SBX-DENY-2", certification="2", related="a1")
    assert refused.status_code == 422


# -- faults ---------------------------------------------------------------------------------------------------------


async def test_a_busy_payer_says_when_to_come_back_takes_nothing_twice_and_then_approves(world: World) -> None:
    answers = [await world.submit("a1", "SBX-BUSY-1") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "2"
    (received,) = (await world.authorization())["claims"]
    assert received["duplicates"] == []


async def test_a_failing_payer_takes_nothing_twice_and_then_approves(world: World) -> None:
    answers = [await world.submit("a1", "SBX-ERROR-1") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert (await world.authorization())["claims"][0]["duplicates"] == []


async def test_a_lost_answer_is_found_again_under_the_same_attempt(world: World) -> None:
    assert (await world.submit("a1", "SBX-LOST-1")).status_code == 500
    assert (await world.authorization())["current"]["action"] == "A1"
    assert [(await world.submit("a1", "SBX-LOST-1")).status_code for _ in range(2)] == [500, 200]
    assert len((await world.authorization())["claims"][0]["duplicates"]) == 2


async def test_a_slow_payer_takes_the_request_sleeps_once_and_then_answers(world: World) -> None:
    assert await world.action("a1", "SBX-SLOW-1") == "A1"
    assert await world.action("a1", "SBX-SLOW-1") == "A1"
    assert world.slept == [20.0]


async def test_a_sleep_that_raises_a_timeout_is_seen_as_one_by_the_caller_though_the_request_was_taken() -> None:
    async def time_out(seconds: float) -> None:
        raise httpx.ReadTimeout("slow")

    app = payers.app(frozen().now, Listener().http, sleep=time_out)
    async with client(app) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(SUBMIT, json=bundle("a1", "SBX-SLOW-1"))
        assert action_of((await http.post(SUBMIT, json=bundle("a1", "SBX-SLOW-1"))).json()) == "A1"
        assert len(app.state.payer.ledger.authorizations) == 1


async def test_an_outage_refuses_the_next_requests_of_the_payer_it_names(world: World) -> None:
    order = {"status": 503, "count": 1, "retry_after": 7, "payer_id": "acme"}
    assert (await world.http.post("/control/outage", json=order)).status_code == 204
    other = await world.http.post(ELIGIBILITY.replace("acme", "zenith"), json=eligibility("M-1"))
    assert other.status_code == 200
    refused = await world.http.post(ELIGIBILITY, json=eligibility("M-1"))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
    OperationOutcome.model_validate(refused.json())
    assert (await world.http.post(ELIGIBILITY, json=eligibility("M-1"))).status_code == 200
    assert (await world.ledger())["requests"]["acme"] == {"eligibility": 2, "submit": 0, "inquire": 0, "refused": 1}


async def test_a_script_by_control_holds_from_then_on(world: World) -> None:
    order = {"member_id": "M-1", "words": "PEND-NOTIFY", "pend_hours": 1, "decision": "A6", "units": 3}
    assert (await world.http.post("/control/script", json=order)).status_code == 204
    await world.submit("a1", "M-1", units=9)
    world.clock.advance(HOUR)
    await world.payer.tick()
    current = (await world.authorization())["current"]
    assert (current["action"], current["units_granted"]) == ("A6", 3)
    assert len(world.listener.got) == 1


@pytest.mark.parametrize(
    ("order", "path"),
    [
        ({"member_id": "M-1", "words": "FLY"}, "words"),
        ({"words": "DENY"}, "member_id"),
        ({"member_id": "M-1", "decisoin": "A1"}, "decisoin"),
        ({"member_id": "M-1", "decision": "A9"}, "decision"),
    ],
)
async def test_a_script_that_means_nothing_is_refused(world: World, order: Json, path: str) -> None:
    refused = await world.http.post("/control/script", json=order)
    assert refused.status_code == 422
    assert paths_of(refused.json()) == [path]


# -- inquiry --------------------------------------------------------------------------------------------------------


async def test_every_inquiry_stands_in_the_ledger_with_its_time(world: World) -> None:
    await world.submit("a1", "SBX-PEND-POLL-1")
    for _ in range(2):
        world.clock.advance(HOUR)
        await world.inquire("a1")
    assert (await world.authorization())["inquiries"] == ["2026-03-02T16:00:00.000Z", "2026-03-02T17:00:00.000Z"]
    assert (await world.ledger())["requests"]["acme"]["inquire"] == 2


async def test_an_inquiry_after_nothing_known_gets_the_parties_and_no_response(world: World) -> None:
    found = await world.inquire("nowhere")
    assert {entry["resource"]["resourceType"] for entry in found["entry"]} == {"Organization", "Patient"}
    Bundle.model_validate(found)


async def test_an_inquiry_may_be_answered_in_parameters_as_2_2_1_defines() -> None:
    payer = Payer(now=frozen().now, http=Listener().http, inquiry=InquiryAnswer.PARAMETERS)
    async with client(payer.app) as http:
        await http.post(SUBMIT, json=bundle("a1", "M-1"))
        found = (await http.post(INQUIRE, json=bundle("a1", "M-1"))).json()
        assert found["resourceType"] == "Parameters"
        assert found["parameter"][0]["name"] == "return"
        assert action_of(found["parameter"][0]["resource"]) == "A1"
        nothing = (await http.post(INQUIRE, json=bundle("nowhere", "M-1"))).json()
        assert nothing == {"resourceType": "Parameters"}


# -- eligibility ----------------------------------------------------------------------------------------------------


async def test_coverage_is_in_force_unless_the_script_says_otherwise(world: World) -> None:
    active = (await world.http.post(ELIGIBILITY, json=eligibility("M-1", "validation", "auth-requirements"))).json()
    CoverageEligibilityResponse.model_validate(active)
    assert active["insurance"][0]["inforce"] is True
    assert active["insurance"][0]["benefitPeriod"] == {"start": "2026-01-01", "end": "2026-12-31"}
    assert active["insurance"][0]["item"][0]["authorizationRequired"] is True
    lapsed = (await world.http.post(ELIGIBILITY, json=eligibility("SBX-LAPSED-3"))).json()
    CoverageEligibilityResponse.model_validate(lapsed)
    assert lapsed["outcome"] == "complete"
    assert lapsed["insurance"][0]["inforce"] is False
    assert lapsed["insurance"][0]["benefitPeriod"]["end"] == "2026-01-31"
    checks = (await world.ledger())["eligibility"]
    assert [(check["member_id"], check["in_force"]) for check in checks] == [("M-1", True), ("SBX-LAPSED-3", False)]


async def test_a_member_nobody_knows_is_an_error_with_the_x12_reject_code(world: World) -> None:
    found = (await world.http.post(ELIGIBILITY, json=eligibility("SBX-UNKNOWN-1"))).json()
    CoverageEligibilityResponse.model_validate(found)
    assert found["outcome"] == "error"
    assert found["error"][0]["code"]["coding"][0]["code"] == "75"


async def test_a_member_id_may_come_as_the_identifier_of_the_reference(world: World) -> None:
    request = without(eligibility("M-1"), "contained")
    inline = changed(request, {"identifier": {"value": "SBX-LAPSED-9"}}, "insurance", 0, "coverage")
    found = (await world.http.post(ELIGIBILITY, json=inline)).json()
    assert found["insurance"][0]["inforce"] is False


async def test_a_payer_that_nobody_knows_is_404(world: World) -> None:
    refused = await world.http.post(ELIGIBILITY.replace("acme", "unknown-payer"), json=eligibility("M-1"))
    assert refused.status_code == 404
    OperationOutcome.model_validate(refused.json())


# -- bad input ------------------------------------------------------------------------------------------------------

_CLAIM = ("entry", 0, "resource")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (without(bundle("a1", "M-1"), "timestamp"), "Bundle.timestamp"),
        (without(bundle("a1", "M-1"), "identifier"), "Bundle.identifier"),
        (changed(bundle("a1", "M-1"), "batch", "type"), "Bundle.type"),
        (changed(bundle("a1", "M-1"), [], "entry"), "Bundle.entry"),
        (without(bundle("a1", "M-1"), "entry", 0), "Bundle.entry[0].resource"),
        (without(bundle("a1", "M-1"), "entry", 3), "Bundle.entry[0].resource.insurance[0].coverage.reference"),
        (without(bundle("a1", "M-1"), "entry", 3, "resource", "subscriberId"), "Bundle.entry[3].resource.subscriberId"),
        (without(bundle("a1", "M-1"), *_CLAIM, "identifier"), "Bundle.entry[0].resource.identifier[0].value"),
        (without(bundle("a1", "M-1"), *_CLAIM, "insurer"), "Bundle.entry[0].resource.insurer"),
        (without(bundle("a1", "M-1"), *_CLAIM, "priority"), "Bundle.entry[0].resource.priority"),
        (changed(bundle("a1", "M-1"), "claim", *_CLAIM, "use"), "Bundle.entry[0].resource.use"),
        (
            changed(bundle("a1", "M-1"), {"value": 0.5}, *_CLAIM, "item", 0, "quantity"),
            "Bundle.entry[0].resource.item[0].quantity.value",
        ),
        (
            without(bundle("a1", "M-1"), *_CLAIM, "item", 0, "productOrService", "coding"),
            "Bundle.entry[0].resource.item[0].productOrService",
        ),
        (
            bundle("a1", "M-1", certification="Z"),
            "Bundle.entry[0].resource.item[0].extension('http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
            "extension-certificationType')",
        ),
        (bundle("a1", "M-1", certification="3"), "Bundle.entry[0].resource.related[0].claim"),
        (bundle("a1", "M-1", related="a0"), "Bundle.entry[0].resource.related[0].claim"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_that_breaks_a_rule_is_422_and_names_the_path(world: World, body: Json, path: str) -> None:
    refused = await world.http.post(SUBMIT, json=body)
    assert refused.status_code == 422, refused.text
    OperationOutcome.model_validate(refused.json())
    assert path in paths_of(refused.json())
    assert (await world.ledger())["authorizations"] == []


async def test_a_request_says_at_once_of_everything_that_is_wrong(world: World) -> None:
    body = changed(bundle("a1", "M-1", certification="Z"), {"value": 0}, *_CLAIM, "item", 0, "quantity")
    refused = await world.http.post(SUBMIT, json=without(body, "entry", 3))
    assert len(paths_of(refused.json())) == 3


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceType": "Patient"}', b"\xff"])
async def test_what_is_no_request_at_all_is_400(world: World, body: bytes) -> None:
    for url in (SUBMIT, INQUIRE, ELIGIBILITY):
        refused = await world.http.post(url, content=body)
        assert refused.status_code == 400
        OperationOutcome.model_validate(refused.json())


async def test_a_body_over_the_limit_is_413(world: World) -> None:
    refused = await world.http.post(SUBMIT, content=b" " * (1024 * 1024 + 1))
    assert refused.status_code == 413
    OperationOutcome.model_validate(refused.json())


async def test_without_strictness_the_rules_of_pas_still_hold() -> None:
    payer = Payer(now=frozen().now, http=Listener().http, strict=False)
    async with client(payer.app) as http:
        assert (await http.post(SUBMIT, json=bundle("a1", "M-1"))).status_code == 200
        refused = await http.post(SUBMIT, json=without(bundle("a2", "M-1"), *_CLAIM, "insurer"))
        assert refused.status_code == 422


# -- others' requests and answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["SBX-APPROVE-1", "SBX-MODIFY-1", "SBX-DENY-1", "SBX-PEND-POLL-1", "SBX-CONTACT-1"])
async def test_every_answer_is_valid_fhir(world: World, member: str) -> None:
    Bundle.model_validate((await world.submit("a1", member)).json())
    Bundle.model_validate(await world.inquire("a1"))


@pytest.mark.parametrize(
    "name",
    [
        "pas/examples/Bundle-ReferralAuthorizationBundleExample.json",
        "pas/examples/Bundle-MedicalServicesAuthorizationBundleExample.json",
        "pas/examples/Bundle-HomecareAuthorizationBundleExample.json",
    ],
)
async def test_the_guides_own_requests_are_taken(world: World, cases: Path, name: str) -> None:
    body = json.loads((cases / name).read_text(encoding="utf-8"))
    answer = await world.http.post(SUBMIT, json=body)
    assert answer.status_code == 200, answer.text
    assert action_of(answer.json()) == "A1"
    assert len(response_of(answer.json())["item"]) == len(body["entry"][0]["resource"]["item"])


async def test_the_guides_own_inquiry_finds_the_guides_own_request(world: World, cases: Path) -> None:
    folder = cases / "pas" / "examples"
    request = json.loads((folder / "Bundle-ReferralAuthorizationBundleExample.json").read_text(encoding="utf-8"))
    inquiry = json.loads((folder / "Bundle-PASClaimInquiryBundleExample.json").read_text(encoding="utf-8"))
    await world.http.post(SUBMIT, json=request)
    assert action_of((await world.http.post(INQUIRE, json=inquiry)).json()) == "A1"


async def test_a_request_that_a_conformance_kit_holds_for_wrong_is_refused(world: World, cases: Path) -> None:
    body = (cases / "pas" / "testkit" / "nonconformant_pas_bundle.json").read_bytes()
    refused = await world.http.post(SUBMIT, content=body)
    assert refused.status_code == 422
    assert "Bundle.entry" in paths_of(refused.json())


async def test_an_answer_has_the_shape_of_the_guides_own_answer(world: World, cases: Path) -> None:
    folder = cases / "pas" / "examples"
    theirs = json.loads((folder / "Bundle-ReferralAuthorizationResponseBundleExample.json").read_text(encoding="utf-8"))
    ours = (await world.submit("a1", "M-1")).json()
    assert theirs["entry"][0]["fullUrl"].rsplit("/", 2)[1] == ours["entry"][0]["fullUrl"].rsplit("/", 2)[1]
    assert ours.keys() >= theirs.keys() - {"language", "text"}
    assert response_of(ours).keys() >= response_of(theirs).keys() - {"text"}
    assert review(response_of(ours)["item"][0]).keys() == review(response_of(theirs)["item"][0]).keys()


async def test_the_journal_holds_each_fact_in_the_order_in_which_it_came(tmp_path: Path) -> None:
    clock = frozen()
    payer = Payer(now=clock.now, http=Listener().http, data=tmp_path)
    async with client(payer.app) as http:
        await http.post(ELIGIBILITY, json=eligibility("M-1"))
        await http.post(SUBMIT, json=bundle("a1", "SBX-PEND-POLL-1"))
        await http.post(SUBMIT, json=bundle("a1", "SBX-PEND-POLL-1"))
        clock.advance(26 * HOUR)
        await http.post(INQUIRE, json=bundle("a1", "M-1"))
    lines = [json.loads(line) for line in (tmp_path / "payer.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [line["what"] for line in lines]
    assert told == ["eligibility", "claim", "ruling", "duplicate", "ruling", "inquiry"]
    assert [line["action"] for line in lines if line["what"] == "ruling"] == ["A4", "A1"]
    assert lines[4]["at"] == "2026-03-03T17:00:00.000Z"


# -- corners --------------------------------------------------------------------------------------------------------


async def test_faults_of_a_member_count_anew_after_a_new_script(world: World) -> None:
    order = {"member_id": "M-1", "words": "BUSY"}
    for _ in range(2):
        await world.http.post("/control/script", json=order)
        assert [(await world.submit("a1", "M-1")).status_code for _ in range(3)] == [429, 429, 200]


@pytest.mark.parametrize("member", ["SBX-MODIFY-1", "SBX-PARTIAL-1"])
async def test_one_unit_is_never_halved_to_none(world: World, member: str) -> None:
    await world.submit("a1", member, units=1)
    assert (await world.authorization())["current"]["units_granted"] == 1


def two_items(second: Json) -> Json:
    body = bundle("a1", "M-1")
    items = body["entry"][0]["resource"]["item"]
    items.append({**items[0], **second})
    return body


async def test_every_item_is_answered_under_its_own_sequence(world: World) -> None:
    answer = await world.http.post(SUBMIT, json=two_items({"sequence": 7, "quantity": {"value": 3}}))
    assert [item["itemSequence"] for item in response_of(answer.json())["item"]] == [1, 7]
    assert (await world.authorization())["current"]["units_granted"] == 7


async def test_items_that_cannot_be_told_apart_or_ask_for_different_things_are_refused(world: World) -> None:
    other = bundle("a1", "M-1", certification="S")["entry"][0]["resource"]["item"][0]
    for second in ({"sequence": 1}, {"sequence": 2, "extension": other["extension"]}):
        refused = await world.http.post(SUBMIT, json=two_items(second))
        assert refused.status_code == 422
        assert "Bundle.entry[0].resource.item" in paths_of(refused.json())


async def test_a_claim_that_is_not_active_is_refused(world: World) -> None:
    refused = await world.http.post(SUBMIT, json=changed(bundle("a1", "M-1"), "draft", *_CLAIM, "status"))
    assert paths_of(refused.json()) == ["Bundle.entry[0].resource.status"]


async def test_an_inquiry_may_name_the_authorization_number_alone(world: World) -> None:
    number = response_of((await world.submit("a1", "M-1")).json())["preAuthRef"]
    inquiry = bundle("unheard-of", "M-1")
    item = inquiry["entry"][0]["resource"]["item"][0]
    url = item["extension"][0]["url"].replace("certificationType", "authorizationNumber")
    item["extension"].append({"url": url, "valueString": number})
    assert response_of((await world.http.post(INQUIRE, json=inquiry)).json())["preAuthRef"] == number


async def test_a_coverage_may_be_contained_in_the_claim(world: World) -> None:
    body = bundle("a1", "SBX-DENY-1")
    coverage = body["entry"].pop(3)["resource"]
    claim = body["entry"][0]["resource"]
    claim["contained"], claim["insurance"][0]["coverage"] = [coverage], {"reference": "#c"}
    assert action_of((await world.http.post(SUBMIT, json=body)).json()) == "A3"


async def test_a_notification_that_was_cut_off_in_flight_is_sent_again() -> None:
    clock, reached = frozen(), asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    http = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    payer = Payer(now=clock.now, http=http, notify_url="http://authorizations.test/")
    async with client(payer.app) as caller:
        await caller.post(SUBMIT, json=bundle("a1", "SBX-PEND-NOTIFY-1"))
    clock.advance(5 * HOUR)
    tick = asyncio.create_task(payer.tick())
    await reached.wait()
    assert payer.next_due() is None
    tick.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tick
    assert payer.next_due() == clock.now() + timedelta(seconds=5)
