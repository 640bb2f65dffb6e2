"""Ended documents shrink to what a replay needs, and are never made anew."""

from __future__ import annotations

from datetime import timedelta

from shared.kit.auth import Role
from shared.kit.settings import KitSettings
from shared.kit.shrinking import shrink
from shared.kit.testing.harness import Harness
from tests.unit.kit.toy import Box, LetterArrived, build


async def closed_box() -> tuple[Harness, str]:
    harness = Harness(KitSettings, build)
    await harness.arrive(LetterArrived(letter_id="1", boxes=("b",), text="personal"), "letter-1", 1)
    await harness.settle()
    async with harness.client(Role.COORDINATOR) as client:
        made = await client.post("/boxes", json={"owner": "somebody"}, headers=harness.key())
        box_id = made.json()["id"]
        await client.post(f"/boxes/{box_id}/close", headers=harness.key())
    await harness.arrive(LetterArrived(letter_id="2", boxes=(box_id,)), "letter-2", 1)
    await harness.settle()
    return harness, box_id


async def test_an_ended_document_keeps_only_what_a_replay_needs() -> None:
    harness, box_id = await closed_box()
    harness.clock.advance(timedelta(days=400))
    before = harness.clock.now() - timedelta(days=365)
    assert await shrink(harness.store, Box, before) == 1
    assert await shrink(harness.store, Box, before) == 0
    (raw,) = await harness.store.load("box", [box_id])
    assert set(raw) <= {
        "_id", "shape", "version", "sequence", "applied", "state", "ended_at", "shrunk",
        "outbox", "slot", "epoch",
    }  # fmt: skip
    assert raw["state"] == "closed"


async def test_a_document_that_still_goes_on_is_left_as_it_is() -> None:
    harness, _ = await closed_box()
    harness.clock.advance(timedelta(days=400))
    assert await shrink(harness.store, Box, harness.clock.now()) == 1
    box = await harness.stored(Box, "b")
    assert box is not None
    assert box.letters == ["1"]


async def test_what_ended_lately_is_left_as_it_is() -> None:
    harness, _ = await closed_box()
    assert await shrink(harness.store, Box, harness.clock.now() - timedelta(days=1)) == 0


async def test_replaying_every_topic_changes_nothing_of_a_shrunk_document() -> None:
    harness, box_id = await closed_box()
    harness.clock.advance(timedelta(days=400))
    await shrink(harness.store, Box, harness.clock.now())
    (before,) = await harness.store.load("box", [box_id])
    harness.broker.rewind()
    await harness.settle()
    assert await harness.store.load("box", [box_id]) == [before]


async def test_a_shrunk_document_is_gone_for_whoever_asks() -> None:
    harness, box_id = await closed_box()
    harness.clock.advance(timedelta(days=400))
    await shrink(harness.store, Box, harness.clock.now())
    async with harness.client(Role.COORDINATOR) as client:
        read = await client.get(f"/boxes/{box_id}")
        changed = await client.post(f"/boxes/{box_id}/close", headers=harness.key())
    assert (read.status_code, changed.status_code) == (410, 410)
    assert read.json()["type"] == "urn:carerelay:problem:gone"
    assert await harness.chassis.repository.find(Box, {}, limit=10) == [await harness.stored(Box, "b")]
