"""One role is scaled alone under load: the others do not notice, its throughput follows, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.embedded import FOUNDATION, Stack
from deploy.embedded.foundation import Foundation
from services.notifications.model.delivery import Delivery
from services.notifications.model.recipient import Recipient
from services.notifications.model.visit import Visit
from shared.kit.leases import COLLECTION as LEASES
from tests.bench.reminders_processes import Started, passed
from tests.e2e.volume import Scene, scene, until

MOST = 4
"""Senders, at the height."""

GROUPS = [f"notifications.{each.collection}" for each in (Visit, Recipient, Delivery)]
"""The planner's consumer groups."""

READ_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one sender is, how much always waits to be sent, and over how much the rate of one is measured.

    What makes it slow is the gateway, which takes ``latency`` seconds for each of the ``at_once`` messages that it has
    in flight: so more senders send more, on a machine of two cores too.
    """

    at_once: int
    latency: float
    waiting: int
    measured: int


SLOW, FAST = Pace(2, 0.8, 12, 6), Pace(8, 0.4, 160, 80)
"""For the embedded stack, and for Apache Kafka with a compiled store."""


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[Stack]:
    """Broker and store of this module's own."""
    with Stack(tmp_path_factory.mktemp("scaling"), foundation=stack_kind, only=FOUNDATION) as stack:
        yield stack


async def test_sender_is_scaled_from_one_to_four_and_back_under_load_and_no_other_role_notices(
    foundation: Stack, stack_kind: Foundation, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    pace = SLOW if stack_kind.name == "embedded" else FAST
    environment = {"SENDS_AT_ONCE": str(pace.at_once), "KAFKA_PARTITIONS": "12", "TRACE_SAMPLE_RATIO": "0"}
    async with (
        scene(foundation, stack_kind, tmp_path, environment, latency=pace.latency) as play,
        bystanders(play) as others,
    ):
        before = await others.standing()
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed(play, pace.waiting))
            rates = [await rate(play, pace.measured)]
            await play.ours.scale(1, MOST)
            rates.append(await rate(play, MOST * pace.measured))
            await play.ours.scale(1, 1)
            feeding.cancel()
        rates.append(await rate(play, len(play.reminders) - len(play.ledger.taken)))
        assert await play.kept(60) == {"accepted": len(play.reminders)}

        play.check_ledger()
        play.check_none_early()
        assert await others.standing() == before
        assert others.asked > 0
        assert not others.unready
    told = [round(each, 1) for each in rates]
    record_property("messages a second with 1, 4 and 1 senders", told)
    record_property("ratio of 4 to 1", round(rates[1] / rates[0], 2))
    print(f"messages a second with 1, {MOST} and 1 senders: {told}")


async def feed(play: Scene, waiting: int) -> None:
    """See to it that so many messages at the least are always due and not sent, until cancelled."""
    await play.load(waiting, rate=1000, first_in=0)
    while True:
        await play.load(waiting // 2, rate=1000, first_in=0)

        async def few() -> bool:
            return len(play.reminders) - len(play.ledger.taken) < waiting

        await until(few, 120, "some are sent")


async def rate(play: Scene, count: int) -> float:
    """Messages that the gateway takes a second, over so many more."""
    first, began = len(play.ledger.taken), time.monotonic()
    await play.taken(first + count, 120)
    return count / (time.monotonic() - began)


@dataclass
class Bystanders:
    """The other roles' processes: the dispatcher, a planner and an API. ``unready``: who was not, and what it said."""

    play: Scene
    admin: AIOKafkaAdminClient
    processes: Mapping[str, tuple[Started, str]]
    asked: int = 0
    unready: list[tuple[str, str]] = field(default_factory=list)

    async def standing(self) -> dict[str, Any]:
        """Who they are, whether they run, who the members of their consumer groups are, who has which slots."""
        (table,) = await self.play.store.load(LEASES, [f"notifications.{Delivery.collection}"])
        groups = [  # one by one: of several the embedded broker's answer cannot be read
            group
            for name in GROUPS
            for answer in await self.admin.describe_consumer_groups([name])
            for group in answer.groups
        ]
        return {
            "processes": {name: (one.pid, one.process.poll()) for name, (one, _) in self.processes.items()},
            "dispatchers": self.play.ours.dispatchers,
            "groups": {group[1]: (group[2], sorted(member[0] for member in group[5])) for group in groups},
            "owners": {worker: sorted(slots) for worker, slots in table["owners"].items()},
            "epochs": table["epochs"],
        }

    async def watch(self, http: httpx.AsyncClient) -> None:
        """Ask each whether it is ready, again and again, until cancelled."""
        while True:
            for name, (_, url) in self.processes.items():
                try:
                    answer = (await http.get(f"{url}/health/ready")).text
                except httpx.TransportError as error:
                    answer = type(error).__name__
                self.asked += 1
                if '"ready"' not in answer:
                    self.unready.append((name, answer))
            await passed(READ_EVERY)


@asynccontextmanager
async def bystanders(play: Scene) -> AsyncIterator[Bystanders]:
    """Start them, and watch them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=play.stack.broker_address)
    await admin.start()
    try:
        roles = ("planner", "api")
        processes = dict(zip(roles, await asyncio.gather(*map(play.ours.beside, roles)), strict=True))
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            found = Bystanders(play, admin, processes)
            watching = asyncio.ensure_future(found.watch(http))
            try:
                yield found
            finally:
                watching.cancel()
    finally:
        await admin.close()
