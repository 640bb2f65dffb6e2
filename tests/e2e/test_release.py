"""A release rolls out under load, and back: nothing is lost or dropped, whichever release a process is of."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from deploy.embedded import Stack
from deploy.embedded.ports import LOOPBACK
from services.referrals.model import Referral
from shared.contracts.base import Coding
from shared.kit.clock import SystemClock
from shared.kit.document import derived_id
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import Outcome
from shared.kit.store.repository import Held, Repository
from tests.bench.reminders_processes import Processes, Started
from tests.checks.events import check_sequences
from tests.e2e.evidence import Books, outside, topics
from tests.e2e.flow import Flow, Referred, flowing
from tests.e2e.volume import until

RATE = 2.0
PATIENTS = 11
"""So many that some are on partitions of either release, and no divisor of the turns that the processes take."""

ENOUGH = 4
"""Referrals that processes of either release must have accepted while both run, and that come behind it."""

NOT_NEEDED = "patient-declined"
IN_PERSON = "in-person"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that end with the test."""
    with Processes(tmp_path / "logs") as running:
        yield running


def begin(
    processes: Processes, stack: Stack, service: str, *argv: str, environment: Mapping[str, str] | None = None
) -> tuple[Started, str]:
    """Start one more process of a service beside the stack's; it and its address."""
    port = processes.port()
    told = {**stack.environment(service), "HTTP_PORT": str(port), **(environment or {})}
    started = processes.start(service, [sys.executable, "-m", *argv], environment=told)
    return started, f"http://{LOOPBACK}:{port}"


@asynccontextmanager
async def half_of_them_newer(processes: Processes, stack: Stack, flow: Flow) -> AsyncIterator[str]:
    """Beside each process of referrals and scheduling one of the newer release; the address of the first's API."""
    services = ("referrals", "scheduling")
    newer = [begin(processes, stack, name, "tests.e2e.newer_release", name, "all") for name in services]
    await asyncio.gather(*(processes.ready(one, f"{url}/health/ready", flow.http) for one, url in newer))
    api = newer[0][1]
    flow.urls["referrals"].append(api)
    yield api
    flow.urls["referrals"].remove(api)
    await until(_true_when(lambda: flow.idle(api)), 60, "requests to the newer release are answered")
    await asyncio.gather(*(asyncio.to_thread(processes.stop, one) for one, _ in newer))


def _true_when(met: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return met()

    return look


async def test_a_release_with_a_field_and_an_event_version_more_rolls_out_and_back_and_nothing_is_lost_or_dropped(
    stack: Stack, books: Books, processes: Processes
) -> None:
    async with outside(stack) as (_, conductor):
        async with flowing(stack, "release") as flow:
            await flow.open(days=1)
            await flow.register(PATIENTS)
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(flow.order_until(over, RATE))
                async with half_of_them_newer(processes, stack, flow) as newer:
                    rolled_out = len(flow.referred)
                    await until(
                        _true_when(lambda: _accepted_by_either(flow.referred[rolled_out:], newer)), 120, "both accept"
                    )
                    await until(lambda: _taken_over(books), 120, "scheduling's newer release reads the newer version")
                    mixed = list(flow.referred)
                    await _withdrawn_by_the_other(flow, mixed[rolled_out:])
                rolled_back = len(flow.referred)
                await until(_true_when(lambda: len(flow.referred) >= rolled_back + ENOUGH), 120, "the older go on")
                over.set()
        await conductor.settle()
    stack.check()
    assert not flow.failures, "a release costs nobody a request"
    by_newer = {one.id for one in flow.referred if one.accepted_at == newer}
    await _no_field_was_dropped(books, by_newer)
    await _both_versions_were_told(stack, books, {one.id for one in flow.referred}, by_newer)


def _accepted_by_either(referred: Sequence[Referred], newer: str) -> bool:
    by_newer = sum(one.accepted_at == newer for one in referred)
    return min(by_newer, len(referred) - by_newer) >= ENOUGH


async def _withdrawn_by_the_other(flow: Flow, referred: Sequence[Referred]) -> None:
    """Have each withdrawn by the release that did not accept it, so that both have written it."""
    urls = flow.urls["referrals"]
    for one in referred:
        turn = 1 - urls.index(one.accepted_at)
        path = f"/referrals/{one.id}/cancel"
        await flow.ask("referrals", path, f"cancel-{one.id}", {"reason": NOT_NEEDED}, turn)
    await asyncio.gather(*(flow.told("appointment.cancelled.v1", one.id) for one in referred))


async def _no_field_was_dropped(books: Books, by_newer: set[str]) -> None:
    """What the newer release wrote is there, although the older wrote the same documents behind it."""
    stored = await books.stored("referrals")
    kinds = {id: raw.get("visit_kind") for id, raw in stored["referral"].items() if raw.get("visit_kind")}
    assert kinds == dict.fromkeys(by_newer, IN_PERSON)
    assert {id: stored["referral"][id]["window"].get("visit_kind") for id in by_newer} == kinds
    ended = {id for id in by_newer if stored["referral"][id]["state"] == "cancelled"}
    assert len(ended) >= ENOUGH, "the older release withdrew what the newer accepted"
    told = await _taken_over(books)
    assert told, "no newer process read the newer version"
    assert told.items() <= kinds.items()


async def _taken_over(books: Books) -> dict[str, str]:
    """How the patient is seen, by referral, as scheduling's newer release took it over onto appointments."""
    appointments = (await books.stored("scheduling"))["appointment"].values()
    return {raw["referral_id"]: raw["visit_kind"] for raw in appointments if raw.get("visit_kind")}


async def _both_versions_were_told(stack: Stack, books: Books, referred: set[str], by_newer: set[str]) -> None:
    """Who knows the first version alone has every acceptance; who knows both has what the newer release says beside."""
    records = await topics(stack)
    versions: dict[str, set[str]] = {"referral.accepted.v1": set(), "referral.accepted.v2": set()}
    for record in records["referrals.events"]:
        if record.type in versions:
            versions[record.type].add(record.published.subject)
    assert referred <= versions["referral.accepted.v1"]
    assert versions["referral.accepted.v2"] == by_newer
    for service in ("referrals", "scheduling"):
        own = [each.published for name, told in records.items() if name.startswith(f"{service}.") for each in told]
        check_sequences(service, await books.stored(service), own)


async def test_code_that_meets_a_document_of_a_newer_shape_is_not_ready(
    stack: Stack, processes: Processes, tmp_path: Path
) -> None:
    """In a database of its own, whose document a release wrote that reshaped it."""
    database = {"MONGODB_DATABASE": "referrals_reshaped"}
    older, url = begin(processes, stack, "referrals", "services.referrals", "api", environment=database)
    store = MongoStore(stack.mongodb_uri, database["MONGODB_DATABASE"])
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        await processes.ready(older, f"{url}/health/ready", http)
        await _store_reshaped(store)
        headers = {"Authorization": f"Bearer {stack.token('coordinator')}"}
        met = await http.get(f"{url}/referrals/{RESHAPED.id}", headers=headers)
        ready = await http.get(f"{url}/health/ready")
        live = await http.get(f"{url}/health/live")
    await store.close()
    assert met.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert (ready.status_code, ready.json()["missing"]) == (httpx.codes.SERVICE_UNAVAILABLE, ["release"])
    assert live.status_code == httpx.codes.OK, "it is to be replaced, not restarted"


RESHAPED = Referral(
    id=derived_id("referral", "reshaped"),
    shape=Referral.shape_known + 1,
    patient_id="nobody",
    requester_id="nobody",
    service=Coding(system="http://www.ama-assn.org/go/cpt", code="73721"),
    authored_on=datetime(2026, 3, 2, tzinfo=UTC),
    requested_at=datetime(2026, 3, 2, tzinfo=UTC),
)


async def _store_reshaped(store: MongoStore) -> None:
    repository = Repository(store, SystemClock(), lambda unsent: None)
    held = Held(Referral, RESHAPED.id, None, RESHAPED)
    write = repository.stage(held)
    assert write is not None
    assert await repository.write(Referral, [(held, write)]) == [Outcome.WON]
