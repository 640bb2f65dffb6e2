"""What the FHIR edge promises: it says where and why, never what; and it reads the Bundles that others export."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.patient import Patient

from shared.kit import fhir
from shared.kit.errors import Flaw, Invalid

CASES = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "cms50" / "patients"
SECRET = "Zyxwv-Canary"

PATIENT = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Rivera", "given": ["Ana"]}]}


def entry(resource: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resource": resource, **more}


def bundle(*entries: dict[str, Any], type: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries)}


def flaws_of(raw: object, *used: str) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        fhir.TransactionBundle.read(raw, used or ("Patient", "Coverage", "Condition"))
    return {flaw.path: flaw.reason for flaw in refused.value.flaws}


def flaws_of_resource(raw: dict[str, Any]) -> list[Flaw]:
    with pytest.raises(Invalid) as refused:
        fhir.parse(raw)
    return list(refused.value.flaws)


class TestValidation:
    def test_a_valid_resource_comes_back_as_its_class(self) -> None:
        patient = fhir.parse(PATIENT, Patient)
        assert patient.id == "p1"

    @pytest.mark.parametrize(
        ("raw", "path", "reason"),
        [
            ({"birthDate": SECRET}, "Patient.birthDate", "is not a FHIR date"),
            ({"birthDate": "1990-02-30"}, "Patient.birthDate", "is not a date (YYYY, YYYY-MM or YYYY-MM-DD)"),
            ({"name": [{"family": 7}]}, "Patient.name[0].family", "must be a string"),
            ({"name": {"family": SECRET}}, "Patient.name", "must be a list"),
            ({"gender": SECRET}, "Patient.gender", "is not a code of the value set that FHIR R4 requires here"),
            (
                {"telecom": [{"system": "phone"}, {"system": SECRET}]},
                "Patient.telecom[1].system",
                "is not a code of the value set that FHIR R4 requires here",
            ),
            ({"communication": [{}]}, "Patient.communication[0].language", "is required"),
            ({"familly": SECRET}, "Patient", "has a property that is not a FHIR R4 element"),
            ({f"Name of {SECRET}": 1}, "Patient", "has a property that is not a FHIR R4 element"),
            (
                {"id": f"{SECRET} {SECRET}"},
                "Patient.id",
                "must be a FHIR id: 1 to 64 letters, digits, hyphens and dots",
            ),
            ({"id": "x" * 65}, "Patient.id", "must be a FHIR id: 1 to 64 letters, digits, hyphens and dots"),
            (
                {"deceasedBoolean": False, "deceasedDateTime": "2020-01-01"},
                "Patient.deceased[x]",
                "may be given once only",
            ),
            (
                {"contained": [{"resourceType": SECRET.replace("-", "")}]},
                "Patient",
                "could not be read as this resource type",
            ),
        ],
    )
    def test_a_flaw_has_its_path_and_a_reason_without_the_value(
        self, raw: dict[str, Any], path: str, reason: str
    ) -> None:
        found = flaws_of_resource({"resourceType": "Patient", **raw})
        assert Flaw(path, reason) in found
        assert SECRET not in str(found)

    def test_a_required_choice_is_named_by_its_stem(self) -> None:
        raw = {"resourceType": "MedicationStatement", "status": "active", "subject": {"reference": "Patient/1"}}
        assert flaws_of_resource(raw) == [Flaw("MedicationStatement.medication[x]", "is required")]

    def test_every_flaw_of_a_resource_is_named_at_once(self) -> None:
        found = flaws_of_resource({"resourceType": "Coverage", "status": "active", "foo": 1})
        assert {flaw.path for flaw in found} == {"Coverage.beneficiary", "Coverage.payor", "Coverage"}

    def test_another_resource_type_than_expected_is_refused(self) -> None:
        with pytest.raises(Invalid) as refused:
            fhir.parse(PATIENT, "Coverage")
        assert refused.value.flaws == (Flaw("Coverage.resourceType", "must be Coverage"),)

    @pytest.mark.parametrize("raw", [[], "text", None, 7])
    def test_what_is_no_object_is_refused(self, raw: Any) -> None:
        with pytest.raises(Invalid):
            fhir.parse(raw)

    def test_an_unknown_resource_type_is_refused_without_naming_it(self) -> None:
        found = flaws_of_resource({"resourceType": "Zyxwv"})
        assert found[0].path == "Zyxwv.resourceType" or found[0].path == "Resource.resourceType"

    def test_absurdly_deep_nesting_is_refused_and_does_not_crash(self) -> None:
        extension: dict[str, Any] = {"url": "u"}
        for _ in range(3000):
            extension = {"url": "u", "extension": [extension]}
        assert flaws_of_resource({"resourceType": "Patient", "extension": [extension]})


class TestElements:
    def view(self, **raw: Any) -> fhir.Element:
        return fhir.Element("Thing", raw)

    def test_a_day_needs_its_full_date(self) -> None:
        assert self.view(d="1990-02-03").day("d") == date(1990, 2, 3)
        assert self.view(d="1990-02").day("d") is None
        assert self.view(d="2027-01-01T23:15:00.000+00:00").day("d") == date(2027, 1, 1)

    @pytest.mark.parametrize(
        ("text", "at"),
        [
            ("2027-01-01T00:15:00.123456+02:00", datetime(2026, 12, 31, 22, 15, 0, 123000, UTC)),
            ("2027-03-04", datetime(2027, 3, 4, tzinfo=UTC)),
            ("2027-03", datetime(2027, 3, 1, tzinfo=UTC)),
            ("2027", datetime(2027, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_a_moment_is_utc_to_the_millisecond(self, text: str, at: datetime) -> None:
        assert self.view(at=text).moment("at") == at

    def test_a_wrong_type_is_refused_at_its_path(self) -> None:
        view = self.view(a=1, b="x", c=[1], d="true", e=10**30, f="\ud800")
        reads = (
            lambda: view.text("a"),
            lambda: view.all("b"),
            lambda: view.texts("c"),
            lambda: view.flag("d"),
            lambda: view.whole("e"),
            lambda: view.text("f"),
        )
        for read in reads:
            with pytest.raises(Invalid) as refused:
                read()
            assert refused.value.flaws[0].path.startswith("Thing.")

    def test_names_and_codes_are_read_by_helpers(self) -> None:
        view = self.view(
            code={"coding": [{"system": "s", "code": "c"}, {"display": "Shown"}]},
            identifier=[{"system": "i", "value": "1"}, {"system": "j"}],
            period={"start": "2026-01-01"},
        )
        assert [(c.system, c.code) for c in view.concept("code")] == [("s", "c")]
        assert view.label("code") == "Shown"
        assert view.identifiers() == (("i", "1"),)
        assert view.period("period") == (date(2026, 1, 1), None)


class TestReferences:
    @pytest.mark.parametrize(
        ("literal", "form"),
        [
            ("Patient/p1", "restful"),
            ("https://example.org/fhir/Patient/p1/_history/2", "restful"),
            ("urn:uuid:9fcf2511-0d4f-417a-a1fa-baca09598bef", "urn"),
            ("#org", "contained"),
            ("Patient?identifier=x|y", "conditional"),
        ],
    )
    def test_the_forms_of_a_reference_are_told_apart(self, literal: str, form: str) -> None:
        assert fhir.Element("R", {"reference": literal}).reference().form == form

    @pytest.mark.parametrize("literal", [SECRET, "Patient/", "Patient/a b", "patient/1", "urn:uuid:1", "http://x", ""])
    def test_an_ill_formed_reference_is_named_by_its_path(self, literal: str) -> None:
        with pytest.raises(Invalid) as refused:
            fhir.Element("Coverage.payor[0]", {"reference": literal}).reference()
        assert refused.value.flaws[0].path == "Coverage.payor[0].reference"
        assert SECRET not in str(refused.value.flaws)

    def read(self, *entries: dict[str, Any]) -> fhir.TransactionBundle:
        return fhir.TransactionBundle.read(bundle(*entries), {"Patient", "Coverage", "Organization"})

    def coverage(self, payor: dict[str, Any], **more: Any) -> dict[str, Any]:
        beneficiary = {"reference": "Patient/p1"}
        return {"resourceType": "Coverage", "status": "active", "beneficiary": beneficiary, "payor": [payor], **more}

    def payor(self, read: fhir.TransactionBundle) -> fhir.Element | None:
        return read.resolve(read.of("Coverage")[0].all("payor")[0], "Organization")

    def test_a_relative_reference_finds_the_resource_by_type_and_id(self) -> None:
        read = self.read(
            entry({"resourceType": "Organization", "id": "o1"}), entry(self.coverage({"reference": "Organization/o1"}))
        )
        found = self.payor(read)
        assert found is not None
        assert found.path == "Bundle.entry[0].resource"

    def test_a_urn_finds_the_resource_by_full_url(self) -> None:
        urn = "urn:uuid:9fcf2511-0d4f-417a-a1fa-baca09598bef"
        read = self.read(entry({"resourceType": "Organization"}, fullUrl=urn), entry(self.coverage({"reference": urn})))
        assert self.payor(read) is not None

    def test_a_urn_that_is_not_in_the_bundle_is_refused(self) -> None:
        read = self.read(entry(self.coverage({"reference": "urn:uuid:9fcf2511-0d4f-417a-a1fa-baca09598bef"})))
        with pytest.raises(Invalid) as refused:
            self.payor(read)
        assert refused.value.flaws[0].path == "Bundle.entry[0].resource.payor[0].reference"

    def test_a_reference_to_outside_is_accepted(self) -> None:
        read = self.read(entry(self.coverage({"reference": "Organization/elsewhere"})))
        assert self.payor(read) is None

    def test_an_absolute_reference_does_not_find_another_servers_resource(self) -> None:
        read = self.read(
            entry({"resourceType": "Organization", "id": "o1"}, fullUrl="https://a.example/Organization/o1"),
            entry(self.coverage({"reference": "https://b.example/Organization/o1"})),
        )
        assert self.payor(read) is None

    def test_a_reference_of_the_wrong_type_is_refused(self) -> None:
        read = self.read(entry(PATIENT), entry(self.coverage({"reference": "Patient/p1"})))
        with pytest.raises(Invalid):
            self.payor(read)

    def test_a_contained_resource_is_found(self) -> None:
        contained = [{"resourceType": "Organization", "id": "o", "name": "Payer"}]
        found = self.payor(self.read(entry(self.coverage({"reference": "#o"}, contained=contained))))
        assert found is not None
        assert found.path == "Bundle.entry[0].resource.contained[0]"

    def test_a_logical_reference_is_found_by_its_identifier(self) -> None:
        wanted = {"system": "s", "value": "v"}
        read = self.read(
            entry({"resourceType": "Organization", "id": "o", "identifier": [wanted]}),
            entry(self.coverage({"identifier": wanted})),
        )
        assert self.payor(read) is not None


class TestBundles:
    def test_a_nested_bundle_is_flattened_and_the_later_content_wins(self) -> None:
        older = {**PATIENT, "gender": "female"}
        newer = {**PATIENT, "gender": "male"}
        read = fhir.TransactionBundle.read(bundle(entry(older), entry(bundle(entry(newer)))), {"Patient"})
        assert [patient.text("gender") for patient in read.of("Patient")] == ["male"]
        assert read.subject().path == "Bundle.entry[1].resource.entry[0].resource"

    def test_a_flaw_inside_a_nested_bundle_has_its_full_path(self) -> None:
        raw = bundle(entry(PATIENT), entry(bundle(entry({**PATIENT, "birthDate": SECRET}))))
        assert flaws_of(raw) == {"Bundle.entry[1].resource.entry[0].resource.birthDate": "is not a FHIR date"}

    def test_a_type_that_is_not_used_is_not_looked_into(self) -> None:
        odd = {"resourceType": "EffectEvidenceSynthesis", "whatever": [1, {"x": None}]}
        read = fhir.TransactionBundle.read(bundle(entry(odd), entry(PATIENT)), {"Patient"})
        assert read.subject().id == "p1"

    @pytest.mark.parametrize(
        ("raw", "path"),
        [
            ([], "Bundle.resourceType"),
            (PATIENT, "Bundle.resourceType"),
            (bundle(entry(PATIENT), type="searchset"), "Bundle.type"),
            ({**bundle(entry(PATIENT)), "type": ["transaction"]}, "Bundle.type"),
            (bundle(), "Bundle.entry"),
            ({"resourceType": "Bundle", "type": "transaction", "entry": {}}, "Bundle.entry"),
            (bundle(entry(PATIENT), {"fullUrl": "x"}), "Bundle.entry[1].resource"),
            (bundle(entry({"id": "x"})), "Bundle.entry[0].resource.resourceType"),
            (bundle(entry(PATIENT, fullUrl=3)), "Bundle.entry[0].fullUrl"),
            (
                bundle(entry(PATIENT, request={"method": "DELETE", "url": "Patient/p1"})),
                "Bundle.entry[0].request.method",
            ),
        ],
    )
    def test_an_unusable_bundle_is_refused_with_its_path(self, raw: object, path: str) -> None:
        assert set(flaws_of(raw)) == {path}

    def test_bundles_nested_without_end_are_refused(self) -> None:
        raw = bundle(entry(PATIENT))
        for _ in range(50):
            raw = bundle(entry(raw))
        assert list(flaws_of(raw).values()) == ["is nested too deep"]

    def test_several_patients_need_a_word_which_one_is_meant(self) -> None:
        read = fhir.TransactionBundle.read(bundle(entry(PATIENT), entry({**PATIENT, "id": "p2"})), {"Patient"})
        with pytest.raises(Invalid) as refused:
            read.subject()
        assert [flaw.path for flaw in refused.value.flaws] == ["Bundle.entry[0].resource", "Bundle.entry[1].resource"]
        assert read.subject("p2").id == "p2"

    def test_a_bundle_without_a_patient_is_refused(self) -> None:
        read = fhir.TransactionBundle.read(bundle(entry({"resourceType": "Organization"})), {"Patient"})
        with pytest.raises(Invalid):
            read.subject()

    def test_instance_orders_are_of_order_intent_and_plans_are_not(self) -> None:
        assert "instance-order" in fhir.ORDER_INTENTS
        assert not fhir.ORDER_INTENTS & {"proposal", "plan", "directive", "option"}


@pytest.mark.skipif(not CASES.is_dir(), reason="the CMS50 cases are not here; set CASES to the folder that holds them")
def test_all_eleven_cms50_bundles_are_read_with_each_resource_once() -> None:
    files = sorted(CASES.glob("*.json"))
    assert len(files) == 11
    for file in files:
        read = fhir.TransactionBundle.read(
            json.loads(file.read_text()), {"Patient", "Coverage", "Organization", "ServiceRequest", "Task", "Encounter"}
        )
        assert read.subject().id in file.name
        assert len(read.of("Coverage")) == 1
        assert read.resolve(read.of("Coverage")[0].all("payor")[0], "Organization") is not None
        requests = read.of("ServiceRequest")
        assert requests
        assert len({request.id for request in requests}) == len(requests)
        assert all(request.text("intent") in fhir.ORDER_INTENTS for request in requests)
