"""The demo's stories come to their ends, through the real services in one process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.demo.cases import DEFAULT_FOLDER, Action, Case, Do, Ending, Scenario, UnusableScenario, load, resources
from deploy.demo.player import Story, play, play_all
from deploy.demo.world import furnish
from tests.unit.demo.town import Town, TownConductor

CASES = {case.name: case for case in load(DEFAULT_FOLDER)}


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with Town() as town:
        await furnish(town.api(), town.clock.now(), "test")
        yield town


async def play_in(town: Town, *cases: Case) -> list[Story]:
    api = town.api()
    return await play_all(cases, api, TownConductor(town, api), run="test")


def faults(stories: list[Story]) -> list[str]:
    return [f"{line.title}: {fault}" for story in stories for line in story.lines for fault in line.faults]


async def test_every_case_ends_as_its_scenario_says(town: Town) -> None:
    stories = await play_in(town, *CASES.values())
    assert faults(stories) == []
    lines = [line for story in stories for line in story.lines]
    assert all(line.as_expected for line in lines)
    assert len(lines) == len(CASES) + 1
    assert await town.parked() == {}


async def test_copies_of_a_case_are_other_patients_with_the_same_story(town: Town) -> None:
    case = CASES["05-denied-then-overturned"]
    stories = await play_in(town, *(case.copy(number) for number in range(3)))
    assert faults(stories) == []
    assert len({story.patient_id for story in stories}) == 3


async def test_records_from_elsewhere_end_or_wait_with_a_reason_and_a_deadline(town: Town, cases: Path) -> None:
    stories = await play_in(town, *load(cases / "cms50" / "patients"))
    assert faults(stories) == []
    assert {story.registration for story in stories} == {"incomplete"}
    orders = sum(len(resources(story.case.text, "ServiceRequest")) for story in stories)
    assert sum(line.as_expected for story in stories for line in story.lines) == orders > 0


async def test_an_unusable_bundle_is_refused_with_its_paths_and_the_others_go_on(town: Town) -> None:
    good = CASES["01-no-authorization"]
    bundle = json.loads(good.text)
    bundle["entry"][0]["resource"]["birthDate"] = "sometime"
    bad, broken = Case("bad", json.dumps(bundle)), Case("broken", "{")
    refused, unread, played = await play_in(town, bad, broken, good)
    assert any("birthDate" in flaw.path for flaw in refused.flaws)
    assert unread.flaws
    assert [story.lines for story in (refused, unread)] == [[], []]
    assert played.lines[0].as_expected


async def test_an_ending_that_does_not_come_is_told_with_where_it_stands_instead(town: Town) -> None:
    case = CASES["11-coverage-lapsed"]
    wrong = Case(case.name, case.text, Scenario(title="wrong", shows="", ends=Ending(state="closed")))
    api = town.api()
    story = await play(wrong, api, TownConductor(town, api))
    assert not story.lines[0].as_expected
    assert faults([story]) == ["wrong: nothing more happens, in awaiting-coverage (coverage-lapsed)"]


async def test_what_should_have_come_beside_the_ending_is_judged_too(town: Town) -> None:
    case = CASES["11-coverage-lapsed"]
    assert case.scenario is not None
    wrong = case.scenario.model_copy(
        update={
            "authorization": "approved",
            "appealed": True,
            "help": {"interpreter": "helped"},
            "messages": {"reminder": 1},
        }
    )
    (story,) = await play_in(town, Case(case.name, case.text, wrong))
    assert len(faults([story])) == 4


async def test_a_timeline_tells_the_referral_the_visit_and_the_messages_in_order(town: Town) -> None:
    (story,) = await play_in(town, CASES["09-interpreter-and-ride"])
    moments = await story.timeline()
    assert moments == sorted(moments, key=lambda moment: moment.at)
    told = [moment.what for moment in moments]
    assert {"requested", "confirmation by sms", "visit", "closed"} <= set(told)
    assert all("in es" in moment.detail for moment in moments if moment.what.endswith("by sms"))


def test_the_cases_cover_what_the_demo_promises() -> None:
    scenarios = [case.scenario for case in CASES.values() if case.scenario is not None]
    assert len(scenarios) == len(CASES) >= 12
    done = {action.do for scenario in scenarios for action in scenario.actions}
    assert done == set(Do)
    assert {"awaiting-coverage", "awaiting-appointment", "closed", "rejected", "failed"} == {
        scenario.ends.state for scenario in scenarios
    }
    assert {"not-required", "approved"} <= {scenario.authorization for scenario in scenarios}
    assert any(scenario.units and scenario.units.granted < scenario.units.requested for scenario in scenarios)


def test_no_case_holds_a_real_number_or_address() -> None:
    for case in CASES.values():
        (patient,) = resources(case.text, "Patient")
        for point in patient.get("telecom", ()):
            assert point["value"].startswith("+1500555") or point["value"].endswith(".example")
        (coverage,) = resources(case.text, "Coverage")
        assert coverage["subscriberId"].startswith("SBX-")
        assert patient["name"][0]["family"].startswith("Demo-")


def test_a_copy_shares_no_identity_with_its_original() -> None:
    case = CASES["12-cancelled-by-text"]
    copy = case.copy(7)
    assert copy.scenario == case.scenario
    (one,), (other,) = (resources(each.text, "Patient") for each in (case, copy))
    assert one["id"] != other["id"]
    assert one["telecom"] != other["telecom"]
    assert copy.text == case.copy(7).text
    order, patient = resources(copy.text, "ServiceRequest")[0], resources(copy.text, "Patient")[0]
    assert order["subject"]["reference"] == f"Patient/{patient['id']}"


def test_a_scenario_that_cannot_be_played_is_refused_by_field(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.scenario.json").write_text('{"title": "A", "shows": "", "actions": [{"do": "dance"}], "ends": {}}')
    with pytest.raises(UnusableScenario, match=r"a\.scenario\.json: actions\.0\.do.*ends\.state"):
        load(tmp_path)


def test_a_bundle_without_a_scenario_is_played_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "b.bundle.json").write_text("{}")
    (tmp_path / "a.json").write_text("{}")
    assert [(case.name, case.scenario) for case in load(tmp_path)] == [("a", None), ("b", None)]
    assert Action(do=Do.ACCEPT).do is Do.ACCEPT
