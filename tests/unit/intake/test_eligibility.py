"""The payer's wire: what is asked is valid FHIR, and each answer means one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.intake import model
from services.intake.eligibility import Eligibility, outcome_of, request
from shared.kit import fhir
from shared.kit.decisions import NO_FACTS, Refused, Unanswered
from shared.kit.document import Attempt
from tests.unit.intake.cases import NOW, registered

ATTEMPT = Attempt(id="11111111-1111-5111-8111-111111111111", number=1, since=NOW)


def coverage_of(patient: model.Patient) -> model.Coverage:
    assert patient.coverage is not None
    return patient.coverage


def answer(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "CoverageEligibilityResponse",
        "status": "active",
        "purpose": ["validation"],
        "patient": {"reference": "#p"},
        "created": "2026-03-02",
        "request": {"reference": "#r"},
        "outcome": "complete",
        "insurer": {"reference": "#i"},
        "insurance": [{"coverage": {"reference": "#c"}, "inforce": True}],
        **more,
    }


def insurance(**more: Any) -> list[dict[str, Any]]:
    return [{"coverage": {"reference": "#c"}, **more}]


def read(status: int, body: object) -> Any:
    coverage = coverage_of(registered())
    return outcome_of(httpx.Response(status, json=body), coverage, NOW.date())


async def asked(reply: Callable[[httpx.Request], httpx.Response], patient: model.Patient) -> Any:
    async with httpx.AsyncClient(transport=httpx.MockTransport(reply)) as http:
        return await Eligibility(http, "http://payer.test/").verify(patient, ATTEMPT, NO_FACTS)


def test_the_request_is_valid_fhir_and_carries_the_member() -> None:
    patient = registered()
    raw = request(patient, coverage_of(patient), "acme", "key-1", NOW)
    resource = fhir.element(raw, "CoverageEligibilityRequest")
    assert resource.texts("purpose") == ("validation", "benefits", "auth-requirements")
    reference = resource.all("insurance")[0].one("coverage")
    assert reference is not None
    contained = {item.id: item for item in resource.all("contained")}
    coverage = contained[(reference.text("reference") or "")[1:]]
    assert coverage.text("subscriberId") == "SBX-APPROVE-1"


async def test_the_payer_is_in_the_address_and_the_member_is_not() -> None:
    seen: list[httpx.Request] = []

    def reply(posted: httpx.Request) -> httpx.Response:
        seen.append(posted)
        return httpx.Response(200, json=answer())

    patient = registered()
    assert (await asked(reply, patient)).inforce
    assert str(seen[0].url) == "http://payer.test/21-0000001/fhir/CoverageEligibilityRequest/$submit"
    assert "SBX" not in str(seen[0].headers)


async def test_a_lost_answer_is_asked_for_under_the_same_key_and_another_member_under_another() -> None:
    keys: list[str] = []

    def reply(posted: httpx.Request) -> httpx.Response:
        keys.append(posted.headers["Idempotency-Key"])
        return httpx.Response(500)

    patient = registered()
    assert isinstance(await asked(reply, patient), Unanswered)
    await asked(reply, patient)
    coverage_of(patient).revision += 1
    await asked(reply, patient)
    assert keys[0] == keys[1]
    assert keys[2] != keys[0]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, {}, "payer-unknown"),
        (422, {}, "not-enough-data"),
        (200, answer(outcome="error", error=[{"code": {"coding": [{"code": "75"}]}}]), "not-enough-data"),
        (200, answer(insurance=[]), "not-enough-data"),
        (200, answer(insurance=insurance()), "not-enough-data"),
    ],
)
def test_an_answer_that_cannot_tell_says_why_in_a_code(status: int, body: object, reason: str) -> None:
    outcome = read(status, body)
    assert isinstance(outcome, model.NoVerdict)
    assert outcome.reason == reason


@pytest.mark.parametrize(
    "body",
    [
        answer(outcome="queued"),
        answer(outcome="error", error=[{"code": {"coding": [{"code": "42"}]}}]),
        {"resourceType": "OperationOutcome"},
        [],
        "nonsense",
    ],
)
def test_an_answer_that_is_none_yet_is_asked_for_again(body: object) -> None:
    assert isinstance(read(200, body), Refused)


@pytest.mark.parametrize("status", [401, 403, 408])
def test_what_is_wrong_between_us_and_the_payer_says_nothing_of_the_coverage(status: int) -> None:
    assert isinstance(read(status, {}), Refused)


def test_an_unreadable_answer_is_asked_for_again() -> None:
    coverage = coverage_of(registered())
    assert isinstance(outcome_of(httpx.Response(200, text="<html>"), coverage, NOW.date()), Refused)


@pytest.mark.parametrize(
    ("period", "reason"),
    [
        ({"end": "2025-12-31"}, "ended"),
        ({"start": "2026-06-01"}, "not-started"),
        ({}, "not-in-force"),
    ],
)
def test_a_lapse_has_its_reason_from_the_dates(period: dict[str, str], reason: str) -> None:
    outcome = read(200, answer(insurance=insurance(inforce=False, benefitPeriod=period)))
    assert isinstance(outcome, model.Verdict)
    assert (outcome.inforce, outcome.reason) == (False, reason)
