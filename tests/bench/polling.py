"""Pended authorizations followed within sixty payers' budgets, and how fast the poller is where nothing limits it.

The store is filled with requests that are all due; the poller runs as its own process against a payer that counts. With
budgets: what part of them is used, by how much any is exceeded, how evenly they are used. Without: polls a second
beside a bare httpx loop that sends the same inquiries.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from deploy.embedded import Stack
from deploy.embedded.ports import LOOPBACK, accepts, free_ports
from services.prior_authorization.jobs import POLLS
from services.prior_authorization.model import Authorization, Member, Payer
from shared.kit.clock import SystemClock
from shared.kit.document import Document
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.repository import Held, Repository, indexes_of
from tests.bench.children import Broke, Child, child, moment
from tests.bench.frame import Ground, Measure, Outcome
from tests.bench.machine import CpuClock
from tests.bench.polling_cases import Allowed, boundless, payers, pended, rules_text

DATABASE = "bench_polling"
LATENCY = 0.02
"""Seconds that the payer takes where budgets are measured; without budgets it answers at once."""

PATIENCE = 60.0
_BATCH = 1000


class Counting:
    """The counting payer, as the scenario sees it."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def begin(self, found: Sequence[Allowed], *, latency: float = 0.0, keep: bool = False) -> None:
        """Count anew by what these allow; ``keep`` goes on with the buckets as they are."""
        allowed = {each.payer_id: (each.rate, each.burst, each.in_flight) for each in found}
        given = {"payers": allowed, "latency": latency, "keep": keep}
        (await self._http.post(f"{self.url}/begin", json=given)).raise_for_status()

    async def told(self) -> dict[str, Any]:
        """What came since. Raises Broke where somebody asked a payer that there is not."""
        told: dict[str, Any] = (await self._http.get(f"{self.url}/told")).json()
        if told["unknown"]:
            raise Broke(f"{told['unknown']} inquiries to nobody")
        return told

    async def count(self) -> int:
        """How many inquiries came."""
        return sum(each["count"] for each in (await self.told())["payers"].values())

    async def until(self, count: int, process: Child) -> None:
        """Return when so many have come. Raises Broke."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while await self.count() < count:
            process.check()
            if loop.time() > end:
                raise Broke(f"{process.name} does not get going\n{process.last_lines()}")
            await moment(loop.time() + 0.1)


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[Counting, Child]]:
    """The counting payer in a process of its own."""
    (port,) = free_ports(1)
    async with child("tests.bench.polling_payer", str(port), environment={}) as process, httpx.AsyncClient() as http:
        loop = asyncio.get_running_loop()
        while not accepts(port):
            process.check()
            await moment(loop.time() + 0.05)
        yield Counting(f"http://{LOOPBACK}:{port}", http), process


class Course:
    """Store, rules and payer of this scenario."""

    def __init__(self, stack: Stack, payer: Counting, payer_process: Child, folder: Path) -> None:
        self._stack = stack
        self.payer = payer
        self.payer_process = payer_process
        self._folder = folder

    async def fill(self, found: Sequence[Allowed], count: int) -> None:
        """Store so many pended requests and their members, through the models, as the service would."""
        store = MongoStore(self._stack.mongodb_uri, DATABASE)
        clock = SystemClock()
        repository = Repository(store, clock, lambda unsent: None)
        for kind in (Authorization, Member, Payer):
            await store.ensure(kind.collection, indexes_of(kind))
        made = pended(found, count, clock.now())
        while batch := list(islice(made, _BATCH)):
            await _put(repository, Member, [member for _, member in batch])
            await _put(repository, Authorization, [document for document, _ in batch])
        await store.close()

    @asynccontextmanager
    async def poller(self, found: Sequence[Allowed]) -> AsyncIterator[Child]:
        """The service's poller under rules that say what these allow."""
        rules = self._folder / "rules.toml"
        rules.write_text(rules_text(found))
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self._stack.broker_address,
            "MONGODB_URI": self._stack.mongodb_uri,
            "MONGODB_DATABASE": DATABASE,
            "KAFKA_IDEMPOTENCE": "true",
            "HTTP_PORT": "0",
            "PAYER_URL": self.payer.url,
            "PRIOR_AUTHORIZATION_RULES": str(rules),
        }
        async with child("services.prior_authorization", "poller", environment=environment) as process:
            yield process

    def httpx_loop(self) -> Any:
        """The bare loop, with as many calls in flight as the poller has."""
        return child("tests.bench.polling_httpx", self.payer.url, str(POLLS), environment={})

    def cpu(self, process: Child) -> CpuClock:
        """What the sides of a run use."""
        store = self._stack.processes()["store"].pid
        return CpuClock(asker=process.pid, payer=self.payer_process.pid, store=store or 0)


async def _put(repository: Repository, kind: type[Document], documents: Sequence[Document]) -> None:
    batch = []
    for document in documents:
        held: Held[Any] = Held(kind, document.id, None, document)
        write = repository.stage(held)
        if write is not None:
            batch.append((held, write))
    await repository.write(kind, batch)


async def within_budgets(course: Course, found: Sequence[Allowed], runs: int, seconds: float) -> dict[str, list[float]]:
    """Poll within the payers' budgets: by window, what part of them was used, by the least, and what went beyond."""
    loop = asyncio.get_running_loop()
    gave: dict[str, list[float]] = {name: [] for name in ("used", "least", "beyond", "rate", "again", "crowded")}
    await course.payer.begin(found, latency=LATENCY)
    async with course.poller(found) as process:
        await course.payer.until(2 * len(found), process)
        await moment(loop.time() + 5.0)
        for _ in range(runs):
            await course.payer.begin(found, latency=LATENCY, keep=True)
            began = loop.time()
            await moment(began + seconds)
            told = await course.payer.told()
            took = loop.time() - began
            process.check()
            shares = [min(1.0, told["payers"][each.payer_id]["count"] / (each.rate * took)) for each in found]
            used = sum(share * each.rate for share, each in zip(shares, found, strict=True))
            gave["used"].append(used / sum(each.rate for each in found))
            gave["least"].append(min(shares))
            gave["beyond"].append(sum(told["payers"][each.payer_id]["beyond"] for each in found))
            gave["crowded"].append(sum(told["payers"][each.payer_id]["too_many"] for each in found))
            gave["again"].append(told["again"])
            gave["rate"].append(sum(told["payers"][each.payer_id]["count"] for each in found) / took)
    return gave


async def _rate(course: Course, process: Child, warm: int, seconds: float) -> tuple[float, dict[str, float]]:
    """Inquiries a second of a process that has got going, and CPU milliseconds an inquiry by process."""
    loop = asyncio.get_running_loop()
    await course.payer.until(warm, process)
    cpu, before, began = course.cpu(process), await course.payer.count(), loop.time()
    await moment(began + seconds)
    count, took, used = await course.payer.count() - before, loop.time() - began, cpu.used()
    process.check()
    return count / took, {name: each / max(count, 1) * 1e3 for name, each in used.items()}


async def measure(ground: Ground) -> Outcome:
    """Both, on one store."""
    count, seconds = (10_000, 6.0) if ground.quick else (200_000, 20.0)
    limited = payers(0.5 if ground.quick else 1.0)
    free = boundless(limited)
    ours: list[float] = []
    bare: list[float] = []
    cpu: list[dict[str, float]] = []
    bare_cpu: list[dict[str, float]] = []
    with ground.stack("broker", "store") as stack, tempfile.TemporaryDirectory() as folder:
        async with counting() as (payer, payer_process):
            course = Course(stack, payer, payer_process, Path(folder))
            ground.say(f"filling in {count} pended requests")
            await course.fill(limited, count)
            budgets = await within_budgets(course, limited, ground.runs, seconds)
            ground.say(f"budget used {statistics.median(budgets['used']):.3f}, beyond it {sum(budgets['beyond']):.0f}")
            for run in range(ground.runs + (not ground.quick)):
                await payer.begin(free)
                async with course.poller(free) as process:
                    mine, my_cpu = await _rate(course, process, 300, seconds / 2)
                await payer.begin(free)
                async with course.httpx_loop() as process:
                    its, its_cpu = await _rate(course, process, 300, seconds / 2)
                ground.say(f"poller {mine:.0f}/s, bare httpx {its:.0f}/s; {_shown(my_cpu)}; {_shown(its_cpu)}")
                if run or ground.quick:
                    ours.append(mine)
                    bare.append(its)
                    cpu.append(my_cpu)
                    bare_cpu.append(its_cpu)
    beyond = [sum(each) for each in zip(budgets["beyond"], budgets["crowded"], budgets["again"], strict=True)]
    polls, loop = Measure("poller, no budgets", "polls/s", ours), Measure("bare httpx loop", "polls/s", bare)
    ratio = polls.over(loop, "poller / bare httpx loop")
    measures = [
        Measure("budget used, all payers", "share", budgets["used"]),
        Measure("budget used, the least of the payers", "share", budgets["least"]),
        Measure("calls beyond a budget", "calls", beyond),
        Measure("polls within budgets", "polls/s", budgets["rate"]),
        polls,
        loop,
        ratio,
        *(
            Measure(f"{side}, CPU of the {name}", "ms/poll", [each[name] for each in found])
            for side, found in (("poller", cpu), ("bare loop", bare_cpu))
            for name in ("asker", "payer", "store")
        ),
    ]
    allowed = sum(each.rate for each in limited)
    ratios = {
        "polling_budget_used": statistics.median(budgets["used"]),
        "polling_violations": float(sum(beyond)),
        "polling_vs_httpx": ratio.median,
    }
    notes = [
        f"{count} pended requests, {len(limited)} payers, the largest in {limited[0].shares} shares; together they "
        f"allow {allowed:.0f} calls a second; the payer answers after {LATENCY * 1e3:.0f} ms.",
        "Beyond a budget is a call with which any window up to it holds more than rate x window + burst, counted by "
        "the payer as calls arrive, one beyond its calls in flight, or one about a claim that was asked about before.",
        f"Without budgets: {POLLS} calls in flight on both sides; the loop's Bundles are encoded beforehand and it "
        "looks at the status alone.",
    ]
    return Outcome("polling", measures, ratios, notes)


def _shown(cpu: dict[str, float]) -> str:
    return ", ".join(f"{name} {each:.2f} ms" for name, each in cpu.items())
