"""Nothing is sent incomplete: what a request needs, what is there, what is missing, and what was sent."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.prior_authorization.model import Authorization, Contents, State, calling, opening
from services.prior_authorization.model.evidence import (
    Evidence,
    EvidenceKind,
    Need,
    canonical_json,
    in_packet,
    missing,
    snapshot,
)
from services.prior_authorization.model.rules import RuleBook, RulesError
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import MemberKnown
from shared.contracts.referrals import PacketEntry, ReferralPacketCompleted
from shared.kit.auth import Role
from shared.kit.errors import Conflict
from tests.unit.prior_authorization.cases import (
    CPT,
    NOW,
    PATIENT,
    REFERRAL,
    at_state,
    due,
    events,
    facts,
    knowing,
    member,
    opened,
)
from tests.unit.prior_authorization.coverage import FORM
from tests.unit.prior_authorization.world import World

RULES = """
[[evidence]]
why = "imaging"
codes = ["992*"]
needs = [
    { name = "form", kind = "questionnaire", canonical = "http://payer.test/Questionnaire/consultation" },
    { name = "imaging-report", kind = "result", types = ["18748-4", "24604-1"], days = 90 },
    { name = "note", kind = "note" },
]
[[evidence]]
why = "children"
age_until = 18
needs = [{ name = "growth-chart", kind = "document", types = ["11506-3"] }]
"""
BOOK = RuleBook.parse(RULES)
DAY = NOW.date()


def piece(kind: str, type: str, **changes: Any) -> Evidence:
    fields = {"kind": kind, "type": type, "sha256": hashlib.sha256(type.encode()).hexdigest(), "added_at": NOW}
    return Evidence.model_validate({**fields, **changes})


REPORT = piece("result", "18748-4", dated=DAY - timedelta(days=90))
NOTE = piece("note", "11488-4")
ANSWERS = piece("questionnaire", "102089-0", canonical="http://payer.test/Questionnaire/consultation|3")


def wanting() -> Authorization:
    """An authorization that lacks a form, a report and a note."""
    return knowing(opened(BOOK), book=BOOK)


def given(document: Authorization, *pieces: Evidence) -> Authorization:
    return opening.add_evidence(document, opening.AddEvidence(pieces=pieces), facts(), NOW)


# -- what is missing ------------------------------------------------------------------------------------------------


def test_a_request_waits_for_all_that_the_rules_want_and_goes_on_with_the_last_of_it() -> None:
    document = wanting()
    assert document.state is State.AWAITING_EVIDENCE
    assert document.wait is not None
    assert (document.wait.owner, document.wait.reason) == ("coordinator", "evidence-missing")
    assert [need.name for need in document.wanting] == ["form", "imaging-report", "note"]
    given(document, ANSWERS)
    given(document, NOTE)
    assert document.state is State.AWAITING_EVIDENCE
    given(document, REPORT)
    assert document.state is State.SUBMITTING
    assert document.timers["submit"] == NOW


@pytest.mark.parametrize(
    "other",
    [
        piece("result", "18748-4", dated=DAY - timedelta(days=91)),
        piece("result", "18748-4"),
        piece("result", "11502-2", dated=DAY),
        piece("document", "18748-4", dated=DAY),
    ],
    ids=["too old", "undated", "of another type", "of another kind"],
)
def test_what_is_not_what_was_wanted_does_not_do(other: Evidence) -> None:
    document = given(wanting(), ANSWERS, NOTE, other)
    assert [need.name for need in document.wanting] == ["imaging-report"]


def test_answers_to_another_questionnaire_do_not_do_and_the_version_does_not_matter() -> None:
    need = Need.questionnaire("http://payer.test/q|1")
    held = {"sequence": 1}
    assert not missing((need,), (piece("questionnaire", "102089-0", canonical="http://payer.test/q|2", **held),), DAY)
    assert missing((need,), (piece("questionnaire", "102089-0", canonical="http://payer.test/r", **held),), DAY)
    assert missing((need,), (piece("questionnaire", "102089-0", **held),), DAY)


def test_rows_that_match_count_together_and_the_age_decides_once_it_is_known() -> None:
    child = member(birth_date=date(2020, 1, 1))
    document = known_as(child)
    assert [need.name for need in document.wanting] == ["form", "imaging-report", "note", "growth-chart"]


def known_as(patient: Any) -> Authorization:
    return opening.consider_member(BOOK, opened(BOOK), MemberKnown(patient_id=PATIENT), facts(patient), NOW)


def test_what_is_only_known_of_is_not_there() -> None:
    entries = (
        PacketEntry(
            kind="notes", sha256=NOTE.sha256, code=Coding(system="http://loinc.org", code="11488-4"), reference="D/1"
        ),
        PacketEntry(kind="reason", sha256="0" * 64, code=Coding(system="http://snomed.info/sct", code="1")),
    )
    event = ReferralPacketCompleted(referral_id=REFERRAL, patient_id=PATIENT, packet_hash="h", packet=entries)
    document = opening.packet_completed(wanting(), event, facts(), NOW)
    (known,) = document.evidence
    assert (known.kind, known.reference, known.held) == (EvidenceKind.NOTE, "D/1", False)
    assert "note" in [need.name for need in document.wanting]
    given(document, NOTE)
    assert [each.held for each in document.evidence] == [True]
    assert "note" not in [need.name for need in document.wanting]
    assert opening.packet_completed(document, event, facts(), NOW).evidence == document.evidence
    assert len(in_packet(entries, NOW)) == 1


def test_the_same_piece_again_changes_nothing() -> None:
    document = given(wanting(), NOTE)
    before = document.model_dump()
    assert given(document, NOTE).model_dump() == before


def test_evidence_is_numbered_as_it_is_attached() -> None:
    document = given(wanting(), NOTE, REPORT)
    assert [(each.sequence, each.type.code, each.digest) for each in document.attachments] == [
        (1, "11488-4", NOTE.sha256),
        (2, "18748-4", REPORT.sha256),
    ]


@pytest.mark.parametrize("state", [State.NOT_REQUIRED, State.WITHDRAWN, State.CANCELLING])
def test_where_nothing_will_be_sent_no_evidence_is_taken(state: State) -> None:
    with pytest.raises(Conflict):
        given(at_state(state), NOTE)


def test_a_request_that_turns_out_incomplete_when_it_is_to_be_sent_is_not_sent_until_it_is_whole() -> None:
    document = at_state(State.SUBMITTING)
    document.terms = document.terms.model_copy(update={"needs": (Need(name="note", kind=EvidenceKind.NOTE),)})
    document.rest("submit")
    document = calling.prepare_submit(document, due("submit"), facts(member()), NOW)
    assert document.submissions == []
    assert "submit" not in document.attempts
    assert events(document)[-1] == "authorization.escalated.v1"
    assert "submit" in given(document, NOTE).timers


# -- what was sent --------------------------------------------------------------------------------------------------


def test_what_was_sent_is_kept_with_its_hash_whatever_comes_later() -> None:
    document = given(wanting(), ANSWERS, NOTE, REPORT)
    document = calling.prepare_submit(document, due("submit"), facts(member()), NOW)
    assert document.newest is not None
    sealed = document.newest.snapshot
    assert sealed is not None
    assert document.newest.attached == (1, 2, 3)
    assert [each.type for each in sealed.evidence] == ["102089-0", "11488-4", "18748-4"]
    before = sealed.model_dump()
    given(document, piece("note", "34117-2"))
    assert document.newest.snapshot.model_dump() == before
    assert len(document.evidence) == 4


def test_the_hash_is_that_of_the_canonical_json_and_of_nothing_else() -> None:
    assert canonical_json({"b": [1, date(2026, 3, 2)], "a": "\u00fc"}) == '{"a":"\u00fc","b":[1,"2026-03-02"]}'.encode()
    request = {"payer_id": "acme", "items": [{"sequence": 1}]}
    one, other = snapshot(request, (NOTE,)), snapshot(dict(reversed(request.items())), (NOTE,))
    assert one.sha256 == other.sha256
    again = snapshot(request, (NOTE.model_copy(update={"added_at": NOW + timedelta(days=1)}),))
    assert again.sha256 == one.sha256
    assert snapshot(request, ()).sha256 != one.sha256
    assert snapshot({**request, "payer_id": "other"}, (NOTE,)).sha256 != one.sha256
    plain = json.dumps({"evidence": [], "request": request}, sort_keys=True, separators=(",", ":"))
    assert snapshot(request, ()).sha256 == hashlib.sha256(plain.encode()).hexdigest()


# -- rules that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("needs = []", r"evidence\.0\.needs"),
        ('needs = [{ name = "x", kind = "paper" }]', r"evidence\.0\.needs\.0\.kind"),
        ('needs = [{ name = "x", kind = "note", types = ["1"] }]', r"evidence\.0\.needs\.0\.types"),
        ('needs = [{ name = "A name", kind = "note" }]', r"evidence\.0\.needs\.0\.name"),
        ('needs = [{ name = "x", kind = "note", days = 0 }]', r"evidence\.0\.needs\.0\.days"),
        ('needs = [{ name = "x", kind = "questionnaire", canonical = "q" }]', r"evidence\.0\.needs\.0\.canonical"),
        ('needs = [{ name = "x", kind = "note", colour = "red" }]', r"evidence\.0\.needs\.0\.colour"),
    ],
)
def test_a_row_of_evidence_that_cannot_be_used_is_refused_with_its_place(row: str, place: str) -> None:
    with pytest.raises(RulesError, match=place):
        RuleBook.parse(f'[[evidence]]\nwhy = "x"\n{row}\n')


# -- the whole service ----------------------------------------------------------------------------------------------

SERVICE = Coding(system=CPT, code="SBX-DOCS-1")
NOTE_BYTES = base64.b64encode(b"%PDF-1.4 a note").decode()
SENT = {"kind": "note", "type": "11488-4", "data": NOTE_BYTES}


async def post(world: World, path: str, body: object) -> httpx.Response:
    async with world.harness.client(Role.COORDINATOR) as client:
        return await client.post(path, json=body, headers=world.harness.key())


async def lacking() -> tuple[World, str]:
    """A referral of a service that the shipped rules want a form and a note for."""
    world = World()
    await world.know("tess", "SBX-APPROVE-1")
    id = await world.refer("tess", service=SERVICE)
    await world.until()
    return world, id


async def test_an_incomplete_request_is_never_sent_and_is_escalated_once() -> None:
    world, _ = await lacking()
    await world.until(24 * 20)
    assert (await world.of("tess")).state is State.AWAITING_EVIDENCE
    assert world.payer.ledger.authorizations == []
    assert world.events("tess") == ["escalated"]


async def test_evidence_lets_it_go_on_and_goes_along_with_its_bytes() -> None:
    world, id = await lacking()
    form = {**FORM, "canonical": "urn:carerelay:sandbox:questionnaire"}
    first = await post(world, f"/authorizations/{id}/evidence", {"items": [SENT]})
    assert first.status_code == 200
    await world.until(1)
    async with world.harness.client(Role.COORDINATOR) as client:
        shown = (await client.get(f"/authorizations/{id}")).json()
    assert shown["evidence"]["missing"] == ["form"]
    assert (await post(world, f"/authorizations/{id}/evidence", {"items": [form]})).status_code == 200
    await world.until(2)
    assert world.events("tess") == ["submitted", "approved"]
    document = await world.of("tess")
    async with world.harness.client(Role.COORDINATOR) as client:
        answered = await client.get(f"/authorizations/{id}")
    assert NOTE_BYTES not in answered.text
    sent = answered.json()["claims"][0]["sent"]
    assert [each["type"] for each in sent["evidence"]] == ["11488-4", "102089-0"]
    assert sent["sha256"] == document.submissions[0].snapshot.sha256  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"data": "not base64!"}, "items[0].data"),
        ({"sha256": "0" * 64}, "items[0].sha256"),
        ({"type": "note"}, "items[0].type"),
        ({"kind": "paper"}, "items[0].kind"),
        ({"reference": "https://elsewhere.test/1"}, "items[0].reference"),
    ],
)
async def test_evidence_that_cannot_be_used_is_refused_with_its_place(change: dict[str, str], path: str) -> None:
    world, id = await lacking()
    refused = await post(world, f"/authorizations/{id}/evidence", {"items": [{**SENT, **change}]})
    assert refused.status_code == 422
    assert path in [error["path"].removeprefix("body.") for error in refused.json()["errors"]]
    assert await world.harness.all(Contents) == []


async def test_the_bytes_are_forgotten_with_the_person() -> None:
    world, id = await lacking()
    await post(world, f"/authorizations/{id}/evidence", {"items": [SENT]})
    await world.know("tess", None, erased=True)
    await world.until(1)
    (kept,) = await world.harness.all(Contents)
    assert kept.data is None


async def test_rules_of_evidence_hold_for_whoever_they_name(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(RULES, encoding="utf-8")
    world = World(rules=file)
    await world.know("tess", "SBX-APPROVE-1")
    await world.refer("tess")
    await world.refer("ana", service=Coding(system=CPT, code="70551"))
    await world.know("ana", "SBX-APPROVE-1")
    await world.until()
    assert (await world.of("tess")).state is State.AWAITING_EVIDENCE
    assert (await world.of("ana")).state is State.APPROVED
