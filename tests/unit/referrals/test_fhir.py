"""The FHIR edge: what ServiceRequests, Tasks and reports mean here, what is refused, how a referral looks outside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.referrals import fhir, model
from services.referrals.model import OrderStatus, PacketKind, Referral, State
from shared.contracts.base import Coding
from shared.contracts.intake import CoverageStatus
from shared.contracts.referrals import Priority
from shared.kit.decisions import NO_FACTS
from shared.kit.errors import Invalid
from shared.kit.fhir import ORDER_INTENTS, TransactionBundle, parse
from tests.unit.referrals.cases import (
    NOW,
    PATIENT,
    PERSON_KNOWN,
    REFERRAL,
    REPORT,
    accepted,
    called_off,
    in_state,
    known,
    missed,
    report,
    scheduled,
    sent,
    tell,
    uid,
)

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"


def service_request(**changes: Any) -> dict[str, Any]:
    """A ServiceRequest as a practice might send it; None takes an element out."""
    body: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": REFERRAL,
        "status": "active",
        "intent": "order",
        "code": {"coding": [{"system": SNOMED, "code": "308471005"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def task_of(**changes: Any) -> dict[str, Any]:
    """A specialist's Task on the referral."""
    body: dict[str, Any] = {
        "resourceType": "Task",
        "id": uid("task"),
        "status": "completed",
        "intent": "order",
        "basedOn": [{"reference": f"ServiceRequest/{REFERRAL}"}],
        "for": {"reference": f"Patient/{PATIENT}"},
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def order(**changes: Any) -> model.RequestReferral:
    """What such a ServiceRequest asks for."""
    return fhir.order_from(service_request(**changes), new_id=REFERRAL, requester="caller", now=NOW)


def flaws(refusal: pytest.ExceptionInfo[Invalid]) -> set[str]:
    return {flaw.path for flaw in refusal.value.flaws}


# -- orders in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", sorted(ORDER_INTENTS))
def test_every_order_intent_is_a_referral(intent: str) -> None:
    assert order(intent=intent).order_intent == intent


@pytest.mark.parametrize("intent", ["proposal", "plan", "directive", "option"])
def test_what_is_not_an_order_is_refused_by_name(intent: str) -> None:
    with pytest.raises(Invalid) as refusal:
        order(intent=intent)
    assert flaws(refusal) == {"ServiceRequest.intent"}


@pytest.mark.parametrize(
    "subject",
    [
        {"reference": "Patient/not-a-uuid"},
        {"reference": f"Group/{PATIENT}"},
        {"reference": f"https://elsewhere.test/Patient/{PATIENT}"},
        {"reference": "nonsense"},
        {"display": "Somebody"},
    ],
)
def test_a_subject_that_is_no_patient_of_ours_is_refused_without_repeating_it(subject: dict[str, str]) -> None:
    with pytest.raises(Invalid) as refusal:
        order(subject=subject)
    assert flaws(refusal) == {"ServiceRequest.subject.reference"}
    assert not any(value in flaw.reason for flaw in refusal.value.flaws for value in subject.values())


def test_all_flaws_are_named_at_once() -> None:
    with pytest.raises(Invalid) as refusal:
        order(intent="plan", subject={"reference": "Patient/x"}, supportingInfo=[{"reference": "#missing"}])
    assert flaws(refusal) == {
        "ServiceRequest.intent",
        "ServiceRequest.subject.reference",
        "ServiceRequest.supportingInfo[0].reference",
    }


def test_a_generic_order_without_anything_but_its_code_goes_to_the_general_specialty() -> None:
    for code in ({"coding": [{"system": SNOMED, "code": "103696004"}]}, None, {"text": "see somebody"}):
        command = order(code=code)
        assert (command.specialty, command.service) == (model.GENERAL, fhir.TO_SPECIALIST)
        assert (command.packet, command.performer_id, command.requester_id) == ((), None, "caller")
        assert (command.priority, command.quantity, command.authored_on) == (Priority.ROUTINE, 1, NOW)


def test_the_specialty_comes_from_the_performer_type_before_the_code() -> None:
    assert order().specialty == "cardiology"
    performer_type = {"coding": [{"system": "http://nucc.org/provider-taxonomy", "code": "2084N0400X"}]}
    assert order(performerType=performer_type).specialty == "neurology"


def test_what_an_order_states_is_taken_over() -> None:
    icd = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I48.91"}
    performer, clinician = uid("performer"), uid("clinician")
    command = order(
        priority="urgent",
        authoredOn="2026-02-28T23:30:00-05:00",
        requester={"reference": f"Practitioner/{clinician}"},
        performer=[{"display": "Somebody"}, {"reference": f"Practitioner/{performer}"}],
        quantityQuantity={"value": 2.5},
        reasonCode=[{"coding": [icd]}, {"text": "palpitations"}],
    )
    assert command.priority is Priority.URGENT
    assert command.authored_on == datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
    assert (command.requester_id, command.performer_id, command.quantity) == (clinician, performer, 3)
    assert command.diagnoses == (Coding(**icd),)
    assert [item.kind for item in command.packet] == [PacketKind.REASON, PacketKind.REASON]
    assert "palpitations" not in command.model_dump_json(), "free text is kept as a hash only"


def test_an_id_that_may_spell_a_name_is_not_taken_over() -> None:
    named = order(requester={"reference": "Practitioner/doctor-jane-roe"}).requester_id
    assert "jane" not in named
    assert named == order(requester={"reference": "Practitioner/doctor-jane-roe"}).requester_id


def test_what_an_order_points_at_joins_the_packet_by_kind_and_hash() -> None:
    condition, note = uid("condition"), uid("note")
    ecg = {
        "resourceType": "DocumentReference",
        "id": "ecg",
        "status": "current",
        "type": {"coding": [{"system": LOINC, "code": "11524-6"}]},
        "content": [{"attachment": {"contentType": "application/pdf"}}],
    }
    command = order(
        contained=[ecg],
        reasonReference=[{"reference": f"Condition/{condition}"}],
        supportingInfo=[
            {"reference": "#ecg"},
            {"reference": f"DocumentReference/{note}"},
            {"reference": f"AllergyIntolerance/{uid('allergy')}"},
            {"reference": f"MedicationStatement/{uid('medication')}"},
            {"type": "Observation", "identifier": {"system": "urn:test", "value": "lab-1"}},
            {"reference": "https://elsewhere.test/Basic/jane-roe"},
        ],
    )
    assert [item.kind.value for item in command.packet] == [
        "reason",
        "ecg",
        "notes",
        "allergies",
        "medications",
        "results",
        "other",
    ]
    assert command.packet[0].reference == f"Condition/{condition}"
    assert command.packet[1].code == Coding(system=LOINC, code="11524-6")
    assert len({item.sha256 for item in command.packet}) == 7
    assert "jane" not in command.model_dump_json()
    again = order(supportingInfo=[{"reference": f"DocumentReference/{note}"}])
    assert again.packet[0].sha256 == command.packet[2].sha256


# -- tasks in -----------------------------------------------------------------------------------------------------


def update(**changes: Any) -> fhir.Update:
    """What such a Task asks."""
    return fhir.update_from_task(task_of(**changes), new_id=uid("new"))


def test_a_specialists_task_is_an_answer_by_its_status() -> None:
    owner = {"reference": f"Practitioner/{uid('owner')}"}
    assert update(status="accepted", owner=owner).command == model.Accept(specialist_id=uid("owner"))
    reason = {"coding": [{"code": "out-of-scope"}]}
    assert update(status="rejected", statusReason=reason).command == model.Reject(reason="out-of-scope")
    assert update(status="rejected", statusReason={"text": "too busy"}).command == model.Reject(reason="unspecified")
    assert update(status="cancelled").command == model.Cancel(reason="task-cancelled")
    assert update(status="in-progress").command == model.NoteProgress(progress=model.Progress.IN_PROGRESS)
    assert update(status="failed").command == model.NoteProgress(progress=model.Progress.FAILED)


@pytest.mark.parametrize("status", ["draft", "requested", "ready", "entered-in-error"])
def test_a_task_of_another_status_says_nothing_here(status: str) -> None:
    with pytest.raises(Invalid) as refusal:
        update(status=status)
    assert flaws(refusal) == {"Task.status"}


def test_a_completed_task_is_the_report_by_its_output_or_else_itself() -> None:
    output = [{"type": {"text": "note"}, "valueReference": {"reference": f"DocumentReference/{REPORT}"}}]
    filed = update(output=output, executionPeriod={"end": "2026-03-01T10:00:00Z"}).command
    assert isinstance(filed, model.FileReport)
    assert (filed.report_id, filed.based_on, filed.patient_id) == (REPORT, REFERRAL, PATIENT)
    assert filed.issued_at == datetime(2026, 3, 1, 10, tzinfo=UTC)
    itself = update().command
    assert isinstance(itself, model.FileReport)
    assert itself.report_id == uid("task")


def test_a_task_may_name_the_referral_as_its_focus_as_bser_does() -> None:
    focus = {"reference": f"ServiceRequest/{REFERRAL}"}
    assert update(basedOn=None, focus=focus, status="accepted").referral_id == REFERRAL


@pytest.mark.parametrize(
    "based_on",
    [
        None,
        [{"reference": f"CarePlan/{REFERRAL}"}],
        [{"reference": "ServiceRequest/not-a-uuid"}],
        [{"reference": f"ServiceRequest/{REFERRAL}"}, {"reference": f"ServiceRequest/{uid('other')}"}],
    ],
)
def test_a_task_that_is_not_based_on_one_referral_is_refused_by_name(based_on: list[dict[str, str]] | None) -> None:
    with pytest.raises(Invalid) as refusal:
        update(basedOn=based_on)
    assert flaws(refusal) == {"Task.basedOn"}


# -- reports in ---------------------------------------------------------------------------------------------------


def diagnostic_report(**changes: Any) -> dict[str, Any]:
    """A consult report as DiagnosticReport."""
    return {
        "resourceType": "DiagnosticReport",
        "id": REPORT,
        "status": "final",
        "basedOn": [{"reference": f"ServiceRequest/{REFERRAL}"}],
        "code": {"coding": [{"system": LOINC, "code": "11488-4"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "issued": "2026-03-01T10:00:00Z",
        **changes,
    }


def document_reference(**changes: Any) -> dict[str, Any]:
    """A consult note as DocumentReference."""
    return {
        "resourceType": "DocumentReference",
        "id": REPORT,
        "status": "current",
        "type": {"coding": [{"system": LOINC, "code": "11488-4"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "context": {"related": [{"reference": f"ServiceRequest/{REFERRAL}"}]},
        "content": [{"attachment": {"contentType": "application/pdf"}}],
        **changes,
    }


@pytest.mark.parametrize("raw", [diagnostic_report(), document_reference()], ids=lambda raw: str(raw["resourceType"]))
def test_a_report_names_the_referral_and_the_patient(raw: Mapping[str, object]) -> None:
    filed = fhir.update_from_report(raw, str(raw["resourceType"]), new_id=uid("new"))
    assert filed.referral_id == REFERRAL
    assert isinstance(filed.command, model.FileReport)
    assert (filed.command.report_id, filed.command.patient_id) == (REPORT, PATIENT)
    assert filed.command.code == Coding(system=LOINC, code="11488-4")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (diagnostic_report(status="preliminary"), "DiagnosticReport.status"),
        (diagnostic_report(basedOn=[]), "DiagnosticReport.basedOn"),
        (diagnostic_report(subject={"reference": "Patient/x"}), "DiagnosticReport.subject.reference"),
        (document_reference(status="superseded"), "DocumentReference.status"),
        (document_reference(docStatus="preliminary"), "DocumentReference.docStatus"),
        (document_reference(context={}), "DocumentReference.context.related"),
    ],
)
def test_a_report_nobody_stands_by_or_that_belongs_nowhere_is_refused_by_name(
    raw: Mapping[str, object], path: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        fhir.update_from_report(raw, str(raw["resourceType"]), new_id=uid("new"))
    assert flaws(refusal) == {path}


# -- referrals out ------------------------------------------------------------------------------------------------

STATUSES: dict[State, tuple[str, str, str]] = {
    State.AWAITING_ORDER: ("draft", "2.0", "draft"),
    State.AWAITING_PATIENT: ("draft", "2.0", "active"),
    State.AWAITING_PACKET: ("draft", "2.0", "active"),
    State.AWAITING_COVERAGE: ("draft", "2.0", "active"),
    State.AWAITING_AUTHORIZATION: ("draft", "2.0", "active"),
    State.AWAITING_SPECIALIST: ("draft", "2.0", "active"),
    State.AWAITING_ACCEPTANCE: ("requested", "2.0", "active"),
    State.AWAITING_APPOINTMENT: ("accepted", "3.0", "active"),
    State.AWAITING_VISIT: ("accepted", "5.1.1", "active"),
    State.AWAITING_REPORT: ("in-progress", "5.1.4", "active"),
    State.CLOSED: ("completed", "7.0", "completed"),
    State.REJECTED: ("rejected", "4.0", "revoked"),
    State.CANCELLED: ("cancelled", "6.0", "revoked"),
    State.FAILED: ("failed", "6.0", "revoked"),
    State.ENTERED_IN_ERROR: ("entered-in-error", "6.0", "entered-in-error"),
}


@pytest.mark.parametrize("state", list(State), ids=str)
def test_every_state_is_valid_fhir_and_says_the_same_thing_in_three_vocabularies(state: State) -> None:
    referral = in_state(state)
    task, order = fhir.task(referral), fhir.service_request(referral)
    parse(task, "Task")
    parse(order, "ServiceRequest")
    assert (fhir.task_status(referral), fhir.business_status(referral), fhir.order_status(referral)) == STATUSES[state]
    assert (task["status"], order["status"]) == (STATUSES[state][0], STATUSES[state][2])


def test_a_date_that_fell_through_shows_how_until_there_is_another() -> None:
    assert fhir.business_status(tell(scheduled(), missed())) == "5.1.2"
    assert fhir.business_status(tell(scheduled(), called_off())) == "5.1.3"


@pytest.mark.parametrize(("made", "business"), [(sent, "2.0"), (accepted, "3.0"), (scheduled, "5.1.1")])
def test_a_sent_referral_that_payment_holds_up_is_on_hold_where_it_was(made: Any, business: str) -> None:
    referral = tell(made(), PERSON_KNOWN, stored=[known(status=CoverageStatus.LAPSED)])
    assert referral.state is State.AWAITING_COVERAGE
    assert (fhir.task_status(referral), fhir.business_status(referral)) == ("on-hold", business)


def test_the_task_of_a_closed_referral_leads_to_the_report() -> None:
    closed = model.close(scheduled(), report(), NO_FACTS, NOW)
    (output,) = fhir.task(closed)["output"]  # type: ignore[misc]
    assert output["valueReference"] == {"reference": f"DocumentReference/{REPORT}"}


def test_an_alternative_says_what_it_replaces() -> None:
    referral = in_state(State.AWAITING_PATIENT)
    referral.replaces = uid("rejected")
    assert fhir.service_request(referral)["replaces"] == [{"reference": f"ServiceRequest/{uid('rejected')}"}]


def test_a_service_request_survives_the_way_out_and_in_again() -> None:
    there = order(reasonCode=[{"coding": [{"system": SNOMED, "code": "49436004"}]}], quantityQuantity={"value": 2})
    referral = model.request(None, there, NO_FACTS, NOW)
    back = fhir.order_from(fhir.service_request(referral), new_id=REFERRAL, requester="caller", now=NOW)
    for name in ("patient_id", "specialty", "service", "priority", "diagnoses", "quantity", "authored_on"):
        assert getattr(back, name) == getattr(there, name)


# -- other people's records ---------------------------------------------------------------------------------------


def _resources(folder: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for path in sorted((folder / "cms50" / "patients").glob("*.json")):
        bundle = TransactionBundle.read(json.loads(path.read_text()), {"ServiceRequest", "Task"})
        for kind in ("ServiceRequest", "Task"):
            for resource in bundle.of(kind):
                yield kind, resource.raw


def test_every_order_of_the_cms50_records_becomes_a_referral_and_completed_tasks_close_theirs(cases: Path) -> None:
    referrals: dict[str, Referral] = {}
    filed, unbased = [], []
    for kind, raw in _resources(cases):
        if kind == "ServiceRequest":
            command = fhir.order_from(raw, new_id=str(raw["id"]), requester="caller", now=NOW)
            referrals[command.id] = model.request(None, command, NO_FACTS, NOW)
        elif "basedOn" not in raw:
            with pytest.raises(Invalid) as refusal:
                fhir.update_from_task(raw, new_id=uid("new"))
            unbased.append(flaws(refusal))
        else:
            filed.append(fhir.update_from_task(raw, new_id=uid("new")))
    assert len(referrals) == 14
    assert unbased == [{"Task.basedOn"}]
    for each in filed:
        if isinstance(each.command, model.FileReport):
            model.close(referrals[each.referral_id], each.command, NO_FACTS, NOW)
        else:
            assert isinstance(each.command, model.NoteProgress)
            model.note_progress(referrals[each.referral_id], each.command, NO_FACTS, NOW)
    closed = {each.referral_id for each in filed if isinstance(each.command, model.FileReport)}
    for id, referral in referrals.items():
        if id in closed:
            assert referral.state is State.CLOSED
            continue
        assert referral.wait is not None
        assert referral.wait.deadline > NOW
        assert referral.state in (State.AWAITING_PATIENT, State.AWAITING_REPORT, State.AWAITING_ORDER)
    statuses = {referral.order_status for referral in referrals.values()}
    assert statuses == {OrderStatus.ACTIVE, OrderStatus.COMPLETED, OrderStatus.UNKNOWN}
