"""Intake over HTTP: registering from FHIR or JSON, completing and correcting, and reading back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.intake import fhir, model, terms
from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.errors import Flaw, Invalid

REGISTRARS = {Role.COORDINATOR, Role.CLINICIAN, Role.SERVICE}
READERS = {Role.COORDINATOR, Role.CLINICIAN}
COORDINATORS = {Role.COORDINATOR}


# -- what a request may say -----------------------------------------------------------------------------------------


def _phone(text: str) -> str:
    number = model.e164(text)
    if number is None:
        raise ValueError("is not a telephone number that can be called")
    return number


def _email(text: str) -> str:
    if not terms.is_email(text):
        raise ValueError("is not an e-mail address")
    return text


def _language(text: str) -> str:
    tag = terms.language_tag(text)
    if tag is None:
        raise ValueError("is not a BCP 47 language")
    return tag


def _zone(text: str) -> str:
    if text not in terms.timezones():
        raise ValueError("is not an IANA time zone")
    return text


def _payer(text: str) -> str:
    if not terms.is_payer_id(text):
        raise ValueError("is not 1 to 64 letters, digits, dots and hyphens")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Phone = Annotated[Text, AfterValidator(_phone)]
Email = Annotated[Text, AfterValidator(_email)]
Language = Annotated[Text, AfterValidator(_language)]
Zone = Annotated[Text, AfterValidator(_zone)]
PayerId = Annotated[Text, AfterValidator(_payer)]


class Body(BaseModel):
    """A part of a request. An unknown field is refused."""

    model_config = ConfigDict(extra="forbid")


class AddressBody(Body):
    """A postal address."""

    lines: list[Text] = Field([], max_length=6)
    city: Text | None = None
    state: Text | None = None
    postal_code: Text | None = None
    country: Text = "US"


class CoverageBody(Body):
    """The coverage that pays first. What is left out stays as it is."""

    payer_id: PayerId | None = None
    member_id: Text | None = None
    plan: Text | None = None
    relationship: Text | None = None
    valid_from: date | None = None
    valid_to: date | None = None


class CodeBody(Body):
    """A code in a code system."""

    system: Text
    code: Text


class FactBody(Body):
    """A condition, an allergy or a medication, in codes or in words."""

    codings: list[CodeBody] = Field([], max_length=20)
    text: Text | None = None
    status: Text | None = None
    onset: date | None = None


class ProxyBody(Body):
    """A family member or caregiver, and what they may do."""

    name: Text
    relationship: Text | None = None
    phone: Phone | None = None
    email: Email | None = None
    scopes: list[model.ProxyScope] = []
    valid_to: date | None = None


class ConsentBody(Body):
    """Whether a channel may be used from now on."""

    channel: Channel
    permitted: bool


class PatientBody(Body):
    """A registration in plain JSON, or a part of one. In a PATCH, null removes and what is left out stays."""

    family: Text | None = None
    given: list[Text] | None = Field(None, max_length=10)
    birth_date: date | None = None
    gender: model.Gender | None = None
    mobile: Phone | None = None
    phone: Phone | None = None
    email: Email | None = None
    address: AddressBody | None = None
    language: Language | None = None
    timezone: Zone | None = None
    channels: list[Channel] | None = None
    barriers: list[Barrier] | None = None
    coverage: CoverageBody | None = None
    conditions: list[FactBody] = Field([], max_length=200)
    allergies: list[FactBody] = Field([], max_length=200)
    medications: list[FactBody] = Field([], max_length=200)
    proxies: list[ProxyBody] = Field([], max_length=20)
    consents: list[ConsentBody] = Field([], max_length=10)


_PLAIN = ("family", "given", "birth_date", "gender", "mobile", "phone", "email", "language", "timezone")
_REPLACED = (*_PLAIN, "address", "channels", "barriers", "coverage")
B = TypeVar("B", bound=Body)


def _parsed(body: type[B], raw: Mapping[str, Any]) -> B:
    """A body that could have been one of two kinds. Raises what FastAPI raises for one that could not."""
    try:
        return body.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from None


def _statement(body: PatientBody, patient_id: str, now: datetime, *, whole: bool) -> model.Statement:
    """What a JSON body states. ``whole``: a field that was left out is stated to be absent."""
    if body.birth_date is not None and body.birth_date > now.date():
        raise Invalid(flaws=[Flaw("birth_date", "is in the future")])
    said_fields = set(_REPLACED) if whole else body.model_fields_set
    said: dict[str, Any] = {
        name: getattr(body, name) for name in (*_PLAIN, "channels", "barriers") if name in said_fields
    }
    if "address" in said_fields:
        said["address"] = None if body.address is None else model.Address(**body.address.model_dump())
    if "coverage" in said_fields:
        said["coverages"] = None if body.coverage is None else (_coverage(body.coverage, whole=whole),)
    said["facts"] = tuple(_facts(body, patient_id))
    said["proxies"] = tuple(_proxy(proxy, patient_id) for proxy in body.proxies)
    said["consents"] = tuple(_consent(consent, patient_id, now) for consent in body.consents)
    codings = tuple(Coding(**code.model_dump()) for fact in body.conditions for code in fact.codings)
    said["found_barriers"] = terms.barriers_of(codings)
    return model.Statement.model_validate({name: _frozen(value) for name, value in said.items()})


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _coverage(body: CoverageBody, *, whole: bool) -> model.StatedCoverage:
    return model.StatedCoverage.model_validate(body.model_dump(exclude_unset=not whole))


def _facts(body: PatientBody, patient_id: str) -> list[model.StatedFact]:
    found = []
    listed = (
        ("conditions", model.FactKind.CONDITION),
        ("allergies", model.FactKind.ALLERGY),
        ("medications", model.FactKind.MEDICATION),
    )
    for name, kind in listed:
        for index, fact in enumerate(getattr(body, name)):
            if not fact.codings and fact.text is None:
                raise Invalid(flaws=[Flaw(f"{name}[{index}]", "needs codings or a text")])
            codings = tuple(Coding(system=code.system, code=code.code) for code in fact.codings)
            meaning = [f"{coding.system}|{coding.code}" for coding in codings] or [fact.text]
            found.append(
                model.StatedFact(
                    id=derived_id("fact", patient_id, kind, *meaning),
                    kind=kind,
                    codings=codings,
                    text=fact.text,
                    status=fact.status,
                    onset=fact.onset,
                )
            )
    return found


def _proxy(body: ProxyBody, patient_id: str) -> model.StatedProxy:
    id = derived_id("proxy", patient_id, body.name, body.relationship or "")
    said = body.model_dump(exclude={"scopes"})
    return model.StatedProxy(id=id, scopes=tuple(dict.fromkeys(body.scopes)), **said)


def _consent(body: ConsentBody, patient_id: str, now: datetime) -> model.StatedConsent:
    channels = (body.channel,)
    return model.StatedConsent(
        id=derived_id("consent", patient_id, body.channel, now.isoformat()),
        given_at=now,
        denies=() if body.permitted else channels,
        permits=channels if body.permitted else (),
    )


# -- what is answered -----------------------------------------------------------------------------------------------


def _outline(patient: model.Patient) -> dict[str, Any]:
    """Nothing personal: this is stored as the answer to the request's key."""
    return {
        "id": patient.id,
        "state": patient.state.value,
        "missing": list(patient.missing),
        "coverage": patient.coverage_status.value,
    }


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(patient: model.Patient) -> dict[str, Any]:
    """Everything but the history and what the kit keeps."""
    shown = {"registered_at", "provenance", "wait", "timezone", "channels", "corrections"}
    own = set(model.Patient.model_fields) - set(model.Patient.__base__.model_fields)  # type: ignore[union-attr]
    body = patient.model_dump(mode="json", include=own - shown, exclude={"facts", "coverages"})
    return {
        "id": patient.id,
        **body,
        "registered_at": _text(patient.registered_at),
        "timezone": model.timezone_of(patient.timezone, patient.address),
        "channels": [channel.value for channel in model.channels_of(patient)],
        "coverage": patient.coverage_status.value,
        "coverages": [coverage.model_dump(mode="json") for coverage in patient.coverages],
        "facts": [{**fact.model_dump(mode="json"), "unconfirmed": fact.unconfirmed} for fact in patient.facts],
        "waiting": _waiting(patient),
    }


def _waiting(patient: model.Patient) -> dict[str, Any] | None:
    wait = patient.wait
    if wait is None:
        return None
    return {
        "owner": wait.owner,
        "reason": wait.reason,
        "since": _text(wait.since),
        "deadline": _text(wait.deadline),
        "overdue": wait.escalated_at is not None,
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
        body = _parsed(PatientBody, raw)
        id = call.new_id("patient")
        statement = _statement(body, id, call.now, whole=False)
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
        listed = [{**_outline(patient), "waiting": _waiting(patient)} for patient in found]
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
        listed = [{"field": c.field, "at": _text(c.at), "by": c.by} for c in patient.corrections]
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
        id = id.lower()
        statement = _statement(body, id, call.now, whole=whole)
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
        command = model.ConfirmFact(by=call.caller.subject, fact_id=fact_id.lower())
        return await call.change(model.Patient, id, command, intake.confirm_fact, answer=_outline)

    @patients.get("/{id}/proxies/{proxy_id}", roles=READERS)
    async def proxy_rights(id: DocumentId, proxy_id: DocumentId, call: Call) -> Reply:
        """What a proxy may do at this moment: scopes, none after a revocation."""
        patient = await call.read(model.Patient, id)
        proxy = next((proxy for proxy in patient.proxies if proxy.id == proxy_id.lower()), None)
        today = call.now.date()
        scopes = [scope.value for scope in model.ProxyScope if proxy is not None and proxy.may(scope, today)]
        return call.show(patient, {"id": proxy_id, "patient_id": id, "known": proxy is not None, "scopes": scopes})

    @patients.delete("/{id}/proxies/{proxy_id}", roles=COORDINATORS)
    async def revoke_proxy(id: DocumentId, proxy_id: DocumentId, call: Call) -> Reply:
        """Take a proxy's rights back, at once."""
        command = model.RevokeProxy(by=call.caller.subject, proxy_id=proxy_id.lower())
        return await call.change(model.Patient, id, command, intake.revoke_proxy, answer=_outline)

    @patients.post("/{id}/$entered-in-error", roles=COORDINATORS)
    async def enter_in_error(id: DocumentId, call: Call) -> Reply:
        """This registration should never have been."""
        command = model.EnterInError(by=call.caller.subject)
        return await call.change(model.Patient, id, command, intake.enter_in_error, answer=_outline)

    return patients
