"""What is sent to payers is valid FHIR R4, whole in itself, the same for the same claim, and no more than needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.prior_authorization.model import calling, opening
from services.prior_authorization.pas import codes, requests
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.base import Coding
from shared.kit.fhir import parse
from tests.unit.prior_authorization.cases import (
    A3,
    A4,
    CPT,
    NOW,
    SNOMED,
    answered,
    due,
    facts,
    member,
    opened,
    sent,
)

Json = dict[str, Any]
US = Requestor("CareRelay Coordination", "1234567893")
ICD = Coding(system=codes.ICD10CM, code="L40.0")
DIAGNOSES = (ICD, Coding(system=SNOMED, code="9014002"))


def initial(**changes: object) -> Json:
    document = sent(diagnoses=DIAGNOSES, **changes)
    return requests.initial_request(document, member(), document.submissions[0], US)


def appeal() -> Json:
    document = calling.prepare_appeal(answered(sent(), A3), due("appeal"), facts(member()), NOW)
    return requests.appeal_request(document, member(), document.submissions[-1], US)


def cancel() -> Json:
    document = opening.call_off(answered(sent(), A4), "x", NOW)
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    return requests.cancel_request(document, member(), US, NOW)


def inquiry() -> Json:
    return requests.inquiry(answered(sent(), A4), member(), US, NOW + timedelta(hours=1))


BUNDLES = {"initial": initial, "appeal": appeal, "cancel": cancel, "inquiry": inquiry}


def claim_of(bundle: Json) -> Json:
    claim: Json = bundle["entry"][0]["resource"]
    return claim


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for part in value.values():
            yield from references(part)
    if isinstance(value, list):
        for part in value:
            yield from references(part)


def certification(claim: Json) -> str:
    (found,) = [e for e in claim["item"][0]["extension"] if e["url"] == codes.CERTIFICATION_TYPE]
    return str(found["valueCodeableConcept"]["coding"][0]["code"])


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_bundle_is_valid_fhir_with_the_claim_first_and_all_references_inside(kind: str) -> None:
    bundle: Json = BUNDLES[kind]()  # type: ignore[operator]
    for place, entry in enumerate(bundle["entry"]):
        parse(entry["resource"], at=f"Bundle.entry[{place}].resource")
    parse(bundle, "Bundle")
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert bundle["type"] == "collection"
    assert bundle["identifier"]["value"]
    assert claim_of(bundle)["resourceType"] == "Claim"
    assert claim_of(bundle)["use"] == "preauthorization"
    assert len(set(urls)) == len(urls)
    assert all(url.startswith("urn:uuid:") for url in urls)
    assert set(references(bundle)) <= set(urls)


@pytest.mark.parametrize(("kind", "code"), [("initial", "I"), ("appeal", "2"), ("cancel", "3")])
def test_the_certification_type_says_what_is_asked(kind: str, code: str) -> None:
    claim = claim_of(BUNDLES[kind]())  # type: ignore[operator]
    assert certification(claim) == code
    assert ("related" in claim) == (kind != "initial")


def test_appeals_and_cancellations_name_the_claim_before_and_are_claims_of_their_own() -> None:
    for kind in (appeal, cancel):
        claim = claim_of(kind())
        assert claim["related"][0]["claim"]["identifier"]["value"] == sent().claim_id
        assert claim["identifier"][0]["value"] != sent().claim_id


def test_an_inquiry_asks_after_the_claim_by_its_identifier() -> None:
    assert claim_of(inquiry())["identifier"][0]["value"] == sent().claim_id


def test_a_claim_sent_again_is_the_same_bundle_again() -> None:
    assert json.dumps(initial()) == json.dumps(initial())


def test_codes_that_payers_do_not_take_travel_beside_one_that_they_do() -> None:
    item = claim_of(initial(service=Coding(system=SNOMED, code="103696004")))["item"][0]
    assert [coding["system"] for coding in item["productOrService"]["coding"]] == [codes.X12_SERVICE_TYPE, SNOMED]
    item = claim_of(initial())["item"][0]
    assert [coding["system"] for coding in item["productOrService"]["coding"]] == [CPT]


def test_only_diagnoses_in_systems_that_payers_take_are_sent() -> None:
    claim = claim_of(initial())
    assert [d["diagnosisCodeableConcept"]["coding"][0]["code"] for d in claim["diagnosis"]] == ["L40.0"]
    assert claim["item"][0]["diagnosisSequence"] == [1]


def test_urgency_is_told_by_priority_and_level_of_service() -> None:
    claim = claim_of(initial(expedited=True))
    assert claim["priority"]["coding"][0]["code"] == "stat"
    assert [extension["url"] for extension in claim["extension"]] == [codes.LEVEL_OF_SERVICE]


def test_a_member_without_a_name_is_sent_with_the_reason_why() -> None:
    document = sent()
    nameless = member(family=None, given=(), gender=None, birth_date=None)
    bundle = requests.initial_request(document, nameless, document.submissions[0], US)
    (patient,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Patient"]  # type: ignore[attr-defined,index]
    parse(patient, "Patient")
    assert patient["gender"] == "unknown"
    assert "extension" in patient["name"][0]


def test_without_a_claim_there_is_nothing_to_ask_or_cancel() -> None:
    with pytest.raises(ValueError, match="no claim"):
        requests.inquiry(opened(), member(), US, NOW)
    with pytest.raises(ValueError, match="no claim"):
        requests.cancel_request(opened(), member(), US, NOW)
