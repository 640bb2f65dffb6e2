"""Intake over HTTP: registering from FHIR or JSON, completing and correcting, and reading back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query

from services.intake import fhir, model
from services.intake.bodies import PatientBody, parsed, statement_of
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.document import Document, derived_id
from shared.kit.shown import instant, wait

REGISTRARS = {Role.COORDINATOR, Role.CLINICIAN, Role.SERVICE}
READERS = {Role.COORDINATOR, Role.CLINICIAN}
COORDINATORS = {Role.COORDINATOR}


# -- what is answered -----------------------------------------------------------------------------------------------


def _outline(patient: model.Patient) -> dict[str, Any]:
    """Nothing personal: this is stored as the answer to the request's key."""
    return {
        "id": patient.id,
        "state": patient.state.value,
        "missing": list(patient.missing),
        "coverage": patient.coverage_status.value,
    }


def _whole(patient: model.Patient) -> dict[str, Any]:
    """Everything but the history and what the kit keeps."""
    shown = {"registered_at", "provenance", "wait", "timezone", "channels", "corrections"}
    own = set(model.Patient.model_fields) - set(Document.model_fields)
    body = patient.model_dump(mode="json", include=own - shown, exclude={"facts", "coverages"})
    return {
        "id": patient.id,
        **body,
        "registered_at": instant(patient.registered_at),
        "timezone": model.timezone_of(patient.timezone, patient.address),
        "channels": [channel.value for channel in model.channels_of(patient)],
        "coverage": patient.coverage_status.value,
        "coverages": [coverage.model_dump(mode="json") for coverage in patient.coverages],
        "facts": [{**fact.model_dump(mode="json"), "unconfirmed": fact.unconfirmed} for fact in patient.facts],
        "wait": wait(patient),
    }


def _beside(reply: Reply, registration: fhir.Registration) -> Reply:
    """Add what was taken in, and what was not. Both follow from the request, so they are not stored with its answer."""
    body = {
        **json.loads(bytes(reply.body)),
        "taken": [{"reference": taken.reference, "id": taken.id} for taken in registration.taken],
        "ignored": [{"path": flaw.path, "reason": flaw.reason} for flaw in registration.ignored],
    }
    kept = {name: value for name, value in reply.headers.items() if name not in ("content-length", "content-type")}
    return Reply(reply.status_code, body, kept)


# -- the routes -----------------------------------------------------------------------------------------------------


def routes(intake: model.Intake, payers: Mapping[str, str]) -> tuple[Routes, ...]:
    """Intake's routes. ``payers`` maps what Organizations are called to payer ids."""
    return (_registrations(intake, payers), _patients(intake))


def _registrations(intake: model.Intake, payers: Mapping[str, str]) -> Routes:
    registrations = Routes(prefix="/registrations", tags=["registrations"])

    async def from_bundle(raw: Mapping[str, Any], which: str | None, call: CallContext) -> Reply:
        def patient_id(of_sender: str | None) -> str:
            """The same caller's same Patient is the same patient, however often it is sent."""
            if of_sender is None:
                return call.new_id("patient")
            return derived_id("patient", call.caller.subject, of_sender)

        registration = fhir.read_registration(
            raw, patient_id=patient_id, payers=payers, today=call.now.date(), which=which
        )
        command = model.Register(
            id=registration.patient_id,
            by=call.caller.subject,
            source=model.Source.BUNDLE,
            statement=registration.statement,
            reference=registration.reference,
        )
        reply = await call.put(model.Patient, command.id, command, intake.register, answer=_outline, status=201)
        return _beside(reply, registration)

    async def from_json(raw: Mapping[str, Any], call: CallContext) -> Reply:
        body = parsed(PatientBody, raw)
        id = call.new_id("patient")
        statement = statement_of(body, id, call.now, whole=False)
        command = model.Register(id=id, by=call.caller.subject, source=model.Source.JSON, statement=statement)
        return await call.create(model.Patient, id, command, intake.register, answer=_outline)

    @registrations.post("", roles=REGISTRARS, status=201)
    async def register(
        body: dict[str, Any], call: Call, patient: Annotated[str | None, Query(max_length=64)] = None
    ) -> Reply:
        """Register from a FHIR R4 Bundle (``patient``: the id of the Patient meant, where it has several) or JSON."""
        if "resourceType" in body:
            return await from_bundle(body, patient, call)
        return await from_json(body, call)

    return registrations


def _patients(intake: model.Intake) -> Routes:
    patients = Routes(prefix="/patients", tags=["patients"])

    @patients.get("", roles=COORDINATORS)
    async def worklist(
        call: Call,
        state: model.State = model.State.INCOMPLETE,
        after: DocumentId | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Reply:
        """Ids and what is missing, nothing else; ``next`` is what to pass as ``after`` for more."""
        found = await call.page(model.Patient, {"state": state.value}, limit=limit, after=after)
        listed = [{**_outline(patient), "wait": wait(patient)} for patient in found]
        return Reply(200, {"patients": listed, "next": found[-1].id if len(found) == limit else None})

    @patients.get("/{id}", roles=READERS)
    async def show(id: DocumentId, call: Call) -> Reply:
        """Everything known of a patient but the values of corrections."""
        patient = await call.read(model.Patient, id)
        return call.show(patient, _whole(patient))

    @patients.get("/{id}/fhir", roles={*READERS, Role.SERVICE})
    async def show_fhir(id: DocumentId, call: Call) -> Reply:
        """The patient as a FHIR R4 Patient."""
        patient = await call.read(model.Patient, id)
        reply = call.show(patient, fhir.patient_resource(patient))
        reply.headers["Content-Type"] = "application/fhir+json"
        return reply

    @patients.get("/{id}/corrections", roles=READERS)
    async def corrections(id: DocumentId, call: Call) -> Reply:
        """Which field was corrected, when and by whom; never from what to what."""
        patient = await call.read(model.Patient, id)
        listed = [{"field": c.field, "at": instant(c.at), "by": c.by} for c in patient.corrections]
        return call.show(patient, {"id": patient.id, "corrections": listed})

    @patients.patch("/{id}", roles=COORDINATORS)
    async def correct(id: DocumentId, body: PatientBody, call: Call) -> Reply:
        """Complete or correct: null removes, what is left out stays."""
        return await _change(id, body, call, whole=False)

    @patients.put("/{id}", roles=COORDINATORS)
    async def replace(id: DocumentId, body: PatientBody, call: Call) -> Reply:
        """State the whole of demographics, contact, barriers and first coverage; records in lists are added."""
        return await _change(id, body, call, whole=True)

    async def _change(id: str, body: PatientBody, call: CallContext, *, whole: bool) -> Reply:
        statement = statement_of(body, id, call.now, whole=whole)
        command = model.Correct(by=call.caller.subject, source=model.Source.JSON, statement=statement)
        return await call.change(model.Patient, id, command, intake.correct, answer=_outline)

    @patients.post("/{id}/coverage/$verify", roles=COORDINATORS, status=202)
    async def verify(id: DocumentId, call: Call) -> Reply:
        """Ask the payer now."""
        command = model.VerifyCoverage(by=call.caller.subject)
        return await call.change(model.Patient, id, command, intake.verify_coverage, answer=_outline, status=202)

    @patients.post("/{id}/facts/{fact_id}/$confirm", roles={Role.CLINICIAN})
    async def confirm(id: DocumentId, fact_id: DocumentId, call: Call) -> Reply:
        """A clinician stands by a condition, an allergy or a medication."""
        command = model.ConfirmFact(by=call.caller.subject, fact_id=fact_id)
        return await call.change(model.Patient, id, command, intake.confirm_fact, answer=_outline)

    @patients.get("/{id}/proxies/{proxy_id}", roles=READERS)
    async def proxy_rights(id: DocumentId, proxy_id: DocumentId, call: Call) -> Reply:
        """What a proxy may do at this moment: scopes, none after a revocation."""
        patient = await call.read(model.Patient, id)
        proxy = next((proxy for proxy in patient.proxies if proxy.id == proxy_id), None)
        today = call.now.date()
        scopes = [scope.value for scope in model.ProxyScope if proxy is not None and proxy.may(scope, today)]
        return call.show(patient, {"id": proxy_id, "patient_id": id, "known": proxy is not None, "scopes": scopes})

    @patients.delete("/{id}/proxies/{proxy_id}", roles=COORDINATORS)
    async def revoke_proxy(id: DocumentId, proxy_id: DocumentId, call: Call) -> Reply:
        """Take a proxy's rights back, at once."""
        command = model.RevokeProxy(by=call.caller.subject, proxy_id=proxy_id)
        return await call.change(model.Patient, id, command, intake.revoke_proxy, answer=_outline)

    @patients.post("/{id}/$entered-in-error", roles=COORDINATORS)
    async def enter_in_error(id: DocumentId, call: Call) -> Reply:
        """This registration should never have been."""
        command = model.EnterInError(by=call.caller.subject)
        return await call.change(model.Patient, id, command, intake.enter_in_error, answer=_outline)

    return patients
