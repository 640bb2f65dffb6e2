"""Notifications as a whole: events in, messages out at the gateway's ledger, callbacks and replies back in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deploy.simulators.gateway import ScriptOrder
from services.notifications.model.delivery import DeliveryState
from services.notifications.model.stray import Stray
from shared.contracts.intake import Channel
from shared.contracts.scheduling import AppointmentCancelled, AppointmentNoShow, CancelledBy
from shared.kit.auth import Role
from shared.kit.document import derived_id
from tests.unit.notifications.cases import APPOINTMENT, NOW, PATIENT, booked, rescheduled
from tests.unit.notifications.world import World, world

START = NOW + timedelta(days=10)
NUMBER = "+15005559001"
S = DeliveryState


async def states(place: World) -> list[DeliveryState]:
    return [delivery.state for delivery in await place.deliveries()]


def cancelled(by: CancelledBy = CancelledBy.PROVIDER) -> AppointmentCancelled:
    return AppointmentCancelled(appointment_id=APPOINTMENT, patient_id=PATIENT, by=by, reason="test")


async def test_a_visit_is_confirmed_and_reminded_of_three_times_each_message_once_and_in_permitted_hours() -> None:
    async with world(window_spread=45 * 60) as place:
        await place.know()
        await place.schedule(booked(START))
        await place.until(START)
        assert await states(place) == [S.DELIVERED] * 4
        assert set(place.gateway.ledger.references.values()) == {1}
        assert len(place.messages) == 4
        zone = ZoneInfo("America/New_York")
        for message, delivery in zip(place.messages, await place.deliveries(), strict=True):
            assert 8 <= message.accepted_at.astimezone(zone).hour < 21
            assert message.reference == delivery.id
            assert len(message.body) <= 160
            assert message.accepted_at < delivery.useful_until
        assert len(place.published("delivery.delivered.v1")) == 4


async def test_a_cancelled_visit_is_told_of_once_and_reminds_no_more() -> None:
    async with world() as place:
        await place.know(channels=(Channel.EMAIL,))
        await place.schedule(booked(START))
        await place.schedule(cancelled())
        await place.until(START + timedelta(days=1))
        assert [message.subject for message in place.messages] == ["Your visit is booked", "Your visit is cancelled"]
        ended = sorted(await states(place))
        assert ended == [S.ACCEPTED, S.ACCEPTED, S.DROPPED, S.DROPPED, S.DROPPED]
        assert all(b'"reason":"cancelled"' in each["data"] for each in place.published("delivery.dropped.v1"))


async def test_a_moved_visit_reminds_of_its_new_date_only() -> None:
    async with world() as place:
        await place.know(channels=(Channel.EMAIL,))
        await place.schedule(booked(START))
        later = START + timedelta(days=4)
        await place.schedule(rescheduled(later, START))
        await place.until(later)
        subjects = [message.subject for message in place.messages]
        assert subjects == ["Your visit is booked", "Your visit has a new time", *["A reminder of your visit"] * 3]
        reminders = [message.body for message in place.messages[2:]]
        assert all("March 16, 2026 at 11:00 AM" in body for body in reminders)


async def test_a_visit_missed_or_booked_late_leaves_nothing_pending() -> None:
    async with world() as place:
        await place.know()
        soon = NOW + timedelta(hours=30)
        await place.schedule(booked(soon))
        dropped = [d for d in await place.deliveries() if d.state is S.DROPPED]
        assert [(d.ahead_seconds, d.reason) for d in dropped] == [
            (7 * 86400, "past-usefulness"),
            (2 * 86400, "past-usefulness"),
        ]
        await place.schedule(AppointmentNoShow(appointment_id=APPOINTMENT, patient_id=PATIENT))
        await place.until(soon)
        assert len(place.messages) == 1


async def test_messages_wait_for_a_person_not_heard_of_and_go_when_they_are_known() -> None:
    async with world() as place:
        await place.schedule(booked(START))
        assert (await states(place))[0] is S.AWAITING_RECIPIENT
        assert place.messages == []
        await place.know()
        assert [message.to for message in place.messages] == [NUMBER]


async def test_a_person_who_is_never_heard_of_is_escalated_once_and_then_given_up() -> None:
    async with world() as place:
        await place.schedule(booked(NOW + timedelta(days=3)))
        await place.until(NOW + timedelta(days=4))
        assert place.messages == []
        assert set(await states(place)) == {S.DROPPED}
        first = [e for e in place.published("delivery.escalated.v1") if b'"confirmation"' in e["data"]]
        assert len(first) == 1


@pytest.mark.parametrize(
    ("channel", "fields", "said"),
    [
        (Channel.VOICE, {"language": "es", "phone": "+15005559002"}, "Le llama CareRelay Clinic"),
        (Channel.EMAIL, {"language": "es-PR"}, "Su cita es el jueves 12 de marzo de 2026 a las 11:00 a. m."),
        (Channel.SMS, {"language": "es"}, "su cita es el jue 12 mar, 11:00 a.m."),
        (Channel.SMS, {"language": "vi"}, "your visit is on Thu Mar 12, 11:00 AM"),
    ],
)
async def test_each_channel_speaks_the_persons_language(channel: Channel, fields: dict[str, Any], said: str) -> None:
    async with world() as place:
        await place.know(channels=(channel,), **fields)
        await place.schedule(booked(START))
        (message,) = place.messages
        assert message.channel.value == channel.value
        assert said in message.body
        assert ((await place.deliveries())[0].fallback) is (fields["language"] == "vi")


async def test_a_letter_goes_as_a_pdf_where_there_is_time_for_the_post() -> None:
    async with world() as place:
        await place.know(channels=(Channel.LETTER,))
        await place.schedule(booked(START))
        await place.until(START)
        assert [message.channel for message in place.messages] == ["letter", "letter"]
        ended = {d.ahead_seconds: (d.state, d.reason) for d in await place.deliveries()}
        assert ended[2 * 86400] == (S.DROPPED, "past-usefulness")
        assert ended[7 * 86400] == (S.DELIVERED, None)


async def test_two_visits_of_one_person_bring_one_text_a_day() -> None:
    async with world() as place:
        await place.know(channels=(Channel.SMS,))
        for n in range(3):
            visit = derived_id("test", "visit", str(n))
            await place.service.arrive(booked(START + timedelta(hours=n), appointment_id=visit), visit, 1)
        await place.until(NOW + timedelta(hours=3))
        assert len(place.messages) == 1
        await place.until(NOW + timedelta(days=9))
        zone = ZoneInfo("America/New_York")
        days = [message.accepted_at.astimezone(zone).date() for message in place.messages]
        assert len(set(days)) == len(days)
        for day in days:
            assert sum(day - timedelta(days=6) <= other <= day for other in days) <= 3


# -- the gateway in its moods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("digit", [4, 5, 6, 7], ids=["busy", "error", "lost", "slow"])
async def test_a_gateway_in_trouble_gets_each_message_once_in_the_end(digit: int) -> None:
    async with world() as place:
        await place.know(mobile=f"+1500555{digit}001")
        await place.schedule(booked(START))
        await place.until(NOW + timedelta(hours=1))
        assert len(place.messages) == 1
        assert (await place.deliveries())[0].state is S.DELIVERED
        assert set(place.gateway.ledger.keys.values()) == {1}


async def test_a_number_that_the_gateway_refuses_gives_way_to_mail() -> None:
    async with world() as place:
        await place.know(mobile="+15005551001")
        await place.schedule(booked(START))
        assert [message.channel for message in place.messages] == ["email"]


async def test_a_text_that_does_not_arrive_is_a_failed_delivery() -> None:
    async with world() as place:
        await place.know(mobile="+15005552001")
        await place.schedule(booked(START))
        await place.until(NOW + timedelta(minutes=1))
        (failed,) = place.published("delivery.failed.v1")
        assert b'"unreachable"' in failed["data"]


@pytest.mark.parametrize(
    ("word", "state"),
    [("invalid", S.FAILED), ("busy", S.ACCEPTED), ("error", S.ACCEPTED)],
)
async def test_a_mail_server_says_for_now_or_for_good(word: str, state: DeliveryState) -> None:
    async with world() as place:
        await place.know(channels=(Channel.EMAIL,), email=f"{word}@people.example")
        await place.schedule(booked(START))
        await place.until(NOW + timedelta(hours=1))
        assert (await place.deliveries())[0].state is state
        assert len(place.messages) == (0 if state is S.FAILED else 1)


async def test_a_mail_server_that_is_down_is_tried_again_when_it_may_be_up() -> None:
    async with world(smtp_port=1) as place:
        await place.know(channels=(Channel.EMAIL,))
        await place.schedule(booked(START))
        delivery = (await place.deliveries())[0]
        assert (delivery.state, delivery.lost, delivery.tries) == (S.PLANNED, False, 1)
        assert delivery.due is not None
        assert delivery.due > NOW


async def test_mail_whose_last_answer_is_lost_is_unknown_shown_and_never_sent_again() -> None:
    async with world() as place:
        await place.know(channels=(Channel.EMAIL,), email="slow@people.example")
        await place.schedule(booked(START))
        await place.until(NOW + timedelta(days=2))
        assert len(place.messages) == 1
        assert place.messages[0].repeats == []
        coordinator = place.service.client(Role.COORDINATOR)
        listed = (await coordinator.get("/deliveries", params={"state": "unknown"})).json()["deliveries"]
        assert [each["wait"]["reason"] for each in listed] == ["outcome-unknown"]
        assert len(place.published("delivery.escalated.v1")) == 1
        found = await coordinator.post(
            f"/deliveries/{listed[0]['id']}/outcome", json={"outcome": "delivered"}, headers=place.service.key()
        )
        assert (found.status_code, found.json()["state"]) == (200, "delivered")


async def test_a_gateway_that_does_not_deduplicate_is_never_asked_twice_after_a_lost_answer() -> None:
    async with world(deduplicating_channels=[]) as place:
        await place.know(mobile="+15005556001")
        place.gateway.script(ScriptOrder.model_validate({"fate": "lost", "to": "+15005556001"}))
        await place.schedule(booked(START))
        await place.until(NOW + timedelta(hours=2))
        assert len(place.messages) == 1
        assert place.messages[0].repeats == []
        assert (await place.deliveries())[0].state is S.DELIVERED  # the late callback replaced unknown
        assert len(place.published("delivery.unknown.v1")) == 1


async def test_an_outage_drops_what_is_of_no_use_any_more_and_sends_the_rest() -> None:
    async with world() as place:
        await place.know(channels=(Channel.SMS,))
        await place.schedule(booked(START))
        place.hosts.down.add("gateway.test")
        await place.until(START - timedelta(days=1, hours=20))
        place.hosts.down.clear()
        await place.until(START)
        by_time = {d.ahead_seconds: (d.state, d.reason) for d in await place.deliveries()}
        assert by_time[7 * 86400] == (S.DROPPED, "past-usefulness")
        assert by_time[2 * 86400][0] is S.DELIVERED
        assert by_time[3 * 3600][0] is S.DELIVERED
        assert len(place.messages) == 3


# -- replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "intent"), [("C", "confirm"), ("x", "cancel"), ("Sí", "confirm"), ("late?", "other")])
async def test_a_reply_is_about_the_visit_that_was_last_written_of(text: str, intent: str) -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        await place.reply(NUMBER, text, copies=3)
        (told,) = place.published("reply.received.v1")
        assert f'"intent":"{intent}"'.encode() in told["data"]
        assert APPOINTMENT.encode() in told["data"]
        assert told["headers"]["ce_subject"] == PATIENT


async def test_a_stop_is_obeyed_confirmed_once_and_what_is_planned_goes_another_way() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        await place.reply(NUMBER, "STOP")
        assert [each["headers"]["ce_subject"] for each in place.published("channel.revoked.v1")] == [PATIENT] * 2
        await place.until(START)
        texts = [message for message in place.messages if message.channel == "sms"]
        assert len(texts) == 2
        assert "no more texts" in texts[1].body
        assert texts[1].accepted_at - NOW <= timedelta(minutes=5)
        assert [message.channel for message in place.messages[2:]] == ["email"] * 3


async def test_a_stop_without_another_way_drops_what_is_planned() -> None:
    async with world() as place:
        await place.know(channels=(Channel.SMS,))
        await place.schedule(booked(START))
        await place.reply(NUMBER, "unsubscribe")
        assert [d.reason for d in await place.deliveries() if d.state is S.DROPPED] == ["revoked"] * 3


async def test_those_who_share_a_telephone_all_stop_and_one_of_them_is_answered() -> None:
    async with world() as place:
        child = derived_id("test", "child")
        await place.know()
        await place.know(patient_id=child)
        await place.schedule(booked(START))
        await place.reply(NUMBER, "stop")
        for id in (PATIENT, child):
            assert Channel.SMS in (await place.recipient(id)).barred
        assert len(place.messages) == 2


async def test_a_stranger_is_heard_and_kept_without_number_or_words() -> None:
    async with world() as place:
        await place.reply("+15005559999", "who is this at Elm Street", copies=2)
        (stray,) = await place.service.all(Stray)
        assert (stray.channel, stray.intent) == ("sms", "other")
        kept = repr(place.service.store.__dict__)
        assert "9999" not in kept
        assert "Elm Street" not in kept
        assert place.gateway.ledger.replies[0].accepted


# -- the API ------------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_by_appointment_without_personal_data_and_page_by_page() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        client = place.service.client(Role.SCHEDULER)
        first = (await client.get("/deliveries", params={"appointment": APPOINTMENT, "limit": 3})).json()
        rest = (await client.get("/deliveries", params={"appointment": APPOINTMENT, "after": first["after"]})).json()
        assert len(first["deliveries"]) == 3
        assert len(rest["deliveries"]) == 1
        assert rest["after"] is None
        for secret in ("Núñez", NUMBER, "zoe@", "Test Way"):
            assert secret not in str(first) + str(rest)
        one = await client.get(f"/deliveries/{rest['deliveries'][0]['id']}")
        assert one.headers["ETag"] == f'"{one.json()["version"]}"'


async def test_a_recipient_is_shown_to_coordinators_with_replies_and_without_numbers() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        await place.reply(NUMBER, "Can I come later?")
        shown = (await place.service.client(Role.COORDINATOR).get(f"/recipients/{PATIENT}")).json()
        assert [reply["text"] for reply in shown["replies"]] == ["Can I come later?"]
        assert shown["reachable_by"] == ["sms", "email"]
        assert NUMBER not in str(shown)
        refused = await place.service.client(Role.SCHEDULER).get(f"/recipients/{PATIENT}")
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/callbacks/status", {"id": "g", "reference": "not-an-id", "status": "delivered"}, 422),
        ("/callbacks/status", {"id": "g", "reference": derived_id("test", "nobody"), "status": "delivered"}, 404),
        ("/callbacks/status", {"id": "g", "reference": derived_id("test", "nobody"), "status": "lost"}, 422),
        ("/callbacks/status", {"id": "g", "reference": derived_id("x"), "status": "failed", "code": "a b"}, 422),
        ("/inbound/letter", {"id": "m", "from": NUMBER, "body": "C"}, 422),
        ("/inbound/sms", {"id": "m", "from": NUMBER}, 422),
        ("/inbound/sms", {"id": "m", "from": NUMBER, "body": "C", "more": 1}, 422),
        ("/inbound/sms", {"id": "m", "from": "nobody", "body": "C"}, 202),
    ],
)
async def test_what_a_gateway_gets_wrong_is_refused_by_name_of_the_field(
    path: str, body: dict[str, object], status: int
) -> None:
    async with world() as place:
        client = place.service.client(Role.SERVICE)
        answer = await client.post(path, json=body, headers=place.service.key())
        assert answer.status_code == status
        assert NUMBER not in answer.text
        if status == 422:
            assert answer.json()["errors"]


async def test_only_services_may_report_and_only_with_a_token() -> None:
    async with world() as place:
        body = {"id": "m", "from": NUMBER, "body": "C"}
        for roles, status in (((Role.COORDINATOR,), 403), ((Role.SERVICE,), 202)):
            client = place.service.client(*roles)
            answer = await client.post("/inbound/sms", json=body, headers=place.service.key())
            assert answer.status_code == status
        client.headers.pop("Authorization")
        assert (await client.post("/inbound/sms", json=body, headers=place.service.key())).status_code == 401


async def test_a_listing_needs_a_filter_and_a_settled_outcome_cannot_be_found_out() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        client = place.service.client(Role.COORDINATOR)
        assert (await client.get("/deliveries")).status_code == 422
        delivery = (await place.deliveries())[0]
        answer = await client.post(
            f"/deliveries/{delivery.id}/outcome", json={"outcome": "delivered"}, headers=place.service.key()
        )
        assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]) == (409, "illegal-transition")


async def test_nothing_personal_is_published() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        await place.reply(NUMBER, "my secret words")
        await place.reply(NUMBER, "STOP")
        for topic in ("notifications.events", "notifications.work"):
            for _, event in place.service.published(topic):
                told = str(event)
                for secret in ("Núñez", "Zoé", NUMBER, "5559001", "zoe@", "Test Way", "secret words", "10001"):
                    assert secret not in told


async def test_an_erased_person_gets_nothing_more_and_is_found_no_more() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        await place.know(erased=True)
        await place.until(START)
        assert len(place.messages) == 1
        assert [d.reason for d in await place.deliveries() if d.state is S.DROPPED] == ["no-channel"] * 3
        await place.reply(NUMBER, "C")
        assert len(await place.service.all(Stray)) == 1
