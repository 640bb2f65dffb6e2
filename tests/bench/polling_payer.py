"""The counting payer: a process that answers inquiries as a payer does that has not decided, and counts them by payer.

``python -m tests.bench.polling_payer PORT`` answers ``POST /{payer}/fhir/Claim/$inquire`` with the payer simulator's
own pended answer, made out to the claim that is asked about, after ``latency`` seconds. ``POST /begin`` takes what each
payer allows, and counts anew from then on; ``GET /told`` tells what came. A call beyond a payer's budget is one that
some window up to it holds more than rate x window + burst calls with (the token bucket, counted here on its own), one
beyond the calls in flight, or one after a claim that was asked about before.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from deploy.embedded.ports import LOOPBACK
from deploy.simulators import payer as simulator
from services.prior_authorization.model import RuleBook
from services.prior_authorization.pas.requests import Requestor, initial_request, inquiry
from tests.bench.door import Door
from tests.bench.polling_cases import one_pended

REQUESTOR = Requestor("CareRelay Coordination", "1234567893")
FHIR = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}

_INQUIRY = re.compile(rb"POST /([^/ ]+)/fhir/Claim/\$inquire ")
_CLAIM = re.compile(rb'"value": ?"([0-9a-f-]{36})"')
_ROUNDING = 1e-6


@dataclass(slots=True)
class Side:
    """One payer: what it allows, and what came."""

    rate: float
    burst: float
    most: int
    tokens: float
    at: float
    count: int = 0
    beyond: int = 0
    worst: float = 0.0
    in_flight: int = 0
    highest: int = 0
    too_many: int = 0


@dataclass(slots=True)
class Counts:
    """All payers since counting began."""

    sides: dict[bytes, Side] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)
    again: int = 0
    unknown: int = 0
    latency: float = 0.0

    def begin(self, given: Mapping[str, Any]) -> None:
        """Count anew. The buckets are full: what came before is not known. ``keep`` keeps them, and who was asked."""
        now = time.monotonic()
        self.latency = given["latency"]
        if given["keep"]:
            for side in self.sides.values():
                side.count = side.beyond = side.too_many = side.highest = 0
                side.worst = 0.0
        else:
            self.seen.clear()
            self.sides = {
                name.encode(): Side(rate, burst, most, burst, now)
                for name, (rate, burst, most) in given["payers"].items()
            }
        self.again = self.unknown = 0

    def take(self, payer: bytes, claim: bytes) -> Side | None:
        """One inquiry came."""
        side = self.sides.get(payer)
        if side is None:
            self.unknown += 1
            return None
        now = time.monotonic()
        side.tokens = min(side.burst, side.tokens + (now - side.at) * side.rate) - 1.0
        side.at = now
        side.count += 1
        side.in_flight += 1
        side.highest = max(side.highest, side.in_flight)
        side.too_many += side.in_flight > side.most
        if side.tokens < -_ROUNDING:
            side.beyond += 1
            side.worst = min(side.worst, side.tokens)
            side.tokens = max(side.tokens, -1.0)  # each call is told of once
        if claim in self.seen:
            self.again += 1
        self.seen.add(claim)
        return side

    def told(self) -> dict[str, Any]:
        """What came."""
        return {
            "again": self.again,
            "unknown": self.unknown,
            "payers": {
                name.decode(): {
                    "count": side.count,
                    "beyond": side.beyond,
                    "worst": side.worst,
                    "highest": side.highest,
                    "too_many": side.too_many,
                }
                for name, side in self.sides.items()
            },
        }


class PayerDoor(Door):
    """One connection to the payer."""

    media = FHIR["Content-Type"].encode()

    def __init__(self, counts: Counts, parts: list[bytes]) -> None:
        super().__init__()
        self._counts = counts
        self._parts = parts

    def request(self, head: bytes, body: bytes) -> None:
        """An inquiry, or what the scenario wants to know."""
        asked = _INQUIRY.match(head)
        if asked is None:
            self._control(head, body)
            return
        claim = _CLAIM.search(body)
        if claim is None:
            self.answer(b"400 Bad Request", b"{}")
            return
        side = self._counts.take(asked[1], claim[1])
        answer = claim[1].join(self._parts)
        if self._counts.latency > 0:
            asyncio.get_running_loop().call_later(self._counts.latency, self._answered, side, answer)
        else:
            self._answered(side, answer)

    def _answered(self, side: Side | None, answer: bytes) -> None:
        if side is not None:
            side.in_flight -= 1
        self.answer(b"200 OK", answer)

    def _control(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /begin "):
            self._counts.begin(json.loads(body))
            self.answer(b"200 OK", b"{}")
        elif head.startswith(b"GET /told "):
            self.answer(b"200 OK", json.dumps(self._counts.told()).encode())
        else:
            self.answer(b"404 Not Found", b"{}")


async def pended_answer() -> list[bytes]:
    """The simulator's answer to an inquiry after a pended claim, in the parts between the claim's identifier."""
    at = datetime.now(UTC)
    document, member = one_pended(RuleBook(), "payer-0", at)
    claim = document.submissions[0]
    app = simulator.app(now=lambda: at, http=httpx.AsyncClient())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://payer.test") as http:
        for operation, bundle in (
            ("$submit", initial_request(document, member, claim, REQUESTOR)),
            ("$inquire", inquiry(document, member, REQUESTOR, at)),
        ):
            answer = await http.post(f"/payer-0/fhir/Claim/{operation}", json=bundle, headers=FHIR)
            answer.raise_for_status()
    return answer.content.split(claim.id.encode())


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    counts, parts = Counts(), await pended_answer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PayerDoor(counts, parts), LOOPBACK, port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
