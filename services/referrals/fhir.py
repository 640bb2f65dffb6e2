"""Referrals in FHIR R4: a ServiceRequest becomes an order, Tasks and reports become commands, and the way back.

Status mapping: FHIR R4 Task.status and ServiceRequest.status; Task.businessStatus by BSeR 2.0 (TaskBusinessStatusCS).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from services.referrals.model import (
    GENERAL,
    Accept,
    Cancel,
    FileReport,
    NoteProgress,
    OrderStatus,
    PacketItem,
    PacketKind,
    PacketSource,
    Progress,
    Referral,
    Reject,
    RequestReferral,
    State,
    VisitStatus,
    content_hash,
)
from shared.contracts.base import Coding
from shared.contracts.referrals import Priority
from shared.kit.document import derived_id
from shared.kit.errors import Flaw, Invalid
from shared.kit.fhir import ORDER_INTENTS, Element, Flaws, ReferenceForm, element
from shared.kit.shown import instant

SNOMED: Final = "http://snomed.info/sct"
LOINC: Final = "http://loinc.org"
NUCC: Final = "http://nucc.org/provider-taxonomy"
BSER: Final = "http://hl7.org/fhir/us/bser/CodeSystem/TaskBusinessStatusCS"
_DIAGNOSIS_SYSTEMS: Final = frozenset({SNOMED, "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-10"})

TO_SPECIALIST = Coding(system=SNOMED, code="103696004")
"""'Patient referral to specialist': the service of an order that names none."""

CONSULT_NOTE = Coding(system=LOINC, code="11488-4")

SPECIALTIES: dict[tuple[str, str], str] = {
    # SNOMED CT referral procedures, of the value set 'Referral' (2.16.840.1.113883.3.464.1003.101.12.1046)
    (SNOMED, "308471005"): "cardiology",
    (SNOMED, "183899006"): "cardiology",
    (SNOMED, "312487009"): "cardiology",
    (SNOMED, "308472003"): "dermatology",
    (SNOMED, "183897008"): "dermatology",
    (SNOMED, "306278007"): "endocrinology",
    (SNOMED, "183915000"): "endocrinology",
    (SNOMED, "183530004"): "endocrinology",
    (SNOMED, "308476000"): "gastroenterology",
    (SNOMED, "183903004"): "gastroenterology",
    (SNOMED, "306286007"): "nephrology",
    (SNOMED, "183916004"): "nephrology",
    (SNOMED, "308474002"): "neurology",
    (SNOMED, "183901002"): "neurology",
    (SNOMED, "183529009"): "oncology",
    (SNOMED, "310515004"): "oncology",
    (SNOMED, "183909000"): "oncology",
    (SNOMED, "308481009"): "orthopedics",
    (SNOMED, "183881003"): "orthopedics",
    (SNOMED, "306275005"): "pulmonology",
    (SNOMED, "306273003"): "pulmonology",
    (SNOMED, "183907003"): "pulmonology",
    (SNOMED, "306290009"): "rheumatology",
    (SNOMED, "183906007"): "rheumatology",
    (SNOMED, "183541002"): "surgery",
    (SNOMED, "308478004"): "surgery",
    (SNOMED, "183878008"): "surgery",
    (SNOMED, "308479007"): "ophthalmology",
    (SNOMED, "308477009"): "psychiatry",
    (SNOMED, "306318004"): "urology",
    (SNOMED, "308480005"): "otolaryngology",
    (SNOMED, "308447003"): "physical-therapy",
    # SNOMED CT practice settings, as performerType names them
    (SNOMED, "394579002"): "cardiology",
    (SNOMED, "394582007"): "dermatology",
    (SNOMED, "394583002"): "endocrinology",
    (SNOMED, "394584008"): "gastroenterology",
    (SNOMED, "394589003"): "nephrology",
    (SNOMED, "394591006"): "neurology",
    (SNOMED, "394593009"): "oncology",
    (SNOMED, "394801008"): "orthopedics",
    (SNOMED, "418112009"): "pulmonology",
    (SNOMED, "394810000"): "rheumatology",
    (SNOMED, "394609007"): "surgery",
    (SNOMED, "394594003"): "ophthalmology",
    (SNOMED, "394587001"): "psychiatry",
    (SNOMED, "394612005"): "urology",
    # NUCC provider taxonomy
    (NUCC, "207RC0000X"): "cardiology",
    (NUCC, "207N00000X"): "dermatology",
    (NUCC, "207RE0101X"): "endocrinology",
    (NUCC, "207RG0100X"): "gastroenterology",
    (NUCC, "207RN0300X"): "nephrology",
    (NUCC, "2084N0400X"): "neurology",
    (NUCC, "207RH0003X"): "oncology",
    (NUCC, "207X00000X"): "orthopedics",
    (NUCC, "207RP1001X"): "pulmonology",
    (NUCC, "207RR0500X"): "rheumatology",
    (NUCC, "208600000X"): "surgery",
    (NUCC, "207W00000X"): "ophthalmology",
    (NUCC, "2084P0800X"): "psychiatry",
    (NUCC, "208800000X"): "urology",
}
"""Which specialty a code asks for; an order whose codes are not here goes to ``general``."""

KIND_OF_TYPE: dict[str, PacketKind] = {
    "Condition": PacketKind.PROBLEMS,
    "MedicationStatement": PacketKind.MEDICATIONS,
    "MedicationRequest": PacketKind.MEDICATIONS,
    "AllergyIntolerance": PacketKind.ALLERGIES,
    "Observation": PacketKind.RESULTS,
    "DiagnosticReport": PacketKind.RESULTS,
    "ImagingStudy": PacketKind.IMAGING,
    "Media": PacketKind.PHOTO,
    "DocumentReference": PacketKind.NOTES,
    "Composition": PacketKind.NOTES,
}
"""What a referenced resource contributes to the packet, where its own code says nothing closer."""

KIND_OF_LOINC: dict[str, PacketKind] = {
    "11450-4": PacketKind.PROBLEMS,
    "10160-0": PacketKind.MEDICATIONS,
    "29549-3": PacketKind.MEDICATIONS,
    "48765-2": PacketKind.ALLERGIES,
    "11506-3": PacketKind.NOTES,
    "34117-2": PacketKind.NOTES,
    "18842-5": PacketKind.NOTES,
    "11488-4": PacketKind.NOTES,
    "34133-9": PacketKind.NOTES,
    "57133-1": PacketKind.REASON,
    "42349-1": PacketKind.REASON,
    "30954-2": PacketKind.RESULTS,
    "11502-2": PacketKind.RESULTS,
    "11524-6": PacketKind.ECG,
    "34534-8": PacketKind.ECG,
    "18748-4": PacketKind.IMAGING,
    "11526-1": PacketKind.PATHOLOGY,
    "72170-4": PacketKind.PHOTO,
}
"""What a document contributes to the packet, by its LOINC type."""

_TASK_STATUS: dict[State, str] = {
    State.AWAITING_ORDER: "draft",
    State.AWAITING_PATIENT: "draft",
    State.AWAITING_PACKET: "draft",
    State.AWAITING_COVERAGE: "draft",
    State.AWAITING_AUTHORIZATION: "draft",
    State.AWAITING_SPECIALIST: "draft",
    State.AWAITING_ACCEPTANCE: "requested",
    State.AWAITING_APPOINTMENT: "accepted",
    State.AWAITING_VISIT: "accepted",
    State.AWAITING_REPORT: "in-progress",
    State.CLOSED: "completed",
    State.REJECTED: "rejected",
    State.CANCELLED: "cancelled",
    State.FAILED: "failed",
    State.ENTERED_IN_ERROR: "entered-in-error",
}

_BUSINESS_STATUS: dict[State, str] = {
    State.AWAITING_ORDER: "2.0",
    State.AWAITING_PATIENT: "2.0",
    State.AWAITING_PACKET: "2.0",
    State.AWAITING_COVERAGE: "2.0",
    State.AWAITING_AUTHORIZATION: "2.0",
    State.AWAITING_SPECIALIST: "2.0",
    State.AWAITING_ACCEPTANCE: "2.0",
    State.AWAITING_APPOINTMENT: "3.0",
    State.AWAITING_VISIT: "5.1.1",
    State.AWAITING_REPORT: "5.1.4",
    State.CLOSED: "7.0",
    State.REJECTED: "4.0",
    State.CANCELLED: "6.0",
    State.FAILED: "6.0",
    State.ENTERED_IN_ERROR: "6.0",
}

BUSINESS_DISPLAY: dict[str, str] = {
    "2.0": "Service Request Created",
    "3.0": "Service Request Accepted",
    "4.0": "Service Request Declined",
    "5.1.1": "Service Request Event Scheduled",
    "5.1.2": "Scheduled Service Request Event Unattended",
    "5.1.3": "Scheduled Service Request Event Cancelled",
    "5.1.4": "Service Request Event Completed",
    "5.2": "Service Request Cancellation Requested",
    "6.0": "Service Request Fulfillment Cancelled",
    "7.0": "Service Request Fulfillment Completed",
}

_ORDER_STATUS: dict[State, OrderStatus] = {
    State.CLOSED: OrderStatus.COMPLETED,
    State.REJECTED: OrderStatus.REVOKED,
    State.CANCELLED: OrderStatus.REVOKED,
    State.FAILED: OrderStatus.REVOKED,
    State.ENTERED_IN_ERROR: OrderStatus.ENTERED_IN_ERROR,
}


# -- what comes in: orders ----------------------------------------------------------------------------------------


def order_from(raw: Mapping[str, object], *, new_id: str, requester: str, now: datetime) -> RequestReferral:
    """The order in a FHIR R4 ServiceRequest of an order intent.

    ``requester`` stands in where the resource names none. Raises Invalid naming each path that is wrong.
    """
    request = element(raw, "ServiceRequest")
    flaws = Flaws()
    if request.text("intent") not in ORDER_INTENTS:
        flaws.add("ServiceRequest.intent", f"must be an order: {', '.join(sorted(ORDER_INTENTS))}")
    patient_id = ""
    with flaws.gather():
        patient_id = _patient(request, "subject", required=True) or ""
    status, priority = OrderStatus.ACTIVE, Priority.ROUTINE
    with flaws.gather():
        status = OrderStatus(request.text("status") or OrderStatus.UNKNOWN)
        priority = Priority(request.text("priority") or Priority.ROUTINE)
    items: tuple[PacketItem, ...] = ()
    with flaws.gather():
        items = _evidence(request, now)
    flaws.refuse("The order cannot be taken")
    return RequestReferral(
        id=new_id,
        patient_id=patient_id,
        specialty=_specialty(request),
        service=_service(request),
        priority=priority,
        requester_id=_person_id(request, "requester") or requester,
        performer_id=_performer(request),
        authored_on=request.moment("authoredOn") or now,
        diagnoses=_diagnoses(request),
        quantity=_quantity(request),
        packet=items,
        order_status=status,
        order_intent=request.text("intent") or "order",
    )


def _uuid(value: str | None) -> str | None:
    try:
        return str(UUID(value)) if value else None
    except ValueError:
        return None


def _patient(holder: Element, name: str, *, required: bool) -> str | None:
    """The id of the patient that a reference names; a relative reference, since ours are the only patients here."""
    found = holder.one(name)
    if found is None:
        if required:
            raise holder.flaw(name, "is required")
        return None
    read = found.reference()
    id = _uuid(read.id) if read.type == "Patient" and read.base is None else None
    if id is None:
        raise found.flaw("reference", "must be Patient/{uuid}")
    return id


def _specialty(request: Element) -> str:
    asked = (*request.concept("performerType"), *request.concept("code"))
    return next((SPECIALTIES[key] for c in asked if (key := (c.system, c.code)) in SPECIALTIES), GENERAL)


def _service(request: Element) -> Coding:
    codes = request.concept("code")
    return codes[0] if codes else TO_SPECIALIST


def _person_id(request: Element, name: str) -> str | None:
    found = request.one(name)
    if found is None:
        return None
    read = found.reference()
    return _opaque(read.type or "", read.id) if read.form is ReferenceForm.RESTFUL and read.id else None


def _performer(request: Element) -> str | None:
    reads = (item.reference() for item in request.all("performer"))
    ids = (_uuid(read.id) for read in reads if read.type in ("Practitioner", "PractitionerRole", "Organization"))
    return next((id for id in ids if id), None)


def _diagnoses(request: Element) -> tuple[Coding, ...]:
    return tuple(dict.fromkeys(c for c in request.concepts("reasonCode") if c.system in _DIAGNOSIS_SYSTEMS))


def _quantity(request: Element) -> int:
    """Units asked for: a whole number from 1; part of a unit counts as one."""
    amount = request.one("quantityQuantity")
    value = amount.raw.get("value") if amount else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1
    return max(1, int(-(-value // 1)))


# -- what comes in: evidence --------------------------------------------------------------------------------------


def _evidence(request: Element, now: datetime) -> tuple[PacketItem, ...]:
    """What the order itself brings to the packet: its reasons, and what it points at."""
    flaws = Flaws()
    items: list[PacketItem] = []
    for reason in request.all("reasonCode"):
        items.append(_reason(reason, now))
    for name in ("reasonReference", "supportingInfo"):
        for item in request.all(name):
            with flaws.gather():
                items.append(_pointed_at(item, now, reason=name == "reasonReference"))
    flaws.refuse()
    return tuple(items)


def _reason(reason: Element, now: datetime) -> PacketItem:
    codes = tuple((c.text("system") or "", c.text("code") or "") for c in reason.all("coding"))
    coding = next((Coding(system=system, code=code) for system, code in codes if code), None)
    told = [part for pair in codes for part in pair] or [reason.text("text") or ""]
    return PacketItem(
        kind=PacketKind.REASON,
        sha256=content_hash("reason", *told),
        source=PacketSource.ORDER,
        added_at=now,
        code=coding,
    )


def _pointed_at(reference: Element, now: datetime, *, reason: bool) -> PacketItem:
    read = reference.reference()
    contained = _contained(reference, read.literal) if read.form is ReferenceForm.CONTAINED else None
    type_ = contained.type if contained else read.type or reference.text("type") or ""
    code = _document_code(contained)
    kind = PacketKind.REASON if reason else kind_of(code) or KIND_OF_TYPE.get(type_, PacketKind.OTHER)
    told = json.dumps(contained.raw if contained else dict(reference.raw), sort_keys=True, default=str)
    named = f"{type_}/{id}" if (id := _uuid(read.id)) and read.base is None else None
    return PacketItem(
        kind=kind,
        sha256=content_hash(named or told),
        source=PacketSource.ORDER,
        added_at=now,
        code=code,
        reference=named,
    )


def _contained(reference: Element, literal: str | None) -> Element:
    holder = reference.root or reference
    found = next((item for item in holder.all("contained") if literal == f"#{item.id}"), None)
    if found is None:
        raise reference.flaw("reference", "leads to nothing in this resource")
    return found


def _document_code(resource: Element | None) -> Coding | None:
    if resource is None:
        return None
    codes = (*resource.concept("type"), *resource.concept("code"))
    return next((code for code in codes if code.system == LOINC), None)


def kind_of(code: Coding | None) -> PacketKind | None:
    """What a document of this LOINC type contributes to a packet, where the type is known."""
    return KIND_OF_LOINC.get(code.code) if code is not None and code.system == LOINC else None


# -- what comes in: the specialist's side -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """What a Task or a report asks of one referral."""

    referral_id: str
    command: Accept | Reject | Cancel | FileReport | NoteProgress


_REPORT_TYPES: Final = ("DocumentReference", "DiagnosticReport", "Composition")
_PROGRESS: dict[str, Progress] = {
    "received": Progress.RECEIVED,
    "in-progress": Progress.IN_PROGRESS,
    "on-hold": Progress.ON_HOLD,
    "failed": Progress.FAILED,
}
_FINAL_REPORT: Final = frozenset({"final", "amended", "corrected", "appended"})


def update_from_task(raw: Mapping[str, object], *, new_id: str) -> Update:
    """What a specialist's Task says of the referral that it is based on (or, by BSeR, focuses on).

    ``completed`` is the report, its output or the Task itself. Raises Invalid naming each path that is wrong.
    """
    task = element(raw, "Task")
    referral_id = _based_on(task)
    status = task.text("status") or ""
    owner = _owner(task)
    command: Accept | Reject | Cancel | FileReport | NoteProgress
    if status == "accepted":
        command = Accept(specialist_id=owner)
    elif status == "rejected":
        command = Reject(reason=_reason_code(task), specialist_id=owner)
    elif status == "cancelled":
        command = Cancel(reason="task-cancelled")
    elif status == "completed":
        codes = task.concept("code")
        command = FileReport(
            report_id=_report_of_task(task, new_id),
            based_on=referral_id,
            patient_id=_patient(task, "for", required=False),
            issued_at=_issued(task),
            code=codes[0] if codes else None,
        )
    elif status in _PROGRESS:
        command = NoteProgress(progress=_PROGRESS[status])
    else:
        known = ("accepted", "rejected", "cancelled", "completed", *_PROGRESS)
        raise task.flaw("status", f"must be one of {', '.join(known)}")
    return Update(referral_id, command)


def update_from_report(raw: Mapping[str, object], expected: str, *, new_id: str) -> Update:
    """A consult report: a DiagnosticReport (basedOn) or a DocumentReference (context.related).

    Only what its author stands by closes a referral: a preliminary report is refused. Raises Invalid.
    """
    report = element(raw, expected)
    flaws = Flaws()
    if expected == "DiagnosticReport" and report.text("status") not in _FINAL_REPORT:
        flaws.add("DiagnosticReport.status", f"must be one of {', '.join(sorted(_FINAL_REPORT))}")
    if expected == "DocumentReference" and report.text("status") != "current":
        flaws.add("DocumentReference.status", "must be current")
    if expected == "DocumentReference" and report.text("docStatus") not in (None, "final", "amended"):
        flaws.add("DocumentReference.docStatus", "must be final or amended")
    referral_id, patient_id = "", None
    with flaws.gather():
        referral_id = _based_on(report)
    with flaws.gather():
        patient_id = _patient(report, "subject", required=False)
    flaws.refuse("The report cannot be taken")
    codes = report.concept("type" if expected == "DocumentReference" else "code")
    command = FileReport(
        report_id=_opaque(expected, report.id) if report.id else new_id,
        based_on=referral_id,
        patient_id=patient_id,
        issued_at=report.moment("date" if expected == "DocumentReference" else "issued"),
        code=codes[0] if codes else None,
    )
    return Update(referral_id, command)


def _based_on(resource: Element) -> str:
    """The one referral that a resource is based on."""
    references, name = _references_to_order(resource)
    reads = [reference.reference() for reference in references]
    orders = [read for read in reads if read.type == "ServiceRequest"]
    ids = {id for read in orders if read.base is None and (id := _uuid(read.id))}
    if len(ids) != 1:
        raise resource.flaw(name, "must name the one referral it is based on: ServiceRequest/{uuid}")
    return ids.pop()


def _references_to_order(resource: Element) -> tuple[tuple[Element, ...], str]:
    if resource.type == "DocumentReference":
        context = resource.one("context")
        return (context.all("related") if context else ()), "context.related"
    focus = resource.one("focus") if resource.type == "Task" else None
    return resource.all("basedOn") or ((focus,) if focus else ()), "basedOn"


def _owner(task: Element) -> str | None:
    found = task.one("owner")
    read = found.reference() if found else None
    return _uuid(read.id) if read and read.type in ("Practitioner", "PractitionerRole", "Organization") else None


def _reason_code(task: Element) -> str:
    codes = task.concept("statusReason")
    code = codes[0].code if codes else ""
    return code if code.isascii() and 0 < len(code) <= 64 and code.replace("-", "").isalnum() else "unspecified"


def _report_of_task(task: Element, new_id: str) -> str:
    for output in task.all("output"):
        found = output.one("valueReference")
        read = found.reference() if found else None
        if read and read.type in _REPORT_TYPES and read.id:
            return _opaque(read.type, read.id)
    return _opaque("Task", task.id) if task.id else new_id


def _issued(task: Element) -> datetime | None:
    period = task.one("executionPeriod")
    return (period.moment("end") if period else None) or task.moment("lastModified")


def _opaque(type_: str, id: str) -> str:
    """An id that says nothing: a UUID stays, any other FHIR id (which may spell a name) is derived from."""
    return _uuid(id) or derived_id("fhir", type_, id)


# -- what goes out ------------------------------------------------------------------------------------------------


def task_status(referral: Referral) -> str:
    """FHIR R4 Task.status. While payment holds up a referral that was sent already, the task is on hold."""
    if referral.state is State.AWAITING_COVERAGE and referral.sealed:
        return "on-hold"
    return _TASK_STATUS[referral.state]


def business_status(referral: Referral) -> str:
    """BSeR 2.0 business status code; after a date fell through it says how, until there is another."""
    if referral.state is State.AWAITING_APPOINTMENT and referral.fell_through is VisitStatus.NO_SHOW:
        return "5.1.2"
    if referral.state is State.AWAITING_APPOINTMENT and referral.fell_through is VisitStatus.CANCELLED:
        return "5.1.3"
    if referral.state is State.AWAITING_COVERAGE and referral.accepted_at is not None:
        return "5.1.1" if referral.visit else "3.0"
    return _BUSINESS_STATUS[referral.state]


def order_status(referral: Referral) -> OrderStatus:
    """FHIR R4 ServiceRequest.status: as the order says while it is open, by how it ended afterwards."""
    if referral.ended:
        return _ORDER_STATUS[referral.state]
    return OrderStatus.ACTIVE if referral.order_status is OrderStatus.COMPLETED else referral.order_status


def _concept(coding: Coding) -> dict[str, object]:
    bare = {"code": coding.code} if not coding.system else {"system": coding.system, "code": coding.code}
    return {"coding": [bare]}


def _reference(type_: str, id: str) -> dict[str, object]:
    return {"reference": f"{type_}/{id}"}


def service_request(referral: Referral) -> dict[str, object]:
    """The referral as a FHIR R4 ServiceRequest."""
    body: dict[str, object] = {
        "resourceType": "ServiceRequest",
        "id": referral.id,
        "status": order_status(referral).value,
        "intent": referral.order_intent,
        "priority": referral.priority.value,
        "code": _concept(referral.service),
        "subject": _reference("Patient", referral.patient_id),
        "authoredOn": instant(referral.authored_on),
        "requester": {"type": "Practitioner", "identifier": {"value": referral.requester_id}},
    }
    performer = referral.specialist_id or referral.performer_id
    if performer:
        body["performer"] = [_reference("Practitioner", performer)]
    if referral.quantity > 1:
        body["quantityQuantity"] = {"value": referral.quantity}
    if referral.replaces:
        body["replaces"] = [_reference("ServiceRequest", referral.replaces)]
    if referral.diagnoses:
        body["reasonCode"] = [_concept(code) for code in referral.diagnoses]
    pointed_at = [{"reference": item.reference} for item in referral.packet if item.reference]
    if pointed_at:
        body["supportingInfo"] = pointed_at
    return body


def task(referral: Referral) -> dict[str, object]:
    """The referral's work as a FHIR R4 Task, which has the referral's id."""
    business = business_status(referral)
    body: dict[str, object] = {
        "resourceType": "Task",
        "id": referral.id,
        "basedOn": [_reference("ServiceRequest", referral.id)],
        "focus": _reference("ServiceRequest", referral.id),
        "status": task_status(referral),
        "businessStatus": {
            "coding": [{"system": BSER, "code": business, "display": BUSINESS_DISPLAY[business]}],
            "text": referral.state.value,
        },
        "intent": "order",
        "priority": referral.priority.value,
        "code": _concept(CONSULT_NOTE),
        "for": _reference("Patient", referral.patient_id),
        "authoredOn": instant(referral.requested_at),
    }
    if referral.history:
        body["lastModified"] = instant(referral.history[-1].at)
    reason = referral.wait.reason if referral.wait else referral.ending
    if reason:
        body["statusReason"] = {"text": reason}
    if referral.specialist_id:
        body["owner"] = _reference("Practitioner", referral.specialist_id)
    if referral.wait:
        body["restriction"] = {"period": {"end": instant(referral.wait.deadline)}}
    if referral.report:
        output = {"type": _concept(referral.report.code or CONSULT_NOTE)}
        body["output"] = [{**output, "valueReference": _reference("DocumentReference", referral.report.id)}]
    return body


def same_id(raw: Mapping[str, object], id: str) -> None:
    """Check that a PUT's resource is the one its address names. Raises Invalid."""
    named = raw.get("id")
    if not isinstance(named, str) or _uuid(named) != id:
        raise Invalid(flaws=[Flaw("ServiceRequest.id", "must be the id in the address, a UUID")])
