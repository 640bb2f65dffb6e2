"""A clinician's talk with a payer's physician has a place in the clinician's calendar, within the times offered."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from services.scheduling.model.calendar import slot_id
from services.scheduling.service import Settings, build
from shared.contracts.prior_authorization import AuthorizationPeerToPeerClosed, AuthorizationPeerToPeerOffered
from shared.kit.document import derived_id
from shared.kit.testing.harness import Harness
from tests.unit.scheduling.test_api import TEN, get, hold, post, publish, slot_body
from tests.unit.scheduling.world import DOCTOR, patient, referral

AUTHORIZATION, TALK = derived_id("test", "authorization"), derived_id("test", "talk")
HALF, HOUR, DAY = timedelta(minutes=30), timedelta(hours=1), timedelta(days=1)
SEQUENCE = count(1)
IDS = {
    "authorization_id": AUTHORIZATION,
    "referral_id": referral(1),
    "patient_id": patient(1),
    "talk_id": TALK,
}


@pytest.fixture
async def scheduling() -> Harness:
    return await Harness(Settings, build).start()


def window(start: datetime, length: timedelta = 2 * HOUR) -> dict[str, datetime]:
    return {"start": start, "end": start + length}


async def offer(harness: Harness, *windows: dict[str, datetime], chosen: dict[str, datetime] | None = None) -> Any:
    """The payer offers these times; the talk as it stands then."""
    fields = {"clinician_id": DOCTOR, "offers": windows, "chosen": chosen, "not_after": TEN + 14 * DAY}
    event = AuthorizationPeerToPeerOffered.model_validate({**IDS, **fields})
    await harness.arrive(event, AUTHORIZATION, next(SEQUENCE), service="prior_authorization")
    await harness.settle()
    return await talk(harness)


async def close(harness: Harness, outcome: str) -> Any:
    event = AuthorizationPeerToPeerClosed.model_validate({**IDS, "outcome": outcome})
    await harness.arrive(event, AUTHORIZATION, next(SEQUENCE), service="prior_authorization")
    await harness.settle()
    return await talk(harness)


async def talk(harness: Harness) -> Any:
    return await get(harness, f"/talks/{TALK}")


async def status(harness: Harness, slot: str) -> str:
    found: str = (await get(harness, f"/slots/{slot}"))["status"]
    return found


def told(harness: Harness, kind: str) -> int:
    return sum(type == kind for type, _ in harness.published("scheduling.events"))


async def test_the_earliest_free_slot_within_the_times_offered_is_taken_and_told_once(scheduling: Harness) -> None:
    early, first, later = await publish(scheduling, TEN - HOUR, TEN, TEN + HALF)
    found = await offer(scheduling, window(TEN))
    assert (found["state"], found["slot_id"]) == ("booked", first)
    assert [await status(scheduling, slot) for slot in (early, first, later)] == ["free", "busy", "free"]
    again = await offer(scheduling, window(TEN))
    assert again["slot_id"] == first
    assert told(scheduling, "talk.booked.v1") == 1
    assert told(scheduling, "appointment.booked.v1") == 0, "nobody reminds a patient of it"
    (listed,) = (await get(scheduling, "/talks", resource=DOCTOR))["talks"]
    assert listed == again


async def test_a_slot_that_outlasts_the_time_offered_is_none_for_it(scheduling: Harness) -> None:
    await publish(scheduling, TEN)
    assert (await offer(scheduling, window(TEN, HALF - timedelta(minutes=1))))["state"] == "waitlist"
    assert told(scheduling, "talk.unplaced.v1") == 1


async def test_a_talk_without_a_slot_takes_the_first_that_appears(scheduling: Harness) -> None:
    assert (await offer(scheduling, window(TEN), window(TEN + DAY)))["state"] == "waitlist"
    await post(scheduling, f"/calendars/{DOCTOR}/slots", slot_body(TEN + DAY))
    await scheduling.settle()
    found = await talk(scheduling)
    assert (found["state"], found["slot_id"]) == ("booked", slot_id(DOCTOR, TEN + DAY))


async def test_what_a_patient_has_is_not_taken(scheduling: Harness) -> None:
    first, second = await publish(scheduling, TEN, TEN + HALF)
    assert (await hold(scheduling, first, 2)).status_code == 201
    assert (await offer(scheduling, window(TEN)))["slot_id"] == second
    assert (await hold(scheduling, second, 3)).status_code == 409


async def test_a_time_that_a_person_picks_moves_the_talk_there(scheduling: Harness) -> None:
    first, second = await publish(scheduling, TEN, TEN + DAY)
    assert (await offer(scheduling, window(TEN), window(TEN + DAY)))["slot_id"] == first
    moved = await offer(scheduling, window(TEN), window(TEN + DAY), chosen=window(TEN + DAY))
    assert (moved["state"], moved["slot_id"]) == ("booked", second)
    assert await status(scheduling, first) == "free"


@pytest.mark.parametrize(
    ("outcome", "state"), [("overturned", "fulfilled"), ("upheld", "fulfilled"), ("not-held", "cancelled")]
)
async def test_a_talk_that_is_over_leaves_what_lies_ahead_of_it_free(
    scheduling: Harness, outcome: str, state: str
) -> None:
    (slot,) = await publish(scheduling, TEN)
    await offer(scheduling, window(TEN))
    assert (await close(scheduling, outcome))["state"] == state
    assert await status(scheduling, slot) == "free"
    assert (await offer(scheduling, window(TEN)))["state"] == state, "what is over stays over"
    assert await status(scheduling, slot) == "free"


async def test_a_talk_that_was_held_keeps_its_place(scheduling: Harness) -> None:
    (slot,) = await publish(scheduling, TEN)
    await offer(scheduling, window(TEN))
    scheduling.clock.pass_((TEN + HOUR - scheduling.clock.now()).total_seconds())
    closed = await close(scheduling, "upheld")
    assert (closed["state"], closed["slot_id"]) == ("fulfilled", slot)


@pytest.mark.parametrize("booked", [True, False])
async def test_a_talk_that_is_called_off_before_it_had_a_place_wants_none_any_more(
    scheduling: Harness, booked: bool
) -> None:
    if booked:
        await publish(scheduling, TEN)
    event = AuthorizationPeerToPeerOffered.model_validate(
        {**IDS, "clinician_id": DOCTOR, "offers": [window(TEN)], "not_after": TEN + DAY}
    )
    await scheduling.arrive(event, AUTHORIZATION, next(SEQUENCE), service="prior_authorization")
    assert (await close(scheduling, "not-held"))["state"] == "cancelled"
    slots = await publish(scheduling, TEN + HALF)
    assert [await status(scheduling, slot) for slot in slots] == ["free"]
