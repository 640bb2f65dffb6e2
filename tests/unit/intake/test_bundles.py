"""Reading Bundles: what is understood, what is left aside with a word, and what is refused with its path."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from services.intake import fhir, model
from shared.contracts.intake import Barrier, Channel
from shared.kit import fhir as kit
from shared.kit.errors import Invalid
from tests.unit.intake.cases import (
    COVERAGE,
    ID,
    ORGANIZATION,
    PATIENT,
    bundle,
    condition,
    consent,
    read,
    registered,
    whole_bundle,
)

CASES = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "cms50" / "patients"
CANARY = "Zyxwv-Canary"
ABOUT_ANA = {"reference": "Patient/ana"}


def refused(raw: object, **options: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        read(raw, **options)
    assert CANARY not in str(refusal.value.flaws)
    return {flaw.path: flaw.reason for flaw in refusal.value.flaws}


def patient_with(**more: Any) -> dict[str, Any]:
    return bundle(ORGANIZATION, COVERAGE, {**PATIENT, **more})


class TestThePerson:
    def test_demographics_are_read_by_use_and_preference(self) -> None:
        said = read(whole_bundle()).statement
        assert (said.family, said.given, said.gender) == ("Rivera", ("Ana", "Luz"), model.Gender.FEMALE)
        assert (said.mobile, said.email, said.phone) == ("+15125550142", "ana.rivera@mail.example", None)
        assert said.language == "es"
        assert said.address == model.Address(lines=("12 Elm St",), city="Austin", state="TX", postal_code="78701")

    def test_old_and_ended_contacts_are_not_used(self) -> None:
        old = {"system": "phone", "use": "old", "value": "512-555-0100"}
        ended = {"system": "phone", "use": "home", "value": "512-555-0101", "period": {"end": "2020-01-01"}}
        said = read(patient_with(telecom=[old, ended])).statement
        assert not said.says("mobile")
        assert not said.says("phone")

    def test_a_contact_that_cannot_be_used_is_left_aside_and_named_without_its_value(self) -> None:
        bad = [{"system": "phone", "value": CANARY}, {"system": "email", "value": CANARY}]
        registration = read(patient_with(telecom=bad))
        assert {flaw.path for flaw in registration.ignored} == {
            "Bundle.entry[2].resource.telecom[0].value",
            "Bundle.entry[2].resource.telecom[1].value",
        }
        assert CANARY not in str(registration.ignored)

    def test_ranked_contacts_are_wishes(self) -> None:
        telecom = [
            {"system": "phone", "use": "mobile", "value": "512-555-0142", "rank": 2},
            {"system": "email", "value": "a@b.example", "rank": 1},
        ]
        assert read(patient_with(telecom=telecom)).statement.channels == (Channel.EMAIL, Channel.SMS)

    def test_a_stated_channel_preference_wins(self) -> None:
        wish = {"url": "https://carerelay.org/fhir/StructureDefinition/channel-preference", "valueCode": "letter"}
        assert read(patient_with(extension=[wish])).statement.channels == (Channel.LETTER,)

    @pytest.mark.parametrize(
        "extension",
        [
            {"url": "http://hl7.org/fhir/StructureDefinition/patient-interpreterRequired", "valueBoolean": True},
            {
                "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-interpreter-needed",
                "valueCoding": {"system": "http://snomed.info/sct", "code": "373066001"},
            },
        ],
    )
    def test_an_interpreter_is_a_barrier(self, extension: dict[str, Any]) -> None:
        assert read(patient_with(extension=[extension])).statement.found_barriers == (Barrier.INTERPRETER,)

    def test_a_stated_time_zone_is_taken_and_a_wrong_one_is_left_aside(self) -> None:
        def zone(value: str) -> dict[str, str]:
            return {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": value}

        assert read(patient_with(extension=[zone("America/Denver")])).statement.timezone == "America/Denver"
        wrong = read(patient_with(extension=[zone("Mars/Base")]))
        assert not wrong.statement.says("timezone")
        assert wrong.ignored[0].path == "Bundle.entry[2].resource.extension[0].valueCode"

    def test_a_language_without_a_code_is_read_by_its_name(self) -> None:
        assert read(patient_with(communication=[{"language": {"text": "Spanish"}}])).statement.language == "es"


class TestCoverage:
    def only(self, coverage: dict[str, Any], **options: Any) -> model.StatedCoverage:
        (found,) = read(bundle(ORGANIZATION, coverage, PATIENT), **options).statement.coverages or ()
        return found

    def test_payer_member_and_plan_are_read(self) -> None:
        coverage = self.only(COVERAGE)
        assert (coverage.payer_id, coverage.member_id, coverage.plan) == ("21-0000001", "SBX-APPROVE-1", "GOLD")

    def test_a_payer_is_mapped_by_any_of_its_names(self) -> None:
        assert self.only(COVERAGE, payers={"Example Health Plan": "ehp"}).payer_id == "ehp"

    def test_a_payer_outside_the_bundle_is_known_by_the_reference(self) -> None:
        assert self.only({**COVERAGE, "payor": [{"reference": "Organization/acme"}]}).payer_id == "acme"

    def test_a_member_id_may_stand_in_an_identifier(self) -> None:
        coverage = {name: value for name, value in COVERAGE.items() if name != "subscriberId"}
        member = {"type": {"coding": [{"code": "MB"}]}, "value": "M-1"}
        other = {"value": "G-9"}
        assert self.only({**coverage, "identifier": [other, member]}).member_id == "M-1"
        assert self.only({**coverage, "identifier": [other]}).member_id == "G-9"
        assert self.only({**coverage, "identifier": [other, {"value": "x"}]}).member_id is None

    def test_a_person_who_pays_is_no_payer(self) -> None:
        assert self.only({**COVERAGE, "payor": [ABOUT_ANA]}).payer_id is None

    def test_a_cancelled_coverage_is_withdrawn(self) -> None:
        assert self.only({**COVERAGE, "status": "cancelled"}).withdrawn

    def test_a_payer_that_is_nowhere_in_the_bundle_is_refused(self) -> None:
        nowhere = {"reference": "urn:uuid:9fcf2511-0d4f-417a-a1fa-baca09598bef"}
        assert refused(bundle({**COVERAGE, "payor": [nowhere]}, PATIENT)) == {
            "Bundle.entry[0].resource.payor[0].reference": "leads to nothing in this Bundle"
        }


class TestClinicalFacts:
    def test_conditions_allergies_and_medications_are_taken_with_their_names(self) -> None:
        allergy = {
            "resourceType": "AllergyIntolerance",
            "id": "a",
            "patient": ABOUT_ANA,
            "code": {"text": "Penicillin"},
            "clinicalStatus": {"coding": [{"code": "active"}]},
        }
        medication = {"resourceType": "Medication", "id": "m", "code": {"coding": [{"system": "rx", "code": "1"}]}}
        statement = {
            "resourceType": "MedicationStatement",
            "id": "s",
            "status": "active",
            "subject": ABOUT_ANA,
            "medicationReference": {"reference": "Medication/m"},
        }
        facts = read(whole_bundle(condition("I10"), allergy, medication, statement)).statement.facts
        assert [(fact.kind.value, fact.status, fact.text) for fact in facts] == [
            ("Condition", None, None),
            ("AllergyIntolerance", "active", "Penicillin"),
            ("MedicationStatement", "active", None),
        ]
        assert facts[2].codings[0].code == "1"

    @pytest.mark.parametrize(
        ("code", "barrier"),
        [
            ("Z75.3", Barrier.TRANSPORTATION),
            ("Z59.82", Barrier.TRANSPORTATION),
            ("Z59.86", Barrier.PRESCRIPTION_ASSISTANCE),
            ("Z91.120", Barrier.PRESCRIPTION_ASSISTANCE),
        ],
    )
    def test_social_needs_are_barriers(self, code: str, barrier: Barrier) -> None:
        assert read(whole_bundle(condition(code))).statement.found_barriers == (barrier,)

    @pytest.mark.parametrize("field", ["clinicalStatus", "verificationStatus"])
    def test_a_need_that_is_over_or_wrong_is_no_barrier(self, field: str) -> None:
        code = {"clinicalStatus": "resolved", "verificationStatus": "refuted"}[field]
        raw = whole_bundle(condition("Z59.82", **{field: {"coding": [{"code": code}]}}))
        assert read(raw).statement.found_barriers == ()

    @pytest.mark.parametrize(("answer", "found"), [("LA33-6", (Barrier.TRANSPORTATION,)), ("LA32-8", ())])
    def test_a_screening_answered_with_yes_is_a_barrier(self, answer: str, found: tuple[Barrier, ...]) -> None:
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "subject": ABOUT_ANA,
            "code": {"coding": [{"system": "http://loinc.org", "code": "93030-5"}]},
            "valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": answer}]},
        }
        assert read(whole_bundle(observation)).statement.found_barriers == found

    def test_an_odd_observation_does_not_stand_in_the_way(self) -> None:
        odd = {"resourceType": "Observation", "status": 7, "subject": {"reference": 3}, "code": "x"}
        assert read(whole_bundle(odd)).patient_id == ID


class TestPeopleAndConsents:
    def test_a_related_person_is_a_proxy_with_the_scopes_given(self) -> None:
        scope = {"url": "https://carerelay.org/fhir/StructureDefinition/proxy-scope", "valueCode": "appointments"}
        person = {
            "resourceType": "RelatedPerson",
            "id": "r",
            "patient": ABOUT_ANA,
            "name": [{"given": ["Luz"], "family": "Rivera"}],
            "relationship": [{"coding": [{"code": "DAU"}]}],
            "telecom": [{"system": "phone", "value": "512-555-0199"}],
            "extension": [scope],
        }
        (proxy,) = read(whole_bundle(person)).statement.proxies
        assert (proxy.name, proxy.relationship, proxy.phone) == ("Luz Rivera", "DAU", "+15125550199")
        assert proxy.scopes == (model.ProxyScope.APPOINTMENTS,)
        assert read(whole_bundle({**person, "active": False})).statement.proxies[0].active is False

    def test_consents_are_read_per_channel_also_in_exceptions(self) -> None:
        nested = consent("deny", "sms", "2026-01-01T00:00:00Z")
        exception = {
            "type": "permit",
            "code": [{"coding": [{"system": "http://hl7.org/fhir/contact-point-system", "code": "phone"}]}],
        }
        nested["provision"]["provision"] = [exception]
        (found,) = read(whole_bundle(nested)).statement.consents
        assert (found.denies, found.permits) == ((Channel.SMS,), (Channel.VOICE,))


class TestRefusals:
    def test_every_wrong_path_is_named_at_once(self) -> None:
        raw = bundle(
            {**COVERAGE, "payor": [{"reference": CANARY}]},
            PATIENT,
            condition("I10", subject={"reference": "Patient/somebody-else"}),
        )
        assert refused(raw) == {
            "Bundle.entry[0].resource.payor[0].reference": (
                "is not a FHIR reference (Type/id, URL, urn:uuid, urn:oid or #id)"
            ),
            "Bundle.entry[2].resource.subject.reference": "does not lead to the Patient of this Bundle",
        }

    @pytest.mark.parametrize(
        ("raw", "path"),
        [
            (bundle(ORGANIZATION), "Bundle.entry"),
            (bundle({**PATIENT, "birthDate": CANARY}), "Bundle.entry[0].resource.birthDate"),
            (bundle({**PATIENT, "birthDate": "2090-01-01"}), "Bundle.entry[0].resource.birthDate"),
            (bundle({**PATIENT, "gender": CANARY}), "Bundle.entry[0].resource.gender"),
            (bundle(PATIENT, {"resourceType": "Coverage", "status": "active"}), "Bundle.entry[1].resource.payor"),
        ],
    )
    def test_an_unusable_bundle_is_refused_with_its_path(self, raw: object, path: str) -> None:
        assert path in refused(raw)

    def test_several_patients_are_refused_until_one_is_named(self) -> None:
        other = {**PATIENT, "id": "ben", "name": [{"family": "Ortiz"}]}
        raw = whole_bundle(other, condition("I10"))
        assert set(refused(raw)) == {"Bundle.entry[2].resource", "Bundle.entry[3].resource"}
        said = read(raw, which="ben")
        assert said.statement.family == "Ortiz"
        assert said.statement.facts == ()
        assert "leads to another Patient than the one asked for" in {flaw.reason for flaw in said.ignored}


def test_what_was_taken_in_is_listed_with_our_ids_which_stay_the_same() -> None:
    first, second = read(whole_bundle(condition("I10"))), read(whole_bundle(condition("I10")))
    assert [taken.reference for taken in first.taken] == ["Patient/ana", "Coverage/cov", "Condition/c-I10"]
    assert first.taken == second.taken
    assert first.taken[0].id == ID


def test_a_patient_goes_out_as_valid_fhir_and_comes_back_the_same() -> None:
    extension = {"url": "http://hl7.org/fhir/StructureDefinition/patient-interpreterRequired", "valueBoolean": True}
    patient = registered(patient_with(extension=[extension]))
    resource = fhir.patient_resource(patient)
    kit.parse(resource, "Patient")
    again = read(bundle(resource)).statement
    told = read(patient_with(extension=[extension])).statement
    for field in ("family", "given", "birth_date", "gender", "mobile", "email", "address", "language"):
        assert getattr(again, field) == getattr(told, field), field
    assert again.found_barriers == (Barrier.INTERPRETER,)


@pytest.mark.skipif(not CASES.is_dir(), reason="the CMS50 cases are not here; set CASES to the folder that holds them")
class TestCms50:
    def test_all_eleven_register_as_incomplete_and_say_what_is_missing(self) -> None:
        files = sorted(CASES.glob("*.json"))
        assert len(files) == 11
        for file in files:
            patient = registered(json.loads(file.read_text()))
            assert patient.state is model.State.INCOMPLETE
            assert patient.missing == (
                "Patient.telecom",
                "Patient.address",
                "Patient.communication.language",
                "Coverage.subscriberId",
            )
            assert patient.coverage is not None
            assert patient.coverage.payer_id == "21-3259825"
            assert patient.wait is not None
