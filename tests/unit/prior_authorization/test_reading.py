"""Payers' answers are read to the right words: the guide's own examples, and what is made wrong on purpose."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from services.prior_authorization.model.answers import PayerAnswer, Source, Unusable, weigh
from services.prior_authorization.model.items import one_item
from services.prior_authorization.pas import codes, reading
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import Invalid

Json = dict[str, Any]
ONE = one_item(Coding(system="http://www.ama-assn.org/go/cpt", code="99244"), 4)
X12_FOLLOW_UP = "https://codesystem.x12.org/005010/889"


def example(cases: Path, name: str) -> Json:
    """One of the files of the guide or its test kit."""
    path = cases / "pas" / name
    if not path.is_file():
        pytest.skip(f"{name} is not among the records from elsewhere")
    raw: Json = json.loads(path.read_text(encoding="utf-8"))
    return raw


APPROVAL = "examples/Bundle-ReferralAuthorizationResponseBundleExample.json"
PEND = "examples/Bundle-ReferralPendingAuthorizationResponseBundleExample.json"


@pytest.mark.parametrize("name", [APPROVAL, "testkit/valid_pa_response_bundle.json"])
def test_the_guides_approval_is_read(cases: Path, name: str) -> None:
    answer = reading.read_response(example(cases, name))
    (item,) = answer.items
    assert (item.sequence, item.code, item.action) == (1, "A1", ReviewAction.CERTIFIED)
    assert (item.number, item.units) == ("AUTH0001", 1)
    assert (item.valid_from, item.valid_to, item.issued) == (date(2005, 5, 2), date(2005, 6, 2), date(2005, 5, 2))
    assert "111099" in answer.claims
    assert answer.outcome == "complete"


def test_the_guides_pend_is_read_with_the_payers_reference(cases: Path) -> None:
    (item,) = reading.read_response(example(cases, PEND)).items
    assert (item.action, item.reference, item.number) == (ReviewAction.PENDED, "PEND0001", None)


def test_the_guides_notification_is_read(cases: Path) -> None:
    notification = reading.read_notification(example(cases, "examples/Bundle-PASSubscriptionNotification.json"))
    assert notification.kind is reading.NotificationKind.EVENT
    assert [answer.items[0].number for answer in notification.answers] == ["AUTH0001"]


def test_the_test_kits_notification_is_read_and_its_placeholder_code_is_no_decision(cases: Path) -> None:
    raw = example(cases, "testkit/PAS_notification_example_full_resource.json")
    (answer,) = reading.read_notification(raw).answers
    assert [(item.code, item.action) for item in answer.items] == [("PENDEDCODE", None)]


def test_what_a_payer_adds_is_read_beside_what_was_asked(cases: Path) -> None:
    name = "examples/ClaimResponse-PractitionerRequestorAdditionalContentResponseExample.json"
    (answer,) = reading.read_answers(example(cases, name))
    assert [(item.sequence, item.code, item.units, item.added) for item in answer.items] == [
        (1, "A1", 1, False),
        (2, "A1", 1, True),
    ]


@pytest.mark.parametrize("folder", ["examples", "testkit"])
def test_every_example_with_an_answer_is_read(cases: Path, folder: str) -> None:
    found = 0
    for path in sorted((cases / "pas" / folder).glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if '"ClaimResponse"' not in text.replace(" ", "") or '"outcome"' not in text:
            continue
        answers = reading.read_answers(json.loads(text))
        assert all(item.code for answer in answers for item in answer.items), path.name
        found += 1
    assert found


@pytest.mark.parametrize(
    "name",
    [
        "testkit/nonconformant_pas_bundle.json",
        "examples/OperationOutcome-InvalidRequestResponse.json",
        "examples/Bundle-PASClaimInquiryBundleExample.json",
    ],
)
def test_what_is_no_answer_is_refused_with_a_path(cases: Path, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        reading.read_response(example(cases, name))
    assert refusal.value.flaws


# -- answers of our own making --------------------------------------------------------------------------------------


def review(code: str, number: str | None = None, *reasons: str) -> Json:
    parts: list[Json] = [{"url": "number", "valueString": number}] if number else []
    for reason in reasons:
        parts.append({"url": "reasonCode", "valueCodeableConcept": concept(codes.X12_REASON, reason)})
    parts.append({"url": codes.REVIEW_ACTION_CODE, "valueCodeableConcept": concept(codes.X12_REVIEW_ACTION, code)})
    return {
        "category": concept("http://terminology.hl7.org/CodeSystem/adjudication", "submitted"),
        "extension": [{"url": codes.REVIEW_ACTION, "extension": parts}],
    }


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def response(**changes: object) -> Json:
    claim_response: Json = {
        "resourceType": "ClaimResponse",
        "identifier": [{"system": "urn:x", "value": "claim-1"}],
        "status": "active",
        "type": concept("http://terminology.hl7.org/CodeSystem/claim-type", "professional"),
        "use": "preauthorization",
        "patient": {"reference": "Patient/p"},
        "created": "2026-03-02T10:00:00-05:00",
        "insurer": {"reference": "Organization/o"},
        "outcome": "complete",
        "item": [{"itemSequence": 1, "adjudication": [review("A1", "N-1")]}],
        **changes,
    }
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": claim_response}]}


def read(**changes: object) -> PayerAnswer:
    return reading.read_response(response(**changes))


def test_a_modified_item_is_granted_what_stands_in_add_item() -> None:
    added = {
        "itemSequence": [1],
        "productOrService": concept("s", "99244"),
        "quantity": {"value": 2},
        "adjudication": [review("A6", "N-6")],
    }
    answer = read(item=[{"itemSequence": 1, "adjudication": [review("A6")]}], addItem=[added, copy.deepcopy(added)])
    (item,) = answer.items
    assert (item.action, item.number, item.units, item.added) == (ReviewAction.MODIFIED, "N-6", 4, True)


def test_a_denial_carries_its_reasons() -> None:
    (item,) = read(item=[{"itemSequence": 1, "adjudication": [review("A3", None, "82", "0M")]}]).items
    assert (item.action, item.reasons) == (ReviewAction.NOT_CERTIFIED, ("82", "0M"))


def test_a_decision_on_the_whole_claim_holds_for_items_without_one() -> None:
    answer = read(item=[{"itemSequence": 1, "adjudication": [{"category": concept("s", "submitted")}]}])
    assert answer.items[0].code is None
    answer = read(
        item=[{"itemSequence": 1, "adjudication": [{"category": concept("s", "submitted")}]}],
        adjudication=[review("A3")],
    )
    assert answer.items[0].action is ReviewAction.NOT_CERTIFIED


def test_the_outcome_says_nothing_of_the_decision() -> None:
    decided = [read(item=[{"itemSequence": 1, "adjudication": [review(code)]}]) for code in ("A1", "A3", "A4")]
    assert {answer.outcome for answer in decided} == {"complete"}
    assert [answer.items[0].code for answer in decided] == ["A1", "A3", "A4"]


def test_errors_are_read_with_code_path_and_follow_up() -> None:
    error = {
        "itemSequence": 1,
        "code": concept("https://codesystem.x12.org/005010/901", "33"),
        "extension": [
            {"url": codes.ERROR_PATH, "valueString": "Claim.item[0].productOrService"},
            {
                "url": codes.ERROR_FOLLOW_UP,
                "valueCodeableConcept": concept("https://codesystem.x12.org/005010/889", "C"),
            },
        ],
    }
    (found,) = read(error=[error]).errors
    assert (found.code, found.path, found.follow_up, found.item) == ("33", "Claim.item[0].productOrService", "C", 1)


def test_the_claim_that_is_answered_comes_before_what_is_echoed() -> None:
    assert read(request={"reference": "urn:uuid:0b321e9e-571b-4f83-8cea-fa23424383bb"}).claims == (
        "0b321e9e-571b-4f83-8cea-fa23424383bb",
        "claim-1",
    )
    assert read(request={"reference": "Claim/abc"}).claims == ("abc", "claim-1")
    assert read(request={"identifier": {"value": "xyz"}}).claims == ("xyz", "claim-1")


def test_an_inquiry_answer_is_read_bare_or_in_parameters() -> None:
    bundle = response()
    wrapped = {"resourceType": "Parameters", "parameter": [{"name": "return", "resource": bundle}]}
    assert reading.read_inquiry(bundle) == reading.read_inquiry(wrapped)
    assert reading.read_inquiry({"resourceType": "Parameters"}) == ()


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"use": "claim"}, "ClaimResponse.use"),
        ({"created": None}, "created"),
        ({"created": "yesterday"}, "created"),
        ({"item": "all of it"}, "item"),
        ({"item": [{"adjudication": [review("A1")]}]}, "itemSequence"),
        ({"outcome": "fine"}, "outcome"),
    ],
)
def test_a_malformed_answer_is_refused_by_path_and_without_its_values(changes: Json, path: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read(**changes)
    shown = json.dumps([(flaw.path, flaw.reason) for flaw in refusal.value.flaws])
    assert path.removeprefix("ClaimResponse.") in shown
    assert "yesterday" not in shown


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (review("Jane Doe, 4 Elm St"), "unknown-review-action"),
        (review("A3", None, "he is too old"), "reason-malformed"),
        (review("A1", "Jane Doe, 4 Elm St."), "number-malformed"),
    ],
)
def test_text_in_place_of_a_code_is_read_but_goes_no_further(said: Json, reason: str) -> None:
    answer = read(item=[{"itemSequence": 1, "adjudication": [said]}])
    assert weigh(answer, "claim-1", ONE, Source.POLL, answer.created) == Unusable(reason)


def test_text_in_place_of_an_errors_code_goes_no_further() -> None:
    answer = read(item=None, error=[{"code": concept(codes.X12_REJECT, "Jane Doe is not ours")}])
    assert weigh(answer, "claim-1", ONE, Source.POLL, answer.created) == Unusable("rejected-unknown")


def test_a_part_of_a_unit_is_read_but_cannot_be_used() -> None:
    added = {
        "itemSequence": [1],
        "productOrService": concept("s", "99244"),
        "quantity": {"value": 1.5},
        "adjudication": [review("A6", "N-6")],
    }
    answer = read(item=[{"itemSequence": 1, "adjudication": [review("A6")]}], addItem=[added])
    assert answer.items[0].units == 1.5
    assert weigh(answer, "claim-1", ONE, Source.POLL, answer.created) == Unusable("units-not-whole")


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"resourceType": "Bundle"}, {"resourceType": "Patient"}])
def test_what_is_no_bundle_at_all_is_refused(raw: object) -> None:
    for read_it in (reading.read_response, reading.read_inquiry, reading.read_notification, reading.read_answers):
        with pytest.raises(Invalid):
            read_it(raw)
