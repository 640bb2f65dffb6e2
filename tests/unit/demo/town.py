"""All services, the payer and the gateway in one process, on memory, a frozen clock and one router of HTTP.

The apps are the real ones; only wires and foundations are short. So a story can be played to its end in a second.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from types import ModuleType
from typing import Any, Self

import httpx
from aiosmtpd.controller import Controller

from deploy.demo.api import Api
from deploy.demo.conductor import OUTSIDE, SERVICES, Conductor
from deploy.simulators import gateway, payer
from services.directory import service as directory
from services.intake import service as intake
from services.notifications import service as notifications
from services.prior_authorization import service as prior_authorization
from services.referrals import service as referrals
from services.scheduling import service as scheduling
from services.webhooks import service as webhooks
from shared.kit.auth import Role
from shared.kit.chassis import Chassis
from shared.kit.clock import FrozenClock
from shared.kit.telemetry import Telemetry
from shared.kit.testing.harness import PACE
from shared.kit.testing.memory_bus import MemoryBroker, MemoryBus
from shared.kit.testing.memory_store import MemoryStore
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer

START = datetime(2026, 6, 1, 14, 0, tzinfo=UTC)

WIRING: Mapping[str, ModuleType] = {
    "intake": intake,
    "referrals": referrals,
    "prior_authorization": prior_authorization,
    "scheduling": scheduling,
    "notifications": notifications,
    "directory": directory,
    "webhooks": webhooks,
}


def url_of(name: str) -> str:
    """The base URL of a service or simulator in the town."""
    return f"http://{name.replace('_', '-')}.town"


class _Router(httpx.AsyncBaseTransport):
    """Leads a request to the app of its host."""

    def __init__(self, issuer: TestIssuer) -> None:
        self.apps: dict[str, httpx.AsyncBaseTransport] = {}
        self._keys = issuer.transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as whoever lives there."""
        if str(request.url) == JWKS_URL:
            return await self._keys.handle_async_request(request)
        if request.url.host not in self.apps:
            raise httpx.ConnectError("nobody lives there", request=request)
        return await self.apps[request.url.host].handle_async_request(request)


class Town:
    """A running CareRelay and the world outside; ``settle`` lets everything happen that is due now."""

    def __init__(self, telemetry: Callable[[str], Telemetry] = lambda service: Telemetry.quiet()) -> None:
        self._telemetry = telemetry
        self.clock = FrozenClock(START)
        self.issuer = TestIssuer()
        self.broker = MemoryBroker()
        self._router = _Router(self.issuer)
        self.http = httpx.AsyncClient(transport=self._router)
        self._exits = ExitStack()
        self._numbers = count(1)
        self.chassis: dict[str, Chassis] = {}

    async def __aenter__(self) -> Self:
        outside = {"now": self.clock.now, "http": self.http, "token": self._service_token}
        self.payer = payer.app(
            **outside, notify_url=f"{url_of('prior_authorization')}/payers/{{payer_id}}/notifications"
        )
        self.gateway = gateway.app(**outside, inbound_url=f"{url_of('notifications')}/inbound/{{channel}}")
        mail = Controller(self.gateway.state.gateway.mail, hostname="127.0.0.1", port=_free_port())
        mail.start()
        self._exits.callback(mail.stop)
        for name, app in (("payer", self.payer), ("gateway", self.gateway)):
            self.lives(url_of(name), app)
        for name in SERVICES:
            await self._move_in(name, mail.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._exits.close()
        await self.http.aclose()

    def lives(self, url: str, app: Any) -> None:
        """Have an application answer at an address."""
        self._router.apps[httpx.URL(url).host] = httpx.ASGITransport(app=app)

    def _service_token(self) -> str:
        return self.issuer.token(Role.SERVICE, subject="payer-simulator")

    async def _move_in(self, name: str, smtp_port: int) -> None:
        settings = WIRING[name].Settings(
            jwks_url=JWKS_URL,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            sweep_after_seconds=0.0,
            payer_url=url_of("payer"),
            gateway_url=url_of("gateway"),
            public_url=url_of(name),
            smtp_host="127.0.0.1",
            smtp_port=smtp_port,
        )
        chassis = Chassis(
            WIRING[name].build(settings, self.http),
            settings,
            store=MemoryStore(),
            bus=MemoryBus(self.broker, running=False),
            clock=self.clock,
            http=self.http,
            telemetry=self._telemetry(name),
            ids=lambda: f"{name}-{next(self._numbers)}",
        )
        await chassis.prepare()
        for reader in chassis.readers:
            chassis.bus.subscribe(reader.group, reader.topics, reader.handle)
        await chassis.bus.start()
        for worker in chassis.workers.values():
            await worker.leases.renew()
        self.lives(url_of(name), chassis.app)
        self.chassis[name] = chassis

    def api(self) -> Api:
        """A client of everything here."""
        urls = {name: url_of(name) for name in (*SERVICES, *OUTSIDE)}
        return Api(urls, lambda role: self.issuer.token(Role(role), subject="demo"), self.http, patience=0.5)

    async def settle(self) -> datetime | None:
        """Let everything happen that is due now; the time at which something is due next."""
        while await self._step() or await self._held_back():
            pass
        pulses = [await chassis.pulse() for chassis in self.chassis.values()]
        dues = [datetime.fromisoformat(pulse["next_due"]) for pulse in pulses if pulse["next_due"]]
        dues += [at for one in (self.payer.state.payer, self.gateway.state.gateway) if (at := one.next_due())]
        return min((at for at in dues if at > self.clock.now()), default=None)

    async def _held_back(self) -> bool:
        """Whether something due waited for its pace; a moment has passed then."""
        workers = [worker for chassis in self.chassis.values() for worker in chassis.workers.values()]
        if not any(worker.held_back for worker in workers):
            return False
        self.clock.pass_(PACE)
        for worker in workers:
            await worker.leases.renew()
        return True

    async def _step(self) -> int:
        did = await self.payer.state.payer.tick() + await self.gateway.state.gateway.tick()
        for chassis in self.chassis.values():
            did += await chassis.publisher.flush()
            assert isinstance(chassis.bus, MemoryBus)
            for group in chassis.bus.groups:
                did += await chassis.bus.step(group)
            for worker in chassis.workers.values():
                did += await worker.work() + worker.busy
                await worker.drain()
            did += chassis.publisher.waiting
        return did

    async def parked(self) -> dict[str, int]:
        """How many keys are parked, where any are."""
        counts = {name: (await chassis.pulse())["parked"] for name, chassis in self.chassis.items()}
        return {name: number for name, number in counts.items() if number}


class TownConductor(Conductor):
    """Moves the town's clock; it need not look to know that all is quiet."""

    def __init__(self, town: Town, api: Api) -> None:
        super().__init__(api, town.clock)
        self._town = town

    async def settle(self) -> datetime | None:
        """Let everything happen that is due now."""
        return await self._town.settle()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
