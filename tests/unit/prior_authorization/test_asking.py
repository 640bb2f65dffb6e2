"""Coordinators open requests with several items, and update what a payer has; what was denied is opened anew."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.prior_authorization.model import Authorization, Kind, State, calling, opening, people
from services.prior_authorization.model.answers import Answered, ItemAnswer, PayerAnswer, Rejected, Source
from services.prior_authorization.model.asking import DENIED, UPDATABLE, Update, update
from services.prior_authorization.model.deciding import take
from services.prior_authorization.pas import requests
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.auth import Role
from shared.kit.decisions import Refused, Unanswered
from shared.kit.errors import Conflict, Invalid
from tests.unit.prior_authorization.cases import (
    A1,
    A1_OTHER,
    A3,
    A4,
    CPT,
    NOW,
    PAYER_ID,
    Word,
    answer,
    answered,
    asked,
    at_state,
    due,
    events,
    facts,
    hear,
    land,
    member,
    rules,
    sent,
    uid,
)
from tests.unit.prior_authorization.test_outgoing import DEFINITIONS, profiles
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]
US = Requestor("CareRelay Coordination", "1234567893")
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
MORE = Update.model_validate({"change": [{"sequence": 1, "quantity": 6}]})
NURSING = {"service": {"system": HCPCS, "code": "S9123"}, "kind": "homecare", "quantity": 12, "unit": "VS"}
AIDE = {"service": {"system": HCPCS, "code": "S9122"}, "kind": "homecare", "quantity": 20}


def problems(bundle: Json) -> list[str]:
    """What the definitions say against it, where they are here."""
    return [str(problem) for problem in profiles().check_bundle(bundle)] if DEFINITIONS.is_dir() else []


def asking(word: Word = A4, command: Update = MORE) -> Authorization:
    """One that the payer answered with a word, and whose update waits to be sent."""
    return update(answered(sent(), word), command, facts(), NOW)


def on_its_way(word: Word = A4, command: Update = MORE) -> Authorization:
    return calling.prepare_update(asking(word, command), due("update"), facts(member()), NOW)


def settled(document: Authorization, outcome: calling.Outcome) -> Authorization:
    land(document, "update")
    return calling.settle_update(document, outcome, facts(member()), NOW)


def said(document: Authorization, word: Word, minutes: float = 1) -> Answered:
    later = NOW.replace(minute=int(minutes))
    return Answered(answer(document.update.id if document.update else None, word, later))


# -- what may be updated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(set(State) - UPDATABLE))
def test_only_what_is_pended_or_approved_is_updated(state: State) -> None:
    document = at_state(state)
    with pytest.raises(Conflict) as refused:
        update(document, MORE, facts(), NOW)
    assert ("open a new one" in str(refused.value.detail)) == (state in DENIED)
    assert document.update is None


@pytest.mark.parametrize("word", [A4, A1])
def test_an_update_waits_beside_the_request_until_the_payer_has_it(word: Word) -> None:
    document = asking(word)
    assert document.update is not None
    assert (document.update.kind, document.update.prior) == (Kind.UPDATE, document.claim_id)
    assert [item.quantity for item in document.update.items or ()] == [6]
    assert document.quantity == 4
    assert "update" in document.timers
    with pytest.raises(Conflict, match="on its way"):
        update(document, MORE, facts(), NOW)


FLAWED: dict[str, Json] = {
    "nothing": {},
    "the same": {"change": [{"sequence": 1, "quantity": 4}]},
    "an item that is not there": {"change": [{"sequence": 2, "quantity": 4}]},
    "dropping what is not there": {"drop": [7]},
    "an item twice": {"change": [{"sequence": 1, "quantity": 4}, {"sequence": 1, "quantity": 5}]},
    "what it drops": {"change": [{"sequence": 1, "quantity": 5}], "drop": [1], "add": [NURSING]},
    "everything away": {"drop": [1]},
    "a diagnosis that is not there": {"add": [{**NURSING, "diagnoses": [3]}]},
    "a provider that is not there": {"add": [{**NURSING, "providers": [1]}]},
    "an end before the start": {"change": [{"sequence": 1, "starts": "2026-04-02", "ends": "2026-04-01"}]},
}


@pytest.mark.parametrize("body", FLAWED.values(), ids=FLAWED)
def test_an_update_that_says_nothing_or_points_nowhere_is_refused_by_name(body: Json) -> None:
    document = answered(sent(), A4)
    with pytest.raises(Invalid) as refused:
        update(document, Update.model_validate(body), facts(), NOW)
    assert refused.value.flaws
    assert document.update is None


def test_numbers_are_stable_for_ever_over_updates() -> None:
    document = on_its_way(A4, Update.model_validate({"add": [NURSING]}))
    document = settled(document, said(document, A4))
    document = update(document, Update.model_validate({"drop": [2], "add": [AIDE]}), facts(), NOW)
    document = calling.prepare_update(document, due("update"), facts(member()), NOW)
    document = settled(document, said(document, A1, 2))
    assert [(item.sequence, item.service.code, item.dropped) for item in document.items] == [
        (1, "99244", False),
        (2, "S9123", True),
        (3, "S9122", False),
    ]
    assert [[i.sequence for i in sent.items or ()] for sent in document.submissions] == [[1], [1, 2], [1, 2, 3]]
    assert document.quantity == 4 + 20


# -- what the payer answers -------------------------------------------------------------------------------------------


def test_an_approved_update_is_what_is_approved() -> None:
    document = on_its_way(A1)
    document = settled(document, said(document, Word(ReviewAction.CERTIFIED, "AUTH-9", 6)))
    assert (document.state, document.update, document.quantity) == (State.APPROVED, None, 6)
    assert document.current is not None
    assert (document.current.number, document.current.units) == ("AUTH-9", 6)
    assert [claim.kind for claim in document.submissions] == [Kind.INITIAL, Kind.UPDATE]


def test_a_grant_stands_while_its_update_is_pended_and_the_payer_is_asked() -> None:
    document = on_its_way(A1)
    before = len(document.recorded())
    document = settled(document, said(document, A4))
    assert document.state is State.APPROVED
    assert document.recorded()[before:] == []
    assert "poll" in document.timers
    later = document.timers["poll"]
    polled = calling.prepare_poll(document, due("poll", later), facts(member()), later)
    assert "poll" in polled.attempts
    assert document.wait is not None
    assert (document.wait.owner, document.wait.reason) == ("payer", "decision")


def test_a_pended_update_of_a_pended_request_stays_pended() -> None:
    document = on_its_way(A4)
    document = settled(document, said(document, A4))
    assert (document.state, document.quantity) == (State.PENDED, 6)
    assert "appealed" not in " ".join(events(document))


def test_a_denied_update_is_a_denial() -> None:
    document = settled(on_its_way(A1), said(on_its_way(A1), A3))
    assert document.state in DENIED


def test_an_update_that_is_refused_leaves_the_request_as_it_is_and_calls_a_person() -> None:
    document = settled(on_its_way(A1), Rejected("status-422-business-rule"))
    assert (document.state, document.update, document.quantity) == (State.APPROVED, None, 4)
    assert "update-refused" in [trouble.reason for trouble in document.troubles]
    assert "authorization.escalated.v1" in events(document)
    assert update(document, MORE, facts(), NOW).updates == 2


@pytest.mark.parametrize("outcome", [Refused("busy", 30.0), Unanswered("timeout")], ids=["not taken", "lost"])
def test_an_update_whose_answer_did_not_come_is_sent_again_as_the_same_claim(outcome: calling.Outcome) -> None:
    document = on_its_way(A4)
    first = document.update.id if document.update else None
    document = settled(document, outcome)
    assert document.timers["update"] > NOW
    again = calling.prepare_update(document, due("update"), facts(member()), NOW)
    assert again.update is not None
    assert again.update.id == first


def test_a_denial_that_overtakes_an_update_stops_it() -> None:
    document = asking(A4)
    hear(document, A3, 1)
    assert (document.state in DENIED, document.update) == (True, None)
    document = calling.prepare_update(document, due("update"), facts(member()), NOW)
    assert "update" not in document.attempts


def test_no_update_of_a_denied_request_goes_out_even_where_it_was_begun() -> None:
    document = on_its_way(A4)
    hear(document, A3, 1)
    assert calling.may_update(document, facts(member()), NOW) is False
    land(document, "update")
    document = calling.prepare_update(document, due("update"), facts(member()), NOW)
    assert "update" not in document.attempts


def test_the_payers_word_on_an_update_whose_answer_was_lost_is_its_word() -> None:
    document = settled(on_its_way(A4), Unanswered("timeout"))
    claim = document.update.id if document.update else None
    hear(document, A1_OTHER, 2, claim=claim)
    assert (document.state, document.quantity, document.update) == (State.APPROVED, 6, None)
    assert document.current is not None
    assert document.current.claim_id == claim


def test_a_decision_on_the_request_lets_its_update_go_on() -> None:
    document = asking(A4)
    hear(document, A1, 1)
    assert (document.state, document.update is not None) == (State.APPROVED, True)
    assert "update" in document.timers


def test_that_a_dropped_item_is_cancelled_does_not_make_the_grant_partial() -> None:
    command = Update.model_validate({"drop": [1], "add": [NURSING]})
    document = on_its_way(A1, command)
    claim = document.update.id if document.update else ""
    items = (
        ItemAnswer(sequence=1, code="C", action=ReviewAction.CANCELLED),
        ItemAnswer(sequence=2, code="A1", action=ReviewAction.CERTIFIED, number="AUTH-7", units=12),
    )
    created = NOW.replace(minute=1)
    take(document, PayerAnswer((claim,), created, "complete", items), Source.NOTIFICATION, NOW.replace(minute=2))
    assert document.current is not None
    assert (document.current.action, document.current.number) == (ReviewAction.CERTIFIED, "AUTH-7")


def test_what_is_called_off_sends_no_update_any_more() -> None:
    document = opening.call_off(asking(A1), "test", NOW)
    assert (document.state, "update" in document.timers) == (State.CANCELLING, False)
    assert calling.may_update(document, facts(member()), NOW) is False


def test_an_update_that_was_given_up_is_sent_again_by_a_person() -> None:
    document = on_its_way(A4)
    for _ in range(6):
        document = settled(document, Unanswered("timeout"))
    assert "update" not in document.timers
    assert "update" in people.send_again(document, people.SendAgain(), facts(), NOW).timers


def test_the_same_question_of_the_referral_is_no_news_after_an_update() -> None:
    document = settled(on_its_way(A4), said(on_its_way(A4), A1))
    opening.request(rules(), document, asked(), facts(), NOW)
    assert "request-changed" not in [trouble.reason for trouble in document.troubles]


def test_an_update_is_built_from_what_waits() -> None:
    document = on_its_way(A4)
    assert document.update is not None
    bundle = requests.update_request(document, member(), document.update, US)
    assert document.update.id in repr(bundle)


# -- whatever happens -------------------------------------------------------------------------------------------------

STEPS = ("update", "send", "answer", "lose", "refuse", "hear-first", "hear-update", "appeal", "cancel")


class Walk:
    """One authorization between a coordinator who updates it and a payer who says anything, in any order."""

    def __init__(self) -> None:
        self.document = answered(sent(rules(appeal="by-person", levels=2)), A4)
        self.minute = 0
        self.known: dict[int, str] = {}

    def step(self, name: str, word: Word, drop: bool) -> None:
        self.minute += 1
        before = self.document.state
        getattr(self, "_" + name.replace("-", "_"))(word, drop)
        self.check(before)

    def _update(self, word: Word, drop: bool) -> None:
        live = [item.sequence for item in self.document.items if not item.dropped]
        body = {"add": [NURSING], "drop": live[:1] if drop else []}
        with contextlib.suppress(Conflict):
            update(self.document, Update.model_validate(body), facts(), NOW)

    def _send(self, word: Word, drop: bool) -> None:
        if "update" not in self.document.timers or "update" in self.document.attempts:
            return
        self.document = calling.prepare_update(self.document, due("update"), facts(member()), NOW)
        if "update" not in self.document.attempts:
            return
        assert self.document.state in UPDATABLE
        assert self.document.update is not None
        named = requests.update_request(self.document, member(), self.document.update, US)
        assert problems(named) == []

    def _settle(self, outcome: calling.Outcome) -> None:
        if "update" in self.document.attempts:
            self.document = settled(self.document, outcome)

    def _answer(self, word: Word, drop: bool) -> None:
        waiting = self.document.update
        if waiting is not None:
            self._settle(Answered(self._said(waiting.id, word)))

    def _lose(self, word: Word, drop: bool) -> None:
        self._settle(Unanswered("timeout"))

    def _refuse(self, word: Word, drop: bool) -> None:
        self._settle(Rejected("status-422-business-rule"))

    def _hear_first(self, word: Word, drop: bool) -> None:
        self._hear(self.document.submissions[0].id, word)

    def _hear_update(self, word: Word, drop: bool) -> None:
        if self.document.update_id is not None:
            self._hear(self.document.update_id, word)

    def _appeal(self, word: Word, drop: bool) -> None:
        if self.document.state is State.DENIED:
            people.appeal(self.document, people.Appeal(), facts(), NOW)

    def _cancel(self, word: Word, drop: bool) -> None:
        if drop and self.document.state in opening.WITHDRAWABLE:
            opening.withdraw(self.document, opening.Withdraw(reason="test"), facts(), NOW)

    def _hear(self, claim: str, word: Word) -> None:
        take(self.document, self._said(claim, word), Source.NOTIFICATION, NOW + timedelta(minutes=self.minute))

    def _said(self, claim: str, word: Word) -> PayerAnswer:
        one = answer(claim, word, NOW + timedelta(minutes=self.minute)).items[0]
        submission = self.document.submission((claim,))
        asked = self.document.asked_by(submission) if submission else self.document.items
        items = tuple(replace(one, sequence=item.sequence) for item in asked)
        return PayerAnswer((claim,), NOW + timedelta(minutes=self.minute), "complete", items)

    def check(self, before: State) -> None:
        document = self.document
        for sent_items in [document.asked_by(each) for each in document.submissions] + [document.items]:
            for item in sent_items:
                assert self.known.setdefault(item.sequence, item.service.code) == item.service.code
        asked = [len(document.asked_by(each)) for each in document.submissions]
        assert asked == sorted(asked)
        if document.state not in UPDATABLE:
            assert not calling.may_update(document, facts(member()), NOW)
        if document.update is not None and not document.update.tried:
            assert document.state in UPDATABLE | {State.CANCELLING, State.WITHDRAWN}


@settings(max_examples=150, deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from([A1, A1_OTHER, A3, A4]), st.booleans()), max_size=25))
def test_no_illegal_update_is_ever_sent_and_no_number_ever_changes(steps: list[tuple[str, Word, bool]]) -> None:
    walk = Walk()
    for name, word, drop in steps:
        walk.step(name, word, drop)


# -- by HTTP, against the payer ---------------------------------------------------------------------------------------


async def post(world: World, path: str, body: object, key: dict[str, str] | None = None) -> httpx.Response:
    async with world.harness.client(Role.COORDINATOR) as client:
        return await client.post(path, json=body, headers=key or world.harness.key())


def wanted(name: str, *items: Json, **more: object) -> Json:
    return {
        "patient_id": uid("patient", name),
        "coverage_id": uid("coverage"),
        "payer_id": PAYER_ID,
        "items": list(items),
        **more,
    }


async def shown(world: World, id: str) -> Json:
    async with world.harness.client(Role.COORDINATOR) as client:
        found: Json = (await client.get(f"/authorizations/{id}")).json()
        return found


async def test_a_request_with_several_items_is_opened_sent_and_approved() -> None:
    world = World()
    await world.know("ana", "SBX-APPROVE-1")
    made = await post(world, "/authorizations", wanted("ana", NURSING, AIDE))
    assert made.status_code == 201, made.text
    await world.until(1)
    found = await shown(world, made.json()["id"])
    assert (found["state"], found["units_requested"]) == ("approved", 32)
    assert [(item["sequence"], item["kind"]) for item in found["items"]] == [(1, "homecare"), (2, "homecare")]
    (case,) = world.payer.ledger.authorizations
    assert case.claims[0].units_requested == 32


async def test_the_same_key_opens_one_request() -> None:
    world = World()
    key = world.harness.key()
    first = await post(world, "/authorizations", wanted("ana", NURSING), key)
    second = await post(world, "/authorizations", wanted("ana", NURSING), key)
    other = await post(world, "/authorizations", wanted("ana", AIDE), key)
    assert (first.json()["id"], second.status_code, other.status_code) == (second.json()["id"], 201, 422)


async def test_an_approved_request_is_updated_at_the_payer() -> None:
    world = World()
    await world.know("ben", "SBX-APPROVE-1")
    id = (await post(world, "/authorizations", wanted("ben", NURSING, AIDE))).json()["id"]
    await world.until(1)
    body = {"change": [{"sequence": 1, "quantity": 15}], "drop": [2]}
    assert (await post(world, f"/authorizations/{id}/update", body)).status_code == 200
    await world.until(2)
    found = await shown(world, id)
    assert (found["state"], found["update"], found["units_requested"]) == ("approved", None, 15)
    assert (found["action"], found["ruling"]["units_granted"]) == ("A1", 15)
    (case,) = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in case.claims] == ["I", "S"]


async def test_a_pended_request_is_updated_and_decided_as_updated() -> None:
    world = World()
    await world.know("cleo", "SBX-PEND-NOTIFY-1")
    id = (await post(world, "/authorizations", wanted("cleo", NURSING))).json()["id"]
    await world.until(1)
    assert (await post(world, f"/authorizations/{id}/update", {"add": [AIDE]})).status_code == 200
    await world.until(12)
    found = await shown(world, id)
    assert (found["state"], found["units_requested"]) == ("approved", 32)
    assert [claim["kind"] for claim in found["claims"]] == ["initial", "update"]


async def test_a_denied_request_is_not_updated_but_replaced_by_a_new_one() -> None:
    rejected = World()
    await rejected.know("dora", "SBX-DENY-1")
    id = (await post(rejected, "/authorizations", wanted("dora", NURSING))).json()["id"]
    await rejected.until(1)
    refused = await post(rejected, f"/authorizations/{id}/update", {"change": [{"sequence": 1, "quantity": 5}]})
    assert refused.status_code == 409
    anew = await post(rejected, "/authorizations", wanted("dora", AIDE, replaces=id))
    assert anew.status_code == 201
    assert (await shown(rejected, anew.json()["id"]))["replaces"] == id
    assert anew.json()["referral_id"] == (await shown(rejected, id))["referral_id"]


async def test_only_a_denied_request_of_the_same_patient_is_replaced() -> None:
    world = World()
    await world.know("eve", "SBX-APPROVE-1")
    id = (await post(world, "/authorizations", wanted("eve", NURSING))).json()["id"]
    await world.until(1)
    approved = await post(world, "/authorizations", wanted("eve", AIDE, replaces=id))
    anothers = await post(world, "/authorizations", wanted("finn", AIDE, replaces=id))
    assert (approved.status_code, anothers.status_code) == (409, 422)


async def test_an_approval_that_is_over_is_renewed_under_its_number_and_one_in_use_is_not() -> None:
    world = World()
    await world.know("ida", "SBX-APPROVE-1")
    id = (await post(world, "/authorizations", wanted("ida", NURSING))).json()["id"]
    await world.until(1)
    early = await post(world, "/authorizations", wanted("ida", NURSING, renews=id))
    assert early.status_code == 409
    await world.until(24 * 92)
    both = await post(world, "/authorizations", wanted("ida", NURSING, renews=id, replaces=id))
    anothers = await post(world, "/authorizations", wanted("finn", NURSING, renews=id))
    assert (both.status_code, anothers.status_code) == (422, 422)
    anew = await post(world, "/authorizations", wanted("ida", NURSING, renews=id))
    assert anew.status_code == 201
    await world.until(24 * 92 + 1)
    found, before = await shown(world, anew.json()["id"]), await shown(world, id)
    assert (found["state"], found["renews"], found["referral_id"]) == ("approved", id, before["referral_id"])
    first, second = world.payer.ledger.authorizations
    assert [claim.certification_type for claim in (*first.claims, *second.claims)] == ["I", "R"]
    assert before["number"].encode() in world.sent[-1]


async def test_what_is_not_approved_is_not_renewed() -> None:
    world = World()
    await world.know("jan", "SBX-DENY-1")
    id = (await post(world, "/authorizations", wanted("jan", NURSING))).json()["id"]
    await world.until(1)
    assert (await post(world, "/authorizations", wanted("jan", NURSING, renews=id))).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        wanted("ana"),
        wanted("ana", {**NURSING, "quantity": 0}),
        wanted("ana", {**NURSING, "kind": "miracle"}),
        wanted("ana", {**NURSING, "diagnoses": [1]}),
        wanted("ana", {"service": {"system": CPT, "code": "Jane Doe, 4 Elm St"}}),
        wanted("ana", NURSING, note="as discussed"),
        wanted("ana", *[NURSING] * 51),
    ],
    ids=["no item", "no unit", "unknown kind", "a pointer to nothing", "a code that is none", "a note", "too many"],
)
async def test_a_request_that_cannot_be_sent_is_not_opened(body: Json) -> None:
    world = World()
    assert (await post(world, "/authorizations", body)).status_code == 422
    assert await world.harness.all(Authorization) == []


async def test_what_needs_no_approval_is_not_asked_for() -> None:
    world = World()
    await world.know("gus", "SBX-APPROVE-1")
    visit = {"service": {"system": CPT, "code": "99213"}}
    both = (await post(world, "/authorizations", wanted("gus", visit, NURSING))).json()["id"]
    one = (await post(world, "/authorizations", wanted("gus", visit))).json()["id"]
    await world.until(1)
    assert [(await shown(world, id))["state"] for id in (both, one)] == ["approved", "not-required"]
