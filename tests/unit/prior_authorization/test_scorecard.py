"""The scorecard counts what payers decided, whatever order its events come in and however often."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from services.prior_authorization import scorecard as tool
from services.prior_authorization.model.scorecard import Measures, Scorecard, Share, Tally, Told
from shared.contracts.base import Coding, Event
from shared.contracts.prior_authorization import (
    AuthorizationAppealed,
    AuthorizationCancelled,
    AuthorizationPended,
    AuthorizationRuled,
    AuthorizationSubmitted,
    ReviewAction,
)
from shared.kit.bus.envelope import message_of
from shared.kit.bus.port import Message
from shared.kit.document import derived_id
from shared.kit.store.repository import Entry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus

START = datetime(2026, 3, 2, 15, tzinfo=UTC)
LATER = START + timedelta(days=400)
TOPIC = "prior_authorization.events"


def after(hours: float) -> datetime:
    return START + timedelta(hours=hours)


class Story:
    """What was told of one authorization, in its order."""

    def __init__(self, name: str, **asked: object) -> None:
        self.id = derived_id("story", name)
        self.asked = {
            "payer_id": "acme", "line_of_business": "medicare-advantage", "kind": "referral", "expedited": False,
            "service": Coding(system="http://www.ama-assn.org/go/cpt", code="99244"), **asked,
        }  # fmt: skip
        self.told: list[Told] = []

    def tell(self, event: type[Event], at: float, **fields: object) -> Story:
        """The next event, recorded so many hours after the start."""
        ids = {"authorization_id": self.id, "referral_id": self.id, "patient_id": self.id}
        event_told = event.model_validate({**ids, **fields})
        self.told.append(Told(self.id, len(self.told) + 1, after(at), event_told))
        return self

    def submitted(self, at: float = 0, claim: str = "c") -> Story:
        return self.tell(AuthorizationSubmitted, at, **self.asked, claim_id=claim, received_at=after(at))

    def pended(self, at: float = 0, claim: str = "c") -> Story:
        fields = {"payer_id": self.asked["payer_id"], "claim_id": claim, "pended_at": after(at)}
        return self.tell(AuthorizationPended, at, **fields)

    def ruled(self, action: str, at: float, *, heard: float | None = None, **fields: object) -> Story:
        """Of a claim received at the start, unless said otherwise."""
        said = {
            "claim_id": "c", "purpose": "initial", "level": 0, "received_at": START, "decided_at": after(at),
            "action": ReviewAction(action), "standing": True, "extended": False, **fields,
        }  # fmt: skip
        return self.tell(AuthorizationRuled, at if heard is None else heard, **self.asked, **said)

    def appealed(self, at: float, claim: str = "a", prior: str = "c") -> Story:
        fields = {"level": 1, "claim_id": claim, "prior_claim_id": prior, "received_at": after(at)}
        return self.tell(AuthorizationAppealed, at, **fields)

    def appeal_ruled(self, action: str, at: float, received: float, claim: str = "a", prior: str = "c") -> Story:
        fields = {"claim_id": claim, "prior_claim_id": prior, "purpose": "appeal", "level": 1}
        return self.ruled(action, at, received_at=after(received), **fields)

    def cancelled(self, at: float, reason: str = "patient") -> Story:
        return self.tell(AuthorizationCancelled, at, reason=reason)


def card(*stories: Story, as_of: datetime = LATER, **wanted: object) -> Scorecard:
    tally = Tally()
    for story in stories:
        for told in story.told:
            tally.add(told)
    return tally.card(as_of, **wanted)  # type: ignore[arg-type]


def measures(*stories: Story, as_of: datetime = LATER) -> Measures:
    (payer,) = card(*stories, as_of=as_of).payers
    return payer.all


def share(count: int, of: int) -> Share:
    return Share.part(count, of)


# -- decisions ------------------------------------------------------------------------------------------------------


def test_standard_and_expedited_requests_are_counted_apart() -> None:
    found = measures(
        Story("a").submitted().ruled("A1", 0),
        Story("b").submitted().ruled("A3", 0),
        Story("c").submitted().ruled("A2", 0),
        Story("d", expedited=True).submitted().ruled("A3", 0),
        Story("e", expedited=True).submitted(),
    )
    assert (found.standard.received, found.standard.decided) == (3, 3)
    assert (found.standard.approved, found.standard.denied) == (share(2, 3), share(1, 3))
    assert (found.expedited.received, found.expedited.approved, found.expedited.denied) == (2, share(0, 1), share(1, 1))
    assert found.in_part == share(1, 2)
    assert found.undecided["open"] == 1


def test_the_time_is_that_from_receipt_to_the_first_decision() -> None:
    found = measures(
        Story("a").submitted().ruled("A1", 0),
        Story("b").submitted().pended().ruled("A1", 10),
        Story("c").submitted().pended().ruled("A3", 20).ruled("A1", 90),
        Story("d", expedited=True).submitted().pended().ruled("A1", 5),
    )
    assert (found.standard.time.decided, found.standard.time.mean, found.standard.time.median) == (3, 10.0, 10.0)
    assert (found.expedited.time.mean, found.expedited.time.median) == (5.0, 5.0)


def test_a_median_of_an_even_number_lies_between() -> None:
    found = measures(*(Story(str(n)).submitted().pended().ruled("A1", n) for n in (1, 2, 4, 9)))
    assert (found.standard.time.mean, found.standard.time.median) == (4.0, 3.0)


def test_the_decision_that_stands_counts_and_not_the_one_told_last() -> None:
    revised = measures(Story("a").submitted().ruled("A1", 1).ruled("A3", 2))
    assert revised.standard.denied == share(1, 1)
    late = measures(Story("a").submitted().ruled("A1", 5).ruled("A3", 2, heard=6, standing=False))
    assert (late.standard.approved, late.standard.time.mean) == (share(1, 1), 2.0)


def test_what_was_granted_and_then_taken_back_by_us_was_granted() -> None:
    found = measures(Story("a").submitted().ruled("A1", 1).cancelled(5).ruled("C", 6))
    assert (found.standard.approved, found.undecided) == (
        share(1, 1),
        dict.fromkeys(("cancelled", "not-required", "withdrawn", "open"), 0),
    )


def test_what_decides_nothing_is_told_by_what_became_of_it() -> None:
    found = measures(
        Story("a").submitted().ruled("NA", 1),
        Story("b").submitted().ruled("C", 1).cancelled(1, reason="payer"),
        Story("c").submitted().ruled("CT", 1),
        Story("d").submitted().pended().cancelled(9),
        Story("e").submitted().pended().cancelled(9).ruled("C", 9),
    )
    assert found.standard.decided == 0
    assert found.standard.approved == Share(count=0, of=0, percent=None)
    assert found.undecided == {"not-required": 1, "cancelled": 1, "open": 1, "withdrawn": 2}


def test_a_request_approved_after_more_than_the_payers_time_is_extended_and_approved() -> None:
    found = measures(
        Story("a").submitted().pended().ruled("A1", 200, extended=True),
        Story("b").submitted().pended().ruled("A3", 200, extended=True),
        Story("c").submitted().ruled("A1", 1),
        Story("d").submitted().ruled("A1", 1).ruled("A2", 300, extended=True),
    )
    assert found.extended_and_approved == share(1, 4)


# -- appeals --------------------------------------------------------------------------------------------------------


def test_a_denial_stays_a_denial_and_is_told_as_approved_after_appeal() -> None:
    found = measures(
        Story("a").submitted().ruled("A3", 1).appealed(2).appeal_ruled("A1", 2, 2),
        Story("b").submitted().ruled("A3", 1).appealed(2).appeal_ruled("A3", 2, 2),
        Story("c").submitted().ruled("A3", 1).appealed(2),
        Story("d").submitted().ruled("A1", 1),
    )
    assert found.standard.denied == share(3, 4)
    assert found.standard.approved_after_appeal == share(1, 4)
    assert (found.appeals, found.overturned) == (3, share(1, 2))
    assert found.standard.time.mean == 1.0


def test_a_second_appeal_goes_back_to_the_request_it_began_with() -> None:
    story = Story("a").submitted().ruled("A3", 1).appealed(2).appeal_ruled("A3", 3, 2)
    story.appealed(4, "b", "a").appeal_ruled("A2", 5, 4, "b", "a")
    found = measures(story)
    assert found.standard.approved_after_appeal == share(1, 1)
    assert (found.appeals, found.overturned) == (2, share(1, 2))


def test_a_denial_that_the_payer_itself_takes_back_is_an_approval_and_no_overturn() -> None:
    found = measures(Story("a").submitted().ruled("A3", 1).appealed(2).ruled("A1", 3))
    assert (found.standard.approved, found.standard.approved_after_appeal) == (share(1, 1), share(0, 1))
    assert found.overturned == share(0, 0)


def test_an_update_is_decided_with_what_it_updates_and_a_new_request_by_itself() -> None:
    update = {"claim_id": "u", "prior_claim_id": "c", "purpose": "update", "received_at": after(3)}
    found = measures(Story("a").submitted().pended().ruled("A1", 6, **update))
    assert (found.received, found.standard.approved, found.standard.time.mean) == (1, share(1, 1), 6.0)
    again = {"claim_id": "n", "prior_claim_id": "c", "purpose": "resubmission", "received_at": after(3)}
    found = measures(Story("a").submitted().ruled("A3", 1).ruled("A1", 6, **again))
    assert (found.received, found.standard.approved, found.standard.time.mean) == (2, share(1, 2), 2.0)


def test_the_human_review_rate_is_of_the_decisions_of_which_it_is_known() -> None:
    found = measures(
        Story("a").submitted().ruled("A3", 1, human_reviewed=True),
        Story("b").submitted().ruled("A3", 1, human_reviewed=False).appealed(2).appeal_ruled("A1", 3, 2),
        Story("c").submitted().ruled("A1", 1),
    )
    assert found.human_reviewed == share(1, 2)


# -- pends ----------------------------------------------------------------------------------------------------------


def test_open_pends_are_told_by_their_age() -> None:
    days = (0.5, 1, 2, 5, 10, 30)
    stories = [Story(str(n)).submitted(-24 * n).pended(-24 * n) for n in days]
    stories.append(Story("decided").submitted(-48).pended(-48).ruled("A1", -1, received_at=after(-48)))
    stories.append(Story("withdrawn").submitted(-48).pended(-48).cancelled(-2))
    stories.append(Story("at once").submitted(-48).ruled("A1", -48, received_at=after(-48)))
    pends = measures(*stories, as_of=START).pends
    assert (pends.pended, pends.open, pends.oldest_days) == (share(8, 9), 6, 30.0)
    assert pends.ages == {"0-1 days": 2, "1-3 days": 1, "3-7 days": 1, "7-14 days": 1, "over 14 days": 1}


def test_a_pend_is_open_as_long_as_nothing_ended_it_by_then() -> None:
    story = Story("a").submitted().pended().ruled("CT", 10).ruled("A1", 40)
    assert [measures(story, as_of=after(at)).pends.open for at in (-1, 20, 39, 40, 50)] == [0, 1, 1, 0, 0]


def test_an_appeal_waits_from_the_day_the_payer_has_it() -> None:
    story = Story("a").submitted().ruled("A3", 0).appealed(24)
    assert measures(story, as_of=after(96)).pends.ages["1-3 days"] == 1
    story.appeal_ruled("A1", 90, 24)
    assert measures(story, as_of=after(96)).pends.open == 0


# -- who and when ---------------------------------------------------------------------------------------------------


def test_payers_services_and_drugs_stand_apart() -> None:
    drug = {"kind": "drug", "service": Coding(system="http://hl7.org/fhir/sid/ndc", code="0002-1433")}
    found = card(
        Story("a").submitted().ruled("A1", 0),
        Story("b", payer_id="zenith", line_of_business="other").submitted().ruled("A3", 0),
        Story("c", **drug).submitted().ruled("A3", 0),
    )
    assert [payer.payer_id for payer in found.payers] == ["acme", "zenith"]
    acme = found.payers[0]
    assert (acme.all.standard.approved, acme.lines_of_business) == (share(1, 1), ("medicare-advantage",))
    assert acme.drugs is not None
    assert acme.drugs.standard.denied == share(1, 1)
    assert [(row.service.code, row.kind, row.measures.received) for row in acme.services] == [
        ("0002-1433", "drug", 1),
        ("99244", "referral", 1),
    ]
    assert found.payers[1].drugs is None
    only = card(Story("a").submitted(), Story("b", payer_id="zenith").submitted(), payer_id="zenith")
    assert [payer.payer_id for payer in only.payers] == ["zenith"]


def items(*actions: tuple[str, str | None]) -> list[dict[str, object]]:
    """Items of a request, each a service with the payer's decision on it."""
    return [
        {
            "sequence": n,
            "kind": "referral",
            "service": {"system": "http://www.ama-assn.org/go/cpt", "code": code},
            "action": action,
        }
        for n, (code, action) in enumerate(actions, 1)
    ]


def test_a_request_with_several_items_counts_once_for_its_payer_and_each_item_under_its_own_service() -> None:
    split = Story("split").submitted()
    split.ruled("A2", 5, items=items(("99244", "A1"), ("97110", "A3"), ("97110", "A6"), ("70553", "NA")))
    split.appealed(10)
    split.ruled(
        "A1", 20, claim_id="a", purpose="appeal", level=1, prior_claim_id="c", received_at=after(10),
        items=items(("99244", "A1"), ("97110", "A1")),
    )  # fmt: skip
    waiting = Story("waiting").tell(
        AuthorizationSubmitted,
        0,
        **split.asked,
        claim_id="c",
        received_at=START,
        items=items(("99244", None), ("70553", None)),
    )
    waiting.pended(1)
    (payer,) = card(split, waiting, Story("one").submitted().ruled("A3", 2), as_of=after(25)).payers
    assert (payer.all.received, payer.all.standard.approved, payer.all.standard.denied) == (3, share(1, 2), share(1, 2))
    assert payer.all.pends.open == 1
    rows = {row.service.code: row.measures for row in payer.services}
    assert {code: row.received for code, row in rows.items()} == {"99244": 3, "97110": 2, "70553": 2}
    assert (rows["99244"].standard.approved, rows["99244"].standard.denied) == (share(1, 2), share(1, 2))
    therapy = rows["97110"]
    assert (therapy.standard.approved, therapy.standard.denied) == (share(1, 2), share(1, 2))
    assert (therapy.standard.approved_after_appeal, therapy.in_part) == (share(1, 2), share(1, 1))
    assert (therapy.appeals, therapy.overturned) == (1, share(1, 1))
    assert (rows["70553"].undecided["not-required"], rows["70553"].undecided["open"]) == (1, 1)
    assert [rows[code].pends.open for code in ("99244", "97110", "70553")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("since", "until", "counted"),
    [
        (None, None, 3),
        (date(2026, 3, 2), None, 2),
        (None, date(2026, 3, 2), 2),
        (date(2026, 3, 2), date(2026, 3, 2), 1),
    ],
)
def test_a_period_holds_what_payers_received_in_it(since: date | None, until: date | None, counted: int) -> None:
    stories = [Story(str(day)).submitted(24 * day) for day in (-1, 0, 1)]
    found = card(*stories, since=since, until=until)
    assert sum(payer.all.received for payer in found.payers) == counted


def test_requests_that_were_told_before_rulings_were_are_named_and_not_counted() -> None:
    old = Story("old").tell(AuthorizationSubmitted, 0, payer_id="acme")
    found = card(old, Story("a").submitted())
    assert (found.not_counted, found.payers[0].all.received) == (1, 1)


# -- order and repetition -------------------------------------------------------------------------------------------


def told_by_all() -> list[Told]:
    """Of everything that can be told, something."""
    stories = [
        Story("a").submitted().pended().ruled("A3", 10).ruled("A1", 30).ruled("A2", 20, heard=31, standing=False),
        Story("b").submitted().ruled("A3", 1).appealed(2).appeal_ruled("A3", 30, 2).appealed(31, "b", "a"),
        Story("c", payer_id="zenith").submitted().pended().cancelled(9).ruled("C", 10),
        Story("d", expedited=True).submitted().pended().ruled("CT", 4).ruled("A1", 90, extended=True),
        Story("e", kind="drug").submitted().ruled("NA", 0),
        Story("f").tell(AuthorizationSubmitted, 0, payer_id="acme"),
    ]
    return [told for story in stories for told in story.told]


@pytest.mark.parametrize("seed", range(20))
def test_order_and_repetition_change_nothing(seed: int) -> None:
    print(f"seed {seed}")
    told = told_by_all()
    rng = random.Random(seed)
    shuffled = told + rng.choices(told, k=len(told))
    rng.shuffle(shuffled)
    plain, mixed = Tally(), Tally()
    for each in told:
        plain.add(each)
    for each in shuffled:
        mixed.add(each)
    assert mixed.card(LATER) == plain.card(LATER)


# -- the command ----------------------------------------------------------------------------------------------------


def published(told: Sequence[Told], *, twice: bool = False) -> MemoryBroker:
    """The events on the topic, as the service publishes them."""
    broker = MemoryBroker()
    broker.topic(TOPIC)
    for subject, sequence, at, event in told:
        id = derived_id("event", subject, str(sequence))
        entry = Entry(sequence, id, event.type, event.topic, at, event.model_dump_json(exclude_none=True), None)
        for _ in range(2 if twice else 1):
            broker.append(message_of("prior_authorization", subject, entry))
    return broker


def asked_for(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tool.TOOL.arguments(parser)
    return parser.parse_args(given)


async def test_the_command_counts_what_stands_on_the_topic_once(capsys: pytest.CaptureFixture[str]) -> None:
    broker = published(told_by_all(), twice=True)
    assert await tool.scorecard(MemoryBus(broker), LATER, asked_for("--json")) == 0
    tally = Tally()
    for told in told_by_all():
        tally.add(told)
    assert json.loads(capsys.readouterr().out) == json.loads(tally.card(LATER).model_dump_json())


async def test_the_table_names_every_measure_of_every_payer(capsys: pytest.CaptureFixture[str]) -> None:
    assert await tool.scorecard(MemoryBus(published(told_by_all())), LATER, asked_for()) == 0
    out = capsys.readouterr().out
    for words in ("acme (medicare-advantage)", "zenith", "approved after appeal", "median hours", "drugs", "cpt 99244"):
        assert words in out
    assert "not counted: 1" in out
    assert max(map(len, out.splitlines())) <= 120


async def test_a_payer_and_a_period_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = asked_for("--json", "--payer", "zenith", "--from", "2026-03-02", "--to", "2026-03-31")
    assert await tool.scorecard(MemoryBus(published(told_by_all())), LATER, arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert ([payer["payer_id"] for payer in found["payers"]], found["since"]) == (["zenith"], "2026-03-02")


async def test_a_topic_that_is_not_there_and_a_record_that_cannot_be_read_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await tool.scorecard(MemoryBus(MemoryBroker()), LATER, asked_for()) == 1
    assert TOPIC in capsys.readouterr().err
    broker = published(told_by_all())
    broker.append(Message(TOPIC, "x", b"{", (("ce_type", b"authorization.ruled.v1"),)))
    broker.append(Message(TOPIC, "x", b"{", (("ce_type", b"authorization.escalated.v1"),)))
    assert await tool.scorecard(MemoryBus(broker), LATER, asked_for()) == 1
    assert "1 records could not be read" in capsys.readouterr().err
