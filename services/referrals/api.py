"""The referrals API: orders, packets, specialists' answers, reports and worklists, in JSON and in FHIR R4."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from services.referrals import fhir, model
from services.referrals.model.commands import Command
from shared.contracts.base import Coding
from shared.contracts.referrals import Priority
from shared.kit import shown
from shared.kit.api import Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.decisions import Decision
from shared.kit.errors import Flaw, Invalid

READERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.AUDITOR, Role.SERVICE})
ORDERERS = frozenset({Role.CLINICIAN, Role.COORDINATOR, Role.SERVICE})
ANSWERERS = frozenset({Role.CLINICIAN, Role.COORDINATOR, Role.SERVICE})
EDITORS = frozenset({Role.COORDINATOR, Role.DIRECTORY_EDITOR})

CaseId = Annotated[DocumentId, AfterValidator(str.lower)]
"""A document's id in the one spelling that ids are compared by."""

Specialty = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,39}$")]
ReasonCode = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(Body):
    """A code in a code system."""

    system: Annotated[str, Field(min_length=1, max_length=200)]
    code: Annotated[str, Field(min_length=1, max_length=64)]

    def coding(self) -> Coding:
        """As the events carry it."""
        return Coding(system=self.system, code=self.code)


class NewItem(Body):
    """One document for the packet: SHA-256 of its content and its LOINC type; ``kind`` where the type tells none."""

    sha256: Sha256
    code: Code | None = None
    kind: model.PacketKind | None = None


class NewItems(Body):
    """Documents for the packet."""

    items: Annotated[tuple[NewItem, ...], Field(min_length=1, max_length=100)]


class NewReferral(Body):
    """An order for a referral. Without ``specialty`` the service's code says which; else it is ``general``."""

    patient_id: CaseId
    service: Code = Code(system=fhir.TO_SPECIALIST.system, code=fhir.TO_SPECIALIST.code)
    specialty: Specialty | None = None
    priority: Priority = Priority.ROUTINE
    requester_id: CaseId | None = None
    performer_id: CaseId | None = None
    authored_on: AwareDatetime | None = None
    reasons: Annotated[tuple[Code, ...], Field(max_length=50)] = ()
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    packet: Annotated[tuple[NewItem, ...], Field(max_length=100)] = ()


class Answer(Body):
    """A specialist takes the referral."""

    specialist_id: CaseId | None = None


class Refusal(Body):
    """A specialist declines it."""

    reason: ReasonCode
    specialist_id: CaseId | None = None


class NewReport(Body):
    """A consult report. ``based_on`` is the referral it names."""

    report_id: CaseId
    based_on: CaseId
    patient_id: CaseId | None = None
    issued_at: AwareDatetime | None = None
    code: Code | None = None
    sha256: Sha256 | None = None


class Withdrawal(Body):
    """Why a referral is withdrawn."""

    reason: ReasonCode


class Acknowledgement(Body):
    """When the patient said that they know what to expect; now, where no date is given."""

    acknowledged_on: AwareDatetime | None = None


class Entry(Body):
    """A specialist in the registry; the calendar's resource has the same id."""

    specialty: Specialty
    capabilities: Annotated[tuple[ReasonCode, ...], Field(max_length=50)] = ()
    active: bool = True


class Nothing(Body):
    """A request that says all in its address."""


def _utc(at: datetime | None) -> datetime | None:
    """In UTC, to the millisecond."""
    if at is None:
        return None
    moved = at.astimezone(UTC)
    return moved.replace(microsecond=moved.microsecond // 1000 * 1000)


def _items(new: tuple[NewItem, ...], path: str, now: datetime) -> tuple[model.PacketItem, ...]:
    items: list[model.PacketItem] = []
    for index, item in enumerate(new):
        code = item.code.coding() if item.code else None
        kind = item.kind or fhir.kind_of(code)
        if kind is None:
            raise Invalid(flaws=[Flaw(f"{path}[{index}].kind", "is required: the code does not tell it")])
        items.append(
            model.PacketItem(kind=kind, sha256=item.sha256, source=model.PacketSource.DOCUMENT, added_at=now, code=code)
        )
    return tuple(items)


def _reasons(codes: tuple[Code, ...], now: datetime) -> tuple[model.PacketItem, ...]:
    return tuple(
        model.PacketItem(
            kind=model.PacketKind.REASON,
            sha256=model.content_hash("reason", code.system, code.code),
            source=model.PacketSource.ORDER,
            added_at=now,
            code=code.coding(),
        )
        for code in codes
    )


# -- what is shown ------------------------------------------------------------------------------------------------


def _missing(referral: model.Referral) -> list[dict[str, object]]:
    return [
        {
            "what": one.what,
            "since": shown.instant(one.since),
            "owner": one.owner,
            "deadline": shown.instant(one.deadline),
        }
        for one in model.missing(referral)
    ]


def _summary(referral: model.Referral) -> dict[str, object]:
    """One line of a worklist."""
    return {
        "id": referral.id,
        "patient_id": referral.patient_id,
        "state": referral.state.value,
        "specialty": referral.specialty,
        "priority": referral.priority.value,
        "task_status": fhir.task_status(referral),
        "business_status": fhir.business_status(referral),
        "specialist_id": referral.specialist_id,
        "requested_at": shown.instant(referral.requested_at),
        "wait": shown.wait(referral),
        "version": referral.version,
    }


def _full(referral: model.Referral) -> dict[str, object]:
    """All that is known of a referral: ids, codes and dates."""
    visit = referral.visit
    return {
        **_summary(referral),
        "service": referral.service.model_dump(),
        "requester_id": referral.requester_id,
        "performer_id": referral.performer_id,
        "authored_on": shown.instant(referral.authored_on),
        "order_status": fhir.order_status(referral).value,
        "missing": _missing(referral),
        "packet": {
            "items": [item.model_dump(mode="json", exclude_none=True) for item in referral.packet],
            "wanting": [kind.value for kind in referral.wanting],
            "hash": referral.packet_hash,
        },
        "authorization": referral.authorization.model_dump(mode="json", exclude_none=True)
        if referral.authorization
        else None,
        "window": referral.window.model_dump(mode="json") if referral.window else None,
        "appointment": {"id": visit[0], "start": shown.instant(visit[1].start), "end": shown.instant(visit[1].end)}
        if visit
        else None,
        "attended": referral.attended,
        "report": referral.report.model_dump(mode="json", exclude_none=True) if referral.report else None,
        "acknowledged_on": shown.instant(referral.acknowledged_on),
        "replaces": referral.replaces,
        "alternative_id": referral.alternative_id,
        "ending": referral.ending,
    }


def _specialist(specialist: model.Specialist) -> dict[str, object]:
    return {
        "id": specialist.id,
        "specialty": specialist.specialty,
        "capabilities": list(specialist.capabilities),
        "active": specialist.state is model.Listing.ACTIVE,
        "resource_id": specialist.resource_id,
        "version": specialist.version,
    }


# -- JSON ---------------------------------------------------------------------------------------------------------

referrals = Routes(prefix="/referrals")


@referrals.post("", roles=ORDERERS, status=201)
async def request_referral(body: NewReferral, call: Call) -> Reply:
    """Order a referral."""
    service = body.service.coding()
    command = model.RequestReferral(
        id=call.new_id("referral"),
        patient_id=body.patient_id,
        specialty=body.specialty or fhir.SPECIALTIES.get((service.system, service.code), model.GENERAL),
        service=service,
        priority=body.priority,
        requester_id=body.requester_id or call.caller.subject,
        performer_id=body.performer_id,
        authored_on=_utc(body.authored_on) or call.now,
        diagnoses=tuple(code.coding() for code in body.reasons),
        quantity=body.quantity,
        packet=(*_reasons(body.reasons, call.now), *_items(body.packet, "packet", call.now)),
    )
    return await call.create(model.Referral, command.id, command, model.request)


@referrals.get("", roles=READERS)
async def list_referrals(
    call: Call,
    patient: CaseId | None = None,
    state: model.State | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: CaseId | None = None,
) -> Reply:
    """A worklist, by patient, by state, or both; ``next`` is the ``after`` of the next page."""
    conditions = {"patient_id": patient, "state": state.value if state else None}
    wanted = {name: value for name, value in conditions.items() if value is not None}
    found = await call.page(model.Referral, wanted, limit=limit, after=after)
    following = found[-1].id if len(found) == limit else None
    return Reply(200, {"referrals": [_summary(referral) for referral in found], "next": following})


@referrals.get("/{id}", roles=READERS)
async def show_referral(id: CaseId, call: Call) -> Reply:
    """One referral: where it stands, what is missing, since when, who owes it."""
    referral = await call.read(model.Referral, id)
    return call.show(referral, _full(referral))


@referrals.get("/{id}/history", roles=READERS)
async def show_history(id: CaseId, call: Call) -> Reply:
    """What happened to it, oldest first."""
    referral = await call.read(model.Referral, id)
    steps = [step.model_dump(mode="json", exclude_none=True) for step in referral.history]
    return call.show(referral, {"id": referral.id, "history": steps})


@referrals.post("/{id}/packet", roles=ORDERERS)
async def add_to_packet(id: CaseId, body: NewItems, call: Call) -> Reply:
    """Add documents to the packet, by hash."""
    command = model.AddToPacket(items=_items(body.items, "items", call.now))
    return await call.change(model.Referral, id, command, model.add_to_packet)


@referrals.post("/{id}/activate", roles=ORDERERS)
async def activate(id: CaseId, body: Nothing, call: Call) -> Reply:
    """A draft, held or doubtful order is in force from now on."""
    return await call.change(model.Referral, id, model.ActivateOrder(), model.activate)


@referrals.post("/{id}/accept", roles=ANSWERERS)
async def accept(id: CaseId, body: Answer, call: Call) -> Reply:
    """The specialist takes it."""
    command = model.Accept(specialist_id=body.specialist_id)
    return await call.change(model.Referral, id, command, model.accept)


@referrals.post("/{id}/reject", roles=ANSWERERS)
async def reject(id: CaseId, body: Refusal, call: Call) -> Reply:
    """The specialist declines; the answer names the alternative that is opened."""
    command = model.Reject(reason=body.reason, specialist_id=body.specialist_id)
    return await call.change(model.Referral, id, command, model.reject, answer=_rejected)


def _rejected(referral: model.Referral) -> dict[str, object]:
    return {"id": referral.id, "state": referral.state.value, "alternative_id": referral.alternative_id}


@referrals.post("/{id}/report", roles=ANSWERERS)
async def file_report(id: CaseId, body: NewReport, call: Call) -> Reply:
    """The consult report, which closes the referral if it is based on it."""
    command = model.FileReport(
        report_id=body.report_id,
        based_on=body.based_on,
        patient_id=body.patient_id,
        issued_at=_utc(body.issued_at),
        code=body.code.coding() if body.code else None,
        sha256=body.sha256,
    )
    return await call.change(model.Referral, id, command, model.close)


@referrals.post("/{id}/cancel", roles=ORDERERS)
async def cancel(id: CaseId, body: Withdrawal, call: Call) -> Reply:
    """Withdraw it; authorization and appointment follow."""
    return await call.change(model.Referral, id, model.Cancel(reason=body.reason), model.cancel)


@referrals.post("/{id}/entered-in-error", roles=ORDERERS)
async def entered_in_error(id: CaseId, body: Nothing, call: Call) -> Reply:
    """It should never have been."""
    return await call.change(model.Referral, id, model.MarkEnteredInError(), model.mark_entered_in_error)


@referrals.post("/{id}/acknowledgement", roles=ORDERERS)
async def acknowledge(id: CaseId, body: Acknowledgement, call: Call) -> Reply:
    """The patient was told what to expect, and said so."""
    command = model.Acknowledge(acknowledged_on=_utc(body.acknowledged_on) or call.now)
    return await call.change(model.Referral, id, command, model.acknowledge)


# -- the registry -------------------------------------------------------------------------------------------------

specialists = Routes(prefix="/specialists")


@specialists.put("/{id}", roles=EDITORS)
async def list_specialist(id: CaseId, body: Entry, call: Call) -> Reply:
    """Add a specialist to the registry, or change the entry."""
    command = model.ListSpecialist(id=id, specialty=body.specialty, capabilities=body.capabilities, active=body.active)
    return await call.put(model.Specialist, id, command, model.list_specialist)


@specialists.get("/{id}", roles=READERS | EDITORS)
async def show_specialist(id: CaseId, call: Call) -> Reply:
    """One specialist."""
    specialist = await call.read(model.Specialist, id)
    return call.show(specialist, _specialist(specialist))


@specialists.get("", roles=READERS | EDITORS)
async def list_specialists(
    call: Call,
    specialty: Specialty | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: CaseId | None = None,
) -> Reply:
    """The registry, or one specialty of it."""
    wanted = {"specialty": specialty} if specialty else {}
    found = await call.page(model.Specialist, wanted, limit=limit, after=after)
    following = found[-1].id if len(found) == limit else None
    return Reply(200, {"specialists": [_specialist(one) for one in found], "next": following})


# -- FHIR R4 ------------------------------------------------------------------------------------------------------

resources = Routes(prefix="/fhir")

_DECISIONS: dict[type[Command], Decision] = {
    model.Accept: model.accept,
    model.Reject: model.reject,
    model.Cancel: model.cancel,
    model.FileReport: model.close,
    model.NoteProgress: model.note_progress,
}


async def _update(call: Call, update: fhir.Update) -> Reply:
    decide = _DECISIONS[type(update.command)]
    return await call.change(model.Referral, update.referral_id, update.command, decide, answer=fhir.task)


@resources.post("/ServiceRequest", roles=ORDERERS, status=201)
async def create_order(body: dict[str, object], call: Call) -> Reply:
    """A ServiceRequest of an order intent becomes a referral, under an id of ours."""
    command = fhir.order_from(body, new_id=call.new_id("referral"), requester=call.caller.subject, now=call.now)
    return await call.create(model.Referral, command.id, command, model.request, answer=fhir.service_request)


@resources.put("/ServiceRequest/{id}", roles=ORDERERS)
async def put_order(id: CaseId, body: dict[str, object], call: Call) -> Reply:
    """FHIR update-as-create: the sender's id, so that Tasks and reports that name it find the referral."""
    fhir.same_id(body, id)
    command = fhir.order_from(body, new_id=id, requester=call.caller.subject, now=call.now)
    return await call.put(model.Referral, id, command, model.take_order, answer=fhir.service_request)


@resources.get("/ServiceRequest/{id}", roles=READERS)
async def show_order(id: CaseId, call: Call) -> Reply:
    """The referral as a ServiceRequest."""
    referral = await call.read(model.Referral, id)
    return call.show(referral, fhir.service_request(referral))


@resources.get("/Task/{id}", roles=READERS)
async def show_task(id: CaseId, call: Call) -> Reply:
    """The referral's work as a Task, with BSeR business status."""
    referral = await call.read(model.Referral, id)
    return call.show(referral, fhir.task(referral))


@resources.post("/Task", roles=ANSWERERS)
async def take_task(body: dict[str, object], call: Call) -> Reply:
    """What the specialist's side says: accepted, rejected, completed with its report, or how it goes."""
    return await _update(call, fhir.update_from_task(body, new_id=call.new_id("report")))


@resources.post("/DiagnosticReport", roles=ANSWERERS)
async def take_diagnostic_report(body: dict[str, object], call: Call) -> Reply:
    """A report that names the referral in basedOn."""
    return await _update(call, fhir.update_from_report(body, "DiagnosticReport", new_id=call.new_id("report")))


@resources.post("/DocumentReference", roles=ANSWERERS)
async def take_document(body: dict[str, object], call: Call) -> Reply:
    """A consult note that names the referral in context.related."""
    return await _update(call, fhir.update_from_report(body, "DocumentReference", new_id=call.new_id("report")))


def routes() -> tuple[Routes, ...]:
    """All routes of referrals."""
    return (referrals, specialists, resources)
