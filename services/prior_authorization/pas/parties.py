"""Who a PAS Bundle is about: patient, coverage, insurer, requestor and those who give the care, as resources of it."""

from __future__ import annotations

from dataclasses import dataclass

from services.prior_authorization.model.authorization import Authorization
from services.prior_authorization.model.items import Provider
from services.prior_authorization.model.member import Member
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource, Sent, concept
from shared.kit.document import derived_id

_GENDERS = frozenset({"male", "female", "other", "unknown"})


@dataclass(frozen=True, slots=True)
class Requestor:
    """The organization that asks: ours."""

    name: str
    npi: str


@dataclass(frozen=True, slots=True)
class Parties:
    """The resources that every Bundle holds, and how others refer to them."""

    patient: Sent
    insurer: Sent
    requestor: Sent
    coverage: Sent

    @property
    def all(self) -> tuple[Sent, ...]:
        """In the order in which they are sent."""
        return self.requestor, self.insurer, self.coverage, self.patient


def parties_of(document: Authorization, member: Member, requestor: Requestor) -> Parties:
    """The parties of an authorization."""
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
    return Parties(patient, insurer, asking, _coverage(document, member, patient, insurer))


def provider_of(provider: Provider) -> Sent:
    """One who is to give the care."""
    id = derived_id("provider", provider.npi)
    return _organization(
        id, codes.ORGANIZATION, {"system": codes.NPI, "value": provider.npi}, provider.role, provider.name
    )


def _patient(document: Authorization, member: Member) -> Sent:
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
    return Sent(id, patient)


def _coverage(document: Authorization, member: Member, patient: Sent, insurer: Sent) -> Sent:
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
    return Sent(id, coverage)


def _member_identifier(document: Authorization, member: Member) -> Resource:
    return {
        "type": concept(codes.THO + "v2-0203", "MB"),
        "system": f"{codes.PAYER_SYSTEM}:{document.payer_id}:member",
        "value": member.member_id,
    }


def _organization(id: str, profile: str, identifier: Resource, entity: str, name: str) -> Sent:
    return Sent(
        id,
        {
            "resourceType": "Organization",
            "id": id,
            "meta": {"profile": [profile]},
            "identifier": [identifier],
            "active": True,
            "type": [concept(codes.X12_ENTITY, entity)],
            "name": name,
        },
    )
