"""The structural checker takes what the guide publishes, names where an example breaks a rule, and sees damage."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.checks.profiles import PAS, Problem, Profiles

Json = dict[str, Any]

CASES = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "pas"
DEFINITIONS, EXAMPLES = CASES / "definitions", CASES / "examples"

pytestmark = pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")

REQUESTS = "Bundle-*AuthorizationBundleExample.json", "Bundle-*ClaimInquiryBundleExample.json"
NO_PROFILE = frozenset({"OperationOutcome", "Parameters"})

UNIT_OF_ANOTHER_SYSTEM = "quantityQuantity.code: needs a code of https://valueset.x12.org"
DEVIATIONS = {
    "Bundle-ReferralAuthorizationBundleExample.json": (
        "item[0].extension[5].valueReference: must refer to a profile-servicerequest",
        UNIT_OF_ANOTHER_SYSTEM,
    ),
    "ServiceRequest-ReferralRequestExample.json": (UNIT_OF_ANOTHER_SYSTEM,),
}
"""Where an example breaks a definition: a quantity in UCUM where the binding requires X12 673."""


@cache
def profiles() -> Profiles:
    return Profiles(DEFINITIONS)


def read(path: Path) -> Json:
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def examples(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in EXAMPLES.glob(pattern))


def unexpected(problems: list[Problem], name: str) -> list[str]:
    known = DEVIATIONS.get(name, ())
    return [str(problem) for problem in problems if not any(text in str(problem) for text in known)]


@pytest.mark.parametrize("path", examples(*REQUESTS), ids=lambda path: path.stem)
def test_the_published_requests_pass_but_for_what_is_named(path: Path) -> None:
    problems = profiles().check_bundle(read(path))
    assert unexpected(problems, path.name) == []
    assert len(problems) >= len(DEVIATIONS.get(path.name, ()))


@pytest.mark.parametrize("path", examples("[!B_]*.json"), ids=lambda path: path.stem)
def test_the_published_resources_pass_but_for_what_is_named(path: Path) -> None:
    resource = read(path)
    if resource["resourceType"] in NO_PROFILE:
        pytest.skip("says no profile of PAS")
    assert unexpected(profiles().check(resource), path.name) == []


# -- damage -----------------------------------------------------------------------------------------------------------

Damage = Callable[[Json], object]


def claim(bundle: Json) -> Json:
    found: Json = bundle["entry"][0]["resource"]
    return found


def item(bundle: Json) -> Json:
    found: Json = claim(bundle)["item"][0]
    return found


def of_type(bundle: Json, type_: str) -> Json:
    found: Json = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == type_)
    return found


def extension(holder: Json, name: str) -> Json:
    found: Json = next(each for each in holder["extension"] if each["url"].endswith(name))
    return found


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def without_extension(holder: Json, name: str) -> None:
    holder["extension"] = [each for each in holder["extension"] if not each["url"].endswith(name)]


CODES = "http://hl7.org/fhir/us/davinci-pas/CodeSystem/PASTempCodes"
X12 = "https://codesystem.x12.org/005010/"
PLACE = "https://www.cms.gov/Medicare/Coding/place-of-service-codes/Place_of_Service_Code_Set"

DAMAGE: dict[str, tuple[Damage, str]] = {
    "a required element is gone": (lambda b: item(b).pop("category"), "item[0].category: is required"),
    "the base's required element is gone": (lambda b: claim(b).pop("priority"), "priority: is required"),
    "US Core's required element is gone": (lambda b: of_type(b, "Patient").pop("gender"), "gender: is required"),
    "more than may be": (lambda b: claim(b)["identifier"].extend(claim(b)["identifier"] * 2), "at most 2 times"),
    "one list item too many for one": (
        lambda b: claim(b)["diagnosis"][0].update(type=[concept(CODES, "principal"), concept(CODES, "admitting")]),
        "diagnosis[0].type: must be there at most 1",
    ),
    "what must be absent is there": (
        lambda b: claim(b).update(related=[{"claim": {"identifier": {"value": "1"}}}]),
        "related: must be absent",
    ),
    "an entry says how it was found": (lambda b: b["entry"][0].update(search={"mode": "match"}), "search: must be abs"),
    "a fixed value is another": (lambda b: of_type(b, "ServiceRequest").update(intent="plan"), "intent: must be"),
    "a pattern is not met": (lambda b: claim(b).update(use="claim"), 'use: must be "preauthorization"'),
    "a pattern of a boolean is not met": (
        lambda b: claim(b)["insurance"][0].update(focal=False),
        "insurance[0].focal: must be true",
    ),
    "a code outside an enumerated set": (
        lambda b: claim(b).update(type=concept("http://terminology.hl7.org/CodeSystem/claim-type", "vision")),
        "type: needs a code of",
    ),
    "a code of another system": (
        lambda b: item(b).update(productOrService=concept("http://snomed.info/sct", "103696004")),
        "productOrService: needs a code of",
    ),
    "a code of another system where X12's is bound": (
        lambda b: item(b).update(category=concept("urn:other", "3")),
        "category: needs a code of",
    ),
    "an extension's code of another system": (
        lambda b: extension(item(b), "certificationType").update(valueCodeableConcept=concept("urn:other", "I")),
        "needs a code of",
    ),
    "an extensible set's own system with a code it lacks": (
        lambda b: claim(b)["supportingInfo"][0].update(category=concept(CODES, "principal")),
        "category: has a code of a system",
    ),
    "a code that its system does not have": (
        lambda b: claim(b)["diagnosis"][0].update(type=[concept(CODES, "main")]),
        "is no code of",
    ),
    "a required slice is gone": (
        lambda b: without_extension(item(b), "certificationType"),
        "extension:certificationType: is required",
    ),
    "a slice is there twice": (
        lambda b: item(b)["extension"].append(extension(item(b), "requestedService")),
        "extension:requestedService: must be there at most 1",
    ),
    "what a slice by pattern requires is gone": (
        lambda b: claim(b)["supportingInfo"][0].pop("extension"),
        "supportingInfo[0].extension: is required",
    ),
    "what a slice by pattern forbids is there": (
        lambda b: claim(b)["supportingInfo"][0].update(timingDate="2026-03-02"),
        "timing[x]: must be absent",
    ),
    "a slice by an extension's value has a role of another system": (
        lambda b: claim(b)["careTeam"][0].update(role=concept("urn:other", "71")),
        "role: needs a code of",
    ),
    "a slice by type breaks its rule": (lambda b: item(b).update(servicedDate="2026-03"), "breaks FullDateRule"),
    "a slice by type of resource is of another": (
        lambda b: b["entry"][0]["resource"].update(resourceType="ExplanationOfBenefit"),
        "entry:Claim: is required",
    ),
    "a choice is of another type": (
        lambda b: item(b).update(locationAddress={"city": "X"}) or item(b).pop("locationCodeableConcept"),
        "must be of type CodeableConcept",
    ),
    "a data type breaks its profile": (lambda b: claim(b)["identifier"][0].pop("system"), "system: is required"),
    "a reference leads to another type": (
        lambda b: claim(b).update(patient=claim(b)["insurer"]),
        "patient: must not refer to a Organization",
    ),
    "a reference leads to what breaks the profile": (
        lambda b: of_type(b, "Coverage").pop("identifier"),
        "coverage: must refer to a profile-coverage",
    ),
    "a reference leads nowhere": (
        lambda b: claim(b).update(patient={"reference": "Patient/nobody"}),
        "patient.reference: leads to nothing",
    ),
    "a fullUrl is relative": (lambda b: b["entry"][3].update(fullUrl="Coverage/InsuranceExample"), "must be absolute"),
    "a fullUrl is another's": (
        lambda b: b["entry"][3].update(fullUrl="http://example.org/fhir/Coverage/other"),
        "must end with the resource's type and id",
    ),
    "a fullUrl is used twice": (lambda b: b["entry"][3].update(fullUrl=b["entry"][2]["fullUrl"]), "is used twice"),
    "the Claim is not first": (lambda b: b["entry"].reverse(), "breaks ClaimFirst"),
    "an element that FHIR does not have": (lambda b: claim(b).update(urgency="high"), "not a FHIR R4 element"),
    "an extension that nobody defines": (
        lambda b: claim(b)["extension"].append({"url": PAS + "extension-urgency", "valueCode": "high"}),
        "is defined nowhere",
    ),
    "an extension's value of another type": (
        lambda b: claim(b)["extension"].append({"url": PAS + "extension-levelOfServiceCode", "valueString": "U"}),
        "must be of type CodeableConcept",
    ),
    "a part that an extension does not have": (
        lambda b: extension(claim(b)["supportingInfo"][0], "documentInformation")["extension"].append(
            {"url": "author", "valueString": "x"}
        ),
        "is no part of",
    ),
    "a part that an extension must have is gone": (
        lambda b: without_extension(extension(claim(b)["supportingInfo"][0], "documentInformation"), "reportTypeCode"),
        "extension:reportTypeCode: is required",
    ),
    "an extension where it must not stand": (
        lambda b: of_type(b, "Patient")["extension"].append(
            {"url": PAS + "extension-certificationType", "valueCodeableConcept": concept(X12 + "1322", "I")}
        ),
        "must not stand on Patient",
    ),
    "a flag that is no boolean": (
        lambda b: item(b).update(
            modifierExtension=[{"url": PAS + "modifierextension-infoCancelled", "valueBoolean": "yes"}]
        ),
        "must be written as a boolean",
    ),
    "a profile that is not among the definitions": (
        lambda b: b["meta"].update(profile=[PAS + "profile-other"]),
        "is not among the definitions",
    ),
    "a coverage of somebody else without the subscriber": (
        lambda b: of_type(b, "Coverage")["relationship"].update(coding=[{"system": X12 + "1069", "code": "01"}]),
        "must refer to a profile-coverage",
    ),
    "a document without its data": (
        lambda b: of_type(b, "DocumentReference")["content"][0]["attachment"].pop("data"),
        "attachment.data: is required",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen_and_named(damage: str) -> None:
    bundle = read(EXAMPLES / "Bundle-ReferralAuthorizationBundleExample.json")
    before = {str(problem) for problem in profiles().check_bundle(bundle)}
    harm, named = DAMAGE[damage]
    damaged = copy.deepcopy(bundle)
    harm(damaged)
    new = {str(problem) for problem in profiles().check_bundle(damaged)} - before
    assert [problem for problem in new if named in problem], new


def test_the_testkits_bundle_that_does_not_conform_is_refused() -> None:
    problems = profiles().check_bundle(read(CASES / "testkit" / "nonconformant_pas_bundle.json"))
    assert "Bundle: breaks ClaimFirst" in {str(problem) for problem in problems}


def test_a_constraint_that_the_checker_does_not_know_is_not_passed_over(tmp_path: Path) -> None:
    for path in DEFINITIONS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = read(DEFINITIONS / "StructureDefinition-profile-claim.json")
    changed["differential"]["element"][0]["constraint"] = [{"key": "new-rule", "expression": "false"}]
    (tmp_path / "StructureDefinition-profile-claim.json").write_text(json.dumps(changed), encoding="utf-8")
    found = Profiles(tmp_path).check(read(EXAMPLES / "Claim-ReferralAuthorizationExample.json"))
    assert [str(problem) for problem in found] == ["Claim: constraint new-rule is not known to the checker"]
