"""From due to accepted by a counting gateway: the same reminders, the same gateway, the same machine, beside peers.

A *herd* is due at one moment; its throughput counts from that moment to the last acceptance. A *stream* is due evenly,
so many a second; lateness is acceptance less due time. Beside what is due, 10 k, 100 k and (ours alone) 1 M wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Protocol

import httpx

from deploy.embedded import Stack
from tests.bench import machine, reminders_ours
from tests.bench.frame import Ground, Measure, Outcome
from tests.bench.peers import celery_redis, procrastinate_postgres
from tests.bench.reminders_gateway import Gateway
from tests.bench.reminders_processes import Processes
from tests.bench.reminders_runs import Course, Ran
from tests.bench.reminders_sides import Side, far_off


class Peer(Protocol):
    """A module of ``tests.bench.peers``. ``HOW`` says how it is configured, and by which advice."""

    NAME: str
    HOW: str

    def lacking(self) -> str | None:
        """Why it cannot be measured here, or None."""
        ...

    def running(self, processes: Processes, gateway_url: str) -> AbstractAsyncContextManager[Side]:
        """Its servers and workers, ready."""
        ...


PEERS: tuple[Peer, ...] = (celery_redis, procrastinate_postgres)
RATE = 1000.0
"""Reminders a second of a stream that every side is asked for."""

_HELD = 0.7
"""A side that does not do RATE is asked for so much of what its herds did."""

_WARM_UP = 300
"""The herd that goes first, uncounted, and tells whether the side can do a whole one in half the time."""

_NO_TEMPORAL = (
    "Temporal's development server is left out: of what the Go module proxy has, the releases of this year refuse "
    "`go install` (they replace a module by one beside it), and the last that does not, 1.5.1, did not build within "
    "the seven minutes that two busy cores gave it."
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; ``within`` are the seconds after which a run is cut, and what came till then counts."""

    herd: int
    stream_seconds: float
    within: float
    few: int
    many: int
    most: int

    @classmethod
    def of(cls, ground: Ground) -> Sizes:
        """Full, or small."""
        if ground.quick:
            return cls(herd=500, stream_seconds=2, within=10, few=1_000, many=0, most=10_000)
        return cls(herd=5_000, stream_seconds=10, within=60, few=10_000, many=100_000, most=1_000_000)


@dataclass(slots=True)
class Found:
    """What one side did with so many pending: its herds of so many, and its streams by the rate it was asked for."""

    course: Course
    pending: int
    size: int
    herds: list[Ran] = field(default_factory=list)
    streams: dict[float, list[Ran]] = field(default_factory=dict)
    small: bool = False
    unkept: int = 0

    @property
    def name(self) -> str:
        """The side."""
        return self.course.side.name

    @property
    def label(self) -> str:
        """The side and what waits beside."""
        return f"{self.name}, {short(self.pending)} pending"

    @property
    def throughput(self) -> Measure:
        """What its herds did."""
        return Measure(self.label, "reminders/s", [ran.rate for ran in self.herds])

    @property
    def runs(self) -> list[Ran]:
        """All of them."""
        return [*self.herds, *(ran for runs in self.streams.values() for ran in runs)]

    def remarks(self) -> list[str]:
        """What a reader must know of its runs."""
        said = [f"{self.label}: herds of {self.size:,}, as many as it does in half the time."] if self.small else []
        if cut := sum(not ran.whole for ran in self.runs):
            said.append(f"{self.label}: {cut} of {len(self.runs)} runs were cut; what was accepted till then counts.")
        if again := sum(ran.again for ran in self.runs):
            said.append(f"{self.label}: {again} were asked for again under their one key, and taken once.")
        if early := sum(ran.early for ran in self.runs):
            said.append(f"{self.label}: {early} came before their time (by milliseconds).")
        if lost := self.course.scheduled - self.course.sent:
            said.append(f"{self.label}: of {self.course.scheduled:,} scheduled, {lost:,} never came.")
        if self.unkept:
            said.append(f"{self.label}: of {self.course.sent:,} accepted, {self.unkept:,} have no outcome kept.")
        return said


def short(number: int) -> str:
    """A number of reminders as one says it."""
    return f"{number // 10**6} M" if number >= 10**6 else f"{number // 1000} k" if number >= 1000 else str(number)


class Field:
    """Where the runs take place: one gateway, processes, and the sides that are up."""

    def __init__(self, ground: Ground, processes: Processes, http: httpx.AsyncClient, gateway: Gateway) -> None:
        self.ground = ground
        self.processes = processes
        self.http = http
        self.gateway = gateway
        self.sizes = Sizes.of(ground)
        self.foundation = dict(ground.foundation().environment)

    @classmethod
    @asynccontextmanager
    async def on(cls, ground: Ground) -> AsyncIterator[Field]:
        """A field with its gateway running; all of it is gone behind the block."""
        with TemporaryDirectory(prefix="carerelay-reminders-") as folder, Processes(Path(folder)) as processes:
            async with httpx.AsyncClient(trust_env=False) as http:
                yield cls(ground, processes, http, await Gateway.start(processes, http))

    def stack(self) -> AbstractContextManager[Stack]:
        """A fresh broker and store."""
        return self.ground.stack("broker", "store")

    def ours(self, stack: Stack) -> AbstractAsyncContextManager[reminders_ours.Ours]:
        """Our side on a stack."""
        return reminders_ours.running(stack, self.processes, self.gateway.url, self.http, self.foundation)

    def peer(self, peer: Peer) -> AbstractAsyncContextManager[Side]:
        """A peer with servers of its own."""
        return peer.running(self.processes, self.gateway.url)

    async def fill(self, side: Side, pending: int) -> Found:
        """Schedule what only waits, and warm up."""
        if pending:
            self.ground.say(f"{side.name}: scheduling {pending:,} that only wait")
            await side.pend(far_off(pending))
        course = Course(side, self.gateway)
        warm = await course.herd(_WARM_UP, within=self.sizes.within)
        able = max(int(warm.rate * self.sizes.within / 2), _WARM_UP)
        return Found(course, pending, min(self.sizes.herd, able), small=able < self.sizes.herd)

    async def herds(self, *found: Found) -> None:
        """Herds on every side in turn, as often as the ground says; then whether each kept what became of all."""
        for number in range(self.ground.runs):
            for each in found:
                ran = await each.course.herd(each.size, within=self.sizes.within)
                each.herds.append(ran)
                self._say(number, each, f"{ran.rate:,.0f}/s")
        for each in found:
            each.unkept = each.course.sent - await each.course.kept()

    async def streams(self, *found: Found) -> None:
        """Streams on every side in turn: ours at RATE, whoever cannot do that at what it can hold."""
        for number in range(self.ground.runs):
            for each in found:
                held = _HELD * each.throughput.median
                rates = {RATE if held >= RATE else max(held // 10 * 10, 1.0)}
                for rate in sorted(rates | {RATE} if each is found[0] else rates):
                    size = int(rate * self.sizes.stream_seconds)
                    ran = await each.course.stream(size, rate, within=self.sizes.within)
                    each.streams.setdefault(rate, []).append(ran)
                    self._say(number, each, f"at {rate:,.0f}/s p50 {ran.p50:.2f} s, p99 {ran.p99:.2f} s late")

    def _say(self, number: int, found: Found, what: str) -> None:
        self.processes.check()
        self.ground.say(f"run {number + 1}: {found.label}: {what} (load {machine.load():.1f})")


async def measure(ground: Ground) -> Outcome:
    """Herds and streams with few pending beside every peer, herds with more, ours with most and few side by side."""
    notes = [reminders_ours.HOW, _NO_TEMPORAL]
    peers = []
    for peer in PEERS:
        reason = peer.lacking()
        notes.append(peer.HOW if reason is None else f"{peer.NAME} left out: {reason}.")
        if reason is None:
            peers.append(peer)
    async with Field.on(ground) as field:
        few = await _few(field, peers)
        many = await _many(field, peers) if field.sizes.many else []
        most = await _most(field, few[0])
    return _outcome(field.sizes, few, many, most, notes)


async def _few(field: Field, peers: Sequence[Peer]) -> list[Found]:
    """Every side at once, their runs interleaved: while one works the others wait for times far off."""
    async with AsyncExitStack() as up:
        sides: list[Side] = [await up.enter_async_context(field.ours(up.enter_context(field.stack())))]
        for peer in peers:
            sides.append(await up.enter_async_context(field.peer(peer)))
        found = [await field.fill(side, field.sizes.few) for side in sides]
        await field.herds(*found)
        await field.streams(*found)
    return found


async def _many(field: Field, peers: Sequence[Peer]) -> list[Found]:
    """One side after the other, alone: with so much pending some are busy even while nothing is due."""
    found = []
    for peer in (None, *peers):
        async with AsyncExitStack() as up:
            up_side = field.ours(up.enter_context(field.stack())) if peer is None else field.peer(peer)
            found.append(await field.fill(await up.enter_async_context(up_side), field.sizes.many))
            await field.herds(found[-1])
    return found


async def _most(field: Field, few: Found) -> list[Found]:
    """Ours with few and with most pending, each on a stack of its own, their runs interleaved.

    In a quick run that with few is the one that was measured beside the peers.
    """
    async with AsyncExitStack() as up:
        found = []
        for pending in (field.sizes.most,) if field.ground.quick else (field.sizes.few, field.sizes.most):
            side = await up.enter_async_context(field.ours(up.enter_context(field.stack())))
            found.append(await field.fill(side, pending))
        await field.herds(*found)
    return [few, *found] if field.ground.quick else found


def _outcome(sizes: Sizes, few: list[Found], many: list[Found], most: list[Found], notes: list[str]) -> Outcome:
    ours, *peers = few
    measures = [each.throughput for each in (*few, *many)]
    ratios = {"lateness_p99_s": median(ran.p99 for ran in ours.streams[RATE])}
    if peers:
        best = max(peers, key=lambda peer: peer.throughput.median)
        measures.append(ours.throughput.over(best.throughput, f"CareRelay / {best.name}"))
        ratios["reminders_vs_best_peer"] = measures[-1].median
    base, full = (each.throughput for each in most)
    measures += [base, full, full.over(base, f"CareRelay, {short(sizes.most)} / {short(sizes.few)} pending")]
    ratios["backlog_1m_vs_10k"] = measures[-1].median
    for each in few:
        for rate, runs in each.streams.items():
            at = f"{each.name} at {rate:,.0f}/s"
            measures.append(Measure(f"{at}, p50", "s late", [ran.p50 for ran in runs]))
            measures.append(Measure(f"{at}, p99", "s late", [ran.p99 for ran in runs]))
    for each in (*few, *many, *most[1:]):
        herds = each.herds
        for name, cpu, memory in (
            ("workers", [ran.workers_cpu_us for ran in herds], [ran.memory_mib for ran in herds]),
            ("servers", [ran.servers_cpu_us for ran in herds], [ran.servers_mib for ran in herds]),
        ):
            measures.append(Measure(f"{each.label}, {name}", "CPU us a reminder", cpu))
            measures.append(Measure(f"{each.label}, {name}", "MiB", memory))
    notes.append(
        f"Each herd is {sizes.herd:,} reminders due at one moment; a run is cut {sizes.within:.0f} s after it."
    )
    notes.append(
        "Peers load person and visit, check that neither consent nor the visit was taken back, post the same JSON with "
        "an Idempotency-Key and keep the outcome. None of them writes its intention before the call, counts a person's "
        "messages, or tells other services what became of it."
    )
    gateway = median(ran.gateway_cpu_us for ran in ours.herds)
    notes.append(
        f"The gateway takes {gateway:.0f} us of CPU a reminder, on the same two cores, the same for every side."
    )
    for each in (*few, *many, *(most[1:] if most[0] is ours else most)):
        notes += each.remarks()
    return Outcome("reminders", measures, ratios, notes)
