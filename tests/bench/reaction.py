"""Events through prior_authorization's real reaction, against a hand-written floor and a straightforward service.

Topics of 12 partitions are filled first, then drained by one process: authorization requests, and the events that they
lead to, which the service reads back. Events per second by wall clock from the first commit to the last; both commits
and CPU are read from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError
from pymongo import AsyncMongoClient

from deploy.embedded import Stack
from services.prior_authorization.model import Authorization, Member
from shared.kit.bus.port import Message
from shared.kit.clock import SystemClock
from shared.kit.document import Document
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.repository import Held, Repository, indexes_of
from tests.bench.children import Broke, Child, child, moment
from tests.bench.collector import Collector, collector
from tests.bench.frame import Ground, Measure, Outcome
from tests.bench.machine import CpuClock
from tests.bench.reaction_payload import PARTITIONS, REQUESTS, WISHES, members, requests
from tests.bench.reaction_straightforward import GROUPS as STRAIGHTFORWARD_GROUPS
from tests.bench.reaction_template import template

LOOK_SECONDS = 0.05
"""How often commits are looked at: of a run of seconds, too seldom to weigh, often enough to be exact."""

PATIENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Side:
    """One of those compared. ``share`` of the full number of events is enough where it is slow."""

    name: str
    module: str
    prefix: str
    groups: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    sampled: float = 0.1
    share: float = 1.0
    traced: bool = False


_GROUP = "prior_authorization.authorization"
OURS = Side("ours, 10% of traces", "services.prior_authorization", "", (_GROUP,), ("reactions",), traced=True)
ALL_TRACES = Side(
    "ours, all traces", "services.prior_authorization", "", (_GROUP,), ("reactions",), sampled=1.0, traced=True
)
FLOOR = Side("floor", "tests.bench.reaction_floor", "floor.", (f"floor.{_GROUP}",))
STRAIGHTFORWARD = Side(
    "straightforward", "tests.bench.reaction_straightforward", "straight.", STRAIGHTFORWARD_GROUPS, share=0.1
)
SIDES = (OURS, FLOOR, ALL_TRACES, STRAIGHTFORWARD)


@dataclass(slots=True)
class Found:
    """What the runs of one side gave: events a second, CPU µs an event by process, spans that came and were due."""

    rates: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)


class Course:
    """Broker and store of this scenario, and what is needed to fill, watch and verify them."""

    def __init__(
        self, stack: Stack, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer, client: Any, template: Path
    ) -> None:
        self._stack = stack
        self._template = template
        self._admin = admin
        self._producer = producer
        self._client = client

    async def topics(self) -> None:
        """The topics of every side."""
        prefixes = sorted({side.prefix for side in SIDES})
        names = [f"{prefix}{name}" for prefix in prefixes for name in (REQUESTS, WISHES)]
        await self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])

    async def run(self, side: Side, count: int, seed: int, spans: Collector) -> tuple[float, dict[str, float], Any]:
        """Fill, drain and verify; returns events a second, CPU seconds an event by process, and (spans, due ones)."""
        database = f"bench_{seed}"
        await self._prepare(database)
        filled = requests(count, seed, side.sampled)
        committed = sum((await self._committed(side)).values())
        await self._fill(side, filled)
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self._stack.broker_address,
            "MONGODB_URI": self._stack.mongodb_uri,
            "MONGODB_DATABASE": database,
            "KAFKA_IDEMPOTENCE": "true",
            "TOPIC_PREFIX": side.prefix,
            "FLOOR_TEMPLATE": str(self._template),
            "HTTP_PORT": "0",
            **({"OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint} if side.traced else {}),
        }
        async with child(side.module, *side.arguments, environment=environment) as process:
            rate, cpu = await self._watch(side, process, committed, 2 * count)
            await self._settled(process, database)
        sample = await self._verify(database, count)
        due = sum(1 for message in filled if dict(message.headers)["traceparent"].endswith(b"1"))
        await self._client.drop_database(database)
        return rate, cpu, (spans.spans(), 2 * due, sample)

    async def _prepare(self, database: str) -> None:
        """The indexes of the real service, and the members."""
        store = MongoStore(self._stack.mongodb_uri, database)
        for document in (Authorization, Member):
            await store.ensure(document.collection, indexes_of(document))
        repository = Repository(store, SystemClock(), lambda unsent: None)
        held: list[Held[Document]] = [Held(Member, member.id, None, member) for member in members()]
        staged = [(each, write) for each in held if (write := repository.stage(each)) is not None]
        await repository.write(Member, staged)
        await store.close()

    async def _fill(self, side: Side, filled: Sequence[Message]) -> None:
        sent = [
            await self._producer.send(
                f"{side.prefix}{each.topic}", each.value, key=each.key.encode(), headers=list(each.headers)
            )
            for each in filled
        ]
        await asyncio.gather(*sent)

    async def _committed(self, side: Side) -> Mapping[Any, int]:
        """Committed offsets of the side's groups by partition."""
        found: dict[Any, int] = {}
        for group in side.groups:
            try:
                offsets = await self._admin.list_consumer_group_offsets(group)
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                continue  # nobody has read anything yet
            found |= {(group, part): at.offset for part, at in offsets.items() if at.offset > 0}
        return found

    async def _watch(self, side: Side, process: Child, before: int, due: int) -> tuple[float, dict[str, float]]:
        """From the first commit seen until everything is committed: events a second, CPU seconds an event."""
        loop = asyncio.get_running_loop()
        pids = {name: self._stack.processes()[name].pid or 0 for name in ("store", "broker")}
        began: tuple[float, int, CpuClock] | None = None
        end = loop.time() + PATIENCE_SECONDS
        while loop.time() < end:
            now = loop.time()
            process.check()
            done = sum((await self._committed(side)).values()) - before
            if began is None and done > 0:
                began = (now, done, CpuClock(client=process.pid, **pids))
            elif began is not None and done >= due:
                at, first, cpu = began
                events = done - first
                return events / (now - at), {name: used / events for name, used in cpu.used().items()}
            await moment(now + LOOK_SECONDS)
        raise Broke(f"{side.name}: not all was committed in {PATIENCE_SECONDS:.0f} s\n{process.last_lines()}")

    async def _settled(self, process: Child, database: str) -> None:
        """Wait until nothing waits to be published, so that stopping costs nothing that another run would pay for."""
        loop = asyncio.get_running_loop()
        while await self._client[database]["authorization"].count_documents({"unsent": {"$exists": True}}, limit=1):
            process.check()
            await moment(loop.time() + LOOK_SECONDS)

    async def _verify(self, database: str, count: int) -> Mapping[str, Any]:
        """Every side must have done the same: each authorization is there and was moved on. Returns one of them."""
        documents = self._client[database]["authorization"]
        moved = await documents.count_documents({"state": "submitting"})
        if moved != count:
            raise Broke(f"{moved} of {count} authorizations got where they should")
        sample: Mapping[str, Any] = await documents.find_one({"state": "submitting"})
        return sample


async def measure(ground: Ground) -> Outcome:
    """Every side in turn, again and again: ours, the floor, ours with all traces, the straightforward one."""
    count = 1_000 if ground.quick else 20_000
    found = {side.name: Found() for side in SIDES}
    with ground.stack("broker", "store") as stack:
        async with _course(stack) as course, collector() as spans:
            await course.topics()
            seed = 0
            samples: dict[str, Any] = {}
            for turn in range(ground.runs + 1):
                for side in SIDES:
                    seed += 1
                    events = int((count if turn else count // 2) * side.share)
                    rate, cpu, (got, due, sample) = await course.run(side, events, seed, spans)
                    samples[side.name] = sample
                    ground.say(f"{'warm-up' if not turn else f'run {turn}'}, {side.name}: {rate:,.0f} events/s")
                    if turn:
                        _keep(found[side.name], rate, cpu, (got, due))
    _alike(samples[OURS.name], samples[FLOOR.name])
    return _outcome(found, count)


def _keep(found: Found, rate: float, cpu: Mapping[str, float], spans: tuple[int, int]) -> None:
    found.rates.append(rate)
    for name, seconds in cpu.items():
        found.cpu.setdefault(name, []).append(seconds * 1e6)
    found.spans.append(spans)


def _alike(ours: Mapping[str, Any], floor: Mapping[str, Any]) -> None:
    """Raise Broke where the floor writes other fields than the service: it would no longer be its floor."""
    if differing := _fields(ours) ^ _fields(floor):
        raise Broke(f"the floor's documents differ from the service's in {', '.join(sorted(differing))}")


def _fields(document: Mapping[str, Any]) -> set[str]:
    """A document's fields and those of its parts; what is keyed by data counts as one."""
    parts = {name: each for name, each in document.items() if isinstance(each, dict) and name != "applied"}
    return set(document) | {f"{name}.{inner}" for name, each in parts.items() for inner in each}


def _outcome(found: Mapping[str, Found], count: int) -> Outcome:
    rates = {side: Measure(side, "events/s", found[side].rates) for side in found}
    cpu = [Measure(f"{side}: {name}", "CPU µs/event", runs) for side in found for name, runs in found[side].cpu.items()]
    ratios = {
        "reaction_vs_floor": rates[OURS.name].over(rates[FLOOR.name], "ours, 10% of traces / floor"),
        "reaction_vs_floor_all_traces": rates[ALL_TRACES.name].over(rates[FLOOR.name], "ours, all traces / floor"),
        "reaction_vs_straightforward": rates[OURS.name].over(rates[STRAIGHTFORWARD.name], "ours / straightforward"),
    }
    notes = [
        f"{count:,} referrals a run ({int(count * STRAIGHTFORWARD.share):,} for the straightforward service); each is "
        "two events taken in, two durable conditional writes, one event published and taken out of its outbox.",
        "Ours exports its spans to a collector by OTLP, as in production; floor and straightforward service trace "
        "nothing.",
    ]
    for side in (OURS.name, ALL_TRACES.name):
        lost = sum(due - got for got, due in found[side].spans)
        if lost > 0:
            notes.append(f"{side}: {lost:,} of {sum(d for _, d in found[side].spans):,} spans did not arrive.")
    summary = {key: ratio.median for key, ratio in ratios.items()}
    return Outcome("reaction", [*rates.values(), *ratios.values(), *cpu], summary, notes)


@asynccontextmanager
async def _course(stack: Stack) -> AsyncIterator[Course]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.broker_address)
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker_address, acks="all", linger_ms=20)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongodb_uri, tz_aware=True)
    await admin.start()
    await producer.start()
    try:
        with NamedTemporaryFile() as file:
            file.write(await template())
            file.flush()
            yield Course(stack, admin, producer, client, Path(file.name))
    finally:
        await producer.stop()
        await admin.close()
        await client.close()
