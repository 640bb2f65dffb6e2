"""Who may register what, who sees it, and that a secret is shown once and kept nowhere."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from services.webhooks.model import Endpoint
from services.webhooks.reactions import SUBSCRIBABLE
from services.webhooks.service import Settings
from shared.contracts.snapshot import phi_paths
from shared.kit.auth import Role
from shared.kit.run import configured
from tests.unit.webhooks.world import TYPES, URL, World, away, ok, referral

ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
KEYS = f"old:{'o' * 32},new:{'n' * 32}"


def body(**changes: object) -> dict[str, object]:
    """A registration."""
    return {"url": URL, "event_types": TYPES, **changes}


# -- what may be subscribed to --------------------------------------------------------------------------------------


def test_only_public_events_without_personal_data_may_be_subscribed_to() -> None:
    assert len(SUBSCRIBABLE) > 50
    for event in SUBSCRIBABLE.values():
        assert event.topic.endswith(".events")
        assert list(phi_paths(event)) == []
        assert not event.topic.startswith("webhooks.")


@pytest.mark.parametrize(
    "type", ["person.changed.v1", "person.known.v1", "text.due.v1", "webhook.due.v1", "endpoint.disabled.v1", "*", ""]
)
async def test_anything_else_is_refused_by_name(type: str) -> None:
    world = World()
    answer = await world.ask("POST", "/endpoints", body(event_types=["referral.sent.v1", type]))
    assert answer.status_code == 422
    assert [flaw["path"] for flaw in answer.json()["errors"]] == ["event_types.1"]


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.partner.example/", "https://127.0.0.1/", "https://10.0.0.8/x", "https://169.254.169.254/latest",
        "https://[::1]/", "https://[fd00::1]/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/",
        "https://metadata.google.internal/", "https://printer.local/", "https://intake/", "https://user@partner.example/",
        "https://user:pass@partner.example/", "https://partner.example/#x", "https://", "partner.example", "file:///etc",
        "https://partner.example:99999/", "https://pärtner.example/", "https://[::1", "ftp://partner.example/", "",
    ],
)  # fmt: skip
async def test_an_address_that_nothing_may_be_sent_to_is_refused(url: str) -> None:
    world = World()
    answer = await world.ask("POST", "/endpoints", body(url=url))
    assert answer.status_code == 422
    assert [flaw["path"] for flaw in answer.json()["errors"]] == ["url"]
    assert url not in answer.text or not url
    assert (await world.ask("PUT", f"/endpoints/{await world.subscribe()}", body(url=url))).status_code == 422


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/hooks", "http://localhost/", "https://10.0.0.1/"])
async def test_a_setting_takes_addresses_of_one_machine_for_tests(url: str) -> None:
    world = World(webhook_plain_http=True)
    assert (await world.ask("POST", "/endpoints", body(url=url))).status_code == 201


def test_private_addresses_are_not_called_unless_somebody_says_so() -> None:
    assert Settings().outside_public_only
    assert Settings().outside_also == ()
    assert [str(network) for network in Settings(outside_also="127.0.0.0/8, fd00::/8").outside_also] == [
        "127.0.0.0/8",
        "fd00::/8",
    ]


# -- secrets --------------------------------------------------------------------------------------------------------


async def test_a_secret_is_shown_to_whoever_made_it_and_found_nowhere_afterwards(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    id = await world.subscribe()
    secrets = [world.receiver.secret]
    rotated = await world.ask("POST", f"/endpoints/{id}/rotate", {})
    secrets.append(rotated.json()["secret"])
    assert rotated.headers["cache-control"] == "no-store"
    assert all(secret.startswith("whsec_") and len(secret) == 50 for secret in secrets)
    world.receiver.answer = away
    await world.happens(referral(1), 1)

    left = [repr(collection.texts) for collection in world.harness.store.collections.values()]
    left += [repr(told) for told in world.harness.published()]
    for path in ("/endpoints", f"/endpoints/{id}", f"/endpoints/{id}/deliveries"):
        for role in (Role.SUBSCRIBER, Role.OPERATOR, Role.AUDITOR):
            left.append((await world.ask("GET", path, role=role)).text)
    printed = capsys.readouterr()
    left += [printed.out, printed.err]
    for secret in secrets:
        assert not [text for text in left if secret.removeprefix("whsec_").rstrip("=") in text]


async def test_a_request_repeated_because_its_answer_was_lost_is_shown_the_secret_again() -> None:
    world = World()
    async with world.harness.client(Role.SUBSCRIBER, subject="partner") as client:
        first, again = [
            await client.post("/endpoints", json=body(), headers={"Idempotency-Key": "k-1"}) for _ in range(2)
        ]
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await world.harness.all(Endpoint)) == 1


async def test_secrets_are_everybodys_own_and_follow_from_the_key_they_were_made_under() -> None:
    world = World(webhook_keys=KEYS)
    one, first = await world.subscribe(), world.receiver.secret
    await world.subscribe()
    assert world.receiver.secret != first
    world.receiver.secret = first
    (stored,) = [each for each in await world.harness.all(Endpoint) if each.id == one]
    assert [(secret.number, secret.key) for secret in stored.secrets] == [(1, "old")]


@pytest.mark.parametrize("wrong", [" ", "a:short", "k" * 40, f":{'k' * 40}", f"a:{'k' * 40},a:{'q' * 40}"])
def test_keys_that_cannot_be_read_are_refused_at_the_start_and_not_told(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBHOOK_KEYS", wrong)
    with pytest.raises(SystemExit):
        configured(Settings)
    told = capsys.readouterr().err
    assert told.startswith("WEBHOOK_KEYS: ")
    assert "kkk" not in told


async def test_no_more_than_five_secrets_hold_at_once() -> None:
    world = World()
    id = await world.subscribe()
    made = [await world.ask("POST", f"/endpoints/{id}/rotate", {"overlap_hours": 100}) for _ in range(5)]
    assert [answer.status_code for answer in made] == [200, 200, 200, 200, 409]
    shown = (await world.ask("GET", f"/endpoints/{id}")).json()["secrets"]
    assert [secret["number"] for secret in shown] == [5, 4, 3, 2, 1]


async def test_rotating_again_does_not_prolong_an_older_secret() -> None:
    world = World()
    id = await world.subscribe()
    await world.ask("POST", f"/endpoints/{id}/rotate", {"overlap_hours": 1})
    await world.ask("POST", f"/endpoints/{id}/rotate", {"overlap_hours": 24})
    await world.leaps(3600)
    shown = (await world.ask("GET", f"/endpoints/{id}")).json()["secrets"]
    assert [secret["number"] for secret in shown] == [3, 2]


# -- whose it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "", None),
        ("GET", "/deliveries", None),
        ("PUT", "", body()),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/remove", None),
        ("POST", "/rotate", {}),
        ("POST", "/replay", {"since": "2026-01-01T00:00:00Z"}),
    ],
)
async def test_somebody_elses_endpoint_is_not_there(method: str, path: str, sent: dict[str, object] | None) -> None:
    world = World()
    id = await world.subscribe()
    theirs = await world.ask(method, f"/endpoints/{id}{path}", sent, by="stranger")
    nobodys = await world.ask(method, f"/endpoints/{ID}{path}", sent, by="stranger")
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json() == nobodys.json()


async def test_a_listing_shows_ones_own_and_operators_everybodys() -> None:
    world = World()
    mine, theirs = await world.subscribe(), await world.subscribe(by="another")

    async def listed(by: str, role: Role) -> set[str]:
        answer = await world.ask("GET", "/endpoints?state=active", by=by, role=role)
        return {each["id"] for each in answer.json()["endpoints"]}

    assert await listed("partner", Role.SUBSCRIBER) == {mine}
    assert await listed("another", Role.SUBSCRIBER) == {theirs}
    assert await listed("somebody", Role.OPERATOR) == {mine, theirs}
    assert (await world.ask("POST", f"/endpoints/{mine}/pause", role=Role.OPERATOR, by="operator")).status_code == 200


@pytest.mark.parametrize("role", [Role.COORDINATOR, Role.CLINICIAN, Role.SERVICE, Role.AUDITOR])
async def test_only_subscribers_and_operators_may_register(role: Role) -> None:
    assert (await World().ask("POST", "/endpoints", body(), role=role)).status_code == 403


# -- replay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ago", [timedelta(days=8), timedelta(minutes=-5)], ids=["too long ago", "in the future"])
async def test_a_replay_from_when_nothing_is_kept_is_refused(ago: timedelta) -> None:
    world = World()
    id = await world.subscribe()
    since = (world.harness.clock.now() - ago).isoformat()
    answer = await world.ask("POST", f"/endpoints/{id}/replay", {"since": since})
    assert answer.status_code == 422
    assert [flaw["path"] for flaw in answer.json()["errors"]] == ["since"]


async def test_other_types_count_from_now_on() -> None:
    world = World()
    id = await world.subscribe("referral.sent.v1")
    await world.happens(referral(1), 1)
    await world.ask("PUT", f"/endpoints/{id}", body(event_types=["referral.cancelled.v1"]))
    await world.happens(referral(1), 2)
    await world.happens(referral(2), 1)
    assert [taken["type"] for taken in world.receiver.took] == ["referral.sent.v1", "referral.cancelled.v1"]
    assert world.receiver.answer is ok
    assert json.dumps(world.receiver.took)
