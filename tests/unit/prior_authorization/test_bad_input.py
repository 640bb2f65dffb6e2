"""Bad input in a payer's name changes nothing, and is parked with its reason, which operators read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import pytest

from services.prior_authorization.model import Payer
from services.prior_authorization.model.refused import KEPT, BadInput, NoteRefusal, Refusal, note_refusal
from shared.kit.auth import Role
from shared.kit.decisions import Facts
from shared.kit.testing.tokens import TestIssuer
from tests.unit.prior_authorization.cases import NOW, PAYER_ID, uid
from tests.unit.prior_authorization.test_api import notice, pended
from tests.unit.prior_authorization.test_reading import review
from tests.unit.prior_authorization.world import World

Json = dict[str, Any]
PATH = f"/payers/{PAYER_ID}/notifications"


async def send(
    world: World, content: bytes, *, payer: str = PAYER_ID, subject: str = "payer-simulator", token: str | None = None
) -> httpx.Response:
    async with world.harness.client(Role.SERVICE, subject=subject) as client:
        headers = {**world.harness.key(), "Content-Type": "application/fhir+json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await client.post(f"/payers/{payer}/notifications", content=content, headers=headers)


async def parked(world: World, role: Role = Role.OPERATOR) -> list[Json]:
    async with world.harness.client(role) as client:
        answer = await client.get(f"/payers/{PAYER_ID}/refused-notifications")
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["refused"]
    return found


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


async def untouched(world: World, before: Json) -> None:
    """The authorization is as it was, and nothing more was told of it."""
    assert (await world.of("tess")).model_dump() == before
    assert world.events("tess") == ["submitted", "pended"]
    assert await world.harness.all(Payer) == []


@pytest.mark.parametrize(
    ("kind", "status", "reason", "what"),
    [
        ("malformed JSON", 422, "invalid", "is not JSON"),
        ("another resource", 422, "invalid", "must be Bundle"),
        ("foreign authorization", 404, "not-found", "names no claim of ours"),
        ("item unknown", 422, "invalid", "unknown-item"),
        ("no such action", 422, "invalid", "unknown-review-action"),
    ],
)
async def test_bad_input_of_a_known_caller_is_parked_with_its_reason(
    kind: str, status: int, reason: str, what: str
) -> None:
    world = World()
    claim = await pended(world)
    before = (await world.of("tess")).model_dump()
    content = {
        "malformed JSON": b'{"resourceType": "Bundle", ',
        "another resource": encoded({"resourceType": "Patient", "name": [{"family": "Canaria"}]}),
        "foreign authorization": encoded(notice(uid("foreign"))),
        "item unknown": encoded(notice(claim, item=[{"itemSequence": 9, "adjudication": [review("A1", "N-1")]}])),
        "no such action": encoded(notice(claim, item=[{"itemSequence": 1, "adjudication": [review("ZZ")]}])),
    }[kind]
    for _ in range(2):
        assert (await send(world, content)).status_code == status
    await untouched(world, before)
    (entry,) = await parked(world)
    assert (entry["reason"], entry["what"], entry["times"]) == (reason, what, 2)
    assert (entry["caller"], entry["size"]) == ("payer-simulator", len(content))
    assert entry["digest"] == hashlib.sha256(content).hexdigest()
    (kept,) = await world.harness.all(BadInput)
    assert "Canaria" not in kept.model_dump_json()


async def test_a_wrong_signature_is_parked_and_changes_nothing() -> None:
    world = World()
    content = encoded(notice(await pended(world)))
    before = (await world.of("tess")).model_dump()
    forged = TestIssuer().token(Role.SERVICE, subject="payer-simulator")
    assert (await send(world, content, token=forged)).status_code == 401
    await untouched(world, before)
    (entry,) = await parked(world)
    assert (entry["reason"], entry["caller"], entry["digest"]) == ("unauthenticated", None, None)


async def test_what_nobody_vouched_for_is_noted_seldom() -> None:
    world = World()
    await pended(world)
    for _ in range(5):
        assert (await send(world, b"{}", token="nonsense")).status_code == 401
    assert [entry["times"] for entry in await parked(world)] == [1]


@pytest.mark.parametrize("told", [True, False])
async def test_an_oversized_notification_is_parked_and_changes_nothing(told: bool) -> None:
    world = World()
    await pended(world)
    before = (await world.of("tess")).model_dump()
    blanks = b" " * (1024 * 1024 + 1)

    async def pieces() -> Any:
        yield blanks

    async with world.harness.client(Role.SERVICE, subject="payer-simulator") as client:
        content: Any = blanks if told else pieces()
        answer = await client.post(PATH, content=content, headers=world.harness.key())
    assert answer.status_code == 413
    await untouched(world, before)
    assert [entry["reason"] for entry in await parked(world)] == ["too-large"]


async def test_a_caller_speaks_for_its_own_payer_alone() -> None:
    world = World()
    content = encoded(notice(await pended(world)))
    before = (await world.of("tess")).model_dump()
    for subject in ("payer:other", "payer-simulator-2", "scheduling"):
        assert (await send(world, content, subject=subject)).status_code == 403
    await untouched(world, before)
    assert {(entry["reason"], entry["caller"]) for entry in await parked(world)} == {
        ("forbidden", "payer:other"),
        ("forbidden", "payer-simulator-2"),
        ("forbidden", "scheduling"),
    }
    assert (await send(world, content, subject=f"payer:{PAYER_ID}")).status_code == 200
    assert (await world.of("tess")).state == "approved"


async def test_nothing_is_parked_for_a_payer_that_was_never_asked() -> None:
    world = World()
    await pended(world)
    assert (await send(world, b"{}", payer="stranger")).status_code == 422
    assert await world.harness.all(BadInput) == []


async def test_who_reads_what_is_parked() -> None:
    world = World()
    for role in (Role.OPERATOR, Role.COORDINATOR, Role.AUDITOR):
        assert await parked(world, role) == []
    async with world.harness.client(Role.SERVICE) as client:
        assert (await client.get(f"/payers/{PAYER_ID}/refused-notifications")).status_code == 403


async def test_a_refused_notification_may_be_sent_again_under_its_key() -> None:
    """A payer retries under one key: that it was too early once must not refuse it for ever."""
    world = World()
    good, bad = await pended(world), uid("foreign")
    async with world.harness.client(Role.SERVICE, subject="payer-simulator") as client:
        key = world.harness.key()
        assert (await client.post(PATH, json=notice(bad), headers=key)).status_code == 404
        assert (await client.post(PATH, json=notice(good), headers=key)).status_code == 200


def numbered(claim: str, number: int, **changes: object) -> Json:
    """A notification of an event with a number, as the guide has it."""
    body = notice(claim, **changes)  # type: ignore[arg-type]
    event = {"name": "notification-event", "part": [{"name": "event-number", "valueString": str(number)}]}
    subscription = {"name": "subscription", "valueReference": {"reference": "Subscription/s"}}
    body["entry"][0]["resource"]["parameter"] += [subscription, event]
    return body


async def test_one_event_is_heard_once_whatever_keys_it_comes_under() -> None:
    world = World()
    body = encoded(numbered(await pended(world), 7))
    assert (await send(world, body)).status_code == 200
    heard = await world.of("tess")
    assert len(heard.notified) == 1
    assert (await send(world, body)).status_code == 200
    await world.settle()
    again = await world.of("tess")
    assert (again.notified, again.history, world.events("tess").count("approved")) == (heard.notified, heard.history, 1)


async def test_a_number_given_anew_to_other_words_is_no_repeat() -> None:
    world = World()
    claim = await pended(world)
    await send(world, encoded(numbered(claim, 1)))
    denied = [{"itemSequence": 1, "adjudication": [review("A3", None, "82")]}]
    later = numbered(claim, 1, created="2026-03-02T16:00:00Z", item=denied)
    assert (await send(world, encoded(later))).status_code == 200
    current = (await world.of("tess")).current
    assert current is not None
    assert current.action == "A3"


def test_only_so_many_refusals_are_kept() -> None:
    document = None
    for number in range(KEPT + 10):
        refusal = Refusal(reason="invalid", digest=str(number), first_at=NOW, last_at=NOW)
        document = note_refusal(document, NoteRefusal(PAYER_ID, refusal), Facts({}), NOW)
    assert document is not None
    assert [refusal.digest for refusal in document.refusals] == [str(number) for number in range(10, KEPT + 10)]
