"""Our subscription at a payer: as PAS 2.2.1 wants it, asked for where the payer notifies, renewed before it ends."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from services.prior_authorization.model import RuleBook
from services.prior_authorization.model.answers import Rejected
from services.prior_authorization.model.rules import RulesError
from services.prior_authorization.model.subscription import (
    LASTS,
    RENEWED,
    Subscribe,
    Subscribed,
    Subscription,
    SubscriptionState,
    may_subscribe,
    prepare_subscribe,
    settle_subscribe,
    subscribe,
    subscription_key,
)
from services.prior_authorization.pas.subscriptions import PROOF_HEADER, Listener, Secrets, subscription
from services.prior_authorization.service import Settings, secrets_of
from shared.kit.auth import Role
from shared.kit.decisions import Facts, Refused, Unanswered
from shared.kit.errors import Conflict
from tests.checks.profiles import Profiles
from tests.unit.prior_authorization.cases import NOW, PAYER_ID, due
from tests.unit.prior_authorization.test_api import notice
from tests.unit.prior_authorization.test_reading import review
from tests.unit.prior_authorization.world import NOTIFY_URL, World

DEFINITIONS = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "pas" / "definitions"
NOTIFIES = RuleBook.parse('[[payers]]\npayer = "*"\nnotifies = true\n')
SILENT = RuleBook.parse('[[payers]]\npayer = "*"\n')
US = Listener(NOTIFY_URL, "1234567893")
NO_FACTS = Facts({})
LATER = NOW + timedelta(hours=1)


def wished() -> Subscription:
    return subscribe(NOTIFIES, None, Subscribe(PAYER_ID), NO_FACTS, NOW)


def asked(document: Subscription | None = None) -> Subscription:
    return prepare_subscribe(NOTIFIES, document or wished(), due("subscribe"), NO_FACTS, NOW)


def settled(outcome: object, document: Subscription | None = None) -> Subscription:
    document = document or asked()
    document.abandon("subscribe")
    document.rest("subscribe")
    return settle_subscribe(document, outcome, NO_FACTS, NOW)  # type: ignore[arg-type]


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")
@pytest.mark.parametrize("reference", [None, "sub-1"])
def test_what_is_registered_passes_the_definitions(reference: str | None) -> None:
    resource = json.loads(json.dumps(subscription(US, PAYER_ID, NOW, reference)))
    assert [str(problem) for problem in Profiles(DEFINITIONS).check(resource)] == []


def test_it_is_a_rest_hook_with_the_full_resource_for_all_that_we_send() -> None:
    resource = json.dumps(subscription(US, PAYER_ID, NOW))
    for word in ('"rest-hook"', '"full-resource"', "org-identifier=1234567893", f"/payers/{PAYER_ID}/notifications"):
        assert word in resource


def test_it_is_asked_for_only_where_the_rules_say_that_the_payer_notifies() -> None:
    with pytest.raises(Conflict):
        subscribe(SILENT, None, Subscribe(PAYER_ID), NO_FACTS, NOW)
    assert wished().timers == {"subscribe": NOW}


def test_it_is_renewed_a_week_before_it_ends_under_the_payers_id() -> None:
    document = settled(Subscribed("sub-1"))
    assert (document.status, document.reference, document.ends_at) == (SubscriptionState.ACTIVE, "sub-1", NOW + LASTS)
    assert document.timers["subscribe"] == NOW + LASTS - RENEWED
    again = asked(document)
    assert (again.reference, "subscribe" in again.attempts) == ("sub-1", True)


@pytest.mark.parametrize("outcome", [Refused("busy", 60.0), Unanswered("timeout")], ids=["refused", "lost"])
def test_what_did_not_get_across_is_asked_again(outcome: object) -> None:
    document = settled(outcome)
    assert document.status is SubscriptionState.REQUESTED
    assert document.timers["subscribe"] > NOW


def test_what_the_payer_will_not_have_is_shown_and_asked_again_as_a_new_one_a_day_later() -> None:
    active = settled(Subscribed("sub-1"))
    document = settled(Rejected("status-410"), asked(active))
    assert (document.status, document.reason, document.reference) == (SubscriptionState.ERROR, "status-410", None)
    assert document.timers["subscribe"] == NOW + timedelta(days=1)
    assert settled(Subscribed("sub-2"), asked(document)).status is SubscriptionState.ACTIVE


def test_it_runs_out_where_the_rules_no_longer_say_so_and_can_be_wished_for_again() -> None:
    document = prepare_subscribe(SILENT, settled(Subscribed("sub-1")), due("subscribe"), NO_FACTS, NOW)
    assert (document.status, "subscribe" in document.attempts) == (SubscriptionState.OFF, False)
    assert may_subscribe(document, NO_FACTS, NOW) is False
    assert settle_subscribe(document, Subscribed("sub-1"), NO_FACTS, NOW).status is SubscriptionState.OFF
    assert subscribe(NOTIFIES, document, Subscribe(PAYER_ID), NO_FACTS, NOW).status is SubscriptionState.ACTIVE


async def put(world: World) -> httpx.Response:
    async with world.harness.client(Role.OPERATOR) as client:
        return await client.put(f"/payers/{PAYER_ID}/subscription", headers=world.harness.key())


async def test_an_operator_has_it_registered_and_time_renews_it(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[payers]]\npayer = "*"\nnotifies = true\n', encoding="utf-8")
    world = World(rules)
    assert (await put(world)).status_code == 200
    await world.until(1)
    ((key, first),) = world.payer.subscriptions.items()
    assert key[0] == PAYER_ID
    assert first["channel"] == subscription(US, PAYER_ID, NOW)["channel"]
    await world.until(24 * 84)
    ((_, renewed),) = world.payer.subscriptions.items()
    assert str(renewed["end"]) > str(first["end"])
    stored = await world.harness.stored(Subscription, subscription_key(PAYER_ID))
    assert stored is not None
    assert stored.status is SubscriptionState.ACTIVE
    async with world.harness.client(Role.OPERATOR) as client:
        shown = (await client.get(f"/payers/{PAYER_ID}/subscription")).json()
    assert (shown["state"], shown["reason"]) == ("active", None)


async def test_none_is_registered_under_the_shipped_rules() -> None:
    world = World()
    assert (await put(world)).status_code == 409
    await world.until(1)
    assert world.payer.subscriptions == {}


# -- a secret of its own ----------------------------------------------------------------------------------------------

SECRETS = Secrets(b"synthetic", lambda payer_id: True)


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")
def test_a_secret_goes_in_the_channels_header_and_passes_the_definitions() -> None:
    resource = json.loads(json.dumps(subscription(Listener(NOTIFY_URL, US.npi, SECRETS), PAYER_ID, NOW)))
    assert resource["channel"]["header"] == [f"{PROOF_HEADER}: {SECRETS.of(PAYER_ID, NOW)}"]
    assert [str(problem) for problem in Profiles(DEFINITIONS).check(resource)] == []
    assert "header" not in subscription(US, PAYER_ID, NOW)["channel"]  # type: ignore[operator]


def test_each_payer_and_each_renewal_has_another_secret() -> None:
    found = {SECRETS.of(payer, at) for payer in ("a", "b") for at in (NOW, NOW + LASTS)}
    assert len(found) == 4
    assert Secrets(b"another key", lambda payer_id: True).of("a", NOW) not in found
    assert SECRETS.proves("a", SECRETS.of("a", NOW), [None, NOW])
    for given in (None, "", SECRETS.of("b", NOW), SECRETS.of("a", NOW + LASTS)):
        assert not SECRETS.proves("a", given, [None, NOW])
    assert not SECRETS.proves("a", None, [])


def test_a_call_that_is_repeated_names_the_same_end_so_that_its_secret_stays() -> None:
    first = asked()
    again = prepare_subscribe(NOTIFIES, settled(Unanswered("timeout"), first), due("subscribe"), NO_FACTS, LATER)
    assert again.until == NOW + LASTS
    renewed = prepare_subscribe(NOTIFIES, settled(Subscribed("sub-1"), again), due("subscribe"), NO_FACTS, LATER)
    assert renewed.until == LATER + LASTS


async def test_notifications_are_taken_with_the_secret_alone_and_the_bearer_token_besides(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[payers]]\npayer = "*"\nnotifies = true\nnotify_secret = true\n', encoding="utf-8")
    world = World(rules)
    assert (await put(world)).status_code == 200
    await world.know("tess", "SBX-PEND-NOTIFY-1")
    await world.refer("tess")
    await world.until(1)
    claim = (await world.of("tess")).claim_id
    stored = await world.harness.stored(Subscription, subscription_key(PAYER_ID))
    assert stored is not None
    assert stored.ends_at is not None
    right = SECRETS.of(PAYER_ID, stored.ends_at)
    assert right not in stored.model_dump_json()

    async def send(secret: str | None, role: Role = Role.SERVICE) -> int:
        async with world.harness.client(role, subject="payer-simulator") as client:
            headers = {**world.harness.key(), **({} if secret is None else {PROOF_HEADER: secret})}
            told = notice(claim, item=[{"itemSequence": 1, "adjudication": [review("A4")]}])
            answer = await client.post(f"/payers/{PAYER_ID}/notifications", json=told, headers=headers)
            return answer.status_code

    assert [await send(secret) for secret in (None, "", right[:-1], right.upper())] == [403] * 4
    assert await send(right, Role.COORDINATOR) == 403
    assert await send(right) == 200
    await world.until(6)
    assert world.events("tess")[-1] == "approved"


def test_a_secret_without_a_key_is_refused_before_anything_starts() -> None:
    asking = RuleBook.parse('[[payers]]\npayer = "a"\nnotify_secret = true\n')
    with pytest.raises(RulesError, match="NOTIFY_SECRET_KEY"):
        secrets_of(Settings(), asking)
    assert secrets_of(Settings(), NOTIFIES).wanted(PAYER_ID) is False
