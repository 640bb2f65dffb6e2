"""Scheduling in FHIR R4: Slot and Appointment out, Slots and the parameters of IHE's $find, $hold and $book in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.scheduling.model.appointment import ACTIVE, Appointment, AppointmentState
from services.scheduling.model.approval import Approval
from services.scheduling.model.calendar import Calendar, NewSlot, Slot, SlotStatus
from shared.contracts.referrals import Priority
from shared.contracts.scheduling import CancelledBy
from shared.kit.api import DocumentId
from shared.kit.errors import Flaw, Invalid
from shared.kit.fhir import Element, ReferenceForm, element
from shared.kit.shown import instant

Json = dict[str, Any]

IHE_APPOINTMENT = "https://profiles.ihe.net/ITI/Scheduling/StructureDefinition/ihe-sched-appt"
IHE_BUNDLE = "https://profiles.ihe.net/ITI/Scheduling/StructureDefinition/ihe-sched-avail-bundle"
CANCELLATION = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"

_PRIORITY = {Priority.STAT: 1, Priority.ASAP: 2, Priority.URGENT: 3, Priority.ROUTINE: 5}
"""Appointment.priority counts as iCalendar's PRIORITY does (RFC 5545, 3.8.1.9): 1 is highest, 5 is normal."""

_CANCELLED_BY = {CancelledBy.PATIENT: "pat", CancelledBy.PROVIDER: "prov"}
_PUBLISHABLE = {"free": SlotStatus.FREE, "busy-unavailable": SlotStatus.UNAVAILABLE}
_ID: TypeAdapter[str] = TypeAdapter(DocumentId)


# -- out --------------------------------------------------------------------------------------------------------------


def slot(calendar: Calendar, slot: Slot) -> Json:
    """FHIR R4 Slot; who has it is not told."""
    return {
        "resourceType": "Slot",
        "id": slot.slot_id,
        "schedule": {"reference": f"Schedule/{calendar.id}"},
        "status": slot.status.value,
        "start": instant(slot.start),
        "end": instant(slot.end),
    }


def appointment(document: Appointment, approval: Approval | None = None) -> Json:
    """FHIR R4 Appointment (IHE ITI Scheduling's profile), with the payer's decision that it relies on."""
    resource: Json = {
        "resourceType": "Appointment",
        "id": document.id,
        "meta": {"versionId": str(document.version), "profile": [IHE_APPOINTMENT]},
        "status": document.state.value,
        "priority": _PRIORITY[document.priority],
        "created": instant(document.created_at),
        "requestedPeriod": [_period(document.earliest, document.latest)],
        "participant": _participants(document),
    }
    if document.service is not None:
        coding = {"system": document.service.system, "code": document.service.code}
        resource["serviceType"] = [{"coding": [coding]}]
    if document.referral_id is not None:
        resource["basedOn"] = [{"reference": f"ServiceRequest/{document.referral_id}"}]
    grant = approval.standing() if approval is not None else None
    if grant is not None:
        resource["supportingInformation"] = [{"reference": f"ClaimResponse/{grant.authorization_id}"}]
    if document.place is not None:
        resource |= _time(document.place.slot_id, document.place.start, document.place.end)
    if document.state is AppointmentState.CANCELLED:
        resource["cancelationReason"] = _reason(document)
    return resource


def given(answer: Mapping[str, Any], patient_id: str | None) -> Json:
    """What $hold and $book answer: the appointment as the calendar has just decided on it."""
    participants = [] if patient_id is None else [_participant(f"Patient/{patient_id}", accepted=False)]
    booked = answer["state"] == AppointmentState.BOOKED
    return {
        "resourceType": "Appointment",
        "id": answer["id"],
        "meta": {"profile": [IHE_APPOINTMENT]},
        "status": answer["state"],
        **_time(answer["slot_id"], datetime.fromisoformat(answer["start"]), datetime.fromisoformat(answer["end"])),
        "participant": [*participants, _participant(f"Practitioner/{answer['resource_id']}", accepted=booked)],
    }


def potential(calendar: Calendar, free: Slot) -> Json:
    """What $find answers for a free slot: a proposed appointment under the slot's id."""
    return {
        "resourceType": "Appointment",
        "id": free.slot_id,
        "meta": {"profile": [IHE_APPOINTMENT]},
        "status": AppointmentState.PROPOSED.value,
        **_time(free.slot_id, free.start, free.end),
        "participant": [_participant(f"Practitioner/{calendar.resource_id}", accepted=False)],
    }


def searchset(resources: Sequence[Json], total: int, profile: str | None = None) -> Json:
    """A Bundle of type searchset; ``total`` counts what was found, also beyond what is shown."""
    bundle: Json = {"resourceType": "Bundle", "type": "searchset", "total": total}
    if profile is not None:
        bundle["meta"] = {"profile": [profile]}
    if resources:
        bundle["entry"] = [{"resource": resource, "search": {"mode": "match"}} for resource in resources]
    return bundle


def lost(detail: str) -> Json:
    """What $hold and $book answer where the slot cannot be had (IHE ITI-116): fatal, not-found."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "fatal", "code": "not-found", "diagnostics": detail}],
    }


def not_approved(detail: str) -> Json:
    """What $hold and $book answer where the payer would not pay for the visit."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "business-rule", "diagnostics": detail}],
    }


def _time(slot_id: str, start: datetime, end: datetime) -> Json:
    return {
        "start": instant(start),
        "end": instant(end),
        "minutesDuration": max(1, int((end - start).total_seconds() // 60)),
        "slot": [{"reference": f"Slot/{slot_id}"}],
    }


def _period(earliest: datetime, latest: datetime | None) -> Json:
    return {"start": instant(earliest)} | ({} if latest is None else {"end": instant(latest)})


def _participants(document: Appointment) -> list[Json]:
    return [
        _participant(f"Patient/{document.patient_id}", accepted=document.confirmed_at is not None),
        _participant(f"Practitioner/{document.resource_id}", accepted=document.state in ACTIVE),
    ]


def _participant(reference: str, *, accepted: bool) -> Json:
    status = "accepted" if accepted else "needs-action"
    return {"actor": {"reference": reference}, "required": "required", "status": status}


def _reason(document: Appointment) -> Json:
    code = _CANCELLED_BY.get(document.ended_by, "other") if document.ended_by is not None else "other"
    return {"coding": [{"system": CANCELLATION, "code": code}]}


# -- in ---------------------------------------------------------------------------------------------------------------


def new_slots(bundle: Mapping[str, object]) -> tuple[NewSlot, ...]:
    """The Slots of a Bundle, to publish; each flaw is named by its place in the Bundle.

    Raises Invalid for what is not FHIR, no Slot, or of a status that cannot be published.
    """
    entries = element(bundle, "Bundle").all("entry")
    slots = tuple(_new_slot(entry, place) for place, entry in enumerate(entries))
    if not slots:
        raise Invalid("There is no slot", flaws=[Flaw("Bundle.entry", "holds no Slot")])
    return slots


def _new_slot(entry: Element, place: int) -> NewSlot:
    at = f"Bundle.entry[{place}].resource"
    raw = entry.raw.get("resource")
    found = element(raw if isinstance(raw, Mapping) else {}, "Slot", at=at)
    status = _PUBLISHABLE.get(found.text("status") or "")
    if status is None:
        raise found.flaw("status", "must be free or busy-unavailable; the others come from bookings")
    return NewSlot(at, _moment(found, "start"), _moment(found, "end"), status)


def _moment(found: Element, name: str) -> datetime:
    at = found.moment(name)
    if at is None:
        raise found.flaw(name, "is required")
    return at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class FindParameters:
    """What $find asks for (IHE ITI-115)."""

    start: datetime
    end: datetime
    resource_id: str
    count: int | None


@dataclass(frozen=True, slots=True)
class SlotParameters:
    """What $hold and $book ask for: a reference to a potential or held appointment, and for whom."""

    reference_id: str
    patient_id: str | None
    referral_id: str | None


def find_parameters(raw: Mapping[str, object]) -> FindParameters:
    """Read the Parameters of $find. Raises Invalid, naming what is missing or wrong."""
    given = _parameters(raw)
    start, end = _given(given, "start"), _given(given, "end")
    count = given["_count"].whole("valueInteger") if "_count" in given else None
    if count is not None and count < 0:
        raise given["_count"].flaw("valueInteger", "must not be negative")
    return FindParameters(
        start=_moment(start, "valueDateTime"),
        end=_moment(end, "valueDateTime"),
        resource_id=_reference_id(_given(given, "practitioner"), "Practitioner"),
        count=count,
    )


def slot_parameters(raw: Mapping[str, object]) -> SlotParameters:
    """Read the Parameters of $hold or $book. Raises Invalid, naming what is missing or wrong."""
    given = _parameters(raw)
    return SlotParameters(
        reference_id=_reference_id(_given(given, "appointment-reference"), "Appointment"),
        patient_id=_reference_id(given["patient"], "Patient") if "patient" in given else None,
        referral_id=_reference_id(given["referral"], "ServiceRequest") if "referral" in given else None,
    )


def _parameters(raw: Mapping[str, object]) -> dict[str, Element]:
    found: Iterable[Element] = element(raw, "Parameters").all("parameter")
    return {parameter.text("name") or "": parameter for parameter in found}


def _given(parameters: Mapping[str, Element], name: str) -> Element:
    if name not in parameters:
        raise missing(name)
    return parameters[name]


def missing(name: str) -> Invalid:
    """The refusal of Parameters that lack one."""
    return Invalid("A parameter is missing", flaws=[Flaw(f"Parameters.parameter.where(name='{name}')", "is required")])


def _reference_id(parameter: Element, type: str) -> str:
    """The id in a reference to a resource of ours. Raises Invalid for any other."""
    value = parameter.one("valueReference")
    if value is None:
        raise parameter.flaw("valueReference", "is required")
    reference = value.reference()
    if reference.form is not ReferenceForm.RESTFUL or reference.type != type or reference.id is None:
        raise value.flaw("reference", f"must be {type}/id")
    try:
        return _ID.validate_python(reference.id)
    except ValidationError:
        raise value.flaw("reference", "must hold a UUID") from None
