"""The bare httpx loop: ``python -m tests.bench.polling_httpx URL CONCURRENCY`` sends inquiries, and nothing else.

The same Bundles as the poller's, encoded beforehand, to the same payers, over as many connections; it looks at nothing
of the answer but its status.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

import httpx

from services.prior_authorization.pas.requests import inquiry
from tests.bench.polling_cases import payers, pended
from tests.bench.polling_payer import FHIR, REQUESTOR

_KINDS = 2000
_CONNECTIONS = 256


async def run(base: str, concurrency: int) -> None:
    """Ask until the process is ended."""
    now = datetime.now(UTC)
    asked = [
        (
            f"{base}/{document.payer_id}/fhir/Claim/$inquire",
            json.dumps(inquiry(document, member, REQUESTOR, now)).encode(),
            {**FHIR, "Idempotency-Key": document.id},
        )
        for document, member in pended(payers(), _KINDS, now)
    ]
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=_CONNECTIONS)) as http:

        async def ask(number: int) -> None:
            while True:
                url, content, headers = asked[number % len(asked)]
                answer = await http.post(url, content=content, headers=headers, timeout=15.0)
                answer.raise_for_status()
                number += concurrency

        await asyncio.gather(*(ask(number) for number in range(concurrency)))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
