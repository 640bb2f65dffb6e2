"""What is ordered, as FHIR: the kinds of service in X12's words, and the order that stands behind each item."""

from __future__ import annotations

from dataclasses import dataclass

from services.prior_authorization.model.authorization import Authorization
from services.prior_authorization.model.items import Item, ServiceKind
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource, Sent
from services.prior_authorization.pas.parties import Parties
from shared.contracts.base import Coding
from shared.kit.document import derived_id


@dataclass(frozen=True, slots=True)
class Manner:
    """How a kind of service is asked for: X12 1525 request category, X12 1365 service type, CMS place of service."""

    request: str
    service_type: str
    place: str


MANNERS = {
    ServiceKind.REFERRAL: Manner("SC", "3", "11"),
    ServiceKind.MEDICAL_SERVICES: Manner("HS", "1", "11"),
    ServiceKind.HOMECARE: Manner("HS", "42", "12"),
    ServiceKind.SURGERY: Manner("HS", "2", "24"),
    ServiceKind.DRUG: Manner("HS", "88", "11"),
    ServiceKind.DEVICE: Manner("HS", "12", "12"),
    ServiceKind.ADMISSION: Manner("AR", "48", "21"),
}
"""SC specialty care review, HS health services review, AR admission review."""


def service_of(item: Item) -> Resource:
    """The service in a system that payers take: as it is, or as the kind's X12 service type with the code as sent."""
    sent = _sent(item.service)
    if item.service.system in codes.SERVICE_SYSTEMS:
        return {"coding": [sent]}
    return {"coding": [{"system": codes.X12_SERVICE_TYPE, "code": MANNERS[item.kind].service_type}, sent]}


def quantity_of(item: Item) -> Resource:
    """How much is asked for; in X12's own units where one is named."""
    quantity: Resource = {"value": item.quantity}
    return {**quantity, "system": codes.X12_UNIT, "code": item.unit} if item.unit is not None else quantity


def order_id(document: Authorization, item: Item) -> str:
    """The id of the order behind an item; the first item's is that of the one order before there were several."""
    parts = () if item.sequence == 1 else (str(item.sequence),)
    return derived_id("order", document.id, *parts)


def order_of(document: Authorization, item: Item, parties: Parties) -> Sent:
    """The order behind an item: a MedicationRequest for a drug, a DeviceRequest for a device, else a ServiceRequest."""
    id = order_id(document, item)
    order: Resource = {
        "id": id,
        "status": "active",
        "intent": "order",
        "subject": parties.patient.reference,
        "authoredOn": document.requested_at.date().isoformat(),
        "requester": parties.requestor.reference,
    }
    return Sent(id, {**order, **_ordered(item)})


def _ordered(item: Item) -> Resource:
    if item.kind is ServiceKind.DRUG:
        return {
            "resourceType": "MedicationRequest",
            "meta": {"profile": [codes.MEDICATION_REQUEST]},
            "medicationCodeableConcept": service_of(item),
            "dispenseRequest": {"quantity": quantity_of(item)},
        }
    if item.kind is ServiceKind.DEVICE:
        return {
            "resourceType": "DeviceRequest",
            "meta": {"profile": [codes.DEVICE_REQUEST]},
            "codeCodeableConcept": service_of(item),
        }
    return {
        "resourceType": "ServiceRequest",
        "meta": {"profile": [codes.SERVICE_REQUEST]},
        "code": service_of(item),
        "quantityQuantity": quantity_of(item),
    }


def _sent(service: Coding) -> Resource:
    return {"system": service.system, "code": service.code}
