"""One message: when it goes, by which channel, what becomes of it; every state meets every message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.notifications.model import delivery as deliveries
from services.notifications.model.delivery import (
    SEND,
    Accepted,
    Delivery,
    DeliveryState,
    Drop,
    Fail,
    Fate,
    Later,
    Rejected,
    Report,
    Send,
    Unaddressed,
)
from services.notifications.model.policy import Policy
from services.notifications.model.visit import DropReason, Standing, Visit
from shared.contracts.intake import Channel
from shared.contracts.notifications import (
    DeliveriesWithdrawn,
    DeliveryDropped,
    DeliveryEscalated,
    DeliveryFailed,
    DeliveryKind,
    DeliveryUnaddressed,
    RecipientKnown,
)
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from shared.kit.document import derived_id
from shared.kit.errors import IllegalTransition
from tests.unit.notifications.cases import (
    APPOINTMENT,
    NOW,
    PATIENT,
    POLICY,
    a_delivery,
    a_visit,
    facts,
    fire,
    names,
    outcome,
    person,
    planned,
)

S = DeliveryState
AT = NOW + timedelta(days=8)
"""When the reminder of these tests is planned for: a Tuesday, 11:00 in New York (clocks have changed)."""

NIGHT = datetime(2026, 3, 10, 7, 0, tzinfo=UTC)
"""3:00 in New York on that day."""

MORNING = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
"""8:00 in New York on that day."""


def everything(**fields: object) -> Facts:
    return facts(person(**fields), a_visit())


def sending(known: Facts | None = None, policy: Policy = POLICY, **fields: object) -> Delivery:
    delivery = fire(a_delivery(person(), policy, **fields), known or everything(), AT, policy)
    assert delivery.state is S.SENDING
    delivery.recorded().clear()
    return delivery


def accepted() -> Delivery:
    delivery = outcome(sending(), Accepted("g1"), everything(), AT)
    delivery.recorded().clear()
    return delivery


def lost_mail() -> Delivery:
    known = everything(channels=(Channel.EMAIL,))
    delivery = outcome(sending(known), Unanswered("timeout"), known, AT)
    delivery.recorded().clear()
    return delivery


def sibling(name: str, at: datetime | None, state: DeliveryState = S.ACCEPTED) -> Delivery:
    """Another message to the same person."""
    other = a_delivery(person(), delivery_id=derived_id("test", name))
    other.channel, other.messaged, other.messaged_at, other.state = Channel.SMS, PATIENT, at, state
    return other


# -- planning -----------------------------------------------------------------------------------------------------


def test_a_reminder_whose_time_had_passed_when_it_was_planned_is_dropped_visibly() -> None:
    delivery = deliveries.plan(POLICY, None, planned(planned_for=NOW - timedelta(days=1)), facts(person(), None), NOW)
    assert delivery.state is S.DROPPED
    assert [e.reason for e in delivery.recorded() if isinstance(e, DeliveryDropped)] == ["past-usefulness"]
    assert delivery.due is None


def test_planning_the_same_message_again_changes_nothing() -> None:
    delivery = a_delivery(person())
    before = delivery.model_dump()
    assert deliveries.plan(POLICY, delivery, planned(), facts(person(), None), AT).model_dump() == before
    assert names(delivery) == []


def test_a_reminder_due_at_night_is_planned_for_the_recipients_morning() -> None:
    assert a_delivery(person(), planned_for=NIGHT).due == MORNING
    assert a_delivery(person(timezone="America/Los_Angeles"), planned_for=NIGHT).due == MORNING + timedelta(hours=3)


def test_a_reminder_of_the_day_itself_is_pulled_forward_and_never_goes_after_its_time() -> None:
    early = a_delivery(person(), planned_for=NIGHT, ahead_seconds=3 * 3600, useful_until=NIGHT + timedelta(hours=3))
    assert early.due == datetime(2026, 3, 10, 0, 59, 59, tzinfo=UTC)  # 20:59:59 the evening before
    spread = Policy(spread=timedelta(minutes=45))
    for n in range(50):
        id = derived_id("test", str(n))
        due = a_delivery(person(), spread, delivery_id=id, ahead_seconds=3 * 3600).due
        assert due is not None
        assert AT - timedelta(minutes=45) < due <= AT


def test_mail_and_letters_know_no_hours() -> None:
    for channel in (Channel.EMAIL, Channel.LETTER):
        week: dict[str, Any] = {"planned_for": NIGHT, "ahead_seconds": 7 * 86400}
        assert a_delivery(person(channels=(channel,)), **week).due == NIGHT


def test_a_confirmation_goes_at_once_by_day_and_in_the_morning_by_night() -> None:
    for now, due in ((NOW, NOW), (NIGHT, MORNING)):
        event = planned(kind=DeliveryKind.CONFIRMATION, ahead_seconds=None, planned_for=now, planned_at=now)
        assert deliveries.plan(POLICY, None, event, facts(person(), None), now).due == due


def test_a_delivery_made_before_its_recipient_is_known_asks_once_more_when_it_is_stored() -> None:
    delivery = deliveries.plan(POLICY, None, planned(), facts(None, None), NOW)
    assert names(delivery) == ["delivery.unaddressed.v1"]
    west = facts(person(timezone="Pacific/Honolulu"), None)
    deliveries.readdress(POLICY, delivery, DeliveryUnaddressed(delivery_id=delivery.id), west, NOW)
    assert delivery.due == AT + timedelta(hours=3)  # 8:00 in Honolulu


# -- choosing -----------------------------------------------------------------------------------------------------


def verdict(known: Facts, now: datetime = AT, **fields: Any) -> deliveries.Verdict:
    return deliveries.judge(POLICY, a_delivery(person(), **fields), known, now)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Send(Channel.SMS)),
        ({"channels": ()}, Send(Channel.SMS)),
        ({"channels": (Channel.EMAIL, Channel.SMS)}, Send(Channel.EMAIL)),
        ({"revoked": (Channel.SMS,)}, Send(Channel.EMAIL)),
        ({"mobile": None}, Send(Channel.EMAIL)),
        ({"mobile": "not a number"}, Send(Channel.EMAIL)),
        ({"channels": (Channel.VOICE,), "phone": "(212) 555-0100"}, Send(Channel.VOICE)),
        ({"channels": (Channel.VOICE,)}, Send(Channel.VOICE)),
        ({"channels": (Channel.SMS,), "revoked": (Channel.SMS,)}, Drop(DropReason.REVOKED)),
        ({"channels": (Channel.SMS,), "mobile": None}, Drop(DropReason.NO_CHANNEL)),
        ({"channels": (Channel.EMAIL,), "email": "a b@c\nBcc: d@e"}, Drop(DropReason.NO_CHANNEL)),
        ({"channels": (Channel.LETTER,)}, Drop(DropReason.PAST_USEFULNESS)),
        ({"channels": (Channel.LETTER,), "address": None}, Drop(DropReason.NO_CHANNEL)),
        ({"erased": True}, Drop(DropReason.NO_CHANNEL)),
    ],
)
def test_the_first_channel_that_is_allowed_and_reaches_the_person_is_chosen(
    fields: dict[str, object], expected: deliveries.Verdict
) -> None:
    assert verdict(everything(**fields)) == expected


def test_a_letter_is_chosen_only_where_the_post_is_in_time() -> None:
    early = {"ahead_seconds": 7 * 86400, "planned_for": NOW + timedelta(days=3)}
    known = everything(channels=(Channel.LETTER,))
    assert verdict(known, NOW + timedelta(days=3), **early) == Send(Channel.LETTER)
    assert verdict(known, NOW + timedelta(days=7, hours=1), **early) == Drop(DropReason.PAST_USEFULNESS)


def stood(state: Standing = Standing.BOOKED, occurrence: int = 1) -> Visit:
    visit = a_visit()
    visit.state, visit.occurrence = state, occurrence
    return visit


@pytest.mark.parametrize(
    ("visit", "kind", "expected"),
    [
        (stood(), DeliveryKind.REMINDER, Send(Channel.SMS)),
        (stood(Standing.CANCELLED), DeliveryKind.REMINDER, Drop(DropReason.CANCELLED)),
        (stood(Standing.NOSHOW), DeliveryKind.REMINDER, Drop(DropReason.CANCELLED)),
        (stood(Standing.ARRIVED), DeliveryKind.REMINDER, Drop(DropReason.PAST_USEFULNESS)),
        (stood(Standing.FULFILLED), DeliveryKind.CONFIRMATION, Drop(DropReason.PAST_USEFULNESS)),
        (stood(occurrence=2), DeliveryKind.REMINDER, Drop(DropReason.MOVED)),
        (stood(Standing.CANCELLED), DeliveryKind.CANCELLATION, Send(Channel.SMS)),
        (stood(), DeliveryKind.CANCELLATION, Drop(DropReason.MOVED)),
        (None, DeliveryKind.REMINDER, Drop(DropReason.CANCELLED)),
    ],
)
def test_the_visit_as_it_stands_decides_whether_a_message_is_wanted(
    visit: Visit | None, kind: DeliveryKind, expected: deliveries.Verdict
) -> None:
    assert verdict(facts(person(), visit), kind=kind) == expected


def test_what_is_past_its_usefulness_is_never_sent() -> None:
    until = a_delivery().useful_until
    assert verdict(everything(), until) == Drop(DropReason.PAST_USEFULNESS)
    assert verdict(facts(None, a_visit()), until) == Drop(DropReason.NO_CHANNEL)
    assert verdict(facts(None, a_visit())) == Unaddressed()


def test_a_text_waits_for_morning_but_gives_way_where_morning_is_too_late() -> None:
    assert verdict(everything(), NIGHT) == Later(MORNING)
    soon = {"useful_until": MORNING - timedelta(minutes=1)}
    assert verdict(everything(), NIGHT, **soon) == Send(Channel.EMAIL)
    assert verdict(everything(channels=(Channel.SMS,)), NIGHT, **soon) == Drop(DropReason.PAST_USEFULNESS)


def test_one_person_gets_one_text_a_day_and_the_next_goes_another_way_or_another_day() -> None:
    today = [sibling("a", AT - timedelta(hours=1))]
    assert verdict(facts(person(), a_visit(), today)) == Send(Channel.EMAIL)
    only = person(channels=(Channel.SMS,))
    assert verdict(facts(only, a_visit(), today)) == Later(MORNING + timedelta(days=1))
    tight = {"useful_until": AT + timedelta(hours=2)}
    assert verdict(facts(only, a_visit(), today), **tight) == Drop(DropReason.LIMIT)


def test_one_person_gets_three_texts_in_any_seven_days_and_calls_count() -> None:
    only = person(channels=(Channel.SMS,))
    days = [sibling(str(n), AT - timedelta(days=n)) for n in (1, 2, 6)]
    days[0].channel = Channel.VOICE
    assert verdict(facts(only, a_visit(), days)) == Later(MORNING + timedelta(days=1))
    days[2].messaged_at = AT - timedelta(days=7)
    assert verdict(facts(only, a_visit(), days)) == Send(Channel.SMS)


def test_mail_does_not_count_as_a_text_and_a_message_does_not_count_itself() -> None:
    mail = sibling("a", AT)
    mail.channel = Channel.EMAIL
    itself = a_delivery(person())
    itself.channel, itself.messaged, itself.messaged_at = Channel.SMS, PATIENT, AT
    assert deliveries.judge(POLICY, itself, facts(person(), a_visit(), [mail, itself]), AT) == Send(Channel.SMS)


def test_of_two_texts_that_set_out_together_neither_goes_unless_the_other_is_seen_to_stay() -> None:
    mine, other = sending(), sibling("b", AT, S.SENDING)
    known = facts(person(), a_visit(), [mine, other])
    assert not deliveries.check(POLICY, mine, known, AT)
    mine.abandon(SEND)
    again = fire(mine, known, AT)
    assert again.state is S.PLANNED
    assert again.messaged is None
    assert again.due is not None
    assert AT < again.due <= AT + timedelta(seconds=20)
    other.state = S.ACCEPTED
    assert fire(again, facts(person(), a_visit(), [other]), again.due).channel is Channel.EMAIL


def test_a_text_that_has_been_on_its_way_for_long_counts_as_sent() -> None:
    stuck = sibling("b", AT - timedelta(minutes=5), S.SENDING)
    assert verdict(facts(person(), a_visit(), [stuck])) == Send(Channel.EMAIL)


@pytest.mark.parametrize(
    "late",
    [
        facts(person(), stood(Standing.CANCELLED)),
        facts(person(), stood(occurrence=2)),
        facts(person(revoked=(Channel.SMS,)), a_visit()),
        facts(person(erased=True), a_visit()),
    ],
    ids=["cancelled", "moved", "stopped", "erased"],
)
def test_what_happens_between_intention_and_call_wins(late: Facts) -> None:
    delivery = sending()
    assert deliveries.check(POLICY, delivery, everything(), AT)
    assert not deliveries.check(POLICY, delivery, late, AT)
    delivery.abandon(SEND)
    fire(delivery, late, AT)
    assert delivery.channel is not Channel.SMS or delivery.state is S.DROPPED


def test_a_withdrawal_that_the_visit_fact_does_not_show_yet_wins_too() -> None:
    delivery = sending()
    event = DeliveriesWithdrawn(appointment_id=APPOINTMENT, delivery_ids=(delivery.id,), reason="moved")
    deliveries.withdraw(delivery, event, Facts(), AT)
    assert not deliveries.check(POLICY, delivery, everything(), AT)


def test_the_language_is_noted_and_so_is_that_it_is_not_the_persons_own() -> None:
    assert (sending(everything(language="es")).language, sending(everything(language="es")).fallback) == ("es", False)
    assert (sending(everything(language="vi")).language, sending(everything(language="vi")).fallback) == ("en", True)


# -- the outcome --------------------------------------------------------------------------------------------------


def test_a_message_that_the_gateway_took_is_accepted_and_told_of() -> None:
    delivery = outcome(sending(), Accepted("g1"), everything(), AT)
    assert (delivery.state, delivery.gateway_id, delivery.due) == (S.ACCEPTED, "g1", None)
    assert names(delivery) == ["delivery.accepted.v1"]


def test_a_channel_that_refuses_for_good_gives_way_to_the_next_and_the_last_one_fails_the_message() -> None:
    delivery = outcome(sending(), Rejected("invalid-number"), everything(), AT)
    assert (delivery.state, delivery.due, delivery.messaged) == (S.PLANNED, AT, None)
    delivery = fire(delivery, everything(), AT)
    assert delivery.channel is Channel.EMAIL
    delivery = fire(outcome(delivery, Rejected("smtp-550"), everything(), AT), everything(), AT)
    assert delivery.state is S.FAILED
    assert [event.reason for event in delivery.recorded() if isinstance(event, DeliveryFailed)] == ["smtp-550"]


def test_a_message_that_was_not_taken_is_tried_again_later_and_later_until_it_is_of_no_use() -> None:
    delivery, now, gaps = sending(), AT, []
    while delivery.state is S.SENDING:
        delivery = outcome(delivery, Refused("status-503"), everything(), now)
        assert delivery.messaged is None
        assert delivery.due is not None
        gaps.append(delivery.due - now)
        now = delivery.due
        delivery = fire(delivery, everything(), now)
        if delivery.state is S.PLANNED and delivery.due is not None:  # the night
            now = delivery.due
            delivery = fire(delivery, everything(), now)
    assert delivery.state is S.DROPPED
    assert delivery.reason == "past-usefulness"
    assert now == delivery.useful_until
    assert timedelta(seconds=30) <= gaps[0] <= timedelta(seconds=46)
    assert max(gaps) <= timedelta(minutes=45, seconds=1)


def test_the_gateways_own_wish_when_to_come_back_is_kept() -> None:
    delivery = outcome(sending(), Refused("status-429", retry_after=600), everything(), AT)
    assert delivery.due == AT + timedelta(seconds=601)


def test_a_lost_answer_is_asked_for_again_where_the_gateway_deduplicates_and_under_the_same_key() -> None:
    delivery = sending()
    key = delivery.key(Channel.SMS)
    delivery = outcome(delivery, Unanswered("timeout"), everything(), AT)
    assert (delivery.state, delivery.lost, delivery.messaged) == (S.PLANNED, True, PATIENT)
    assert delivery.due is not None
    again = fire(delivery, everything(), delivery.due)
    assert again.channel is Channel.SMS
    assert again.key(Channel.SMS) == key
    assert outcome(again, Accepted(), everything(), AT).lost is False


def test_a_lost_answer_is_unknown_where_the_gateway_does_not_deduplicate_and_nothing_is_sent_again() -> None:
    mail = lost_mail()
    assert mail.state is S.UNKNOWN
    assert SEND not in mail.timers
    never = Policy(spread=timedelta(0), deduplicating=frozenset())
    text = outcome(sending(policy=never), Unanswered("worker-lost"), everything(), AT, never)
    assert text.state is S.UNKNOWN
    assert names(text) == ["delivery.unknown.v1"]


def test_what_may_be_out_by_one_channel_goes_by_no_other_and_ends_as_unknown() -> None:
    for late in (
        everything(revoked=(Channel.SMS,)),
        everything(mobile=None),
        facts(person(), stood(Standing.CANCELLED)),
        everything(erased=True),
    ):
        delivery = outcome(sending(), Unanswered("timeout"), everything(), AT)
        assert fire(delivery, late, AT).state is S.UNKNOWN
    delivery = outcome(sending(), Unanswered("timeout"), everything(), AT)
    assert fire(delivery, everything(), delivery.useful_until).state is S.UNKNOWN


def test_a_refusal_after_a_lost_answer_does_not_make_the_loss_unhappen() -> None:
    delivery = outcome(sending(), Unanswered("timeout"), everything(), AT)
    delivery = fire(delivery, everything(), AT)
    delivery = outcome(delivery, Refused("status-503"), everything(), AT)
    assert (delivery.lost, delivery.messaged) == (True, PATIENT)


def test_a_withdrawal_of_a_message_whose_answer_was_lost_shows_it_as_unknown() -> None:
    delivery = outcome(sending(), Unanswered("timeout"), everything(), AT)
    event = DeliveriesWithdrawn(appointment_id=APPOINTMENT, delivery_ids=(delivery.id,), reason="cancelled")
    deliveries.withdraw(delivery, event, Facts(), AT)
    assert delivery.due == AT
    assert fire(delivery, everything(), AT).state is S.UNKNOWN


def test_a_late_report_replaces_unknown_and_ends_the_wait() -> None:
    for fate, state in ((Fate.DELIVERED, S.DELIVERED), (Fate.UNDELIVERED, S.FAILED), (Fate.FAILED, S.FAILED)):
        delivery = deliveries.report(lost_mail(), Report(fate=fate), Facts(), AT)
        assert delivery.state is state
        assert delivery.wait is None
        assert delivery.due is None


def test_a_report_that_overtakes_the_answer_to_the_call_says_both() -> None:
    delivery = deliveries.report(sending(), Report(fate=Fate.DELIVERED, gateway_id="g1"), Facts(), AT)
    assert names(delivery) == ["delivery.accepted.v1", "delivery.delivered.v1"]
    assert deliveries.settle(POLICY, delivery, Unanswered("worker-lost"), everything(), AT).state is S.DELIVERED


def test_a_report_for_a_message_that_is_to_be_tried_again_stops_it() -> None:
    delivery = outcome(sending(), Unanswered("timeout"), everything(), AT)
    deliveries.report(delivery, Report(fate=Fate.DELIVERED), Facts(), AT)
    assert delivery.state is S.DELIVERED
    assert delivery.due is None


def test_a_coordinator_can_say_what_became_of_an_unknown_message_and_of_no_other() -> None:
    found = Report(fate=Fate.DELIVERED)
    assert deliveries.find_out(lost_mail(), found, Facts(), AT).state is S.DELIVERED
    with pytest.raises(IllegalTransition):
        deliveries.find_out(accepted(), found, Facts(), AT)


# -- waiting ------------------------------------------------------------------------------------------------------


def waiting() -> Delivery:
    delivery = fire(a_delivery(), facts(None, a_visit()), AT)
    delivery.recorded().clear()
    return delivery


def test_a_message_to_somebody_unheard_of_waits_with_a_deadline_and_asks_once_it_is_stored() -> None:
    delivery = fire(a_delivery(), facts(None, a_visit()), AT)
    assert delivery.state is S.AWAITING_RECIPIENT
    assert names(delivery) == ["delivery.unaddressed.v1"]
    assert delivery.wait is not None
    assert delivery.wait.deadline == AT + timedelta(hours=24)


def test_a_message_goes_on_when_its_recipient_becomes_known() -> None:
    delivery = waiting()
    deliveries.readdress(POLICY, delivery, RecipientKnown(patient_id=PATIENT), everything(), AT + timedelta(hours=1))
    assert (delivery.state, delivery.wait, delivery.due) == (S.PLANNED, None, AT + timedelta(hours=1))


def test_a_wait_that_outlives_its_deadline_escalates_once_and_ends_with_the_messages_use() -> None:
    delivery = waiting()
    due = Due("deadline", AT + timedelta(hours=24))
    deliveries.escalate(delivery, due, Facts(), due.at)
    deliveries.escalate(delivery, due, Facts(), due.at + timedelta(hours=1))
    escalations = [event for event in delivery.recorded() if isinstance(event, DeliveryEscalated)]
    assert [(event.state, event.owner) for event in escalations] == [("awaiting-recipient", "intake")]
    ended = fire(delivery, facts(None, a_visit()), delivery.useful_until)
    assert (ended.state, ended.reason) == (S.DROPPED, "no-channel")


def test_an_unknown_outcome_escalates_once_to_a_coordinator() -> None:
    delivery = lost_mail()
    at = AT + timedelta(hours=24)
    for now in (at, at + timedelta(days=1)):
        deliveries.escalate(delivery, Due("deadline", at), Facts(), now)
    assert names(delivery) == ["delivery.escalated.v1"]


def test_a_stop_drops_what_has_no_other_way_and_leaves_the_rest_to_go_another_way() -> None:
    for channels, state in (((Channel.SMS,), S.DROPPED), ((Channel.SMS, Channel.EMAIL), S.PLANNED)):
        known = everything(channels=channels, revoked=(Channel.SMS,))
        delivery = a_delivery(person(channels=channels))
        deliveries.readdress(POLICY, delivery, RecipientKnown(patient_id=PATIENT), known, NOW)
        assert delivery.state is state
    assert fire(delivery, known, AT).channel is Channel.EMAIL


def test_a_change_of_the_person_does_not_hurry_a_message_that_a_gateway_has_put_off() -> None:
    delivery = outcome(sending(), Refused("status-429", retry_after=600), everything(), AT)
    due = delivery.due
    deliveries.readdress(POLICY, delivery, RecipientKnown(patient_id=PATIENT), everything(), AT)
    assert delivery.due == due


# -- every state meets every message ------------------------------------------------------------------------------

IN_STATE: dict[DeliveryState, Callable[[], Delivery]] = {
    S.PLANNED: lambda: a_delivery(person()),
    S.AWAITING_RECIPIENT: waiting,
    S.SENDING: sending,
    S.ACCEPTED: accepted,
    S.DELIVERED: lambda: deliveries.report(accepted(), Report(fate=Fate.DELIVERED), Facts(), AT),
    S.FAILED: lambda: deliveries.report(accepted(), Report(fate=Fate.FAILED, code="c"), Facts(), AT),
    S.DROPPED: lambda: fire(a_delivery(person()), facts(person(), stood(Standing.CANCELLED)), AT),
    S.UNKNOWN: lost_mail,
}

MESSAGES: dict[str, Callable[[Delivery], Delivery]] = {
    "withdrawn": lambda d: (
        deliveries.withdraw(
            d, DeliveriesWithdrawn(appointment_id=APPOINTMENT, delivery_ids=(d.id,), reason="cancelled"), Facts(), AT
        )
        if d.state in deliveries.OPEN
        else d
    ),
    "known": lambda d: (
        deliveries.readdress(POLICY, d, RecipientKnown(patient_id=PATIENT), everything(), AT)
        if d.state in (S.PLANNED, S.AWAITING_RECIPIENT)
        else d
    ),
    "due": lambda d: fire(d, everything(), AT),
    "accepted": lambda d: deliveries.settle(POLICY, d, Accepted(), everything(), AT),
    "delivered": lambda d: deliveries.report(d, Report(fate=Fate.DELIVERED), Facts(), AT),
    "undelivered": lambda d: deliveries.report(d, Report(fate=Fate.UNDELIVERED), Facts(), AT),
}

TABLE = {
    S.PLANNED: {"withdrawn": S.DROPPED, "due": S.SENDING, "delivered": S.DELIVERED, "undelivered": S.FAILED},
    S.AWAITING_RECIPIENT: {"withdrawn": S.DROPPED, "known": S.PLANNED, "due": S.SENDING},
    S.SENDING: {"accepted": S.ACCEPTED, "delivered": S.DELIVERED, "undelivered": S.FAILED},
    S.ACCEPTED: {"delivered": S.DELIVERED, "undelivered": S.FAILED},
    S.UNKNOWN: {"delivered": S.DELIVERED, "undelivered": S.FAILED},
    S.DELIVERED: {},
    S.FAILED: {},
    S.DROPPED: {},
}
"""What leads where; all other pairs stay where they are."""


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("message", list(MESSAGES))
def test_every_pair_of_state_and_message_has_its_answer(state: DeliveryState, message: str) -> None:
    delivery = IN_STATE[state]()
    assert delivery.state is state
    after = MESSAGES[message](delivery)
    assert after.state is TABLE[state].get(message, state)
    if after.ended:
        assert after.due is None
        assert not after.attempts


def test_a_failure_carries_the_gateways_code_when_no_channel_is_left() -> None:
    delivery = a_delivery(person())
    delivery.unusable = {Channel.SMS: "invalid-number", Channel.EMAIL: "smtp-550"}
    assert deliveries.judge(POLICY, delivery, everything(), AT) == Fail("smtp-550")
