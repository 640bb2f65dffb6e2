"""Decisions item by item: how they roll up, what was granted otherwise than asked for, what a payer found wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from services.prior_authorization.model import Authorization, State, calling
from services.prior_authorization.model.answers import (
    WHOLE,
    Answered,
    ErrorAnswer,
    GrantAnswer,
    ItemAnswer,
    PayerAnswer,
    Ruling,
    Source,
    Unusable,
    differences,
    weigh,
)
from services.prior_authorization.model.deciding import Effect, take
from services.prior_authorization.model.items import Item
from services.prior_authorization.showing import view
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import AuthorizationApproved, AuthorizationDenied, ReviewAction
from tests.unit.prior_authorization.cases import CONSULT, CPT, NOW, events, facts, land, last, member, rules, sent

THERAPY = Coding(system=CPT, code="97110")
OTHER = Coding(system=CPT, code="97530")
ASKED = (
    Item(sequence=1, service=CONSULT, quantity=1),
    Item(sequence=2, service=THERAPY, quantity=12),
    Item(sequence=3, service=OTHER, quantity=6),
)
A1, A2, A3, A4 = ReviewAction.CERTIFIED, ReviewAction.PARTIAL, ReviewAction.NOT_CERTIFIED, ReviewAction.PENDED
A6, C, NA = ReviewAction.MODIFIED, ReviewAction.CANCELLED, ReviewAction.NO_ACTION_REQUIRED


def says(sequence: int, action: ReviewAction, **more: object) -> ItemAnswer:
    """A payer's word on an item; a grant has a number unless told otherwise."""
    number = f"N-{sequence}" if action in (A1, A2, A6) else None
    return replace(ItemAnswer(sequence, action.value, action, number), **more)  # type: ignore[arg-type]


def told(*items: ItemAnswer, **more: object) -> PayerAnswer:
    return replace(PayerAnswer(("claim",), NOW, "complete", items), **more)  # type: ignore[arg-type]


def weighed(*items: ItemAnswer, asked: tuple[Item, ...] = ASKED, **more: object) -> Ruling:
    ruling = weigh(told(*items, **more), "claim", asked, Source.POLL, NOW)
    assert isinstance(ruling, Ruling), ruling
    return ruling


def asking(items: tuple[Item, ...] = ASKED) -> Authorization:
    """An authorization of several items, whose claim is on its way."""
    document = sent(rules(appeal="none"))
    document.items = items
    return document


def hear(document: Authorization, *items: ItemAnswer, minutes: float = 0, **more: object) -> Effect:
    created = NOW + timedelta(minutes=minutes)
    claims = (document.claim_id or "",)
    return take(document, told(*items, claims=claims, created=created, **more), Source.POLL, NOW)


def test_each_item_keeps_its_own_words() -> None:
    days = {"valid_from": date(2026, 4, 1), "valid_to": date(2026, 6, 30)}
    ruling = weighed(
        says(3, A3, reasons=("0M", "82")),
        says(1, A1, reference="REF 1"),
        says(2, A2, units=8, **days),
        human_reviewed=True,
    )
    assert [(word.sequence, word.action, word.number, word.units) for word in ruling.items] == [
        (1, A1, "N-1", None),
        (2, A2, "N-2", 8),
        (3, A3, None, None),
    ]
    assert [word.reasons for word in ruling.items] == [(), (), ("0M", "82")]
    assert (ruling.items[0].reference, {word.human_reviewed for word in ruling.items}) == ("REF 1", {True})
    assert (ruling.action, ruling.number, ruling.units, ruling.human_reviewed) == (A2, "N-1", 9, True)
    assert (ruling.valid_from, ruling.valid_to) == (date(2026, 4, 1), date(2026, 6, 30))


def test_an_item_without_a_word_is_pended_unless_the_claim_has_one() -> None:
    assert weighed(says(1, A1), says(2, A1)).action is A4
    ruling = weighed(says(1, A1), whole=says(WHOLE, A3, reasons=("0M",)))
    assert [(word.sequence, word.action) for word in ruling.items] == [(1, A1), (2, A3), (3, A3)]
    assert weighed(whole=says(WHOLE, A1)).action is A1


def test_a_dropped_item_does_not_count() -> None:
    asked = (ASKED[0], ASKED[1].model_copy(update={"dropped": True}))
    ruling = weighed(says(1, A1), says(2, C), asked=asked)
    assert (ruling.action, ruling.units, len(ruling.items)) == (A1, None, 2)
    assert weighed(says(1, A1), asked=asked).action is A1


@pytest.mark.parametrize(
    ("words", "units"),
    [
        ((says(1, A1), says(2, A1), says(3, A1)), None),
        ((says(1, A1), says(2, A1, units=12), says(3, A1)), 19),
        ((says(1, A1), says(2, A1), says(3, NA)), None),
        ((says(1, A1), says(2, A6, units=4), says(3, A3)), 5),
        ((says(1, A1), says(2, A3, units=12), says(3, A3)), 1),
        ((says(1, A3), says(2, A3), says(3, A3)), None),
    ],
)
def test_units_are_counted_over_all_items(words: tuple[ItemAnswer, ...], units: int | None) -> None:
    assert weighed(*words).units == units


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((says(1, A1, number=None), says(2, A3), says(3, A3)), "number-missing"),
        ((says(1, A1), says(2, A1, number="a, b"), says(3, A3)), "number-malformed"),
        ((says(1, A1), says(2, A2), says(3, A3)), "units-missing"),
        (
            (says(1, A1), says(2, A1, valid_from=date(2026, 5, 1), valid_to=date(2026, 4, 1)), says(3, A3)),
            "dates-reversed",
        ),
        ((says(1, A1), says(4, A1)), "unknown-item"),
    ],
)
def test_one_item_that_cannot_be_used_spoils_the_answer(words: tuple[ItemAnswer, ...], reason: str) -> None:
    assert weigh(told(*words), "claim", ASKED, Source.POLL, NOW) == Unusable(reason)


def test_grants_that_never_hold_together_give_the_days_of_the_first() -> None:
    april = {"valid_from": date(2026, 4, 1), "valid_to": date(2026, 4, 30)}
    june = {"valid_from": date(2026, 6, 1), "valid_to": date(2026, 6, 30)}
    ruling = weighed(says(1, A1, **april), says(2, A1, **june), says(3, A1))
    assert (ruling.valid_from, ruling.valid_to) == (date(2026, 4, 1), date(2026, 4, 30))


def test_what_was_granted_otherwise_is_a_difference() -> None:
    ruling = weighed(
        says(1, A1),
        says(2, A6, units=8, granted=(GrantAnswer(OTHER, 8),)),
        says(3, A3, reasons=("0M",)),
    )
    found = differences(ruling, ASKED)
    assert [(each.sequence, each.action, each.units_requested, each.units_granted) for each in found] == [
        (2, A6, 12, 8),
        (3, A3, 6, 0),
    ]
    assert (found[0].service, found[0].granted, found[1].reasons) == (THERAPY, (OTHER,), ("0M",))
    assert differences(weighed(says(1, A1), says(2, A1, units=12), says(3, NA)), ASKED) == ()


def test_another_service_in_the_items_detail_is_a_difference_and_one_of_another_system_is_none() -> None:
    same, other = says(1, A1, service=CONSULT), says(2, A1, service=OTHER, units=12)
    foreign = says(3, A1, service=Coding(system="https://codesystem.x12.org/005010/1365", code="1"))
    (difference,) = differences(weighed(same, other, foreign), ASKED)
    assert (difference.sequence, difference.granted, difference.units_granted) == (2, (OTHER,), 12)
    denied = weighed(says(1, A1), says(2, A3, service=OTHER), says(3, A1))
    assert [word.granted for word in denied.items] == [(), (), ()]


def test_the_difference_is_shown_and_told() -> None:
    document = asking()
    assert hear(document, says(1, A1), says(2, A2, units=8), says(3, A3)) is Effect.TAKEN
    event = last(document)
    assert isinstance(event, AuthorizationApproved)
    assert (event.units_requested, event.units_granted) == (19, 9)
    assert [each.sequence for each in event.differences] == [2, 3]
    shown = view(document)
    assert [each["units_granted"] for each in shown["differences"]] == [8, 0]
    assert [each["action"] for each in shown["ruling"]["items"]] == ["A1", "A2", "A3"]


def test_a_denial_of_several_items_tells_each_ones_reasons() -> None:
    document = asking()
    hear(document, says(1, A3, reasons=("82",)), says(2, C), says(3, A3, reasons=("0M",)))
    event = last(document)
    assert isinstance(event, AuthorizationDenied)
    assert [each.reasons for each in event.differences] == [("82",), (), ("0M",)]


def test_what_is_decided_of_some_items_is_shown_while_the_payer_decides_the_others() -> None:
    document = asking()
    hear(document, says(1, A1), says(2, A4), says(3, A3))
    assert document.state is State.PENDED
    (claim,) = view(document)["claims"]
    assert [(word["sequence"], word["action"]) for word in claim["interim"]] == [(1, "A1"), (2, "A4"), (3, "A3")]
    hear(document, says(1, A4), says(2, A4), says(3, A4), minutes=-5)
    assert document.submissions[0].interim is not None
    hear(document, says(1, A1), says(2, A1), says(3, A3), minutes=5)
    assert (document.state, document.submissions[0].interim) == (State.APPROVED, None)


def test_another_word_on_one_item_is_another_ruling() -> None:
    document = asking()
    hear(document, says(1, A1), says(2, A3), says(3, A3))
    assert hear(document, says(1, A1), says(2, A3), says(3, A3), minutes=1) is Effect.REPEATED
    assert hear(document, says(1, A1), says(2, A3), says(3, A3, reasons=("0M",)), minutes=2) is Effect.TAKEN
    assert hear(document, says(1, A3), says(2, A1, number="N-1"), says(3, A3), minutes=2) is Effect.CONTRADICTED


def test_a_payers_errors_are_kept_with_the_claim_as_codes_alone() -> None:
    document = asking()
    land(document, "submit")
    errors = (
        ErrorAnswer("T4", "Bundle.entry[1].resource.name", "C", 2),
        ErrorAnswer("Jane Doe is unknown", "see the letter to Jane Doe", "call us", None),
    )
    outcome = Answered(told(claims=(document.claim_id,), errors=errors))
    calling.settle_submit(document, outcome, facts(member()), NOW)
    assert document.troubles[-1].reason == "rejected-T4"
    assert view(document)["claims"][0]["errors"] == [
        {"code": "T4", "path": "Bundle.entry[1].resource.name", "follow_up": "C", "item": 2},
        {"code": "unknown", "path": None, "follow_up": None, "item": None},
    ]
    assert "Jane" not in document.model_dump_json()
    hear(document, says(1, A4), says(2, A4), says(3, A4))
    assert document.submissions[0].errors == ()


def test_bad_words_change_no_claim() -> None:
    document = asking()
    hear(document, says(1, A4), says(2, A4), says(3, A4))
    before = document.submissions[0].model_copy()
    assert hear(document, says(9, A1), minutes=1) is Effect.UNUSABLE
    assert (document.submissions[0], events(document)[-1]) == (before, "authorization.pended.v1")


def test_a_ruling_of_before_items_were_kept_is_repeated_by_one_with_its_item() -> None:
    one = ASKED[:1]
    new = weighed(says(1, A1), asked=one)
    assert new.model_copy(update={"items": ()}).says() == new.says()
