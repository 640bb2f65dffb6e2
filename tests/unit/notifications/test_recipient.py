"""People: what is kept of them, what they stop, what they are owed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.notifications.model import recipient as recipients
from services.notifications.model.delivery import Accepted, Rejected
from services.notifications.model.intents import read
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import ANSWER, Hear, Recipient, RecipientState, e164
from shared.contracts.intake import Channel
from shared.contracts.notifications import ReplyIntent, ReplyReceived
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from tests.unit.notifications.cases import APPOINTMENT, NOW, PATIENT, POLICY, changed, names, person

SOON = NOW + timedelta(seconds=2)


def heard(who: Recipient, text: str, id: str = "m1", channel: Channel = Channel.SMS, answer: bool = True) -> Recipient:
    command = Hear(
        message_id=id,
        channel=channel,
        text=text,
        intents=read(text, channel),
        appointment_id=APPOINTMENT,
        answer=answer,
    )
    return recipients.hear(who, command, Facts(), NOW)


def answering(who: Recipient) -> Recipient:
    return recipients.prepare_answer(who, Due(ANSWER, NOW), Facts(), SOON)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("+1 (500) 555-9001", "+15005559001"),
        ("500-555-9001", "+15005559001"),
        ("1 500 555 9001", "+15005559001"),
        ("+34 600 000 000", "+34600000000"),
        *((bad, None) for bad in (None, "", "555-9001", "call me", "+0123456789", "+1234567890123456", "050 555 9001")),
    ],
)
def test_a_number_is_brought_to_e164_or_is_none(number: str | None, expected: str | None) -> None:
    assert e164(number) == expected


def test_numbers_are_found_by_a_keyed_hash_and_never_stand_in_an_index() -> None:
    kept = person(phone="+15005559002")
    assert kept.mobile_hash == POLICY.hash_of("+15005559001")
    assert kept.phone_hash == POLICY.hash_of("+15005559002")
    assert Policy(number_key=b"other").hash_of("+15005559001") != kept.mobile_hash
    assert not {"mobile", "phone", "email"} & set(Recipient.indexes)


def test_a_person_is_announced_when_they_become_known_and_when_something_of_use_changes() -> None:
    kept = recipients.keep(POLICY, None, changed(), Facts(), NOW)
    assert names(kept) == ["recipient.known.v1"]
    kept.recorded().clear()
    recipients.keep(POLICY, kept, changed(gender="female"), Facts(), NOW)
    assert names(kept) == []
    recipients.keep(POLICY, kept, changed(timezone="America/Chicago"), Facts(), NOW)
    assert names(kept) == ["recipient.known.v1"]


def test_an_erased_person_is_forgotten_and_stays_so() -> None:
    kept = heard(person(), "HELP")
    kept.recorded().clear()
    recipients.keep(POLICY, kept, changed(erased=True), Facts(), NOW)
    assert kept.state is RecipientState.ERASED
    assert kept.ended
    left = kept.model_dump(exclude={"id", "state", "sequence", "version", "attempted"})
    assert left == Recipient(id=PATIENT).model_dump(exclude={"id", "state", "sequence", "version", "attempted"})
    assert names(kept) == ["recipient.known.v1"]
    heard(kept, "STOP", "m9")
    assert names(kept) == ["recipient.known.v1"]


def test_a_stop_holds_at_once_for_texts_and_calls_and_is_told() -> None:
    kept = heard(person(), "STOP")
    assert kept.barred == {Channel.SMS, Channel.VOICE}
    assert names(kept) == [
        "reply.received.v1",
        "channel.revoked.v1",
        "channel.revoked.v1",
        "recipient.known.v1",
    ]


def test_a_stop_holds_against_news_of_intake_that_does_not_know_of_it_yet() -> None:
    kept = heard(person(), "STOP")
    recipients.keep(POLICY, kept, changed(language="es"), Facts(), NOW)
    assert Channel.SMS in kept.barred
    recipients.keep(POLICY, kept, changed(revoked=(Channel.SMS, Channel.VOICE)), Facts(), NOW)
    assert kept.stopped == ()
    recipients.keep(POLICY, kept, changed(), Facts(), NOW)
    assert kept.barred == frozenset()


def test_a_reply_is_taken_once_however_often_it_comes() -> None:
    kept = heard(heard(person(), "C"), "C")
    assert names(kept) == ["reply.received.v1"]
    assert len(kept.said) == 1


def test_a_reply_says_what_it_asks_and_about_which_visit() -> None:
    for text, intent in (("C", ReplyIntent.CONFIRM), ("X", ReplyIntent.CANCEL), ("late?", ReplyIntent.OTHER)):
        event = heard(person(), text).recorded()[0]
        assert event == ReplyReceived(patient_id=PATIENT, appointment_id=APPOINTMENT, intent=intent)


def test_a_bare_cancel_stops_and_asks_a_person_and_cancels_nothing() -> None:
    said = [event.intent for event in heard(person(), "CANCEL").recorded() if isinstance(event, ReplyReceived)]
    assert said == [ReplyIntent.STOP, ReplyIntent.OTHER]


def test_a_stop_is_confirmed_once_and_only_within_five_minutes() -> None:
    kept = answering(heard(person(), "STOP"))
    assert ANSWER in kept.attempts
    assert recipients.check_answer(kept, Facts(), SOON)
    assert not recipients.check_answer(kept, Facts(), NOW + timedelta(minutes=5))
    late = recipients.prepare_answer(heard(person(), "STOP"), Due(ANSWER, NOW), Facts(), NOW + timedelta(minutes=5))
    assert late.owed == []
    assert not late.attempts


def test_a_second_stop_is_not_confirmed_and_help_after_a_stop_gets_no_text() -> None:
    kept = recipients.settle_answer(POLICY, answering(heard(person(), "STOP")), Accepted(), Facts(), SOON)
    for text, id in (("STOP", "m2"), ("HELP", "m3")):
        heard(kept, text, id)
        assert kept.owed == []
    assert [name for name in names(kept) if name == "channel.revoked.v1"] == ["channel.revoked.v1"] * 2


def test_a_stop_takes_the_place_of_a_help_that_was_not_answered_yet() -> None:
    kept = heard(heard(person(), "HELP"), "STOP", "m2")
    assert [owed.to for owed in kept.owed] == [ReplyIntent.STOP]


def test_an_answer_that_was_not_taken_is_tried_again_while_it_is_owed() -> None:
    kept = answering(heard(person(), "STOP"))
    kept.abandon(ANSWER)
    recipients.settle_answer(POLICY, kept, Refused("status-429", retry_after=2), Facts(), SOON)
    assert kept.due == SOON + timedelta(seconds=3)
    assert kept.owed


@pytest.mark.parametrize("deduplicates", [True, False])
def test_an_answer_that_may_be_out_is_repeated_only_where_that_cannot_double(deduplicates: bool) -> None:
    policy = Policy(deduplicating=frozenset({Channel.SMS}) if deduplicates else frozenset())
    kept = answering(heard(person(), "STOP"))
    kept.abandon(ANSWER)
    kept.rest(ANSWER)
    recipients.settle_answer(policy, kept, Unanswered("timeout"), Facts(), SOON)
    assert bool(kept.owed) is deduplicates
    assert (kept.due is not None) is deduplicates


def test_an_answer_that_is_refused_for_good_is_given_up() -> None:
    kept = answering(heard(person(), "HELP"))
    kept.abandon(ANSWER)
    recipients.settle_answer(POLICY, kept, Rejected("invalid-number"), Facts(), SOON)
    assert kept.owed == []


def test_only_one_of_those_who_share_a_telephone_is_answered() -> None:
    assert heard(person(), "STOP", answer=False).owed == []


def test_a_stop_pressed_in_a_call_is_not_answered_by_text() -> None:
    kept = heard(person(), "9", channel=Channel.VOICE)
    assert kept.owed == []
    assert Channel.VOICE in kept.barred
