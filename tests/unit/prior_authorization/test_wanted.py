"""What a payer asks for on a pend is kept, told once, shown as a PAS Task, and supplied by an update with documents."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.prior_authorization import fhir
from services.prior_authorization.model import Authorization, Kind, State, calling, opening
from services.prior_authorization.model.answers import Answered, AskAnswer, Rejected, Source
from services.prior_authorization.model.asking import Supply, supply
from services.prior_authorization.model.deciding import take
from services.prior_authorization.model.evidence import Evidence, EvidenceKind
from services.prior_authorization.model.opening import AddEvidence
from services.prior_authorization.pas import codes, requests
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import AuthorizationInformationRequested
from shared.kit.auth import Role
from shared.kit.errors import Conflict, Invalid
from tests.unit.prior_authorization.cases import (
    A1,
    A3,
    A4,
    NOW,
    PAYER_ID,
    answer,
    at_state,
    due,
    events,
    facts,
    hear,
    land,
    member,
    sent,
)
from tests.unit.prior_authorization.test_outgoing import DEFINITIONS, profiles
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]
US = Requestor("CareRelay Coordination", "1234567893")
ASKER = fhir.Asker("1234567893", "http://payers.test")
PLAN, REPORT = Coding(system=codes.LOINC, code="18776-5"), Coding(system=codes.X12_REPORT_TYPE, code="15")
UNTIL = NOW + timedelta(days=10)
ASK = AskAnswer(codes=(REPORT, PLAN), item=1, modifiers=("18804-5",), control="ACN-1", until=UNTIL)
FORM = AskAnswer(codes=(Coding(system=codes.LOINC, code=codes.QUESTIONNAIRE_FORM),), questionnaire="ctx-1")


def pended(*asks: AskAnswer, minutes: int = 0) -> Authorization:
    """One that the payer pended, asking for more."""
    document = sent()
    land(document, "submit")
    told = answer(document.claim_id, A4, NOW + timedelta(minutes=minutes), asks=asks or (ASK,))
    return calling.settle_submit(document, Answered(told), facts(member()), NOW)


def piece(type_: str = "18776-5", digit: str = "a") -> Evidence:
    return Evidence(kind=EvidenceKind.DOCUMENT, type=type_, sha256=digit * 64, added_at=NOW)


def with_piece(document: Authorization, *pieces: Evidence) -> Authorization:
    return opening.add_evidence(document, AddEvidence(pieces=pieces or (piece(),)), facts(), NOW)


def supplying(document: Authorization, **body: object) -> Authorization:
    """Its documents are on their way."""
    document = supply(document, Supply.model_validate(body), facts(), NOW)
    return calling.prepare_update(document, due("update"), facts(member()), NOW)


def told_of(document: Authorization) -> list[AuthorizationInformationRequested]:
    return [event for event in document.recorded() if isinstance(event, AuthorizationInformationRequested)]


# -- asked ----------------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_kept_told_and_owed_by_a_coordinator_while_the_clock_goes_on() -> None:
    document = pended()
    (wanted,) = document.wanted
    assert (wanted.item, wanted.codes, wanted.modifiers, wanted.control) == (1, (REPORT, PLAN), ("18804-5",), "ACN-1")
    assert document.asked_of_us == (wanted,)
    assert document.wait is not None
    assert (document.wait.reason, document.wait.owner) == ("information-wanted", "coordinator")
    assert document.wait.deadline == UNTIL
    assert document.timers["breach"] == document.breaches_at
    assert "poll" in document.timers
    (event,) = told_of(document)
    assert (event.claim_id, event.asked[0].codes, event.asked[0].until) == (document.claim_id, (REPORT, PLAN), UNTIL)


def test_the_same_asked_for_again_is_told_once_and_more_is_told_by_itself() -> None:
    document = pended()
    for minutes, asks in ((5, (ASK,)), (6, (replace(ASK, until=UNTIL + timedelta(days=1)),)), (7, (ASK, FORM))):
        told = answer(document.claim_id, A4, NOW + timedelta(minutes=minutes), asks=asks)
        take(document, told, Source.POLL, NOW)
    assert [len(event.asked) for event in told_of(document)] == [1, 1]
    assert [each.sequence for each in document.wanted] == [1, 2]
    assert document.wanted[1].questionnaire == "ctx-1"


def test_text_in_place_of_a_code_is_not_kept_but_that_something_is_asked_for_is() -> None:
    text = Coding(system=codes.LOINC, code="the chart of Tess Canaria")
    document = pended(AskAnswer(codes=(text,), control="Tess Canaria", questionnaire="Tess?", url="tel:1"))
    (wanted,) = document.wanted
    assert (wanted.codes, wanted.control, wanted.questionnaire, wanted.url) == ((), None, None, None)
    assert "Canaria" not in document.model_dump_json()
    assert document.asked_of_us == (wanted,)
    assert "profile" not in fhir.task(document, ASKER)["meta"]  # type: ignore[operator]


def test_what_is_decided_asks_for_nothing_any_more() -> None:
    document = pended()
    hear(document, A1, 5)
    assert (document.state, document.asked_of_us, document.wait) == (State.APPROVED, (), None)
    told = answer(document.claim_id, A4, NOW + timedelta(minutes=9), asks=(FORM,))
    take(document, told, Source.NOTIFICATION, NOW)
    assert len(document.wanted) == 1
    decided = sent()
    land(decided, "submit")
    asking = Answered(answer(decided.claim_id, A1, NOW, asks=(ASK,)))
    assert calling.settle_submit(decided, asking, facts(member()), NOW).wanted == ()


# -- shown ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")
@pytest.mark.parametrize(
    "document",
    [pended(), pended(ASK, FORM), pended(FORM), at_state(State.AWAITING_EVIDENCE)],
    ids=["documents", "both", "a form", "by our rules"],
)
def test_the_task_conforms_to_the_profile(document: Authorization) -> None:
    task = fhir.task(document, ASKER)
    assert task["meta"]["profile"] == [codes.TASK]  # type: ignore[index]
    assert [str(problem) for problem in profiles().check(json.loads(json.dumps(task)))] == []


def test_the_task_says_what_of_which_item_until_when_and_where_to() -> None:
    task: Json = json.loads(json.dumps(fhir.task(pended(replace(ASK, url="https://payer.test/attach")), ASKER)))
    url, report, plan = task["input"]
    assert url["valueUrl"] == "https://payer.test/attach"
    assert [each["valueCodeableConcept"]["coding"][0]["code"] for each in (report, plan)] == ["15", "18776-5"]
    assert plan["extension"][0] == {"url": codes.SERVICE_LINE, "valuePositiveInt": 1}
    assert task["restriction"]["period"]["end"].startswith("2026-03-12")
    assert {"system": f"{codes.PAYER_SYSTEM}:{PAYER_ID}:tracking", "value": "ACN-1"} in task["identifier"]
    own: Json = json.loads(json.dumps(fhir.task(pended(), ASKER)))
    assert own["input"][0]["valueUrl"] == f"http://payers.test/{PAYER_ID}/fhir"


# -- supplied -------------------------------------------------------------------------------------------------------


def test_documents_go_along_with_an_update_that_changes_no_item_under_the_payers_number() -> None:
    document = supplying(with_piece(pended(), piece(), piece("11506-3", "b")))
    update = document.update
    assert update is not None
    assert (update.kind, update.prior, update.items) == (Kind.UPDATE, document.claim_id, document.items)
    assert document.asked_of_us == ()
    assert (document.wanted[0].supplied_by, document.wanted[0].attachments) == (update.id, (1,))
    assert document.wait is not None
    assert (document.wait.reason, document.wait.owner) == ("decision", "payer")
    held = {1: base64.b64encode(b"plan").decode(), 2: base64.b64encode(b"note").decode()}
    bundle: Json = requests.update_request(document, member(), update, US, held)
    if DEFINITIONS.is_dir():
        assert [str(problem) for problem in profiles().check_bundle(bundle)] == []
    first, second = bundle["entry"][0]["resource"]["supportingInfo"]
    assert [each["url"] for each in first["extension"]] == [codes.DOCUMENT_INFORMATION, codes.INFO_CHANGED]
    report, _, control = first["extension"][0]["extension"]
    assert report["valueCodeableConcept"]["coding"][0]["code"] == "15"
    assert control["valueString"] == "ACN-1"
    assert second["extension"][0]["extension"][2]["valueString"] != "ACN-1"
    assert [item.get("extension")[-1]["url"] for item in bundle["entry"][0]["resource"]["item"]] == [
        codes.REQUESTED_SERVICE
    ]


def test_a_document_of_another_type_answers_where_a_person_says_so() -> None:
    document = with_piece(pended(replace(ASK, codes=(REPORT,))), piece("34117-2"))
    with pytest.raises(Conflict, match="no document of a type"):
        supply(document, Supply(), facts(), NOW)
    document = supplying(document, supplies=[{"wanted": 1, "attachments": [1]}])
    assert document.wanted[0].attachments == (1,)


def test_part_of_what_is_asked_for_leaves_the_rest_owed() -> None:
    document = supplying(with_piece(pended(ASK, FORM)))
    assert [each.sequence for each in document.asked_of_us] == [2]
    assert document.wait is not None
    assert document.wait.reason == "information-wanted"


@pytest.mark.parametrize(
    "body",
    [
        {"supplies": [{"wanted": 9, "attachments": [1]}]},
        {"supplies": [{"wanted": 1, "attachments": [9]}]},
        {"supplies": [{"wanted": 1, "attachments": [1]}, {"wanted": 1, "attachments": [1]}]},
    ],
)
def test_numbers_of_nothing_are_refused(body: Json) -> None:
    with pytest.raises(Invalid) as refused:
        supply(with_piece(pended()), Supply.model_validate(body), facts(), NOW)
    assert refused.value.flaws


def test_nothing_is_supplied_where_nothing_is_asked_for_or_the_payer_has_it() -> None:
    with pytest.raises(Conflict, match="asks for nothing"):
        supply(with_piece(at_state(State.PENDED)), Supply(), facts(), NOW)
    document = with_piece(pended())
    document.submissions[0].attached = document.attached
    with pytest.raises(Conflict, match="has these documents already"):
        supply(document, Supply(), facts(), NOW)
    denied = with_piece(pended())
    hear(denied, A3, 5)
    with pytest.raises(Conflict):
        supply(denied, Supply(), facts(), NOW)


def test_what_the_payer_would_not_take_is_still_asked_for() -> None:
    document = supplying(with_piece(pended()))
    land(document, "update")
    document = calling.settle_update(document, Rejected("status-422"), facts(member()), NOW)
    assert [each.sequence for each in document.asked_of_us] == [1]
    assert "authorization.escalated.v1" in events(document)


async def test_a_payer_asks_a_coordinator_supplies_and_the_payer_decides() -> None:
    world = World()
    await world.know("tess", "SBX-PEND-ASK-1")
    id = await world.refer("tess")
    await world.until(1)
    assert world.events("tess") == ["submitted", "pended", "information-requested"]
    async with world.harness.client(Role.COORDINATOR) as client:
        (wanted,) = (await client.get(f"/authorizations/{id}")).json()["wanted"]
        assert (wanted["codes"][1]["code"], wanted["outstanding"], wanted["attachments"]) == ("18776-5", True, [])
        task = (await client.get(f"/fhir/Task/{id}")).json()
        assert task["meta"]["profile"] == [codes.TASK]
        early = await client.post(f"/authorizations/{id}/supply", headers=world.harness.key())
        assert early.status_code == 409
        item = {"kind": "document", "type": "18776-5", "data": base64.b64encode(b"A synthetic plan.").decode()}
        attached = await client.post(
            f"/authorizations/{id}/evidence", json={"items": [item]}, headers=world.harness.key()
        )
        assert attached.status_code == 200, attached.text
        (wanted,) = (await client.get(f"/authorizations/{id}")).json()["wanted"]
        assert wanted["attachments"] == [1]
        supplied = await client.post(f"/authorizations/{id}/supply", headers=world.harness.key())
        assert supplied.status_code == 200, supplied.text
    await world.until(2)
    document = await world.of("tess")
    assert (document.state, document.asked_of_us) == (State.APPROVED, ())
    assert world.events("tess")[-1] == "approved"
    control = document.wanted[0].control
    assert control is not None
    assert control.encode() in world.sent[-1]
    (told,) = world.told("tess", "authorization.information-requested.v1")
    assert [each["code"] for each in told["asked"][0]["codes"]] == ["15", "18776-5"]
