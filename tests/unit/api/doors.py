"""Every HTTP route of the services, read off the running applications, and a body that fits each of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI

from deploy.demo.cases import DEFAULT_FOLDER
from deploy.demo.world import community
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.store.port import Found
from shared.kit.testing.harness import Harness
from shared.kit.testing.memory_store import MemoryStore
from tests.contract.services import WIRING
from tests.unit.prior_authorization import coverage

Json = dict[str, Any]

ABSENT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
"""A well-formed id of nothing."""

NOT_OURS = frozenset({"leases", "audit", "requests", "process"})
"""Collections that are written while nothing changes: who works on what, and who has read what."""

OPERATED = "prior_authorization"
"""The service whose doors for operators are looked at: the kit makes the same for all."""


@dataclass(frozen=True, slots=True)
class Door:
    """One route of one service."""

    service: str
    method: str
    path: str
    roles: frozenset[Role]
    takes_body: bool

    def __str__(self) -> str:
        return f"{self.service} {self.method} {self.path}"

    def url(self, **given: str) -> str:
        """The address with its places filled: by ``given``, else by ids of nothing."""
        url = self.path
        for name in self.places:
            usual = NAMED.get(str(self)) or FILLED.get(name, ABSENT)
            url = url.replace(f"{{{name}}}", given.get(name, usual))
        return url

    @property
    def places(self) -> list[str]:
        """The names of the path's places."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def body(self) -> Json | None:
        """A copy of the body that fits, None where none is taken."""
        return copy.deepcopy(BODIES[self.service, self.method, self.path]) if self.takes_body else None

    @property
    def role(self) -> Role:
        """One that may."""
        return min(self.roles)


FILLED = {"channel": "sms", "payer_id": "sandbox-health"}
NAMED = {"directory PUT /services/{id}": community()[0]["id"]}
"""Ids that an address must share with its body."""


def routes(app: FastAPI) -> Iterator[Any]:
    """All routes of an application, those of included routers too."""

    def flat(found: Iterable[Any]) -> Iterator[Any]:
        for route in found:
            included = getattr(route, "original_router", None)
            if included is None:
                yield route
            else:
                yield from flat(included.routes)

    return flat(app.routes)


def harness(service: str, **configured: Any) -> Harness:
    """One service on memory; outside, nobody answers."""
    module = WIRING[service]
    return Harness(module.Settings, module.build, **configured)


@cache
def doors(service: str) -> tuple[Door, ...]:
    """The routes of a service that ask for a token."""
    return tuple(
        Door(service, method, route.path, route.endpoint.roles, route.body_field is not None)
        for route in routes(harness(service).chassis.app)
        for method in sorted(route.methods)
        if route.endpoint.roles and (service == OPERATED or not route.path.startswith("/operations/"))
    )


EVERY = [door for service in WIRING for door in doors(service)]
WITH_BODY = [door for door in EVERY if door.takes_body]


def stored(store: MemoryStore) -> dict[str, Found]:
    """Everything that is stored of the domain, by collection and id: equal before and after means nothing written."""
    return {
        f"{name}/{id}": collection.get(id)
        for name, collection in store.collections.items()
        if name not in NOT_OURS
        for id in collection.texts
    }


def refused(answer: httpx.Response) -> Json:
    """The problem details of a refusal, whole and well formed (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: Json = answer.json()
    assert problem["type"].startswith("urn:carerelay:problem:")
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    return problem


def named(answer: httpx.Response) -> list[str]:
    """The paths that a refusal names; FHIR operations answer with an OperationOutcome, which has none."""
    return [flaw["path"] for flaw in answer.json().get("errors", ())]


# -- bodies that fit ------------------------------------------------------------------------------------------------


def _demo(name: str, type: str | None = None) -> Json:
    """A bundle of the demo, or its first resource of a type."""
    bundle: Json = json.loads((DEFAULT_FOLDER / f"{name}.bundle.json").read_text(encoding="utf-8"))
    if type is None:
        return bundle
    found: Json = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == type)
    return found


def _parameters(**given: Json) -> Json:
    parameter = [{"name": name.replace("_", "-", name == "appointment_reference"), **v} for name, v in given.items()]
    return {"resourceType": "Parameters", "parameter": parameter}


def _reference(to: str) -> Json:
    return {"valueReference": {"reference": to}}


PATIENT = derived_id("example", "patient")
REFERRAL = derived_id("example", "referral")
DOCTOR = derived_id("example", "doctor")
SLOT = derived_id("example", "slot")
BUNDLE = _demo("12-cancelled-by-text")
ORDER: Json = {**_demo("12-cancelled-by-text", "ServiceRequest"), "subject": {"reference": f"Patient/{PATIENT}"}}
BASED_ON = {"reference": f"ServiceRequest/{REFERRAL}"}
REPORT_TYPE = {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]}
TASK: Json = {
    "resourceType": "Task",
    "status": "accepted",
    "intent": "order",
    "basedOn": [BASED_ON],
    "for": {"reference": f"Patient/{PATIENT}"},
}
DIAGNOSTIC_REPORT: Json = {
    "resourceType": "DiagnosticReport",
    "id": derived_id("example", "report"),
    "status": "final",
    "code": REPORT_TYPE,
    "subject": {"reference": f"Patient/{PATIENT}"},
    "basedOn": [BASED_ON],
    "issued": "2026-03-02T15:00:00Z",
}
DOCUMENT: Json = {
    "resourceType": "DocumentReference",
    "status": "current",
    "docStatus": "final",
    "type": REPORT_TYPE,
    "subject": {"reference": f"Patient/{PATIENT}"},
    "date": "2026-03-02T15:00:00Z",
    "content": [{"attachment": {"contentType": "text/plain", "title": "Consult note"}}],
    "context": {"related": [BASED_ON]},
}
CLAIM_RESPONSE: Json = {
    "resourceType": "ClaimResponse",
    "status": "active",
    "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/claim-type", "code": "professional"}]},
    "use": "preauthorization",
    "patient": {"reference": "Patient/1"},
    "created": "2026-03-02T15:00:00Z",
    "insurer": {"reference": "Organization/1"},
    "outcome": "complete",
    "request": {"identifier": {"value": derived_id("example", "claim")}},
}
NOTIFICATION: Json = {
    "resourceType": "Bundle",
    "type": "history",
    "entry": [
        {
            "resource": {
                "resourceType": "Parameters",
                "parameter": [
                    {"name": "subscription", "valueReference": {"reference": "Subscription/1"}},
                    {"name": "status", "valueCode": "active"},
                    {"name": "type", "valueCode": "event-notification"},
                ],
            },
            "request": {"method": "GET", "url": "Subscription/1/$status"},
            "response": {"status": "200"},
        },
        {
            "resource": CLAIM_RESPONSE,
            "request": {"method": "POST", "url": "ClaimResponse"},
            "response": {"status": "201"},
        },
    ],
}
PERSON: Json = {
    "family": "Example-Rivera",
    "given": ["Ana"],
    "birth_date": "1961-04-12",
    "gender": "female",
    "mobile": "+15005550142",
    "email": "ana@mail.example",
    "address": {"lines": ["12 Example Street"], "city": "Chicago", "state": "IL", "postal_code": "60601"},
    "language": "es",
    "timezone": "America/Chicago",
    "channels": ["sms"],
    "barriers": ["interpreter"],
    "coverage": {"payer_id": "sandbox-health", "member_id": "SBX-APPROVE-1"},
    "conditions": [{"codings": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "H53.8"}], "status": "active"}],
    "proxies": [{"name": "Example-Rivera, Luz", "relationship": "SONC", "phone": "+15005550143"}],
    "consents": [{"channel": "voice", "permitted": False}],
}
SHA = "3b1f" * 16
CODE = {"system": "http://loinc.org", "code": "11488-4"}
HOLD: Json = {"slot_id": SLOT, "patient_id": PATIENT, "referral_id": REFERRAL, "minutes": 10}
ENDPOINT: Json = {"url": "https://hooks.partner.example/carerelay", "event_types": ["referral.sent.v1"]}
TIMES = {"start": "2026-03-09T15:00:00Z", "end": "2026-03-09T15:30:00Z"}

BODIES: dict[tuple[str, str, str], Json] = {
    ("directory", "PUT", "/services/{id}"): community()[0],
    ("directory", "POST", "/services/{id}/contacts"): {"channel": "phone", "result": "reached"},
    ("directory", "POST", "/handoffs"): {"patient_id": PATIENT, "barrier": "interpreter", "language": "es"},
    ("directory", "POST", "/handoffs/{id}/offer"): {"service_id": SLOT},
    ("directory", "POST", "/handoffs/{id}/accept"): {"service_id": SLOT},
    ("directory", "POST", "/handoffs/{id}/decline"): {"service_id": SLOT, "reason": "other"},
    ("directory", "POST", "/handoffs/{id}/close"): {"outcome": "helped"},
    ("intake", "POST", "/registrations"): BUNDLE,
    ("intake", "PATCH", "/patients/{id}"): PERSON,
    ("intake", "PUT", "/patients/{id}"): PERSON,
    ("notifications", "POST", "/callbacks/status"): {
        "id": "gw-1",
        "reference": SLOT,
        "status": "delivered",
        "code": "0",
    },
    ("notifications", "POST", "/inbound/{channel}"): {
        "id": "in-1",
        "from": "+15005550142",
        "to": "+15005550100",
        "body": "YES",
        "received_at": "2026-03-02T15:00:00Z",
    },
    ("notifications", "POST", "/deliveries/{id}/outcome"): {"outcome": "delivered"},
    ("prior_authorization", "POST", "/authorizations"): {
        "patient_id": PATIENT,
        "coverage_id": ABSENT,
        "payer_id": "acme-health",
        "items": [{"service": {"system": "http://www.ama-assn.org/go/cpt", "code": "29881"}, "kind": "surgery"}],
    },
    ("prior_authorization", "POST", "/authorizations/{id}/appeal"): {"expedited": True},
    ("prior_authorization", "POST", "/authorizations/{id}/cancel"): {"reason": "coordinator"},
    ("prior_authorization", "POST", "/authorizations/{id}/evidence"): {
        "items": [{"kind": "note", "type": "11488-4", "data": "JVBERi0xLjQ="}]
    },
    ("prior_authorization", "POST", "/authorizations/{id}/extend-clock"): {"days": 14},
    ("prior_authorization", "POST", "/authorizations/{id}/peer-to-peer"): {
        "offers": [{"start": "2026-03-05T15:00:00Z", "end": "2026-03-05T15:30:00Z"}],
        "clinician_id": PATIENT,
    },
    ("prior_authorization", "POST", "/authorizations/{id}/peer-to-peer/book"): {"start": "2026-03-05T15:00:00Z"},
    ("prior_authorization", "POST", "/authorizations/{id}/peer-to-peer/outcome"): {"outcome": "upheld"},
    ("prior_authorization", "POST", "/authorizations/{id}/resubmit"): {"corrected": ["72"]},
    ("prior_authorization", "POST", "/authorizations/{id}/supply"): {"supplies": [{"wanted": 1, "attachments": [1]}]},
    ("prior_authorization", "POST", "/authorizations/{id}/update"): {"change": [{"sequence": 1, "quantity": 3}]},
    ("prior_authorization", "POST", "/payers/{payer_id}/notifications"): NOTIFICATION,
    ("prior_authorization", "POST", "/operations/parked/replay"): {"ids": [SLOT]},
    ("prior_authorization", "POST", "/operations/parked/discard"): {"keys": [{"id": SLOT, "first": "a.events:0:1"}]},
    ("prior_authorization", "POST", "/operations/paused"): {"kind": "payer", "name": "acme", "state": "paused"},
    ("prior_authorization", "POST", "/operations/going-back"): {
        "group": "prior_authorization.authorization",
        "since": "2026-03-02T15:00:00Z",
    },
    ("prior_authorization", "POST", "/operations/topics"): {"dry_run": True},
    ("prior_authorization", "POST", "/requirements"): {
        "payer_id": "acme-health",
        "system": "http://www.ama-assn.org/go/cpt",
        "code": "99244",
        "age": 41,
    },
    ("prior_authorization", "POST", "/requirements/answers"): {
        "payer_id": "acme-health",
        "patient_id": PATIENT,
        "resource": coverage.order(),
    },
    ("referrals", "POST", "/referrals"): {
        "patient_id": PATIENT,
        "service": {"system": "http://www.ama-assn.org/go/cpt", "code": "92004"},
        "specialty": "ophthalmology",
        "priority": "urgent",
        "requester_id": DOCTOR,
        "performer_id": DOCTOR,
        "authored_on": "2026-03-02T14:00:00Z",
        "reasons": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "H53.8"}],
        "quantity": 2,
        "packet": [{"sha256": SHA, "code": CODE, "kind": "reason"}],
    },
    ("referrals", "POST", "/referrals/{id}/packet"): {"items": [{"sha256": SHA, "code": CODE, "kind": "reason"}]},
    ("referrals", "POST", "/referrals/{id}/activate"): {},
    ("referrals", "POST", "/referrals/{id}/accept"): {"specialist_id": DOCTOR},
    ("referrals", "POST", "/referrals/{id}/reject"): {"reason": "not-accepting", "specialist_id": DOCTOR},
    ("referrals", "POST", "/referrals/{id}/report"): {
        "report_id": SLOT,
        "based_on": ABSENT,
        "patient_id": PATIENT,
        "issued_at": "2026-03-02T15:00:00Z",
        "code": CODE,
        "sha256": SHA,
    },
    ("referrals", "POST", "/referrals/{id}/cancel"): {"reason": "patient-choice"},
    ("referrals", "POST", "/referrals/{id}/entered-in-error"): {},
    ("referrals", "POST", "/referrals/{id}/acknowledgement"): {"acknowledged_on": "2026-03-02T15:00:00Z"},
    ("referrals", "PUT", "/specialists/{id}"): {
        "specialty": "ophthalmology",
        "capabilities": ["92004"],
        "active": True,
    },
    ("referrals", "POST", "/fhir/ServiceRequest"): ORDER,
    ("referrals", "PUT", "/fhir/ServiceRequest/{id}"): {**ORDER, "id": ABSENT},
    ("referrals", "POST", "/fhir/Task"): TASK,
    ("referrals", "POST", "/fhir/DiagnosticReport"): DIAGNOSTIC_REPORT,
    ("referrals", "POST", "/fhir/DocumentReference"): DOCUMENT,
    ("webhooks", "POST", "/endpoints"): ENDPOINT,
    ("webhooks", "PUT", "/endpoints/{id}"): ENDPOINT,
    ("webhooks", "POST", "/endpoints/{id}/rotate"): {"overlap_hours": 24},
    ("webhooks", "POST", "/endpoints/{id}/replay"): {"since": "2026-03-02T14:00:00Z"},
    ("scheduling", "POST", "/calendars/{resource_id}/slots"): {
        "timezone": "America/Chicago",
        "slots": [{**TIMES, "status": "free"}],
    },
    ("scheduling", "POST", "/calendars/{resource_id}/fhir-slots"): {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [
            {"resource": {"resourceType": "Slot", "schedule": {"reference": "Schedule/1"}, "status": "free", **TIMES}}
        ],
    },
    ("scheduling", "POST", "/slots/hold"): HOLD,
    ("scheduling", "POST", "/slots/book"): HOLD,
    ("scheduling", "POST", "/appointments"): {
        "patient_id": PATIENT,
        "resource_id": DOCTOR,
        "referral_id": REFERRAL,
        "priority": "urgent",
        "earliest": "2026-03-03T15:00:00Z",
        "latest": "2026-04-03T15:00:00Z",
        "service": {"system": "http://www.ama-assn.org/go/cpt", "code": "92004"},
        "flexible": True,
    },
    ("scheduling", "POST", "/appointments/{appointment_id}/reschedule"): {"slot_id": SLOT},
    ("scheduling", "POST", "/appointments/{appointment_id}/cancel"): {"by": "patient", "reason": "patient-choice"},
    ("scheduling", "POST", "/fhir/Appointment/$find"): _parameters(
        start={"valueDateTime": "2026-03-02T15:00:00Z"},
        end={"valueDateTime": "2026-03-12T15:00:00Z"},
        practitioner=_reference(f"Practitioner/{DOCTOR}"),
        _count={"valueInteger": 3},
    ),
    ("scheduling", "POST", "/fhir/Appointment/$hold"): _parameters(
        appointment_reference=_reference(f"Appointment/{SLOT}"),
        patient=_reference(f"Patient/{PATIENT}"),
        referral=_reference(f"ServiceRequest/{REFERRAL}"),
    ),
    ("scheduling", "POST", "/fhir/Appointment/$book"): _parameters(
        appointment_reference=_reference(f"Appointment/{SLOT}"),
        patient=_reference(f"Patient/{PATIENT}"),
    ),
}
"""A well-formed body for each route that takes one; what it refers to need not be there."""

QUERIES: dict[str, str] = {
    "prior_authorization GET /requirements": "?payer_id=acme-health&system=urn:x&code=99244",
    "scheduling POST /calendars/{resource_id}/fhir-slots": "?timezone=America/Chicago",
}
"""Query parameters that a route cannot do without."""

FHIR_BODIES = frozenset(key for key, body in BODIES.items() if "resourceType" in body)
