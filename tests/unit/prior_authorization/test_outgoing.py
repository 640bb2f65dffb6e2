"""Every kind of Bundle that goes to a payer passes the definitions of PAS 2.2.1, and says what its kind must say."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.prior_authorization.model import Authorization, Item, Kind, ServiceKind, calling, opening
from services.prior_authorization.model.authorization import Submission
from services.prior_authorization.model.items import Attachment, Provider
from services.prior_authorization.pas import codes, requests
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.base import Coding
from shared.kit.document import derived_id
from tests.checks.profiles import Profiles
from tests.unit.prior_authorization.cases import A1, A3, A4, CPT, NOW, SNOMED, answered, due, facts, member, sent

Json = dict[str, Any]

DEFINITIONS = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "pas" / "definitions"
pytestmark = pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")

US = Requestor("CareRelay Coordination", "1234567893")
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
NDC = "http://hl7.org/fhir/sid/ndc"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
LOINC = "http://loinc.org"
PSORIASIS, PAIN = (Coding(system=codes.ICD10CM, code=code) for code in ("L40.0", "G89.4"))
REPORT = base64.b64encode(b"A synthetic report.").decode()


@cache
def profiles() -> Profiles:
    return Profiles(DEFINITIONS)


def of(system: str, code: str) -> Coding:
    return Coding(system=system, code=code)


VISITS = Item(sequence=1, service=of(CPT, "99244"), quantity=4, unit="VS")
NURSE = Item(sequence=1, service=of(HCPCS, "G0154"), kind=ServiceKind.HOMECARE, quantity=12, unit="VS")
AIDE = Item(sequence=2, service=of(HCPCS, "G0156"), kind=ServiceKind.HOMECARE, quantity=20, starts=date(2026, 3, 9))
THERAPY = Item(
    sequence=1,
    service=of(CPT, "97110"),
    kind=ServiceKind.MEDICAL_SERVICES,
    modifiers=(of(CPT, "59"),),
    quantity=8,
    starts=date(2026, 3, 9),
    ends=date(2026, 5, 8),
)
KNEE = Item(
    sequence=1,
    service=of(CPT, "29881"),
    kind=ServiceKind.SURGERY,
    place="22",
    starts=date(2026, 4, 1),
    ends=date(2026, 4, 1),
    diagnoses=(2,),
)
TABLETS = Item(sequence=1, service=of(NDC, "0777-3105-02"), kind=ServiceKind.DRUG, quantity=300)
INFUSION = Item(sequence=2, service=of(RXNORM, "1657973"), kind=ServiceKind.DRUG, quantity=2, unit="UN")
WHEELCHAIR = Item(sequence=1, service=of(HCPCS, "E1223"), kind=ServiceKind.DEVICE)
STAY = Item(sequence=3, service=of(CPT, "99223"), kind=ServiceKind.ADMISSION, quantity=3, unit="DA")
LETTER = Attachment(sequence=1, type=of(LOINC, "11505-5"), report="PY", content_type="text/plain")
SCAN = Attachment(sequence=2, type=of(LOINC, "18748-4"))
CLINIC = Provider(sequence=1, npi="1234567893", name="Elm Street Clinic")
HOSPITAL = Provider(sequence=2, npi="1073558773", name="Riverside Hospital", role="FA")


def authorization(*items: Item, word: Any = A4, **changes: object) -> Authorization:
    """One whose first claim the payer answered."""
    document = sent(diagnoses=(PSORIASIS, PAIN, of(SNOMED, "9014002")), expedited=changes.pop("expedited", False))
    fields = {"items": items or (VISITS,), **changes}
    document = document.model_copy(update=fields)
    document.submissions[0].attached = document.attached
    return answered(document, word)


def contents(document: Authorization) -> dict[int, str]:
    return {attachment.sequence: REPORT for attachment in document.attachments}


def request(*items: Item, **changes: object) -> Json:
    document = authorization(*items, **changes)
    return requests.initial_request(document, member(), document.submissions[0], US, contents(document))


def updated(document: Authorization, *items: Item, **changes: object) -> Authorization:
    """The authorization with an update opened: its items from now on are these."""
    newest = document.submissions[-1]
    newest.items = newest.items or document.items
    document = document.model_copy(update={"items": items, **changes})
    update = Submission(
        id=derived_id("update", newest.id),
        kind=Kind.UPDATE,
        prior=newest.id,
        opened_at=NOW,
        items=items,
        attached=document.attached,
    )
    return document.model_copy(update={"submissions": [*document.submissions, update]})


def update(document: Authorization) -> Json:
    return requests.update_request(document, member(), document.submissions[-1], US, contents(document))


def extended(document: Authorization) -> Authorization:
    """The authorization with an extension of its approval opened."""
    document = updated(document, *(item.model_copy(update={"ends": date(2026, 7, 8)}) for item in document.items))
    document.submissions[-1].extends = True
    return document


RENEWED: dict[str, Any] = {"renews": "before", "renewed_number": "AUTH-0"}
HOME = authorization(NURSE, AIDE)
CHANGED = updated(HOME, NURSE.model_copy(update={"quantity": 20}), AIDE, STAY)
DROPPED = updated(CHANGED, CHANGED.items[0], AIDE.model_copy(update={"dropped": True}), STAY)


def appealed(document: Authorization) -> Json:
    document = calling.prepare_appeal(document, due("appeal"), facts(member()), NOW)
    return requests.appeal_request(document, member(), document.submissions[-1], US, contents(document))


def cancelled(document: Authorization) -> Json:
    document = opening.call_off(document.copy_deep(), "x", NOW)
    document = calling.prepare_cancel(document, due("cancel"), facts(member()), NOW)
    return requests.cancel_request(document, member(), US, NOW)


def inquired(document: Authorization) -> Json:
    return requests.inquiry(document, member(), US, NOW + timedelta(hours=1))


BUNDLES: dict[str, Callable[[], Json]] = {
    "referral": lambda: request(VISITS),
    "expedited referral": lambda: request(VISITS, expedited=True),
    "referral in SNOMED CT": lambda: request(Item(sequence=1, service=of(SNOMED, "103696004"))),
    "homecare": lambda: request(NURSE, AIDE),
    "medical services": lambda: request(THERAPY),
    "surgery": lambda: request(KNEE, providers=(CLINIC,)),
    "drugs": lambda: request(TABLETS, INFUSION),
    "device": lambda: request(WHEELCHAIR),
    "admission": lambda: request(STAY),
    "several items of several kinds": lambda: request(KNEE, INFUSION, STAY),
    "providers of items": lambda: request(KNEE.model_copy(update={"providers": (2,)}), providers=(CLINIC, HOSPITAL)),
    "attachments": lambda: request(THERAPY, attachments=(LETTER, SCAN)),
    "renewal": lambda: request(NURSE, AIDE, **RENEWED),
    "update of a renewal": lambda: update(
        updated(authorization(NURSE, AIDE, **RENEWED), NURSE.model_copy(update={"quantity": 20}), AIDE, STAY)
    ),
    "extension": lambda: update(extended(authorization(THERAPY, word=A1))),
    "update": lambda: update(CHANGED),
    "update of an update": lambda: update(DROPPED),
    "update with a new attachment": lambda: update(updated(HOME, *HOME.items, attachments=(LETTER,))),
    "cancel": lambda: cancelled(authorization(NURSE, AIDE)),
    "cancel of a grant": lambda: cancelled(authorization(KNEE, word=A1)),
    "cancel of an update": lambda: cancelled(DROPPED),
    "inquiry": lambda: inquired(HOME),
    "inquiry after an update": lambda: inquired(DROPPED),
    "appeal": lambda: appealed(authorization(KNEE, STAY, word=A3)),
    "appeal with attachments": lambda: appealed(authorization(KNEE, word=A3, attachments=(LETTER,))),
    "immediate appeal": lambda: appealed(authorization(KNEE, word=A3, expedited=True)),
}


def problems(bundle: Json) -> list[str]:
    return [str(problem) for problem in profiles().check_bundle(json.loads(json.dumps(bundle)))]


def claims(bundle: Json) -> list[Json]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Claim"]


def extension(holder: Json, url: str) -> Any:
    found = [each for each in holder.get("extension", []) if each["url"] == url]
    return next((value for each in found for name, value in each.items() if name.startswith("value")), None)


def certification(holder: Json) -> str | None:
    found = extension(holder, codes.CERTIFICATION_TYPE)
    return found["coding"][0]["code"] if found else None


@pytest.mark.parametrize("kind", BUNDLES)
def test_what_is_sent_passes_the_definitions(kind: str) -> None:
    bundle = BUNDLES[kind]()
    assert problems(bundle) == []


@pytest.mark.parametrize("kind", BUNDLES)
def test_the_same_claim_is_the_same_bundle(kind: str) -> None:
    assert BUNDLES[kind]() == BUNDLES[kind]()


ORDERS = {
    "referral": ("ServiceRequest", "SC", "3", "11"),
    "medical services": ("ServiceRequest", "HS", "1", "11"),
    "homecare": ("ServiceRequest", "HS", "42", "12"),
    "surgery": ("ServiceRequest", "HS", "2", "22"),
    "drugs": ("MedicationRequest", "HS", "88", "11"),
    "device": ("DeviceRequest", "HS", "12", "12"),
    "admission": ("ServiceRequest", "AR", "48", "21"),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_a_kind_of_service_is_told_by_order_category_and_place(kind: str) -> None:
    bundle = BUNDLES[kind]()
    order, category, service_type, place = ORDERS[kind]
    item = claims(bundle)[0]["item"][0]
    assert extension(item, codes.REQUEST_TYPE)["coding"][0]["code"] == category
    assert item["category"]["coding"][0]["code"] == service_type
    assert item["locationCodeableConcept"]["coding"][0]["code"] == place
    url = extension(item, codes.REQUESTED_SERVICE)["reference"]
    (behind,) = [entry["resource"] for entry in bundle["entry"] if entry["fullUrl"] == url]
    assert behind["resourceType"] == order


def test_an_update_holds_every_item_there_was_and_flags_what_changed() -> None:
    first, second = claims(update(CHANGED)), claims(update(DROPPED))
    assert [(i["sequence"], extension(i, codes.INFO_CHANGED), certification(i)) for i in first[0]["item"]] == [
        (1, "changed", "S"),
        (2, None, "I"),
        (3, "added", "I"),
    ]
    assert [(i["sequence"], extension(i, codes.INFO_CHANGED), certification(i)) for i in second[0]["item"]] == [
        (1, None, "I"),
        (2, "changed", "3"),
        (3, None, "I"),
    ]
    assert second[0]["item"][1]["modifierExtension"] == [{"url": codes.INFO_CANCELLED, "valueBoolean": True}]
    assert [certification(claim) for claim in (first[0], second[0])] == ["S", "S"]


def test_a_claim_that_follows_another_brings_that_one_along_as_it_was_and_no_other() -> None:
    new, before = claims(update(CHANGED))
    assert new["related"][0]["claim"]["reference"] == f"urn:uuid:{before['id']}"
    assert before == claims(requests.initial_request(HOME, member(), HOME.submissions[0], US))[0]
    assert len(claims(update(DROPPED))) == 2
    assert "reference" not in claims(update(DROPPED))[1]["related"][0]["claim"]


def test_a_whole_request_is_cancelled_by_the_claim_and_its_items() -> None:
    claim = claims(BUNDLES["cancel"]())[0]
    assert certification(claim) == "3"
    assert {certification(item) for item in claim["item"]} == {"3"}


def test_a_renewal_is_a_first_request_that_names_what_was_approved_before() -> None:
    (claim,) = claims(BUNDLES["renewal"]())
    assert claim["meta"]["profile"] == [codes.CLAIM]
    assert "related" not in claim
    assert [(certification(item), extension(item, codes.AUTHORIZATION_NUMBER)) for item in claim["item"]] == [
        ("R", "AUTH-0"),
        ("R", "AUTH-0"),
    ]
    new, before = claims(BUNDLES["update of a renewal"]())
    assert [certification(item) for item in new["item"]] == ["S", "R", "I"]
    assert [certification(item) for item in before["item"]] == ["R", "R"]
    assert [certification(item) for item in claims(BUNDLES["extension"]())[0]["item"]] == ["4"]


@pytest.mark.parametrize(("kind", "code"), [("appeal", "2"), ("immediate appeal", "1")])
def test_an_appeal_says_how_soon(kind: str, code: str) -> None:
    assert certification(claims(BUNDLES[kind]())[0]) == code


def test_items_point_at_their_diagnoses_and_providers() -> None:
    claim = claims(BUNDLES["providers of items"]())[0]
    assert claim["item"][0]["diagnosisSequence"] == [2]
    assert claim["item"][0]["careTeamSequence"] == [2]
    scopes = [extension(each, codes.CARE_TEAM_SCOPE) for each in claim["careTeam"]]
    assert scopes == [True, False]


def test_an_attachment_of_an_update_is_new_and_the_claim_before_has_none() -> None:
    new, before = claims(BUNDLES["update with a new attachment"]())
    assert [extension(info, codes.INFO_CHANGED) for info in new["supportingInfo"]] == ["added"]
    assert "supportingInfo" not in before


def test_an_attachment_is_sent_whole_or_the_request_is_not_sent() -> None:
    bundle = BUNDLES["attachments"]()
    sent_along = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DocumentReference"]
    assert [each["content"][0]["attachment"]["data"] for each in sent_along] == [REPORT, REPORT]
    assert [info["sequence"] for info in claims(bundle)[0]["supportingInfo"]] == [1, 2]
    document = authorization(THERAPY, attachments=(LETTER,))
    with pytest.raises(ValueError, match="contents"):
        requests.initial_request(document, member(), document.submissions[0], US)


# -- any authorization ------------------------------------------------------------------------------------------------

SYSTEMS = (CPT, HCPCS, NDC, SNOMED, RXNORM, codes.X12_SERVICE_TYPE)
CODE = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", min_size=1, max_size=9)
DAYS = st.none() | st.dates(date(2026, 1, 1), date(2028, 12, 31))


@st.composite
def items(draw: st.DrawFn, sequence: int) -> Item:
    starts, ends = sorted([draw(st.dates(date(2026, 1, 1), date(2028, 12, 31))) for _ in range(2)])
    return Item(
        sequence=sequence,
        service=of(draw(st.sampled_from(SYSTEMS)), draw(CODE)),
        kind=draw(st.sampled_from(ServiceKind)),
        quantity=draw(st.integers(1, 10_000)),
        unit=draw(st.sampled_from([None, "VS", "UN", "DA", "HR", "MO", "MJ", "F2"])),
        modifiers=tuple(of(CPT, code) for code in draw(st.lists(CODE, max_size=4))),
        place=draw(st.none() | st.sampled_from(["11", "12", "21", "22", "24"])),
        starts=starts if draw(st.booleans()) else None,
        ends=ends if draw(st.booleans()) else None,
        diagnoses=tuple(draw(st.lists(st.integers(1, 4), max_size=4, unique=True))),
        providers=tuple(draw(st.sampled_from([(), (1,), (2,), (1, 2)]))),
    )


@st.composite
def authorizations(draw: st.DrawFn) -> Authorization:
    count = draw(st.integers(1, 6))
    document = authorization(
        *(draw(items(sequence)) for sequence in range(1, count + 1)),
        word=draw(st.sampled_from([A1, A3, A4])),
        expedited=draw(st.booleans()),
        providers=(CLINIC, HOSPITAL),
        attachments=draw(st.sampled_from([(), (LETTER,), (LETTER, SCAN)])),
        diagnoses=draw(st.sampled_from([(), (PSORIASIS,), (of(SNOMED, "9014002"), PAIN, PSORIASIS)])),
        **draw(st.sampled_from([{}, RENEWED])),
    )
    for _ in range(draw(st.integers(0, 3))):
        new = [draw(st.just(item) | items(item.sequence)) for item in document.items]
        new = [item.model_copy(update={"dropped": item.dropped or draw(st.booleans())}) for item in new]
        new += [draw(items(len(new) + 1))] if draw(st.booleans()) else []
        document = updated(document, *new)
    return document


WAYS: dict[str, Callable[[Authorization], Json]] = {
    "initial": lambda d: requests.initial_request(d, member(), d.submissions[0], US, contents(d)),
    "update": lambda d: update(d if d.submissions[1:] else updated(d, *d.items)),
    "inquiry": inquired,
    "cancel": lambda d: requests.cancel_request(d.model_copy(update={"cancel_id": d.id}), member(), US, NOW),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(document=authorizations(), way=st.sampled_from(sorted(WAYS)))
def test_whatever_is_asked_passes_the_definitions_with_the_numbers_it_was_given(
    document: Authorization, way: str
) -> None:
    bundle = WAYS[way](document)
    assert problems(bundle) == []
    newest = document.submissions[0] if way == "initial" else document.submissions[-1]
    expected = [item.sequence for item in newest.items or document.items]
    assert [item["sequence"] for item in claims(bundle)[0]["item"]] == expected
