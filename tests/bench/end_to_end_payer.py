"""``python -m tests.bench.end_to_end_payer PORT``: the simulated payer that answers at once, and validates nothing.

The stack's own validates every Bundle against FHIR R4, for milliseconds that are not what is measured here.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import httpx
import uvicorn

from deploy.simulators.payer import Payer


async def main(port: int) -> None:
    """Answer until SIGTERM."""
    async with httpx.AsyncClient() as http:
        payer = Payer(now=lambda: datetime.now(UTC), http=http, strict=False)
        config = uvicorn.Config(payer.app, host="127.0.0.1", port=port, log_config=None, access_log=False)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
