"""SIGTERM under load, to a real process on a real broker and store: another owns its slots at once, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import LOOPBACK, free_ports
from shared.kit.bus.envelope import CE_SEQUENCE, CE_SUBJECT, message_of
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Message
from shared.kit.document import SLOTS, derived_id
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.repository import Entry
from tests.unit.kit.toy import Box, LetterArrived, LetterCounted

ROOT = Path(__file__).resolve().parents[2]
LEASE = 30.0
"""Whoever died would be followed after this; whoever leaves, at once."""
AT_ONCE = LEASE / 2
"""By any machine; on a quiet one it takes less than a second, and the test tells how long it took."""
PATIENCE = 120.0
SENDERS, ROUNDS, STOPPED_AT = 40, 30, 10
QUEUES = ("toy.box", "toy.stamp", "toy.parked")


@asynccontextmanager
async def process(environment: dict[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The toy with all its roles; killed behind the block where it still runs."""
    (port,) = free_ports(1)
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.integration.toy_process", "all"),
            cwd=ROOT,
            env={**os.environ, **environment, "HTTP_HOST": LOOPBACK, "HTTP_PORT": str(port)},
            stdout=output,
            stderr=output,
        )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """Return when ``met``, which a store is asked for again and again: it tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not await met():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.02)


def letters(round: int) -> list[Message]:
    """A letter of each sender, to a box of its own and to one that all share."""
    found = []
    for n in range(SENDERS):
        sender = derived_id("sender", str(n))
        event = LetterArrived(letter_id=f"{n}-{round}", boxes=(derived_id("box", str(n)), derived_id("box", "all")))
        data = event.model_dump_json(exclude_none=True)
        id = derived_id("event", sender, str(round))
        entry = Entry(round, id, event.type, event.topic, datetime.now(UTC), data, None)
        found.append(message_of("elsewhere", sender, entry))
    return found


async def test_a_process_that_is_told_to_stop_under_load_is_followed_at_once_and_leaves_nothing_half_done(
    broker_address: str, mongodb_uri: str, stack_kind: Foundation, tmp_path: Path
) -> None:
    database = f"toy_{uuid4().hex}"
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": broker_address,
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": database,
        "LEASE_SECONDS": str(LEASE),
        **stack_kind.environment,
    }
    store = MongoStore(mongodb_uri, database)
    partitions = int(stack_kind.environment["KAFKA_PARTITIONS"])
    bus = KafkaBus(broker_address, partitions=partitions)
    await bus.ensure([LetterArrived.topic, LetterCounted.topic])
    await bus.start()

    async def shares() -> list[list[int]]:
        """Of each queue, how many slots each process has."""
        found = {table["_id"]: table["owners"] for table in await store.find(LEASES, {})}
        return [sorted(len(slots) for slots in found.get(queue, {}).values()) for queue in QUEUES]

    async def both_work() -> bool:
        return await shares() == [[SLOTS // 2] * 2] * len(QUEUES)

    async def one_has_all() -> bool:
        return await shares() == [[SLOTS]] * len(QUEUES)

    async def all_taken() -> bool:
        boxes = await store.find(Box.collection, {}, fields=("letters", "unsent"))
        complete = sum(len(box["letters"]) for box in boxes) >= 2 * SENDERS * ROUNDS
        return complete and not any("unsent" in box for box in boxes)

    loop = asyncio.get_running_loop()
    async with process(environment, tmp_path / "a.log") as one, process(environment, tmp_path / "b.log") as other:
        await until(both_work)
        for round in range(1, STOPPED_AT + 1):
            assert await bus.publish(letters(round)) == [None] * SENDERS
        one.send_signal(signal.SIGTERM)
        stopped = loop.time()
        following = asyncio.ensure_future(until(one_has_all))
        for round in range(STOPPED_AT + 1, ROUNDS + 1):
            assert await bus.publish(letters(round)) == [None] * SENDERS
        await following
        followed = loop.time() - stopped
        assert await asyncio.wait_for(one.wait(), PATIENCE) == 0
        gone = loop.time() - stopped
        await until(all_taken)
        other.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(other.wait(), PATIENCE) == 0

    assert followed < AT_ONCE
    boxes = {box["_id"]: box["letters"] for box in await store.find(Box.collection, {})}
    for n in range(SENDERS):
        assert boxes[derived_id("box", str(n))] == [f"{n}-{round}" for round in range(1, ROUNDS + 1)]
    shared = boxes[derived_id("box", "all")]
    assert sorted(shared) == sorted(f"{n}-{round}" for n in range(SENDERS) for round in range(1, ROUNDS + 1))
    assert await store.count("parked", {}) == 0

    told: dict[str, list[int]] = defaultdict(list)
    async for batch in bus.history(LetterCounted.topic):
        for record in batch:
            headers = dict(record.headers)
            if (subject := headers[CE_SUBJECT].decode()) in boxes:
                told[subject].append(int(headers[CE_SEQUENCE]))
    again = 0
    for subject, taken in boxes.items():
        first = list(dict.fromkeys(told[subject]))
        assert first == list(range(1, len(taken) + 1))
        # The one that all share is written again before its outbox is emptied, stop or no stop.
        again += len(told[subject]) - len(first) if subject != derived_id("box", "all") else 0
    print(f"followed after {followed:.2f} s, gone after {gone:.2f} s, {again} of {SENDERS * ROUNDS} events came again")
    await bus.stop()
    await store.close()
