"""A process that stops leaves nothing half done, and gives up at once what it has nothing in flight for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from shared.kit.auth import Role
from shared.kit.bus.envelope import message_of
from shared.kit.chassis import Chassis
from shared.kit.clock import SystemClock
from shared.kit.document import SLOTS, Attempt
from shared.kit.leases import COLLECTION as LEASES
from shared.kit.settings import KitSettings
from shared.kit.store.repository import Entry
from shared.kit.telemetry import Telemetry
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer
from tests.unit.kit.bench import Gates
from tests.unit.kit.test_engine import letter
from tests.unit.kit.toy import Box, LetterArrived, build

QUEUE = "toy.box"
LEASE = 60.0
"""Far longer than any of these tests: what is followed within them was given up, and did not run out."""
SECONDS = 20.0
LETTER = {"letter": "00000000-0000-4000-8000-000000000001"}


class Postman:
    """The outside: a call that ends when it is let."""

    def __init__(self) -> None:
        self.called = 0
        self.inside = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, box: Box, attempt: Attempt, facts: object) -> object:
        self.called += 1
        self.inside.set()
        await self.done.wait()
        return attempt.id


class Running:
    """Processes of the toy that work by themselves, on one store and one broker."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.store = MemoryStore()
        self.broker = MemoryBroker()
        self.issuer = TestIssuer()
        self.postman = Postman()
        self.all: list[Chassis] = []

    async def process(self, name: str, **configured: Any) -> tuple[Chassis, Gates]:
        gates = Gates()
        http = httpx.AsyncClient(transport=self.issuer.transport())
        tokens = {"jwks_url": JWKS_URL, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
        settings = KitSettings(**{**tokens, "lease_seconds": LEASE, "poll_seconds": 0.02, **configured})
        chassis = Chassis(
            build(settings, http, send=self.postman),
            settings,
            store=self.store.seen_by(gates),
            bus=MemoryBus(self.broker, gate=gates),
            clock=self.clock,
            http=http,
            telemetry=Telemetry.quiet(),
            ids=lambda: name,
        )
        await chassis.prepare()
        await chassis.start()
        self.all.append(chassis)
        return chassis, gates

    async def send_a_letter(self, chassis: Chassis) -> str:
        """Have a box call the postman; its id."""
        keys = ({"Idempotency-Key": f"key-{n}"} for n in range(9))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=chassis.app),
            base_url="http://toy.test",
            headers={"Authorization": f"Bearer {self.issuer.token(Role.COORDINATOR)}"},
        ) as client:
            made = await client.post("/boxes", json={"owner": "o"}, headers=next(keys))
            id: str = made.json()["id"]
            assert (await client.post(f"/boxes/{id}/letters", json=LETTER, headers=next(keys))).status_code == 200
        return id

    async def owners(self) -> dict[str, int]:
        """How many slots each process has, as the lease table says."""
        found = await self.store.load(LEASES, [QUEUE])
        return {worker: len(slots) for worker, slots in found[0]["owners"].items()} if found else {}

    async def box(self, id: str) -> Box:
        found = (await self.all[-1].repository.load(Box, [id]))[id].document
        assert found is not None
        return found


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    yield made
    made.postman.done.set()
    await asyncio.gather(*(chassis.stop() for chassis in made.all))


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """Return when ``met``, which is asked again after everybody had a turn."""
    async with asyncio.timeout(SECONDS):
        while not await met():  # noqa: ASYNC110 - a lease table has no signal
            await asyncio.sleep(0)


async def test_slots_without_a_call_in_flight_are_given_up_at_once_and_followed_long_before_the_lease_ends(
    running: Running,
) -> None:
    first, _ = await running.process("first")

    async def has_all() -> bool:
        return await running.owners() == {"first": SLOTS}

    await until(has_all)
    id = await running.send_a_letter(first)
    await asyncio.wait_for(running.postman.inside.wait(), SECONDS)
    second, _ = await running.process("second")
    await until(lambda: _is(second.workers["box"].leases.holds()))
    await first.workers["box"].leases.renew()  # It would hand over a share at its next beat: the test does not wait.
    await until(lambda: _is(len(second.workers["box"].leases.slots) == SLOTS // 2))

    retiring = asyncio.ensure_future(first.retire())
    await until(lambda: _owned(running, {"first": 1, "second": SLOTS - 1}))
    assert not retiring.done(), "a call is in flight"
    assert "stopping" in await first.ready()
    running.postman.done.set()
    await asyncio.wait_for(retiring, SECONDS)
    await until(lambda: _owned(running, {"second": SLOTS}))

    box = await running.box(id)
    assert (running.postman.called, len(box.sent), box.attempts) == (1, 1, {})


async def test_a_lease_is_kept_up_for_as_long_as_a_call_is_in_flight(running: Running) -> None:
    chassis, _ = await running.process("only", lease_seconds=0.6, lease_margin_seconds=0.1)
    id = await running.send_a_letter(chassis)
    await asyncio.wait_for(running.postman.inside.wait(), SECONDS)

    retiring = asyncio.ensure_future(chassis.retire())
    beyond = running.clock.monotonic() + 1.5
    await until(lambda: _is(running.clock.monotonic() > beyond))
    assert chassis.workers["box"].leases.holds()
    running.postman.done.set()
    await asyncio.wait_for(retiring, SECONDS)

    assert len((await running.box(id)).sent) == 1
    assert await running.owners() == {}


async def test_a_call_that_does_not_end_is_not_waited_for_longer_than_the_drain_and_its_slot_runs_out(
    running: Running,
) -> None:
    chassis, _ = await running.process("only", drain_seconds=0.3)
    id = await running.send_a_letter(chassis)
    await asyncio.wait_for(running.postman.inside.wait(), SECONDS)

    await asyncio.wait_for(chassis.retire(), SECONDS)

    assert await running.owners() == {"only": 1}
    assert "send" in (await running.box(id)).attempts, "its next owner finds it"


async def test_a_store_that_does_not_answer_while_a_process_stops_is_asked_again(running: Running) -> None:
    chassis, gates = await running.process("only")
    id = await running.send_a_letter(chassis)
    await asyncio.wait_for(running.postman.inside.wait(), SECONDS)
    gates.fail("store.write", times=5)

    retiring = asyncio.ensure_future(chassis.retire())
    running.postman.done.set()
    await asyncio.wait_for(retiring, SECONDS)

    assert (running.postman.called, len((await running.box(id)).sent)) == (1, 1)
    assert await running.owners() == {}


async def test_a_batch_in_work_is_written_and_committed_and_its_events_are_published(running: Running) -> None:
    chassis, gates = await running.process("only")
    opened, inside = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        inside.set()
        await opened.wait()

    gates.once("bus.fetched", hold)
    arrive(running, letter("1", "box"), 1)
    await asyncio.wait_for(inside.wait(), SECONDS)

    stopping = asyncio.ensure_future(chassis.stop())
    await until(lambda: _is(not chassis.bus._reading))  # type: ignore[attr-defined]
    arrive(running, letter("2", "box"), 2)
    assert not stopping.done()
    opened.set()
    await asyncio.wait_for(stopping, SECONDS)

    group = running.broker.groups["toy.box"]
    assert sum(group.committed.values()) == 1, "the batch in work, and nothing that came later"
    taken = (await running.box("box")).letters
    assert taken == ["1"]
    assert [len(log) for log in running.broker.topics["toy.events"] if log] == [1]


def arrive(running: Running, event: LetterArrived, sequence: int) -> None:
    data = event.model_dump_json(exclude_none=True)
    entry = Entry(sequence, f"id-{sequence}", event.type, event.topic, running.clock.now(), data, None)
    running.broker.append(message_of("elsewhere", "sender", entry))


async def _is(met: bool) -> bool:
    return met


async def _owned(running: Running, wanted: dict[str, int]) -> bool:
    return await running.owners() == wanted
