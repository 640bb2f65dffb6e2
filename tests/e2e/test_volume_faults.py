"""Reminders under load while a process, the broker or the store is killed or frozen: none is lost, none doubled.

Real processes on the native stack; what the gateway's ledger says is what counts.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import FOUNDATION, Stack
from deploy.embedded.foundation import Foundation
from shared.kit.bus.kafka import partition_of
from tests.bench.reminders_sides import Reminder
from tests.e2e.volume import AFTER_A_DEATH, AFTER_A_RESTART, Scene, by_slot, scene
from tests.e2e.volume_polling import IN_FLIGHT, RATE, polling

pytestmark = pytest.mark.native

PARTITIONS = 12
DISPATCHER, SENDER = "dispatcher", "sender"
SHORT_LEASE = {"LEASE_SECONDS": "3", "LEASE_MARGIN_SECONDS": "1"}
NOISE = RATE * 1.0
"""What a second's delay between beginning a call and its coming to the payer adds to what the payer sees."""


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[Stack]:
    """Broker and store of this module's own, which its tests kill."""
    with Stack(tmp_path_factory.mktemp("volume"), foundation=stack_kind, only=FOUNDATION) as stack:
        yield stack


def by_partition(reminder: Reminder) -> int:
    """The partition of the senders' topic that a reminder goes through."""
    return partition_of(reminder.patient_id, range(PARTITIONS))


async def everything_was_sent_once(play: Scene, within: float) -> None:
    """All reminders are taken, under one key each, none before it was due, and all of them end accepted."""
    await play.taken(len(play.reminders), within)
    assert await play.kept(within) == {"accepted": len(play.reminders)}
    play.check_ledger()
    play.check_none_early()


def process(play: Scene, victim: str) -> int:
    """The first of the processes of a role."""
    return (play.ours.dispatchers if victim == DISPATCHER else play.ours.senders)[0]


@pytest.mark.parametrize("victim", [DISPATCHER, SENDER])
async def test_one_of_two_is_killed_and_the_other_takes_its_work_over(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path, victim: str
) -> None:
    async with scene(foundation, stack_kind, tmp_path) as play:
        await play.ours.scale(2, 2)
        await play.shared()
        await play.load()
        await play.taken(120, 30)

        died = play.harm(process(play, victim), signal.SIGKILL, victim)

        await everything_was_sent_once(play, 60)
        assert play.stall(by_slot if victim == DISPATCHER else by_partition, died) <= AFTER_A_DEATH


@pytest.mark.parametrize("victim", [DISPATCHER, SENDER])
async def test_one_of_two_is_frozen_past_its_lease_and_goes_on_as_if_it_still_had_it(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path, victim: str
) -> None:
    """When it wakes, all it had in hand was done by the other; then it takes part in what comes next."""
    async with scene(foundation, stack_kind, tmp_path, SHORT_LEASE) as play:
        await play.ours.scale(2, 2)
        await play.shared()
        await play.load(400)
        await play.taken(120, 30)

        zombie = process(play, victim)
        froze = play.harm(zombie, signal.SIGSTOP, victim)
        await everything_was_sent_once(play, 60)
        assert play.stall(by_slot if victim == DISPATCHER else by_partition, froze) <= AFTER_A_DEATH
        play.harm(zombie, signal.SIGCONT, victim)
        await play.shared()
        await play.load(200)

        await everything_was_sent_once(play, 60)


async def test_the_broker_is_killed_and_comes_back(foundation: Stack, stack_kind: Foundation, tmp_path: Path) -> None:
    await _killed_and_back("broker", foundation, stack_kind, tmp_path)


async def test_the_store_is_killed_and_comes_back(foundation: Stack, stack_kind: Foundation, tmp_path: Path) -> None:
    await _killed_and_back("store", foundation, stack_kind, tmp_path)


async def _killed_and_back(name: str, foundation: Stack, stack_kind: Foundation, tmp_path: Path) -> None:
    async with scene(foundation, stack_kind, tmp_path) as play:
        await play.ours.scale(2, 2)
        await play.load()
        await play.taken(120, 30)

        await asyncio.to_thread(foundation.kill, name)
        play.tell(f"SIGKILL to the {name}; {len(play.ledger.taken)} taken so far")
        await asyncio.to_thread(foundation.restart, name)
        back = time.time()
        play.tell(f"the {name} is back; {len(play.ledger.taken)} taken so far")

        await everything_was_sent_once(play, 120)
        assert play.stall(by_partition, back) <= AFTER_A_RESTART


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_gateway_that_does_not_deduplicate_takes_nothing_twice_when_a_sender_goes(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path, signal_number: signal.Signals
) -> None:
    """What nobody knows the outcome of is shown as unknown: no more than one sender has in flight. One that was only
    frozen may send late what it had begun, and then tells."""
    at_once = 16
    trusting_nobody = {"DEDUPLICATING_CHANNELS": "[]", "SENDS_AT_ONCE": str(at_once), **SHORT_LEASE}
    async with scene(foundation, stack_kind, tmp_path, trusting_nobody, latency=0.4) as play:
        await play.ours.scale(1, 2)
        await play.load(300, rate=300)
        await play.taken(60, 30)
        await play.in_flight(at_once + 1)  # so that each of the two has some

        victim = process(play, SENDER)
        play.harm(victim, signal_number, SENDER)
        play.ledger.let_go()
        assert await play.only_known_or_unknown(60, at_once), "the one that went had nothing in flight"
        if signal_number is signal.SIGSTOP:
            play.harm(victim, signal.SIGCONT, SENDER)
            await play.load(100)
            await play.only_known_or_unknown(60, at_once)
        await play.ours.scale(0, 0)  # in good order: what was still in hand is done

        await play.only_known_or_unknown(60, at_once)
        assert all(len(times) == 1 for times in play.ledger.arrivals.values()), "something was sent twice"


async def test_one_of_two_pollers_is_killed_and_the_other_asks_its_payers(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path
) -> None:
    async with polling(foundation, stack_kind, tmp_path) as play:
        victim, payers = await play.victim()
        await play.asked(60, 60)

        died = play.harm(victim, signal.SIGKILL)

        assert await play.asked_again(payers, died, 60) <= AFTER_A_DEATH
        await play.check(60, beyond=NOISE)


async def test_a_poller_that_froze_asks_no_payer_oftener_than_it_allows_but_for_what_was_in_flight(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path
) -> None:
    """It wakes while the other asks its payers; then they share them again."""
    async with polling(foundation, stack_kind, tmp_path, SHORT_LEASE, each=30, latency=1.0) as play:
        victim, payers = await play.victim()
        await play.asked(60, 60)

        froze = play.harm(victim, signal.SIGSTOP)
        assert await play.asked_again(payers, froze, 60) <= AFTER_A_DEATH
        play.harm(victim, signal.SIGCONT)

        await play.check(60, beyond=IN_FLIGHT + NOISE)
