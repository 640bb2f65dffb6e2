"""What the fault tests of polling share: payers that count inquiries, pended authorizations, two pollers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from deploy.embedded import Stack
from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import LOOPBACK
from services.prior_authorization.model import Authorization, Member, State
from services.prior_authorization.model.authorization import Kind, Submission
from services.prior_authorization.model.payer import Payer
from services.prior_authorization.model.rules import Terms
from shared.contracts.base import Coding
from shared.kit.clock import SystemClock
from shared.kit.document import Document, derived_id, due_field, slot_of
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import Outcome
from shared.kit.store.repository import Held, Repository
from tests.bench.door import Door
from tests.bench.reminders_processes import Processes, Started
from tests.e2e.volume import harmed, last_lines, resume, shared, until

RATE, IN_FLIGHT = 2.0, 4
"""What every payer here allows: inquiries a second, with none saved up, and unanswered ones."""

RULES = f"""\
[[payers]]
payer = "*"
poll = {{ a_second = {RATE}, burst = 1, in_flight = {IN_FLIGHT} }}
"""
_SERVICE = "prior_authorization"
_QUEUE = "authorization.poll"
_POLL = "poll"
_RUNS = count(1)
_CONSULT = Coding(system="http://www.ama-assn.org/go/cpt", code="99244")


@dataclass(frozen=True, slots=True)
class Asked:
    """One inquiry: of which payer, after which claim, when, in seconds since 1970."""

    payer_id: str
    claim_id: str
    at: float


class Payers:
    """Every inquiry that came; each is answered after ``latency`` seconds, with nothing decided."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.asked: list[Asked] = []

    def take(self, target: str, body: bytes) -> None:
        """Note an inquiry."""
        claim = next(
            entry["resource"] for entry in json.loads(body)["entry"] if entry["resource"]["resourceType"] == "Claim"
        )
        self.asked.append(Asked(target.split("/")[1], claim["identifier"][0]["value"], time.time()))

    def after(self, moment: float, payers: set[str]) -> list[float]:
        """When these payers were asked after a moment."""
        return [asked.at for asked in self.asked if asked.payer_id in payers and asked.at > moment]

    def excess(self) -> dict[str, float]:
        """By payer, how many inquiries more than it allows came in the worst stretch of time."""
        times: dict[str, list[float]] = defaultdict(list)
        for asked in self.asked:
            times[asked.payer_id].append(asked.at)
        return {payer_id: _excess(sorted(each)) for payer_id, each in times.items()}


def _excess(times: list[float]) -> float:
    """The level of a bucket that leaks at the allowed rate and takes one at a time."""
    worst = level = 0.0
    last = times[0]
    for at in times:
        level = max(0.0, level - (at - last) * RATE) + 1.0
        last = at
        worst = max(worst, level - 1.0)
    return worst


class _PayersDoor(Door):
    """One connection to the payers."""

    def __init__(self, payers: Payers) -> None:
        super().__init__()
        self._payers = payers

    def request(self, head: bytes, body: bytes) -> None:
        """Take an inquiry, and answer it in a while."""
        self._payers.take(head.split(b" ", 2)[1].decode(), body)
        answer = b'{"resourceType":"Parameters"}'
        asyncio.get_running_loop().call_later(self._payers.latency, self.answer, b"200 OK", answer)


@dataclass
class Polling:
    """Two pollers at work on pended authorizations, and the payers that they ask."""

    payers: Payers
    store: MongoStore
    pollers: list[Started]
    names: tuple[str, ...]
    claims: list[str]
    told: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.time)

    def tell(self, what: str) -> None:
        """Note what was done; shown where the test fails."""
        self.told.append(f"{time.time() - self._began:6.1f} s  {what}; {len(self.payers.asked)} asked so far")

    async def victim(self) -> tuple[int, set[str]]:
        """The first poller, and the payers that are its own once the two share them."""
        first, second = (await shared(self.store, f"{_SERVICE}.{_QUEUE}")).values()
        # Which is whose is told by none of the two; the one that was alone keeps the upper slots.
        upper = max(first, second, key=min)
        return self.pollers[0].pid, {name for name in self.names if slot_of(name) in upper}

    async def asked(self, number: int, within: float) -> None:
        """Wait until so many inquiries have come."""

        async def look() -> bool:
            return len(self.payers.asked) >= number

        await until(look, within, f"{number} inquiries")
        self.tell("waited")

    async def asked_again(self, payers: set[str], since: float, within: float) -> float:
        """Wait until each of these payers is asked after a moment; how long after it that came to be, in seconds."""

        async def look() -> bool:
            return {asked.payer_id for asked in self.payers.asked if asked.at > since} >= payers

        await until(look, within, "each of these payers is asked again")
        self.tell("all payers are asked again")
        return max(min(self.payers.after(since, {payer})) for payer in payers) - since

    def harm(self, pid: int, number: signal.Signals) -> float:
        """Send a poller a signal; returns when."""
        self.tell(f"{number.name} to poller {pid}")
        return harmed(pid, number)

    async def over(self, within: float) -> list[dict[str, Any]]:
        """Wait until nothing is due any more; the authorizations as they are stored."""

        async def look() -> bool:
            now = SystemClock().now() + timedelta(minutes=5)
            due = {due_field(_POLL): {"$lte": now}, "state": State.PENDED.value}
            return not await self.store.count(Authorization.collection, due)

        await until(look, within, "no authorization is due")
        self.tell("nothing is due")
        return await self.store.load(Authorization.collection, self.claims)

    async def check(self, within: float, *, beyond: float) -> None:
        """Each was asked about once, or was in flight in a poller that went, and will be asked about again; no payer
        was asked more than ``beyond`` times oftener than it allows."""
        stored = await self.over(within)
        times = Counter(asked.claim_id for asked in self.payers.asked)
        assert len(stored) == len(self.claims)
        assert set(times) <= set(self.claims)
        twice = {claim: number for claim, number in times.items() if number > 1}
        assert not twice, "asked about twice although nothing was to be learned so soon"
        lost = {raw["_id"] for raw in stored if any(each["reason"] == "worker-lost" for each in raw["troubles"])}
        self.tell(f"{len(lost)} were in flight in the poller that went")
        assert set(self.claims) - set(times) <= lost
        assert len(lost) <= IN_FLIGHT * len(self.names)
        assert all(raw["polls"] == 1 and not raw["attempts"] for raw in stored)
        excess = self.payers.excess()
        self.tell(f"at the most {max(excess.values()):.1f} beyond a payer's budget")
        assert max(excess.values()) <= beyond, excess


@asynccontextmanager
async def polling(
    stack: Stack,
    kind: Foundation,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    payers: int = 12,
    each: int = 20,
    latency: float = 0.5,
) -> AsyncIterator[Polling]:
    """Two pollers that share the payers, and so many authorizations of each payer, due.

    Prints what was done, and logs.
    """
    rules = folder / "rules.toml"
    await asyncio.to_thread(rules.write_text, RULES)
    ledger = Payers(latency)
    server = await asyncio.get_running_loop().create_server(lambda: _PayersDoor(ledger), LOOPBACK, 0, backlog=1024)
    url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.broker_address,
        "MONGODB_URI": stack.mongodb_uri,
        "HTTP_HOST": LOOPBACK,
        "PAYER_URL": url,
        "PRIOR_AUTHORIZATION_RULES": str(rules),
        **kind.environment,
        **(environment or {}),
    }
    run = next(_RUNS)
    names = tuple(f"payer-{run}-{number}" for number in range(payers))
    store = MongoStore(stack.mongodb_uri, _SERVICE, timeout=30)
    repository = Repository(store, SystemClock(), lambda unsent: None)
    with Processes(folder) as processes:
        try:
            await repository.ensure((Authorization, Member, Payer))
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                pollers = [await _poller(processes, settings, http) for _ in range(2)]
            scene = Polling(ledger, store, pollers, names, [])
            try:
                await shared(store, f"{_SERVICE}.{_QUEUE}")
                await _seed(repository, names, each)
                scene.claims += [derived_id("claim", name, str(n)) for name in names for n in range(each)]
                scene.tell(f"{payers} payers of {each} authorizations each")
                yield scene
            finally:
                print(*scene.told, *last_lines(folder), sep="\n")  # shown where the test fails
                resume([poller.pid for poller in pollers])
        finally:
            server.close()
            await store.close()


async def _poller(processes: Processes, settings: Mapping[str, str], http: httpx.AsyncClient) -> Started:
    port = processes.port()
    argv = [sys.executable, "-m", f"services.{_SERVICE}", "poller"]
    started = processes.start("poller", argv, environment={**settings, "HTTP_PORT": str(port)})
    await processes.ready(started, f"http://{LOOPBACK}:{port}/health/ready", http)
    return started


async def _seed(repository: Repository, names: tuple[str, ...], each: int) -> None:
    """Store authorizations that their payers pended an hour ago, all due to be asked about now."""
    now = repository.clock.now()
    for name in names:
        patient = derived_id("patient", name)
        member = Member(
            id=patient,
            payer_id=name,
            coverage_id=derived_id("coverage", name),
            member_id=f"SBX-{name}",
            family="Synthetic",
            given=("Person",),
            birth_date=date(1980, 2, 29),
            gender="female",
        )
        await _store(repository, [member])
        await _store(repository, [_pended(name, patient, number, now) for number in range(each)])


def _pended(payer_id: str, patient_id: str, number: int, now: datetime) -> Authorization:
    id = derived_id("claim", payer_id, str(number))
    since = now - timedelta(hours=1)
    document = Authorization(
        id=id,
        state=State.PENDED,
        referral_id=derived_id("referral", id),
        patient_id=patient_id,
        coverage_id=derived_id("coverage", payer_id),
        payer_id=payer_id,
        opened_for=payer_id,
        service=_CONSULT,
        requested_at=since,
        terms=Terms(why="default", needed=True, poll_minutes=15),
        submissions=[Submission(id=id, kind=Kind.INITIAL, opened_at=since, received_at=since, pended_at=since)],
        claim_id=id,
    )
    document.wake(_POLL, now)
    return document


async def _store(repository: Repository, documents: list[Any]) -> None:
    kind: type[Document] = type(documents[0])
    writes = []
    for document in documents:
        held: Held[Any] = Held(kind, document.id, None, document)
        write = repository.stage(held)
        assert write is not None
        writes.append((held, write))
    assert set(await repository.write(kind, writes)) == {Outcome.WON}
