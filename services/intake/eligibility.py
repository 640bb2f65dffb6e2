"""Asking a payer whether a coverage is in force: FHIR R4 CoverageEligibilityRequest out, Response in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from urllib.parse import quote

import httpx

from services.intake import fhir as mapping
from services.intake import model
from shared.kit import fhir
from shared.kit.decisions import Facts, Refused, Unanswered
from shared.kit.document import Attempt, derived_id
from shared.kit.errors import Invalid
from shared.kit.outside import ask

ELIGIBILITY_SYSTEM = "https://carerelay.org/fhir/sid/eligibility-request"
PAYER_SYSTEM = "https://carerelay.org/fhir/sid/payer"
MEMBER_TYPE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MB"}]}
PURPOSES = ("validation", "benefits", "auth-requirements")

_LATER = frozenset({"42", "79", "80"})
"""X12 901: unable to respond now, invalid participant, no response: the same question may be asked again."""

_OURS = frozenset({401, 403, 405, 408, 415})
"""What is wrong between us and the payer says nothing of the coverage, and is put right without touching it."""

Outcome = model.Verdict | model.NoVerdict | Refused | Unanswered


class Eligibility:
    """The payers' eligibility service at ``{base_url}/{payer_id}/fhir``; ``timeout`` in seconds for each call."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, *, timeout: float = 20.0) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout

    async def verify(self, patient: model.Patient, attempt: Attempt, facts: Facts) -> Outcome:
        """Ask about the coverage that pays first. The same attempt for the same revision is one question for ever."""
        coverage = patient.coverage
        if coverage is None or coverage.payer_id is None or coverage.member_id is None:
            return Refused("nothing-to-ask")
        key = derived_id("eligibility", attempt.id, coverage.id, str(coverage.revision))
        answer = await ask(
            self._http,
            "POST",
            f"{self._base_url}/{quote(coverage.payer_id, safe='')}/fhir/CoverageEligibilityRequest/$submit",
            attempt=key,
            timeout=self._timeout,
            json=request(patient, coverage, coverage.payer_id, key, attempt.since),
            headers={"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"},
        )
        if isinstance(answer, Refused | Unanswered):
            return answer
        return outcome_of(answer, coverage, attempt.since.date())


def request(
    patient: model.Patient, coverage: model.Coverage, payer_id: str, key: str, at: datetime
) -> dict[str, object]:
    """The CoverageEligibilityRequest: patient, coverage and insurer contained, so that it stands alone."""
    member = {"type": MEMBER_TYPE, "value": coverage.member_id}
    insured: dict[str, object] = {
        "resourceType": "Coverage",
        "id": "coverage",
        "status": "active",
        "identifier": [member],
        "subscriberId": coverage.member_id,
        "beneficiary": {"reference": "#patient"},
        "payor": [{"reference": "#insurer"}],
    }
    insurer = {
        "resourceType": "Organization",
        "id": "insurer",
        "identifier": [{"system": PAYER_SYSTEM, "value": payer_id}],
    }
    return {
        "resourceType": "CoverageEligibilityRequest",
        "contained": [{**mapping.patient_resource(patient), "id": "patient"}, insured, insurer],
        "identifier": [{"system": ELIGIBILITY_SYSTEM, "value": key}],
        "status": "active",
        "purpose": list(PURPOSES),
        "patient": {"reference": "#patient"},
        "servicedDate": at.date().isoformat(),
        "created": at.date().isoformat(),
        "insurer": {"reference": "#insurer"},
        "insurance": [{"focal": True, "coverage": {"reference": "#coverage"}}],
    }


def outcome_of(answer: httpx.Response, coverage: model.Coverage, today: date) -> Outcome:
    """What a payer's HTTP answer means for this coverage. An answer that makes no sense counts as none."""
    if answer.status_code == httpx.codes.NOT_FOUND:
        return model.NoVerdict(coverage.id, coverage.revision, "payer-unknown")
    if answer.status_code in _OURS:
        return Refused(f"status-{answer.status_code}")
    if answer.status_code >= httpx.codes.BAD_REQUEST:
        return model.NoVerdict(coverage.id, coverage.revision, "not-enough-data")
    try:
        body = answer.json()
    except ValueError:
        return Refused("answer-unreadable")
    try:
        return _read(body, coverage, today)
    except Invalid:
        return Refused("answer-unreadable")


def _read(body: Mapping[str, object], coverage: model.Coverage, today: date) -> Outcome:
    response = fhir.element(body, "CoverageEligibilityResponse")
    outcome = response.text("outcome")
    if outcome in ("queued", "partial"):
        return Refused("answer-queued")
    if outcome == "error":
        codes = {coding.code for error in response.all("error") for coding in error.concept("code")}
        if codes & _LATER:
            return Refused("payer-cannot-now")
        return model.NoVerdict(coverage.id, coverage.revision, "not-enough-data")
    insurances = response.all("insurance")
    inforce = insurances[0].flag("inforce") if insurances else None
    if inforce is None:
        return model.NoVerdict(coverage.id, coverage.revision, "not-enough-data")
    starts, ends = insurances[0].period("benefitPeriod")
    return model.Verdict(
        coverage_id=coverage.id,
        revision=coverage.revision,
        inforce=inforce,
        reason=_reason(starts, ends, today),
        valid_from=starts,
        valid_to=ends,
    )


def _reason(starts: date | None, ends: date | None, today: date) -> str:
    """Why a coverage is not in force, as far as its dates tell."""
    if ends is not None and ends < today:
        return "ended"
    if starts is not None and starts > today:
        return "not-started"
    return "not-in-force"
