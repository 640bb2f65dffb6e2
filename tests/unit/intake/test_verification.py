"""Coverage verification: asked when it matters, believed for as long as it holds, told when it changes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from services.intake import model
from services.intake.model.verification import VERDICT, VERIFY, wanted
from shared.contracts.base import Event
from shared.contracts.intake import CoverageStatus, CoverageUnverifiable, PersonChanged
from shared.kit.decisions import NO_FACTS, Due, Refused
from shared.kit.errors import Conflict
from tests.unit.intake.cases import INTAKE, LATER, NOW, PATIENT, bundle, correct, names, registered, taken

RULES = INTAKE.timing.verification


def verdict(patient: model.Patient, **more: Any) -> model.Verdict:
    coverage = patient.coverage
    assert coverage is not None
    return model.Verdict(**{"coverage_id": coverage.id, "revision": coverage.revision, "inforce": True, **more})


def settle(patient: model.Patient, outcome: Any, at: Any = NOW) -> list[Event]:
    patient.abandon(VERIFY)
    patient.rest(VERIFY)
    INTAKE.settle_verification(patient, outcome, NO_FACTS, at)
    return taken(patient)


def miss(patient: model.Patient, at: Any) -> list[Event]:
    due = Due(VERDICT, patient.timers[VERDICT])
    patient.rest(VERDICT)
    INTAKE.miss_verdict(patient, due, NO_FACTS, at)
    return taken(patient)


def status(patient: model.Patient) -> CoverageStatus:
    return patient.coverage_status


def test_a_stated_member_is_asked_for_at_once_and_a_verdict_is_owed() -> None:
    patient = registered()
    assert patient.timers == {VERIFY: NOW, VERDICT: NOW + RULES.owed_within}
    INTAKE.prepare_verification(patient, Due(VERIFY, NOW), NO_FACTS, NOW)
    assert VERIFY in patient.attempts


def test_nobody_is_asked_about_no_coverage() -> None:
    patient = registered(bundle(PATIENT))
    INTAKE.prepare_verification(patient, Due(VERIFY, NOW), NO_FACTS, NOW)
    assert patient.attempts == {}
    assert not wanted(patient, NO_FACTS, NOW)


def test_in_force_is_announced_with_its_dates_and_asked_again_before_it_ages() -> None:
    patient = registered()
    events = settle(patient, verdict(patient, valid_from=date(2026, 1, 1), valid_to=date(2026, 12, 31)))
    assert names(events) == ["CoverageVerified", "PersonChanged"]
    assert status(patient) is CoverageStatus.ACTIVE
    assert patient.timers[VERIFY] == NOW + RULES.renewed_after
    assert patient.timers[VERDICT] == NOW + RULES.holds_for
    assert patient.timers[VERIFY] < patient.timers[VERDICT]


def test_the_same_verdict_again_is_no_news_but_good_for_longer() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    again = NOW + RULES.renewed_after
    assert settle(patient, verdict(patient), again) == []
    assert patient.timers[VERDICT] == again + RULES.holds_for
    assert patient.coverage is not None
    assert patient.coverage.as_of == again


def test_a_lapse_is_announced_with_a_code_and_asked_about_again() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    events = settle(patient, verdict(patient, inforce=False, reason="ended"), LATER)
    assert names(events) == ["CoverageLapsed", "PersonChanged"]
    assert patient.timers == {VERIFY: LATER + RULES.asked_again_after}
    assert settle(patient, verdict(patient, inforce=False, reason="ended"), LATER) == []


def test_a_payer_that_cannot_tell_leaves_it_unverifiable() -> None:
    patient = registered()
    assert patient.coverage is not None
    outcome = model.NoVerdict(patient.coverage.id, patient.coverage.revision, "payer-unknown")
    events = settle(patient, outcome)
    assert names(events) == ["CoverageUnverifiable", "PersonChanged"]
    assert patient.timers == {VERIFY: NOW + RULES.asked_again_after}


def test_refusals_are_retried_with_growing_pauses_up_to_a_bound() -> None:
    patient = registered()
    pauses = []
    for _ in range(12):
        assert settle(patient, Refused("status-429")) == []
        pauses.append(patient.timers[VERIFY] - NOW)
    assert pauses[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
    assert pauses[-1] == RULES.retry_most


def test_a_payers_own_pause_is_kept() -> None:
    patient = registered()
    settle(patient, Refused("status-429", retry_after=600))
    assert patient.timers[VERIFY] == NOW + timedelta(minutes=10)


def test_no_verdict_in_time_is_announced_once_and_asking_goes_on() -> None:
    patient = registered()
    settle(patient, Refused("ConnectError"))
    at = patient.timers[VERDICT]
    patient.wake(VERIFY, at + timedelta(hours=1))
    events = miss(patient, at)
    assert names(events) == ["CoverageUnverifiable", "PersonChanged"]
    assert isinstance(events[0], CoverageUnverifiable)
    assert events[0].reason == "payer-unreachable"
    assert VERIFY in patient.timers
    assert names(settle(patient, verdict(patient), at + timedelta(hours=1))) == ["CoverageVerified", "PersonChanged"]


def test_a_verdict_that_aged_is_no_longer_believed() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    settle(patient, Refused("status-503"), NOW + RULES.renewed_after)
    assert names(miss(patient, patient.timers[VERDICT])) == ["CoverageUnverifiable", "PersonChanged"]
    assert status(patient) is CoverageStatus.UNVERIFIABLE


def test_a_call_under_way_holds_the_deadline_back_but_not_for_ever() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    at = NOW + timedelta(days=40)
    INTAKE.prepare_verification(patient, Due(VERIFY, patient.timers[VERIFY]), NO_FACTS, at)
    assert miss(patient, at) == []
    assert patient.timers[VERDICT] == at + RULES.grace
    assert names(miss(patient, at + RULES.grace)) == ["CoverageUnverifiable", "PersonChanged"]


def test_another_member_id_is_asked_for_anew_and_the_old_answer_says_nothing() -> None:
    patient = registered()
    INTAKE.prepare_verification(patient, Due(VERIFY, NOW), NO_FACTS, NOW)
    first, asked = patient.attempts[VERIFY].id, verdict(patient)
    events = correct(patient, coverages=(model.StatedCoverage(member_id="SBX-LAPSED-2"),))
    assert names(events) == ["PersonChanged"]
    assert patient.timers[VERIFY] == LATER
    assert patient.attempts == {}
    assert settle(patient, asked) == []
    assert status(patient) is CoverageStatus.UNVERIFIED
    INTAKE.prepare_verification(patient, Due(VERIFY, LATER), NO_FACTS, LATER)
    assert patient.attempts[VERIFY].id != first


def test_a_corrected_plan_is_asked_about_without_losing_the_verdict() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    correct(patient, coverages=(model.StatedCoverage(plan="SILVER"),))
    assert status(patient) is CoverageStatus.ACTIVE
    assert patient.timers[VERIFY] == LATER


def test_a_coverage_taken_back_is_told_to_everybody() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    events = correct(patient, coverages=None)
    assert names(events) == ["PatientIncomplete", "CoverageUnverifiable", "PersonChanged"]
    unverifiable, person = events[1], events[2]
    assert isinstance(unverifiable, CoverageUnverifiable)
    assert isinstance(person, PersonChanged)
    assert (unverifiable.coverage_id, unverifiable.reason) == (None, "no-coverage")
    assert person.coverage is None
    assert VERIFY not in patient.timers


def test_the_coverage_that_pays_first_is_the_one_asked_about() -> None:
    patient = registered()
    events = correct(
        patient,
        coverages=(
            model.StatedCoverage(id="22222222-2222-5222-8222-222222222222", payer_id="b", member_id="2", order=1),
        ),
    )
    assert patient.coverage is not None
    assert patient.coverage.payer_id == "b"
    assert names(events) == ["PersonChanged"]


def test_a_person_can_have_the_payer_asked_now() -> None:
    patient = registered()
    settle(patient, verdict(patient))
    INTAKE.verify_coverage(patient, model.VerifyCoverage("coordinator-1"), NO_FACTS, LATER)
    assert patient.timers[VERIFY] == LATER


def test_asking_without_enough_to_ask_with_is_refused_with_what_is_missing() -> None:
    with pytest.raises(Conflict) as refused:
        INTAKE.verify_coverage(registered(bundle(PATIENT)), model.VerifyCoverage("coordinator-1"), NO_FACTS, LATER)
    assert [flaw.path for flaw in refused.value.flaws] == ["Coverage.payor", "Coverage.subscriberId"]
