"""A year of requests against the payer simulator, through the service's own decisions and job table, in memory.

What the kit does around them (leases, batches, writes) is left out for speed: each document is decided on where it
stands, its events are put on the topic as the kit puts them there, and time is a number that is set.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import httpx

from deploy.simulators import payer as simulator
from deploy.simulators.adjudication import Script
from services.prior_authorization.jobs import jobs
from services.prior_authorization.model import Authorization, Member, Payer, RuleBook, State, opening, people
from services.prior_authorization.model.asking import OpenAs, open_directly
from services.prior_authorization.model.notified import TakeNotification, take_notification
from services.prior_authorization.model.payer import HearPayer, hear, payer_key
from services.prior_authorization.pas.client import PayerClient
from services.prior_authorization.pas.reading import read_notification
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import MemberWanted, ReviewAction
from shared.contracts.referrals import AuthorizationRequested
from shared.kit.bus.envelope import message_of
from shared.kit.decisions import Due, Facts, Ref, Want
from shared.kit.document import Document, derived_id
from shared.kit.jobs import Call, Timer
from shared.kit.store.repository import Entry
from shared.kit.testing.memory_bus import MemoryBroker

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 365
CPT = "http://www.ama-assn.org/go/cpt"
CODES = ("99244", "70553", "27447", "G0151", "45378", "93306")
A1, A2, A3, A6, C, CT, NA = (ReviewAction(code) for code in ("A1", "A2", "A3", "A6", "C", "CT", "NA"))
ANSWERS = (*[A1] * 32, *[A3] * 12, A2, A2, A6, A6, C, CT, NA)
PENDS = (*[None] * 15, 2.0, 26.0, 50.0, 80.0, 200.0)
"""Hours; the last are later than the payers' time."""

RULES = "\n".join(
    [
        '[[payers]]\npayer = "*"\nline_of_business = "medicare-advantage"\nappeal = "automatic"',
        '[[payers]]\npayer = "payer-1"\nline_of_business = "other"\nappeal = "by-person"\nappeal_levels = 2',
        '[[payers]]\npayer = "payer-2"\nline_of_business = "medicare-advantage"\nappeal = "none"',
        '[[clocks]]\nfrom = 2000-01-01\nstandard = "14 calendar days"\nexpedited = "72 hours"\n'
        'appeal_standard = "30 calendar days"\nappeal_expedited = "72 hours"',
        '[[clocks]]\nline_of_business = "medicare-advantage"\nfrom = 2026-01-01\nstandard = "7 calendar days"\n'
        'expedited = "72 hours"\nappeal_standard = "30 calendar days"\nappeal_expedited = "72 hours"',
    ]
)
PAYERS = tuple(f"payer-{n}" for n in range(6))
SILENT = frozenset({"payer-4"})
"""Notifies of nothing: it has to be asked. The others send their heartbeats as well."""

SEVERAL = 0.1
"""How many ask for several items."""

WEIGHTS = (40, 20, 20, 20, 2, 20)


@dataclass
class Kept:
    """A document, and the number of its last event."""

    document: Authorization
    member: Member
    sequence: int = 0


@dataclass
class Year:
    """One run. ``seed`` decides everything."""

    seed: int
    requests: int
    now: datetime = NEW_YEAR
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    asked: dict[str, AuthorizationRequested] = field(default_factory=dict)
    services: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The codes of each request's items."""
    told: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.rules = RuleBook.parse(RULES)
        door = _Door(self)
        self._app = simulator.app(
            now=lambda: self.now,
            http=httpx.AsyncClient(transport=door),
            notify_url="http://service.test/payers/{payer_id}/notifications",
            sleep=_too_slow,
            strict=False,
        )
        self.payer: simulator.Payer = self._app.state.payer
        client = httpx.AsyncClient(transport=_Payers(self.payer))
        requestor = Requestor("CareRelay", "1234567893")
        tables = jobs(PayerClient(client, "http://payer.test", requestor), self.rules)
        self.table = next(table for table in tables if table.document is Authorization)
        self.kept: dict[str, Kept] = {}
        self.by_claim: dict[str, str] = {}
        self._heap: list[tuple[datetime, int, Any]] = []
        self._numbers = count()

    # -- time -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let the year pass, and as long again as a payer may be asked, so that what was begun late ends."""
        for number in range(self.requests):
            ahead = timedelta(seconds=self.rng.randrange(DAYS * 24 * 3600), milliseconds=self.rng.randrange(1000))
            self.at(NEW_YEAR + ahead, ("request", number))
        end = NEW_YEAR + timedelta(days=DAYS)
        while self._heap and self._heap[0][0] < end:
            self.now, _, (what, about) = heapq.heappop(self._heap)
            await getattr(self, f"_{what}")(about)
        self.now = end

    def at(self, when: datetime, what: tuple[str, Any]) -> None:
        """Have something happen."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), what))

    # -- what happens -----------------------------------------------------------------------------------------------

    async def _request(self, number: int) -> None:
        rng = self.rng
        (payer_id,) = rng.choices(PAYERS, WEIGHTS)
        names = {kind: derived_id(f"year-{self.seed}", kind, str(number)) for kind in ("referral", "patient")}
        event = AuthorizationRequested(
            referral_id=names["referral"],
            patient_id=names["patient"],
            coverage_id=names["patient"],
            payer_id=payer_id,
            service=Coding(system=CPT, code=rng.choice(CODES)),
            quantity=rng.randint(1, 8),
            expedited=rng.random() < 0.2,
        )
        member = Member(
            id=event.patient_id,
            payer_id=payer_id,
            coverage_id=event.coverage_id,
            member_id=f"M-{number}",
            family="Canaria",
            given=("Tess",),
            birth_date=date(1980, 2, 29),
            gender="female",
        )
        script = self._script(payer_id)
        self.payer.script(f"M-{number}", script)
        more = rng.choices(CODES, k=rng.choice((1, 2))) if rng.random() < SEVERAL else []
        document = self._opened(event, more)
        self.services[document.id] = (event.service.code, *more)
        kept = self.kept[document.id] = Kept(document, member)
        self.asked[document.id] = event
        wish = MemberWanted(authorization_id=document.id, patient_id=event.patient_id)
        opening.consider_member(self.rules, document, wish, self._facts(kept), self.now)
        self._landed(kept)
        again = 1.0 if script.decision is CT else 0.05
        for what, chance, days in (("withdraw", 0.03, 6), ("reconsider", again, 12), ("inquire", 0.02, 30)):
            if rng.random() < chance:
                self.at(self.now + timedelta(days=days * rng.random()), (what, document.id))

    def _opened(self, event: AuthorizationRequested, more: list[str]) -> Authorization:
        """A referral asks for one service; a coordinator for more."""
        if not more:
            return opening.request(self.rules, None, event, Facts({}), self.now)
        items = [{"service": {"system": CPT, "code": code}} for code in (event.service.code, *more)]
        whose = event.model_dump(include={"patient_id", "coverage_id", "payer_id", "expedited"})
        command = OpenAs.model_validate({**whose, "items": items, "id": derived_id("year", event.referral_id)})
        return open_directly(self.rules, None, command, Facts({}), self.now)

    def _script(self, payer_id: str) -> Script:
        rng = self.rng
        return Script(
            decision=rng.choice(ANSWERS),
            appeal=rng.choice([A1, A1, A2, A3]),
            pend_hours=rng.choice(PENDS),
            notify=payer_id not in SILENT,
            copies=rng.choice([1, 1, 1, 2, 3]),
            busy=int(rng.random() < 0.03),
            error=int(rng.random() < 0.03),
            lost=int(rng.random() < 0.05),
            human_reviewed=rng.choice([None, True, False]),
        )

    async def _due(self, id: str) -> None:
        kept = self.kept[id]
        while (due := kept.document.due) is not None and due <= self.now:
            name = min(kept.document.timers, key=lambda name: kept.document.timers[name])
            await self._fire(kept, name, Due(name, due))
        self._landed(kept)

    async def _fire(self, kept: Kept, name: str, due: Due) -> None:
        """A timer, as the kit fires it: a call is intended, checked, made and settled."""
        document, row, facts = kept.document, self.table.rows[name], self._facts(kept)
        if isinstance(row, Timer):
            document.rest(name)
            row.decide(document, due, facts, self.now)
            return
        assert isinstance(row, Call)
        row.prepare(document, due, facts, self.now)
        attempt = document.attempts.get(name)
        if attempt is None:
            if document.timers.get(name) == due.at:
                document.rest(name)
            return
        assert row.check is None or row.check(document, facts, self.now)
        outcome = await row.perform(document, attempt, facts)
        self.by_claim.update({sent.id: document.id for sent in document.submissions})
        document.abandon(name)
        document.rest(name)
        row.settle(document, outcome, facts, self.now)
        if (payers := self.payer.next_due()) is not None:
            self.at(payers, ("tick", None))

    async def _tick(self, _: None) -> None:
        await self.payer.tick()

    async def _withdraw(self, id: str) -> None:
        kept = self.kept[id]
        if kept.document.state in opening.WITHDRAWABLE:
            opening.withdraw(kept.document, opening.Withdraw(reason="coordinator"), self._facts(kept), self.now)
            self._landed(kept)

    async def _reconsider(self, id: str) -> None:
        """The payer decides otherwise, by itself."""
        document = self.kept[id].document
        newest = document.newest
        if newest is None or document.state in (State.CANCELLING, State.WITHDRAWN):
            return
        try:
            self.payer.reconsider(document.payer_id, newest.id, self.rng.choice([A1, A2, A3]))
        except LookupError:
            return
        await self.payer.tick()

    async def _choose(self, id: str) -> None:
        """A coordinator looks at an open denial."""
        kept = self.kept[id]
        if kept.document.state is not State.DENIED:
            return
        if self.rng.random() < 0.6:
            people.appeal(kept.document, people.Appeal(), self._facts(kept), self.now)
        else:
            people.accept_denial(kept.document, people.AcceptDenial(), self._facts(kept), self.now)
        self._landed(kept)

    async def _again(self, told: tuple[str, bytes]) -> None:
        """A notification comes once more, late."""
        self.hear(*told)

    async def _inquire(self, id: str) -> None:
        """The payer is asked about what it decided long ago: it repeats itself."""
        kept = self.kept[id]
        document, row = kept.document, self.table.rows["poll"]
        assert isinstance(row, Call)
        if (
            document.newest is None
            or document.newest.received_at is None
            or document.attempts
            or document.state is State.WITHDRAWN
        ):
            return
        attempt = document.intend("poll", self.now)
        outcome = await row.perform(document, attempt, self._facts(kept))
        document.abandon("poll")
        row.settle(document, outcome, self._facts(kept), self.now)
        self._landed(kept)

    # -- the service's door -----------------------------------------------------------------------------------------

    def hear(self, payer_id: str, content: bytes) -> int:
        """Take a notification in; the HTTP status. Some come again days later."""
        notification = read_notification(httpx.Response(200, content=content).json())
        for answer in notification.answers:
            id = next((self.by_claim[claim] for claim in answer.claims if claim in self.by_claim), None)
            if id is None:
                return 404
            kept = self.kept[id]
            take_notification(kept.document, TakeNotification(answer), self._facts(kept), self.now)
            self._landed(kept)
        return 200

    def late(self, payer_id: str, content: bytes) -> None:
        """Have some notifications come again."""
        if self.rng.random() < 0.05:
            self.at(self.now + timedelta(days=10 * self.rng.random()), ("again", (payer_id, content)))

    # -- the kit's part ---------------------------------------------------------------------------------------------

    def _facts(self, kept: Kept) -> Facts:
        payer_id = kept.document.payer_id
        payer = None if payer_id in SILENT else hear(None, HearPayer(payer_id, True), Facts({}), self.now)
        loaded: dict[Want, list[Document]] = {
            Ref(Member, kept.member.id): [kept.member],
            Ref(Payer, payer_key(payer_id)): [payer] if payer is not None else [],
        }
        return Facts(loaded)

    def _landed(self, kept: Kept) -> None:
        """Publish what was recorded, some of it twice, and look again when something is due."""
        document = kept.document
        for event in document.recorded():
            kept.sequence += 1
            self.told += 1
            id = derived_id("event", document.id, str(kept.sequence))
            data = event.model_dump_json(exclude_none=True)
            entry = Entry(kept.sequence, id, event.type, event.topic, self.now, data, None)
            for _ in range(2 if self.rng.random() < 0.02 else 1):
                self.broker.append(message_of("prior_authorization", document.id, entry))
        document.recorded().clear()
        if document.state is State.DENIED:
            self.at(self.now + timedelta(hours=1 + 60 * self.rng.random()), ("choose", document.id))
        if document.due is not None:
            self.at(document.due, ("due", document.id))


class _Payers(httpx.AsyncBaseTransport):
    """The payers' FHIR operations without HTTP around them."""

    def __init__(self, payer: simulator.Payer) -> None:
        self._payer = payer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        _, payer_id, _, _, operation = request.url.path.split("/")
        try:
            if operation == "$submit":
                key = request.headers.get("Idempotency-Key")
                return httpx.Response(200, content=await self._payer.submit(payer_id, request.content, key))
            return httpx.Response(200, json=self._payer.inquire(payer_id, request.content))
        except simulator.Refusal as refusal:
            headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            return httpx.Response(refusal.status, headers=headers, json={"issue": [{"code": refusal.code}]})
        except simulator.DomainError as refusal:
            return httpx.Response(refusal.status, json={"issue": [{"code": "business-rule"}]})


class _Door(httpx.AsyncBaseTransport):
    """Carries the payers' notifications to the service."""

    def __init__(self, year: Year) -> None:
        self._year = year

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        payer_id = request.url.path.split("/")[2]
        self._year.late(payer_id, request.content)
        return httpx.Response(self._year.hear(payer_id, request.content))


async def _too_slow(_: float) -> None:
    raise httpx.ReadTimeout("the payer is slow")
