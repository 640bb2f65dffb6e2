"""Whether a service is covered and needs approval: by rule, or by the payer's own word, which prevails."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.prior_authorization.model import Member, State, opening
from services.prior_authorization.model.requirement import (
    Course,
    CoverageInformation,
    Covered,
    DocNeeded,
    DocPurpose,
    InfoNeeded,
    PaNeeded,
    course,
    standing_answer,
    with_answer,
)
from services.prior_authorization.model.rows import age_on
from services.prior_authorization.model.rules import RuleBook, RulesError, Terms
from services.prior_authorization.pas.coverage import read_coverage
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import AuthorizationApproved, AuthorizationEscalated
from shared.kit.auth import Role
from shared.kit.errors import Invalid
from tests.unit.prior_authorization import coverage
from tests.unit.prior_authorization.cases import (
    CONSULT,
    COVERAGE,
    CPT,
    NOT_COVERED,
    NOW,
    OFFICE_VISIT,
    PATIENT,
    PAYER_ID,
    SNOMED,
    asked,
    due,
    events,
    facts,
    knowing,
    last,
    member,
    opened,
    shipped,
    told,
    uid,
)
from tests.unit.prior_authorization.coverage import extension, order
from tests.unit.prior_authorization.world import World

DAY = date(2026, 3, 2)


def assess(book: RuleBook, service: Coding = CONSULT, **changes: Any) -> Terms:
    plan = changes.pop("plan", None)
    return book.assess(
        changes.pop("payer", "acme"), plan, service, on=changes.pop("on", DAY), expedited=False, **changes
    )


# -- the rules ------------------------------------------------------------------------------------------------------

RULES = """
[[rules]]
why = "children-under-nine"
codes = ["992*"]
age_until = 9
pa_needed = "no-auth"
[[rules]]
why = "in-hospital"
codes = ["99244"]
places = ["21", "22"]
pa_needed = "auth-needed"
doc_needed = ["clinical"]
doc_purpose = ["withpa"]
questionnaires = ["http://acme.test/q"]
[[rules]]
why = "gold-card"
plan = "gold"
codes = ["99244"]
pa_needed = "satisfied"
satisfied_pa_id = "GOLD-CARD"
expires_days = 90
[[rules]]
why = "cosmetic"
codes = ["15780..15783"]
covered = "not-covered"
[[rules]]
why = "by-site"
codes = ["70551"]
covered = "conditional"
pa_needed = "conditional"
info_needed = ["location"]
[[rules]]
why = "performer"
codes = ["70552"]
pa_needed = "performpa"
[[rules]]
why = "drugs"
kinds = ["drug"]
pa_needed = "indeterminate"
[[rules]]
why = "from-july"
codes = ["99244"]
from = 2026-07-01
needed = false
"""


@pytest.mark.parametrize(
    ("code", "changes", "why", "follows"),
    [
        ("99244", {}, "default", Course.SEEK),
        ("99244", {"age": 8}, "children-under-nine", Course.NOT_REQUIRED),
        ("99244", {"age": 9}, "default", Course.SEEK),
        ("99244", {"place": "21"}, "in-hospital", Course.SEEK),
        ("99244", {"place": "11"}, "default", Course.SEEK),
        ("99244", {"plan": "gold"}, "gold-card", Course.SATISFIED),
        ("99244", {"on": date(2026, 6, 30)}, "default", Course.SEEK),
        ("99244", {"on": date(2026, 7, 1)}, "from-july", Course.NOT_REQUIRED),
        ("15779", {}, "default", Course.SEEK),
        ("15780", {}, "cosmetic", Course.ASK_PERSON),
        ("15783", {}, "cosmetic", Course.ASK_PERSON),
        ("70551", {}, "by-site", Course.ASK_PERSON),
        ("70552", {}, "performer", Course.ASK_PERSON),
        ("J0129", {"kind": "drug"}, "drugs", Course.SEEK),
    ],
)
def test_a_requirement_follows_from_code_plan_place_age_kind_and_date(
    code: str, changes: dict[str, Any], why: str, follows: Course
) -> None:
    terms = assess(RuleBook.parse(RULES), Coding(system=CPT, code=code), **changes)
    assert (terms.why, terms.course[0]) == (why, follows)
    assert terms.needed == (follows is not Course.NOT_REQUIRED)


def test_what_a_rule_says_is_told_by_crds_names() -> None:
    told_by_rule = assess(RuleBook.parse(RULES), plan="gold").told
    assert (told_by_rule.covered, told_by_rule.pa_needed) == ("covered", "satisfied")
    assert (told_by_rule.satisfied_pa_id, told_by_rule.expires_on) == ("GOLD-CARD", DAY + timedelta(days=90))
    in_hospital = assess(RuleBook.parse(RULES), place="21")
    assert [need.canonical for need in in_hospital.needs] == ["http://acme.test/q"]
    assert (in_hospital.told.doc_needed, in_hospital.told.doc_purpose) == (("clinical",), ("withpa",))


@pytest.mark.parametrize("covered", Covered)
@pytest.mark.parametrize("pa", [None, *PaNeeded])
def test_every_pair_of_crds_codes_has_its_course(covered: Covered, pa: PaNeeded | None) -> None:
    number = "N-1" if pa is PaNeeded.SATISFIED else None
    said = CoverageInformation(covered=covered, pa_needed=pa, satisfied_pa_id=number, source="payer", why="A-1")  # type: ignore[arg-type]
    follows = course(said)[0]
    if covered in (Covered.NOT_COVERED, Covered.CONDITIONAL) or pa in (PaNeeded.CONDITIONAL, PaNeeded.PERFORMER):
        assert follows is Course.ASK_PERSON
    elif pa is PaNeeded.NO_AUTH:
        assert follows is Course.NOT_REQUIRED
    elif pa is PaNeeded.SATISFIED:
        assert follows is Course.SATISFIED
    else:
        assert follows is Course.SEEK


def test_while_the_member_is_not_known_no_rule_that_depends_on_it_is_passed_by() -> None:
    book = RuleBook.parse(
        '[[rules]]\nwhy = "children"\nage_until = 18\nneeded = true\n[[rules]]\nwhy = "all"\nneeded = false\n'
    )
    assert assess(book, member_known=False).needed
    assert not assess(book, age=40).needed
    assert assess(book, age=4).needed
    document = opened(book)
    assert document.state is State.AWAITING_MEMBER
    assert knowing(document, book=book).state is State.NOT_REQUIRED


def test_who_is_born_on_a_leap_day_is_a_year_older_on_the_first_of_march() -> None:
    born = date(2020, 2, 29)
    assert [age_on(born, day) for day in (date(2021, 2, 28), date(2021, 3, 1), date(2024, 2, 29))] == [0, 1, 4]
    assert age_on(None, DAY) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('why = "x"', "needed"),
        ('why = "x"\nneeded = true\npa_needed = "no-auth"', "needed"),
        ('why = "x"\npa_needed = "maybe"', "pa_needed"),
        ('why = "x"\npa_needed = "satisfied"', "satisfied-without-number"),
        ('why = "x"\npa_needed = "no-auth"\nsatisfied_pa_id = "N"', "number-though-not-satisfied"),
        ('why = "x"\ncovered = "not-covered"\npa_needed = "auth-needed"', "pa-needed-though-not-covered"),
        ('why = "x"\npa_needed = "no-auth"\ndoc_needed = ["admin"]\ndoc_purpose = ["withpa"]', "not-needed"),
        ('why = "x"\npa_needed = "auth-needed"\nquestionnaires = ["http://q"]', "questionnaire-without-doc-needed"),
        ('why = "x"\npa_needed = "auth-needed"\ninfo_needed = ["location"]', "info-needed-though-not-conditional"),
        ('why = "x"\nneeded = true\ncodes = ["99215..99202"]', "codes"),
        ('why = "x"\nneeded = true\ncodes = ["992*5"]', "codes"),
        ('why = "x"\nneeded = true\ncodes = ["1..99"]', "codes"),
        ('why = "x"\nneeded = true\nage_from = 18\nage_until = 9', "age_until"),
        ('why = "x"\nneeded = true\nfrom = 2026-01-01\nuntil = 2025-01-01', "until"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused_with_its_place(row: str, reason: str) -> None:
    with pytest.raises(RulesError, match=rf"rules\.0.*{reason}"):
        RuleBook.parse(f"[[rules]]\n{row}\n")


# -- reading the payer's word ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("ServiceRequest", "code"),
        ("DeviceRequest", "codeCodeableConcept"),
        ("MedicationRequest", "medicationCodeableConcept"),
        ("Appointment", "serviceType"),
        ("Encounter", "serviceType"),
    ],
)
def test_coverage_information_is_read_from_every_order_it_may_stand_on(kind: str, place: str) -> None:
    concept = {"coding": [CONSULT.model_dump()]}
    concept_or_list: Any = [concept] if kind == "Appointment" else concept
    resource = {"resourceType": kind, place: concept_or_list, "extension": [extension()]}
    (found,) = read_coverage(resource, DAY)
    assert (found.services, found.coverage_id, found.information.pa_needed) == ((CONSULT,), COVERAGE, "auth-needed")


def test_all_its_words_are_read_and_no_text_is_kept() -> None:
    more = [
        {"url": "doc-needed", "valueCode": "clinical"},
        {"url": "doc-needed", "valueCode": "patient"},
        {"url": "doc-purpose", "valueCode": "withpa"},
        {"url": "questionnaire", "valueCanonical": "http://acme.test/q|2"},
        {"url": "info-needed", "valueCode": "performer"},
        {
            "url": "reason",
            "valueCodeableConcept": {"coding": [{"system": "urn:r", "code": "gold-card"}], "text": "Tess"},
        },
        {"url": "contact", "valueContactPoint": {"system": "phone", "value": "555-0100"}},
        {"url": "expiry-date", "valueDate": "2026-05-31"},
        {"url": "billingCode", "valueCoding": {"system": CPT, "code": "99245"}},
    ]
    (found,) = read_coverage(order(pa="conditional", more=more), DAY)
    said = found.information
    assert found.services == (Coding(system=CPT, code="99245"),)
    assert said.doc_needed == (DocNeeded.CLINICAL, DocNeeded.PATIENT)
    assert (said.doc_purpose, said.info_needed) == ((DocPurpose.WITH_PA,), (InfoNeeded.PERFORMER,))
    assert (said.questionnaires, said.reasons) == (("http://acme.test/q|2",), ("gold-card",))
    assert (said.asserted_on, said.expires_on, said.why) == (date(2026, 1, 2), date(2026, 5, 31), "payer:A-1")
    assert not {"Tess", "555-0100"} & set(said.model_dump_json().split('"'))


def test_a_cds_hooks_response_is_read_by_its_system_actions() -> None:
    body = {"cards": [], "systemActions": [{"type": "update", "resource": order()}, {"type": "delete"}]}
    assert len(read_coverage(body, DAY)) == 1


def test_assertions_for_several_codes_and_coverages_are_told_apart() -> None:
    other = [{"url": "billingCode", "valueCoding": {"system": CPT, "code": "99245"}}]
    found = read_coverage(order(extension(), extension(pa="no-auth", more=other), extension(coverage="c-2")), DAY)
    assert [(each.services[0].code, each.coverage_id, each.information.pa_needed) for each in found] == [
        ("99244", COVERAGE, "auth-needed"),
        ("99245", COVERAGE, "no-auth"),
        ("99244", "c-2", "auth-needed"),
    ]


def without(name: str) -> dict[str, Any]:
    """A coverage-information that lacks a part."""
    found = extension()
    found["extension"] = [part for part in found["extension"] if part["url"] != name]
    return found


def broken() -> dict[str, object]:
    """What cannot be used."""
    part = [{"url": "satisfied-pa-id", "valueString": "N-1"}]
    return {
        "not an object": [],
        "another resource": {**order(), "resourceType": "Patient"},
        "no extension": {**order(), "extension": []},
        "an extension that is no list": {**order(), "extension": {}},
        "no coverage": order(without("coverage")),
        "no covered": order(without("covered")),
        "no date": order(without("date")),
        "no assertion id": order(without("coverage-assertion-id")),
        "a code that CRD does not have": order(pa="sometimes"),
        "a word of another type": order(pa=None, more=[{"url": "pa-needed", "valueString": "no-auth"}]),
        "two words for one": order(more=[{"url": "pa-needed", "valueCode": "no-auth"}]),
        "a date ahead": order(date="2027-01-01"),
        "a part of a date": order(date="2026-01"),
        "a number though not satisfied": order(more=part),
        "satisfied without a number": order(pa="satisfied"),
        "approval though not covered": order(covered="not-covered"),
        "a questionnaire without documentation": order(more=[{"url": "questionnaire", "valueCanonical": "http://q"}]),
        "two things of one service": order(extension(), extension(pa="no-auth")),
        "no service": {**order(), "code": {"text": "a consultation"}},
        "no system actions": {"systemActions": []},
        "a reference to another thing": order(
            {**extension(), "extension": [{"url": "coverage", "valueReference": {"reference": "Patient/1"}}]}
        ),
    }


@pytest.mark.parametrize("kind", broken())
def test_what_cannot_be_meant_so_is_refused_with_its_place(kind: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_coverage(broken()[kind], DAY)
    assert refusal.value.flaws
    assert "Tess" not in str([(flaw.path, flaw.reason) for flaw in refusal.value.flaws])


# -- what prevails --------------------------------------------------------------------------------------------------


def test_the_payers_word_prevails_over_the_rules_until_it_expires() -> None:
    until = told("no-auth", expires_on=DAY)
    assert knowing(opened(), until).state is State.NOT_REQUIRED
    assert knowing(opened(), told("no-auth", expires_on=DAY - timedelta(days=1))).state is State.SUBMITTING


def test_the_payers_word_prevails_also_where_the_rules_need_no_approval() -> None:
    fact = facts(member(answers=(told("auth-needed"),)))
    document = opening.request(shipped(), None, asked(service=CONSULT), fact, NOW)
    assert document.state is State.AWAITING_MEMBER
    free = RuleBook.parse('[[rules]]\nwhy = "free"\nneeded = false\n')
    assert opening.request(free, None, asked(), facts(), NOW).state is State.NOT_REQUIRED
    assert opening.request(free, None, asked(), fact, NOW).state is State.AWAITING_MEMBER


def test_a_later_assertion_replaces_an_earlier_one_whatever_order_they_come_in() -> None:
    early, late = told("no-auth", asserted_on=date(2026, 1, 1)), told("auth-needed", asserted_on=date(2026, 2, 1))
    for order_of_arrival in ((early, late), (late, early)):
        known: tuple[Any, ...] = ()
        for each in order_of_arrival:
            known = with_answer(known, each)
        found = standing_answer(known, PAYER_ID, COVERAGE, CONSULT, DAY)
        assert found is not None
        assert found.pa_needed == "auth-needed"
    assert standing_answer((early,), "other", COVERAGE, CONSULT, DAY) is None
    assert standing_answer((early,), PAYER_ID, uid("other coverage"), CONSULT, DAY) is None
    assert standing_answer((early,), PAYER_ID, COVERAGE, OFFICE_VISIT, DAY) is None


def test_satisfied_counts_as_approval_under_the_number_the_payer_gave() -> None:
    document = knowing(opened(), told("satisfied", expires_on=date(2026, 9, 1)))
    assert document.state is State.APPROVED
    assert document.submissions == []
    approved = last(document)
    assert isinstance(approved, AuthorizationApproved)
    assert (approved.number, approved.valid_to, approved.units_granted) == ("GOLD-1", date(2026, 9, 1), 4)
    assert document.wait is None
    assert document.due is None


def test_not_covered_is_shown_to_a_person_who_may_seek_it_all_the_same() -> None:
    document = knowing(opened(), NOT_COVERED)
    assert document.state is State.AWAITING_CHOICE
    escalated = last(document)
    assert isinstance(escalated, AuthorizationEscalated)
    assert (escalated.owner, escalated.reason) == ("coordinator", "not-covered")
    document = opening.seek(document, opening.Seek(), facts(), NOW)
    assert document.state is State.SUBMITTING
    again = knowing(document, NOT_COVERED)
    assert again.state is State.SUBMITTING
    assert events(again).count("authorization.escalated.v1") == 1


def test_a_repeat_of_what_is_known_changes_nothing_while_a_person_is_asked() -> None:
    document = knowing(opened(), NOT_COVERED)
    before = document.model_dump()
    assert knowing(document, NOT_COVERED).model_dump() == before


def test_the_shipped_rules_still_ask_for_nothing_but_approval() -> None:
    for service in (CONSULT, Coding(system=SNOMED, code="103696004")):
        terms = assess(shipped(), service, payer="any")
        assert (terms.course[0], terms.needs, terms.why) == (Course.SEEK, (), "default")


# -- over the API ---------------------------------------------------------------------------------------------------

ASKED = {"payer_id": PAYER_ID, "system": CPT, "code": "99244"}


async def post(world: World, path: str, body: object, role: Role = Role.COORDINATOR) -> httpx.Response:
    async with world.harness.client(role) as client:
        return await client.post(path, json=body, headers=world.harness.key())


async def test_a_prospective_order_is_answered_before_any_referral_exists() -> None:
    world = World()
    async with world.harness.client(Role.CLINICIAN) as client:
        free = (await client.get("/requirements", params={**ASKED, "code": "99213"})).json()
        needed = (await client.get("/requirements", params={**ASKED, "on": "2026-03-02"})).json()
        refused = await client.get("/requirements", params={"payer_id": PAYER_ID})
    assert (free["pa-needed"], free["why"], free["course"]) == ("no-auth", "office-visits-need-none", "not-required")
    assert (needed["covered"], needed["pa-needed"], needed["source"]) == ("covered", "auth-needed", "rules")
    assert needed["limits"][0]["decision"] == "7 calendar days"
    assert refused.status_code == 422


async def test_the_payers_answer_is_kept_and_answers_later_questions_and_referrals() -> None:
    world = World()
    ids = world.ids("tess")
    body = {"payer_id": PAYER_ID, "patient_id": ids["patient_id"], "resource": order(**coverage.SATISFIED)}
    assert (await post(world, "/requirements/answers", body)).json()["taken"] == 1
    told_then = (await post(world, "/requirements", {**ASKED, "patient_id": ids["patient_id"]})).json()
    assert (told_then["source"], told_then["satisfied-pa-id"]) == ("payer", "GOLD-1")
    await world.know("tess", "SBX-DENY-1")
    await world.refer("tess")
    await world.until()
    assert (await world.of("tess")).state is State.APPROVED
    assert world.events("tess") == ["approved"]
    assert world.payer.ledger.authorizations == []
    async with world.harness.client(Role.COORDINATOR) as client:
        shown = (await client.get(f"/authorizations/{(await world.of('tess')).id}")).json()
    assert shown["requirement"]["pa-needed"] == "satisfied"
    assert shown["number"] == "GOLD-1"


async def test_an_answer_that_comes_while_a_person_is_asked_is_taken() -> None:
    world = World()
    ids = world.ids("tess")
    body = {"payer_id": PAYER_ID, "patient_id": ids["patient_id"], "resource": order(**coverage.NOT_COVERED)}
    await post(world, "/requirements/answers", body)
    await world.know("tess", "SBX-APPROVE-1")
    id = await world.refer("tess")
    await world.until()
    assert (await world.of("tess")).state is State.AWAITING_CHOICE
    later = {**body, "resource": order(date="2026-01-03", pa="no-auth")}
    await post(world, "/requirements/answers", later)
    await world.until()
    assert (await world.of("tess")).state is State.NOT_REQUIRED
    assert (await post(world, f"/authorizations/{id}/seek", None)).status_code == 409


async def test_an_answer_that_cannot_be_used_is_refused_and_nothing_is_kept() -> None:
    world = World()
    body = {"payer_id": PAYER_ID, "patient_id": PATIENT, "resource": order(pa="sometimes")}
    refused = await post(world, "/requirements/answers", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"].endswith("pa-needed")
    assert await world.harness.all(Member) == []


async def test_what_was_answered_is_forgotten_with_the_person() -> None:
    world = World()
    ids = world.ids("tess")
    body = {"payer_id": PAYER_ID, "patient_id": ids["patient_id"], "resource": order()}
    await post(world, "/requirements/answers", body)
    await world.know("tess", None, erased=True)
    await world.until()
    (kept,) = await world.harness.all(Member)
    assert kept.answers == ()
    assert (await post(world, "/requirements/answers", body)).status_code == 409


async def test_a_choice_that_nobody_makes_stays_escalated_once(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nwhy = "cosmetic"\ncovered = "not-covered"\n', encoding="utf-8")
    world = World(rules=file)
    await world.know("tess", "SBX-APPROVE-1")
    await world.refer("tess")
    await world.until(24 * 10)
    assert world.events("tess") == ["escalated"]
    assert (await world.of("tess")).state is State.AWAITING_CHOICE
    assert due("deadline").timer not in (await world.of("tess")).timers
