"""Registering and correcting: the completeness gate, the history, and what is announced."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.intake import model
from shared.contracts.base import Coding
from shared.contracts.intake import (
    Barrier,
    Channel,
    CoverageStatus,
    PatientIncomplete,
    PatientRegistered,
    PersonChanged,
)
from shared.contracts.notifications import ChannelRevoked
from shared.kit.decisions import NO_FACTS, Due
from shared.kit.errors import Conflict, IllegalTransition, NotFound
from tests.unit.intake.cases import (
    COVERAGE,
    ID,
    INTAKE,
    LATER,
    NOW,
    ORGANIZATION,
    PATIENT,
    announced_registration,
    bundle,
    condition,
    consent,
    consented,
    correct,
    names,
    registered,
    resend,
    taken,
    whole_bundle,
)


def without(resource: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in fields}


class TestTheGate:
    def test_a_whole_registration_is_complete_at_once(self) -> None:
        patient = announced_registration()
        assert patient.state is model.State.COMPLETE
        assert patient.wait is None
        assert names(taken(patient)) == ["PatientRegistered", "PersonChanged"]

    @pytest.mark.parametrize(
        ("lacking", "missing"),
        [
            ("name", ("Patient.name",)),
            ("birthDate", ("Patient.birthDate",)),
            ("gender", ("Patient.gender",)),
            ("communication", ("Patient.communication.language",)),
        ],
    )
    def test_each_missing_field_is_named(self, lacking: str, missing: tuple[str, ...]) -> None:
        patient = announced_registration(bundle(ORGANIZATION, COVERAGE, without(PATIENT, lacking)))
        assert patient.state is model.State.INCOMPLETE
        assert patient.missing == missing
        first = patient.recorded()[0]
        assert isinstance(first, PatientRegistered)
        assert (first.complete, first.missing) == (False, missing)

    def test_an_address_alone_is_a_way_to_be_reached(self) -> None:
        assert registered(bundle(ORGANIZATION, COVERAGE, without(PATIENT, "telecom"))).missing == ()

    def test_without_any_contact_both_ways_are_named(self) -> None:
        patient = registered(bundle(ORGANIZATION, COVERAGE, without(PATIENT, "telecom", "address")))
        assert patient.missing == ("Patient.telecom", "Patient.address")

    def test_a_year_of_birth_is_not_a_birth_date(self) -> None:
        assert registered(bundle(ORGANIZATION, COVERAGE, {**PATIENT, "birthDate": "1961"})).missing == (
            "Patient.birthDate",
        )

    def test_a_coverage_without_member_id_is_missing_it_and_cannot_be_verified(self) -> None:
        patient = registered(bundle(ORGANIZATION, without(COVERAGE, "subscriberId"), PATIENT))
        assert patient.missing == ("Coverage.subscriberId",)
        assert (patient.coverage_status, patient.coverage.reason) == (  # type: ignore[union-attr]
            CoverageStatus.UNVERIFIABLE,
            "not-enough-data",
        )
        assert "verify" not in patient.timers

    def test_no_coverage_at_all_names_payer_and_member(self) -> None:
        patient = announced_registration(bundle(PATIENT))
        assert patient.missing == ("Coverage.payor", "Coverage.subscriberId")
        assert patient.coverage_status is CoverageStatus.ABSENT
        assert names(taken(patient)) == ["PatientRegistered", "CoverageUnverifiable", "PersonChanged"]

    def test_an_incomplete_registration_waits_with_a_deadline_and_is_overdue_once(self) -> None:
        patient = registered(bundle(PATIENT))
        assert patient.wait is not None
        deadline = patient.wait.deadline
        assert (patient.wait.owner, deadline) == ("coordinator", NOW + timedelta(days=14))
        INTAKE.miss_completion(patient, Due("deadline", deadline), NO_FACTS, deadline)
        assert patient.wait.escalated_at == deadline
        INTAKE.miss_completion(patient, Due("deadline", deadline), NO_FACTS, deadline + timedelta(days=1))
        assert patient.wait.escalated_at == deadline

    def test_completing_ends_the_wait_and_is_announced(self) -> None:
        patient = registered(bundle(ORGANIZATION, COVERAGE, without(PATIENT, "communication")))
        events = correct(patient, language="es")
        assert patient.state is model.State.COMPLETE
        assert patient.wait is None
        assert "deadline" not in patient.timers
        assert names(events) == ["PatientCompleted", "PersonChanged"]

    def test_removing_a_field_makes_a_registration_incomplete_again(self) -> None:
        patient = registered()
        events = correct(patient, birth_date=None)
        assert patient.state is model.State.INCOMPLETE
        assert patient.wait is not None
        assert names(events) == ["PatientIncomplete", "PersonChanged"]

    def test_other_missing_fields_than_before_are_announced_without_a_new_wait(self) -> None:
        patient = registered(bundle(PATIENT))
        events = correct(patient, coverages=(model.StatedCoverage(payer_id="acme"),))
        incomplete = [event for event in events if isinstance(event, PatientIncomplete)]
        assert [event.missing for event in incomplete] == [("Coverage.subscriberId",)]
        assert patient.wait is not None
        assert patient.wait.since == NOW


class TestCorrections:
    def test_only_a_change_is_announced(self) -> None:
        patient = registered()
        assert correct(patient, family="Rivera", language="es") == []
        assert patient.corrections == []

    def test_sending_the_same_bundle_again_changes_nothing(self) -> None:
        raw = whole_bundle(condition("I10"), consent("deny", "voice", "2026-01-01T00:00:00Z"))
        patient = registered(raw)
        before = patient.model_dump()
        assert resend(patient, raw) == []
        assert patient.model_dump() == before

    def test_a_corrected_field_keeps_what_when_and_who(self) -> None:
        patient = registered()
        correct(patient, family="Rivera Soto", mobile=None)
        history = [(c.field, c.by, c.at, c.before, c.after) for c in patient.corrections]
        assert history == [
            ("Patient.name.family", "coordinator-1", LATER, "Rivera", "Rivera Soto"),
            ("Patient.telecom.mobile", "coordinator-1", LATER, "+15125550142", None),
        ]

    def test_what_a_bundle_does_not_say_stays(self) -> None:
        patient = registered()
        resend(patient, bundle({"resourceType": "Patient", "id": "ana", "gender": "other"}))
        assert patient.gender is model.Gender.OTHER
        assert patient.mobile == "+15125550142"
        assert patient.coverage is not None

    def test_a_record_of_a_corrected_fact_is_unconfirmed_again(self) -> None:
        patient = registered(whole_bundle(condition("I10")))
        fact = patient.facts[0]
        assert fact.unconfirmed
        INTAKE.confirm_fact(patient, model.ConfirmFact("dr", fact.id), NO_FACTS, LATER)
        assert (patient.facts[0].confirmed_by, patient.facts[0].confirmed_at) == ("dr", LATER)
        status = {"coding": [{"code": "resolved"}]}
        resend(patient, whole_bundle(condition("I10", clinicalStatus=status)))
        assert patient.facts[0].unconfirmed
        assert patient.facts[0].status == "resolved"

    def test_a_fact_entered_in_error_is_taken_back_and_stays_in_the_history(self) -> None:
        patient = registered(whole_bundle(condition("I10")))
        wrong = {"coding": [{"code": "entered-in-error"}]}
        resend(patient, whole_bundle(condition("I10", verificationStatus=wrong)))
        assert patient.facts == []
        assert patient.corrections[-1].field.startswith("Condition(")

    def test_a_fact_knows_where_it_came_from(self) -> None:
        patient = registered(whole_bundle(condition("I10", recordedDate="2025-05-01")))
        fact = patient.facts[0]
        assert fact.codings == (Coding(system="http://hl7.org/fhir/sid/icd-10-cm", code="I10"),)
        assert (fact.provenance.source, fact.provenance.by, fact.provenance.reference) == (
            model.Source.BUNDLE,
            "tester",
            "Condition/c-I10",
        )
        assert str(fact.provenance.recorded) == "2025-05-01"

    def test_confirming_an_unknown_fact_is_refused(self) -> None:
        with pytest.raises(NotFound):
            INTAKE.confirm_fact(registered(), model.ConfirmFact("dr", ID), NO_FACTS, NOW)


class TestContact:
    def person(self, patient: model.Patient) -> PersonChanged:
        return model.person_of(patient)

    def test_channels_follow_what_contact_there_is(self) -> None:
        assert self.person(registered()).channels == (Channel.SMS, Channel.EMAIL, Channel.VOICE, Channel.LETTER)
        letters_only = registered(bundle(ORGANIZATION, COVERAGE, without(PATIENT, "telecom")))
        assert self.person(letters_only).channels == (Channel.LETTER,)

    def test_wishes_come_first_and_only_they_are_used(self) -> None:
        patient = registered()
        correct(patient, channels=(Channel.EMAIL, Channel.LETTER))
        assert self.person(patient).channels == (Channel.EMAIL, Channel.LETTER)

    def test_a_wish_that_cannot_be_met_does_not_leave_a_person_unreachable(self) -> None:
        patient = registered()
        correct(patient, channels=(Channel.EMAIL,), email=None)
        assert self.person(patient).channels == (Channel.SMS, Channel.VOICE, Channel.LETTER)

    def test_the_time_zone_is_that_of_the_state_until_another_is_stated(self) -> None:
        patient = registered()
        assert self.person(patient).timezone == "America/Chicago"
        correct(patient, timezone="America/Denver")
        assert self.person(patient).timezone == "America/Denver"

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("(512) 555-0142", "+15125550142"),
            ("1-512-555-0142", "+15125550142"),
            ("512.555.0142 ext. 7", "+15125550142"),
            ("+34 912 345 678", "+34912345678"),
            ("0034 912 345 678", "+34912345678"),
            ("555-0142", None),
            ("call my sister", None),
            ("", None),
        ],
    )
    def test_numbers_are_kept_in_e164(self, text: str, number: str | None) -> None:
        assert model.e164(text) == number

    def test_a_stop_is_recorded_and_told_once(self) -> None:
        patient = registered()
        event = ChannelRevoked(patient_id=ID, channel=Channel.SMS)
        model.revoke_channel(patient, event, NO_FACTS, NOW)
        (told,) = taken(patient)
        assert isinstance(told, PersonChanged)
        assert told.revoked == (Channel.SMS,)
        model.revoke_channel(patient, event, NO_FACTS, LATER)
        assert taken(patient) == []

    def test_an_older_consent_does_not_undo_a_stop_and_a_newer_one_does(self) -> None:
        patient = registered()
        model.revoke_channel(patient, ChannelRevoked(patient_id=ID, channel=Channel.SMS), NO_FACTS, NOW)
        resend(patient, whole_bundle(consent("permit", "sms", "2026-01-01T00:00:00Z")))
        assert Channel.SMS in patient.revoked
        correct(patient, consents=(consented(Channel.SMS, permitted=True, at=LATER),))
        assert Channel.SMS not in patient.revoked

    def test_a_denial_holds_until_its_consent_ends(self) -> None:
        patient = registered(whole_bundle(consent("deny", "voice", "2026-01-01T00:00:00Z")))
        assert self.person(patient).revoked == (Channel.VOICE,)
        resend(patient, whole_bundle(consent("deny", "voice", "2026-01-01T00:00:00Z", status="inactive")))
        assert self.person(patient).revoked == ()


class TestNeeds:
    def test_a_new_barrier_is_announced_once_in_the_patients_language(self) -> None:
        patient = announced_registration(whole_bundle(condition("Z59.82")))
        barriers = [event for event in taken(patient) if type(event).__name__ == "BarrierRecorded"]
        assert [(b.barrier, b.language) for b in barriers] == [(Barrier.TRANSPORTATION, "es")]  # type: ignore[attr-defined]
        assert names(resend(patient, whole_bundle(condition("Z59.82")))) == []

    def test_stated_barriers_replace_and_found_ones_add(self) -> None:
        patient = registered(whole_bundle(condition("Z59.82")))
        assert names(correct(patient, barriers=(Barrier.INTERPRETER,))) == ["BarrierRecorded"]
        assert [need.barrier for need in patient.needs] == [Barrier.INTERPRETER]
        assert names(correct(patient, found_barriers=(Barrier.TRANSPORTATION,))) == ["BarrierRecorded"]
        assert [need.barrier for need in patient.needs] == [Barrier.INTERPRETER, Barrier.TRANSPORTATION]


class TestProxies:
    def stated(self, **more: Any) -> model.StatedProxy:
        return model.StatedProxy(id=ID, name="Luz Rivera", scopes=(model.ProxyScope.APPOINTMENTS,), **more)

    def test_a_proxy_may_do_what_is_in_scope_until_the_last_day(self) -> None:
        patient = registered()
        correct(patient, proxies=(self.stated(valid_to=LATER.date()),))
        proxy = patient.proxies[0]
        assert proxy.may(model.ProxyScope.APPOINTMENTS, LATER.date())
        assert not proxy.may(model.ProxyScope.RECORDS, LATER.date())
        assert not proxy.may(model.ProxyScope.APPOINTMENTS, LATER.date() + timedelta(days=1))

    def test_a_revocation_works_at_once_and_no_old_record_undoes_it(self) -> None:
        patient = registered()
        correct(patient, proxies=(self.stated(),))
        INTAKE.revoke_proxy(patient, model.RevokeProxy("coordinator-1", ID), NO_FACTS, LATER)
        assert not patient.proxies[0].may(model.ProxyScope.APPOINTMENTS, NOW.date())
        correct(patient, proxies=(self.stated(),))
        assert not patient.proxies[0].may(model.ProxyScope.APPOINTMENTS, NOW.date())

    def test_revoking_an_unknown_proxy_is_refused(self) -> None:
        with pytest.raises(NotFound):
            INTAKE.revoke_proxy(registered(), model.RevokeProxy("coordinator-1", ID), NO_FACTS, NOW)


class TestTheEnd:
    def test_what_was_entered_in_error_is_forgotten_everywhere(self) -> None:
        patient = registered(whole_bundle(condition("I10")))
        INTAKE.enter_in_error(patient, model.EnterInError("coordinator-1"), NO_FACTS, LATER)
        events = taken(patient)
        assert names(events) == ["PatientIncomplete", "PersonChanged"]
        assert events[1] == PersonChanged(patient_id=ID, erased=True)
        assert patient.timers == {}
        left = patient.model_dump_json()
        for personal in ("Rivera", "1961", "5125550142", "SBX-APPROVE-1", "I10", "Elm"):
            assert personal not in left

    def test_nothing_is_taken_into_an_ended_registration(self) -> None:
        patient = registered()
        INTAKE.enter_in_error(patient, model.EnterInError("coordinator-1"), NO_FACTS, LATER)
        with pytest.raises(Conflict):
            correct(patient, family="Rivera")
        with pytest.raises(Conflict):
            resend(patient, whole_bundle())
        with pytest.raises(IllegalTransition):
            INTAKE.enter_in_error(patient, model.EnterInError("coordinator-1"), NO_FACTS, LATER)
