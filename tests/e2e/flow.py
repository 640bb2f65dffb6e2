"""Referrals under way over the public APIs, at a rate: ordered, accepted once they are sent, done once they are booked.

Every request that is not answered as it should be is noted, with when, and made again under the same key.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.embedded import Stack
from shared.kit.clock import OffsetClock
from shared.kit.document import derived_id
from tests.bench.reminders_processes import at, passed

TOPICS = ("intake.events", "referrals.events", "scheduling.events")

PATIENCE = 120.0
"""Real seconds within which a request must be taken, and an event told, before the play is given up."""

_AGAIN_AFTER = 0.1
_SLOT = timedelta(minutes=15)
_SLOTS_A_DAY = 32
_SPECIALISTS = 12
_KNEE = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M23.305"}
_MRI = {"system": "http://www.ama-assn.org/go/cpt", "code": "73721"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that a service did not answer, or answered with a fault; ``at`` in seconds since 1970."""

    service: str
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Referred:
    """One referral, and the addresses of the processes that took its order and its acceptance."""

    id: str
    ordered_at: str
    accepted_at: str


@dataclass
class Flow:
    """``urls``: of each service the addresses of its processes. ``run`` sets this flow's keys apart from others'."""

    stack: Stack
    http: httpx.AsyncClient
    run: str
    urls: dict[str, list[str]]
    failures: list[Failure] = field(default_factory=list)
    visits: int = 0
    overloads: Counter[str] = field(default_factory=Counter)
    referred: list[Referred] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    specialists: list[str] = field(default_factory=list)
    _asking: Counter[str] = field(default_factory=Counter)
    _told: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        roles = ("coordinator", "clinician", "scheduler", "service")
        self._token = self.stack.token(*roles)
        self.clock = OffsetClock(self.stack.clock_offset_file)

    # -- what is asked --------------------------------------------------------------------------------------

    async def register(self, number: int) -> None:
        """Register so many patients, and return once their coverage is verified."""
        self.patients += await asyncio.gather(*(self._register(each) for each in range(number)))

    async def _register(self, number: int) -> str:
        body = {
            "family": "Example",
            "given": ["Patient"],
            "birth_date": "1980-02-03",
            "gender": "unknown",
            "email": f"patient-{number}@mail.example",
            "language": "en",
            "timezone": "America/Chicago",
            "channels": ["email"],
            "coverage": {"payer_id": f"payer-{number}", "member_id": f"SBX-APPROVE-{number}", "plan": "ppo"},
        }
        answer, _ = await self.ask("intake", "/registrations", f"patient-{number}", body)
        id = str(answer["id"])
        await self.told("coverage.verified.v1", id)
        return id

    async def open(self, days: int) -> None:
        """List specialists of this flow's own, with 32 slots a day from the day after tomorrow on."""
        opening = (self.clock.now() + timedelta(days=2)).replace(hour=13, minute=0, second=0, microsecond=0)
        starts = [opening + timedelta(days=day) + _SLOT * n for day in range(days) for n in range(_SLOTS_A_DAY)]
        slots = [{"start": start.isoformat(), "end": (start + _SLOT).isoformat()} for start in starts]
        body = {"timezone": "America/Chicago", "slots": slots}
        listed = {"specialty": "orthopedics"}
        for number in range(_SPECIALISTS):
            id = derived_id("specialist", self.run, str(number))
            await self.ask("referrals", f"/specialists/{id}", f"listed-{id}", listed, method="PUT")
            await self.ask("scheduling", f"/calendars/{id}/slots", f"slots-{id}", body)
            self.specialists.append(id)

    async def order(self, number: int, rate: float) -> None:
        """Order so many referrals, ``rate`` of them a second whatever the answers; returns once all are booked."""
        began = time.time()
        async with asyncio.TaskGroup() as group:
            for each in range(number):
                await at(began + each / rate)
                group.create_task(self.refer())

    async def order_until(self, enough: asyncio.Event, rate: float) -> None:
        """Order referrals at a rate until it is enough; returns once all are booked."""
        async with asyncio.TaskGroup() as group:
            began, ordered = time.time(), 0
            while not enough.is_set():
                group.create_task(self.refer())
                ordered += 1
                await at(began + ordered / rate)

    async def refer(self) -> None:
        """One referral, from its order to its booking; every pair of processes has its turn with the two requests."""
        number = next(self._numbers)
        specialist = self.specialists[number % len(self.specialists)]
        body = {
            "patient_id": self.patients[number % len(self.patients)],
            "service": _MRI,
            "specialty": "orthopedics",
            "performer_id": specialist,
            "reasons": [_KNEE],
            "packet": [{"sha256": f"{number:064x}", "kind": "imaging"}],
        }
        order, ordered_at = await self.ask("referrals", "/referrals", f"order-{number}", body, number)
        id = str(order["id"])
        await self.told("referral.sent.v1", id)
        accept = f"/referrals/{id}/accept"
        answer = {"specialist_id": specialist}
        _, accepted_at = await self.ask("referrals", accept, f"accept-{number}", answer, number // 2)
        await self.told("appointment.booked.v1", id)
        self.referred.append(Referred(id, ordered_at, accepted_at))

    async def ask(
        self, service: str, path: str, key: str, body: Mapping[str, Any], turn: int = 0, *, method: str = "POST"
    ) -> tuple[dict[str, Any], str]:
        """Ask until it is taken; the answer, and the address of the process whose ``turn`` it was.

        What kept it from being taken is noted. Raises AssertionError where it is wrong, or nobody takes it.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": f"{self.run}-{key}"}
        end = time.monotonic() + PATIENCE
        while True:
            url = self.urls[service][turn % len(self.urls[service])]
            self._asking[url] += 1
            try:
                answer = await self.http.request(method, url + path, headers=headers, json=body)
            except httpx.TransportError as error:
                self.failures.append(Failure(service, type(error).__name__, time.time()))
            else:
                if answer.is_success:
                    return answer.json(), url
                if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    self.overloads[service] += 1
                else:
                    assert answer.is_server_error, f"{service} {path}: {answer.status_code} {answer.text}"
                    self.failures.append(Failure(service, str(answer.status_code), time.time()))
            finally:
                self._asking[url] -= 1
            assert time.monotonic() < end, f"{service} took no request for {PATIENCE:.0f} s"
            await passed(_AGAIN_AFTER)

    async def visit(self, services: Iterable[str], every: float = 0.3) -> None:
        """Read something of each service's store through its API, again and again, until cancelled."""
        headers = {"Authorization": f"Bearer {self.stack.token('operator')}"}
        while True:
            for service in services:
                try:
                    answer = await self.http.get(f"{self.stack.url(service)}/pulse", headers=headers)
                except httpx.TransportError as error:
                    self.failures.append(Failure(service, type(error).__name__, time.time()))
                else:
                    self.visits += 1
                    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                        self.overloads[service] += 1
                    elif not answer.is_success:
                        self.failures.append(Failure(service, str(answer.status_code), time.time()))
            await passed(every)

    def idle(self, url: str) -> bool:
        """Whether no request to this address waits for its answer."""
        return not self._asking[url]

    # -- what is told ---------------------------------------------------------------------------------------

    async def told(self, type: str, case: str) -> None:
        """Return once an event of this type about this case is on Kafka."""
        await asyncio.wait_for(self._telling(type, case).wait(), PATIENCE)

    def _telling(self, type: str, case: str) -> asyncio.Event:
        return self._told.setdefault((type, case), asyncio.Event())

    async def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Take in every event, until cancelled."""
        async for record in consumer:
            named = {name: value.decode() for name, value in record.headers}
            case = named["ce_subject"]
            if named["ce_type"].startswith("appointment."):
                case = json.loads(record.value).get("referral_id", case)
            self._telling(named["ce_type"], case).set()


@asynccontextmanager
async def flowing(stack: Stack, run: str) -> AsyncIterator[Flow]:
    """A flow over a running stack, that hears what is told from now on."""
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False) as http,
        AIOKafkaConsumer(*TOPICS, bootstrap_servers=stack.broker_address, auto_offset_reset="earliest") as consumer,
    ):
        for place, end in (await _ends(consumer)).items():
            consumer.seek(place, end)
        flow = Flow(stack, http, run, {name: [stack.url(name)] for name in ("intake", "referrals", "scheduling")})
        listening = asyncio.ensure_future(flow.listen(consumer))
        try:
            yield flow
        finally:
            listening.cancel()


async def lag(stack: Stack, groups: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Records that these groups have not committed, of all their topics."""
    topics = sorted({topic for _, read in groups for topic in read})
    async with AIOKafkaConsumer(*topics, bootstrap_servers=stack.broker_address) as consumer:
        ends = await _ends(consumer)
    return sum(await asyncio.gather(*(_behind(stack, group, read, ends) for group, read in groups)))


async def _behind(stack: Stack, group: str, topics: Sequence[str], ends: Mapping[TopicPartition, int]) -> int:
    behind = 0
    async with AIOKafkaConsumer(bootstrap_servers=stack.broker_address, group_id=group) as consumer:
        for place, end in ends.items():
            if place.topic in topics:
                behind += max(0, end - (await consumer.committed(place) or 0))
    return behind


async def _ends(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    places = consumer.assignment()
    assert {place.topic for place in places} == consumer.subscription()
    ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
    return ends
