"""A denial's way out: data corrected and sent anew, a talk between physicians, an appeal in time, and the letters."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.simulators.adjudication import Script
from services.prior_authorization.letters import LetterKind
from services.prior_authorization.model import Authorization, State, authorization_id, calling
from services.prior_authorization.model.answers import Answered, ErrorAnswer
from services.prior_authorization.model.denials import (
    Track,
    correctable,
    corrections_for,
    evidence_for,
    levels_of,
    track_of,
)
from shared.contracts.prior_authorization import ReviewAction
from shared.contracts.scheduling import TalkBooked
from shared.kit.auth import Role
from tests.unit.prior_authorization.cases import (
    A1,
    A3,
    A3_DATA,
    NOW,
    PAYER_ID,
    answer,
    answered,
    events,
    facts,
    land,
    member,
    rules,
    sent,
    uid,
)
from tests.unit.prior_authorization.test_api import notice
from tests.unit.prior_authorization.test_reading import review
from tests.unit.prior_authorization.world import World


async def denied(*reasons: str, policy: str = "by-person", levels: int = 1, folder: Path, appeal: str = "A1") -> World:
    """Tess' request was denied for these reasons."""
    file = folder / "rules.toml"
    file.write_text(
        f'[[payers]]\npayer = "*"\nline_of_business = "medicare-advantage"\nappeal = "{policy}"\n'
        f"appeal_levels = {levels}\n"
        '[[clocks]]\nline_of_business = "medicare-advantage"\nfrom = 2026-01-01\nstandard = "7 calendar days"\n'
        'expedited = "72 hours"\nappeal_standard = "30 calendar days"\nappeal_expedited = "72 hours"\n'
        'appeal_within = "65 calendar days"\n'
    )
    world = World(file)
    await world.know("tess", "M-1")
    script = Script(decision=ReviewAction.NOT_CERTIFIED, reasons=reasons, appeal=ReviewAction(appeal))
    world.payer.script("M-1", script)
    await world.refer("tess")
    await world.until(1)
    return world


async def post(world: World, verb: str, body: Any = None, role: Role = Role.COORDINATOR) -> httpx.Response:
    """A person does something about Tess' denial."""
    async with world.harness.client(role) as client:
        path = f"/authorizations/{authorization_id(uid('referral', 'tess'))}/{verb}"
        return await client.post(path, json=body, headers=world.harness.key())


async def get(world: World, path: str = "", role: Role = Role.COORDINATOR) -> httpx.Response:
    """What a person sees of it."""
    async with world.harness.client(role) as client:
        return await client.get(f"/authorizations/{authorization_id(uid('referral', 'tess'))}{path}")


async def denial_of(world: World) -> Any:
    """The denial as it is shown."""
    return (await get(world)).json()["denial"]


# -- which way out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "track"),
    [
        (("0P",), Track.ADMINISTRATIVE),
        (("0R", "0U"), Track.ADMINISTRATIVE),
        (("72",), Track.ADMINISTRATIVE),
        (("90",), Track.ADMINISTRATIVE),
        (("0F",), Track.CLINICAL),
        (("82",), Track.CLINICAL),
        (("0V",), Track.CLINICAL),
        (("0T",), Track.CLINICAL),
        (("0P", "0F"), Track.CLINICAL),
        (("0M",), Track.BENEFIT),
        (("09",), Track.BENEFIT),
        (("0L", "0P"), Track.BENEFIT),
        ((), Track.CLINICAL),
        (("ZZ",), Track.CLINICAL),
    ],
)
def test_the_reasons_of_a_denial_tell_the_way_out_of_it(reasons: tuple[str, ...], track: Track) -> None:
    assert track_of(reasons) is track


@pytest.mark.parametrize(
    ("follow_up", "again"),
    [("C", True), ("R", True), ("P", True), (None, True), ("N", False), ("S", False), ("Y", False)],
)
def test_the_payer_says_whether_what_it_refused_may_be_sent_again(follow_up: str | None, again: bool) -> None:
    corrections = corrections_for((), [ErrorAnswer("72", "Coverage.subscriberId", follow_up, 1)])
    assert correctable(corrections) is again
    (named,) = corrections
    assert (named.code, named.path, named.follow_up, named.item) == ("72", "Coverage.subscriberId", follow_up, 1)


def test_what_to_correct_is_named_by_code_and_path_also_where_the_payer_named_no_path() -> None:
    named = corrections_for(("0R", "82"), [ErrorAnswer("AF"), ErrorAnswer(None)])
    assert [(each.code, each.path) for each in named] == [
        ("AF", "Claim.diagnosis"),
        ("unknown", None),
        ("0R", "Claim.diagnosis"),
    ]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (
            "medicare-advantage",
            ["plan-reconsideration", "independent-review-entity", "administrative-law-judge"],
        ),
        ("medicaid-managed-care", ["plan-appeal", "state-fair-hearing"]),
        ("medicaid-ffs", ["state-fair-hearing"]),
        ("chip-managed-care", ["plan-appeal", "state-review"]),
        ("chip-ffs", ["state-review"]),
        ("employer", ["internal-appeal", "external-review"]),
    ],
)
def test_each_line_of_business_has_its_levels_of_appeal(line: str, names: list[str]) -> None:
    assert [level.name for level in levels_of(line)][: len(names)] == names
    assert all(level.basis for level in levels_of(line))


def test_an_appeal_carries_what_answers_the_reason_given() -> None:
    assert evidence_for(Track.CLINICAL, ("0F",), 1) == ("denial-notice", "clinical-notes", "statement-of-necessity")
    assert "published-evidence" in evidence_for(Track.CLINICAL, ("0T",), 1)
    assert "network-inadequacy" in evidence_for(Track.BENEFIT, ("09",), 1)
    assert "decision-on-the-appeal-before" in evidence_for(Track.CLINICAL, ("0F",), 2)


# -- correct and resubmit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["automatic", "by-person", "none"])
async def test_a_denial_for_missing_data_is_corrected_and_sent_anew_and_never_appealed(
    policy: str, tmp_path: Path
) -> None:
    world = await denied("0P", "0R", policy=policy, folder=tmp_path)
    document = await world.of("tess")
    assert document.state is State.DENIED
    assert document.wait is not None
    assert (document.wait.owner, document.wait.reason) == ("coordinator", "correct-and-resubmit")
    shown = await denial_of(world)
    assert shown["track"] == "administrative"
    assert [(c["code"], c["path"]) for c in shown["corrections"]] == [
        ("0P", "Claim.supportingInfo"),
        ("0R", "Claim.diagnosis"),
    ]

    half = await post(world, "resubmit", {"corrected": ["0P"]})
    assert half.status_code == 409
    assert "0R" in half.text

    world.payer.script("M-1", Script())
    diagnosis = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M25.561"}
    done = await post(world, "resubmit", {"corrected": ["0P", "0R"], "diagnoses": [diagnosis]})
    assert done.status_code == 200
    await world.until(2)
    document = await world.of("tess")
    assert document.state is State.APPROVED
    assert [claim.kind for claim in document.submissions] == ["initial", "resubmission"]
    assert document.submissions[1].prior == document.submissions[0].id
    assert [coding.code for coding in document.diagnoses] == ["M25.561"]
    assert world.events("tess") == ["submitted", "denied", "submitted", "approved"]
    assert all(claim.certification_type == "I" for case in world.payer.ledger.authorizations for claim in case.claims)


async def test_a_correction_that_nobody_makes_escalates_once(tmp_path: Path) -> None:
    world = await denied("0P", folder=tmp_path)
    await world.until(24 * 3 - 1)
    assert "escalated" not in world.events("tess")
    await world.until(24 * 9)
    assert world.events("tess").count("escalated") == 1


async def test_a_request_refused_as_often_as_it_was_corrected_is_left_to_appeal(tmp_path: Path) -> None:
    world = await denied("0P", folder=tmp_path)
    for hours in (2, 3):
        assert (await post(world, "resubmit", {"corrected": ["0P"]})).status_code == 200
        await world.until(hours)
    document = await world.of("tess")
    assert document.wait is not None
    assert document.wait.reason == "appeal-or-accept"
    assert (await post(world, "resubmit", {"corrected": ["0P"]})).status_code == 409


def rejected(*errors: ErrorAnswer) -> Authorization:
    """A request that the payer would not take."""
    document = sent(rules())
    land(document, "submit")
    told = answer(document.claim_id, A1, NOW, items=(), errors=errors)
    return calling.settle_submit(document, Answered(told), facts(member()), NOW)


def test_a_rejected_request_is_not_sent_again_as_it_was_but_corrected() -> None:
    document = rejected(ErrorAnswer("72", None, "C"))
    assert document.state is State.SUBMITTING
    assert "submit" not in document.timers
    assert document.wait is not None
    assert document.wait.reason == "correct-and-resubmit"
    assert document.denial is not None
    assert [(each.code, each.path) for each in document.denial.corrections] == [("72", "Coverage.subscriberId")]


def test_a_request_that_the_payer_forbids_to_send_again_calls_a_person_instead() -> None:
    document = rejected(ErrorAnswer("72", None, "N"))
    assert document.denial is None
    assert document.troubles[-1].reason == "rejected-72"


async def test_a_member_number_that_was_wrong_is_put_right_by_intake_and_the_request_sent_anew(tmp_path: Path) -> None:
    world = await denied("72", folder=tmp_path)
    assert (await world.of("tess")).state is State.DENIED
    await world.know("tess", "M-2")
    await world.until(2)
    document = await world.of("tess")
    assert document.state is State.APPROVED
    assert document.submissions[-1].kind == "resubmission"


# -- appeals --------------------------------------------------------------------------------------------------------


async def test_a_clinical_denial_shows_the_level_the_last_day_and_what_the_appeal_must_carry(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    appeal = (await denial_of(world))["appeal"]
    assert (appeal["level"], appeal["name"]) == (1, "plan-reconsideration")
    assert date.fromisoformat(appeal["file_by"]) - NOW.date() == timedelta(days=65)
    assert appeal["lacking"] == ["denial-notice", "clinical-notes", "statement-of-necessity"]


async def test_an_expedited_appeal_is_sent_as_one_with_its_evidence_and_has_72_hours(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    world.payer.script("M-1", Script(decision=ReviewAction.NOT_CERTIFIED, pend_hours=24 * 20))
    evidence = [{"code": "clinical-notes", "reference": uid("notes")}]
    assert (await post(world, "appeal", {"expedited": True, "evidence": evidence})).status_code == 200
    await world.until(2)
    document = await world.of("tess")
    (case,) = world.payer.ledger.authorizations
    assert case.claims[-1].certification_type == "1"
    assert document.state is State.APPEALING
    assert document.wait is not None
    assert document.wait.deadline - document.wait.since == timedelta(hours=72)
    assert document.denial is not None
    assert document.denial.lacking == ("denial-notice", "statement-of-necessity")


async def test_an_appeal_after_the_last_day_to_file_is_refused(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    await world.until(24 * 66)
    late = await post(world, "appeal")
    assert late.status_code == 409
    assert "last day to file" in late.text
    assert (await world.of("tess")).state is State.DENIED


async def test_an_appeal_that_fails_goes_to_the_next_level_until_none_is_left(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path, levels=2, appeal="A3")
    await post(world, "appeal")
    await world.until(2)
    appeal = (await denial_of(world))["appeal"]
    assert (appeal["level"], appeal["name"]) == (2, "independent-review-entity")
    assert "decision-on-the-appeal-before" in appeal["evidence"]
    await post(world, "appeal")
    await world.until(3)
    assert (await world.of("tess")).state is State.DENIED_FINAL
    assert [claim.level for claim in (await world.of("tess")).submissions] == [0, 1, 2]


# -- peer to peer ---------------------------------------------------------------------------------------------------

OFFER = {"start": "2026-03-04T15:00:00Z", "end": "2026-03-04T15:20:00Z"}
"""Two days after the denial."""

CLINICIAN = uid("clinician")


async def test_a_talk_is_asked_for_booked_and_held_and_the_payers_new_word_decides(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    assert (await post(world, "peer-to-peer", {})).status_code == 200
    assert (await world.of("tess")).wait.reason == "peer-to-peer-to-be-booked"  # type: ignore[union-attr]
    assert (await post(world, "peer-to-peer", {"offers": [OFFER]})).status_code == 200
    unknown = await post(world, "peer-to-peer/book", {"start": "2026-03-04T16:00:00Z"})
    assert unknown.status_code == 409
    assert (await post(world, "peer-to-peer/book", {"start": OFFER["start"]}, Role.CLINICIAN)).status_code == 200
    early = await post(world, "peer-to-peer/outcome", {"outcome": "overturned"})
    assert early.status_code == 409, "it has not been held"
    await world.until(49)
    assert (await post(world, "peer-to-peer/outcome", {"outcome": "overturned"})).status_code == 200
    document = await world.of("tess")
    assert document.state is State.DENIED, "only the payer's word changes the state"
    assert document.wait is not None
    assert (document.wait.owner, document.wait.reason) == ("payer", "revised-decision")
    assert "poll" in document.timers
    shown = await denial_of(world)
    assert (shown["peer_to_peer"]["booked"]["start"], shown["peer_to_peer"]["outcome"]) == (
        "2026-03-04T15:00:00.000Z",
        "overturned",
    )


def told_of_talks(world: World) -> list[tuple[str, dict[str, Any]]]:
    """What the public events say of talks, in their order."""
    offered, closed = "authorization.peer-to-peer-offered.v1", "authorization.peer-to-peer-closed.v1"
    return [(kind, each) for kind in (offered, closed) for each in world.told("tess", kind)]


async def place(world: World, talk_id: str) -> None:
    """The clinician's calendar has a place for a talk."""
    document = await world.of("tess")
    start = datetime.fromisoformat(OFFER["start"]) + timedelta(minutes=5)
    event = TalkBooked(
        talk_id=talk_id,
        authorization_id=document.id,
        patient_id=document.patient_id,
        resource_id=CLINICIAN,
        start=start,
        end=start + timedelta(minutes=15),
        timezone="America/Denver",
    )
    await world.arrive(event, talk_id)
    await world.settle()


async def test_a_talk_gets_its_place_from_the_clinicians_calendar(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    assert (await post(world, "peer-to-peer", {"offers": [OFFER], "clinician_id": CLINICIAN})).status_code == 200
    await world.settle()
    ((_, offered),) = told_of_talks(world)
    assert (offered["clinician_id"], offered["offers"], "chosen" in offered) == (CLINICIAN, [OFFER], False)
    await place(world, offered["talk_id"])
    document = await world.of("tess")
    assert document.wait is not None
    assert document.wait.reason == "peer-to-peer-outcome"
    talk = (await denial_of(world))["peer_to_peer"]
    assert (talk["id"], talk["booked"]["start"]) == (offered["talk_id"], "2026-03-04T15:05:00.000Z")
    await world.until(49)
    await post(world, "peer-to-peer/outcome", {"outcome": "upheld"})
    await world.settle()
    kind, closed = told_of_talks(world)[-1]
    assert (kind, closed["talk_id"], closed["outcome"]) == (
        "authorization.peer-to-peer-closed.v1",
        offered["talk_id"],
        "upheld",
    )


async def test_the_time_that_a_person_takes_is_told_to_the_calendar(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    other = {"start": "2026-03-05T15:00:00Z", "end": "2026-03-05T15:20:00Z"}
    await post(world, "peer-to-peer", {"offers": [OFFER, other], "clinician_id": CLINICIAN})
    await post(world, "peer-to-peer/book", {"start": other["start"]})
    await world.settle()
    assert [each.get("chosen") for _, each in told_of_talks(world)] == [None, other]


@pytest.mark.parametrize("end", ["accepted", "approved", "called-off", "another-clinician"])
async def test_a_talk_that_is_not_needed_any_more_is_closed_once(end: str, tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    await post(world, "peer-to-peer", {"offers": [OFFER], "clinician_id": CLINICIAN})
    if end == "accepted":
        await post(world, "accept-denial", None)
    elif end == "called-off":
        await post(world, "cancel", {"reason": "test"})
    elif end == "approved":
        newest = (await world.of("tess")).newest
        assert newest is not None
        await world.until(2)
        item = {"itemSequence": 1, "adjudication": [review("A1", "AUTH-9")]}
        async with world.harness.client(Role.SERVICE, subject="payer-simulator") as client:
            body = notice(newest.id, world.harness.clock.now().isoformat(), item=[item])
            heard = await client.post(f"/payers/{PAYER_ID}/notifications", json=body, headers=world.harness.key())
        assert heard.status_code == 200, heard.text
        await world.settle()
        assert (await world.of("tess")).state is State.APPROVED
    else:
        await post(world, "peer-to-peer", {"clinician_id": uid("another clinician")})
    await world.settle()
    told = told_of_talks(world)
    closed = [each for kind, each in told if kind.endswith("closed.v1")]
    assert [(each["talk_id"], each["outcome"]) for each in closed] == [(told[0][1]["talk_id"], "not-held")]
    offered = [each for kind, each in told if kind.endswith("offered.v1")]
    assert len({each["talk_id"] for each in offered}) == (2 if end == "another-clinician" else 1)
    await place(world, told[0][1]["talk_id"])
    document = await world.of("tess")
    assert document.talk is not None
    assert document.talk.booked is None, "a place that comes too late changes nothing"


async def test_a_talk_that_changed_nothing_leads_on_to_appeal(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    await post(world, "peer-to-peer", {"offers": [OFFER]})
    await post(world, "peer-to-peer/book", {"start": OFFER["start"]})
    await world.until(49)
    await post(world, "peer-to-peer/outcome", {"outcome": "upheld"})
    assert (await world.of("tess")).wait.reason == "appeal-or-accept"  # type: ignore[union-attr]
    assert (await post(world, "peer-to-peer", {"offers": [OFFER]})).status_code == 409, "once held, it is over"
    assert (await post(world, "appeal")).status_code == 200


async def test_a_talk_is_not_offered_where_data_were_wrong_nor_when_its_time_is_over(tmp_path: Path) -> None:
    wrong = await denied("0P", folder=tmp_path)
    assert (await post(wrong, "peer-to-peer", {})).status_code == 409
    late = await denied("82", folder=tmp_path)
    await late.until(24 * 15)
    assert (await post(late, "peer-to-peer", {})).status_code == 409


async def test_an_automatic_appeal_may_be_talked_over_while_it_runs(tmp_path: Path) -> None:
    world = await denied("82", policy="automatic", folder=tmp_path, appeal="A4")
    assert (await world.of("tess")).state is State.APPEALING
    assert (await post(world, "peer-to-peer", {"offers": [OFFER]})).status_code == 200
    assert (await world.of("tess")).wait.reason == "decision"  # type: ignore[union-attr]


# -- letters --------------------------------------------------------------------------------------------------------


async def test_an_appeal_letter_names_the_member_only_to_whoever_may_read_it(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    read = await get(world, "/letters/appeal")
    assert read.status_code == 200
    assert read.headers["cache-control"] == "no-store"
    text = read.json()["text"]
    assert "Tess Canaria" in text
    assert "M-1" in text
    assert "82" in text
    assert "2026-05-06" in text
    assert (await get(world, "/letters/appeal", Role.SCHEDULER)).status_code == 403
    stored = (await world.of("tess")).model_dump_json()
    assert "Canaria" not in stored


async def test_a_letter_about_a_forgotten_member_bears_no_name(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    await world.know("tess", None, erased=True)
    await world.until(2)
    text = (await get(world, "/letters/appeal")).json()["text"]
    assert "[member name]" in text
    assert "Canaria" not in text


@pytest.mark.parametrize(
    ("reasons", "kind", "ask", "says"),
    [
        (("0P",), LetterKind.CORRECTION, None, "code 0P, Claim.supportingInfo: still to be put right"),
        (("82",), LetterKind.TALK, {"offers": [OFFER]}, "Please offer us times"),
        (("82",), LetterKind.APPEAL, None, "Standard appeal, level 1 (plan-reconsideration)"),
    ],
)
async def test_each_letter_is_written_in_plain_words_from_codes(
    reasons: tuple[str, ...], kind: LetterKind, ask: object, says: str, tmp_path: Path
) -> None:
    world = await denied(*reasons, folder=tmp_path)
    if ask is not None:
        await post(world, "peer-to-peer", ask)
    text = (await get(world, f"/letters/{kind}")).json()["text"]
    assert says in text
    assert "$" not in text
    assert grade(text.partition("Subject:")[2].partition("\n")[2]) <= 9


async def test_there_is_no_letter_where_nothing_was_denied(tmp_path: Path) -> None:
    world = await denied("82", folder=tmp_path)
    assert (await get(world, "/letters/correct-and-resubmit")).status_code == 409
    assert (await get(world, "/letters/love")).status_code == 422


def grade(text: str) -> float:
    """The Flesch-Kincaid grade of a text's sentences; lines of lists are left out."""
    prose = " ".join(line for line in text.splitlines() if not line.startswith("-"))
    sentences = [part for part in re.split(r"[.?!:]\s", prose) if part.strip()]
    words = re.findall(r"[A-Za-z]+", prose)
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word.lower().removesuffix("e")))) for word in words)
    return 0.39 * len(words) / len(sentences) + 11.8 * syllables / len(words) - 15.59


def test_a_denial_that_changes_its_reasons_changes_its_way_out() -> None:
    document = answered(sent(rules(appeal="by-person")), A3_DATA)
    assert document.wait is not None
    assert document.wait.reason == "correct-and-resubmit"
    told = answer(document.claim_id, A3, NOW + timedelta(minutes=5))
    calling.take(document, told, calling.Source.NOTIFICATION, NOW)
    assert document.denial is not None
    assert document.denial.track is Track.CLINICAL
    assert document.wait.reason == "appeal-or-accept"
    assert events(document).count("authorization.denied.v1") == 1
