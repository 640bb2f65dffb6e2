"""What payers say of their requirements, as CRD has it: orders with coverage-information, for the tests."""

from __future__ import annotations

import base64
from typing import Any

from services.prior_authorization.pas.coverage import URL
from tests.unit.prior_authorization.cases import CONSULT, COVERAGE

Json = dict[str, Any]
Parts = dict[str, Any]

QUESTIONNAIRE = "http://payer.test/Questionnaire/consultation"

NOT_COVERED: Parts = {"covered": "not-covered", "pa": None}
NO_AUTH: Parts = {"pa": "no-auth"}
SATISFIED: Parts = {"pa": "satisfied", "more": [{"url": "satisfied-pa-id", "valueString": "GOLD-1"}]}
AUTH_NEEDED: Parts = {}
WITH_FORM: Parts = {
    "more": [
        {"url": "doc-needed", "valueCode": "clinical"},
        {"url": "doc-purpose", "valueCode": "withpa"},
        {"url": "questionnaire", "valueCanonical": f"{QUESTIONNAIRE}|1.0"},
    ]
}
WORDS = (NOT_COVERED, NO_AUTH, SATISFIED, AUTH_NEEDED, WITH_FORM)

FORM = {
    "kind": "questionnaire",
    "type": "102089-0",
    "canonical": f"{QUESTIONNAIRE}|1.1",
    "content_type": "application/fhir+json",
    "data": base64.b64encode(b'{"resourceType": "QuestionnaireResponse"}').decode(),
}


def extension(
    covered: str = "covered",
    pa: str | None = "auth-needed",
    *,
    coverage: str = COVERAGE,
    date: str = "2026-01-02",
    more: list[Json] | None = None,
) -> Json:
    """One coverage-information."""
    parts: list[Json] = [
        {"url": "coverage", "valueReference": {"reference": f"Coverage/{coverage}"}},
        {"url": "covered", "valueCode": covered},
        {"url": "date", "valueDate": date},
        {"url": "coverage-assertion-id", "valueString": "A-1"},
        *(more or []),
    ]
    if pa is not None:
        parts.append({"url": "pa-needed", "valueCode": pa})
    return {"url": URL, "extension": parts}


def order(*extensions: Json, **parts: Any) -> Json:
    """An order for a consultation with what the payer says of it."""
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "code": {"coding": [CONSULT.model_dump()], "text": "Tess Canaria needs this"},
        "extension": list(extensions) or [extension(**parts)],
    }
