"""A subscriber outside: a receiver that checks every signature with the library of Standard Webhooks, and may fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook

from services.webhooks import service
from shared.contracts.base import Event
from shared.contracts.referrals import ReferralCancelled, ReferralClosed, ReferralEvent, ReferralSent
from shared.kit.auth import Role
from shared.kit.clock import SystemClock
from shared.kit.document import derived_id
from shared.kit.testing.harness import Harness

Json = dict[str, Any]
Answer = Callable[[httpx.Request], httpx.Response]

URL = "https://hooks.partner.example/carerelay"
TYPES = ["referral.sent.v1", "referral.cancelled.v1", "referral.closed.v1"]


def ok(request: httpx.Request) -> httpx.Response:
    """Taken."""
    return httpx.Response(204)


def saying(status: int, **headers: str) -> Answer:
    """An answer of this status."""
    return lambda request: httpx.Response(status, headers=headers)


def away(request: httpx.Request) -> httpx.Response:
    """Nobody listens."""
    raise httpx.ConnectError("nobody is there", request=request)


@dataclass
class Receiver:
    """What a subscriber runs. ``answer`` says how the next requests are answered; what it answered 2xx it took."""

    answer: Answer = ok
    asked: list[httpx.Request] = field(default_factory=list)
    took: list[Json] = field(default_factory=list)
    secret: str = ""
    checks: bool = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answer(request)
        if answer.is_success and self.checks:
            self.took.append(self.verified(request))
        return answer

    def verified(self, request: httpx.Request, secret: str | None = None) -> Json:
        """The body. Raises WebhookVerificationError where the signature is not by the secret."""
        body: Json = Webhook(secret or self.secret).verify(request.content, dict(request.headers))
        assert body["id"] == request.headers["webhook-id"]
        return body

    @property
    def order(self) -> list[tuple[str, int]]:
        """The subject and sequence of what it took, in its order."""
        return [(body["subject"], int(body["sequence"])) for body in self.took]


class World:
    """The service, and one subscriber named ``partner``."""

    def __init__(self, **configured: Any) -> None:
        self.receiver = Receiver()
        outside = httpx.AsyncClient(transport=httpx.MockTransport(self.receiver))
        # Receivers judge by the machine's time how old a signature is.
        self.harness = Harness(service.Settings, service.build, http=outside, at=SystemClock().real(), **configured)
        self.told = 0

    async def ask(
        self, method: str, path: str, body: Json | None = None, *, by: str = "partner", role: Role = Role.SUBSCRIBER
    ) -> httpx.Response:
        """One request."""
        async with self.harness.client(role, subject=by) as client:
            return await client.request(method, path, json=body, headers=self.harness.key())

    async def subscribe(self, *types: str, by: str = "partner") -> str:
        """Register the receiver; its endpoint's id."""
        await self.harness.start()
        answer = await self.ask("POST", "/endpoints", {"url": URL, "event_types": list(types or TYPES)}, by=by)
        assert answer.status_code == 201, answer.text
        self.receiver.secret = answer.json()["secret"]
        return str(answer.json()["id"])

    async def happens(self, subject: str, sequence: int, event: Event | None = None) -> None:
        """An event of a referral comes, and what follows from it at once."""
        await self.harness.arrive(event or happening(subject, sequence), subject, sequence, service="referrals")
        await self.harness.settle()

    async def passes(self, seconds: float) -> None:
        """Time passes, and what becomes due is done when it does."""
        clock = self.harness.clock
        end = clock.now() + timedelta(seconds=seconds)
        while clock.now() < end:
            due = (await self.harness.chassis.pulse())["next_due"]
            until = min(end, datetime.fromisoformat(due)) if due else end
            clock.pass_(max((until - clock.now()).total_seconds(), 0.001))
            await self.harness.settle()

    async def leaps(self, seconds: float) -> None:
        """Time passes at once, as while everybody slept, and what became due is done."""
        self.harness.clock.pass_(seconds)
        await self.harness.settle()

    def published(self) -> list[Json]:
        """What the service told in public."""
        return [{"type": type, **json.loads(told["data"])} for type, told in self.harness.published("webhooks.events")]


def referral(number: int) -> str:
    """The id of a referral."""
    return derived_id("referral", str(number))


def happening(subject: str, sequence: int) -> ReferralEvent:
    """Some event of a referral."""
    about = {"referral_id": subject, "patient_id": derived_id("patient", subject)}
    if sequence % 3 == 1:
        return ReferralSent(**about, specialist_id=derived_id("specialist", "1"))
    if sequence % 3 == 2:
        return ReferralCancelled(**about, reason=f"reason-{sequence}")
    return ReferralClosed(**about, report_id=derived_id("report", subject))
