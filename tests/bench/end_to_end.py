"""A referral requested to its appointment booked, over intake, referrals, prior_authorization and scheduling.

Patients, specialists and slots are there before the clock starts. Referrals are ordered at a steady rate, whatever the
answers; a payer approves each at once; its specialist accepts it as soon as it was sent. Times are those of the records
on Kafka.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer

from deploy.embedded import Stack
from deploy.embedded.ports import LOOPBACK, accepts, free_ports
from tests.bench.children import Broke, child, moment
from tests.bench.end_to_end_client import Door
from tests.bench.frame import Ground, Measure, Outcome
from tests.bench.machine import CpuClock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERVICES = ("intake", "referrals", "prior_authorization", "scheduling")
RATES = (10, 50, 100)
SECONDS = 20.0
MOST = 1000
"""How long a stretch of load is, and how many referrals at the most: beyond what is held, they all have to drain."""

TOLD_RATE = 50
"""The rate whose p99 goes to the summary."""

PAYERS = 40
SPECIALISTS = 24
SLOT = timedelta(minutes=15)
SLOTS_A_DAY = 32
OPENS = 13

DRAIN_SECONDS = 240.0
_TOPICS = ("referrals.events", "scheduling.events", "intake.events")
_KNEE = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M23.305"}
_MRI = {"system": "http://www.ama-assn.org/go/cpt", "code": "73721"}


@dataclass(slots=True)
class Journey:
    """One referral's times, in seconds since 1970: when it was to be ordered, was accepted by the API, was booked."""

    due: float
    accepted: float = math.nan
    booked: float = math.nan


@dataclass(slots=True)
class Run:
    """What one steady stretch of load gave."""

    rate: float
    journeys: list[Journey] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds by process, until the last was booked."""
    outstanding: list[tuple[float, int]] = field(default_factory=list)
    """Referrals accepted and not booked, by second of the stretch."""

    def quantile(self, share: float, since: Callable[[Journey], float]) -> float:
        """Seconds from ``since`` to booked that ``share`` of the referrals kept within."""
        took = sorted(journey.booked - since(journey) for journey in self.journeys)
        return took[min(len(took) - 1, math.ceil(share * len(took)) - 1)]

    @property
    def held(self) -> bool:
        """Whether the rate was kept up: what was outstanding did not grow from the middle third to the last."""
        third = len(self.outstanding) // 3
        middle = [count for _, count in self.outstanding[third : 2 * third]]
        last = [count for _, count in self.outstanding[2 * third :]]
        return statistics.mean(last) <= 1.25 * statistics.mean(middle) + 0.25 * self.rate


class World:
    """The running services, the patients and the events that come by."""

    def __init__(self, stack: Stack, consumer: AIOKafkaConsumer) -> None:
        token = stack.token("coordinator", "clinician", "scheduler", "service")
        self.doors = {name: Door(stack.url(name), token) for name in SERVICES}
        self._stack = stack
        self._consumer = consumer
        self._patients: list[str] = []
        self._journeys: dict[str, Journey] = {}
        self._specialist_of: dict[str, str] = {}
        self._early: dict[str, list[tuple[str, float]]] = {}
        self._covered: set[str] = set()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    # -- before the clock starts ----------------------------------------------------------------------------

    async def register(self, count: int) -> None:
        """Register patients, and wait until their coverage is verified."""
        for first in range(0, count, 8):
            answers = await asyncio.gather(*(self._register(n) for n in range(first, min(first + 8, count))))
            self._patients += [answer["id"] for answer in answers]
        await self._until(lambda: len(self._covered) >= count, "every coverage was verified")

    async def _register(self, number: int) -> dict[str, Any]:
        body = {
            "family": "Example",
            "given": ["Patient"],
            "birth_date": "1980-02-03",
            "gender": "unknown",
            "email": f"patient-{number}@mail.example",
            "language": "en",
            "timezone": "America/Chicago",
            "channels": ["email"],
            "coverage": {"payer_id": f"payer-{number % PAYERS}", "member_id": f"SBX-APPROVE-{number}", "plan": "ppo"},
        }
        return await self.doors["intake"].ask("POST", "/registrations", body, f"patient-{number}")

    async def specialists(self, referrals: int) -> list[str]:
        """New specialists, with slots for a third more referrals than are to come."""
        days = math.ceil(referrals * 4 / 3 / SPECIALISTS / SLOTS_A_DAY) + 1
        opening = datetime.now(UTC).replace(hour=OPENS, minute=0, second=0, microsecond=0) + timedelta(days=2)
        starts = [opening + timedelta(days=day) + SLOT * n for day in range(days) for n in range(SLOTS_A_DAY)]
        slots = [{"start": start.isoformat(), "end": (start + SLOT).isoformat()} for start in starts]
        ids = [str(uuid4()) for _ in range(SPECIALISTS)]
        for id in ids:
            await self.doors["referrals"].ask("PUT", f"/specialists/{id}", {"specialty": "orthopedics"}, f"listed-{id}")
            published = {"timezone": "America/Chicago", "slots": slots}
            await self.doors["scheduling"].ask("POST", f"/calendars/{id}/slots", published, f"slots-{id}")
        return ids

    # -- the load -------------------------------------------------------------------------------------------

    async def load(self, rate: float, seconds: float) -> Run:
        """Order referrals at a rate, and return when every one is booked. Raises Broke where one is not."""
        specialists = await self.specialists(int(rate * seconds))
        run = Run(rate)
        loop = asyncio.get_running_loop()
        cpu = CpuClock(**{name: process.pid or 0 for name, process in self._stack.processes().items()})
        began, wall = loop.time(), time.time()
        watching = asyncio.ensure_future(self._watch(run, began))
        for number in range(int(rate * seconds)):
            await moment(began + number / rate)
            journey = Journey(wall + number / rate)
            run.journeys.append(journey)
            self._begin(self._order(journey, specialists[number % SPECIALISTS]))
        await moment(began + seconds)
        watching.cancel()
        await self._until(lambda: all(j.booked == j.booked for j in run.journeys), "every referral was booked")
        run.cpu = cpu.used()
        return run

    async def _watch(self, run: Run, began: float) -> None:
        second = 0
        while True:
            second += 1
            await moment(began + second)
            open = sum(1 for j in run.journeys if j.accepted == j.accepted and j.booked != j.booked)
            run.outstanding.append((second, open))

    async def _order(self, journey: Journey, specialist_id: str) -> None:
        key = str(uuid4())
        body = {
            "patient_id": self._patients[int(key[:8], 16) % len(self._patients)],
            "service": _MRI,
            "specialty": "orthopedics",
            "performer_id": specialist_id,
            "reasons": [_KNEE],
            "packet": [{"sha256": hashlib.sha256(key.encode()).hexdigest(), "kind": "imaging"}],
        }
        answer = await self.doors["referrals"].ask("POST", "/referrals", body, key)
        journey.accepted = time.time()
        self._journeys[answer["id"]] = journey
        self._specialist_of[answer["id"]] = specialist_id
        for type, at in self._early.pop(answer["id"], ()):
            self._told(type, answer["id"], at)

    async def _accept(self, referral_id: str) -> None:
        body = {"specialist_id": self._specialist_of[referral_id]}
        await self.doors["referrals"].ask("POST", f"/referrals/{referral_id}/accept", body, f"accept-{referral_id}")

    def _begin(self, doing: Any) -> None:
        task = asyncio.ensure_future(doing)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self._changed.set()

    # -- what is told on Kafka ------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Take in every event, until cancelled."""
        while True:
            taken = await self._consumer.getmany(timeout_ms=200)
            for record in (record for records in taken.values() for record in records):
                headers = dict(record.headers)
                type, subject = headers["ce_type"].decode(), headers["ce_subject"].decode()
                if type == "coverage.verified.v1":
                    self._covered.add(subject)
                elif type == "referral.sent.v1":
                    self._told(type, subject, record.timestamp / 1000)
                elif type == "appointment.booked.v1":
                    self._told(type, json.loads(record.value)["referral_id"], record.timestamp / 1000)
            if taken:
                self._changed.set()

    def _told(self, type: str, referral_id: str, at: float) -> None:
        journey = self._journeys.get(referral_id)
        if journey is None:
            self._early.setdefault(referral_id, []).append((type, at))  # told before its request was answered
        elif type == "referral.sent.v1":
            self._begin(self._accept(referral_id))
        else:
            journey.booked = at

    async def _until(self, met: Callable[[], bool], what: str) -> None:
        end = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while not met():
            if self._broken is not None:
                raise self._broken
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._changed.wait(), max(left, 0))
            except TimeoutError:
                raise Broke(f"waited {DRAIN_SECONDS:.0f} s in vain until {what}") from None
            self._changed.clear()
        self._stack.check()


async def measure(ground: Ground) -> Outcome:
    """Each rate in turn, again and again; then the highest rate that is held for a minute."""
    runs: dict[int, list[Run]] = {rate: [] for rate in RATES}
    async with _world(ground) as world:
        await world.register(40 if ground.quick else 400)
        await world.load(10, 3 if ground.quick else SECONDS)
        for turn in range(1 if ground.quick else ground.runs):
            for rate in RATES:
                run = await world.load(rate, _seconds(rate, ground))
                runs[rate].append(run)
                took = [f"{run.quantile(share, _accepted):.2f}" for share in (0.5, 0.99)]
                ground.say(f"run {turn + 1}, {rate}/s: p50 {took[0]} s, p99 {took[1]} s")
        highest = await _highest(ground, world)
        refused = sum(door.refused for door in world.doors.values())
    return _outcome(runs, highest, refused)


def _seconds(rate: int, ground: Ground) -> float:
    return min(SECONDS, (MOST / 16 if ground.quick else MOST) / rate)


async def _highest(ground: Ground, world: World) -> float | None:
    """The highest rate held for a minute (five seconds in a quick run), or None where none of those tried is.

    First what the services take in when they have more than enough to do, then ever less.
    """
    flood = await world.load(max(RATES), _seconds(max(RATES), ground))
    first, last = min(j.due for j in flood.journeys), max(j.booked for j in flood.journeys)
    rate = len(flood.journeys) / (last - first)
    for _ in range(1 if ground.quick else 8):
        run = await world.load(rate, 5.0 if ground.quick else 60.0)
        ground.say(f"{rate:.0f}/s: {'held' if run.held else 'not held'}, p99 {run.quantile(0.99, _accepted):.2f} s")
        if run.held:
            return rate
        rate *= 0.85
    return None


def _accepted(journey: Journey) -> float:
    return journey.accepted


def _due(journey: Journey) -> float:
    return journey.due


def _outcome(runs: dict[int, list[Run]], highest: float | None, refused: int) -> Outcome:
    measures = []
    for rate, all_runs in runs.items():
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            took = [run.quantile(share, _accepted) for run in all_runs]
            measures.append(Measure(f"{rate}/s: accepted to booked, {name}", "s", took))
    for rate, all_runs in runs.items():
        took = [run.quantile(0.99, _due) for run in all_runs]
        measures.append(Measure(f"{rate}/s: to be sent to booked, p99", "s", took))
    told = next(m for m in measures if m.name == f"{TOLD_RATE}/s: accepted to booked, p99")
    for name in runs[TOLD_RATE][0].cpu:
        used = [run.cpu[name] / len(run.journeys) * 1000 for run in runs[TOLD_RATE]]
        measures.append(Measure(f"{TOLD_RATE}/s: {name}", "CPU ms/referral", used))
    if highest is not None:
        measures.append(Measure("highest rate held for a minute", "referrals/s", [highest]))
    notes = [
        "Four service processes in the role *all*, a payer, broker, store and the load itself share the machine; "
        "10% of traces are sampled.",
        f"Rates beyond the highest held only show how a queue grows: those stretches are of {MOST:,} referrals at the "
        f"most, {SECONDS:.0f} seconds at the longest.",
        f"{refused} requests were refused for overload and made again when the answer said so.",
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for rate, all_runs in runs.items():
            took = sorted(j.booked - j.accepted for run in all_runs for j in run.journeys)
            axes.plot(took, [(n + 1) / len(took) * 100 for n in range(len(took))], label=f"{rate}/s")
        axes.set_xlabel("seconds from accepted to booked")
        axes.set_ylabel("% of referrals")
        axes.set_xlim(left=0)
        axes.legend()
        figure.suptitle("end to end")

    return Outcome("end_to_end", measures, {"end_to_end_p99_s": told.median}, notes, draw)


@asynccontextmanager
async def _world(ground: Ground) -> AsyncIterator[World]:
    (port,) = free_ports(1)
    environment = {"PAYER_URL": f"http://{LOOPBACK}:{port}", "TRACE_SAMPLE_RATIO": "0.1"}
    async with child("tests.bench.end_to_end_payer", str(port), environment={}) as payer:
        loop = asyncio.get_running_loop()
        while not accepts(port):
            payer.check()
            await moment(loop.time() + 0.05)
        with ground.stack("broker", "store", "simulators", *SERVICES, environment=environment) as stack:
            consumer = AIOKafkaConsumer(
                *_TOPICS, bootstrap_servers=stack.broker_address, group_id=None, auto_offset_reset="earliest"
            )
            await consumer.start()
            world = World(stack, consumer)
            listening: asyncio.Task[None] | None = None
            try:
                listening = asyncio.ensure_future(world.listen())
                yield world
            finally:
                if listening is not None:
                    listening.cancel()
                for door in world.doors.values():
                    door.close()
                await consumer.stop()
