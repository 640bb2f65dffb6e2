"""Notifications as a whole, with the gateway's simulator on the other side: real HTTP apps, real SMTP, frozen time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import Any

import httpx
from aiosmtpd.smtp import SMTP

from deploy.simulators.gateway import Gateway, ReplyOrder
from deploy.simulators.ledger import Message
from services.notifications.model.delivery import Delivery
from services.notifications.model.recipient import Recipient
from services.notifications.service import Settings, build
from shared.contracts.base import Event
from shared.contracts.scheduling import AppointmentEvent
from shared.kit.auth import Role
from shared.kit.testing.harness import Harness
from tests.unit.notifications.cases import NOW, PATIENT, changed


class Hosts(httpx.AsyncBaseTransport):
    """Each host name is an app; a host that is down refuses its connections.

    A POST without an idempotency key gets one, as the simulators' callbacks and replies send none.
    """

    def __init__(self) -> None:
        self.apps: dict[str, httpx.ASGITransport] = {}
        self.down: set[str] = set()
        self._keys = count(1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.down:
            raise httpx.ConnectError("refused")
        if request.method == "POST" and "Idempotency-Key" not in request.headers:
            request.headers["Idempotency-Key"] = f"callback-{next(self._keys)}"
        return await self.apps[request.url.host].handle_async_request(request)


class World:
    """The service, the gateway, and what scheduling and intake would publish."""

    def __init__(self, **settings: Any) -> None:
        self.hosts = Hosts()
        self.http = httpx.AsyncClient(transport=self.hosts)
        known = {"gateway_url": "http://gateway.test", "public_url": "http://service.test", "window_spread": 0}
        self.service = Harness(Settings, build, http=self.http, at=NOW, **{**known, **settings})
        self.gateway = Gateway(
            now=self.service.clock.now,
            http=self.http,
            inbound_url="http://service.test/inbound/{channel}",
            token=lambda: self.service.issuer.token(Role.SERVICE, subject="gateway"),
            sleep=self._lose_patience,
        )
        self.hosts.apps = {
            "gateway.test": httpx.ASGITransport(app=self.gateway.app),
            "service.test": httpx.ASGITransport(app=self.service.chassis.app),
        }
        self._sequences: dict[str, int] = {}
        self._mail: list[SMTP] = []

    def connected(self) -> SMTP:
        """A connection to the gateway's mail server."""
        self._mail.append(SMTP(self.gateway.mail, hostname="gateway.test"))
        return self._mail[-1]

    async def _lose_patience(self, seconds: float) -> None:
        """What a caller does whose answer does not come: it hangs up."""
        lines = [mail.transport for mail in self._mail if isinstance(mail.transport, asyncio.Transport)]
        talking = [line for line in lines if not line.is_closing()]
        if not talking:
            raise httpx.ReadTimeout("late")
        for line in talking:
            line.abort()

    @property
    def now(self) -> datetime:
        return self.service.clock.now()

    async def tell(self, event: Event, subject: str) -> None:
        """Publish an event of another service, the next of its document, and let everything settle."""
        self._sequences[subject] = self._sequences.get(subject, 0) + 1
        await self.service.arrive(event, subject, self._sequences[subject])
        await self.settle()

    async def know(self, **fields: Any) -> None:
        """Have intake tell of a person."""
        event = changed(**fields)
        await self.tell(event, event.patient_id)

    async def schedule(self, event: AppointmentEvent) -> None:
        """Have scheduling tell of an appointment."""
        await self.tell(event, event.appointment_id)

    async def settle(self) -> None:
        """Let the service and the gateway do what they have to do at this time."""
        while True:
            await self.service.settle()
            if not await self.gateway.tick():
                return

    async def until(self, at: datetime) -> None:
        """Let time pass, stopping wherever something is due."""
        await self.settle()
        while (following := await self._next_due()) is not None and following <= at:
            self._pass_to(following)
            await self.settle()
        self._pass_to(at)
        await self.settle()

    async def _next_due(self) -> datetime | None:
        told = (await self.service.chassis.pulse())["next_due"]
        due = [self.gateway.next_due(), datetime.fromisoformat(told) if told else None]
        return min((each for each in due if each is not None), default=None)

    def _pass_to(self, at: datetime) -> None:
        if at > self.now:
            self.service.clock.pass_((at - self.now).total_seconds())

    async def reply(self, number: str, text: str, *, copies: int = 1) -> None:
        """Have somebody text back."""
        self.gateway.reply(ReplyOrder.model_validate({"from": number, "body": text, "copies": copies}))
        await self.settle()

    @property
    def messages(self) -> list[Message]:
        """What the gateway has accepted."""
        return self.gateway.ledger.messages

    async def deliveries(self) -> list[Delivery]:
        """All deliveries, as they were planned for."""
        return sorted(await self.service.all(Delivery), key=lambda each: each.planned_for)

    async def recipient(self, id: str = PATIENT) -> Recipient:
        """A person, as stored."""
        found = await self.service.stored(Recipient, id)
        assert found is not None
        return found

    def published(self, type: str) -> list[dict[str, Any]]:
        """What the service has published of a type."""
        return [each for name, each in self.service.published() if name == type]


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[World]:
    """A world whose gateway has its mail server listening."""
    made: list[World] = []
    loop = asyncio.get_running_loop()
    mail = await loop.create_server(lambda: made[0].connected(), "127.0.0.1", 0)
    port = mail.sockets[0].getsockname()[1]
    made.append(World(**{"smtp_host": "127.0.0.1", "smtp_port": port, **settings}))
    try:
        yield made[0]
    finally:
        mail.close()
        await made[0].http.aclose()
