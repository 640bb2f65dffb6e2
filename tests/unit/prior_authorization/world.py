"""The service, whole, in memory, between a scripted payer and the events of referrals and intake."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from deploy.simulators import payer
from services.prior_authorization.model import Authorization, authorization_id
from services.prior_authorization.service import Settings, build
from shared.contracts.base import Event
from shared.contracts.referrals import ReferralEvent
from shared.kit.auth import Role
from shared.kit.testing.harness import Harness
from tests.unit.prior_authorization.cases import COVERAGE, asked, person, uid

PAYER_URL = "http://payer.test"
NOTIFY_URL = "http://service.test/payers/{payer_id}/notifications"


async def _no_answer(_: float) -> None:
    raise httpx.ReadTimeout("the payer is slow")


class _Door(httpx.AsyncBaseTransport):
    """Carries the payer's notifications to the service, once there is one."""

    def __init__(self) -> None:
        self.app: Any = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await httpx.ASGITransport(app=self.app).handle_async_request(request)


class World:
    """One payer, one service. Time moves only by ``until``."""

    def __init__(self, rules: Path | None = None) -> None:
        door = _Door()
        self._payer_app = payer.app(
            now=lambda: self.harness.clock.now(),
            http=httpx.AsyncClient(transport=door),
            notify_url=NOTIFY_URL,
            token=lambda: self.harness.issuer.token(Role.SERVICE, subject="payer-simulator"),
            sleep=_no_answer,
        )
        self.payer: payer.Payer = self._payer_app.state.payer
        configured: dict[str, Any] = {
            "payer_url": PAYER_URL,
            "notify_url": NOTIFY_URL,
            "notify_secret_key": "synthetic",
        }
        if rules is not None:
            configured["prior_authorization_rules"] = rules
        self.sent: list[bytes] = []
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self._payer_app), event_hooks={"request": [self._note]}
        )
        self.harness = Harness(Settings, build, http=http, **configured)
        door.app = self.harness.chassis.app
        self._sequences: dict[str, int] = {}
        self.start = self.harness.clock.now()

    async def _note(self, request: httpx.Request) -> None:
        """What goes to the payer, as it goes."""
        self.sent.append(request.content)

    async def arrive(self, event: Event, subject: str) -> None:
        """Another service's event, in the order of its document."""
        key = f"{event.topic}/{subject}"
        self._sequences[key] = self._sequences.get(key, 0) + 1
        await self.harness.arrive(event, subject, self._sequences[key])

    async def know(self, name: str, member_id: str | None, **changes: object) -> None:
        """Intake tells of a patient."""
        patient = uid("patient", name)
        event = person(member_id, **{"patient_id": patient, **changes})
        await self.arrive(event, patient)

    async def refer(self, name: str, **changes: object) -> str:
        """A referral of a patient asks; returns the authorization's id."""
        event = asked(**{**self.ids(name), **changes})
        await self.arrive(event, event.referral_id)
        return authorization_id(event.referral_id)

    async def tell(self, kind: type[ReferralEvent], name: str, **fields: object) -> None:
        """Another event of that referral."""
        ids = {key: value for key, value in self.ids(name).items() if key in ("referral_id", "patient_id")}
        await self.arrive(kind.model_validate({**ids, **fields}), ids["referral_id"])

    def ids(self, name: str) -> dict[str, str]:
        """Whose referral it is."""
        return {"referral_id": uid("referral", name), "patient_id": uid("patient", name), "coverage_id": COVERAGE}

    async def until(self, hours: float = 0) -> None:
        """Everything that is due within so many hours of the start happens, here and at the payer's, in its order."""
        end = self.start + timedelta(hours=hours)
        await self.settle()
        while (at := await self._next()) is not None and at <= end:
            await self._move(at)
        await self._move(end)

    async def settle(self) -> None:
        """Everything that is due now happens."""
        await self.harness.settle()
        while await self.payer.tick():
            await self.harness.settle()

    async def _move(self, at: datetime) -> None:
        ahead = (at - self.harness.clock.now()).total_seconds()
        if ahead > 0:
            self.harness.clock.pass_(ahead)
        await self.settle()

    async def _next(self) -> datetime | None:
        due = (await self.harness.chassis.pulse())["next_due"]
        times = [datetime.fromisoformat(due) if due else None, self.payer.next_due()]
        return min((at for at in times if at is not None), default=None)

    async def of(self, name: str) -> Authorization:
        """The authorization of a patient's referral."""
        found = await self.harness.stored(Authorization, authorization_id(uid("referral", name)))
        assert found is not None
        return found

    def events(self, name: str) -> list[str]:
        """The types of the public events about it in their order, without those that tell each ruling."""
        id = authorization_id(uid("referral", name))
        told = self.harness.published("prior_authorization.events")
        mine = [(int(e["headers"]["ce_sequence"]), type) for type, e in told if e["headers"]["ce_subject"] == id]
        types = [type.removeprefix("authorization.").removesuffix(".v1") for _, type in sorted(mine)]
        return [type for type in types if type != "ruled"]

    def told(self, name: str, type: str) -> list[dict[str, Any]]:
        """What the public events of a type about it say, in their order."""
        id = authorization_id(uid("referral", name))
        told = self.harness.published("prior_authorization.events")
        mine = [e for kind, e in told if kind == type and e["headers"]["ce_subject"] == id]
        return [json.loads(e["data"]) for e in sorted(mine, key=lambda e: int(e["headers"]["ce_sequence"]))]
