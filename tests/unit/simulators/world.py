"""What the simulators' tests share: a clock that stands still, a subscriber that listens, PAS requests to send."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response

from shared.kit.clock import FrozenClock

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
X12 = "https://codesystem.x12.org/005010/"
SUBMIT = "/acme/fhir/Claim/$submit"
INQUIRE = "/acme/fhir/Claim/$inquire"
ELIGIBILITY = "/acme/fhir/CoverageEligibilityRequest/$submit"

Json = dict[str, Any]


def frozen() -> FrozenClock:
    return FrozenClock(START)


def client(app: Callable[..., Any]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://simulator.test")


@dataclass
class Listener:
    """A service as the simulators see it: keeps what it is sent, answers as it is told."""

    statuses: list[int] = field(default_factory=list)
    got: list[tuple[str, str | None, Json]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def http(self) -> httpx.AsyncClient:
        app = FastAPI()

        @app.post("/{path:path}")
        async def take(path: str, request: Request) -> Response:
            self.keys.append(request.headers["Idempotency-Key"])
            self.got.append((path, request.headers.get("Authorization"), await request.json()))
            return Response(status_code=self.statuses.pop(0) if self.statuses else 202)

        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app))


def claim(attempt: str, *, certification: str = "I", units: int = 4, related: str | None = None) -> Json:
    body: Json = {
        "resourceType": "Claim",
        "id": f"claim-{attempt}",
        "identifier": [{"system": "urn:attempts", "value": attempt}],
        "status": "active",
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/claim-type", "code": "professional"}]},
        "use": "preauthorization",
        "patient": {"reference": "Patient/p"},
        "created": "2026-03-02T15:00:00Z",
        "insurer": {"reference": "Organization/insurer"},
        "provider": {"reference": "Organization/clinic"},
        "priority": {"coding": [{"code": "normal"}]},
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": "Coverage/c"}}],
        "item": [
            {
                "sequence": 1,
                "extension": [
                    {
                        "url": PAS + "extension-certificationType",
                        "valueCodeableConcept": {"coding": [{"system": X12 + "1322", "code": certification}]},
                    }
                ],
                "productOrService": {"coding": [{"system": "urn:services", "code": "99243"}]},
                "quantity": {"value": units},
            }
        ],
    }
    if related is not None:
        body["related"] = [{"claim": {"identifier": {"value": related}}}]
    return body


def bundle(attempt: str, member: str, **options: Any) -> Json:
    """A PAS request Bundle for a synthetic member."""
    resources: list[Json] = [
        claim(attempt, **options),
        {"resourceType": "Organization", "id": "insurer", "active": True, "name": "Acme Health"},
        {"resourceType": "Organization", "id": "clinic", "active": True, "name": "Elm Street Clinic"},
        {
            "resourceType": "Coverage",
            "id": "c",
            "status": "active",
            "subscriberId": member,
            "beneficiary": {"reference": "Patient/p"},
            "payor": [{"reference": "Organization/insurer"}],
        },
        {"resourceType": "Patient", "id": "p", "name": [{"family": "Testperson", "given": ["Synthia"]}]},
    ]
    return {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:transactions", "value": attempt},
        "type": "collection",
        "timestamp": "2026-03-02T15:00:00Z",
        "entry": [{"fullUrl": f"http://ehr.test/fhir/{r['resourceType']}/{r['id']}", "resource": r} for r in resources],
    }


def eligibility(member: str, *purposes: str) -> Json:
    return {
        "resourceType": "CoverageEligibilityRequest",
        "id": "e",
        "status": "active",
        "purpose": list(purposes) or ["validation"],
        "patient": {"reference": "Patient/p"},
        "created": "2026-03-02",
        "insurer": {"identifier": {"value": "acme"}},
        "contained": [
            {
                "resourceType": "Coverage",
                "id": "c",
                "status": "active",
                "subscriberId": member,
                "beneficiary": {"reference": "Patient/p"},
                "payor": [{"identifier": {"value": "acme"}}],
            }
        ],
        "insurance": [{"coverage": {"reference": "#c"}}],
    }


def without(body: Json, *path: str | int) -> Json:
    """A copy without one element."""
    changed = copy.deepcopy(body)
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return changed


def changed(body: Json, value: object, *path: str | int) -> Json:
    """A copy with one element set."""
    result = copy.deepcopy(body)
    holder: Any = result
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return result


# -- reading answers, independently of the code that wrote them --------------------------------------------------------


def response_of(bundle: Json) -> Json:
    first: Json = bundle["entry"][0]["resource"]
    assert first["resourceType"] == "ClaimResponse"
    return first


def review(item: Json) -> Json:
    """The reviewAction of an item: action code, number, reasons."""
    (extension,) = item["adjudication"][0]["extension"]
    assert extension["url"] == PAS + "extension-reviewAction"
    found: Json = {"reasons": []}
    for part in extension["extension"]:
        if part["url"] == PAS + "extension-reviewActionCode":
            coding = part["valueCodeableConcept"]["coding"][0]
            assert coding["system"] == X12 + "306"
            found["action"] = coding["code"]
        elif part["url"] == "number":
            found["number"] = part["valueString"]
        elif part["url"] == "reasonCode":
            found["reasons"].append(part["valueCodeableConcept"]["coding"][0]["code"])
    return found


def action_of(bundle: Json) -> str:
    action: str = review(response_of(bundle)["item"][0])["action"]
    return action


def extension_of(item: Json, name: str) -> Json:
    (found,) = [extension for extension in item["extension"] if extension["url"] == PAS + f"extension-{name}"]
    result: Json = found
    return result


def paths_of(outcome: Json) -> list[str]:
    assert outcome["resourceType"] == "OperationOutcome"
    return [path for issue in outcome["issue"] for path in issue.get("expression", [])]


def content(body: Json) -> bytes:
    return json.dumps(body).encode()
