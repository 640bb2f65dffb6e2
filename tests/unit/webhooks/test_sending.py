"""What a subscriber gets: every event it wants, signed, in the order of its referral, however its endpoint fares."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import groupby

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from services.webhooks.model import Feed, FeedState, Stream, StreamState
from services.webhooks.model.feed import backoff
from tests.unit.webhooks.world import TYPES, URL, World, away, happening, ok, referral, saying

R1, R2, R3 = referral(1), referral(2), referral(3)
HOUR, DAY = 3600.0, 86400.0


async def test_an_event_comes_as_a_signed_cloud_event() -> None:
    world = World()
    await world.subscribe()
    await world.happens(R1, 1)

    (request,) = world.receiver.asked
    body = world.receiver.verified(request)
    event = happening(R1, 1)
    assert str(request.url) == URL
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert body["data"] == json.loads(event.model_dump_json(exclude_none=True))
    assert {name: body[name] for name in ("specversion", "source", "type", "subject", "sequence", "dataschema")} == {
        "specversion": "1.0",
        "source": "/carerelay/referrals",
        "type": "referral.sent.v1",
        "subject": R1,
        "sequence": "1",
        "dataschema": "urn:carerelay:schema:referral.sent.v1",
    }
    with pytest.raises(WebhookVerificationError):
        world.receiver.verified(request, "whsec_" + "A" * 43 + "=")


async def test_fields_of_a_newer_publisher_are_passed_on() -> None:
    world = World()
    await world.subscribe()
    await world.harness.arrive(happening(R1, 1), R1, 1, service="referrals")
    log = next(log for log in world.harness.broker.topics["referrals.events"] if log)
    newer = {**json.loads(log[0].value or b""), "added_later": {"x": [1, None]}}
    log[0] = log[0].__class__(
        **{f: getattr(log[0], f) for f in log[0].__slots__} | {"value": json.dumps(newer).encode()}
    )
    await world.harness.settle()
    assert world.receiver.took[0]["data"] == newer


async def test_only_wanted_types_come_and_only_from_registration_on() -> None:
    world = World()
    await world.happens(R1, 1)
    await world.subscribe("referral.cancelled.v1")
    for sequence in (2, 3):
        await world.happens(R1, sequence)
    assert world.receiver.order == [(R1, 2)]


async def test_the_next_event_of_a_referral_waits_for_the_one_before_and_other_referrals_do_not() -> None:
    world = World()
    await world.subscribe()
    refused: set[str] = {R1}
    world.receiver.answer = lambda r: httpx.Response(500 if json.loads(r.content)["subject"] in refused else 200)
    for sequence in (1, 2, 3):
        for subject in (R1, R2):
            await world.happens(subject, sequence)
    assert world.receiver.order == [(R2, 1), (R2, 2), (R2, 3)]
    assert {json.loads(r.content)["sequence"] for r in world.receiver.asked if R1 in r.content.decode()} == {"1"}
    refused.clear()
    await world.passes(HOUR)
    assert world.receiver.order[3:] == [(R1, 1), (R1, 2), (R1, 3)]


@pytest.mark.parametrize(
    "fails", [away, saying(500), saying(503), saying(404), saying(302, Location=URL)], ids=lambda f: f.__qualname__
)
async def test_a_receiver_that_was_down_for_an_hour_gets_everything_afterwards_in_order(fails: object) -> None:
    world = World()
    await world.subscribe()
    world.receiver.answer = fails  # type: ignore[assignment]
    for sequence in range(1, 6):
        for number in range(1, 5):
            await world.happens(referral(number), sequence)
        await world.leaps(HOUR / 5)
    assert world.receiver.took == []
    world.receiver.answer = ok
    await world.passes(HOUR / 3)
    assert sorted(world.receiver.order) == sorted((referral(n), s) for n in range(1, 5) for s in range(1, 6))
    for _, of_one in groupby(sorted(world.receiver.order, key=lambda each: each[0]), key=lambda each: each[0]):
        sequences = [sequence for _, sequence in of_one]
        assert sequences == sorted(sequences)


async def test_no_redirect_is_followed() -> None:
    world = World()
    await world.subscribe()
    world.receiver.answer = saying(307, Location="https://elsewhere.example/")
    await world.happens(R1, 1)
    assert {request.url.host for request in world.receiver.asked} == {httpx.URL(URL).host}


async def test_an_event_that_comes_twice_is_sent_once() -> None:
    world = World()
    await world.subscribe()
    for sequence in (1, 2, 2, 1):
        await world.happens(R1, sequence)
    assert world.receiver.order == [(R1, 1), (R1, 2)]


async def test_every_try_carries_the_same_id_and_body_and_a_signature_of_its_own_time() -> None:
    world = World()
    await world.subscribe()
    world.receiver.answer = saying(500)
    await world.happens(R1, 1)
    await world.passes(60)
    assert len(world.receiver.asked) > 3
    assert len({(r.headers["webhook-id"], r.content) for r in world.receiver.asked}) == 1
    assert all(world.receiver.verified(request) for request in world.receiver.asked)


def test_waits_double_up_to_a_quarter_of_an_hour_and_feeds_do_not_march_in_step() -> None:
    waits = [backoff("feed", tries) for tries in range(1, 40)]
    assert timedelta(seconds=4) <= waits[0] <= timedelta(seconds=6)
    assert max(waits) <= timedelta(minutes=18)
    assert min(waits[10:]) >= timedelta(minutes=12)
    assert len({backoff(f"feed-{n}", 8) for n in range(50)}) > 45


async def test_a_receiver_that_asks_for_patience_gets_it() -> None:
    world = World()
    await world.subscribe()
    world.receiver.answer = saying(429, **{"Retry-After": "600"})
    await world.happens(R1, 1)
    await world.passes(590)
    assert len(world.receiver.asked) == 1
    await world.passes(30)
    assert len(world.receiver.asked) == 2


async def test_an_event_that_is_not_taken_for_a_day_is_given_up_for_all_to_see_and_the_next_follows() -> None:
    world = World()
    id = await world.subscribe()
    poison = {"1"}
    world.receiver.answer = lambda r: httpx.Response(400 if json.loads(r.content)["sequence"] in poison else 200)
    await world.happens(R1, 1)
    await world.happens(R1, 2)
    await world.passes(3 * HOUR)
    await world.leaps(20 * HOUR)
    await world.leaps(HOUR - 60)
    assert world.receiver.took == []
    await world.passes(120)
    assert world.receiver.order == [(R1, 2)]

    (told,) = world.published()
    assert (told["type"], told["about"], told["event_type"], told["reason"]) == (
        "webhook.given-up.v1", R1, "referral.sent.v1", "status-400",
    )  # fmt: skip
    assert told["tries"] > 10
    shown = (await world.ask("GET", f"/endpoints/{id}/deliveries")).json()["deliveries"]
    assert [(each["state"], each["given_up"][0]["sequence"]) for each in shown] == [("idle", 1)]


async def test_an_endpoint_that_takes_nothing_for_a_day_is_disabled_and_gets_what_is_kept_when_it_is_resumed() -> None:
    world = World()
    id = await world.subscribe()
    world.receiver.answer = away
    for sequence in (1, 2):
        await world.happens(R1, sequence)
    for _ in range(26):
        await world.leaps(HOUR)
    assert (await world.ask("GET", f"/endpoints/{id}")).json()["disabled_for"] == "unreachable"
    disabled = [told for told in world.published() if told["type"] == "endpoint.disabled.v1"]
    assert [(told["owner"], told["reason"]) for told in disabled] == [("partner", "unreachable")]
    asked = len(world.receiver.asked)
    await world.happens(R2, 1)
    await world.passes(DAY)
    assert len(world.receiver.asked) <= asked + 1

    world.receiver.answer = ok
    assert (await world.ask("POST", f"/endpoints/{id}/resume")).status_code == 200
    await world.harness.settle()
    assert sorted(world.receiver.order) == sorted([(R1, 2), (R2, 1)]), "the first was given up"


async def test_one_poisonous_event_does_not_disable_an_endpoint_that_takes_others() -> None:
    world = World()
    id = await world.subscribe()
    world.receiver.answer = lambda r: httpx.Response(500 if json.loads(r.content)["subject"] == R1 else 200)
    await world.happens(R1, 1)
    for hour in range(50):
        if hour % 20 == 0:
            await world.happens(R2, hour // 20 + 1)
        await world.leaps(HOUR)
    assert [told["type"] for told in world.published()] == ["webhook.given-up.v1"]
    assert (await world.ask("GET", f"/endpoints/{id}")).json()["state"] == "active"


async def test_an_idle_endpoint_is_not_disabled_for_what_was_given_up_long_ago() -> None:
    world = World()
    id = await world.subscribe()
    world.receiver.answer = lambda r: httpx.Response(500 if json.loads(r.content)["subject"] == R1 else 200)
    await world.happens(R1, 1)
    for hour in range(26):
        if hour == 20:
            await world.happens(R2, 1)
        await world.leaps(HOUR)
    for _ in range(60):
        await world.leaps(HOUR)
    assert (await world.ask("GET", f"/endpoints/{id}")).json()["state"] == "active"


async def test_an_endpoint_that_is_gone_is_asked_no_more_and_disabled_soon() -> None:
    world = World()
    id = await world.subscribe()
    world.receiver.answer = saying(410)
    await world.happens(R1, 1)
    await world.passes(600)
    assert len(world.receiver.asked) == 1
    await world.passes(600)
    assert (await world.ask("GET", f"/endpoints/{id}")).json()["disabled_for"] == "gone"
    world.receiver.answer = ok
    await world.ask("POST", f"/endpoints/{id}/resume")
    await world.harness.settle()
    assert world.receiver.order == [(R1, 1)]


async def test_a_paused_endpoint_gets_what_happened_meanwhile_when_it_is_resumed() -> None:
    world = World()
    id = await world.subscribe()
    await world.happens(R1, 1)
    assert (await world.ask("POST", f"/endpoints/{id}/pause")).status_code == 200
    for sequence in (2, 3):
        await world.happens(R1, sequence)
        await world.happens(R2, sequence - 1)
    await world.passes(DAY)
    assert world.receiver.order == [(R1, 1)]
    assert {feed.state for feed in await world.harness.all(Feed)} == {FeedState.HELD}
    await world.ask("POST", f"/endpoints/{id}/resume")
    await world.harness.settle()
    assert [s for subject, s in world.receiver.order if subject == R1] == [1, 2, 3]
    assert [s for subject, s in world.receiver.order if subject == R2] == [1, 2]


async def test_a_removed_endpoint_gets_nothing_more_and_forgets_what_was_to_be_sent() -> None:
    world = World()
    id = await world.subscribe()
    world.receiver.answer = away
    await world.happens(R1, 1)
    await world.ask("POST", f"/endpoints/{id}/remove")
    world.receiver.answer = ok
    await world.happens(R1, 2)
    await world.passes(HOUR)
    assert world.receiver.took == []
    assert {feed.state for feed in await world.harness.all(Feed)} == {FeedState.CLOSED}


async def test_during_a_rotation_there_is_a_signature_by_each_secret_and_then_by_the_new_one_alone() -> None:
    world = World()
    id = await world.subscribe()
    old = world.receiver.secret
    new = (await world.ask("POST", f"/endpoints/{id}/rotate", {"overlap_hours": 2})).json()["secret"]
    assert new != old
    await world.happens(R1, 1)
    during = world.receiver.asked[-1]
    assert [part[:3] for part in during.headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    assert world.receiver.verified(during, old) == world.receiver.verified(during, new)

    world.receiver.secret = new
    await world.passes(2 * HOUR)
    await world.happens(R1, 2)
    after = world.receiver.asked[-1]
    assert world.receiver.verified(after, new)
    with pytest.raises(WebhookVerificationError):
        world.receiver.verified(after, old)


async def test_a_replay_sends_again_what_happened_since_in_order_to_the_one_who_asked() -> None:
    world = World()
    id = await world.subscribe()
    other = await world.subscribe(by="another")
    await world.ask("POST", f"/endpoints/{other}/pause", by="another")
    world.receiver.secret = await _secret(world, id)
    for sequence in (1, 2):
        await world.happens(R1, sequence)
        await world.passes(HOUR)
    since = world.harness.clock.now()
    await world.happens(R1, 3)
    await world.happens(R2, 1)
    await world.passes(2 * HOUR)
    await world.happens(R1, 4)
    before = len(world.receiver.took)
    answer = await world.ask("POST", f"/endpoints/{id}/replay", {"since": since.isoformat()})
    assert answer.status_code == 202, answer.text
    await world.harness.settle()
    again = world.receiver.order[before:]
    assert [s for subject, s in again if subject == R1] == [3, 4]
    assert [s for subject, s in again if subject == R2] == [1]
    ids = [body["id"] for body in world.receiver.took]
    assert len(ids) - len(set(ids)) == 3, "a replay has the ids of the first time"


async def _secret(world: World, id: str) -> str:
    answer = await world.ask("POST", f"/endpoints/{id}/rotate", {"overlap_hours": 0})
    return str(answer.json()["secret"])


async def test_a_new_subscriber_may_have_what_was_kept_from_before() -> None:
    world = World()
    for sequence in (1, 2, 3):
        await world.happens(R1, sequence)
    id = await world.subscribe(*TYPES[:2])
    since = world.harness.clock.now() - timedelta(minutes=5)
    await world.ask("POST", f"/endpoints/{id}/replay", {"since": since.isoformat()})
    await world.harness.settle()
    assert world.receiver.order == [(R1, 1), (R1, 2)]


async def test_events_are_kept_a_week_at_the_least_and_then_forgotten() -> None:
    world = World()
    id = await world.subscribe()
    await world.ask("POST", f"/endpoints/{id}/pause")
    await world.happens(R1, 1)
    await world.passes(7 * DAY - 60)
    assert (await world.harness.all(Stream))[0].kept
    await world.passes(7 * DAY + 120)
    (stream,) = await world.harness.all(Stream)
    assert (stream.state, stream.kept, stream.hours) == (StreamState.EMPTY, (), ())
    await world.ask("POST", f"/endpoints/{id}/resume")
    await world.happens(R1, 2)
    assert world.receiver.order == [(R1, 2)]
    shown = (await world.ask("GET", f"/endpoints/{id}/deliveries")).json()["deliveries"]
    assert [(each["sequence"], each["reason"]) for each in shown[0]["given_up"]] == [(1, "not-kept")]


async def test_a_worker_that_died_in_the_middle_of_a_call_leaves_it_to_be_tried_again() -> None:
    world = World()
    await world.subscribe()
    await world.happens(R1, 1)
    (feed,) = await world.harness.all(Feed)
    collection = world.harness.store.collections[Feed.collection]
    raw = collection.get(feed.id)
    now = world.harness.clock.now()
    attempt = {"id": "lost", "number": 9, "since": now, "tries": 0}
    at = {"state": "sending", "pending": [1], "sending": 1, "since": now, "timers": {"send": now}, "due": now}
    collection.put({**raw, **at, "attempts": {"send": attempt}})
    await world.passes(HOUR)
    assert world.receiver.order == [(R1, 1), (R1, 1)]


async def test_a_replay_of_the_whole_topic_sends_nothing_again() -> None:
    world = World()
    await world.subscribe()
    for sequence in (1, 2, 3):
        await world.happens(R1, sequence)
    world.harness.broker.rewind()
    await world.harness.settle()
    assert world.receiver.order == [(R1, 1), (R1, 2), (R1, 3)]
