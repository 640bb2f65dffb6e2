"""Every process is restarted in turn while referrals flow: no other service's request fails, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from deploy.embedded import Stack
from deploy.embedded.foundation import Foundation
from deploy.roles import all_roles
from tests.checks.events import check_sequences
from tests.e2e.evidence import WIRING, Books, topics
from tests.e2e.flow import Failure, Flow, flowing, lag
from tests.e2e.volume import until

SETTLED_WITHIN = 60.0
"""Seconds after the last restart within which no consumer group may be behind any more."""

ASKED_FOR = 50.0
"""Referrals a second. What a machine does not hold at rest it is not asked for while processes restart."""

SHARE = 0.6
"""Of what it holds at rest: a restart loads what takes seconds of a processor, and what waited comes on top."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many referrals show what a machine holds, how many patients they are of, days of slots beside the demo's."""

    burst: int
    patients: int
    days: int


LITTLE, MUCH = Size(6, 4, 1), Size(150, 40, 14)
"""For the embedded stack, and for Apache Kafka with a compiled store."""

ROLES = {role.process: role for role in all_roles()}
GROUPS = [(reads.group, reads.topics) for role in ROLES.values() for reads in role.reads]


@dataclass(frozen=True, slots=True)
class Restart:
    """A process that was away, in seconds since 1970; ``api`` is the service whose requests it does not answer then."""

    process: str
    api: str | None
    began: float
    over: float

    def excuses(self, failure: Failure) -> bool:
        """Whether a request failed because of it."""
        return failure.service == self.api and self.began <= failure.at <= self.over + EDGE


EDGE = 0.5
"""Seconds that a client takes to see that a connection is gone."""


@pytest.fixture(scope="module")
def every_role(
    request: pytest.FixtureRequest, stack_kind: Foundation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """On the native stack a process a role; on the embedded one, for want of time, the shared one's a service."""
    if stack_kind.name == "embedded":
        yield request.getfixturevalue("running_stack")
        return
    folder = tmp_path_factory.mktemp("roles")
    with Stack(folder, foundation=stack_kind, environment={"TRACE_SAMPLE_RATIO": "0"}, apart=True) as stack:
        yield stack


async def test_every_process_restarts_in_turn_under_load_and_no_other_service_fails_and_nothing_is_lost(
    every_role: Stack, stack_kind: Foundation, record_property: Callable[[str, object], None]
) -> None:
    stack, size = every_role, (LITTLE if stack_kind.name == "embedded" else MUCH)
    books = Books(stack)
    async with flowing(stack, "restart") as flow:
        await flow.open(size.days)
        await flow.register(size.patients)
        holds = await _holds(flow, size.burst)
        rate = min(ASKED_FOR, holds * SHARE)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            ordering = group.create_task(flow.order_until(over, rate))
            visiting = group.create_task(flow.visit(WIRING))
            restarts = [await _restart(stack, name) for name in stack.services]
            visiting.cancel()
            over.set()
            await until(lambda: _at_rest(stack, books), SETTLED_WITHIN, "no group is behind, no outbox waits")
            settled = time.time() - restarts[-1].over
            await ordering
        await until(lambda: _at_rest(stack, books), SETTLED_WITHIN, "no group is behind, no outbox waits")
        await _nothing_is_lost(stack, books)
    stack.check()
    await books.close()
    unexcused = [each for each in flow.failures if not any(restart.excuses(each) for restart in restarts)]
    told = {
        "processes": len(restarts),
        "held at rest, referrals/s": round(holds, 1),
        "asked for while restarting, referrals/s": round(rate, 1),
        "referrals": len(flow.referred),
        "reads of all six APIs": flow.visits,
        "requests that failed at who restarted": len(flow.failures) - len(unexcused),
        "refused for overload": sum(flow.overloads.values()),
        "longest restart, s": round(max(each.over - each.began for each in restarts), 1),
        "lag zero after the last, s": round(settled, 1),
    }
    record_property("rolling restart", told)
    print(told)
    assert unexcused == []


async def _holds(flow: Flow, burst: int) -> float:
    """Referrals a second that come from order to booking, of so many ordered as fast as is asked for."""
    began = time.monotonic()
    await flow.order(burst, ASKED_FOR)
    return burst / (time.monotonic() - began)


async def _restart(stack: Stack, process: str) -> Restart:
    """Stop a process in good order and start it again; returns when it is ready."""
    role = ROLES.get(process)
    api = process if role is None else role.service if role.name == "api" else None
    began = time.time()
    await asyncio.to_thread(stack.restart, process)
    return Restart(process, api, began, time.time())


async def _at_rest(stack: Stack, books: Books) -> bool:
    """Whether every consumer group has committed all there is, and every event is on Kafka."""
    return not await books.unsent() and not await lag(stack, GROUPS)


async def _nothing_is_lost(stack: Stack, books: Books) -> None:
    """Nothing is parked, and of every document the events 1..n are on Kafka, n the last that it recorded."""
    records = await topics(stack)
    for service in WIRING:
        stored = await books.stored(service)
        assert not [raw for raw in stored.get("parked", {}).values() if raw["state"] != "clear"], service
        own = [each.published for name, told in records.items() if name.startswith(f"{service}.") for each in told]
        check_sequences(service, stored, own)
