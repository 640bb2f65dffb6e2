"""A paused channel: its messages wait on their topic, other channels go on, and each message still goes out once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from services.notifications.model.delivery import DeliveryState
from shared.contracts.intake import Channel
from shared.kit.auth import Role
from shared.kit.document import derived_id
from tests.unit.notifications.cases import NOW, booked
from tests.unit.notifications.world import World, world

START = NOW + timedelta(days=10)
S = DeliveryState


async def say(place: World, state: str, name: str = "sms", **more: Any) -> dict[str, Any]:
    """Pause a channel, or have it go on."""
    body = {"kind": "channel", "name": name, "state": state, **more}
    async with place.service.client(Role.OPERATOR) as client:
        answer = await client.post("/operations/paused", json=body, headers=place.service.key())
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_messages_of_a_paused_channel_wait_while_others_go_and_go_once_when_it_is_resumed() -> None:
    async with world() as place:
        await say(place, "paused")
        await place.know()
        other = derived_id("patient", "by mail")
        await place.know(patient_id=other, channels=(Channel.EMAIL,))
        await place.schedule(booked(START))
        await place.schedule(booked(START, patient_id=other, appointment_id=derived_id("appointment", "other")))
        assert [message.channel for message in place.messages] == ["email"]
        told = await say(place, "paused", dry_run=True)
        assert told["waiting"] == 1

        await say(place, "running")
        await place.settle()
        assert sorted(message.channel for message in place.messages) == ["email", "sms"]
        assert set(place.gateway.ledger.references.values()) == {1}


async def test_a_long_pause_does_not_fill_the_topic_with_what_is_told_again() -> None:
    async with world() as place:
        await say(place, "paused")
        await place.know()
        await place.schedule(booked(START))
        for _ in range(12):
            place.service.clock.pass_(timedelta(minutes=11).total_seconds())
            await place.settle()
        assert (await say(place, "paused", dry_run=True))["waiting"] == 1
        await say(place, "running")
        await place.settle()
        assert len(place.messages) == 1


async def test_what_has_lost_its_use_while_its_channel_was_paused_is_dropped_and_not_sent() -> None:
    async with world() as place:
        await say(place, "paused")
        await place.know()
        await place.schedule(booked(START))
        place.service.clock.pass_(timedelta(days=11).total_seconds())
        await place.settle()
        await say(place, "running")
        await place.settle()
        assert place.messages == []
        assert {delivery.state for delivery in await place.deliveries()} == {S.DROPPED}


async def test_a_stop_is_answered_when_texts_go_again() -> None:
    async with world() as place:
        await place.know()
        await place.schedule(booked(START))
        (confirmation,) = place.messages
        await say(place, "paused")
        await place.reply(confirmation.to, "STOP")
        assert len(place.messages) == 1
        await say(place, "running")
        await place.settle()
        assert len(place.messages) == 2
