"""The command ``scorecard`` as a process, on a broker that holds what a simulated year told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime

from deploy.embedded.foundation import Foundation
from services.prior_authorization import scorecard as tool
from services.prior_authorization.model.scorecard import Scorecard, Tally
from shared.contracts.prior_authorization import AuthorizationEvent
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Message
from shared.kit.testing.memory_bus import MemoryBus
from tests.simulation.payer_year import Year

SEED, REQUESTS = 11, 120


async def command(broker_address: str, *arguments: str) -> tuple[int, str, str]:
    """Its exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.prior_authorization", "scorecard", *arguments),
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": broker_address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode(), errors.decode()


async def counted_here(year: Year, as_of: datetime) -> Scorecard:
    """The same, counted in this process from what the year told."""
    tally = Tally()
    async for told in tool.heard(MemoryBus(year.broker).history(AuthorizationEvent.topic)):
        assert told is not None
        tally.add(told)
    return tally.card(as_of)


async def test_the_command_tells_of_a_year_what_the_year_was(broker_address: str, stack_kind: Foundation) -> None:
    print(f"seed {SEED}, {REQUESTS} requests")
    year = Year(SEED, REQUESTS)
    await year.run()
    bus = KafkaBus(broker_address, idempotence=stack_kind.environment["KAFKA_IDEMPOTENCE"] == "true")
    await bus.ensure([AuthorizationEvent.topic])
    await bus.start()
    records = [record for log in year.broker.topics[AuthorizationEvent.topic] for record in log]
    told = [Message(r.topic, (r.key or b"").decode(), r.value or b"", r.headers) for r in records]
    assert await bus.publish(told) == [None] * len(told)
    await bus.stop()

    status, output, errors = await command(broker_address, "--json")
    assert (status, errors) == (0, "")
    card = Scorecard.model_validate(json.loads(output))
    assert card == await counted_here(year, card.as_of)
    assert sum(payer.all.received for payer in card.payers) == REQUESTS

    status, output, errors = await command(broker_address)
    assert (status, errors) == (0, "")
    assert all(payer.payer_id in output for payer in card.payers)
