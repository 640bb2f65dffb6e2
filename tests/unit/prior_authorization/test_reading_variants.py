"""Answers in the forms that payers give them, other than the guide's examples: read to the right words, or refused.

Each was written down from PAS 2.2.1, its versions before, and the backport of subscriptions to R4; none is a copy.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.prior_authorization import reading_tool
from services.prior_authorization.model.answers import AskAnswer, Source, Unusable, weigh
from services.prior_authorization.pas import codes, reading
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import Invalid
from tests.unit.prior_authorization.test_reading import ONE, concept, response, review
from tests.unit.prior_authorization.test_reading_tool import FOLDERS, answered, item, notification, shown, written

Json = dict[str, Any]
Capture = pytest.CaptureFixture[str]
CASES = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "pas"

CPT = "http://www.ama-assn.org/go/cpt"
BENEFIT = {"category": concept(codes.THO + "adjudication", "benefit"), "amount": {"value": 80, "currency": "USD"}}
MAY = {"start": "2026-05-01", "end": "2026-05-31"}


def extension(url: str, **value: object) -> Json:
    return {"url": url, **value}


def an_item(*reviews: Json, sequence: int = 1, **more: object) -> Json:
    return {"itemSequence": sequence, "adjudication": list(reviews) or [BENEFIT], **more}


def an_added(*reviews: Json, sequences: object = (1,), code: str = "99243", units: object = 2, **more: object) -> Json:
    return {
        "itemSequence": list(sequences) if isinstance(sequences, tuple) else sequences,
        "productOrService": concept(CPT, code),
        "quantity": {"value": units},
        "adjudication": list(reviews) or [BENEFIT],
        **more,
    }


def coded(*codings: Json, text: str | None = None) -> Json:
    """An adjudication whose review action code holds these codings."""
    said: Json = {"coding": list(codings)} if codings else {}
    if text is not None:
        said["text"] = text
    part = extension(codes.REVIEW_ACTION_CODE, valueCodeableConcept=said)
    return {"category": BENEFIT["category"], "extension": [extension(codes.REVIEW_ACTION, extension=[part])]}


def coding(code: str, system: str | None = codes.X12_REVIEW_ACTION) -> Json:
    return {"code": code} if system is None else {"system": system, "code": code}


def said_of(*items: Json, **more: object) -> Json:
    return response(item=list(items) or None, **more)


def period(start: str, end: str) -> list[Json]:
    return [extension(codes.ITEM_PERIOD, valuePeriod={"start": start, "end": end})]


def detail(units: int, **more: object) -> Json:
    return extension(codes.ITEM_DETAIL, extension=[extension("quantity", valueQuantity={"value": units, **more})])


MAYS = period("2026-05-01", "2026-05-31")
GRANT = {"code": "99243", "system": CPT, "units": 2}
FOREIGN = "http://payer.example/status"
DETAILED = [{"productOrService": concept(CPT, "99243"), "adjudication": [review("A3")]}]

VARIANTS: dict[str, tuple[Json, list[Json]]] = {
    "a benefit beside the decision": (
        said_of(an_item(BENEFIT, review("A1", "N-1"), BENEFIT)),
        [item(1, "approved", "A1", number="N-1")],
    ),
    "number and reasons in different adjudications of one decision": (
        said_of(an_item(review("A3", None, "0M"), review("A3", "REF-3", "82"))),
        [item(1, "denied", "A3", number="REF-3", reasons=["0M", "82"])],
    ),
    "two numbers for one decision are none": (
        said_of(an_item(review("A1", "N-1"), review("A1", "N-2")), preAuthRef=None),
        [item(1, "approved", "A1")],
    ),
    "a local code beside X12's": (
        said_of(an_item(coded(coding("APPROVED", "http://payer.example/status"), coding("A1")))),
        [item(1, "approved", "A1")],
    ),
    "two of X12's codes in one concept": (
        said_of(an_item(coded(coding("A1"), coding("A3")))),
        [item(1, "undecided", "A1")],
    ),
    "a code without a system": (said_of(an_item(coded(coding("A3", None)))), [item(1, "denied", "A3")]),
    "a code of a system under another name": (
        said_of(an_item(coded(coding("A1", "urn:oid:2.16.840.1.113883.6.1")))),
        [item(1, "undecided", "A1")],
    ),
    "a code of the value set's name": (
        said_of(an_item(coded(coding("A1", "https://valueset.x12.org/x217/005010/response/2000F/HCR/1/01/00/306")))),
        [item(1, "undecided", "A1")],
    ),
    "text alone": (said_of(an_item(coded(text="Certified in total"))), [item(1, "undecided", None)]),
    "a display alone": (
        said_of(an_item(coded({"system": codes.X12_REVIEW_ACTION, "display": "Certified in total"}))),
        [item(1, "undecided", None)],
    ),
    "a review action without a code": (
        said_of(
            an_item(
                {
                    "category": BENEFIT["category"],
                    "extension": [
                        extension(codes.REVIEW_ACTION, extension=[extension("number", valueString="PEND-7")])
                    ],
                }
            )
        ),
        [item(1, "undecided", None, number="PEND-7")],
    ),
    "a review action of before PAS 1, a code of no system and no concept": (
        said_of(extension=[extension(codes.REVIEW_ACTION, valueCode="A1")], preAuthRef="N-1"),
        [item(None, "undecided", None)],
    ),
    "the claim's word where an item has its own": (
        said_of(an_item(review("A1", "N-1")), an_item(sequence=2), adjudication=[review("A3", None, "82")]),
        [item(1, "approved", "A1", number="N-1"), item(2, "denied", "A3", reasons=["82"])],
    ),
    "details that say the same as the item": (
        said_of(an_item(review("A1", "N-1"), detail=[{"detailSequence": 1, "adjudication": [review("A1")]}])),
        [item(1, "approved", "A1", number="N-1")],
    ),
    "a detail that says another thing than the item": (
        said_of(an_item(review("A1", "N-1"), detail=[{"detailSequence": 1, "adjudication": [review("A3")]}])),
        [item(1, "undecided", "A1", number="N-1")],
    ),
    "details alone that agree": (
        said_of(
            an_item(
                detail=[
                    {"detailSequence": 1, "adjudication": [review("A3")]},
                    {
                        "detailSequence": 2,
                        "adjudication": [BENEFIT],
                        "subDetail": [{"subDetailSequence": 1, "adjudication": [review("A3")]}],
                    },
                ]
            ),
            adjudication=[review("A1", "N-1")],
        ),
        [item(1, "denied", "A3")],
    ),
    "details alone that differ": (
        said_of(
            an_item(
                detail=[
                    {"detailSequence": 1, "adjudication": [review("A1")]},
                    {"detailSequence": 2, "adjudication": [review("A3")]},
                ]
            )
        ),
        [item(1, "undecided", "A1")],
    ),
    "the claim's number and period": (
        said_of(an_item(review("A1")), preAuthRef="N-0", preAuthPeriod=MAY),
        [item(1, "approved", "A1", number="N-0", **{"from": "2026-05-01", "to": "2026-05-31"})],
    ),
    "the claim's number and period say nothing of a pend or a denial": (
        said_of(an_item(review("A4")), an_item(review("A3"), sequence=2), preAuthRef="N-0", preAuthPeriod=MAY),
        [item(1, "pended", "A4"), item(2, "denied", "A3")],
    ),
    "the number of an earlier authorization comes last": (
        said_of(
            an_item(review("A1"), extension=[extension(codes.AUTHORIZATION_NUMBER, valueString="OLD-1")]),
            an_item(
                review("A1", "N-2"),
                sequence=2,
                extension=[extension(codes.AUTHORIZATION_NUMBER, valueString="OLD-2")],
            ),
            an_item(review("A3"), sequence=3, extension=[extension(codes.AUTHORIZATION_NUMBER, valueString="OLD-3")]),
        ),
        [
            item(1, "approved", "A1", number="OLD-1"),
            item(2, "approved", "A1", number="N-2"),
            item(3, "denied", "A3"),
        ],
    ),
    "the dates asked for are not those approved": (
        said_of(
            an_item(
                review("A1", "N-1"),
                extension=[extension(codes.PAS + "extension-itemRequestedServiceDate", valuePeriod=MAY)],
            )
        ),
        [item(1, "approved", "A1", number="N-1")],
    ),
    "dates with times, and with one end": (
        said_of(
            an_item(
                review("A1", "N-1"),
                extension=[
                    extension(codes.ITEM_PERIOD, valuePeriod={"start": "2026-05-01T00:00:00-05:00"}),
                    extension(codes.ITEM_ISSUE_DATE, valueDate="2026-04-30"),
                ],
            )
        ),
        [item(1, "approved", "A1", number="N-1", **{"from": "2026-05-01"})],
    ),
    "one addition for several items": (
        said_of(an_item(review("A6")), an_item(review("A6"), sequence=2), addItem=[an_added(sequences=(1, 2))]),
        [
            item(each, "modified", "A6", units=2, granted={"code": "99243", "system": CPT, "units": 2})
            for each in (1, 2)
        ],
    ),
    "an addition that is denied is no grant": (
        said_of(an_item(review("A1", "N-1")), addItem=[an_added(review("A3")), an_added(review("A4"))]),
        [item(1, "approved", "A1", number="N-1")],
    ),
    "an addition that is pended, of an item without a word": (
        said_of(an_item(), addItem=[an_added(review("A4"))]),
        [item(1, "pended", "A4")],
    ),
    "an addition without a word of its own has the claim's": (
        said_of(addItem=[an_added(sequences=(4,))], adjudication=[review("A6", "N-6")]),
        [
            item(
                4,
                "modified",
                "A6",
                number="N-6",
                units=2,
                granted={"code": "99243", "system": CPT, "units": 2},
            )
        ],
    ),
    "an addition for no item": (
        said_of(an_item(review("A1", "N-1")), addItem=[an_added(review("A1", "N-9"), sequences=None)]),
        [
            item(1, "approved", "A1", number="N-1"),
            item(None, "approved", "A1", number="N-9", units=2, granted={"code": "99243", "system": CPT, "units": 2}),
        ],
    ),
    "part of a unit, and a decimal that is whole": (
        said_of(
            an_item(review("A6")),
            an_item(review("A6"), sequence=2),
            addItem=[an_added(units=2.5), an_added(sequences=(2,), units=2.0)],
        ),
        [
            item(1, "modified", "A6", units=2.5, granted={"code": "99243", "system": CPT, "units": 2.5}),
            item(2, "modified", "A6", units=2, granted={"code": "99243", "system": CPT, "units": 2}),
        ],
    ),
    "an addition that is denied, of an item without a word": (
        said_of(an_item(), addItem=[an_added(review("A3", "REF-3", "0M"))]),
        [item(1, "denied", "A3", number="REF-3", reasons=["0M"])],
    ),
    "an addition without a word, of an item that is denied": (
        said_of(an_item(review("A3")), addItem=[an_added(extension=MAYS)]),
        [item(1, "denied", "A3")],
    ),
    "additions with two numbers": (
        said_of(an_item(review("A6")), addItem=[an_added(review("A6", "N-6")), an_added(review("A6", "N-7"))]),
        [item(1, "modified", "A6", units=4, granted=[GRANT, GRANT])],
    ),
    "additions with periods of their own hold together where both do": (
        said_of(
            an_item(review("A6", "N-6")),
            addItem=[an_added(extension=MAYS), an_added(extension=period("2026-04-01", "2026-05-15"))],
        ),
        [
            item(
                1,
                "modified",
                "A6",
                number="N-6",
                units=4,
                granted=[GRANT, GRANT],
                **{"from": "2026-05-01", "to": "2026-05-15"},
            )
        ],
    ),
    "a number twice that differs, of the authorization before": (
        said_of(
            an_item(
                review("A1"),
                extension=[extension(codes.AUTHORIZATION_NUMBER, valueString=each) for each in ("OLD-1", "OLD-2")],
            )
        ),
        [item(1, "approved", "A1")],
    ),
    "one period twice": (
        said_of(an_item(review("A1", "N-1"), extension=[*MAYS, *MAYS])),
        [item(1, "approved", "A1", number="N-1", **{"from": "2026-05-01", "to": "2026-05-31"})],
    ),
    "no items at all": (said_of(), []),
    "notes, totals and a payer's disposition": (
        said_of(
            an_item(review("A3", None, "0M"), noteNumber=[1]),
            processNote=[{"number": 1, "text": "Please call."}],
            disposition="Approved",
            total=[{"category": concept(codes.THO + "adjudication", "submitted"), "amount": {"value": 1}}],
        ),
        [item(1, "denied", "A3", reasons=["0M"])],
    ),
    "a reference to the claim in a form of the payer's own": (
        said_of(an_item(review("A4")), request={"reference": "http://payer.example/fhir/Claim?identifier=1&x.y=2"}),
        [item(1, "pended", "A4")],
    ),
    "a claim that is absent for a reason": (
        said_of(an_item(review("A4")), request={"extension": [extension(codes.ABSENT, valueCode="unknown")]}),
        [item(1, "pended", "A4")],
    ),
    "a time finer than a microsecond": (
        said_of(an_item(review("A4")), created="2026-03-02T10:00:00.1234567-05:00"),
        [item(1, "pended", "A4")],
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_read_to_the_right_words(tmp_path: Path, capsys: Capture, variant: str) -> None:
    content, words = VARIANTS[variant]
    assert answered(tmp_path, capsys, without_nothing(content))["items"] == words


def without_nothing(node: Any) -> Any:
    """JSON without the elements that were given as None."""
    if isinstance(node, dict):
        return {name: without_nothing(value) for name, value in node.items() if value is not None}
    return [without_nothing(value) for value in node] if isinstance(node, list) else node


UNDECIDED: dict[str, tuple[list[Json], list[Json]]] = {
    "a code of another system": ([an_item(review("A1", "N-1"))], [an_added(coded(coding("DENIED", FOREIGN)))]),
    "a code that X12 306 does not have": ([an_item(review("A6", "N-1"))], [an_added(review("A9", "N-9"))]),
    "words alone": ([an_item(review("A1", "N-1"))], [an_added(coded(text="Not certified"))]),
    "a detail that says another thing": ([an_item(review("A1", "N-1"))], [an_added(review("A1"), detail=DETAILED)]),
    "words alone, of an item without a word": ([an_item()], [an_added(coded(text="Not certified"))]),
    "an item of words alone": ([an_item(coded(text="Not certified"))], [an_added(review("A1", "N-9"))]),
    "one that grants and one that denies": ([an_item()], [an_added(review("A1", "N-9")), an_added(review("A3"))]),
    "one that grants and one that denies, of no item": ([], [an_added(review("A1", "N-9")), an_added(review("A3"))]),
    "one that grants all and one that grants less": ([], [an_added(review("A1", "N-9")), an_added(review("A6"))]),
    "one that grants and one undecided": ([], [an_added(review("A1", "N-9")), an_added(review("A9"))]),
    "a grant of what is denied": ([an_item(review("A3"))], [an_added(review("A6", "N-9"), extension=MAYS)]),
    "a grant of what is pended": ([an_item(review("A4"))], [an_added(review("A6", "N-9"), extension=MAYS)]),
    "a grant, a denial and a denied item": ([an_item(review("A3"))], [an_added(review("A3")), an_added(review("A1"))]),
    "two items' without a word, of no decision": ([], [an_added(), an_added()]),
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", UNDECIDED)
def test_an_addition_that_leaves_doubt_leaves_the_item_undecided_in_whatever_order(
    tmp_path: Path, capsys: Capture, kind: str, backwards: bool
) -> None:
    items, added = UNDECIDED[kind]
    raw = without_nothing(said_of(*items, addItem=added[::-1] if backwards else added))
    (word,) = answered(tmp_path, capsys, raw)["items"]
    assert (word["decision"], word["granted"], word["units"]) == ("undecided", None, None)
    assert (word["from"], word["to"]) == (None, None)
    assert word["number"] in (None, "N-1")
    (answer,) = reading.read_answers(raw)
    assert isinstance(weigh(answer, "claim-1", ONE, Source.POLL, answer.created), Unusable)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("code", "own", "added", "units"),
    [
        ("A6", 10, (6, None), None),
        ("A6", None, (6, None), None),
        ("A1", 10, (6, None), None),
        ("A6", 10, (6, 2), 8),
        ("A6", 10, (1.5, 2.5), 4),
        ("A6", 10, (6, 0), 6),
        ("A6", 10, (None, None), 10),
        ("A6", 10, (None,), 10),
        ("A6", 10, (6,), 6),
    ],
)
def test_the_units_of_what_is_added_add_up_in_whatever_order(
    code: str, own: int | None, added: tuple[float | None, ...], units: float | None, backwards: bool
) -> None:
    details = [detail(own)] if own is not None else []
    additions = [an_added(units=each) for each in added]
    raw = said_of(
        an_item(review(code, "N-1"), extension=details or None), addItem=additions[::-1] if backwards else additions
    )
    (answer,) = reading.read_answers(without_nothing(raw))
    assert [(each.units, type(each.units)) for each in answer.items] == [(units, type(units))]
    if units is None:
        assert weigh(answer, "claim-1", ONE, Source.POLL, answer.created) == Unusable("units-missing")


def test_a_denied_addition_adds_no_units() -> None:
    raw = said_of(
        an_item(review("A6", "N-1"), extension=[detail(10)]), addItem=[an_added(review("A3"), units=7), an_added()]
    )
    (answer,) = reading.read_answers(raw)
    assert [each.units for each in answer.items] == [2]


def test_an_item_that_shares_its_grant_with_another_is_not_used() -> None:
    raw = said_of(an_item(review("A6", "N-6")), addItem=[an_added(sequences=(1, 2))])
    (answer,) = reading.read_answers(raw)
    asked = (*ONE, ONE[0].model_copy(update={"sequence": 2}))
    assert weigh(answer, "claim-1", asked, Source.POLL, answer.created) == Unusable("no-review-action")
    raw["entry"][0]["resource"]["item"].append(an_item(review("A6", "N-6"), sequence=2))
    (answer,) = reading.read_answers(raw)
    assert weigh(answer, "claim-1", asked, Source.POLL, answer.created) == Unusable("grant-for-several-items")


# -- wrappings ------------------------------------------------------------------------------------------------------


def bare(code: str = "A3", id: str = "cr", **more: object) -> Json:
    """A ClaimResponse by itself."""
    found: Json = said_of(an_item(review(code)), id=id, **more)["entry"][0]["resource"]
    return found


def collection(*resources: Json, profile: str | None = None) -> Json:
    entries = [
        {"fullUrl": f"http://payer.example/fhir/{each['resourceType']}/{each.get('id', place)}", "resource": each}
        for place, each in enumerate(resources)
    ]
    named = {"meta": {"profile": [f"{profile}|2.2.1"]}} if profile else {}
    return {"resourceType": "Bundle", "type": "collection", **named, "entry": entries}


CLAIM = {"resourceType": "Claim", "id": "asked"}
PATIENT = {"resourceType": "Patient", "id": "p"}


def parameters(*resources: Json, name: str = "return") -> Json:
    return {"resourceType": "Parameters", "parameter": [{"name": name, "resource": each} for each in resources]}


def r4b(kind: str, *resources: Json, **more: object) -> Json:
    status = {
        "resourceType": "SubscriptionStatus",
        "status": "active",
        "type": kind,
        "subscription": {"reference": "Subscription/s"},
        "notificationEvent": [{"eventNumber": "7", "focus": {"reference": "ClaimResponse/cr"}}],
        **more,
    }
    return {"resourceType": "Bundle", "type": "history", "entry": [{"resource": each} for each in (status, *resources)]}


def noted(focus: str, context: str, *resources: Json) -> Json:
    raw = notification("event-notification", *resources)
    parts = [
        {"name": "event-number", "valueString": "3"},
        {"name": "focus", "valueReference": {"reference": focus}},
        {"name": "additional-context", "valueReference": {"reference": context}},
    ]
    raw["entry"][0]["resource"]["parameter"].append({"name": "notification-event", "part": parts})
    return raw


WRAPPED: dict[str, tuple[Json, list[str]]] = {
    "a ClaimResponse by itself": (bare("A3"), ["A3"]),
    "with the Claim that it answers behind it": (collection(bare("A3"), PATIENT, CLAIM), ["A3"]),
    "an inquiry's with many answers": (
        collection(bare("A1", "1"), bare("A4", "2"), PATIENT, bare("A3", "3"), profile=codes.INQUIRY_RESPONSE_BUNDLE),
        ["A1", "A4", "A3"],
    ),
    "an inquiry's that found nothing, with who was asked for": (
        collection(PATIENT, profile=codes.INQUIRY_RESPONSE_BUNDLE),
        [],
    ),
    "Parameters with a Bundle for each": (parameters(collection(bare("A1")), collection(bare("A3"))), ["A1", "A3"]),
    "Parameters as the guide's example calls them": (parameters(collection(bare("A1")), name="responseBundle"), ["A1"]),
    "Parameters with a ClaimResponse": (parameters(bare("A4")), ["A4"]),
    "Parameters with an empty Bundle": (parameters({"resourceType": "Bundle", "type": "collection"}), []),
    "a notification of a ClaimResponse": (notification("event-notification", bare("A3"), PATIENT), ["A3"]),
    "a notification of a Bundle": (notification("event-notification", collection(bare("A3"), PATIENT)), ["A3"]),
    "a notification of two": (notification("event-notification", bare("A1", "1"), bare("A3", "2")), ["A1", "A3"]),
    "a notification that brings its answer twice": (
        notification("event-notification", collection(bare("A3")), bare("A3")),
        ["A3"],
    ),
    "a notification with an older answer as context": (
        noted("ClaimResponse/new", "ClaimResponse/old", bare("A4", "old"), bare("A1", "new")),
        ["A1"],
    ),
    "a notification as R4B has it": (r4b("event-notification", bare("A3")), ["A3"]),
    "a handshake as R4B has it": (r4b("handshake", notificationEvent=None), []),
    "events asked for again": (notification("query-event", bare("A3")), ["A3"]),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_answers_are_found_in_whatever_they_are_wrapped(tmp_path: Path, capsys: Capture, wrapping: str) -> None:
    content, words = WRAPPED[wrapping]
    line = answered(tmp_path, capsys, without_nothing(content))
    assert [each["code"] for each in line["items"]] == words


ISSUE = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "throttled"}]}
REFUSED: dict[str, tuple[Json, tuple[str, ...]]] = {
    "a search's Bundle": ({**collection(bare()), "type": "searchset"}, ("Bundle.type must be collection",)),
    "a message": ({**collection(bare()), "type": "message"}, ("Bundle.type must be collection",)),
    "a batch's answer": (
        {**collection(ISSUE), "type": "batch-response"},
        ("Bundle.type must be", "Bundle.entry must", "says throttled"),
    ),
    "a notification of R5": ({**r4b("heartbeat"), "type": "subscription-notification"}, ("Bundle.type must be",)),
    "a request with an earlier answer": (collection(CLAIM, bare()), ("Bundle.entry[0].resource is a Claim",)),
    "an answer that is not first": (
        collection(PATIENT, bare()),
        ("Bundle.entry[0].resource must be the ClaimResponse",),
    ),
    "two answers to one request": (
        collection(bare("A1", "1"), bare("A3", "2"), profile=codes.RESPONSE_BUNDLE),
        ("Bundle.entry[1].resource is a second ClaimResponse",),
    ),
    "all that is wrong at once": (
        {**collection(bare(status="draft", use="claim")), "type": "document"},
        ("Bundle.type must", "Bundle.entry[0].resource.status must", "Bundle.entry[0].resource.use must"),
    ),
    "what FHIR and what PAS miss at once": (
        collection(bare(status="draft", created=None, patient=None)),
        ("resource.status must", "resource.created is required", "resource.patient is required"),
    ),
    "an id alone": (notification("event-notification"), ("Bundle.entry must hold the ClaimResponse",)),
    "an id alone as R4B has it": (r4b("event-notification"), ("Bundle.entry must hold the ClaimResponse",)),
    "a history without a status": (
        {"resourceType": "Bundle", "type": "history", "entry": [{"resource": bare()}]},
        ("Bundle.entry[0].resource must be the Parameters",),
    ),
    "a history of nothing": ({"resourceType": "Bundle", "type": "history"}, ("Bundle.entry[0].resource must be",)),
    "an inquiry's that is a refusal": (
        collection(PATIENT, ISSUE, profile=codes.INQUIRY_RESPONSE_BUNDLE),
        ("Bundle.entry[1].resource refuses", "Bundle.entry[1].resource.issue[0] says throttled"),
    ),
    "Parameters with a Bundle that is a refusal": (
        parameters(collection(ISSUE)),
        ("Parameters.parameter[0].resource.entry[0].resource.issue[0] says throttled",),
    ),
    "Parameters with a refusal": (
        parameters(ISSUE),
        ("Parameters.parameter[0].resource must be a response Bundle", "issue[0] says throttled"),
    ),
    "Parameters with a refusal beside an answer": (
        parameters(collection(bare()), ISSUE),
        ("Parameters.parameter[1].resource must be a response Bundle",),
    ),
    "Parameters of something else": (
        {"resourceType": "Parameters", "parameter": [{"name": "x", "valueString": "A1"}]},
        ("Parameters.parameter must hold",),
    ),
    "an item numbered nothing": (said_of({"adjudication": [review("A1")]}), ("item[0].itemSequence is required",)),
    "units in words": (
        said_of(an_item(review("A6")), addItem=[an_added(units="two")]),
        ("addItem[0].quantity.value",),
    ),
    "units below none": (said_of(an_item(review("A6")), addItem=[an_added(units=-1)]), ("addItem[0].quantity.value",)),
    "units below a bound": (
        said_of(an_item(review("A1"), extension=[detail(2, comparator="<")])),
        ("valueQuantity.comparator must be absent",),
    ),
    "a detail twice that differs": (
        said_of(an_item(review("A1"), extension=[detail(2), detail(5)])),
        ("item[0].extension[1] says again",),
    ),
    "units twice that differ": (
        said_of(
            an_item(
                review("A1"),
                extension=[extension(codes.ITEM_DETAIL, extension=[*detail(2)["extension"], *detail(5)["extension"]])],
            )
        ),
        ("item[0].extension[0].extension[1] says again",),
    ),
    "a period twice that differs": (
        said_of(an_item(review("A1"), extension=[*MAYS, *period("2026-05-01", "2026-06-30")])),
        ("item[0].extension[1] says again",),
    ),
    "units that no number holds": (
        said_of(an_item(review("A6")), addItem=[an_added(units=10**400)]),
        ("addItem[0].quantity.value",),
    ),
    "a day that is none": (
        said_of(an_item(review("A1"), extension=[extension(codes.ITEM_PERIOD, valuePeriod={"start": "2026-02-30"})])),
        ("item[0].extension[0].valuePeriod.start",),
    ),
    "FHIR of another kind": ({"resourceType": "ExplanationOfBenefit"}, ("ExplanationOfBenefit is no PAS response",)),
    "a payer's Task by itself": ({"resourceType": "Task", "status": "requested"}, ("Task is no PAS response",)),
    "an answer that is not FHIR": (said_of(an_item(review("A1")), decision="approved"), ("not a FHIR R4 element",)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_none_is_refused_with_all_its_reasons(tmp_path: Path, capsys: Capture, kind: str) -> None:
    content, reasons = REFUSED[kind]
    status, lines, complaints = shown(capsys, written(tmp_path, without_nothing(content)))
    assert (status, lines) == (1, [])
    assert [reason for reason in reasons if reason not in complaints] == [], complaints


@pytest.mark.parametrize(
    "raw",
    [
        ISSUE,
        collection(ISSUE),
        parameters(ISSUE),
        parameters(collection(PATIENT, ISSUE)),
        {"resourceType": "Parameters", "parameter": [{"name": "x", "valueString": "A1"}]},
        {"resourceType": "Parameters", "parameter": [{"name": "subscription"}]},
    ],
)
def test_an_inquirys_answer_that_is_a_refusal_or_something_else_is_not_taken_for_nothing_found(raw: Json) -> None:
    for read_it in (reading.read_inquiry, reading.read_answers):
        with pytest.raises(Invalid) as refusal:
            read_it(raw)
        said = [flaw.reason for flaw in refusal.value.flaws]
        assert ("says throttled" in said) is ("throttled" in json.dumps(raw))


# -- what a payer asks for ------------------------------------------------------------------------------------------


LINE = extension(codes.SERVICE_LINE, valuePositiveInt=2)


def communication(**more: object) -> Json:
    return {
        "resourceType": "CommunicationRequest",
        "id": "ask",
        "extension": [LINE],
        "identifier": [{"system": "http://payer.example/acn", "value": "ACN-1"}],
        "status": "active",
        "category": [concept(codes.X12_REPORT_TYPE, "15")],
        "payload": [
            {
                "contentString": "18776-5",
                "extension": [extension(codes.CONTENT_MODIFIER, valueCodeableConcept=concept(codes.LOINC, "18804-5"))],
            }
        ],
        "occurrencePeriod": {"end": "2026-03-16"},
        **more,
    }


def task(*inputs: Json, **more: object) -> Json:
    url = {"type": concept(codes.PAS_CODES, "payer-url"), "valueUrl": "https://payer.example/attach"}
    return {
        "resourceType": "Task",
        "id": "task",
        "identifier": [{"system": "http://payer.example/tasks", "value": "T-1"}],
        "status": "requested",
        "intent": "order",
        "input": [*inputs, url],
        **more,
    }


def wanted(kind: str, *extensions: Json, **value: object) -> Json:
    return {"extension": list(extensions), "type": concept(codes.PAS_CODES, kind), **value}


def asks_of(raw: Json) -> tuple[AskAnswer, ...]:
    (answer,) = reading.read_answers(without_nothing(raw))
    assert [each.action for each in answer.items] == [ReviewAction.PENDED]
    return answer.asks


REPORT, PLAN = Coding(system=codes.X12_REPORT_TYPE, code="15"), Coding(system=codes.LOINC, code="18776-5")
FORM = Coding(system=codes.LOINC, code=codes.QUESTIONNAIRE_FORM)


def test_what_a_communication_request_asks_for_is_read_sent_along_or_contained() -> None:
    raw = asks_of(
        collection(bare("A4", communicationRequest=[{"reference": "CommunicationRequest/ask"}]), communication())
    )
    (ask,) = raw
    assert (ask.codes, ask.item, ask.modifiers, ask.control) == ((REPORT, PLAN), 2, ("18804-5",), "ACN-1")
    assert ask.until is not None
    assert ask.until.date().isoformat() == "2026-03-16"
    assert asks_of(bare("A4", communicationRequest=[{"reference": "#ask"}], contained=[communication()])) == raw


def test_what_a_task_asks_for_is_read_as_pas_has_it_now_and_had_it_before() -> None:
    now = task(
        wanted("attachments-needed", LINE, valueCodeableConcept=concept(codes.LOINC, "18776-5")),
        wanted("questionnaire-context", LINE, valueString="ctx-1"),
    )
    before = task(
        wanted(
            "attachments-needed",
            extension(codes.SERVICE_LINE_BEFORE, valueInteger=2),
            valueCodeableConcept=concept(codes.LOINC, "18776-5"),
        ),
        wanted("questionnaires-needed", LINE, valueCanonical="http://payer.example/Questionnaire/1"),
    )
    plan, form = asks_of(collection(bare("A4"), now))
    assert (plan.codes, plan.item, plan.control, plan.url) == ((PLAN,), 2, "T-1", "https://payer.example/attach")
    assert (form.codes, form.questionnaire) == ((FORM,), "ctx-1")
    earlier = asks_of(notification("event-notification", bare("A4"), before))
    assert earlier[0] == plan
    assert earlier[1].questionnaire == "http://payer.example/Questionnaire/1"


def test_what_is_asked_for_in_a_form_that_cannot_be_read_is_an_ask_all_the_same() -> None:
    unknown = (AskAnswer(),)
    assert asks_of(bare("A4", communicationRequest=[{"reference": "CommunicationRequest/elsewhere"}])) == unknown
    assert asks_of(collection(bare("A4"), communication(payload="chart", category=None))) == unknown
    assert asks_of(collection(bare("A4"), task())) == unknown


def test_what_is_no_longer_asked_for_or_of_another_claim_is_none() -> None:
    assert asks_of(collection(bare("A4"), task(wanted("attachments-needed"), status="completed"))) == ()
    of_other = task(wanted("attachments-needed"), reasonReference={"reference": "Claim/2"})
    raw = collection(
        bare("A4", "1", request={"reference": "Claim/1"}), bare("A4", "2", request={"reference": "Claim/2"}), of_other
    )
    first, second = reading.read_answers(raw)
    assert (first.asks, len(second.asks)) == ((), 1)


# -- damage ---------------------------------------------------------------------------------------------------------


def sources() -> list[Json]:
    """Every answer of the guide and its test kit, and those of this file: what is damaged."""
    found = [without_nothing(content) for content, _ in (*VARIANTS.values(), *WRAPPED.values())]
    for folder in FOLDERS:
        for path in sorted((CASES / folder).glob("*.json")):
            raw = json.loads(path.read_text(encoding="utf-8"))
            try:
                reading.read_answers(raw)
            except Invalid:
                continue
            found.append(raw)
    return found


SOURCES = sources()
STRANGE: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    2**80,
    1e300,
    0.5,
    "",
    " ",
    "A1",
    "A3",
    "\ud800",
    "9999-99-99",
    [],
    {},
    [None],
    [[]],
    {"coding": [{"system": codes.X12_REVIEW_ACTION, "code": "A3"}]},
)


def places(node: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The way to every node but the root."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, value in inner:
        if step in ("text", "div"):
            continue
        yield (*at, step)
        yield from places(value, (*at, step))


def harmed(raw: Json, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Json:
    damaged = copy.deepcopy(raw)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(damaged))
        if not ways:
            break
        *path, last = draw(st.sampled_from(ways))
        holder: Any = damaged
        for step in path:
            holder = holder[step]
        how = draw(st.sampled_from(("delete", "double", "replace", "swap")))
        if how == "delete":
            del holder[last]
        elif how == "double" and isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[last]))
        elif how == "swap" and isinstance(holder, list) and len(holder) > 1:
            holder.reverse()
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(STRANGE)))
    return damaged


def review_codes(node: object) -> set[str]:
    """Every review action code in a document, looked for by another way than the reader's."""
    if isinstance(node, dict):
        own = set()
        if node.get("url") == codes.REVIEW_ACTION_CODE and isinstance(node.get("valueCodeableConcept"), dict):
            listed = node["valueCodeableConcept"].get("coding")
            for each in listed if isinstance(listed, list) else ():
                system = each.get("system") if isinstance(each, dict) else None
                known = system is None or str(system).strip() in ("", codes.X12_REVIEW_ACTION)
                if known and isinstance(each, dict) and isinstance(each.get("code"), str):
                    own.add(each["code"].strip())
        return own.union(*(review_codes(value) for value in node.values()))
    return set().union(*(review_codes(value) for value in node)) if isinstance(node, list) else set()


FIELDS = ["sequence", "decision", "code", "number", "from", "to", "units", "reasons", "granted"]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.data())
def test_damage_is_refused_or_read_and_never_decides_what_was_not_said(data: st.DataObject) -> None:
    raw = harmed(data.draw(st.sampled_from(SOURCES)), data.draw)
    try:
        line = reading_tool._line("f", reading.read_answers(raw))
    except Invalid as caught:
        refusal = caught
    else:
        refusal = None
    if refusal is not None:
        assert refusal.flaws
        assert all(flaw.path and flaw.reason for flaw in refusal.flaws)
        return
    assert list(line) == ["file", "outcome", "items", "errors"]
    json.dumps(line, allow_nan=False)
    said = review_codes(raw)
    listed: Any = line["items"]
    for each in listed:
        assert list(each) == FIELDS
        if each["decision"] != reading_tool.UNDECIDED:
            assert each["decision"] == reading_tool.DECISIONS[ReviewAction(each["code"])]
            assert each["code"] in said
