"""PAS request and inquiry Bundles: the Claim first, absolute fullUrls, every reference resolvable inside.

Times in a Bundle come from when the claim was opened, so that a claim sent again is the same Bundle again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.prior_authorization.model.authorization import ITEM, Authorization, Kind, Submission
from services.prior_authorization.model.member import Member
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.codes import Certification
from shared.contracts.base import Coding
from shared.kit.document import derived_id
from shared.kit.shown import instant

Resource = dict[str, object]

_GENDERS = frozenset({"male", "female", "other", "unknown"})


@dataclass(frozen=True, slots=True)
class Requestor:
    """The organization that asks: ours."""

    name: str
    npi: str


@dataclass(frozen=True, slots=True)
class _Party:
    """A resource of the Bundle and how others refer to it."""

    id: str
    resource: Resource

    @property
    def url(self) -> str:
        return f"urn:uuid:{self.id}"

    @property
    def reference(self) -> Resource:
        return {"reference": self.url}

    @property
    def entry(self) -> Resource:
        return {"fullUrl": self.url, "resource": self.resource}


@dataclass(frozen=True, slots=True)
class _Parties:
    patient: _Party
    insurer: _Party
    requestor: _Party
    coverage: _Party

    @property
    def all(self) -> tuple[_Party, ...]:
        return self.requestor, self.insurer, self.coverage, self.patient


def initial_request(document: Authorization, member: Member, submission: Submission, requestor: Requestor) -> Resource:
    """The request for approval (certificationType I)."""
    return _request(document, member, submission, requestor, Certification.INITIAL)


def appeal_request(document: Authorization, member: Member, submission: Submission, requestor: Requestor) -> Resource:
    """The appeal of a denied claim (certificationType 2): a claim of its own, related to that one, updating nothing."""
    return _request(document, member, submission, requestor, Certification.APPEAL_STANDARD)


def cancel_request(document: Authorization, member: Member, requestor: Requestor, opened_at: datetime) -> Resource:
    """The withdrawal of a claim (certificationType 3). Raises ValueError where none was sent."""
    newest = document.newest
    if newest is None or document.cancel_id is None:
        raise ValueError("there is no claim to cancel")
    cancelling = Submission(
        id=document.cancel_id, kind=Kind.INITIAL, prior=document.cancels or newest.id, opened_at=opened_at
    )
    return _request(document, member, cancelling, requestor, Certification.CANCEL)


def inquiry(document: Authorization, member: Member, requestor: Requestor, asked_at: datetime) -> Resource:
    """The question after the newest claim. Raises ValueError where none was sent."""
    newest = document.newest
    if newest is None:
        raise ValueError("there is no claim to ask about")
    parties = _parties(document, member, requestor)
    id = derived_id("inquiry", newest.id)
    certification = Certification.INITIAL if newest.kind is Kind.INITIAL else Certification.APPEAL_STANDARD
    claim: Resource = {
        **_claim_head(document, parties, id, newest.id, codes.CLAIM_INQUIRY, newest.opened_at),
        "item": [
            {
                "extension": _item_types(certification),
                "sequence": ITEM,
                "productOrService": _service(document.service),
            }
        ],
    }
    return _bundle(codes.INQUIRY_BUNDLE, newest.id, asked_at, (_Party(id, claim), *parties.all))


def _request(
    document: Authorization,
    member: Member,
    submission: Submission,
    requestor: Requestor,
    certification: Certification,
) -> Resource:
    parties = _parties(document, member, requestor)
    order = _order(document, parties.patient)
    initial = certification is Certification.INITIAL
    profile = codes.CLAIM if initial else codes.CLAIM_UPDATE
    head = _claim_head(document, parties, submission.id, submission.id, profile, submission.opened_at)
    claim: Resource = {**head, **_related(submission), **_diagnoses(document), "item": [_item(document, certification)]}
    extensions = _level_of_service(document)
    if not initial:
        extensions.append(_coded(codes.CERTIFICATION_TYPE, codes.X12_CERTIFICATION_TYPE, certification))
    if extensions:
        claim["extension"] = extensions
    entries = (_Party(submission.id, claim), *parties.all, order)
    return _bundle(codes.REQUEST_BUNDLE, submission.id, submission.opened_at, entries)


def _bundle(profile: str, transaction: str, at: datetime, parties: tuple[_Party, ...]) -> Resource:
    return {
        "resourceType": "Bundle",
        "id": derived_id("pas-bundle", profile, transaction),
        "meta": {"profile": [profile]},
        "identifier": {"system": codes.TRANSACTION_SYSTEM, "value": transaction},
        "type": "collection",
        "timestamp": instant(at),
        "entry": [party.entry for party in parties],
    }


def _claim_head(
    document: Authorization, parties: _Parties, id: str, identifier: str, profile: str, at: datetime
) -> Resource:
    priority = "stat" if document.expedited else "normal"
    return {
        "resourceType": "Claim",
        "id": id,
        "meta": {"profile": [profile]},
        "identifier": [{"system": codes.CLAIM_SYSTEM, "value": identifier}],
        "status": "active",
        "type": _concept(codes.THO + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": parties.patient.reference,
        "created": instant(at),
        "insurer": parties.insurer.reference,
        "provider": parties.requestor.reference,
        "priority": _concept(codes.THO + "processpriority", priority),
        "insurance": [{"sequence": 1, "focal": True, "coverage": parties.coverage.reference}],
    }


def _related(submission: Submission) -> Resource:
    if submission.prior is None:
        return {}
    prior = {"type": "Claim", "identifier": {"system": codes.CLAIM_SYSTEM, "value": submission.prior}}
    relationship = _concept(codes.THO + "ex-relatedclaimrelationship", "prior")
    return {"related": [{"claim": prior, "relationship": relationship}]}


def _diagnoses(document: Authorization) -> Resource:
    """The diagnoses in systems that payers take; SNOMED CT is not among them."""
    known = [coding for coding in document.diagnoses if coding.system in codes.DIAGNOSIS_SYSTEMS]
    if not known:
        return {}
    listed: list[Resource] = []
    for sequence, coding in enumerate(known, 1):
        diagnosis: Resource = {"sequence": sequence, "diagnosisCodeableConcept": _coding(coding)}
        if sequence == 1:
            diagnosis["type"] = [_concept(codes.PAS_CODES, "principal")]
        listed.append(diagnosis)
    return {"diagnosis": listed}


def _item(document: Authorization, certification: Certification) -> Resource:
    order: Resource = {
        "url": codes.REQUESTED_SERVICE,
        "valueReference": {"reference": f"urn:uuid:{_order_id(document)}"},
    }
    known = [coding for coding in document.diagnoses if coding.system in codes.DIAGNOSIS_SYSTEMS]
    item: Resource = {
        "extension": [*_item_types(certification), order],
        "sequence": ITEM,
        "category": _concept(codes.X12_SERVICE_TYPE, "3"),
        "productOrService": _service(document.service),
        "locationCodeableConcept": _concept(codes.PLACE_OF_SERVICE, "11"),
        "quantity": {"value": document.quantity},
    }
    if known:
        item["diagnosisSequence"] = list(range(1, len(known) + 1))
    return item


def _item_types(certification: Certification) -> list[Resource]:
    """What is asked for: a specialty care review (X12 1525 SC), as the guide's referral example does."""
    return [
        _coded(codes.REQUEST_TYPE, codes.X12_REQUEST_CATEGORY, "SC"),
        _coded(codes.CERTIFICATION_TYPE, codes.X12_CERTIFICATION_TYPE, certification),
    ]


def _level_of_service(document: Authorization) -> list[Resource]:
    return [_coded(codes.LEVEL_OF_SERVICE, codes.X12_LEVEL_OF_SERVICE, "U")] if document.expedited else []


def _service(service: Coding) -> Resource:
    """The service in a system that payers take: as it is, or as a consultation (X12 1365, 3) with the code as sent."""
    sent: Resource = {"system": service.system, "code": service.code}
    if service.system in codes.SERVICE_SYSTEMS:
        return {"coding": [sent]}
    return {"coding": [{"system": codes.X12_SERVICE_TYPE, "code": "3"}, sent]}


def _order_id(document: Authorization) -> str:
    return derived_id("order", document.id)


def _order(document: Authorization, patient: _Party) -> _Party:
    id = _order_id(document)
    return _Party(
        id,
        {
            "resourceType": "ServiceRequest",
            "id": id,
            "meta": {"profile": [codes.SERVICE_REQUEST]},
            "status": "active",
            "intent": "order",
            "code": _service(document.service),
            "quantityQuantity": {"value": document.quantity},
            "subject": patient.reference,
        },
    )


def _parties(document: Authorization, member: Member, requestor: Requestor) -> _Parties:
    patient = _patient(document, member)
    insurer = _organization(
        derived_id("insurer", document.payer_id),
        codes.INSURER,
        {"system": codes.PAYER_SYSTEM, "value": document.payer_id},
        "PR",
        document.payer_id,
    )
    asking = _organization(
        derived_id("requestor", requestor.npi),
        codes.REQUESTOR,
        {"system": codes.NPI, "value": requestor.npi},
        "X3",
        requestor.name,
    )
    return _Parties(patient, insurer, asking, _coverage(document, member, patient, insurer))


def _patient(document: Authorization, member: Member) -> _Party:
    id = derived_id("beneficiary", document.patient_id)
    name: Resource = {"family": member.family} if member.family else {}
    if member.given:
        name["given"] = list(member.given)
    absent = {"extension": [{"url": codes.ABSENT, "valueCode": "unknown"}]}
    patient: Resource = {
        "resourceType": "Patient",
        "id": id,
        "meta": {"profile": [codes.BENEFICIARY]},
        "identifier": [_member_identifier(document, member)],
        "name": [name or absent],
        "gender": member.gender if member.gender in _GENDERS else "unknown",
    }
    if member.birth_date is not None:
        patient["birthDate"] = member.birth_date.isoformat()
    return _Party(id, patient)


def _coverage(document: Authorization, member: Member, patient: _Party, insurer: _Party) -> _Party:
    id = derived_id("coverage", document.coverage_id)
    self_ = [
        {"system": codes.THO + "subscriber-relationship", "code": "self"},
        {"system": codes.X12_RELATIONSHIP, "code": "18"},
    ]
    coverage: Resource = {
        "resourceType": "Coverage",
        "id": id,
        "meta": {"profile": [codes.COVERAGE]},
        "identifier": [_member_identifier(document, member)],
        "status": "active",
        "subscriberId": member.member_id,
        "beneficiary": patient.reference,
        "relationship": {"coding": self_},
        "payor": [insurer.reference],
    }
    return _Party(id, coverage)


def _member_identifier(document: Authorization, member: Member) -> Resource:
    return {
        "type": _concept(codes.THO + "v2-0203", "MB"),
        "system": f"{codes.PAYER_SYSTEM}:{document.payer_id}:member",
        "value": member.member_id,
    }


def _organization(id: str, profile: str, identifier: Resource, entity: str, name: str) -> _Party:
    return _Party(
        id,
        {
            "resourceType": "Organization",
            "id": id,
            "meta": {"profile": [profile]},
            "identifier": [identifier],
            "active": True,
            "type": [_concept(codes.X12_ENTITY, entity)],
            "name": name,
        },
    )


def _coded(url: str, system: str, code: str) -> Resource:
    return {"url": url, "valueCodeableConcept": _concept(system, code)}


def _concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": str(code)}]}


def _coding(coding: Coding) -> Resource:
    return _concept(coding.system, coding.code)
